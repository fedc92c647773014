//! Sets of real stores: made, damaged, restored.

mod copying;

use std::fs;
use std::path::PathBuf;

use age::secrecy::ExposeSecret as _;
use age::x25519;
use proptest::prelude::*;
use tempfile::TempDir;

use super::manifest::{MANIFEST, Manifest};
use super::*;
use crate::mediator::{KEYS_FILE, Keys, PublicAddress};
use crate::store::{DirectoryStore, MailboxStore, StoreFile};
use atcomm_net::durable;
use atcomm_proto::clock::{Clock, Timestamp};

/// A data directory with a store and keys, and a folder for sets.
struct Fixture {
    dir: TempDir,
    clock: Clock,
}

impl Fixture {
    async fn new() -> Self {
        let fixture = Self {
            dir: TempDir::new().unwrap(),
            clock: Clock::manual(Timestamp::from_millis(1_800_000_000_000)),
        };
        let data = fixture.path("data");
        fs::create_dir(&data).unwrap();
        let address = PublicAddress::parse("https://mail.example.com", false).unwrap();
        Keys::open(&data.join(KEYS_FILE), false, &address, fixture.clock.now()).unwrap();
        drop(DirectoryStore::open(&data.join("directory.db")).unwrap());
        fixture.write("data", "before").await;
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes to the mailbox of a data directory, and closes it.
    async fn write(&self, data: &str, key: &'static str) {
        let store = MailboxStore::open(&self.path(data).join("mailbox.db")).unwrap();
        store
            .transact(move |tx| tx.set_meta(key, "there"))
            .await
            .unwrap();
        store.shutdown().await;
    }

    async fn has(&self, data: &str, key: &'static str) -> bool {
        let store = MailboxStore::open(&self.path(data).join("mailbox.db")).unwrap();
        let found = store.query(move |q| q.meta(key)).await.unwrap();
        store.shutdown().await;
        found.is_some()
    }

    fn make(&self, recipients: &Recipients, keep: Option<u32>) -> Result<Made, BackupError> {
        self.clock.advance(std::time::Duration::from_secs(1));
        let plan = Plan {
            data_dir: &self.path("data"),
            dir: &self.path("sets"),
            recipients,
            keep,
            clock: &self.clock,
        };
        make(&plan, &mut || true)
    }

    fn restore(
        &self,
        made: &Made,
        data: &str,
        identities: &Identities,
        replace: bool,
    ) -> Result<Restored, BackupError> {
        restore(&RestorePlan {
            set: &made.path,
            data_dir: &self.path(data),
            identities,
            replace,
            until: None,
            now: self.clock.now(),
        })
    }

    /// Returns the names in a folder, without locks.
    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.ends_with("lock"))
            .collect();
        names.sort();
        names
    }
}

fn identity() -> (Identities, Recipients) {
    let identity = x25519::Identity::generate();
    let text = identity.to_string();
    (
        Identities::read(text.expose_secret().as_bytes()).unwrap(),
        Recipients::parse(&[identity.to_public().to_string()]).unwrap(),
    )
}

#[tokio::test]
async fn a_set_comes_back_plain_and_encrypted() {
    let f = Fixture::new().await;
    let (identities, recipients) = identity();
    let plain = (Identities::default(), Recipients::default());
    for (n, (identities, recipients)) in [plain, (identities, recipients)].iter().enumerate() {
        let made = f.make(recipients, None).unwrap();
        assert_eq!(made.encrypted, n == 1);
        assert_eq!(made.files, ["mailbox.db", "directory.db", KEYS_FILE]);
        let keys = fs::read(f.path("data").join(KEYS_FILE)).unwrap();
        for name in fs::read_dir(&made.path).unwrap() {
            let meta = name.as_ref().unwrap().metadata().unwrap();
            assert!(durable::is_private(&meta), "{name:?}");
            let content = fs::read(name.unwrap().path()).unwrap();
            let shows = content.windows(16).any(|at| at == b"SQLite format 3\0");
            assert!(!shows || n == 0, "an encrypted file shows its content");
        }
        let target = format!("restored-{n}");
        let restored = f.restore(&made, &target, identities, false).unwrap();
        assert_eq!((restored.files, restored.replaced), (made.files, None));
        assert_eq!(fs::read(f.path(&target).join(KEYS_FILE)).unwrap(), keys);
        assert!(f.has(&target, "before").await);
        drop(DirectoryStore::open(&f.path(&target).join("directory.db")).unwrap());
        assert!(!f.path(&target).join(RESTORE_MARK).exists());
    }
    // Nothing plain stays in the data directory.
    let mut expected = vec!["directory.db", "mailbox.db", KEYS_FILE];
    expected.sort_unstable();
    assert_eq!(f.names("data"), expected);
}

