"""The `wireguard` plugin: WireGuard interfaces of the network namespace that the daemon runs in.

The kernel's devices where it has WireGuard, else one wireguard-go process for each, which goes on when the daemon
stops and is found again by the interface's name. Secrets are resolved when they are applied; what is observed are
public keys. Before a change everything of an interface is kept in a file of root's, as a restore point, because no
document has its keys. Calls run in worker threads; those for different interfaces may run concurrently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import trio

from opfs.clients.wireguard.backend import choose_backend, why_unavailable
from opfs.clients.wireguard.interface import MESH_MARK, Tunnels, describe_tunnel
from opfs.clients.wireguard.watching import watch_tunnels
from opfs.core.action import Action, ApplyResult, Checkpoint, Difference, Document, StateDiff
from opfs.core.names import ELEMENT_NAME
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, PluginContext
from opfs.plugins.wireguard.accepts import INTERFACE_NAME, check_interface
from opfs.plugins.wireguard.plan import PLUGIN, compare_interface, plan_interface
from opfs.ports import Capabilities, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


class WireguardPlugin(ContractDefaults):
    """WireGuard interfaces as elements."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities(supports_rollback=True, supports_checkpoints=True, watch=True)

    def __init__(self, context: PluginContext) -> None:
        super().__init__()
        self._backend = choose_backend(PLUGIN, context.settings)
        self._tunnels = Tunnels(context.state_dir, context.secret, backend=self._backend)

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Setting `backend`: auto, kernel or userspace (wireguard-go)."""
        return cls(context)

    def why_unavailable(self) -> str | None:
        return why_unavailable(self._backend)

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        check_interface(element, desired)

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        return plan_interface(element, current, desired)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        del element
        return tuple(compare_interface(desired, observed))

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """All but the interfaces of meshes; those that are asked for by name, or have a document, always."""
        if elements is None:
            wanted = desired or {}
            everything = await trio.to_thread.run_sync(self._tunnels.see_all)
            return {
                name: describe_tunnel(seen)
                for name, seen in everything.items()
                if name in wanted or (ELEMENT_NAME.match(name) and seen.mark != MESH_MARK)
            }
        names = [name for name in elements if INTERFACE_NAME.match(name)]
        found = await trio.to_thread.run_sync(self._tunnels.see, names)
        return {name: describe_tunnel(seen) for name, seen in found.items()}

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """The kernel tells of links, addresses and routes; keys and peers are looked at every few seconds."""

        def tell(name: str | None, culprit: str) -> None:
            if name is None or ELEMENT_NAME.match(name):
                report(Sighting(name, culprit))

        await watch_tunnels(self._tunnels, tell)

    # --- apply -----------------------------------------------------------------------------------------

    async def apply(self, action: Action) -> ApplyResult:
        if not INTERFACE_NAME.match(action.element):
            raise ApplyFailed(f"{action.element!r} cannot name an interface")
        done = await trio.to_thread.run_sync(self._tunnels.apply, action.step, action.element, action.details)
        return ApplyResult(action, done)

    async def checkpoint(self, element: str) -> Checkpoint:
        id = await trio.to_thread.run_sync(self._tunnels.checkpoint, element)
        return Checkpoint(id, PLUGIN, element)

    async def rollback(self, checkpoint: Checkpoint) -> None:
        await trio.to_thread.run_sync(self._tunnels.rollback, checkpoint.element, checkpoint.id)

    async def release(self, checkpoint: Checkpoint) -> None:
        await trio.to_thread.run_sync(self._tunnels.release, checkpoint.id)
