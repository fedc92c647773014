//! Ways from one account's mediators to another's, and what becomes of trying one.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use crate::mediator::client::MailError;
use atcomm_net::identity::{MediatorDocument, MediatorState};
use atcomm_proto::syntax::MediatorDid;

/// A way that a message may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPath {
    /// The reader's mediator.
    pub mediator: MediatorDid,
    /// Which of ours relays; none where it is posted to the reader's itself.
    pub via: Option<MediatorDid>,
}

/// A way that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathFailure {
    /// The way.
    pub way: DeliveryPath,
    /// Why, about the one that was posted to.
    pub error: MailError,
}

impl fmt::Display for PathFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { way, error } = self;
        match &way.via {
            Some(via) => write!(f, "{} by way of {via}: {error}", way.mediator),
            None => write!(f, "{}: {error}", way.mediator),
        }
    }
}

/// The ways in the order that they are tried: mediators that do not answer after the others, ours
/// in their order; one that serves both is asked itself and no relay.
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
        let way = |via| DeliveryPath {
            mediator: one.did.clone(),
            via,
        };
        match own.contains(&one.did) {
            true => vec![way(None)],
            false => own.iter().cloned().map(Some).map(way).collect(),
        }
    };
    let all = first.into_iter().chain(last);
    all.filter(|one| seen.insert(&one.did))
        .flat_map(to)
        .collect()
}

#[cfg(test)]
mod tests;
