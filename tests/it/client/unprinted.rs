//! Output that could not be written: what was not printed is shown again, and nothing is
//! acknowledged or remembered for it.

use std::fs::File;
use std::process::{Command, Stdio};

use atcomm_client::MessagingKey;
use atcomm_proto::clock::Timestamp;
use serde_json::json;

use super::enrolled::enrolled_person;
use super::receive::{dm_of, forge, peer_of, post_envelope};
use super::{MediatorService, Output, Person, Running};
use crate::network::{Network, text};

/// What stands in the place of standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// A disk without room.
    FullDisk,
    /// A pipe whose reader has gone.
    ClosedPipe,
}

impl Broken {
    #[track_caller]
    fn run(self, mut command: Command) -> Output {
        let stdout = match self {
            Self::FullDisk => Stdio::from(File::create("/dev/full").expect("a device")),
            Self::ClosedPipe => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                drop(reader);
                Stdio::from(writer)
            }
        };
        command.stdout(stdout);
        let output = Running::start(command).end();
        match self {
            Self::FullDisk => output.failed(1, "cannot write the answer", "standard output"),
            // The reader has seen enough.
            Self::ClosedPipe => assert_eq!(output.code, Some(0), "{output:?}"),
        }
        output
    }
}

#[test]
fn inv3_mail_that_could_not_be_printed_is_shown_again() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = enrolled_person(network, "pa", 0, &[&mediator]);
    let bob = enrolled_person(network, "pb", 1, &[&mediator]);
    let unknown = MessagingKey::mint(Timestamp::from_millis(0));
    let ways: [&[&str]; 4] = [&[], &["--json"], &["--follow"], &["--follow", "--json"]];
    for broken in [Broken::FullDisk, Broken::ClosedPipe] {
        for way in ways {
            alice.send(&bob, "one");
            // An envelope for another recipient, which cannot be opened.
            let wrong = forge(&unknown, &alice, &dm_of("lost", None, None));
            post_envelope(network, &mediator, peer_of(&bob).as_str(), &wrong);
            alice.send(&bob, "two");
            let args = [&["receive"], way].concat();
            // However often it fails, and also where the first is in the wallet already.
            for _ in 0..2 {
                broken.run(bob.cli.command(&args));
            }
            let received = bob.receive(&[]);
            let kinds: Vec<&str> = received.iter().map(|one| text(one, "/type")).collect();
            assert_eq!(
                kinds,
                ["message", "unreadable", "message"],
                "{broken:?} {way:?}"
            );
            assert_eq!(received[0]["text"], "one");
            assert_eq!(received[2]["text"], "two");
            assert!(bob.receive(&[]).is_empty(), "all was acknowledged");
        }
    }
    // What was shown with all that is kept counts as shown.
    alice.send(&bob, "three");
    broken_once(&bob, &["receive"]);
    broken_once(&bob, &["receive", "--all"]);
    let all = bob.receive(&["--all"]);
    let is_third = |one: &&serde_json::Value| one["text"] == "three";
    assert_eq!(all.iter().filter(is_third).count(), 1);
    assert!(bob.receive(&[]).is_empty());
}

fn broken_once(person: &Person, args: &[&str]) {
    Broken::FullDisk.run(person.cli.command(args));
}

#[test]
fn a_first_contact_that_could_not_be_printed_is_one_again() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = enrolled_person(network, "ta", 0, &[&mediator]);
    let bob = enrolled_person(network, "tb", 1, &[&mediator]);
    for broken in [Broken::FullDisk, Broken::ClosedPipe] {
        for more in [&[][..], &["--json"]] {
            let args = [&["resolve", &bob.account.handle], more].concat();
            broken.run(alice.cli.command(&args));
        }
    }
    let first = alice.cli.json(&["resolve", &bob.account.handle]);
    assert_eq!(first["contact"], json!("first"));
    let second = alice.cli.json(&["resolve", &bob.account.handle]);
    assert_eq!(second["contact"], json!("same"));
}
