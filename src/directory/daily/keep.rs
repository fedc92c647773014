//! Days begin and are closed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::super::Directory;
use crate::store::StoreError;
use crate::store::directory::{Day, FollowedSource, LATEST_CLOSE};
use atcomm_proto::clock::Timestamp;

/// Time without an event after which a source whose connection stands has nothing more to bring:
/// several times that between two events of a long replay.
const SILENCE: Duration = Duration::from_secs(60);

/// Entries that are read at once.
const HOSTS_BATCH: usize = 2000;

/// The connections of the sources. Their number is that of the configured ones.
#[derive(Debug, Default)]
pub(in crate::directory) struct SourceStates(Mutex<BTreeMap<String, Connection>>);

/// A connection that stands and is proven to continue.
#[derive(Debug, Clone, Copy)]
struct Connection {
    /// The last moment that the stream was proven until.
    until: Option<Timestamp>,
    /// Monotonic time since which that is so.
    since: Duration,
}

impl SourceStates {
    /// Returns whether a source has come past a moment: by an event behind it, or by silence behind
    /// it on a connection that stands.
    fn is_past(
        &self,
        source: &FollowedSource,
        moment: Timestamp,
        now: Timestamp,
        instant: Duration,
    ) -> bool {
        if source.until >= moment {
            return true;
        }
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(connection) = states.get_mut(&source.source) else {
            return false;
        };
        if connection.until != Some(source.until) {
            connection.until = Some(source.until);
            connection.since = instant;
        }
        instant.saturating_sub(connection.since) >= SILENCE && now.since(moment) >= SILENCE
    }
}

impl Directory {
    /// Tells whether a source is connected and its stream is proven to continue.
    pub fn set_connection(&self, source: &str, continues: bool) {
        let states = &self.source_states.0;
        let mut states = states.lock().unwrap_or_else(PoisonError::into_inner);
        if continues {
            states.entry(source.to_owned()).or_insert(Connection {
                until: None,
                since: self.clock.monotonic(),
            });
        } else {
            states.remove(source);
        }
    }

    /// Tells which sources are followed: the days wait for these only.
    pub async fn follow_sources(&self, names: Vec<String>) -> Result<(), StoreError> {
        self.store
            .transact(move |tx| tx.follow_sources(&names))
            .await
    }

    /// Brings the time series to the present day, and closes the days of which nothing more is to be
    /// learnt, in their order.
    pub async fn keep_days(&self) -> Result<(), StoreError> {
        let (now, instant) = (self.clock.now(), self.clock.monotonic());
        let today = Day::of(now);
        let (newest, sources, days) = self
            .store
            .query(move |q| Ok((q.newest_day()?, q.followed_sources()?, q.open_days(today)?)))
            .await?;
        if newest.is_none_or(|newest| newest < today) {
            self.store.transact(move |tx| tx.reach_day(now)).await?;
            return Ok(());
        }
        let is_past = |end| {
            let mut sources = sources.iter();
            sources.all(|source| self.source_states.is_past(source, end, now, instant))
        };
        for open in days {
            let day = open.day;
            let covered_at = if open.covered_at.is_some() {
                open.covered_at
            } else if !sources.is_empty() && is_past(day.end()) {
                self.store
                    .transact(move |tx| tx.cover_day(day, now))
                    .await?;
                Some(now)
            } else {
                None
            };
            let is_old = sources.is_empty() || today.since(day) > LATEST_CLOSE;
            let closed = self.store.transact(move |tx| {
                let is_final = match covered_at {
                    Some(covered_at) => !tx.may_be_late(day, covered_at)?,
                    None => false,
                };
                if is_final {
                    tx.close_day(day, now)?;
                } else if is_old {
                    tx.give_up_day(day, now)?;
                }
                Ok(is_final || is_old)
            });
            if !closed.await? {
                break;
            }
        }
        self.count_hosts(today.plus(-1)).await
    }

    /// Counts the hosts of the day that has ended last, once, in small steps.
    async fn count_hosts(&self, day: Day) -> Result<(), StoreError> {
        if !self.store.query(move |q| q.lacks_hosts(day)).await? {
            return Ok(());
        }
        let mut hosts: HashMap<String, bool> = HashMap::new();
        let mut after = 0;
        loop {
            let rows = self.store.query(move |q| q.entry_hosts(after, HOSTS_BATCH));
            let rows = rows.await?;
            let Some(last) = rows.last() else { break };
            after = last.row;
            for entry in rows {
                let proven = entry.proved_at.is_some_and(|at| at >= day.start());
                if let Some(pds) = entry.pds {
                    *hosts.entry(pds).or_default() |= proven;
                }
            }
        }
        let reached = hosts.values().filter(|proven| **proven).count();
        let hosts = hosts.len();
        self.store
            .transact(move |tx| tx.set_hosts(day, hosts, reached))
            .await
    }
}
