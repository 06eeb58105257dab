"""Documents that somebody wants a plan of: each user's own, in memory, bounded in number, bytes and time.

A plan must not outlive the person who looks at it, so a restart forgets all of them. Trio thread only; no method
blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from opfs.core.restore_state import OF_ROOT, Access
from opfs.errors import NoSpace

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from opfs.core.names import ElementId
    from opfs.ports import Clock

LIFETIME_NS = 3600 * 10**9
"""How long a plan stays after it was written."""

MAX_COUNT = 50_000
MAX_BYTES = 64 << 20
MAX_TOTAL_BYTES = 128 << 20
"""Of one user, of one user, and of all together: a whole host is restored from here."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What is wanted of an element: its document, byte for byte, or None for a delete.

    `access` is whose the document shall be where somebody said so: chmod and chown of the plan.
    """

    id: ElementId
    content: bytes | None
    time_ns: int
    access: Access | None = None

    @property
    def size(self) -> int:
        return len(self.content or b"")


@dataclass(slots=True)
class _User:
    """One user's plans, the oldest first; `kept` and `gone` are the elements with a document and those without."""

    plans: dict[ElementId, Planned] = field(default_factory=dict)
    kept: set[ElementId] = field(default_factory=set)
    gone: set[ElementId] = field(default_factory=set)
    size_bytes: int = 0

    def add(self, planned: Planned) -> None:
        self.plans[planned.id] = planned
        (self.gone if planned.content is None else self.kept).add(planned.id)
        self.size_bytes += planned.size

    def drop(self, id: ElementId) -> None:
        planned = self.plans.pop(id, None)
        if planned is not None:
            self.kept.discard(id)
            self.gone.discard(id)
            self.size_bytes -= planned.size

    def expire(self, limit_ns: int) -> None:
        while self.plans and (oldest := next(iter(self.plans.values()))).time_ns <= limit_ns:
            self.drop(oldest.id)


class PlanStore:
    """The plans of all users; nobody sees another's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._users: dict[int, _User] = {}

    def get(self, uid: int, id: ElementId) -> Planned | None:
        return self._of(uid).plans.get(id)

    def of(self, uid: int, plugin: str) -> Sequence[Planned]:
        """A user's plans for a plugin, by name."""
        own = [planned for id, planned in self._of(uid).plans.items() if id.plugin == plugin]
        return sorted(own, key=lambda planned: planned.id)

    def wanted_of(self, uid: int) -> tuple[Collection[ElementId], Collection[ElementId]]:
        """The elements that a user plans to have, and those to be rid of, as of now."""
        own = self._of(uid)
        return own.kept, own.gone

    def put(self, uid: int, id: ElementId, content: bytes | None) -> None:
        """Keep a plan, in place of an earlier one of that element; raises NoSpace past a limit."""
        planned, own = Planned(id, content, self._clock.now_ns()), self._of(uid)
        earlier = own.plans.get(id)
        more = planned.size - (earlier.size if earlier else 0)
        if earlier is None and len(own.plans) >= MAX_COUNT:
            raise NoSpace(f"you have {MAX_COUNT} plans already", hint="remove some: rm plan/<plugin>/*")
        total = sum(user.size_bytes for user in self._users.values())
        if own.size_bytes + more > MAX_BYTES or total + more > MAX_TOTAL_BYTES:
            raise NoSpace("the plans take too much memory", hint="remove some: rm plan/<plugin>/*")
        own.drop(id)
        own.add(planned)
        self._users[uid] = own

    def set_access(
        self, uid: int, id: ElementId, *, mode: int | None = None, owner: int | None = None, group: int | None = None
    ) -> None:
        """Say whose the planned document shall be, as far as given; nothing where there is no plan."""
        planned = self._of(uid).plans.get(id)
        if planned is not None:
            was = planned.access or OF_ROOT
            now = Access(
                was.mode if mode is None else mode & 0o7777,
                was.uid if owner is None else owner,
                was.gid if group is None else group,
            )
            self._of(uid).plans[id] = replace(planned, access=now)

    def drop(self, uid: int, id: ElementId) -> None:
        """Forget a plan; nothing where there is none."""
        self._of(uid).drop(id)

    def _of(self, uid: int) -> _User:
        """The user's plans, once everybody's old ones are forgotten."""
        limit_ns = self._clock.now_ns() - LIFETIME_NS
        for other, user in list(self._users.items()):
            user.expire(limit_ns)
            if not user.plans:
                del self._users[other]
        return self._users.get(uid) or _User()
