"""What a container's configuration says of our keys, and how it comes to say what a document wants; pure.

Only keys that a document speaks of are ours; all other lines stay as they are. Of lines that may be there
many times (mounts, features) the ones we wrote are told by what our notes say we would write.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from opfs.plugins.lxc.configfile import ConfigFile
from opfs.plugins.lxc.limits import CONTROLLERS, FILES, PERIOD_FILE, decode_limits, encode_limit
from opfs.plugins.lxc.networks import Wiring, describe_networks, with_network
from opfs.plugins.lxc.plan import LIMITS, NETWORKS, mounts_of, settle_mount

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "ConfigFile",
    "HostCgroups",
    "Means",
    "configured_limits",
    "describe_config",
    "edit_config",
    "root_directory",
]

USERNS_CONFIG = "/usr/share/lxc/config/userns.conf"
"""LXC's own settings of containers whose root is not the host's."""

MOUNTS_FILE = "file"
"""Beside a mount point's own keys: that what is mounted is a file, as whoever configures it has seen."""

_NOTED = ("ostemplate", "description", "tags", "protection")
_MOUNTS = "mounts"
_FEATURES = "features"
_ENTRY = "lxc.mount.entry"
_IDMAPPED = ("lxc.rootfs.options", "idmap=container")
_FEATURE_LINES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "nesting": (
        (_ENTRY, "proc dev/.lxc/proc proc create=dir,optional 0 0"),
        (_ENTRY, "sys dev/.lxc/sys sysfs create=dir,optional 0 0"),
    ),
    "fuse": (
        (_ENTRY, "/dev/fuse dev/fuse none bind,create=file 0 0"),
        ("lxc.cgroup.devices.allow", "c 10:229 rwm"),
        ("lxc.cgroup2.devices.allow", "c 10:229 rwm"),
    ),
    # Plain LXC's system call filter lets keyctl pass.
    "keyctl": (),
}


@dataclass(frozen=True, slots=True)
class HostCgroups:
    """What this host can limit: the version of each controller, and two things a kernel may lack."""

    versions: Mapping[str, int]
    has_swap: bool
    has_bandwidth: bool
    cpu_count: int


@dataclass(frozen=True, slots=True)
class Means:
    """What else of the host a container's configuration is made with.

    `owner_prefix` tells containers of the same name in different LXC directories apart; `idmap` is the first
    of root's subordinate ids and how many there are.
    """

    owner_prefix: str = ""
    wiring: Wiring = field(default_factory=Wiring)
    idmap: tuple[int, int] = (100_000, 65_536)


def describe_config(element: str, config: ConfigFile, host: HostCgroups, own_root: str) -> dict[str, Any]:
    """The document a configuration amounts to, defaults left out, `state` not included.

    `own_root` is the container's own directory: a root outside of it was given by the user.
    """
    noted = config.notes()
    document: dict[str, Any] = {"hostname": config.get("lxc.uts.name") or element}
    document |= {key: noted[key] for key in _NOTED if noted.get(key)}
    root = root_directory(config)
    if root is not None and not root.startswith(own_root + "/"):
        document["rootfs"] = root
    if config.get("lxc.start.auto") == "1":
        document["onboot"] = True
    if config.get("lxc.idmap"):
        document["unprivileged"] = True
    document |= configured_limits(config, host)
    document |= dict(describe_networks(config))
    entries = set(config.entries())
    for key, mount in _noted_mounts(config):
        if _mount_line(mount) in entries:
            document[key] = {name: value for name, value in mount.items() if name != MOUNTS_FILE}
    features = {key: True for key in _noted_features(config) if entries.issuperset(_FEATURE_LINES[key])}
    return document | ({"features": features} if features else {})


def root_directory(config: ConfigFile) -> str | None:
    """The directory a container's root is, None where it is something else (a volume, an overlay)."""
    backend, colon, path = (config.get("lxc.rootfs.path") or "").rpartition(":")
    return path if path.startswith("/") and backend in (("dir", "btrfs") if colon else ("",)) else None


def configured_limits(config: ConfigFile, host: HostCgroups) -> dict[str, Any]:
    """The limits that the next start will set."""
    return decode_limits(
        lambda controller, file: config.get(_limit_key(host.versions[controller], file)), host.versions
    )


