"""The command `import`: commit documents that describe what is there already, from their author's own /plan.

Who checks that nothing has to be done is the commit path; here is only who may, and where the documents are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.commit.change import Change
from opfs.core.names import ElementId
from opfs.errors import AccessDenied, InvalidRequest, NotFound
from opfs.ports import FileAttributes
from opfs.vfs.ctl import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opfs.core.actor import Actor
    from opfs.ports import Clock
    from opfs.vfs.node import Caller
    from opfs.vfs.plan_store import PlanStore
    from opfs.vfs.submissions import Submissions

_NEW_FILE = 0o666


def make_import(
    store: PlanStore, submissions: Submissions, identify: Callable[[Caller], Actor], clock: Clock
) -> Command:
    """`import`: all elements named become declared in one block, or none does."""

    async def run(words: Sequence[str], caller: Caller) -> None:
        if not words:
            raise InvalidRequest("import takes elements", hint="write: import net/eth0 net/br0")
        if caller.uid != 0:
            raise AccessDenied("only root may import", hint="what nobody declared belongs to nobody")
        attributes = FileAttributes(_NEW_FILE & ~caller.umask, caller.uid, caller.gid, clock.now_ns())
        changes = []
        for id in dict.fromkeys(map(ElementId.parse, words)):
            planned = store.get(caller.uid, id)
            if planned is None or planned.content is None:
                raise NotFound(f"there is no plan of {id}", hint=f"write its document to plan/{id.path} first")
            changes.append(Change(id, planned.content, attributes))
        await submissions.commit(*changes, actor=identify(caller), is_import=True)
        for change in changes:
            store.drop(caller.uid, change.id)

    return Command("import", "import net/eth0 net/br0", "declare what is there, by your documents in plan/", run)
