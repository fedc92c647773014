//! Questions to `directory.db`.

use std::sync::LazyLock;

use rusqlite::{OptionalExtension as _, params};

use super::super::columns::{collect, maybe_time, parsed, to_i64};
use super::super::error::{Damage, StoreError};
use super::Queries;
use super::changes::{Change, read_change};
use super::entry_row::{COLUMNS, read_entry};
use super::rows::{
    AccountStatus, DueHandle, DuePosition, Entry, MediatorRow, PendingRefresh, SourceCursor,
    read_due_handle, read_mediator, read_pending,
};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, Handle, MediatorDid};

/// A label or other mediators do not change the time at which an account first named a did:peer, so
/// that no later claimant comes before it.
pub(super) const CLAIMANTS: &str = "SELECT did FROM entry INDEXED BY entry_claimant
 WHERE peer = ?1 AND state = 'present' AND status = 'active'
 ORDER BY peer_since, did LIMIT ?2";

/// Reads the index in order from the position on.
pub(super) const DUE_HANDLES: &str = "SELECT rowid, did, claimed, pds, handle_next_at FROM entry
 WHERE handle_news = ?1 AND handle_next_at <= ?2 AND (handle_next_at, rowid) > (?3, ?4)
 ORDER BY handle_next_at, rowid LIMIT ?5";

/// Reads two rows at most.
pub(super) const OTHER_CLAIMANT: &str = "SELECT 1 FROM entry INDEXED BY entry_claimant
 WHERE peer = ?1 AND state = 'present' AND status = 'active' AND did <> ?2 LIMIT 1";

static ENTRY: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM entry WHERE did = ?1", COLUMNS.join(", ")));

/// What the commonest question needs, in one statement.
static PROVEN_ENTRY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {}, (SELECT car FROM proof WHERE proof.did = entry.did), EXISTS (SELECT 1 FROM gap)
         FROM entry WHERE did = ?1",
        COLUMNS.join(", ")
    )
});

/// An entry with what a view of it needs.
pub struct ProvenEntry {
    /// The entry. Gaps that have not come to it yet are in its `doubt_since`.
    pub entry: Entry,
    /// CAR of its newest proof, of presence or absence.
    pub proof: Option<Vec<u8>>,
}

