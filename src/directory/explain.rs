//! Why an account is answered as it is: its state in one word, since when, and what comes next
//! (`lexicons/at/didcomm/directory/explainAccount.json`).
//!
//! [`explain`] is a pure function of what the directory has of the account, and of the time. It
//! looks at nothing else, so the state is the same that a reader of the change log arrives at.

use serde::{Serialize, Serializer};

use super::Directory;
use super::apply::{STALE, handle};
use super::quota::Full;
use crate::store::directory::{LastChange, Queries};
use crate::store::{AccountStatus, ChangeKind, Entry, PackageState, PendingRefresh, StoreError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

/// The state of an account in the directory, as `explainAccount` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExplainedState {
    /// It has a valid key package, which is answered.
    Verified,
    /// Likewise, and its PDS has served an older revision since.
    Regressed,
    /// Its status hides it.
    Inactive,
    /// Its key package breaks a rule.
    Invalid,
    /// Its key package was removed, which is proven.
    Removed,
    /// Its PDS says that there is no key package, and proves nothing.
    RemovedUnproven,
    /// Nothing is proven under its present key and PDS.
    Unverifiable,
    /// Its entry was dropped: nothing was proven for too long, or a limit was reached.
    Dropped,
    /// The account ended, and all that was known of it is gone.
    Deleted,
    /// A limit of the directory lets no entry be made.
    Refused,
    /// The directory has nothing of it.
    Unknown,
}

impl ExplainedState {
    /// All states.
    pub const ALL: [Self; 11] = [
        Self::Verified,
        Self::Regressed,
        Self::Inactive,
        Self::Invalid,
        Self::Removed,
        Self::RemovedUnproven,
        Self::Unverifiable,
        Self::Dropped,
        Self::Deleted,
        Self::Refused,
        Self::Unknown,
    ];

    /// Returns the state of an account with an entry. A status that hides the account comes before
    /// the state of its package.
    pub fn of(entry: &Entry) -> Self {
        Self::of_parts(&entry.status, entry.state, entry.regressed)
    }

    /// Returns the state that these parts of an entry make.
    pub fn of_parts(status: &AccountStatus, package: PackageState, regressed: bool) -> Self {
        match package {
            _ if !status.is_active() => Self::Inactive,
            PackageState::Present if regressed => Self::Regressed,
            PackageState::Present => Self::Verified,
            PackageState::Invalid => Self::Invalid,
            PackageState::Removed => Self::Removed,
            PackageState::RemovedUnproven => Self::RemovedUnproven,
            PackageState::Unverifiable => Self::Unverifiable,
        }
    }

    /// Returns the stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Regressed => "regressed",
            Self::Inactive => "inactive",
            Self::Invalid => "invalid",
            Self::Removed => "removed",
            Self::RemovedUnproven => "removedUnproven",
            Self::Unverifiable => "unverifiable",
            Self::Dropped => "dropped",
            Self::Deleted => "deleted",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// What the directory has of an account, beside the proof.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The entry. Its doubt includes gaps whose marking has not come to it yet.
    pub entry: Option<Entry>,
    /// The pending refresh.
    pub pending: Option<PendingRefresh>,
    /// The status in which the account is not active by the word of a relay.
    pub takedown: Option<AccountStatus>,
    /// When the status last changed.
    pub status_at: Option<Timestamp>,
    /// When the PDS was last found to serve an older revision.
    pub regressed_at: Option<Timestamp>,
    /// The newest change of an account without an entry.
    pub last: Option<LastChange>,
    /// The limit at which the account was refused, as long as that is remembered.
    pub refused: Option<(Full, Timestamp)>,
}

/// One reason why an account is not answered as verified and up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// Stable code.
    pub code: &'static str,
    /// The same as a sentence.
    pub message: String,
    /// Code of the rule or limit, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Since when, where that is known.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_maybe_time"
    )]
    pub since: Option<Timestamp>,
    /// When it is tried to end it; a time that has passed: as soon as a slot is free.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_maybe_time"
    )]
    pub next_at: Option<Timestamp>,
}

/// The error that the last look at an account ended in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// Its class, a stable code: one of those of [`Explanation`]'s lexicon, or the rule that the answer
    /// breaks.
    pub class: String,
    /// The same as a sentence.
    pub message: String,
    /// Looks without success in a row.
    pub attempts: u32,
}

/// Why an account is answered as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The account.
    pub did: Did,
    /// Its state.
    #[serde(serialize_with = "write_state")]
    pub state: ExplainedState,
    /// Since when it has the state, where that is known.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_maybe_time"
    )]
    pub since: Option<Timestamp>,
    /// Its status at its PDS, where it has an entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<AccountStatus>,
    /// Revision of the newest proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rev: Option<String>,
    /// All reasons; none for an account that is verified and up to date.
    pub reasons: Vec<Reason>,
    /// The error that the last look ended in; none where it had an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// When the account is looked at again; none where no look is planned.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_maybe_time"
    )]
    pub next_check_at: Option<Timestamp>,
    /// What led to the newest look or the one that is pending ([`Trigger::source`]).
    ///
    /// [`Trigger::source`]: crate::store::Trigger::source
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// When it was last looked at.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_maybe_time"
    )]
    pub checked_at: Option<Timestamp>,
    /// When something was last proven.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_maybe_time"
    )]
    pub proved_at: Option<Timestamp>,
}

