"""What takes a container from what it is to what its document says; pure.

Documents are first settled: a key that is left out gets its default, so that a document says the same
whatever was there before. `state`, `ostemplate`, `rootfs` and `unprivileged` are the exceptions: left out,
they stay as they are. What LXC reads only at a start (name, network, mounts) is changed while the container
is stopped, in the order stop, change, start: a crash in between leaves a stopped container, never a running
one that silently differs from its configuration.

An observation may hold `pending`: what the configuration says and the container is not. Limits are pending
between the two writes that change them, and `state` is between a stop and the start that belongs to it; so
the next plan finishes what a crash cut short.
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any

from opfs.core.action import Action, Difference, Document, Kind, Safety, StateDiff
from opfs.core.position import join_pointer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PLUGIN = "lxc"
NETWORKS = tuple(f"net{number}" for number in range(10))
LIMITS = ("memory", "swap", "cores", "cpulimit")
"""Changed live."""
OPTIONS = ("onboot", "protection", "description", "tags")
"""Kept in the configuration; the running container does not notice."""
DNS = ("nameserver", "searchdomain")
"""Written into the guest's resolv.conf, whether it runs or not."""
AT_START = ("hostname", "features", *NETWORKS)
"""Read by LXC when it starts a container, as `unprivileged` and the mount points are."""
MOUNT = re.compile(r"mp(0|[1-9][0-9]{0,2})\Z")
"""The names of mount points."""
KEPT_IF_ABSENT = ("state", "ostemplate", "rootfs", "unprivileged")
DEFAULT_TEMPLATE = "busybox"

Settled = dict[str, Any]


def settle(element: str, document: Document) -> Settled:
    """The document with every default filled in; None stands for no limit and no interface."""
    settled: Settled = {
        "hostname": document.get("hostname", element),
        **{key: document.get(key) for key in LIMITS},
        "onboot": document.get("onboot", False),
        "protection": document.get("protection", False),
        "description": document.get("description", ""),
        "tags": document.get("tags", ""),
        **{key: document.get(key, "") for key in DNS},
        "features": {key: value for key, value in document.get("features", {}).items() if value},
        **{key: settle_network(key, document.get(key)) for key in NETWORKS},
        **{key: settle_mount(document[key]) for key in mounts_of(document)},
        **{key: document[key] for key in KEPT_IF_ABSENT if key in document},
    }
    settled["cpulimit"] = settled["cpulimit"] or None
    return settled


def settle_network(key: str, network: Mapping[str, Any] | None) -> Settled | None:
    """An interface with its defaults; MAC addresses are the same whatever the case of their digits."""
    if network is None:
        return None
    settled: Settled = {"name": f"eth{key.removeprefix('net')}", "ip": "manual", **network}
    if "hwaddr" in settled:
        settled["hwaddr"] = str(settled["hwaddr"]).lower()
    settled |= {name: _settle_ip6(settled[name]) for name in ("ip6", "gw6") if name in settled}
    if settled.get("ip6") == "manual":
        del settled["ip6"]
    if "trunks" in settled:
        settled["trunks"] = ";".join(map(str, sorted(set(map(int, str(settled["trunks"]).split(";"))))))
    return {name: value for name, value in settled.items() if value is not False}


def _settle_ip6(text: str) -> str:
    """An address in its one form; words, and what is none in a configuration of somebody else's, as they are."""
    try:
        return str(ip_interface(text)) if "/" in text else str(ip_address(text))
    except ValueError:
        return text


def settle_mount(mount: Mapping[str, Any]) -> Settled:
    """A mount point; what is false is as if it were left out."""
    return {name: value for name, value in mount.items() if value is not False}


def mounts_of(document: Mapping[str, Any]) -> list[str]:
    """The mount points a document names, in the order of their numbers."""
    return sorted((key for key in document if MOUNT.match(key)), key=lambda key: int(key.removeprefix("mp")))