impl Queries<'_> {
    /// Returns the entry of an account.
    pub fn entry(&self, did: &Did) -> Result<Option<Entry>, StoreError> {
        let mut query = self.0.prepare_cached(&ENTRY)?;
        let entry = query.query_row([did.as_str()], read_entry).optional()?;
        entry.map(|entry| self.with_mediators(entry)).transpose()
    }

    /// Returns the entry of an account and its proof.
    pub fn proven_entry(&self, did: &Did) -> Result<Option<ProvenEntry>, StoreError> {
        let mut query = self.0.prepare_cached(&PROVEN_ENTRY)?;
        let row = query.query_row([did.as_str()], |row| {
            let (proof, gaps): (_, bool) = (row.get(COLUMNS.len())?, row.get(COLUMNS.len() + 1)?);
            Ok((read_entry(row)?, proof, gaps))
        });
        let Some((entry, proof, gaps)) = row.optional()? else {
            return Ok(None);
        };
        let mut entry = self.with_mediators(entry)?;
        if gaps && let Some(since) = self.unmarked_doubt(did)? {
            entry.doubt_since = Some(entry.doubt_since.map_or(since, |doubt| doubt.min(since)));
        }
        Ok(Some(ProvenEntry { entry, proof }))
    }

    /// Returns the CAR of an account's newest proof, of presence or absence.
    pub fn proof(&self, did: &Did) -> Result<Option<Vec<u8>>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT car FROM proof WHERE did = ?1")?;
        Ok(query
            .query_row([did.as_str()], |row| row.get(0))
            .optional()?)
    }

    /// Returns the length of an account's newest proof, without reading it; 0 where there is none.
    pub fn proof_len(&self, did: &Did) -> Result<u64, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT proof_size FROM entry WHERE did = ?1")?;
        let len: Option<i64> = query
            .query_row([did.as_str()], |row| row.get(0))
            .optional()?;
        Ok(len.and_then(|len| u64::try_from(len).ok()).unwrap_or(0))
    }

    /// Returns the count of proofs of an entry, the time until which it is known good, and the
    /// account's status.
    pub fn entry_state(
        &self,
        did: &Did,
    ) -> Result<Option<(i64, Option<Timestamp>, AccountStatus)>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT proofs, doubt_since, status FROM entry WHERE did = ?1")?;
        let row = query.query_row([did.as_str()], |row| {
            let status = AccountStatus::parse(row.get_ref("status")?.as_str()?);
            Ok((row.get("proofs")?, maybe_time(row, "doubt_since")?, status))
        });
        Ok(row.optional()?)
    }

    /// Returns the account with this verified handle, if the two named each other between `since`
    /// and `until`.
    pub fn did_by_handle(
        &self,
        handle: &Handle,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Did>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT did FROM entry WHERE handle = ?1 AND handle_at BETWEEN ?2 AND ?3
             ORDER BY handle_at DESC",
        )?;
        let params = params![handle.as_str(), since.millis(), until.millis()];
        Ok(query
            .query_row(params, |row| parsed(row, 0, Did::parse))
            .optional()?)
    }

    /// Returns the claimed handles whose check is due by `now`, because of news or of age, in the
    /// order in which they became due; those after a position, at most `limit`.
    pub fn due_handles(
        &self,
        is_news: bool,
        now: Timestamp,
        after: DuePosition,
        limit: usize,
    ) -> Result<Vec<DueHandle>, StoreError> {
        let mut query = self.0.prepare_cached(DUE_HANDLES)?;
        let DuePosition(due_at, row) = after;
        let params = params![is_news, now.millis(), due_at.millis(), row, to_i64(limit)];
        collect(query.query_map(params, read_due_handle)?)
    }

    /// Returns the handle that an account claims, if its check is due by `now`.
    pub fn due_handle(&self, did: &Did, now: Timestamp) -> Result<Option<Handle>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT claimed FROM entry WHERE did = ?1 AND handle_next_at <= ?2")?;
        let found = query.query_row(params![did.as_str(), now.millis()], |row| {
            parsed(row, 0, Handle::parse)
        });
        Ok(found.optional()?)
    }

    /// Returns the active accounts whose present package names this did:peer, at most `limit`, in
    /// the order in which they first named it.
    pub fn claimants(&self, peer: &str, limit: usize) -> Result<Vec<Did>, StoreError> {
        let mut query = self.0.prepare_cached(CLAIMANTS)?;
        collect(query.query_map(params![peer, to_i64(limit)], |row| {
            parsed(row, 0, Did::parse)
        })?)
    }

    /// Returns whether another active account than this one names this did:peer in its present
    /// package.
    pub fn has_other_claimant(&self, peer: &str, did: &Did) -> Result<bool, StoreError> {
        let mut query = self.0.prepare_cached(OTHER_CLAIMANT)?;
        Ok(query.exists(params![peer, did.as_str()])?)
    }

    /// Returns the mediators that the package of an account names, in its order.
    pub fn mediators_of(&self, did: &Did) -> Result<Vec<MediatorDid>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT mediator FROM entry_mediator WHERE did = ?1 ORDER BY position",
        )?;
        collect(query.query_map([did.as_str()], |row| parsed(row, 0, MediatorDid::parse))?)
    }

    /// Calls `each` with every account in the directory.
    pub fn each_did(&self, mut each: impl FnMut(&str)) -> Result<(), StoreError> {
        let mut query = self.0.prepare("SELECT did FROM entry")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            each(
                row.get_ref(0)?
                    .as_str()
                    .map_err(|error| StoreError::Corrupt(Damage::Engine(error.into())))?,
            );
        }
        Ok(())
    }

    /// Returns the number of accounts in the directory.
    pub fn entry_count(&self) -> Result<u64, StoreError> {
        let count: i64 = self
            .0
            .query_row("SELECT count(*) FROM entry", [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Returns the entries to be checked again by `now`, the longest due first.
    pub fn due_entries(&self, now: Timestamp, limit: usize) -> Result<Vec<Did>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT did FROM entry WHERE next_check_at <= ?1 ORDER BY next_check_at LIMIT ?2",
        )?;
        collect(
            query.query_map(params![now.millis(), to_i64(limit)], |row| {
                parsed(row, 0, Did::parse)
            })?,
        )
    }

    /// Returns the pending refreshes that are due by `now`: news first, then listings, each with
    /// the longest due first.
    pub fn due_pending(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<PendingRefresh>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT * FROM pending WHERE listed = ?1 AND not_before <= ?2
             ORDER BY not_before LIMIT ?3",
        )?;
        let mut due = Vec::new();
        for listed in [false, true] {
            let rest = to_i64(limit - due.len());
            due.extend(collect(
                query.query_map(params![listed, now.millis(), rest], read_pending)?,
            )?);
        }
        Ok(due)
    }

    /// Returns how many pending refreshes are due by `now` because of a listing.
    pub fn listed_pending_count(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT count(*) FROM pending WHERE listed = 1 AND not_before <= ?1")?;
        let count: i64 = query.query_row([now.millis()], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Returns the pending refresh of one account.
    pub fn pending(&self, did: &Did) -> Result<Option<PendingRefresh>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM pending WHERE did = ?1")?;
        Ok(query.query_row([did.as_str()], read_pending).optional()?)
    }

    /// Returns the number of pending refreshes.
    pub fn pending_count(&self) -> Result<u64, StoreError> {
        let mut query = self.0.prepare_cached("SELECT count(*) FROM pending")?;
        let count: i64 = query.query_row([], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Returns the stored document of a mediator.
    pub fn mediator(&self, did: &MediatorDid) -> Result<Option<MediatorRow>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM mediator WHERE did = ?1")?;
        Ok(query.query_row([did.as_str()], read_mediator).optional()?)
    }

    /// Returns the mediators to be looked up again by `now`.
    pub fn due_mediators(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<MediatorRow>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT * FROM mediator WHERE next_check_at <= ?1 ORDER BY next_check_at LIMIT ?2",
        )?;
        collect(query.query_map(params![now.millis(), to_i64(limit)], read_mediator)?)
    }

    /// Returns whether any package names this mediator.
    pub fn is_named(&self, did: &MediatorDid) -> Result<bool, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT 1 FROM entry_mediator WHERE mediator = ?1 LIMIT 1")?;
        Ok(query.exists([did.as_str()])?)
    }

    /// Returns the accounts whose package names this mediator, at most `limit`.
    pub fn accounts_of_mediator(
        &self,
        did: &MediatorDid,
        limit: usize,
    ) -> Result<Vec<Did>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT DISTINCT did FROM entry_mediator WHERE mediator = ?1 LIMIT ?2",
        )?;
        collect(
            query.query_map(params![did.as_str(), to_i64(limit)], |row| {
                parsed(row, 0, Did::parse)
            })?,
        )
    }

    /// Returns the changes of one account, the newest first.
    pub fn changes(&self, did: &Did, limit: usize) -> Result<Vec<Change>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM change WHERE did = ?1 ORDER BY seq DESC LIMIT ?2")?;
        collect(query.query_map(params![did.as_str(), to_i64(limit)], read_change)?)
    }

    /// Calls `each` with the changes of one account before a position, the newest first, until it
    /// returns `false`. Their proofs are read only on demand. The end of the account that had the
    /// DID before is none of them.
    pub fn each_change(
        &self,
        did: &Did,
        before: Option<i64>,
        with_proof: bool,
        mut each: impl FnMut(Change) -> bool,
    ) -> Result<(), StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT seq, did, kind, rev, cid, peer, mediators, key, detail, seen_at, status,
                    state, reason, handle, pds, regressed, CASE WHEN ?3 THEN proof END AS proof
             FROM change WHERE did = ?1 AND seq < ?2 AND kind <> 'deleted' ORDER BY seq DESC",
        )?;
        let before = before.unwrap_or(i64::MAX);
        let mut rows = query.query(params![did.as_str(), before, with_proof])?;
        while let Some(row) = rows.next()? {
            if !each(read_change(row)?) {
                break;
            }
        }
        Ok(())
    }

    /// Returns the number of older revisions that the PDS of an account served.
    pub fn evidence_count(&self, did: &Did) -> Result<u64, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT count(*) FROM evidence WHERE did = ?1")?;
        let count: i64 = query.query_row([did.as_str()], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Returns the positions and accounts of the changes after `seq`, the oldest first, at most
    /// `limit`. Of an account that changes without end only the newest changes are kept.
    pub fn changes_after(&self, seq: i64, limit: usize) -> Result<Vec<(i64, Did)>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT seq, did FROM change WHERE seq > ?1 ORDER BY seq LIMIT ?2")?;
        collect(query.query_map(params![seq, to_i64(limit)], |row| {
            Ok((row.get(0)?, parsed(row, 1, Did::parse)?))
        })?)
    }

    /// Returns the position of the newest change; 0 where there never was one.
    pub fn newest_change(&self) -> Result<i64, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT coalesce(max(seq), 0) FROM change")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// Returns what distinguishes a change from one at the same position in another log, or `None`
    /// where there is no change.
    pub fn change_mark(&self, seq: i64) -> Result<Option<String>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT did || ' ' || seen_at FROM change WHERE seq = ?1")?;
        Ok(query.query_row([seq], |row| row.get(0)).optional()?)
    }

    /// Returns the cursor of a source.
    pub fn cursor(&self, source: &str) -> Result<Option<SourceCursor>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT source, position, event_time FROM cursor WHERE source = ?1")?;
        let row = query.query_row([source], |row| {
            Ok(SourceCursor {
                source: row.get(0)?,
                position: row.get(1)?,
                event_time: row.get(2)?,
            })
        });
        Ok(row.optional()?)
    }

    fn with_mediators(&self, mut entry: Entry) -> Result<Entry, StoreError> {
        entry.mediators = self.mediators_of(&entry.did)?;
        Ok(entry)
    }
}