fn write_maybe_time<S: Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => to.collect_str(at),
        None => to.serialize_none(),
    }
}

fn write_state<S: Serializer>(state: &ExplainedState, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.code())
}

impl Directory {
    /// Explains the state of an account from what the directory has of it, and looks nothing up.
    pub async fn explain(&self, did: &Did) -> Result<Explanation, StoreError> {
        let (account, now) = (did.clone(), self.clock.now());
        let mut known = self.store.query(move |q| Known::read(q, &account)).await?;
        known.refused = self.refused.get(did);
        Ok(explain(did, &known, now))
    }
}

impl Known {
    /// Reads all but what is only remembered.
    pub(super) fn read(q: &Queries<'_>, did: &Did) -> Result<Self, StoreError> {
        let mut known = Self {
            entry: q.entry(did)?,
            pending: q.pending(did)?,
            ..Self::default()
        };
        let Some(entry) = &mut known.entry else {
            known.last = q.last_change(did)?;
            return Ok(known);
        };
        if let Some(since) = q.unmarked_doubt(did)? {
            entry.doubt_since = Some(entry.doubt_since.map_or(since, |doubt| doubt.min(since)));
        }
        known.takedown = q.takedown(did)?;
        known.status_at = q.newest_change_at(did, ChangeKind::Status)?;
        known.regressed_at = q.newest_change_at(did, ChangeKind::Regressed)?;
        Ok(known)
    }
}

/// Explains the state of an account.
pub fn explain(did: &Did, known: &Known, now: Timestamp) -> Explanation {
    let (state, since, mut reasons) = match &known.entry {
        Some(entry) => (
            ExplainedState::of(entry),
            since(known, entry),
            entry_reasons(known, entry, now),
        ),
        None => without_entry(known),
    };
    if let Some(pending) = &known.pending {
        let mut reason = Reason::new("pending", "a look at the account is to be made".to_owned());
        reason.since = Some(pending.since);
        reason.next_at = Some(pending.not_before);
        reasons.push(reason);
    }
    let entry = known.entry.as_ref();
    let next = entry.map(|entry| entry.next_check_at);
    let pending = known.pending.as_ref();
    Explanation {
        did: did.clone(),
        state,
        since,
        status: entry.map(|entry| entry.status.clone()),
        rev: entry.and_then(|entry| Some(entry.rev?.to_string())),
        reasons,
        last_error: last_error(known),
        next_check_at: next
            .into_iter()
            .chain(pending.map(|one| one.not_before))
            .min(),
        source: pending
            .map(|pending| pending.trigger.source().to_owned())
            .or_else(|| entry.map(|entry| entry.source.clone())),
        checked_at: entry.map(|entry| entry.checked_at),
        proved_at: entry.and_then(|entry| entry.proved_at),
    }
}

/// Returns since when an account with an entry has its state.
fn since(known: &Known, entry: &Entry) -> Option<Timestamp> {
    match ExplainedState::of(entry) {
        ExplainedState::Inactive => known.status_at,
        ExplainedState::Regressed => known.regressed_at.max(known.status_at),
        // An account that came back has its package for longer than its state.
        ExplainedState::Verified => {
            let package = Some(entry.observed_at);
            package.max(known.status_at).max(known.regressed_at)
        }
        _ => Some(entry.observed_at).max(known.status_at),
    }
}

fn without_entry(known: &Known) -> (ExplainedState, Option<Timestamp>, Vec<Reason>) {
    let ended = known
        .last
        .as_ref()
        .filter(|last| matches!(last.kind, Some(ChangeKind::Dropped | ChangeKind::Deleted)));
    let refused = known
        .refused
        .filter(|(_, at)| ended.is_none_or(|last| last.seen_at < *at));
    let (state, mut reason) = match (refused, ended) {
        (Some((full, at)), _) => {
            let mut reason = Reason::new("refused", full.message().to_owned());
            reason.rule = Some(full.code().to_owned());
            reason.since = Some(at);
            (ExplainedState::Refused, reason)
        }
        (None, Some(last)) if last.kind == Some(ChangeKind::Deleted) => {
            let message = "the account has ended, and what was known of it is deleted";
            (
                ExplainedState::Deleted,
                Reason::new("deleted", message.to_owned()),
            )
        }
        (None, Some(last)) => {
            let message = match &last.detail {
                Some(_) => "the directory has no room for the account",
                None => "for 30 days nothing was proven, or the key package was removed",
            };
            let mut reason = Reason::new("dropped", message.to_owned());
            reason.rule.clone_from(&last.detail);
            (ExplainedState::Dropped, reason)
        }
        (None, None) => {
            let message = "the directory has nothing of the account; resolveRecipient looks at it";
            (
                ExplainedState::Unknown,
                Reason::new("unknown", message.to_owned()),
            )
        }
    };
    let since = reason.since.or(ended.map(|last| last.seen_at));
    reason.since = since;
    (state, since, vec![reason])
}

