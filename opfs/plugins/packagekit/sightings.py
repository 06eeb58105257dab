"""What PackageKit lets know of changes that others make, and who they are.

Its daemon leaves the bus when it has nothing to do and comes back for the next request, so each one that comes is
listened to anew. apt tells PackageKit after each of its runs, which wakes the daemon. Runs in the caller's task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from opfs.clients.dbus import Bus, BusError, Signal
from opfs.errors import ApplyFailed
from opfs.plugins.packagekit.transactions import PACKAGEKIT, TRANSACTION
from opfs.ports import Sighting

if TYPE_CHECKING:
    from collections.abc import Callable

_CHANGING_ROLES = frozenset({10, 11, 14, 22, 29, 33})
"""Of PackageKit's kinds of transactions: install (files, packages), remove, update, repair, upgrade."""
_SIMULATE = 1 << 2


async def report_transactions(bus: Bus, report: Callable[[Sighting], None]) -> None:
    """Report until the connection ends: a change of packages never says which, so all are to be looked at."""
    async with bus.ownership(PACKAGEKIT) as ownership:
        while True:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_listen, bus, report)
                try:
                    signal = await ownership.receive()
                except trio.EndOfChannel:
                    signal = None
                nursery.cancel_scope.cancel()
            if signal is None:
                return
            if signal.arguments[2]:
                # It was woken, perhaps by apt, which tells it when it is through.
                report(Sighting(None))


async def _listen(bus: Bus, report: Callable[[Sighting], None]) -> None:
    """Listen to the daemon that is there now; return if there is none."""
    try:
        async with bus.signals(PACKAGEKIT) as signals:
            culprits: dict[str, str] = {}
            async for signal in signals:
                if signal.member == "TransactionListChanged":
                    await _follow(bus, signal, culprits, report)
                elif signal.member == "UpdatesChanged":
                    report(Sighting(None))
    except ApplyFailed:
        return  # it left the bus, or the bus left us, which the caller notices by itself


async def _follow(bus: Bus, signal: Signal, culprits: dict[str, str], report: Callable[[Sighting], None]) -> None:
    """Remember who ordered a transaction while it is there, and report when it is over."""
    (running,) = signal.arguments
    for path in [path for path in culprits if path not in running]:
        report(Sighting(None, culprits.pop(path)))
    for path in running:
        if path not in culprits:
            try:
                properties = await bus.get_all(PACKAGEKIT, path=path, interface=TRANSACTION)
            except BusError:
                continue  # it is over already
            if properties.get("Role") in _CHANGING_ROLES and not properties.get("TransactionFlags", 0) & _SIMULATE:
                culprits[path] = await bus.describe(properties["Sender"])
