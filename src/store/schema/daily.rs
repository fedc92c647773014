//! Tables of the time series (`docs/research.md`).

use super::Migration;

/// The days, their groups and sources, and the groups as they are now.
pub(super) const DAILY: Migration = "
-- The time series: one row for each day in UTC (docs/research.md). The totals are those of its end;
-- of the newest day, the present ones.
CREATE TABLE daily (
  day        TEXT PRIMARY KEY,              -- 2026-12-01
  enrolled   INTEGER NOT NULL DEFAULT 0,    -- accounts that are active and have a valid package
  inactive   INTEGER NOT NULL DEFAULT 0,    -- accounts with a package that are not active
  invalid    INTEGER NOT NULL DEFAULT 0,    -- active accounts with an invalid package
  new        INTEGER NOT NULL DEFAULT 0,    -- enrolled for the first time
  returned   INTEGER NOT NULL DEFAULT 0,    -- enrolled again
  found      INTEGER NOT NULL DEFAULT 0,    -- had enrolled on an earlier day, unknown here
  departed   INTEGER NOT NULL DEFAULT 0,    -- were enrolled, and are no more
  vouched    INTEGER NOT NULL DEFAULT 0,    -- did:peers replaced, by the word of the one before
  unvouched  INTEGER NOT NULL DEFAULT 0,    -- did:peers replaced without it
  within_1s  INTEGER NOT NULL DEFAULT 0,    -- packages by the time from record to servable
  within_10s INTEGER NOT NULL DEFAULT 0,
  within_1m  INTEGER NOT NULL DEFAULT 0,
  within_10m INTEGER NOT NULL DEFAULT 0,
  within_1h  INTEGER NOT NULL DEFAULT 0,
  within_1d  INTEGER NOT NULL DEFAULT 0,
  longer     INTEGER NOT NULL DEFAULT 0,
  uncertain  INTEGER NOT NULL DEFAULT 0,    -- accounts that may have changed, but count later
  hosts      INTEGER,                       -- hosts of entries when it had ended; null: not counted
  reached    INTEGER,                       -- of them with an account that was proven on it
  begun      INTEGER NOT NULL DEFAULT 0,    -- 1: the first day
  missed     INTEGER NOT NULL DEFAULT 0,    -- 1: nothing ran on this day
  gap        INTEGER NOT NULL DEFAULT 0,    -- 1: a gap of a source covers its end
  covered    INTEGER NOT NULL DEFAULT 0,    -- 1: the sources have come past its end
  covered_at INTEGER,                       -- when they had
  closed_at  INTEGER,                       -- when it was closed; null: open
  complete   INTEGER NOT NULL DEFAULT 0     -- 1: its totals are certain
) STRICT, WITHOUT ROWID;
CREATE INDEX daily_open ON daily (day) WHERE closed_at IS NULL;
-- The largest groups of each day. The row without a name is that of all others of the kind.
CREATE TABLE daily_group (
  kind     TEXT NOT NULL,                   -- host, mediator, keyType, rule
  name     TEXT NOT NULL,
  day      TEXT NOT NULL,
  accounts INTEGER NOT NULL,                -- at its end
  came     INTEGER NOT NULL,                -- on this day
  went     INTEGER NOT NULL,
  named    INTEGER NOT NULL DEFAULT 0,      -- in the row of the others: groups with a row
  PRIMARY KEY (kind, name, day)
) STRICT, WITHOUT ROWID;
-- The sources of each day.
CREATE TABLE daily_source (
  day           TEXT NOT NULL,
  source        TEXT NOT NULL,
  covered_until INTEGER,                    -- the last moment proven when the day had ended
  ended_at      INTEGER,                    -- when that was looked at
  gaps          INTEGER NOT NULL DEFAULT 0, -- gaps that touch the day
  gap_ms        INTEGER NOT NULL DEFAULT 0, -- how much of it they cover
  listed        INTEGER,                    -- accounts that it listed, in the last whole listing
  unknown       INTEGER,                    -- of them without an entry here
  unlisted      INTEGER,                    -- entries here that it did not list
  PRIMARY KEY (day, source)
) STRICT, WITHOUT ROWID;
-- All groups as they are now. The row without a name is that of all of the kind.
CREATE TABLE group_now (
  kind     TEXT NOT NULL,
  name     TEXT NOT NULL,
  accounts INTEGER NOT NULL,
  day      TEXT,                            -- of came and went
  came     INTEGER NOT NULL DEFAULT 0,
  went     INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX group_now_largest ON group_now (kind, accounts DESC, name);
ALTER TABLE entry ADD COLUMN counted_at INTEGER;   -- when its last change that counted took effect
ALTER TABLE pending ADD COLUMN written_at INTEGER; -- time of the commit that a stream has proven
CREATE INDEX pending_untried ON pending (since) WHERE attempts = 0;
ALTER TABLE walk ADD COLUMN unknown INTEGER; -- listed without an entry here; null: not compared
ALTER TABLE coverage ADD COLUMN followed INTEGER NOT NULL DEFAULT 1;
";

/// What a published dataset needs beside the series.
pub(super) const DATASET: Migration = "
-- The key by which the numbers of published datasets are rounded, made once.
CREATE TABLE dataset_key (
  id  INTEGER PRIMARY KEY CHECK (id = 0),
  key BLOB NOT NULL
) STRICT;
INSERT INTO dataset_key VALUES (0, randomblob(32));
-- The cursor of the stream when the day had ended.
ALTER TABLE daily_source ADD COLUMN position INTEGER;
";
