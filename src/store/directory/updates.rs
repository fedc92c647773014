//! The change log as its readers see it: the state of the account after each change, in order.
//!
//! The newest change of each account with an entry is never deleted, so a reader that begins at 0
//! learns the state of every account. Earlier changes of an account are kept in bounded number, and
//! the ends of accounts for a bounded time: a reader that may have missed one of these is told so.

use ipld_core::cid::Cid;
use rusqlite::{OptionalExtension as _, params};

use super::super::columns::{collect, maybe_time, parsed, to_i64};
use super::super::error::StoreError;
use super::changes::{Change, read_change};
use super::rows::AccountStatus;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// Starts that are known one by one. A reader of a time before them begins anew.
const MAX_STARTS: i64 = 1000;

/// Reads the log in its own order, and one row of `entry` for each change.
pub(super) const LOGGED: &str = "SELECT c.seq, c.did, c.kind, c.rev, c.cid, c.peer, c.mediators,
   c.key, c.detail, c.seen_at, NULL AS proof, c.status, c.state, c.reason, c.handle, c.pds,
   c.regressed, e.status AS status_now
 FROM change AS c LEFT JOIN entry AS e ON e.did = c.did
 WHERE c.seq > ?1 ORDER BY c.seq";

/// Reads the index by account: few rows, since most changes tell a state.
pub(super) const CHANGE_BEFORE: &str =
    "SELECT seq, did, kind, rev, cid, peer, mediators, key, detail,
   seen_at, NULL AS proof, status, state, reason, handle, pds, regressed
 FROM change WHERE did = ?1 AND seq < ?2
   AND (status IS NOT NULL OR kind IN ('dropped', 'deleted')) ORDER BY seq DESC LIMIT 1";

/// Reads one row of the index by doubt, and all gaps: at most one of each source.
pub(super) const KNOWN_GOOD: &str = "SELECT min(since) AS since FROM (
   SELECT min(since) AS since FROM gap
   UNION ALL SELECT min(doubt_since) FROM entry WHERE doubt_since IS NOT NULL)";

/// Reads the index by the time of confirmation.
pub(super) const EXPIRED_HANDLES: &str = "SELECT did FROM entry
 WHERE handle IS NOT NULL AND handle_at < ?1 ORDER BY handle_at LIMIT ?2";

/// A change as a reader of the log finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedChange {
    /// The change, without a proof.
    pub change: Change,
    /// Whether the account has an entry now and its status does not hide it.
    pub is_active_now: bool,
}

/// The log, and where a reader stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPosition {
    /// Name of the log.
    pub stream: String,
    /// The newest position; 0 where there never was a change.
    pub newest: i64,
    /// A reader at an earlier position may have missed the end of an account.
    pub floor: i64,
    /// Whether this log has never given the reader's position.
    pub is_foreign: bool,
}

