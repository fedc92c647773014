//! What relays say of the status of accounts, where the operator lets a relay's word count.

use rusqlite::{OptionalExtension as _, params};

use super::super::columns::{collect, parsed};
use super::super::error::StoreError;
use super::rows::AccountStatus;
use super::{Queries, Tx};
use atcomm_proto::syntax::Did;

/// What a relay says of the status of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takedown {
    /// The account.
    pub did: Did,
    /// Name of the source.
    pub source: String,
    /// The status in which the account is not active; `None`: it is active.
    pub status: Option<AccountStatus>,
}

impl Queries<'_> {
    /// Returns the status in which an account is not active by the word of a relay.
    pub fn takedown(&self, did: &Did) -> Result<Option<AccountStatus>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT status FROM takedown WHERE did = ?1 ORDER BY source LIMIT 1")?;
        let row = query.query_row([did.as_str()], |row| {
            Ok(AccountStatus::parse(row.get_ref(0)?.as_str()?))
        });
        Ok(row.optional()?)
    }
}

impl Tx<'_> {
    /// Writes what a relay says of an account that has an entry.
    pub fn set_takedown(&self, takedown: &Takedown) -> Result<(), StoreError> {
        let (did, source) = (takedown.did.as_str(), &takedown.source);
        match &takedown.status {
            Some(status) => self
                .conn()
                .prepare_cached(
                    "INSERT INTO takedown (did, source, status) VALUES (?1, ?2, ?3)
                     ON CONFLICT (did, source) DO UPDATE SET status = ?3",
                )?
                .execute(params![did, source, status.as_str()])?,
            None => self
                .conn()
                .prepare_cached("DELETE FROM takedown WHERE did = ?1 AND source = ?2")?
                .execute(params![did, source])?,
        };
        Ok(())
    }

    /// Deletes what was said by all sources but these. Returns the accounts concerned.
    pub fn keep_takedowns_of(&self, sources: &[String]) -> Result<Vec<Did>, StoreError> {
        let kept = serde_json::json!(sources).to_string();
        let mut delete = self.conn().prepare_cached(
            "DELETE FROM takedown WHERE source NOT IN (SELECT value FROM json_each(?1))
             RETURNING did",
        )?;
        collect(delete.query_map([kept], |row| parsed(row, 0, Did::parse))?)
    }
}
