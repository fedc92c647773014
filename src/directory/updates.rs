//! The change log for those who follow it (`lexicons/at/didcomm/directory/subscribeUpdates.json`).
//!
//! Each update tells the whole state of its account, so an update that is missing because a later one
//! of the same account follows is no loss: of an account that changed more often than the log keeps,
//! and of one that is hidden now. The last update of each account is never missing.

use ipld_core::cid::Cid;

use super::Directory;
use crate::store::directory::Queries;
use crate::store::{ChangeKind, EntryState, LogPosition, LoggedChange, StoreError};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, MediatorDid, Rev};

/// Bounds of a page, the bytes approximately as frames. A reader that does not read keeps one page.
const BOUNDS: PageBounds = PageBounds {
    rows: 200,
    bytes: 32 * 1024,
};

/// Approximate bytes of a frame without its package.
const UPDATE_BYTES: usize = 300;

/// A change with the state of the account after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Position in the log.
    pub seq: i64,
    /// The account.
    pub did: Did,
    /// What changed.
    pub kind: ChangeKind,
    /// Details in words.
    pub detail: Option<String>,
    /// When the directory saw it.
    pub seen_at: Timestamp,
    /// The state of the entry; `None` where there is none any more.
    pub state: Option<EntryState>,
    /// CID of the account's record, where the state has one.
    pub record: Option<Cid>,
    /// Revision of a proof of the record, or of the one that has gone.
    pub rev: Option<Rev>,
    /// The package, where the account is served.
    pub package: Option<PackageRef>,
}

/// What a valid package names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRef {
    /// The did:peer.
    pub peer: String,
    /// The mediators, in its order.
    pub mediators: Vec<MediatorDid>,
}

/// Some updates, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpdatePage {
    /// The updates.
    pub updates: Vec<Update>,
    /// The position from which the next page goes on.
    pub reached: i64,
    /// Whether these were all.
    pub is_last: bool,
}

/// The reason why a reader cannot go on at its cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorRefusal {
    /// The cursor is of another log.
    StreamMismatch,
    /// The log has not come to the cursor.
    Future,
    /// The log does not go back to the cursor.
    TooOld,
}

impl Directory {
    /// Lets the change log go on at a position that no earlier start can have reached. To be called
    /// once, at the start, before anything else is written.
    pub async fn begin_log(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.store.transact(move |tx| tx.begin_log(now)).await
    }

    /// Returns the name of the log and its newest position.
    pub async fn log(&self) -> Result<LogPosition, StoreError> {
        self.store.query(|q| q.log_position(0)).await
    }

    /// Checks a reader's cursor, and the name of the log that the reader knows. The cursor 0 is the
    /// beginning of the log.
    pub async fn check_cursor(
        &self,
        cursor: i64,
        stream: Option<String>,
    ) -> Result<Result<LogPosition, CursorRefusal>, StoreError> {
        self.store
            .query(move |q| {
                let log = q.log_position(cursor)?;
                Ok(match refusal(&log, cursor, stream.as_deref()) {
                    Some(refusal) => Err(refusal),
                    None => Ok(log),
                })
            })
            .await
    }

    /// Returns the next updates after a position, in bounded number and length.
    pub async fn updates_after(&self, position: i64) -> Result<UpdatePage, StoreError> {
        self.store.query(move |q| page(q, position)).await
    }

    /// Returns the earliest time until which an entry is known good, of those in doubt.
    pub async fn known_good_until(&self) -> Result<Option<Timestamp>, StoreError> {
        self.store.query(|q| q.known_good_until()).await
    }
}

pub(super) fn refusal(
    log: &LogPosition,
    cursor: i64,
    stream: Option<&str>,
) -> Option<CursorRefusal> {
    if stream.is_some_and(|stream| stream != log.stream) || log.is_foreign {
        Some(CursorRefusal::StreamMismatch)
    } else if cursor > log.newest {
        Some(CursorRefusal::Future)
    } else if cursor != 0 && cursor < log.floor {
        Some(CursorRefusal::TooOld)
    } else {
        None
    }
}

/// Bounds of a page: rows of the log that are read, and bytes that are written, which the last row
/// may exceed.
pub(super) struct PageBounds {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// The end of a page.
pub(super) struct PageEnd {
    /// The position from which the next page goes on.
    pub(super) reached: i64,
    /// Whether the log ends here.
    pub(super) is_last: bool,
}

/// Calls `each` with the updates after a position, in order, as far as the bounds allow. `each`
/// returns the bytes that it wrote.
pub(super) fn each_update(
    q: &Queries<'_>,
    position: i64,
    bounds: &PageBounds,
    mut each: impl FnMut(Update) -> Result<usize, StoreError>,
) -> Result<PageEnd, StoreError> {
    let mut end = PageEnd {
        reached: position,
        is_last: true,
    };
    let (mut rows, mut bytes) = (0, 0);
    q.each_logged(position, |logged| {
        if rows == bounds.rows || bytes >= bounds.bytes {
            end.is_last = false;
            return Ok(false);
        }
        rows += 1;
        end.reached = logged.change.seq;
        if let Some(update) = Update::of(logged) {
            bytes += each(update)?;
        }
        Ok(true)
    })?;
    Ok(end)
}

fn page(q: &Queries<'_>, position: i64) -> Result<UpdatePage, StoreError> {
    let mut updates = Vec::new();
    let end = each_update(q, position, &BOUNDS, |update| {
        let len = update.len();
        updates.push(update);
        Ok(len)
    })?;
    Ok(UpdatePage {
        updates,
        reached: end.reached,
        is_last: end.is_last,
    })
}

impl Update {
    /// Returns what a change tells its readers. Returns `None` where it tells nothing that a later
    /// change of the account does not: another change of the same observation follows, it is of an
    /// earlier version of this program, or it shows the package of an account that is hidden now.
    pub(super) fn of(logged: LoggedChange) -> Option<Self> {
        let LoggedChange {
            change,
            is_active_now,
        } = logged;
        let has_ended = matches!(change.kind, ChangeKind::Dropped | ChangeKind::Deleted);
        if change.account.is_none() && !has_ended {
            return None;
        }
        let is_served = change.account.as_ref().is_some_and(EntryState::is_served);
        if is_served && !is_active_now {
            return None;
        }
        let has_record = change.account.as_ref().is_some_and(EntryState::has_record);
        let mediators = change.mediators;
        Some(Self {
            seq: change.seq,
            did: change.did,
            kind: change.kind,
            detail: change.detail,
            seen_at: change.seen_at,
            state: change.account,
            record: change.cid.filter(|_| has_record),
            rev: change.rev,
            package: change
                .peer
                .filter(|_| is_served)
                .map(|peer| PackageRef { peer, mediators }),
        })
    }

    /// Returns the approximate length as a frame, in bytes.
    fn len(&self) -> usize {
        let package = self.package.as_ref().map_or(0, |package| {
            let mediators = package.mediators.iter();
            package.peer.len() + mediators.map(|did| did.as_str().len() + 3).sum::<usize>()
        });
        let detail = self.detail.as_ref().map_or(0, String::len);
        UPDATE_BYTES + self.did.as_str().len() + detail + package
    }
}
