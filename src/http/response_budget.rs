//! Large answers: how many are made or held at the same time, until they are written. Who reads
//! slowly holds one for as long.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::per_address::{AddressPermit, PerAddressLimit};

/// Large answers that one address may hold. One takes about 1.2 MiB at most.
pub(super) const MAX_PER_ADDRESS: usize = 16;

/// Room for large answers.
pub(super) struct LargeResponseBudget {
    slots: Arc<Semaphore>,
    per_address: PerAddressLimit,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exhausted {
    /// The address holds its share.
    Address,
    /// All do together.
    Total,
}

/// Room for one large answer.
pub(super) struct ResponsePermit {
    _slot: OwnedSemaphorePermit,
    _address: AddressPermit,
}

impl LargeResponseBudget {
    /// At most so many, at least one.
    pub(super) fn new(max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(max.clamp(1, Semaphore::MAX_PERMITS))),
            per_address: PerAddressLimit::new(MAX_PER_ADDRESS),
        }
    }

    /// Room for an answer to the address.
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
    /// The body of the answer, which takes the room until the last of its bytes is let go: also
    /// while the server has them in its own buffers, when the response is gone already.
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
    fn inv7_an_answer_takes_its_room_until_its_last_byte_is_let_go() {
        let large = LargeResponseBudget::new(2);
        let address = |s: &str| s.parse::<IpAddr>().unwrap();
        let first = large.acquire(address("192.0.2.1")).ok().unwrap();
        let second = large.acquire(address("192.0.2.2")).ok().unwrap();
        assert_eq!(
            large.acquire(address("192.0.2.3")).err(),
            Some(Exhausted::Total)
        );
        let mut body = first.attach(Bytes::from_static(b"answer"));
        let rest = body.split_off(3);
        drop(body);
        assert_eq!(
            large.acquire(address("192.0.2.3")).err(),
            Some(Exhausted::Total)
        );
        assert_eq!(rest, "wer");
        drop(rest);
        drop(large.acquire(address("192.0.2.3")).ok().unwrap());
        drop(second);
        // A refusal leaves nothing behind.
        assert_eq!(large.slots.available_permits(), 2);

        let large = LargeResponseBudget::new(MAX_PER_ADDRESS + 1);
        let greedy = address("192.0.2.1");
        let held: Vec<_> = (0..MAX_PER_ADDRESS)
            .map(|_| large.acquire(greedy).ok().unwrap())
            .collect();
        assert_eq!(large.acquire(greedy).err(), Some(Exhausted::Address));
        assert!(large.acquire(address("192.0.2.2")).is_ok());
        drop(held);
        assert!(large.acquire(greedy).is_ok());
    }
}
