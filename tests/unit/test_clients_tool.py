"""A vendor's tool: its answer, its failure, and what it may not do, with real processes."""

import os
import signal

import pytest
import trio
from commitpath import until

from opfs.clients import tool
from opfs.clients.tool import run_tool
from opfs.errors import ApplyFailed, ApplyTimeout


def sh(script):
    return ["/bin/sh", "-c", script, "sh"]


async def test_an_answer():
    done = await run_tool([*sh('cat; echo "$1" >&2; exit 3'), "--a b; $(c)"], timeout_s=60, input=b"said")
    assert (done.status, done.output, done.errors) == (3, "said", "--a b; $(c)\n")
    assert done.words() == "--a b; $(c)"


async def test_nothing_of_our_environment_and_terminal(monkeypatch):
    monkeypatch.setenv("LD_PRELOAD_OF_SOMEBODY", "x")
    done = await run_tool(sh("env; pwd; ps -o sid= -p $$"), timeout_s=60)
    *variables, place, session = done.output.split()
    assert not any(variable.startswith("LD_PRELOAD_OF_SOMEBODY") for variable in variables)
    assert place == "/"
    assert int(session) != os.getsid(0)


async def test_a_tool_that_is_not_there():
    with pytest.raises(ApplyFailed, match="no-such-tool cannot be run: No such file") as told:
        await run_tool(["no-such-tool"], timeout_s=60, install="the-package")
    assert told.value.hint == "apt-get install the-package"


async def test_one_that_takes_too_long_is_ended():
    with pytest.raises(ApplyTimeout, match=r"sleeping was still at work after 0\.1 s and was ended"):
        await run_tool(["sleep", "1000000"], timeout_s=0.1, doing="sleeping")


async def test_one_that_hears_no_word_is_ended_with_all_that_it_started(tmp_path):
    script = f"trap '' TERM; sleep 1000000 & echo $! > {tmp_path}/pid; wait"
    with trio.move_on_after(60) as limit:
        async with trio.open_nursery() as nursery:

            async def run():
                await run_tool(sh(script), timeout_s=1000, whole_group=True)

            nursery.start_soon(run)
            pid = tmp_path / "pid"
            await until(lambda: pid.exists() and pid.read_text().endswith("\n"), within_s=60)
            child = int(pid.read_text())
            nursery.cancel_scope.cancel()
    assert not limit.cancelled_caught
    await until(lambda: not is_alive(child), within_s=60)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("where", ["", ">&2"])
async def test_endless_output_ends_it(monkeypatch, where):
    monkeypatch.setattr(tool, "OUTPUT_BYTES_MAX", 1 << 20)
    with pytest.raises(ApplyFailed, match="sh printed over 1 MiB and was ended"):
        await run_tool(sh(f"exec cat /dev/zero {where}"), timeout_s=60)


async def test_one_that_does_not_read_what_it_is_told():
    done = await run_tool(["true"], timeout_s=60, input=bytes(10 << 20))
    assert done.status == 0


async def test_one_that_is_killed_says_so():
    assert (await run_tool(sh("kill -9 $$"), timeout_s=60)).status == -signal.SIGKILL
