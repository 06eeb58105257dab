"""The keys of the log: made once, kept private, lost, damaged, rotated."""

from __future__ import annotations

import os
import stat

import pytest
from logplace import ORIGIN, TIME_NS, header

from opfs.core.note import open_note
from opfs.core.notekeys import Kind, Signer
from opfs.errors import IntegrityError, InvalidRequest, PoolError
from opfs.tlog.keys import KeyPair


def test_the_keys_are_made_once_private_and_kept(place):
    keys = place.open().verifiers
    assert [verifier.kind for verifier in keys] == [Kind.ED25519, Kind.ML_DSA_44]
    assert {verifier.name for verifier in keys} == {ORIGIN}
    assert place.open().verifiers == keys
    assert stat.S_IMODE(place.keys.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.keys.iterdir()} == {0o600}
    with pytest.raises(PoolError, match="there are keys"):
        place.store().create()


@pytest.mark.parametrize("name", ["log.key", "."])
@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_keys_that_others_can_read_are_refused(place, name, mode):
    place.grown(1)
    (place.keys / name).chmod(mode)
    with pytest.raises(PoolError, match="is open to others"):
        place.open()


@pytest.mark.needs("root")
def test_keys_of_another_owner_are_refused(place):
    place.grown(1)
    os.chown(place.keys / "log.key", 12345, -1)
    with pytest.raises(PoolError, match="belongs to uid 12345"):
        place.open()


def test_keys_behind_a_link_are_refused(place, tmp_path):
    place.grown(1)
    (place.keys / "log.key").rename(tmp_path / "log.key")
    (place.keys / "log.key").symlink_to(tmp_path / "log.key")
    with pytest.raises(PoolError, match="cannot be read"):
        place.open()


def test_lost_keys_are_not_silently_replaced(place):
    place.grown(3)
    (place.keys / "log.key").unlink()
    with pytest.raises(PoolError, match=r"the keys of the log test\.example/opfs are missing"):
        place.open()


def test_damaged_keys_are_refused_without_showing_them(place):
    place.grown(3)
    secret = (place.keys / "log.key").read_text()
    (place.keys / "log.key").write_text(secret[:-9] + "AAAAAAA=\n")
    with pytest.raises(PoolError, match=r"log\.key is damaged") as refused:
        place.open()
    assert secret.splitlines()[0].rsplit("+", 1)[1] not in str(refused.value)


def test_rotation_keeps_old_checkpoints_verifying(place):
    log = place.grown(3)
    old_keys, old_checkpoint = log.verifiers, log.checkpoint()
    store = place.store()
    store.stage(KeyPair.generate(ORIGIN))
    log.use_keys(store.activate(), TIME_NS)
    assert log.verifiers[2:] == old_keys
    assert open_note(log.checkpoint(), log.verifiers[:2]).text == open_note(old_checkpoint, old_keys).text
    with pytest.raises(IntegrityError):
        open_note(log.checkpoint(), old_keys)
    assert open_note(old_checkpoint, log.verifiers)
    log.append((header(3),), TIME_NS)
    log.store()
    again = place.open()
    assert (again.size, again.verifiers) == (4, log.verifiers)
    assert again.read_file("log.vkey").decode().splitlines() == [verifier.vkey for verifier in log.verifiers]


def test_a_signature_foreseen_with_old_keys_is_not_used(place):
    log = place.grown(3)
    log.foresee(header(3), TIME_NS)
    store = place.store()
    store.stage(KeyPair.generate(ORIGIN))
    log.use_keys(store.activate(), TIME_NS)
    log.append((header(3),), TIME_NS)
    assert len(open_note(log.checkpoint(), log.verifiers[:2]).verified) == 2


def test_activating_twice_is_activating_once(place, monkeypatch):
    place.grown(1)
    store = place.store()
    store.stage(KeyPair.generate(ORIGIN))

    def crash(*arguments, **options):
        raise OSError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(
            os, "rename", lambda source, target: crash() if "next.key" in str(source) else os.replace(source, target)
        )
        with pytest.raises(PoolError):
            store.activate()
    old = store.load()
    assert store.activate().verifiers == store.load().verifiers != old.verifiers
    assert store.retired() == [*old.verifiers]
    with pytest.raises(PoolError, match="no keys are staged"):
        store.activate()


def test_a_key_file_is_two_keys_of_this_log(place):
    pair = KeyPair.generate(ORIGIN)
    assert KeyPair.parse(pair.secret, ORIGIN).verifiers == pair.verifiers
    one, two = pair.secret.splitlines()
    other = Signer("other.example", Kind.ML_DSA_44, bytes(32)).secret
    for text in ("", one, f"{two}\n{one}", f"{one}\n{other}", f"{one}\n{two}\n{two}", "nonsense"):
        with pytest.raises(InvalidRequest):
            KeyPair.parse(text, ORIGIN)
