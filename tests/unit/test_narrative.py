"""Events in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opfs.core.difference import diff_documents
from opfs.core.names import ElementId
from opfs.core.narrative import SENTENCE_LIMIT, SUMMARY_LIMIT, sentence, summarize

LXC = ElementId("lxc", "100")
WEB = {"hostname": "web", "memory": 512, "state": "running"}
BIG = {"hostname": "web", "memory": 1024, "state": "running", "net0": {"bridge": "vmbr0", "ip": "dhcp"}}


@pytest.mark.parametrize(
    ("op", "old", "new", "expected"),
    [
        ("create", None, WEB, "Created lxc container 100 with hostname web, memory 512 MB, state running."),
        ("update", WEB, {**WEB, "memory": 1024}, "Changed lxc container 100: memory from 512 to 1024 MB."),
        ("delete", WEB, None, "Deleted lxc container 100, which had hostname web, memory 512 MB, state running."),
        ("rollback", {**WEB, "swap": 1}, WEB, "Rolled back lxc container 100: swap removed, which was 1 MB."),
        ("drift", WEB, {**WEB, "state": "stopped"}, "Found drift in lxc container 100: state from running to stopped."),
        ("import", None, {"onboot": True}, "Imported lxc container 100 with start on boot yes."),
        (
            "apply-failed",
            None,
            WEB,
            "Failed to create lxc container 100 with hostname web, memory 512 MB, state running.",
        ),
        ("apply-failed", WEB, {**WEB, "memory": 1}, "Failed to change lxc container 100: memory from 512 to 1 MB."),
        ("apply-failed", {"memory": 1}, None, "Failed to delete lxc container 100, which had memory 1 MB."),
        ("update", WEB, WEB, "Changed lxc container 100 without changing a value."),
        ("create", None, {}, "Created lxc container 100."),
        ("adopt", None, {"memory": 1}, "Adopt of lxc container 100 with memory 1 MB."),
    ],
)
def test_the_sentence_says_what_happened(op: str, old: Any, new: Any, expected: str):
    assert sentence(LXC, op, old, new) == expected


def test_nested_keys_and_added_objects_are_words():
    assert sentence(LXC, "update", WEB, BIG) == (
        "Changed lxc container 100: memory from 512 to 1024 MB, net0 set to (bridge vmbr0, IP address dhcp)."
    )
    moved = {**BIG, "net0": {"bridge": "lan", "ip": "dhcp"}}
    assert sentence(LXC, "update", BIG, moved) == "Changed lxc container 100: net0 bridge from vmbr0 to lan."


def test_the_message_and_the_author_belong_to_it():
    text = sentence(LXC, "delete", {"memory": 1}, None, "alice", "no longer\nneeded. ")
    assert text == "Deleted lxc container 100, which had memory 1 MB. Message: no longer needed. By alice."


def test_an_unknown_plugin_and_its_keys_read_as_words():
    document = {"maxConnections": 5, "log_level": "debug", "useTLS": False, "list-en": [1, None, ""]}
    assert sentence(ElementId("web-proxy", "front"), "create", None, document) == (
        "Created web proxy element front with list en (1, none, empty), log level debug, max connections 5, use TLS no."
    )


def test_a_secret_stays_a_name():
    document = {"password": {"$secret": "db-password"}}
    assert sentence(LXC, "create", None, document) == (
        "Created lxc container 100 with password the secret db-password."
    )


def test_a_changed_line_of_a_long_text_is_shown_where_it_differs():
    lines = [f"line {n} of the file" for n in range(100)]
    old = {"content": "\n".join(lines)}
    lines[70] = "PermitRootLogin no"
    new = {"content": "\n".join(lines)}
    text = sentence(ElementId("file", "sshd"), "update", old, new)
    assert text == "Changed file sshd: content from line 70 of the file to PermitRootLogin no."


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
    assert summarize(LXC, "delete", ()) == ""


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
