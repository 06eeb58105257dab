"""Events in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opfs.core.difference import diff_documents
from opfs.core.names import ElementId
from opfs.core.narrative import SENTENCE_LIMIT, SUMMARY_LIMIT, sentence, summarize, summarize_drift

LXC = ElementId("lxc", "100")
WEB = {"hostname": "web", "memory": 512, "state": "running"}
BIG = {"hostname": "web", "memory": 1024, "state": "running", "net0": {"bridge": "vmbr0", "ip": "dhcp"}}


@pytest.mark.parametrize(
    ("op", "old", "new", "expected"),
    [
        ("create", None, WEB, "Created LXC container 100 (web) with memory (RAM) 512 MB, started (state running)."),
        (
            "update",
            WEB,
            {**WEB, "memory": 1024},
            "Changed LXC container 100 (web): memory (RAM) raised from 512 MB to 1024 MB.",
        ),
        ("delete", WEB, None, "Deleted LXC container 100 (web), which had memory (RAM) 512 MB, state running."),
        ("rollback", {**WEB, "swap": 1}, WEB, "Rolled back LXC container 100 (web): swap removed, no longer 1 MB."),
        (
            "drift",
            WEB,
            {**WEB, "state": "stopped"},
            "Somebody changed by hand, without opfs (drift): LXC container 100 (web): stopped, shut down "
            "(state from running to stopped).",
        ),
        ("import", None, {"onboot": True}, "Imported LXC container 100 with starts on boot (start on boot yes)."),
        (
            "apply-failed",
            None,
            WEB,
            "Failed to create LXC container 100 (web) with memory (RAM) 512 MB, started (state running).",
        ),
        (
            "apply-failed",
            WEB,
            {**WEB, "memory": 1},
            "Failed to change LXC container 100 (web): memory (RAM) lowered from 512 MB to 1 MB.",
        ),
        ("apply-failed", {"memory": 1}, None, "Failed to delete LXC container 100, which had memory (RAM) 1 MB."),
        ("update", WEB, WEB, "Changed LXC container 100 (web) without changing a value."),
        ("create", None, {}, "Created LXC container 100."),
        ("create", None, {"hostname": "web"}, "Created LXC container 100 (web)."),
        ("adopt", None, {"memory": 1}, "Adopt of LXC container 100 with memory (RAM) 1 MB."),
    ],
)
def test_the_sentence_says_what_happened(op: str, old: Any, new: Any, expected: str):
    assert sentence(LXC, op, old, new) == expected


def test_nested_keys_and_added_objects_are_words():
    assert sentence(LXC, "update", WEB, BIG) == (
        "Changed LXC container 100 (web): memory (RAM) raised from 512 MB to 1024 MB, "
        "network interface net0 bridge set to vmbr0, address by DHCP (network interface net0 IP address set to dhcp)."
    )
    moved = {**BIG, "net0": {"bridge": "lan", "ip": "dhcp"}}
    assert sentence(LXC, "update", BIG, moved) == (
        "Changed LXC container 100 (web): network interface net0 bridge from vmbr0 to lan."
    )


@pytest.mark.parametrize(
    ("plugin", "element", "old", "new", "expected"),
    [
        (
            "lxc",
            "100",
            {"onboot": True},
            {"onboot": False},
            "Changed LXC container 100: no longer starts on boot (start on boot turned off).",
        ),
        (
            "systemd",
            "nginx.service",
            {"active": True},
            {"active": True, "properties": {"MemoryMax": 2 << 30}},
            "Changed systemd service nginx.service: properties memory max set to 2 GiB.",
        ),
        (
            "systemd",
            "a.timer",
            {"unit": "[Unit]\nDescription=Nightly backup\n"},
            {"unit": "[Unit]\nDescription=Nightly backup\nAfter=b\n"},
            "Changed systemd timer a.timer (Nightly backup): unit line added After=b.",
        ),
        (
            "packagekit",
            "telnet",
            {"ensure": "present"},
            {"ensure": "absent"},
            "Changed software package telnet: uninstalled, removed (ensure from present to absent).",
        ),
        (
            "openflow",
            "br0",
            {"flows": ["priority=0,actions=NORMAL"]},
            {"flows": ["priority=9,tcp,tp_dst=22,actions=drop", "priority=0,actions=NORMAL"]},
            "Changed OpenFlow rules of switch br0: "
            "flows added block port 22 ssh, priority=9,tcp,tp_dst=22,actions=drop.",
        ),
        (
            "net",
            "vmbr0",
            {"type": "bridge", "description": "uplink", "addresses": ["10.0.0.1/24", "10.0.0.2/24"]},
            {"type": "bridge", "description": "uplink", "addresses": ["10.0.0.2/24"]},
            "Changed network bridge vmbr0 (uplink): addresses removed, no longer 10.0.0.1/24.",
        ),
        (
            "net",
            "vmbr0",
            {"type": "bridge", "addresses": ["10.0.0.1/24", "10.0.0.2/24"]},
            {"type": "bridge", "addresses": ["10.0.0.2/24", "10.0.0.1/24"]},
            "Changed network bridge vmbr0: addresses in another order.",
        ),
        (
            "file",
            "hosts",
            {"path": "/etc/hosts", "content": "1.1.1.1 a\n2.2.2.2 b\n"},
            {"path": "/etc/hosts", "content": "1.1.1.1 a\n2.2.2.2 c\n3.3.3.3 d\n"},
            "Changed file hosts (/etc/hosts): content line added 2.2.2.2 c, content line added 3.3.3.3 d, "
            "content line removed, no longer 2.2.2.2 b.",
        ),
    ],
)
def test_what_it_means_is_said_in_words(plugin: str, element: str, old: Any, new: Any, expected: str):
    assert sentence(ElementId(plugin, element), "update", old, new) == expected


def test_the_message_and_the_author_belong_to_it():
    text = sentence(LXC, "delete", {"memory": 1}, None, "alice", "no longer\nneeded. ")
    assert text == "Deleted LXC container 100, which had memory (RAM) 1 MB. Message: no longer needed. By alice."


def test_what_a_failed_change_was_to_do_is_said_by_its_plan():
    reason = "[Errno 28] No space left on device. nothing was done before that. everything was undone"
    text = sentence(LXC, "apply-failed", WEB, WEB, "bob", f"more for the shop\n{reason}", ["set memory 1024 MB"])
    assert text == (
        "Failed to change LXC container 100 (web): set memory 1024 MB. Message: more for the shop. "
        "Error: [Errno 28] No space left on device. By bob."
    )
    text = sentence(LXC, "apply-failed", None, None, message="it did not. NOT undone: a bridge", plan=["create it"])
    assert text == "Failed to create LXC container 100: create it. Error: it did not. NOT undone: a bridge."


def test_drift_is_said_in_words():
    message = '/memory: wanted 512, found 640; /net0/mtu: wanted nothing, found "a; /b: c"'
    assert sentence(LXC, "drift", WEB, WEB, "ip", message) == (
        "Somebody changed by hand, without opfs (drift): LXC container 100 (web). "
        "memory (RAM) should be 512 and is 640; "
        'network interface net0 MTU (packet size) should be nothing and is "a; /b: c". By ip.'
    )


def test_of_a_file_that_drifted_the_lines_are_said():
    message = '/content: wanted "a\\nb\\n", found "a\\nc\\n# by hand\\n"; /mode: wanted "0644", found "0600"'
    assert summarize_drift(message) == '/content: found +c, +# by hand, -b; /mode: wanted "0644", found "0600"'
    id, document = ElementId("file", "a"), {"content": "a\nb\n"}
    assert sentence(id, "drift", document, document, "", message) == (
        "Somebody changed by hand, without opfs (drift): file a. "
        "content has the line c, content has the line # by hand, "
        'content lacks the line b; mode should be "0644" and is "0600".'
    )
    cut = '/content: wanted "a\\nb…, found "a\\nc…'
    assert summarize_drift(cut) == cut


def test_an_unknown_plugin_and_its_keys_read_as_words():
    document = {"maxConnections": 5, "log_level": "debug", "useTLS": False, "list-en": [1, None, ""]}
    assert sentence(ElementId("web-proxy", "front"), "create", None, document) == (
        "Created web proxy element front with list en (1, none, empty), log level debug, max connections 5, use TLS no."
    )


def test_a_secret_stays_a_name():
    document = {"password": {"$secret": "db-password"}}
    assert sentence(LXC, "create", None, document) == (
        "Created LXC container 100 with password the secret db-password."
    )
    assert sentence(LXC, "update", {}, document) == "Changed LXC container 100: password set to the secret db-password."


def test_a_changed_line_of_a_long_text_is_shown_where_it_differs():
    lines = [f"line {n} of the file" for n in range(100)]
    old = {"content": "\n".join(lines)}
    lines[70] = "PermitRootLogin no"
    new = {"content": "\n".join(lines)}
    text = sentence(ElementId("file", "sshd"), "update", old, new)
    assert text == "Changed file sshd: content line from line 70 of the file to PermitRootLogin no."


def test_a_difference_far_into_a_long_line_is_shown():
    old, new = "x" * 3000 + "port 22 open", "x" * 3000 + "port 80 open"
    text = sentence(ElementId("file", "a"), "update", {"content": old}, {"content": new})
    assert "port 22 open to …xxx" in text
    assert text.endswith("port 80 open.")


def test_the_summary_is_short_and_in_the_documents_own_words():
    assert summarize(LXC, "update", diff_documents({**WEB, "hostname": "a b"}, {**WEB, "memory": 1024})) == (
        "hostname a b → web, memory 512 → 1024"
    )
    assert summarize(LXC, "create", diff_documents(None, BIG)) == (
        'hostname web, memory 1024, net0 {"bridge": "vmbr0", "ip": "dhcp"}, state running'
    )
    assert summarize(LXC, "delete", diff_documents(WEB, None)) == "had hostname web, memory 512, state running"
    changed = diff_documents({"net0": {"mtu": 1}, "onboot": True}, {"net0": {"mtu": 2}, "swap": None, "tags": ""})
    assert summarize(LXC, "update", changed) == 'net0.mtu 1 → 2, onboot removed, swap null added, tags "" added'
    assert summarize(LXC, "apply-failed", diff_documents(WEB, {**WEB, "memory": 1})) == "apply-failed: memory 512 → 1"
    assert summarize(LXC, "update", ()) == "no value changed"
    was = {"flows": ["arp", "ip"], "ports": [22, 80], "content": "a\nb\n", "unit": "x\ny\n", "order": [1, 2]}
    now = {"flows": ["arp"], "ports": [443, 80], "content": "a\nb\nc\nd\n", "unit": "x\nz\n", "order": [2, 1]}
    assert summarize(LXC, "update", diff_documents(was, now)) == (
        "content +c, content +d, flows -ip, order [1, 2] → [2, 1], ports 22 → 443, unit y → z"
    )
    assert summarize(LXC, "delete", ()) == ""


def test_a_text_that_changed_in_blank_lines_alone_did_change():
    changed = diff_documents({"content": "a\nb\n"}, {"content": "a\n\nb\n"})
    assert summarize(LXC, "update", changed) == "content a b → a b"
    assert sentence(LXC, "update", {"content": "a\nb\n"}, {"content": "a\n\nb\n"}).endswith("content from a b to a b.")


def test_what_does_not_fit_is_counted():
    document = {f"key{n:02}": "x" * 20 for n in range(50)}
    summary = summarize(LXC, "create", diff_documents(None, document))
    assert summary.endswith(" more")
    shown = summary.count("key")
    assert f"and {50 - shown} more" in summary


def test_a_document_of_a_hundred_thousand_values_is_a_sentence():
    document = {"numbers": list(range(100_000)), "text": "word " * 100_000, "deep": [[[[[1]]]]]}
    text = sentence(LXC, "create", None, document, "root", "m" * 100_000)
    assert len(text) <= SENTENCE_LIMIT
    assert "deep (((…)))" in text
    assert text.endswith("… By root.") or text.endswith("…. By root.")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
keys = st.text(max_size=30) | st.sampled_from(["memory", "$secret", "ip"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=10,
)
maybe_documents = st.none() | st.dictionaries(keys, values, max_size=6)


@example("lxc", "create", None, {"¹": None}, "", "")  # a digit to Python, and yet no number
@given(
    st.sampled_from(["lxc", "file", "my-plugin"]),
    st.sampled_from(["create", "update", "delete", "apply-failed", "rollback", "drift", "prune"]),
    maybe_documents,
    maybe_documents,
    texts,
    texts,
)
def test_whatever_the_documents_the_words_are_bounded_and_print(
    plugin: str, op: str, old: Any, new: Any, actor: str, message: str
):
    id = ElementId(plugin, "e" * 200)
    text = sentence(id, op, old, new, actor, message)
    summary = summarize(id, op, diff_documents(old, new))
    assert len(text) <= SENTENCE_LIMIT
    assert len(summary) <= SUMMARY_LIMIT
    assert text.isprintable()
    assert summary.isprintable()
