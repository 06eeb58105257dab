"""Proof bundles of format 1, frozen, and a verifier written from docs/format.md alone that agrees about all of them.

The files in proofs-1/ and their verdicts in proofs-1.json were made once with this module's `make_vectors` and
are never made again for this version. The stranger's verifier is checked beside ours on these, on alterations of
every member of them, and on bundles of chains that hypothesis makes.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import stranger
from hypothesis import given, settings
from hypothesis import strategies as st

from opfs.core.bundle import decode_bundle, encode_bundle
from opfs.core.canonical import canonical_bytes
from opfs.core.names import ElementId
from opfs.core.notekeys import Kind, Signer, Verifier
from opfs.core.verdict import verify_bundle
from opfs.errors import InvalidRequest
from opfs.testing.memorychain import MemoryChain

HERE = Path(__file__).parent
VECTORS = json.loads((HERE / "proofs-1.json").read_bytes())
FILES = {path.name: path.read_bytes() for path in sorted((HERE / "proofs-1").iterdir()) if path.suffix == ".opfs-proof"}
WITNESSES = (
    Signer("witness.example/w", Kind.COSIGNATURE, b"w" * 32),
    Signer("witness.example/pq", Kind.ML_DSA_44, b"v" * 32),
)


# --- making them, once ---------------------------------------------------------------------------------


def make_vectors() -> None:
    """Write the files and their verdicts."""
    web, db, gone = ElementId("lxc", "web"), ElementId("lxc", "db"), ElementId("lxc", "gone")
    chain = MemoryChain("golden.example/opfs")
    chain.commit({web: b'{"memory": 512}\n', db: '{"name": "grüezi \\ud83d\\ude00"}'.encode(), gone: b"{}"})
    chain.commit({gone: None})
    chain.commit({web: '{"memory":\t1024, "note": "\N{GREEK SMALL LETTER ALPHA}\N{GRINNING FACE}"}\r\n'.encode()})
    for number in range(18):
        chain.commit({ElementId("net", f"eth{number}"): b"%d" % number})
    cosigned = chain.checkpoint(None, WITNESSES)
    bundles = {
        "present": chain.prove_element(web, 3, with_document=True),
        "present-alone": chain.prove_element(db, 21),
        "present-long-ago": chain.prove_element(web, 1, size=2),
        "absent-beside-another": next(b for b in _absent(chain, 20) if b.state_path.other),
        "absent-in-an-empty-slot": next(b for b in _absent(chain, 20) if not b.state_path.other),
        "absent-from-an-empty-tree": chain.prove_element(web, 0),
        "event": chain.prove_event(1, with_document=True),
        "event-of-a-delete": chain.prove_event(3),
        "consistency": chain.prove_consistency(3, 17),
        "consistency-of-one-with-itself": chain.prove_consistency(4, 4),
        "consistency-of-a-size": _unsigned(chain.prove_consistency(5, 17)),
        "consistency-from-a-power-of-two": chain.prove_consistency(8, 20),
        "cosigned": chain.prove_element(db, 5, checkpoint=cosigned),
    }
    for name, bundle in bundles.items():
        (HERE / "proofs-1" / f"{name}.opfs-proof").write_bytes(encode_bundle(bundle))
    keys = [key.vkey for key in chain.keys]
    vectors = {
        "keys": keys,
        "witnesses": [witness.verifier.vkey for witness in WITNESSES],
        "verified": [f"{name}.opfs-proof" for name in bundles],
        "altered": [
            {"file": f"{name}.opfs-proof", "set": members, "verdict": verdict}
            for name, members, verdict in _alterations(json.loads(encode_bundle(bundles["present"])))
        ],
    }
    (HERE / "proofs-1.json").write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n")


def _unsigned(bundle):
    return replace(bundle, old=bundle.old.partition("\n\n")[0] + "\n")


def _absent(chain, height):
    return (chain.prove_element(ElementId("lxc", str(number)), height) for number in range(100))


def _alterations(present):
    other = "0123456789abcdef" * 4
    header = json.loads(present["header"])

    def header_with(**members):
        return {"header": canonical_bytes({**header, **members}).decode()}

    siblings = present["state_path"]["siblings"]
    yield "present", {"document": present["document"] + " "}, "document"
    yield "present", {"document": ""}, "document"
    yield "absent-in-an-empty-slot", {"document": "{}"}, "document"
    yield "event-of-a-delete", {"document": "{}"}, "document"
    yield "present", {"content": other}, "state-path"
    yield "present", {"content": None, "document": None}, "state-path"
    yield "present", {"element": "web2"}, "state-path"
    yield "present", {"state_path": {"other": None, "siblings": [*siblings, None]}}, "state-path"
    yield "present", {"state_path": {"other": {"key": other, "content": other}, "siblings": siblings}}, "state-path"
    yield "absent-beside-another", {"state_path": {"other": None, "siblings": []}}, "state-path"
    yield "absent-from-an-empty-tree", {"content": other}, "state-path"
    yield "event", {"event": "{}"}, "event"
    yield "event", {"event_path": []}, "event"
    yield "event-of-a-delete", {"event_path": [other]}, "event"
    yield "present", header_with(state_root=other), "log-inclusion"
    yield "present", header_with(height=header["height"] - 1), "log-inclusion"
    yield "present", {"log_path": [other] * 5}, "log-inclusion"
    yield "present", header_with(height=22), "header"
    yield "present", header_with(origin="other.example/opfs"), "header"
    yield "present", header_with(time="2027-13-01T00:00:00.000000000Z"), "header"
    yield "present", {"header": present["header"].replace(",", ", ", 1)}, "header"
    yield "present", {"checkpoint": present["checkpoint"].replace("\n22\n", "\n23\n")}, "signature"
    yield "present", {"checkpoint": "".join(present["checkpoint"].splitlines(keepends=True)[:-1])}, "signature"
    yield "present", {"checkpoint": present["checkpoint"].replace("\n22\n", "\n022\n")}, "checkpoint"
    yield "present", {"checkpoint": present["checkpoint"].replace("\n\n", "\nextension\n\n")}, "checkpoint"
    yield "present", {"checkpoint": present["checkpoint"][:-1]}, "checkpoint"
    yield "consistency", {"consistency_path": []}, "consistency"
    yield "consistency", {"consistency_path": [other] * 6}, "consistency"
    yield "consistency-of-one-with-itself", {"consistency_path": [other]}, "consistency"
    yield "consistency-of-a-size", {"old": "golden.example/opfs\n6\n" + "A" * 43 + "=\n"}, "consistency"
    yield "consistency-of-a-size", {"old": "golden.example/opfs\n6\n"}, "checkpoint"
    yield "present", {"v": 2}, "unreadable"
    yield "present", {"kind": "event"}, "unreadable"
    yield "present", {"content": "00" * 32}, "unreadable"
    yield "present", {"element": "../web"}, "unreadable"
    yield "present", {"log_path": [other[:-1]]}, "unreadable"


# --- reading them, for ever ----------------------------------------------------------------------------


def ours(data, keys, witnesses=(), document=None) -> str:
    """Our verdict in the stranger's words."""
    parsed = [list(map(Verifier.parse, vkeys)) for vkeys in (keys, witnesses)]
    try:
        return verify_bundle(data, parsed[0], witnesses=parsed[1], document=document).failed or "verified"
    except InvalidRequest:
        return "unreadable"


