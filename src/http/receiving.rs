//! Bodies of messages, in bounded memory that no address can take up alone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::StatusCode;
use futures_util::StreamExt as _;
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::error::Failure;
use crate::mediator::{MediatorSettings, Refused};
use crate::net::group_of;

/// Memory is counted in pieces of this many bytes.
const PIECE: usize = 1024;

/// The part of the memory that one address may take up: one in so many.
const SHARES: usize = 4;

/// How long bytes wait for memory; then their sender is told to come back.
const WAIT: Duration = Duration::from_secs(2);

/// Addresses whose shares are remembered, and for how long after the last message: longer than any
/// request takes.
const MAX_ADDRESSES: u64 = 100_000;
const FORGET: Duration = Duration::from_secs(600);

/// The memory for messages that are being received.
pub(super) struct Receiving {
    max_message: usize,
    memory: Arc<Semaphore>,
    share: usize,
    by_address: Cache<u128, Arc<Semaphore>>,
}

/// A message that was received; its memory counts until it is dropped.
pub(super) struct Received {
    pub(super) message: Vec<u8>,
    _memory: Memory,
}

/// Permits of the address's own share and of the whole, the same number of each.
#[derive(Default)]
struct Memory(Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>);

impl Receiving {
    pub(super) fn new(settings: &MediatorSettings) -> Self {
        let one = pieces(settings.max_message);
        let all = (settings.receive_memory / PIECE).clamp(one, Semaphore::MAX_PERMITS);
        Self {
            max_message: settings.max_message,
            memory: Arc::new(Semaphore::new(all)),
            share: (all / SHARES).max(one),
            by_address: Cache::builder()
                .max_capacity(MAX_ADDRESSES)
                .time_to_idle(FORGET)
                .build(),
        }
    }

    /// Reads a body. Memory is taken as bytes come and never for what is only announced: who
    /// promises a long message and sends none holds up nobody.
    pub(super) async fn read(&self, body: Body, address: IpAddr) -> Result<Received, Failure> {
        let max = self.max_message;
        if body.size_hint().lower() > max as u64 {
            return Err(too_large(max));
        }
        let own = self
            .by_address
            .get_with(group_of(address), || Arc::new(Semaphore::new(self.share)));
        let mut chunks = body.into_data_stream();
        let (mut message, mut memory) = (Vec::new(), Memory::default());
        while let Some(chunk) = chunks.next().await {
            let chunk =
                chunk.map_err(|_| Failure::invalid("the body ended before it was complete"))?;
            if chunk.len() > max - message.len() {
                return Err(too_large(max));
            }
            let more = pieces(message.len() + chunk.len()) - memory.pieces();
            if more > 0 {
                memory.add(self.take(&own, more).await?);
            }
            message.extend_from_slice(&chunk);
        }
        Ok(Received {
            message,
            _memory: memory,
        })
    }

    async fn take(
        &self,
        own: &Arc<Semaphore>,
        pieces: usize,
    ) -> Result<(OwnedSemaphorePermit, OwnedSemaphorePermit), Failure> {
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let until = Instant::now() + WAIT;
        // The own share first, so that nobody waits for it with memory of all in hand.
        let own = timeout_at(until, Arc::clone(own).acquire_many_owned(pieces)).await;
        let Ok(Ok(own)) = own else {
            return Err(Refused::Busy(WAIT).into());
        };
        let all = timeout_at(until, Arc::clone(&self.memory).acquire_many_owned(pieces)).await;
        let Ok(Ok(all)) = all else {
            return Err(Refused::Busy(WAIT).into());
        };
        Ok((own, all))
    }
}

impl Memory {
    fn pieces(&self) -> usize {
        self.0.as_ref().map_or(0, |(own, _)| own.num_permits())
    }

    fn add(&mut self, more: (OwnedSemaphorePermit, OwnedSemaphorePermit)) {
        match &mut self.0 {
            Some((own, all)) => {
                own.merge(more.0);
                all.merge(more.1);
            }
            None => self.0 = Some(more),
        }
    }
}

fn pieces(bytes: usize) -> usize {
    bytes.div_ceil(PIECE).max(1)
}

fn too_large(max: usize) -> Failure {
    Failure::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "MessageTooLarge",
        format!("the message is longer than {max} bytes"),
    )
}