impl Queries<'_> {
    /// Returns the log, and how a reader's position stands to it.
    pub fn log_position(&self, position: i64) -> Result<LogPosition, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT stream, floor FROM change_log")?;
        let (stream, floor) = query.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(LogPosition {
            stream,
            newest: self.newest_change()?,
            floor,
            is_foreign: self.is_foreign_position(position)?,
        })
    }

    /// Returns whether this log has never given a position, although it has given later ones or is
    /// about to: the position is of a log that this file, or the file that it was restored over,
    /// went on with.
    pub fn is_foreign_position(&self, position: i64) -> Result<bool, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT previous FROM change_log_start WHERE first > ?1 ORDER BY first LIMIT 1",
        )?;
        let previous: Option<i64> = query.query_row([position], |row| row.get(0)).optional()?;
        Ok(previous.is_some_and(|previous| position > previous))
    }

    /// Calls `each` with the changes after a position, in order, until it returns `false`.
    pub fn each_logged(
        &self,
        position: i64,
        mut each: impl FnMut(LoggedChange) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut query = self.0.prepare_cached(LOGGED)?;
        let mut rows = query.query([position])?;
        while let Some(row) = rows.next()? {
            let status = row
                .get_ref("status_now")?
                .as_str_or_null()
                .map_err(rusqlite::Error::from)?;
            let logged = LoggedChange {
                is_active_now: status.is_some_and(|word| AccountStatus::parse(word).is_active()),
                change: read_change(row)?,
            };
            if !each(logged)? {
                break;
            }
        }
        Ok(())
    }

    /// Returns the last change of an account before a position that tells a state, or the end of the
    /// entry, without its proof.
    pub fn change_before(&self, did: &Did, position: i64) -> Result<Option<Change>, StoreError> {
        let mut query = self.0.prepare_cached(CHANGE_BEFORE)?;
        let row = query.query_row(params![did.as_str(), position], read_change);
        Ok(row.optional()?)
    }

    /// Returns a proof with the record of this CID: the newest proof of the account, or one that was
    /// saved when the record was replaced.
    pub fn proof_of_record(&self, did: &Did, cid: &Cid) -> Result<Option<Vec<u8>>, StoreError> {
        let cid = cid.to_string();
        for sql in [
            "SELECT car FROM entry JOIN proof USING (did) WHERE entry.did = ?1 AND entry.cid = ?2",
            "SELECT proof FROM change WHERE did = ?1 AND cid = ?2 AND proof IS NOT NULL
             ORDER BY seq DESC LIMIT 1",
        ] {
            let mut query = self.0.prepare_cached(sql)?;
            let row = query.query_row(params![did.as_str(), cid], |row| row.get(0));
            if let Some(car) = row.optional()? {
                return Ok(Some(car));
            }
        }
        Ok(None)
    }

    /// Returns the earliest time until which an entry is known good, of those in doubt.
    pub fn known_good_until(&self) -> Result<Option<Timestamp>, StoreError> {
        let mut query = self.0.prepare_cached(KNOWN_GOOD)?;
        Ok(query.query_row([], |row| maybe_time(row, "since"))?)
    }

    /// Returns the accounts whose handle was confirmed before a time, at most `limit`.
    pub fn expired_handles(&self, before: Timestamp, limit: usize) -> Result<Vec<Did>, StoreError> {
        let mut query = self.0.prepare_cached(EXPIRED_HANDLES)?;
        let params = params![before.millis(), to_i64(limit)];
        collect(query.query_map(params, |row| parsed(row, 0, Did::parse))?)
    }
}

impl Tx<'_> {
    /// Lets positions go on at a number that no earlier start can have reached: the time in
    /// microseconds, or behind the newest position where that is later. Positions that were given
    /// after this file was copied are told from its own by that. To be called once, at the start.
    pub fn begin_log(&self, now: Timestamp) -> Result<(), StoreError> {
        let newest = self.newest_change()?;
        let given: Option<i64> = self
            .conn()
            .query_row(
                "SELECT seq FROM sqlite_sequence WHERE name = 'change'",
                [],
                |row| row.get(0),
            )
            .optional()?;
        let first = (given.unwrap_or(0).max(newest) + 1).max(now.millis().saturating_mul(1000));
        // A start after which nothing changed is replaced.
        self.conn()
            .execute("DELETE FROM change_log_start WHERE first > ?1", [newest])?;
        self.conn().execute(
            "INSERT INTO change_log_start (first, previous) VALUES (?1, ?2)",
            [first, newest],
        )?;
        let sql = if given.is_some() {
            "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'change'"
        } else {
            "INSERT INTO sqlite_sequence (name, seq) VALUES ('change', ?1)"
        };
        self.conn().execute(sql, [first - 1])?;
        self.bound_starts()
    }

    /// Forgets the oldest starts. Positions of before are too old then.
    fn bound_starts(&self) -> Result<(), StoreError> {
        let forgotten: Option<i64> = self.conn().query_row(
            "SELECT max(first) FROM (SELECT first FROM change_log_start
               ORDER BY first DESC LIMIT -1 OFFSET ?1)",
            [MAX_STARTS],
            |row| row.get(0),
        )?;
        if let Some(first) = forgotten {
            self.conn()
                .execute("DELETE FROM change_log_start WHERE first <= ?1", [first])?;
            self.raise_floor(first)?;
        }
        Ok(())
    }

    /// Notes that a reader before this position may have missed the end of an account.
    pub(super) fn raise_floor(&self, position: i64) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE change_log SET floor = max(floor, ?1)")?
            .execute([position])?;
        Ok(())
    }
}
