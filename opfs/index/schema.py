"""The tables of the index's events.db.

Everything here is derived from the chain; a database that cannot be used is replaced, never repaired by hand, and so
is one of another version. Does not know vectors. Functions run on the writer's connection, in the thread that holds
the writer's lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

VERSION = 2

SCHEMA = """
CREATE TABLE meta (
  id            INTEGER PRIMARY KEY CHECK (id = 0),  -- there is one row
  identity      TEXT NOT NULL,     -- random: another one each time the index is begun anew
  words_version INTEGER NOT NULL,  -- of the templates that made texts and summaries
  synced_events INTEGER NOT NULL,  -- so many events are known to have reached the disk in the files of columns
  synced_texts  INTEGER NOT NULL   -- likewise of texts
) STRICT;

CREATE TABLE generations (
  model_id    TEXT PRIMARY KEY,    -- the embedder that made these vectors
  dimensions  INTEGER NOT NULL,    -- numbers in each
  is_active   INTEGER NOT NULL,    -- 1: searches use them; 0: they are being made, to take over when they are complete
  synced_rows INTEGER NOT NULL     -- so many of them are known to have reached the disk
) STRICT;

CREATE TABLE texts (
  row   INTEGER PRIMARY KEY,       -- from 0, in order of first appearance; the row of its vector in every generation
  digest INTEGER NOT NULL,         -- the first 8 bytes of its SHA-256: equal texts are stored once
  text  TEXT NOT NULL              -- the sentence that is embedded, and searched by words
) STRICT;

CREATE INDEX texts_by_digest ON texts (digest);

CREATE VIRTUAL TABLE words USING fts5 (
  text,                            -- of texts, whose row is the rowid; the text itself is not stored twice
  content = 'texts', content_rowid = 'row', tokenize = "unicode61 remove_diacritics 2"
);

CREATE TABLE access (
  id   INTEGER PRIMARY KEY,        -- from 0, without gaps
  uid  INTEGER NOT NULL,           -- owner of the document
  gid  INTEGER NOT NULL,           -- its group
  mode INTEGER NOT NULL,           -- its permission bits; the three decide who may see an event
  UNIQUE (uid, gid, mode)
) STRICT;

CREATE TABLE plugins (
  id   INTEGER PRIMARY KEY,        -- what events refer to
  name TEXT NOT NULL UNIQUE        -- e.g. lxc
) STRICT;

CREATE TABLE elements (
  id        INTEGER PRIMARY KEY,   -- what events refer to
  plugin_id INTEGER NOT NULL REFERENCES plugins (id),  -- whose element it is
  name      TEXT NOT NULL,         -- e.g. 100
  UNIQUE (plugin_id, name)
) STRICT;

CREATE TABLE ops (
  id   INTEGER PRIMARY KEY,        -- what events refer to
  name TEXT NOT NULL UNIQUE        -- create, update, delete, apply-failed, ...
) STRICT;

CREATE TABLE actors (
  id   INTEGER PRIMARY KEY,        -- what events refer to
  name TEXT NOT NULL UNIQUE        -- who, for a person to read
) STRICT;

CREATE TABLE events (
  seq        INTEGER PRIMARY KEY,                          -- global number of the event, from 0, without gaps
  height     INTEGER NOT NULL,                             -- the block that holds it
  element_id INTEGER NOT NULL REFERENCES elements (id),    -- what was changed
  op_id      INTEGER NOT NULL REFERENCES ops (id),         -- how
  actor_id   INTEGER NOT NULL REFERENCES actors (id),      -- by whom
  time_ns    INTEGER NOT NULL,                             -- when, nanoseconds since the epoch, UTC
  summary    TEXT NOT NULL,                                -- what changed, one line
  event_hash BLOB NOT NULL,                                -- BLAKE3 of the event
  text_row   INTEGER NOT NULL REFERENCES texts (row),      -- its sentence and vector
  access_id  INTEGER NOT NULL REFERENCES access (id)       -- who may see it
) STRICT;
"""


class UnusableDatabase(Exception):
    """The database is not one this program can use as it is; it stays inside opfs.index."""


def version_of(connection: sqlite3.Connection) -> int:
    """0 where nothing was ever made in it."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def prepare(connection: sqlite3.Connection) -> None:
    """Make the tables of a new database; raises UnusableDatabase for one of another version."""
    version = version_of(connection)
    if version == 0:
        # One script, so that version and tables come together.
        connection.executescript(f"BEGIN;{SCHEMA}PRAGMA user_version = {VERSION};COMMIT;")
    elif version != VERSION:
        raise UnusableDatabase(f"it is of version {version}, and this program makes version {VERSION}")
