"""Why people change things and why it fails, in the words of commit messages and of backends. Data; pure.

Each reason has messages, which documents' authors write, and questions, which somebody else asks months later.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """`families` are beginnings of the kinds of deeds that it can be the reason of; empty for any; so `plugins`."""

    key: str
    messages: tuple[str, ...]
    questions: tuple[str, ...]
    families: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()


WHYS = (
    Reason("sale", ("Black Friday is coming", "capacity for the Christmas sale"),
           ("getting ready for the big shopping season", "preparations for holiday traffic"),
           ("memory.raised", "cores.more", "workers", "dbconnections", "throttle.lifted")),
    Reason("oom", ("the kernel killed it again, out of memory", "OOM killer struck at night"),
           ("process died because there was no memory left",
           "what was done after it got killed for using too much ram"),
           ("memory.raised", "swap.set", "unitmemory", "oom", "swappiness")),
    Reason("audit", ("finding 7 of the security audit", "demanded by the penetration testers"),
           ("changes the security review asked for", "fixes after the pentest"),
           ("rootlogin", "passwords", "hardening", "tokens", "xforward", "filemode", "package", "unprivileged",
           "flow")),
    Reason("attack", ("somebody tries passwords from abroad", "brute force attack since Sunday"),
           ("reaction to hackers guessing logins", "measures against password guessing"),
           ("host", "flow", "sshport", "passwords", "rootlogin", "authtries", "unitrun")),
    Reason("move", ("we move to the new office", "office relocation, second floor first"),
           ("changes for the relocation of our premises",),
           ("bridge", "address", "guestvlan", "switchport", "ip", "route", "interface", "hostentry")),
    Reason("slow", ("users complain that it is slow", "customers wait ten seconds for a page"),
           ("what we did about bad performance complaints", "response times were terrible"),
           ("cores.more", "throttle.lifted", "dbbuffers", "dbworkmem", "webtimeout", "backlog", "bandwidth",
           "unitcpu", "unitio")),
    Reason("saving", ("electricity costs too much", "save power over the summer"),
           ("turned off to lower the energy bill", "cutting electricity consumption"),
           ("power.off", "unitrun.off", "link.down", "autostart.off")),
    Reason("quit", ("has left the company", "last day was yesterday"),
           ("access of a colleague who no longer works here was revoked", "former employee"),
           ("peer.removed",)),
    Reason("stolen", ("device was stolen on the train", "laptop lost at the airport"),
           ("access cut because the machine went missing", "theft of equipment"), ("peer.removed",)),
    Reason("fragments", ("large packets vanish in the tunnel", "path MTU problem, ping -s 1472 hangs"),
           ("packets too big for the link got lost", "fragmentation trouble"), ("mtu.lowered", "guestmtu")),
    Reason("jumbo", ("iSCSI wants jumbo frames", "faster NFS with big frames"),
           ("larger ethernet frames for storage",), ("mtu.raised", "guestmtu")),
    Reason("loop", ("somebody plugged both ends of a cable into the wall", "broadcast storm on Tuesday"),
           ("network loop brought everything down", "flooding of broadcasts"), ("stp.on", "rstp.on")),
    Reason("upgrade", ("needed by version 4", "the new release asks for it"),
           ("requirement of a newer software version",),
           ("package", "memory.raised", "nesting.on", "fuse.on", "openfiles", "inotify", "mount")),
    Reason("cve", ("CVE-2026-1234", "security advisory DSA-5901"),
           ("patching a published vulnerability", "security hole in a dependency"), ("package.installed",
           "package.pinned", "package.latest")),
    Reason("regression", ("the new version crashes, going back", "bug in the latest release, hold it"),
           ("kept an older release because the newest was broken",), ("package.pinned",)),
    Reason("complaint", ("Netflix ate the whole line", "one guest filled the uplink"),
           ("one machine hogged all the bandwidth", "stop it from saturating the line"), ("bandwidth.limited",
           "throttle.set")),
    Reason("test", ("just trying something", "experiment, remove me next week"),
           ("somebody played around", "temporary trial")),
    Reason("ticket", ("as asked in ticket {ticket}", "ticket {ticket}, see there"), ()),
    Reason("doctor", ("the doctor's office next door has no internet otherwise", "favour for the dentist upstairs"),
           ("helping our neighbours in the building",), ("route", "flow", "ip", "gateway", "guestfirewall")),
    Reason("disk", ("photos filled the root disk", "no room left on the old volume"),
           ("storage was full so data went elsewhere",), ("mount.added",)),
    Reason("night", ("backup takes all night", "nightly job collides with the backup"),
           ("avoid interference with the backups at night",), ("job", "unitio", "nice", "throttle.set")),
)  # fmt: skip

CAUSES = (
    Reason("no-bridge", ("there is no bridge {bridge} on this host: create it, or name one that there is",),
           ("the bridge for a container did not exist", "failed because a switch was missing"), ("bridge", "guest")),
    Reason("no-space", ("[Errno 28] No space left on device", "write: No space left on device"),
           ("disk was full", "ran out of disk space"), plugins=("lxc", "file", "packagekit")),
    Reason("locked", ("dpkg frontend lock is held by process 4312 (unattended-upgr)",
                      "Could not get lock /var/lib/dpkg/lock-frontend"),
           ("another installer was running at the same time", "package manager was busy"), plugins=("packagekit",)),
    Reason("depends",
           ("the following packages have unmet dependencies: libc6 (>= 2.38) but 2.36-9 is to be installed",),
           ("dependency conflict", "could not be installed since it needs something newer"), plugins=("packagekit",)),
    Reason("no-package", ("no repository offers this version: E: Version not found",),
           ("requested release is not in the repositories",), plugins=("packagekit",)),
    Reason("timeout", ("the backend did not answer within 60 s",),
           ("took too long and was given up", "hung without an answer")),
    Reason("exit", ("the unit failed: Main process exited, code=exited, status=203/EXEC",
                    "start request repeated too quickly; result exit-code"),
           ("daemon crashed while starting", "program could not be executed"), plugins=("systemd",)),
    Reason("refused-flow", ("the switch refuses it: OFPBMC_BAD_FIELD: ADD actions=drop",
                            "the switch refuses it: OFPBAC_BAD_OUT_GROUP"),
           ("open vswitch rejected a rule", "flow not accepted by the switch"), plugins=("openflow",)),
    Reason("no-device", ("could not open network device (No such device)",
                         "[Errno 19] No such device"),
           ("nic did not exist", "network card missing"), plugins=("ovs", "net")),
    Reason("busy", ("[Errno 16] Device or resource busy",),
           ("something still used it", "device in use"), plugins=("net", "lxc", "wireguard")),
    Reason("no-secret", ("there is no secret 'wg0': put it, for root alone (mode 0600), into /etc/opfs/secrets",),
           ("private key was not there", "vpn failed for lack of a key"), plugins=("wireguard", "mesh")),
    Reason("in-use", ("[Errno 98] Address already in use",),
           ("port already taken", "udp port occupied by another program"), plugins=("wireguard",)),
    Reason("read-only", ("/etc is on a read-only file system", "[Errno 30] Read-only file system"),
           ("could not write because the filesystem was mounted ro",), plugins=("file",)),
    Reason("no-user", ("this host has no group 'postgres'",),
           ("group did not exist",), plugins=("file",)),
    Reason("no-start", ("lxc-start: Failed to mount rootfs; the container did not start",
                        "the container did not stop within 60 s"),
           ("container would not come up", "guest refused to boot"), plugins=("lxc",)),
    Reason("cgroup", ("writing memory.max: [Errno 16] Device or resource busy: it uses 1873 MB",),
           ("limit could not be lowered because more is in use",), ("memory",)),
)  # fmt: skip


def fitting(reasons: tuple[Reason, ...], plugin: str, kind: str) -> list[Reason]:
    """Those that can be the reason of a deed of that kind: special ones first, then the plugin's, then general ones."""
    special = [reason for reason in reasons if kind.startswith(reason.families or ("-",))]
    by_plugin = [reason for reason in reasons if not reason.families and plugin in reason.plugins]
    general = [reason for reason in reasons if not reason.families and not reason.plugins]
    return [*special, *by_plugin, *general]
