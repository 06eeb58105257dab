"""Partial tiles of the log that a power cut left torn are gone after the next start; whole ones stay."""

from __future__ import annotations

import pytest

from opfs.core.merkle import leaf_hash
from opfs.tlog.audit import LogAudit
from opfs.tlog.keys import KeyStore
from opfs.tlog.log import FileLog

ORIGIN = "test.example/opfs"
TIME_NS = 1_800_000_000 * 10**9


def header(number):
    return b"header %d" % number


def open_log(path):
    return FileLog.open(path / "@log", ORIGIN, KeyStore(path / "keys", ORIGIN))


def findings(path, size):
    audit = LogAudit(path / "@log", ORIGIN, KeyStore(path / "keys", ORIGIN))
    return [str(finding) for finding in audit.check(lambda _: [leaf_hash(header(n)) for n in range(size)])]


@pytest.fixture
def grown(tmp_path):
    """Stored after 1, 2, 5 and 258 entries: partial tiles of the first tile may still be there, and of the second."""
    (tmp_path / "@log").mkdir()
    log = open_log(tmp_path)
    for size in (1, 2, 5, 257, 258):
        log.append([header(number) for number in range(log.size, size)], TIME_NS)
        log.store()
    return tmp_path


@pytest.mark.parametrize("torn", [b"", b"\0" * 32, b"half"], ids=["empty", "zeros", "half"])
@pytest.mark.parametrize("name", ["tile/0/001.p/1", "tile/entries/001.p/1", "tile/0/000.p/2", "tile/1/000.p/1"])
def test_torn_ones_go(grown, name, torn):
    path = grown / "@log" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(torn)
    log = open_log(grown)
    log.append([header(number) for number in range(log.size, 258)], TIME_NS)
    log.store()
    assert findings(grown, 258) == []
    assert not path.exists() or path.read_bytes() != torn


def test_whole_ones_stay(grown):
    before = {path: path.read_bytes() for path in (grown / "@log").rglob("*") if path.is_file()}
    assert any(path.name == "1" for path in before)
    open_log(grown).store()
    assert {path: path.read_bytes() for path in (grown / "@log").rglob("*") if path.is_file()} == before
    assert findings(grown, 258) == []
