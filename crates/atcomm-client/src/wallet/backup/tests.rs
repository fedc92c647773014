use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::wallet::enrolment::{KeyState, MessagingKey};
use atcomm_proto::syntax::{Did, MediatorDid, Origin, Rev};

const PASSPHRASE: &str = "correct horse battery staple";

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn did(name: &str) -> Did {
    Did::parse(&format!("did:plc:{name:a<24}")).unwrap()
}

fn key(state: KeyState) -> MessagingKey {
    MessagingKey {
        state,
        ..MessagingKey::mint(at(1))
    }
}

fn enrolment(name: &str) -> Enrolment {
    Enrolment {
        account: did(name),
        handle: None,
        pds: Origin::parse("https://pds.example.com").unwrap(),
        directory: None,
        mediators: vec![MediatorDid::parse("did:web:mail.example.com").unwrap()],
        label: Some("laptop".to_owned()),
        keys: vec![key(KeyState::Published { at: at(2) })],
    }
}

fn pin(name: &str, last_seen: i64) -> Pin {
    Pin {
        account: did(name),
        handle: None,
        known_as: Vec::new(),
        peer: format!("did:peer:2.{last_seen}"),
        rev: Rev::parse("3jzfcijpj2z2a").unwrap(),
        signing_key: "did:key:zDn".to_owned(),
        mediators: BTreeMap::new(),
        previous: None,
        changed: None,
        first_seen: at(1),
        last_seen: at(last_seen),
    }
}

fn wallet() -> (TempDir, Wallet) {
    let dir = TempDir::new().unwrap();
    let wallet = Wallet::open(&dir.path().join("wallet")).unwrap();
    (dir, wallet)
}

fn peers(wallet: &Wallet, name: &str) -> Vec<String> {
    let enrolment = wallet
        .account_store(&did(name))
        .enrolment()
        .unwrap()
        .unwrap();
    enrolment
        .keys
        .iter()
        .map(|key| key.peer.as_str().to_owned())
        .collect()
}

fn sealed(backup: &Backup) -> Vec<u8> {
    backup.seal_with(PASSPHRASE, 2, MAX_LEN).unwrap()
}

fn restore(
    backup: &Backup,
    wallet: &Wallet,
    force: bool,
    now: i64,
) -> Result<Restored, BackupError> {
    let mut waiting = |_: &Did| panic!("no other process is at work");
    backup.restore(wallet, force, at(now), &mut waiting)
}

