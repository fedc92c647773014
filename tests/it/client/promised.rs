//! Mail that was acknowledged to its sender is read, whatever the account changes meanwhile: it
//! leaves, changes mediators, replaces its key, or is interrupted in any of these.

use atcomm_client::wrap::seal;
use atcomm_client::{MediatorClient, MessagingKey, Wallet};
use atcomm_net::identity::Freshness;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::did_peer::PeerDid;
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::syntax::MediatorDid;
use serde_json::{Value, json};

use super::enrolled::{enrolled_person, library_context, lines, texts};
use super::receive::{dm_of, peer_of, post_envelope};
use super::{MediatorService, Person, Running, disturbed, finish, hold_requests};
use crate::http::RUNTIME;
use crate::network::{Network, text};
use crate::service::Setup;

/// Milliseconds of a day.
const DAY: i64 = 24 * 3600 * 1000;

/// Posts messages of an unknown sender to a mediator, for a did:peer of `to`.
#[track_caller]
fn post(mediator: &MediatorService, to: &Person, words: &[&str]) {
    post_to(mediator, to, &peer_of(to), words);
}

#[track_caller]
fn post_to(mediator: &MediatorService, to: &Person, peer: &PeerDid, words: &[&str]) {
    let unknown = MessagingKey::mint(Timestamp::from_millis(0));
    for words in words {
        let message = dm_of(words, None, None).message(
            fresh_id(),
            unknown.peer.as_str(),
            peer.as_str(),
            1_800_000_000,
        );
        let envelope = seal(message, &unknown, peer).expect("an envelope");
        post_envelope(to.account.network, mediator, peer.as_str(), &envelope);
    }
}

/// Changes the stored enrolment of a wallet.
#[track_caller]
fn rewrite(person: &Person, change: impl Fn(&mut Value)) {
    let file = person.cli.file("enrolment.json");
    let stored = std::fs::read(&file).expect("a file");
    let mut stored: Value = serde_json::from_slice(&stored).expect("JSON");
    change(&mut stored["content"]);
    std::fs::write(&file, stored.to_string()).expect("a file");
}

fn days_ago(days: i64) -> Value {
    json!(Clock::system().now().millis() - days * DAY)
}

fn keys(person: &Person) -> Vec<MessagingKey> {
    let wallet = Wallet::open(&person.cli.wallet()).expect("a wallet");
    let store = wallet.account_store(&person.account.did());
    store.enrolment().expect("read").expect("enrolled").keys
}

/// Whether a mediator accepts mail for a key.
#[track_caller]
fn is_registered(person: &Person, mediator: &MediatorService, key: &MessagingKey) -> bool {
    let context = library_context(person.account.network);
    let did = MediatorDid::parse(&mediator.did).expect("a DID");
    RUNTIME.block_on(async {
        let (net, identity, clock) = (&context.net, &context.identity, &context.clock);
        let opened = MediatorClient::open(net, identity, clock, &did, key, Freshness::Cached);
        let client = opened.await.expect("a mediator");
        client.is_registered().await.expect("an answer")
    })
}

#[test]
fn inv3_mail_that_waits_when_the_account_leaves_is_read() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = enrolled_person(network, "la", 0, &[&mediator]);
    let bob = enrolled_person(network, "lb", 1, &[&mediator]);
    for words in ["one", "two", "three"] {
        alice.send(&bob, words);
    }
    let output = bob.run(&["unenroll"]).success();
    assert!(
        output
            .stderr
            .starts_with("3 messages fetched first; `atcomm receive` shows them\n"),
        "{output:?}"
    );
    assert!(output.stdout.contains("is read for another 14 days"));
    // Without a present key: once, and with --all as often as wanted.
    assert_eq!(texts(&bob.receive(&[])), ["one", "two", "three"]);
    assert!(bob.receive(&[]).is_empty());
    assert_eq!(bob.receive(&["--all"]).len(), 3);
    bob.cli.run(&["send", &alice.account.handle, "hi"]).failed(
        1,
        "has no messaging key",
        "atcomm enroll",
    );
    bob.cli
        .run(&["check"])
        .failed(1, "has no messaging key", "atcomm enroll");
    // Once the key has expired, what is in the wallet can be shown.
    rewrite(&bob, |content| {
        content["keys"][0]["state"]["since"] = days_ago(15);
    });
    assert_eq!(bob.receive(&["--all"]).len(), 3);
    bob.cli
        .run(&["receive"])
        .failed(1, "has no messaging key", "atcomm enroll");
}

