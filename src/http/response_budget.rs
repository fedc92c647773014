//! Limits concurrent large responses, in total and per address. A permit is released when the last
//! byte has been written, so slow readers keep theirs.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::per_address::{AddressPermit, PerAddressLimit};

/// Most bytes of a response with several accounts. One with proofs takes about as much.
pub(super) const MAX_RESPONSE: usize = 1200 * 1024;

/// Maximum large responses that one address holds. A response takes about 1.2 MiB at most.
pub(super) const MAX_PER_ADDRESS: usize = 16;

/// The permits for large responses.
pub(super) struct LargeResponseBudget {
    slots: Arc<Semaphore>,
    per_address: PerAddressLimit,
}

/// The limit that leaves no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// The limit of the address.
    Address,
    /// The limit of all addresses together.
    Total,
}

/// A permit for one large response.
pub(super) struct ResponsePermit {
    _slot: OwnedSemaphorePermit,
    _address: AddressPermit,
}

impl LargeResponseBudget {
    /// Creates a budget of `max` permits, at least one.
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))),
            per_address: PerAddressLimit::new(MAX_PER_ADDRESS),
        }
    }

    /// Takes a permit for a response to the address.
    pub(super) fn acquire(&self, client: IpAddr) -> Result<ResponsePermit, Exhausted> {
        let address = self.per_address.acquire(client).ok_or(Exhausted::Address)?;
        let slot = Arc::clone(&self.slots).try_acquire_owned();
        Ok(ResponsePermit {
            _slot: slot.map_err(|_| Exhausted::Total)?,
            _address: address,
        })
    }
}

impl ResponsePermit {
    /// Ties the permit to the body: it is released when the last reference to the bytes is dropped.
    /// The buffers of the server hold references after the response itself is gone.
    pub(super) fn attach(self, body: Bytes) -> Bytes {
        Bytes::from_owner(PermittedBody {
            body,
            _permit: self,
        })
    }
}

struct PermittedBody {
    body: Bytes,
    _permit: ResponsePermit,
}

impl AsRef<[u8]> for PermittedBody {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv7_a_response_keeps_its_permit_until_its_last_byte_is_dropped() {
        let budget = LargeResponseBudget::new(2);
        let address = |s: &str| s.parse::<IpAddr>().unwrap();
        let first = budget.acquire(address("192.0.2.1")).ok().unwrap();
        let second = budget.acquire(address("192.0.2.2")).ok().unwrap();
        assert_eq!(
            budget.acquire(address("192.0.2.3")).err(),
            Some(Exhausted::Total)
        );
        let mut body = first.attach(Bytes::from_static(b"answer"));
        let rest = body.split_off(3);
        drop(body);
        assert_eq!(
            budget.acquire(address("192.0.2.3")).err(),
            Some(Exhausted::Total)
        );
        assert_eq!(rest, "wer");
        drop(rest);
        drop(budget.acquire(address("192.0.2.3")).ok().unwrap());
        drop(second);
        // A refused request keeps no slot.
        assert_eq!(budget.slots.available_permits(), 2);

        let budget = LargeResponseBudget::new(MAX_PER_ADDRESS + 1);
        let greedy = address("192.0.2.1");
        let held: Vec<_> = (0..MAX_PER_ADDRESS)
            .map(|_| budget.acquire(greedy).ok().unwrap())
            .collect();
        assert_eq!(budget.acquire(greedy).err(), Some(Exhausted::Address));
        assert!(budget.acquire(address("192.0.2.2")).is_ok());
        drop(held);
        assert!(budget.acquire(greedy).is_ok());
    }
}
