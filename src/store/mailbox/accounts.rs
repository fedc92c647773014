//! Accounts, the recipients bound to them, and the claims of key packages.

use rusqlite::{OptionalExtension as _, Row, named_params, params};

use super::super::columns::{UnknownWord, collect, parsed, time, to_i64, unsigned};
use super::super::error::StoreError;
use super::rows::{Account, Bound, Claim, ClaimState, Reader, Recipient};
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// Grain of an account's last request: a write per request would gain nothing.
const SEEN_GRAIN_MS: i64 = 60_000;

pub(super) const PROVISIONAL_OF_GROUP: &str = "SELECT count(*) FROM account
 WHERE address_group = ?1 AND provisional_until > ?2";

pub(super) const PROVISIONAL: &str = "SELECT count(*) FROM account WHERE provisional_until > ?1";

pub(super) const LAPSED: &str = "SELECT * FROM account WHERE provisional_until <= ?1
 ORDER BY provisional_until LIMIT ?2";

pub(super) const IDLE: &str = "SELECT * FROM account WHERE seen_at < ?1 ORDER BY seen_at LIMIT ?2";

pub(super) const RECIPIENTS: &str = "SELECT * FROM recipient
 WHERE account = ?1 AND closed_at IS NULL ORDER BY id LIMIT ?2 OFFSET ?3";

/// A queue with its reader, in one statement: each push asks for both.
pub(super) const READER: &str = "SELECT r.id, r.account, r.closed_at IS NOT NULL, a.seen_at
 FROM recipient r LEFT JOIN account a ON a.id = r.account WHERE r.did = ?1";

/// The newest claim on a DID in one state.
pub(super) const CLAIM: &str = "SELECT * FROM claim INDEXED BY claim_peer
 WHERE peer = ?1 AND state = ?2 ORDER BY since DESC LIMIT 1";

pub(super) const CLAIMS_BEFORE: &str =
    "SELECT * FROM claim WHERE state = ?1 AND since < ?2 ORDER BY since LIMIT ?3";

pub(super) const DROP_IDLE: &str = "DELETE FROM recipient WHERE id IN (
 SELECT id FROM recipient INDEXED BY recipient_idle
 WHERE account IS NULL AND messages = 0 LIMIT ?1)";

