"""The plan of packages: what is done, what it costs, whose package it is; and reading dpkg's files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.core.action import Kind, Safety
from opfs.errors import Rejected
from opfs.plugins.packagekit.dpkg import Installed, read_packages
from opfs.plugins.packagekit.plan import compare_package, plan_package

HERE = {"ensure": "present", "installed": "1.0"}


def only(current, desired):
    [action] = plan_package("demo", current, desired).actions
    return action


def test_what_is_so_already_needs_nothing():
    for desired in ({}, {"version": "1.0"}, {"ensure": "latest"}):
        assert not plan_package("demo", HERE, desired).actions
        assert not list(compare_package(desired, HERE))
    for current in (None, {"ensure": "absent"}):
        for desired in (None, {"ensure": "absent"}):
            assert not plan_package("demo", current, desired).actions
            assert not list(compare_package(desired, current))


def test_installing_is_safe_unless_it_removes_others():
    assert (only(None, {}).kind, only(None, {}).safety) == (Kind.CREATE, Safety.SAFE)
    action = only({"ensure": "absent", "replaces": ["rival"]}, {"version": "2"})
    assert action.safety is Safety.DESTRUCTIVE
    assert action.summary == "install demo 2, which removes rival"
    assert action.details == {"version": "2", "replaces": ["rival"], "ours": True}


def test_another_version_disrupts():
    assert only(HERE, {"version": "0.9"}).summary == "change demo from 1.0 to 0.9"
    newer = {**HERE, "available": "2.0"}
    assert only(newer, {"ensure": "latest"}).summary == "upgrade demo from 1.0 to 2.0"
    assert only(newer, {"ensure": "latest"}).safety is Safety.DISRUPTIVE
    assert not plan_package("demo", newer, {}).actions
    assert "latest, which is 2.0" in str(*compare_package({"ensure": "latest"}, newer))


def test_removing_disrupts_and_with_others_destroys():
    assert only(HERE, None).safety is Safety.DISRUPTIVE
    action = only({**HERE, "removes_with": ["a", "b"]}, {"ensure": "absent"})
    assert action.safety is Safety.DESTRUCTIVE
    assert action.summary == "remove demo, and with it a, b"


def test_what_the_host_cannot_be_without_is_refused():
    for desired in (None, {"ensure": "absent"}):
        with pytest.raises(Rejected, match="demo cannot be removed: it is essential"):
            plan_package("demo", {**HERE, "locked": "it is essential"}, desired)


def test_what_opfs_did_not_install_stays_when_its_document_goes():
    theirs = {**HERE, "origin": "foreign"}
    assert not plan_package("demo", theirs, None).actions
    assert not list(compare_package(None, theirs))
    assert only(theirs, {"ensure": "absent"}).step == "remove"
    assert only(theirs, {"version": "2"}).details["ours"] is False


def test_a_broken_installation_is_finished_and_never_counts_as_done():
    broken = {**HERE, "broken": "half-configured"}
    assert list(compare_package({}, broken))
    assert only(broken, {}).summary == "finish the installation of demo, which is half-configured"
    assert only(broken, None).step == "remove"


versions = st.sampled_from(["1", "2", "3"])
documents = st.one_of(
    st.none(),
    st.just({"ensure": "absent"}),
    st.just({}),
    st.just({"ensure": "latest"}),
    st.builds(lambda version: {"version": version}, versions),
)


@given(documents, documents)
def test_a_plan_leads_to_what_was_asked_for_and_back(first, second):
    def observed(version):
        newer = {"available": "3"} if version != "3" else {}
        return None if version is None else {"ensure": "present", "installed": version, **newer}

    def carried_out(current, desired):
        for action in plan_package("demo", current, desired).actions:
            current = None if action.step == "remove" else observed(action.details["version"] or "3")
        assert not list(compare_package(desired, current))
        return current

    one = carried_out(None, first)
    two = carried_out(one, second)
    assert carried_out(two, one) == one


STATUS = """\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: half
Status: install ok half-configured
Architecture: all
Version: 2
Description: x
 Package: not a field
 Status: install ok installed

Package: lib
Status: install ok installed
Architecture: amd64
Version: 3

Package: lib
Status: install ok installed
Architecture: i386
Version: 4
"""


def test_dpkg_s_files_are_read(tmp_path):
    assert read_packages(tmp_path) is None
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/apt").mkdir()
    (tmp_path / "var/lib/dpkg/status").write_text(STATUS)
    (tmp_path / "var/lib/apt/extended_states").write_text("Package: lib\nArchitecture: amd64\nAuto-Installed: 1\n")
    assert read_packages(tmp_path) == {
        "dpkg": Installed("1.21"),
        "half": Installed("2", unfinished="half-configured"),
        "lib": Installed("3", is_automatic=True),
    }
    (tmp_path / "var/lib/dpkg/status").write_bytes(b"\xff\n\nPackage: \xff\n\nStatus\n\n")
    assert read_packages(tmp_path) == {}
