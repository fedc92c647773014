//! `atcomm receive`: every message is attributed, none is lost, and none comes twice.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::sync::Arc;
use std::time::Duration;

use atcomm_client::dm::Dm;
use atcomm_client::wrap::{seal, wrap};
use atcomm_client::{MessagingKey, document};
use atcomm_net::identity::{Freshness, MediatorDocument};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::did_peer::PeerDid;
use atcomm_proto::didcomm::envelope::{ContentEncryption, Curve, PublicKey, anoncrypt};
use atcomm_proto::didcomm::message::{Message, fresh_id};
use atcomm_proto::syntax::MediatorDid;
use serde_json::{Value, json};

use super::enrolled::{
    enroll_by_library, enrolled_person, for_a_while, library_context, lines, texts,
};
use super::{MediatorService, Person, Running, finish};
use crate::http::{RUNTIME, eventually, request};
use crate::network::{Network, text};

/// Posts an envelope for `to` to a mediator.
#[track_caller]
pub(crate) fn post_envelope(
    network: &'static Network,
    mediator: &MediatorService,
    to: &str,
    envelope: &[u8],
) {
    let context = library_context(network);
    let did = MediatorDid::parse(&mediator.did).expect("a DID");
    let document = RUNTIME.block_on(document(&context.identity, &did, Freshness::Cached));
    let document: Arc<MediatorDocument> = document.expect("a document");
    let key = MessagingKey::mint(Timestamp::from_millis(0));
    let now = context.clock.now().millis() / 1000;
    let wrapped = wrap(envelope, to, &document, &document, &key, now, &|_| None).expect("a route");
    let wrapped = wrapped.done().expect("no other mediator on the way");
    let answer = request("POST", wrapped.url.as_str(), &[], Some(wrapped.body));
    assert_eq!(answer.status, 202, "{}", answer.text());
}

/// Encrypts a message with any claim.
pub(crate) fn forge(key: &MessagingKey, to: &Person, dm: &Dm) -> Vec<u8> {
    forge_as(&fresh_id(), key, to, dm)
}

fn forge_as(id: &str, key: &MessagingKey, to: &Person, dm: &Dm) -> Vec<u8> {
    let peer = peer_of(to);
    let message = dm.message(id, key.peer.as_str(), peer.as_str(), 1_800_000_000);
    seal(message, key, &peer).expect("an envelope")
}

pub(crate) fn peer_of(person: &Person) -> PeerDid {
    let record = person.record().expect("a record");
    PeerDid::parse(text(&record, "/did")).expect("a did:peer")
}

pub(crate) fn dm_of(words: &str, sender: Option<&str>, recipient: Option<&str>) -> Dm {
    Dm {
        text: words.to_owned(),
        sender_did: sender.map(str::to_owned),
        recipient_did: recipient.map(str::to_owned),
        facets: Vec::new(),
        embed: None,
    }
}

