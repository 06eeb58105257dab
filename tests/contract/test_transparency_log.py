"""What every TransparencyLog promises: the files on a disk and the one in memory alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opfs.core.merkle import EMPTY_ROOT, check_consistency, check_inclusion, leaf_hash, tree_root
from opfs.core.note import Note, open_note, parse_checkpoint, parse_note
from opfs.core.notekeys import Kind, Signer, Verifier, sign_checkpoint
from opfs.core.tiles import ENTRIES, Tile, decode_bundle, read_entry, root_from_tiles, tiles_of
from opfs.errors import IntegrityError, InvalidRequest, NotFound
from opfs.testing.log import MemoryLog
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog

ORIGIN = "test.example/opfs"
TIME_NS = 1_800_000_000_123_456_789


def header(number: int) -> bytes:
    return b"header %d" % number


def headers(start: int, end: int) -> list[bytes]:
    return [header(number) for number in range(start, end)]


def make_files(directory):
    directory.mkdir()
    return FileLog.open(directory, ORIGIN, KeyStore(directory.parent / "keys", ORIGIN))


@pytest.fixture(params=["files", "memory"])
def log(request, tmp_path):
    return make_files(tmp_path / "log") if request.param == "files" else MemoryLog(ORIGIN)


def test_a_new_log_has_nothing(log):
    assert (log.origin, log.size, log.root_at(0)) == (ORIGIN, 0, EMPTY_ROOT)
    for ask in (log.checkpoint, lambda: log.read_file("checkpoint"), lambda: log.read_file("tile/0/000")):
        with pytest.raises(NotFound):
            ask()


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 3), (255, 256), (256, 257), (700,), (1, 300, 513, 514)])
def test_the_checkpoint_is_signed_and_names_the_tree(log, sizes):
    for size in sizes:
        log.append(headers(log.size, size), TIME_NS)
        opened = open_note(log.checkpoint(), log.verifiers)
        checkpoint = parse_checkpoint(opened.text)
        assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, size, tree_root(headers(0, size)))
        assert len(opened.verified) == len(opened.note.signatures)
        assert {signature.time_s for signature in opened.verified} <= {None, TIME_NS // 10**9}
        assert log.read_file("checkpoint") == log.checkpoint()


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 513])
def test_the_files_hold_the_tree_and_the_entries(log, size):
    log.append(headers(0, size), TIME_NS)
    read = {tile: log.read_file(tile.path) for tile in tiles_of(size)}
    assert root_from_tiles(size, read.__getitem__) == tree_root(headers(0, size))
    assert [read_entry(number, size, read.__getitem__) for number in range(size)] == headers(0, size)
    entries = [entry for tile in sorted(read) if tile.level == ENTRIES for entry in decode_bundle(read[tile])]
    assert entries == headers(0, size)
    assert [Verifier.parse(line) for line in log.read_file("log.vkey").decode().splitlines()] == [*log.verifiers]


def walk(log, path=""):
    for name, info in log.list_files(path).items():
        inside = f"{path}/{name}" if path else name
        if info.size is None:
            yield from walk(log, inside)
        else:
            yield inside, info.size
        assert log.file_info(inside) == info


def test_the_listing_leads_to_every_file_with_its_size(log):
    log.append(headers(0, 600), TIME_NS)
    found = dict(walk(log))
    assert found.keys() == {"checkpoint", "log.vkey", *(tile.path for tile in tiles_of(600))}
    assert {path: len(log.read_file(path)) for path in found} == found
    for missing in ("journal", "tile/9", "tile/0/000.p", "..", "tile/..", "tile/0/x001"):
        with pytest.raises(NotFound):
            log.list_files(missing)
        with pytest.raises(NotFound):
            log.file_info(missing)


@pytest.mark.parametrize("path", ["journal", "keys", "../keys/log.key", "tile", "tile/0/001", "tile/0/000.p/9", ""])
def test_what_is_no_file_of_the_log_is_not_read(log, path):
    log.append(headers(0, 8), TIME_NS)
    with pytest.raises(NotFound):
        log.read_file(path)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_proofs_of_every_size_verify(log, data):
    if log.size < 520:
        log.append(headers(log.size, 300), TIME_NS)
        log.append(headers(log.size, 520), TIME_NS)
    new = data.draw(st.integers(1, log.size), label="new")
    old = data.draw(st.integers(0, new), label="old")
    index = data.draw(st.integers(0, new - 1), label="index")
    root = log.root_at(new)
    assert root == tree_root(headers(0, new))
    check_inclusion(leaf_hash(log.entry(index)), index, new, log.inclusion_proof(index, new), root)
    check_consistency(old, new, log.root_at(old), root, log.consistency_proof(old, new))


def test_what_the_log_has_not_is_not_proved(log):
    log.append(headers(0, 5), TIME_NS)
    for ask in (
        lambda: log.entry(5),
        lambda: log.inclusion_proof(5, 5),
        lambda: log.inclusion_proof(0, 6),
        lambda: log.consistency_proof(2, 6),
        lambda: log.consistency_proof(4, 3),
        lambda: log.root_at(6),
    ):
        with pytest.raises(InvalidRequest):
            ask()


def test_foreseeing_shows_nothing_and_may_be_in_vain(log):
    log.append(headers(0, 2), TIME_NS)
    before = log.checkpoint()
    log.foresee(header(99), TIME_NS)
    assert (log.checkpoint(), log.size) == (before, 2)
    log.append((header(2),), TIME_NS)
    assert parse_checkpoint(open_note(log.checkpoint(), log.verifiers).text).root == tree_root(headers(0, 3))
    log.foresee(header(3), TIME_NS)
    log.append((header(3),), TIME_NS)
    assert parse_checkpoint(open_note(log.checkpoint(), log.verifiers).text).root == tree_root(headers(0, 4))


def test_cosignatures_join_the_newest_checkpoint_only(log):
    log.append(headers(0, 3), TIME_NS)
    witness = Signer("witness.example/w", Kind.COSIGNATURE, b"\x07" * 32)
    note = parse_note(log.checkpoint())
    cosigned = note.with_signatures([witness.sign(note.text, 1_800_000_001)])
    assert log.add_signatures(cosigned)
    assert open_note(log.checkpoint(), [witness.verifier]).verified[0].time_s == 1_800_000_001
    assert open_note(log.checkpoint(), log.verifiers).note.signatures[:-1] == note.signatures
    assert log.read_file("checkpoint") == log.checkpoint()
    log.append((header(3),), TIME_NS)
    assert not log.add_signatures(cosigned)
    assert not log.add_signatures(Note("other.example/x\n1\nAAAA\n", cosigned.signatures))
    assert len(parse_note(log.checkpoint()).signatures) == len(note.signatures)


def test_the_newest_checkpoint_with_a_quorum_is_kept_beside_the_newest(log):
    log.append(headers(0, 3), TIME_NS)
    with pytest.raises(NotFound):
        log.witnessed()
    witness = Signer("witness.example/w", Kind.COSIGNATURE, b"\x07" * 32)
    note = parse_note(log.checkpoint())
    note = note.with_signatures([witness.sign(note.text, 1_800_000_001)])
    log.keep_witnessed(note)
    log.append(headers(3, 300), TIME_NS)
    assert log.witnessed() == log.read_file("checkpoint.witnessed") == note.encode()
    assert log.list_files("")["checkpoint.witnessed"].size == len(note.encode())
    assert parse_checkpoint(parse_note(log.checkpoint()).text).size == 300


def test_a_kept_checkpoint_of_another_history_is_not_shown(tmp_path):
    log = make_files(tmp_path / "log")
    log.append(headers(0, 3), TIME_NS)
    kept = parse_checkpoint(parse_note(log.checkpoint()).text)
    keys = KeyStore(tmp_path / "keys", ORIGIN).load()
    for other in (replace(kept, root=bytes(32)), replace(kept, size=4), replace(kept, origin="other.example/opfs")):
        log.keep_witnessed(sign_checkpoint(other, keys.signers, 1_800_000_000))
        for read in (log.witnessed, lambda: log.read_file("checkpoint.witnessed")):
            with pytest.raises(IntegrityError):
                read()


def test_a_line_under_the_logs_own_name_cannot_be_replaced(log):
    log.append(headers(0, 3), TIME_NS)
    note = parse_note(log.checkpoint())
    forged = Note(note.text, tuple(type(line)(line.name, line.key_id, b"x" * 64) for line in note.signatures))
    log.add_signatures(forged)
    assert parse_note(log.checkpoint()).signatures == note.signatures


def test_a_tile_path_round_trips():
    assert Tile.parse("tile/0/x001/x234/067").index == 1_234_067
