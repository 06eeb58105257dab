"""A process with one thread that plays rows of the fault table, each in a child of its own.

Everything is imported once; a child is a fork, so a row costs no start of an interpreter. Requests come as lines of
JSON on standard input and are answered in turn. Run by `tests/faults/rows.py`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import trio
from life import Place
from lives import inspect, live

from opfs.testing.crashlines import kill_at
from opfs.testing.tracing import Fault, run_traced


def _play(request: dict[str, Any]) -> dict[str, Any]:
    place = Place(Path(request["directory"]))
    work = partial(trio.run, live, place, request["script"])
    fault = Fault(**request["fault"]) if request["fault"] else None
    return asdict(run_traced(work, {"": place.pool, "host/": place.host}, fault))


def _crash(request: dict[str, Any]) -> dict[str, Any]:
    place = Place(Path(request["directory"]))

    def work() -> None:
        kill_at(Path(request["module"]), request["line"])
        trio.run(live, place, request["script"])

    return {"status": _in_child(work)[0]}


def _inspect(request: dict[str, Any]) -> dict[str, Any]:
    place = Place(Path(request["directory"]))
    status, said = _in_child(lambda: trio.run(partial(inspect, place, sizes=request["sizes"])))
    if status:
        raise RuntimeError(f"looking at {place.pool} ended with {status}")
    return json.loads(said)


def _warm(request: dict[str, Any]) -> dict[str, Any]:
    """Import what a start, a write and a look import on the way, so that the children need not."""
    place = Place(Path(request["directory"]))

    def look() -> list[str]:
        trio.run(partial(inspect, place, sizes=1))
        return sorted(sys.modules)

    status, said = _in_child(look)
    for name in json.loads(said) if status == 0 else ():
        with suppress(ImportError):
            importlib.import_module(name)
    gc.freeze()
    return {"status": status}


def _in_child(work: Any) -> tuple[int, bytes]:
    """The exit status of a forked child, and what its work returned, as JSON."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_end)
            answer = json.dumps(work()).encode()
            with open(write_end, "wb") as pipe:
                pipe.write(answer)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def main() -> None:
    does = {"play": _play, "crash": _crash, "inspect": _inspect, "warm": _warm}
    for line in sys.stdin:
        request = json.loads(line)
        answer = does[request["do"]](request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
