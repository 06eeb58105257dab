"""The command `restore-state`: bring the host to the documents in their author's own /plan, as one new block.

Like `rollback` it answers with the plan where it is asked to, does nothing unless every secret is there, and can be
tied to the plan that was shown. What a restore state is, and which documents of it are new, the client knows
(opfs.cli.restoring). Trio thread; secrets are looked up in a worker thread.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from opfs.commit.change import Change, Request
from opfs.commit.preview import digest_of_all
from opfs.core.document import parse_document
from opfs.core.restore_state import OF_ROOT, secrets_of
from opfs.errors import AccessDenied, ApplyFailed, InvalidRequest, NotFound, Rejected
from opfs.ports import FileAttributes
from opfs.vfs.ctl import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opfs.commit.planner import Planner
    from opfs.core.actor import Actor
    from opfs.ports import Clock
    from opfs.vfs.node import Caller
    from opfs.vfs.plan_store import Planned, PlanStore
    from opfs.vfs.submissions import Submissions

PLAN, EXPECTED, SOURCE = "--plan", "--expect=", "--source="
"""Options of the command: only show; do that plan or nothing; whose state this is, for the message."""
_SOURCE = re.compile(r"[!-~]{1,300}\Z")


@dataclass(frozen=True, slots=True)
class _Asked:
    """A command line; `plugins` are those whose planned documents are meant."""

    plugins: Sequence[str]
    source: str
    only_plan: bool
    expected: str | None


def make_restore(
    store: PlanStore,
    planner: Planner,
    submissions: Submissions,
    secret: Callable[[str], bytes],
    identify: Callable[[Caller], Actor],
    clock: Clock,
) -> Command:
    """`restore-state`: all plans of the caller for the plugins named are carried out together, or none is.

    `secret` gives the value of a secret or raises ApplyFailed with where to put it; it blocks.
    """

    async def run(words: Sequence[str], caller: Caller) -> str:
        asked = _parse(words)
        if caller.uid != 0:
            raise AccessDenied("only root may restore a host's state")
        planned = [one for plugin in asked.plugins for one in store.of(caller.uid, plugin)]
        if not planned:
            raise NotFound(f"there is no plan for {', '.join(asked.plugins)}", hint="write documents to plan/ first")
        missing = await trio.to_thread.run_sync(_missing, planned, secret)
        if missing and not asked.only_plan:
            raise Rejected(f"secrets are missing: {'; '.join(missing)}", hint="nothing was done")
        changes = tuple(Change(one.id, one.content, _attributes(one, clock)) for one in planned)
        message = f"restore state of {asked.source}" if asked.source else "restore state"
        request = Request(changes, identify(caller), message, expected_plan=asked.expected, wants_block=True)
        if asked.only_plan:
            views = await planner.view_all(request)
            head = {"digest": digest_of_all(view.digest for view in views), "missing": missing}
            return "".join(f"{json.dumps(line)}\n" for line in (head, *(view.to_json() for view in views)))
        made = await submissions.submit(request)
        for one in planned:
            store.drop(caller.uid, one.id)
        return f"{made}\n"

    return Command(
        "restore-state", "restore-state lxc net", "bring the host to your documents in plan/, in one new block", run
    )


def _parse(words: Sequence[str]) -> _Asked:
    options = [word for word in words if word.startswith("--")]
    plugins = [word for word in words if not word.startswith("--")]
    values: Mapping[str, list[str]] = {
        prefix: [word.removeprefix(prefix) for word in options if word.startswith(prefix)]
        for prefix in (EXPECTED, SOURCE)
    }
    unknown = [word for word in options if word != PLAN and not word.startswith((EXPECTED, SOURCE))]
    if unknown or any(len(given) > 1 for given in values.values()):
        raise InvalidRequest(f"restore-state has no such option, or not twice: {(unknown or options)[0][:100]}")
    if not plugins:
        raise InvalidRequest("restore-state takes plugins", hint="write: restore-state lxc net")
    source = next(iter(values[SOURCE]), "")
    if source and not _SOURCE.match(source):
        raise InvalidRequest("the source is no name of a block", hint="e.g. host1/opfs@00000041-9f86d081884c")
    return _Asked(tuple(dict.fromkeys(plugins)), source, PLAN in options, next(iter(values[EXPECTED]), None))


def _missing(planned: Sequence[Planned], secret: Callable[[str], bytes]) -> list[str]:
    """Of each secret that is not there, who needs it and where it belongs."""
    documents = {one.id: parse_document(one.content) for one in planned if one.content is not None}
    missing = []
    for name, users in secrets_of(documents).items():
        try:
            secret(name)
        except ApplyFailed as error:
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            missing.append(f"{users[0]}{more}: {error}")
    return missing


def _attributes(planned: Planned, clock: Clock) -> FileAttributes | None:
    """Whose the document will be: what its plan was made, else root's."""
    if planned.content is None:
        return None
    given = planned.access or OF_ROOT
    return FileAttributes(given.mode, given.uid, given.gid, clock.now_ns())
