"""`ovs-ofctl`: read, parse and change the flows and groups of bridges, each change one atomic bundle.

Knows no document. The tool is run with an argument list, no shell, its input on its standard input, and a
deadline. Speaks OpenFlow 1.3, whose bundles are an extension that Open vSwitch has; without a bundle a flow that is
refused would leave those before it in place. Parsing asks no switch, so it is a function of its text alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import trio

from opfs.clients.openflow_text import Flow, Group, read_dump, read_groups, read_parsed
from opfs.clients.tool import PATH, run_tool
from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TOOL = "ovs-ofctl"
VERSION = ("-O", "OpenFlow13")
_NORMALIZED = re.compile(r"\| pre: ?(.*)\n.*\|post: ?(.*)")
_LOGGED = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+Z\|")
_EVENT = b" event="


class Refused(ApplyFailed):
    """ovs-ofctl does not accept what it was given; `line`, from 1, is the line of the input that it names."""

    def __init__(self, reason: str, *, hint: str = "", line: int | None = None) -> None:
        super().__init__(reason, hint=hint)
        self.line = line


class OpenFlow:
    """The bridges of one Open vSwitch, by the management sockets in its run directory."""

    def __init__(self, run_dir: Path, *, timeout_s: float = 10.0) -> None:
        self.run_dir = run_dir
        self._timeout_s = timeout_s
        self._environment = {"PATH": os.environ.get("PATH", PATH), "LC_ALL": "C", "OVS_RUNDIR": str(run_dir)}

    def is_installed(self) -> bool:
        return shutil.which(TOOL, path=self._environment["PATH"]) is not None

    # --- without a switch --------------------------------------------------------------------------------

    def parse_flows(self, texts: Sequence[str]) -> list[Flow]:
        """The normal form of flows, one a text. Blocks for about 12 µs a flow. Raises Refused with the line.

        A match with a field that lacks what it needs (tp_dst without tcp) is refused: ovs-ofctl would take it
        without the field, and so for far more packets than it says.
        """
        if not texts:
            return []
        output, changed = self._parse_flows(texts)
        if changed is not None:
            line = self._line_of_change(texts)
            raise Refused(f"{TOOL} would {changed}: a field lacks what it needs", line=line)
        flows = read_parsed(output)
        if len(flows) != len(texts):
            raise Refused(f"{TOOL} made {len(flows)} flows of {len(texts)}")
        return flows

    def _parse_flows(self, texts: Sequence[str]) -> tuple[str, str | None]:
        """What is printed, and what of a match would be dropped, if anything."""
        output, log = self._parse("parse-flows", "-", input="".join(f"{text}\n" for text in texts))
        match = _NORMALIZED.search(log)
        return output, f"take {match[1] or 'any'} as {match[2] or 'any packet'}" if match else None

    def _line_of_change(self, texts: Sequence[str]) -> int:
        """The line of which ovs-ofctl said that it changed it, without saying which."""
        first, last = 0, len(texts)
        while last - first > 1:
            middle = (first + last) // 2
            _, changed = self._parse_flows(texts[first:middle])
            first, last = (middle, last) if changed is None else (first, middle)
        return first + 1

    def parse_group(self, text: str) -> Group:
        """The normal form of a group. Blocks for about 5 ms. Raises Refused."""
        found = read_groups(self._parse("parse-group", "--", text)[0])
        if len(found) != 1:
            raise Refused(f"{TOOL} makes no group of it")
        return found[0]

    def _parse(self, *arguments: str, input: str = "") -> tuple[str, str]:
        """What is printed, and what is logged."""
        try:
            done = subprocess.run(
                [TOOL, *VERSION, "-vofp_match:console:info", *arguments],
                input=input.encode(),
                capture_output=True,
                timeout=self._timeout_s,
                check=False,
                env=self._environment,
                cwd="/",
            )
        except subprocess.TimeoutExpired:
            raise ApplyTimeout(f"{TOOL} was still parsing after {self._timeout_s:g} s") from None
        except OSError as error:
            raise ApplyFailed(f"{TOOL} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            raise _refusal(done.stderr.decode("utf-8", "replace"))
        return done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    # --- a bridge ----------------------------------------------------------------------------------------

    async def dump(self, bridge: str) -> tuple[list[Flow], list[Group]]:
        """All flows and groups of a bridge. Raises ApplyFailed or ApplyTimeout."""
        flows = await self._run(["--no-names", "--no-stats", "dump-flows", self.target(bridge)])
        groups = await self._run(["--no-names", "dump-groups", self.target(bridge)])
        return read_dump(flows), read_groups(groups)

    async def bundle(self, bridge: str, lines: Sequence[str]) -> None:
        """Carry out the lines of a bundle (ovs-ofctl(8), "bundle"), all or none.

        Raises Refused with the switch's words; nothing was changed then.
        """
        await self._run(["bundle", self.target(bridge), "-"], "".join(f"{line}\n" for line in lines))

    def target(self, bridge: str) -> str:
        """Where a bridge is spoken to, in the notation of ovs-ofctl."""
        return f"unix:{self._socket(bridge)}"

    def _socket(self, bridge: str) -> str:
        return f"{self.run_dir}/{bridge}.mgmt"

    def has_bridge(self, bridge: str) -> bool:
        """Whether ovs-vswitchd has made the bridge: where it could not, there is nobody to ask for its flows."""
        return os.path.exists(self._socket(bridge))

    async def watch(self, bridge: str, report: Callable[[], None]) -> str:
        """Call `report` whenever flows change, until the bridge goes away; returns why, in ovs-ofctl's words."""
        command = [TOOL, *VERSION, "--unixctl=none", "monitor", self.target(bridge), "watch:!initial"]
        try:
            process = await trio.lowlevel.open_process(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._environment, cwd="/"
            )
        except OSError as error:
            return f"{TOOL} cannot be run: {error.strerror}"
        assert process.stdout is not None
        last = b""
        try:
            async for chunk in process.stdout:
                if _EVENT in last[-len(_EVENT) :] + chunk:
                    report()
                last = bytes(chunk)
            await process.wait()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
                await process.stdout.aclose()
        return last.decode("utf-8", "replace").strip().rpartition("\n")[2]

    async def _run(self, arguments: Sequence[str], input: str = "") -> str:
        try:
            done = await run_tool(
                [TOOL, *VERSION, *arguments],
                timeout_s=self._timeout_s,
                environment=self._environment,
                input=input.encode(),
            )
        except ApplyTimeout as error:
            reason = f"{TOOL} had no answer of ovs-vswitchd after {self._timeout_s:g} s and was ended"
            raise ApplyTimeout(reason, hint="is ovs-vswitchd alive?") from error
        if done.status != 0:
            raise _refusal(done.errors)
        return done.output