impl Queries<'_> {
    /// Returns the account of a DID.
    pub fn account(&self, did: &str) -> Result<Option<Account>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM account WHERE did = ?1")?;
        Ok(query.query_row([did], read_account).optional()?)
    }

    /// Returns the account with this id.
    pub fn account_by_id(&self, id: i64) -> Result<Option<Account>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM account WHERE id = ?1")?;
        Ok(query.query_row([id], read_account).optional()?)
    }

    /// Returns the number of accounts.
    pub fn account_count(&self) -> Result<u64, StoreError> {
        let mut query = self.0.prepare_cached("SELECT count(*) FROM account")?;
        Ok(unsigned(query.query_row([], |row| row.get(0))?))
    }

    /// Returns the number of valid provisional grants: of one group of addresses, or of all.
    pub fn provisional_count(
        &self,
        group: Option<&[u8; 16]>,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let count = match group {
            Some(group) => self
                .0
                .prepare_cached(PROVISIONAL_OF_GROUP)?
                .query_row(params![group, now.millis()], |row| row.get(0))?,
            None => self
                .0
                .prepare_cached(PROVISIONAL)?
                .query_row([now.millis()], |row| row.get(0))?,
        };
        Ok(unsigned(count))
    }

    /// Returns the accounts whose provisional grant has ended by `now`, at most `limit`.
    pub fn lapsed_accounts(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Account>, StoreError> {
        let mut query = self.0.prepare_cached(LAPSED)?;
        collect(query.query_map(params![now.millis(), to_i64(limit)], read_account)?)
    }

    /// Returns the accounts without a request since `before`, the longest idle first, at most
    /// `limit`.
    pub fn idle_accounts(
        &self,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Account>, StoreError> {
        let mut query = self.0.prepare_cached(IDLE)?;
        collect(query.query_map(params![before.millis(), to_i64(limit)], read_account)?)
    }

    /// Returns the recipient of a DID.
    pub fn recipient(&self, did: &str) -> Result<Option<Recipient>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM recipient WHERE did = ?1")?;
        Ok(query.query_row([did], read_recipient).optional()?)
    }

    /// Returns the id of a recipient, and the account that reads its queue.
    pub fn reader(&self, did: &str) -> Result<Option<(i64, Option<Reader>)>, StoreError> {
        let mut query = self.0.prepare_cached(READER)?;
        let found = query.query_row([did], |row| {
            let account: Option<i64> = row.get(1)?;
            let reader = account.map(|account| {
                Ok::<_, rusqlite::Error>(Reader {
                    account,
                    is_closed: row.get(2)?,
                    seen_at: Timestamp::from_millis(row.get(3)?),
                })
            });
            Ok((row.get(0)?, reader.transpose()?))
        });
        Ok(found.optional()?)
    }

    /// Returns the recipients that an account takes mail for, in the order in which they became
    /// known here.
    pub fn recipients_of(
        &self,
        account: i64,
        limit: usize,
        offset: usize,
    ) -> Result<Vec<Recipient>, StoreError> {
        let mut query = self.0.prepare_cached(RECIPIENTS)?;
        collect(query.query_map(
            params![account, to_i64(limit), to_i64(offset)],
            read_recipient,
        )?)
    }

    /// Returns the number of recipients that an account takes mail for.
    pub fn recipient_count(&self, account: i64) -> Result<u64, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT count(*) FROM recipient WHERE account = ?1 AND closed_at IS NULL",
        )?;
        Ok(unsigned(query.query_row([account], |row| row.get(0))?))
    }

    /// Returns the claims on a DID, the newest of each state. So no number of accounts that name a
    /// DID can hide the claim of another account.
    pub fn claims(&self, peer: &str) -> Result<Vec<Claim>, StoreError> {
        let mut claims = Vec::new();
        for state in ClaimState::ALL {
            claims.extend(self.claim_in(peer, *state)?);
        }
        Ok(claims)
    }

    /// Returns the newest claim on a DID in one state.
    pub fn claim_in(&self, peer: &str, state: ClaimState) -> Result<Option<Claim>, StoreError> {
        let mut query = self.0.prepare_cached(CLAIM)?;
        let found = query.query_row(params![peer, state.as_str()], read_claim);
        Ok(found.optional()?)
    }

    /// Returns the claims that the key packages of an atproto account make and made.
    pub fn claims_of(&self, account: &Did) -> Result<Vec<Claim>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT * FROM claim WHERE account = ?1 ORDER BY peer")?;
        collect(query.query_map([account.as_str()], read_claim)?)
    }

    /// Returns every atproto account with a claim.
    pub fn claiming_accounts(&self) -> Result<Vec<Did>, StoreError> {
        let mut query = self
            .0
            .prepare("SELECT DISTINCT account FROM claim ORDER BY account")?;
        collect(query.query_map([], |row| parsed(row, 0, Did::parse))?)
    }

    /// Returns the account that reads the mail of the recipient with this id.
    pub fn reader_of(&self, recipient: i64) -> Result<Option<i64>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT account FROM recipient WHERE id = ?1")?;
        let account: Option<Option<i64>> =
            query.query_row([recipient], |row| row.get(0)).optional()?;
        Ok(account.flatten())
    }

    /// Returns the claims in a state since before a time, the oldest first, at most `limit`.
    pub fn claims_before(
        &self,
        state: ClaimState,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Claim>, StoreError> {
        let mut query = self.0.prepare_cached(CLAIMS_BEFORE)?;
        collect(query.query_map(
            params![state.as_str(), before.millis(), to_i64(limit)],
            read_claim,
        )?)
    }
}

