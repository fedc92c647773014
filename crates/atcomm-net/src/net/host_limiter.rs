//! The limits of each host: its rate, its concurrency, and the pause that it asked for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::NetError;
use super::policy::{self, Trust};
use super::settings::NetSettings;
use crate::rate_limit::{Rate, RateLimit};
use atcomm_proto::clock::{Clock, Timestamp};

/// Most hosts in the table. Beyond that the host used longest ago is evicted, idle hosts first. An
/// evicted host starts again with a full bucket, so the table only has to exceed what is in use at
/// a time.
const MAX_HOSTS: usize = 4096;

/// Longest `Retry-After` that is obeyed. A host that asks for more is tried again after an hour.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The time to wait that is reported when all slots are taken.
const NO_SLOT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The class of work that a request belongs to. Neither interactive nor background work takes the
/// last third of the slots for untrusted hosts ([`NetSettings::in_flight`], from 3 up), so that
/// hosts that hang under one class leave slots to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// A client waits for the result, and chose the host.
    Interactive,
    /// Events, backfills, re-proofs.
    #[default]
    Background,
    /// Messages for other mediators. They take none of those slots and have no rate here: the relay
    /// limits them itself, and mediators that hang must not keep us from refreshing accounts.
    Mail,
}

/// Returns the part of a host's name that one owner has registered, by the public suffix list; the
/// whole name where there is none.
pub fn registrable_domain(host: &str) -> &str {
    psl::domain_str(host).unwrap_or(host)
}

/// Returns the name under which hosts of one owner are counted together: the registrable domain, or
/// host and port where there is none, as on one machine.
pub fn owner_domain(host: &str, port: Option<u16>) -> String {
    if host.parse::<IpAddr>().is_ok() {
        return host.to_owned();
    }
    let domain = registrable_domain(host);
    match port {
        Some(port) if !domain.contains('.') => format!("{domain}:{port}"),
        _ => domain.to_owned(),
    }
}

/// The key of a host's limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct HostKey {
    trust: Trust,
    name: String,
}

impl HostKey {
    /// Returns the key of a host. Untrusted hosts under one registrable domain share a key, so that
    /// the shards of one operator are not asked at many times the rate. Names of this machine are
    /// distinguished by port: each is a server of its own.
    pub(super) fn new(host: &str, port: u16, trust: Trust) -> Self {
        let name = if trust == Trust::Configured || policy::is_localhost(host) {
            format!("{host}:{port}")
        } else {
            registrable_domain(host).to_owned()
        };
        Self { trust, name }
    }
}

/// Permission for one request to a host, until it is dropped.
#[derive(Debug)]
pub(super) struct HostPermit {
    _host: OwnedSemaphorePermit,
    _untrusted: Option<[OwnedSemaphorePermit; 2]>,
}

struct Host {
    rate: RateLimit,
    closed_until: Timestamp,
    slots: Arc<Semaphore>,
    /// Position in the order of use.
    used: u64,
}

#[derive(Default)]
struct Table {
    hosts: HashMap<HostKey, Host>,
    uses: u64,
}

/// The limits of all hosts.
pub(super) struct HostLimiter {
    clock: Clock,
    rate: Rate,
    untrusted_slots: usize,
    configured_slots: usize,
    max_wait: Duration,
    /// Slots of all untrusted hosts together. Configured endpoints are few and need none: hosts
    /// that hang must not keep us from the PLC directory.
    untrusted: Arc<Semaphore>,
    /// Those of the slots that one class of work may hold.
    interactive: Arc<Semaphore>,
    background: Arc<Semaphore>,
    table: Mutex<Table>,
}

impl HostLimiter {
    pub(super) fn new(settings: &NetSettings, clock: Clock) -> Self {
        let slots = |n: u32| (n.max(1) as usize).min(Semaphore::MAX_PERMITS);
        let untrusted = slots(settings.in_flight);
        let of_class = || Arc::new(Semaphore::new(untrusted - untrusted / 3));
        Self {
            clock,
            rate: Rate::per_second(settings.host_rate, settings.host_burst),
            untrusted_slots: slots(settings.host_concurrency),
            configured_slots: slots(settings.operator_concurrency),
            max_wait: settings.busy_wait,
            untrusted: Arc::new(Semaphore::new(untrusted)),
            interactive: of_class(),
            background: of_class(),
            table: Mutex::default(),
        }
    }

