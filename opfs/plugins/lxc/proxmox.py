"""Proxmox: the containers of this node, observed from /etc/pve/lxc and changed by `pct`.

What Proxmox does not remember is in one small file a container in the plugin's own directory: the template it
was made from, that a stopped one is to run again, and that its protection is ours. Proxmox applies some
changes to running containers by itself; here they wait for the plan's restart all the same, so that a document
costs the same on both backends. There are no checkpoints: whether a storage has snapshots is the storage's
business. Runs on the trio thread. Calls for different containers may run concurrently.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import trio

from opfs.clients.inotify import Inotify
from opfs.clients.pct import VMID
from opfs.errors import ApplyFailed
from opfs.plugins.contract import refuse
from opfs.plugins.lxc.accepts import check_mounts, check_names, check_network
from opfs.plugins.lxc.pctconfig import DEFAULTS, PctConfig, describe, encode, parse_config
from opfs.plugins.lxc.plan import NETWORKS, mounts_of
from opfs.plugins.lxc.sources import check_volume
from opfs.plugins.lxc.switches import is_device
from opfs.ports import Capabilities, Sighting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from opfs.clients.pct import Pct
    from opfs.core.action import Checkpoint, Document

_NEW_VOLUME = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*):(\d+(\.\d+)?)\Z")
"""`storage:gigabytes` asks for a new volume; what is configured then is the volume's own name."""
_UNSAID = "busybox"
"""What the plan says where a document says nothing; no template of Proxmox'."""