impl Tx<'_> {
    /// Writes a whole account, found by its DID. Returns its id, which the store sets and which
    /// stays over all updates. Idempotent.
    pub fn put_account(&self, account: &Account) -> Result<i64, StoreError> {
        let mut put = self.conn().prepare_cached(
            "INSERT INTO account (did, long, granted_at, provisional_until, address_group, seen_at)
             VALUES (:did, :long, :granted_at, :provisional_until, :address_group, :seen_at)
             ON CONFLICT (did) DO UPDATE SET long = :long, granted_at = :granted_at,
               provisional_until = :provisional_until, address_group = :address_group,
               seen_at = :seen_at
             RETURNING id",
        )?;
        Ok(put.query_row(
            named_params! {
                ":did": account.did,
                ":long": account.long,
                ":granted_at": account.granted_at.millis(),
                ":provisional_until": account.provisional_until.map(Timestamp::millis),
                ":address_group": account.address_group,
                ":seen_at": account.seen_at.millis(),
            },
            |row| row.get(0),
        )?)
    }

    /// Deletes an account. Its recipients are then bound to none, and their mail waits until it
    /// expires. Returns whether there was an account.
    pub fn delete_account(&self, id: i64) -> Result<bool, StoreError> {
        let deleted = self
            .conn()
            .prepare_cached("DELETE FROM account WHERE id = ?1")?
            .execute([id])?;
        Ok(deleted > 0)
    }

    /// Records that an account made a request. Writes at most once a minute.
    pub fn touch_account(&self, id: i64, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE account SET seen_at = ?2 WHERE id = ?1 AND seen_at <= ?3")?
            .execute(params![id, now.millis(), now.millis() - SEEN_GRAIN_MS])?;
        Ok(())
    }

    /// Records that an account dates its changes, which stays so. Idempotent.
    pub fn set_dates_changes(&self, id: i64) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE account SET dates_changes = 1 WHERE id = ?1")?
            .execute([id])?;
        Ok(())
    }

    /// Binds a recipient to an account, unless it is bound to another, and opens its queue.
    /// Idempotent. An account that does not exist is an error.
    pub fn bind(&self, recipient: &str, account: i64) -> Result<Bound, StoreError> {
        let row = self.recipient(recipient)?;
        let is_open = row.as_ref().is_some_and(|row| row.closed_at.is_none());
        match row.and_then(|row| row.account) {
            Some(holder) if holder != account => Ok(Bound::Taken(holder)),
            Some(_) if is_open => Ok(Bound::Already),
            _ => self.rebind(recipient, account).map(|_previous| Bound::New),
        }
    }

    /// Binds a recipient, with its queued mail, to an account, even where it is bound to another,
    /// and opens its queue. For the DID's own account, which always wins. Returns the account that
    /// lost the recipient. Idempotent.
    pub fn rebind(&self, recipient: &str, account: i64) -> Result<Option<i64>, StoreError> {
        let holder = self.recipient(recipient)?.and_then(|row| row.account);
        self.conn()
            .prepare_cached(
                "INSERT INTO recipient (did, account) VALUES (?1, ?2)
                 ON CONFLICT (did) DO UPDATE SET account = ?2, closed_at = NULL",
            )?
            .execute(params![recipient, account])?;
        Ok(holder.filter(|holder| *holder != account))
    }

    /// Closes the queue of an account's own DID: it is listed no more, and the account still reads
    /// and acknowledges what is in it. Returns whether the queue took mail before. Idempotent.
    pub fn close(&self, recipient: &str, account: i64, now: Timestamp) -> Result<bool, StoreError> {
        let row = self.recipient(recipient)?;
        let took_mail =
            row.is_some_and(|row| row.account == Some(account) && row.closed_at.is_none());
        // A queue that does not exist yet is made closed, since a claim may admit mail later.
        self.conn()
            .prepare_cached(
                "INSERT INTO recipient (did, account, closed_at) VALUES (?1, ?2, ?3)
                 ON CONFLICT (did) DO UPDATE SET account = ?2,
                   closed_at = coalesce(closed_at, ?3)",
            )?
            .execute(params![recipient, account, now.millis()])?;
        Ok(took_mail)
    }

    /// Unbinds a recipient from an account. Its mail waits until it expires or the recipient is
    /// bound again. Returns whether the recipient was bound to the account.
    pub fn unbind(&self, recipient: &str, account: i64) -> Result<bool, StoreError> {
        let unbound = self
            .conn()
            .prepare_cached("UPDATE recipient SET account = NULL WHERE did = ?1 AND account = ?2")?
            .execute(params![recipient, account])?;
        Ok(unbound > 0)
    }

    /// Returns the id of a recipient, and creates it, bound to no account, where it does not exist.
    /// Idempotent. Push in the same transaction: an empty recipient without an account may be
    /// removed at any time.
    pub fn open_queue(&self, recipient: &str) -> Result<i64, StoreError> {
        let mut find = self
            .conn()
            .prepare_cached("SELECT id FROM recipient WHERE did = ?1")?;
        if let Some(id) = find.query_row([recipient], |row| row.get(0)).optional()? {
            return Ok(id);
        }
        self.conn()
            .prepare_cached("INSERT INTO recipient (did) VALUES (?1)")?
            .execute([recipient])?;
        Ok(self.conn().last_insert_rowid())
    }

    /// Deletes empty recipients that are bound to no account, at most `limit`. Returns how many.
    pub fn drop_idle_recipients(&self, limit: usize) -> Result<u64, StoreError> {
        let dropped = self
            .conn()
            .prepare_cached(DROP_IDLE)?
            .execute([to_i64(limit)])?;
        Ok(dropped as u64)
    }

    /// Writes a claim, replacing what the account's packages claimed of this DID before.
    /// Idempotent.
    pub fn put_claim(&self, claim: &Claim) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO claim (account, peer, state, since) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (account, peer) DO UPDATE SET state = ?3, since = ?4",
            )?
            .execute(params![
                claim.account.as_str(),
                claim.peer,
                claim.state.as_str(),
                claim.since.millis()
            ])?;
        Ok(())
    }

    /// Deletes a claim. Returns whether there was one.
    pub fn delete_claim(&self, account: &Did, peer: &str) -> Result<bool, StoreError> {
        let deleted = self
            .conn()
            .prepare_cached("DELETE FROM claim WHERE account = ?1 AND peer = ?2")?
            .execute([account.as_str(), peer])?;
        Ok(deleted > 0)
    }
}

