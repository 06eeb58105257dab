"""The systemd plugin on the manager of a whole guest: the contract, real units of several kinds, failures, drift.

The plugin runs out here and talks to the guest's bus; unit files are those of the guest.
"""

from __future__ import annotations

import json
import secrets

import pytest
import trio
from becoming import become, observed

from opfs.core.action import Safety
from opfs.core.schema import DocumentSchema
from opfs.errors import ApplyFailed, ApplyTimeout, InvalidRequest
from opfs.plugins.systemd.plugin import SystemdPlugin
from opfs.testing.contracts.plugin import CHECKS, PluginCase

pytestmark = pytest.mark.needs("guest")

RUNS = "[Service]\nExecStart=/usr/bin/sleep infinity\n"
INSTALLED = RUNS + "[Install]\nWantedBy=multi-user.target\n"
ONCE = "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
FAILS = "[Service]\nType=exec\nExecStart=/bin/sh -c 'echo no luck today; journalctl --sync; exit 3'\n"
"""The journal has its words before systemd knows that it ended."""


@pytest.fixture
def name():
    return f"opfstest-{secrets.token_hex(4)}.service"


@pytest.fixture
def plugin(guest, tmp_path):
    return SystemdPlugin(tmp_path / "systemd", bus=guest.bus, root=guest.root, job_timeout_s=100)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_contract(check, plugin, guest, name):
    async def disturb():
        guest.run("systemctl", "stop", name)

    protected = {"unit": ONCE, "enabled": True, "active": False, "protected": True, "on_change": "none"}
    case = PluginCase(
        plugin,
        name,
        [
            {"unit": ONCE, "enabled": True, "active": True},
            {
                "unit": ONCE + "# changed\n",
                "dropins": {"10-nice.conf": "[Service]\nNice=5\n"},
                "properties": {"MemoryMax": 268435456, "TasksMax": "infinity"},
                "enabled": False,
                "active": True,
            },
            protected,
        ],
        refused=[
            {"unit": ""},
            {"unit": "ExecStart=/bin/true\n"},
            {"unit": "[Service]\nExecStart\n"},
            {"unit": "[Service\nExecStart=/bin/true\n"},
            {"unit": "[Service]\nExecStat=/bin/true\n"},
            {"unit": "[Serivce]\nExecStart=/bin/true\n"},
            {"unit": "[Timer]\nOnBootSec=1\n"},
            {"unit": "[Service]\nExecStart=/bin/true\0\n"},
            {"unit": "[Service]\nExecStart=/bin/true \ud800\n"},
            {"unit": RUNS, "enabled": True},
            {"unit": RUNS, "masked": True},
            {"active": True, "masked": True},
            {"unit": "[Service]\nType=oneshot\nExecStart=/bin/true\n", "active": True},
            {"dropins": {"../x.conf": "[Unit]\n"}},
            {"dropins": {"x": "[Unit]\n"}},
            {"dropins": {"x.conf": "[Install]\nWantedBy=multi-user.target\n"}},
            {"dropins": {"x.conf": ""}},
            {"properties": {"MemoryMax": -1}},
            {"properties": {"ExecStart": "/bin/sh"}},
            {"properties": {"CPUWeight": 0}},
            {"enabled": "yes"},
            {"on_change": "reboot"},
            {"origin": {}},
            {"failed": {"result": "x"}},
            {"pending": []},
        ],
        failing={"unit": FAILS, "active": True},
        disturb=disturb,
        protected=protected,
    )
    await check(case)
    assert name.removesuffix(".service") not in guest.run("find", "/etc/systemd").stdout, "nothing is left behind"


def test_a_name_without_its_kind_is_refused_with_the_full_one(plugin):
    for bad in ("web", "web.srv", "a b.service", "disk.device"):
        with pytest.raises(InvalidRequest) as caught:
            plugin.check(bad, {"active": True})
        assert ".service" in caught.value.hint
    assert "say web.service" in (refusal(plugin, "web", {})).hint


def refusal(plugin, name, document):
    with pytest.raises(InvalidRequest) as caught:
        plugin.check(name, document)
    return caught.value


def test_a_refused_text_names_the_line_and_what_is_near(plugin, name):
    error = refusal(plugin, name, {"unit": "[Unit]\nDescription=x\n[Service]\n# c\nExecStrat=/bin/true\n"})
    assert "line 5: [Service] has no setting ExecStrat=" in error.reason
    assert "ExecStart=" in error.hint
    assert error.location.pointer == "/unit"


