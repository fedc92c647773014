//! The time series: a row for each day, and a row for each day and group.
//!
//! A change counts on the day on which it took effect. The totals of that day and of all days after
//! it are moved in the transaction that applies the change, so those of the newest day are always
//! the present ones. A day is open until nothing can be late any more; a day that is closed is not
//! moved again.
//!
//! The groups of the newest day are in `group_now`, all of them. When the day has ended, the largest
//! of each kind become rows of `daily_group`, and the rest is summed up in one row.

mod close;
mod day;
mod groups;
mod membership;
mod read;
mod series;

#[cfg(test)]
mod tests;

use rusqlite::{OptionalExtension as _, named_params, params};

use super::super::columns::{maybe_time, time};
use super::super::error::StoreError;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;

pub use close::{EntryHost, FollowedSource, LATEST_CLOSE, OpenDay};
pub use day::Day;
pub use groups::MAX_DAY_GROUPS;
pub use membership::{GroupKind, Membership};
pub use read::{DayRow, GroupDay, MAX_DAYS, SourceDay};
pub use series::GroupRow;

/// Most days that a clock may go forward at once. Later times are not believed: the changes count
/// on the newest day.
const MAX_STEP: i32 = 3660;

/// Bounds of the delays from a record to its being served, in milliseconds: those of the columns
/// `within_...`, the last of which has none.
pub const DELAYS: [i64; 6] = [1_000, 10_000, 60_000, 600_000, 3_600_000, 86_400_000];

const NEWEST_DAY: &str = "SELECT max(day) FROM daily";

const FIRST_OPEN_DAY: &str = "SELECT min(day) FROM daily WHERE closed_at IS NULL";

/// The change log tells it of an account whose entry is gone.
const COUNTED_AT: &str = "SELECT coalesce((SELECT counted_at FROM entry WHERE did = ?1),
   (SELECT seen_at FROM change WHERE did = ?1 ORDER BY seq DESC LIMIT 1)) AS at";

/// The join is in this order, since few days are open.
const OPEN_DAYS_HAVE_GAPS: &str = "SELECT EXISTS (SELECT 1 FROM daily CROSS JOIN daily_source AS s
   WHERE daily.closed_at IS NULL AND s.day = daily.day AND s.gaps > 0)";

/// The effect of one change on the series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DayDelta {
    /// Accounts enrolled, inactive, and with an invalid package: more or fewer.
    pub stock: [i64; 3],
    /// Came for the first time.
    pub new: i64,
    /// Came again.
    pub returned: i64,
    /// Had come before the first open day, and was not known.
    pub found: i64,
    /// Went.
    pub departed: i64,
    /// Replaced the did:peer, with the word of the one before.
    pub vouched: i64,
    /// Replaced the did:peer, without it.
    pub unvouched: i64,
    /// Time from the record to its being served, in milliseconds.
    pub delay: Option<i64>,
    /// Accounts of groups: more or fewer.
    pub groups: Vec<(GroupKind, String, i64)>,
}

impl Queries<'_> {
    /// Returns the newest day of the series.
    pub fn newest_day(&self) -> Result<Option<Day>, StoreError> {
        let mut query = self.0.prepare_cached(NEWEST_DAY)?;
        Ok(query.query_row([], day::maybe_day)?)
    }

    /// Returns the first day that is open.
    pub fn first_open_day(&self) -> Result<Option<Day>, StoreError> {
        let mut query = self.0.prepare_cached(FIRST_OPEN_DAY)?;
        Ok(query.query_row([], day::maybe_day)?)
    }

    /// Returns the time from which on the next change of an account counts: that of its last change
    /// that counted.
    pub fn counted_at(&self, did: &Did) -> Result<Option<Timestamp>, StoreError> {
        let mut query = self.0.prepare_cached(COUNTED_AT)?;
        Ok(query.query_row([did.as_str()], |row| maybe_time(row, "at"))?)
    }

    /// Returns whether the change log knows a valid package of an account.
    pub fn had_package(&self, did: &Did) -> Result<bool, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM change WHERE did = ?1 AND kind = 'package')",
        )?;
        Ok(query.query_row([did.as_str()], |row| row.get(0))?)
    }

    /// Returns since when a refresh of an account is pending, and when the commit was made by which a
    /// stream has shown the package of an account without an entry.
    pub fn pending_times(
        &self,
        did: &Did,
    ) -> Result<Option<(Timestamp, Option<Timestamp>)>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT since, written_at FROM pending WHERE did = ?1")?;
        let row = query.query_row([did.as_str()], |row| {
            Ok((time(row, "since")?, maybe_time(row, "written_at")?))
        });
        Ok(row.optional()?)
    }

    /// Returns whether a gap touches a day that is open.
    pub fn open_days_have_gaps(&self) -> Result<bool, StoreError> {
        let mut query = self.0.prepare_cached(OPEN_DAYS_HAVE_GAPS)?;
        Ok(query.query_row([], |row| row.get(0))?)
    }
}

