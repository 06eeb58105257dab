"""What a machine may have that tests need; `@pytest.mark.needs("root", "btrfs")` names them.

To add a feature, add a function to `FEATURES`: None when it is there, else the reason it is not.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from emulated import why_not_emulated
from guest import why_no_guest
from ovs import why_no_ovs

from opfs.embedding.weights import DEFAULT_DIRECTORY, list_models
from opfs.testing.tracing import why_unavailable as why_tracing_is_unavailable

if TYPE_CHECKING:
    from collections.abc import Callable


def _why_not_root() -> str | None:
    return None if os.geteuid() == 0 else "run as root"


def _why_no_btrfs() -> str | None:
    if not shutil.which("mkfs.btrfs"):
        return "mkfs.btrfs is not installed (btrfs-progs)"
    if "btrfs" not in Path("/proc/filesystems").read_text() and not shutil.which("modprobe"):
        return "the kernel has no btrfs"
    return None


def _why_no_loop() -> str | None:
    return None if Path("/dev/loop-control").exists() else "there is no /dev/loop-control"


def _why_no_fuse() -> str | None:
    return None if Path("/dev/fuse").exists() else "there is no /dev/fuse"


def _why_no_lxc() -> str | None:
    return None if shutil.which("lxc-start") else "lxc-start is not installed (lxc)"


def _why_no_wireguard() -> str | None:
    missing = [tool for tool in ("wireguard-go", "wg") if not shutil.which(tool)]
    return f"{' and '.join(missing)} not installed (wireguard-go wireguard-tools)" if missing else None


def _why_no_packagekit() -> str | None:
    missing = [program for program in ("pkcon", "dpkg-deb", "apt-get") if not shutil.which(program)]
    return f"{', '.join(missing)} not installed (packagekit packagekit-tools)" if missing else None


def models_directory() -> Path:
    """Where language models are, as the configuration's OPFS_MODELS says."""
    return Path(os.environ.get("OPFS_MODELS") or DEFAULT_DIRECTORY)


def _why_no_model() -> str | None:
    (status,) = list_models(models_directory())
    return f"{status.path}: {status.problem} (sudo opfs model fetch)" if status.problem else None


FEATURES: dict[str, Callable[[], str | None]] = {
    "root": _why_not_root,
    "btrfs": _why_no_btrfs,
    "loop": _why_no_loop,
    "fuse": _why_no_fuse,
    "lxc": _why_no_lxc,
    "guest": why_no_guest,
    "packagekit": _why_no_packagekit,
    "ovs": why_no_ovs,
    "model": _why_no_model,
    "wireguard": _why_no_wireguard,
    "emulator": why_not_emulated,
    "tracing": why_tracing_is_unavailable,
}


def require(*features: str) -> None:
    """Skip the running test, or fail it in CI, unless the machine has the features."""
    for name in features:
        reason = FEATURES[name]()
        if reason and os.environ.get("CI"):
            pytest.fail(f"CI must have {name}: {reason}", pytrace=False)
        if reason:
            pytest.skip(f"needs {name}: {reason}")
