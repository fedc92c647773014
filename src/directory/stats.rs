//! The numbers of accounts, as `getStats` returns them
//! (`lexicons/at/didcomm/directory/getStats.json`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::Directory;
use crate::store::directory::{AccountState, Happening, Mark, Queries, Tally};
use crate::store::{Damage, StoreError};
use atcomm_proto::clock::Timestamp;

/// Time for which an answer is given again, so that no number of requests reads the file more often.
const FRESH: Duration = Duration::from_secs(1);

/// Most groups of one kind in an answer; those after the largest are summed up.
pub const MAX_GROUPS: u32 = 100;

/// The answer of `getStats`.
#[derive(Debug)]
pub struct Statistics {
    /// The JSON body.
    pub body: Bytes,
    /// Weak entity tag: over the body without its time.
    pub etag: String,
    at: Timestamp,
}

/// The last answer. Requests that come while it is made wait for it.
#[derive(Default)]
pub(super) struct LastStatistics(Mutex<Option<Arc<Statistics>>>);

/// The numbers, as the lexicon names them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatsView {
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
    pub(crate) totals: Totals,
    pub(crate) inactive: Grouping,
    pub(crate) invalid: Grouping,
    pub(crate) unverifiable: Grouping,
    pub(crate) by_pds: Grouping,
    pub(crate) by_mediator: Grouping,
    pub(crate) by_key_type: Grouping,
    pub(crate) changes: Changes,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    pub(crate) accounts: u64,
    pub(crate) enrolled: u64,
    pub(crate) inactive: u64,
    pub(crate) invalid: u64,
    pub(crate) removed: u64,
    pub(crate) removed_unproven: u64,
    pub(crate) unverifiable: u64,
    pub(crate) regressed: u64,
    pub(crate) in_doubt: u64,
    pub(crate) ambiguous_peers: u64,
}

#[derive(Serialize)]
pub(crate) struct Grouping {
    pub(crate) groups: u64,
    pub(crate) largest: Vec<Group>,
    others: u64,
}

#[derive(Serialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) accounts: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Changes {
    pub(crate) last24_hours: Happenings,
    pub(crate) last7_days: Happenings,
    pub(crate) last30_days: Happenings,
}

#[derive(Default, Serialize)]
pub(crate) struct Happenings {
    pub(crate) enrolments: u64,
    pub(crate) rotations: u64,
    pub(crate) removals: u64,
    pub(crate) deletions: u64,
}

impl Directory {
    /// Returns the numbers of accounts, as they were within the last second.
    pub async fn statistics(&self) -> Result<Arc<Statistics>, StoreError> {
        let mut last = self.statistics.0.lock().await;
        let now = self.clock.now();
        if let Some(last) = last.as_ref().filter(|last| last.is_fresh(now)) {
            return Ok(Arc::clone(last));
        }
        let view = self.store.query(move |q| StatsView::read(q, now)).await?;
        let statistics = Arc::new(render(view, now)?);
        *last = Some(Arc::clone(&statistics));
        Ok(statistics)
    }
}

impl Statistics {
    fn is_fresh(&self, now: Timestamp) -> bool {
        // A time in our future, after a step of the clock, says nothing.
        self.at <= now && now.since(self.at) < FRESH
    }
}

impl StatsView {
    /// Reads the numbers with their time.
    pub(crate) fn at(q: &Queries<'_>, now: Timestamp) -> Result<Self, StoreError> {
        let mut view = Self::read(q, now)?;
        view.as_of = Some(now.to_string());
        Ok(view)
    }

