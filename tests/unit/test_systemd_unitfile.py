"""Unit files: reading them as systemd does, refusing what it would ignore, and knowing our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.plugins.systemd.directives import known_settings
from opfs.plugins.systemd.unitfile import (
    UNIT_NAME,
    Setting,
    UnitSyntaxError,
    check_text,
    is_template,
    kind_of,
    read_settings,
    template_of,
    with_mark,
    without_mark,
)

KNOWN = {
    "Unit": frozenset({"Description", "After"}),
    "Service": frozenset({"ExecStart", "Type", "Nice"}),
    "Install": frozenset({"WantedBy"}),
}


def test_settings_are_read_with_their_lines_comments_and_continuations():
    text = "# c\n\n[Unit]\nDescription = a b \n; c\n[Service]\nExecStart=/bin/x \\\n# between\n  --y \\\n  z\nNice=5"
    assert list(read_settings(text)) == [
        Setting(4, "Unit", "Description", "a b"),
        Setting(7, "Service", "ExecStart", "/bin/x  --y  z"),
        Setting(11, "Service", "Nice", "5"),
    ]


@pytest.mark.parametrize(
    ("text", "line", "said", "hint"),
    [
        ("Nice=5\n", 1, "in no section", "[Unit]"),
        ("[Service]\nNice\n", 2, "no assignment", "Key=value"),
        ("[Service\n", 1, "no section", "[Service]"),
        ("[Unit]\n[Service]\nExecStat=/bin/x\n", 3, "no setting ExecStat=", "did you mean ExecStart=?"),
        ("[Servise]\nNice=1\n", 2, "no section [Servise]", "did you mean [Service]?"),
        ("[Service]\nqwertz=1\n", 2, "no setting qwertz=", "systemd.directives"),
        ("[Timer]\nOnBootSec=1\n", 2, "a .service has no section [Timer]", "[Unit], [Service], [Install]"),
        ("[Service]\nNice=\0\n", 2, "NUL", "remove"),
        ("[Service]\nNice=" + "x" * (1 << 20) + "\n", 2, "longer than 1 MiB", "divide"),
    ],
)
def test_what_systemd_would_ignore_is_refused_with_its_line(text, line, said, hint):
    with pytest.raises(UnitSyntaxError) as caught:
        check_text("web.service", text, KNOWN)
    assert str(caught.value).startswith(f"line {line}: ")
    assert said in str(caught.value)
    assert hint in caught.value.hint


def test_settings_of_others_pass_and_an_unknown_host_refuses_no_setting():
    check_text("web.service", "[X-Fleet]\nAnything=1\n[Service]\nX-Note=1\nNice=1\n", KNOWN)
    check_text("web.service", "[Service]\nNewInAHundredYears=1\n", {})


def test_a_drop_in_has_no_install_section():
    check_text("web.service", "[Install]\nWantedBy=x.target\n", KNOWN)
    with pytest.raises(UnitSyntaxError, match="a drop-in has no section"):
        check_text("web.service", "[Install]\nWantedBy=x.target\n", KNOWN, is_dropin=True)


@given(st.text())
def test_no_text_breaks_the_reader(text):
    try:
        lines = [setting.line for setting in read_settings(text)]
    except UnitSyntaxError:
        return
    assert lines == sorted(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines)


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_file_of_ours_is_known_and_a_changed_one_told_apart(text, more):
    file = with_mark("web.service", text)
    assert without_mark(file) == (text, None)
    assert without_mark(file + more) == (text + more, "changed")
    assert without_mark("# by hand\n" + file)[1] == "foreign"


@pytest.mark.parametrize("name", ["web.service", "getty@tty1.service", "a@.timer", "a-b:c_d.e.mount", "x.slice"])
def test_names_of_units(name):
    assert UNIT_NAME.match(name)


@pytest.mark.parametrize(
    "name",
    [
        "web",
        ".service",
        "web.",
        "web.device",
        "a/b.service",
        "a b.service",
        "a@b@c.service",
        "-.mount",
        "web.service\n",
    ],
)
def test_names_that_are_none(name):
    assert not UNIT_NAME.match(name)


def test_kinds_templates_and_instances():
    assert kind_of("a.b.timer") == "timer"
    assert is_template("a@.service")
    assert template_of("a@b.service") == "a@.service"
    assert template_of("a@.service") is template_of("a.service") is None


@pytest.mark.needs("guest")
def test_the_host_s_systemd_lists_its_settings():
    known = known_settings()
    assert {"Unit", "Service", "Timer", "Install"} <= known.keys()
    assert {"ExecStart", "Nice", "MemoryMax"} <= known["Service"]
    assert "WantedBy" in known["Install"]
