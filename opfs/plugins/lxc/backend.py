"""What the lxc plugin needs of whatever runs its containers: plain LXC, or Proxmox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from opfs.core.action import Checkpoint, Document
    from opfs.ports import Capabilities, Sighting


class Backend(Protocol):
    """Containers as documents; see `opfs.ports.Plugin` for what each member owes."""

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def steps(self) -> Mapping[str, Callable[[str, Mapping[str, Any]], Awaitable[str]]]:
        """How each step of a plan is carried out; all of them idempotent."""
        ...

    @property
    def names_at_start(self) -> bool:
        """Whether a guest's resolv.conf is written only when it is started."""
        ...

    def complete(self, element: str, desired: Document, observed: Document | None) -> Document:
        """A document with the defaults this backend has of its own, so that it compares with what is observed; pure."""
        ...

    def why_unavailable(self) -> str | None: ...

    def check(self, element: str, desired: Document) -> None: ...

    async def observe(self, elements: Collection[str] | None) -> Mapping[str, Document]: ...

    async def checkpoint(self, element: str) -> Checkpoint | None: ...

    async def rollback(self, checkpoint: Checkpoint) -> None: ...

    async def release(self, checkpoint: Checkpoint) -> None: ...

    async def watch(self, report: Callable[[Sighting], None]) -> None: ...