async def test_what_only_systemd_finds_wrong_is_said_with_its_line_and_changes_nothing(plugin, guest, name):
    with pytest.raises(ApplyFailed, match=rf"{name}:2: .*Failed to parse"):
        await become(plugin, name, {"unit": "[Service]\nType=nosuch\nExecStart=/bin/true\n"})
    assert await observed(plugin, name) is None
    with pytest.raises(ApplyFailed, match=r"x.conf:2: .*"):
        await become(plugin, "dbus.service", {"dropins": {"x.conf": "[Service]\nRestart=perhaps\n"}})
    assert guest.run("ls", "/etc/systemd/system/dbus.service.d", check=False).returncode == 2


async def test_a_failed_start_tells_the_result_the_status_and_the_last_words(plugin, name, monkeypatch):
    monkeypatch.setattr("opfs.plugins.systemd.manager._SETTLE_S", 60.0)
    with pytest.raises(ApplyFailed, match=r"result exit-code; status 3; .*no luck today") as caught:
        await become(plugin, name, {"unit": FAILS, "active": True})
    assert "did not start" in str(caught.value)
    found = await observed(plugin, name)
    assert found["failed"] == {"result": "exit-code", "status": 3}
    monkeypatch.undo()
    await become(plugin, name, {"unit": RUNS, "active": True})
    assert "failed" not in await observed(plugin, name)
    await become(plugin, name, None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[Service]\nExecStart=/bin/sh -c 'exit 4'\n", "status 4"),
        ("[Service]\nExecStart=/bin/sh -c 'kill -9 $$$$'\n", "signal 9"),
        ("[Service]\nExecStart=/no/such/program\n", "status 203"),
        ("[Service]\nExecStart=/bin/true\n", "RemainAfterExit"),
        ("[Service]\nExecStart=/bin/false\nRestart=always\n", "did not start"),
        ("[Unit]\nConditionPathExists=/no/such\n[Service]\nExecStart=/bin/true\n", "condition"),
        (
            "[Unit]\nRequires=opfs-missing.service\nAfter=opfs-missing.service\n[Service]\nExecStart=/bin/true\n",
            "not found",
        ),
    ],
)
async def test_no_start_is_reported_that_was_none(plugin, guest, name, text, reason, monkeypatch):
    monkeypatch.setattr("opfs.plugins.systemd.manager._SETTLE_S", 60.0)  # on a busy machine it ends a while later
    with pytest.raises(ApplyFailed, match=reason):
        await become(plugin, name, {"unit": text, "active": True})
    assert guest.run("systemctl", "show", "-PSubState", name).stdout in ("dead\n", "failed\n"), "it does not go on"
    await become(plugin, name, None)
    assert await observed(plugin, name) is None


async def test_a_start_that_hangs_ends_in_time_and_is_given_up(plugin, guest, tmp_path, name):
    hasty = SystemdPlugin(tmp_path / "systemd", bus=guest.bus, root=guest.root, job_timeout_s=0.5)
    document = {"unit": "[Service]\nType=notify\nExecStart=/usr/bin/sleep infinity\n", "active": True}
    with pytest.raises(ApplyTimeout, match="not finished"):
        await become(hasty, name, document)
    guest.wait_until("sh", "-c", f"systemctl show -PActiveState {name} | grep -Eq 'inactive|failed'")
    await become(plugin, name, None)


async def test_a_start_that_is_cancelled_is_given_up_at_once(plugin, guest, name):
    document = {"unit": "[Service]\nType=notify\nExecStart=/usr/bin/sleep infinity\n", "active": True}
    write, start = plugin.plan(name, None, document).actions
    await plugin.apply(write)
    with trio.move_on_after(0.3) as limit:
        await plugin.apply(start)
    assert limit.cancelled_caught
    guest.wait_until("sh", "-c", f"systemctl show -PActiveState {name} | grep -Eq 'inactive|failed'")
    await become(plugin, name, None)


async def test_a_missing_unit_is_named(plugin, name):
    for document in ({"active": True}, {"enabled": True}):
        with pytest.raises(ApplyFailed, match=f"there is no unit {name}") as caught:
            await become(plugin, name, document)
        assert "install the package" in caught.value.hint