def both(data, keys, witnesses=(), document=None) -> str:
    """The verdict, about which both must agree."""
    verdict = ours(data, keys, witnesses, document)
    assert stranger.verify(data, keys, witnesses, document) == verdict
    return verdict


def test_the_stranger_knows_nothing_of_opfs():
    tree = ast.parse((HERE / "stranger.py").read_text())
    modules = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "." for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    foreign = {module.partition(".")[0] for module in modules} - set(sys.stdlib_module_names)
    assert foreign == {"blake3", "cryptography"}


@pytest.mark.parametrize("name", VECTORS["verified"])
def test_frozen_bundles_verify(name):
    assert both(FILES[name], VECTORS["keys"]) == "verified"


def test_every_frozen_bundle_is_in_the_list():
    assert set(FILES) == set(VECTORS["verified"])


def test_frozen_cosignatures_verify():
    keys, witnesses = VECTORS["keys"], VECTORS["witnesses"]
    assert both(FILES["cosigned.opfs-proof"], keys, witnesses) == "verified"
    assert both(FILES["present.opfs-proof"], keys, witnesses) == "cosignature"


@pytest.mark.parametrize("vector", VECTORS["altered"], ids=lambda vector: f"{vector['file']}-{vector['verdict']}")
def test_frozen_alterations_fail_where_they_were_made(vector):
    data = canonical_bytes({**json.loads(FILES[vector["file"]]), **vector["set"]}) + b"\n"
    assert both(data, VECTORS["keys"]) == vector["verdict"]