    /// Acquires a permit, waiting for it no longer than the settings allow.
    pub(super) async fn acquire(
        &self,
        key: &HostKey,
        priority: Priority,
    ) -> Result<HostPermit, NetError> {
        let (slots, delay) = self.reserve(key, priority)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let permit = async {
            let host = slots.acquire_owned().await.ok()?;
            let untrusted = match key.trust {
                Trust::Untrusted if priority == Priority::Mail => None,
                Trust::Untrusted => {
                    let class = match priority {
                        Priority::Interactive => &self.interactive,
                        Priority::Background | Priority::Mail => &self.background,
                    };
                    // The class first: a common slot must not be held while waiting for it.
                    let class = Arc::clone(class).acquire_owned().await.ok()?;
                    let common = Arc::clone(&self.untrusted).acquire_owned().await.ok()?;
                    Some([class, common])
                }
                Trust::Configured => None,
            };
            Some(HostPermit {
                _host: host,
                _untrusted: untrusted,
            })
        };
        let permit = tokio::time::timeout(self.max_wait.saturating_sub(delay), permit)
            .await
            .ok()
            .flatten()
            .ok_or(NetError::HostBusy {
                retry_after: NO_SLOT_RETRY_AFTER,
            })?;
        // The response that released this slot may have asked for a pause.
        match self.closed_for(key) {
            Some(retry_after) => Err(NetError::HostBusy { retry_after }),
            None => Ok(permit),
        }
    }

    /// Refuses requests to the host for `wait`.
    pub(super) fn close(&self, key: &HostKey, wait: Duration) {
        let now = self.clock.now();
        let mut table = self.lock();
        let host = self.host(&mut table, key, now);
        host.closed_until = host.closed_until.max(now.plus(wait.min(MAX_RETRY_AFTER)));
    }

