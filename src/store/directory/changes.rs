//! The rows of the change log.

use ipld_core::cid::Cid;
use rusqlite::Row;

use super::super::columns::{UnknownWord, maybe, parsed, time, words};
use super::rows::{AccountStatus, Entry, PackageState};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin, Rev};

words! {
    /// The kind of a change in the change log.
    ChangeKind {
        /// A valid package appeared or replaced another.
        Package = "package",
        /// An invalid package appeared or replaced another.
        Invalid = "invalid",
        /// The package was removed.
        Removed = "removed",
        /// The package can no longer be proven.
        Unverifiable = "unverifiable",
        /// The account's status changed.
        Status = "status",
        /// Handle, PDS or signing key changed.
        Identity = "identity",
        /// The PDS served an older revision.
        Regressed = "regressed",
        /// The account has written again after that.
        Recovered = "recovered",
        /// The entry was dropped: nothing proven for too long.
        Dropped = "dropped",
        /// The account ended. All that was known of it is gone but this.
        Deleted = "deleted",
    }
}

/// One row of the change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Position in the log; set by the store.
    pub seq: i64,
    /// The account.
    pub did: Did,
    /// What changed.
    pub kind: ChangeKind,
    /// Revision of the proof: that of the change itself, or of the last proof saved with it.
    pub rev: Option<Rev>,
    /// CID of the record.
    pub cid: Option<Cid>,
    /// The package's did:peer.
    pub peer: Option<String>,
    /// The package's mediators.
    pub mediators: Vec<MediatorDid>,
    /// The key that signed that proof.
    pub key: Option<SigningKey>,
    /// Details in words: the new status, handle or rule.
    pub detail: Option<String>,
    /// When the directory saw the change.
    pub seen_at: Timestamp,
    /// CAR of the package, saved when it is superseded.
    pub proof: Option<Vec<u8>>,
    /// The state of the account after the change; `None` where it has no entry any more, and where
    /// another change of the same observation follows that tells it.
    pub account: Option<EntryState>,
}

impl Change {
    /// Returns a change of an entry, with the package that the entry has.
    pub fn of(entry: &Entry, kind: ChangeKind, detail: Option<String>, seen_at: Timestamp) -> Self {
        Self {
            seq: 0,
            did: entry.did.clone(),
            kind,
            rev: entry.rev,
            cid: entry.cid,
            peer: entry.peer.clone(),
            mediators: entry.mediators.clone(),
            key: entry.proof_key.clone(),
            detail,
            seen_at,
            proof: None,
            account: (kind != ChangeKind::Dropped).then(|| EntryState::of(entry)),
        }
    }

    /// Returns a change that tells nothing but its kind.
    pub fn bare(did: Did, kind: ChangeKind, seen_at: Timestamp) -> Self {
        Self {
            seq: 0,
            did,
            kind,
            rev: None,
            cid: None,
            peer: None,
            mediators: Vec::new(),
            key: None,
            detail: None,
            seen_at,
            proof: None,
            account: None,
        }
    }
}

/// The account's newest proof, that of a package which is superseded now: it moves to the change
/// that brought the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupersededProof {
    /// Position of that change.
    pub seq: i64,
    /// Revision of the proof.
    pub rev: Option<Rev>,
    /// The key that signed it.
    pub key: Option<SigningKey>,
}

/// What an account's entry says to others, without times and without the package itself. Every change
/// of it is in the change log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryState {
    /// The account's status.
    pub status: AccountStatus,
    /// The package's state.
    pub state: PackageState,
    /// Code of the rule that an invalid or unverifiable package breaks.
    pub reason: Option<String>,
    /// Handle, verified in both directions.
    pub handle: Option<Handle>,
    /// The account's PDS.
    pub pds: Option<Origin>,
    /// Whether the PDS has served an older revision since the last proof.
    pub regressed: bool,
}

impl EntryState {
    /// Returns the state of an entry.
    pub fn of(entry: &Entry) -> Self {
        Self {
            status: entry.status.clone(),
            state: entry.state,
            reason: entry.reason.clone(),
            handle: entry.handle.clone(),
            pds: entry.pds.clone(),
            regressed: entry.regressed,
        }
    }

    /// Returns whether the record of the account is one that was proven to be there.
    pub fn has_record(&self) -> bool {
        matches!(self.state, PackageState::Present | PackageState::Invalid)
    }

    /// Returns whether the account is served as a recipient.
    pub fn is_served(&self) -> bool {
        self.state == PackageState::Present && self.status.is_active()
    }

    /// Returns the bytes of the texts.
    pub(super) fn len(&self) -> usize {
        self.status.as_str().len()
            + self.state.as_str().len()
            + self.reason.as_ref().map_or(0, String::len)
            + self
                .handle
                .as_ref()
                .map_or(0, |handle| handle.as_str().len())
            + self.pds.as_ref().map_or(0, |pds| pds.as_str().len())
    }
}

/// Reads the state in a row of the change log.
fn read_account(row: &Row<'_>) -> Result<Option<EntryState>, rusqlite::Error> {
    let Some(status) = row.get_ref("status")?.as_str_or_null()? else {
        return Ok(None);
    };
    Ok(Some(EntryState {
        status: AccountStatus::parse(status),
        state: parsed(row, "state", |s| {
            PackageState::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        reason: row.get("reason")?,
        handle: maybe(row, "handle", Handle::parse)?,
        pds: maybe(row, "pds", Origin::parse)?,
        regressed: row.get("regressed")?,
    }))
}

pub(super) fn read_change(row: &Row<'_>) -> Result<Change, rusqlite::Error> {
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
        account: read_account(row)?,
    })
}
