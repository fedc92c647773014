//! Delivery paths between the mediators of two accounts, and their failures.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::mediator::client::MailError;
use atcomm_net::identity::{MediatorDocument, MediatorState};
use atcomm_proto::syntax::MediatorDid;

/// A path that a message can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPath {
    /// The recipient's mediator.
    pub mediator: MediatorDid,
    /// The own mediator that relays to it; `None` where the message is posted to it directly.
    pub via: Option<MediatorDid>,
}

impl DeliveryPath {
    /// Returns the mediator that the message is posted to.
    pub(super) fn first_hop(&self) -> &MediatorDid {
        self.via.as_ref().unwrap_or(&self.mediator)
    }
}

/// A path that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFailure {
    /// The path.
    pub path: DeliveryPath,
    /// The error of the mediator that the message was posted to.
    pub error: MailError,
}

impl fmt::Display for PathFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, error } = self;
        match &path.via {
            Some(via) => write!(f, "{} by way of {via}: {error}", path.mediator),
            None => write!(f, "{}: {error}", path.mediator),
        }
    }
}

/// Returns the paths in the order to try: reachable mediators of the recipient first, and for each
/// of them the own relays in their order. A mediator that serves both parties is contacted
/// directly.
pub fn delivery_paths(theirs: &[Arc<MediatorDocument>], own: &[MediatorDid]) -> Vec<DeliveryPath> {
    let answers = |one: &&Arc<MediatorDocument>| {
        matches!(
            one.state,
            MediatorState::Reachable | MediatorState::Unchecked
        )
    };
    let (first, last): (Vec<_>, Vec<_>) = theirs.iter().partition(answers);
    let mut seen = BTreeSet::new();
    let to = |one: &Arc<MediatorDocument>| {
        let path = |via| DeliveryPath {
            mediator: one.did.clone(),
            via,
        };
        if own.contains(&one.did) {
            vec![path(None)]
        } else {
            own.iter().cloned().map(Some).map(path).collect()
        }
    };
    let all = first.into_iter().chain(last);
    all.filter(|one| seen.insert(&one.did))
        .flat_map(to)
        .collect()
}

#[cfg(test)]
mod tests;
