"""Desired state made real: what a plugin is to the rest (plugins.md).

Concurrency: `async` methods run on the trio thread and may block only by awaiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from opfs.core.action import Action, ApplyResult, Checkpoint, Difference, Document, StateDiff
    from opfs.core.names import ElementId


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a plugin's backend can do (names of the original proposal).

    Without `supports_verification` what is observed says nothing of what was applied before the last start, so that no
    drift is looked for. With `slow_check` the function `check` asks a program, and is called in a worker thread.
    """

    supports_rollback: bool = False
    supports_checkpoints: bool = False
    supports_verification: bool = True
    atomic_operations: bool = False
    watch: bool = False
    slow_check: bool = False


@dataclass(frozen=True, slots=True)
class Dependency:
    """Something that must be in place before an element: one of `any_of`, whichever plugin provides it.

    In place means committed and applied, or there on the host though nobody declared it.
    """

    any_of: tuple[ElementId, ...]


@dataclass(frozen=True, slots=True)
class Sighting:
    """A change that a plugin's backend reports and opfs did not make, or an echo of one it made.

    `element` is None where the backend does not say which. `culprit` is who did it, in the words of the kernel
    or the bus ("uid 1000, pid 4242 (ip)", "bus name :1.42, uid 0"), empty where they do not tell.
    """

    element: str | None
    culprit: str = ""


class Plugin(Protocol):
    """Desired state made real: see plugins.md. `plan` and `compare` are pure; the rest may block.

    The daemon calls, for every plugin alike: observe, plan, policy, checkpoint, apply each action, verify.
    Calls for different elements run concurrently; calls for one element never do.
    """

    @property
    def name(self) -> str: ...

    @property
    def schema(self) -> Mapping[str, object]:
        """JSON Schema 2020-12 of one element, with descriptions and examples.

        `x-volatile: true` on a property exempts it from verification.
        """
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    @property
    def version_hash(self) -> str:
        """BLAKE3, hex, of the plugin's package: `plugin_hash` of its events."""
        ...

    def why_unavailable(self) -> str | None:
        """None where the plugin can work here; else the reason and how to get what is missing."""
        ...

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """What is there now, by element, in the schema's shape; absent elements are left out.

        `None` means every element the backend has. `desired` gives the documents about to be planned, where
        there are any: a backend that finds an element only through its document (a file by its path) looks
        there too. Read-only.
        """
        ...

    def check(self, element: str, desired: Document) -> None:
        """Raise InvalidRequest (with the JSON pointer) for what the schema cannot say. Pure."""
        ...

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        """The actions from `current` (observed, None: absent) to `desired` (None: delete). Pure."""
        ...

    async def apply(self, action: Action) -> ApplyResult:
        """Do one action: idempotent, cancellable. Raises ApplyFailed with the backend's own words."""
        ...

    async def checkpoint(self, element: str) -> Checkpoint | None:
        """A restore point where the backend can, else None (then the inverse plan undoes)."""
        ...

    async def rollback(self, checkpoint: Checkpoint) -> None:
        """Return the element to the checkpoint. Raises ApplyFailed."""
        ...

    async def release(self, checkpoint: Checkpoint) -> None:
        """Drop a checkpoint that is no longer needed."""
        ...

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        """In what the observed state is not the desired one; empty means verified. Pure."""
        ...

    def depends_on(self, element: str, desired: Document) -> Sequence[Dependency]:
        """What must be in place before this element, all of it. Pure."""
        ...

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """Listen to the backend and report changes until cancelled; called where `capabilities.watch`.

        `report` is quick and may be called for changes that opfs itself makes: whoever listens observes and
        compares. Raises ApplyFailed where the backend goes away; the caller calls again later.
        """
        ...

    def is_protected(self, element: str, current: Document) -> bool:
        """Whether the element refuses to be deleted. Pure; `current` is the committed document."""
        ...

    @property
    def apply_timeout_s(self) -> float:
        """How long all actions of one element together may take."""
        ...


@runtime_checkable
class AppliesMany(Protocol):
    """What a plugin may have beside `Plugin`, where many elements together cost its backend less than one by one."""

    async def apply_many(self, work: Sequence[Sequence[Action]], report: Callable[[ApplyResult], None]) -> None:
        """Do what `apply` does for the actions of several elements: of each element in their order, each element once.

        The elements need nothing of each other. `report`, which is quick and may be called from a worker thread, hears
        of an action when it is done and as lasting as `apply` makes it. Raises ApplyFailed for the first that fails:
        what was not reported by then may have been done, or half, and is no longer worked on.
        """
        ...
