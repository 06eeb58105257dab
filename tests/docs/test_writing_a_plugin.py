"""The page about writing a plugin: its package is installed as it stands there, checked as it says, and mounted."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from serving import serve
from thirdparty import PAGE, files_of_the_page, install

from opfs.testing.contracts.failures import MATRIX
from opfs.testing.contracts.plugin import CHECKS


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return install(tmp_path_factory.mktemp("thirdparty"))


def test_the_page_shows_a_whole_package():
    assert set(files_of_the_page()) == {
        "pyproject.toml",
        "opfs_hosts/__init__.py",
        "opfs_hosts/schema.json",
        "opfs_hosts/plan.py",
        "opfs_hosts/plugin.py",
        "cases.json",
    }


def test_an_installed_plugin_is_found_and_described(package):
    listed = [json.loads(line) for line in package.opfs("plugin", "list", "--json").stdout.splitlines()]
    assert [plugin["is_available"] for plugin in listed if plugin["name"] == "hosts"] == [True]
    shown = package.opfs("schema", "hosts", "address")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.splitlines()[0] == 'address  string, required, e.g. "192.0.2.7"'
    assert "A name in the hosts file" in package.opfs("plugin", "info", "hosts").stdout


def test_it_passes_the_suite_and_the_page_shows_what_it_prints(package):
    before = package.hosts.read_text()
    done = package.opfs("plugin", "check", "hosts", str(package.directory / "source/cases.json"), "--patience", "0.3")
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout in PAGE.read_text()
    assert len(done.stdout.splitlines()) == len(CHECKS) + len(MATRIX) + 1
    assert package.hosts.read_text() == before, "the suite leaves nothing behind"


def test_a_plugin_that_breaks_the_contract_is_told_so(package, tmp_path):
    broken = tmp_path / "opfs_broken"
    broken.mkdir()
    for name in ("schema.json", "plan.py"):
        (broken / name).write_text(files_of_the_page()[f"opfs_hosts/{name}"])
    text = files_of_the_page()["opfs_hosts/plugin.py"].replace("opfs_hosts", "opfs_broken")
    (broken / "plugin.py").write_text(text.replace("os.replace(beside, self._path)", "pass"))
    elsewhere = replace(package, site=tmp_path)
    cases = str(package.directory / "source/cases.json")
    done = elsewhere.opfs("plugin", "check", "opfs_broken.plugin:HostsPlugin", cases, "--no-failures")
    assert done.returncode == 1
    assert re.search(r"^FAILS  creates changes and deletes  .*not as asked for", done.stdout, re.MULTILINE)
    assert re.search(r"^ok     refuses bad documents$", done.stdout, re.MULTILINE)
    assert re.search(r"^\d+ checks, \d+ failed$", done.stdout, re.MULTILINE)


def test_what_is_there_already_is_never_touched(package, tmp_path):
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps({"element": "localhost", "documents": [{"address": "192.0.2.1"}, {"address": "::1"}]}))
    before = package.hosts.read_text()
    done = package.opfs("plugin", "check", "hosts", str(cases))
    assert (done.returncode, done.stdout) == (3, "")
    assert "hosts/localhost is on this host already" in done.stderr
    assert package.hosts.read_text() == before


def test_a_function_of_the_package_may_make_the_cases(package):
    (package.site / "opfs_hosts_cases.py").write_text(
        "from opfs.testing.contracts.plugin import PluginCase\n"
        "DOCUMENTS = [{'address': '192.0.2.7'}, {'address': '192.0.2.8'}]\n"
        "def make_case(plugin):\n"
        "    return PluginCase(plugin, 'case.example', DOCUMENTS)\n"
    )
    done = package.opfs("plugin", "check", "hosts", "opfs_hosts_cases:make_case", "--no-failures", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert {json.loads(line)["passed"] for line in done.stdout.splitlines()} == {True}


@pytest.mark.needs("root", "btrfs", "fuse", "model")
def test_it_is_mounted_and_works_as_the_page_tells(package, btrfs_dir, work_dir):
    with serve(btrfs_dir, work_dir, settings=package.settings) as opfs:
        opfs.sh(
            """echo '{"address": "192.0.2.7", "aliases": ["www.example.net"]}' > state/hosts/web.example.net.json"""
        )
        assert package.hosts.read_text().splitlines()[-1] == "192.0.2.7 web.example.net www.example.net"
        opfs.sh(f"sed -i s/192.0.2.7/192.0.2.66/ {package.hosts}")
        assert opfs.opfs("drift", "hosts", check=False).stdout.splitlines()[-1] == (
            '  /address  wanted "192.0.2.7"  found "192.0.2.66"'
        )
        assert opfs.sh("ls undeclared/hosts").stdout.split() == ["ip6-localhost.json", "localhost.json"]
        imported = opfs.opfs("import", "hosts", "localhost")
        assert imported.stdout == "hosts/localhost  is as its document says\n1 imported\n"
        assert json.loads(opfs.sh("cat state/hosts/localhost.json").stdout) == {"address": "127.0.0.1", "aliases": []}
        refused = opfs.sh("""echo '{"adress": "192.0.2.7"}' > state/hosts/web.example.net.json""", check=False)
        assert "Invalid argument" in refused.stderr
        reason = opfs.sh("tail -5 errors").stdout
        assert reason in PAGE.read_text()
        assert "did you mean 'address'?" in reason
