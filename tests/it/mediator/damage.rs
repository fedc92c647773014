//! Files that were damaged while nothing ran: refused by name, or what they still hold is served.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::json;

use super::{Mediator, get};
use crate::service::Stopped;

/// Files of the data directory that nothing starts without.
const FILES: [&str; 3] = ["directory.db", "mailbox.db", "mediator-keys.json"];

type Damage = fn(&Path);

/// Writes over the beginning, so that the file is none of its kind.
fn overwrite(path: &Path) {
    let mut file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all(b"{ nothing that anybody wrote }").unwrap();
}

/// Cuts the end off.
fn cut(path: &Path) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 3).unwrap();
}

/// Starts and expects a refusal that names the file and says what to do.
#[track_caller]
fn assert_refused(stopped: &Stopped, file: &str) {
    let (code, stderr) = stopped.refuses_to_start();
    assert_eq!(code, Some(1), "{stderr}");
    let refusal = stderr.lines().find(|line| line.starts_with("atcomm: "));
    assert!(refusal.is_some_and(|line| line.contains(file)), "{stderr}");
    let hint = stderr.lines().find(|line| line.starts_with("hint: "));
    assert!(hint.is_some_and(|line| line.len() > 40), "{stderr}");
}

#[test]
fn inv10_a_damaged_file_is_refused_by_name_and_its_copy_goes_on() {
    let mediator = Mediator::start(Mediator::setup());
    let client = mediator.member();
    for _ in 0..3 {
        client.forward(&client.did, &client.pack_for(&client.did));
    }
    let stopped = mediator.stop();
    for file in FILES {
        let path = stopped.data_dir().join(file);
        let whole = std::fs::read(&path).unwrap();
        let damages: [Damage; 2] = [overwrite, cut];
        for damage in damages {
            damage(&path);
            assert_refused(&stopped, file);
            // Nothing is made anew in its place.
            assert_ne!(std::fs::read(&path).unwrap(), whole);
            std::fs::write(&path, &whole).unwrap();
        }
    }
    let _mediator = Mediator::restart(stopped);
    assert_eq!(client.waiting(None), 3);
}

/// The pages of a message are damaged: its own queue cannot be read whole, and everything else goes
/// on.
#[test]
fn damaged_messages_stop_no_one_else() {
    let mediator = Mediator::start(Mediator::setup());
    let (client, other) = (mediator.member(), mediator.new_client());
    other.enter(&other.did);
    let words = "w".repeat(40_000);
    for _ in 0..20 {
        client.forward(&client.did, &client.pack_words_for(&client.did, &words));
    }
    let stopped = mediator.stop();
    let path = stopped.data_dir().join("mailbox.db");
    let whole = std::fs::read(&path).unwrap();
    spoil_bodies(&path);

    let mediator = Mediator::restart(stopped);
    let answer = client.tell("delivery", json!({"limit": 100}));
    assert_eq!(answer["status"], 503, "{answer}");
    let log = mediator.service().log();
    assert!(log.contains("the store is damaged"), "{log}");
    // The others: documents, new mail, and mail that is read.
    assert_eq!(get(&mediator, "/.well-known/did.json").status, 200);
    other.forward(&other.did, &other.pack_for(&other.did));
    assert_eq!(other.fetch(json!({"limit": 10})).len(), 1);
    assert_eq!(client.waiting(None), 20);

    let stopped = mediator.stop();
    std::fs::write(&path, whole).unwrap();
    let _mediator = Mediator::restart(stopped);
    assert_eq!(client.fetch(json!({"limit": 100})).len(), 20);
}

/// Writes over every page that holds nothing but a part of a long message, as far as it leads to
/// another page.
fn spoil_bodies(path: &Path) {
    const PAGE: u64 = 4096;
    let options = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
    };
    let mut file = options().unwrap();
    let pages = file.metadata().unwrap().len() / PAGE;
    let mut spoiled = 0;
    for page in 1..pages {
        let mut bytes = [0; PAGE as usize];
        file.seek(SeekFrom::Start(page * PAGE)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        // A page of a long value begins with the number of the next one; the rest is its text. An
        // envelope is text without spaces.
        let is_text = bytes[4..].iter().all(|byte| byte.is_ascii_graphic());
        if is_text {
            file.seek(SeekFrom::Start(page * PAGE)).unwrap();
            file.write_all(&[0xff; 4]).unwrap();
            spoiled += 1;
        }
    }
    assert!(spoiled > 20, "{spoiled} of {pages}");
}
