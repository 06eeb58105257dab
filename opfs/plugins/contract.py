"""What most plugins answer alike: the defaults of the plugin contract and how a plugin is built.

A plugin is any class that fits `opfs.ports.Plugin`; deriving from `ContractDefaults` saves it the common
parts. This module knows no plugin and touches no backend. Everything here is pure but the two functions
that read the plugin's own package, which run once, when the plugin is built.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from blake3 import blake3

from opfs.core.action import Checkpoint, Difference, Document
from opfs.core.difference import is_secret, same_json
from opfs.core.position import join_pointer
from opfs.errors import ApplyFailed, InvalidRequest, Location
from opfs.ports import Capabilities, Dependency, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


def _no_secret(name: str) -> bytes:
    raise ApplyFailed(f"the secret {name!r} is asked for, and there is no place that holds secrets")


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What the composition root gives a plugin to build itself from.

    `state_dir` is the plugin's own, private to root, and may not exist yet; `forbidden_paths` are the trees
    that no plugin may change or expose (the mount and the pool); `settings` is the plugin's part of the
    configuration. `secret` gives the value of what a document calls `{"$secret": name}`; only `apply` calls
    it, so that no plan, journal or event ever holds a secret. It raises ApplyFailed for one that is not there.
    """

    state_dir: Path
    forbidden_paths: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    secret: Callable[[str], bytes] = field(default=_no_secret)


class ContractDefaults:
    """A plugin with a `schema.json` beside its module, no checkpoints, and no dependencies.

    A subclass sets `name` and provides `observe`, `plan` and `apply`.
    """

    name: ClassVar[str]
    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(self) -> None:
        module_file = Path(sys.modules[type(self).__module__].__file__ or "")
        self.schema: Mapping[str, Any] = load_schema(module_file.parent)
        self.version_hash = hash_package(module_file.parent)
        self.apply_timeout_s = 60.0

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Build the plugin as the registry does; a plugin that needs settings overrides it."""
        del context
        return cls()

    def why_unavailable(self) -> str | None:
        return None

    def check(self, element: str, desired: Document) -> None:
        """Refuse what only an observation may say (`readOnly` in the schema)."""
        del element
        for key, rule in self.schema.get("properties", {}).items():
            if key in desired and isinstance(rule, dict) and rule.get("readOnly"):
                refuse(f"/{key}", f"{key!r} is reported by the host and cannot be asked for", "leave it out")

    async def checkpoint(self, element: str) -> Checkpoint | None:
        del element
        return None

    async def rollback(self, checkpoint: Checkpoint) -> None:
        raise ApplyFailed(f"{self.name} makes no checkpoints, so it cannot return to {checkpoint.id!r}")

    async def release(self, checkpoint: Checkpoint) -> None:
        del checkpoint

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        """Every key of `desired` must be there and equal; keys that `desired` does not name are free."""
        del element
        if desired is None or observed is None:
            return () if desired is observed else (Difference("", desired, observed),)
        return tuple(differences(desired, observed, self.schema))

    def depends_on(self, element: str, desired: Document) -> Sequence[Dependency]:
        del element, desired
        return ()

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        del report
        raise ApplyFailed(f"{self.name} cannot notify of changes")

    def is_protected(self, element: str, current: Document) -> bool:
        """What the document says under `protected`, for plugins whose schema has it."""
        del element
        return bool(current.get("protected"))


def refuse(pointer: str, reason: str, hint: str = "") -> None:
    """Raise InvalidRequest for the spot `pointer` of a document; the caller of `check` finds its line."""
    raise InvalidRequest(reason, hint=hint, location=Location(1, 1, pointer))


def differences(
    desired: Mapping[str, Any], observed: Mapping[str, Any], schema: Mapping[str, Any], at: tuple[str, ...] = ()
) -> Iterator[Difference]:
    """In what `observed` is not `desired`, skipping volatile properties and secrets.

    A secret is resolved only while it is applied, so what a document says of it, `{"$secret": name}`, can
    never equal what is observed. Objects are compared key by key, everything else as a whole.
    """
    rules = schema.get("properties", {})
    for key, wanted in desired.items():
        rule = rules.get(key, {})
        if (isinstance(rule, dict) and rule.get("x-volatile")) or is_secret(wanted):
            continue
        found = observed.get(key)
        if isinstance(wanted, dict) and isinstance(found, dict):
            yield from differences(wanted, found, rule if isinstance(rule, dict) else {}, (*at, key))
        elif not same_json(wanted, found):
            yield Difference(join_pointer((*at, key)), wanted, found)


def load_schema(package: Path) -> Mapping[str, Any]:
    """Read `schema.json` of a plugin's folder."""
    schema: Mapping[str, Any] = json.loads((package / "schema.json").read_bytes())
    return schema


def hash_package(package: Path) -> str:
    """The BLAKE3 of a plugin's folder, hex: what an event records as `plugin_hash`.

    Covers each file's path and content in the order of the paths' bytes, each with its length before it, so
    that no two folders give the same input. Compiled files are left out: they depend on the interpreter.
    """
    hasher = blake3()
    files = {str(file.relative_to(package)).encode(): file for file in package.rglob("*") if file.is_file()}
    for name in sorted(files):
        if b"__pycache__" in name.split(b"/"):
            continue
        for part in (name, files[name].read_bytes()):
            hasher.update(len(part).to_bytes(8, "big"))
            hasher.update(part)
    return hasher.hexdigest()
