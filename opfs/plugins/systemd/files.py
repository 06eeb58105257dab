"""Unit files on disk: which there are, what links enable, what is ours, and writing it.

Reads the directories that systemd reads, for any number of units at once, since systemd itself needs most of a
second to list 250 unit files. Writes only below `/etc/systemd`: regular files of the unit and its drop-ins, each
atomically and durably; a link is never followed. Blocking: call in worker threads; calls for different units may
run concurrently.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from opfs.errors import ApplyFailed
from opfs.plugins.systemd.unitfile import UNIT_NAME, is_template, template_of, with_mark, without_mark

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

DROPIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,200}\.conf\Z")
TEXT_BYTES_MAX = 1 << 20

_OWN = "etc/systemd/system"
_LIMITS = "etc/systemd/system.control"
_SEARCHED = (_OWN, "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")
_GENERATED = ("run/systemd/generator", "run/systemd/generator.early", "run/systemd/generator.late")
_LINKS = (".wants", ".requires", ".upholds")
_LIMIT_FILE = re.compile(r"50-([A-Za-z]+)\.conf\Z")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class UnitTree:
    """What the directories say: unit names with a file, masked ones, enabled ones, and other names of some."""

    units: set[str] = field(default_factory=set)
    masked: set[str] = field(default_factory=set)
    enabled: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)
    limits: dict[str, set[str]] = field(default_factory=dict)
    """The properties set with `set-property`, by unit, under the names of the settings."""
    configured: set[str] = field(default_factory=set)
    """Units with files in /etc, drop-ins included."""

    def has(self, unit: str) -> bool:
        return unit in self.units or unit in self.configured or template_of(unit) in self.units


class UnitFiles:
    """The unit files of the host whose file tree begins at `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._own = root / _OWN

    def is_running_systemd(self) -> bool:
        """As sd_booted(3) tells."""
        return (self._root / "run/systemd/system").is_dir()

    # --- look ------------------------------------------------------------------------------------------

    def scan(self) -> UnitTree:
        """Look through all directories once."""
        tree = UnitTree()
        for place in (*_SEARCHED, *_GENERATED):
            for entry in _entries(self._root / place):
                self._look(tree, entry, is_own=place == _OWN)
        for entry in _entries(self._root / _LIMITS):
            names = {match[1] for file in _entries(Path(entry.path)) if (match := _LIMIT_FILE.match(file.name))}
            if entry.name.endswith(".d") and names:
                tree.limits[entry.name.removesuffix(".d")] = names
        tree.enabled |= {unit for unit in filter(is_template, tree.units) if self._default(unit) in tree.enabled}
        return tree

    def _look(self, tree: UnitTree, entry: os.DirEntry[str], *, is_own: bool) -> None:
        name = entry.name
        if name.endswith(_LINKS):
            if is_own:
                tree.enabled.update(link.name for link in _entries(Path(entry.path)))
        elif name.endswith(".d"):
            if is_own and any(DROPIN_NAME.match(file.name) for file in _entries(Path(entry.path))):
                tree.configured.add(name.removesuffix(".d"))
        elif (
            UNIT_NAME.match(name) and name not in tree.units and name not in tree.aliases
        ):  # the first directory counts
            target = os.readlink(entry.path) if entry.is_symlink() else ""
            other = os.path.basename(target)
            if target == "/dev/null" or (not target and entry.stat(follow_symlinks=False).st_size == 0 and is_own):
                tree.masked.add(name)
            elif target and other != name and UNIT_NAME.match(other):
                tree.aliases.add(name)
                if is_own and template_of(name) != other:
                    tree.enabled.add(other)
                return
            tree.units.add(name)
            if is_own:
                tree.configured.add(name)

    def _default(self, template: str) -> str:
        """The instance that enabling a template stands for; the template itself where it has no default."""
        for place in _SEARCHED:
            with suppress(OSError, UnicodeDecodeError):
                found = re.search(
                    r"^DefaultInstance=(\S+)\s*$", (self._root / place / template).read_text(), re.MULTILINE
                )
                return template.replace("@.", f"@{found[1]}.") if found else template
        return template

    def read_parts(self, unit: str) -> tuple[dict[str, str], dict[str, str]]:
        """The texts of a unit's files in /etc by part, and the origin of those that are not as opfs wrote them.

        What cannot be text of a document (a link, over 1 MiB, not UTF-8) is left out.
        """
        texts, origin = {}, {}
        parts = ["unit", *(f"dropins/{name}" for name in self._dropins(unit))]
        for part in parts:
            content = _read(self._path(unit, part))
            if content is None:
                continue
            texts[part], whose = without_mark(content)
            if whose:
                origin[part] = whose
        return texts, origin

    def _dropins(self, unit: str) -> Sequence[str]:
        return sorted(entry.name for entry in _entries(self._own / f"{unit}.d") if DROPIN_NAME.match(entry.name))

    def _path(self, unit: str, part: str) -> Path:
        """Where a part lies. Raises ApplyFailed for a name that leads elsewhere."""
        name = part.removeprefix("dropins/")
        if not UNIT_NAME.match(unit) or not (part == "unit" or (name != part and DROPIN_NAME.match(name))):
            raise ApplyFailed(f"{unit!r} has no part {part!r}")
        return self._own / unit if part == "unit" else self._own / f"{unit}.d" / name

    # --- change ----------------------------------------------------------------------------------------

    def write(
        self,
        unit: str,
        texts: Mapping[str, str],
        *,
        remove: Collection[str],
        theirs: Collection[str],
        unmarked: Collection[str],
    ) -> None:
        """Write and remove parts; those in `theirs` are known to be no longer, or never to have been, opfs' own.

        Parts in `unmarked` are written as they are, so that they are not taken for opfs' own. Raises ApplyFailed,
        before anything is changed, if a file is there that opfs did not write and `theirs` does not name.
        """
        now, origin = self.read_parts(unit)
        for part in (*texts, *remove):
            path = self._path(unit, part)
            if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
                raise ApplyFailed(f"{path} is a link or no regular file", hint="remove it first")
            if part in origin and part not in theirs and now[part] != texts.get(part):
                raise ApplyFailed(f"{path} was written by somebody else just now", hint="try again")
        for part, text in texts.items():
            path = self._path(unit, part)
            path.parent.mkdir(mode=0o755, exist_ok=True)
            _replace(path, text if part in unmarked else with_mark(unit, text))
        for part in remove:
            _remove(self._path(unit, part))
        if any(part != "unit" for part in remove):
            with suppress(OSError):  # somebody else's drop-ins may be there
                os.rmdir(self._own / f"{unit}.d")

    def remove_limits(self, unit: str, names: Collection[str]) -> None:
        """Remove the files that `set-property` made for settings of a unit."""
        if not UNIT_NAME.match(unit):
            raise ApplyFailed(f"{unit!r} is no unit")
        directory = self._root / _LIMITS / f"{unit}.d"
        for name in names:
            _remove(directory / f"50-{name}.conf")
        with suppress(OSError):
            os.rmdir(directory)


def _entries(directory: Path) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return ()


def _read(path: Path) -> str | None:
    try:
        descriptor = os.open(path, _READ | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        # systemd takes an empty file for a mask.
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= TEXT_BYTES_MAX + 1024:
            return None
        try:
            return file.read().decode("utf-8")
        except UnicodeDecodeError:
            return None


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, _DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    temporary = f".opfs-{path.name[:200]}.new"
    try:
        with _directory(path.parent) as directory:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=directory)
            with os.fdopen(os.open(temporary, _NEW, 0o644, dir_fd=directory), "wb") as file:
                file.write(text.encode("utf-8"))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            os.rename(temporary, path.name, src_dir_fd=directory, dst_dir_fd=directory)
            os.fsync(directory)
    except OSError as error:
        raise ApplyFailed(f"{path} cannot be written: {error.strerror}") from error


def _remove(path: Path) -> None:
    try:
        with _directory(path.parent) as directory:
            os.unlink(path.name, dir_fd=directory)
            os.fsync(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ApplyFailed(f"{path} cannot be removed: {error.strerror}") from error
