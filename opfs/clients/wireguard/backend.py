"""Which WireGuard a plugin uses, by its settings, and whether this host has it.

Looks at programs and at the kernel's netlink families; changes nothing. Safe from any thread.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from opfs.clients.netlink.generic import has_family
from opfs.clients.wireguard.userspace import PACKAGE, find_program
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

BACKENDS = ("auto", "kernel", "userspace")


def choose_backend(plugin: str, settings: Mapping[str, Any]) -> str:
    """The setting `backend` of a plugin, auto unless given; raises InvalidRequest."""
    backend = settings.get("backend", "auto")
    if backend not in BACKENDS:
        raise InvalidRequest(f"[plugin.{plugin}] backend = {backend!r}", hint=f"one of {', '.join(BACKENDS)}")
    return str(backend)


def why_unavailable(backend: str) -> str | None:
    """None where WireGuard can be used here; else the reason and what to install."""
    if os.geteuid() != 0:
        return "changing the network needs root; run the daemon as root"
    if backend != "kernel" and find_program() is not None:
        return None
    if backend != "userspace" and (backend == "kernel" or has_family("wireguard")):
        return None
    return f"there is no wireguard-go, and no WireGuard in the kernel; apt-get install {PACKAGE}"
