"""The `lxc` plugin on plain LXC: containers of one LXC directory, observed from files and driven by the tools.

It keeps nothing beside LXC's own files: what a document asked for is in the container's `config`, and what
is so is in the control groups and in what LXC says. Every action is idempotent, so after a crash it may be
repeated or replaced by a plan made anew. Runs on the trio thread; directory scans, tree removal and fsync
leave it. Calls for different containers may run concurrently. Proxmox' `pct` is not this plugin's backend.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import trio

from opfs.clients.lxc import PACKAGES, TEMPLATES, ContainerState, LxcTools
from opfs.core.action import Action, ApplyResult, Difference, Document, StateDiff
from opfs.core.names import ElementId
from opfs.errors import ApplyFailed
from opfs.plugins.contract import ContractDefaults, PluginContext
from opfs.plugins.lxc.accepts import LXC_NAME, check_document
from opfs.plugins.lxc.config import (
    ConfigFile,
    describe_config,
    edit_config,
    root_directory,
)
from opfs.plugins.lxc.guest import keep_static_addresses
from opfs.plugins.lxc.live import LiveLimits
from opfs.plugins.lxc.plan import (
    DEFAULT_TEMPLATE,
    LIMITS,
    PLUGIN,
    bridges_of,
    compare_container,
    plan_container,
    settle,
)
from opfs.ports import Capabilities

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

DEFAULT_LXCPATH = Path("/var/lib/lxc")
DEFAULT_CONFIG = Path("/etc/lxc/default.conf")
_RESTART = "restart"
"""The note in a configuration that a stopped container was only stopped to be started again."""
_STATE_WORDS = {"STOPPED": "stopped", "FROZEN": "frozen"}


class LxcPlugin(ContractDefaults):
    """Containers as elements."""

    name: ClassVar[str] = PLUGIN
    capabilities: ClassVar[Capabilities] = Capabilities()

    def __init__(
        self,
        lxcpath: Path = DEFAULT_LXCPATH,
        *,
        forbidden_paths: Sequence[Path] = (),
        default_config: Path = DEFAULT_CONFIG,
    ) -> None:
        super().__init__()
        self.apply_timeout_s = 420.0
        self.lxcpath = lxcpath
        self._tools = LxcTools(lxcpath)
        self._forbidden = tuple(map(str, (*forbidden_paths, lxcpath)))
        self._default_config = default_config
        self._live = LiveLimits()
        self.host = self._live.host

    @classmethod
    def from_context(cls, context: PluginContext) -> Self:
        """Setting `lxcpath`: the LXC directory, /var/lib/lxc unless given."""
        lxcpath = Path(context.settings.get("lxcpath", DEFAULT_LXCPATH))
        return cls(lxcpath, forbidden_paths=context.forbidden_paths)

    def why_unavailable(self) -> str | None:
        missing = self._tools.missing()
        if missing:
            return f"{', '.join(missing)} not installed; apt-get install {PACKAGES}"
        if os.geteuid() != 0:
            return "containers of the system need root; run the daemon as root"
        return None

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        super().check(element, desired)
        check_document(element, desired, self.host, self._forbidden)

    def plan(self, element: str, current: Document | None, desired: Document | None) -> StateDiff:
        return plan_container(element, current, desired)

    def compare(self, element: str, desired: Document | None, observed: Document | None) -> Sequence[Difference]:
        if desired is None or observed is None:
            return super().compare(element, desired, observed)
        return tuple(compare_container(element, desired, observed))

    def depends_on(self, element: str, desired: Document) -> Sequence[ElementId]:
        return [ElementId("net", bridge) for bridge in bridges_of(settle(element, desired))]

    def is_protected(self, element: str, current: Document) -> bool:
        del element
        return bool(current.get("protection"))

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(
        self, elements: Collection[str] | None, *, desired: Mapping[str, Document] | None = None
    ) -> Mapping[str, Document]:
        """One listing by LXC for any number of containers; the rest is read from files."""
        del desired
        names = await trio.to_thread.run_sync(self._existing, elements)
        if not names:
            return {}
        states = await self._tools.list_states(names[0] if len(names) == 1 else None)
        return await trio.to_thread.run_sync(self._describe_all, names, states)

    def _existing(self, elements: Collection[str] | None) -> list[str]:
        """The containers that are complete; a half-made one counts as absent, so that it is made anew."""
        if elements is None:
            try:
                elements = os.listdir(self.lxcpath)
            except FileNotFoundError:
                return []
        return sorted(name for name in elements if LXC_NAME.match(name) and self._is_complete(name))

    def _is_complete(self, name: str) -> bool:
        directory = self.lxcpath / name
        return (directory / "config").is_file() and not (directory / "partial").exists()

    def _describe_all(self, names: Sequence[str], states: Mapping[str, ContainerState]) -> dict[str, Document]:
        found: dict[str, Document] = {}
        for name in names:
            try:
                config = self._read_config(name)
            except FileNotFoundError:
                continue
            found[name] = self._describe(name, config, states.get(name, ContainerState("STOPPED", 0)))
        return found

    def _describe(self, name: str, config: ConfigFile, state: ContainerState) -> Document:
        document = describe_config(name, config, self.host, str(self.lxcpath / name))
        document["state"] = _STATE_WORDS.get(state.word, "running")
        if state.init_pid:
            configured = {key: document.pop(key) for key in LIMITS if key in document}
            live = self._live.read(state.init_pid, configured)
            document |= live
            pending = {key: configured.get(key) for key in LIMITS if configured.get(key) != live.get(key)}
            if pending:
                document["pending"] = pending
        elif config.notes().get(_RESTART):
            document["pending"] = {"state": "running"}
        return document

    def _read_config(self, name: str) -> ConfigFile:
        return ConfigFile.parse((self.lxcpath / name / "config").read_text(errors="surrogateescape"))

    # --- apply -----------------------------------------------------------------------------------------

    async def apply(self, action: Action) -> ApplyResult:
        steps = {
            "create": self._create,
            "start": self._start,
            "stop": self._stop,
            "kill": self._kill,
            "thaw": self._start,
            "destroy": self._destroy,
            "set-at-start": self._configure,
            "set-limits": self._set_limits,
            "set-options": self._configure,
        }
        step = steps.get(action.step)
        if step is None or not LXC_NAME.match(action.element):
            raise ApplyFailed(f"lxc has no step {action.step!r} for {action.element!r}")
        return ApplyResult(action, await step(action.element, action.details))

    async def _create(self, name: str, details: Mapping[str, Any]) -> str:
        template, root = details.get("ostemplate"), details.get("rootfs")
        if await trio.to_thread.run_sync(self._is_complete, name):
            # An earlier run of this action may have come this far; anything else is somebody else's.
            config = await trio.to_thread.run_sync(self._read_config, name)
            if config.notes().get("ostemplate") != template or (root and root_directory(config) != root):
                raise ApplyFailed(f"a container {name} is there already, made from something else")
        else:
            source = await trio.to_thread.run_sync(self._check_root, root) if root else _check_template(template or "")
            await self._remove(name)
            await self._make(name, template, source if root else None)
        await self._configure(name, details)
        return f"created the container {name} from {template or root}"

    async def _make(self, name: str, template: str | None, root: str | None) -> None:
        config = await trio.to_thread.run_sync(self._base_config, template, root)
        try:
            await self._tools.create(name, config, "none" if root else template or "")
        except BaseException:
            # Whatever ended it, a failed template or a cancellation: leave no half-made container.
            with trio.CancelScope(shield=True), trio.move_on_after(30):
                await self._remove(name)
            raise
        finally:
            config.unlink(missing_ok=True)

    def _base_config(self, template: str | None, root: str | None) -> Path:
        """A file with what a new container begins with: the host's defaults without their network."""
        lines = []
        if self._default_config.exists():
            is_confined = _read_text("/sys/module/apparmor/parameters/enabled") == "Y"
            for line in self._default_config.read_text().splitlines():
                key = line.partition("=")[0].strip()
                if key.startswith("lxc.apparmor.") and not is_confined:
                    # A profile named on a host without AppArmor is noise at best and refused at worst.
                    continue
                if key.startswith("lxc.") and not key.startswith("lxc.net."):
                    lines.append(line)
        config = ConfigFile((*lines, "lxc.net.0.type = empty")).with_notes({"ostemplate": template})
        if root is not None:
            config = config.with_values({"lxc.rootfs.path": f"dir:{root}"})
        descriptor, path = tempfile.mkstemp(prefix="opfs-lxc-", suffix=".conf")
        with os.fdopen(descriptor, "w") as file:
            file.write(config.render())
        return Path(path)

    def _check_root(self, root: str) -> str:
        real = os.path.realpath(root)
        if real != root:
            raise ApplyFailed(f"the root {root} leads through a link to {real}", hint="name the directory itself")
        if not os.path.isdir(root):
            raise ApplyFailed(f"the root {root} is not a directory")
        if not os.path.lexists(os.path.join(root, "sbin/init")):
            raise ApplyFailed(f"the root {root} has no /sbin/init", hint="give a directory with a whole system in it")
        return root

    async def _start(self, name: str, details: Mapping[str, Any]) -> str:
        state = await self._state(name)
        if state.word == "RUNNING":
            await self._note(name, {_RESTART: False})
            return f"the container {name} was running"
        _check_bridges(details)
        if state.word == "FROZEN":
            await self._tools.thaw(name)
        else:
            await trio.to_thread.run_sync(self._prepare_guest, name)
            await self._tools.start(name)
        await self._note(name, {_RESTART: False})
        return f"started the container {name}"

    def _prepare_guest(self, name: str) -> None:
        config = self._read_config(name)
        has_addresses = any(key.endswith(".ipv4.address") for key, _ in config.entries())
        if has_addresses and config.notes().get("ostemplate") == DEFAULT_TEMPLATE:
            keep_static_addresses(self.lxcpath / name / "rootfs")

    async def _stop(self, name: str, details: Mapping[str, Any]) -> str:
        _check_bridges(details)
        # After this line a crash leaves a note that the container is to run again; the next plan starts it.
        await self._note(name, {_RESTART: bool(details.get("restart"))})
        if (await self._state(name)).word == "STOPPED":
            return f"the container {name} was stopped"
        await self._tools.stop(name)
        return f"stopped the container {name}"

    async def _kill(self, name: str, details: Mapping[str, Any]) -> str:
        del details
        if (await self._state(name)).word == "STOPPED":
            return f"the container {name} was stopped"
        await self._tools.kill(name)
        return f"ended the container {name}"

    async def _destroy(self, name: str, details: Mapping[str, Any]) -> str:
        del details
        if not await trio.to_thread.run_sync((self.lxcpath / name).exists):
            return f"the container {name} was gone"
        await self._kill(name, {})
        await self._remove(name)
        return f"destroyed the container {name}"

    async def _remove(self, name: str) -> None:
        """Remove what there is of a stopped or half-made container; a root given by the user stays."""
        directory = self.lxcpath / name
        if not await trio.to_thread.run_sync(directory.exists):
            return
        if await trio.to_thread.run_sync((directory / "config").is_file):
            config = await trio.to_thread.run_sync(self._read_config, name)
            root = root_directory(config)
            if root is not None and not root.startswith(f"{directory}/"):
                # lxc-destroy removes the root that the configuration names: make it name none.
                await self._write_config(name, config.with_values({"lxc.rootfs.path": None}))
            await self._tools.destroy(name)
        if await trio.to_thread.run_sync(directory.exists):
            await trio.to_thread.run_sync(shutil.rmtree, directory)

    async def _configure(self, name: str, details: Mapping[str, Any]) -> str:
        settings = details["settings"]
        config = await trio.to_thread.run_sync(self._read_config, name)
        edited = edit_config(name, config, settings, self.host)
        if edited != config:
            await self._write_config(name, edited)
        return f"set {', '.join(settings)} in the configuration of {name}"

    async def _set_limits(self, name: str, details: Mapping[str, Any]) -> str:
        settings: Mapping[str, Any] = details["settings"]
        before = await trio.to_thread.run_sync(self._read_config, name)
        # The configuration first: after a crash between the two, an observation shows the limits as pending.
        await self._configure(name, details)
        state = await self._state(name)
        try:
            is_live = bool(state.init_pid) and self._live.write(name, state.init_pid, settings)
        except ApplyFailed:
            # So that a failure leaves the configuration as it was, and the caller one thing less to undo.
            await self._write_config(name, before)
            raise
        where = "live and in the configuration" if is_live else "in the configuration"
        words = ", ".join(f"{key} {'none' if value is None else value}" for key, value in settings.items())
        return f"set {words} of {name} {where}"

    async def _note(self, name: str, notes: Mapping[str, Any]) -> None:
        config = await trio.to_thread.run_sync(self._read_config, name)
        noted = config.with_notes(notes)
        if noted != config:
            await self._write_config(name, noted)

    async def _state(self, name: str) -> ContainerState:
        return (await self._tools.list_states(name)).get(name, ContainerState("STOPPED", 0))

    async def _write_config(self, name: str, config: ConfigFile) -> None:
        await trio.to_thread.run_sync(_replace_file, self.lxcpath / name / "config", config.render())


def _check_template(template: str) -> str:
    if not os.access(TEMPLATES / f"lxc-{template}", os.X_OK):
        known = sorted(path.name.removeprefix("lxc-") for path in TEMPLATES.glob("lxc-*"))
        raise ApplyFailed(f"there is no template {template!r} in {TEMPLATES}", hint=f"there are: {', '.join(known)}")
    return template


def _check_bridges(details: Mapping[str, Any]) -> None:
    for bridge in details.get("bridges", ()):
        if not os.path.isdir(f"/sys/class/net/{bridge}/bridge"):
            raise ApplyFailed(f"there is no bridge {bridge!r} on this host", hint=f"ip link add {bridge} type bridge")


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _replace_file(path: Path, text: str) -> None:
    """Replace a configuration atomically, keeping its owner and mode; durable on return."""
    status = path.stat()
    temporary = path.with_name(".config.opfs")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", errors="surrogateescape") as file:
        file.write(text)
        file.flush()
        os.fchown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, status.st_mode & 0o7777)
        os.fsync(descriptor)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
