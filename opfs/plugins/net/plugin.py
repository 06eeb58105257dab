"""The `net` plugin: the interfaces of the network namespace that the daemon runs in.

It keeps nothing: what there is, the kernel shows. Every action says what is to be so and is idempotent. Calls to
the kernel run in worker threads, since a change waits for the kernel's lock; calls for different interfaces may
run concurrently. Interfaces that other programs own are only changed by a document of their name.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, ClassVar

import trio

from opfs.clients.netlink.changes import (
    NewLink,
    change_link,
    delete_link,
    make_link,
    set_addresses,
    set_master,
    set_routes,
    set_up,
)
from opfs.clients.netlink.kernel import KernelRefusal
from opfs.clients.netlink.kinds import TYPES
from opfs.clients.netlink.monitor import watch_interfaces
from opfs.clients.netlink.reading import read_all, read_one
from opfs.core.action import Action, ApplyResult, Difference, Document, StateDiff
from opfs.core.names import ELEMENT_NAME, ElementId
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults
from opfs.plugins.net.accepts import check_interface, is_kernel_name
from opfs.plugins.net.describe import belongs_to_others, describe, describe_as_found
from opfs.plugins.net.plan import compare_interface, plan_interface
from opfs.plugins.net.settings import PLUGIN
from opfs.ports import Capabilities, Dependency, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from opfs.clients.netlink.reading import Interface

_READ_ALL_FROM = 20
"""From so many elements on, one reading of everything is cheaper than a reading for each."""


class NetPlugin(ContractDefaults):
    """Interfaces as elements."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities(watch=True)

    def why_unavailable(self) -> str | None:
        return None if os.geteuid() == 0 else "changing the network needs root; run the daemon as root"

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        check_interface(element, desired)

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        return plan_interface(element, current, desired)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        return tuple(compare_interface(element, desired, observed))

    def depends_on(self, element: str, desired: Document) -> Sequence[Dependency]:
        """What it is a port of and what it lies on, which may be the kernel's or Open vSwitch's."""
        names = {desired[key] for key in ("master", "parent") if desired.get(key)}
        return [Dependency((ElementId(PLUGIN, name), ElementId("ovs", name))) for name in sorted(names)]

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """Everything but what belongs to others; those that are asked for by name, or have a document, always.

        Whose document says `other` is somebody else's, whatever kind it is of: it is configured, never removed.
        """
        wanted = desired or {}
        if elements is None:
            interfaces = await trio.to_thread.run_sync(read_all)
            return {
                name: _describe(name, interface, wanted)
                for name, interface in interfaces.items()
                if name in wanted or (ELEMENT_NAME.match(name) and not belongs_to_others(interface))
            }
        names = [name for name in elements if is_kernel_name(name)]
        interfaces = await trio.to_thread.run_sync(_read, names)
        return {name: _describe(name, interface, wanted) for name, interface in interfaces.items()}

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        def tell(name: str | None, culprit: str) -> None:
            if name is None or ELEMENT_NAME.match(name):
                report(Sighting(name, culprit))

        await watch_interfaces(tell)

    # --- apply -----------------------------------------------------------------------------------------

    async def apply(self, action: Action) -> ApplyResult:
        step = _STEPS.get(action.step)
        if step is None or not is_kernel_name(action.element):
            raise ApplyFailed(f"net has no step {action.step!r} for {action.element!r}")
        return ApplyResult(action, await trio.to_thread.run_sync(step, action.element, action.details))


def _describe(name: str, interface: Interface, wanted: Mapping[str, Document]) -> Document:
    return describe_as_found(interface) if wanted.get(name, {}).get("type") == "other" else describe(interface)


def _read(names: Sequence[str]) -> dict[str, Interface]:
    if len(names) >= _READ_ALL_FROM:
        everything = read_all()
        return {name: everything[name] for name in names if name in everything}
    return {name: interface for name in names if (interface := read_one(name)) is not None}


def _create(name: str, details: Mapping[str, Any]) -> str:
    new = NewLink(name, **details)
    try:
        make_link(new)
    except KernelRefusal as error:
        # The name is taken: by an earlier run of this action, or by the other end of a pair, made with it.
        there = read_one(name) if error.number == errno.EEXIST else None
        if there is None or not _is_same(new, describe(there)):
            raise
        change_link(name, mtu=new.mtu, mac=new.mac)
        return f"the {new.type} {name} was there"
    return f"created the {new.type} {name}"


def _is_same(new: NewLink, found: Document) -> bool:
    """Whether a link is what is to be made, in all that is settled when a link is made."""
    if found["type"] != new.type or any(found.get(key, "") != getattr(new, key) for key in ("parent", "peer")):
        return False
    options, known = found.get(new.type, {}), TYPES[new.type].options
    return all(options.get(word, known[word].default) == value for word, value in new.options.items())


def _set_link(name: str, details: Mapping[str, Any]) -> str:
    change_link(name, mtu=details.get("mtu"), mac=details.get("mac"), alias=details.get("description"))
    return f"set {', '.join(details)} of {name}"


def _set_options(name: str, details: Mapping[str, Any]) -> str:
    change_link(name, type_=details["type"], options=details["options"])
    return f"set {', '.join(details['options'])} of {name}"


def _set_state(name: str, details: Mapping[str, Any]) -> str:
    set_up(name, details["state"] == "up")
    return f"{name} is {details['state']}"


def _set_master(name: str, details: Mapping[str, Any]) -> str:
    set_master(name, details["master"] or None)
    return f"{name} is a port of {details['master'] or 'nothing'}"


def _set_addresses(name: str, details: Mapping[str, Any]) -> str:
    return _said(*set_addresses(name, details["addresses"]), f"the addresses of {name}")


def _set_routes(name: str, details: Mapping[str, Any]) -> str:
    return _said(*set_routes(name, details["routes"]), f"the routes through {name}")


def _delete(name: str, details: Mapping[str, Any]) -> str:
    del details
    return f"removed {name}" if delete_link(name) else f"{name} was gone"


def _said(added: Sequence[str], removed: Sequence[str], what: str) -> str:
    parts = [f"added {', '.join(added)}"] if added else []
    parts += [f"removed {', '.join(removed)}"] if removed else []
    return f"{what}: {'; '.join(parts) or 'as they were'}"


_STEPS: Mapping[str, Callable[[str, Mapping[str, Any]], str]] = {
    "create": _create,
    "delete": _delete,
    "set-link": _set_link,
    "set-options": _set_options,
    "set-state": _set_state,
    "set-master": _set_master,
    "set-addresses": _set_addresses,
    "set-routes": _set_routes,
}
