"""The tips file: what was taken in is there after a reopen, a torn end is forgotten and nothing else."""

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opfs.commit import tips as tips_module
from opfs.commit.tips import Tip, Tips
from opfs.core.names import ElementId

elements = st.lists(st.integers(0, 6).map(str), min_size=1, max_size=40)


def fill(path, names):
    tips = Tips(path)
    for name in names:
        tips.extend([(ElementId("lxc", name), Tip(tips.next_seq, f"{tips.next_seq:064x}", tips.next_seq, "root"))])
    return tips


@given(elements, st.integers(0, 4000))
def test_a_torn_end_is_forgotten(tmp_path_factory, names, torn_bytes):
    path = tmp_path_factory.mktemp("tips") / "tips"
    fill(path, names).close()
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - torn_bytes)])
    reopened = Tips(path)
    whole = path.read_bytes().count(b"\n")
    assert reopened.next_seq == whole
    for name in set(names[:whole]):
        newest = max(seq for seq, other in enumerate(names[:whole]) if other == name)
        assert reopened.get(ElementId("lxc", name)).seq == newest
    reopened.extend([(ElementId("lxc", "x"), Tip(whole, "0" * 64, 9, "root"))])
    reopened.close()
    again = Tips(path)
    assert again.get(ElementId("lxc", "x")) == Tip(whole, "0" * 64, 9, "root")
    again.close()


def test_a_damaged_line_ends_what_is_believed(tmp_path):
    path = tmp_path / "tips"
    fill(path, "abc").close()
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"B"'))
    tips = Tips(path)
    assert tips.next_seq == 1
    tips.close()


def test_a_long_file_is_compacted_and_says_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(tips_module, "COMPACT_ABOVE_LINES", 10)
    path = tmp_path / "tips"
    fill(path, "ab" * 20 + "c").close()
    Tips(path).close()
    assert path.read_bytes().count(b"\n") == 3
    compacted = Tips(path)
    assert compacted.next_seq == 41
    assert compacted.get(ElementId("lxc", "a")).seq == 38
    compacted.close()


def test_an_event_out_of_order_is_a_bug(tmp_path):
    tips = fill(tmp_path / "tips", "a")
    with pytest.raises(ValueError, match="event 5 does not follow event 0"):
        tips.extend([(ElementId("lxc", "a"), Tip(5, "0" * 64, 5, "root"))])
    tips.close()


@pytest.mark.parametrize(("number", "known"), [(errno.ENOSPC, 4), (errno.EIO, 2)])
def test_a_full_disk_is_tried_again_and_a_broken_one_is_not(tmp_path, monkeypatch, number, known):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    path = tmp_path / "tips"
    fill(path, "ab").close()
    tips = Tips(path)
    tips.extend([(ElementId("lxc", "c"), Tip(2, "0" * 64, 2, "root"))])
    with monkeypatch.context() as bad_disk:
        bad_disk.setattr(os, "write", fail)
        tips.flush()
    tips.extend([(ElementId("lxc", "d"), Tip(3, "0" * 64, 3, "root"))])
    tips.close()
    again = Tips(path)
    assert again.next_seq == known
    again.close()


def test_a_file_that_cannot_be_opened_is_as_good_as_none(tmp_path):
    tips = fill(tmp_path / "no directory" / "tips", "ab")
    assert tips.next_seq == 2
    tips.clear()
    tips.close()
