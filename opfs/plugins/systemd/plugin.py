"""The `systemd` plugin: units, observed from unit files and the manager's list, changed over D-Bus.

Files are read and written in worker threads; everything else is D-Bus. Every action is idempotent. What has to
follow a change of files is noted before they are changed, so that after a crash the next plan goes on there.
Calls for different units may run concurrently; those that wait for the manager to read its files share one turn.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import trio

from opfs.clients.dbus import SYSTEM_BUS
from opfs.clients.tool import ENVIRONMENT, run_tool
from opfs.core.action import Action, ApplyResult, Difference, Document, StateDiff
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, PluginContext
from opfs.plugins.systemd.accepts import LIMIT_SETTINGS, check_document
from opfs.plugins.systemd.files import UnitFiles, UnitTree
from opfs.plugins.systemd.manager import INFINITY, MANAGER, UNIT, UNITS_BELOW, SystemManager, UnitState
from opfs.plugins.systemd.plan import PLUGIN, POLICY, RELOAD_MANAGER, compare_unit, plan_unit
from opfs.plugins.systemd.records import Record, Records
from opfs.plugins.systemd.unitfile import LIMITED, UNIT_NAME, is_template, kind_of
from opfs.ports import Capabilities, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_GONE = UnitState("not-found", "inactive", "")
_PROPERTIES = "org.freedesktop.DBus.Properties"


class SystemdPlugin(ContractDefaults):
    """Units as elements; `state_dir` holds the plugin's records."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities(watch=True)

    def __init__(
        self, state_dir: Path, *, bus: str = SYSTEM_BUS, root: Path = Path("/"), job_timeout_s: float = 100.0
    ) -> None:
        super().__init__()
        self.apply_timeout_s = 3 * job_timeout_s
        self._files = UnitFiles(root)
        self._records = Records(state_dir)
        self._manager = SystemManager(bus, root, job_timeout_s=job_timeout_s)

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Settings: `job_timeout_s`, how long one start or stop may take: 100 unless given, systemd's own is 90."""
        return cls(context.state_dir, job_timeout_s=float(context.settings.get("job_timeout_s", 100.0)))

    def why_unavailable(self) -> str | None:
        return None if self._files.is_running_systemd() else "systemd does not run here, as sd_booted(3) tells"

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        check_document(element, desired)

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        return plan_unit(element, current, desired)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        del element
        return tuple(compare_unit(desired, observed))

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """One listing by the manager and one look through the directories for any number of units.

        Without names: all installed units and all loaded ones of the kinds that have files, by their own names.
        """
        names = None if elements is None else [name for name in elements if UNIT_NAME.match(name)]
        tree = await trio.to_thread.run_sync(self._files.scan)
        asked = None if names is None else [name for name in names if not is_template(name)]
        states = await self._manager.list_units(asked)
        if names is None:
            loaded = {name for name, state in states.items() if UNIT_NAME.match(name) and state.load != "not-found"}
            names = sorted((tree.units | tree.configured | loaded) - tree.aliases)
        found = await trio.to_thread.run_sync(self._describe_all, names, tree, states, desired or {})
        for name, document in found.items():
            await self._ask_manager(name, document, tree, states.get(name, _GONE))
        return found

    def _describe_all(
        self,
        names: Collection[str],
        tree: UnitTree,
        states: Mapping[str, UnitState],
        desired: Mapping[str, Document],
    ) -> dict[str, dict[str, Any]]:
        records = self._records.load_all()
        found = {}
        for name in names:
            state, record = states.get(name, _GONE), records.get(name, Record())
            is_there = state.is_active or state.load not in ("not-found", "") or tree.has(name)
            if is_there or record.policy or record.pending:
                found[name] = self._describe(name, tree, state, record, desired.get(name, {}))
        return found

    def _describe(
        self, name: str, tree: UnitTree, state: UnitState, record: Record, wanted: Document
    ) -> dict[str, Any]:
        texts, origin = self._files.read_parts(name) if name in tree.configured else ({}, {})
        document: dict[str, Any] = {key: text for key, text in texts.items() if key == "unit"}
        dropins = {part.removeprefix("dropins/"): text for part, text in texts.items() if part != "unit"}
        if dropins or "dropins" in wanted:
            document["dropins"] = dropins
        document["enabled"] = name in tree.enabled
        document["active"] = state.is_active
        if name in tree.masked or "masked" in wanted:
            document["masked"] = name in tree.masked
        for key, default in POLICY.items():
            if key in wanted or record.policy.get(key, default) != default:
                document[key] = record.policy.get(key, default)
        if record.pending:
            document["pending"] = list(record.pending)
        limits = {LIMIT_SETTINGS[setting] for setting in tree.limits.get(name, ()) if setting in LIMIT_SETTINGS}
        if limits or "properties" in wanted:
            document["properties"] = dict.fromkeys(sorted(limits))
        origin |= {f"properties/{limit}": "foreign" for limit in limits if limit not in record.properties}
        if origin:
            document["origin"] = dict(sorted(origin.items()))
        return document

    async def _ask_manager(self, name: str, document: dict[str, Any], tree: UnitTree, state: UnitState) -> None:
        """Fill in what only the manager knows, for the few units that have it."""
        if state.active == "failed":
            document["failed"] = dict(await self._manager.read_failure(state))
        if document.get("properties") and kind_of(name) in LIMITED and state.path:
            values = await self._manager.read_limits(name, state)
            document["properties"] = {
                limit: "infinity" if values[limit] == INFINITY else values[limit]
                for limit in document["properties"]
                if limit in values
            }

    # --- apply -----------------------------------------------------------------------------------------

    async def apply(self, action: Action) -> ApplyResult:
        steps = {
            "write": self._write,
            RELOAD_MANAGER: self._reload_manager,
            "note": self._note,
            "set-properties": self._set_properties,
            "unset-properties": self._unset_properties,
            "enable": self._enable,
            "disable": self._disable,
            "mask": self._mask,
            "unmask": self._unmask,
            "start": self._start,
            "stop": self._stop,
            "restart": self._restart,
            "reload": self._reload,
            "settle": self._settle,
            "forget": self._forget,
        }
        step = steps.get(action.step)
        if step is None or not UNIT_NAME.match(action.element):
            raise ApplyFailed(f"systemd has no step {action.step!r} for {action.element!r}")
        return ApplyResult(action, await step(action.element, action.details))

    async def _write(self, unit: str, details: Mapping[str, Any]) -> str:
        texts, remove = details["write"], details["remove"]
        await _verify_texts(unit, texts)
        then = details["then"]
        follow = (RELOAD_MANAGER,) if then == "none" else (RELOAD_MANAGER, then)
        # After this line a crash leaves a note of what is to follow; the next plan does it.
        await self._remember(unit, pending=follow)
        await trio.to_thread.run_sync(
            lambda: self._files.write(unit, texts, remove=remove, theirs=details["theirs"], unmarked=details["foreign"])
        )
        await self._reload_manager(unit, {})
        words = [f"wrote {part}" for part in texts] + [f"removed {part}" for part in remove]
        return f"{unit}: {', '.join(words)}"

    async def _reload_manager(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._manager.reload()
        if not is_template(unit):
            if not await trio.to_thread.run_sync(lambda: self._files.scan().has(unit)):
                await self._manager.forget_failure(unit)
            await self._manager.check_loaded(unit)
        record = await trio.to_thread.run_sync(self._records.load, unit)
        await self._remember(unit, pending=tuple(step for step in record.pending if step != RELOAD_MANAGER))
        return f"systemd read its unit files again for {unit}"

    async def _note(self, unit: str, details: Mapping[str, Any]) -> str:
        await self._remember(unit, policy=details["policy"])
        return f"noted what opfs is to do with {unit}"

    async def _set_properties(self, unit: str, details: Mapping[str, Any]) -> str:
        values = details["properties"]
        numbers = {name: INFINITY if value == "infinity" else value for name, value in values.items()}
        record = await trio.to_thread.run_sync(self._records.load, unit)
        ours = set(record.properties) | (set(values) - set(details["foreign"]))
        await self._remember(unit, properties=tuple(sorted(ours - set(details["foreign"]))))
        await self._manager.set_limits(unit, numbers)
        return f"set {', '.join(f'{name} {value}' for name, value in values.items())} of {unit}"

    async def _unset_properties(self, unit: str, details: Mapping[str, Any]) -> str:
        names = details["properties"]
        settings = [setting for setting, name in LIMIT_SETTINGS.items() if name in names]
        await trio.to_thread.run_sync(self._files.remove_limits, unit, settings)
        await self._manager.reload()
        record = await trio.to_thread.run_sync(self._records.load, unit)
        await self._remember(unit, properties=tuple(name for name in record.properties if name not in names))
        return f"lifted {', '.join(names)} of {unit}"

    async def _enable(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._check_there(unit)
        await self._manager.enable(unit)
        return f"enabled {unit}"

    async def _disable(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._manager.disable(unit)
        return f"disabled {unit}"

    async def _mask(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._manager.mask(unit)
        return f"masked {unit}"

    async def _unmask(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._manager.unmask(unit)
        return f"unmasked {unit}"

    async def _start(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._manager.start(unit)
        await self._remember(unit, pending=())
        return f"started {unit}"

    async def _stop(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._manager.stop(unit)
        await self._remember(unit, pending=())
        return f"stopped {unit}"

    async def _restart(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._manager.restart(unit)
        await self._remember(unit, pending=())
        return f"restarted {unit}"

    async def _reload(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._manager.reload_unit(unit)
        await self._remember(unit, pending=())
        return f"{unit} read its configuration again"

    async def _settle(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await self._remember(unit, pending=())
        return f"left {unit} as it was"

    async def _forget(self, unit: str, details: Mapping[str, Any]) -> str:
        del details
        await trio.to_thread.run_sync(self._records.save, unit, Record())
        return f"forgot {unit}"

    async def _check_there(self, unit: str) -> None:
        if not await trio.to_thread.run_sync(lambda: self._files.scan().has(unit)):
            hint = "give its text as unit, or install the package that brings it"
            raise ApplyFailed(f"there is no unit {unit} on this host", hint=hint)

    async def _remember(self, unit: str, **changes: Any) -> None:
        def change() -> None:
            before = self._records.load(unit)
            after = replace(before, **changes)
            if after != before:
                self._records.save(unit, after)

        await trio.to_thread.run_sync(change)

    # --- watch -----------------------------------------------------------------------------------------

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """Report units that come, go, start, stop and fail, and changed unit files once systemd has read them.

        systemd does not say on whose behalf it acts, so there is no culprit.
        """
        async with self._manager.connected() as bus, trio.open_nursery() as nursery:
            async with (
                bus.signals(MANAGER, "PropertiesChanged", below=UNITS_BELOW, interface=_PROPERTIES) as properties,
                bus.signals(MANAGER) as events,
                bus.ownership(MANAGER) as ownership,
            ):
                nursery.start_soon(_report_properties, properties, report)
                nursery.start_soon(_report_events, events, report)
                async for _ in ownership:
                    break
            nursery.cancel_scope.cancel()
        raise ApplyFailed("systemd left the message bus")


async def _report_properties(properties: Any, report: Callable[[Sighting], None]) -> None:
    async for signal in properties:
        interface, changed, _ = signal.arguments
        unit = _unescape(signal.path.rpartition("/")[2])
        if interface == UNIT and "ActiveState" in changed and UNIT_NAME.match(unit):
            report(Sighting(unit))


async def _report_events(events: Any, report: Callable[[Sighting], None]) -> None:
    async for signal in events:
        if signal.member in ("UnitNew", "UnitRemoved") and UNIT_NAME.match(signal.arguments[0]):
            report(Sighting(signal.arguments[0]))
        elif signal.member == "UnitFilesChanged" or (signal.member == "Reloading" and not signal.arguments[0]):
            report(Sighting(None))


def _unescape(label: str) -> str:
    """The unit's name in a bus path's last part: `_2e` stands for the byte 0x2e."""
    head, *rest = label.split("_")
    return head + "".join(chr(int(part[:2], 16)) + part[2:] if part[:2] else "_" for part in rest)


async def _verify_texts(unit: str, texts: Mapping[str, str]) -> None:
    """Let systemd itself read the new files in a place of their own first. Raises ApplyFailed with its words.

    Only what it says of these files counts: that a program is not there yet is no fault of the text.
    """

    def lay_out(place: str) -> None:
        for part, text in texts.items():
            path = Path(place, unit) if part == "unit" else Path(place, f"{unit}.d", part.removeprefix("dropins/"))
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    if not texts:
        return
    with tempfile.TemporaryDirectory(prefix="opfs-systemd-") as place:
        await trio.to_thread.run_sync(lay_out, place)
        if "unit" not in texts:
            # Drop-ins are read with a unit only; this one says nothing itself.
            section = "Unit"
            await trio.to_thread.run_sync(Path(place, unit).write_text, f"[{section}]\nDescription=verified\n")
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--no-pager", f"{place}/{unit}"]
        environment = {**ENVIRONMENT, "SYSTEMD_LOG_COLOR": "0", "SYSTEMD_UNIT_PATH": f"{place}:"}
        done = await run_tool(command, timeout_s=30, environment=environment, doing=f"checking {unit}")
    said = done.errors.splitlines()
    faults = [line.partition(place)[2].lstrip("/") for line in said if f"{place}/" in line and ":" in line]
    faults = [fault for fault in faults if fault.partition(":")[2][:1].isdigit()]
    if faults:
        raise ApplyFailed(f"systemd would not follow {unit}: {'; '.join(faults[:3])}")