#[test]
fn no_sender_is_taken_for_another() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let (alice, bob) = (
        enrolled_person(network, "ra", 0, &[&mediator]),
        enrolled_person(network, "rb", 1, &[&mediator]),
    );
    let peer = peer_of(&bob);
    let unknown_key = MessagingKey::mint(Timestamp::from_millis(0));
    let (me, her) = (bob.account.did.as_str(), alice.account.did.as_str());
    let unknown_did = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";
    let removed = enrolled_person(network, "rr", 0, &[&mediator]);
    let contact = removed.account.did.clone();
    removed.account.delete_record();
    let anonymous = Message::new(fresh_id(), &dm_of("psst", Some(her), Some(me)))
        .from(unknown_key.peer.as_str())
        .to(peer.as_str());
    let to = PublicKey::new(
        peer.key_agreement()[0].id.as_str(),
        Curve::X25519,
        peer.key_agreement()[0].as_bytes(),
    )
    .expect("a key");
    let anonymous = anoncrypt(
        &anonymous.to_vec(),
        std::slice::from_ref(&to),
        ContentEncryption::A256CbcHs512,
    );
    let cases: Vec<(Vec<u8>, &str, &str)> = vec![
        (
            forge(
                &unknown_key,
                &bob,
                &dm_of("I am alice", Some(her), Some(me)),
            ),
            "mismatch",
            "WARNING: from somebody who claims to be",
        ),
        (
            forge(&unknown_key, &bob, &dm_of("guess who", None, None)),
            "unattributed",
            "from somebody who names no account",
        ),
        (
            forge(
                &unknown_key,
                &bob,
                &dm_of("boo", Some(unknown_did), Some(me)),
            ),
            "unverified",
            "from an unknown sender who claims to be",
        ),
        (
            forge(&unknown_key, &bob, &dm_of("hm", Some("alice"), Some(me))),
            "unverified",
            "what it claims is not the DID of an account",
        ),
        (
            forge(
                &unknown_key,
                &bob,
                &dm_of("old friend", Some(&contact), Some(me)),
            ),
            "revoked",
            "which has no messaging key",
        ),
        (
            forge(
                &unknown_key,
                &bob,
                &dm_of("dear carol", Some(her), Some(unknown_did)),
            ),
            "misdirected",
            "WARNING: its sender says that it is for",
        ),
        (anonymous.expect("an envelope"), "anonymous", "from nobody"),
    ];
    for (envelope, outcome, words) in cases {
        post_envelope(network, &mediator, peer.as_str(), &envelope);
        let received = bob.receive(&[]);
        assert_eq!(received.len(), 1, "{outcome}");
        assert_eq!(
            received[0]["attribution"]["outcome"], outcome,
            "{received:?}"
        );
        let shown = bob.cli.run(&["receive", "--all", "--limit", "1"]).success();
        assert!(shown.stdout.contains(words), "{shown:?}");
        assert!(!shown.stdout.contains(&alice.account.handle), "{shown:?}");
        assert!(!shown.stdout.contains("(verified"), "{shown:?}");
    }
}

#[test]
fn what_steers_a_terminal_is_disarmed() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let bob = enrolled_person(network, "ub", 1, &[&mediator]);
    let unknown_key = MessagingKey::mint(Timestamp::from_millis(0));
    let words = "a\u{1b}]0;x\u{7}\u{202e}b\n2026-01-01 00:00Z  from @boss.example.com (verified)";
    let dm = dm_of(words, Some("did:plc:\u{1b}[2J"), None);
    post_envelope(
        network,
        &mediator,
        peer_of(&bob).as_str(),
        &forge(&unknown_key, &bob, &dm),
    );
    let shown = bob.cli.run(&["receive"]).success();
    let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.stdout.contains(steers), "{shown:?}");
    // No line of the text starts like a header.
    let heads = shown
        .stdout
        .lines()
        .filter(|line| line.starts_with("20"))
        .count();
    assert_eq!(heads, 1, "{shown:?}");
    // JSON output has the text unchanged.
    let kept = bob.receive(&["--all"]);
    assert_eq!(kept[0]["text"], words);
}

#[test]
fn copies_are_dropped_and_what_cannot_be_opened_is_kept() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let (alice, bob) = (
        enrolled_person(network, "ca", 0, &[&mediator]),
        enrolled_person(network, "cb", 1, &[&mediator]),
    );
    let peer = peer_of(&bob);
    let unknown_key = MessagingKey::mint(Timestamp::from_millis(0));
    let dm = dm_of("once", None, None);
    for _ in 0..3 {
        post_envelope(
            network,
            &mediator,
            peer.as_str(),
            &forge_as("same", &unknown_key, &bob, &dm),
        );
    }
    // The message is encrypted to alice and posted for bob.
    let wrong = forge(&unknown_key, &alice, &dm_of("lost", None, None));
    post_envelope(network, &mediator, peer.as_str(), &wrong);
    let output = bob.cli.run(&["receive", "--json"]).success();
    let received = lines(&output.stdout);
    assert_eq!(received.len(), 2, "{output:?}");
    assert_eq!(received[0]["text"], "once");
    assert_eq!(received[1]["type"], "unreadable");
    assert!(output.stderr.contains("left out 2"), "{output:?}");
    assert!(bob.receive(&[]).is_empty(), "all was acknowledged");
    let kept = bob.receive(&["--all"]);
    assert_eq!(kept.len(), 2);
    assert!(text(&kept[1], "/reason").contains("none of our keys"));
}

