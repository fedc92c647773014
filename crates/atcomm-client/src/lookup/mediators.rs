//! The mediators of a package, by their own documents.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::directory::View;
use super::outcome::Warning;
use super::recipient::RecipientLookup;
use atcomm_net::identity::{Freshness, MediatorDocument};
use atcomm_proto::didcomm::party::KeyAgreement;
use atcomm_proto::syntax::MediatorDid;
use atcomm_proto::verify::evidence::VerifiedPackage;
use atcomm_proto::verify::pin::Pin;

/// Most mediators of one package whose documents are read; a sender takes the first that accepts.
const MAX_MEDIATORS: usize = 8;

impl RecipientLookup {
    /// Returns the mediators' documents, with the keys to be pinned. A document is the directory's
    /// where its keys are the pinned ones, else the mediator's own.
    pub(super) async fn mediators(
        &self,
        package: &VerifiedPackage,
        pin: Option<&Pin>,
        view: Option<&View>,
        warnings: &mut Vec<Warning>,
    ) -> (
        Vec<MediatorDocument>,
        BTreeMap<MediatorDid, Vec<KeyAgreement>>,
    ) {
        let named = &package.package().mediators;
        let shown = |did: &MediatorDid| view?.mediators.iter().find(|one| one.did == *did);
        let pinned = |did: &MediatorDid| pin?.mediators.get(did);
        let first = named.iter().take(MAX_MEDIATORS);
        let reads = first.map(|did| self.mediator_document(did, shown(did), pinned(did)));
        let mut documents = join_all(reads).await;
        let mut keys = BTreeMap::new();
        for own in &documents {
            if own.key_agreement.is_empty() {
                // The mediator may be down now; its keys stay the pinned ones.
                if let Some(pinned) = pinned(&own.did) {
                    keys.insert(own.did.clone(), pinned.clone());
                }
                continue;
            }
            keys.insert(own.did.clone(), own.key_agreement.clone());
            let other = shown(&own.did).filter(|shown| {
                !shown.key_agreement.is_empty() && shown.key_agreement != own.key_agreement
            });
            if other.is_some() {
                warnings.push(Warning::DirectoryMediator(own.did.clone()));
            }
        }
        let rest = named.iter().skip(MAX_MEDIATORS);
        documents.extend(rest.cloned().map(MediatorDocument::unchecked));
        (documents, keys)
    }

    async fn mediator_document(
        &self,
        did: &MediatorDid,
        shown: Option<&MediatorDocument>,
        pinned: Option<&Vec<KeyAgreement>>,
    ) -> MediatorDocument {
        if let (Some(shown), Some(pinned), false) = (shown, pinned, self.mode.is_thorough())
            && shown.key_agreement == *pinned
            && is_at_home(shown)
        {
            return shown.clone();
        }
        if !self.mode.reads_mediators() {
            return MediatorDocument::unchecked(did.clone());
        }
        let freshness = if self.mode.is_thorough() {
            Freshness::Refresh
        } else {
            Freshness::Cached
        };
        let identity = self.authoritative.identity();
        match identity.mediator(did, freshness, None).await {
            Ok(own) => (*own).clone(),
            Err(_) => MediatorDocument::unchecked(did.clone()),
        }
    }
}

/// Whether all services of a mediator are at the host that its DID names. A directory that named
/// the right keys and another address would learn who writes to whom.
fn is_at_home(document: &MediatorDocument) -> bool {
    let Some(web) = document.did.web() else {
        return false;
    };
    let at_home = |uri: &str| {
        let url = url::Url::parse(uri).ok();
        url.is_some_and(|url| url.host_str() == Some(&web.host) && is_port(&url, web.port))
    };
    document
        .services
        .iter()
        .all(|service| at_home(&service.uri))
}

fn is_port(url: &url::Url, named: Option<u16>) -> bool {
    named.is_none_or(|port| url.port_or_known_default() == Some(port))
}
