"""Whatever a handler does, the mount lives: only FUSEError and cancellation leave it, with the right errno."""

from __future__ import annotations

import ast
import errno
import inspect
from pathlib import Path
from types import SimpleNamespace

import pyfuse3
import pytest
import trio

import opfs
from opfs import errors
from opfs.commit.failsafe import FailSafe
from opfs.fuse.caller import caller_of
from opfs.fuse.errnos import AnsweredOperations, Deadlines, FUSEError, is_answered
from opfs.fuse.operations import Operations

OUR_ERRORS = [
    error for error in vars(errors).values() if isinstance(error, type) and issubclass(error, errors.OpfsError)
]


class Raising(AnsweredOperations):
    """`read` awaits what the test gives it."""

    def __init__(self, behaviour, deadlines=None) -> None:
        self.failsafe = FailSafe()
        super().__init__(self.failsafe, deadlines or Deadlines())
        self.behaviour = behaviour
        self.noted = []

    async def read(self, fh, off, size):
        return await self.behaviour()

    async def forget(self, inode_list):
        await self.behaviour()

    def note_refusal(self, handler, arguments, error):
        self.noted.append((handler, arguments, error))


def raising(error):
    async def behaviour():
        raise error

    return Raising(behaviour)


async def errno_of(operations):
    with pytest.raises(FUSEError) as caught:
        await operations.read(1, 0, 10)
    return caught.value.errno


def test_every_request_of_the_protocol_is_answered():
    requests = {name for name, value in vars(pyfuse3.Operations).items() if inspect.iscoroutinefunction(value)}
    assert {"lookup", "getattr", "readdir", "write", "poll", "forget"} <= requests
    assert [name for name in sorted(requests) if not is_answered(getattr(Operations, name))] == []


def test_every_request_but_poll_is_implemented():
    requests = {name for name, value in vars(pyfuse3.Operations).items() if inspect.iscoroutinefunction(value)}
    assert {name for name in requests if name not in vars(Operations)} == set()
    inherited = {name for name in requests if getattr(Operations, name).__module__ == pyfuse3.Operations.__module__}
    assert inherited == {"poll"}


def test_one_module_knows_fuse_error():
    homes = set()
    package = Path(opfs.__file__).parent
    for path in package.rglob("*.py"):
        if path.is_relative_to(package / "testing"):
            continue  # a test's own file system is no part of opfs'
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.ImportFrom) and any(alias.name == "FUSEError" for alias in node.names)
            if named or (isinstance(node, ast.Attribute) and node.attr == "FUSEError"):
                homes.add(path.name)
    assert homes == {"errnos.py"}


@pytest.mark.parametrize("kind", OUR_ERRORS, ids=lambda kind: kind.__name__)
async def test_our_errors_answer_their_errno_and_are_noted(kind):
    operations = raising(kind("no"))
    assert await errno_of(operations) == kind.errno
    assert operations.failsafe.reason is None
    [(handler, arguments, error)] = operations.noted
    assert (handler, arguments, type(error)) == ("read", (1, 0, 10), kind)


async def test_an_os_error_answers_its_errno():
    operations = raising(OSError(errno.ESTALE, "gone"))
    assert await errno_of(operations) == errno.ESTALE
    assert operations.failsafe.reason is None
    assert operations.noted == []


async def test_an_error_in_a_group_is_found():
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [errors.NoSpace("full")])])
    operations = raising(group)
    assert await errno_of(operations) == errno.ENOSPC
    assert operations.failsafe.reason is None


@pytest.mark.parametrize(
    "bug", [ValueError("boom"), OSError("no number"), ExceptionGroup("", [KeyError("x")]), MemoryError()], ids=repr
)
async def test_a_bug_is_eio_and_stops_all_writes(bug, caplog):
    operations = raising(bug)
    assert await errno_of(operations) == errno.EIO
    with pytest.raises(errors.ReadOnly):
        operations.failsafe.require_writable()
    assert any(record.exc_info for record in caplog.records)


async def test_a_bug_beside_an_answer_is_not_overlooked(caplog):
    operations = raising(ExceptionGroup("", [errors.Busy("wait"), ValueError("boom")]))
    assert await errno_of(operations) == errno.EBUSY
    assert operations.failsafe.reason is not None


async def test_a_bug_in_noting_a_refusal_does_not_kill_the_mount(caplog):
    operations = raising(errors.Rejected("no"))
    operations.note_refusal = lambda *_: 1 / 0
    assert await errno_of(operations) == errno.EPERM
    assert "ZeroDivisionError" in operations.failsafe.reason


async def test_what_takes_too_long_times_out(autojump_clock):
    operations = Raising(trio.sleep_forever, Deadlines(answering_s=30, applying_s=300))
    assert await errno_of(operations) == errno.ETIMEDOUT
    assert trio.current_time() == pytest.approx(30, abs=1)
    assert operations.failsafe.reason is None
    assert "30 s" in operations.noted[0][2].reason


def test_requests_that_apply_have_more_time():
    deadlines = Deadlines()
    assert deadlines.of("write") > deadlines.of("lookup")


async def test_cancellation_passes():
    operations = Raising(trio.sleep_forever)
    with trio.CancelScope() as scope:
        scope.cancel()
        await operations.read(1, 0, 10)
    assert scope.cancelled_caught


async def test_cancellation_passes_out_of_a_nursery_that_also_failed(caplog):
    async def behaviour():
        async def fail_when_cancelled():
            try:
                await trio.sleep_forever()
            finally:
                raise errors.NoSpace("full")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    operations = Raising(behaviour)
    with trio.CancelScope() as scope:
        scope.cancel()
        await operations.read(1, 0, 10)
    assert scope.cancelled_caught
    assert [type(error) for _, _, error in operations.noted] == [errors.NoSpace]


async def test_forget_never_raises(caplog):
    assert await raising(ValueError("boom")).forget([(1, 1)]) is None


def test_a_context_is_what_the_kernel_said():
    caller = caller_of(SimpleNamespace(uid=1, gid=2, pid=3, umask=0o27))
    assert (caller.uid, caller.gid, caller.pid, caller.umask) == (1, 2, 3, 0o27)
