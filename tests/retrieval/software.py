"""What people do to units, packages and files: plugins systemd, packagekit, file. Pure but for random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opfs.core.names import ElementId
from retrieval.facts import Deed, Host, Subject, Weighted
from retrieval.inventory import OWN_UNITS, PACKAGES, SERVICES

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEMD, PACKAGEKIT, FILE = "systemd", "packagekit", "file"
GIB = 1 << 30


# --- units -----------------------------------------------------------------------------------------------


def adopt_unit(host: Host) -> Deed | None:
    free = [unit for unit in SERVICES if ElementId(SYSTEMD, unit[0]) not in host.documents]
    if not free:
        return None
    name, _, roles = host.random.choice(free)
    document = {"enabled": True, "active": True}
    return Deed("service.adopted", ElementId(SYSTEMD, name), document, Subject(name.partition(".")[0], roles))


def write_unit(host: Host) -> Deed | None:
    numbered = [
        (f"worker-{number}.service", f"Work on queue {number}", f"/usr/bin/worker --queue {number}", ())
        for number in range(6 * (host.breadth - 1))
    ]
    free = [unit for unit in (*OWN_UNITS, *numbered) if ElementId(SYSTEMD, unit[0]) not in host.documents]
    if not free:
        return None
    name, what, command, roles = host.random.choice(free)
    text = (
        f"[Unit]\nDescription={what}\nAfter=network-online.target\n\n"
        f"[Service]\nExecStart={command}\nRestart=on-failure\n\n[Install]\nWantedBy=multi-user.target\n"
    )
    document = {"unit": text, "enabled": True, "active": True}
    return Deed("unit.written", ElementId(SYSTEMD, name), document, Subject(name.partition(".")[0], roles))


def _replaced_line(host: Host, id: ElementId, kind: str, values: dict[str, str], start: str, line: str) -> Deed | None:
    """The unit's text with the line that starts so replaced, or put after [Service]."""
    lines = host.documents[id]["unit"].split("\n")
    if line in lines:
        return None
    rest = [old for old in lines if not old.startswith(start)]
    at = next((n for n, old in enumerate(lines) if old.startswith(start)), rest.index("[Service]") + 1)
    rest.insert(at, line)
    return host.changed(kind, id, values, unit="\n".join(rest))


def edit_unit(host: Host) -> Deed | None:
    id = host.pick(SYSTEMD, lambda document: "unit" in document)
    if id is None:
        return None
    random = host.random
    user = random.choice(("www-data", "nobody", "backup", "svc-jobs"))
    seconds = random.choice((5, 10, 30, 60))
    timezone = random.choice(("Europe/Berlin", "UTC", "America/New_York"))
    nice = random.choice((5, 10, 15, 19))
    start, line, kind, values = random.choice(
        (
            ("User=", f"User={user}", "runas.set", {"user_of": user}),
            ("Restart=", f"Restart={random.choice(('always', 'no', 'on-failure'))}", "restart.policy", {}),
            ("RestartSec=", f"RestartSec={seconds}", "restart.delay", {"new": str(seconds)}),
            ("Environment=", f"Environment=TZ={timezone}", "timezone.set", {"new": timezone}),
            ("Nice=", f"Nice={nice}", "nice.set", {"new": str(nice)}),
        )
    )
    return _replaced_line(host, id, kind, values, start, line)


def dropin(host: Host) -> Deed | None:
    id = host.pick(SYSTEMD, lambda document: "unit" not in document)
    if id is None:
        return None
    random = host.random
    files = dict(host.documents[id].get("dropins", {}))
    if files and random.random() < 0.3:
        name = random.choice(sorted(files))
        del files[name]
        return host.changed("dropin.removed", id, {"file": name}, dropins=files)
    limit = random.choice((4096, 16384, 65536, 1048576))
    name, text, kind, values = random.choice(
        (
            ("limits.conf", f"[Service]\nLimitNOFILE={limit}\n", "openfiles.set", {"new": str(limit)}),
            ("hardening.conf", "[Service]\nProtectSystem=strict\nPrivateTmp=yes\n", "hardening.set", {}),
            ("oom.conf", "[Service]\nOOMScoreAdjust=-500\n", "oom.set", {}),
            ("watchdog.conf", "[Service]\nWatchdogSec=30\n", "watchdog.set", {}),
        )
    )
    return None if files.get(name) == text else host.changed(kind, id, values, dropins={**files, name: text})


