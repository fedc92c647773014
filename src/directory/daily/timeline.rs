//! The time series, as `getTimeline` returns it (`lexicons/at/didcomm/directory/getTimeline.json`).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::super::Directory;
use crate::store::directory::{Day, DayRow, GroupDay, GroupKind};
use crate::store::{Damage, StoreError};

/// Most buckets of one answer.
pub const MAX_BUCKETS: i32 = 1100;

/// The time that a bucket stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// A day in UTC.
    Day,
    /// Seven days, from Monday on.
    Week,
    /// A calendar month.
    Month,
}

impl Interval {
    /// Returns the word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// Returns what the days of one bucket have in common.
    fn bucket(self, day: Day) -> String {
        match self {
            Self::Day => day.to_string(),
            Self::Week => day.week().to_string(),
            Self::Month => day.to_string().get(..7).unwrap_or_default().to_owned(),
        }
    }
}

/// The selection of the series for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeline {
    /// The time that a bucket stands for.
    pub interval: Interval,
    /// The first day.
    pub since: Day,
    /// The last day.
    pub until: Day,
    /// One group; without a name all that have no row of their own. `None`: the totals.
    pub group: Option<(GroupKind, Option<String>)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TimelineView<'a> {
    interval: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    buckets: Vec<BucketView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BucketView {
    since: String,
    until: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<TotalsView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<GroupView>,
    /// Of the last day.
    uncertain: i64,
    missed_days: i64,
    closed: bool,
    complete: bool,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct TotalsView {
    enrolled: i64,
    inactive: i64,
    invalid: i64,
    new: i64,
    returned: i64,
    found: i64,
    departed: i64,
    key_changes_vouched: i64,
    key_changes_unvouched: i64,
    delays: [i64; 7],
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupView {
    accounts: i64,
    came: i64,
    went: i64,
}

impl Directory {
    /// Returns the newest day of the time series, or the present one where there is none.
    pub fn today(&self) -> Day {
        Day::of(self.clock.now())
    }

    /// Returns a part of the time series as JSON. Days before the series began have no bucket.
    pub async fn timeline(&self, timeline: Timeline) -> Result<Bytes, StoreError> {
        let (since, until) = (timeline.since, timeline.until);
        let group = timeline.group.clone();
        let (days, groups) = self
            .store
            .query(move |q| {
                let groups = match &group {
                    Some((kind, name)) => {
                        let name = name.as_deref().unwrap_or_default();
                        q.group_days(*kind, name, since, until)?
                    }
                    None => Vec::new(),
                };
                Ok((q.days(since, until)?, groups))
            })
            .await?;
        let view = TimelineView {
            interval: timeline.interval.as_str(),
            group: timeline.group.as_ref().map(|(kind, _)| kind.as_str()),
            name: timeline
                .group
                .as_ref()
                .and_then(|(_, name)| name.as_deref()),
            buckets: buckets(timeline.interval, &days, timeline.group.is_some(), &groups),
        };
        let body = serde_json::to_vec(&view)
            .map_err(|error| StoreError::Corrupt(Damage::Json(Arc::new(error))))?;
        Ok(body.into())
    }
}

/// Returns the buckets of days that are in order.
fn buckets(
    interval: Interval,
    days: &[DayRow],
    of_group: bool,
    groups: &[GroupDay],
) -> Vec<BucketView> {
    let groups: BTreeMap<Day, &GroupDay> = groups.iter().map(|one| (one.day, one)).collect();
    days.chunk_by(|one, next| interval.bucket(one.day) == interval.bucket(next.day))
        .filter_map(|days| {
            let (first, last) = (days.first()?, days.last()?);
            let rows = days.iter().filter_map(|day| groups.get(&day.day).copied());
            Some(BucketView {
                since: first.day.to_string(),
                until: last.day.to_string(),
                totals: (!of_group).then(|| totals(days, last)),
                group: groups.get(&last.day).map(|end| group(end, rows)),
                uncertain: last.uncertain,
                missed_days: days.iter().map(|day| i64::from(day.missed)).sum(),
                closed: days.iter().all(|day| day.closed),
                complete: days.iter().all(|day| day.complete),
            })
        })
        .collect()
}

/// Returns the totals at the end of the last of some days, and what happened on all of them.
fn totals(days: &[DayRow], last: &DayRow) -> TotalsView {
    let [enrolled, inactive, invalid] = last.stock;
    let mut totals = TotalsView {
        enrolled,
        inactive,
        invalid,
        ..TotalsView::default()
    };
    for day in days {
        totals.new += day.new;
        totals.returned += day.returned;
        totals.found += day.found;
        totals.departed += day.departed;
        totals.key_changes_vouched += day.vouched;
        totals.key_changes_unvouched += day.unvouched;
        for (sum, count) in totals.delays.iter_mut().zip(day.delays) {
            *sum += count;
        }
    }
    totals
}

/// Returns a group at the end of the last of some days, and what happened on all of them.
fn group<'g>(end: &GroupDay, days: impl Iterator<Item = &'g GroupDay>) -> GroupView {
    days.fold(
        GroupView {
            accounts: end.accounts,
            ..GroupView::default()
        },
        |sum, day| GroupView {
            came: sum.came + day.came,
            went: sum.went + day.went,
            ..sum
        },
    )
}
