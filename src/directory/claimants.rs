//! The accounts that claim a did:peer.

use super::Directory;
use super::lookup::{self, Lookup};
use super::view::{self, RecipientView, ViewOptions};
use crate::store::{Damage, StoreError};
use atcomm_proto::did_peer::PeerDid;
use atcomm_proto::syntax::Actor;

/// Most claimants that are returned.
pub const MAX_CLAIMANTS: usize = 32;

/// The active accounts whose present package names a did:peer.
#[derive(Debug)]
pub struct Claimants {
    /// Their views, in the order in which they first named it.
    pub views: Vec<RecipientView>,
    /// Whether there are more than [`MAX_CLAIMANTS`].
    pub more: bool,
}

impl Directory {
    /// Returns the claimants of a did:peer, all as they were at one moment. Looks nothing up.
    pub async fn claimants(&self, peer: &PeerDid) -> Result<Claimants, StoreError> {
        let (peer, now) = (peer.as_str().to_owned(), self.clock.now());
        let (found, more) = self
            .store
            .query(move |q| {
                let mut dids = q.claimants(&peer, MAX_CLAIMANTS + 1)?;
                let more = dids.len() > MAX_CLAIMANTS;
                dids.truncate(MAX_CLAIMANTS);
                let mut found = Vec::with_capacity(dids.len());
                for did in dids {
                    if let Lookup::Found(one) = lookup::find(q, &Actor::Did(did), now)? {
                        found.push(one);
                    }
                }
                Ok((found, more))
            })
            .await?;
        // The store has few readers: rendering does not keep one of them.
        let views = found.iter().map(|(entry, context)| {
            view::render(entry, context, &ViewOptions::Plain, now)
                .ok_or_else(|| StoreError::Corrupt(Damage::Incomplete(entry.did.clone())))
        });
        Ok(Claimants {
            views: views.collect::<Result<_, _>>()?,
            more,
        })
    }
}