def edit_config(
    element: str, config: ConfigFile, settings: Mapping[str, Any], host: HostCgroups, means: Means | None = None
) -> ConfigFile:
    """The configuration with `settings` (settled values by key) in it; other keys keep their values."""
    means = means or Means()
    values: dict[str, str | None] = {}
    if "hostname" in settings:
        values["lxc.uts.name"] = settings["hostname"]
    if "onboot" in settings:
        values["lxc.start.auto"] = "1" if settings["onboot"] else None
    if any(key in settings for key in LIMITS):
        values |= _limit_values(element, settings, host)
    edited = config.with_values(values)
    for key in NETWORKS:
        if key in settings:
            edited = with_network(means.owner_prefix + element, edited, key, settings[key], means.wiring)
    if not any(edited.get(f"lxc.net.{index}.type") for index in range(len(NETWORKS))):
        # Without any interface LXC would share the host's network with the container.
        edited = edited.with_values({"lxc.net.0.type": "empty"})
    edited = _with_mounts(edited, settings)
    if "features" in settings:
        edited = _with_features(edited, settings["features"])
    if "unprivileged" in settings:
        edited = _with_idmap(edited, settings["unprivileged"], means.idmap)
    return edited.with_notes({key: settings[key] for key in _NOTED if key in settings})


# --- mounts, features, ids -----------------------------------------------------------------------------


def _noted_mounts(config: ConfigFile) -> Iterator[tuple[str, dict[str, Any]]]:
    mounts = config.notes().get(_MOUNTS)
    if not isinstance(mounts, dict):
        return
    for key in mounts_of(mounts):
        mount = mounts[key]
        if isinstance(mount, dict) and isinstance(mount.get("volume"), str) and isinstance(mount.get("mp"), str):
            yield key, mount


def _mount_line(mount: Mapping[str, Any]) -> tuple[str, str]:
    """The entry of a bind mount; blanks are written as fstab(5) has them."""
    options = ["bind", "create=" + ("file" if mount.get(MOUNTS_FILE) else "dir")]
    options += ["ro"] if mount.get("ro") else []
    options += str(mount["mountoptions"]).split(";") if mount.get("mountoptions") else []
    fields = [mount["volume"], mount["mp"].lstrip("/"), "none", ",".join(options), "0", "0"]
    return _ENTRY, " ".join(text.replace("\\", "\\134").replace(" ", "\\040") for text in fields)


def _with_mounts(config: ConfigFile, settings: Mapping[str, Any]) -> ConfigFile:
    changed = mounts_of(settings)
    if not changed:
        return config
    now = dict(_noted_mounts(config))
    remove = {_mount_line(now[key]) for key in changed if key in now}
    wanted = {key: settle_mount(settings[key]) for key in changed if settings[key] is not None}
    noted = {**{key: mount for key, mount in now.items() if key not in changed}, **wanted}
    edited = config.with_lines(remove, [_mount_line(mount) for mount in wanted.values()])
    return edited.with_notes({_MOUNTS: {key: noted[key] for key in mounts_of(noted)}})


def _noted_features(config: ConfigFile) -> list[str]:
    features = config.notes().get(_FEATURES)
    return [key for key in features if key in _FEATURE_LINES] if isinstance(features, list) else []


def _with_features(config: ConfigFile, features: Mapping[str, Any]) -> ConfigFile:
    ours = {line for key in _noted_features(config) for line in _FEATURE_LINES[key]}
    wanted = [key for key in _FEATURE_LINES if features.get(key)]
    return config.with_lines(ours, [line for key in wanted for line in _FEATURE_LINES[key]]).with_notes(
        {_FEATURES: wanted}
    )


def _with_idmap(config: ConfigFile, is_unprivileged: bool, idmap: tuple[int, int]) -> ConfigFile:
    """Containers of shifted ids see their root's files as their own through an idmapped mount (lxc 5, Linux 5.12)."""
    first, count = idmap
    if bool(config.get("lxc.idmap")) == is_unprivileged:
        return config
    if not is_unprivileged:
        gone = {("lxc.idmap", value) for value in config.all_of("lxc.idmap")}
        return config.with_lines({*gone, ("lxc.include", USERNS_CONFIG), _IDMAPPED}, ())
    maps = [("lxc.idmap", f"{kind} 0 {first} {count}") for kind in "ug"]
    # At the end, because it takes back what the template's lines before it dropped.
    return config.with_lines((), [("lxc.include", USERNS_CONFIG), *maps, _IDMAPPED])


# --- limits --------------------------------------------------------------------------------------------


def _limit_values(element: str, settings: Mapping[str, Any], host: HostCgroups) -> dict[str, str | None]:
    values: dict[str, str | None] = {_limit_key(1, PERIOD_FILE): None}
    for key in LIMITS:
        for version in (1, 2):
            is_here = host.versions.get(CONTROLLERS[key]) == version
            values[_limit_key(version, FILES[key, version])] = (
                encode_limit(key, settings, version, element=element, host_cpu_count=host.cpu_count)
                if is_here
                else None
            )
    return values


def _limit_key(version: int, file: str) -> str:
    return f"lxc.cgroup.{file}" if version == 1 else f"lxc.cgroup2.{file}"
