//! The groups of a day.

use std::sync::LazyLock;

use rusqlite::{named_params, params};

use super::super::super::error::StoreError;
use super::super::Tx;
use super::day::Day;
use super::membership::GroupKind;

/// Most groups of one kind that have a row of their own on a day: the largest. All others are in one
/// row without a name.
pub const MAX_DAY_GROUPS: i64 = if cfg!(test) { 5 } else { 1000 };

/// Longest name of a group that has a row of its own, in bytes: the longest name of a host. Longer
/// DIDs count with the others.
const MAX_NAME: usize = 255;

/// The largest groups of a kind as they are now, read in the order of the index.
pub(super) const LARGEST: &str =
    "SELECT name, accounts, iif(day = ?2, came, 0) AS came, iif(day = ?2, went, 0) AS went
     FROM group_now INDEXED BY group_now_largest WHERE kind = ?1 AND name <> ''
     ORDER BY accounts DESC, name LIMIT ?3";

static LARGEST_GROUPS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO daily_group (kind, name, day, accounts, came, went)
         SELECT ?1, name, ?2, accounts, came, went FROM ({LARGEST})"
    )
});

/// All groups of a kind without the largest.
static OTHER_GROUPS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "INSERT INTO daily_group (kind, name, day, accounts, came, went, named)
         SELECT ?1, '', ?2, coalesce(a.accounts, 0) - l.accounts,
           coalesce(iif(a.day = ?2, a.came, 0), 0) - l.came,
           coalesce(iif(a.day = ?2, a.went, 0), 0) - l.went, l.named
         FROM (SELECT count(*) AS named, coalesce(sum(accounts), 0) AS accounts,
             coalesce(sum(came), 0) AS came, coalesce(sum(went), 0) AS went FROM ({LARGEST})) AS l
         LEFT JOIN group_now AS a ON a.kind = ?1 AND a.name = ''"
    )
});

impl Tx<'_> {
    /// Moves the number of accounts of a group by what took effect on a day.
    pub(super) fn move_group(
        &self,
        kind: GroupKind,
        name: &str,
        accounts: i64,
        day: Day,
        newest: Day,
    ) -> Result<(), StoreError> {
        let name = if name.len() > MAX_NAME { "" } else { name };
        self.move_group_now(kind, name, accounts)?;
        let (came, went) = (accounts.max(0), (-accounts).max(0));
        if day == newest {
            self.add_group_flow_now(kind, name, came, went, day)?;
        } else {
            self.move_ended_group(kind, name, (accounts, came, went), day)?;
            let mut later = day.next();
            while later < newest {
                self.move_ended_group(kind, name, (accounts, 0, 0), later)?;
                later = later.next();
            }
        }
        if !name.is_empty() {
            self.conn()
                .prepare_cached(
                    "DELETE FROM group_now WHERE kind = ?1 AND name = ?2 AND accounts = 0",
                )?
                .execute(params![kind.as_str(), name])?;
        }
        Ok(())
    }

    /// Moves the present number of accounts of a group, and that of all groups of its kind.
    pub(super) fn move_group_now(
        &self,
        kind: GroupKind,
        name: &str,
        accounts: i64,
    ) -> Result<(), StoreError> {
        let mut add = self.conn().prepare_cached(
            "INSERT INTO group_now (kind, name, accounts) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, name) DO UPDATE SET accounts = accounts + ?3",
        )?;
        if !name.is_empty() && name.len() <= MAX_NAME {
            add.execute(params![kind.as_str(), name, accounts])?;
        }
        add.execute(params![kind.as_str(), "", accounts])?;
        Ok(())
    }

    /// Adds to those who came to a group on the newest day, and who went from it.
    fn add_group_flow_now(
        &self,
        kind: GroupKind,
        name: &str,
        came: i64,
        went: i64,
        day: Day,
    ) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE group_now SET came = iif(day = :day, came, 0) + :came,
                   went = iif(day = :day, went, 0) + :went, day = :day
                 WHERE kind = :kind AND name IN ('', :name)",
            )?
            .execute(named_params! {
                ":kind": kind.as_str(),
                ":name": name,
                ":came": came,
                ":went": went,
                ":day": day.to_string(),
            })?;
        Ok(())
    }

    /// Moves a group of a day that has ended: its own row, or that of the others where the day has
    /// no room for one more.
    fn move_ended_group(
        &self,
        kind: GroupKind,
        name: &str,
        (accounts, came, went): (i64, i64, i64),
        day: Day,
    ) -> Result<(), StoreError> {
        let (kind, day) = (kind.as_str(), day.to_string());
        let mut update = self.conn().prepare_cached(
            "UPDATE daily_group SET accounts = accounts + ?4, came = came + ?5, went = went + ?6
             WHERE kind = ?1 AND name = ?2 AND day = ?3",
        )?;
        let mut moved = |name: &str| update.execute(params![kind, name, day, accounts, came, went]);
        if moved(name)? > 0 {
            return Ok(());
        }
        // A group that has no row although there was room had no account.
        let has_room = accounts > 0
            && self
                .conn()
                .prepare_cached(
                    "UPDATE daily_group SET named = named + 1
                     WHERE kind = ?1 AND name = '' AND day = ?2 AND named < ?3",
                )?
                .execute(params![kind, day, MAX_DAY_GROUPS])?
                > 0;
        if has_room {
            self.conn()
                .prepare_cached(
                    "INSERT INTO daily_group (kind, name, day, accounts, came, went)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![kind, name, day, accounts, came, went])?;
        } else {
            moved("")?;
        }
        Ok(())
    }

    /// Writes the groups of a day that has just ended: the largest of each kind, and one row of all
    /// others.
    pub(super) fn write_groups(&self, day: Day) -> Result<(), StoreError> {
        let day = day.to_string();
        for kind in GroupKind::ALL {
            for sql in [&*LARGEST_GROUPS, &*OTHER_GROUPS] {
                self.conn().prepare_cached(sql)?.execute(params![
                    kind.as_str(),
                    day,
                    MAX_DAY_GROUPS
                ])?;
            }
        }
        Ok(())
    }
}
