//! What one event means: nothing, a proof, or a look that is owed.

use crate::directory::{Authority, Batch, Finding, IdentityFacts, Observation};
use crate::resolve::Resolver;
use crate::store::{
    AccountStatus, AnnouncedChange, AnnouncedStatus, EventKind, NewPending, Trigger,
};
use atcomm_proto::syntax::{COLLECTION, Did};
use atcomm_proto::wire::{Account, Commit, FrameError, JetstreamEvent, JetstreamKind, RecordOp};

use super::{Source, SourceKind};
use atcomm_net::identity::HandleCheck;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::proof::{Container, ProofError, Proven, verify};

/// Sorts the events of one source into a batch.
pub(super) struct EventHandler<'a> {
    pub(super) source: &'a Source,
    pub(super) resolver: &'a Resolver,
    pub(super) clock: &'a Clock,
    pub(super) batch: &'a mut Batch,
}

impl EventHandler<'_> {
    /// Whether an event of an account matters though it does not touch our collection: on a PDS
    /// every account is ours, on other streams those in the directory.
    fn follows(&self, did: &str) -> bool {
        self.source.kind == SourceKind::Pds || self.concerns(did)
    }

    /// Whether an account is in the directory, or on its way into it: a look that is under way
    /// may have asked before what this event tells.
    fn concerns(&self, did: &str) -> bool {
        self.knows(did) || self.resolver.is_refreshing(did)
    }

    fn knows(&self, did: &str) -> bool {
        self.resolver.directory().is_tracked(did)
    }

    pub(super) fn commit(&mut self, commit: &Commit<'_>) {
        let Some(op) = commit.op else {
            // A server that left the operations out does not say what it left out.
            if commit.too_big && self.follows(commit.repo) {
                self.refresh(commit.repo, EventKind::Commit, AnnouncedChange::Keep);
            }
            return;
        };
        let Some(did) = self.did(commit.repo) else {
            return;
        };
        count(self.source, EventKind::Commit);
        let now = self.clock.now();
        match self.inline_proof(&did, commit, op, now) {
            Inline::Proven(proven, identity) => {
                let first = !self.knows(did.as_str());
                self.observe(&did, proven, identity, now);
                // The entry is there at once; handle and mediators take a look.
                if first {
                    self.enqueue(did, EventKind::Commit, AnnouncedChange::Keep);
                }
            }
            Inline::NeedsRefresh(event) => self.enqueue(did, event, AnnouncedChange::Keep),
        }
    }

    pub(super) fn sync(&mut self, did: &str) {
        if self.follows(did) {
            count(self.source, EventKind::Sync);
            self.refresh(did, EventKind::Sync, AnnouncedChange::Keep);
        }
    }

    pub(super) fn identity(&mut self, did: &str) {
        let Some(account) = self.did(did) else { return };
        self.resolver.identity().purge(&account);
        if self.concerns(did) {
            count(self.source, EventKind::Identity);
            self.enqueue(account, EventKind::Identity, AnnouncedChange::Keep);
        }
    }

    pub(super) fn account(&mut self, account: &Account<'_>) {
        self.status(account.did, account.active, account.status);
    }

    fn status(&mut self, did: &str, active: bool, status: Option<&str>) {
        // An account unknown here that goes away changes nothing.
        let relevant = self.concerns(did) || (active && self.follows(did));
        if !relevant {
            return;
        }
        count(self.source, EventKind::Account);
        // Only a PDS speaks for its accounts; what others pass on leads to a look.
        let announced = match (self.source.kind, active) {
            (SourceKind::Pds, true) => AnnouncedChange::Clear,
            (SourceKind::Pds, false) => AnnouncedChange::Set(AnnouncedStatus {
                status: AccountStatus::parse(status.unwrap_or("inactive")),
                pds: self.source.origin.clone(),
            }),
            _ => AnnouncedChange::Keep,
        };
        self.refresh(did, EventKind::Account, announced);
    }

    /// An event that is not as it must be: the account may have changed all the same.
    pub(super) fn malformed(&mut self, error: &FrameError) {
        metrics::counter!("atcomm_ingest_drops_total", "reason" => error.reason()).increment(1);
        if let FrameError::Event { did: Some(did), .. } = error
            && self.follows(did)
        {
            self.refresh(did, EventKind::Commit, AnnouncedChange::Keep);
        }
    }

    pub(super) fn jetstream(&mut self, event: &JetstreamEvent<'_>) {
        match &event.kind {
            JetstreamKind::Commit { collection, .. } if collection == COLLECTION => {
                count(self.source, EventKind::Commit);
                self.refresh(&event.did, EventKind::Commit, AnnouncedChange::Keep);
            }
            JetstreamKind::Commit { .. } | JetstreamKind::Other => {}
            JetstreamKind::Identity => self.identity(&event.did),
            JetstreamKind::Account { active, status } => {
                self.status(&event.did, *active, status.as_deref());
            }
        }
    }

    /// The proof in the commit's own CAR, where the identity is known and everything fits.
    fn inline_proof(
        &self,
        did: &Did,
        commit: &Commit<'_>,
        op: RecordOp<'_>,
        now: Timestamp,
    ) -> Inline {
        let Some(document) = self.resolver.identity().cached(did) else {
            return Inline::NeedsRefresh(EventKind::Commit);
        };
        // One document for the proof and for what is kept of it.
        let (Ok(key), Ok(pds)) = (&document.signing_key, &document.pds) else {
            return Inline::NeedsRefresh(EventKind::Sync);
        };
        let identity = IdentityFacts {
            pds: Some(pds.clone()),
            key: Some(key.clone()),
            handle: HandleCheck::Inconclusive,
        };
        if self.source.kind == SourceKind::Pds && *pds != self.source.origin {
            // Either the account has left this PDS, or what we know of it is old.
            metrics::counter!("atcomm_ingest_drops_total", "reason" => "other_pds").increment(1);
            return Inline::NeedsRefresh(EventKind::Sync);
        }
        if commit.too_big {
            return Inline::NeedsRefresh(EventKind::Commit);
        }
        let dropped = |reason: &'static str, look| {
            metrics::counter!("atcomm_ingest_drops_total", "reason" => reason).increment(1);
            Inline::NeedsRefresh(look)
        };
        let proven = match verify(commit.blocks, Container::Commit, did, key, now) {
            Ok(proven) => proven,
            // Not every commit carries the whole path.
            Err(ProofError::Incomplete) => return Inline::NeedsRefresh(EventKind::Commit),
            // The key may have been rotated.
            Err(error @ ProofError::Signature) => return dropped(error.code(), EventKind::Sync),
            Err(error) => return dropped(error.code(), EventKind::Commit),
        };
        let shown = proven.commitment();
        let same_record = match (&proven, op) {
            (Proven::Present(record), RecordOp::Create { cid } | RecordOp::Update { cid }) => {
                record.cid().to_bytes() == cid
            }
            (Proven::Absent(_), RecordOp::Delete) => true,
            _ => false,
        };
        if !same_record
            || shown.commit().to_bytes() != commit.commit
            || shown.rev().as_str() != commit.rev
        {
            return dropped("frame_mismatch", EventKind::Commit);
        }
        Inline::Proven(proven, identity)
    }

    fn observe(&mut self, did: &Did, proven: Proven, identity: IdentityFacts, now: Timestamp) {
        self.batch.observations.push(Observation {
            did: did.clone(),
            identity: Some(identity),
            finding: match proven {
                Proven::Present(record) => Finding::Present(record),
                Proven::Absent(absence) => Finding::Absent(absence),
            },
            authority: Authority::Stream,
            trigger: self.trigger(EventKind::Commit),
            asked_at: now,
            at: now,
        });
    }

    fn refresh(&mut self, did: &str, event: EventKind, announced: AnnouncedChange) {
        if let Some(did) = self.did(did) {
            self.enqueue(did, event, announced);
        }
    }

    fn enqueue(&mut self, did: Did, event: EventKind, announced: AnnouncedChange) {
        if event != EventKind::Commit {
            // The look has to read the identity anew, whatever comes to be owed after this.
            self.resolver.identity().purge(&did);
        }
        let not_before = self.clock.now();
        self.batch.pending.push(NewPending {
            did,
            trigger: self.trigger(event),
            announced,
            not_before,
        });
    }

    fn trigger(&self, event: EventKind) -> Trigger {
        Trigger::Event {
            source: self.source.kind,
            event,
        }
    }

    fn did(&self, did: &str) -> Option<Did> {
        let parsed = Did::parse(did).ok();
        if parsed.is_none() {
            metrics::counter!("atcomm_ingest_drops_total", "reason" => "did").increment(1);
        }
        parsed
    }
}

/// What a commit's own CAR gives.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for the length of one event"
)]
enum Inline {
    /// A proof, and the identity under which it holds.
    Proven(Proven, IdentityFacts),
    /// A reason to look.
    NeedsRefresh(EventKind),
}

fn count(source: &Source, event: EventKind) {
    metrics::counter!(
        "atcomm_ingest_events_total",
        "kind" => source.kind.as_str(),
        "event" => event.as_str(),
    )
    .increment(1);
}
