"""One row of the fault table: set the pool back, play a script with a fault in it, look at what is there then.

`Stage` owns the directory and the process that plays; several stages may work at the same time.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from opfs.btrfs.pool import Pool
from opfs.testing.pools import clone_pool, delete_tree
from opfs.testing.tracing import Fault, Traced

if TYPE_CHECKING:
    from collections.abc import Iterable

SERVER = Path(__file__).with_name("rowserver.py")
SIGKILL = -9

_OF_THE_LOG = ("@chain", "@log", "keys")
TEMPORARY = ".opfs-"
"""What an interrupted write of the file plugin may leave beside a file; the next write of that file removes it."""

# Errors after which a change has surely not been made; any other leaves it open.
_SURELY_NOT = frozenset({"NoSpace", "ApplyFailed", "ApplyNoSpace", "ReadOnly", "Rejected", "NotFound", "Busy"})


@dataclass
class Row:
    """What was played and what came of it; `problems` is empty where every promise was kept."""

    script: str
    fault: Fault | None
    traced: Traced | None = None
    told: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.fault is None:
            return self.script
        what = f"errno {self.fault.number}" if self.fault.number else "SIGKILL"
        when = "after" if self.fault.after else "before"
        lasting = ", lasting" if self.fault.lasting else ""
        return f"{self.script}/{self.fault.phase}: {self.fault.point} #{self.fault.nth}: {what} {when}{lasting}"


class Stage:
    """A directory on btrfs where rows are played, one at a time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._templates = directory / "templates"
        self._templates.mkdir(parents=True)
        (directory / "opfs.toml").touch()
        self._said = (directory / "said").open("a")
        self._server = subprocess.Popen(
            [sys.executable, str(SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
        )
        self._make_templates()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        self._said.close()
        for pool in (self.directory / "pool", *(path / "pool" for path in self._templates.iterdir())):
            if pool.exists():
                delete_tree(pool)
        shutil.rmtree(self.directory)

    # --- what rows begin with ----------------------------------------------------------------------------

    def _make_templates(self) -> None:
        """`nothing`: an empty directory. `empty`: a pool without a start. `used`: a short history, all derived.

        The others are what a crash left of `used`: with the host half changed (`half`), changed (`done`), changed and
        the layer written (`torn`); with acknowledged events that have no block, and a torn line in the journal
        (`held`).
        """
        (self.directory / "host").mkdir()
        (self.directory / "pool").mkdir(mode=0o700)
        self._save("nothing")
        Pool.create(self.directory / "pool", origin="test.example/opfs", created_ns=1_700_000_000_000_000_000).close()
        self._save("empty")
        self._must("history", None)
        self._save("used")
        self._ask(do="warm")
        self.reset("used")
        self._must("write", Fault("write host/.opfs-*", "replace"))
        self._save("half")
        self.reset("used")
        self._must("write", Fault("create @state/.new", "replace"))
        self._save("done")
        self.reset("used")
        self._must("write", Fault("snapshot @chain/00000005-*", "replace"))
        self._save("torn")
        self.reset("used")
        self._must("hold", Fault("create @state/.new", "seal"))
        with (self.directory / "pool" / "@log" / "journal").open("ab") as journal:
            journal.write(b'0badcafe {"acknow')
        self._save("held")

    def _must(self, script: str, fault: Fault | None) -> None:
        traced = self.play(script, fault)
        if traced.status != (0 if fault is None else SIGKILL):
            raise RuntimeError(f"{script} ended with {traced.status}, the fault was met: {traced.was_met}")

    def _save(self, name: str) -> None:
        kept = self._templates / name
        kept.mkdir()
        clone_pool(self.directory / "pool", kept / "pool")
        shutil.copytree(self.directory / "host", kept / "host")
        if (self.directory / "told").exists():
            shutil.copy(self.directory / "told", kept / "told")

    def reset(self, template: str) -> None:
        """Make the pool and the host what they were when the template was saved."""
        kept = self._templates / template
        delete_tree(self.directory / "pool")
        clone_pool(kept / "pool", self.directory / "pool")
        shutil.rmtree(self.directory / "host")
        shutil.copytree(kept / "host", self.directory / "host")
        (self.directory / "told").unlink(missing_ok=True)
        if (kept / "told").exists():
            shutil.copy(kept / "told", self.directory / "told")

    # --- rows --------------------------------------------------------------------------------------------

    def play(self, script: str, fault: Fault | None) -> Traced:
        """Run a script on the pool as it is."""
        answer = self._ask(do="play", script=script, fault=asdict(fault) if fault else None)
        return Traced(tuple((phase, point) for phase, point in answer["points"]), answer["was_met"], answer["status"])

    def said(self) -> str:
        """What the last row logged, tracebacks included."""
        return (self.directory / "said").read_text().replace("\0", "")

    def told(self) -> list[dict[str, Any]]:
        path = self.directory / "told"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def inspect(self, *, sizes: int = 2) -> dict[str, Any]:
        """Start again without a fault, look, and append to the log, up to so many sizes."""
        return self._ask(do="inspect", sizes=sizes)

    def crash_row(self, template: str, script: str, module: Path, line: int) -> list[str]:
        """Die at a crash comment, look, judge."""
        self.reset(template)
        self._said.truncate(0)
        answer = self._ask(do="crash", script=script, module=str(module), line=line)
        if answer["status"] != SIGKILL:
            return [f"{script} on {template} ended with {answer['status']} and never came there: {self.said()[-2000:]}"]
        if template == "nothing":
            self.play("make", None)
        return judge(self.told(), self.inspect())

    def row(self, template: str, script: str, fault: Fault) -> Row:
        """Set back, play, look, judge."""
        self.reset(template)
        self._said.truncate(0)
        row = Row(script, fault)
        row.traced = self.play(script, fault)
        row.told = self.told()
        if not row.traced.was_met:
            row.problems.append("the fault was never met")
        if row.traced.status != (SIGKILL if fault.number is None else 0):
            row.problems.append(f"the process ended with {row.traced.status}: {self.said()[-2000:]}")
        row.report = self.inspect(sizes=2 if any(name in fault.point for name in _OF_THE_LOG) else 1)
        row.problems += judge(row.told, row.report)
        if fault.lasting:
            row.problems += _judge_full(row.told)
        return row

    def _ask(self, **request: Any) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps({"directory": str(self.directory), **request}), file=self._server.stdin, flush=True)
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the row server ended at {request}: {self.said()[-4000:]}")
        return json.loads(line)


# --- promises ----------------------------------------------------------------------------------------------


def judge(told: Iterable[dict[str, Any]], report: dict[str, Any]) -> list[str]:
    """Compare what was answered with what is there: a problem for each promise that was broken."""
    problems = [f"verify: {finding}" for finding in report["findings"]]
    if report["failsafe"]:
        problems.append(f"fail-safe after a new start: {report['failsafe']}")
    told = list(told)
    documents, host = report["documents"], report["host"]
    last_event = {path: op for path, op, _ in report["events"]}
    not_undone = {fact["element"] for fact in told if "NOT undone" in fact.get("reason", "")}
    for element, possible in _possible(told).items():
        found = documents.get(element)
        if found not in possible:
            problems.append(f"{element} is {_short(found)}, and may be {' or '.join(map(_short, possible))}")
    for element, text in documents.items():
        wanted = json.loads(text)
        if "$after" in wanted and "early" not in documents:
            if element in host:
                problems.append(f"{element} is on the host before what it waits for")
            continue
        if element in not_undone or last_event.get(f"file/{element}.json") == "apply-failed":
            continue  # the answer said so, or the event does
        if host.get(os.path.basename(wanted["path"])) != wanted["content"]:
            problems.append(f"the host has {_short(host.get(element))} where {element} says {_short(text)}")
    for name in host:
        if name not in documents and not name.startswith(TEMPORARY):
            problems.append(f"the host has {name}, which no document declares")
    problems += _judge_records(report)
    if report["grew"] != 1:
        problems.append(f"one block more made the log grow by {report['grew']}: {report['errors']}")
    if "finally" in report:
        if any(report["failures"]):
            problems.append(f"going on: {report['failures']}")
        if report["finally"].keys() != (documents.keys() | {"kept"}) - {"new"}:
            problems.append(f"after going on there is {sorted(report['finally'])}: {report['errors']}")
    return problems


def _judge_records(report: dict[str, Any]) -> list[str]:
    problems = []
    for text in report["drafts"].values():
        if text not in ("a draft\n", "another\n", ""):
            problems.append(f"a draft holds {_short(text)}")
    for text in report["refused"].values():
        if text not in ("{1}", "{2}"):
            problems.append(f"a refused document holds {_short(text)}")
    return problems


def _judge_full(told: Iterable[dict[str, Any]]) -> list[str]:
    """A full pool is answered with ENOSPC, and when there is room again writes go on without a restart."""
    problems = []
    facts = list(told)
    for fact in facts:
        if "error" in fact and fact["errno"] != errno.ENOSPC and fact["element"] != "elsewhere":
            problems.append(f"a full pool was answered with {fact['error']}: {fact['reason']}")
    if any(fact.get("element") == "after" for fact in facts) and not any(
        "accepted" in fact and fact["element"] == "after" for fact in facts
    ):
        problems.append("with room again, a write was still refused")
    return problems


def _possible(told: Iterable[dict[str, Any]]) -> dict[str, list[str | None]]:
    """What each element may be: what was acknowledged last, and whatever was tried since without a clear answer."""
    possible: dict[str, list[str | None]] = {}
    tried: dict[str, str | None] = {}
    for fact in told:
        if "element" not in fact:
            continue
        element = fact["element"]
        values = possible.setdefault(element, [None])
        if "tries" in fact:
            tried[element] = fact["tries"]
            values.append(fact["tries"])
        elif "accepted" in fact:
            values[:] = [fact["accepted"]]
        elif fact["error"] in _SURELY_NOT and "NOT undone" not in fact["reason"]:
            values.pop()
    return possible


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 90 else f"{text[:60]}…{len(text)} long"
