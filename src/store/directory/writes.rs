//! Writes to `directory.db`.

use std::sync::{Arc, LazyLock};

use ipld_core::cid::Cid;
use rusqlite::{named_params, params};

use super::super::columns::{collect, parsed, to_i64};
use super::super::error::StoreError;
use super::super::schema::domain_of_mediator;
use super::Tx;
use super::changes::{Change, SupersededProof};
use super::entry_row::COLUMNS;
use super::rows::{AnnouncedChange, Entry, MediatorRow, NewPending, SourceCursor};
use super::shares::{Owner, change_bytes, evidence_bytes, mediator_bytes};
use super::trigger::Trigger;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin, Rev};

/// Changes kept of one account, the newest, and most bytes of them with their saved proofs. An
/// account with a usual proof comes to either only after more than a hundred packages.
const MAX_CHANGES: i64 = 256;
pub(super) const MAX_HISTORY: i64 = 512 * 1024;

/// Largest proof that is saved of a superseded package or a regression, in bytes. Larger ones come
/// from paths inflated on purpose.
pub(super) const MAX_SAVED_PROOF: i64 = 16 * 1024;

/// Most proofs that are kept of one account as evidence of regressions, and most bytes of them.
const MAX_EVIDENCE: (i64, i64) = (16, 64 * 1024);

/// When the account of an entry first named the did:peer of its package. The change log tells it of
/// an account that returns to a did:peer of before.
const FIRST_NAMED: &str = "CASE WHEN :peer IS NOT NULL THEN coalesce(
   (SELECT min(seen_at) FROM change WHERE did = :did AND peer = :peer), :observed_at) END";

/// Writes all columns of an entry, each bound under its own name, and the time at which its did:peer
/// was first named. The key is not among the updates: SQLite would check what refers to it at each
/// write.
static PUT_ENTRY: LazyLock<String> = LazyLock::new(|| {
    let values = COLUMNS.map(|column| format!(":{column}"));
    let updates: Vec<String> = COLUMNS
        .iter()
        .filter(|column| **column != "did")
        .map(|column| format!("{column} = :{column}"))
        .collect();
    format!(
        "INSERT INTO entry ({}, size, peer_since) VALUES ({}, :size, {FIRST_NAMED})
         ON CONFLICT (did) DO UPDATE SET {}, size = :size, peer_since = CASE
           WHEN entry.peer IS :peer THEN entry.peer_since ELSE excluded.peer_since END",
        COLUMNS.join(", "),
        values.join(", "),
        updates.join(", ")
    )
});

