"""The `mesh` plugin: this host's WireGuard interface in a full mesh, from one document that every host has.

It owns its interface wholly: device, peers, addresses and routes; a note on the link ("opfs mesh") tells it from other
WireGuard interfaces, and keeps the plugin wireguard from listing it. What no interface can say, the names of nodes and
what others see of this host, is in a record beside it; its loss costs names. As with every WireGuard interface, secrets
are resolved when they are applied and a restore point is kept in a file of root's. Calls run in worker threads; those
for different meshes may run concurrently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

import trio

from opfs.clients.wireguard.backend import choose_backend, why_unavailable
from opfs.clients.wireguard.interface import MESH_MARK, Seen, Tunnels, describe_tunnel
from opfs.clients.wireguard.keys import public_key_of, show_key
from opfs.clients.wireguard.tunnel import plan_tunnel, settle_tunnel
from opfs.clients.wireguard.watching import watch_tunnels
from opfs.core.action import Action, ApplyResult, Checkpoint, Difference, Document, StateDiff
from opfs.core.names import ELEMENT_NAME
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, PluginContext
from opfs.plugins.mesh.accepts import INTERFACE_NAME, check_mesh
from opfs.plugins.mesh.expansion import fold, node_of, settle_mesh
from opfs.plugins.mesh.plan import PLUGIN, compare_mesh, plan_mesh
from opfs.ports import Capabilities, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence


class MeshPlugin(ContractDefaults):
    """Meshes as elements; an element's name is the interface's."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities(supports_rollback=True, supports_checkpoints=True, watch=True)

    def __init__(self, context: PluginContext) -> None:
        super().__init__()
        self._backend = choose_backend(PLUGIN, context.settings)
        self._tunnels = Tunnels(context.state_dir, context.secret, mark=MESH_MARK, backend=self._backend)

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Setting `backend`: auto, kernel or userspace (wireguard-go)."""
        return cls(context)

    def why_unavailable(self) -> str | None:
        return why_unavailable(self._backend)

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        check_mesh(element, desired)

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        return plan_mesh(element, current, desired)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        del element
        return tuple(compare_mesh(desired, observed))

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """The interfaces that carry the note of a mesh."""
        del desired
        if elements is None:
            found = await trio.to_thread.run_sync(self._tunnels.see_all)
        else:
            names = [name for name in elements if INTERFACE_NAME.match(name)]
            found = await trio.to_thread.run_sync(self._tunnels.see, names)
        return {
            name: _describe(seen) for name, seen in found.items() if seen.mark == MESH_MARK and ELEMENT_NAME.match(name)
        }

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
        step = {"join": self._join, "note": self._note}.get(action.step)
        if step is not None:
            done = await trio.to_thread.run_sync(step, action.element, action.details["document"])
        else:
            done = await trio.to_thread.run_sync(self._tunnels.apply, action.step, action.element, action.details)
        return ApplyResult(action, done)

    def _join(self, element: str, document: Mapping[str, Any]) -> str:
        if "private_key" not in document:
            raise ApplyFailed(f"the key that {element} has is no node's, and the document names no private key")
        secret = document["private_key"]["$secret"]
        public_key = show_key(public_key_of(self._tunnels.resolve_key(secret)))
        name = node_of(document, public_key)
        if name is None:
            raise ApplyFailed(
                f"this host's public key is {public_key}, and no node of the mesh {element} has it",
                hint="add this host to nodes, in the document of every host",
            )
        seen = self._tunnels.see([element]).get(element)
        if seen is None:
            raise ApplyFailed(f"there is no WireGuard interface {element}")
        now, wanted = settle_tunnel(describe_tunnel(seen)), settle_mesh(document, name)
        for action in plan_tunnel(PLUGIN, element, now, wanted).actions:
            self._tunnels.apply(action.step, element, action.details)
        self._tunnels.remember(element, document)
        return f"joined the mesh {element} as {name}"

    def _note(self, element: str, document: Mapping[str, Any]) -> str:
        self._tunnels.remember(element, document)
        return f"noted the {len(document['nodes'])} nodes of the mesh {element}"

    async def checkpoint(self, element: str) -> Checkpoint:
        id = await trio.to_thread.run_sync(self._tunnels.checkpoint, element)
        return Checkpoint(id, PLUGIN, element)

    async def rollback(self, checkpoint: Checkpoint) -> None:
        await trio.to_thread.run_sync(self._tunnels.rollback, checkpoint.element, checkpoint.id)

    async def release(self, checkpoint: Checkpoint) -> None:
        await trio.to_thread.run_sync(self._tunnels.release, checkpoint.id)


def _describe(seen: Seen) -> Document:
    return fold(describe_tunnel(seen), seen.record.document)
