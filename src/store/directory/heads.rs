//! The newest commit that is known of each account in the directory, by which a commit that never
//! came is noticed.

use rusqlite::{OptionalExtension as _, params};

use super::super::columns::{maybe, maybe_time, time};
use super::super::error::StoreError;
use super::rows::AccountStatus;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, Origin, Rev};

/// Length of a CID, in bytes.
const CID_LEN: usize = 36;

/// The newest commit of an account.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// Revision; `None` where the newest commit is not known.
    pub rev: Option<Rev>,
    /// CID of the tree's root, in binary form; `None` where only the revision is known.
    pub data: Option<[u8; CID_LEN]>,
    /// When the last refresh is due that a commit led to by not following this one, or by an
    /// account that was believed inactive.
    pub refresh_at: Option<Timestamp>,
}

/// What is known of an account when a commit of it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// The account's PDS.
    pub pds: Option<Origin>,
    /// The account's status.
    pub status: AccountStatus,
    /// When the account was last checked.
    pub checked_at: Timestamp,
    /// Its newest commit.
    pub head: Head,
}

impl Queries<'_> {
    /// Returns what is known of an account with an entry.
    pub fn tracked(&self, did: &Did) -> Result<Option<Tracked>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT entry.pds, status, checked_at, head.rev AS head_rev, data, refresh_at
             FROM entry LEFT JOIN head ON head.did = entry.did WHERE entry.did = ?1",
        )?;
        let row = query.query_row([did.as_str()], |row| {
            Ok(Tracked {
                pds: maybe(row, "pds", Origin::parse)?,
                status: AccountStatus::parse(row.get_ref("status")?.as_str()?),
                checked_at: time(row, "checked_at")?,
                head: Head {
                    rev: maybe(row, "head_rev", Rev::parse)?,
                    data: row.get("data")?,
                    refresh_at: maybe_time(row, "refresh_at")?,
                },
            })
        });
        Ok(row.optional()?)
    }
}

impl Tx<'_> {
    /// Writes the newest commit of an account that has an entry.
    pub fn put_head(&self, did: &Did, head: &Head) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO head (did, rev, data, refresh_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (did) DO UPDATE SET rev = ?2, data = ?3, refresh_at = ?4",
            )?
            .execute(params![
                did.as_str(),
                head.rev.as_ref().map(Rev::as_str),
                head.data,
                head.refresh_at.map(Timestamp::millis),
            ])?;
        Ok(())
    }

    /// Takes over the commit of a proof as the newest one of its account, unless a newer one is
    /// known in the same order of revisions. `is_new_order`: revisions have a new order, since PDS
    /// or signing key changed.
    pub fn prove_head(
        &self,
        did: &Did,
        rev: Rev,
        data: &[u8],
        is_new_order: bool,
    ) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO head (did, rev, data) VALUES (?1, ?2, ?3)
                 ON CONFLICT (did) DO UPDATE SET rev = ?2, data = ?3
                 WHERE ?4 OR rev IS NULL OR rev <= ?2",
            )?
            .execute(params![did.as_str(), rev.as_str(), data, is_new_order])?;
        Ok(())
    }
}
