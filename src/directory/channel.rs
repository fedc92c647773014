//! The change log as the events of the channel, whose protocol is that of the npm package
//! `@atproto/tap`.
//!
//! A consumer is to have the record of exactly those accounts that are served: a valid package that
//! is proven, of an account that is active. So a record is created when an account begins to be
//! served and deleted when that ends, for whatever reason.

use std::time::Duration;

use bytes::Bytes;
use ipld_core::cid::Cid;
use serde::Serialize;
use serde_json::Value;

use super::Directory;
use super::updates::{CursorRefusal, PageBounds, Update, each_update, refusal};
use crate::store::directory::{Connected, Queries};
use crate::store::{AccountStatus, Change, ChangeKind, EntryState, StoreError};
use atcomm_proto::keypackage::record_json;
use atcomm_proto::proof;
use atcomm_proto::syntax::{COLLECTION, Did, Handle, RECORD_KEY};

/// Bounds of a page. Of each row of the log the one before it is read as well.
const BOUNDS: PageBounds = PageBounds {
    rows: 64,
    bytes: 64 * 1024,
};

/// Time after which a consumer that does not connect gives its place to another.
const UNSEEN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Kinds of events that one change leads to: the account's identity, and its record.
const KINDS: i64 = 2;

/// An event of the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelEvent {
    /// What the consumer acknowledges. Later changes have greater ones, in every connection.
    pub id: i64,
    /// The account.
    pub did: Did,
    /// The JSON text.
    pub body: Bytes,
}

impl ChannelEvent {
    /// Returns the position in the log up to which everything is acknowledged when this event is the
    /// first that is not.
    pub fn position_before(&self) -> i64 {
        self.id / KINDS - 1
    }
}

/// Some events, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelPage {
    /// The events.
    pub events: Vec<ChannelEvent>,
    /// The position from which the next page goes on.
    pub reached: i64,
    /// Whether these were all.
    pub is_last: bool,
}

/// The beginning of a consumer's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumer {
    /// The consumer goes on after this position; changes after `newest` are new since it connected.
    At {
        /// The position.
        position: i64,
        /// The newest position of the log.
        newest: i64,
    },
    /// There are too many consumers.
    Full,
    /// The consumer may have missed the end of an account.
    TooOld,
}

#[derive(Serialize)]
struct Event<'a> {
    id: i64,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<IdentityEvent<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<RecordEvent<'a>>,
}

#[derive(Serialize)]
struct IdentityEvent<'a> {
    did: &'a Did,
    handle: &'a str,
    is_active: bool,
    status: &'static str,
}

#[derive(Serialize)]
struct RecordEvent<'a> {
    did: &'a Did,
    rev: &'a str,
    collection: &'static str,
    rkey: &'static str,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cid: Option<String>,
    live: bool,
}

impl Directory {
    /// Notes the connection of a consumer, and returns where it goes on.
    pub async fn connect_consumer(&self, name: &str) -> Result<Consumer, StoreError> {
        let (name, now) = (name.to_owned(), self.clock.now());
        self.store
            .transact(move |tx| {
                let Connected::At(position) = tx.connect_consumer(&name, now, now.minus(UNSEEN))?
                else {
                    return Ok(Consumer::Full);
                };
                let log = tx.log_position(position)?;
                Ok(match refusal(&log, position, None) {
                    // The store was restored with the position in it, so neither of them is ahead.
                    Some(CursorRefusal::TooOld) => Consumer::TooOld,
                    _ => Consumer::At {
                        position,
                        newest: log.newest,
                    },
                })
            })
            .await
    }

    /// Writes the position up to which a consumer has acknowledged everything. Durable when this
    /// returns.
    pub async fn acknowledge(&self, name: &str, position: i64) -> Result<(), StoreError> {
        let (name, now) = (name.to_owned(), self.clock.now());
        self.store
            .transact(move |tx| tx.acknowledge(&name, position, now))
            .await
    }

    /// Returns the next events after a position, in bounded number and length. Those of changes after
    /// `live_after` are marked as live.
    pub async fn channel_after(
        &self,
        position: i64,
        live_after: i64,
    ) -> Result<ChannelPage, StoreError> {
        self.store
            .query(move |q| page(q, position, live_after))
            .await
    }
}

