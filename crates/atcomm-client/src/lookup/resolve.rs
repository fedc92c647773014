//! Resolves an actor to a recipient: finds the account's key package and checks it.
//!
//! A directory saves look-ups and is not trusted. Its answer counts only as far as it is proven. At
//! first contact, or where anything differs from what is pinned, the account's own servers are
//! asked, too: the PLC directory for the operations that lead to the signing key, the PDS for a
//! newer record, the handle for the way back, and the mediators for their keys.

use std::time::Duration;

use super::authoritative::{AccountIdentity, AccountIdentityError, HostAnswer};
use super::candidate::Candidate;
use super::choose::{Choice, choose};
use super::directory::{DirectoryError, View};
use super::outcome::{Recipient, RecipientError, Source};
use super::recipient::RecipientLookup;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::key::SigningKey;
use atcomm_proto::syntax::{Actor, Did, Rev};
use atcomm_proto::verify::evidence::{Keys, ProofResult, VerifiedPackage};
use atcomm_proto::verify::pin::Pin;

/// Time after a look-up at the account's own servers for which only the directory is asked: for so
/// long a directory can hide a change.
const REVERIFY_AFTER: Duration = Duration::from_secs(24 * 3600);

impl RecipientLookup {
    /// Looks up and verifies how to send to an account. `pins` are all contacts.
    pub async fn resolve(&self, actor: &Actor, pins: &[Pin]) -> Result<Recipient, RecipientError> {
        let did = self.account(actor).await?;
        let pin = pins.iter().find(|pin| pin.account == did);
        let candidate = match self.find(&did, actor, pin).await {
            Err(RecipientError::NotEnrolled { rev, key }) if is_before(pin, rev, &key) => {
                return Err(RecipientError::RolledBack {
                    seen: pin.map_or(rev, |pin| pin.rev),
                    shown: rev,
                });
            }
            found => found?,
        };
        self.check(candidate, actor, pins, pin).await
    }

    /// Finds the package: the directory's where its answer matches the pin, else the one that the
    /// account's own servers confirm.
    async fn find(
        &self,
        did: &Did,
        actor: &Actor,
        pin: Option<&Pin>,
    ) -> Result<Candidate, RecipientError> {
        let Some(pin) = pin.filter(|_| !self.mode.is_thorough()) else {
            let (view, own) = tokio::join!(self.view(did), self.ask_own_servers(did));
            return self.choose(did, view, own);
        };
        let view = self.view(did).await;
        if let Some(Ok(view)) = &view
            && let Some(package) = as_pinned(view, actor, pin, self.clock.now())
        {
            return Ok(Candidate {
                package,
                identity: None,
                view: Some(view.clone()),
                warnings: Vec::new(),
                unconfirmed: None,
            });
        }
        let own = self.ask_own_servers(did).await;
        self.choose(did, view, own)
    }

    async fn view(&self, did: &Did) -> Option<Result<View, DirectoryError>> {
        match &self.directory {
            Some(directory) => Some(directory.resolve(did).await),
            None => None,
        }
    }

    async fn ask_own_servers(
        &self,
        did: &Did,
    ) -> Result<(AccountIdentity, HostAnswer), RecipientError> {
        let unproven = |why| RecipientError::Unproven {
            by: Source::Identity,
            why,
        };
        let identity = self
            .authoritative
            .identify(did)
            .await
            .map_err(|error| match error {
                AccountIdentityError::NoAccount => RecipientError::NoAccount,
                AccountIdentityError::Unproven(why) => unproven(why.into()),
                AccountIdentityError::Useless(why) => unproven(why.into()),
                AccountIdentityError::Unreachable(why) => RecipientError::Unreachable(why.into()),
            })?;
        let answer = self.authoritative.answer(&identity).await;
        Ok((identity, answer))
    }

    fn choose(
        &self,
        did: &Did,
        view: Option<Result<View, DirectoryError>>,
        own: Result<(AccountIdentity, HostAnswer), RecipientError>,
    ) -> Result<Candidate, RecipientError> {
        let (identity, answer) = own?;
        let now = self.clock.now();
        let Choice {
            package,
            warnings,
            unconfirmed,
        } = choose(did, view.as_ref(), &identity, answer, now)?;
        Ok(Candidate {
            package,
            identity: Some(identity),
            view: view.and_then(Result::ok),
            warnings,
            unconfirmed,
        })
    }
}

/// Returns the package of the directory's answer, where the whole answer matches the pin.
fn as_pinned(view: &View, actor: &Actor, pin: &Pin, now: Timestamp) -> Option<VerifiedPackage> {
    let asked_handle = match actor {
        Actor::Handle(handle) => Some(handle),
        Actor::Did(_) => pin.handle.as_ref(),
    };
    let shown_handle = match &pin.handle {
        Some(handle) => handle.as_str(),
        None => "handle.invalid",
    };
    if view.did != pin.account
        || view.status != "active"
        || view.stale
        || view.ambiguous
        || view.handle != shown_handle
        || asked_handle != pin.handle.as_ref()
        || pin.changed.is_some()
        || pin.last_seen > now
        || now.since(pin.last_seen) > REVERIFY_AFTER
    {
        return None;
    }
    let keys = Keys {
        current: SigningKey::from_did_key(&pin.signing_key).ok()?,
        pre_migration_key: None,
    };
    let Ok(ProofResult::Package(package)) = keys.prove(&pin.account, view.car.as_ref()?, now)
    else {
        return None;
    };
    let same = package.peer() == pin.peer
        && package.rev() >= pin.rev
        && view.peer == package.peer()
        && view.cid == package.cid()
        && view.value == *package.value();
    same.then_some(*package)
}

/// Whether a proof of absence is older than the pin.
fn is_before(pin: Option<&Pin>, rev: Rev, key: &SigningKey) -> bool {
    let newest = pin.and_then(|pin| pin.newest(&key.did_key()));
    newest.is_some_and(|newest| rev < newest)
}
