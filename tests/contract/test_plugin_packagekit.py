"""The packagekit plugin on the PackageKit of a whole guest, with packages made on the spot."""

from __future__ import annotations

import pytest
import trio
from aptrepo import Deb, installed, publish
from becoming import become, observed

from opfs.core.action import Safety
from opfs.errors import ApplyFailed, InvalidRequest, Rejected
from opfs.plugins.packagekit.plugin import PackagekitPlugin
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("guest", "packagekit")


@pytest.fixture(scope="module")
def host(guest):
    """The guest with a repository of its own."""
    publish(
        guest,
        Deb("opfs-demo", "1.0"),
        Deb("opfs-demo", "2.0"),
        Deb("opfs-lib"),
        Deb("opfs-app", fields="Depends: opfs-lib"),
        Deb("opfs-rival", fields="Conflicts: opfs-lib"),
        Deb("opfs-broken", postinst="echo no luck today >&2; exit 1"),
        Deb("opfs-vital", fields="Essential: yes"),
    )
    return guest


@pytest.fixture
def plugin(host, tmp_path):
    return PackagekitPlugin(tmp_path / "packagekit", bus=host.bus, root=host.root, timeout_s=300)


@pytest.fixture(autouse=True)
def swept(host):
    """Nothing of one test is installed in the next."""
    yield
    host.run(
        "dpkg", "--purge", "--force-all", "opfs-demo", "opfs-app", "opfs-lib", "opfs-rival", "opfs-broken", "opfs-vital"
    )


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, plugin, host):
    async def disturb():
        host.run("dpkg", "--remove", "opfs-demo")

    case = PluginCase(
        plugin,
        "opfs-demo",
        [{"version": "1.0"}, {"ensure": "latest"}, {"ensure": "present", "version": "1.0"}],
        refused=[
            {"ensure": "installed"},
            {"version": 1},
            {"version": "1.0; rm -rf /"},
            {"version": ""},
            {"ensure": "latest", "version": "1.0"},
            {"ensure": "absent", "version": "1.0"},
            {"installed": "1.0"},
            {"origin": "foreign"},
            {"removes_with": []},
            {"name": "x"},
        ],
        failing={"version": "9.9"},
        disturb=disturb,
    )
    await check(case)
    assert installed(host, "opfs-demo") is None


def test_names_that_are_none_are_refused(plugin):
    for name in ("libc6:i386", "a", "-x", "a;b", "a_b@c"):
        with pytest.raises(InvalidRequest):
            plugin.check(name, {})


async def test_the_shortest_document_installs_the_newest_and_what_it_needs(plugin, host):
    [action] = (await become(plugin, "opfs-app", {})).actions
    assert action.safety is Safety.SAFE
    assert installed(host, "opfs-app") == "1"
    assert installed(host, "opfs-lib") == "1"
    everything = await plugin.observe(None)
    assert everything["opfs-app"] == {"ensure": "present", "installed": "1"}
    assert "opfs-lib" not in everything, "nobody asked for it by name"
    assert len(everything) > 20
    await become(plugin, "opfs-app", None)
    assert installed(host, "opfs-app") is None


async def test_removing_what_others_need_destroys_and_names_them(plugin, host):
    await become(plugin, "opfs-lib", {})
    await become(plugin, "opfs-app", {})
    found = await observed(plugin, "opfs-lib")
    assert found["removes_with"] == ["opfs-app"]
    for desired in (None, {"ensure": "absent"}):
        diff = plugin.plan("opfs-lib", await observed(plugin, "opfs-lib", desired), desired)
        assert diff.safety is Safety.DESTRUCTIVE
        assert "and with it opfs-app" in diff.actions[0].summary
    await become(plugin, "opfs-lib", None)
    assert installed(host, "opfs-app") is None


async def test_what_the_plan_did_not_foretell_is_not_removed(plugin, host):
    await become(plugin, "opfs-lib", {})
    [remove] = plugin.plan("opfs-lib", await observed(plugin, "opfs-lib"), None).actions
    await become(plugin, "opfs-app", {})
    with pytest.raises(ApplyFailed, match="removing opfs-lib would remove opfs-app"):
        await plugin.apply(remove)
    assert installed(host, "opfs-lib") == "1"
    await become(plugin, "opfs-lib", None)
    [install] = plugin.plan("opfs-rival", await observed(plugin, "opfs-rival", {}), {}).actions
    await become(plugin, "opfs-app", {})
    with pytest.raises(ApplyFailed, match="installing opfs-rival would remove opfs-app, opfs-lib"):
        await plugin.apply(install)
    assert installed(host, "opfs-app") == "1"


async def test_installing_what_removes_others_destroys_and_names_them(plugin, host):
    await become(plugin, "opfs-app", {})
    diff = await become(plugin, "opfs-rival", {})
    assert diff.safety is Safety.DESTRUCTIVE
    assert "which removes opfs-app, opfs-lib" in diff.actions[0].summary
    assert installed(host, "opfs-app") is None


async def test_what_is_essential_is_refused(plugin, host):
    await become(plugin, "opfs-vital", {})
    for desired in (None, {"ensure": "absent"}):
        with pytest.raises(Rejected, match="essential"):
            plugin.plan("opfs-vital", await observed(plugin, "opfs-vital", desired), desired)
    found = await observed(plugin, "dpkg", {"ensure": "absent"})
    with pytest.raises(Rejected, match="dpkg cannot be removed"):
        plugin.plan("dpkg", found, {"ensure": "absent"})


