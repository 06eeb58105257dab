"""Who changed something and through what, as an event names them; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Actor:
    """The author of a change (format.md, field `actor`).

    `login_uid` is the kernel's audit login uid, or None where the session has none. `source` is one of
    `mount`, `cli`, `fleet`, `recovery`. Strings that the caller controls (`command`, `executable`,
    `cgroup`) are claims, not proofs; uid and pid come from the kernel.
    """

    uid: int
    user: str = ""
    login_uid: int | None = None
    pid: int = 0
    command: str = ""
    executable: str = ""
    cgroup: str = ""
    source: str = "mount"

    def to_json(self) -> dict[str, object]:
        return {
            "uid": self.uid,
            "user": self.user,
            "login_uid": self.login_uid,
            "pid": self.pid,
            "command": self.command,
            "executable": self.executable,
            "cgroup": self.cgroup,
            "source": self.source,
        }