impl Tx<'_> {
    /// Notes the time of the commit that shows the package of an account without an entry. Of several
    /// the first stands.
    pub fn note_written(&self, did: &Did, at: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE pending SET written_at = min(coalesce(written_at, ?2), ?2) WHERE did = ?1",
            )?
            .execute(params![did.as_str(), at.millis()])?;
        Ok(())
    }

    /// Writes the time of the last change of an account that counted.
    pub fn set_counted_at(&self, did: &Did, at: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE entry SET counted_at = ?2 WHERE did = ?1")?
            .execute(params![did.as_str(), at.millis()])?;
        Ok(())
    }

    /// Brings the series to the day of `now`, and returns the newest day. The days in between are
    /// days on which nothing ran. A clock that was put back changes nothing.
    pub fn reach_day(&self, now: Timestamp) -> Result<Day, StoreError> {
        let today = Day::of(now);
        let Some(newest) = self.newest_day()? else {
            self.begin_series(today)?;
            return Ok(today);
        };
        if today <= newest {
            return Ok(newest);
        }
        if today.since(newest) > MAX_STEP {
            tracing::error!(%today, %newest, "the clock went too far ahead for the time series");
            return Ok(newest);
        }
        self.end_day(newest, now)?;
        let mut day = newest.next();
        while day < today {
            self.add_day(day, true)?;
            if today.since(day) <= LATEST_CLOSE {
                self.write_groups(day)?;
            }
            day = day.next();
        }
        self.give_up_days(today.plus(-LATEST_CLOSE - 1), now)?;
        self.add_day(today, false)?;
        Ok(today)
    }

    /// Begins the series with what the directory has.
    fn begin_series(&self, today: Day) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("INSERT INTO daily (day, begun) VALUES (?1, 1)")?
            .execute([today.to_string()])?;
        let mut stock = [0_i64; 3];
        for (at, count) in self.count_memberships()? {
            if let Some(sum) = stock.get_mut(at) {
                *sum += count;
            }
        }
        self.move_stock(today, stock)
    }

    /// Adds a day with the totals of the day before.
    fn add_day(&self, day: Day, missed: bool) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO daily (day, missed, enrolled, inactive, invalid)
                 SELECT ?1, ?2, enrolled, inactive, invalid FROM daily
                 ORDER BY day DESC LIMIT 1",
            )?
            .execute(params![day.to_string(), missed])?;
        Ok(())
    }

    /// Adds a change to the day on which it took effect. That day is open, and not after the newest.
    pub fn add_to_day(&self, day: Day, newest: Day, delta: &DayDelta) -> Result<(), StoreError> {
        self.move_stock(day, delta.stock)?;
        self.add_flow(day, delta)?;
        for (kind, name, accounts) in &delta.groups {
            self.move_group(*kind, name, *accounts, day, newest)?;
        }
        Ok(())
    }

    fn move_stock(&self, day: Day, stock: [i64; 3]) -> Result<(), StoreError> {
        let [enrolled, inactive, invalid] = stock;
        if stock == [0; 3] {
            return Ok(());
        }
        self.conn()
            .prepare_cached(
                "UPDATE daily SET enrolled = enrolled + ?2, inactive = inactive + ?3,
                   invalid = invalid + ?4 WHERE day >= ?1",
            )?
            .execute(params![day.to_string(), enrolled, inactive, invalid])?;
        Ok(())
    }

    fn add_flow(&self, day: Day, delta: &DayDelta) -> Result<(), StoreError> {
        // The number of the column of a delay; none: no delay is known.
        let delay = delta.delay.map_or(-1, |delay| {
            let longer = DELAYS.iter().take_while(|bound| delay > **bound);
            i64::try_from(longer.count()).unwrap_or(0)
        });
        self.conn()
            .prepare_cached(
                "UPDATE daily SET new = new + :new, returned = returned + :returned,
                   found = found + :found, departed = departed + :departed,
                   vouched = vouched + :vouched, unvouched = unvouched + :unvouched,
                   within_1s = within_1s + (:delay = 0), within_10s = within_10s + (:delay = 1),
                   within_1m = within_1m + (:delay = 2), within_10m = within_10m + (:delay = 3),
                   within_1h = within_1h + (:delay = 4), within_1d = within_1d + (:delay = 5),
                   longer = longer + (:delay = 6)
                 WHERE day = :day",
            )?
            .execute(named_params! {
                ":day": day.to_string(),
                ":new": delta.new,
                ":returned": delta.returned,
                ":found": delta.found,
                ":departed": delta.departed,
                ":vouched": delta.vouched,
                ":unvouched": delta.unvouched,
                ":delay": delay,
            })?;
        Ok(())
    }

    /// Notes that an account may have changed on each of some days, `since` and later and before
    /// `before`, although the change counts later. Closed days stay as they are.
    pub fn doubt_days(&self, since: Day, before: Day) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE daily SET uncertain = uncertain + 1
                 WHERE day >= ?1 AND day < ?2 AND closed_at IS NULL",
            )?
            .execute(params![since.to_string(), before.to_string()])?;
        Ok(())
    }

    /// Notes the same of the open days up to `last` whose end the sources had not come past at
    /// `since`, when they told of the account.
    pub fn doubt_uncovered_days(
        &self,
        last: Day,
        before: Day,
        since: Timestamp,
    ) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE daily SET uncertain = uncertain + 1
                 WHERE day <= ?1 AND day < ?2 AND closed_at IS NULL
                   AND (covered_at IS NULL OR covered_at >= ?3)",
            )?
            .execute(params![
                last.to_string(),
                before.to_string(),
                since.millis()
            ])?;
        Ok(())
    }
}