    /// Takes a request out of the host's bucket, now or on credit. Returns the time until the
    /// credit is paid.
    fn reserve(
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
            return Ok((Arc::clone(&host.slots), Duration::ZERO));
        }
        match host.rate.reserve(self.max_wait) {
            Ok(delay) => Ok((Arc::clone(&host.slots), delay)),
            Err(retry_after) => Err(NetError::HostBusy { retry_after }),
        }
    }

    fn closed_for(&self, key: &HostKey) -> Option<Duration> {
        let now = self.clock.now();
        let table = self.lock();
        let until = table.hosts.get(key)?.closed_until;
        (until > now).then(|| until.since(now))
    }

    /// Returns the entry of `key`, made if there is none.
    fn host<'t>(&self, table: &'t mut Table, key: &HostKey, now: Timestamp) -> &'t mut Host {
        if table.hosts.len() >= MAX_HOSTS && !table.hosts.contains_key(key) {
            evict_one(table, now);
        }
        table.uses += 1;
        let used = table.uses;
        let slots = match key.trust {
            Trust::Untrusted => self.untrusted_slots,
            Trust::Configured => self.configured_slots,
        };
        let host = table.hosts.entry(key.clone()).or_insert_with(|| Host {
            rate: RateLimit::new(self.rate, self.clock.clone()),
            closed_until: Timestamp::default(),
            slots: Arc::new(Semaphore::new(slots)),
            used,
        });
        host.used = used;
        // A clock set back must not keep a host closed for longer than the host asked for.
        host.closed_until = host.closed_until.min(now.plus(MAX_RETRY_AFTER));
        host
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts the host used longest ago, if possible one without requests and without a pause.
fn evict_one(table: &mut Table, now: Timestamp) {
    let oldest = table
        .hosts
        .iter()
        .min_by_key(|(_, host)| {
            let idle = Arc::strong_count(&host.slots) == 1 && host.closed_until <= now;
            (!idle, host.used)
        })
        .map(|(key, _)| key.clone());
    if let Some(key) = oldest {
        table.hosts.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::Priority::{Background, Interactive};
    use super::*;

    fn limiter(settings: NetSettings) -> (HostLimiter, Clock) {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        (HostLimiter::new(&settings, clock.clone()), clock)
    }

    fn untrusted(host: &str) -> HostKey {
        HostKey::new(host, 443, Trust::Untrusted)
    }

    #[test]
    fn shards_of_one_operator_share_limits() {
        assert_eq!(
            untrusted("morel.us-east.host.bsky.network"),
            untrusted("bsky.network")
        );
        assert_eq!(untrusted("alice.pds0.test"), untrusted("bob.pds0.test"));
        assert_ne!(untrusted("alice.co.uk"), untrusted("bob.co.uk"));
        assert_ne!(
            HostKey::new("localhost", 1, Trust::Untrusted),
            HostKey::new("localhost", 2, Trust::Untrusted)
        );
        assert_ne!(
            untrusted("plc.directory"),
            HostKey::new("plc.directory", 443, Trust::Configured)
        );
    }

    #[tokio::test]
    async fn a_bucket_empties_and_fills() {
        let (limiter, clock) = limiter(NetSettings {
            host_rate: 2,
            host_burst: 3,
            busy_wait: Duration::ZERO,
            ..NetSettings::default()
        });
        let key = untrusted("a.example.com");
        for _ in 0..3 {
            limiter.acquire(&key, Background).await.unwrap();
        }
        let busy = limiter
            .acquire(&untrusted("b.example.com"), Background)
            .await
            .unwrap_err();
        assert_eq!(busy.retry_after(), Some(Duration::from_millis(500)));
        limiter
            .acquire(&untrusted("other.org"), Background)
            .await
            .unwrap();
        clock.advance(Duration::from_millis(500));
        limiter.acquire(&key, Background).await.unwrap();
        assert!(limiter.acquire(&key, Background).await.is_err());
    }

    #[tokio::test]
    async fn configured_endpoints_have_no_rate_but_slots() {
        let (limiter, _) = limiter(NetSettings {
            host_burst: 1,
            operator_concurrency: 2,
            in_flight: 1,
            busy_wait: Duration::from_millis(10),
            ..NetSettings::default()
        });
        let key = HostKey::new("pds", 3000, Trust::Configured);
        for _ in 0..100 {
            limiter.acquire(&key, Background).await.unwrap();
        }
        let _held = (
            limiter.acquire(&key, Background).await.unwrap(),
            limiter.acquire(&key, Background).await.unwrap(),
        );
        assert!(matches!(
            limiter.acquire(&key, Background).await,
            Err(NetError::HostBusy { .. })
        ));
    }

    #[tokio::test]
    async fn retry_after_closes_for_all_callers_and_at_most_an_hour() {
        let (limiter, clock) = limiter(NetSettings::default());
        let key = untrusted("a.example.com");
        limiter.close(&key, Duration::from_secs(86_400));
        let busy = limiter
            .acquire(&untrusted("b.example.com"), Background)
            .await
            .unwrap_err();
        assert_eq!(busy.retry_after(), Some(Duration::from_secs(3600)));
        clock.advance(Duration::from_secs(3599));
        assert!(limiter.acquire(&key, Background).await.is_err());
        clock.advance(Duration::from_secs(1));
        limiter.acquire(&key, Background).await.unwrap();
    }

    #[tokio::test]
    async fn inv7_the_table_is_bounded_and_keeps_closed_hosts() {
        let (limiter, _) = limiter(NetSettings::default());
        let closed = untrusted("closed.example");
        limiter.close(&closed, Duration::from_secs(60));
        for i in 0..MAX_HOSTS + 10 {
            limiter
                .acquire(&untrusted(&format!("host{i}.com")), Background)
                .await
                .unwrap();
        }
        assert_eq!(limiter.lock().hosts.len(), MAX_HOSTS);
        assert!(limiter.acquire(&closed, Background).await.is_err());
    }

    /// Hosts that hang under one class of work leave a third of the slots to the other.
    #[tokio::test]
    async fn no_class_of_work_takes_the_last_third() {
        let (limiter, _) = limiter(NetSettings {
            in_flight: 9,
            busy_wait: Duration::from_millis(10),
            ..NetSettings::default()
        });
        for (first, second) in [(Interactive, Background), (Background, Interactive)] {
            let acquire = async |i: u32, priority| {
                let host = untrusted(&format!("host{i}.com"));
                limiter.acquire(&host, priority).await
            };
            let mut held = Vec::new();
            for i in 0..6 {
                held.push(acquire(i, first).await.unwrap());
            }
            assert!(acquire(6, first).await.is_err());
            for i in 7..10 {
                held.push(acquire(i, second).await.unwrap());
            }
            assert!(acquire(10, second).await.is_err());
        }
    }
}