def enabled(host: Host) -> Deed | None:
    id = host.pick(SYSTEMD, lambda document: "enabled" in document)
    if id is None:
        return None
    on = not host.documents[id]["enabled"]
    return host.changed("unitboot.on" if on else "unitboot.off", id, enabled=on)


def active(host: Host) -> Deed | None:
    id = host.pick(SYSTEMD, lambda document: "active" in document)
    if id is None:
        return None
    on = not host.documents[id]["active"]
    return host.changed("unitrun.on" if on else "unitrun.off", id, active=on)


def masked(host: Host) -> Deed | None:
    id = host.pick(SYSTEMD, lambda document: "unit" not in document)
    if id is None:
        return None
    if host.documents[id].get("masked"):
        return host.changed("mask.off", id, masked=None, enabled=True, active=True)
    return host.changed("mask.on", id, masked=True, enabled=None, active=None)


def limits(host: Host) -> Deed | None:
    id = host.pick(SYSTEMD)
    if id is None:
        return None
    random = host.random
    properties = dict(host.documents[id].get("properties", {}))
    name, value, kind, values = random.choice(
        (
            ("MemoryMax", (size := random.choice((1, 2, 4, 8))) * GIB, "unitmemory.set", {"gib": str(size)}),
            ("CPUWeight", (weight := random.choice((20, 50, 200, 500))), "unitcpu.set", {"new": str(weight)}),
            ("TasksMax", (tasks := random.choice((64, 256, 512, 4096))), "tasks.set", {"new": str(tasks)}),
            ("IOWeight", (weight := random.choice((10, 50, 300, 800))), "unitio.set", {"new": str(weight)}),
        )
    )
    if properties.get(name) == value:
        return None
    return host.changed(kind, id, values, properties={**properties, name: value})


def delete_unit(host: Host) -> Deed | None:
    if len(host.of(SYSTEMD)) < 6:
        return None
    id = host.pick(SYSTEMD, lambda document: "unit" in document)
    return None if id is None else host.removed("unit.deleted", id)


# --- packages --------------------------------------------------------------------------------------------


def install(host: Host) -> Deed | None:
    more = [(f"lib{name}{number}", ()) for number in range(2, host.breadth + 1) for name, _ in PACKAGES]
    free = [package for package in (*PACKAGES, *more) if ElementId(PACKAGEKIT, package[0]) not in host.documents]
    if not free:
        return None
    name, roles = host.random.choice(free)
    return Deed("package.installed", ElementId(PACKAGEKIT, name), {"ensure": "present"}, Subject(name, roles))


def _version(host: Host) -> str:
    random = host.random
    return f"{random.randint(1, 9)}.{random.randint(0, 30)}.{random.randint(0, 9)}-{random.randint(1, 4)}"


def pin(host: Host) -> Deed | None:
    id = host.pick(PACKAGEKIT, lambda document: document.get("ensure") != "absent")
    if id is None:
        return None
    if "version" in host.documents[id] and host.random.random() < 0.4:
        return host.changed("package.latest", id, version=None, ensure="latest")
    new = _version(host)
    return host.changed("package.pinned", id, {"version": new}, version=new, ensure="present")


def uninstall(host: Host) -> Deed | None:
    id = host.pick(PACKAGEKIT, lambda document: document.get("ensure") != "absent")
    return None if id is None else host.changed("package.removed", id, version=None, ensure="absent")


def put_back(host: Host) -> Deed | None:
    id = host.pick(PACKAGEKIT, lambda document: document.get("ensure") == "absent")
    return None if id is None else host.changed("package.installed", id, ensure="present")


# --- files -----------------------------------------------------------------------------------------------