#[test]
fn what_was_backed_up_is_restored_on_a_new_machine() {
    let (_dir, old) = wallet();
    assert!(matches!(Backup::of(&old, at(1)), Err(BackupError::Empty)));
    for name in ["alice", "bob"] {
        old.account_store(&did(name))
            .save(&enrolment(name))
            .unwrap();
    }
    old.save_pin(&pin("carol", 5)).unwrap();
    let file = sealed(&Backup::of(&old, at(9)).unwrap());
    assert!(file.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----\n"));
    let opened = Backup::open(&file, PASSPHRASE).unwrap();
    assert_eq!(opened.made_at, at(9));

    let (_dir, new) = wallet();
    let restored = restore(&opened, &new, false, 10).unwrap();
    let both = ["alice", "bob"].map(|name| did(name).to_string());
    assert_eq!(restored.added, both);
    assert_eq!(restored.contacts, 1);
    for name in ["alice", "bob"] {
        let [before, after] = [&old, &new].map(|wallet| {
            wallet
                .account_store(&did(name))
                .enrolment()
                .unwrap()
                .unwrap()
        });
        assert_eq!(format!("{before:?}"), format!("{after:?}"));
        assert_eq!(
            *before.keys[0].agreement.to_bytes(),
            *after.keys[0].agreement.to_bytes()
        );
    }
    assert_eq!(new.contacts().unwrap(), [pin("carol", 5)]);
    let again = restore(&opened, &new, false, 11).unwrap();
    assert_eq!(again.unchanged, both);
    assert_eq!(
        (again.added.len(), again.merged.len(), again.contacts),
        (0, 0, 0)
    );
}

#[test]
fn an_old_backup_never_puts_a_wallet_back() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let old = enrolment("alice");
    store.save(&old).unwrap();
    wallet.save_pin(&pin("carol", 5)).unwrap();
    let backup = Backup::of(&wallet, at(3)).unwrap();
    // After the backup the key is replaced, and the contact verified again.
    let mut rotated = old.clone();
    rotated.keys[0].state = KeyState::Replaced { at: at(4) };
    rotated
        .keys
        .insert(0, key(KeyState::Published { at: at(4) }));
    rotated.label = Some("phone".to_owned());
    store.save(&rotated).unwrap();
    wallet.save_pin(&pin("carol", 7)).unwrap();
    for force in [false, true] {
        let restored = restore(&backup, &wallet, force, 8).unwrap();
        assert_eq!(restored.unchanged, [did("alice").to_string()]);
        assert_eq!(restored.contacts, 0);
        let now = store.enrolment().unwrap().unwrap();
        assert_eq!(format!("{now:?}"), format!("{rotated:?}"));
        assert_eq!(wallet.contacts().unwrap(), [pin("carol", 7)]);
    }
    // An old key that the wallet has deleted comes back for decrypting only.
    let mut pruned = rotated.clone();
    pruned.keys.truncate(1);
    let mut backup = backup;
    backup.accounts[0].keys[0].state = KeyState::Replaced { at: at(2) };
    store.save(&pruned).unwrap();
    let restored = restore(&backup, &wallet, false, 9).unwrap();
    assert_eq!(restored.merged, [did("alice").to_string()]);
    let now = store.enrolment().unwrap().unwrap();
    assert_eq!(now.current().unwrap().peer, rotated.keys[0].peer);
    assert_eq!(peers(&wallet, "alice").len(), 2);
    assert_eq!(now.label.as_deref(), Some("phone"));
}

#[test]
fn another_key_is_replaced_only_when_that_is_said() {
    let (_dir, wallet) = wallet();
    let [alice, bob] = ["alice", "bob"].map(|name| wallet.account_store(&did(name)));
    let here = enrolment("alice");
    alice.save(&here).unwrap();
    let mut there = enrolment("alice");
    there.label = Some("from the backup".to_owned());
    let backup = Backup {
        made_at: at(1),
        accounts: vec![enrolment("bob"), there.clone()],
        contacts: vec![pin("carol", 1)],
    };
    let refused = restore(&backup, &wallet, false, 5).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("the wallet has another key for {}", did("alice"))
    );
    // The wallet is unchanged, also where there is no conflict.
    assert!(bob.enrolment().unwrap().is_none() && wallet.contacts().unwrap().is_empty());
    assert_eq!(peers(&wallet, "alice").len(), 1);
    let restored = restore(&backup, &wallet, true, 5).unwrap();
    assert_eq!(restored.merged, [did("alice").to_string()]);
    let now = alice.enrolment().unwrap().unwrap();
    assert_eq!(now.current().unwrap().peer, there.keys[0].peer);
    assert_eq!(now.label, there.label);
    assert_eq!(now.keys[1].peer, here.keys[0].peer);
    assert_eq!(now.keys[1].state, KeyState::Replaced { at: at(5) });
}

