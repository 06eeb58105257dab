"""The command that goes back to an earlier block.

Wires, decides nothing else. Trio thread only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import trio

from opfs.commit.planner import Planner
from opfs.commit.rollback import Rollback, plan_to_json
from opfs.commit.verified import CheckedReads
from opfs.core.going_back import Scope, split_when
from opfs.core.label import is_label
from opfs.errors import AccessDenied, InvalidRequest, NotFound
from opfs.fuse.caller import identify
from opfs.vfs.ctl import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opfs.core.names import BlockName
    from opfs.daemon.parts import Parts
    from opfs.daemon.past import PastViews
    from opfs.vfs.node import Caller
    from opfs.vfs.submissions import Submissions

PLAN, SKIP, EXPECTED = "--plan", "--skip-refused", "--expect="
"""Words of the command that are no elements: only show; leave what cannot come back; do that plan or nothing."""


def make_rollback(parts: Parts, past: PastViews, submissions: Submissions) -> Command:
    """`rollback`: with --plan it answers what it would do, as lines of JSON, and does nothing."""
    rollback = Rollback(
        parts.sequencer,
        Planner(parts.sequencer),
        parts.history,
        parts.historian,
        past.timeline,
        CheckedReads(parts.store, parts.verified),
        parts.clock,
        submissions.submit,
    )

    async def find(said: str) -> BlockName:
        if is_label(said):
            labels = await past.labels.current()
            if said not in labels:
                raise NotFound(f"there is no label {said!r}", hint="ls /at lists them")
            return labels[said]
        return await trio.to_thread.run_sync(past.timeline.find, said)

    async def run(words: Sequence[str], caller: Caller) -> str | None:
        if caller.uid != 0:
            raise AccessDenied("only root may roll back")
        said, named = split_when([word for word in words if not word.startswith("--")])
        options = [word for word in words if word.startswith("--")]
        expected = [word.removeprefix(EXPECTED) for word in options if word.startswith(EXPECTED)]
        unknown = [word for word in options if word not in (PLAN, SKIP) and not word.startswith(EXPECTED)]
        if unknown or len(expected) > 1:
            raise InvalidRequest(f"rollback has no option {(unknown or [EXPECTED])[0]}", hint=f"{PLAN}, {SKIP}")
        block, scope, skips = await find(said), Scope.parse(named), SKIP in options
        if PLAN in options:
            plan = await rollback.plan(block, scope, identify(caller), skip_refused=skips)
            return "".join(f"{json.dumps(line)}\n" for line in plan_to_json(plan))
        made = await rollback.carry_out(
            block, scope, identify(caller), skip_refused=skips, expected_plan=expected[0] if expected else None
        )
        return f"{made}\n"

    return Command(
        "rollback", "rollback 41 lxc/100", "go back to block 41, all or what is named, in one new block", run
    )