def plan_container(
    element: str, current: Document | None, desired: Document | None, *, names_at_start: bool = False
) -> StateDiff:
    """The ordered actions from `current` (None: absent) to `desired` (None: delete).

    `names_at_start` says that the backend writes a guest's resolv.conf only when it starts it.
    """
    if desired is None:
        actions = [] if current is None else list(_removal(element, current))
    elif current is None:
        actions = list(_creation(element, settle(element, desired)))
    elif _is_other_root(current, desired):
        keep_running = {"state": current.get("state", "stopped"), **desired}
        actions = [*_removal(element, current), *_creation(element, settle(element, keep_running))]
    else:
        actions = list(_changes(element, current, settle(element, desired), DNS if names_at_start else ()))
    return StateDiff(PLUGIN, tuple(actions))


def compare_container(element: str, desired: Document, observed: Document) -> Iterator[Difference]:
    """In what an observed container is not the desired one, limits that wait to be applied included."""
    wanted, found = settle(element, desired), settle(element, observed)
    pending = observed.get("pending", {})
    found.setdefault("unprivileged", False)
    for key in (*wanted, *(key for key in mounts_of(found) if key not in wanted)):
        value = wanted.get(key)
        if value != found.get(key):
            yield Difference(join_pointer([key]), value, found.get(key))
        elif key in pending:
            yield Difference(join_pointer(["pending", key]), value, pending[key])
    if "state" in pending and "state" not in wanted:
        yield Difference("/state", pending["state"], observed.get("state"))


def _is_other_root(current: Document, desired: Document) -> bool:
    return any(key in desired and desired[key] != current.get(key) for key in ("ostemplate", "rootfs"))


def _removal(element: str, current: Document) -> Iterator[Action]:
    root = current.get("rootfs")
    if current.get("state") != "stopped":
        # What is about to be destroyed need not be shut down in good order.
        step, text = ("stop", "stop") if root else ("kill", "end")
        yield Action(Kind.DELETE, element, step, f"{text} the container {element}", Safety.DISRUPTIVE, ("state",))
    lost = f"its root {root} is left alone" if root else "with everything in it"
    yield Action(Kind.DELETE, element, "destroy", f"destroy the container {element}, {lost}", Safety.DESTRUCTIVE)


def _creation(element: str, wanted: Settled) -> Iterator[Action]:
    root: Settled = {key: wanted[key] for key in ("ostemplate", "rootfs") if key in wanted}
    root = root or {"ostemplate": DEFAULT_TEMPLATE}
    [(kind, source)] = root.items()
    keys = (*at_start_keys(wanted), *DNS, *LIMITS, *OPTIONS)
    settings = {key: wanted[key] for key in keys if wanted.get(key) not in (None, {}, "") or key in OPTIONS}
    source_text = f"the template {source}" if kind == "ostemplate" else f"the root {source}"
    yield Action(
        Kind.CREATE,
        element,
        "create",
        f"create the container {element} from {source_text}",
        keys=tuple(settings),
        details={**root, "settings": settings},
    )
    if wanted.get("state") == "running":
        yield _start(Kind.CREATE, element, wanted)