#[test]
fn what_is_no_backup_is_told_apart() {
    let backup = Backup {
        made_at: at(1),
        accounts: vec![enrolment("alice")],
        contacts: Vec::new(),
    };
    assert!(matches!(
        backup.seal("too short"),
        Err(BackupError::WeakPassphrase)
    ));
    let file = sealed(&backup);
    let open = |file: &[u8]| Backup::open(file, PASSPHRASE).unwrap_err();
    let wrong = Backup::open(&file, "correct horse battery stapler").unwrap_err();
    assert!(matches!(wrong, BackupError::WrongPassphrase), "{wrong}");
    for foreign in [&b""[..], b"hello", b"{\"version\": 1}", &[0xff; 300]] {
        assert!(
            matches!(open(foreign), BackupError::Foreign(_)),
            "{foreign:?}"
        );
    }
    // A file that is cut or changed anywhere is an error.
    for cut in (40..file.len() - 1).step_by(7) {
        let error = open(&file[..cut]);
        assert!(matches!(error, BackupError::Damaged(_)), "{cut}: {error}");
    }
    for at in (0..file.len() - 1).step_by(11) {
        let mut changed = file.clone();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        if changed != file {
            drop(open(&changed));
        }
    }
    // The document is of another kind.
    let inside = |text: &[u8]| {
        let mut recipient = scrypt::Recipient::new(SecretString::from(PASSPHRASE.to_owned()));
        recipient.set_work_factor(2);
        let recipient: &dyn age::Recipient = &recipient;
        let mut sealed = Vec::new();
        let encryptor = Encryptor::with_recipients(std::iter::once(recipient)).unwrap();
        let mut out = encryptor.wrap_output(&mut sealed).unwrap();
        out.write_all(text).unwrap();
        out.finish().unwrap();
        sealed
    };
    assert!(matches!(
        open(&inside(b"my diary")),
        BackupError::Foreign(_)
    ));
    assert!(matches!(
        open(&inside(b"{\"atcomm\": \"atcomm backup/2\"}")),
        BackupError::Foreign(_)
    ));
    assert!(matches!(
        open(&inside(b"{\"atcomm\": \"atcomm backup/1\"}")),
        BackupError::Damaged(_)
    ));
    // The file is encrypted to a key instead of a passphrase.
    let key = age::x25519::Identity::generate().to_public();
    let mut sealed = Vec::new();
    let recipient: &dyn age::Recipient = &key;
    let encryptor = Encryptor::with_recipients(std::iter::once(recipient)).unwrap();
    encryptor
        .wrap_output(&mut sealed)
        .unwrap()
        .finish()
        .unwrap();
    assert!(matches!(open(&sealed), BackupError::Foreign(_)));
    // The file asks for more work than there is memory for.
    let greedy = String::from_utf8(
        inside(b"{}")
            .iter()
            .map(|b| if b.is_ascii() { *b } else { b'?' })
            .collect(),
    )
    .unwrap();
    assert!(greedy.contains(" 2\n"));
    let mut greedy = inside(b"{}");
    let at = greedy.windows(3).position(|w| w == b" 2\n").unwrap();
    greedy.splice(at..at + 3, *b" 30\n");
    assert!(
        matches!(open(&greedy), BackupError::TooMuchWork(30)),
        "{}",
        open(&greedy)
    );
}

#[test]
fn a_backup_is_written_for_its_owner_and_over_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("atcomm.age");
    write(&path, b"one", false).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(matches!(
        write(&path, b"two", false),
        Err(BackupError::Exists(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"one");
    write(&path, b"two", true).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"two");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    let nowhere = dir.path().join("nowhere/atcomm.age");
    assert!(matches!(
        write(&nowhere, b"two", true),
        Err(BackupError::Unwritable { .. })
    ));
}

#[test]
fn a_key_of_before_that_was_never_published_comes_back_for_reading_only() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let mut here = enrolment("alice");
    // The backup was made during a rotation.
    let mut old = here.clone();
    old.keys.insert(0, key(KeyState::Minted));
    let backup = Backup {
        made_at: at(1),
        accounts: vec![old.clone()],
        contacts: Vec::new(),
    };
    here.keys[0].state = KeyState::Replaced { at: at(4) };
    here.keys.insert(0, key(KeyState::Published { at: at(4) }));
    store.save(&here).unwrap();
    restore(&backup, &wallet, false, 5).unwrap();
    let now = store.enrolment().unwrap().unwrap();
    assert_eq!(now.keys.len(), 3);
    assert_eq!(now.current().unwrap().peer, here.keys[0].peer);
    assert!(now.minted().is_none(), "{now:?}");
    assert_eq!(now.keys[2].peer, old.keys[0].peer);
    assert_eq!(now.keys[2].state, KeyState::Replaced { at: at(5) });
}

