"""What others do to containers, as it happens, by inotify: starts, stops, configurations, containers come and gone.

A container that starts gets a control group, and loses it when it stops: so its state is seen where the kernel keeps
it, and no monitor has to run. Nobody says who did it. What is not reported: freezing, and limits that are
written into a control group directly; those are found when the containers are looked at next. Runs on the
trio thread until cancelled.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import trio

from opfs.clients.cgroup import any_hierarchy
from opfs.clients.inotify import Inotify
from opfs.errors import ApplyFailed
from opfs.plugins.lxc.accepts import LXC_NAME
from opfs.ports import Sighting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_GROUP = re.compile(r"lxc\.payload\.((.+?)(?:-[0-9]+)?)\Z")
"""The group of a container. A number at the end may be the name's own, or LXC's where another group was in the way."""
_FILES = ("config", "")
"""What matters in a container's own directory, whose other files are LXC's; "" is the directory itself."""


async def watch_containers(lxcpath: Path, report: Callable[[Sighting], None]) -> None:
    """Report what happens to the containers of one LXC directory. Raises ApplyFailed where it cannot be watched."""
    top, groups = str(lxcpath), await trio.to_thread.run_sync(any_hierarchy)
    with Inotify() as inotify:
        if not inotify.add(top):
            raise ApplyFailed(f"there is no directory {top} to watch", hint=f"mkdir {top}")
        if groups is not None:
            inotify.add(str(groups))
        for name in await trio.to_thread.run_sync(os.listdir, top):
            if LXC_NAME.match(name):
                inotify.add(f"{top}/{name}")
        async for change in inotify.changes():
            if change is None:
                report(Sighting(None))
                continue
            directory, name = change
            if directory == top and LXC_NAME.match(name):
                inotify.add(f"{top}/{name}")
                report(Sighting(name))
            elif directory == str(groups):
                match = _GROUP.match(name)
                # A group of another LXC directory's container has a name that is none of ours.
                for container in {match[1], match[2]} if match else ():
                    if f"{top}/{container}" in inotify.directories:
                        report(Sighting(container))
            elif directory != top and name in _FILES:
                report(Sighting(directory.rpartition("/")[2]))