#[tokio::test]
async fn a_wrong_identity_or_none_changes_nothing() {
    let f = Fixture::new().await;
    let (_, recipients) = identity();
    let made = f.make(&recipients, None).unwrap();
    let none = f.restore(&made, "new", &Identities::default(), false);
    assert!(matches!(none, Err(BackupError::Encrypted)), "{none:?}");
    assert!(!f.path("new").exists());
    let (other, _) = identity();
    let wrong = f.restore(&made, "new", &other, false);
    assert!(
        matches!(wrong, Err(BackupError::WrongIdentity)),
        "{wrong:?}"
    );
    assert_eq!(f.names("new"), [""; 0]);
    for bad in ["", "# only a comment", "AGE-SECRET-KEY-1NONSENSE"] {
        assert!(Identities::read(bad.as_bytes()).is_err(), "{bad}");
    }
    for bad in ["", "age1", "bob", "ssh-ed25519 AAAA"] {
        assert!(Recipients::parse(&[bad.to_owned()]).is_err(), "{bad}");
    }
}

/// Flips one bit, cuts or lengthens each file of a set, at places all over it.
#[tokio::test]
async fn damage_anywhere_is_found_before_anything_is_changed() {
    let f = Fixture::new().await;
    let (identities, recipients) = identity();
    let plain = (Identities::default(), Recipients::default());
    for (identities, recipients) in [plain, (identities, recipients)] {
        let made = f.make(&recipients, None).unwrap();
        for entry in fs::read_dir(&made.path).unwrap() {
            let path = entry.unwrap().path();
            let whole = fs::read(&path).unwrap();
            let end = whole.len() - 1;
            let places = [0, 1, end / 3, end / 2, end - 1, end];
            let mut damages: Vec<Vec<u8>> = places
                .iter()
                .map(|at| {
                    let mut flipped = whole.clone();
                    flipped[*at] ^= 1;
                    flipped
                })
                .collect();
            damages.extend(places.map(|at| whole[..at].to_vec()));
            damages.push([&whole[..], b"x"].concat());
            for damage in damages {
                fs::write(&path, &damage).unwrap();
                let refused = f.restore(&made, "new", &identities, false);
                let is_told = matches!(
                    refused,
                    Err(BackupError::Damaged { .. } | BackupError::NotASet { .. })
                );
                assert!(is_told, "{} {} {refused:?}", path.display(), damage.len());
                assert!(!f.path("new").exists());
            }
            fs::remove_file(&path).unwrap();
            assert!(f.restore(&made, "new", &identities, false).is_err());
            fs::write(&path, &whole).unwrap();
        }
        f.restore(&made, "new", &identities, false).unwrap();
        fs::remove_dir_all(f.path("new")).unwrap();
    }
}