async def test_an_upgrade_a_downgrade_and_back(plugin, host):
    await become(plugin, "opfs-demo", {"version": "1.0"})
    before = await observed(plugin, "opfs-demo")
    assert before == {"ensure": "present", "installed": "1.0", "available": "2.0"}
    diff = await become(plugin, "opfs-demo", {"ensure": "latest"})
    assert diff.safety is Safety.DISRUPTIVE
    assert diff.actions[0].summary == "upgrade opfs-demo from 1.0 to 2.0"
    assert installed(host, "opfs-demo") == "2.0"
    for action in plugin.plan("opfs-demo", await observed(plugin, "opfs-demo"), before).actions:
        await plugin.apply(action)
    assert installed(host, "opfs-demo") == "1.0", "undoing returns to the very version"
    assert not (await become(plugin, "opfs-demo", {})).actions, "any version will do"


async def test_a_new_version_in_the_repository_is_drift_of_what_is_to_be_latest(plugin, host):
    await become(plugin, "opfs-demo", {"ensure": "latest"})
    publish(host, Deb("opfs-demo", "3.0"))
    assert plugin.compare("opfs-demo", {"ensure": "latest"}, await observed(plugin, "opfs-demo"))
    wanted = {name: {"ensure": "latest"} for name in ("opfs-demo", "dpkg")}
    found = await plugin.observe(list(wanted), desired=wanted)
    assert [found[name].get("available") for name in wanted] == ["3.0", None]
    await become(plugin, "opfs-demo", {"ensure": "latest"})
    assert installed(host, "opfs-demo") == "3.0"


@pytest.mark.parametrize(
    ("name", "document", "reason"),
    [
        ("opfs-nowhere", {}, "no repository of this host offers a package opfs-nowhere"),
        ("opfs-demo", {"version": "9.9"}, "offers opfs-demo 9.9"),
    ],
)
async def test_what_nobody_offers_is_named_and_nothing_else_is_installed(plugin, host, name, document, reason):
    with pytest.raises(ApplyFailed, match=reason):
        await become(plugin, name, document)
    assert installed(host, name) is None


async def test_an_installation_that_fails_is_told_seen_and_undone(plugin, host):
    # which of the two lines dpkg and apt print comes last, and so is told, differs from run to run
    with pytest.raises(ApplyFailed, match=r"post-installation script|returned an error code"):
        await become(plugin, "opfs-broken", {})
    found = await observed(plugin, "opfs-broken")
    assert found["broken"] == "half-configured"
    assert plugin.compare("opfs-broken", {}, found)
    assert (await plugin.observe(None))["opfs-broken"]["broken"]
    for action in plugin.plan("opfs-broken", found, None).actions:
        await plugin.apply(action)
    assert await observed(plugin, "opfs-broken") is None


async def test_an_installation_that_was_interrupted_is_finished(plugin, host):
    with pytest.raises(ApplyFailed):
        await become(plugin, "opfs-broken", {})
    host.write("/var/lib/dpkg/info/opfs-broken.postinst", "#!/bin/sh\nexit 0\n", mode="0755")
    diff = await become(plugin, "opfs-broken", {})
    assert "finish the installation" in diff.actions[0].summary
    assert installed(host, "opfs-broken") == "1"


async def test_a_package_that_opfs_did_not_install_stays_when_its_document_goes(plugin, host):
    host.run("apt-get", "install", "-qy", "opfs-lib")
    assert await observed(plugin, "opfs-lib") == {"ensure": "present", "installed": "1", "origin": "foreign"}
    assert not (await become(plugin, "opfs-lib", {})).actions
    assert not (await become(plugin, "opfs-lib", None)).actions
    assert installed(host, "opfs-lib") == "1"
    diff = await become(plugin, "opfs-lib", {"ensure": "absent"})
    assert diff.safety is Safety.DISRUPTIVE
    assert installed(host, "opfs-lib") is None


async def test_changes_by_others_are_reported_with_who_they_are(plugin, host):
    culprits, is_told = [], trio.Event()

    def report(sighting):
        assert sighting.element is None
        if sighting.culprit:
            culprits.append(sighting.culprit)
            is_told.set()

    def install_and_remove():
        host.run("pkcon", "--noninteractive", "--plain", "install", "opfs-lib")
        host.run("pkcon", "--noninteractive", "--plain", "remove", "opfs-lib")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(plugin.watch, report)
        with trio.fail_after(300):
            while not is_told.is_set():
                await trio.to_thread.run_sync(install_and_remove)
        nursery.cancel_scope.cancel()
    assert "uid 0" in culprits[0]


async def test_apt_is_noticed(plugin, host):
    is_told = trio.Event()
    host.run("systemctl", "stop", "packagekit")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(plugin.watch, lambda _: is_told.set())
        with trio.fail_after(300):
            while not is_told.is_set():
                await trio.to_thread.run_sync(host.sh, "apt-get install -qy opfs-lib && apt-get remove -qy opfs-lib")
        nursery.cancel_scope.cancel()


async def test_where_there_is_no_dpkg_packagekit_itself_is_asked(host, plugin, tmp_path):
    elsewhere = PackagekitPlugin(tmp_path / "packagekit", bus=host.bus, root=tmp_path, timeout_s=300)
    await become(plugin, "opfs-app", {})
    for names in (None, ["opfs-app", "opfs-demo", "dpkg"], ["opfs-app"], ["opfs-demo"]):
        assert await elsewhere.observe(names) == await plugin.observe(names)


def test_without_packagekit_it_says_what_to_install(tmp_path):
    plugin = PackagekitPlugin(tmp_path, root=tmp_path)
    assert "apt-get install packagekit" in plugin.why_unavailable()
