//! The choice of a package from the answers of the directory and of the account's own servers: a
//! pure function.

use super::authoritative::{AccountIdentity, HostAnswer};
use super::directory::{DirectoryError, View};
use super::outcome::{AnswerFault, NoAnswer, RecipientError, Source, Warning};
use super::trust::Unconfirmed;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::plc;
use atcomm_proto::proof::ProofError;
use atcomm_proto::syntax::{Did, LexiconError};
use atcomm_proto::verify::evidence::{EvidenceError, Keys, ProofResult, VerifiedPackage};

/// The chosen package, with warnings about how it was found.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) package: VerifiedPackage,
    pub(super) warnings: Vec<Warning>,
    /// Why the account's own PDS did not confirm the directory's answer.
    pub(super) unconfirmed: Option<Unconfirmed>,
}

/// The directory's answer, weighed.
enum DirectoryAnswer {
    /// No directory was asked.
    None,
    /// A package that is proven under the account's present keys.
    Package(Box<VerifiedPackage>),
    /// A package that is proven under a key that was replaced since.
    Outdated,
    /// The directory gave no answer.
    Failed(DirectoryError),
}

/// Chooses. An answer that contradicts itself, or proves something else than it says, is an error
/// and not made good by another answer: the directory that gave it should not be asked again.
pub(super) fn choose(
    did: &Did,
    shown: Option<&Result<View, DirectoryError>>,
    identity: &AccountIdentity,
    host_answer: HostAnswer,
    now: Timestamp,
) -> Result<Choice, RecipientError> {
    let mut warnings = Vec::new();
    let answer = match shown {
        None => DirectoryAnswer::None,
        Some(Err(error)) => DirectoryAnswer::Failed(error.clone()),
        Some(Ok(view)) => {
            warnings.extend(about_log(did, view, identity));
            warnings.extend(about_handle(view, identity));
            weigh(did, view, identity, now)?
        }
    };
    if let DirectoryAnswer::Package(package) = answer {
        return beside(*package, host_answer, warnings);
    }
    let package = alone(host_answer, &answer)?;
    match answer {
        DirectoryAnswer::Failed(DirectoryError::Refused { name, message }) => {
            warnings.push(Warning::DirectoryDenies { name, message });
        }
        DirectoryAnswer::Failed(error) => {
            warnings.push(Warning::DirectorySilent(error.to_string()))
        }
        DirectoryAnswer::Outdated => warnings.push(Warning::DirectoryOutdated),
        DirectoryAnswer::None | DirectoryAnswer::Package(_) => {}
    }
    Ok(Choice {
        package,
        warnings,
        unconfirmed: None,
    })
}

/// Checks that the directory's answer is about the account, is proven, and says only what it
/// proves.
fn weigh(
    did: &Did,
    view: &View,
    identity: &AccountIdentity,
    now: Timestamp,
) -> Result<DirectoryAnswer, RecipientError> {
    let refuse = |why| RecipientError::Unproven {
        by: Source::Directory,
        why,
    };
    if view.did != *did {
        return Err(refuse(AnswerFault::OtherAccount(view.did.clone())));
    }
    let car = view
        .car
        .as_ref()
        .ok_or_else(|| refuse(AnswerFault::NoProof))?;
    let package = match identity.keys.prove(did, car, now) {
        Ok(ProofResult::Package(package)) => package,
        Ok(ProofResult::Absent { .. }) => return Err(refuse(EvidenceError::Absent.into())),
        Err(EvidenceError::Proof(ProofError::Signature))
            if by_replaced(did, car, identity, now) =>
        {
            return Ok(DirectoryAnswer::Outdated);
        }
        Err(why) => return Err(refuse(why.into())),
    };
    let same = [
        ("keyPackage.cid", view.cid == package.cid()),
        ("keyPackage.rev", view.rev == package.rev()),
        ("keyPackage.value", view.value == *package.value()),
        ("peer.did", view.peer == package.peer()),
    ];
    if let Some((field, _)) = same.into_iter().find(|(_, same)| !same) {
        return Err(refuse(AnswerFault::Field(field)));
    }
    Ok(DirectoryAnswer::Package(package))
}

/// Whether a previous signing key of the account signed a proof. Such a proof is outdated and not
/// forged.
fn by_replaced(did: &Did, car: &[u8], identity: &AccountIdentity, now: Timestamp) -> bool {
    let states = identity.log.iter().flat_map(|(log, _)| log.states());
    let mut keys: Vec<_> = states
        .filter_map(|state| state.signing_key.clone())
        .collect();
    keys.dedup();
    // Only the newest keys are tried: each costs a signature check.
    keys.into_iter().rev().take(8).any(|current| {
        let keys = Keys {
            current,
            pre_migration_key: None,
        };
        matches!(keys.prove(did, car, now), Ok(ProofResult::Package(_)))
    })
}

