"""Where this host's Open vSwitch is, by a plugin's settings, and whether it is there.

Opens no connection (opfs.clients.ovsdb, opfs.clients.openflow). Safe from any thread.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_DIR = Path("/run/openvswitch")
PACKAGES = "openvswitch-switch"


@dataclass(frozen=True, slots=True)
class SwitchPlace:
    """The directory of Open vSwitch's sockets, the socket of its database, and how long an answer may take."""

    run_dir: Path = RUN_DIR
    database: Path = RUN_DIR / "db.sock"
    timeout_s: float = 10.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SwitchPlace:
        """Settings `run_dir` (/run/openvswitch unless given), `database` (its db.sock) and `timeout` in seconds."""
        run_dir = Path(settings.get("run_dir", RUN_DIR))
        database = Path(settings.get("database", run_dir / "db.sock"))
        return cls(run_dir, database, float(settings.get("timeout", 10.0)))

    def why_unavailable(self) -> str | None:
        """None where the database's socket is there; else the reason and what to install."""
        try:
            if stat.S_ISSOCK(self.database.stat().st_mode):
                return None
        except OSError as error:
            reason = error.strerror
        else:
            reason = "that is no socket"
        return f"no Open vSwitch database at {self.database} ({reason}); apt-get install {PACKAGES} and start it"


DEFAULT = SwitchPlace()
