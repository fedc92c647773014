//! The pace at which readers that are behind are brought up to date.
//!
//! Pages of one address are read one after the other, with a pause between two, however many sockets
//! the address has; and those of all addresses together are, too, with a shorter pause. Waiting
//! readers get their turns in order.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Mutex as Turns;
use tokio::time::{Instant, sleep_until};

use atcomm_net::net::group_of;

/// Least time between two pages of one address: some thousand updates in a second.
const ADDRESS_INTERVAL: Duration = Duration::from_millis(20);

/// Least time between two pages of all addresses together: a page takes the store well under a
/// millisecond, so that replay takes a small part of one core.
const INTERVAL: Duration = Duration::from_millis(5);

/// When the next page may be read.
type Next = Turns<Instant>;

/// The paces of all readers.
#[derive(Clone)]
pub(super) struct Replays {
    all: Arc<Next>,
    addresses: Arc<Mutex<HashMap<u128, Weak<Next>>>>,
}

/// The pace of the readers of one address.
pub(super) struct Pace {
    all: Arc<Next>,
    address: Arc<Next>,
    addresses: Arc<Mutex<HashMap<u128, Weak<Next>>>>,
    group: u128,
}

impl Default for Replays {
    fn default() -> Self {
        Self {
            all: Arc::new(Turns::new(Instant::now())),
            addresses: Arc::default(),
        }
    }
}

impl Replays {
    /// Returns the pace of an address. All addresses of an IPv6 /64 have one.
    pub(super) fn pace_of(&self, client: IpAddr) -> Pace {
        let group = group_of(client);
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let known = addresses.get(&group).and_then(Weak::upgrade);
        let address = known.unwrap_or_else(|| Arc::new(Turns::new(Instant::now())));
        addresses.insert(group, Arc::downgrade(&address));
        Pace {
            all: Arc::clone(&self.all),
            address,
            addresses: Arc::clone(&self.addresses),
            group,
        }
    }

    /// No page is read any more.
    #[cfg(test)]
    pub(super) async fn stop(&self) {
        *self.all.lock().await = Instant::now() + Duration::from_secs(24 * 3600);
    }
}

impl Pace {
    /// Waits until the next page may be read. May be dropped while it waits.
    pub(super) async fn turn(&self) {
        let mut address = self.address.lock().await;
        sleep_until(*address).await;
        let mut all = self.all.lock().await;
        sleep_until(*all).await;
        let now = Instant::now();
        *all = now + INTERVAL;
        *address = now + ADDRESS_INTERVAL;
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        let mut addresses = self
            .addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // The last reader of the address.
        if Arc::strong_count(&self.address) == 1 {
            addresses.remove(&self.group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads for a while by some sockets of each address. Returns the pages of each address, and the
    /// time that it took.
    async fn read(replays: &Replays, addresses: u8, sockets: u8) -> (Vec<u32>, Duration) {
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for n in 0..addresses {
            for _ in 0..sockets {
                let pace = replays.pace_of([192, 0, 2, n].into());
                tasks.push((
                    usize::from(n),
                    tokio::spawn(async move {
                        let mut pages = 0;
                        while begun.elapsed() < Duration::from_millis(500) {
                            pace.turn().await;
                            pages += 1;
                        }
                        pages
                    }),
                ));
            }
        }
        let mut pages = vec![0_u32; usize::from(addresses)];
        for (n, task) in tasks {
            pages[n] += task.await.unwrap();
        }
        (pages, begun.elapsed())
    }

    /// Returns the most turns in a time.
    fn most(took: Duration, interval: Duration) -> u32 {
        u32::try_from(took.as_millis() / interval.as_millis()).unwrap() + 1
    }

    #[tokio::test]
    async fn inv7_an_address_has_one_pace_however_many_sockets_it_has() {
        let replays = Replays::default();
        let (pages, took) = read(&replays, 2, 20).await;
        for pages in pages {
            assert!(pages <= most(took, ADDRESS_INTERVAL), "{pages} in {took:?}");
        }
        // Twenty addresses share what there is, and each gets some of it.
        let (pages, took) = read(&replays, 20, 2).await;
        let all: u32 = pages.iter().sum();
        assert!(all <= most(took, INTERVAL), "{all} in {took:?}");
        let (least, largest) = (pages.iter().min().unwrap(), pages.iter().max().unwrap());
        assert!(*least >= 2 && largest - least <= 4, "{pages:?}");
        assert!(replays.addresses.lock().unwrap().is_empty());
    }
}
