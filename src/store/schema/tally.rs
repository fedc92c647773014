//! The step of `directory.db` that adds what is counted of its accounts, and the indexes of lists.

use super::Migration;

/// Counts are kept by triggers, because many statements write an entry and each of them must count:
/// a trigger has the row before and after the write at hand. A write that changes nothing that is
/// counted, as nearly every proof does, compares columns and writes no count.
pub(super) const TALLY: Migration = "
-- The state that an account is listed under, and why: its status, or the rule that its package breaks.
ALTER TABLE entry ADD COLUMN account_state TEXT GENERATED ALWAYS AS (
  CASE WHEN status <> 'active' THEN 'inactive' WHEN state = 'present' THEN 'enrolled' ELSE state END
) VIRTUAL;
ALTER TABLE entry ADD COLUMN account_reason TEXT GENERATED ALWAYS AS (
  CASE WHEN status <> 'active' THEN status
    WHEN state IN ('invalid', 'unverifiable') THEN coalesce(reason, '') END
) VIRTUAL;
-- Pages of a list are in the order of DIDs. Nearly all accounts are enrolled.
CREATE INDEX entry_pds_did ON entry (pds, did);
CREATE INDEX entry_account_state ON entry (account_state, did) WHERE account_state <> 'enrolled';

-- The number of accounts in each group. A group without an account has no row.
--   state                           every account, by account_state
--   inactive, invalid, unverifiable those accounts, by account_reason
--   pds, keyType, mediator          enrolled accounts; one with several mediators is in several groups
--   mark                            regressed, inDoubt: enrolled accounts; named: the sum of mediator;
--                                   ambiguous: did:peers that several enrolled accounts name
--   groups                          the number of groups of each kind
CREATE TABLE tally (
  kind  TEXT NOT NULL,
  name  TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tally_largest ON tally (kind, count DESC, name);
CREATE TRIGGER tally_group_added AFTER INSERT ON tally WHEN new.kind <> 'groups' BEGIN
  INSERT INTO tally VALUES ('groups', new.kind, 1)
    ON CONFLICT (kind, name) DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER tally_group_removed AFTER DELETE ON tally WHEN old.kind <> 'groups' BEGIN
  UPDATE tally SET count = count - 1 WHERE kind = 'groups' AND name = old.kind;
  DELETE FROM tally WHERE kind = 'groups' AND name = old.kind AND count = 0;
END;
CREATE TEMP TABLE counted_entries AS
  SELECT account_state AS state, account_reason AS reason, coalesce(pds, '') AS pds,
    iif(account_state = 'enrolled', key_type_of(peer), '') AS key_type,
    regressed, doubt_since IS NOT NULL AS in_doubt, count(*) AS count
  FROM entry GROUP BY 1, 2, 3, 4, 5, 6;
INSERT INTO tally SELECT 'state', state, sum(count) FROM counted_entries GROUP BY state;
INSERT INTO tally SELECT state, reason, sum(count) FROM counted_entries
  WHERE reason IS NOT NULL GROUP BY state, reason;
INSERT INTO tally SELECT 'pds', pds, sum(count) FROM counted_entries
  WHERE state = 'enrolled' GROUP BY pds;
INSERT INTO tally SELECT 'keyType', key_type, sum(count) FROM counted_entries
  WHERE state = 'enrolled' GROUP BY key_type;
INSERT INTO tally SELECT 'mark', 'regressed', sum(count) FROM counted_entries
  WHERE state = 'enrolled' AND regressed HAVING sum(count) > 0;
INSERT INTO tally SELECT 'mark', 'inDoubt', sum(count) FROM counted_entries
  WHERE state = 'enrolled' AND in_doubt HAVING sum(count) > 0;
DROP TABLE counted_entries;
-- A package may name a mediator twice. Few accounts with a package are not enrolled.
INSERT INTO tally SELECT 'mediator', mediator, sum(count) AS total FROM (
    SELECT mediator, count(DISTINCT did) AS count FROM entry_mediator GROUP BY mediator
    UNION ALL
    SELECT m.mediator, -count(DISTINCT m.did)
      FROM entry AS e INDEXED BY entry_account_state CROSS JOIN entry_mediator AS m
      WHERE e.account_state <> 'enrolled' AND m.did = e.did GROUP BY m.mediator)
  GROUP BY mediator HAVING total > 0;
INSERT INTO tally SELECT 'mark', 'named', sum(count) FROM tally
  WHERE kind = 'mediator' HAVING sum(count) > 0;
INSERT INTO tally SELECT 'mark', 'ambiguous', count(*) FROM (
    SELECT 1 FROM entry INDEXED BY entry_claimant
    WHERE peer IS NOT NULL AND state = 'present' AND status = 'active'
    GROUP BY peer HAVING count(*) > 1)
  HAVING count(*) > 0;

-- A row that is written to one of these views is added to its groups.
CREATE VIEW tallied AS SELECT kind, name, count FROM tally;
CREATE TRIGGER tallied_added INSTEAD OF INSERT ON tallied BEGIN
  INSERT INTO tally VALUES (new.kind, new.name, new.count)
    ON CONFLICT (kind, name) DO UPDATE SET count = count + excluded.count;
  DELETE FROM tally WHERE kind = new.kind AND name = new.name AND count = 0;
END;
CREATE VIEW tallied_state AS SELECT account_state, account_reason, 0 AS count FROM entry;
CREATE TRIGGER tallied_state_added INSTEAD OF INSERT ON tallied_state BEGIN
  INSERT INTO tallied VALUES ('state', new.account_state, new.count);
  INSERT INTO tallied SELECT new.account_state, new.account_reason, new.count
    WHERE new.account_reason IS NOT NULL;
END;
CREATE VIEW tallied_package AS SELECT pds, peer, 0 AS count FROM entry;
CREATE TRIGGER tallied_package_added INSTEAD OF INSERT ON tallied_package BEGIN
  INSERT INTO tallied VALUES ('pds', coalesce(new.pds, ''), new.count);
  INSERT INTO tallied VALUES ('keyType', key_type_of(new.peer), new.count);
END;
CREATE VIEW tallied_mediator AS SELECT mediator, 0 AS count FROM entry_mediator;
CREATE TRIGGER tallied_mediator_added INSTEAD OF INSERT ON tallied_mediator BEGIN
  INSERT INTO tallied VALUES ('mediator', new.mediator, new.count);
  INSERT INTO tallied VALUES ('mark', 'named', new.count);
END;

CREATE TRIGGER entry_tally_added AFTER INSERT ON entry BEGIN
  INSERT INTO tallied_state VALUES (new.account_state, new.account_reason, 1);
END;
CREATE TRIGGER entry_tally_package_added AFTER INSERT ON entry
  WHEN new.account_state = 'enrolled' BEGIN
  INSERT INTO tallied_package VALUES (new.pds, new.peer, 1);
  INSERT INTO tallied SELECT 'mark', 'regressed', 1 WHERE new.regressed;
  INSERT INTO tallied SELECT 'mark', 'inDoubt', 1 WHERE new.doubt_since IS NOT NULL;
  INSERT INTO tallied SELECT 'mark', 'ambiguous', 1 WHERE 2 = (SELECT count(*) FROM (
    SELECT 1 FROM entry WHERE peer = new.peer AND state = 'present' AND status = 'active' LIMIT 3));
END;
CREATE TRIGGER entry_tally_state AFTER UPDATE OF status, state, reason ON entry
  WHEN new.account_state <> old.account_state OR new.account_reason IS NOT old.account_reason BEGIN
  INSERT INTO tallied_state VALUES (old.account_state, old.account_reason, -1);
  INSERT INTO tallied_state VALUES (new.account_state, new.account_reason, 1);
END;
CREATE TRIGGER entry_tally_package AFTER UPDATE OF status, state, pds, peer ON entry
  WHEN 'enrolled' IN (new.account_state, old.account_state)
    AND (new.account_state <> old.account_state
      OR new.pds IS NOT old.pds OR new.peer IS NOT old.peer) BEGIN
  INSERT INTO tallied_package SELECT old.pds, old.peer, -1 WHERE old.account_state = 'enrolled';
  INSERT INTO tallied_package SELECT new.pds, new.peer, 1 WHERE new.account_state = 'enrolled';
END;
CREATE TRIGGER entry_tally_marks AFTER UPDATE OF status, state, regressed, doubt_since ON entry
  WHEN (new.account_state = 'enrolled' AND (new.regressed OR new.doubt_since IS NOT NULL))
    OR (old.account_state = 'enrolled' AND (old.regressed OR old.doubt_since IS NOT NULL)) BEGIN
  INSERT INTO tallied SELECT 'mark', 'regressed', is_marked - was_marked FROM (
    SELECT new.account_state = 'enrolled' AND new.regressed AS is_marked,
      old.account_state = 'enrolled' AND old.regressed AS was_marked)
    WHERE is_marked <> was_marked;
  INSERT INTO tallied SELECT 'mark', 'inDoubt', is_marked - was_marked FROM (
    SELECT new.account_state = 'enrolled' AND new.doubt_since IS NOT NULL AS is_marked,
      old.account_state = 'enrolled' AND old.doubt_since IS NOT NULL AS was_marked)
    WHERE is_marked <> was_marked;
END;
-- A did:peer is ambiguous from its second claimant on, and no longer when one is left.
CREATE TRIGGER entry_tally_claim_ended AFTER UPDATE OF status, state, peer ON entry
  WHEN old.account_state = 'enrolled'
    AND (new.account_state <> 'enrolled' OR new.peer IS NOT old.peer) BEGIN
  INSERT INTO tallied SELECT 'mark', 'ambiguous', -1 WHERE 1 = (SELECT count(*) FROM (
    SELECT 1 FROM entry WHERE peer = old.peer AND state = 'present' AND status = 'active' LIMIT 2));
END;
CREATE TRIGGER entry_tally_claim_begun AFTER UPDATE OF status, state, peer ON entry
  WHEN new.account_state = 'enrolled'
    AND (old.account_state <> 'enrolled' OR new.peer IS NOT old.peer) BEGIN
  INSERT INTO tallied SELECT 'mark', 'ambiguous', 1 WHERE 2 = (SELECT count(*) FROM (
    SELECT 1 FROM entry WHERE peer = new.peer AND state = 'present' AND status = 'active' LIMIT 3));
END;
CREATE TRIGGER entry_tally_mediators AFTER UPDATE OF status, state ON entry
  WHEN (new.account_state = 'enrolled') <> (old.account_state = 'enrolled') BEGIN
  INSERT INTO tallied_mediator
    SELECT DISTINCT mediator, iif(new.account_state = 'enrolled', 1, -1)
    FROM entry_mediator WHERE did = new.did;
END;
-- Before: its mediators go with the entry.
CREATE TRIGGER entry_tally_removed BEFORE DELETE ON entry BEGIN
  INSERT INTO tallied_state VALUES (old.account_state, old.account_reason, -1);
END;
CREATE TRIGGER entry_tally_package_removed BEFORE DELETE ON entry
  WHEN old.account_state = 'enrolled' BEGIN
  INSERT INTO tallied_package VALUES (old.pds, old.peer, -1);
  INSERT INTO tallied SELECT 'mark', 'regressed', -1 WHERE old.regressed;
  INSERT INTO tallied SELECT 'mark', 'inDoubt', -1 WHERE old.doubt_since IS NOT NULL;
  INSERT INTO tallied SELECT 'mark', 'ambiguous', -1 WHERE 2 = (SELECT count(*) FROM (
    SELECT 1 FROM entry WHERE peer = old.peer AND state = 'present' AND status = 'active' LIMIT 3));
  INSERT INTO tallied_mediator
    SELECT DISTINCT mediator, -1 FROM entry_mediator WHERE did = old.did;
END;
-- A mediator counts at the first of its places in a package. One that goes with its entry has none.
CREATE TRIGGER entry_mediator_tally_added AFTER INSERT ON entry_mediator
  WHEN (SELECT account_state FROM entry WHERE did = new.did) = 'enrolled'
    AND NOT EXISTS (SELECT 1 FROM entry_mediator AS m WHERE m.mediator = new.mediator
      AND m.did = new.did AND m.position <> new.position) BEGIN
  INSERT INTO tallied_mediator VALUES (new.mediator, 1);
END;
CREATE TRIGGER entry_mediator_tally_removed AFTER DELETE ON entry_mediator
  WHEN (SELECT account_state FROM entry WHERE did = old.did) = 'enrolled'
    AND NOT EXISTS (SELECT 1 FROM entry_mediator AS m WHERE m.mediator = old.mediator
      AND m.did = old.did) BEGIN
  INSERT INTO tallied_mediator VALUES (old.mediator, -1);
END;
";

/// What happened, hour by hour. The change log tells what an account had before: a change has the
/// did:peer that the account's entry had then, so the newest one that tells of a package is enough,
/// also where older ones were deleted for their age.
pub(super) const CHANGE_HOURS: Migration = "
-- Changes of one hour, kept for a month.
--   enrolment  a valid package of an account that had none
--   rotation   a valid package with another did:peer than the one that it replaces
--   removal    a package that is gone, proven or by the word of the PDS
--   deletion   an account that ended
CREATE TABLE change_hour (
  hour  INTEGER NOT NULL,          -- hours since 1970
  kind  TEXT NOT NULL,
  count INTEGER NOT NULL,
  PRIMARY KEY (hour, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO change_hour SELECT seen_at / 3600000, CASE kind
    WHEN 'removed' THEN 'removal' WHEN 'deleted' THEN 'deletion'
    ELSE iif(had IS NULL, 'enrolment', 'rotation') END, count(*)
  FROM (SELECT kind, peer, seen_at,
      lag(CASE WHEN kind NOT IN ('removed', 'invalid', 'dropped', 'deleted') THEN peer END)
        OVER log AS had,
      lag(kind = 'removed' OR (kind = 'unverifiable' AND cid IS NULL)) OVER log AS was_gone
    FROM change
    WHERE kind IN ('package', 'invalid', 'removed', 'unverifiable', 'dropped', 'deleted')
      OR peer IS NOT NULL
    WINDOW log AS (PARTITION BY did ORDER BY seq))
  WHERE seen_at >= (SELECT max(seen_at) FROM change) - 2678400000
    AND CASE kind WHEN 'package' THEN had IS NOT peer
      WHEN 'removed' THEN NOT coalesce(was_gone, 0) ELSE kind = 'deleted' END
  GROUP BY 1, 2;
CREATE TRIGGER change_hour_added AFTER INSERT ON change
  WHEN new.kind IN ('package', 'removed', 'deleted') BEGIN
  INSERT INTO change_hour SELECT new.seen_at / 3600000, CASE new.kind
      WHEN 'removed' THEN 'removal' WHEN 'deleted' THEN 'deletion'
      ELSE iif(had IS NULL, 'enrolment', 'rotation') END, 1
    FROM (SELECT
        CASE WHEN kind NOT IN ('removed', 'invalid', 'dropped', 'deleted') THEN peer END AS had,
        kind = 'removed' OR (kind = 'unverifiable' AND cid IS NULL) AS was_gone
      FROM (SELECT 1) LEFT JOIN (SELECT kind, peer, cid FROM change
        WHERE did = new.did AND seq < new.seq
          AND (kind IN ('package', 'invalid', 'removed', 'unverifiable', 'dropped', 'deleted')
            OR peer IS NOT NULL)
        ORDER BY seq DESC LIMIT 1))
    WHERE CASE new.kind WHEN 'package' THEN had IS NOT new.peer
      WHEN 'removed' THEN NOT coalesce(was_gone, 0) ELSE 1 END
    ON CONFLICT (hour, kind) DO UPDATE SET count = count + 1;
END;
";
