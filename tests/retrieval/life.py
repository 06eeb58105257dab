"""The life of a plausible host: changes of all plugins with their facts, made from a seed.

The same seed and breadth give the same life, whatever is asked of it; nothing here looks at how changes are worded or
ranked. Documents fit the plugins' schemas; plans and drift are the plugins' own `plan` and `compare`. Pure but for
building the plugins, which read their packages.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from opfs.plugins.contract import PluginContext
from retrieval import containers, networks, software, switches
from retrieval.facts import Change, Deed, Fact, Host, choose
from retrieval.inventory import COMMANDS, USERS
from retrieval.reasons import CAUSES, WHYS, Reason, fitting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opfs.core.names import ElementId
    from opfs.ports import Plugin
    from retrieval.facts import Document

AREAS = (
    (containers.DEEDS, 5.0),
    (networks.DEEDS, 4.0),
    (switches.DEEDS, 2.6),
    (software.DEEDS, 5.5),
)
FAILS, DRIFTS, SAYS_WHY = 0.08, 0.05, 0.42
START_NS = 1_746_086_400_000_000_000
"""2025-05-01T08:00Z."""
_DAY_NS = 86_400_000_000_000
_CULPRITS = ("ip", "systemctl", "lxc-attach", "ovs-vsctl", "nano", "apt-get", "dhclient", "")


@cache
def plugins() -> Mapping[str, Plugin]:
    """Every plugin that opfs brings, by name; none of them touches its backend."""
    context = PluginContext(Path("/nonexistent"))
    return {entry.name: entry.load().from_context(context) for entry in entry_points(group="opfs.plugins")}


class Life:
    """An endless stream of changes to one host, from `seed`; `breadth` multiplies the things there are."""

    def __init__(self, seed: int, breadth: int = 1) -> None:
        self._random = Random(seed)
        self._host = Host(self._random, breadth)
        self._seq = 0
        self._now_ns = START_NS

    def changes(self, count: int) -> Iterator[Change]:
        """The next `count` changes."""
        end = self._seq + count
        while self._seq < end:
            change = self._drift() if self._random.random() < DRIFTS else self._deed()
            if change is not None:
                self._seq += 1
                yield change

    # --- what people do ----------------------------------------------------------------------------------

    def _deed(self) -> Change | None:
        random, host = self._random, self._host
        deeds = random.choices([deeds for deeds, _ in AREAS], [weight for _, weight in AREAS])[0]
        deed = choose(random, deeds)(host)
        if deed is None:
            return None
        old = host.documents.get(deed.id)
        user = random.choices(USERS, (6, 8, 7, 6, 4, 4, 3, 3, 4, 3))[0]
        why, message = self._why(deed)
        if "{ticket}" in message:
            ticket = str(random.randint(4000, 9999))
            message = message.replace("{ticket}", ticket)
            deed = replace(deed, values={**deed.values, "ticket": ticket})
        cause = self._cause(deed)
        if cause is None:
            self._commit(deed)
            op = "create" if old is None else "delete" if deed.document is None else "update"
            return self._change(deed, op, old, user, message, why)
        reason = f"{random.choice(cause.messages)}. nothing was done before that. everything was undone"
        if "{bridge}" in reason:
            network = (deed.document or {}).get("net0", {})
            reason = reason.replace("{bridge}", network.get("bridge", "vmbr9"))
        said = f"{message}\n{reason}" if message else reason
        return self._change(deed, "apply-failed", old, user, said, why, cause.key)

    def _commit(self, deed: Deed) -> None:
        if deed.document is None:
            del self._host.documents[deed.id]
        else:
            self._host.documents[deed.id] = deed.document
            self._host.subjects[deed.id] = deed.subject

    def _why(self, deed: Deed) -> tuple[str, str]:
        """A reason's key and the message; most people say nothing, and some say it in their own way."""
        random = self._random
        if random.random() > SAYS_WHY:
            return "", ""
        fits = fitting(WHYS, deed.id.plugin, deed.kind)
        special = [reason for reason in fits if reason.families]
        why = random.choice(special if special and random.random() < 0.8 else fits)
        return why.key, random.choice(why.messages)

    def _cause(self, deed: Deed) -> Reason | None:
        if self._random.random() > FAILS:
            return None
        return self._random.choice(fitting(CAUSES, deed.id.plugin, deed.kind))

    def _change(
        self, deed: Deed, op: str, old: Document | None, user: str, message: str, why: str, cause: str = ""
    ) -> Change:
        fact = Fact(deed.kind, deed.subject, deed.values, user, "failed" if cause else "done", why, cause)
        command = self._random.choice(COMMANDS)
        return Change(self._seq, deed.id, op, self._time(), old, deed.document, user, command, message, fact)

    def _time(self) -> int:
        """Later than the last; at night and on weekends little happens."""
        self._now_ns += int(self._random.expovariate(1 / (_DAY_NS / 5.5)))
        while (self._now_ns // 3_600_000_000_000) % 24 < 6 and self._random.random() < 0.8:
            self._now_ns += 3_600_000_000_000
        return self._now_ns

    # --- what happens behind opfs' back --------------------------------------------------------------------

    def _drift(self) -> Change | None:
        random, host = self._random, self._host
        ids = sorted(host.documents)
        if not ids:
            return None
        id = random.choice(ids)
        document = host.documents[id]
        found, kind, values = _otherwise(random, id, document)
        if found is document:
            return None
        differences = plugins()[id.plugin].compare(id.element, document, found)
        if not differences:
            return None
        fact = Fact(kind, host.subjects[id], values, "", "drift")
        culprit = random.choice(_CULPRITS)
        message = "; ".join(sorted(map(str, differences)))
        return Change(self._seq, id, "drift", self._time(), document, document, "", culprit, message, fact)


def _otherwise(random: Random, id: ElementId, document: Document) -> tuple[Document | None, str, Mapping[str, str]]:
    """What the host has instead of a document, the kind of the drift, and what a question may name."""
    wishes: list[tuple[str, Any, str]] = []
    if id.plugin == "lxc":
        wishes = [("state", "stopped" if document.get("state") == "running" else "running", "driftpower")]
        if "memory" in document:
            wishes.append(("memory", random.choice((128, 640, 5120)), "driftmemory"))
    elif id.plugin == "net":
        wishes = [("state", "down", "driftlink")] if document.get("state") == "up" else []
        wishes += [("mtu", 1492, "driftmtu")] if "mtu" in document else []
        wishes += [("addresses", [], "driftip")] if document.get("addresses") else []
    elif id.plugin == "systemd":
        wishes = [("active", not document["active"], "driftunit")] if "active" in document else []
    elif id.plugin == "packagekit":
        wishes = [("ensure", "absent", "driftpackage")] if document.get("ensure") == "present" else []
    elif id.plugin == "file" and "content" in document:
        wishes = [("content", document["content"] + "# edited by hand\n", "driftfile")]
    elif id.plugin == "wireguard" and "listen_port" in document:
        wishes = [("listen_port", 60000 + random.randint(0, 999), "driftvpnport")]
    if not wishes:
        return document, "", {}
    key, value, kind = random.choice(wishes)
    return {**document, key: value}, f"{kind}.seen", {"found": str(value)} if isinstance(value, int) else {}