SSHD = "Port 22\nPermitRootLogin prohibit-password\nPasswordAuthentication yes\nX11Forwarding yes\nMaxAuthTries 6\n"
NGINX = "user www-data;\nworker_processes auto;\nclient_max_body_size 10m;\nkeepalive_timeout 65;\nserver_tokens on;\n"
SYSCTL = "net.ipv4.ip_forward = 0\nvm.swappiness = 60\nfs.inotify.max_user_watches = 65536\nnet.core.somaxconn = 128\n"
POSTGRES = "max_connections = 100\nshared_buffers = 128MB\nwork_mem = 4MB\nlog_min_duration_statement = -1\n"
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
CRON = "MAILTO=root\n30 2 * * * root /usr/local/bin/nightly\n"
RESOLV = "nameserver 192.0.2.53\nsearch example.com\n"
CHRONY = "pool 2.debian.pool.ntp.org iburst\nmakestep 1 3\n"
FILES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("sshd-config", "/etc/ssh/sshd_config", SSHD, ("ssh configuration", "remote login settings")),
    ("nginx-conf", "/etc/nginx/nginx.conf", NGINX, ("web server configuration", "nginx settings")),
    ("sysctl", "/etc/sysctl.d/50-local.conf", SYSCTL, ("kernel parameters", "kernel tuning")),
    ("postgres-conf", "/etc/postgresql/15/main/postgresql.conf", POSTGRES, ("database settings", "postgres tuning")),
    ("hosts", "/etc/hosts", HOSTS, ("hosts file", "static name table")),
    ("crontab", "/etc/cron.d/local", CRON, ("cron jobs", "scheduled jobs")),
    ("resolv", "/etc/resolv.conf", RESOLV, ("resolver configuration", "dns client settings")),
    ("chrony-conf", "/etc/chrony/chrony.conf", CHRONY, ("time server list", "ntp configuration")),
    ("motd", "/etc/motd", "Welcome.\n", ("login banner", "greeting after login")),
)
LINES: dict[str, tuple[tuple[str, str, str], ...]] = {
    # element: the beginning of the line, its new text, the kind of the deed
    "sshd-config": (
        ("Port ", "Port 2222", "sshport.set"),
        ("Port ", "Port 22", "sshport.set"),
        ("PermitRootLogin", "PermitRootLogin no", "rootlogin.off"),
        ("PermitRootLogin", "PermitRootLogin yes", "rootlogin.on"),
        ("PasswordAuthentication", "PasswordAuthentication no", "passwords.off"),
        ("PasswordAuthentication", "PasswordAuthentication yes", "passwords.on"),
        ("X11Forwarding", "X11Forwarding no", "xforward.off"),
        ("MaxAuthTries", "MaxAuthTries 3", "authtries.set"),
    ),
    "nginx-conf": (
        ("client_max_body_size", "client_max_body_size 100m;", "upload.raised"),
        ("client_max_body_size", "client_max_body_size 2m;", "upload.lowered"),
        ("keepalive_timeout", "keepalive_timeout 15;", "webtimeout.set"),
        ("server_tokens", "server_tokens off;", "tokens.off"),
        ("worker_processes", "worker_processes 8;", "workers.set"),
    ),
    "sysctl": (
        ("net.ipv4.ip_forward", "net.ipv4.ip_forward = 1", "forwarding.on"),
        ("net.ipv4.ip_forward", "net.ipv4.ip_forward = 0", "forwarding.off"),
        ("vm.swappiness", "vm.swappiness = 10", "swappiness.set"),
        ("vm.swappiness", "vm.swappiness = 1", "swappiness.set"),
        ("fs.inotify", "fs.inotify.max_user_watches = 524288", "inotify.set"),
        ("net.core.somaxconn", "net.core.somaxconn = 4096", "backlog.set"),
    ),
    "postgres-conf": (
        ("max_connections", "max_connections = 300", "dbconnections.set"),
        ("max_connections", "max_connections = 50", "dbconnections.set"),
        ("shared_buffers", "shared_buffers = 2GB", "dbbuffers.set"),
        ("work_mem", "work_mem = 64MB", "dbworkmem.set"),
        ("log_min_duration_statement", "log_min_duration_statement = 500", "slowlog.on"),
    ),
    "resolv": (
        ("nameserver", "nameserver 9.9.9.9", "hostresolver.set"),
        ("nameserver", "nameserver 10.0.0.53", "hostresolver.set"),
        ("search", "search corp.example.org", "searchdomain.set"),
    ),
    "chrony-conf": (
        ("pool", "pool ntp.example.com iburst", "timeserver.set"),
        ("pool", "pool 0.europe.pool.ntp.org iburst", "timeserver.set"),
    ),
    "motd": (
        ("", "Authorised users only. Everything is logged.", "banner.set"),
        ("", "This host is made of documents.", "banner.set"),
        ("", "Maintenance on Saturday from 22:00.", "banner.set"),
    ),
}