impl Tx<'_> {
    /// Writes a whole entry, replacing the one before.
    pub fn put_entry(&self, entry: &Entry) -> Result<(), StoreError> {
        let mut put = self.conn().prepare_cached(&PUT_ENTRY)?;
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
            ":failure": entry.failure,
            ":change_seq": entry.change_seq,
            ":claimed": entry.claimed.as_ref().map(Handle::as_str),
            ":handle_at": entry.handle_at.map(Timestamp::millis),
            ":handle_next_at": entry.handle_next_at.map(Timestamp::millis),
            ":handle_failures": entry.handle_failures,
            ":identity_at": entry.identity_at.map(Timestamp::millis),
            ":proofs": entry.proofs,
            ":missing_since": entry.missing_since.map(Timestamp::millis),
            ":doubt_since": entry.doubt_since.map(Timestamp::millis),
            ":handle_checked_at": entry.handle_checked_at.map(Timestamp::millis),
            ":handle_news": entry.handle_news,
            ":domain": entry.counts_under(),
            ":asked": entry.asked,
            ":size": to_i64(entry.bytes()),
        })?;
        // Mediators are rewritten only where they differ: most writes prove an unchanged package
        // again.
        if self.mediators_of(&entry.did)? != entry.mediators {
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

    /// Writes the newest proof of an account that has an entry. The same proof again writes nothing.
    pub fn put_proof(&self, did: &Did, car: &[u8]) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO proof (did, car) VALUES (?1, ?2)
                 ON CONFLICT (did) DO UPDATE SET car = ?2 WHERE car <> ?2",
            )?
            .execute(params![did.as_str(), car])?;
        Ok(())
    }

    /// Deletes the newest proof of an account.
    pub fn delete_proof(&self, did: &Did) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("DELETE FROM proof WHERE did = ?1")?
            .execute([did.as_str()])?;
        Ok(())
    }

    /// Deletes an entry with its proof and mediators. The change log stays.
    pub fn delete_entry(&self, did: &Did) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("DELETE FROM entry WHERE did = ?1")?
            .execute([did.as_str()])?;
        Ok(())
    }

    /// Writes the handle of an entry, with all that is known of it.
    pub fn put_handle(&self, entry: &Entry) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE entry SET handle = :handle, handle_at = :handle_at,
                   handle_checked_at = :handle_checked_at, handle_next_at = :handle_next_at,
                   handle_news = :handle_news, handle_failures = :handle_failures
                 WHERE did = :did",
            )?
            .execute(named_params! {
                ":did": entry.did.as_str(),
                ":handle": entry.handle.as_ref().map(Handle::as_str),
                ":handle_at": entry.handle_at.map(Timestamp::millis),
                ":handle_checked_at": entry.handle_checked_at.map(Timestamp::millis),
                ":handle_next_at": entry.handle_next_at.map(Timestamp::millis),
                ":handle_news": entry.handle_news,
                ":handle_failures": entry.handle_failures,
            })?;
        Ok(())
    }

    /// Takes `handle` away from every account but `owner`, and makes the others and their claims due
    /// now. Returns them.
    pub fn claim_handle(
        &self,
        handle: &Handle,
        owner: &Did,
        now: Timestamp,
    ) -> Result<Vec<Did>, StoreError> {
        let mut update = self.conn().prepare_cached(
            "UPDATE entry SET handle = NULL, handle_at = NULL, handle_next_at = ?3,
               next_check_at = ?3
             WHERE handle = ?1 AND did <> ?2 RETURNING did",
        )?;
        collect(update.query_map(
            params![handle.as_str(), owner.as_str(), now.millis()],
            |row| parsed(row, 0, Did::parse),
        )?)
    }

    /// Defers the next check of an entry, without counting a failure.
    pub fn defer_check(&self, did: &Did, next_check_at: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE entry SET next_check_at = ?2 WHERE did = ?1")?
            .execute(params![did.as_str(), next_check_at.millis()])?;
        Ok(())
    }

    /// Appends to the change log. Returns the position, which the store sets.
    pub fn append_change(&self, change: &Change, owner: &Owner) -> Result<i64, StoreError> {
        let mediators = serde_json::to_string(&change.mediators)
            .map_err(|error| StoreError::Json(Arc::new(error)))?;
        let account = change.account.as_ref();
        self.conn()
            .prepare_cached(
                "INSERT INTO change (did, kind, rev, cid, peer, mediators, key, detail, seen_at,
                   proof, domain, asked, size, status, state, reason, handle, pds, regressed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17,
                   ?18, ?19)",
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
                owner.domain,
                owner.asked,
                to_i64(change_bytes(change, &mediators)),
                account.map(|account| account.status.as_str()),
                account.map(|account| account.state.as_str()),
                account.and_then(|account| account.reason.as_deref()),
                account
                    .and_then(|account| account.handle.as_ref())
                    .map(Handle::as_str),
                account
                    .and_then(|account| account.pds.as_ref())
                    .map(Origin::as_str),
                account.map(|account| account.regressed),
            ])?;
        let seq = self.conn().last_insert_rowid();
        self.bound_history(&change.did)?;
        Ok(seq)
    }

    /// Deletes the oldest changes of an account that writes without end.
    fn bound_history(&self, did: &Did) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "DELETE FROM change WHERE did = ?1 AND seq <= (
                   SELECT seq FROM (
                     SELECT seq, row_number() OVER newer AS n,
                       sum(size + coalesce(octet_length(proof), 0)) OVER newer AS bytes
                     FROM change WHERE did = ?1
                     WINDOW newer AS (ORDER BY seq DESC ROWS UNBOUNDED PRECEDING))
                   WHERE n > ?2 OR bytes > ?3 ORDER BY seq DESC LIMIT 1)",
            )?
            .execute(params![did.as_str(), MAX_CHANGES, MAX_HISTORY])?;
        Ok(())
    }

    /// Saves the newest proof of an account, that of a superseded package, with the change that
    /// brought the package. The proof may have a later revision and another key than the proof that
    /// the change came with. A proof that another change has already is not saved again.
    pub fn save_proof(&self, did: &Did, superseded: &SupersededProof) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE change SET rev = ?2, key = ?3, proof = p.car
                 FROM (SELECT car FROM proof WHERE did = ?4 AND length(car) <= ?5) AS p
                 WHERE seq = ?1 AND NOT EXISTS (SELECT 1 FROM change AS c
                   WHERE c.did = ?4 AND c.proof IS NOT NULL
                     AND c.rev = ?2 AND c.key = ?3 AND c.cid IS change.cid)",
            )?
            .execute(params![
                superseded.seq,
                superseded.rev.as_ref().map(Rev::as_str),
                superseded.key.as_ref().map(SigningKey::did_key),
                did.as_str(),
                MAX_SAVED_PROOF,
            ])?;
        self.bound_history(did)
    }

    /// Deletes all that is kept of an account besides its entry: changes, saved proofs, evidence.
    pub fn delete_history(&self, did: &Did) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM change WHERE did = ?1",
            "DELETE FROM evidence WHERE did = ?1",
        ] {
            self.conn().prepare_cached(sql)?.execute([did.as_str()])?;
        }
        Ok(())
    }

    /// Saves the proof of a revision that went backwards.
    #[expect(clippy::too_many_arguments, reason = "the columns of one row")]
    pub fn save_evidence(
        &self,
        did: &Did,
        rev: Rev,
        pds: Option<&Origin>,
        key: &SigningKey,
        proof: &[u8],
        owner: &Owner,
        seen_at: Timestamp,
    ) -> Result<(), StoreError> {
        // A server that serves the same old proof every day adds one row in all.
        self.conn()
            .prepare_cached(
                "INSERT INTO evidence (did, rev, pds, key, seen_at, proof, domain, asked, size)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?10, ?11, ?12 WHERE
                   length(?6) <= ?7 AND
                   NOT EXISTS (SELECT 1 FROM evidence WHERE did = ?1 AND rev = ?2) AND
                   (SELECT count(*) < ?8 AND coalesce(sum(length(proof)), 0) + length(?6) <= ?9
                    FROM evidence WHERE did = ?1)",
            )?
            .execute(params![
                did.as_str(),
                rev.as_str(),
                pds.map(Origin::as_str),
                key.did_key(),
                seen_at.millis(),
                proof,
                MAX_SAVED_PROOF,
                MAX_EVIDENCE.0,
                MAX_EVIDENCE.1,
                owner.domain,
                owner.asked,
                to_i64(evidence_bytes(did)),
            ])?;
        Ok(())
    }

    /// Stores a pending refresh. Where the account has one already, the two are coalesced: the
    /// earlier time stands, and news prevails over a listing.
    pub fn enqueue_pending(&self, new: &NewPending, now: Timestamp) -> Result<(), StoreError> {
        let (status, pds) = match &new.announced {
            AnnouncedChange::Set(announced) => (
                Some(announced.status.as_str()),
                Some(announced.pds.as_str()),
            ),
            AnnouncedChange::Keep | AnnouncedChange::Clear => (None, None),
        };
        self.conn()
            .prepare_cached(
                "INSERT INTO pending (did, reason, hint, hint_pds, not_before, attempts,
                   generation, since, listed)
                 VALUES (:did, :reason, :hint, :hint_pds, :not_before, 0, 1, :now, :listed)
                 ON CONFLICT (did) DO UPDATE SET
                   reason = iif(:listed, reason, :reason),
                   hint = iif(:keep, hint, :hint),
                   hint_pds = iif(:keep, hint_pds, :hint_pds),
                   not_before = min(not_before, :not_before),
                   generation = generation + 1,
                   listed = min(listed, :listed)",
            )?
            .execute(named_params! {
                ":did": new.did.as_str(),
                ":reason": new.trigger.to_string(),
                ":hint": status,
                ":hint_pds": pds,
                ":not_before": new.not_before.millis(),
                ":now": now.millis(),
                ":listed": matches!(new.trigger, Trigger::Listing(_)),
                ":keep": new.announced == AnnouncedChange::Keep,
            })?;
        Ok(())
    }

    /// Deletes a pending refresh, unless a trigger was coalesced into it since `generation`.
    pub fn complete_pending(&self, did: &Did, generation: i64) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("DELETE FROM pending WHERE did = ?1 AND generation = ?2")?
            .execute(params![did.as_str(), generation])?;
        Ok(())
    }

    /// Moves a pending refresh to `not_before`, unless a trigger was coalesced into it since
    /// `generation`. `failed` counts a failure, and `failure` is the class of the error.
    pub fn retry_pending(
        &self,
        did: &Did,
        generation: i64,
        not_before: Timestamp,
        failed: bool,
        failure: Option<&str>,
    ) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE pending SET not_before = ?3, attempts = attempts + ?4, failure = ?5
                 WHERE did = ?1 AND generation = ?2",
            )?
            .execute(params![
                did.as_str(),
                generation,
                not_before.millis(),
                i64::from(failed),
                failure,
            ])?;
        Ok(())
    }

    /// Writes a mediator's document.
    pub fn put_mediator(&self, row: &MediatorRow) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO mediator (did, document, checked_at, next_check_at, failures, domain,
                   size)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (did) DO UPDATE SET document = ?2, checked_at = ?3,
                   next_check_at = ?4, failures = ?5, size = ?7",
            )?
            .execute(params![
                row.did.as_str(),
                row.document,
                row.checked_at.millis(),
                row.next_check_at.millis(),
                row.failures,
                domain_of_mediator(&row.did),
                to_i64(mediator_bytes(row)),
            ])?;
        Ok(())
    }

    /// Defers the next look-up of a mediator.
    pub fn defer_mediator_check(
        &self,
        did: &MediatorDid,
        next_check_at: Timestamp,
    ) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE mediator SET next_check_at = ?2 WHERE did = ?1")?
            .execute(params![did.as_str(), next_check_at.millis()])?;
        Ok(())
    }

    /// Deletes a mediator that no package names any more. Returns whether it did.
    pub fn delete_mediator(&self, did: &MediatorDid) -> Result<bool, StoreError> {
        let deleted = self
            .conn()
            .prepare_cached(
                "DELETE FROM mediator WHERE did = ?1
                 AND NOT EXISTS (SELECT 1 FROM entry_mediator WHERE mediator = ?1)",
            )?
            .execute([did.as_str()])?;
        Ok(deleted > 0)
    }

    /// Moves a source's cursor. The caller has made everything before it durable, in this
    /// transaction or earlier.
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
}
