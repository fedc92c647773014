use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::*;
use crate::wallet::enrolment::{KeyState, MessagingKey};
use crate::wallet::file::Saved;
use crate::wallet::messages::StoredMessage;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::Keyring as _;
use atcomm_proto::syntax::{Handle, MediatorDid, Origin, Rev};

mod interrupted;
mod messages;

fn did(name: &str) -> Did {
    Did::parse(&format!("did:plc:{name:a<24}")).unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn enrolment(name: &str) -> Enrolment {
    let home = MediatorDid::parse("did:web:mail.example.com").unwrap();
    let mut old = MessagingKey::mint(at(1));
    old.state = KeyState::Replaced { at: at(2) };
    let mut new = MessagingKey::mint(at(2));
    new.state = KeyState::Published { at: at(3) };
    new.registered = vec![home.clone()];
    Enrolment {
        account: did(name),
        handle: Handle::parse(&format!("{name}.example.com")).ok(),
        pds: Origin::parse("https://pds.example.com").unwrap(),
        directory: None,
        mediators: vec![home],
        label: Some("phone ☎".to_owned()),
        keys: vec![new, old],
    }
}

fn pin(name: &str) -> Pin {
    Pin {
        account: did(name),
        handle: None,
        known_as: Vec::new(),
        peer: "did:peer:2.Ez6LS".to_owned(),
        rev: Rev::parse("3jzfcijpj2z2a").unwrap(),
        signing_key: "did:key:zDn".to_owned(),
        mediators: BTreeMap::new(),
        previous: None,
        changed: None,
        first_seen: at(1),
        last_seen: at(2),
    }
}

fn kept(from: Option<&str>, id: &str, received_at: i64) -> StoredMessage {
    StoredMessage {
        id: id.to_owned(),
        from: from.map(str::to_owned),
        recipient: "did:peer:2.Ez6LSreader".to_owned(),
        recipient_replaced: false,
        received_at: at(received_at),
        message: json!({"id": id, "body": {"text": "grüß dich"}}).to_string(),
        cut: None,
        attribution: json!("anonymous"),
    }
}

fn wallet() -> (TempDir, Wallet) {
    let dir = TempDir::new().unwrap();
    let wallet = Wallet::open(&dir.path().join("deep/wallet")).unwrap();
    (dir, wallet)
}

/// Every file below a directory.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found
}

#[test]
fn a_pin_that_another_command_has_changed_is_not_written_over() {
    let (_dir, wallet) = wallet();
    let first = pin("bob");
    let mut later = first.clone();
    later.last_seen = at(3);
    assert!(wallet.replace_pin(None, &first).unwrap());
    assert!(wallet.replace_pin(Some(&first), &later).unwrap());
    // The pin before is gone, or there is one where none is expected.
    for before in [Some(&first), None] {
        let mut mine = first.clone();
        mine.last_seen = at(4);
        assert!(!wallet.replace_pin(before, &mine).unwrap());
        assert_eq!(wallet.pin(&first.account).unwrap().unwrap(), later);
    }
    assert!(wallet.delete_pin(&first.account).unwrap());
    assert!(!wallet.replace_pin(Some(&later), &first).unwrap());
    assert_eq!(wallet.pin(&first.account).unwrap(), None);
}