    /// Reads the numbers, without their time.
    fn read(q: &Queries<'_>, now: Timestamp) -> Result<Self, StoreError> {
        let totals = Totals::read(q)?;
        let named = q.tally(Tally::Mark, Mark::Named.as_str())?;
        let happened = |hours| Happenings::read(q, now, hours);
        Ok(Self {
            as_of: None,
            inactive: Grouping::read(q, Tally::Inactive, totals.inactive)?,
            invalid: Grouping::read(q, Tally::Invalid, totals.invalid)?,
            unverifiable: Grouping::read(q, Tally::Unverifiable, totals.unverifiable)?,
            by_pds: Grouping::read(q, Tally::Pds, totals.enrolled)?,
            by_mediator: Grouping::read(q, Tally::Mediator, named)?,
            by_key_type: Grouping::read(q, Tally::KeyType, totals.enrolled)?,
            changes: Changes {
                last24_hours: happened(24)?,
                last7_days: happened(7 * 24)?,
                last30_days: happened(30 * 24)?,
            },
            totals,
        })
    }
}

impl Totals {
    fn read(q: &Queries<'_>) -> Result<Self, StoreError> {
        let of = |state: AccountState| q.tally(Tally::State, state.as_str());
        let marked = |mark: Mark| q.tally(Tally::Mark, mark.as_str());
        let mut totals = Self {
            accounts: 0,
            enrolled: of(AccountState::Enrolled)?,
            inactive: of(AccountState::Inactive)?,
            invalid: of(AccountState::Invalid)?,
            removed: of(AccountState::Removed)?,
            removed_unproven: of(AccountState::RemovedUnproven)?,
            unverifiable: of(AccountState::Unverifiable)?,
            regressed: marked(Mark::Regressed)?,
            in_doubt: marked(Mark::InDoubt)?,
            ambiguous_peers: marked(Mark::Ambiguous)?,
        };
        totals.accounts = totals.enrolled
            + totals.inactive
            + totals.invalid
            + totals.removed
            + totals.removed_unproven
            + totals.unverifiable;
        Ok(totals)
    }
}

impl Grouping {
    /// Reads the groups of a kind, of which there are `total` accounts in all.
    fn read(q: &Queries<'_>, kind: Tally, total: u64) -> Result<Self, StoreError> {
        let largest = q.largest_groups(kind, MAX_GROUPS)?;
        let shown: u64 = largest.iter().map(|(_, accounts)| accounts).sum();
        let largest = largest
            .into_iter()
            .map(|(name, accounts)| Group { name, accounts });
        Ok(Self {
            groups: q.tally(Tally::Groups, kind.as_str())?,
            largest: largest.collect(),
            others: total.saturating_sub(shown),
        })
    }
}

impl Happenings {
    fn read(q: &Queries<'_>, now: Timestamp, hours: i64) -> Result<Self, StoreError> {
        let mut happened = Self::default();
        for (kind, count) in q.happened(now, hours)? {
            let of_kind = match kind {
                Happening::Enrolment => &mut happened.enrolments,
                Happening::Rotation => &mut happened.rotations,
                Happening::Removal => &mut happened.removals,
                Happening::Deletion => &mut happened.deletions,
            };
            *of_kind = count;
        }
        Ok(happened)
    }
}

fn render(mut view: StatsView, now: Timestamp) -> Result<Statistics, StoreError> {
    let json = |view: &StatsView| {
        serde_json::to_vec(view).map_err(|error| StoreError::Corrupt(Damage::Json(error.into())))
    };
    let digest = Sha256::digest(json(&view)?);
    view.as_of = Some(now.to_string());
    Ok(Statistics {
        body: json(&view)?.into(),
        etag: format!(
            "W/\"{}\"",
            HEXLOWER.encode(digest.get(..16).unwrap_or_default())
        ),
        at: now,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_future_is_made_anew() {
        let at = Timestamp::from_millis(1_800_000_000_000);
        let statistics = Statistics {
            body: Bytes::new(),
            etag: String::new(),
            at,
        };
        assert!(statistics.is_fresh(at));
        assert!(!statistics.is_fresh(at.plus(FRESH)));
        assert!(!statistics.is_fresh(at.minus(Duration::from_millis(1))));
    }
}
