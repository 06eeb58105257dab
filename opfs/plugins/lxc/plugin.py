"""The `lxc` plugin: containers as elements, on plain LXC, or through `pct` where that is installed.

The plan, the comparison and the documents are the same on both; what is planned is carried out by one backend.
Runs on the trio thread. Calls for different containers may run concurrently.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from opfs.clients.pct import Pct
from opfs.core.action import Action, ApplyResult, Checkpoint, Difference, Document, StateDiff
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, PluginContext
from opfs.plugins.lxc.accepts import LXC_NAME
from opfs.plugins.lxc.plain import PlainLxc
from opfs.plugins.lxc.plan import PLUGIN, bridges_of, compare_container, plan_container, settle
from opfs.plugins.lxc.proxmox import Proxmox
from opfs.ports import Dependency

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from opfs.plugins.lxc.backend import Backend
    from opfs.ports import Sighting

DEFAULT_LXCPATH = Path("/var/lib/lxc")
DEFAULT_CONFIG = Path("/etc/lxc/default.conf")
DEFAULT_OVS_SOCKET = Path("/var/run/openvswitch/db.sock")


class LxcPlugin(ContractDefaults):
    """Containers as elements."""

    name: ClassVar[str] = PLUGIN

    def __init__(
        self,
        lxcpath: Path = DEFAULT_LXCPATH,
        *,
        forbidden_paths: Sequence[Path] = (),
        default_config: Path = DEFAULT_CONFIG,
        ovs_socket: Path = DEFAULT_OVS_SOCKET,
        subids: Path = Path("/etc"),
        backend: Backend | None = None,
    ) -> None:
        """`subids` is the directory of the files subuid and subgid."""
        super().__init__()
        self.apply_timeout_s = 420.0
        self.lxcpath = lxcpath
        self.backend: Backend = backend or PlainLxc(
            lxcpath,
            forbidden=tuple(map(str, (*forbidden_paths, lxcpath))),
            default_config=default_config,
            ovs_socket=ovs_socket,
            subids=subids,
        )
        self.capabilities = self.backend.capabilities  # type: ignore[misc]  # each backend has its own

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Settings, all of them optional.

        `lxcpath`: the LXC directory, /var/lib/lxc. `ovs_socket`: the database of Open vSwitch,
        /var/run/openvswitch/db.sock. `backend`: `lxc` or `pct`; `pct` is chosen where it is installed. `storage`: where
        Proxmox puts the roots of new containers, `local`. `ostemplate`: what Proxmox makes a container from
        whose document does not say.
        """
        settings = context.settings
        pct = Pct()
        is_proxmox = settings.get("backend", "pct" if pct.is_installed() else "lxc") == "pct"
        proxmox = Proxmox(
            pct,
            state_dir=context.state_dir,
            forbidden=tuple(map(str, context.forbidden_paths)),
            storage=settings.get("storage", "local"),
            ostemplate=settings.get("ostemplate"),
        )
        return cls(
            Path(settings.get("lxcpath", DEFAULT_LXCPATH)),
            forbidden_paths=context.forbidden_paths,
            ovs_socket=Path(settings.get("ovs_socket", DEFAULT_OVS_SOCKET)),
            backend=proxmox if is_proxmox else None,
        )

    def why_unavailable(self) -> str | None:
        return self.backend.why_unavailable()

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        self.backend.check(element, desired)

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        whole = None if desired is None else self.backend.complete(element, desired, current)
        return plan_container(element, current, whole, names_at_start=self.backend.names_at_start)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        if desired is None or observed is None:
            return super().compare(element, desired, observed)
        return tuple(compare_container(element, self.backend.complete(element, desired, observed), observed))

    def depends_on(self, element: str, desired: Document) -> Sequence[Dependency]:
        """A bridge may be the kernel's or Open vSwitch's."""
        bridges = bridges_of(settle(element, desired))
        return [Dependency((ElementId("net", bridge), ElementId("ovs", bridge))) for bridge in bridges]

    def is_protected(self, element: str, current: Document) -> bool:
        del element
        return bool(current.get("protection"))

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        del desired
        return await self.backend.observe(elements)

    async def apply(self, action: Action) -> ApplyResult:
        step = self.backend.steps.get(action.step)
        if step is None or not LXC_NAME.match(action.element):
            raise ApplyFailed(f"lxc has no step {action.step!r} for {action.element!r}")
        return ApplyResult(action, await step(action.element, action.details))

    async def checkpoint(self, element: str) -> Checkpoint | None:
        return await self.backend.checkpoint(element)

    async def rollback(self, checkpoint: Checkpoint) -> None:
        await self.backend.rollback(checkpoint)

    async def release(self, checkpoint: Checkpoint) -> None:
        await self.backend.release(checkpoint)

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        await self.backend.watch(report)