#[test]
fn what_is_put_in_comes_out_again() {
    let (dir, wallet) = wallet();
    assert!(wallet.accounts().unwrap().is_empty() && wallet.contacts().unwrap().is_empty());
    assert!(
        !wallet.home().exists(),
        "nothing is made before it is needed"
    );
    let store = wallet.account_store(&did("alice"));
    assert!(store.enrolment().unwrap().is_none() && store.session().unwrap().is_none());
    let alice = enrolment("alice");
    store.save(&alice).unwrap();
    let session = Session {
        pds: alice.pds.clone(),
        access: Zeroizing::new("eyJa".to_owned()),
        refresh: Zeroizing::new("eyJr".to_owned()),
    };
    store.save_session(&session).unwrap();
    wallet.save_pin(&pin("bob")).unwrap();
    store
        .save_sent("letter-1", &json!({"id": "letter-1"}))
        .unwrap();

    let wallet = Wallet::open(wallet.home()).unwrap();
    let store = wallet.find(None).unwrap();
    let again = store.enrolment().unwrap().unwrap();
    assert_eq!(format!("{again:?}"), format!("{alice:?}"));
    for key in &alice.keys {
        let kid = key.agreement.kid();
        let found = again.secret(kid).unwrap();
        assert_eq!(*found.to_bytes(), *key.agreement.to_bytes());
        let kid = key.signing.kid();
        assert_eq!(
            *again.secret(kid).unwrap().to_bytes(),
            *key.signing.to_bytes()
        );
    }
    assert_eq!(store.session().unwrap(), Some(session));
    assert!(store.delete_session().unwrap() && !store.delete_session().unwrap());
    assert_eq!(store.session().unwrap(), None);
    assert_eq!(wallet.pin(&did("bob")).unwrap(), Some(pin("bob")));
    assert_eq!(wallet.contacts().unwrap(), [pin("bob")]);
    assert!(wallet.delete_pin(&did("bob")).unwrap() && !wallet.delete_pin(&did("bob")).unwrap());
    assert_eq!(
        store.sent::<serde_json::Value>().unwrap(),
        [json!({"id": "letter-1"})]
    );
    assert!(store.delete_sent("letter-1").unwrap());
    assert!(store.sent::<serde_json::Value>().unwrap().is_empty());
    // All files are private.
    for path in files(dir.path()) {
        assert_eq!(
            path.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{path:?}"
        );
    }
    for folder in [
        "deep",
        "deep/wallet",
        "deep/wallet/accounts",
        "deep/wallet/tmp",
    ] {
        let mode = dir
            .path()
            .join(folder)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{folder}");
    }
    assert_eq!(
        std::fs::read_dir(wallet.home().join("tmp"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn an_account_is_found_by_what_its_owner_calls_it() {
    let (_dir, wallet) = wallet();
    assert!(matches!(
        wallet.find(None),
        Err(WalletError::NoAccount { .. })
    ));
    let [alice, bob] = ["alice", "bob"].map(did);
    wallet
        .account_store(&alice)
        .save(&enrolment("alice"))
        .unwrap();
    assert_eq!(wallet.find(None).unwrap().account(), &alice);
    wallet.account_store(&bob).save(&enrolment("bob")).unwrap();
    // A folder without an enrolment is no account.
    let session = Session {
        pds: Origin::parse("https://pds.example.com").unwrap(),
        access: Zeroizing::default(),
        refresh: Zeroizing::default(),
    };
    wallet
        .account_store(&did("carol"))
        .save_session(&session)
        .unwrap();
    assert_eq!(wallet.accounts().unwrap(), [alice.clone(), bob.clone()]);
    for actor in ["bob.example.com", "@Bob.Example.com", bob.as_str()] {
        assert_eq!(wallet.find(Some(actor)).unwrap().account(), &bob, "{actor}");
    }
    let several = wallet.find(None).unwrap_err();
    assert!(
        several.to_string().ends_with(&format!("{alice}, {bob}")),
        "{several}"
    );
    for actor in ["carol.example.com", "bob", did("carol").as_str()] {
        assert!(
            matches!(wallet.find(Some(actor)), Err(WalletError::Unknown { .. })),
            "{actor}"
        );
    }
    // Two accounts have the same handle: it has moved from one to the other.
    let mut heir = enrolment("carol");
    heir.handle = Handle::parse("bob.example.com").ok();
    wallet.account_store(&did("carol")).save(&heir).unwrap();
    let both = wallet.find(Some("bob.example.com"));
    assert!(matches!(both, Err(WalletError::Several { .. })));
}

#[test]
fn two_who_keep_the_same_message_keep_one() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let new: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    store
                        .save_message(&kept(Some("did:peer:2.Ez"), "1", 1))
                        .unwrap()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|t| usize::from(t.join().unwrap() == Saved::New))
            .sum()
    });
    assert_eq!(new, 1);
}

#[test]
fn what_others_may_read_is_refused() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    store.save(&enrolment("alice")).unwrap();
    let file = files(wallet.home())
        .into_iter()
        .find(|p| p.ends_with("enrolment.json"))
        .unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    let refused = store.enrolment().unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("{} may be read by others than its owner", file.display())
    );
    assert!(wallet.find(None).is_err());
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    store.enrolment().unwrap().unwrap();
    std::fs::set_permissions(wallet.home(), Permissions::from_mode(0o750)).unwrap();
    assert!(matches!(
        Wallet::open(wallet.home()),
        Err(WalletError::Exposed { .. })
    ));
}