/// Compares the directory's operation log with the account's.
fn about_log(did: &Did, view: &View, identity: &AccountIdentity) -> Option<Warning> {
    let (log, _) = identity.log.as_ref()?;
    let theirs = plc::verify(did, view.plc_log.as_ref()?.get().as_bytes());
    match theirs {
        Err(why) => Some(Warning::DirectoryLog(why.to_string())),
        Ok(theirs) if theirs == *log => None,
        Ok(theirs) if log.states().starts_with(theirs.states()) => Some(Warning::DirectoryLog(
            "it lacks the newest operations".to_owned(),
        )),
        Ok(_) => Some(Warning::DirectoryLog(
            "it shows operations that were undone, or that the PLC directory does not show"
                .to_owned(),
        )),
    }
}

fn about_handle(view: &View, identity: &AccountIdentity) -> Option<Warning> {
    let claimed = identity.document.claimed_handle.as_ref();
    let same = view.handle == "handle.invalid"
        || claimed.is_some_and(|handle| view.handle == handle.as_str());
    (!same).then(|| Warning::DirectoryHandle(view.handle.clone()))
}

/// Chooses between the directory's package and the answer of the account's own PDS.
fn beside(
    package: VerifiedPackage,
    host_answer: HostAnswer,
    mut warnings: Vec<Warning>,
) -> Result<Choice, RecipientError> {
    let same_order = |key| package.signing_key() == key;
    // A PDS that the account has left still has the key that signed there, and can sign any package
    // in any revision. So of its packages only one that the present PDS shows as well counts.
    let by_old_host = package.signed_by_previous_host();
    let mut unconfirmed = None;
    let package = match host_answer {
        HostAnswer::Proven(ProofResult::Package(own)) => {
            let newer = own.rev() >= package.rev() || !same_order(own.signing_key());
            if own.cid() == package.cid() {
                // The record is the same, proven in a later revision.
                if newer || by_old_host { *own } else { package }
            } else if by_old_host || (newer && !own.signed_by_previous_host()) {
                warnings.push(Warning::DirectoryOutdated);
                *own
            } else {
                warnings.push(Warning::HostBehind);
                package
            }
        }
        HostAnswer::Proven(ProofResult::Absent { rev, key }) => {
            if !by_old_host && rev < package.rev() && same_order(&key) {
                warnings.push(Warning::HostBehind);
                package
            } else {
                return Err(RecipientError::NotEnrolled { rev, key });
            }
        }
        HostAnswer::NotThere => return Err(RecipientError::NotEnrolledUnproven),
        HostAnswer::Inactive(why) => return Err(RecipientError::Inactive(why.to_owned())),
        HostAnswer::Useless(EvidenceError::Invalid(why)) => {
            return Err(RecipientError::Invalid(why.to_string()));
        }
        HostAnswer::Useless(why) => {
            warnings.push(Warning::HostUseless(why.to_string()));
            unconfirmed = Some(Unconfirmed::HostUseless);
            package
        }
        HostAnswer::Silent(why) => {
            warnings.push(Warning::HostSilent(why));
            unconfirmed = Some(Unconfirmed::HostSilent);
            package
        }
    };
    Ok(Choice {
        package,
        warnings,
        unconfirmed,
    })
}

/// Takes the package from the answer of the account's own PDS alone.
fn alone(
    host_answer: HostAnswer,
    answer: &DirectoryAnswer,
) -> Result<VerifiedPackage, RecipientError> {
    match host_answer {
        HostAnswer::Proven(ProofResult::Package(own)) => Ok(*own),
        HostAnswer::Proven(ProofResult::Absent { rev, key }) => {
            Err(RecipientError::NotEnrolled { rev, key })
        }
        HostAnswer::NotThere => Err(RecipientError::NotEnrolledUnproven),
        HostAnswer::Inactive(why) => Err(RecipientError::Inactive(why.to_owned())),
        HostAnswer::Useless(EvidenceError::Invalid(why)) => {
            Err(RecipientError::Invalid(why.to_string()))
        }
        HostAnswer::Useless(why) => Err(RecipientError::Unproven {
            by: Source::Host,
            why: why.into(),
        }),
        HostAnswer::Silent(why) => Err(RecipientError::Unreachable(NoAnswer::Host(match answer {
            DirectoryAnswer::Failed(DirectoryError::Refused {
                name: name @ (LexiconError::NotEnrolled | LexiconError::AccountInactive),
                ..
            }) => format!(
                "the directory says {name}, and the account's own host cannot be asked: {why}"
            ),
            DirectoryAnswer::Failed(error) => format!("{error}; the account's own host: {why}"),
            _ => format!("the account's own host: {why}"),
        }))),
    }
}

#[cfg(test)]
mod tests;
