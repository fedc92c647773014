//! Turns at a host: its rate, its concurrency, and the time it asked us to stay away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::NetError;
use super::policy::{self, Trust};
use super::settings::NetSettings;
use crate::rate_limit::{Rate, RateLimit};
use atcomm_proto::clock::{Clock, Timestamp};

/// Domains remembered. Beyond it the one used longest ago is forgotten, those that nobody is
/// talking to first: a forgotten domain starts with a full bucket, so this only has to exceed what
/// is in use at a time.
const MAX_HOSTS: usize = 4096;

/// Longest `Retry-After` that is believed. A host that asks for more is asked again after an hour.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What a caller is told who found every place taken.
const NO_PLACE: Duration = Duration::from_secs(1);

/// Whose work a request is. Neither askers nor the background take the last third of the places
/// for learnt hosts ([`NetSettings::in_flight`], from 3 up), so that hosts that hang under one class
/// of work leave room for the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// Somebody waits for it, and chose the host.
    Interactive,
    /// Events, walks, re-proofs.
    #[default]
    Background,
    /// Mail for other mediators. It takes none of those places and has no rate: its own are counted
    /// where it is sent from, and mediators that hang must not keep us from looking at accounts.
    Mail,
}

/// The key of a host's limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HostKey {
    trust: Trust,
    name: String,
}

impl HostKey {
    /// Learnt hosts share one entry per registrable domain, so that the shards of one operator are
    /// not asked at many times the rate. Names of this machine are told apart by port: each is a
    /// server of its own.
    pub(super) fn new(host: &str, port: u16, trust: Trust) -> Self {
        let name = if trust == Trust::Configured || policy::is_localhost(host) {
            format!("{host}:{port}")
        } else {
            psl::domain_str(host).unwrap_or(host).to_owned()
        };
        Self { trust, name }
    }
}

/// A turn; dropping it ends the turn.
#[derive(Debug)]
pub(super) struct Turn {
    _host: OwnedSemaphorePermit,
    _learnt: Option<[OwnedSemaphorePermit; 2]>,
}

struct Host {
    rate: RateLimit,
    closed_until: Timestamp,
    places: Arc<Semaphore>,
    /// Position in the order of use.
    used: u64,
}

#[derive(Default)]
struct Table {
    hosts: HashMap<HostKey, Host>,
    uses: u64,
}

/// The limits of all hosts.
pub(super) struct Gate {
    clock: Clock,
    rate: Rate,
    learnt_places: usize,
    operator_places: usize,
    wait: Duration,
    /// Places for learnt hosts together. The operator's endpoints are few and do without: hosts
    /// that hang must not keep us from the PLC directory.
    all: Arc<Semaphore>,
    /// Of those, places that one class of work may hold.
    askers: Arc<Semaphore>,
    background: Arc<Semaphore>,
    table: Mutex<Table>,
}

impl Gate {
    pub(super) fn new(settings: &NetSettings, clock: Clock) -> Self {
        let places = |n: u32| (n.max(1) as usize).min(Semaphore::MAX_PERMITS);
        let all = places(settings.in_flight);
        let of_class = || Arc::new(Semaphore::new(all - all / 3));
        Self {
            clock,
            rate: Rate::per_second(settings.host_rate, settings.host_burst),
            learnt_places: places(settings.host_concurrency),
            operator_places: places(settings.operator_concurrency),
            wait: settings.busy_wait,
            all: Arc::new(Semaphore::new(all)),
            askers: of_class(),
            background: of_class(),
            table: Mutex::default(),
        }
    }

