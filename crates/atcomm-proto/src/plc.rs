//! The operation log of a `did:plc`: a PLC directory's audit log, verified against the account's
//! identifier.
//!
//! The identifier is the hash of the first operation; every later operation names the hash of an
//! earlier one and is signed by a key that the earlier one names. So the directory cannot invent or
//! change an operation. A log does not prove that it is complete (a log without its newest
//! operations verifies too) or when its operations were made: these times are only the directory's
//! statement.
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

/// Longest accepted audit log, in bytes of JSON. One operation has about 1 KB.
pub const MAX_LOG_LEN: usize = 512 * 1024;

/// Most operations of one log, nullified ones included. A directory accepts a hundred operations of
/// one account in a week.
pub const MAX_OPERATIONS: usize = 1000;

/// Time, in milliseconds, in which a key of higher authority can undo operations signed by a lower
/// one (specification, "Account recovery": 72 hours).
const RECOVERY_WINDOW: u64 = 72 * 60 * 60 * 1000;

/// Longest `createdAt`, in bytes.
const MAX_TIME_LEN: usize = 64;

/// The data that an operation in effect has set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// CID of the operation, as text.
    pub cid: String,
    /// Time at which the directory accepted the operation: the directory's statement, covered by no
    /// signature.
    pub at: Timestamp,
    /// The key that verifies the account's commits; `None` if there is none or atproto does not
    /// support its type.
    pub signing_key: Option<SigningKey>,
    /// Address of the account's PDS; `None` if there is none or it is not a valid address.
    pub pds: Option<Origin>,
    /// The first valid `at://` name: a claim until it is verified.
    pub handle: Option<Handle>,
}

/// A verified log. Only [`verify`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedLog {
    did: Did,
    states: Vec<State>,
    tombstone: Option<Timestamp>,
}

impl VerifiedLog {
    /// Returns the account.
    pub fn did(&self) -> &Did {
        &self.did
    }

    /// Returns the state at the end of the log; `None` if the account is tombstoned.
    pub fn current(&self) -> Option<&State> {
        match self.tombstone {
            Some(_) => None,
            None => self.states.last(),
        }
    }

    /// Returns the states set by the operations in effect, oldest first: without nullified
    /// operations, and without a tombstone, which sets no state.
    pub fn states(&self) -> &[State] {
        &self.states
    }

    /// Returns when the account was tombstoned, as the directory states.
    pub fn tombstoned_at(&self) -> Option<Timestamp> {
        self.tombstone
    }

    /// Returns the account's key from before its migration to the present PDS, and when the
    /// migrating operation was accepted.
    ///
    /// A migrated repository keeps its last commit, signed by the previous key, until the account
    /// writes again. A key replaced without a migration is not returned: it may have been replaced
    /// because it was stolen.
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

/// An entry as the directory sends it; other members are the directory's own.
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

/// An operation in effect at some point of the log, with the data that verifies later operations.
struct Link<'e> {
    index: usize,
    cid: &'e str,
    at: Timestamp,
    operation: Operation,
    /// Index of the signer among the previous operation's rotation keys; a lower index has higher
    /// authority.
    signer: usize,
}

/// Verifies an audit log: a JSON array of `{did?, cid, createdAt, nullified, operation}`, oldest
/// first, as returned by `GET {plc}/{did}/log/audit`.
///
/// Every entry must be valid, nullified ones included, and `nullified` must be correct. Costs up to
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

/// Finds where an operation is attached: returns how many links of the chain precede it, and the
/// index of its signer.
fn attach(
    chain: &[Link<'_>],
    id: &str,
    operation: &Operation,
    at: Timestamp,
) -> Result<(usize, usize), Fault> {
    let Some(prev) = operation.prev.as_deref() else {
        // The first operation is bound to the identifier and signed by a key that it names itself.
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
    // No operation follows a tombstone; a tombstone can only be undone.
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

/// Reads a `createdAt`. The length is bounded only here, since a log has up to a thousand of these
/// times.
fn parse_created_at(text: &str) -> Option<Timestamp> {
    if text.len() > MAX_TIME_LEN {
        return None;
    }
    Timestamp::parse_rfc3339(text)
}

#[cfg(test)]
mod tests;
