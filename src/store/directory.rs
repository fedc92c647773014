//! `directory.db`: entries, change log, owed work and cursors.

use std::ops::Deref;
use std::path::Path;

use ipld_core::cid::Cid;
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::database::Database;
use super::row::{
    AccountStatus, Change, ChangeKind, Entry, MediatorRow, Owed, PackageState, PendingRow,
    ProofMethod, SourceCursor, WalkRow,
};
use super::{StoreError, schema};
use crate::clock::Timestamp;
use crate::key::SigningKey;
use crate::syntax::{Did, Handle, MediatorDid, Origin, Rev};

/// The directory's file.
pub struct DirectoryStore {
    db: Database,
}

impl DirectoryStore {
    /// Opens or creates `path`.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            db: Database::open(path, schema::DIRECTORY)?,
        })
    }

    /// Runs `work` in one transaction: all of it or nothing, durable when this returns. Safe to
    /// call concurrently; transactions are done one after the other in the order of the calls.
    pub async fn transact<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.db.write(move |conn| work(&Tx(Queries(conn)))).await
    }

    /// Runs `work` on a consistent view beside the writer.
    pub async fn query<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Queries<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.db.read(move |conn| work(&Queries(conn))).await
    }

    /// Whether the last write succeeded.
    pub fn is_healthy(&self) -> bool {
        self.db.is_healthy()
    }

    /// Writes what waits and closes the file for writing.
    pub async fn shutdown(&self) {
        self.db.shutdown().await;
    }
}

/// Questions to the file.
pub struct Queries<'c>(&'c Connection);

impl Queries<'_> {
    /// The entry of an account.
    pub fn entry(&self, did: &Did) -> Result<Option<Entry>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM entry WHERE did = ?1")?;
        let entry = query.query_row([did.as_str()], read_entry).optional()?;
        entry.map(|entry| self.with_mediators(entry)).transpose()
    }

    /// The account whose verified handle this is.
    pub fn did_by_handle(&self, handle: &Handle) -> Result<Option<Did>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT did FROM entry WHERE handle = ?1 ORDER BY proved_at DESC")?;
        Ok(query
            .query_row([handle.as_str()], |row| parsed(row, 0, Did::parse))
            .optional()?)
    }

    /// Active accounts whose present package names this did:peer, at most `limit`.
    pub fn claimants(&self, peer: &str, limit: usize) -> Result<Vec<Did>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT did FROM entry WHERE peer = ?1 AND state = 'present' AND status = 'active'
             ORDER BY observed_at LIMIT ?2",
        )?;
        collect(query.query_map(params![peer, to_i64(limit)], |row| {
            parsed(row, 0, Did::parse)
        })?)
    }

    /// Every account in the directory, handed to `each`.
    pub fn each_did(&self, mut each: impl FnMut(&str)) -> Result<(), StoreError> {
        let mut query = self.0.prepare("SELECT did FROM entry")?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            each(
                row.get_ref(0)?
                    .as_str()
                    .map_err(|e| StoreError::Corrupt(e.to_string()))?,
            );
        }
        Ok(())
    }

    /// Accounts in the directory.
    pub fn entry_count(&self) -> Result<u64, StoreError> {
        let count: i64 = self
            .0
            .query_row("SELECT count(*) FROM entry", [], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Entries to be looked at again by `now`, the longest due first.
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

    /// Owed looks that are due by `now`, the longest due first.
    pub fn due_pending(&self, now: Timestamp, limit: usize) -> Result<Vec<PendingRow>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT * FROM pending WHERE not_before <= ?1 ORDER BY not_before LIMIT ?2",
        )?;
        collect(query.query_map(params![now.millis(), to_i64(limit)], read_pending)?)
    }

    /// The look owed to one account.
    pub fn pending(&self, did: &Did) -> Result<Option<PendingRow>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM pending WHERE did = ?1")?;
        Ok(query.query_row([did.as_str()], read_pending).optional()?)
    }

    /// Looks owed in all.
    pub fn pending_count(&self) -> Result<u64, StoreError> {
        let mut query = self.0.prepare_cached("SELECT count(*) FROM pending")?;
        let count: i64 = query.query_row([], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// What is known of a mediator.
    pub fn mediator(&self, did: &MediatorDid) -> Result<Option<MediatorRow>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM mediator WHERE did = ?1")?;
        Ok(query.query_row([did.as_str()], read_mediator).optional()?)
    }

    /// Mediators to be looked up again by `now`.
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

    /// Accounts whose package names this mediator, at most `limit`.
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

    /// Changes of one account, the newest first.
    pub fn changes(&self, did: &Did, limit: usize) -> Result<Vec<Change>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM change WHERE did = ?1 ORDER BY seq DESC LIMIT ?2")?;
        collect(query.query_map(params![did.as_str(), to_i64(limit)], read_change)?)
    }

    /// How far a source is processed.
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

    /// How far the enumeration of a source has come.
    pub fn walk(&self, source: &str) -> Result<Option<WalkRow>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM walk WHERE source = ?1")?;
        let row = query.query_row([source], |row| {
            Ok(WalkRow {
                source: row.get("source")?,
                position: row.get("position")?,
                seen: row.get("seen")?,
                started_at: time(row, "started_at")?,
                done_at: row
                    .get::<_, Option<i64>>("done_at")?
                    .map(Timestamp::from_millis),
            })
        });
        Ok(row.optional()?)
    }

    fn with_mediators(&self, mut entry: Entry) -> Result<Entry, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT mediator FROM entry_mediator WHERE did = ?1 ORDER BY position",
        )?;
        entry.mediators = collect(query.query_map([entry.did.as_str()], |row| {
            parsed(row, 0, MediatorDid::parse)
        })?)?;
        Ok(entry)
    }
}

