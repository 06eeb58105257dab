"""The trust policy file (C2SP tlog-policy): which logs and witnesses are known, and how many cosignatures are enough.

One format for three readers: the log that asks witnesses, the witness that serves logs, and whoever verifies a
proof. Pure; opfs.witness.files reads the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opfs.core.notekeys import Kind, Verifier
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

NONE = "none"
MAX_NAME_BYTES = 255
"""tlog-cosignature: what is signed holds names after a length of one byte."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_BLANKS = re.compile(r"[ \t]+")
_COUNT = re.compile(r"[1-9][0-9]{0,5}\Z")


@dataclass(frozen=True, slots=True)
class KnownWitness:
    """A witness: `name` means something in its policy only; `url` is its submission prefix, where it has one."""

    name: str
    key: Verifier
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Witnesses a checkpoint as soon as `threshold` of its members do."""

    threshold: int
    members: tuple[str, ...]


@dataclass(slots=True)
class Policy:
    """What a policy file says; `logs` holds every key of an origin, `groups` are in the order of their lines."""

    logs: dict[str, tuple[Verifier, ...]] = field(default_factory=dict)
    witnesses: dict[str, KnownWitness] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    quorum: str = NONE

    def is_witnessed(self, names: Collection[str]) -> bool:
        """Whether cosignatures of the witnesses named are enough."""
        held = set(names) & self.witnesses.keys()
        for name, group in self.groups.items():  # a group names only those before it
            if len(held.intersection(group.members)) >= group.threshold:
                held.add(name)
        return self.quorum == NONE or self.quorum in held


def parse_policy(text: str) -> Policy:
    """Read a policy file; raises InvalidRequest that names the line."""
    reader = _Reader()
    for number, line in enumerate(text.split("\n"), 1):
        words = [word for word in _BLANKS.split(line) if word]
        try:
            if _CONTROL.search(line):
                raise InvalidRequest("it has a control character", hint="lines end with a newline alone")
            if words and not words[0].startswith("#"):
                reader.read(words[0], words[1:])
        except InvalidRequest as error:
            raise InvalidRequest(f"line {number} of the policy: {error.reason}", hint=error.hint) from None
    if reader.quorum is None:
        raise InvalidRequest("the policy has no quorum line", hint="end it with 'quorum NAME' or 'quorum none'")
    reader.policy.quorum = reader.quorum
    return reader.policy


class _Reader:
    """A policy in the making."""

    def __init__(self) -> None:
        self.policy = Policy()
        self.quorum: str | None = None
        self._log_keys: set[bytes] = set()
        self._witness_keys: set[bytes] = set()
        self._members: set[str] = set()
        self._lines: dict[str, Callable[[list[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }

    def read(self, keyword: str, words: list[str]) -> None:
        if keyword not in self._lines:
            raise InvalidRequest(f"{keyword!r} begins no line", hint=f"lines begin with {', '.join(self._lines)} or #")
        self._lines[keyword](words)

    def _log(self, words: list[str]) -> None:
        if len(words) not in (1, 2):
            raise InvalidRequest("a log has a key and may have a URL", hint="write log VKEY [URL]")
        key = self._key(words[0], {Kind.ED25519, Kind.ML_DSA_44}, self._log_keys)
        self.policy.logs[key.name] = (*self.policy.logs.get(key.name, ()), key)

    def _witness(self, words: list[str]) -> None:
        if len(words) not in (2, 3):
            raise InvalidRequest("a witness has a name, a key and may have a URL", hint="write witness NAME VKEY [URL]")
        name = self._new_name(words[0])
        key = self._key(words[1], {Kind.COSIGNATURE, Kind.ML_DSA_44}, self._witness_keys)
        self.policy.witnesses[name] = KnownWitness(name, key, words[2] if len(words) == 3 else None)

    def _group(self, words: list[str]) -> None:
        hint = "write group NAME all|any|COUNT MEMBER…"
        if len(words) < 3:
            raise InvalidRequest("a group has a name, a count and members", hint=hint)
        name, count, *members = words
        self._new_name(name)
        for member in members:
            self._defined(member)
            if member in self._members:
                raise InvalidRequest(f"{member} is a member already", hint="a name is the member of one group, once")
            self._members.add(member)
        threshold = {"all": len(members), "any": 1}.get(count)
        if threshold is None:
            threshold = int(count) if _COUNT.match(count) else 0
        if not 1 <= threshold <= len(members):
            raise InvalidRequest(f"{count} is no count of {len(members)} members", hint=hint)
        self.policy.groups[name] = Group(threshold, tuple(members))

    def _quorum(self, words: list[str]) -> None:
        if self.quorum is not None:
            raise InvalidRequest("there are two quorum lines", hint="write one")
        if len(words) != 1:
            raise InvalidRequest("a quorum has a name", hint="write quorum NAME, or quorum none")
        if words[0] != NONE:
            self._defined(words[0])
        self.quorum = words[0]

    def _key(self, vkey: str, kinds: set[Kind], known: set[bytes]) -> Verifier:
        key = Verifier.parse(vkey)
        if key.kind not in kinds:
            hint = f"this line takes {' or '.join(f'{kind:02x}' for kind in sorted(kinds))}"
            raise InvalidRequest(f"the key {key.name} is of kind {key.kind:02x}", hint=hint)
        if len(key.name.encode()) > MAX_NAME_BYTES:
            raise InvalidRequest(
                f"the name of a key is longer than {MAX_NAME_BYTES} bytes", hint="it could not be signed"
            )
        # the key itself, whatever its name: one key under two names would count twice
        if key.public in known:
            raise InvalidRequest(f"the key {key.name} is there already", hint="give each key once")
        known.add(key.public)
        return key

    def _new_name(self, name: str) -> str:
        if name == NONE or name in self.policy.witnesses or name in self.policy.groups:
            raise InvalidRequest(f"the name {name} is taken", hint="witnesses and groups have names of their own")
        return name

    def _defined(self, name: str) -> None:
        if name not in self.policy.witnesses and name not in self.policy.groups:
            raise InvalidRequest(f"{name} is no witness and no group of a line before", hint="define it first")
