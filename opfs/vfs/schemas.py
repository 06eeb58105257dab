"""/schema: what a document of each plugin may say, as JSON Schema, for editors and for `opfs schema`.

A document that names it, `"$schema": "/mnt/op/schema/lxc.json"`, is completed and checked by an editor while it is
typed. The schemas are those of the running daemon, and stay while it runs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from opfs.core.meta import with_meta
from opfs.vfs.generated import FixedDirectory, FixedFile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.ports import Plugin
    from opfs.vfs.node import Node


def make_schemas(plugins: Mapping[str, Plugin], *, time_ns: int = 0) -> FixedDirectory:
    """The directory, with a file for each plugin, one that cannot work here included."""
    files: dict[str, Node] = {}
    for name, plugin in plugins.items():
        text = json.dumps(with_meta(plugin.schema), ensure_ascii=False, indent=2) + "\n"
        files[f"{name}.json"] = FixedFile(("schema", f"{name}.json"), text.encode(), time_ns=time_ns)
    return FixedDirectory(("schema",), files, time_ns=time_ns)
