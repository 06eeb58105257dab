"""The index as one plain SQLite file: what was known at a block, for any program that reads SQLite.

Tables of events, texts and vectors without packing, without FTS5 and without files beside it. Reads an index that a
daemon may be using; blocking.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from opfs.core.timestamp import format_time
from opfs.errors import InvalidRequest, PoolError
from opfs.index.looking import read_index, vectors_in

if TYPE_CHECKING:
    from pathlib import Path

_SCHEMA = """
CREATE TABLE about (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE texts (
  id   INTEGER PRIMARY KEY,   -- in order of first appearance
  text TEXT NOT NULL          -- what an event says, as a sentence
) STRICT;

CREATE TABLE events (
  seq     INTEGER PRIMARY KEY,                    -- global number of the event, without gaps
  block   INTEGER NOT NULL,                       -- height of the block that holds it
  plugin  TEXT NOT NULL,                          -- e.g. lxc
  element TEXT NOT NULL,                          -- e.g. 100
  op      TEXT NOT NULL,                          -- create, update, delete, ...
  time    TEXT NOT NULL,                          -- RFC 3339, UTC
  actor   TEXT NOT NULL,                          -- who
  summary TEXT NOT NULL,                          -- what changed, one line
  text_id INTEGER NOT NULL REFERENCES texts (id),
  uid     INTEGER NOT NULL,                       -- owner of the document
  gid     INTEGER NOT NULL,                       -- its group
  mode    INTEGER NOT NULL,                       -- its permission bits
  hash    TEXT NOT NULL                           -- BLAKE3 of the event, hex
) STRICT;

CREATE TABLE vectors (
  text_id INTEGER PRIMARY KEY REFERENCES texts (id),
  vector  BLOB NOT NULL                           -- of length 1; float32, little-endian, one after another
) STRICT;
"""
_EVENTS = """
SELECT e.seq, e.height, p.name, n.name, o.name, e.time_ns, w.name, e.summary, e.text_row, a.uid, a.gid, a.mode,
       lower(hex(e.event_hash))
FROM events AS e
JOIN access AS a ON a.id = e.access_id
JOIN elements AS n ON n.id = e.element_id
JOIN plugins AS p ON p.id = n.plugin_id
JOIN ops AS o ON o.id = e.op_id
JOIN actors AS w ON w.id = e.actor_id
WHERE e.height <= ? ORDER BY e.seq
"""
_TIME = 5
_VECTORS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    events: int
    texts: int
    vectors: int
    model_id: str


def export_index(directory: Path, target: Path, *, height: int, block: str) -> Exported:
    """Write what was known at the block of that height and name into a new file, readable by its owner only.

    Raises InvalidRequest for a target that is there or cannot be made, NotFound where there is no index.
    """
    temporary = target.with_name(f".{target.name}.new")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise InvalidRequest(f"{temporary} cannot be made: {error.strerror}") from error
    try:
        with read_index(directory) as source, contextlib.closing(sqlite3.connect(temporary)) as made:
            # A file that is thrown away when anything goes wrong needs no journal.
            made.execute("PRAGMA journal_mode = OFF").fetchone()
            made.executescript(_SCHEMA)
            exported = _fill(directory, source, made, height, block)
            made.commit()
        # link(2), because rename(2) would replace a file that somebody else has made.
        os.link(temporary, target)
    except FileExistsError:
        raise InvalidRequest(f"{target} is there already", hint="name a new file") from None
    except (OSError, sqlite3.Error) as error:
        raise PoolError(f"the index cannot be exported to {target}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return exported


def _fill(directory: Path, source: sqlite3.Connection, made: sqlite3.Connection, height: int, block: str) -> Exported:
    rows = ((*row[:_TIME], format_time(row[_TIME]), *row[_TIME + 1 :]) for row in source.execute(_EVENTS, (height,)))
    events = made.executemany(f"INSERT INTO events VALUES ({', '.join('?' * 13)})", rows).rowcount
    (texts,) = made.execute("SELECT coalesce(max(text_id) + 1, 0) FROM events").fetchone()
    made.executemany(
        "INSERT INTO texts VALUES (?, ?)", source.execute("SELECT row, text FROM texts WHERE row < ?", (texts,))
    )
    model_id, dimensions = source.execute("SELECT model_id, dimensions FROM generations WHERE is_active").fetchone()
    vectors = 0
    with vectors_in(directory, model_id, dimensions) as (file, labels):
        vectors = min(file.count, labels.count, texts)
        mapped = file.rows(vectors)
        for first in range(0, vectors, _VECTORS_AT_ONCE):
            part = mapped.take(np.arange(first, min(first + _VECTORS_AT_ONCE, vectors)))
            blobs = ((number, vector.tobytes()) for number, vector in enumerate(part, first))
            made.executemany("INSERT INTO vectors VALUES (?, ?)", blobs)
    about = {"block": block, "model": model_id, "dimensions": str(dimensions)}
    made.executemany("INSERT INTO about VALUES (?, ?)", about.items())
    return Exported(max(events, 0), texts, vectors, model_id)