/// A transaction: [`Queries`] that see its own writes, and the writes.
pub struct Tx<'c>(Queries<'c>);

impl<'c> Deref for Tx<'c> {
    type Target = Queries<'c>;
    fn deref(&self) -> &Queries<'c> {
        &self.0
    }
}

impl Tx<'_> {
    fn conn(&self) -> &Connection {
        self.0.0
    }

    /// Writes an entry whole, replacing the one before.
    pub fn put_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        let mut put = self.conn().prepare_cached(
            "INSERT INTO entry (did, handle, pds, signing_key, status, state, reason, detail, rev,
               commit_cid, cid, record, proof, proof_pds, proof_key, identity_key,
               peer, regressed, source,
               method, observed_at, proved_at, checked_at, next_check_at, failures, change_seq)
             VALUES (:did, :handle, :pds, :signing_key, :status, :state, :reason, :detail, :rev,
               :commit_cid, :cid, :record, :proof, :proof_pds, :proof_key, :identity_key,
               :peer, :regressed,
               :source, :method, :observed_at, :proved_at, :checked_at, :next_check_at, :failures,
               :change_seq)
             ON CONFLICT (did) DO UPDATE SET handle = :handle, pds = :pds,
               signing_key = :signing_key, status = :status, state = :state, reason = :reason,
               detail = :detail, rev = :rev, commit_cid = :commit_cid, cid = :cid,
               record = :record, proof = :proof, proof_pds = :proof_pds, proof_key = :proof_key,
               identity_key = :identity_key,
               peer = :peer, regressed = :regressed, source = :source, method = :method,
               observed_at = :observed_at, proved_at = :proved_at, checked_at = :checked_at,
               next_check_at = :next_check_at, failures = :failures, change_seq = :change_seq",
        )?;
        put.execute(named_params! {
            ":did": entry.did.as_str(),
            ":handle": entry.handle.as_ref().map(Handle::as_str),
            ":pds": entry.pds.as_ref().map(Origin::as_str),
            ":signing_key": entry.signing_key.as_ref().map(SigningKey::did_key),
            ":status": entry.status.as_str(),
            ":state": entry.state.as_str(),
            ":reason": entry.reason,
            ":detail": entry.detail,
            ":rev": entry.rev.as_ref().map(Rev::as_str),
            ":commit_cid": entry.commit.as_ref().map(Cid::to_string),
            ":cid": entry.cid.as_ref().map(Cid::to_string),
            ":record": entry.record,
            ":proof": entry.proof,
            ":proof_pds": entry.proof_pds.as_ref().map(Origin::as_str),
            ":proof_key": entry.proof_key.as_ref().map(SigningKey::did_key),
            ":identity_key": entry.identity_key.as_ref().map(SigningKey::did_key),
            ":peer": entry.peer,
            ":regressed": entry.regressed,
            ":source": entry.source,
            ":method": entry.method.as_str(),
            ":observed_at": entry.observed_at.millis(),
            ":proved_at": entry.proved_at.map(Timestamp::millis),
            ":checked_at": entry.checked_at.millis(),
            ":next_check_at": entry.next_check_at.millis(),
            ":failures": entry.failures,
            ":change_seq": entry.change_seq,
        })?;
        // Mediators are rewritten only where they differ: a re-proof of an unchanged package is
        // the usual write.
        if self.entry_mediators(&entry.did)? != entry.mediators {
            self.conn()
                .prepare_cached("DELETE FROM entry_mediator WHERE did = ?1")?
                .execute([entry.did.as_str()])?;
            let mut insert = self.conn().prepare_cached(
                "INSERT INTO entry_mediator (did, position, mediator) VALUES (?1, ?2, ?3)",
            )?;
            for (position, mediator) in (0_i64..).zip(&entry.mediators) {
                insert.execute(params![entry.did.as_str(), position, mediator.as_str()])?;
            }
        }
        Ok(())
    }

    fn entry_mediators(&self, did: &Did) -> Result<Vec<MediatorDid>, StoreError> {
        let mut query = self.conn().prepare_cached(
            "SELECT mediator FROM entry_mediator WHERE did = ?1 ORDER BY position",
        )?;
        collect(query.query_map([did.as_str()], |row| parsed(row, 0, MediatorDid::parse))?)
    }

    /// Removes an entry and what hangs on it; the change log stays.
    pub fn delete_entry(&self, did: &Did) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("DELETE FROM entry WHERE did = ?1")?
            .execute([did.as_str()])?;
        Ok(())
    }

    /// Takes `handle` away from every account but `owner`, and has those looked at again now.
    /// Returns them.
    pub fn claim_handle(
        &self,
        handle: &Handle,
        owner: &Did,
        now: Timestamp,
    ) -> Result<Vec<Did>, StoreError> {
        let mut update = self.conn().prepare_cached(
            "UPDATE entry SET handle = NULL, next_check_at = ?3 WHERE handle = ?1 AND did <> ?2
             RETURNING did",
        )?;
        collect(update.query_map(
            params![handle.as_str(), owner.as_str(), now.millis()],
            |row| parsed(row, 0, Did::parse),
        )?)
    }

    /// Notes a look without success: when it was, when to try again.
    pub fn note_failure(
        &self,
        did: &Did,
        now: Timestamp,
        next_check_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE entry SET checked_at = ?2, next_check_at = ?3, failures = failures + 1
                 WHERE did = ?1",
            )?
            .execute(params![did.as_str(), now.millis(), next_check_at.millis()])?;
        Ok(())
    }

    /// Appends to the change log; the row's own `seq` is not looked at. Returns its position.
    pub fn append_change(&self, change: &Change) -> Result<i64, StoreError> {
        let mediators = serde_json::to_string(&change.mediators)
            .map_err(|e| StoreError::Engine(e.to_string()))?;
        self.conn()
            .prepare_cached(
                "INSERT INTO change (did, kind, rev, cid, peer, mediators, key, detail, seen_at,
                   proof) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?
            .execute(params![
                change.did.as_str(),
                change.kind.as_str(),
                change.rev.as_ref().map(Rev::as_str),
                change.cid.as_ref().map(Cid::to_string),
                change.peer,
                mediators,
                change.key.as_ref().map(SigningKey::did_key),
                change.detail,
                change.seen_at.millis(),
                change.proof,
            ])?;
        Ok(self.conn().last_insert_rowid())
    }

    /// Keeps the proof of a package that is superseded with the change that brought it.
    pub fn keep_proof(&self, seq: i64, proof: &[u8]) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE change SET proof = ?2 WHERE seq = ?1")?
            .execute(params![seq, proof])?;
        Ok(())
    }

    /// Keeps the proof of a revision that went backwards.
    pub fn keep_evidence(
        &self,
        did: &Did,
        rev: Rev,
        pds: Option<&Origin>,
        key: &SigningKey,
        proof: &[u8],
        seen_at: Timestamp,
    ) -> Result<(), StoreError> {
        // Bounded: a server that shows the same old proof every day adds one row in all.
        self.conn()
            .prepare_cached(
                "INSERT INTO evidence (did, rev, pds, key, seen_at, proof)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE
                   NOT EXISTS (SELECT 1 FROM evidence WHERE did = ?1 AND rev = ?2) AND
                   (SELECT count(*) FROM evidence WHERE did = ?1) < 16",
            )?
            .execute(params![
                did.as_str(),
                rev.as_str(),
                pds.map(Origin::as_str),
                key.did_key(),
                seen_at.millis(),
                proof
            ])?;
        Ok(())
    }

    /// Owes an account a look. An account that is already owed one keeps its place; the earlier
    /// time and the newer hint stand.
    pub fn owe(&self, owed: &Owed, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO pending (did, reason, hint, not_before, attempts, generation, since)
                 VALUES (?1, ?2, ?3, ?4, 0, 1, ?5)
                 ON CONFLICT (did) DO UPDATE SET reason = ?2, hint = ?3,
                   not_before = min(not_before, ?4), generation = generation + 1",
            )?
            .execute(params![
                owed.did.as_str(),
                owed.reason,
                owed.hint.as_ref().map(AccountStatus::as_str),
                owed.not_before.millis(),
                now.millis(),
            ])?;
        Ok(())
    }

    /// Ends an owed look, unless something was coalesced into it since `generation`.
    pub fn settle(&self, did: &Did, generation: i64) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("DELETE FROM pending WHERE did = ?1 AND generation = ?2")?
            .execute(params![did.as_str(), generation])?;
        Ok(())
    }

    /// Puts an owed look off to `not_before`; `failed` counts it as a look without success.
    pub fn put_off(
        &self,
        did: &Did,
        generation: i64,
        not_before: Timestamp,
        failed: bool,
    ) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE pending SET not_before = ?3, attempts = attempts + ?4
                 WHERE did = ?1 AND generation = ?2",
            )?
            .execute(params![
                did.as_str(),
                generation,
                not_before.millis(),
                i64::from(failed)
            ])?;
        Ok(())
    }

    /// Writes what is known of a mediator.
    pub fn put_mediator(&self, row: &MediatorRow) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO mediator (did, document, checked_at, next_check_at, failures)
                 VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (did) DO UPDATE SET document = ?2, checked_at = ?3,
                   next_check_at = ?4, failures = ?5",
            )?
            .execute(params![
                row.did.as_str(),
                row.document,
                row.checked_at.millis(),
                row.next_check_at.millis(),
                row.failures
            ])?;
        Ok(())
    }

    /// Forgets a mediator that no package names any more. Returns whether it did.
    pub fn forget_mediator(&self, did: &MediatorDid) -> Result<bool, StoreError> {
        let forgotten = self
            .conn()
            .prepare_cached(
                "DELETE FROM mediator WHERE did = ?1
                 AND NOT EXISTS (SELECT 1 FROM entry_mediator WHERE mediator = ?1)",
            )?
            .execute([did.as_str()])?;
        Ok(forgotten > 0)
    }

    /// Moves a source's cursor; the caller has made everything up to it durable in this same
    /// transaction or before.
    pub fn set_cursor(&self, cursor: &SourceCursor, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO cursor (source, position, event_time, updated_at)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (source) DO UPDATE SET position = ?2, event_time = ?3,
                   updated_at = ?4",
            )?
            .execute(params![
                cursor.source,
                cursor.position,
                cursor.event_time,
                now.millis()
            ])?;
        Ok(())
    }

    /// Begins an enumeration anew, whatever one is under way.
    pub fn begin_walk(&self, source: &str, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO walk (source, position, seen, started_at, done_at)
                 VALUES (?1, NULL, 0, ?2, NULL)
                 ON CONFLICT (source) DO UPDATE SET position = NULL, seen = 0,
                   started_at = max(?2, started_at + 1), done_at = NULL",
            )?
            .execute(params![source, now.millis()])?;
        Ok(())
    }

    /// Writes how far an enumeration has come; nothing where it was begun anew since.
    pub fn advance_walk(&self, walk: &WalkRow) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE walk SET position = ?2, seen = ?3, done_at = ?5
                 WHERE source = ?1 AND started_at = ?4",
            )?
            .execute(params![
                walk.source,
                walk.position,
                walk.seen,
                walk.started_at.millis(),
                walk.done_at.map(Timestamp::millis)
            ])?;
        Ok(())
    }
}