#[test]
fn inv3_mail_that_could_not_be_fetched_before_leaving_is_fetched_after() {
    let network = Network::multikey();
    let directory = MediatorService::start(network);
    let mut mediator = MediatorService::start(network);
    let alice = enrolled_person(network, "ma", 0, &[&directory]);
    let people =
        ["mb", "mc", "md"].map(|name| enrolled_person(network, name, 1, &[&directory, &mediator]));
    for person in &people {
        post(&mediator, person, &["one", "two"]);
    }
    let stopped = mediator.service.take().expect("it is up").stop();
    for person in &people {
        let output = person.run(&["unenroll"]).success();
        assert!(
            output.stderr.contains("could not be asked for mail"),
            "{output:?}"
        );
        // The failure of all mediators is told, and is not the end.
        let output = person.cli.run(&["receive"]).success();
        assert!(output.stderr.contains("(which you left"), "{output:?}");
    }
    mediator.service = Some(stopped.start());
    let [once, follows, again] = people;
    assert_eq!(texts(&once.receive(&[])), ["one", "two"]);
    let mut follow = follows.cli.command(&["receive", "--follow", "--json"]);
    follow.args(["--limit", "2"]);
    let output = finish(follow, "").success();
    assert_eq!(texts(&lines(&output.stdout)), ["one", "two"]);
    // A new enrolment goes on asking for the old key.
    again.enroll(&[&directory.did]).success();
    alice.send(&again, "three");
    let all = again.receive(&[]);
    let mut all = texts(&all);
    all.sort_unstable();
    assert_eq!(all, ["one", "three", "two"]);
}

#[test]
fn inv3_mail_that_comes_to_a_mediator_of_before_is_read() {
    let network = Network::multikey();
    // The old mediator does not learn that the record names another one.
    let old = MediatorService::start_as(network, Setup::without_sources);
    let new = MediatorService::start(network);
    let bob = Person::new(network, "wb", 1);
    let enroll = |mediator: &MediatorService| {
        let mut command = bob.command(&["enroll", &bob.account.handle, "-m", &mediator.did]);
        command.env("ATCOMM_DIRECTORY", &new.url);
        finish(command, "").success()
    };
    enroll(&old);
    let output = enroll(&new);
    post(&old, &bob, &["one", "two", "three"]);
    assert_eq!(texts(&bob.receive(&[])), ["one", "two", "three"]);
    let words = format!("{} is asked for mail for another 14 days", old.did);
    assert!(output.stderr.contains(&words), "{output:?}");
    let output = bob.cli.run(&["whoami"]).success();
    assert!(output.stdout.contains("still asked for mail"), "{output:?}");
    let key = keys(&bob).remove(0);
    assert!(is_registered(&bob, &old, &key));
    // The time is over, and mail waits there: it is not left.
    rewrite(&bob, |content| {
        content["keys"][0]["dropped"][0]["since"] = days_ago(15);
    });
    post(&old, &bob, &["four", "five"]);
    assert_eq!(texts(&bob.receive(&["--limit", "1"])), ["four"]);
    assert!(is_registered(&bob, &old, &key));
    // It is left when nothing waits.
    let output = bob.cli.run(&["receive"]).success();
    assert!(output.stdout.contains("five"), "{output:?}");
    let words = format!("{} (which you left", old.did);
    assert!(output.stderr.contains(&words), "{output:?}");
    assert!(output.stderr.contains("keeps no more mail"), "{output:?}");
    assert!(!is_registered(&bob, &old, &key));
    assert!(is_registered(&bob, &new, &key));
    assert_eq!(keys(&bob)[0].dropped, []);
    assert_eq!(keys(&bob)[0].registered.len(), 1);
}

#[test]
fn inv3_a_mediator_that_says_nothing_is_not_left() {
    let network = Network::multikey();
    let (mut old, new) = (
        MediatorService::start_as(network, Setup::without_sources),
        MediatorService::start(network),
    );
    let bob = enrolled_person(network, "sb", 1, &[&new, &old]);
    // A wallet that was written before times were kept.
    rewrite(&bob, |content| {
        let key = content["keys"][0].as_object_mut().expect("a key");
        assert_eq!(key.remove("dropped"), None);
    });
    bob.run(&["enroll", &bob.account.handle, "-m", &new.did])
        .success();
    rewrite(&bob, |content| {
        content["keys"][0]["dropped"][0]["since"] = days_ago(100);
    });
    post(&old, &bob, &["late"]);
    let stopped = old.service.take().expect("it is up").stop();
    for _ in 0..2 {
        let output = bob.cli.run(&["receive"]).success();
        assert!(output.stderr.contains("(which you left"), "{output:?}");
    }
    old.service = Some(stopped.start());
    assert_eq!(texts(&bob.receive(&[])), ["late"]);
}

