"""Tells commands and URLs of events, after the commit and never in its way: in order, each at least once.

Every hook has a task and a bookmark of its own. The bookmark is a file in the pool's cache; a new hook begins with the
next event. What fails is tried again a few times, with a pause that doubles, and then passed over with a line in the
log, so that one bad event does not hold up the rest. A command gets the event on its standard input. Trio thread; the
history, the blocks and the bookmarks are read in worker threads.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from opfs.errors import OpfsError
from opfs.witness.post import Endpoint, post

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from opfs.core.hooks import Hook
    from opfs.ports import EventLine, History
    from opfs.vfs.events import BlockLines, Historian

log = logging.getLogger(__name__)

ATTEMPTS = 5
FIRST_PAUSE_S = 1.0
STEP = 256
STANDSTILL_PAUSE_S = 10.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class HookFailed(Exception):
    """It was told and did not take it; the message says why."""


class Hooks:
    """`run` tells every hook; `wake` says that there may be new events. `mount` is told to commands."""

    def __init__(
        self,
        hooks: Sequence[Hook],
        directory: Path,
        history: History,
        historian: Historian,
        lines: BlockLines,
        mount: Path,
    ) -> None:
        self._hooks = hooks
        self._directory = directory
        self._history = history
        self._historian = historian
        self._lines = lines
        self._mount = mount
        self._changed = trio.Event()

    def wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def run(self, event_count: int) -> None:
        """Until cancelled; a hook without a bookmark begins at `event_count`."""
        async with trio.open_nursery() as nursery:
            for hook in self._hooks:
                nursery.start_soon(self._follow, hook, event_count, name=f"hook {hook.name}")

    async def _follow(self, hook: Hook, event_count: int) -> None:
        position: int | None = None
        while True:
            changed = self._changed
            try:
                if position is None:
                    position = await trio.to_thread.run_sync(self._load, hook, event_count)
                await self._historian.wait_current()
                position = await self._tell_from(hook, position)
            except (OSError, OpfsError) as error:
                log.warning("the hook %s stands still: %s", hook.name, error)
                await trio.sleep(STANDSTILL_PAUSE_S)
                continue
            await changed.wait()

    async def _tell_from(self, hook: Hook, position: int) -> int:
        """Tell everything that there is; returns the number of the next event."""
        while position < (end := min(position + STEP, self._history.indexed_count)):
            for line in await trio.to_thread.run_sync(self._history.lines, position, end, 0, ()):
                text = await trio.to_thread.run_sync(self._lines.line, line.height, line.seq)
                if hook.wants(json.loads(text)):
                    await self._tell(hook, line, text)
                    await trio.to_thread.run_sync(self._save, hook, line.seq + 1)
            position = end
            await trio.to_thread.run_sync(self._save, hook, position)
        return position

    async def _tell(self, hook: Hook, line: EventLine, text: bytes) -> None:
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await (self._call(hook, text) if hook.command else _send(hook, text))
            except HookFailed as error:
                if attempt == ATTEMPTS:
                    log.error("the hook %s was not told of event %d: %s", hook.name, line.seq, error)
                    return
                log.warning("the hook %s, event %d, attempt %d: %s", hook.name, line.seq, attempt, error)
                await trio.sleep(pause_s)
                pause_s *= 2
            else:
                return

    async def _call(self, hook: Hook, text: bytes) -> None:
        environment = {"PATH": _PATH, "LANG": "C.UTF-8", "OPFS_HOOK": hook.name, "OPFS_MOUNT": str(self._mount)}
        with trio.move_on_after(hook.timeout_s) as limit:
            try:
                done = await trio.run_process(
                    list(hook.command),
                    stdin=text,
                    stdout=subprocess.DEVNULL,
                    check=False,
                    cwd="/",
                    env=environment,
                    start_new_session=True,
                    deliver_cancel=_kill_group,
                )
            except OSError as error:
                raise HookFailed(f"{hook.command[0]} cannot be run: {error.strerror}") from error
        if limit.cancelled_caught:
            raise HookFailed(f"{hook.command[0]} was still at work after {hook.timeout_s:g} s and was killed")
        if done.returncode != 0:
            raise HookFailed(f"{hook.command[0]} ended with {done.returncode}")

    # --- bookmarks, in worker threads ----------------------------------------------------------------------

    def _load(self, hook: Hook, event_count: int) -> int:
        try:
            kept = int((self._directory / hook.name).read_text())
        except (FileNotFoundError, ValueError):
            self._save(hook, event_count)
            return event_count
        # of a pool that was brought back from an older copy, it may be ahead
        return min(kept, event_count)

    def _save(self, hook: Hook, position: int) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._directory / f".{hook.name}.new"
        new.write_text(f"{position}\n")
        new.replace(self._directory / hook.name)


async def _send(hook: Hook, text: bytes) -> None:
    try:
        with trio.fail_after(hook.timeout_s):
            answer = await post(Endpoint.parse(hook.url), "", text, content_type="application/json")
    except trio.TooSlowError:
        raise HookFailed(f"{hook.url} did not answer within {hook.timeout_s:g} s") from None
    except OpfsError as error:
        raise HookFailed(error.reason) from error
    if not 200 <= answer.status < 300:
        raise HookFailed(f"{hook.url} answered {answer.status}")


async def _kill_group(process: trio.Process) -> None:
    """The command and what it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