#[test]
fn damage_is_told_without_what_it_damaged() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    store.save(&enrolment("alice")).unwrap();
    let file = files(wallet.home())
        .into_iter()
        .find(|p| p.ends_with("enrolment.json"))
        .unwrap();
    let sound = std::fs::read_to_string(&file).unwrap();
    let peer = enrolment("alice").keys[0].peer.as_str().to_owned();
    let other_key = sound.find("did:peer:2").map(|start| {
        let end = start + sound[start..].find('"').unwrap();
        sound.replace(&sound[start..end], &peer)
    });
    for bad in [
        String::new(),
        "{}".to_owned(),
        sound[..sound.len() / 2].to_owned(),
        sound.replace("\"version\": 1", "\"version\": \"1\""),
        sound.replace("\"x25519\": \"", "\"x25519\": \"AA"),
        sound.replace("\"is\": \"published\"", "\"is\": \"s3cret\""),
        sound.replace("\"did:web:mail.example.com\"", ""),
        other_key.unwrap(),
        format!("{sound}{}", " ".repeat(MAX_ENROLMENT)),
    ] {
        assert_ne!(bad, sound);
        std::fs::write(&file, &bad).unwrap();
        let error = store.enrolment().unwrap_err();
        assert!(
            matches!(error, WalletError::Damaged { .. }),
            "{error}: {bad}"
        );
        assert!(!error.to_string().contains("s3cret"), "{error}");
        assert!(wallet.accounts().is_err());
    }
    std::fs::write(&file, sound.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert!(matches!(
        store.enrolment(),
        Err(WalletError::Newer { version: 2, .. })
    ));
    // The file of another account stands in its place.
    wallet
        .account_store(&did("bob"))
        .save(&enrolment("bob"))
        .unwrap();
    let bobs = files(wallet.home())
        .into_iter()
        .find(|p| p.ends_with("enrolment.json") && *p != file);
    std::fs::copy(bobs.unwrap(), &file).unwrap();
    assert!(matches!(
        store.enrolment(),
        Err(WalletError::Damaged { .. })
    ));
}

#[test]
fn what_is_too_long_to_be_read_again_is_not_written() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let mut big = enrolment("alice");
    store.save(&big).unwrap();
    big.label = Some("x".repeat(MAX_ENROLMENT));
    assert!(matches!(store.save(&big), Err(WalletError::TooLong { .. })));
    assert_ne!(store.enrolment().unwrap().unwrap().label, big.label);
    let mut many = enrolment("alice");
    many.keys = vec![many.keys[0].clone(); MAX_KEYS + 1];
    assert!(store.save(&many).is_err());
    assert!(store.enrolment().unwrap().unwrap().keys.len() < MAX_KEYS);
}

#[test]
fn one_at_a_time_has_the_lock() {
    let (_dir, wallet) = wallet();
    let store = wallet.account_store(&did("alice"));
    let lock = store.lock().unwrap();
    // Not of another account, nor of the contacts; and its holder may write.
    drop(wallet.lock().unwrap());
    drop(wallet.account_store(&did("bob")).lock().unwrap());
    store.save(&enrolment("alice")).unwrap();
    store.save_message(&kept(None, "1", 1)).unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let lock = store.lock().unwrap();
        send.send(()).unwrap();
        drop(lock);
    });
    assert!(receive.recv_timeout(Duration::from_millis(300)).is_err());
    drop(lock);
    receive.recv_timeout(Duration::from_secs(5)).unwrap();
    waiting.join().unwrap();
}

#[test]
fn what_killed_writers_left_is_no_data_and_is_swept_up() {
    let (_dir, wallet) = wallet();
    wallet
        .account_store(&did("alice"))
        .save(&enrolment("alice"))
        .unwrap();
    wallet.save_pin(&pin("bob")).unwrap();
    let tmp = wallet.home().join("tmp");
    let fresh = tmp.join("1-0");
    let old = tmp.join("2-0");
    for path in [&fresh, &old] {
        std::fs::write(path, "{\"version\": 1").unwrap();
    }
    let hour = Duration::from_secs(3601);
    let past = std::time::SystemTime::now().checked_sub(hour).unwrap();
    std::fs::File::options()
        .write(true)
        .open(&old)
        .unwrap()
        .set_modified(past)
        .unwrap();
    // The name of an earlier writer's file is passed over.
    std::fs::write(wallet.home().join("contacts/x.json.new"), "{").unwrap();
    let wallet = Wallet::open(wallet.home()).unwrap();
    assert!(fresh.exists() && !old.exists());
    assert_eq!(wallet.contacts().unwrap().len(), 1);
    assert_eq!(wallet.accounts().unwrap().len(), 1);
}
