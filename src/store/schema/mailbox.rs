//! Tables of `mailbox.db`.

use super::Schema;

/// `mailbox.db`. Identifiers of accounts, recipients and messages are never used twice: sockets
/// and workers hold them over the end of their rows.
pub(in crate::store) const MAILBOX: Schema = Schema {
    reclaims: true,
    migrations: &[
        "
-- Whom the mediator serves: a DID that asked for mediation and was granted it.
CREATE TABLE account (
  id                INTEGER PRIMARY KEY AUTOINCREMENT,
  did               TEXT NOT NULL UNIQUE,  -- canonical: did:peer:4 in short form
  long              TEXT NOT NULL,         -- the DID from which its keys are read
  granted_at        INTEGER NOT NULL,
  provisional_until INTEGER,               -- null: granted for good
  address_group     BLOB,                  -- whence it was asked for; kept while provisional
  seen_at           INTEGER NOT NULL       -- last request, to the minute
) STRICT;
CREATE INDEX account_provisional ON account (provisional_until)
  WHERE provisional_until IS NOT NULL;
CREATE INDEX account_group ON account (address_group, provisional_until)
  WHERE provisional_until IS NOT NULL;
CREATE INDEX account_seen ON account (seen_at);

-- A DID that mail is addressed to, with the counters of its queue.
CREATE TABLE recipient (
  id       INTEGER PRIMARY KEY AUTOINCREMENT,
  did      TEXT NOT NULL UNIQUE,
  account  INTEGER REFERENCES account (id) ON DELETE SET NULL,  -- who reads; null: nobody yet
  messages INTEGER NOT NULL DEFAULT 0,
  bytes    INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX recipient_account ON recipient (account);
CREATE INDEX recipient_idle ON recipient (id) WHERE account IS NULL AND messages = 0;

-- What key packages say: this account of atproto names, or named, this DID with this mediator.
CREATE TABLE claim (
  account TEXT NOT NULL,
  peer    TEXT NOT NULL,
  state   TEXT NOT NULL,                   -- current, replaced, dropped, inactive
  since   INTEGER NOT NULL,
  PRIMARY KEY (account, peer)
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_peer ON claim (peer, state, since);
CREATE INDEX claim_age ON claim (state, since);

-- Mail that waits. The body stands last, so that nothing else is read through it.
CREATE TABLE message (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of arrival
  recipient    INTEGER NOT NULL REFERENCES recipient (id),
  hash         BLOB NOT NULL,              -- sha-256 of the body
  size         INTEGER NOT NULL,           -- bytes of the body
  stored_at    INTEGER NOT NULL,
  available_at INTEGER NOT NULL,           -- later than stored_at: the sender wants it delayed
  expires_at   INTEGER NOT NULL,
  body         BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX message_hash ON message (recipient, hash);
-- Holds all that a status and the choice of a delivery ask for.
CREATE INDEX message_queue
  ON message (recipient, id, available_at, expires_at, size, stored_at);
CREATE INDEX message_expiry ON message (expires_at);
CREATE INDEX message_delayed ON message (available_at) WHERE available_at > stored_at;

-- What waits in all: one row for mail, one for relay.
CREATE TABLE total (
  name     TEXT PRIMARY KEY,
  messages INTEGER NOT NULL,
  bytes    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO total VALUES ('mail', 0, 0), ('relay', 0, 0);

-- Counters are kept here and nowhere else, so that no statement can forget them.
CREATE TRIGGER message_added AFTER INSERT ON message BEGIN
  UPDATE recipient SET messages = messages + 1, bytes = bytes + new.size
    WHERE id = new.recipient;
  UPDATE total SET messages = messages + 1, bytes = bytes + new.size WHERE name = 'mail';
END;
CREATE TRIGGER message_removed AFTER DELETE ON message BEGIN
  UPDATE recipient SET messages = messages - 1, bytes = bytes - old.size
    WHERE id = old.recipient;
  UPDATE total SET messages = messages - 1, bytes = bytes - old.size WHERE name = 'mail';
END;

-- Mail for elsewhere, until its destination took it or it is given up.
CREATE TABLE outbound (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  destination TEXT NOT NULL,               -- DID of the mediator
  route       TEXT NOT NULL,               -- JSON of the relay worker
  hash        BLOB NOT NULL,               -- sha-256 of the body
  size        INTEGER NOT NULL,            -- bytes of the body
  sender      TEXT,                        -- who is told when it is given up
  thread      TEXT,                        -- in which thread
  attempts    INTEGER NOT NULL DEFAULT 0,
  next_at     INTEGER NOT NULL,
  taken       INTEGER NOT NULL DEFAULT 0,  -- 1: under way, and next_at the end of its lease
  created_at  INTEGER NOT NULL,
  expires_at  INTEGER NOT NULL,
  body        BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX outbound_hash ON outbound (destination, hash);
CREATE INDEX outbound_due ON outbound (destination, next_at, id, size);

-- What waits for a destination, and how it went there.
CREATE TABLE destination (
  did           TEXT PRIMARY KEY,
  waiting       INTEGER NOT NULL DEFAULT 0,
  waiting_bytes INTEGER NOT NULL DEFAULT 0,
  delivered     INTEGER NOT NULL DEFAULT 0,  -- messages taken
  failed        INTEGER NOT NULL DEFAULT 0,  -- attempts that are repeated
  refused       INTEGER NOT NULL DEFAULT 0,  -- messages not taken, for good
  given_up      INTEGER NOT NULL DEFAULT 0,  -- messages whose time ended
  last_error    TEXT,
  last_at       INTEGER                      -- last attempt; null: none yet
) STRICT, WITHOUT ROWID;
CREATE INDEX destination_waiting ON destination (did) WHERE waiting > 0;
CREATE INDEX destination_last ON destination (last_at);

CREATE TRIGGER outbound_added AFTER INSERT ON outbound BEGIN
  INSERT INTO destination (did, waiting, waiting_bytes) VALUES (new.destination, 1, new.size)
    ON CONFLICT (did) DO UPDATE SET waiting = waiting + 1,
      waiting_bytes = waiting_bytes + excluded.waiting_bytes;
  UPDATE total SET messages = messages + 1, bytes = bytes + new.size WHERE name = 'relay';
END;
CREATE TRIGGER outbound_removed AFTER DELETE ON outbound BEGIN
  UPDATE destination SET waiting = waiting - 1, waiting_bytes = waiting_bytes - old.size
    WHERE did = old.destination;
  UPDATE total SET messages = messages - 1, bytes = bytes - old.size WHERE name = 'relay';
END;

-- Requests seen lately, so that a repeated envelope is told from a new one.
CREATE TABLE replay_change (
  id      INTEGER PRIMARY KEY,             -- order of arrival
  hash    BLOB NOT NULL UNIQUE,            -- 16 bytes of what its sender sealed
  seen_at INTEGER NOT NULL
) STRICT;
CREATE TABLE replay_question (
  id      INTEGER PRIMARY KEY,
  hash    BLOB NOT NULL UNIQUE,      
  seen_at INTEGER NOT NULL
) STRICT;

-- The mediator's own small facts.
CREATE TABLE meta (
  key   TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
",
        "
-- When an account removed its own DID: it still reads what waits. Null: the queue takes mail.
ALTER TABLE recipient ADD COLUMN closed_at INTEGER;
-- Removed before: mail that waits is readable again.
UPDATE recipient SET
    account = (SELECT id FROM account WHERE account.did = recipient.did),
    closed_at = (SELECT seen_at FROM account WHERE account.did = recipient.did)
  WHERE account IS NULL AND did IN (SELECT did FROM account);
",
"
-- To whose share of the recipient's quota a message counts: a keyed hash. Null: it came before
-- shares were counted.
ALTER TABLE message ADD COLUMN sender_group BLOB;

-- What waits for a recipient of one sender group, and of all of one wide group (whose last eight
-- bytes are zero).
CREATE TABLE queue_share (
  recipient    INTEGER NOT NULL,
  sender_group BLOB NOT NULL,
  messages     INTEGER NOT NULL,
  bytes        INTEGER NOT NULL,
  PRIMARY KEY (recipient, sender_group)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER message_charged AFTER INSERT ON message WHEN new.sender_group IS NOT NULL BEGIN
  INSERT INTO queue_share VALUES (new.recipient, new.sender_group, 1, new.size)
    ON CONFLICT (recipient, sender_group) DO UPDATE SET messages = messages + 1,
      bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER message_charged_wide AFTER INSERT ON message
  WHEN substr(new.sender_group, 9) <> x'0000000000000000' BEGIN
  INSERT INTO queue_share
    VALUES (new.recipient, CAST(substr(new.sender_group, 1, 8) || zeroblob(8) AS BLOB), 1, new.size)
    ON CONFLICT (recipient, sender_group) DO UPDATE SET messages = messages + 1,
      bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER message_released AFTER DELETE ON message WHEN old.sender_group IS NOT NULL BEGIN
  UPDATE queue_share SET messages = messages - 1, bytes = bytes - old.size
    WHERE recipient = old.recipient AND sender_group = old.sender_group;
  DELETE FROM queue_share
    WHERE recipient = old.recipient AND sender_group = old.sender_group AND messages = 0;
END;
CREATE TRIGGER message_released_wide AFTER DELETE ON message
  WHEN substr(old.sender_group, 9) <> x'0000000000000000' BEGIN
  UPDATE queue_share SET messages = messages - 1, bytes = bytes - old.size
    WHERE recipient = old.recipient
      AND sender_group = CAST(substr(old.sender_group, 1, 8) || zeroblob(8) AS BLOB);
  DELETE FROM queue_share
    WHERE recipient = old.recipient AND messages = 0
      AND sender_group = CAST(substr(old.sender_group, 1, 8) || zeroblob(8) AS BLOB);
END;
",
"
-- To whose share of the outbox a message counts, whether it was the first for its destination, and
-- the bytes of its route, sender and thread.
ALTER TABLE outbound ADD COLUMN sender_group BLOB;
ALTER TABLE outbound ADD COLUMN domain TEXT NOT NULL DEFAULT '';
ALTER TABLE outbound ADD COLUMN opened INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbound ADD COLUMN extra INTEGER NOT NULL DEFAULT 0;

-- What waits of one sender group for all destinations (scope '') and for one (its DID), and of all
-- senders for one domain of destinations (scope '@' and the domain, no group); and for how many
-- destinations it was the first message.
CREATE TABLE outbox_share (
  scope        TEXT NOT NULL,
  sender_group BLOB NOT NULL,
  messages     INTEGER NOT NULL,
  bytes        INTEGER NOT NULL,
  opened       INTEGER NOT NULL,
  PRIMARY KEY (scope, sender_group)
) STRICT, WITHOUT ROWID;

-- How many destinations have a message that waits.
INSERT INTO total SELECT 'destinations', count(*), 0 FROM destination WHERE waiting > 0;
CREATE TRIGGER destination_added AFTER INSERT ON destination WHEN new.waiting > 0 BEGIN
  UPDATE total SET messages = messages + 1 WHERE name = 'destinations';
END;
CREATE TRIGGER destination_opened AFTER UPDATE OF waiting ON destination
  WHEN old.waiting = 0 AND new.waiting > 0 BEGIN
  UPDATE total SET messages = messages + 1 WHERE name = 'destinations';
END;
CREATE TRIGGER destination_closed AFTER UPDATE OF waiting ON destination
  WHEN old.waiting > 0 AND new.waiting = 0 BEGIN
  UPDATE total SET messages = messages - 1 WHERE name = 'destinations';
END;

DROP TRIGGER outbound_added;
DROP TRIGGER outbound_removed;
CREATE TRIGGER outbound_added AFTER INSERT ON outbound BEGIN
  INSERT INTO destination (did, waiting, waiting_bytes)
    VALUES (new.destination, 1, new.size + new.extra)
    ON CONFLICT (did) DO UPDATE SET waiting = waiting + 1,
      waiting_bytes = waiting_bytes + excluded.waiting_bytes;
  UPDATE total SET messages = messages + 1, bytes = bytes + new.size + new.extra
    WHERE name = 'relay';
END;
CREATE TRIGGER outbound_removed AFTER DELETE ON outbound BEGIN
  UPDATE destination SET waiting = waiting - 1,
      waiting_bytes = waiting_bytes - old.size - old.extra
    WHERE did = old.destination;
  UPDATE total SET messages = messages - 1, bytes = bytes - old.size - old.extra
    WHERE name = 'relay';
END;
CREATE TRIGGER outbound_charged AFTER INSERT ON outbound WHEN new.sender_group IS NOT NULL BEGIN
  INSERT INTO outbox_share VALUES
    ('', new.sender_group, 1, new.size + new.extra, new.opened),
    (new.destination, new.sender_group, 1, new.size + new.extra, new.opened),
    ('@' || new.domain, x'', 1, new.size + new.extra, new.opened)
    ON CONFLICT (scope, sender_group) DO UPDATE SET messages = messages + 1,
      bytes = bytes + excluded.bytes, opened = opened + excluded.opened;
END;
CREATE TRIGGER outbound_charged_wide AFTER INSERT ON outbound
  WHEN substr(new.sender_group, 9) <> x'0000000000000000' BEGIN
  INSERT INTO outbox_share VALUES
    ('', CAST(substr(new.sender_group, 1, 8) || zeroblob(8) AS BLOB), 1,
      new.size + new.extra, new.opened),
    (new.destination, CAST(substr(new.sender_group, 1, 8) || zeroblob(8) AS BLOB), 1,
      new.size + new.extra, new.opened)
    ON CONFLICT (scope, sender_group) DO UPDATE SET messages = messages + 1,
      bytes = bytes + excluded.bytes, opened = opened + excluded.opened;
END;
CREATE TRIGGER outbound_released AFTER DELETE ON outbound WHEN old.sender_group IS NOT NULL BEGIN
  UPDATE outbox_share SET messages = messages - 1, bytes = bytes - old.size - old.extra,
      opened = opened - old.opened
    WHERE scope = '' AND sender_group = old.sender_group;
  DELETE FROM outbox_share WHERE scope = '' AND messages = 0
    AND sender_group = old.sender_group;
  UPDATE outbox_share SET messages = messages - 1, bytes = bytes - old.size - old.extra,
      opened = opened - old.opened
    WHERE scope = old.destination AND sender_group = old.sender_group;
  DELETE FROM outbox_share WHERE scope = old.destination AND messages = 0
    AND sender_group = old.sender_group;
  UPDATE outbox_share SET messages = messages - 1, bytes = bytes - old.size - old.extra,
      opened = opened - old.opened
    WHERE scope = '@' || old.domain AND sender_group = x'';
  DELETE FROM outbox_share WHERE scope = '@' || old.domain AND messages = 0
    AND sender_group = x'';
END;
CREATE TRIGGER outbound_released_wide AFTER DELETE ON outbound
  WHEN substr(old.sender_group, 9) <> x'0000000000000000' BEGIN
  UPDATE outbox_share SET messages = messages - 1, bytes = bytes - old.size - old.extra,
      opened = opened - old.opened
    WHERE scope = '' AND sender_group = CAST(substr(old.sender_group, 1, 8) || zeroblob(8) AS BLOB);
  DELETE FROM outbox_share WHERE scope = '' AND messages = 0
    AND sender_group = CAST(substr(old.sender_group, 1, 8) || zeroblob(8) AS BLOB);
  UPDATE outbox_share SET messages = messages - 1, bytes = bytes - old.size - old.extra,
      opened = opened - old.opened
    WHERE scope = old.destination AND sender_group = CAST(substr(old.sender_group, 1, 8) || zeroblob(8) AS BLOB);
  DELETE FROM outbox_share WHERE scope = old.destination AND messages = 0
    AND sender_group = CAST(substr(old.sender_group, 1, 8) || zeroblob(8) AS BLOB);
END;
",
"
-- The hosts of the atproto accounts that have claims: their mail shares what this mediator keeps.
CREATE TABLE claimant (
  account  TEXT PRIMARY KEY,
  host     TEXT NOT NULL,                  -- registrable domain of its PDS
  is_local INTEGER NOT NULL                -- 1: its PDS is one of this service's own
) STRICT, WITHOUT ROWID;
CREATE TRIGGER claim_ended AFTER DELETE ON claim
  WHEN NOT EXISTS (SELECT 1 FROM claim WHERE account = old.account) BEGIN
  DELETE FROM claimant WHERE account = old.account;
END;
",
        "
-- Messages whose time ends while nothing is tried are found by it.
CREATE INDEX outbound_expiry ON outbound (expires_at);
",
        "
-- 1: its mail is being deleted, since every account that claimed it is denied.
ALTER TABLE recipient ADD COLUMN denied INTEGER NOT NULL DEFAULT 0;
CREATE INDEX recipient_denied ON recipient (id) WHERE denied = 1;
-- 1: the account has sent a change with its time, so that one without is refused.
ALTER TABLE account ADD COLUMN dates_changes INTEGER NOT NULL DEFAULT 0;
",
    ],
};
