"""The configuration: one frozen record, read once at start from a file, the environment and flags.

Opens no pool and starts nothing; reading is synchronous and happens before any event loop.
"""

from __future__ import annotations

from opfs.config.loading import load_config
from opfs.config.record import RUNTIME_ROOT, Config
from opfs.config.settings import SETTINGS, Setting

__all__ = ["RUNTIME_ROOT", "SETTINGS", "Config", "Setting", "load_config"]
