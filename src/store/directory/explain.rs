//! What explains the state of one account, beside its entry.

use rusqlite::{OptionalExtension as _, params};

use super::super::columns::time;
use super::super::error::StoreError;
use super::Queries;
use super::changes::ChangeKind;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// Reads the index of the account's changes backwards, which are bounded.
pub(super) const NEWEST_OF_KIND: &str =
    "SELECT seen_at FROM change WHERE did = ?1 AND kind = ?2 ORDER BY seq DESC LIMIT 1";

/// Reads one row of the index.
pub(super) const NEWEST: &str =
    "SELECT kind, detail, seen_at FROM change WHERE did = ?1 ORDER BY seq DESC LIMIT 1";

/// The newest change of an account that has no entry any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastChange {
    /// What changed. `None`: a word of a newer version of this program.
    pub kind: Option<ChangeKind>,
    /// Details in words.
    pub detail: Option<String>,
    /// When the directory saw it.
    pub seen_at: Timestamp,
}

impl Queries<'_> {
    /// Returns when the directory saw the newest change of this kind of an account, as far as the
    /// change log goes back.
    pub fn newest_change_at(
        &self,
        did: &Did,
        kind: ChangeKind,
    ) -> Result<Option<Timestamp>, StoreError> {
        let mut query = self.0.prepare_cached(NEWEST_OF_KIND)?;
        let row = query.query_row(params![did.as_str(), kind.as_str()], |row| {
            time(row, "seen_at")
        });
        Ok(row.optional()?)
    }

    /// Returns the newest change of an account.
    pub fn last_change(&self, did: &Did) -> Result<Option<LastChange>, StoreError> {
        let mut query = self.0.prepare_cached(NEWEST)?;
        let row = query.query_row([did.as_str()], |row| {
            Ok(LastChange {
                kind: ChangeKind::parse(row.get_ref("kind")?.as_str()?),
                detail: row.get("detail")?,
                seen_at: time(row, "seen_at")?,
            })
        });
        Ok(row.optional()?)
    }
}