async def test_a_file_that_opfs_did_not_write_is_adopted_replaced_disruptively_and_never_deleted(plugin, guest, name):
    path = f"/etc/systemd/system/{name}"
    guest.write(path, RUNS)
    found = await observed(plugin, name)
    assert (found["unit"], found["origin"]) == (RUNS, {"unit": "foreign"})
    assert not plugin.plan(name, found, {"unit": RUNS, "enabled": False, "active": False}).actions
    assert not plugin.plan(name, found, None).actions
    assert not plugin.compare(name, None, found)
    diff = plugin.plan(name, found, {"unit": RUNS + "# ours\n"})
    assert diff.safety is Safety.DISRUPTIVE
    assert "did not write" in diff.actions[0].summary
    for action in diff.actions:
        await plugin.apply(action)
    # The inverse gives it back to whom it belonged.
    for action in plugin.plan(name, await observed(plugin, name), found).actions:
        await plugin.apply(action)
    assert guest.read(path) == RUNS
    assert await observed(plugin, name) == found


async def test_a_file_that_appears_after_the_plan_is_not_overwritten(plugin, guest, name):
    [write] = plugin.plan(name, None, {"unit": RUNS}).actions
    guest.write(f"/etc/systemd/system/{name}", "[Unit]\nDescription=mine\n")
    with pytest.raises(ApplyFailed, match="somebody else"):
        await plugin.apply(write)
    assert "mine" in guest.read(f"/etc/systemd/system/{name}")
    guest.run("ln", "-sf", "/etc/passwd", f"/etc/systemd/system/{name}")
    with pytest.raises(ApplyFailed, match="link"):
        await plugin.apply(write)
    guest.run("rm", f"/etc/systemd/system/{name}")


async def test_a_file_changed_by_hand_is_drift_and_removing_it_destroys(plugin, guest, name):
    document = {"unit": RUNS, "dropins": {"a.conf": "[Service]\nNice=1\n"}}
    await become(plugin, name, document)
    for path in (f"/etc/systemd/system/{name}", f"/etc/systemd/system/{name}.d/a.conf"):
        guest.sh(f"echo '# by hand' >> {path}")
        found = await observed(plugin, name)
        assert set(found["origin"].values()) == {"changed"}
        assert plugin.compare(name, document, found)
        assert plugin.plan(name, found, None).safety is Safety.DESTRUCTIVE
        assert (await become(plugin, name, document)).safety is Safety.DISRUPTIVE
    assert (await become(plugin, name, None)).safety is Safety.SAFE


async def test_a_vendor_s_unit_keeps_what_is_not_ours_when_its_document_goes(plugin, guest):
    unit = "systemd-logind.service"
    before = await observed(plugin, unit)
    guest.write(f"/etc/systemd/system/{unit}.d/theirs.conf", "[Service]\nNice=1\n")
    await become(plugin, unit, {"dropins": {"ours.conf": "[Service]\nNice=2\n"}, "properties": {"TasksMax": 99}})
    assert guest.run("systemctl", "show", "-PTasksMax", unit).stdout == "99\n"
    assert guest.run("systemctl", "show", "-PNice", unit).stdout == "1\n", "theirs sorts after ours"
    found = await observed(plugin, unit)
    assert set(found["dropins"]) == {"ours.conf", "theirs.conf"}
    assert found["origin"] == {"dropins/theirs.conf": "foreign"}
    await become(plugin, unit, None)
    after = await observed(plugin, unit)
    assert set(after.pop("dropins")) == {"theirs.conf"}
    after.pop("origin")
    assert after == before
    assert before["active"], "and it runs on"
    guest.sh(f"rm -r /etc/systemd/system/{unit}.d; systemctl daemon-reload")


async def test_limits_set_by_others_are_left_alone_unless_named(plugin, guest, name):
    await become(plugin, name, {"unit": RUNS, "active": True})
    guest.run("systemctl", "set-property", name, "CPUWeight=50", "MemoryMax=1G")
    await become(plugin, name, {"unit": RUNS, "properties": {"TasksMax": 7}})
    found = await observed(plugin, name)
    assert found["properties"] == {"CPUWeight": 50, "MemoryMax": 1 << 30, "TasksMax": 7}
    assert found["origin"] == {"properties/CPUWeight": "foreign", "properties/MemoryMax": "foreign"}
    await become(plugin, name, {"unit": RUNS, "properties": {"MemoryMax": "infinity"}})
    found = await observed(plugin, name)
    assert found["properties"] == {"CPUWeight": 50, "MemoryMax": "infinity"}, "ours went, named ones are ours now"
    assert found["origin"] == {"properties/CPUWeight": "foreign"}
    await become(plugin, name, None)
    guest.sh(f"rm -r /etc/systemd/system.control/{name}.d; systemctl daemon-reload")


