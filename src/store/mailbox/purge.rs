//! Queues emptied by the operator: those of denied accounts, and those that a command names.

use rusqlite::{OptionalExtension as _, params};

use super::super::columns::{collect, parsed, time, to_i64, unsigned};
use super::super::error::StoreError;
use super::accounts::read_claim;
use super::rows::{Claim, ClaimState, QueueSize};
use super::{Queries, Tx};
use atcomm_proto::syntax::Did;

/// Claiming accounts shown of one queue.
const MAX_SHOWN_CLAIMANTS: usize = 5;

pub(super) const DENIED: &str =
    "SELECT did FROM recipient INDEXED BY recipient_denied WHERE denied = 1 ORDER BY id LIMIT 1";

pub(super) const CLAIM_OF_OTHERS: &str = "SELECT * FROM claim INDEXED BY claim_peer
 WHERE peer = ?1 AND state = ?2 AND account <> ?3 ORDER BY since DESC LIMIT 1";

pub(super) const CHOOSE_PURGED: &str = "SELECT id, size FROM message INDEXED BY message_queue
 WHERE recipient = ?1 AND id <= ?2 ORDER BY id LIMIT ?3";

pub(super) const WAITING_UP_TO: &str = "SELECT count(*), coalesce(sum(size), 0)
 FROM message INDEXED BY message_queue WHERE recipient = ?1 AND id <= ?2";

/// Asked by the operator only, so no index is kept for it.
const LARGEST: &str = "SELECT id, did, account IS NOT NULL AS registered, messages, bytes
 FROM recipient WHERE messages > 0 ORDER BY bytes DESC, id LIMIT ?1";

const OLDEST: &str = "SELECT stored_at FROM message INDEXED BY message_queue
 WHERE recipient = ?1 ORDER BY id LIMIT 1";

impl Queries<'_> {
    /// Returns the claims of other accounts on a DID, the newest of each state.
    pub fn claims_of_others(&self, peer: &str, account: &Did) -> Result<Vec<Claim>, StoreError> {
        let mut query = self.0.prepare_cached(CLAIM_OF_OTHERS)?;
        let mut claims = Vec::new();
        for state in ClaimState::ALL {
            let found =
                query.query_row(params![peer, state.as_str(), account.as_str()], read_claim);
            claims.extend(found.optional()?);
        }
        Ok(claims)
    }

    /// Returns the DID of a recipient whose mail is to be deleted.
    pub fn denied_queue(&self) -> Result<Option<String>, StoreError> {
        let mut query = self.0.prepare_cached(DENIED)?;
        Ok(query.query_row([], |row| row.get(0)).optional()?)
    }

    /// Returns the number of messages of a recipient up to the id `up_to`, and the bytes of their
    /// bodies.
    pub fn waiting_up_to(&self, recipient: i64, up_to: i64) -> Result<(u64, u64), StoreError> {
        let mut query = self.0.prepare_cached(WAITING_UP_TO)?;
        let (messages, bytes) = query.query_row(params![recipient, up_to], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        Ok((unsigned(messages), unsigned(bytes)))
    }

    /// Returns the queues with the most bytes, at most `limit`. Reads all recipients.
    pub fn largest_queues(&self, limit: usize) -> Result<Vec<QueueSize>, StoreError> {
        let mut query = self.0.prepare_cached(LARGEST)?;
        let mut oldest = self.0.prepare_cached(OLDEST)?;
        let mut claimants = self
            .0
            .prepare_cached("SELECT DISTINCT account FROM claim WHERE peer = ?1 LIMIT ?2")?;
        let rows: Vec<(i64, QueueSize)> = collect(query.query_map([to_i64(limit)], |row| {
            let queue = QueueSize {
                did: row.get("did")?,
                is_registered: row.get("registered")?,
                claimants: Vec::new(),
                messages: unsigned(row.get("messages")?),
                bytes: unsigned(row.get("bytes")?),
                oldest: None,
            };
            Ok((row.get("id")?, queue))
        })?)?;
        let mut queues = Vec::with_capacity(rows.len());
        for (id, mut queue) in rows {
            queue.oldest = oldest
                .query_row([id], |row| time(row, "stored_at"))
                .optional()?;
            let shown = params![queue.did, to_i64(MAX_SHOWN_CLAIMANTS)];
            queue.claimants =
                collect(claimants.query_map(shown, |row| parsed(row, 0, Did::parse))?)?;
            queues.push(queue);
        }
        Ok(queues)
    }
}

impl Tx<'_> {
    /// Marks the mail of a recipient to be deleted, or removes the mark. Idempotent.
    pub fn set_denied(&self, recipient: &str, denied: bool) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE recipient SET denied = ?2 WHERE did = ?1 AND denied <> ?2")?
            .execute(params![recipient, denied])?;
        Ok(())
    }

    /// Deletes messages of a recipient up to the id `up_to`, the oldest first: at most `limit`, and
    /// at most `max_bytes` of bodies, but at least one message where there is any. Other writes
    /// wait meanwhile. Returns how many messages were deleted, and the bytes of their bodies.
    pub fn purge(
        &self,
        recipient: i64,
        up_to: i64,
        limit: usize,
        max_bytes: u64,
    ) -> Result<(u64, u64), StoreError> {
        let chosen: Vec<(i64, i64)> = {
            let mut choose = self.conn().prepare_cached(CHOOSE_PURGED)?;
            collect(
                choose.query_map(params![recipient, up_to, to_i64(limit)], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?,
            )?
        };
        let mut delete = self
            .conn()
            .prepare_cached("DELETE FROM message WHERE id = ?1")?;
        let (mut messages, mut bytes) = (0_u64, 0_u64);
        for (id, size) in chosen {
            if messages > 0 && bytes.saturating_add(unsigned(size)) > max_bytes {
                break;
            }
            delete.execute([id])?;
            messages += 1;
            bytes = bytes.saturating_add(unsigned(size));
        }
        Ok((messages, bytes))
    }
}