    /// Takes a turn, waiting for it no longer than the settings allow.
    pub(super) async fn enter(&self, key: &HostKey, priority: Priority) -> Result<Turn, NetError> {
        let (places, delay) = self.book(key, priority)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let turn = async {
            let host = places.acquire_owned().await.ok()?;
            let learnt = match key.trust {
                Trust::Untrusted if priority == Priority::Mail => None,
                Trust::Untrusted => {
                    let class = match priority {
                        Priority::Interactive => &self.askers,
                        Priority::Background | Priority::Mail => &self.background,
                    };
                    // The class first: a place of all must not be held while waiting for it.
                    let class = Arc::clone(class).acquire_owned().await.ok()?;
                    let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
                    Some([class, all])
                }
                Trust::Configured => None,
            };
            Some(Turn {
                _host: host,
                _learnt: learnt,
            })
        };
        let turn = tokio::time::timeout(self.wait.saturating_sub(delay), turn)
            .await
            .ok()
            .flatten()
            .ok_or(NetError::HostBusy {
                retry_after: NO_PLACE,
            })?;
        // The answer that freed this place may have asked us to stay away.
        match self.closed_for(key) {
            Some(retry_after) => Err(NetError::HostBusy { retry_after }),
            None => Ok(turn),
        }
    }

    /// Remembers that the host does not want to be asked for `wait`.
    pub(super) fn close(&self, key: &HostKey, wait: Duration) {
        let now = self.clock.now();
        let mut table = self.lock();
        let host = self.host(&mut table, key, now);
        host.closed_until = host.closed_until.max(now.plus(wait.min(MAX_RETRY_AFTER)));
    }

    /// Takes a token, now or on credit; the delay is the wait until the credit is paid.
    fn book(
        &self,
        key: &HostKey,
        priority: Priority,
    ) -> Result<(Arc<Semaphore>, Duration), NetError> {
        let now = self.clock.now();
        let mut table = self.lock();
        let host = self.host(&mut table, key, now);
        if host.closed_until > now {
            return Err(NetError::HostBusy {
                retry_after: host.closed_until.since(now),
            });
        }
        if key.trust == Trust::Configured || priority == Priority::Mail {
            return Ok((Arc::clone(&host.places), Duration::ZERO));
        }
        match host.rate.reserve(self.wait) {
            Ok(delay) => Ok((Arc::clone(&host.places), delay)),
            Err(retry_after) => Err(NetError::HostBusy { retry_after }),
        }
    }

    fn closed_for(&self, key: &HostKey) -> Option<Duration> {
        let now = self.clock.now();
        let table = self.lock();
        let until = table.hosts.get(key)?.closed_until;
        (until > now).then(|| until.since(now))
    }