class Proxmox:
    """The containers of one node."""

    capabilities = Capabilities(watch=True)
    names_at_start = True

    def __init__(
        self, pct: Pct, *, state_dir: Path, forbidden: Sequence[str], storage: str = "local", ostemplate: str | None
    ) -> None:
        self._pct = pct
        self._notes = state_dir / "pct"
        self._forbidden = forbidden
        self._storage = storage
        self._ostemplate = ostemplate
        self.steps: Mapping[str, Callable[[str, Mapping[str, Any]], Awaitable[str]]] = {
            "create": self._create,
            "start": self._start,
            "stop": self._stop,
            "kill": self._kill,
            "destroy": self._destroy,
            "set-at-start": self._set,
            "set-limits": self._set,
            "set-options": self._set,
        }

    def why_unavailable(self) -> str | None:
        if not self._pct.is_installed():
            return "pct is not installed; it is part of Proxmox VE"
        return None if os.geteuid() == 0 else "pct needs root; run the daemon as root"

    # --- pure ------------------------------------------------------------------------------------------

    def check(self, element: str, desired: Document) -> None:
        """Refuse what no container of Proxmox can be; `pct` itself checks what depends on storages."""
        if not VMID.match(element):
            refuse("", f"{element!r} cannot be a container of Proxmox, which numbers them", "100 to 999999999")
        if "rootfs" in desired:
            refuse("/rootfs", "on Proxmox roots are volumes of storages", "leave it out; the setting is `storage`")
        template = desired.get("ostemplate")
        if template is not None and "/" not in template:
            refuse("/ostemplate", f"{template!r} is no template of Proxmox", "local:vztmpl/NAME.tar.zst, or a path")
        if template is not None and not template.isprintable():
            refuse("/ostemplate", f"{template!r} has characters that cannot be shown", "use printable characters")
        if desired.get("description", "").endswith("\n"):
            refuse("/description", "Proxmox does not keep a line feed at the end", "end with the last word")
        for key in NETWORKS:
            if key in desired:
                check_network(key, desired[key])
        check_names(desired)
        check_mounts(desired, self._forbidden)
        for key in mounts_of(desired):
            for name in ("volume", "mp"):
                if "," in desired[key][name] or not desired[key][name].isprintable():
                    reason = "Proxmox cannot have a comma in it, nor what cannot be shown"
                    refuse(f"/{key}/{name}", reason, "rename the directory")

    def complete(self, element: str, desired: Document, observed: Document | None) -> Document:
        whole: dict[str, Any] = {"hostname": f"CT{element}", **DEFAULTS, **desired}
        for key in (*NETWORKS, *mounts_of(desired)):
            now = (observed or {}).get(key)
            if key not in desired or not isinstance(now, dict):
                continue
            if key in NETWORKS:
                # Proxmox chooses an address for an interface without one, and keeps it.
                whole[key] = {**({"hwaddr": now["hwaddr"]} if "hwaddr" in now else {}), **desired[key]}
            elif (match := _NEW_VOLUME.match(desired[key]["volume"])) and now["volume"].startswith(match[1] + ":"):
                size = {"size": now["size"]} if "size" in now else {}
                whole[key] = {**size, **desired[key], "volume": now["volume"]}
        if observed is not None and "ostemplate" not in observed:
            # Made by others, of a template that nobody wrote down: no reason to destroy it.
            whole.pop("ostemplate", None)
        return whole

    # --- observe ---------------------------------------------------------------------------------------

    async def observe(self, elements: Collection[str] | None) -> Mapping[str, Document]:
        configs = await trio.to_thread.run_sync(self._read_all, elements)
        if not configs:
            return {}
        states = await self._pct.list_states()
        found: dict[str, Document] = {}
        for vmid, (config, notes) in configs.items():
            document = describe(config)
            document["state"] = "running" if states.get(vmid) == "running" else "stopped"
            if "ostemplate" in notes:
                document["ostemplate"] = notes["ostemplate"]
            if notes.get("restart") and document["state"] == "stopped":
                document["pending"] = {**document.get("pending", {}), "state": "running"}
            found[vmid] = document
        return found

    def _read_all(self, elements: Collection[str] | None) -> dict[str, tuple[PctConfig, dict[str, Any]]]:
        if elements is None:
            try:
                elements = [name.removesuffix(".conf") for name in os.listdir(self._pct.configs)]
            except FileNotFoundError:
                return {}
        found = {}
        for vmid in sorted(element for element in elements if VMID.match(element)):
            try:
                found[vmid] = (parse_config(self._pct.read_config(vmid)), self._read_notes(vmid))
            except FileNotFoundError:
                continue
        return found

    async def watch(self, report: Callable[[Sighting], None]) -> None:
        """Configurations by inotify; /etc/pve reports what this node changes, and states are not reported."""
        with Inotify() as inotify:
            if not inotify.add(str(self._pct.configs)):
                raise ApplyFailed(f"there is no directory {self._pct.configs} to watch")
            async for change in inotify.changes():
                vmid = None if change is None else change[1].removesuffix(".conf")
                if vmid is None or VMID.match(vmid):
                    report(Sighting(vmid))

    # --- steps -----------------------------------------------------------------------------------------

    async def _create(self, vmid: str, details: Mapping[str, Any]) -> str:
        template = details.get("ostemplate", _UNSAID)
        template = (self._ostemplate or "") if template == _UNSAID else template
        if not template:
            raise ApplyFailed(
                "nothing says what the container is made from", hint='"ostemplate": "local:vztmpl/NAME.tar.zst"'
            )
        settings = details["settings"]
        await self._check_host(settings)
        if vmid in await self.observe([vmid]):
            if self._read_notes(vmid).get("ostemplate") != template:
                raise ApplyFailed(f"a container {vmid} is there already, made from something else")
            return await self._set(vmid, details)
        # Before the container: of one that a crash leaves, recovery knows what it was made from.
        self._write_notes(vmid, {"ostemplate": template})
        options = {key: encode(key, value, None) for key, value in settings.items()}
        given = {key: value for key, value in options.items() if value is not None}
        self._write_notes(vmid, {"protection": settings.get("protection", False)})
        await self._pct.create(vmid, template, {**given, "storage": self._storage})
        return f"created the container {vmid} from {template}"

    async def _check_host(self, settings: Mapping[str, Any]) -> None:
        bridges = {settings[key]["bridge"] for key in NETWORKS if settings.get(key)}
        volumes = [settings[key]["volume"] for key in mounts_of(settings) if settings[key]]
        await self._check_needs({"bridges": bridges, "volumes": volumes})

    async def _check_needs(self, details: Mapping[str, Any]) -> None:
        for bridge in details.get("bridges", ()):
            # Proxmox puts interfaces on a bridge of Open vSwitch by itself, so any device of that name will do.
            if not is_device(bridge):
                raise ApplyFailed(
                    f"there is no bridge {bridge!r} on this host", hint=f"ip link add {bridge} type bridge"
                )
        for volume in details.get("volumes", ()):
            if volume.startswith("/"):
                await trio.to_thread.run_sync(check_volume, volume, self._forbidden)

    async def _set(self, vmid: str, details: Mapping[str, Any]) -> str:
        settings = details["settings"]
        await self._check_host(settings)
        now = parse_config(await trio.to_thread.run_sync(self._pct.read_config, vmid))
        wanted = {key: encode(key, value, now.current.get(key)) for key, value in settings.items()}
        waiting = [key for key in wanted if key in now.pending]
        if waiting:
            await self._pct.revert(vmid, waiting)
        changed = {key: value for key, value in wanted.items() if value != now.current.get(key)}
        options = {key: value for key, value in changed.items() if value is not None}
        if "protection" in options:
            self._write_notes(vmid, {"protection": settings["protection"]})
        gone = [key for key, value in changed.items() if value is None]
        if options or gone:
            await self._pct.set(vmid, options, gone)
        return f"set {', '.join(settings)} of {vmid}"

    async def _start(self, vmid: str, details: Mapping[str, Any]) -> str:
        if await self._is_running(vmid):
            self._write_notes(vmid, {"restart": False})
            return f"the container {vmid} was running"
        await self._check_needs(details)
        await self._pct.start(vmid)
        self._write_notes(vmid, {"restart": False})
        return f"started the container {vmid}"

    async def _stop(self, vmid: str, details: Mapping[str, Any]) -> str:
        await self._check_needs(details)
        # After this line a crash leaves a note that the container is to run again; the next plan starts it.
        self._write_notes(vmid, {"restart": bool(details.get("restart"))})
        if not await self._is_running(vmid):
            return f"the container {vmid} was stopped"
        await self._pct.shutdown(vmid)
        await self._check_stopped(vmid)
        return f"stopped the container {vmid}"

    async def _kill(self, vmid: str, details: Mapping[str, Any]) -> str:
        del details
        if not await self._is_running(vmid):
            return f"the container {vmid} was stopped"
        await self._pct.stop(vmid)
        await self._check_stopped(vmid)
        return f"ended the container {vmid}"

    async def _destroy(self, vmid: str, details: Mapping[str, Any]) -> str:
        del details
        if vmid not in await self.observe([vmid]):
            self._forget_notes(vmid)
            return f"the container {vmid} was gone"
        await self._kill(vmid, {})
        if self._read_notes(vmid).get("protection"):
            # Whether ours may be lifted has been decided before; somebody else's makes `pct` refuse.
            await self._pct.set(vmid, {"protection": "0"})
        await self._pct.destroy(vmid)
        self._forget_notes(vmid)
        return f"destroyed the container {vmid}"

    async def _check_stopped(self, vmid: str) -> None:
        if await self._is_running(vmid):
            raise ApplyFailed(f"pct reported success, and the container {vmid} runs")

    async def _is_running(self, vmid: str) -> bool:
        return (await self._pct.list_states()).get(vmid) == "running"

    # --- what Proxmox does not remember ----------------------------------------------------------------

    def _read_notes(self, vmid: str) -> dict[str, Any]:
        try:
            notes = json.loads((self._notes / f"{vmid}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _write_notes(self, vmid: str, changes: Mapping[str, Any]) -> None:
        before = self._read_notes(vmid)
        notes = {key: value for key, value in {**before, **changes}.items() if value}
        if notes == before:
            return
        self._notes.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._notes / f".{vmid}.json"
        fresh.write_text(json.dumps(notes))
        fresh.replace(self._notes / f"{vmid}.json")

    def _forget_notes(self, vmid: str) -> None:
        (self._notes / f"{vmid}.json").unlink(missing_ok=True)

    # --- undo ------------------------------------------------------------------------------------------

    async def checkpoint(self, element: str) -> Checkpoint | None:
        del element
        return None

    async def rollback(self, checkpoint: Checkpoint) -> None:
        raise ApplyFailed(f"no checkpoints are made on Proxmox, so none like {checkpoint.id!r} is there to return to")

    async def release(self, checkpoint: Checkpoint) -> None:
        del checkpoint