def test_todays_code_writes_the_same_bytes_again():
    for name, data in FILES.items():
        assert encode_bundle(decode_bundle(data)) == data, name


# --- two verifiers, one verdict ------------------------------------------------------------------------


ids = st.builds(ElementId, st.sampled_from(["lxc", "net"]), st.integers(0, 15).map(str))
texts = st.text(st.characters(exclude_categories=["Cs"])).map(str.encode)
chains = st.lists(st.dictionaries(ids, st.none() | texts, max_size=6), max_size=10)


@st.composite
def bundles(draw):
    """A bundle that is true, its keys, and a document to hold against it, which may be another."""
    chain = MemoryChain("h.example/opfs")
    for changes in draw(chains):
        chain.commit(changes)
    block = chain.blocks[draw(st.integers(0, chain.size - 1))]
    kinds = ["element", "consistency"] + ["event"] * bool(block.events)
    match draw(st.sampled_from(kinds)):
        case "element":
            bundle = chain.prove_element(draw(ids), block.header.height)
        case "event":
            bundle = chain.prove_event(draw(st.sampled_from(block.events)).seq)
        case _:
            bundle = chain.prove_consistency(
                *sorted(draw(st.lists(st.integers(1, chain.size), min_size=2, max_size=2)))
            )
    document = draw(st.none() | st.sampled_from([b"other", *block.documents.values()]))
    return encode_bundle(bundle), [key.vkey for key in chain.keys], document


@settings(deadline=None, max_examples=60)
@given(bundles())
def test_both_agree_on_what_is_true(made):
    data, keys, document = made
    assert both(data, keys) == "verified"
    both(data, keys, (), document)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**54) | st.text(max_size=5) | st.just("ab" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def change(value, data):
    """`value` with something in it changed, somewhere: a member, an item, a character."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 5)):
        name = data.draw(st.sampled_from(sorted(value)))
        return {**value, name: change(value[name], data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(value) - 1))
        other = data.draw(st.sampled_from(["change", "cut", "double", "turn"]))
        if other == "change":
            return [*value[:place], change(value[place], data), *value[place + 1 :]]
        return {"cut": value[:place], "double": value + value[place:], "turn": value[::-1]}[other]
    if isinstance(value, str) and value.startswith("{") and data.draw(st.booleans()):
        inner = change(json.loads(value), data)
        return json.dumps(inner, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    if isinstance(value, str) and value and data.draw(st.integers(0, 4)):
        place = data.draw(st.integers(0, len(value) - 1))
        put = data.draw(st.sampled_from(["", "0", "a", "=", "\n", " ", "+", "\N{EM DASH}", value]))
        return value[:place] + put + value[place + 1 :]
    if isinstance(value, int) and data.draw(st.booleans()):
        return value + data.draw(st.sampled_from([-1, 1, 2**53]))
    return data.draw(values)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_both_agree_on_what_was_changed(name, data):
    bundle = change(json.loads(FILES[name]), data)
    written = json.dumps(bundle, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    both(written.encode("utf-8", "surrogatepass") + b"\n", VECTORS["keys"])


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_both_agree_on_flipped_bits(name, data):
    content = bytearray(FILES[name])
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    both(bytes(content), VECTORS["keys"], VECTORS["witnesses"] if name.startswith("cosigned") else ())


def test_the_stranger_s_program(tmp_path):
    key_file, altered = tmp_path / "log.vkey", tmp_path / "altered"
    key_file.write_text("\n".join(VECTORS["keys"]) + "\n")
    altered.write_bytes(FILES["present.opfs-proof"].replace(b"1024", b"4096"))
    for proof, said, exit_code in (
        (HERE / "proofs-1" / "present.opfs-proof", "verified", 0),
        (altered, "document", 5),
        (key_file, "unreadable", 2),
    ):
        done = subprocess.run(
            [sys.executable, "-I", HERE / "stranger.py", proof, key_file], capture_output=True, text=True
        )
        assert (done.stdout.strip(), done.returncode) == (said, exit_code)