    /// The entry of `key`, made where there is none.
    fn host<'t>(&self, table: &'t mut Table, key: &HostKey, now: Timestamp) -> &'t mut Host {
        if table.hosts.len() >= MAX_HOSTS && !table.hosts.contains_key(key) {
            self.forget_one(table, now);
        }
        table.uses += 1;
        let used = table.uses;
        let places = match key.trust {
            Trust::Untrusted => self.learnt_places,
            Trust::Configured => self.operator_places,
        };
        let host = table.hosts.entry(key.clone()).or_insert_with(|| Host {
            rate: RateLimit::new(self.rate, self.clock.clone()),
            closed_until: Timestamp::default(),
            places: Arc::new(Semaphore::new(places)),
            used,
        });
        host.used = used;
        // A clock set back must not keep a host closed for longer than it asked.
        host.closed_until = host.closed_until.min(now.plus(MAX_RETRY_AFTER));
        host
    }

    fn forget_one(&self, table: &mut Table, now: Timestamp) {
        let oldest = table
            .hosts
            .iter()
            .min_by_key(|(_, host)| {
                let idle = Arc::strong_count(&host.places) == 1 && host.closed_until <= now;
                (!idle, host.used)
            })
            .map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            table.hosts.remove(&key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{Background, Interactive};
    use super::*;

    fn gate(settings: NetSettings) -> (Gate, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        (Gate::new(&settings, clock.clone()), clock)
    }

    fn learnt(host: &str) -> HostKey {
        HostKey::new(host, 443, Trust::Untrusted)
    }

    #[test]
    fn shards_of_one_operator_share_limits() {
        assert_eq!(
            learnt("morel.us-east.host.bsky.network"),
            learnt("bsky.network")
        );
        assert_eq!(learnt("alice.pds0.test"), learnt("bob.pds0.test"));
        assert_ne!(learnt("alice.co.uk"), learnt("bob.co.uk"));
        assert_ne!(
            HostKey::new("localhost", 1, Trust::Untrusted),
            HostKey::new("localhost", 2, Trust::Untrusted)
        );
        assert_ne!(
            learnt("plc.directory"),
            HostKey::new("plc.directory", 443, Trust::Configured)
        );
    }

    #[tokio::test]
    async fn a_bucket_empties_and_fills() {
        let (gate, clock) = gate(NetSettings {
            host_rate: 2,
            host_burst: 3,
            busy_wait: Duration::ZERO,
            ..NetSettings::default()
        });
        let key = learnt("a.example.com");
        for _ in 0..3 {
            gate.enter(&key, Background).await.unwrap();
        }
        let busy = gate
            .enter(&learnt("b.example.com"), Background)
            .await
            .unwrap_err();
        assert_eq!(busy.retry_after(), Some(Duration::from_millis(500)));
        gate.enter(&learnt("other.org"), Background).await.unwrap();
        clock.advance(Duration::from_millis(500));
        gate.enter(&key, Background).await.unwrap();
        assert!(gate.enter(&key, Background).await.is_err());
    }

    #[tokio::test]
    async fn operator_endpoints_have_no_rate_but_places() {
        let (gate, _) = gate(NetSettings {
            host_burst: 1,
            operator_concurrency: 2,
            in_flight: 1,
            busy_wait: Duration::from_millis(10),
            ..NetSettings::default()
        });
        let key = HostKey::new("pds", 3000, Trust::Configured);
        for _ in 0..100 {
            gate.enter(&key, Background).await.unwrap();
        }
        let _held = (
            gate.enter(&key, Background).await.unwrap(),
            gate.enter(&key, Background).await.unwrap(),
        );
        assert!(matches!(
            gate.enter(&key, Background).await,
            Err(NetError::HostBusy { .. })
        ));
    }

    #[tokio::test]
    async fn retry_after_closes_for_everybody_and_at_most_an_hour() {
        let (gate, clock) = gate(NetSettings::default());
        let key = learnt("a.example.com");
        gate.close(&key, Duration::from_secs(86_400));
        let busy = gate
            .enter(&learnt("b.example.com"), Background)
            .await
            .unwrap_err();
        assert_eq!(busy.retry_after(), Some(Duration::from_secs(3600)));
        clock.advance(Duration::from_secs(3599));
        assert!(gate.enter(&key, Background).await.is_err());
        clock.advance(Duration::from_secs(1));
        gate.enter(&key, Background).await.unwrap();
    }

    #[tokio::test]
    async fn inv7_the_table_is_bounded_and_keeps_who_is_closed() {
        let (gate, _) = gate(NetSettings::default());
        let closed = learnt("closed.example");
        gate.close(&closed, Duration::from_secs(60));
        for i in 0..MAX_HOSTS + 10 {
            gate.enter(&learnt(&format!("host{i}.com")), Background)
                .await
                .unwrap();
        }
        assert_eq!(gate.lock().hosts.len(), MAX_HOSTS);
        assert!(gate.enter(&closed, Background).await.is_err());
    }
    /// Hosts that hang under one class of work leave a third of the places to the other.
    #[tokio::test]
    async fn no_class_of_work_takes_the_last_third() {
        let (gate, _) = gate(NetSettings {
            in_flight: 9,
            busy_wait: Duration::from_millis(10),
            ..NetSettings::default()
        });
        for (first, second) in [(Interactive, Background), (Background, Interactive)] {
            let enter = async |i: u32, priority| {
                let host = learnt(&format!("host{i}.com"));
                gate.enter(&host, priority).await
            };
            let mut held = Vec::new();
            for i in 0..6 {
                held.push(enter(i, first).await.unwrap());
            }
            assert!(enter(6, first).await.is_err());
            for i in 7..10 {
                held.push(enter(i, second).await.unwrap());
            }
            assert!(enter(10, second).await.is_err());
        }
    }
}
