"""An apt repository of the test's own, in a guest: the only one there, made of packages built on the spot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guest import Guest

REPOSITORY = "/srv/opfs-repository"

_BUILD = f"""
set -eu
mkdir -p {REPOSITORY}
place=$(mktemp -d)
mkdir -p "$place/DEBIAN" "$place/usr/share/$1"
echo "$2" >"$place/usr/share/$1/version"
cat >"$place/DEBIAN/control"
if [ -n "$3" ]; then printf '#!/bin/sh\\n%s\\n' "$3" >"$place/DEBIAN/postinst"; chmod 755 "$place/DEBIAN/postinst"; fi
chmod 755 "$place"
cd {REPOSITORY}
dpkg-deb -Znone --root-owner-group --build "$place" "$1_$2.deb" >/dev/null
rm -r "$place"
{{
    dpkg-deb --field "$1_$2.deb"
    echo "Filename: ./$1_$2.deb"
    echo "Size: $(stat --format=%s "$1_$2.deb")"
    echo "SHA256: $(sha256sum "$1_$2.deb" | cut -d' ' -f1)"
    echo
}} >>Packages
"""
_PUBLISH = f"""
set -eu
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d /var/lib/apt/lists
# What this machine does after each run of apt (a commit of /etc, an index of programs) is not part of the test.
find /etc/apt/apt.conf.d -type f ! -name 20packagekit -delete
echo force-unsafe-io >/etc/dpkg/dpkg.cfg.d/opfs-test
# dpkg reads the file lists of all packages each time it runs; those of this machine's are of no interest.
find /var/lib/dpkg/info -name '*.list' ! -name 'opfs-*' -size +0 -exec truncate --size=0 {{}} +
mkdir -p /etc/apt/sources.list.d
echo 'deb [trusted=yes] file:{REPOSITORY} ./' >/etc/apt/sources.list.d/opfs.list
apt-get update
"""


@dataclass(frozen=True)
class Deb:
    """A package: further lines of its control file, and what runs when it is installed."""

    name: str
    version: str = "1"
    fields: str = ""
    postinst: str = ""


def publish(guest: Guest, *packages: Deb) -> None:
    """Build packages, add them to the repository and let apt read it; no other repository is left."""
    for deb in packages:
        control = (
            f"Package: {deb.name}\nVersion: {deb.version}\nArchitecture: all\nMaintainer: Test <test@test.example>\n"
        )
        control += (
            f"Description: a package of a test\n{deb.fields}\n" if deb.fields else "Description: a package of a test\n"
        )
        guest.run("sh", "-c", _BUILD, "sh", deb.name, deb.version, deb.postinst, input=control)
    guest.sh(_PUBLISH)


def installed(guest: Guest, name: str) -> str | None:
    """The version of a package as dpkg has it, None where it is not installed."""
    done = guest.run("dpkg-query", "-W", "-f=${db:Status-Status} ${Version}", name, check=False)
    status, _, version = done.stdout.partition(" ")
    return version if status == "installed" else None
