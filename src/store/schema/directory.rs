//! Tables of `directory.db`.

use super::{Schema, daily, tally};

/// `directory.db`.
pub(in crate::store) const DIRECTORY: Schema = Schema {
    reclaims: true,
    migrations: &[
        "
-- One account that has, or had, a key package.
CREATE TABLE entry (
  did           TEXT PRIMARY KEY,
  handle        TEXT,              -- verified in both directions; null: none
  pds           TEXT,              -- origin, from the DID document
  signing_key   TEXT,              -- did:key, from the DID document
  status        TEXT NOT NULL,     -- account status: active, deactivated, takendown, ...
  state         TEXT NOT NULL,     -- present, invalid, removed, removedUnproven, unverifiable
  reason        TEXT,              -- rule that an invalid or unverifiable package breaks
  detail        TEXT,              -- the same as a sentence
  rev           TEXT,
  commit_cid    TEXT,
  cid           TEXT,              -- of the record
  record        BLOB,              -- DAG-CBOR, verbatim
  proof         BLOB,              -- CAR of the newest proof, of presence or absence
  proof_pds     TEXT,              -- PDS under which rev is ordered
  proof_key     TEXT,              -- did:key that signed the newest proof, likewise
  identity_key  TEXT,              -- signing_key as it was at that proof
  peer          TEXT,              -- the did:peer of a present package
  regressed     INTEGER NOT NULL,  -- 1: its PDS showed an older revision
  source        TEXT NOT NULL,     -- what led to the last proof: pds, relay, jetstream, ...
  method        TEXT NOT NULL,     -- what was proven: getRecord, commit
  observed_at   INTEGER NOT NULL,  -- this state first seen
  proved_at     INTEGER,           -- last proof
  checked_at    INTEGER NOT NULL,  -- last look, with or without success
  next_check_at INTEGER NOT NULL,
  failures      INTEGER NOT NULL,  -- looks without success since the last proof
  change_seq    INTEGER NOT NULL   -- change that brought this package
) STRICT;
CREATE INDEX entry_handle ON entry (handle) WHERE handle IS NOT NULL;
CREATE INDEX entry_peer ON entry (peer) WHERE peer IS NOT NULL;
CREATE INDEX entry_pds ON entry (pds);
CREATE INDEX entry_due ON entry (next_check_at);

-- The mediators that a present package names, in its order.
CREATE TABLE entry_mediator (
  did      TEXT NOT NULL REFERENCES entry (did) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  mediator TEXT NOT NULL,
  PRIMARY KEY (did, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_mediator_mediator ON entry_mediator (mediator, did);

-- What is known of each mediator that some package names.
CREATE TABLE mediator (
  did           TEXT PRIMARY KEY,
  document      TEXT NOT NULL,     -- JSON as in the recipient view
  checked_at    INTEGER NOT NULL,
  next_check_at INTEGER NOT NULL,
  failures      INTEGER NOT NULL
) STRICT;
CREATE INDEX mediator_due ON mediator (next_check_at);

-- Everything that ever changed, in the order seen here.
CREATE TABLE change (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  did       TEXT NOT NULL,
  kind      TEXT NOT NULL,
  rev       TEXT,
  cid       TEXT,
  peer      TEXT,
  mediators TEXT,                  -- JSON array
  key       TEXT,                  -- did:key that signed
  detail    TEXT,
  seen_at   INTEGER NOT NULL,
  proof     BLOB                   -- CAR of a package that was superseded
) STRICT;
CREATE INDEX change_did ON change (did, seq);

-- Refreshes that are pending.
CREATE TABLE pending (
  did        TEXT PRIMARY KEY,
  reason     TEXT NOT NULL,
  hint       TEXT,                 -- account status that a PDS announced of its account
  hint_pds   TEXT,                 -- that PDS
  not_before INTEGER NOT NULL,
  attempts   INTEGER NOT NULL,
  generation INTEGER NOT NULL,     -- counts what was coalesced
  since      INTEGER NOT NULL,
  listed     INTEGER NOT NULL      -- 1: only an enumeration came by; done after what is news
) STRICT;
CREATE INDEX pending_due ON pending (listed, not_before);

-- How far each source is durably processed.
CREATE TABLE cursor (
  source     TEXT PRIMARY KEY,
  position   INTEGER NOT NULL,
  event_time TEXT,                 -- the source's own time of that event
  updated_at INTEGER NOT NULL
) STRICT;

-- How far the enumeration of a source has come.
CREATE TABLE walk (
  source     TEXT PRIMARY KEY,
  position   TEXT,                 -- the source's own paging cursor
  seen       INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  done_at    INTEGER
) STRICT;

-- Proofs of an older revision than one already proven, by the same PDS and key.
CREATE TABLE evidence (
  id      INTEGER PRIMARY KEY,
  did     TEXT NOT NULL,
  rev     TEXT NOT NULL,
  pds     TEXT,
  key     TEXT NOT NULL,
  seen_at INTEGER NOT NULL,
  proof   BLOB NOT NULL
) STRICT;
CREATE INDEX evidence_did ON evidence (did);
",
        "
-- When the account first named the did:peer of its present package, as far as the change log knows.
ALTER TABLE entry ADD COLUMN peer_since INTEGER;
UPDATE entry SET peer_since = coalesce(
    (SELECT min(seen_at) FROM change WHERE change.did = entry.did AND change.peer = entry.peer),
    observed_at)
  WHERE peer IS NOT NULL;
-- Holds all that the claimants of a did:peer are chosen by.
DROP INDEX entry_peer;
CREATE INDEX entry_claimant ON entry (peer, peer_since, did)
  WHERE peer IS NOT NULL AND state = 'present' AND status = 'active';
",
        "
-- The handle has a claim, an age and checks of its own.
ALTER TABLE entry ADD COLUMN claimed TEXT;           -- handle that the DID document claims
ALTER TABLE entry ADD COLUMN handle_at INTEGER;      -- when handle and DID last named each other
ALTER TABLE entry ADD COLUMN handle_next_at INTEGER; -- next check of the claim; null: no claim
ALTER TABLE entry ADD COLUMN handle_failures INTEGER NOT NULL DEFAULT 0;
UPDATE entry SET claimed = handle, handle_at = checked_at, handle_next_at = next_check_at
  WHERE handle IS NOT NULL;
CREATE INDEX entry_handle_due ON entry (handle_next_at) WHERE handle_next_at IS NOT NULL;
-- When pds, signing_key and claimed were asked for: older facts never replace newer ones.
ALTER TABLE entry ADD COLUMN identity_at INTEGER;
-- Grows with each proof that is taken over: tells a refresh that something was proven meanwhile.
ALTER TABLE entry ADD COLUMN proofs INTEGER NOT NULL DEFAULT 0;
UPDATE entry SET proofs = coalesce(proved_at, 0);
-- First of the answers in a row that know no such account.
ALTER TABLE entry ADD COLUMN missing_since INTEGER;
-- The entry is known good until then: later events of its account may have been missed.
ALTER TABLE entry ADD COLUMN doubt_since INTEGER;
",
        "
-- The interval in which each source's stream is proven to have missed nothing.
CREATE TABLE coverage (
  source TEXT PRIMARY KEY,
  since  INTEGER NOT NULL,
  until  INTEGER NOT NULL          -- the last moment that is proven
) STRICT;
INSERT INTO coverage SELECT source, updated_at, updated_at FROM cursor;
-- Events that a source has missed, until every entry that they may concern is marked.
CREATE TABLE gap (
  id        INTEGER PRIMARY KEY,
  source    TEXT NOT NULL UNIQUE,
  reason    TEXT NOT NULL,
  since     INTEGER NOT NULL,      -- the last moment before it that is proven
  opened_at INTEGER NOT NULL,
  pds       TEXT,                  -- PDS whose accounts the events are of; null: any
  covered   TEXT NOT NULL,         -- JSON array of the PDSes that other sources cover
  position  INTEGER NOT NULL,      -- rowid of entry up to which the marking has come
  last      INTEGER NOT NULL,      -- rowid of entry at which it ends
  marked    INTEGER NOT NULL       -- entries marked
) STRICT;
CREATE INDEX entry_doubt ON entry (doubt_since) WHERE doubt_since IS NOT NULL;
",
        "
-- The newest proof of each account, of presence or absence, apart from what changes at every check.
-- The record is in it.
CREATE TABLE proof (
  did TEXT PRIMARY KEY REFERENCES entry (did) ON DELETE CASCADE,
  car BLOB NOT NULL
) STRICT;
INSERT INTO proof (did, car) SELECT did, proof FROM entry WHERE proof IS NOT NULL;
ALTER TABLE entry DROP COLUMN proof;
ALTER TABLE entry DROP COLUMN record;
",
        "
-- Checks of a claimed handle are ordered by when they asked, and those for news come first.
ALTER TABLE entry ADD COLUMN handle_checked_at INTEGER; -- when the last check with a result asked
ALTER TABLE entry ADD COLUMN handle_news INTEGER NOT NULL DEFAULT 0; -- 1: due because of news
DROP INDEX entry_handle_due;
CREATE INDEX entry_handle_due ON entry (handle_news, handle_next_at)
  WHERE handle_next_at IS NOT NULL;
",
        "
-- The domain of the PDS that an account had when a row was written: what the row takes of the file
-- counts there. asked: 1 where only clients have asked for the account, 0 where a source names it.
-- size: bytes without the proof.
ALTER TABLE entry ADD COLUMN domain TEXT NOT NULL DEFAULT '';
ALTER TABLE entry ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN proof_size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE entry ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
UPDATE entry SET
  domain = domain_of(pds),
  size = 800 + 6 * octet_length(did) + 3 * coalesce(octet_length(peer), 0)
    + coalesce(octet_length(detail), 0)
    + coalesce((SELECT sum(2 * (octet_length(m.mediator) + octet_length(m.did)) + 48)
                FROM entry_mediator AS m WHERE m.did = entry.did), 0),
  proof_size = coalesce((SELECT octet_length(car) FROM proof AS p WHERE p.did = entry.did), 0);
ALTER TABLE change ADD COLUMN domain TEXT NOT NULL DEFAULT '';
ALTER TABLE change ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE change ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
UPDATE change SET
  domain = coalesce((SELECT e.domain FROM entry AS e WHERE e.did = change.did), ''),
  size = 250 + 2 * octet_length(did) + 2 * coalesce(octet_length(peer), 0)
    + coalesce(octet_length(mediators), 0) + coalesce(octet_length(detail), 0);
ALTER TABLE evidence ADD COLUMN domain TEXT NOT NULL DEFAULT '';
ALTER TABLE evidence ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE evidence ADD COLUMN asked INTEGER NOT NULL DEFAULT 0;
UPDATE evidence SET
  domain = coalesce((SELECT e.domain FROM entry AS e WHERE e.did = evidence.did), ''),
  size = 250 + 2 * octet_length(did);

-- What the accounts of each domain take of the file, and what all take.
CREATE TABLE domain_share (
  domain      TEXT PRIMARY KEY,
  entries     INTEGER NOT NULL,
  asked       INTEGER NOT NULL,    -- entries that only clients have asked for
  bytes       INTEGER NOT NULL,    -- of entries, proofs, changes and evidence
  asked_bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX domain_share_bytes ON domain_share (bytes);
CREATE TABLE all_shares (
  id          INTEGER PRIMARY KEY CHECK (id = 0),
  entries     INTEGER NOT NULL,
  asked       INTEGER NOT NULL,
  bytes       INTEGER NOT NULL,
  asked_bytes INTEGER NOT NULL
) STRICT;
INSERT INTO all_shares VALUES (0, 0, 0, 0, 0);

-- A row that is written to this view is added to the share of its domain and to all.
CREATE VIEW counted AS SELECT domain, entries, asked, bytes FROM domain_share;
CREATE TRIGGER counted_added INSTEAD OF INSERT ON counted BEGIN
  INSERT INTO domain_share (domain, entries, asked, bytes, asked_bytes) VALUES (
    new.domain, new.entries, new.entries * new.asked, new.bytes, new.bytes * new.asked)
    ON CONFLICT (domain) DO UPDATE SET entries = entries + excluded.entries,
      asked = asked + excluded.asked, bytes = bytes + excluded.bytes,
      asked_bytes = asked_bytes + excluded.asked_bytes;
  DELETE FROM domain_share WHERE domain = new.domain AND entries = 0 AND bytes = 0;
  UPDATE all_shares SET entries = entries + new.entries,
    asked = asked + new.entries * new.asked, bytes = bytes + new.bytes,
    asked_bytes = asked_bytes + new.bytes * new.asked;
END;
INSERT INTO counted SELECT domain, 1, asked, size + proof_size FROM entry;
INSERT INTO counted SELECT domain, 0, asked, size + coalesce(octet_length(proof), 0) FROM change;
INSERT INTO counted SELECT domain, 0, asked, size + octet_length(proof) FROM evidence;
CREATE TRIGGER entry_added AFTER INSERT ON entry BEGIN
  INSERT INTO counted VALUES (new.domain, 1, new.asked, new.size + new.proof_size);
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entry BEGIN
  INSERT INTO counted VALUES (old.domain, -1, old.asked, -(old.size + old.proof_size));
END;
CREATE TRIGGER entry_resized AFTER UPDATE OF domain, asked, size, proof_size ON entry
  WHEN new.size <> old.size OR new.proof_size <> old.proof_size OR new.asked <> old.asked
    OR new.domain <> old.domain BEGIN
  INSERT INTO counted VALUES (old.domain, -1, old.asked, -(old.size + old.proof_size));
  INSERT INTO counted VALUES (new.domain, 1, new.asked, new.size + new.proof_size);
END;
CREATE TRIGGER proof_added AFTER INSERT ON proof BEGIN
  UPDATE entry SET proof_size = octet_length(new.car) WHERE did = new.did;
END;
CREATE TRIGGER proof_resized AFTER UPDATE OF car ON proof BEGIN
  UPDATE entry SET proof_size = octet_length(new.car) WHERE did = new.did;
END;
CREATE TRIGGER proof_removed AFTER DELETE ON proof BEGIN
  UPDATE entry SET proof_size = 0 WHERE did = old.did;
END;
CREATE TRIGGER change_added AFTER INSERT ON change BEGIN
  INSERT INTO counted VALUES (
    new.domain, 0, new.asked, new.size + coalesce(octet_length(new.proof), 0));
END;
CREATE TRIGGER change_removed AFTER DELETE ON change BEGIN
  INSERT INTO counted VALUES (
    old.domain, 0, old.asked, -(old.size + coalesce(octet_length(old.proof), 0)));
END;
CREATE TRIGGER change_resized AFTER UPDATE OF proof ON change BEGIN
  INSERT INTO counted VALUES (new.domain, 0, new.asked,
    coalesce(octet_length(new.proof), 0) - coalesce(octet_length(old.proof), 0));
END;
CREATE TRIGGER evidence_added AFTER INSERT ON evidence BEGIN
  INSERT INTO counted VALUES (new.domain, 0, new.asked, new.size + octet_length(new.proof));
END;
CREATE TRIGGER evidence_removed AFTER DELETE ON evidence BEGIN
  INSERT INTO counted VALUES (old.domain, 0, old.asked, -(old.size + octet_length(old.proof)));
END;
",
        "
-- What becomes of an enumeration that fails, and of events that are missed during one.
ALTER TABLE walk ADD COLUMN pages INTEGER NOT NULL DEFAULT 0;
ALTER TABLE walk ADD COLUMN again INTEGER NOT NULL DEFAULT 0; -- 1: another one follows this one
ALTER TABLE walk ADD COLUMN restarted_at INTEGER;  -- when one last began for that reason
ALTER TABLE walk ADD COLUMN reset_at INTEGER;      -- when the source last refused its own cursor
ALTER TABLE walk ADD COLUMN failures INTEGER NOT NULL DEFAULT 0; -- since the last page
ALTER TABLE walk ADD COLUMN failure TEXT;          -- the last of them
ALTER TABLE walk ADD COLUMN tried_at INTEGER;
ALTER TABLE walk ADD COLUMN next_at INTEGER;       -- when to ask for the next page; null: at once
ALTER TABLE walk ADD COLUMN complete_at INTEGER;   -- when one last came to its end
UPDATE walk SET complete_at = done_at;
",
        "
-- The newest commit that is known of each account, by which one that never came is noticed.
CREATE TABLE head (
  did        TEXT PRIMARY KEY REFERENCES entry (did) ON DELETE CASCADE,
  rev        TEXT,                 -- null: not known
  data       BLOB,                 -- CID of the tree's root, in binary form; null: not known
  refresh_at INTEGER               -- when the last refresh is due that a commit led to
) STRICT, WITHOUT ROWID;
",
        "
-- Accounts that a relay says are not active, of the relays whose word hides an account.
CREATE TABLE takedown (
  did    TEXT NOT NULL REFERENCES entry (did) ON DELETE CASCADE,
  source TEXT NOT NULL,
  status TEXT NOT NULL,
  PRIMARY KEY (did, source)
) STRICT, WITHOUT ROWID;
CREATE INDEX takedown_source ON takedown (source);
",
        "
-- What is kept of a mediator counts under the domain of its host.
ALTER TABLE mediator ADD COLUMN domain TEXT NOT NULL DEFAULT '';
ALTER TABLE mediator ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
UPDATE mediator SET
  domain = domain_of_mediator(did),
  size = 150 + 2 * octet_length(did) + octet_length(document);
INSERT INTO counted SELECT domain, 0, 0, size FROM mediator;
CREATE TRIGGER mediator_added AFTER INSERT ON mediator BEGIN
  INSERT INTO counted VALUES (new.domain, 0, 0, new.size);
END;
CREATE TRIGGER mediator_removed AFTER DELETE ON mediator BEGIN
  INSERT INTO counted VALUES (old.domain, 0, 0, -old.size);
END;
CREATE TRIGGER mediator_resized AFTER UPDATE OF size ON mediator
  WHEN new.size <> old.size BEGIN
  INSERT INTO counted VALUES (new.domain, 0, 0, new.size - old.size);
END;
",
        "
-- The state of the account after each change, so that a reader of the log needs nothing else. All
-- are null where the account has no entry any more, and in changes of earlier versions that were
-- not the newest of their account.
ALTER TABLE change ADD COLUMN status TEXT;
ALTER TABLE change ADD COLUMN state TEXT;
ALTER TABLE change ADD COLUMN reason TEXT;
ALTER TABLE change ADD COLUMN handle TEXT;
ALTER TABLE change ADD COLUMN pds TEXT;
ALTER TABLE change ADD COLUMN regressed INTEGER;
UPDATE change SET status = e.status, state = e.state, reason = e.reason, handle = e.handle,
    pds = e.pds, regressed = e.regressed
  FROM entry AS e WHERE e.did = change.did
    AND change.seq = (SELECT max(newer.seq) FROM change AS newer WHERE newer.did = change.did);
-- Handles by the time at which they were confirmed.
CREATE INDEX entry_handle_at ON entry (handle_at) WHERE handle IS NOT NULL;

-- The log as its readers know it.
CREATE TABLE change_log (
  id     INTEGER PRIMARY KEY CHECK (id = 0),
  stream TEXT NOT NULL,            -- its name, made once
  floor  INTEGER NOT NULL          -- the newest position at which a reader may miss an end
) STRICT;
INSERT INTO change_log VALUES (0, lower(hex(randomblob(16))), 0);
-- Each start gives positions from a new number on. Those between are of another log: of one that was
-- written after this file was copied.
CREATE TABLE change_log_start (
  first    INTEGER PRIMARY KEY,    -- the first position after the start
  previous INTEGER NOT NULL        -- the last position before it
) STRICT;
-- How far each consumer of the channel has acknowledged what it was sent.
CREATE TABLE consumer (
  name     TEXT PRIMARY KEY,
  position INTEGER NOT NULL,
  seen_at  INTEGER NOT NULL        -- when it last connected or acknowledged
) STRICT, WITHOUT ROWID;
",
        tally::TALLY,
        tally::CHANGE_HOURS,
        "
-- Class of the error that the last check of an entry, or the last try of a pending refresh, ended in.
ALTER TABLE entry ADD COLUMN failure TEXT;
ALTER TABLE pending ADD COLUMN failure TEXT;
",
        daily::DAILY,
        "
-- All that a list shows of an account or derives from, in the order of lists.
CREATE INDEX entry_listed ON entry
  (did, pds, status, state, reason, handle, handle_at, rev, observed_at);
",
        daily::DATASET,
    ],
};
