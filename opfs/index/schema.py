"""The tables of the index's events.db, and how an older database becomes a current one.

Everything here is derived from the chain; a database that cannot be used is replaced, never repaired by hand.
Does not know vectors. Functions run on the writer's connection, in the thread that holds the writer's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlite_utils import Database

_VERSION_1 = """
CREATE TABLE meta (
  id          INTEGER PRIMARY KEY CHECK (id = 0),  -- there is one row
  model_id    TEXT NOT NULL,     -- the embedder that made every vector
  synced_rows INTEGER NOT NULL   -- so many rows of vectors.f32 are known to have reached the disk
) STRICT;

CREATE TABLE texts (
  row    INTEGER PRIMARY KEY,    -- the row of its vector in vectors.f32
  sha256 BLOB NOT NULL UNIQUE,   -- of the text in UTF-8: equal texts are embedded once
  crc32  INTEGER NOT NULL,       -- of the vector's bytes
  text   TEXT NOT NULL           -- the sentence that was embedded
) STRICT;

CREATE TABLE access (
  id   INTEGER PRIMARY KEY,      -- from 0, without gaps
  uid  INTEGER NOT NULL,         -- owner of the document
  gid  INTEGER NOT NULL,         -- its group
  mode INTEGER NOT NULL,         -- its permission bits; the three decide who may see an event
  UNIQUE (uid, gid, mode)
) STRICT;

CREATE TABLE events (
  seq        INTEGER PRIMARY KEY,                        -- global number of the event, without gaps
  height     INTEGER NOT NULL,                           -- the block that holds it
  plugin     TEXT NOT NULL,                              -- e.g. lxc
  element    TEXT NOT NULL,                              -- e.g. 100
  op         TEXT NOT NULL,                              -- create, update, delete, apply-failed, ...
  time       TEXT NOT NULL,                              -- RFC 3339, UTC, nanoseconds
  actor      TEXT NOT NULL,                              -- who, for a person to read
  summary    TEXT NOT NULL,                              -- what changed, one line
  event_hash TEXT NOT NULL,                              -- BLAKE3 of the event, hex
  text_row   INTEGER NOT NULL REFERENCES texts (row),    -- its sentence and vector
  access_id  INTEGER NOT NULL REFERENCES access (id)     -- who may see it
) STRICT;
"""

MIGRATIONS = (_VERSION_1,)
"""Script n takes a database from user_version n to n + 1. A published script never changes."""


class UnusableDatabase(Exception):
    """The database is not one this program can bring up to date; it stays inside opfs.index."""


def migrate(database: Database) -> None:
    """Bring the database to the current version, each step in a transaction; raises UnusableDatabase."""
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= version <= len(MIGRATIONS):
        raise UnusableDatabase(f"version {version} is newer than {len(MIGRATIONS)}, the newest this program knows")
    for number in range(version, len(MIGRATIONS)):
        # One script, so that version and tables change together.
        database.conn.executescript(f"BEGIN;{MIGRATIONS[number]}PRAGMA user_version = {number + 1};COMMIT;")
