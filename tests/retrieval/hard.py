"""Hard questions, written by hand with their answers: synonyms, near-duplicates, numbers, negations, many kinds.

What is relevant is written as a condition on facts and documents, so that it was decided by thought before anything was
ranked, and holds for any life. Grades are those of retrieval.questions. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retrieval.phrases import HARD
from retrieval.questions import Question

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retrieval.facts import Change


@dataclass(frozen=True, slots=True)
class Is:
    """A condition; what is empty holds for all. `kinds` are beginnings of kinds, `values` have to be equal."""

    kinds: tuple[str, ...] = ()
    name: str = ""
    plugins: tuple[str, ...] = ()
    user: str = ""
    outcome: str = "done"
    op: str = ""
    says: str = ""
    values: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, change: Change) -> bool:
        fact = change.fact
        return (
            (not self.kinds or fact.kind.startswith(self.kinds))
            and (not self.name or fact.subject.name == self.name)
            and (not self.plugins or change.id.plugin in self.plugins)
            and (not self.user or fact.user == self.user)
            and (self.outcome in ("", fact.outcome))
            and (not self.op or change.op == self.op)
            and self.says.lower() in change.message.lower()
            and all(fact.values.get(slot) == value for slot, value in self.values.items())
        )


@dataclass(frozen=True, slots=True)
class Case:
    """A question; `best` has grade 3, `good` 2, `fair` 1."""

    text: str
    best: Is
    good: Is | None = None
    fair: Is | None = None

    def question(self, changes: Sequence[Change]) -> Question:
        grades: dict[int, int] = {}
        for grade, holds in ((1, self.fair), (2, self.good), (3, self.best)):
            if holds is not None:
                grades |= {change.seq: grade for change in changes if holds(change)}
        return Question(self.text, HARD, self.text, grades)


CASES = (
    # synonyms that share no letters with keys
    Case("NIC of the name server got jumbo frames", Is(("guestmtu",), "ns1", values={"new": "9000"}),
         fair=Is(("guestmtu",), "ns1")),
    Case("interface with a frame size of 9216", Is(("mtu",), values={"new": "9216"}), fair=Is(("mtu.raised",))),
    Case("RAM upgrade for the store", Is(("memory.raised",), "shop"), fair=Is(("memory",), "shop")),
    Case("memory upgrade for the shop", Is(("memory.raised",), "shop"), fair=Is(("memory",), "shop")),
    Case("boost the JavaScript runtime to the newest release", Is(("package.latest", "package.pinned"), "nodejs"),
         fair=Is((), "nodejs")),
    Case("the phones need more horsepower", Is(("cores.more", "throttle.lifted"), "voip"),
         fair=Is(("cores", "memory"), "voip")),
    Case("ethernet device taken offline", Is(("link.down",), plugins=("net",)),
         fair=Is(("link", "driftlink"), outcome="")),
    Case("remote workers' laptops admitted", Is(("peer.added",)), fair=Is(("peer",), outcome="")),
    Case("accounting is unreachable from the network", Is(("cable.unplugged", "power.off"), "erp"), fair=Is((), "erp")),
    Case("sandboxing of daemons", Is(("hardening",)), good=Is(("hardening",), outcome="failed")),
    Case("clock source of this machine", Is(("timeserver",)), fair=Is((), "/etc/chrony/chrony.conf", outcome="")),
    Case("lobby screen switched off", Is(("power.off",), "kiosk"),
         fair=Is(("power", "driftpower"), "kiosk", outcome="")),
    Case("wireless headsets", Is((), "bluetooth"), fair=Is((), "bluetooth", outcome="")),
    Case("printing", Is((), "cups"), good=Is((), "printsrv"), fair=Is((), "cups", outcome="")),
    Case("video calls machine", Is((), "jitsi"), fair=Is((), "jitsi", outcome="")),
    Case("container engine limits", Is(("unitmemory", "tasks", "unitcpu", "unitio", "openfiles"), "docker"),
         fair=Is((), "docker")),
    Case("kernel security update", Is(("package",), "linux-image-amd64"), fair=Is(("package",), says="CVE")),
    Case("allow forwarding of IP packets", Is(("forwarding.on",)), fair=Is(("forwarding",), outcome="")),
    # numbers and addresses
    Case("port 22", Is((), values={"port": "22"}),
         good=Is(("sshport",)), fair=Is((), values={"port": "22"}, outcome="failed")),
    Case("who opened port 443", Is(("flow.allowed", "flow.unblocked"), values={"port": "443"}),
         fair=Is((), values={"port": "443"})),
    Case("tcp 3306", Is((), values={"port": "3306"}, outcome="")),
    Case("remote desktop 3389 shut", Is(("flow.blocked",), values={"port": "3389"}),
         fair=Is((), values={"port": "3389"}, outcome="")),
    Case("MTU 9000", Is(("mtu", "guestmtu"), values={"new": "9000"}),
         fair=Is(("mtu", "guestmtu"), values={"old": "9000"})),
    Case("mtu 1420", Is(("mtu",), values={"new": "1420"}), fair=Is(("mtu",), values={"old": "1420"})),
    Case("VLAN 40", Is(("guestvlan.set", "switchport"), values={"new": "40"}),
         good=Is((), values={"tag": "40"}), fair=Is((), "vlan40")),
    Case("16384 MB for the telephones", Is(("memory",), "voip", values={"new": "16384"}), fair=Is(("memory",), "voip")),
    Case("512 MB", Is(("memory", "swap"), values={"new": "512"}),
         good=Is(("guest.created",), values={"memory": "512"})),
    Case("eight cores", Is(("cores",), values={"new": "8"}), fair=Is(("cores",))),
    Case("8 cores", Is(("cores",), values={"new": "8"}), fair=Is(("cores",))),
    Case("CVE-2026-1234", Is(says="CVE-2026-1234", outcome="")),
    Case("DSA-5901", Is(says="DSA-5901", outcome="")),
    Case("errno 28", Is(says="Errno 28", outcome="failed"), fair=Is(says="No space left", outcome="failed")),
    Case("udp 443", Is(("vpnport",), values={"new": "443"}), fair=Is(("vpnport",), values={"old": "443"})),
    Case("sshd may take 2 GiB", Is(("unitmemory",), "ssh", values={"gib": "2"}), fair=Is(("unitmemory",), "ssh")),
    Case("mode 0600", Is(("filemode",), values={"new": "0600"}), fair=Is(("filemode",))),
    # negations and opposites: the same words stand in what is not meant
    Case("no longer starts on boot", Is(("autostart.off", "unitboot.off")), fair=Is(("mask.on",))),
    Case("containers that start on boot again", Is(("autostart.on",)), fair=Is(("unitboot.on",))),
    Case("wiki not started automatically any more", Is(("autostart.off",), "wiki"),
         fair=Is(("autostart",), "wiki", outcome="")),
    Case("spanning tree turned off", Is(("stp.off", "rstp.off")), fair=Is(("stp.on", "rstp.on"))),
    Case("firewall switched off", Is(("guestfirewall.off",)), fair=Is(("guestfirewall.on",))),
    Case("telnet is no longer installed", Is(("package.removed",), "telnet"),
         fair=Is(("package",), "telnet", outcome="")),
    Case("deletion allowed again", Is(("protection.off",)), fair=Is(("protection.on",))),
    Case("swap disabled", Is(("swap.off",)), fair=Is(("swap",))),
    Case("docker does not run", Is(("unitrun.off", "mask.on"), "docker"), fair=Is((), "docker", outcome="")),
    Case("not a static address but DHCP", Is(("address.dhcp",)), fair=Is(("address",), values={})),
    Case("passwords are refused at ssh", Is(("passwords.off",)), fair=Is(("passwords", "rootlogin"))),
    # who
    Case("what did carol do to the vpn", Is((), plugins=("wireguard", "mesh"), user="carol"),
         fair=Is((), plugins=("wireguard", "mesh"), user="carol", outcome="failed")),
    Case("packages removed by bob", Is(("package.removed",), user="bob"), fair=Is(("package.removed",))),
    Case("frank and the mail server", Is((), "mx1", user="frank"), fair=Is((), "mx1", user="frank", outcome="failed")),
    Case("everything grace changed on the switch br-ex", Is((), "br-ex", user="grace"),
         fair=Is((), "br-ex", user="grace", outcome="failed")),
    Case("ansible deleted a container", Is(("guest.deleted",), user="ansible"), fair=Is(("guest.deleted",))),
    # why
    Case("why was postgres restarted with other settings", Is((), "/etc/postgresql/15/main/postgresql.conf"),
         fair=Is((), "postgresql")),
    Case("somebody tried to break in", Is(says="brute force", outcome=""),
         good=Is(says="passwords from abroad", outcome="")),
    Case("dentist", Is(says="dentist", outcome=""), fair=Is(says="doctor", outcome="")),
    Case("film streaming at work", Is(says="netflix", outcome=""), good=Is(says="filled the uplink", outcome="")),
    Case("out of memory", Is(says="out of memory", outcome=""), good=Is(says="OOM", outcome="")),
    # failures
    Case("disk full", Is(says="no space left", outcome="failed")),
    Case("dpkg was locked", Is(says="lock", plugins=("packagekit",), outcome="failed")),
    Case("lxc failed to start", Is((), plugins=("lxc",), says="did not start", outcome="failed"),
         fair=Is((), plugins=("lxc",), outcome="failed")),
    Case("203/EXEC", Is(says="203/EXEC", outcome="failed")),
    Case("unmet dependencies", Is(says="unmet dependencies", outcome="failed")),
    Case("No such device", Is(says="no such device", outcome="failed")),
    Case("the switch refused a flow", Is(says="the switch refuses", outcome="failed")),
    # drift
    Case("somebody changed something with nano", Is(outcome="drift", op="drift", kinds=("driftfile",)),
         fair=Is(outcome="drift")),
    Case("changed by hand with systemctl", Is(("driftunit",), outcome="drift"), fair=Is(outcome="drift")),
    Case("file does not match what we wrote", Is(("driftfile",), outcome="drift")),
    # near-duplicates: one of many that differ in one word
    Case("pg-replica, not pg-main, more memory", Is(("memory.raised",), "pg-replica"),
         fair=Is(("memory",), "pg-replica")),
    Case("redis-cache moved to lab", Is(("bridge.moved",), "redis-cache", values={"new": "lab"}),
         fair=Is(("bridge",), "redis-cache")),
    Case("wg1 peer removed", Is(("peer.removed",), "wg1"), fair=Is(("peer",), "wg1")),
    Case("br-ex rule for dns", Is(("flow",), "br-ex", values={"service": "dns"}),
         fair=Is(("flow",), values={"service": "dns"})),
    Case("nginx package, not the service", Is(("package",), "nginx"),
         fair=Is((), "nginx", plugins=("packagekit",), outcome="")),
    Case("cups unit disabled", Is(("unitboot.off",), "cups"), fair=Is(("unitboot", "mask", "unitrun"), "cups")),
    # typing errors and other spellings
    Case("contianer deletd", Is(("guest.deleted",)), fair=Is(("unit.deleted", "file.deleted"))),
    Case("firewal on nextcluod", Is(("guestfirewall",), "nextcloud"), fair=Is((), "nextcloud")),
    Case("wiregaurd port chnaged", Is(("vpnport",)), fair=Is(("tunnel",))),
    Case("grafanna memmory", Is(("memory",), "grafana"), fair=Is((), "grafana")),
    Case("posgres conections", Is(("dbconnections",)), fair=Is((), "/etc/postgresql/15/main/postgresql.conf")),
    Case("databse standby moutn", Is(("mount.added",), "pg-replica"), fair=Is(("mount",), "pg-replica", outcome="")),
)  # fmt: skip


def hard(changes: Sequence[Change]) -> list[Question]:
    """The questions about these changes that have an answer among them."""
    questions = [case.question(changes) for case in CASES]
    return [question for question in questions if 3 in question.grades.values()]