#[test]
fn a_limit_leaves_the_rest_where_it_waits() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let bob = enrolled_person(network, "nb", 1, &[&mediator]);
    let unknown_key = MessagingKey::mint(Timestamp::from_millis(0));
    for n in 0..5 {
        let dm = dm_of(&format!("number {n}"), None, None);
        post_envelope(
            network,
            &mediator,
            peer_of(&bob).as_str(),
            &forge(&unknown_key, &bob, &dm),
        );
    }
    assert_eq!(
        texts(&bob.receive(&["--limit", "2"])),
        ["number 0", "number 1"]
    );
    assert_eq!(texts(&bob.receive(&["--limit", "1"])), ["number 2"]);
    assert_eq!(texts(&bob.receive(&[])), ["number 3", "number 4"]);
    assert_eq!(bob.receive(&["--all"]).len(), 5);
    bob.cli
        .run(&["receive", "--limit", "0"])
        .failed(2, "--limit", "--help");
}

#[test]
fn inv3_what_a_full_disk_does_not_take_waits_at_the_mediator() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = enrolled_person(network, "fa", 0, &[&mediator]);
    let bob = enrolled_person(network, "fb", 1, &[&mediator]);
    alice.send(&bob, "not lost").success();
    bob.cli
        .run(&["receive", "--limit", "1", "--account", "nobody.example.com"])
        .failed(2, "nobody.example.com", "whoami");
    let full = bob.cli.limited("trap '' XFSZ; ulimit -f 0", &["receive"]);
    let output = finish(full, "");
    output.failed(1, "cannot write", "there is no room left");
    assert_eq!(output.stdout, "");
    assert_eq!(texts(&bob.receive(&[])), ["not lost"]);
    assert_eq!(texts(&bob.receive(&[])), [""; 0]);
}

#[test]
fn inv3_killed_at_any_time_it_loses_nothing_and_doubles_nothing() {
    const COUNT: usize = 60;
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let bob = enrolled_person(network, "ib", 1, &[&mediator]);
    let unknown_key = MessagingKey::mint(Timestamp::from_millis(0));
    for n in 0..COUNT {
        let dm = dm_of(&format!("{n}"), None, None);
        post_envelope(
            network,
            &mediator,
            peer_of(&bob).as_str(),
            &forge(&unknown_key, &bob, &dm),
        );
    }
    let mut shown = BTreeSet::new();
    let mut kills = 0;
    // What was being printed when a run was killed may be printed again by the next, and nothing
    // else.
    let mut before: Option<String> = None;
    for round in 0..40u64 {
        let mut last = None;
        let mut running = Running::start(bob.cli.command(&["receive", "--json", "--limit", "20"]));
        for_a_while(&mut running, Duration::from_millis(25 + 7 * round));
        if !running.has_ended() {
            running.signal("KILL");
            kills += 1;
        }
        let output = running.end();
        for line in output.stdout.lines() {
            // The last line may be incomplete.
            if let Ok(one) = serde_json::from_str::<Value>(line) {
                let words = text(&one, "/text").to_owned();
                if !shown.insert(words.clone()) {
                    assert_eq!(before.as_deref(), Some(&*words), "shown twice: {one}");
                }
                last = Some(words);
            }
        }
        before = last.or(before);
    }
    assert!(kills > 0);
    bob.receive(&[]);
    let kept = bob.receive(&["--all"]);
    let distinct: BTreeSet<&str> = texts(&kept).into_iter().collect();
    assert_eq!((kept.len(), distinct.len()), (COUNT, COUNT));
}

