"""Fixtures that several modules of these tests share."""

from __future__ import annotations

import pytest
from serving import serve
from thirdparty import install


@pytest.fixture(scope="module")
def host(btrfs_dir, work_dir, tmp_path_factory):
    """A daemon with a plugin of somebody else's, whose backend is a file; `host.hosts` is that file."""
    package = install(tmp_path_factory.mktemp("views"))
    with serve(btrfs_dir, work_dir, settings=package.settings) as serving:
        work_dir.chmod(0o755)
        serving.hosts = package.hosts
        yield serving


@pytest.fixture
def same_hosts(host):
    """Every test begins with two undeclared names, and nothing declared."""
    host.hosts.write_text("127.0.0.1 localhost\n192.0.2.9 printer\n")
    yield
    host.hosts.write_text("127.0.0.1 localhost\n")
    while names := host.sh("ls state/hosts").stdout.split():
        # what others need goes after them
        assert any([host.sh(f"rm state/hosts/{name}", check=False).returncode == 0 for name in names])
    host.sh("rm -f plan/hosts/*")


@pytest.fixture
def web(host, same_hosts):
    """The same daemon, with a name declared."""
    host.sh("""printf '{\n  "address": "192.0.2.7",\n  "aliases": ["www"]\n}\n' > state/hosts/web.json""")
    return host
