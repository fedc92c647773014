//! The rows of `directory.db`, as values.

use std::fmt;

use ipld_core::cid::Cid;
use rusqlite::Row;
use serde::{Deserialize, Serialize};

use super::super::columns::{maybe, parsed, time, words};
use super::trigger::Trigger;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin, Rev};

/// Status of an account at its PDS. The vocabulary is open (sync specification).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum AccountStatus {
    /// In normal use.
    Active,
    /// Switched off by its owner.
    Deactivated,
    /// Taken down by its PDS or another service.
    Takendown,
    /// Suspended by its PDS or another service.
    Suspended,
    /// Deleted, or its DID ended.
    Deleted,
    /// Any other word. Treated as inactive.
    Other(String),
}

impl AccountStatus {
    /// Longest status word kept, in bytes.
    pub const MAX_LEN: usize = 64;

    /// Reads any word. A word that is too long is cut.
    pub fn parse(s: &str) -> Self {
        match s {
            "active" => Self::Active,
            "deactivated" => Self::Deactivated,
            "takendown" => Self::Takendown,
            "suspended" => Self::Suspended,
            "deleted" => Self::Deleted,
            other => Self::Other(other.chars().take(Self::MAX_LEN / 4).collect()),
        }
    }

    /// Returns the word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Active => "active",
            Self::Deactivated => "deactivated",
            Self::Takendown => "takendown",
            Self::Suspended => "suspended",
            Self::Deleted => "deleted",
            Self::Other(word) => word,
        }
    }

    /// Returns whether the directory may answer for the account.
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

impl From<String> for AccountStatus {
    fn from(s: String) -> Self {
        Self::parse(&s)
    }
}

impl From<AccountStatus> for String {
    fn from(s: AccountStatus) -> Self {
        s.as_str().to_owned()
    }
}

impl fmt::Display for AccountStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

words! {
    /// The state of an account's key package.
    PackageState {
        /// Proven to be there, and valid.
        Present = "present",
        /// Proven to be there, and in breach of a rule of its lexicon.
        Invalid = "invalid",
        /// Proven not to be there any more.
        Removed = "removed",
        /// Reported as not there by a PDS that gives no proof.
        RemovedUnproven = "removedUnproven",
        /// Nothing is proven under the account's present key and PDS.
        Unverifiable = "unverifiable",
    }
}

words! {
    /// The kind of a proof.
    ProofMethod {
        /// The answer of `com.atproto.sync.getRecord`.
        GetRecord = "getRecord",
        /// The commit that wrote or deleted the record.
        Commit = "commit",
    }
}

/// One row of the directory. The newest proof, with the record, has a row of its own
/// ([`Queries::proof`](super::Queries::proof)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The account.
    pub did: Did,
    /// Handle, verified in both directions.
    pub handle: Option<Handle>,
    /// The account's PDS.
    pub pds: Option<Origin>,
    /// The account's signing key.
    pub signing_key: Option<SigningKey>,
    /// The account's status.
    pub status: AccountStatus,
    /// The package's state.
    pub state: PackageState,
    /// Code of the rule that an invalid or unverifiable package breaks.
    pub reason: Option<String>,
    /// The same rule as a sentence.
    pub detail: Option<String>,

    /// Revision of the newest proof.
    pub rev: Option<Rev>,
    /// Commit of the newest proof.
    pub commit: Option<Cid>,
    /// CID of the record.
    pub cid: Option<Cid>,
    /// PDS under which `rev` is ordered.
    pub proof_pds: Option<Origin>,
    /// Key that signed the newest proof, under which `rev` is ordered.
    pub proof_key: Option<SigningKey>,
    /// `signing_key` at the time of that proof. The two keys differ until an account that has
    /// migrated writes again.
    pub identity_key: Option<SigningKey>,
    /// The did:peer of a present package.
    pub peer: Option<String>,
    /// The mediators of a present package, in its order.
    pub mediators: Vec<MediatorDid>,
    /// Whether the PDS has served an older revision since.
    pub regressed: bool,

    /// Source of the last proof ([`Trigger::source`]).
    pub source: String,
    /// The kind of the last proof.
    pub method: ProofMethod,
    /// When this state was first seen.
    pub observed_at: Timestamp,
    /// When it was last proven.
    pub proved_at: Option<Timestamp>,
    /// When it was last checked.
    pub checked_at: Timestamp,
    /// When it is to be checked again.
    pub next_check_at: Timestamp,
    /// Checks without success since the last proof.
    pub failures: u32,
    /// Class of the error that the last check ended in; `None` where it had an answer.
    pub failure: Option<String>,
    /// Position of the change that brought this package.
    pub change_seq: i64,

    /// Handle that the account's DID document claims.
    pub claimed: Option<Handle>,
    /// When handle and DID last named each other.
    pub handle_at: Option<Timestamp>,
    /// When the claim is to be checked again; `None` where there is no claim.
    pub handle_next_at: Option<Timestamp>,
    /// Checks of the claim without a result since the last one with a result.
    pub handle_failures: u32,
    /// When `pds`, `signing_key` and `claimed` were asked for.
    pub identity_at: Option<Timestamp>,
    /// Grows with each proof that is taken over.
    pub proofs: i64,
    /// First of the answers in a row that know no such account.
    pub missing_since: Option<Timestamp>,
    /// The entry is known good until then: later events of its account may have been missed.
    pub doubt_since: Option<Timestamp>,
    /// When the last check of the claim that had a result asked.
    pub handle_checked_at: Option<Timestamp>,
    /// Whether the next check of the claim is due because of news.
    pub handle_news: bool,
    /// Domain that the entry counts under: that of the account's PDS when the entry was made. Empty
    /// in an entry that is not stored yet, and set by the store.
    pub domain: String,
    /// Whether only clients have asked for the account, and no source has named it.
    pub asked: bool,
}

