//! Large answers: how many are made or held at the same time, until they are written. Who reads
//! slowly holds one for as long.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::shares::{Share, Shares};

/// Large answers that one address may hold. One takes about 1.2 MiB at most.
pub(super) const OF_ONE_ADDRESS: usize = 16;

/// Room for large answers.
pub(super) struct Large {
    places: Arc<Semaphore>,
    shares: Shares,
}

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// The address holds its share.
    OfAddress,
    /// All do together.
    OfAll,
}

/// Room for one large answer.
pub(super) struct Room {
    _place: OwnedSemaphorePermit,
    _share: Share,
}

impl Large {
    /// At most so many, at least one.
    pub(super) fn new(most: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
            shares: Shares::new(OF_ONE_ADDRESS),
        }
    }

    /// Room for an answer to the address.
    pub(super) fn enter(&self, asker: IpAddr) -> Result<Room, Full> {
        let share = self.shares.take(asker).ok_or(Full::OfAddress)?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        Ok(Room {
            _place: place.map_err(|_| Full::OfAll)?,
            _share: share,
        })
    }
}

impl Room {
    /// The body of the answer, which takes the room until the last of its bytes is let go: also
    /// while the server has them in its own buffers, when the response is gone already.
    pub(super) fn hold(self, body: Bytes) -> Bytes {
        Bytes::from_owner(Held { body, _room: self })
    }
}

struct Held {
    body: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv7_an_answer_takes_its_room_until_its_last_byte_is_let_go() {
        let large = Large::new(2);
        let address = |s: &str| s.parse::<IpAddr>().unwrap();
        let first = large.enter(address("192.0.2.1")).ok().unwrap();
        let second = large.enter(address("192.0.2.2")).ok().unwrap();
        assert_eq!(large.enter(address("192.0.2.3")).err(), Some(Full::OfAll));
        let mut body = first.hold(Bytes::from_static(b"answer"));
        let rest = body.split_off(3);
        drop(body);
        assert_eq!(large.enter(address("192.0.2.3")).err(), Some(Full::OfAll));
        assert_eq!(rest, "wer");
        drop(rest);
        drop(large.enter(address("192.0.2.3")).ok().unwrap());
        drop(second);
        // A refusal leaves nothing behind.
        assert_eq!(large.places.available_permits(), 2);

        let large = Large::new(OF_ONE_ADDRESS + 1);
        let greedy = address("192.0.2.1");
        let held: Vec<_> = (0..OF_ONE_ADDRESS)
            .map(|_| large.enter(greedy).ok().unwrap())
            .collect();
        assert_eq!(large.enter(greedy).err(), Some(Full::OfAddress));
        assert!(large.enter(address("192.0.2.2")).is_ok());
        drop(held);
        assert!(large.enter(greedy).is_ok());
    }
}