def _changes(element: str, current: Document, wanted: Settled, also_at_start: tuple[str, ...]) -> Iterator[Action]:
    now = settle(element, current)
    pending = current.get("pending", {})
    now.setdefault("unprivileged", False)
    start_keys = (*at_start_keys(wanted, now), *also_at_start)
    live_names = tuple(key for key in DNS if key not in also_at_start)
    keys = (*start_keys, *live_names, *LIMITS, *OPTIONS)
    changed = [key for key in keys if wanted.get(key) != now.get(key) or key in pending]
    state = current.get("state")
    target = wanted.get("state", "stopped" if state == "stopped" and "state" not in pending else "running")
    at_start = tuple(key for key in changed if key in start_keys)
    is_up = state != "stopped"
    if is_up and (at_start or target == "stopped"):
        # The bridges a later start needs are looked for before the stop, while nothing is lost yet.
        details = {"restart": True, **needed_to_start(wanted)} if target == "running" else {}
        text = f"stop the container {element}"
        yield Action(Kind.MODIFY, element, "stop", text, Safety.DISRUPTIVE, ("state",), details)
        is_up = False
    elif target == "stopped" and "state" in pending:
        yield Action(Kind.MODIFY, element, "stop", f"leave the container {element} stopped", keys=("state",))
    if at_start:
        yield Action(
            Kind.MODIFY,
            element,
            "set-at-start",
            f"set {', '.join(_text(key, wanted.get(key)) for key in at_start)}",
            keys=at_start,
            details={"settings": {key: wanted.get(key) for key in at_start}},
        )
    limits = tuple(key for key in changed if key in LIMITS)
    if limits:
        is_squeezed = is_up and wanted["memory"] is not None and wanted["memory"] < (now["memory"] or 1 << 62)
        yield Action(
            Kind.MODIFY,
            element,
            "set-limits",
            f"set {', '.join(_text(key, wanted[key]) for key in limits)}",
            Safety.DISRUPTIVE if is_squeezed else Safety.SAFE,
            keys=limits,
            # All of them, since one of the kernel's values may hold two of ours (memory plus swap).
            details={"settings": {key: wanted[key] for key in LIMITS}},
        )
    names = tuple(key for key in changed if key in live_names)
    if names:
        yield Action(
            Kind.MODIFY,
            element,
            "set-dns",
            f"set {', '.join(_text(key, wanted[key]) for key in names)} in the guest",
            keys=names,
            details={"settings": {key: wanted[key] for key in DNS}},
        )
    options = tuple(key for key in changed if key in OPTIONS)
    if options:
        yield Action(
            Kind.MODIFY,
            element,
            "set-options",
            f"note {', '.join(_text(key, wanted[key]) for key in options)}",
            keys=options,
            details={"settings": {key: wanted[key] for key in options}},
        )
    if target == "running" and state == "frozen" and is_up:
        yield Action(Kind.MODIFY, element, "thaw", f"thaw the container {element}", keys=("state",))
    elif target == "running" and not is_up:
        yield _start(Kind.MODIFY, element, wanted)


def at_start_keys(*settled: Mapping[str, Any]) -> tuple[str, ...]:
    """What is read at a start of the keys that these settings have, mount points in order."""
    mounts = mounts_of({key: True for settings in settled for key in settings})
    is_mapped = ("unprivileged",) if "unprivileged" in settled[0] else ()
    return (*AT_START, *is_mapped, *mounts)


def bridges_of(wanted: Mapping[str, Any]) -> list[str]:
    """The bridges that must exist when a container with these settings starts."""
    return sorted({wanted[key]["bridge"] for key in NETWORKS if (wanted.get(key) or {}).get("bridge")})


def needed_to_start(wanted: Mapping[str, Any]) -> Settled:
    """What the host must have before a container with these settings starts: bridges, and what is mounted."""
    volumes = [wanted[key]["volume"] for key in mounts_of(wanted) if wanted.get(key)]
    return {"bridges": bridges_of(wanted), **({"volumes": volumes} if volumes else {})}


def _start(kind: Kind, element: str, wanted: Settled) -> Action:
    details = needed_to_start(wanted)
    return Action(kind, element, "start", f"start the container {element}", keys=("state",), details=details)


def _text(key: str, value: Any) -> str:
    if value is None:
        return f"{key} none"
    if value == "":
        return f"no {key}"
    if key in ("memory", "swap"):
        return f"{key} {value} MB"
    if key in NETWORKS:
        words = (key, value.get("bridge", value.get("type", "")), value["ip"], value.get("ip6", ""))
        return " ".join(word for word in words if word not in ("", "manual"))
    if MOUNT.match(key):
        return f"{key} {value['volume']} on {value['mp']}{' read-only' if value.get('ro') else ''}"
    if key == "features":
        return f"features {', '.join(sorted(value)) or 'none'}"
    if key == "description":
        return "description"
    return f"{key} {str(value).lower() if isinstance(value, bool) else value}"
