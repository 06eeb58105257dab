"""Plain LXC: containers of one LXC directory, observed from files and driven by the tools.

It keeps nothing beside LXC's own files: what a document asked for is in the container's `config`, and what
is so is in the control groups, in the guest and in what LXC says. Every step is idempotent, so after a crash it
may be repeated or replaced by a plan made anew. Runs on the trio thread; directory scans, tree removal and
fsync leave it. Calls for different containers may run concurrently.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from opfs.clients.lxc import PACKAGES, ContainerState, LxcTools
from opfs.errors import ApplyFailed
from opfs.plugins.lxc.accepts import LXC_NAME, check_document
from opfs.plugins.lxc.checkpoints import Checkpoints
from opfs.plugins.lxc.config import (
    MOUNTS_FILE,
    ConfigFile,
    Means,
    describe_config,
    edit_config,
    root_directory,
)
from opfs.plugins.lxc.guest import prepare_addresses, read_names, write_names
from opfs.plugins.lxc.live import LiveLimits
from opfs.plugins.lxc.making import Containers
from opfs.plugins.lxc.networks import Wiring, describe_networks, with_network
from opfs.plugins.lxc.plan import DNS, LIMITS, mounts_of
from opfs.plugins.lxc.sightings import watch_containers
from opfs.plugins.lxc.sources import check_volume
from opfs.plugins.lxc.subids import root_ids
from opfs.plugins.lxc.switches import Switches
from opfs.ports import Capabilities

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from opfs.core.action import Checkpoint, Document
    from opfs.ports import Sighting

_RESTART = "restart"
"""The note in a configuration that a stopped container was only stopped to be started again."""
_STATE_WORDS = {"STOPPED": "stopped", "FROZEN": "frozen"}


class PlainLxc:
    """The containers below one directory; `forbidden` are trees that no container gets to see."""

    def __init__(
        self, lxcpath: Path, *, forbidden: Sequence[str], default_config: Path, ovs_socket: Path, subids: Path
    ) -> None:
        self.lxcpath = lxcpath
        self.tools = LxcTools(lxcpath)
        self._containers = Containers(lxcpath, self.tools, default_config)
        self._checkpoints = Checkpoints(lxcpath, self._containers, self.observe_one, self.carry_out)
        self._forbidden = forbidden
        self._switches = Switches(ovs_socket)
        self._subids = subids
        self._live = LiveLimits()
        self.host = self._live.host
        self.steps: Mapping[str, Callable[[str, Mapping[str, Any]], Awaitable[str]]] = {
            "create": self._create,
            "start": self._start,
            "stop": self._stop,
            "kill": self._kill,
            "thaw": self._start,
            "destroy": self._destroy,
            "set-at-start": self._configure,
            "set-limits": self._set_limits,
            "set-dns": self._set_names,
            "set-options": self._configure,
        }

    @property
    def capabilities(self) -> Capabilities:
        can = self._checkpoints.are_possible()
        return Capabilities(supports_checkpoints=can, supports_rollback=can, watch=True)

    names_at_start = False

    def complete(self, element: str, desired: Document, observed: Document | None) -> Document:
        del element, observed
        return desired

    def why_unavailable(self) -> str | None:
        missing = self.tools.missing()
        if missing:
            return f"{', '.join(missing)} not installed; apt-get install {PACKAGES}"
        if os.geteuid() != 0:
            return "containers of the system need root; run the daemon as root"
        return None

    def check(self, element: str, desired: Document) -> None:
        has_idmap = not desired.get("unprivileged") or root_ids(self._subids) is not None
        check_document(element, desired, self.host, self._forbidden, has_idmap=has_idmap)

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(self, elements: Collection[str] | None) -> Mapping[str, Document]:
        """One listing by LXC for any number of containers; the rest is read from files."""
        names = await trio.to_thread.run_sync(self._existing, elements)
        if not names:
            return {}
        states = await self.tools.list_states(names[0] if len(names) == 1 else None)
        found, configs = await trio.to_thread.run_sync(self._describe_all, names, states)
        for name, missing in (await self._switches.missing_ports(configs)).items():
            found[name] = {**found[name], "pending": {**found[name].get("pending", {}), **missing}}
        return found

    async def observe_one(self, name: str) -> Document | None:
        return (await self.observe([name])).get(name)

    def _existing(self, elements: Collection[str] | None) -> list[str]:
        """The containers that are complete; a half-made one counts as absent, so that it is made anew."""
        if elements is None:
            try:
                elements = os.listdir(self.lxcpath)
            except FileNotFoundError:
                return []
        return sorted(name for name in elements if LXC_NAME.match(name) and self._containers.is_complete(name))

    def _describe_all(
        self, names: Sequence[str], states: Mapping[str, ContainerState]
    ) -> tuple[dict[str, Document], dict[str, ConfigFile]]:
        """All documents, and the configurations of those that run."""
        found: dict[str, Document] = {}
        running: dict[str, ConfigFile] = {}
        for name in names:
            try:
                config = self._containers.read_config(name)
            except FileNotFoundError:
                continue
            state = states.get(name, ContainerState("STOPPED", 0))
            found[name] = self._describe(name, config, state)
            if state.init_pid:
                running[name] = config
        return found, running

    def _describe(self, name: str, config: ConfigFile, state: ContainerState) -> Document:
        document = describe_config(name, config, self.host, str(self.lxcpath / name))
        document["state"] = _STATE_WORDS.get(state.word, "running")
        root = root_directory(config)
        document |= read_names(Path(root)) if root else {}
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

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        await watch_containers(self.lxcpath, report)

    # --- steps -----------------------------------------------------------------------------------------

    async def carry_out(self, step: str, name: str, details: Mapping[str, Any]) -> str:
        if step not in self.steps or not LXC_NAME.match(name):
            raise ApplyFailed(f"lxc has no step {step!r} for {name!r}")
        return await self.steps[step](name, details)

    async def _create(self, name: str, details: Mapping[str, Any]) -> str:
        await self._containers.make(name, details)
        await self._configure(name, details)
        if any(details["settings"].get(key) for key in DNS):
            await self._set_names(name, details)
        return f"created the container {name} from {details.get('ostemplate') or details.get('rootfs')}"

    async def _start(self, name: str, details: Mapping[str, Any]) -> str:
        state = await self._state(name)
        if state.word == "RUNNING":
            await self._note(name, {_RESTART: False})
            return f"the container {name} was running"
        await self._check_needs(details)
        if state.word == "FROZEN":
            await self.tools.thaw(name)
        else:
            await self._prepare(name)
            await self.tools.start(name)
        await self._note(name, {_RESTART: False})
        return f"started the container {name}"

    async def _check_needs(self, details: Mapping[str, Any]) -> None:
        """Raise ApplyFailed where a bridge or what is to be mounted is not there, or not safe to mount."""
        await self._switches.check(details.get("bridges", ()))
        for volume in details.get("volumes", ()):
            await trio.to_thread.run_sync(check_volume, volume, self._forbidden)

    async def _prepare(self, name: str) -> None:
        """What a start needs beside the configuration: the kinds of bridges now, the guest's script, a way in."""
        config = await trio.to_thread.run_sync(self._containers.read_config, name)
        networks = dict(describe_networks(config))
        wiring = await self._wiring(networks)
        wired = config
        for key, network in networks.items():
            if network.get("type", "veth") == "veth" and network.get("bridge"):
                wired = with_network(f"{self.lxcpath}/{name}", wired, key, network, wiring)
        if wired != config:
            await self._containers.write_config(name, wired)

        def prepare_guest() -> None:
            root = root_directory(wired)
            names = {key: network.get("name", f"eth{key.removeprefix('net')}") for key, network in networks.items()}
            asking = [names[key] for key, network in networks.items() if network.get("ip") == "dhcp"]
            has_static = any("/" in network.get(key, "") for network in networks.values() for key in ("ip", "ip6"))
            if root and networks:
                prepare_addresses(Path(root), asking, has_static=has_static)
            self._let_in(name, wired)

        await trio.to_thread.run_sync(prepare_guest)

    def _let_in(self, name: str, config: ConfigFile) -> None:
        """Let the root of an unprivileged container pass through the container's directory, and nobody else."""
        for entry in config.all_of("lxc.idmap"):
            kind, inside, outside, *_ = entry.split()
            if (kind, inside) == ("g", "0"):
                os.chown(self.lxcpath / name, -1, int(outside))
                os.chmod(self.lxcpath / name, 0o710)

    async def _stop(self, name: str, details: Mapping[str, Any]) -> str:
        await self._check_needs(details)
        # After this line a crash leaves a note that the container is to run again; the next plan starts it.
        await self._note(name, {_RESTART: bool(details.get("restart"))})
        if (await self._state(name)).word == "STOPPED":
            return f"the container {name} was stopped"
        await self.tools.stop(name)
        await self._check_stopped(name)
        await self._unplug(name)
        return f"stopped the container {name}"

    async def _kill(self, name: str, details: Mapping[str, Any]) -> str:
        del details
        if (await self._state(name)).word == "STOPPED":
            return f"the container {name} was stopped"
        await self.tools.kill(name)
        await self._check_stopped(name)
        return f"ended the container {name}"

    async def _check_stopped(self, name: str) -> None:
        """What is changed next counts only for a container that has stopped: do not take LXC's word for it."""
        word = (await self._state(name)).word
        if word != "STOPPED":
            raise ApplyFailed(f"lxc-stop reported success, and the container {name} is {word}")

    async def _destroy(self, name: str, details: Mapping[str, Any]) -> str:
        del details
        if not await trio.to_thread.run_sync((self.lxcpath / name).exists):
            return f"the container {name} was gone"
        await self._kill(name, {})
        await self._unplug(name)
        await self._containers.remove(name)
        return f"destroyed the container {name}"

    async def _unplug(self, name: str) -> None:
        """Take the ports of a stopped container off Open vSwitch: LXC does, unless its monitor was killed."""
        if await trio.to_thread.run_sync((self.lxcpath / name / "config").is_file):
            config = await trio.to_thread.run_sync(self._containers.read_config, name)
            await self._switches.unplug(config)

    async def _configure(self, name: str, details: Mapping[str, Any]) -> str:
        settings = dict(details["settings"])
        for key in mounts_of(settings):
            if settings[key] is not None:
                is_file = await trio.to_thread.run_sync(check_volume, settings[key]["volume"], self._forbidden)
                settings[key] = {**settings[key], **({MOUNTS_FILE: True} if is_file else {})}
        means = Means(f"{self.lxcpath}/", await self._wiring(settings), root_ids(self._subids) or Means().idmap)
        config = await trio.to_thread.run_sync(self._containers.read_config, name)
        edited = edit_config(name, config, settings, self.host, means)
        if edited != config:
            await self._containers.write_config(name, edited)
        return f"set {', '.join(settings)} in the configuration of {name}"

    async def _wiring(self, settings: Mapping[str, Any]) -> Wiring:
        values = [settings[key] for key in settings if key.startswith("net") and isinstance(settings[key], dict)]
        return await self._switches.wiring({value["bridge"] for value in values if value.get("bridge")})

    async def _set_limits(self, name: str, details: Mapping[str, Any]) -> str:
        settings: Mapping[str, Any] = details["settings"]
        before = await trio.to_thread.run_sync(self._containers.read_config, name)
        # The configuration first: after a crash between the two, an observation shows the limits as pending.
        await self._configure(name, details)
        state = await self._state(name)
        try:
            is_live = bool(state.init_pid) and self._live.write(name, state.init_pid, settings)
        except ApplyFailed:
            # So that a failure leaves the configuration as it was, and the caller one thing less to undo.
            await self._containers.write_config(name, before)
            raise
        where = "live and in the configuration" if is_live else "in the configuration"
        words = ", ".join(f"{key} {'none' if value is None else value}" for key, value in settings.items())
        return f"set {words} of {name} {where}"

    async def _set_names(self, name: str, details: Mapping[str, Any]) -> str:
        settings = details["settings"]
        config = await trio.to_thread.run_sync(self._containers.read_config, name)
        root = root_directory(config)
        if root is None:
            raise ApplyFailed(f"the root of {name} is no directory, so its resolv.conf is out of reach")
        values = [settings.get(key, "") for key in DNS]
        await trio.to_thread.run_sync(write_names, Path(root), *values)
        return f"set {' and '.join(DNS)} of {name} in its resolv.conf"

    async def _note(self, name: str, notes: Mapping[str, Any]) -> None:
        config = await trio.to_thread.run_sync(self._containers.read_config, name)
        noted = config.with_notes(notes)
        if noted != config:
            await self._containers.write_config(name, noted)

    async def _state(self, name: str) -> ContainerState:
        return (await self.tools.list_states(name)).get(name, ContainerState("STOPPED", 0))

    # --- undo ------------------------------------------------------------------------------------------

    async def checkpoint(self, element: str) -> Checkpoint | None:
        return await self._checkpoints.take(element)

    async def rollback(self, checkpoint: Checkpoint) -> None:
        await self._checkpoints.rollback(checkpoint)

    async def release(self, checkpoint: Checkpoint) -> None:
        await self._checkpoints.release(checkpoint)
