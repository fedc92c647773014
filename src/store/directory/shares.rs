//! What each domain takes of the file.
//!
//! An entry counts under the domain of the PDS that the account had when the entry was made, with
//! its proof, its changes and its evidence; a mediator counts under the domain of its host. Triggers
//! keep the sums, in the same transactions.

use rusqlite::{OptionalExtension as _, Row};

use super::super::columns::{collect, unsigned};
use super::super::error::StoreError;
use super::super::schema::domain_of;
use super::changes::{Change, EntryState};
use super::rows::{Entry, MediatorRow};
use super::{Queries, Tx};
use atcomm_proto::syntax::Did;

/// Bytes on the disk of an entry beside what [`Entry::bytes`] measures: its fixed columns, its places
/// in the indexes, and what pages leave unused.
const ENTRY_OVERHEAD: usize = 800;

/// Bytes on the disk of a change beside its texts and its proof.
const CHANGE_OVERHEAD: usize = 250;

/// Bytes on the disk of a mediator of an entry beside its names, in two places of its own and in the
/// two of its count, which no other account may share.
const MEDIATOR_OVERHEAD: usize = 120;

/// What the accounts of one domain, or of all, take of the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Accounts with an entry.
    pub entries: u64,
    /// Those among them that only clients have asked for.
    pub asked: u64,
    /// Bytes of entries, proofs, changes, evidence and mediators.
    pub bytes: u64,
    /// Those among them that belong to accounts that only clients have asked for.
    pub asked_bytes: u64,
}

/// Where the rows of an account count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    /// The domain.
    pub domain: String,
    /// Whether only clients have asked for the account.
    pub asked: bool,
}

impl Owner {
    /// Returns where the rows of an entry's account count.
    pub fn of(entry: &Entry) -> Self {
        Self {
            domain: entry.counts_under(),
            asked: entry.asked,
        }
    }
}

impl Entry {
    /// Returns the domain that the entry counts under. It stays the one of the PDS where the entry
    /// was made, so that an account that moves makes no room for others behind it.
    pub(super) fn counts_under(&self) -> String {
        if self.domain.is_empty() {
            domain_of(self.pds.as_ref())
        } else {
            self.domain.clone()
        }
    }

    /// Returns the bytes that the entry takes on the disk, without its proof. A file of an earlier
    /// version has those of an earlier formula until the entry is written again, with its next proof
    /// at the latest.
    pub fn bytes(&self) -> usize {
        let did = self.did.as_str().len();
        let mediators = self.mediators.iter();
        let pds = self.pds.as_ref().map_or(0, |pds| pds.as_str().len());
        ENTRY_OVERHEAD
            + 8 * did
            // In two indexes, and in the two places of the count of its accounts.
            + 4 * pds
            // The did:peer is in an index, too, and a long one takes pages of its own there.
            + 3 * text_len(self.peer.as_ref())
            + text_len(self.detail.as_ref())
            + mediators
                .map(|mediator| 4 * mediator.as_str().len() + 2 * did + MEDIATOR_OVERHEAD)
                .sum::<usize>()
    }
}

/// Returns the bytes of a change without its proof. `mediators` is their text.
pub(super) fn change_bytes(change: &Change, mediators: &str) -> usize {
    CHANGE_OVERHEAD
        + 2 * change.did.as_str().len()
        + 2 * text_len(change.peer.as_ref())
        + mediators.len()
        + text_len(change.detail.as_ref())
        + change.account.as_ref().map_or(0, EntryState::len)
}

/// Returns the bytes of a row of evidence without its proof.
pub(super) fn evidence_bytes(did: &Did) -> usize {
    CHANGE_OVERHEAD + 2 * did.as_str().len()
}

/// Returns the bytes of what is kept of a mediator. The migration that added the column has the same
/// formula.
pub(super) fn mediator_bytes(row: &MediatorRow) -> usize {
    150 + 2 * row.did.as_str().len() + row.document.len()
}

fn text_len(text: Option<&String>) -> usize {
    text.map_or(0, String::len)
}

impl Queries<'_> {
    /// Returns what the accounts of a domain take.
    pub fn share_of(&self, domain: &str) -> Result<Usage, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT entries, asked, bytes, asked_bytes FROM domain_share WHERE domain = ?1",
        )?;
        let share = query.query_row([domain], read_share).optional()?;
        Ok(share.unwrap_or_default())
    }

    /// Returns what all accounts take.
    pub fn share_of_all(&self) -> Result<Usage, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT entries, asked, bytes, asked_bytes FROM all_shares")?;
        Ok(query.query_row([], read_share)?)
    }

    /// Returns the domains that take the most, at most `limit`.
    pub fn largest_shares(&self, limit: u32) -> Result<Vec<(String, Usage)>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT entries, asked, bytes, asked_bytes, domain FROM domain_share
             ORDER BY bytes DESC LIMIT ?1",
        )?;
        collect(query.query_map([limit], |row| Ok((row.get(4)?, read_share(row)?)))?)
    }
}

impl Tx<'_> {
    /// Notes that a source names an account, if it has an entry: clients are not the only ones any
    /// more that ask for it.
    pub fn brought_by_source(&self, did: &Did) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE entry SET asked = 0 WHERE did = ?1 AND asked = 1")?
            .execute([did.as_str()])?;
        Ok(())
    }
}

fn read_share(row: &Row<'_>) -> Result<Usage, rusqlite::Error> {
    Ok(Usage {
        entries: unsigned(row.get(0)?),
        asked: unsigned(row.get(1)?),
        bytes: unsigned(row.get(2)?),
        asked_bytes: unsigned(row.get(3)?),
    })
}