fn to_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn collect<T>(
    rows: impl Iterator<Item = Result<T, rusqlite::Error>>,
) -> Result<Vec<T>, StoreError> {
    rows.collect::<Result<_, _>>().map_err(StoreError::from)
}

/// A column's text read as what it must be; anything else is damage, because only this program
/// writes the file.
fn parsed<T, E>(
    row: &Row<'_>,
    column: impl rusqlite::RowIndex,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, rusqlite::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?;
    parse(text.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn maybe<T, E>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, rusqlite::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => parsed(row, column, parse).map(Some),
    }
}

fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, rusqlite::Error> {
    row.get(column).map(Timestamp::from_millis)
}

/// A word that this program never writes.
#[derive(Debug, thiserror::Error)]
#[error("unknown word in the store: {0}")]
struct UnknownWord(String);

fn read_entry(row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    Ok(Entry {
        did: parsed(row, "did", Did::parse)?,
        handle: maybe(row, "handle", Handle::parse)?,
        pds: maybe(row, "pds", Origin::parse)?,
        signing_key: maybe(row, "signing_key", SigningKey::from_did_key)?,
        status: AccountStatus::parse(row.get_ref("status")?.as_str()?),
        state: parsed(row, "state", |s| {
            PackageState::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        reason: row.get("reason")?,
        detail: row.get("detail")?,
        rev: maybe(row, "rev", Rev::parse)?,
        commit: maybe(row, "commit_cid", str::parse::<Cid>)?,
        cid: maybe(row, "cid", str::parse::<Cid>)?,
        record: row.get("record")?,
        proof: row.get("proof")?,
        proof_pds: maybe(row, "proof_pds", Origin::parse)?,
        proof_key: maybe(row, "proof_key", SigningKey::from_did_key)?,
        identity_key: maybe(row, "identity_key", SigningKey::from_did_key)?,
        peer: row.get("peer")?,
        mediators: Vec::new(),
        regressed: row.get("regressed")?,
        source: row.get("source")?,
        method: parsed(row, "method", |s| {
            ProofMethod::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        observed_at: time(row, "observed_at")?,
        proved_at: row
            .get::<_, Option<i64>>("proved_at")?
            .map(Timestamp::from_millis),
        checked_at: time(row, "checked_at")?,
        next_check_at: time(row, "next_check_at")?,
        failures: row.get("failures")?,
        change_seq: row.get("change_seq")?,
    })
}

fn read_change(row: &Row<'_>) -> Result<Change, rusqlite::Error> {
    Ok(Change {
        seq: row.get("seq")?,
        did: parsed(row, "did", Did::parse)?,
        kind: parsed(row, "kind", |s| {
            ChangeKind::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        rev: maybe(row, "rev", Rev::parse)?,
        cid: maybe(row, "cid", str::parse::<Cid>)?,
        peer: row.get("peer")?,
        mediators: maybe(row, "mediators", |s| serde_json::from_str(s))?.unwrap_or_default(),
        key: maybe(row, "key", SigningKey::from_did_key)?,
        detail: row.get("detail")?,
        seen_at: time(row, "seen_at")?,
        proof: row.get("proof")?,
    })
}

fn read_pending(row: &Row<'_>) -> Result<PendingRow, rusqlite::Error> {
    Ok(PendingRow {
        did: parsed(row, "did", Did::parse)?,
        reason: row.get("reason")?,
        hint: row
            .get::<_, Option<String>>("hint")?
            .as_deref()
            .map(AccountStatus::parse),
        not_before: time(row, "not_before")?,
        attempts: row.get("attempts")?,
        generation: row.get("generation")?,
        since: time(row, "since")?,
    })
}

fn read_mediator(row: &Row<'_>) -> Result<MediatorRow, rusqlite::Error> {
    Ok(MediatorRow {
        did: parsed(row, "did", MediatorDid::parse)?,
        document: row.get("document")?,
        checked_at: time(row, "checked_at")?,
        next_check_at: time(row, "next_check_at")?,
        failures: row.get("failures")?,
    })
}
