"""The checks of `opfs doctor`, each a function that says what it found; they change nothing.

A check never raises for what it came to find. Loading the plugins runs their code. Synchronous.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.errors import OpfsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.config import Config

_PROGRAMS = {
    "mkfs.btrfs": "btrfs-progs",
    "losetup": "mount",
    "mount": "mount",
    "umount": "mount",
}
"""Programs opfs runs, and their Debian packages."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`state` is ok, note (works, but) or WRONG; `remedy` is what to do about the latter two."""

    check: str
    state: str
    found: str
    remedy: str = ""


def findings(config: Config) -> Iterator[Finding]:
    """Run every check, cheapest first."""
    yield from _configuration(config)
    yield from _kernel()
    yield from _programs()
    yield from _pool(config)
    yield from _mount(config)
    yield from _plugins(config)
    yield from _model(config)
    yield from _embedding(config)
    yield from _placement(config)


def _configuration(config: Config) -> Iterator[Finding]:
    yield Finding("configuration", "ok", f"pool {config.pool}, mount {config.mount}")
    for warning in config.warnings:
        yield Finding("configuration", "note", warning, "unset the variable")
    if os.geteuid() != 0:
        yield Finding("user", "note", "not root: some checks cannot look closely", "sudo opfs doctor")


def _kernel() -> Iterator[Finding]:
    release = platform.release()
    known = Path("/proc/filesystems").read_text().split()
    if "btrfs" in known or Path(f"/lib/modules/{release}/kernel/fs/btrfs").is_dir():
        yield Finding("btrfs", "ok", f"known to the kernel ({release})")
    else:
        yield Finding("btrfs", "WRONG", f"the kernel {release} has no btrfs", "modprobe btrfs, or a kernel with it")
    for check, device, remedy in (
        ("fuse", "/dev/fuse", "modprobe fuse; in a container: hand it /dev/fuse"),
        ("loop", "/dev/loop-control", "modprobe loop; only needed for a pool in an image"),
    ):
        try:
            os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
            yield Finding(check, "ok", device)
        except OSError as error:
            yield Finding(check, "WRONG" if check == "fuse" else "note", f"{device}: {error.strerror}", remedy)


def _programs() -> Iterator[Finding]:
    missing = {program: package for program, package in _PROGRAMS.items() if not shutil.which(program)}
    if not missing:
        yield Finding("programs", "ok", ", ".join(_PROGRAMS))
    for program, package in missing.items():
        yield Finding("programs", "WRONG", f"{program} is not installed", f"apt-get install {package}")


def _pool(config: Config) -> Iterator[Finding]:
    from opfs.btrfs.image import image_path
    from opfs.btrfs.pool import FORMAT, is_pool, load_info
    from opfs.cli.process import find_daemon

    image = image_path(config.pool)
    try:
        if not is_pool(config.pool):
            if image.exists():
                yield Finding("pool", "note", f"{image} is not mounted", "sudo opfs mount")
            else:
                yield Finding("pool", "note", f"there is none in {config.pool} yet", "sudo opfs up")
            return
        info = load_info(config.pool)
    except PermissionError:
        yield Finding("pool", "note", f"{config.pool} is for root alone", "sudo opfs doctor")
        return
    except OpfsError as error:
        yield Finding("pool", "WRONG", error.reason, error.hint)
        return
    if info.format > FORMAT:
        yield Finding("pool", "WRONG", f"format {info.format}; this opfs knows up to {FORMAT}", "a newer opfs")
    else:
        yield Finding("pool", "ok", f"format {info.format}, log {info.origin}, made {info.created}")
    pid = find_daemon(config.pool)
    yield Finding("daemon", "ok" if pid else "note", f"pid {pid}" if pid else "none", "" if pid else "sudo opfs mount")


def _mount(config: Config) -> Iterator[Finding]:
    from opfs.fuse.mountpoint import MOUNT_TYPE, is_answering, mount_at

    mount = mount_at(config.mount)
    if mount is None:
        yield Finding("mount", "note", f"nothing on {config.mount}", "sudo opfs up")
    elif mount.type != MOUNT_TYPE:
        yield Finding("mount", "WRONG", f"a {mount.type} is mounted on {config.mount}", "unmount it or use --mount")
    elif not is_answering(config.mount):
        yield Finding("mount", "WRONG", f"the daemon of {config.mount} is gone", "sudo opfs mount")
    else:
        yield Finding("mount", "ok", f"{config.mount} answers")


def _plugins(config: Config) -> Iterator[Finding]:
    from opfs.plugins.contract import PluginContext
    from opfs.plugins.registry import load_plugins

    def context_of(name: str) -> PluginContext:
        # none of these is looked at by a plugin that is only asked whether it can work
        return PluginContext(config.pool / "@drafts" / "plugins" / name, (), config.plugin_settings(name))

    for name, plugin in load_plugins(context_of, config.plugins).items():
        reason = plugin.why_unavailable()
        yield Finding(f"plugin {name}", "note" if reason else "ok", reason or "can work here")


def _model(config: Config) -> Iterator[Finding]:
    from opfs.embedding.weights import list_models, verify

    for status in list_models(config.models):
        name = f"model {status.model.name}"
        try:
            if not status.is_installed:
                yield Finding("model", "WRONG", f"{status.model.name}: {status.problem}", "sudo opfs model fetch")
                continue
            verify(status.model, config.models)
            yield Finding("model", "ok", f"{status.model.name}, every byte as published")
        except OpfsError as error:
            yield Finding("model", "WRONG", f"{name}: {error.reason}", error.hint or "sudo opfs model fetch")


def _embedding(config: Config) -> Iterator[Finding]:
    """The model as the configuration wants it: runs one text, on what the daemon would run it."""
    from opfs.embedding.model import MiniLmEmbedder
    from opfs.embedding.weights import list_models

    if not all(status.is_installed for status in list_models(config.models)):
        return  # told by the check before
    embedder = MiniLmEmbedder(config.models, config.embedding)
    try:
        embedder.embed(["web server memory"])
    except OpfsError as error:
        yield Finding("embedding", "WRONG", error.reason, error.hint or "sudo opfs model fetch")
        return
    found = f"{config.embedding.variant} on {embedder.provider}, {config.embedding.threads} at once"
    if embedder.provider_note:
        remedy = "install onnxruntime-gpu in place of onnxruntime and its libraries, or change embedding_providers"
        yield Finding("embedding", "note", f"{found}; {embedder.provider_note}", remedy)
    else:
        yield Finding("embedding", "ok", found)
    embedder.close()


def _placement(config: Config) -> Iterator[Finding]:
    """The NUMA nodes, and what the kernel makes of the settings: tried in this thread, which is put back."""
    from opfs.topology.placement import Placement

    placement = Placement(config.placement, config.memory_policy)
    with placement.placed():
        *nodes, outcome = placement.report()
    for line in nodes:
        yield Finding("numa", "ok", line)
    refused = "what the kernel refuses is left out; a container may forbid it" if placement.trouble else ""
    yield Finding("placement", "note" if placement.trouble else "ok", outcome, refused)