impl Entry {
    /// Returns an entry without a package, whose times are all `at`.
    pub fn empty(did: Did, source: &str, at: Timestamp) -> Self {
        Self {
            did,
            handle: None,
            pds: None,
            signing_key: None,
            status: AccountStatus::Active,
            state: PackageState::Removed,
            reason: None,
            detail: None,
            rev: None,
            commit: None,
            cid: None,
            proof_pds: None,
            proof_key: None,
            identity_key: None,
            peer: None,
            mediators: Vec::new(),
            regressed: false,
            source: source.to_owned(),
            method: ProofMethod::GetRecord,
            observed_at: at,
            proved_at: None,
            checked_at: at,
            next_check_at: at,
            failures: 0,
            failure: None,
            change_seq: 0,
            claimed: None,
            handle_at: None,
            handle_next_at: None,
            handle_failures: 0,
            identity_at: None,
            // An entry that was deleted and made again has no count of before.
            proofs: at.millis(),
            missing_since: None,
            doubt_since: None,
            handle_checked_at: None,
            handle_news: false,
            domain: String::new(),
            asked: false,
        }
    }
}

/// A claimed handle whose check is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueHandle {
    /// The account.
    pub did: Did,
    /// The handle that its DID document claims.
    pub claimed: Handle,
    /// The account's PDS.
    pub pds: Option<Origin>,
    /// Position in the order of what is due.
    pub position: DuePosition,
}

/// A position in the order of what is due: the time, and the row of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DuePosition(pub(super) Timestamp, pub(super) i64);

impl DuePosition {
    /// The position before all others.
    pub const START: Self = Self(Timestamp::from_millis(i64::MIN), i64::MIN);
}

/// A status that a PDS announced of an account. It counts only while that PDS is the account's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncedStatus {
    /// The status.
    pub status: AccountStatus,
    /// The PDS that announced it.
    pub pds: Origin,
}

/// The effect of an event on the announced status of a pending refresh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnnouncedChange {
    /// None.
    Keep,
    /// The account is active again.
    Clear,
    /// A newer status.
    Set(AnnouncedStatus),
}

/// A refresh to be stored as pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPending {
    /// The account.
    pub did: Did,
    /// What leads to it. A listing waits until all news is handled, and replaces no other trigger.
    pub trigger: Trigger,
    /// The effect on the announced status.
    pub announced: AnnouncedChange,
    /// Earliest time of the refresh.
    pub not_before: Timestamp,
}

/// A pending refresh, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingRefresh {
    /// The account.
    pub did: Did,
    /// The last trigger.
    pub trigger: Trigger,
    /// Status that a PDS announced of the account.
    pub announced: Option<AnnouncedStatus>,
    /// Earliest time of the refresh.
    pub not_before: Timestamp,
    /// Attempts without success so far.
    pub attempts: u32,
    /// Class of the error that the last attempt ended in.
    pub failure: Option<String>,
    /// Grows with every trigger that was coalesced into the row.
    pub generation: i64,
    /// When the first trigger was stored.
    pub since: Timestamp,
}

/// The cursor of a source: all before it is durably processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceCursor {
    /// The source's name: kind and address.
    pub source: String,
    /// Sequence number, or microseconds for Jetstream.
    pub position: i64,
    /// The source's own time of the event there.
    pub event_time: Option<String>,
}

/// The stored document of a mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediatorRow {
    /// The mediator.
    pub did: MediatorDid,
    /// The document as JSON, as in the recipient view.
    pub document: String,
    /// When it was last looked up.
    pub checked_at: Timestamp,
    /// When it is to be looked up again.
    pub next_check_at: Timestamp,
    /// Look-ups without success since the last one that succeeded.
    pub failures: u32,
}

pub(super) fn read_due_handle(row: &Row<'_>) -> Result<DueHandle, rusqlite::Error> {
    Ok(DueHandle {
        did: parsed(row, "did", Did::parse)?,
        claimed: parsed(row, "claimed", Handle::parse)?,
        pds: maybe(row, "pds", Origin::parse)?,
        position: DuePosition(time(row, "handle_next_at")?, row.get("rowid")?),
    })
}

pub(super) fn read_pending(row: &Row<'_>) -> Result<PendingRefresh, rusqlite::Error> {
    Ok(PendingRefresh {
        did: parsed(row, "did", Did::parse)?,
        // The text of another version stands for a plain recheck.
        trigger: Trigger::parse(row.get_ref("reason")?.as_str()?).unwrap_or(Trigger::Recheck),
        announced: match (
            row.get::<_, Option<String>>("hint")?,
            maybe(row, "hint_pds", Origin::parse)?,
        ) {
            (Some(status), Some(pds)) => Some(AnnouncedStatus {
                status: AccountStatus::parse(&status),
                pds,
            }),
            _ => None,
        },
        not_before: time(row, "not_before")?,
        attempts: row.get("attempts")?,
        failure: row.get("failure")?,
        generation: row.get("generation")?,
        since: time(row, "since")?,
    })
}

pub(super) fn read_mediator(row: &Row<'_>) -> Result<MediatorRow, rusqlite::Error> {
    Ok(MediatorRow {
        did: parsed(row, "did", MediatorDid::parse)?,
        document: row.get("document")?,
        checked_at: time(row, "checked_at")?,
        next_check_at: time(row, "next_check_at")?,
        failures: row.get("failures")?,
    })
}
