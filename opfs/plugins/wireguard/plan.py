"""What takes a WireGuard interface from what it is to what its document says; pure.

The steps are those of `opfs.clients.wireguard.tunnel`, which the meshes share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opfs.clients.wireguard.tunnel import compare_tunnel, plan_tunnel, settle_tunnel
from opfs.core.action import Difference
from opfs.errors import Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opfs.core.action import Document, StateDiff

PLUGIN = "wireguard"


def plan_interface(element: str, current: Document | None, desired: Document | None) -> StateDiff:
    """The ordered actions from `current` (None: absent) to `desired` (None: delete).

    Raises Rejected for a new interface without a private key.
    """
    if current is None and desired is not None and "private_key" not in desired:
        raise Rejected(
            f"{element} is not there yet, and its document names no private key",
            hint='put `wg genkey` into a secret and say "private_key": {"$secret": "NAME"}',
        )
    now = None if current is None else settle_tunnel(current)
    return plan_tunnel(PLUGIN, element, now, None if desired is None else settle_tunnel(desired))


def compare_interface(desired: Document | None, observed: Document | None) -> Iterator[Difference]:
    """In what an observed interface is not the desired one."""
    if desired is None or observed is None:
        if desired is not observed:
            yield Difference("", desired, observed)
        return
    yield from compare_tunnel(settle_tunnel(desired), settle_tunnel(observed))
