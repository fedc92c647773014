//! The meaning of one event: nothing, a proof, or a pending refresh.

use ipld_core::cid::Cid;

use crate::directory::{
    Authority, Batch, Begun, ChainCommit, ChainEvent, Finding, IdentityFacts, Observation,
};
use crate::resolve::Resolver;
use crate::store::{
    AccountStatus, AnnouncedChange, AnnouncedStatus, EventKind, NewPending, Takedown, Trigger,
};
use atcomm_proto::syntax::{COLLECTION, Did, RECORD_KEY, Rev};
use atcomm_proto::wire::cbor::CID_LEN;
use atcomm_proto::wire::{
    Account, Commit, CommitObject, EventType, FrameError, JetstreamEvent, JetstreamKind, RecordOp,
    account_of,
};

use super::{Source, SourceKind};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::proof::{Container, ProofError, Proven, block, verify};

/// Adds the work of one source's events to a batch.
pub(super) struct EventHandler<'a> {
    pub(super) source: &'a Source,
    pub(super) resolver: &'a Resolver,
    pub(super) clock: &'a Clock,
    pub(super) batch: &'a mut Batch,
}

impl EventHandler<'_> {
    /// Returns whether an event matters that does not touch our collection: on a PDS for every
    /// account, on other streams for the accounts in the directory.
    fn follows(&self, did: &str) -> bool {
        self.source.kind == SourceKind::Pds || self.is_relevant(did)
    }

    /// Returns whether an account is in the directory, or about to be: a running refresh may have
    /// asked before the event.
    fn is_relevant(&self, did: &str) -> bool {
        self.is_tracked(did) || self.resolver.is_refreshing(did)
    }

    fn is_tracked(&self, did: &str) -> bool {
        self.resolver.directory().is_tracked(did)
    }

    pub(super) fn commit(&mut self, commit: &Commit<'_>) {
        self.link(commit);
        let Some(op) = commit.op else {
            // A server that left the operations out does not say which.
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
            Inline::Proven(proven, identity) => self.observe(&did, proven, identity, now),
            Inline::NeedsRefresh(event) => self.enqueue(did, event, AnnouncedChange::Keep),
        }
    }

    /// Adds a commit to the chain of its account, if the account is in the directory.
    fn link(&mut self, commit: &Commit<'_>) {
        if !self.is_tracked(commit.repo) {
            return;
        }
        let (Ok(did), Ok(rev)) = (Did::parse(commit.repo), Rev::parse(commit.rev)) else {
            return;
        };
        let commit = ChainCommit {
            rev,
            data: data_of(commit),
            since: commit.since.and_then(|since| Rev::parse(since).ok()),
            prev_data: commit.prev_data.copied(),
        };
        self.chain(did, Some(commit));
    }

    fn chain(&mut self, did: Did, commit: Option<ChainCommit>) {
        self.batch.chain.push(ChainEvent {
            did,
            source: self.source.kind,
            pds: (self.source.kind == SourceKind::Pds).then(|| self.source.origin.clone()),
            commit,
        });
    }

    pub(super) fn sync(&mut self, did: &str) {
        if self.is_tracked(did)
            && let Ok(did) = Did::parse(did)
        {
            self.chain(did, None);
        }
        if self.follows(did) {
            count(self.source, EventKind::Sync);
            self.refresh(did, EventKind::Sync, AnnouncedChange::Keep);
        }
    }

    pub(super) fn identity(&mut self, did: &str) {
        let Some(account) = self.did(did) else { return };
        self.resolver.identity().purge(&account);
        if self.is_relevant(did) {
            count(self.source, EventKind::Identity);
            self.enqueue(account, EventKind::Identity, AnnouncedChange::Keep);
        }
    }

    pub(super) fn account(&mut self, account: &Account<'_>) {
        self.status(account.did, account.active, account.status);
    }

    fn status(&mut self, did: &str, active: bool, status: Option<&str>) {
        // An account without an entry that goes away changes nothing.
        let relevant = self.is_relevant(did) || (active && self.follows(did));
        if !relevant {
            return;
        }
        count(self.source, EventKind::Account);
        // Only a PDS announces the status of its accounts. Other hosts pass it on, which leads to a
        // refresh.
        let announced = match (self.source.kind, active) {
            (SourceKind::Pds, true) => AnnouncedChange::Clear,
            (SourceKind::Pds, false) => AnnouncedChange::Set(AnnouncedStatus {
                status: inactive_status(status),
                pds: self.source.origin.clone(),
            }),
            _ => AnnouncedChange::Keep,
        };
        if self.source.takedowns
            && let Some(did) = self.did(did)
        {
            self.batch.takedowns.push(Takedown {
                did,
                source: self.source.name.clone(),
                status: (!active).then(|| inactive_status(status)),
            });
        }
        self.refresh(did, EventKind::Account, announced);
    }

    /// Handles an event that breaks a rule: the account may have changed all the same.
    pub(super) fn malformed(&mut self, error: &FrameError) {
        metrics::counter!("atcomm_ingest_drops_total", "reason" => error.reason()).increment(1);
        if let FrameError::Event {
            did: Some(did),
            event,
            ..
        } = error
        {
            self.damaged(did, *event);
        }
    }

    /// Handles an event of which only the account and the type can be read.
    fn damaged(&mut self, did: &str, event: EventType) {
        match event {
            EventType::Identity => self.identity(did),
            _ if !self.follows(did) => {}
            EventType::Commit => self.refresh(did, EventKind::Commit, AnnouncedChange::Keep),
            EventType::Sync => self.refresh(did, EventKind::Sync, AnnouncedChange::Keep),
            EventType::Account => self.refresh(did, EventKind::Account, AnnouncedChange::Keep),
        }
    }

    /// Passes over a message that cannot be read: the account may have changed all the same.
    pub(super) fn passed_over(&mut self, message: &[u8]) {
        metrics::counter!("atcomm_ingest_passed_over_total", "source" => self.source.name.clone())
            .increment(1);
        if let Some(did) = account_of(message) {
            self.damaged(did, EventType::Sync);
        }
    }

    pub(super) fn jetstream(&mut self, event: &JetstreamEvent<'_>) {
        match &event.kind {
            JetstreamKind::Commit {
                collection, rkey, ..
            } if collection == COLLECTION && rkey == RECORD_KEY => {
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

    /// Verifies the proof in the commit's own CAR, where the account has an entry, a fresh identity
    /// is cached, and everything fits. An account without an entry is asked about at its PDS, which
    /// may have taken it down since.
    fn inline_proof(
        &self,
        did: &Did,
        commit: &Commit<'_>,
        op: RecordOp<'_>,
        now: Timestamp,
    ) -> Inline {
        if !self.is_tracked(did.as_str()) {
            return Inline::NeedsRefresh(EventKind::Commit);
        }
        let Some(document) = self.resolver.identity().cached_fresh(did) else {
            return Inline::NeedsRefresh(EventKind::Commit);
        };
        // The same document for the proof and for the facts that are stored with it.
        let (Ok(key), Ok(pds)) = (&document.signing_key, &document.pds) else {
            return Inline::NeedsRefresh(EventKind::Sync);
        };
        let identity = IdentityFacts {
            pds: Some(pds.clone()),
            key: Some(key.clone()),
            claimed: document.claimed_handle.clone(),
            asked_at: document.asked_at,
        };
        if self.source.kind == SourceKind::Pds && *pds != self.source.origin {
            // Either the account has left this PDS, or the cached document is old.
            metrics::counter!("atcomm_ingest_drops_total", "reason" => "other_pds").increment(1);
            return Inline::NeedsRefresh(EventKind::Sync);
        }
        if commit.too_big {
            return Inline::NeedsRefresh(EventKind::Commit);
        }
        let dropped = |reason: &'static str, event| {
            metrics::counter!("atcomm_ingest_drops_total", "reason" => reason).increment(1);
            Inline::NeedsRefresh(event)
        };
        let proven = match verify(commit.blocks, Container::Commit, did, key, now) {
            Ok(proven) => proven,
            // Not every commit carries the whole path.
            Err(ProofError::Incomplete) => return Inline::NeedsRefresh(EventKind::Commit),
            // The key may have been rotated.
            Err(error @ ProofError::Signature) => return dropped(error.code(), EventKind::Sync),
            Err(error) => return dropped(error.code(), EventKind::Commit),
        };
        let commitment = proven.commitment();
        let same_record = match (&proven, op) {
            (Proven::Present(record), RecordOp::Create { cid } | RecordOp::Update { cid }) => {
                record.cid().to_bytes() == cid
            }
            (Proven::Absent(_), RecordOp::Delete) => true,
            _ => false,
        };
        if !same_record
            || commitment.commit().to_bytes() != commit.commit
            || commitment.rev().as_str() != commit.rev
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
            begun: Begun::default(),
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
            // The refresh must read a new identity, whatever is coalesced into it later.
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

/// Returns the root of the tree after a commit, as the commit's own block names it.
fn data_of(commit: &Commit<'_>) -> Option<[u8; CID_LEN]> {
    let cid = Cid::try_from(&commit.commit[..]).ok()?;
    let object = CommitObject::parse(block(commit.blocks, &cid).ok()?)?;
    (object.did == commit.repo && object.rev == commit.rev).then_some(*object.data)
}

/// The proof in a commit.
#[expect(
    clippy::large_enum_variant,
    reason = "lives for the length of one event"
)]
enum Inline {
    /// A proof, and the identity under which it holds.
    Proven(Proven, IdentityFacts),
    /// The commit proves nothing by itself: refresh the account, as after this kind of event.
    NeedsRefresh(EventKind),
}

/// Returns the status of an account that an event calls not active. An event that calls it active as
/// well contradicts itself.
fn inactive_status(word: Option<&str>) -> AccountStatus {
    match AccountStatus::parse(word.unwrap_or("inactive")) {
        AccountStatus::Active => AccountStatus::parse("inactive"),
        status => status,
    }
}

fn count(source: &Source, event: EventKind) {
    metrics::counter!(
        "atcomm_ingest_events_total",
        "kind" => source.kind.as_str(),
        "event" => event.as_str(),
    )
    .increment(1);
}
