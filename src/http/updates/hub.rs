//! The live frames, made once for all readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::broadcast;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::frames::{Info, push_info, push_update};
use crate::directory::Directory;
use crate::store::StoreError;

/// Time between two looks at the log. The frames of that time are written to a reader at once: at
/// ten changes a second, four writes a second for each reader.
const INTERVAL: Duration = Duration::from_millis(250);

/// Most pages of the log in one look. More follow with the next.
const MAX_PAGES: usize = 16;

/// Pages that a reader may be behind: a minute where each look finds something, and 4 s where each
/// finds as much as it takes. They take 10 MB at most, whatever the number of readers.
const BACKLOG: usize = 256;

/// Looks at the log between two questions whether something is in doubt.
const LOOKS_PER_DOUBT: u32 = 8;

/// What all readers get.
#[derive(Debug, Clone)]
pub(super) enum Live {
    /// Frames of all updates between two positions of the log.
    Updates {
        /// The position before them.
        after: i64,
        /// The position of the last one.
        last: i64,
        /// The frames. None where no update between them is to be shown.
        frames: Bytes,
        /// Where the frame of each update begins, after the positions of the updates.
        starts: Arc<[(i64, usize)]>,
    },
    /// The frame of other news.
    Info(Bytes),
}

impl Live {
    /// Returns the frames of the updates after a position.
    pub(super) fn after(frames: &Bytes, starts: &[(i64, usize)], position: i64) -> Bytes {
        let first = starts.partition_point(|(seq, _)| *seq <= position);
        let begin = starts.get(first).map_or(frames.len(), |(_, start)| *start);
        frames.slice(begin..)
    }
}

/// The maker of live frames.
pub(super) struct Hub {
    directory: Arc<Directory>,
    live: broadcast::Sender<Live>,
    /// Position in the log up to which frames were made for the readers of that time.
    reached: AtomicI64,
}

/// Where the hub stands while it has readers.
#[derive(Default)]
struct Place {
    /// Position in the log up to which frames were made; `None` where there were no readers.
    position: Option<i64>,
    is_in_doubt: Option<bool>,
    looks: u32,
}

impl Hub {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            live: broadcast::channel(BACKLOG).0,
            reached: AtomicI64::new(0),
        }
    }

    /// Returns the frames from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Live> {
        self.live.subscribe()
    }

    /// Returns a position that a reader has to have come to by itself when it begins to take frames:
    /// those that it gets tell of everything after it, or of a position that is behind it, too.
    pub(super) fn reached(&self) -> i64 {
        self.reached.load(Ordering::SeqCst)
    }

    /// Makes frames until `stop`. A look that fails is repeated: no reader misses anything by it.
    pub(super) async fn run(&self, stop: CancellationToken) {
        let mut looks = interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut place = Place::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = looks.tick() => {}
            }
            if self.live.receiver_count() == 0 {
                place = Place::default();
                continue;
            }
            if let Err(error) = self.look(&mut place).await {
                tracing::error!(%error, "the change log cannot be read for its readers");
            }
        }
    }

    /// Makes the frames of what is new in the log.
    async fn look(&self, place: &mut Place) -> Result<(), StoreError> {
        if place.looks.is_multiple_of(LOOKS_PER_DOUBT) {
            self.tell_doubt(place).await?;
        }
        place.looks = place.looks.wrapping_add(1);
        let Some(mut position) = place.position else {
            let newest = self.directory.log().await?.newest;
            place.position = Some(newest);
            // A reader that has read less than this reads it from the store.
            self.send(newest, newest, Vec::new(), Vec::new());
            return Ok(());
        };
        for _ in 0..MAX_PAGES {
            let page = self.directory.updates_after(position).await?;
            if page.reached == position {
                break;
            }
            let (mut frames, mut starts) = (Vec::new(), Vec::new());
            for update in &page.updates {
                starts.push((update.seq, frames.len()));
                push_update(&mut frames, update);
            }
            let count = page.updates.len() as u64;
            metrics::counter!("atcomm_updates_live_total").increment(count);
            self.send(position, page.reached, frames, starts);
            position = page.reached;
            place.position = Some(position);
            if page.is_last {
                break;
            }
        }
        Ok(())
    }

    /// Tells the beginning and the end of a time in which something is in doubt.
    async fn tell_doubt(&self, place: &mut Place) -> Result<(), StoreError> {
        let until = self.directory.known_good_until().await?;
        if place.is_in_doubt == Some(until.is_some()) {
            return Ok(());
        }
        // A reader that begins to read is told of a doubt, but not of one that begins just then.
        if place.is_in_doubt.replace(until.is_some()).unwrap_or(false) != until.is_some() {
            let until = until.map(|until| until.to_string());
            self.live.send(Live::Info(doubt_frame(until).into())).ok();
        }
        Ok(())
    }

    fn send(&self, after: i64, last: i64, frames: Vec<u8>, starts: Vec<(i64, usize)>) {
        // Before the frames are sent: who begins to take frames in between reads them twice rather
        // than not at all.
        self.reached.store(last, Ordering::SeqCst);
        // Without readers it is lost, and they read it from the store.
        let live = Live::Updates {
            after,
            last,
            frames: frames.into(),
            starts: starts.into(),
        };
        self.live.send(live).ok();
    }
}

/// Returns the frame that tells until when everything is known good, or that it is so now.
pub(super) fn doubt_frame(known_good_until: Option<String>) -> Vec<u8> {
    let (name, message) = if known_good_until.is_some() {
        (
            "InDoubt",
            "changes of some accounts may have been missed; they are looked at again",
        )
    } else {
        ("DoubtEnded", "no change is believed to have been missed")
    };
    let mut frame = Vec::new();
    let info = Info {
        name,
        message,
        stream: None,
        newest: None,
        known_good_until,
    };
    push_info(&mut frame, &info);
    frame
}
