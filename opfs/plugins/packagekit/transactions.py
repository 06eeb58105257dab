"""PackageKit over D-Bus: ask for packages, foretell what an action would do, do it.

PackageKit answers by signals: each transaction is an object of its own, which says which packages it is about and
how it finished. Its daemon works on one transaction at a time, and leaves the bus when nobody wants anything.
Concurrency: any number of tasks. Whoever is cancelled cancels the transaction as far as PackageKit lets it: what
dpkg has begun it finishes. Source: the PackageKit D-Bus reference, interfaces PackageKit and Transaction.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import trio

from opfs.clients.dbus import Bus, Service, Signal, open_bus
from opfs.errors import ApplyFailed, ApplyTimeout

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

PACKAGEKIT = Service("org.freedesktop.PackageKit", "/org/freedesktop/PackageKit", "org.freedesktop.PackageKit")
TRANSACTION = "org.freedesktop.PackageKit.Transaction"

_FILTER_INSTALLED, _FILTER_ARCH = 1 << 2, 1 << 18
_ONLY_TRUSTED, _SIMULATE = 1 << 1, 1 << 2
_EXIT_SUCCESS = 1
_DEPENDENCIES_CANNOT_BE_MET, _CANNOT_REMOVE_SYSTEM_PACKAGE = 13, 20
_WORDS_SHOWN = 300
_WAKE_TIMEOUT_S = 25.0
_HINTS = ["locale=C.UTF-8", "background=false", "interactive=false"]
_WHEN_INTERRUPTED = "dpkg was interrupted"


class Info(IntEnum):
    """What a transaction says of a package; those of PackageKit's list that matter here."""

    INSTALLED = 1
    AVAILABLE = 2
    UPDATING = 11
    INSTALLING = 12
    REMOVING = 13
    OBSOLETING = 15
    DOWNGRADING = 20


_GOES = (Info.REMOVING, Info.OBSOLETING)
_COMES = (Info.INSTALLING, Info.UPDATING, Info.DOWNGRADING)


@dataclass(frozen=True, slots=True)
class Package:
    """A package that a transaction names: PackageKit's id in its parts, and what it says of it."""

    info: int
    name: str
    version: str
    architecture: str
    data: str

    @property
    def id(self) -> str:
        return f"{self.name};{self.version};{self.architecture};{self.data}"

    @property
    def is_automatic(self) -> bool:
        """Whether it was installed because another one needed it, and not by name."""
        return self.data.startswith("auto:")


class PackageError(ApplyFailed):
    """A transaction failed; `code` is PackageKit's number for why, `words` the beginning of what it says."""

    def __init__(self, doing: str, code: int, words: str) -> None:
        hint = "finish what was interrupted: dpkg --configure -a" if _WHEN_INTERRUPTED in words else ""
        said = " ".join(words.split()) or "PackageKit gave no reason"
        self.words = said if len(said) <= _WORDS_SHOWN else f"{said[:_WORDS_SHOWN]}…"
        super().__init__(f"{doing}: {self.words}", hint=hint)
        self.code = code

    @property
    def is_refusal(self) -> bool:
        """Whether the host refuses to be without a package."""
        return self.code in (_CANNOT_REMOVE_SYSTEM_PACKAGE, _DEPENDENCIES_CANNOT_BE_MET)


@dataclass(frozen=True, slots=True)
class Foretold:
    """What an action would do: names of packages that would go, and the versions of those that would come."""

    goes: tuple[str, ...]
    comes: dict[str, str]


