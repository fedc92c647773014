//! The checks that turn a package into a recipient: revision, handle, mediators and pin.

use std::collections::BTreeMap;

use super::authoritative::AccountIdentity;
use super::directory::View;
use super::outcome::{Recipient, RecipientError, Warning};
use super::recipient::RecipientLookup;
use super::trust::{Trust, Unconfirmed};
use atcomm_net::identity::{HandleCheck, MediatorDocument};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::party::KeyAgreement;
use atcomm_proto::syntax::{Actor, Did, Handle, MediatorDid};
use atcomm_proto::verify::evidence::{Evidence, VerifiedPackage};
use atcomm_proto::verify::pin::Pin;
use atcomm_proto::verify::pinning::{self, VerifiedAccount, is_rolled_back};
use atcomm_proto::verify::succession;

/// A proven package before the checks.
pub(super) struct Candidate {
    pub(super) package: VerifiedPackage,
    /// The answer of the account's own servers; `None` where they were not asked.
    pub(super) identity: Option<AccountIdentity>,
    /// The directory's answer.
    pub(super) view: Option<View>,
    pub(super) warnings: Vec<Warning>,
    /// Why the account's PDS did not confirm the package.
    pub(super) unconfirmed: Option<Unconfirmed>,
}

/// The results of the checks before the pin is compared.
struct Checked {
    /// The verified handle.
    handle: Option<Handle>,
    /// The other account that is known by the handle, with the handle.
    moved_from: Option<(Handle, Did)>,
    /// The mediators' keys, to be pinned.
    keys: BTreeMap<MediatorDid, Vec<KeyAgreement>>,
}

impl RecipientLookup {
    /// Checks a candidate. `pins` are all contacts, `pin` is the one of its account.
    pub(super) async fn check(
        &self,
        mut candidate: Candidate,
        actor: &Actor,
        pins: &[Pin],
        pin: Option<&Pin>,
    ) -> Result<Recipient, RecipientError> {
        check_rollback(&candidate.package, pin)?;
        let handle = self.check_handle(&mut candidate, actor, pin).await?;
        let (mediators, keys) = self.check_mediators(&mut candidate, pin).await;
        let checked = Checked {
            moved_from: check_contacts(&mut candidate, handle.as_ref(), pins),
            handle,
            keys,
        };
        let older = self.bridges(&candidate, pin).await;
        let now = self.clock.now();
        let trust = compare_with_pin(&candidate, &checked, actor, pin, &older, now);
        Ok(self.recipient(candidate, checked.handle, mediators, trust, now))
    }

    /// Verifies the handle in both directions. Where it cannot be looked up now, the pinned handle
    /// stays as long as the account claims it.
    async fn check_handle(
        &self,
        candidate: &mut Candidate,
        actor: &Actor,
        pin: Option<&Pin>,
    ) -> Result<Option<Handle>, RecipientError> {
        let pinned = pin.and_then(|pin| pin.handle.as_ref());
        let handle = match &candidate.identity {
            None => pinned.cloned(),
            Some(AccountIdentity { document, .. }) => {
                match self.authoritative.identity().verify_handle(document).await {
                    HandleCheck::Verified(handle) => Some(handle),
                    HandleCheck::Invalid => {
                        candidate.warnings.push(Warning::HandleInvalid);
                        None
                    }
                    HandleCheck::Inconclusive => {
                        candidate.warnings.push(Warning::HandleUnknown);
                        let claimed = document.claimed_handle.as_ref();
                        pinned.filter(|pinned| claimed == Some(pinned)).cloned()
                    }
                }
            }
        };
        match actor {
            Actor::Handle(asked) if handle.as_ref() != Some(asked) => {
                Err(RecipientError::HandleNotClaimed {
                    handle: asked.clone(),
                    account: candidate.package.account().clone(),
                })
            }
            _ => Ok(handle),
        }
    }

    /// Reads the mediators' documents. Returns them with the keys to be pinned.
    async fn check_mediators(
        &self,
        candidate: &mut Candidate,
        pin: Option<&Pin>,
    ) -> (
        Vec<MediatorDocument>,
        BTreeMap<MediatorDid, Vec<KeyAgreement>>,
    ) {
        let Candidate {
            package,
            view,
            warnings,
            ..
        } = candidate;
        let (mediators, keys) = self.mediators(package, pin, view.as_ref(), warnings).await;
        warnings.extend(about(package, pin, view.as_ref()));
        let is_usable =
            |one: &MediatorDocument| !one.key_agreement.is_empty() && !one.services.is_empty();
        if self.mode.reads_mediators() && !mediators.iter().any(is_usable) {
            warnings.push(Warning::NoMediator);
        }
        (mediators, keys)
    }

