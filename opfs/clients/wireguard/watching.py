"""What changes about WireGuard interfaces: the kernel tells of links, addresses and routes, and not of keys and peers.

So both: what is told, and every few seconds a look at what the interfaces have become. On the trio thread; the look is
taken in a worker thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from opfs.clients.netlink.monitor import watch_interfaces
from opfs.clients.wireguard.interface import describe_tunnel
from opfs.errors import ApplyFailed, OpfsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opfs.clients.wireguard.interface import Tunnels

LOOK_INTERVAL_S = 10.0


async def watch_tunnels(tunnels: Tunnels, report: Callable[[str | None, str], None]) -> None:
    """Call `report(name, culprit)` for every change until cancelled; a name of None says that some were missed.

    Raises ApplyFailed where the kernel ends it.
    """
    seen: Mapping[str, Any] = {}
    failure: ApplyFailed | None = None

    def tell(name: str | None, culprit: str) -> None:
        if name is None or name in seen or tunnels.records.has(name):
            report(name, culprit)

    async def look() -> None:
        nonlocal seen
        while True:
            try:
                found = await trio.to_thread.run_sync(tunnels.see_all)
            except OpfsError:
                # One that cannot be asked now is asked again; whoever observes it meanwhile is told why.
                await trio.sleep(LOOK_INTERVAL_S)
                continue
            now = {name: _without_endpoints(describe_tunnel(one)) for name, one in found.items()}
            for name in now.keys() | seen.keys() if seen else ():
                if now.get(name) != seen.get(name):
                    report(name, "")
            seen = now
            await trio.sleep(LOOK_INTERVAL_S)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, name="look at WireGuard interfaces")
        try:
            await watch_interfaces(tell)
        except ApplyFailed as error:
            failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _without_endpoints(document: Mapping[str, Any]) -> dict[str, Any]:
    """Where a peer is changes with every packet from elsewhere, and is no difference."""
    peers = document.get("peers", {})
    plain = {name: {key: value for key, value in peer.items() if key != "endpoint"} for name, peer in peers.items()}
    return {**document, "peers": plain}