class PackageKit:
    """The daemon at a bus; `timeout_s` is how long an installation or a removal may take."""

    def __init__(self, address: str, *, timeout_s: float) -> None:
        self.address = address
        self._timeout_s = timeout_s

    async def installed(self) -> Sequence[Package]:
        """Every installed package of this machine's own architecture."""
        return await self._run("list packages", "GetPackages", "t", _FILTER_INSTALLED | _FILTER_ARCH)

    async def resolve(self, names: Collection[str]) -> Sequence[Package]:
        """What there is by these names, installed and offered."""
        if not names:
            return ()
        found = await self._run(f"look for {_some(names)}", "Resolve", "tas", _FILTER_ARCH, list(names))
        return [package for package in dict.fromkeys(found) if package.name in names]

    async def foretell_install(self, id: str) -> Foretold:
        return _foretold(
            await self._run(f"foretell {_name(id)}", "InstallPackages", "tas", _SIMULATE | _ONLY_TRUSTED, [id])
        )

    async def foretell_removal(self, id: str) -> Foretold:
        """Raises PackageError, a refusal, for what the host cannot be without."""
        arguments = (_SIMULATE, [id], True, False)
        return _foretold(await self._run(f"foretell the end of {_name(id)}", "RemovePackages", "tasbb", *arguments))

    async def install(self, id: str) -> None:
        """Install a version of a package and what it needs; only from repositories that the host trusts."""
        await self._run(f"install {_name(id)}", "InstallPackages", "tas", _ONLY_TRUSTED, [id])

    async def remove(self, id: str) -> None:
        """Remove a package and all that needs it; its configuration files stay."""
        await self._run(f"remove {_name(id)}", "RemovePackages", "tasbb", 0, [id], True, False)

    async def _run(self, doing: str, method: str, signature: str, *arguments: Any) -> Sequence[Package]:
        async with open_bus(self.address) as bus:
            # A daemon that is asleep is started for this.
            (path,) = await bus.call(PACKAGEKIT, "CreateTransaction", timeout_s=min(self._timeout_s, _WAKE_TIMEOUT_S))
            try:
                with trio.fail_after(self._timeout_s):
                    return await _transact(bus, path, doing, method, signature, arguments)
            except trio.TooSlowError:
                await self._abandon(path)
                raise ApplyTimeout(f"{doing}: PackageKit was still at work after {self._timeout_s:.0f} s") from None
            except trio.Cancelled:
                await self._abandon(path)
                raise

    async def _abandon(self, path: str) -> None:
        """Cancel a transaction, also while the caller is being cancelled: on a connection of its own."""
        with trio.CancelScope(shield=True), trio.move_on_after(2), suppress(ApplyFailed):
            async with open_bus(self.address) as bus:
                await bus.call(PACKAGEKIT, "Cancel", path=path, interface=TRANSACTION)


async def _transact(
    bus: Bus, path: str, doing: str, method: str, signature: str, arguments: tuple[Any, ...]
) -> Sequence[Package]:
    await bus.call(PACKAGEKIT, "SetHints", "as", _HINTS, path=path, interface=TRANSACTION)
    packages: list[Package] = []
    code, words, outcome = 0, "", None
    async with (
        bus.ownership(PACKAGEKIT) as ownership,
        bus.signals(PACKAGEKIT, path=path, interface=TRANSACTION) as signals,
    ):
        await bus.call(PACKAGEKIT, method, signature, *arguments, path=path, interface=TRANSACTION)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_after_one, ownership, nursery.cancel_scope)
            async for signal in signals:
                packages += _packages_in(signal)
                if signal.member == "ErrorCode":
                    code, words = signal.arguments
                elif signal.member == "Finished":
                    outcome = signal.arguments[0]
                    break
            nursery.cancel_scope.cancel()
    if outcome is None:
        raise ApplyFailed(f"{doing}: PackageKit left the bus before it was done")
    if outcome != _EXIT_SUCCESS or code:
        raise PackageError(doing, code, words)
    return packages


async def _cancel_after_one(channel: trio.MemoryReceiveChannel[Signal], scope: trio.CancelScope) -> None:
    async for _ in channel:
        break
    scope.cancel()


def _packages_in(signal: Signal) -> list[Package]:
    """The packages that a signal names: one, or since PackageKit 1.2.6 many."""
    rows = {"Package": [signal.arguments], "Packages": signal.arguments[0] if signal.arguments else []}
    found = []
    for info, id, _ in rows.get(signal.member, []):
        parts = id.split(";")
        if len(parts) == 4:
            # The upper half of the number is how serious an update is.
            found.append(Package(info & 0xFFFF, *parts))
    return found


def _foretold(packages: Sequence[Package]) -> Foretold:
    goes = tuple(sorted({package.name for package in packages if package.info in _GOES}))
    return Foretold(goes, {package.name: package.version for package in packages if package.info in _COMES})


def _name(id: str) -> str:
    name, version, *_ = id.split(";")
    return f"{name} {version}"


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) if len(names) <= 3 else f"{len(names)} packages"
