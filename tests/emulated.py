"""A machine with another kernel: Debian's cloud kernel with its modules, emulated, to run a Python program in.

For what this machine's own kernel lacks. The machine has no disk and no network: everything is in its first file
system, which holds the modules that are asked for, Python with just the files that the program imports (as compiled
ones, since compiling is slow there), and busybox. It takes some seconds; it is emulated, not virtualised, so it needs
nothing of the hardware. Synchronous.
"""

from __future__ import annotations

import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHECKOUT = Path(__file__).parents[1]
QEMU = "qemu-system-x86_64"
BUSYBOX = Path("/bin/busybox")
_DONE = "the program ended with"
_LIMIT_S = 600
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in {modules}; do /bin/busybox insmod /modules/$module.ko || echo "no $module"; done
/bin/busybox ip link set lo up
PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 HOME=/ {python} -B -S /program.py
echo "{done} $?"
/bin/busybox poweroff -f
"""


def find_kernel() -> Path | None:
    """The newest of Debian's cloud kernels that is installed with its modules."""
    kernels = [path for path in Path("/boot").glob("vmlinuz-*-cloud-*") if _modules_of(path).is_dir()]
    return max(kernels, default=None)


def why_not_emulated() -> str | None:
    """None where a machine can be emulated, else the reason."""
    for tool, package in ((QEMU, "qemu-system-x86"), ("cpio", "cpio"), ("busybox", "busybox-static")):
        if not shutil.which(tool):
            return f"{tool} is not installed ({package})"
    return None if find_kernel() else "there is no cloud kernel (linux-image-cloud-amd64)"


def run_emulated(
    program: str, modules: Sequence[str], imports: Iterable[str], machine: Sequence[str] = ("-m", "768")
) -> str:
    """Run a program that imports no more than `imports`; what it wrote. Raises AssertionError where it fails.

    `machine` are QEMU's options for memory and processors.
    """
    kernel = find_kernel()
    assert kernel is not None
    with tempfile.TemporaryDirectory(prefix="opfs-test-emulated-") as name:
        place = Path(name)
        root = place / "root"
        _fill(root, program, _with_needed(_modules_of(kernel), modules), imports)
        files = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
        with (place / "initrd").open("wb") as initrd:
            subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=files, stdout=initrd)
        command = [QEMU, "-accel", "tcg", "-cpu", "max", *machine, "-nodefaults", "-no-reboot", "-display", "none"]
        command += ["-serial", "stdio", "-kernel", str(kernel), "-initrd", str(place / "initrd")]
        command += ["-append", "console=ttyS0 quiet panic=-1 mitigations=off rdinit=/init"]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_LIMIT_S, errors="replace"
        )
    said = done.stdout.replace("\r", "")
    assert f"{_DONE} 0" in said, f"{said}{done.stderr}"
    return said.partition(_DONE)[0]


def _modules_of(kernel: Path) -> Path:
    return Path("/lib/modules") / kernel.name.removeprefix("vmlinuz-")


def _with_needed(directory: Path, wanted: Sequence[str]) -> list[Path]:
    """The files of modules and of those they need, each after what it needs (modules.dep lists them so)."""
    needs = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        file, _, others = line.partition(":")
        needs[Path(file).name.removesuffix(".ko")] = [
            directory / file,
            *(directory / other for other in others.split()),
        ]
    ordered: list[Path] = []
    for module in wanted:
        ordered += [file for file in reversed(needs[module]) if file not in ordered]
    return ordered


def _fill(root: Path, program: str, modules: Sequence[Path], imports: Iterable[str]) -> None:
    for directory in ("bin", "dev", "proc", "sys", "tmp", "run", "modules"):
        (root / directory).mkdir(parents=True)
    (root / "var").mkdir()
    (root / "var/run").symlink_to("/run")
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for module in modules:
        shutil.copy(module, root / "modules")
    (root / "program.py").write_text(program)
    python = Path(os.path.realpath(sys.executable))
    sources, libraries = _files_of(imports)
    for library in {*libraries, *_libraries_of([python, *libraries])}:
        _copy(library, root)
    _copy(python, root)
    for source in sources:
        if source.suffix == ".py":
            target = root / source.relative_to("/").with_suffix(".pyc")
            target.parent.mkdir(parents=True, exist_ok=True)
            py_compile.compile(str(source), cfile=str(target), dfile=str(source), doraise=True)
        else:
            _copy(source, root)
    path = ":".join([str(CHECKOUT), sysconfig.get_paths()["purelib"]])
    names = " ".join(module.stem for module in modules)
    init = root / "init"
    init.write_text(_INIT.format(modules=names, path=path, python=python, done=_DONE))
    init.chmod(0o755)


def _copy(file: Path, root: Path) -> None:
    target = root / file.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, target)


_PROBE = """
import sys
for name in sys.argv[1:]:
    __import__(name)
print(*{module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)}, sep="\\n")
"""
_ENCODINGS = ("encodings.idna", "encodings.ascii", "encodings.latin_1", "encodings.utf_8")


def _files_of(imports: Iterable[str]) -> tuple[set[Path], set[Path]]:
    """What an interpreter that imports so has read: sources (with the data beside those of opfs), shared libraries."""
    command = [sys.executable, "-c", _PROBE, *_ENCODINGS, *imports]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=CHECKOUT).stdout
    files = {Path(line) for line in listed.splitlines() if line.startswith("/")}
    libraries = {file for file in files if ".so" in file.suffixes}
    sources = files - libraries
    packages = {source.parent for source in sources if source.is_relative_to(CHECKOUT / "opfs/plugins")}
    return sources | {data for package in packages for data in package.glob("*.json")}, libraries


def _libraries_of(binaries: Iterable[Path]) -> set[Path]:
    said = subprocess.run(["ldd", *map(str, binaries)], check=True, capture_output=True, text=True).stdout
    return {Path(match) for match in re.findall(r"(/\S+\.so\S*) \(0x", said)}
