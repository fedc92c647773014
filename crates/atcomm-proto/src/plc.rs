//! The operation log of a `did:plc`: a PLC directory's audit log, checked from the account's
//! identifier on.
//!
//! The identifier is the hash of the first operation, every operation names the hash of the one
//! before it, and each is signed by a key that the one before it names. So nobody, the directory
//! included, can invent an operation or change one. What a log cannot show: that it is whole, for
//! one that lacks its newest operations looks just as good; and when its operations were made,
//! which is only the directory's word.
//!
//! Source: did:plc specification v0.1, "DID creation", "Operation signing and validation" and
//! "Account recovery".

mod error;
mod operation;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::key::SigningKey;
use crate::syntax::{Did, Handle, Origin};

pub use self::error::{Fault, LogError};
use self::operation::{Effect, Operation};

/// Longest audit log that is read, in bytes of JSON. One operation has about 1 KB.
pub const MAX_LOG_LEN: usize = 512 * 1024;

/// Most operations of one log, those without effect included. A directory takes a hundred of one
/// account in a week.
pub const MAX_OPERATIONS: usize = 1000;

/// How long, in milliseconds, a key of higher authority can undo what a lower one signed
/// (specification, "Account recovery": 72 hours).
const RECOVERY_WINDOW: u64 = 72 * 60 * 60 * 1000;

/// Longest `createdAt`, in bytes.
const MAX_TIME_LEN: usize = 64;

/// What an operation that counts has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The operation's CID, as text.
    pub cid: String,
    /// When the directory accepted it: the directory's word, which no signature covers.
    pub at: Timestamp,
    /// The key under which the account's commits verify; `None` without one, or with one that
    /// atproto does not have.
    pub signing_key: Option<SigningKey>,
    /// Where the repository is; `None` where none is named, or not by an address of a PDS.
    pub pds: Option<Origin>,
    /// The first valid `at://` name: a claim until it is verified.
    pub handle: Option<Handle>,
}

/// A log that was verified; only [`verify`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedLog {
    did: Did,
    states: Vec<State>,
    tombstone: Option<Timestamp>,
}

impl VerifiedLog {
    /// The account.
    pub fn did(&self) -> &Did {
        &self.did
    }

    /// What holds at the end of the log; `None` when the account has been tombstoned.
    pub fn current(&self) -> Option<&State> {
        match self.tombstone {
            Some(_) => None,
            None => self.states.last(),
        }
    }

    /// What the operations that count have set, oldest first: without those that were undone, and
    /// without a tombstone, which sets nothing.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// When the account was tombstoned, by the directory's word.
    pub fn tombstoned_at(&self) -> Option<Timestamp> {
        self.tombstone
    }

    /// The key that the account had before it moved to its present PDS, and when the operation
    /// that moved it was accepted.
    ///
    /// A repository that is moved keeps its last commit, signed by the key it had, until the
    /// account writes again. A key that was replaced without a move is not that: it may have been
    /// replaced because somebody else has it.
    pub fn pre_migration_key(&self) -> Option<(&SigningKey, Timestamp)> {
        let now = self.current()?;
        now.signing_key.as_ref()?;
        let (before, change) = self.states.windows(2).rev().find_map(|pair| match pair {
            [before, change] if before.signing_key != change.signing_key => Some((before, change)),
            _ => None,
        })?;
        let (left, reached) = (before.pds.as_ref()?, change.pds.as_ref()?);
        let moved = left != reached && now.pds.as_ref() == Some(reached);
        let key = before.signing_key.as_ref()?;
        moved.then_some((key, change.at))
    }
}

/// An entry as the directory gives it; further members are the directory's own.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogEntry {
    #[serde(default)]
    did: Option<String>,
    cid: String,
    created_at: String,
    nullified: bool,
    operation: Map<String, Value>,
}

/// An operation that counts at some point of the log, with what later ones need of it.
struct Link<'e> {
    index: usize,
    cid: &'e str,
    at: Timestamp,
    operation: Operation,
    /// Place of its signer among the rotation keys before it; smaller is higher authority.
    signer: usize,
}

