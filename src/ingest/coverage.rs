//! What the streams of all sources cover together, and the marking of what none of them does.
//!
//! A gap of one source concerns the accounts that no other source has covered meanwhile. A source
//! counts only for gaps of its own kind and of those that are fed by its kind: a PDS is the origin
//! of its accounts' events, a relay passes on those of many PDSes, and a Jetstream those of a
//! relay. So a loss at the origin is not hidden by a source that has nothing else to pass on.
//!
//! A source counts as long as its connection stands and is proven to continue. Should that turn out
//! wrong later, the gap that the source then reports reaches back behind this one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Source, SourceKind};
use crate::resolve::Resolver;
use crate::store::Marked;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Origin;

/// Wait before a marking that the store could not write is repeated.
const REPEAT: Duration = Duration::from_secs(1);

/// What the connected sources cover.
#[derive(Clone, Default)]
pub(super) struct Coverages {
    standing: Arc<Mutex<BTreeMap<String, Standing>>>,
    gaps: Arc<Notify>,
}

/// A source whose connection stands and is proven to continue.
struct Standing {
    kind: SourceKind,
    origin: Origin,
    since: Timestamp,
}

/// The accounts that other sources cover.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CoveredAccounts {
    All,
    /// Those of these PDSes.
    OfPdses(BTreeSet<Origin>),
}

impl Coverages {
    /// Tells since when the present connection of a source is proven to continue; `None`: it is not,
    /// or there is none.
    pub(super) fn set(&self, source: &Source, since: Option<Timestamp>) {
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match since {
            Some(since) => {
                let origin = source.origin.clone();
                let kind = source.kind;
                let one = Standing {
                    kind,
                    origin,
                    since,
                };
                standing.insert(source.name.clone(), one);
            }
            None => {
                standing.remove(&source.name);
            }
        }
    }

    /// Returns the accounts of which other sources have missed nothing since `since`.
    pub(super) fn beside(&self, source: &Source, since: Timestamp) -> CoveredAccounts {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pdses = BTreeSet::new();
        for (name, other) in &*standing {
            if *name == source.name || other.since > since {
                continue;
            }
            match (source.kind, other.kind) {
                // What a PDS has lost, others may never have had.
                (SourceKind::Pds, _) | (SourceKind::Relay, SourceKind::Jetstream) => {}
                (SourceKind::Relay | SourceKind::Jetstream, SourceKind::Pds) => {
                    pdses.insert(other.origin.clone());
                }
                (SourceKind::Relay | SourceKind::Jetstream, SourceKind::Relay)
                | (SourceKind::Jetstream, SourceKind::Jetstream) => return CoveredAccounts::All,
            }
        }
        CoveredAccounts::OfPdses(pdses)
    }

    /// A gap was written, whose entries are to be marked.
    pub(super) fn wake(&self) {
        self.gaps.notify_one();
    }

    /// Marks the entries of all gaps that are written, until `stop`.
    pub(super) async fn mark(self, resolver: Resolver, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.work(&resolver) => {}
        }
    }

    async fn work(&self, resolver: &Resolver) {
        let directory = resolver.directory();
        while let Err(error) = directory.restart_gaps().await {
            tracing::error!(%error, "cannot read the open gaps");
            sleep(REPEAT).await;
        }
        loop {
            match directory.mark_gap().await {
                Ok(Some(marked)) => {
                    // The first ones are due at once.
                    resolver.wake();
                    if marked.done {
                        report(&marked);
                    }
                }
                Ok(None) => self.gaps.notified().await,
                Err(error) => {
                    tracing::error!(%error, "cannot mark entries after a gap");
                    sleep(REPEAT).await;
                }
            }
        }
    }
}

fn report(marked: &Marked) {
    tracing::warn!(
        source = marked.source,
        reason = marked.reason,
        entries = marked.entries,
        known_good_until = %marked.since,
        "events were missed: entries are looked at again, and until then shown as stale"
    );
}

#[cfg(test)]
mod tests {
    use super::super::SourceSettings;
    use super::*;

    fn source(kind: SourceKind, host: &str) -> Source {
        let settings = SourceSettings {
            url: format!("https://{host}.example.com"),
            connect: None,
            kind,
            list: None,
            stream: true,
            backfill: true,
            takedowns: false,
        };
        Source::read(&settings).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn a_source_covers_the_gaps_of_its_kind_and_of_what_it_feeds() {
        use SourceKind::{Jetstream, Pds, Relay};
        for (gap, other, covers) in [
            (Pds, Pds, false),
            (Pds, Relay, false),
            (Pds, Jetstream, false),
            (Relay, Relay, true),
            (Relay, Jetstream, false),
            (Jetstream, Relay, true),
            (Jetstream, Jetstream, true),
        ] {
            let coverages = Coverages::default();
            let (gap, other) = (source(gap, "one"), source(other, "two"));
            coverages.set(&gap, Some(at(0)));
            assert_ne!(coverages.beside(&gap, at(10)), CoveredAccounts::All);
            coverages.set(&other, Some(at(10)));
            let all = |since| coverages.beside(&gap, at(since)) == CoveredAccounts::All;
            assert_eq!(all(10), covers, "{gap:?} {other:?}");
            assert!(!all(9), "from the moment on since which it is proven");
            coverages.set(&other, None);
            assert!(!all(10), "while its connection stands");
        }
    }

    #[test]
    fn a_pds_covers_its_own_accounts() {
        let coverages = Coverages::default();
        let relay = source(SourceKind::Relay, "relay");
        for (host, since) in [("early", 5), ("late", 15)] {
            coverages.set(&source(SourceKind::Pds, host), Some(at(since)));
        }
        let early = Origin::parse("https://early.example.com").unwrap();
        let own = CoveredAccounts::OfPdses([early].into());
        assert_eq!(coverages.beside(&relay, at(10)), own);
    }
}
