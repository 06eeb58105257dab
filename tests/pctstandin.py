"""A `pct` for tests: Proxmox' tool as pct(1) documents it, strict, with its state on disk and no containers.

Copied to PLACE/bin/pct, it keeps configurations in PLACE/lxc as Proxmox does in /etc/pve/lxc (with `[pve:pending]` and
snapshot sections), running containers as files in PLACE/running and templates in PLACE/templates. What a
running container does not take waits in `[pve:pending]` for its next start; unknown options, wrong types, and what
Proxmox refuses (a second container of a number, the destruction of a running or protected one) end it with
Proxmox' words. It is a program: tests import it only to install it.
"""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path
from urllib.parse import quote, unquote

PLACE = Path(__file__).resolve().parent.parent
BOOLEAN, INTEGER, NUMBER, TEXT = r"[01]", r"\d+", r"\d+(\.\d+)?", r"[^\n]*"
DNS = r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
ADDRESS = r"[0-9A-Fa-f.:]+"
OPTIONS = {
    **dict.fromkeys(("onboot", "protection", "template", "console", "debug"), BOOLEAN),
    **dict.fromkeys(("memory", "swap", "cores", "cpuunits", "tty"), INTEGER),
    "cpulimit": NUMBER,
    "hostname": DNS,
    "searchdomain": rf"{DNS}( {DNS})*",
    "nameserver": rf"{ADDRESS}( {ADDRESS})*",
    "description": r"[\s\S]{0,8192}",
    "tags": r"[A-Za-z0-9_][\w.+-]*(;[A-Za-z0-9_][\w.+-]*)*",
    "arch": "amd64|i386|arm64|armhf|riscv32|riscv64",
    "ostype": "debian|devuan|ubuntu|centos|fedora|opensuse|archlinux|alpine|gentoo|nixos|unmanaged",
    "startup": TEXT,
    "timezone": TEXT,
    "features": TEXT,
    "rootfs": TEXT,
    **{f"net{number}": TEXT for number in range(32)},
    **{f"mp{number}": TEXT for number in range(256)},
}
CREATE_ONLY = {
    **dict.fromkeys(("unprivileged", "force", "start", "unique", "restore", "ha-managed"), BOOLEAN),
    "storage": r"[A-Za-z][\w.-]*",
    "pool": TEXT,
    "password": TEXT,
}
FIELDS = {
    "net": {
        "name": r"[-_.\w]+",
        "bridge": r"[-_.\w]+",
        "type": "veth",
        "hwaddr": r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}",
        "ip": r"dhcp|manual|\d+(\.\d+){3}/\d+",
        "ip6": TEXT,
        "gw": r"\d+(\.\d+){3}",
        "gw6": TEXT,
        "mtu": INTEGER,
        "tag": INTEGER,
        "trunks": r"\d+(;\d+)*",
        "rate": NUMBER,
        "firewall": BOOLEAN,
        "link_down": BOOLEAN,
    },
    "mp": {
        "volume": r"/.+|[A-Za-z][\w.-]*:.+",
        "mp": r"/.+",
        "size": r"\d+(\.\d+)?[KMGT]?",
        "mountoptions": r"(discard|lazytime|noatime|nodev|noexec|nosuid)(;\w+)*",
        **dict.fromkeys(("ro", "backup", "acl", "quota", "replicate", "shared"), BOOLEAN),
    },
    "features": {
        "mount": r"[\w; ]+",
        **dict.fromkeys(("nesting", "keyctl", "fuse", "mknod", "force_rw_sys"), BOOLEAN),
    },
}
NEEDED = {"net": ("name",), "mp": ("volume", "mp"), "features": ()}
LIVE = re.compile(r"(description|onboot|startup|protection|hostname|cores|tags|memory|swap|cpulimit|cpuunits|net\d+)\Z")
"""What a running container takes at once; a mount point only where there is none."""


class Refusal(Exception):
    """Proxmox' words, and its exit status."""

    def __init__(self, words, status=255):
        super().__init__(words)
        self.status = status


def main(arguments):
    verb, *rest = arguments or [""]
    verbs = {
        "list": (list_all, 0, {}),
        "config": (show, 1, {"current": BOOLEAN, "snapshot": TEXT}),
        "status": (status, 1, {"verbose": BOOLEAN}),
        "create": (create, 2, {**OPTIONS, **CREATE_ONLY}),
        "set": (change, 1, {**OPTIONS, "delete": r"[\w,]+", "revert": r"[\w,]+", "digest": TEXT}),
        "start": (start, 1, {"skiplock": BOOLEAN, "debug": BOOLEAN}),
        "stop": (stop, 1, {"skiplock": BOOLEAN}),
        "shutdown": (stop, 1, {"forceStop": BOOLEAN, "timeout": INTEGER}),
        "destroy": (destroy, 1, {"force": BOOLEAN, "purge": BOOLEAN}),
        "snapshot": (snapshot, 2, {"description": TEXT}),
    }
    if verb not in verbs:
        raise Refusal(f"ERROR: unknown command 'pct {verb}'")
    run, count, known = verbs[verb]
    positions, options = divide(verb, rest, known)
    if len(positions) != count:
        raise Refusal(f"400 {'not enough' if len(positions) < count else 'too many'} arguments\npct {verb} [OPTIONS]")
    if count and not re.fullmatch(r"[1-9]\d{2,8}", positions[0]):
        raise Refusal(
            "400 Parameter verification failed.\nvmid: invalid format - value does not look like a valid VM ID"
        )
    run(*positions, options)


