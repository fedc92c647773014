//! The consumers of the channel: what each has acknowledged.

use rusqlite::{OptionalExtension as _, params};

use super::super::error::StoreError;
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;

/// Most consumers. A further one takes the place of the one that was not seen for the longest time.
pub const MAX_CONSUMERS: u32 = 16;

/// A consumer as its connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connected {
    /// It goes on after this position; 0 where it is new.
    At(i64),
    /// There are [`MAX_CONSUMERS`] others that were seen after the given time.
    Full,
}

impl Queries<'_> {
    /// Returns the position up to which a consumer has acknowledged everything.
    pub fn consumer(&self, name: &str) -> Result<Option<i64>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT position FROM consumer WHERE name = ?1")?;
        Ok(query.query_row([name], |row| row.get(0)).optional()?)
    }
}

impl Tx<'_> {
    /// Notes the connection of a consumer. A new one takes the place of one that was not seen since
    /// `unseen_since` where there are too many.
    pub fn connect_consumer(
        &self,
        name: &str,
        now: Timestamp,
        unseen_since: Timestamp,
    ) -> Result<Connected, StoreError> {
        if let Some(position) = self.consumer(name)? {
            self.acknowledge(name, position, now)?;
            return Ok(Connected::At(position));
        }
        let count: u32 = self
            .conn()
            .query_row("SELECT count(*) FROM consumer", [], |row| row.get(0))?;
        if count >= MAX_CONSUMERS {
            let replaced = self.conn().execute(
                "DELETE FROM consumer WHERE name = (
                   SELECT name FROM consumer WHERE seen_at < ?1 ORDER BY seen_at LIMIT 1)",
                [unseen_since.millis()],
            )?;
            if replaced == 0 {
                return Ok(Connected::Full);
            }
        }
        self.conn().execute(
            "INSERT INTO consumer (name, position, seen_at) VALUES (?1, 0, ?2)",
            params![name, now.millis()],
        )?;
        Ok(Connected::At(0))
    }

    /// Writes the position up to which a consumer has acknowledged everything. It only goes forward.
    pub fn acknowledge(&self, name: &str, position: i64, now: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "UPDATE consumer SET position = max(position, ?2), seen_at = ?3 WHERE name = ?1",
            )?
            .execute(params![name, position, now.millis()])?;
        Ok(())
    }
}
