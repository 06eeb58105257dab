"""A program that LXC runs when an interface of a container comes and goes: it is put on Open vSwitch, or off it.

    python -I -m opfs.plugins.lxc.port attach|detach SOCKET BRIDGE TAG|- TRUNKS|- CONTAINER net up|down veth INTERFACE

The last five arguments are LXC's (lxc.container.conf(5), `lxc.net.[i].script.up`). It runs as LXC does, with or
without a daemon of opfs, so also what `lxc-start` or `lxc-autostart` starts is attached. Its exit status says
whether it worked: LXC gives up a start where it did not. Not to be imported by the daemon.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import trio

from opfs.clients.openvswitch import OpenVSwitch
from opfs.clients.ovsdb import OvsdbClient
from opfs.errors import OpfsError

OWNER = "opfs-lxc"
"""The key in a port's external_ids that holds the name of the container."""


def main() -> int:
    verb, socket, bridge, tag, trunks, container, *_, interface = sys.argv[1:]
    switch = OpenVSwitch(OvsdbClient(Path(socket)))
    try:
        if verb == "attach":
            trio.run(
                partial(
                    switch.attach_port,
                    bridge,
                    interface,
                    tag=None if tag == "-" else int(tag),
                    trunks=() if trunks == "-" else tuple(map(int, trunks.split(","))),
                    external_ids={OWNER: container},
                )
            )
        else:
            trio.run(switch.detach_port, bridge, interface)
    except OpfsError as error:
        print(f"opfs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
