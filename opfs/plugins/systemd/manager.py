"""The system manager over D-Bus: units, jobs, unit files, limits (org.freedesktop.systemd1(5)).

Knows no document. One instance serves all tasks; each method opens a connection of its own, which ends with it.
A job is awaited until the manager says how it ended; whoever stops waiting leaves the job to the manager.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from opfs.clients.dbus import Bus, BusError, Service, open_bus
from opfs.clients.tool import run_tool
from opfs.errors import ApplyFailed, ApplyTimeout
from opfs.plugins.systemd.unitfile import LIMITED, kind_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

MANAGER = Service("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
UNITS_BELOW = "/org/freedesktop/systemd1/unit"
UNIT = "org.freedesktop.systemd1.Unit"
NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
INFINITY = (1 << 64) - 1

_PROPERTIES = "org.freedesktop.DBus.Properties"

_SETTLE_S = 0.2
"""For how long a process that has just been started is watched, where its start says nothing of its success."""
_SHOWN_LINES = 3
_JOB_WORDS = {
    "timeout": "it was not ready in time",
    "dependency": "a unit that it needs failed",
    "canceled": "somebody cancelled it",
    "skipped": "it did not apply",
}
_BULK = 100
"""From how many units on all loaded ones are listed, rather than each by its name."""


@dataclass(frozen=True, slots=True)
class UnitState:
    """What the manager says of a unit: its words for whether it is loaded and whether it is active."""

    load: str
    active: str
    path: str

    @property
    def is_active(self) -> bool:
        return self.active in ("active", "reloading")


class SystemManager:
    """systemd, at a bus; `root` is where the file tree of its host begins."""

    def __init__(self, address: str, root: Path, *, job_timeout_s: float) -> None:
        self.address = address
        self._root = root
        self._job_timeout_s = job_timeout_s
        self._reload_turn = trio.Lock()
        self._reloads_begun = 0
        self._reload_done = 0

    async def list_units(self, names: Collection[str] | None) -> dict[str, UnitState]:
        """The state of units by name; without names, or for many, only of units that are loaded."""
        async with open_bus(self.address) as bus:
            if names is None or len(names) > _BULK:
                (rows,) = await bus.call(MANAGER, "ListUnits")
            elif names:
                (rows,) = await bus.call(MANAGER, "ListUnitsByNames", "as", list(names))
            else:
                rows = []
        return {row[0]: UnitState(row[2], row[3], row[6]) for row in rows}

    async def read_failure(self, state: UnitState) -> Mapping[str, Any]:
        """Why a unit failed: the manager's word, and for a service the exit status of its process."""
        async with open_bus(self.address) as bus:
            return await _failure(bus, state.path)

    async def read_limits(self, unit: str, state: UnitState) -> Mapping[str, int]:
        """All numeric properties of a unit that has a control group."""
        async with open_bus(self.address) as bus:
            return await _limits(bus, unit, state.path)

    # --- run -------------------------------------------------------------------------------------------

    async def start(self, unit: str) -> None:
        """Start a unit and see it active. Raises ApplyFailed with why it is not; then it is stopped again."""
        await self._bring_up(unit, "StartUnit", "start")

    async def restart(self, unit: str) -> None:
        await self._bring_up(unit, "RestartUnit", "restart")

    async def reload_unit(self, unit: str) -> None:
        """Let a unit read its configuration again; one that cannot is restarted."""
        await self._bring_up(unit, "ReloadOrRestartUnit", "reload")

    async def stop(self, unit: str) -> None:
        """Stop a unit, whatever it is about."""
        async with open_bus(self.address) as bus:
            try:
                result = await self._run_job(bus, "StopUnit", unit)
            except BusError as error:
                if error.name == NO_SUCH_UNIT:
                    return
                raise
        if result != "done":
            raise ApplyFailed(f"{unit} did not stop: {_JOB_WORDS.get(result, result)}")

    async def _bring_up(self, unit: str, method: str, verb: str) -> None:
        async with open_bus(self.address) as bus:
            try:
                path = await _path_of(bus, unit)
                with suppress(BusError):
                    # So that what becomes of it is remembered while we ask.
                    await bus.call(MANAGER, "RefUnit", "s", unit)
                result = await self._run_job(bus, method, unit)
                if result == "done":
                    await self._settle(bus, unit, path)
                state = await bus.get(MANAGER, "ActiveState", path=path, interface=UNIT)
                if result == "done" and state in ("active", "reloading"):
                    return
                raise ApplyFailed(f"{unit} did not {verb}: {await self._why(bus, unit, path, result)}")
            except BusError as error:
                if error.name == NO_SUCH_UNIT and unit in error.words:
                    hint = "give its text as unit, or install the package that brings it"
                    raise ApplyFailed(f"there is no unit {unit} on this host", hint=hint) from error
                raise
            except (ApplyFailed, trio.Cancelled):
                # One that is started again and again, or that still waits, would go on behind our back.
                if verb != "reload":
                    await self._abandon(unit)
                raise

    async def _abandon(self, unit: str) -> None:
        """Order a stop, also while the caller is being cancelled, which is why it has a connection of its own."""
        with trio.CancelScope(shield=True), trio.move_on_after(5), suppress(ApplyFailed):
            async with open_bus(self.address) as bus:
                await bus.call(MANAGER, "StopUnit", "ss", unit, "replace")

    async def _run_job(self, bus: Bus, method: str, unit: str) -> str:
        """Queue a job and wait for its result; raises ApplyTimeout after the time that jobs are given."""
        await bus.call(MANAGER, "Subscribe")
        async with bus.signals(MANAGER, "JobRemoved") as removed:
            (job,) = await bus.call(MANAGER, method, "ss", unit, "replace")
            try:
                with trio.fail_after(self._job_timeout_s):
                    async for signal in removed:
                        if signal.arguments[1] == job:
                            return str(signal.arguments[3])
            except trio.TooSlowError:
                limit = f"{self._job_timeout_s:.0f} s"
                raise ApplyTimeout(f"{unit}: the job {method} was not finished after {limit}") from None
        raise ApplyFailed(f"{unit}: the connection to systemd ended before the job {method}")

    async def _settle(self, bus: Bus, unit: str, path: str) -> None:
        """See whether a service whose start proves nothing fails at once."""
        if kind_of(unit) != "service":
            return
        if await bus.get(MANAGER, "Type", path=path, interface=_interface("Service")) not in ("simple", "exec", "idle"):
            return
        async with bus.signals(MANAGER, "PropertiesChanged", path=path, interface=_PROPERTIES) as changes:
            with trio.move_on_after(_SETTLE_S):
                while await bus.get(MANAGER, "ActiveState", path=path, interface=UNIT) == "active":
                    await changes.receive()

    async def _why(self, bus: Bus, unit: str, path: str, job_result: str) -> str:
        properties = await bus.get_all(MANAGER, path=path, interface=UNIT)
        parts = []
        if job_result not in ("done", "failed"):
            parts.append(_JOB_WORDS.get(job_result, job_result))
        if properties.get("ConditionTimestamp") and not properties["ConditionResult"]:
            parts.append("a condition of the unit is not met")
        failure = await _failure(bus, path)
        parts += [f"{key} {value}" for key, value in failure.items() if value != "success"]
        if not parts and properties["ActiveState"] == "inactive":
            parts.append("it ended at once; a unit that only does something once stays active by RemainAfterExit=yes")
        parts += await self._last_words(properties)
        return "; ".join(parts) or f"it is {properties['ActiveState']}"

    async def _last_words(self, properties: Mapping[str, Any]) -> Sequence[str]:
        """The newest lines in the journal of the run that failed; none where there is no journal."""
        run = bytes(properties.get("InvocationID", b"")).hex()
        if not run:
            return ()
        # What it said itself, or else what systemd says of it.
        return await self._journal(f"_SYSTEMD_INVOCATION_ID={run}") or await self._journal(f"INVOCATION_ID={run}")

    async def _journal(self, match: str) -> Sequence[str]:
        where = [] if self._root == Path("/") else [f"--root={self._root}"]
        options = ["--quiet", "--no-pager", "--output=cat", f"--lines={_SHOWN_LINES}", *where]
        try:
            done = await run_tool(["journalctl", *options, match], timeout_s=30)
        except ApplyFailed:
            return ()
        return done.output.splitlines()

    async def forget_failure(self, unit: str) -> None:
        """Reset the memory of a failed run; nothing where the manager knows no such unit."""
        async with open_bus(self.address) as bus:
            try:
                await bus.call(MANAGER, "ResetFailedUnit", "s", unit)
            except BusError as error:
                if error.name != NO_SUCH_UNIT:
                    raise

    # --- unit files ------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Let the manager read its unit files again.

        That takes it a fifth of a second or more, so those who wait for their turn share the next one.
        """
        begun_before = self._reloads_begun
        async with self._reload_turn:
            if self._reload_done > begun_before:
                return
            self._reloads_begun += 1
            async with open_bus(self.address) as bus:
                await bus.call(MANAGER, "Reload", timeout_s=60)
            self._reload_done = self._reloads_begun

    async def enable(self, unit: str) -> None:
        """Make the links that `[Install]` asks for. Raises ApplyFailed where it asks for none."""
        async with open_bus(self.address) as bus:
            carries_install_info, _ = await bus.call(MANAGER, "EnableUnitFiles", "asbb", [unit], False, False)
        if not carries_install_info:
            hint = "give it one, e.g. WantedBy=multi-user.target, or say nothing of enabled"
            raise ApplyFailed(f"{unit} cannot be enabled: it has no [Install] section", hint=hint)
        await self.reload()

    async def disable(self, unit: str) -> None:
        async with open_bus(self.address) as bus:
            await bus.call(MANAGER, "DisableUnitFiles", "asb", [unit], False)
        await self.reload()

    async def mask(self, unit: str) -> None:
        async with open_bus(self.address) as bus:
            await bus.call(MANAGER, "MaskUnitFiles", "asbb", [unit], False, False)
        await self.reload()

    async def unmask(self, unit: str) -> None:
        """Remove what masks a unit, also until the next boot only."""
        async with open_bus(self.address) as bus:
            for until_boot in (False, True):
                await bus.call(MANAGER, "UnmaskUnitFiles", "asb", [unit], until_boot)
        await self.reload()

    async def check_loaded(self, unit: str) -> None:
        """Raise ApplyFailed, with the manager's own words, where it cannot make sense of a unit's files."""
        async with open_bus(self.address) as bus:
            path = await _path_of(bus, unit)
            load = await bus.get(MANAGER, "LoadState", path=path, interface=UNIT)
            name, words = await bus.get(MANAGER, "LoadError", path=path, interface=UNIT)
        if load in ("bad-setting", "error"):
            raise ApplyFailed(f"systemd refuses {unit}: {words or name or load}")

    async def set_limits(self, unit: str, values: Mapping[str, int]) -> None:
        """Set properties at once and for good."""
        async with open_bus(self.address) as bus:
            pairs = [(name, ("t", value)) for name, value in values.items()]
            await bus.call(MANAGER, "SetUnitProperties", "sba(sv)", unit, False, pairs)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Bus]:
        """A connection that the manager sends its signals to."""
        async with open_bus(self.address) as bus:
            await bus.call(MANAGER, "Subscribe")
            yield bus


def _interface(kind: str) -> str:
    return f"org.freedesktop.systemd1.{kind}"


async def _path_of(bus: Bus, unit: str) -> str:
    (path,) = await bus.call(MANAGER, "LoadUnit", "s", unit)
    return str(path)


async def _limits(bus: Bus, unit: str, path: str) -> Mapping[str, int]:
    interface = _interface(LIMITED[kind_of(unit)])
    found = await bus.get_all(MANAGER, path=path, interface=interface)
    return {name: value for name, value in found.items() if isinstance(value, int) and not isinstance(value, bool)}


async def _failure(bus: Bus, path: str) -> Mapping[str, Any]:
    """`result` and, where a process ended by itself or by a signal, `status` or `signal`."""
    (found,) = await bus.call(MANAGER, "GetAll", "s", "", path=path, interface=_PROPERTIES)
    values = {name: value for name, (_, value) in found.items()}
    failure = {"result": str(values.get("Result", "failed"))}
    key = {1: "status", 2: "signal", 3: "signal"}.get(values.get("ExecMainCode", 0))
    if key and values.get("ExecMainStatus"):
        failure[key] = values["ExecMainStatus"]
    return failure