#[test]
fn what_another_process_writes_meanwhile_is_not_written_over() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let backup = Backup {
        made_at: at(1),
        accounts: vec![enrolment("bob"), enrolment("alice")],
        contacts: Vec::new(),
    };
    let other = enrolment("alice");
    let lock = store.change_lock().unwrap().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let refused = std::thread::scope(|scope| {
        let restoring = scope.spawn(|| {
            let mut waiting = |account: &Did| send.send(account.clone()).unwrap();
            backup.restore(&wallet, false, at(5), &mut waiting)
        });
        let waits = receive.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(waits, did("alice"));
        store.save(&other).unwrap();
        drop(lock);
        restoring.join().unwrap()
    });
    assert!(
        matches!(refused, Err(BackupError::Conflict(_))),
        "{refused:?}"
    );
    assert_eq!(peers(&wallet, "alice"), [other.keys[0].peer.as_str()]);
    assert!(
        wallet
            .account_store(&did("bob"))
            .enrolment()
            .unwrap()
            .is_none()
    );
}

#[test]
fn no_key_of_the_wallet_makes_room_for_one_of_the_backup() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let mut full = enrolment("alice");
    full.keys = (0..MAX_KEYS)
        .map(|_| key(KeyState::Replaced { at: at(3) }))
        .collect();
    store.save(&full).unwrap();
    let backup = Backup {
        made_at: at(1),
        accounts: vec![enrolment("alice")],
        contacts: Vec::new(),
    };
    let refused = restore(&backup, &wallet, true, 5);
    assert!(matches!(refused, Err(BackupError::TooManyKeys(_))));
    let twice = Backup {
        accounts: vec![enrolment("bob"), enrolment("bob")],
        ..backup
    };
    let refused = restore(&twice, &wallet, true, 5);
    assert!(matches!(refused, Err(BackupError::Damaged(_))));
}

#[test]
fn what_could_not_be_restored_is_not_written() {
    let (_dir, wallet) = wallet();
    wallet
        .account_store(&did("alice"))
        .save(&enrolment("alice"))
        .unwrap();
    wallet.save_pin(&pin("carol", 5)).unwrap();
    // A list as long as the limit of reading may have been cut.
    for (accounts, contacts) in [(1, 2), (2, 1)] {
        let refused = Backup::below(&wallet, at(1), accounts, contacts);
        assert!(matches!(refused, Err(BackupError::TooLarge(_))));
    }
    let backup = Backup::below(&wallet, at(1), 2, 2).unwrap();
    let len = sealed(&backup).len();
    backup.seal_with(PASSPHRASE, 2, len + 10).unwrap();
    // The file is longer than the document.
    for max in [len - 10, 100] {
        let refused = backup.seal_with(PASSPHRASE, 2, max);
        assert!(matches!(refused, Err(BackupError::TooLarge(_))), "{max}");
    }
}

#[test]
fn of_two_writers_of_one_file_one_succeeds_and_a_killed_run_blocks_none() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("backup.age");
    let left = dir
        .path()
        .join(format!("backup.age.{}-0.new", std::process::id()));
    std::fs::write(&left, b"half").unwrap();
    write(&path, b"one", false).unwrap();
    // The file appears after the check for an existing one.
    let error = durable::create_new(&path, b"two", Mode::Private).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"one");
    for round in 0..20 {
        let path = dir.path().join(format!("{round}.age"));
        let done: usize = std::thread::scope(|scope| {
            let writers = [b"one", b"two"].map(|text| scope.spawn(|| write(&path, text, false)));
            let done = writers.map(|writer| match writer.join().unwrap() {
                Ok(()) => 1,
                Err(BackupError::Exists(_)) => 0,
                Err(error) => panic!("{error}"),
            });
            done.iter().sum()
        });
        assert_eq!(done, 1);
    }
    std::fs::remove_file(&left).unwrap();
    let names = std::fs::read_dir(dir.path()).unwrap();
    assert!(
        names
            .flatten()
            .all(|one| one.path().extension().unwrap() == "age")
    );
}