def _refusal(errors: str) -> Refused:
    """ovs-ofctl's reason: of what the switch refused the first error, which has the flow; else its own words."""
    said = [line.strip() for line in errors.splitlines() if line.strip()]
    lines = [line for line in said if not _LOGGED.match(line)] or said
    for line in lines:
        if line.startswith("Error "):
            error, _, what = line.removeprefix("Error ").partition(" for: ")
            return Refused(f"the switch refuses it: {error}: {_what_was_refused(what, lines)}"[:600])
    words = "; ".join(lines)[:600] or "it gave no reason"
    words = words.removeprefix(f"{TOOL}: ")
    if words.startswith("-:"):
        number, _, reason = words[2:].partition(":")
        if number.isdigit():
            return Refused(f"{TOOL} refuses it: {reason.strip()}", line=int(number))
    if any("version negotiation failed" in line for line in said):
        words += " (the bridge's protocols must have OpenFlow13)"
    return Refused(f"{TOOL}: {words}")


def _what_was_refused(what: str, lines: Sequence[str]) -> str:
    """`OFPT_FLOW_MOD (OF1.3) (xid=0x7): ADD table:3 …`; a group stands on the next line."""
    _, _, text = what.partition("): ")
    if text:
        return text
    position = next((index for index, line in enumerate(lines) if line.endswith(what)), len(lines))
    return lines[position + 1] if position + 1 < len(lines) else what
