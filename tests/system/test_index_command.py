"""The command opfs index: what it counts, checks and exports, beside a daemon and without one."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest

pytestmark = pytest.mark.needs("root", "btrfs", "fuse", "model")

OFFSET = 64


@pytest.fixture
def opfs(fresh):
    fresh.put("noop/web", purpose="public web server", memory=256)
    fresh.put("noop/mail", purpose="relay for electronic mail")
    fresh.put("noop/web", purpose="public web server", memory=512)
    fresh.opfs("search", "web server")
    return fresh


def column(opfs, name):
    return next((opfs.pool / "@index/columns").glob(f"{name}.*"))


def test_it_is_counted_checked_and_exported(opfs, tmp_path):
    stats = json.loads(opfs.opfs("index", "stats", "--json").stdout)
    assert (stats["events"], stats["behind"], stats["texts"], stats["elements"]) == (3, 0, 3, 2)
    (model,) = stats["models"]
    assert (model["vectors"], model["active"]) == (3, True)
    assert stats["bytes"]["total"] == sum(size for name, size in stats["bytes"].items() if name != "total")
    assert opfs.opfs("index", "check").stdout == "everything agrees\n"
    then = tmp_path / "then.db"
    told = opfs.opfs("index", "export", "--at", "2", str(then)).stdout
    assert "2 events up to block 00000002" in told
    assert then.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(then)) as exported:
        events = exported.execute("SELECT plugin, element, op, block FROM events ORDER BY seq").fetchall()
        assert events == [("noop", "web", "create", 1), ("noop", "mail", "create", 2)]
        rows = exported.execute("SELECT t.text, v.vector FROM texts AS t JOIN vectors AS v ON v.text_id = t.id")
        vectors = {text: np.frombuffer(vector, dtype="<f4") for text, vector in rows}
        assert len(vectors) == 2
        assert all(np.linalg.norm(vector) == pytest.approx(1, abs=1e-5) for vector in vectors.values())
        assert any("public web server" in text for text in vectors)
        assert exported.execute("SELECT value FROM about WHERE key = 'model'").fetchone() == (model["model"],)
        assert exported.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    again = opfs.opfs("index", "export", str(then), check=False)
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["then.db"]


def test_what_is_wrong_is_told_and_made_right(opfs):
    opfs.opfs("umount")
    assert opfs.opfs("index", "check").stdout == "everything agrees\n"
    harmed = {column(opfs, "access"): "record 1 is not", column(opfs, "length"): "record 0 is not"}
    (rows,) = (opfs.pool / "@index").glob("vectors-*/rows.f32")
    harmed[rows] = "vector 0 is not the one that was made"
    for path in harmed:
        content = bytearray(path.read_bytes())
        content[OFFSET + (4 if path.name.startswith("access") else 0)] ^= 1
        path.write_bytes(content)
    with closing(sqlite3.connect(opfs.pool / "@index/events.db")) as database, database:
        database.execute("INSERT INTO words (words, rowid, text) VALUES ('delete', 2, 'no such words')")
    wrong = opfs.opfs("index", "check", check=False)
    assert wrong.returncode == 5
    for problem in (*harmed.values(), "its words are not those of its texts"):
        assert problem in wrong.stdout, wrong.stdout
    assert "index" in opfs.opfs("verify", check=False).stdout
    opfs.opfs("mount")
    opfs.opfs("index", "rebuild")
    opfs.opfs("search", "web server")
    assert opfs.opfs("index", "check").stdout == "everything agrees\n"
    assert opfs.opfs("verify").stdout.endswith("everything agrees\n")