#[tokio::test]
async fn a_store_that_was_changed_with_its_hash_is_found() {
    let f = Fixture::new().await;
    let made = f.make(&Recipients::default(), None).unwrap();
    let mailbox = made.path.join("mailbox.db");
    let mut text = fs::read(&mailbox).unwrap();
    // A page in the middle is zeroed.
    let page = text.len() / 4096 / 2 * 4096;
    text[page..page + 4096].fill(0);
    fs::write(&mailbox, &text).unwrap();
    let manifest = Manifest::read(&made.path).unwrap();
    let mut files = manifest.files.clone();
    files[0].sha256 = seal::digest(&mut &text[..], u64::MAX - 1, &mut || true)
        .unwrap()
        .1;
    let forged = Manifest::of(files, false, f.clock.now(), f.clock.now()).unwrap();
    fs::write(made.path.join(MANIFEST), forged.to_vec().unwrap()).unwrap();
    let refused = f.restore(&made, "new", &Identities::default(), false);
    assert!(
        matches!(refused, Err(BackupError::Damaged { .. })),
        "{refused:?}"
    );
    assert_eq!(f.names("new"), [""; 0]);
}

#[tokio::test]
async fn a_newer_set_is_refused_and_says_what_to_install() {
    let f = Fixture::new().await;
    let made = f.make(&Recipients::default(), None).unwrap();
    let mut files = Manifest::read(&made.path).unwrap().files;
    files[0].schema = Some(StoreFile::Mailbox.newest_version() + 1);
    let newer = Manifest::of(files, false, f.clock.now(), f.clock.now()).unwrap();
    fs::write(made.path.join(MANIFEST), newer.to_vec().unwrap()).unwrap();
    let refused = f.restore(&made, "new", &Identities::default(), false);
    assert!(
        matches!(refused, Err(BackupError::Newer { .. })),
        "{refused:?}"
    );
    assert!(!f.path("new").exists());
}

#[tokio::test]
async fn files_that_are_there_are_left_alone_or_moved_aside_with_their_logs() {
    let f = Fixture::new().await;
    let made = f.make(&Recipients::default(), None).unwrap();
    f.write("data", "after").await;
    let none = Identities::default();
    let refused = f.restore(&made, "data", &none, false);
    assert!(
        matches!(refused, Err(BackupError::Occupied(_))),
        "{refused:?}"
    );
    assert!(f.has("data", "after").await);
    // A log alone would be replayed into the restored file.
    for end in ["-wal", "-shm", "-journal"] {
        let log = f.path("data").join(format!("mailbox.db{end}"));
        let other = f.path("new");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(format!("mailbox.db{end}")), "old").unwrap();
        let refused = f.restore(&made, "new", &none, false);
        assert!(
            matches!(refused, Err(BackupError::Occupied(_))),
            "{refused:?}"
        );
        fs::remove_dir_all(&other).unwrap();
        fs::write(&log, format!("old {end}")).unwrap();
    }
    let restored = f.restore(&made, "data", &none, true).unwrap();
    let aside = restored.replaced.unwrap();
    for end in ["-wal", "-shm", "-journal"] {
        let moved = fs::read_to_string(aside.join(format!("mailbox.db{end}"))).unwrap();
        assert_eq!(moved, format!("old {end}"));
        assert!(!f.path("data").join(format!("mailbox.db{end}")).exists());
    }
    assert!(f.has("data", "before").await && !f.has("data", "after").await);
}

#[tokio::test]
async fn a_running_service_keeps_its_files_and_a_half_restore_is_finished() {
    let f = Fixture::new().await;
    let made = f.make(&Recipients::default(), None).unwrap();
    fs::create_dir(f.path("new")).unwrap();
    let lock = durable::try_lock(&f.path("new").join(LOCK_FILE)).unwrap();
    let none = Identities::default();
    let refused = f.restore(&made, "new", &none, true);
    assert!(
        matches!(refused, Err(BackupError::Locked(_))),
        "{refused:?}"
    );
    drop(lock);
    // As a run leaves it that was killed between two files.
    fs::write(f.path("new").join(RESTORE_MARK), "").unwrap();
    fs::create_dir(f.path("new").join(".restore")).unwrap();
    fs::write(f.path("new").join("mailbox.db"), "half").unwrap();
    f.restore(&made, "new", &none, false).unwrap();
    assert!(f.has("new", "before").await);
    assert!(!f.path("new").join(RESTORE_MARK).exists());
    assert!(!f.path("new").join(".restore").exists());
}

