//! What is known of each source that was ever followed or listed.

use super::super::columns::{collect, maybe_time, unsigned};
use super::super::error::StoreError;
use super::Queries;
use atcomm_proto::clock::Timestamp;

/// How a source is followed and listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceStatus {
    /// The source's name: kind and address.
    pub name: String,
    /// Since when its stream is proven to have missed nothing; `None`: it was never followed.
    pub covered_since: Option<Timestamp>,
    /// The time of the newest event that is proven to have come.
    pub covered_until: Option<Timestamp>,
    /// When its list of accounts was last read to the end.
    pub listed_at: Option<Timestamp>,
    /// Accounts on that list so far.
    pub listed: u64,
    /// Why the list could not be read at the last attempt.
    pub failure: Option<String>,
}

impl Queries<'_> {
    /// Returns the sources in order of their names, at most `limit`. One that is no longer configured
    /// is among them.
    pub fn sources(&self, limit: usize) -> Result<Vec<SourceStatus>, StoreError> {
        let mut query = self.0.prepare_cached(
            "SELECT name, coverage.since, coverage.until, walk.complete_at, walk.seen, walk.failure
             FROM (SELECT source AS name FROM coverage UNION SELECT source FROM walk)
             LEFT JOIN coverage ON coverage.source = name LEFT JOIN walk ON walk.source = name
             ORDER BY name LIMIT ?1",
        )?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        collect(query.query_map([limit], |row| {
            let listed: Option<i64> = row.get("seen")?;
            Ok(SourceStatus {
                name: row.get("name")?,
                covered_since: maybe_time(row, "since")?,
                covered_until: maybe_time(row, "until")?,
                listed_at: maybe_time(row, "complete_at")?,
                listed: unsigned(listed.unwrap_or(0)),
                failure: row.get("failure")?,
            })
        })?)
    }
}