/// Verifies an audit log: a JSON array of `{did?, cid, createdAt, nullified, operation}`, oldest
/// first, as `GET {plc}/{did}/log/audit` answers it.
///
/// Every entry must fit, those without effect included, and be marked as what it is. Costs up to
/// five signature checks for each operation.
pub fn verify(did: &Did, audit_log: &[u8]) -> Result<VerifiedLog, LogError> {
    let Some(id) = did.as_str().strip_prefix("did:plc:") else {
        return Err(LogError::NotPlc);
    };
    if audit_log.len() > MAX_LOG_LEN {
        return Err(LogError::TooLong);
    }
    let entries: Vec<LogEntry> =
        serde_json::from_slice(audit_log).map_err(|_| LogError::NotALog)?;
    if entries.len() > MAX_OPERATIONS {
        return Err(LogError::TooMany);
    }
    let mut chain: Vec<Link<'_>> = Vec::with_capacity(entries.len());
    let mut last = None;
    for (index, entry) in entries.iter().enumerate() {
        let fails = |fault| LogError::Operation { index, fault };
        if entry.did.as_deref().is_some_and(|of| of != did.as_str()) {
            return Err(fails(Fault::WrongDid));
        }
        let at = parse_created_at(&entry.created_at).ok_or(fails(Fault::Time))?;
        if last.is_some_and(|last| at < last) {
            return Err(fails(Fault::Time));
        }
        last = Some(at);
        let operation = Operation::read(&entry.operation).map_err(fails)?;
        if operation.cid() != entry.cid {
            return Err(fails(Fault::Cid));
        }
        let (kept, signer) = attach(&chain, id, &operation, at).map_err(fails)?;
        chain.truncate(kept);
        chain.push(Link {
            index,
            cid: &entry.cid,
            at,
            operation,
            signer,
        });
    }
    let mut counted = chain.iter().map(|link| link.index).peekable();
    for (index, entry) in entries.iter().enumerate() {
        let counts = counted.next_if_eq(&index).is_some();
        if entry.nullified == counts {
            let fault = Fault::Nullified;
            return Err(LogError::Operation { index, fault });
        }
    }
    collect_states(did, chain)
}

/// Where an operation goes: how many of the chain count before it, and its signer's place.
fn attach(
    chain: &[Link<'_>],
    id: &str,
    operation: &Operation,
    at: Timestamp,
) -> Result<(usize, usize), Fault> {
    let Some(prev) = operation.prev.as_deref() else {
        // The first one is bound to the identifier, and signed by a key that it names itself.
        if !chain.is_empty() {
            return Err(Fault::Prev);
        }
        if operation.identifier() != id {
            return Err(Fault::Genesis);
        }
        let Effect::State(data) = &operation.effect else {
            return Err(Fault::Shape);
        };
        return Ok((0, operation.signer(&data.rotation_keys)?));
    };
    let found = chain.iter().rposition(|link| link.cid == prev);
    let position = found.ok_or(Fault::Prev)?;
    let kept = position + 1;
    // Nothing follows a tombstone; it can only be undone.
    let Some(Effect::State(before)) = chain.get(position).map(|link| &link.operation.effect) else {
        return Err(Fault::Prev);
    };
    let Some(disputed) = chain.get(kept) else {
        return Ok((kept, operation.signer(&before.rotation_keys)?));
    };
    let higher = before.rotation_keys.get(..disputed.signer);
    let signer = operation.signer(higher.unwrap_or_default())?;
    if at.since(disputed.at).as_millis() > u128::from(RECOVERY_WINDOW) {
        return Err(Fault::Late);
    }
    Ok((kept, signer))
}

fn collect_states(did: &Did, chain: Vec<Link<'_>>) -> Result<VerifiedLog, LogError> {
    let mut states = Vec::with_capacity(chain.len());
    let mut tombstone = None;
    for link in chain {
        match link.operation.effect {
            Effect::State(data) => states.push(State {
                cid: link.cid.to_owned(),
                at: link.at,
                signing_key: data.signing_key,
                pds: data.pds,
                handle: data.handle,
            }),
            Effect::Tombstone => tombstone = Some(link.at),
        }
    }
    if states.is_empty() {
        return Err(LogError::Empty);
    }
    Ok(VerifiedLog {
        did: did.clone(),
        states,
        tombstone,
    })
}

/// Reads a `createdAt`. Its length is bounded here, as nowhere else a time's is: a log has up to a
/// thousand of them.
fn parse_created_at(text: &str) -> Option<Timestamp> {
    if text.len() > MAX_TIME_LEN {
        return None;
    }
    Timestamp::parse_rfc3339(text)
}

#[cfg(test)]
mod tests;
