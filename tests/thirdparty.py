"""The example of docs/plugins/writing-a-plugin.md as a stranger's package: taken from the page, installed by pip."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/plugins/writing-a-plugin.md"
_PIP_OPTIONS = (
    *("--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
    *("--disable-pip-version-check", "--root-user-action=ignore"),
)
_FILE = re.compile(r"^File `([^`]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class ThirdParty:
    """An installed package: `site` goes on the path, `hosts` is the file its plugin manages."""

    directory: Path
    site: Path
    hosts: Path
    config: Path

    @property
    def settings(self) -> dict[str, str]:
        """Variables for whatever runs opfs."""
        return {"PYTHONPATH": str(self.site), "OPFS_CONFIG": str(self.config)}

    def opfs(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command without a daemon."""
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("OPFS_", "OPDBUS_"))}
        place = ["--pool", str(self.directory / "none"), "--mount", str(self.directory / "nowhere")]
        return subprocess.run(
            [sys.executable, "-m", "opfs", *place, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=variables | self.settings,
        )


def files_of_the_page() -> dict[str, str]:
    """The files that the page shows, by name."""
    return dict(_FILE.findall(PAGE.read_text()))


def install(directory: Path) -> ThirdParty:
    """Write the package into `directory` and install it there, as a user does, from nothing but its files."""
    source, site = directory / "source", directory / "site"
    for name, text in files_of_the_page().items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *_PIP_OPTIONS, "--target", str(site), str(source)],
        check=True,
        capture_output=True,
    )
    hosts = directory / "hosts"
    hosts.write_text("# of this machine\n127.0.0.1 localhost\n::1 ip6-localhost ip6-loopback  # version 6\n")
    config = directory / "opfs.toml"
    config.write_text(f'[plugin.hosts]\npath = "{hosts}"\npoll_interval_s = 0.5\n')
    config.chmod(0o600)
    return ThirdParty(directory, site, hosts, config)