#[tokio::test]
async fn old_sets_go_once_a_new_one_is_whole_and_remains_of_kills_go_too() {
    let f = Fixture::new().await;
    let plain = Recipients::default();
    let first = f.make(&plain, Some(2)).unwrap();
    let second = f.make(&plain, Some(2)).unwrap();
    let left = |f: &Fixture| f.names("sets").len();
    // What killed runs leave: a half set, and one that was being deleted.
    for end in [".new", ".old"] {
        let name = first.path.file_name().unwrap().to_str().unwrap();
        let remains = f.path("sets").join(format!(".{name}{end}"));
        fs::create_dir(&remains).unwrap();
        fs::write(remains.join("mailbox.db"), "half").unwrap();
    }
    fs::create_dir(f.path("sets").join("photos")).unwrap();
    assert_eq!(newest(&f.path("sets")).unwrap().unwrap().path, second.path);
    // One that fails deletes nothing.
    let plan = Plan {
        data_dir: &f.path("data"),
        dir: &f.path("sets"),
        recipients: &plain,
        keep: Some(1),
        clock: &f.clock,
    };
    let stopped = make(&plan, &mut || false);
    assert!(matches!(stopped, Err(BackupError::Stopped)), "{stopped:?}");
    assert_eq!(left(&f), 3);
    let third = f.make(&plain, Some(2)).unwrap();
    assert_eq!((third.deleted, left(&f)), (1, 3));
    assert!(!first.path.exists() && second.path.exists() && third.path.exists());
    assert!(f.path("sets").join("photos").exists());
}

#[tokio::test]
async fn a_mailbox_without_keys_and_an_empty_directory_are_no_backup() {
    let f = Fixture::new().await;
    fs::remove_file(f.path("data").join(KEYS_FILE)).unwrap();
    let refused = f.make(&Recipients::default(), None);
    assert!(
        matches!(refused, Err(BackupError::NoKeys(_))),
        "{refused:?}"
    );
    assert_eq!(f.names("sets"), [""; 0]);
    fs::remove_dir_all(f.path("data")).unwrap();
    fs::create_dir(f.path("data")).unwrap();
    let refused = f.make(&Recipients::default(), None);
    assert!(
        matches!(refused, Err(BackupError::NoStore(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_schedule_makes_a_set_when_the_newest_is_old() {
    let f = Fixture::new().await;
    let settings = BackupSettings {
        dir: Some(f.path("sets")),
        every: std::time::Duration::from_secs(3600),
        keep: 2,
        ..BackupSettings::default()
    };
    let stop = tokio_util::sync::CancellationToken::new();
    let schedule = |stop: &tokio_util::sync::CancellationToken| {
        let schedule = settings.schedule(&f.path("data"), f.clock.clone());
        tokio::spawn(schedule.unwrap().unwrap().run(stop.clone()))
    };
    let running = schedule(&stop);
    let sets = || sets::list(&f.path("sets")).unwrap_or_default().len();
    while sets() < 1 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    stop.cancel();
    running.await.unwrap();
    // A restart makes none that is not due.
    let again = tokio_util::sync::CancellationToken::new();
    let schedule_again = settings.schedule(&f.path("data"), f.clock.clone());
    let due = schedule_again.unwrap().unwrap();
    assert!(due.due_in().await.unwrap().is_some());
    f.clock.advance(std::time::Duration::from_secs(3599));
    assert!(due.due_in().await.unwrap().is_some());
    f.clock.advance(std::time::Duration::from_secs(1));
    assert!(due.due_in().await.unwrap().is_none());
    let running = schedule(&again);
    while sets() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    again.cancel();
    running.await.unwrap();
}

proptest! {
    #[test]
    fn a_manifest_of_random_bytes_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::parse(&bytes).is_err());
    }
}