#[test]
fn it_follows_and_ends_when_it_is_told_to() {
    let network = Network::multikey();
    let (near, mut far) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let alice = enrolled_person(network, "va", 0, &[&near]);
    let bob = enrolled_person(network, "vb", 1, &[&far]);
    alice.send(&bob, "before");
    let mut command = bob.cli.command(&["receive", "--follow", "--json"]);
    let (out, err) = (bob.cli.path("out"), bob.cli.path("err"));
    command.stdout(std::fs::File::create(&out).expect("a file"));
    command.stderr(std::fs::File::create(&err).expect("a file"));
    let mut running = Running::start(command);
    let seen = |count: usize| {
        eventually("messages", || {
            let file = std::fs::File::open(&out).expect("a file");
            let seen: Vec<Value> = BufReader::new(file)
                .lines()
                .map_while(Result::ok)
                .filter_map(|line| serde_json::from_str(&line).ok())
                .collect();
            (seen.len() >= count).then_some(seen)
        })
    };
    let told = |words: &str, count: usize| {
        eventually(words, || {
            let output = std::fs::read_to_string(&err).expect("a file");
            (output.matches(words).count() >= count).then_some(output)
        });
    };
    assert_eq!(texts(&seen(1)), ["before"]);
    told("waiting for mail at", 1);
    alice.send(&bob, "live");
    assert_eq!(seen(2)[1]["text"], "live");
    assert_eq!(seen(2)[1]["attribution"]["outcome"], "verified");
    // Mail that arrives while the mediator is away comes when the mediator is back.
    let left = far.service.take().expect("it was up").kill();
    told("trying again", 1);
    far.service = Some(left.start());
    told("again", 2);
    alice.send(&bob, "after");
    assert_eq!(texts(&seen(3)), ["before", "live", "after"]);
    running.signal("INT");
    let output = running.end();
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(bob.receive(&[]).is_empty(), "all was acknowledged");
}

#[test]
fn mediators_that_are_away_are_told_of() {
    let network = Network::multikey();
    let (one, mut other) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let (alice, bob) = (
        enrolled_person(network, "xa", 0, &[&one]),
        enrolled_person(network, "xb", 1, &[&one, &other]),
    );
    alice.send(&bob, "hello");
    drop(other.service.take());
    let output = bob.cli.run(&["receive"]).success();
    assert!(output.stdout.contains("hello"), "{output:?}");
    assert!(
        output.stderr.contains(&format!("warning: {}", other.did)),
        "{output:?}"
    );
    drop(one);
    let output = bob.cli.run(&["receive"]);
    output.failed(4, "none of your mediators", "atcomm check");
}

#[test]
fn mail_to_a_key_that_was_replaced_is_still_read() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let (alice, bob) = (
        enrolled_person(network, "oa", 0, &[&mediator]),
        enrolled_person(network, "ob", 1, &[&mediator]),
    );
    alice.send(&bob, "to the old key");
    let old = {
        let wallet = atcomm_client::Wallet::open(&bob.cli.wallet()).expect("a wallet");
        let store = wallet.account_store(&bob.account.did());
        store
            .enrolment()
            .expect("read")
            .expect("enrolled")
            .keys
            .remove(0)
    };
    enroll_by_library(&bob, &[&mediator], &[&mediator.did]);
    let wallet = atcomm_client::Wallet::open(&bob.cli.wallet()).expect("a wallet");
    let store = wallet.account_store(&bob.account.did());
    let mut enrolment = store.enrolment().expect("read").expect("enrolled");
    enrolment.keys.push(MessagingKey {
        state: atcomm_client::KeyState::Replaced {
            at: Timestamp::from_millis(1_800_000_000_000),
        },
        ..old
    });
    store.save(&enrolment).expect("kept");
    assert_eq!(texts(&bob.receive(&[])), ["to the old key"]);
    assert_eq!(json!(bob.receive(&["--all"]).len()), json!(1));
}
