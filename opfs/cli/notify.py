"""Tell whoever started this process how it is getting on: systemd's sd_notify(3) protocol.

The same protocol serves `opfs up`, which starts the daemon in the background. Does nothing where nobody
listens. Not for secrets: the receiver logs what it is told.
"""

from __future__ import annotations

import os
import socket


def notify(message: str) -> None:
    """Send `message` (e.g. `READY=1`, `STATUS=recovering`) to the socket `NOTIFY_SOCKET` names, if any.

    A receiver that is gone or full is no reason to fail: the daemon's work does not depend on it.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(message.encode(), address)
    except OSError:
        return