/// Returns all that speaks against answering an account as verified and up to date.
fn entry_reasons(known: &Known, entry: &Entry, now: Timestamp) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if !entry.status.is_active() {
        reasons.push(hidden(known, entry));
    }
    reasons.extend(package_reason(entry));
    let mut add = |code, message: &str, since| {
        let mut reason = Reason::new(code, message.to_owned());
        reason.since = since;
        reason.next_at = Some(entry.next_check_at);
        reasons.push(reason);
    };
    if entry.regressed {
        let message = "the account's PDS serves an older revision than was proven before";
        add("regressed", message, known.regressed_at);
    }
    if let Some(since) = entry.missing_since {
        let message = "the account's servers say that they do not know the account";
        add("missing", message, Some(since));
    }
    if let Some(since) = entry.doubt_since {
        let message = "later events of the account may have been missed";
        add("doubt", message, Some(since));
    }
    if let Some(proved) = entry.proved_at
        && now.since(proved) > STALE
    {
        add("stale", "the last proof is old", Some(proved));
    }
    if let Some(claimed) = &entry.claimed
        && handle::shown(entry, now).is_none()
    {
        let message = format!("the handle {claimed} is not confirmed");
        let mut reason = Reason::new("handle", message);
        reason.next_at = entry.handle_next_at;
        reasons.push(reason);
    }
    reasons
}

/// Returns why the status of an account hides it.
fn hidden(known: &Known, entry: &Entry) -> Reason {
    let status = &entry.status;
    let mut reason = if known.takedown.as_ref() == Some(status) {
        let message = format!("a relay says that the account is not active: {status}");
        Reason::new("relayTakedown", message)
    } else {
        let message = format!("the account is not active at its PDS: {status}");
        Reason::new("inactive", message)
    };
    reason.since = known.status_at;
    reason.next_at = Some(entry.next_check_at);
    reason
}

/// Returns why the package of an entry is not answered.
fn package_reason(entry: &Entry) -> Option<Reason> {
    let detail = entry.detail.as_deref().unwrap_or_default();
    let message = match entry.state {
        PackageState::Present => return None,
        PackageState::Invalid => format!("the key package is invalid: {detail}"),
        PackageState::Removed => "the account has removed its key package (proven)".to_owned(),
        PackageState::RemovedUnproven => {
            "the account's PDS says that it has no key package, and gives no proof".to_owned()
        }
        PackageState::Unverifiable => format!("nothing is proven of the key package: {detail}"),
    };
    let mut reason = Reason::new(entry.state.as_str(), message);
    reason.rule.clone_from(&entry.reason);
    reason.since = Some(entry.observed_at);
    reason.next_at = Some(entry.next_check_at);
    Some(reason)
}

/// Returns the error that the last look ended in. An entry has it, but for the errors that say
/// nothing about the account: those are with the pending refresh.
fn last_error(known: &Known) -> Option<LastError> {
    let of_entry = known
        .entry
        .as_ref()
        .and_then(|entry| Some((entry.failure.clone()?, entry.failures)));
    let of_pending = || {
        let pending = known.pending.as_ref()?;
        let class = pending.failure.clone()?;
        let is_ours = matches!(&*class, "busy" | "store");
        (is_ours || known.entry.is_none()).then_some((class, pending.attempts))
    };
    let (class, attempts) = of_entry.or_else(of_pending)?;
    Some(LastError {
        message: error_message(&class).to_owned(),
        class,
        attempts,
    })
}

/// Returns the class of an error as a sentence.
pub(super) fn error_message(class: &str) -> &'static str {
    match class {
        "did_unreachable" => "the DID's directory or host gave no usable answer",
        "did_not_found" => "the DID's directory or host does not know the DID",
        "pds_unreachable" => "the account's PDS did not answer",
        "pds_error" => "the account's PDS answered with an error of its own",
        "repo_not_found" => "the account's PDS does not know the account",
        "absence_unproven" => "the account's PDS says that there is no key package, without proof",
        "regressed" => "the account's PDS served an older revision than was proven before",
        "busy" => "the account's servers must not be asked for the moment",
        "store" => "the directory could not write what it found",
        _ => "the answer of the account's servers proves nothing",
    }
}

impl Reason {
    fn new(code: &'static str, message: String) -> Self {
        Self {
            code,
            message,
            rule: None,
            since: None,
            next_at: None,
        }
    }
}
