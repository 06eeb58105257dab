"""The plugins' schemas for commands: those of the running daemon, or of the plugins that load here without one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from opfs.errors import PoolError
from opfs.fuse.mountpoint import is_answering, is_mounted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opfs.config import Config
    from opfs.plugins.registry import PluginRegistry


def load_schemas(config: Config) -> Mapping[str, Mapping[str, Any]]:
    """Every plugin's schema for whole documents, by name. Without a daemon it runs the plugins' code."""
    if is_mounted(config.mount) and is_answering(config.mount):
        try:
            files = sorted((config.mount / "schema").iterdir())
            return {file.stem: json.loads(file.read_bytes()) for file in files}
        except OSError as error:
            raise PoolError(f"the schemas below {config.mount} cannot be read: {error.strerror}") from error
    from opfs.core.meta import with_meta

    return {name: with_meta(plugin.schema) for name, plugin in load_registry(config).items()}


def load_registry(config: Config) -> PluginRegistry:
    """Every plugin, built in this process: for asking what it is, never for using it."""
    import logging

    from opfs.plugins.contract import PluginContext
    from opfs.plugins.registry import load_plugins

    def context_of(name: str) -> PluginContext:
        return PluginContext(config.pool / "@drafts" / "plugins" / name, (), config.plugin_settings(name))

    # why one cannot be loaded is what it says of itself, not a traceback among the answers
    logging.getLogger("opfs.plugins").addHandler(logging.NullHandler())
    return load_plugins(context_of, config.plugins)