def write_file(host: Host) -> Deed | None:
    numbered = [
        (f"vhost{number}", f"/etc/nginx/sites-enabled/site{number}.conf",
         f"server {{\n  server_name site{number}.example.com;\n  listen 443 ssl;\n}}\n", ())
        for number in range(8 * host.breadth)
    ]  # fmt: skip
    free = [file for file in (*FILES, *numbered) if ElementId(FILE, file[0]) not in host.documents]
    if not free:
        return None
    weights = [9 if file in FILES else 1 for file in free]
    name, path, content, roles = host.random.choices(free, weights)[0]
    return Deed("file.written", ElementId(FILE, name), {"path": path, "content": content}, Subject(path, roles))


def edit_file(host: Host) -> Deed | None:
    editable = [id for id in host.of(FILE) if id.element in LINES]
    if not editable:
        return None
    id = host.random.choice(editable)
    start, line, kind = host.random.choice(LINES[id.element])
    lines = host.documents[id]["content"].rstrip("\n").split("\n")
    new = [line if old.startswith(start) else old for old in lines]
    if new == lines:
        return None
    return host.changed(kind, id, {"line": line}, content="\n".join(new) + "\n")


def name_host(host: Host) -> Deed | None:
    id = ElementId(FILE, "hosts")
    if id not in host.documents:
        return None
    ip = f"10.{host.random.randint(0, 9)}.0.{host.random.randint(2, 250)}"
    name = host.random.choice(("tape", "camera1", "nas", "printer3", "projector", "doorlock")) + ".lan"
    content = host.documents[id]["content"] + f"{ip} {name}\n"
    return host.changed("hostentry.added", id, {"ip": ip, "name_of": name}, content=content)


def schedule(host: Host) -> Deed | None:
    id = ElementId(FILE, "crontab")
    if id not in host.documents:
        return None
    hour = host.random.randint(0, 23)
    job = host.random.choice(("rotate-photos", "purge-sessions", "refresh-blocklist", "fetch-rates", "trim-disks"))
    old = host.documents[id]["content"]
    line = f"15 {hour} * * * root /usr/local/bin/{job}"
    if job in old:
        kept = [text for text in old.rstrip("\n").split("\n") if job not in text]
        return host.changed("job.removed", id, {"job": job}, content="\n".join(kept) + "\n")
    return host.changed("job.added", id, {"job": job, "hour": str(hour)}, content=f"{old}{line}\n")


def mode(host: Host) -> Deed | None:
    id = host.pick(FILE)
    if id is None:
        return None
    old, new = host.documents[id].get("mode", "0644"), host.random.choice(("0600", "0640", "0644", "0664", "0400"))
    if old == new:
        return None
    kind = "filemode.closed" if int(new, 8) < int(old, 8) else "filemode.opened"
    return host.changed(kind, id, {"new": new}, mode=new)


def ownership(host: Host) -> Deed | None:
    id = host.pick(FILE)
    if id is None:
        return None
    new = host.random.choice(("www-data", "postgres", "backup", "adm", "root"))
    if host.documents[id].get("group", "root") == new:
        return None
    return host.changed("filegroup.set", id, {"new": new}, group=new)


def delete_file(host: Host) -> Deed | None:
    removable: Callable[[Any], bool] = lambda document: "sites-enabled" in document["path"]  # noqa: E731
    id = host.pick(FILE, removable)
    return None if id is None else host.removed("file.deleted", id)


DEEDS = (
    Weighted(9, adopt_unit), Weighted(5, write_unit), Weighted(9, edit_unit), Weighted(8, dropin),
    Weighted(9, enabled), Weighted(9, active), Weighted(4, masked), Weighted(10, limits), Weighted(1.2, delete_unit),
    Weighted(12, install), Weighted(12, pin), Weighted(5, uninstall), Weighted(3, put_back),
    Weighted(9, write_file), Weighted(40, edit_file), Weighted(4, name_host), Weighted(4, schedule), Weighted(6, mode),
    Weighted(5, ownership), Weighted(1.5, delete_file),
)  # fmt: skip