fn page(q: &Queries<'_>, position: i64, live_after: i64) -> Result<ChannelPage, StoreError> {
    let mut events = Vec::new();
    let end = each_update(q, position, &BOUNDS, |update| {
        let before = q.change_before(&update.did, update.seq)?;
        let is_live = update.seq > live_after;
        let news = [
            identity_event(&update, before.as_ref()),
            record_event(q, &update, before.as_ref(), is_live)?,
        ];
        let mut bytes = 0;
        for event in news.into_iter().flatten() {
            bytes += event.body.len();
            events.push(event);
        }
        Ok(bytes)
    })?;
    Ok(ChannelPage {
        events,
        reached: end.reached,
        is_last: end.is_last,
    })
}

/// Returns the event of an account whose handle or status has changed, or that is new.
fn identity_event(update: &Update, before: Option<&Change>) -> Option<ChannelEvent> {
    let known = before.and_then(|before| before.account.as_ref());
    let (handle, is_active, status) = match &update.state {
        Some(state) => (
            state.handle.as_ref(),
            state.status.is_active(),
            word(&state.status),
        ),
        // What became of an account whose entry was dropped is not known.
        None if update.kind == ChangeKind::Deleted => (None, false, "deleted"),
        None => return None,
    };
    let is_known = known.is_some_and(|known| {
        known.handle.as_ref() == handle
            && update.state.as_ref().map(|now| &now.status) == Some(&known.status)
    });
    if is_known {
        return None;
    }
    let identity = IdentityEvent {
        did: &update.did,
        handle: handle.map_or("handle.invalid", Handle::as_str),
        is_active,
        status,
    };
    event(update, Some(identity), None)
}

/// Returns the event of an account that begins to be served, is served with another record, or ends
/// to be served.
fn record_event(
    q: &Queries<'_>,
    update: &Update,
    before: Option<&Change>,
    live: bool,
) -> Result<Option<ChannelEvent>, StoreError> {
    let known = before.map(served);
    let now = update.package.as_ref().and(update.record);
    let (action, record) = match (known.flatten(), now) {
        (before, Some(now)) if before == Some(now) => return Ok(None),
        (before, Some(now)) => {
            let Some(record) = record(q, &update.did, &now)? else {
                // It was replaced, and not kept: the change that replaced it follows.
                return Ok(None);
            };
            let action = if before.is_some() { "update" } else { "create" };
            (action, Some(record))
        }
        // Without an earlier change it is not known whether there was a record.
        (None, None) if known.is_some() => return Ok(None),
        (_, None) => ("delete", None),
    };
    let record = RecordEvent {
        did: &update.did,
        rev: update.rev.as_ref().map_or("", |rev| rev.as_str()),
        collection: COLLECTION,
        rkey: RECORD_KEY,
        action,
        record,
        cid: now.map(|now| now.to_string()),
        live,
    };
    Ok(event(update, None, Some(record)))
}

/// Returns the record with which the account was served after a change.
fn served(change: &Change) -> Option<Cid> {
    let is_served = change.account.as_ref().is_some_and(EntryState::is_served);
    change.cid.filter(|_| is_served)
}

/// Returns a record as JSON, where a proof with it is kept.
fn record(q: &Queries<'_>, did: &Did, cid: &Cid) -> Result<Option<Value>, StoreError> {
    let Some(car) = q.proof_of_record(did, cid)? else {
        return Ok(None);
    };
    let block = proof::block(&car, cid).ok();
    Ok(block.and_then(|block| record_json(block).ok()))
}

fn event(
    update: &Update,
    identity: Option<IdentityEvent<'_>>,
    record: Option<RecordEvent<'_>>,
) -> Option<ChannelEvent> {
    let kind = i64::from(record.is_some());
    let event = Event {
        id: update.seq.checked_mul(KINDS)? + kind,
        r#type: if record.is_some() {
            "record"
        } else {
            "identity"
        },
        identity,
        record,
    };
    // Texts and numbers are always written.
    let body = serde_json::to_vec(&event).ok()?.into();
    Some(ChannelEvent {
        id: event.id,
        did: update.did.clone(),
        body,
    })
}

/// Returns the word of the channel for a status. It knows these only.
fn word(status: &AccountStatus) -> &'static str {
    match status {
        AccountStatus::Active => "active",
        AccountStatus::Takendown => "takendown",
        AccountStatus::Suspended => "suspended",
        AccountStatus::Deleted => "deleted",
        AccountStatus::Deactivated | AccountStatus::Other(_) => "deactivated",
    }
}