#[test]
fn inv3_wherever_a_change_of_mediators_is_interrupted_no_queue_is_forgotten() {
    let (network, _turn) = disturbed();
    let mediators = [0, 1, 2].map(|_| MediatorService::start_as(network, Setup::without_sources));
    let [first, second, third] = &mediators;
    let bob = Person::enrolled(network, "ib", 0, first);
    let enroll = |mediator: &MediatorService| {
        let mut command = bob
            .cli
            .command(&["enroll", &bob.account.handle, "-m", &mediator.did]);
        // The first does not learn what the record names, however far the command comes.
        command.env("ATCOMM_DIRECTORY", &third.url);
        Running::start(command)
    };
    // Before the record is written: it names the first, and the wallet the second.
    let held = hold_requests(network, "/xrpc/com.atproto.repo.putRecord");
    let mut running = enroll(second);
    held.until_asked();
    running.signal("KILL");
    running.end();
    drop(held);
    post(first, &bob, &["to the first"]);
    assert_eq!(texts(&bob.receive(&[])), ["to the first"]);
    // The record may name the first for however long: it is not left.
    rewrite(&bob, |content| {
        assert_eq!(content["keys"][0]["dropped"][0].get("since"), None);
    });
    // After the record is written, before the second is registered with.
    second.freeze(true);
    let mut running = enroll(second);
    crate::http::eventually("the record names the second", || {
        let record = bob.record().expect("a record");
        (record["mediators"] == json!([second.did])).then_some(())
    });
    running.signal("KILL");
    running.end();
    second.freeze(false);
    // The second accepts mail once it has seen the record, and the account goes on to the third.
    second
        .service()
        .refresh(&bob.account.did)
        .expect("refreshed");
    post(first, &bob, &["again to the first"]);
    crate::http::eventually("the second keeps mail", || {
        post(second, &bob, &["to the second"]);
        let queued = second
            .service()
            .metric("atcomm_mediator_queued_messages", &[]);
        (queued > 0.0).then_some(())
    });
    enroll(third).end().success();
    post(third, &bob, &["to the third"]);
    let received = bob.receive(&[]);
    let mut received = texts(&received);
    received.sort_unstable();
    received.dedup();
    assert_eq!(
        received,
        ["again to the first", "to the second", "to the third"]
    );
    // A key that is replaced keeps all of them.
    post(second, &bob, &["to the second and the old key"]);
    bob.cli.run(&["rotate"]).success();
    assert_eq!(texts(&bob.receive(&[])), ["to the second and the old key"]);
    let key = &keys(&bob)[1];
    let mut holders: Vec<&str> = key.dropped.iter().map(|one| one.did.as_str()).collect();
    holders.extend(key.registered.iter().map(MediatorDid::as_str));
    for mediator in &mediators {
        assert!(holders.contains(&&*mediator.did), "{holders:?}");
    }
    assert_eq!(text(&bob.record().expect("a record"), "/did"), bob.peer());
}

#[test]
fn inv3_wherever_leaving_is_interrupted_mail_is_read() {
    let (network, _turn) = disturbed();
    let mediator = MediatorService::start(network);
    let bob = Person::enrolled(network, "ub", 0, &mediator);
    post(&mediator, &bob, &["before"]);
    // Killed while the record is being deleted: what waited is fetched, and not shown yet.
    let held = hold_requests(network, "/xrpc/com.atproto.repo.deleteRecord");
    let mut running = Running::start(bob.cli.command(&["unenroll"]));
    held.until_asked();
    running.signal("KILL");
    let output = running.end();
    drop(held);
    assert!(
        output.stderr.contains("1 message fetched first"),
        "{output:?}"
    );
    assert_eq!(texts(&bob.receive(&[])), ["before"]);
    // The record is gone, and the wallet does not know it.
    let peer = peer_of(&bob);
    bob.account.delete_record();
    post_to(&mediator, &bob, &peer, &["meanwhile"]);
    let output = bob.cli.run(&["unenroll"]).success();
    assert!(
        output.stderr.contains("1 message fetched first"),
        "{output:?}"
    );
    assert_eq!(texts(&bob.receive(&[])), ["meanwhile"]);
    assert!(is_registered(&bob, &mediator, &keys(&bob)[0]));
}