    /// Returns superseded packages that can bridge a change of keys. The directory is asked for
    /// them only where the new package has no statement of the pinned key itself.
    async fn bridges(&self, candidate: &Candidate, pin: Option<&Pin>) -> Vec<VerifiedPackage> {
        let (Some(pin), Some(identity)) = (pin, &candidate.identity) else {
            return Vec::new();
        };
        let package = &candidate.package;
        // A package without a statement of any key ends every chain.
        let Some(statement) = package.succession().filter(|_| pin.peer != package.peer()) else {
            return Vec::new();
        };
        if succession::vouches(statement, &pin.peer, package.peer(), package.account()) {
            return Vec::new();
        }
        self.superseded(package.account(), &identity.keys).await
    }

    fn recipient(
        &self,
        candidate: Candidate,
        handle: Option<Handle>,
        mediators: Vec<MediatorDocument>,
        trust: Trust,
        now: Timestamp,
    ) -> Recipient {
        let Candidate {
            package,
            identity,
            view,
            warnings,
            ..
        } = candidate;
        let authoritative = identity.is_some();
        let (pds, log) = identity.map_or((None, None), |identity| {
            (identity.document.pds.ok(), identity.log)
        });
        let (log, raw_log) = log.unzip();
        let evidence = Evidence {
            did: package.account().clone(),
            handle: handle.clone(),
            directory: self.directory.as_ref().map(|asked| asked.origin().clone()),
            asked_at: now,
            car: package.car().to_vec(),
            plc_log: raw_log,
            answer: view.map(|view| view.answer),
        };
        Recipient {
            account: package.account().clone(),
            handle,
            pds,
            package,
            log,
            mediators,
            authoritative,
            warnings,
            evidence,
            trust,
        }
    }
}

/// Refuses a package that is older than what is pinned.
fn check_rollback(package: &VerifiedPackage, pin: Option<&Pin>) -> Result<(), RecipientError> {
    match pin.filter(|pin| is_rolled_back(pin, package)) {
        Some(pin) => Err(RecipientError::RolledBack {
            seen: pin.rev,
            shown: package.rev(),
        }),
        None => Ok(()),
    }
}

/// Returns the other contact that is known by the handle, with the handle.
fn check_contacts(
    candidate: &mut Candidate,
    handle: Option<&Handle>,
    pins: &[Pin],
) -> Option<(Handle, Did)> {
    let handle = handle?.clone();
    let before = known_by(&handle, candidate.package.account(), pins)?.clone();
    candidate.warnings.push(Warning::HandleMoved {
        handle: handle.clone(),
        before: before.clone(),
    });
    Some((handle, before))
}

fn compare_with_pin(
    candidate: &Candidate,
    checked: &Checked,
    actor: &Actor,
    pin: Option<&Pin>,
    older: &[VerifiedPackage],
    now: Timestamp,
) -> Trust {
    let Candidate { package, .. } = candidate;
    let seen = || VerifiedAccount {
        package,
        handle: checked.handle.clone(),
        authoritative: candidate.identity.is_some(),
        mediators: checked.keys.clone(),
    };
    let (change, mut next) = pinning::update(pin, seen(), older, now);
    if checked.moved_from.is_some() {
        // The contact that was known by the handle keeps it until the user accepts the change.
        next.handle = None;
    }
    let needs_confirmation = Trust::needs_confirmation(&change, package);
    let unconfirmed = candidate.unconfirmed;
    // Sending to an unconfirmed key does not pin it.
    let is_pinned = unconfirmed.is_none() || !needs_confirmation;
    Trust {
        change,
        ambiguous: candidate.view.as_ref().map(|view| view.ambiguous),
        unconfirmed,
        pin: is_pinned.then_some(next),
        accepted: pinning::accept(pin, seen(), now),
        needs_confirmation,
        moved_from: checked.moved_from.clone(),
        asked_by_handle: matches!(actor, Actor::Handle(_)),
        known_as: pin.and_then(|pin| pin.handle.clone()),
    }
}

/// Returns the other account that is known by a handle.
pub(super) fn known_by<'p>(handle: &Handle, account: &Did, pins: &'p [Pin]) -> Option<&'p Did> {
    let mut others = pins.iter().filter(|pin| pin.account != *account);
    let other = others.find(|pin| pin.is_known_by(handle))?;
    Some(&other.account)
}

fn about(package: &VerifiedPackage, pin: Option<&Pin>, view: Option<&View>) -> Vec<Warning> {
    let signed_by = package.signing_key().did_key();
    let other_key = pin.is_some_and(|pin| pin.signing_key != signed_by);
    [
        (package.signed_by_previous_host(), Warning::BeforeMove),
        (other_key, Warning::SigningKeyChanged),
        (view.is_some_and(|view| view.ambiguous), Warning::Ambiguous),
    ]
    .into_iter()
    .filter_map(|(is_so, warning)| is_so.then_some(warning))
    .collect()
}
