//! The continuous copy: what it holds at each moment, and its damage.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::super::segment::{Segment, link};
use super::super::{Copier, sets};
use super::*;
use crate::store::Changes;

/// A service's mailbox that is copied.
struct Copied {
    store: Arc<MailboxStore>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Copied {
    fn start(f: &Fixture, recipients: &Recipients) -> Self {
        let store = MailboxStore::open(&f.path("data").join("mailbox.db")).unwrap();
        let store = Arc::new(store);
        let stop = CancellationToken::new();
        let copier = Copier {
            store: Arc::clone(&store),
            data_dir: f.path("data"),
            dir: f.path("copy"),
            recipients: recipients.clone(),
            base_every: Duration::from_secs(3600),
            keep: 1,
            clock: f.clock.clone(),
        };
        let task = tokio::spawn(copier.run(stop.clone()));
        Self { store, stop, task }
    }

    async fn set(&self, key: &str) {
        let key = key.to_owned();
        let set = self.store.transact(move |tx| tx.set_meta(&key, "there"));
        set.await.unwrap();
    }

    /// Ends as a service does.
    async fn end(self) {
        self.store.shutdown().await;
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

/// Waits until the newest base is whole and has so many segments. Returns its folder.
async fn until_copied(f: &Fixture, segments: usize) -> PathBuf {
    loop {
        let newest = sets::newest(&f.path("copy")).ok().flatten();
        if let Some(newest) = newest
            && count(&newest.path) >= segments
        {
            return newest.path;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn count(set: &Path) -> usize {
    fs::read_dir(sets::segments_of(set)).map_or(0, Iterator::count)
}

fn restore_until(
    f: &Fixture,
    set: &Path,
    identities: &Identities,
    until: Option<u64>,
) -> Result<Restored, BackupError> {
    restore(&RestorePlan {
        set,
        data_dir: &f.path("new"),
        identities,
        replace: false,
        until,
        now: f.clock.now(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv10_a_copy_has_everything_up_to_its_last_segment_and_the_keys() {
    let f = Fixture::new().await;
    let (identities, recipients) = identity();
    let copied = Copied::start(&f, &recipients);
    // The first segment has the keys.
    let mut segments = 1;
    let set = until_copied(&f, segments).await;
    let mut steps = Vec::new();
    for key in ["first", "second", "third"] {
        copied.set(key).await;
        segments += 1;
        until_copied(&f, segments).await;
        steps.push((key, segments as u64));
    }
    Keys::rotate(&f.path("data").join(KEYS_FILE), f.clock.now()).unwrap();
    segments += 1;
    until_copied(&f, segments).await;
    let rotated = fs::read(f.path("data").join(KEYS_FILE)).unwrap();
    copied.set("at the end").await;
    copied.end().await;
    assert_eq!(
        count(&set),
        segments + 1,
        "what came last is copied at the end"
    );

    // Each cut is the state of its moment.
    for (at, (key, until)) in steps.iter().enumerate() {
        let restored = restore_until(&f, &set, &identities, Some(*until)).unwrap();
        assert_eq!(restored.segments, *until);
        assert!(f.has("new", key).await);
        if let Some((later, _)) = steps.get(at + 1) {
            assert!(!f.has("new", later).await);
        }
        fs::remove_dir_all(f.path("new")).unwrap();
    }
    let restored = restore_until(&f, &set, &identities, None).unwrap();
    assert_eq!(restored.segments, segments as u64 + 1);
    assert!(f.has("new", "before").await && f.has("new", "at the end").await);
    assert_eq!(fs::read(f.path("new").join(KEYS_FILE)).unwrap(), rotated);

    // The next start begins anew, and the old chain goes once the new base is whole.
    f.clock.advance(Duration::from_secs(1));
    let copied = Copied::start(&f, &recipients);
    let again = loop {
        let newest = until_copied(&f, 1).await;
        if newest != set && !set.exists() && !sets::segments_of(&set).exists() {
            break newest;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    copied.end().await;
    fs::remove_dir_all(f.path("new")).unwrap();
    restore_until(&f, &again, &identities, None).unwrap();
    assert!(f.has("new", "at the end").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_missing_changed_or_of_another_place_is_refused() {
    let f = Fixture::new().await;
    let (identities, recipients) = identity();
    let copied = Copied::start(&f, &recipients);
    let set = until_copied(&f, 1).await;
    for n in 2..=4 {
        copied.set(&n.to_string()).await;
        until_copied(&f, n).await;
    }
    copied.end().await;
    let folder = sets::segments_of(&set);
    let file = |n: u64| folder.join(format!("{n:010}.age"));
    let whole = fs::read(file(3)).unwrap();
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let damages = [
        None,
        Some(flipped),
        Some(whole[..whole.len() / 2].to_vec()),
        Some(fs::read(file(2)).unwrap()),
        Some(Vec::new()),
    ];
    for damage in damages {
        match &damage {
            None => fs::remove_file(file(3)).unwrap(),
            Some(bytes) => fs::write(file(3), bytes).unwrap(),
        }
        let refused = restore_until(&f, &set, &identities, None);
        assert!(
            matches!(refused, Err(BackupError::Damaged { .. })),
            "{refused:?}"
        );
        assert_eq!(f.names("new"), [""; 0]);
        // Those before it can be used.
        let restored = restore_until(&f, &set, &identities, Some(2)).unwrap();
        assert_eq!(restored.segments, 2);
        assert!(f.has("new", "2").await && !f.has("new", "3").await);
        fs::remove_dir_all(f.path("new")).unwrap();
    }
    fs::write(file(3), &whole).unwrap();
    // A chain belongs to its base.
    let moved = f.path("copy").join("atcomm-20200101T000000.000Z");
    fs::rename(&set, &moved).unwrap();
    fs::rename(&folder, sets::segments_of(&moved)).unwrap();
    let refused = restore_until(&f, &moved, &identities, None);
    assert!(
        matches!(refused, Err(BackupError::Damaged { .. })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_fails_for_a_while_loses_nothing() {
    let f = Fixture::new().await;
    let (identities, recipients) = identity();
    let copied = Copied::start(&f, &recipients);
    let set = until_copied(&f, 1).await;
    // A file where the folder of the segments is.
    let folder = sets::segments_of(&set);
    let aside = f.path("aside");
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "in the way").unwrap();
    copied.set("meanwhile").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    copied.set("later").await;
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    until_copied(&f, 2).await;
    copied.end().await;
    restore_until(&f, &set, &identities, None).unwrap();
    assert!(f.has("new", "meanwhile").await && f.has("new", "later").await);
}

fn segment() -> impl Strategy<Value = Segment> {
    let pages =
        prop::collection::btree_map(1..99_u32, prop::collection::vec(any::<u8>(), 512), 0..4);
    (
        any::<u64>(),
        pages,
        prop::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(sequence, pages, keys)| Segment {
            sequence,
            previous: link(b"before"),
            at: Timestamp::from_millis(1),
            changes: Changes {
                page_size: 512,
                size: 99,
                pages,
            },
            keys: (!keys.is_empty()).then(|| Zeroizing::new(keys)),
        })
}

proptest! {
    #[test]
    fn a_segment_comes_back_and_its_beginnings_do_not(segment in segment(), cut in any::<prop::sample::Index>()) {
        let plain = segment.to_vec();
        let read = Segment::parse(&plain).unwrap();
        prop_assert_eq!(read.to_vec(), plain.clone());
        prop_assert_eq!((read.sequence, read.changes), (segment.sequence, segment.changes));
        prop_assert!(Segment::parse(&plain[..cut.index(plain.len())]).is_err());
        prop_assert!(Segment::parse(&[&plain[..], b"x"].concat()).is_err());
    }

    #[test]
    fn random_bytes_are_no_segment(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let magic = [b"atcomm segment/1\n", &bytes[..]].concat();
        // The counts that random bytes name are not there.
        let is_segment = Segment::parse(&magic).is_ok_and(|one| !one.changes.pages.is_empty());
        prop_assert!(!is_segment);
    }
}