@pytest.mark.parametrize(
    "limits",
    [
        {"CPUQuotaPerSecUSec": 10_000},
        {"CPUQuotaPerSecUSec": 10_000_000_000},
        {"CPUQuotaPerSecUSec": "infinity", "MemoryMax": "infinity"},
        {"MemoryMax": 4097, "MemorySwapMax": 9007199254740992, "TasksMax": 9007199254740992},
    ],
    ids=str,
)
async def test_limits_are_the_same_when_systemd_has_read_what_it_wrote(plugin, guest, name, limits):
    document = {"unit": RUNS, "active": True, "properties": limits}
    await become(plugin, name, document)
    guest.run("systemctl", "daemon-reload")
    assert not plugin.compare(name, document, await observed(plugin, name, document))
    await become(plugin, name, None)


@pytest.mark.parametrize("quota", [1000, 15_000, 123_456])
def test_parts_of_a_percent_are_refused(plugin, name, quota):
    """systemd would write them as `CPUQuota=0%`, `1%` and `12%`, of which the first is no limit."""
    content = json.dumps({"properties": {"CPUQuotaPerSecUSec": quota}}).encode()
    with pytest.raises(InvalidRequest):
        DocumentSchema(plugin.schema).check(json.loads(content), content)


async def test_what_is_vital_is_stopped_and_masked_only_with_a_confirmation(plugin):
    for unit in ("dbus.service", "systemd-logind.service"):
        found = await observed(plugin, unit)
        for document in ({"active": False}, {"masked": True}):
            assert plugin.plan(unit, found, document).safety is Safety.DESTRUCTIVE
    found = await observed(plugin, "dbus.socket")
    assert found["active"]
    ordinary = {"active": True, "enabled": True}
    assert plugin.plan("web.service", ordinary, {"active": False}).safety is Safety.DISRUPTIVE
    assert plugin.plan("web.service", {**ordinary, "protected": True}, {"active": False}).safety is Safety.DESTRUCTIVE


async def test_a_crash_between_the_files_and_the_restart_is_made_good(plugin, guest, name):
    await become(plugin, name, {"unit": RUNS, "active": True})
    pid = guest.run("systemctl", "show", "-PMainPID", name).stdout
    document = {"unit": RUNS + "# two\n"}
    write, restart = plugin.plan(name, await observed(plugin, name), document).actions
    await plugin.apply(write)
    found = await observed(plugin, name)
    assert found["pending"] == ["restart"]
    assert plugin.compare(name, document, found)
    assert [action.step for action in (await become(plugin, name, document)).actions] == [restart.step] == ["restart"]
    assert guest.run("systemctl", "show", "-PMainPID", name).stdout != pid
    await become(plugin, name, None)


@pytest.mark.parametrize(("on_change", "restarted"), [("reload", False), ("none", False), ("restart", True)])
async def test_a_change_is_followed_by_what_the_document_says(plugin, guest, name, on_change, restarted):
    text = "[Service]\nExecStart=/usr/bin/sleep infinity\nExecReload=/bin/sh -c 'echo x >>/run/reloads-%n'\n"
    await become(plugin, name, {"unit": text, "active": True, "on_change": on_change})
    pid = guest.run("systemctl", "show", "-PMainPID", name).stdout
    await become(plugin, name, {"unit": text + "#\n", "active": True, "on_change": on_change})
    assert (guest.run("systemctl", "show", "-PMainPID", name).stdout != pid) is restarted
    reloaded = guest.run("test", "-e", f"/run/reloads-{name}", check=False).returncode == 0
    assert reloaded is (on_change == "reload")
    await become(plugin, name, None)