def divide(verb, words, known):
    positions, options = [], {}
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            positions.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name not in known:
            raise Refusal(f"Unknown option: {name}\n400 unable to parse option\npct {verb} [OPTIONS]")
        value = value if equals else (words.pop(0) if words else "")
        if not re.fullmatch(known[name], value):
            raise Refusal(f"400 Parameter verification failed.\n{name}: type check failed - got '{value}'")
        kind = re.match(r"net|mp|features", name)
        if kind and name in OPTIONS:
            check_fields(name, kind[0], value)
        options[name] = value
    if int(options.get("memory", 512)) < 16:
        raise Refusal("400 Parameter verification failed.\nmemory: value must have a minimum value of 16")
    return positions, options


def check_fields(name, kind, text):
    fields = split(text, "volume" if kind == "mp" else "")
    for field, value in fields.items():
        if field not in FIELDS[kind] or not re.fullmatch(FIELDS[kind][field], value):
            raise Refusal(f"400 Parameter verification failed.\n{name}: invalid format - format error\n{name}.{field}")
    for field in NEEDED[kind]:
        if field not in fields:
            raise Refusal(
                f"400 Parameter verification failed.\n{name}: invalid format\n{name}.{field}: property is missing"
            )


def split(text, default=""):
    return dict(part.split("=", 1) if "=" in part else (default, part) for part in text.split(","))


# --- the configuration -------------------------------------------------------------------------------------


def load(vmid):
    file = PLACE / "lxc" / f"{vmid}.conf"
    if not file.exists():
        raise Refusal(f"Configuration file 'nodes/pve/lxc/{vmid}.conf' does not exist", 2)
    sections, now = {"": {}}, ""
    for line in file.read_text().splitlines():
        if match := re.fullmatch(r"\[(.+)\]", line):
            now = match[1]
            sections[now] = {}
        elif line.startswith("#"):
            sections[now]["description"] = sections[now].get("description", "") + unquote(line[1:]) + "\n"
        elif line:
            key, _, value = line.partition(": ")
            sections[now][key] = value
    return sections


def store(vmid, sections):
    text = ""
    for name, values in sections.items():
        if name and not (name == "pve:pending" and not values):
            text += f"\n[{name}]\n"
        for line in values.get("description", "").splitlines():
            text += f"#{quote(line, safe=' !#$&()*+,-./0123456789;<=>?@[]^_`{|}~')}\n"
        text += "".join(f"{key}: {value}\n" for key, value in sorted(values.items()) if key != "description")
    fresh = PLACE / "lxc" / f".{vmid}.tmp"
    fresh.write_text(text)
    fresh.replace(PLACE / "lxc" / f"{vmid}.conf")


def settled(vmid, key, value, storage="local"):
    """What Proxmox makes of a value: an address for an interface, a volume for `storage:gigabytes`."""
    if key.startswith("net"):
        fields = split(value)
        fields.setdefault("hwaddr", "BC:24:11:" + ":".join(f"{random.randrange(256):02X}" for _ in range(3)))
        return ",".join(f"{name}={field}" for name, field in {**fields, "type": "veth"}.items())
    match = re.match(r"([A-Za-z][\w.-]*):(\d+)(,|\Z)", value) if key.startswith("mp") else None
    if match:
        rest = value[match.end() :]
        volume = f"{match[1]}:{vmid}/vm-{vmid}-disk-{key[2:]}.raw"
        return ",".join([volume, *([rest] if rest else []), f"size={match[2]}G"])
    return value


def is_running(vmid):
    return (PLACE / "running" / vmid).exists()


def apply_pending(vmid, sections, is_allowed):
    pending, current = sections.setdefault("pve:pending", {}), sections[""]
    gone = [key for key in pending.get("delete", "").split(",") if key]
    for key in [key for key in gone if is_allowed(key, None)]:
        current.pop(key, None)
        gone.remove(key)
    pending.pop("delete", None)
    for key in [key for key in pending if is_allowed(key, current.get(key))]:
        current[key] = settled(vmid, key, pending.pop(key))
    if gone:
        pending["delete"] = ",".join(gone)


# --- the commands ------------------------------------------------------------------------------------------


def list_all(options):
    names = sorted((file.stem for file in (PLACE / "lxc").glob("[0-9]*.conf")), key=int)
    if not names:
        return
    print(f"{'VMID':<10} {'Status':<10} {'Lock':<12} {'Name':<20}")
    for vmid in names:
        word = "running" if is_running(vmid) else "stopped"
        print(f"{vmid:<10} {word:<10} {'':<12} {load(vmid)['']['hostname']:<20}")


