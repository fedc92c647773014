//! Several accounts in one answer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::{Instant, timeout_at};

use super::Resolver;
use super::refresh::ResolveError;
use crate::directory::{RecipientView, Refusal};
use atcomm_proto::syntax::{Actor, LexiconError};

/// Accounts of one answer that are read from the store or looked at together: an eighth of the
/// common budget for looks, so that one caller does not use it up.
const AT_ONCE: usize = 8;

impl Resolver {
    /// Answers for each actor as [`Self::recipient`] does, in their order. Each look at the network
    /// is out of the client's allowance and the common budget. An actor that is named twice is
    /// looked at once. The answer is whole after the timeout of one look: accounts that have none by
    /// then fail, and their looks go on.
    pub async fn recipients(
        &self,
        actors: &[Actor],
        client: IpAddr,
    ) -> Vec<Result<Arc<RecipientView>, ResolveError>> {
        let mut known = HashMap::with_capacity(actors.len());
        let mut unknown = Vec::new();
        for actor in actors {
            if known.contains_key(actor) {
                continue;
            }
            let view = self.inner.directory.cached_view(name(actor));
            if view.is_none() {
                unknown.push(actor.clone());
            }
            known.insert(actor.clone(), view.map_or_else(|| Err(too_slow()), Ok));
        }
        let deadline = Instant::now() + self.inner.settings.timeout;
        let mut looks = stream::iter(unknown)
            .map(|actor| {
                let resolver = self.clone();
                async move {
                    let found = timeout_at(deadline, resolver.recipient(&actor, client)).await;
                    (actor, found.unwrap_or_else(|_| Err(too_slow())))
                }
            })
            .buffer_unordered(AT_ONCE);
        while let Some((actor, found)) = looks.next().await {
            known.insert(actor, found);
        }
        let answer = |actor| known.get(actor).cloned().unwrap_or_else(|| Err(too_slow()));
        actors.iter().map(answer).collect()
    }
}

/// Returns the name under which the view of an actor is cached.
fn name(actor: &Actor) -> &str {
    match actor {
        Actor::Did(did) => did.as_str(),
        Actor::Handle(handle) => handle.as_str(),
    }
}

fn too_slow() -> ResolveError {
    ResolveError::Refused(Refusal::new(
        LexiconError::UpstreamFailure,
        "the account's servers take too long to answer",
    ))
}