async def test_timers_sockets_mounts_paths_and_instances(plugin, guest, name):
    stem = name.removesuffix(".service")
    await become(plugin, name, {"unit": RUNS})
    timer = "[Timer]\nOnCalendar=yearly\n[Install]\nWantedBy=timers.target\n"
    await become(plugin, f"{stem}.timer", {"unit": timer, "enabled": True, "active": True})
    assert stem in guest.run("systemctl", "list-timers", "--no-pager").stdout
    await become(plugin, f"{stem}.socket", {"unit": f"[Socket]\nListenStream=/run/{stem}\n", "active": True})
    assert guest.run("test", "-S", f"/run/{stem}")
    await become(plugin, f"{stem}.path", {"unit": "[Path]\nPathExists=/no/such\n", "active": True})
    await become(
        plugin, "mnt-opfstest.mount", {"unit": "[Mount]\nWhat=none\nWhere=/mnt/opfstest\nType=tmpfs\n", "active": True}
    )
    assert "tmpfs" in guest.run("findmnt", "/mnt/opfstest").stdout
    await become(
        plugin,
        f"{stem}@.service",
        {"unit": "[Service]\nExecStart=/usr/bin/sleep %i\n[Install]\nWantedBy=multi-user.target\n"},
    )
    await become(plugin, f"{stem}@1000.service", {"active": True, "enabled": True})
    assert "sleep 1000" in guest.run("systemctl", "show", "-PExecStart", f"{stem}@1000.service").stdout
    everything = await plugin.observe(None)
    for unit in (f"{stem}.timer", f"{stem}.socket", f"{stem}.path", "mnt-opfstest.mount", f"{stem}@1000.service"):
        assert everything[unit]["active"]
        assert everything[unit] == await observed(plugin, unit)
    assert "is a template" in refusal(plugin, f"{stem}@.service", {"active": True}).reason
    assert "no processes" in refusal(plugin, f"{stem}.timer", {"properties": {"TasksMax": 1}}).reason
    await become(plugin, f"{stem}@1000.service", {"active": False, "enabled": False})
    for unit in (f"{stem}@.service", "mnt-opfstest.mount", f"{stem}.path", f"{stem}.socket", f"{stem}.timer", name):
        await become(plugin, unit, None)


async def test_masking_and_unmasking(plugin, guest, name):
    await become(plugin, "nftables.service", {"masked": True})
    assert guest.run("systemctl", "start", "nftables.service", check=False).returncode != 0
    assert (await observed(plugin, "nftables.service"))["masked"]
    await become(plugin, "nftables.service", {"masked": False})
    assert "masked" not in await observed(plugin, "nftables.service")
    await become(plugin, name, {"masked": True})
    await become(plugin, name, {"unit": RUNS, "active": True})
    await become(plugin, name, None)


async def test_enabled_is_what_systemd_says_it_is(plugin, guest):
    guest.run(
        "systemctl", "enable", "systemd-networkd.service", "getty@tty3.service", "getty@.service", "nftables.service"
    )
    everything = await plugin.observe(None)
    assert len(everything) > 150
    listed = guest.run("systemctl", "list-unit-files", "--no-legend", "--no-pager").stdout
    states = {line.split()[0]: line.split()[1] for line in listed.splitlines()}
    wrong = {
        unit: (states[unit], document)
        for unit, document in everything.items()
        if unit in states
        and ((states[unit] == "enabled") != document["enabled"] or (states[unit] == "masked") != ("masked" in document))
    }
    assert wrong == {}
    aliases = {unit for unit, state in states.items() if state == "alias"}
    assert not aliases & everything.keys()
    assert {unit for unit in states if unit in everything} >= {"getty@.service", "dbus.socket", "timers.target"}


async def test_changes_by_others_are_reported(plugin, guest, name):
    await become(plugin, name, {"unit": INSTALLED})
    seen, sightings = set(), trio.Event()

    def report(sighting):
        seen.add(sighting.element)
        if {name, None} <= seen:
            sightings.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(plugin.watch, report)
        with trio.fail_after(120):
            while not sightings.is_set():
                # Whoever listens has no way to say so: repeat until it was heard.
                await trio.to_thread.run_sync(guest.sh, f"systemctl restart {name}; systemctl enable -q {name}")
        nursery.cancel_scope.cancel()
    guest.run("systemctl", "disable", name)
    await become(plugin, name, None)


async def test_where_there_is_no_bus_it_says_so(tmp_path, name):
    plugin = SystemdPlugin(tmp_path, bus=f"unix:path={tmp_path}/bus", root=tmp_path)
    assert "does not run here" in plugin.why_unavailable()
    with pytest.raises(ApplyFailed, match="cannot be reached"):
        await plugin.observe([name])