def show(vmid, options):
    sections = load(vmid)
    values = {**sections[""], **({} if options.get("current") == "1" else sections.get("pve:pending", {}))}
    for key in sorted(values):
        print(f"{key}: {quote(values[key]) if key == 'description' else values[key]}")


def status(vmid, options):
    load(vmid)
    print(f"status: {'running' if is_running(vmid) else 'stopped'}")


def create(vmid, template, options):
    if (PLACE / "lxc" / f"{vmid}.conf").exists():
        raise Refusal(f"CT {vmid} already exists on node 'pve'")
    storage, _, name = template.partition(":vztmpl/")
    file = Path(template) if template.startswith("/") else PLACE / "templates" / name
    if not file.is_file() or (not name and not template.startswith("/")):
        raise Refusal(f"volume '{template}' does not exist")
    storage = options.pop("storage", "local")
    for key in ("force", "start", "unique", "restore", "ha-managed", "pool", "password"):
        options.pop(key, None)
    current = {"arch": "amd64", "ostype": "debian", "hostname": f"CT{vmid}", "memory": "512", "swap": "512"}
    current |= {key: settled(vmid, key, value) for key, value in options.items()}
    current["rootfs"] = f"{storage}:{vmid}/vm-{vmid}-disk-0.raw,size=4G"
    current["unprivileged"] = options.get("unprivileged", "1")
    store(vmid, {"": {key: value for key, value in current.items() if (key, value) != ("unprivileged", "0")}})


def change(vmid, options):
    sections = load(vmid)
    current, pending = sections[""], sections.setdefault("pve:pending", {})
    revert, delete = options.pop("revert", ""), options.pop("delete", "")
    options.pop("digest", None)
    gone = [key for key in pending.pop("delete", "").split(",") if key]
    for key in filter(None, revert.split(",")):
        pending.pop(key, None)
        gone = [other for other in gone if other != key]
    for key in filter(None, delete.split(",")):
        if key in ("memory", "rootfs", "ostype"):
            raise Refusal(f"unable to delete required option '{key}'")
        if key not in OPTIONS:
            raise Refusal(f"400 Parameter verification failed.\ndelete: unknown option '{key}'")
        if key not in current and key not in pending:
            print(f"cannot delete '{key}' - not set in current configuration!", file=sys.stderr)
            continue
        if key.startswith("mp") and current.get("protection") == "1":
            raise Refusal(f"can't remove CT {vmid} drive '{key}' - protection mode enabled")
        gone.append(key)
        pending.pop(key, None)
    for key, value in options.items():
        if re.match(r"mp\d|rootfs", key) and current.get("protection") == "1":
            raise Refusal(f"can't update CT {vmid} drive '{key}' - protection mode enabled")
        pending[key] = value
        gone = [other for other in gone if other != key]
    for key in [key for key in pending if pending[key] == current.get(key)]:
        del pending[key]
    if gone:
        pending["delete"] = ",".join(gone)

    def is_live(key, now):
        return bool(LIVE.match(key)) or (key.startswith("mp") and now is None and key not in gone)

    apply_pending(vmid, sections, is_live if is_running(vmid) else lambda key, now: True)
    store(vmid, sections)


def start(vmid, options):
    sections = load(vmid)
    if is_running(vmid):
        raise Refusal(f"CT {vmid} already running")
    apply_pending(vmid, sections, lambda key, now: True)
    store(vmid, sections)
    (PLACE / "running" / vmid).touch()


def stop(vmid, options):
    load(vmid)
    if not is_running(vmid):
        raise Refusal(f"CT {vmid} not running")
    (PLACE / "running" / vmid).unlink()


def destroy(vmid, options):
    current = load(vmid)[""]
    if current.get("protection") == "1":
        raise Refusal(f"can't remove CT {vmid} - protection mode enabled")
    if is_running(vmid) and options.get("force") != "1":
        raise Refusal(f"CT {vmid} is running - destroy failed")
    (PLACE / "running" / vmid).unlink(missing_ok=True)
    (PLACE / "lxc" / f"{vmid}.conf").unlink()


def snapshot(vmid, name, options):
    sections = load(vmid)
    sections[name] = {**sections[""], "snaptime": "1700000000"}
    sections[""]["parent"] = name
    store(vmid, sections)


def install(place):
    """Put the program and its places below an empty directory; returns where the program is."""
    for folder in ("bin", "lxc", "running", "templates"):
        (place / folder).mkdir()
    for name in ("debian-12.tar.zst", "alpine.tar.xz", "a"):
        (place / "templates" / name).touch()
    tool = place / "bin/pct"
    tool.write_text(f"#!{sys.executable} -IS\n{Path(__file__).read_text()}")
    tool.chmod(0o755)
    return tool


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        sys.exit(refusal.status)