fn read_account(row: &Row<'_>) -> Result<Account, rusqlite::Error> {
    Ok(Account {
        id: row.get("id")?,
        did: row.get("did")?,
        long: row.get("long")?,
        granted_at: time(row, "granted_at")?,
        provisional_until: row
            .get::<_, Option<i64>>("provisional_until")?
            .map(Timestamp::from_millis),
        address_group: row.get("address_group")?,
        seen_at: time(row, "seen_at")?,
        dates_changes: row.get("dates_changes")?,
    })
}

fn read_recipient(row: &Row<'_>) -> Result<Recipient, rusqlite::Error> {
    Ok(Recipient {
        id: row.get("id")?,
        did: row.get("did")?,
        account: row.get("account")?,
        closed_at: row
            .get::<_, Option<i64>>("closed_at")?
            .map(Timestamp::from_millis),
        messages: unsigned(row.get("messages")?),
        bytes: unsigned(row.get("bytes")?),
    })
}

pub(super) fn read_claim(row: &Row<'_>) -> Result<Claim, rusqlite::Error> {
    Ok(Claim {
        account: parsed(row, "account", Did::parse)?,
        peer: row.get("peer")?,
        state: parsed(row, "state", |s| {
            ClaimState::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        since: time(row, "since")?,
    })
}
