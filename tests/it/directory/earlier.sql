-- The schema of directory.db of version 3, as its migrations made it: a file of that version has to
-- be taken over.
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
PRAGMA journal_mode = WAL;
PRAGMA user_version = 3;
