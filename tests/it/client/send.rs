//! `atcomm send`: its recipients, its delivery paths, and the cases in which it does not send.

use serde_json::json;

use super::enrolled::{enroll_by_library, enrolled_person, texts};
use super::{MediatorService, Person};
use crate::network::{Network, text};

#[test]
fn two_people_on_two_hosts_write_to_each_other_by_two_mediators() {
    let network = Network::multikey();
    let (near, far) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let alice = enrolled_person(network, "sa", 0, &[&near]);
    let bob = enrolled_person(network, "sb", 1, &[&far]);
    let output = alice.send(&bob, "grüß dich");
    let relays = format!(
        "sent to @{}: {} relays it to {}",
        bob.account.handle, near.did, far.did
    );
    assert_eq!(output.stdout.trim(), relays);
    let first = format!("first contact with @{};", bob.account.handle);
    assert!(output.stderr.starts_with(&first), "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    let received = bob.collect(1);
    let message = &received[0];
    assert_eq!(message["text"], "grüß dich");
    assert_eq!(message["attribution"]["outcome"], "verified");
    assert_eq!(message["attribution"]["handle"], *alice.account.handle);
    assert_eq!(message["attribution"]["account"], *alice.account.did);
    // The message was delivered once.
    assert_eq!(bob.receive(&[]), Vec::<serde_json::Value>::new());
    // The answer comes from standard input, to a handle with an @.
    let to = format!("@{}", alice.account.handle);
    let answer = bob
        .cli
        .run_with(&["send", &to, "--json"], "dich auch\n")
        .success()
        .json();
    assert_eq!(
        (text(&answer, "/via"), text(&answer, "/mediator")),
        (&*far.did, &*near.did)
    );
    assert_eq!(answer["to"], *alice.account.did);
    assert_eq!(answer["reachable"], true);
    assert_eq!(answer["failed"], json!([]));
    let received = alice.collect(1);
    assert_eq!(texts(&received), ["dich auch"]);
    assert_eq!(received[0]["id"], answer["id"]);
    // Text output says nothing about an unchanged key.
    assert_eq!(alice.send(&bob, "noch\neins").stderr, "");
    let output = crate::http::eventually("mail", || {
        let output = bob.cli.run(&["receive"]).success();
        (!output.stdout.is_empty()).then_some(output)
    });
    let head = format!(
        "Z  from @{} (verified)\n| noch\n| eins\n\n",
        alice.account.handle
    );
    assert!(output.stdout.ends_with(&head), "{output:?}");
}

#[test]
fn a_mediator_of_both_has_it_at_once() {
    let network = Network::multikey();
    let both = MediatorService::start(network);
    let (alice, bob) = (
        enrolled_person(network, "ta", 0, &[&both]),
        enrolled_person(network, "tb", 1, &[&both]),
    );
    let output = alice.send(&bob, "hello");
    let has_it = format!("sent to @{}: {} has it", bob.account.handle, both.did);
    assert_eq!(output.stdout.trim(), has_it);
    assert_eq!(texts(&bob.receive(&[])), ["hello"]);
    // A message for a recipient of the same mediator is not kept for retries.
    let sent = alice
        .cli
        .files()
        .iter()
        .filter(|(path, _)| path.parent().is_some_and(|p| p.ends_with("sent")))
        .count();
    assert_eq!(sent, 0);
    assert!(alice.cli.files().iter().all(|(_, mode)| *mode == 0o600));
}

#[test]
fn links_mentions_and_records_are_pointed_at() {
    let network = Network::multikey();
    let both = MediatorService::start(network);
    let (alice, bob) = (
        enrolled_person(network, "fa", 0, &[&both]),
        enrolled_person(network, "fb", 1, &[&both]),
    );
    alice.account.write_note("first");
    let words = format!(
        "ä @{} @nobody.pds0.test https://example.com/x.",
        bob.account.handle
    );
    let uri = format!("at://{}/at.example.note/first", alice.account.handle);
    alice
        .cli
        .run(&["send", &bob.account.did, &words, "--embed", &uri])
        .success();
    let received = bob.receive(&[]);
    let message = &received[0];
    assert_eq!(message["text"], *words);
    let facets = message["facets"].as_array().expect("facets");
    let at = |index: usize| {
        let slice = &facets[index]["index"];
        let number = |name: &str| usize::try_from(slice[name].as_u64().unwrap()).unwrap();
        &words[number("byteStart")..number("byteEnd")]
    };
    assert_eq!(facets.len(), 2, "{message}");
    assert_eq!(at(0), format!("@{}", bob.account.handle));
    assert_eq!(facets[0]["features"][0]["did"], *bob.account.did);
    assert_eq!(at(1), "https://example.com/x");
    assert_eq!(facets[1]["features"][0]["uri"], "https://example.com/x");
    let embedded = format!("at://{}/at.example.note/first", alice.account.did);
    assert_eq!(message["embed"]["uri"], *embedded);
    assert!(text(message, "/embed/cid").starts_with("bafy"));
    // A missing record stops the command before anything is sent.
    let missing = format!("at://{}/at.example.note/none", alice.account.did);
    let output = alice
        .cli
        .run(&["send", &bob.account.did, "x", "--embed", &missing]);
    output.failed(1, "there is no such record", "nothing was sent");
    let output = alice
        .cli
        .run(&["send", &bob.account.did, "x", "--embed", "https://x"]);
    output.failed(2, "at://ACCOUNT/COLLECTION/KEY", "nothing was sent");
    assert_eq!(bob.receive(&[]), Vec::<serde_json::Value>::new());
}

#[test]
fn texts_that_are_too_long_are_not_sent() {
    let network = Network::multikey();
    let both = MediatorService::start(network);
    let alice = enrolled_person(network, "la", 0, &[&both]);
    let me = alice.account.handle.as_str();
    let output = alice.cli.run_with(&["send", me, "-"], &"x".repeat(1001));
    output.failed(
        2,
        "the text has 1001 characters, more than 1000",
        "nothing was sent",
    );
    let long = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}".repeat(600);
    let output = alice.cli.run_with(&["send", me], &long);
    output.failed(2, "more than 10000", "nothing was sent");
    for empty in ["", " ", "\n"] {
        let output = alice.cli.run_with(&["send", me], empty);
        output.failed(2, "the text is empty", "nothing was sent");
    }
    let output = alice.cli.run(&["send", "not a handle", "x"]);
    output.failed(2, "not a handle", "alice.example.com");
}

#[test]
fn recipients_that_cannot_be_written_to_are_told_apart() {
    let network = Network::multikey();
    let both = MediatorService::start(network);
    let alice = enrolled_person(network, "wa", 0, &[&both]);
    let send = |to: &str| alice.cli.run(&["send", to, "hello"]);
    send("nobody.pds1.test").failed(1, "nobody.pds1.test", "check the spelling");
    let plain = network.account("wp", 1);
    send(&plain.handle).failed(1, "has no key package", "atcomm enroll");
    let invalid = network.account("wi", 1);
    invalid.put_raw(json!({"$type": "at.didcomm.keyPackage", "did": "did:peer:2.x"}));
    send(&invalid.handle).failed(1, "is not valid", "publish a valid one");
    let gone = enrolled_person(network, "wg", 1, &[&both]);
    gone.account.op("account.deactivate", json!({}));
    send(&gone.account.did).failed(1, "not active", "before it is active again");
    // An empty wallet has no enrolled account.
    let empty = Person::new(network, "we", 0);
    let output = empty.cli.run(&["send", &alice.account.handle, "x"]);
    output.failed(2, "there is no account in the wallet", "atcomm enroll");
}

#[test]
fn a_changed_key_stops_it() {
    let network = Network::multikey();
    let both = MediatorService::start(network);
    let (alice, bob) = (
        enrolled_person(network, "ka", 0, &[&both]),
        enrolled_person(network, "kb", 1, &[&both]),
    );
    alice.send(&bob, "hello");
    // The account publishes another key without a succession.
    enroll_by_library(&bob, &[&both], &[&both.did]);
    let output = alice.cli.run(&["send", &bob.account.handle, "secret"]);
    let accept = format!("atcomm contacts accept {}", bob.account.did);
    output.failed(3, "has changed", &accept);
    let named = format!("@{} ({}) has changed", bob.account.handle, bob.account.did);
    assert!(output.stderr.contains(&named), "{output:?}");
    // Refusing to send has not accepted the key.
    let output = alice.cli.run(&["send", &bob.account.handle, "secret"]);
    output.failed(3, "has changed", &accept);
    // bob's own message is verified, and does not accept the new key.
    bob.send(&alice, "it is me");
    let received = alice.receive(&[]);
    assert_eq!(received[0]["attribution"]["outcome"], "verified");
    assert_eq!(received[0]["attribution"]["unaccepted"], true);
}

#[test]
fn a_key_of_several_accounts_is_warned_about() {
    let network = Network::multikey();
    let both = MediatorService::start(network);
    let (alice, bob) = (
        enrolled_person(network, "ma", 0, &[&both]),
        enrolled_person(network, "mb", 1, &[&both]),
    );
    // carol publishes bob's key as her own.
    let carol = network.account("mc", 0);
    let record = bob.record().expect("a record");
    carol.put(json!({"did": record["did"], "mediators": [both.did]}));
    both.service().refresh(&carol.did).expect("refreshed");
    both.service().until(&carol.did, "both are known", |view| {
        view["peer"]["ambiguous"] == true
    });
    let output = alice.cli.run(&["send", &carol.handle, "for carol"]);
    output.failed(
        3,
        "other accounts publish the same messaging key",
        "--anyway",
    );
    let words = "other accounts publish the same messaging key";
    assert_eq!(output.stderr.matches(words).count(), 1, "{output:?}");
    let output = alice
        .cli
        .run(&["send", &carol.handle, "for carol", "--anyway"])
        .success();
    assert!(output.stderr.contains("warning: "), "{output:?}");
    let received = bob.receive(&[]);
    assert_eq!(received[0]["attribution"]["outcome"], "misdirected");
    assert_eq!(received[0]["attribution"]["meant"], *carol.did);
    let shown = bob.cli.run(&["receive", "--all"]).success();
    assert!(
        shown
            .stdout
            .contains("WARNING: its sender says that it is for"),
        "{shown:?}"
    );
    assert!(!shown.stdout.contains(&alice.account.handle), "{shown:?}");
}

/// At first contact the directory may serve a package that was replaced long ago, while the
/// account's own PDS does not answer.
#[test]
fn what_the_directory_alone_shows_is_sent_to_where_that_is_wanted() {
    let network = Network::multikey();
    let both = MediatorService::start(network);
    let (alice, bob) = (
        enrolled_person(network, "ua", 0, &[&both]),
        enrolled_person(network, "ub", 1, &[&both]),
    );
    let contact = format!("{}@", network.name("caller"));
    let config = std::fs::read_to_string(alice.cli.path("config.toml")).expect("a file");
    let config = config.replace("[net]\n", &format!("[net]\ncontact = \"{contact}\"\n"));
    std::fs::write(alice.cli.path("config.toml"), config).expect("a file");
    network.op(
        "pds.limit",
        json!({"pds": 1, "status": 503, "count": 1000, "agent": contact}),
    );
    let send = ["send", &bob.account.handle, "hello"];
    for _ in 0..2 {
        let output = alice.cli.run(&send);
        output.failed(
            4,
            "nobody but the directory shows the messaging key",
            "--anyway",
        );
    }
    let output = alice
        .cli
        .run(&[&send[..], &["--anyway"]].concat())
        .success();
    assert!(
        output.stderr.contains("warning: the account's own host"),
        "{output:?}"
    );
    assert!(!output.stderr.contains("is remembered"), "{output:?}");
    assert_eq!(bob.receive(&[])[0]["text"], "hello");
    assert_eq!(alice.cli.json(&["contacts"]), json!([]));
}

#[test]
fn it_says_who_has_it_when_mediators_are_down() {
    let network = Network::multikey();
    let (near, mut far) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let spare = MediatorService::start(network);
    let alice = enrolled_person(network, "da", 0, &[&near]);
    let bob = enrolled_person(network, "db", 1, &[&far]);
    let carl = enrolled_person(network, "dc", 1, &[&far, &spare]);
    alice.send(&bob, "hello");
    bob.collect(1);
    far.service.take().expect("it was up").kill();
    // The recipient has a second mediator.
    let output = alice
        .cli
        .run(&["send", &carl.account.handle, "x"])
        .success();
    assert!(
        output
            .stdout
            .contains(&format!("relays it to {}", spare.did)),
        "{output:?}"
    );
    // The recipient has one mediator, whose keys were never fetched.
    let dave = Person::new(network, "dd", 1);
    enroll_by_library(&dave, &[&spare], &[&far.did]);
    let output = alice.cli.run(&["send", &dave.account.handle, "x"]);
    output.failed(4, &format!("{}: it cannot be reached", far.did), "later");
    // The recipient has one mediator, whose keys are known and which does not answer: the relay
    // keeps the message.
    let (url, did) = network.site();
    network.serve_mediator(&did, &url, "http://localhost:9/didcomm");
    let erin = Person::new(network, "de", 1);
    enroll_by_library(&erin, &[&spare], &[&did]);
    let output = alice
        .cli
        .run(&["send", &erin.account.handle, "x"])
        .success();
    let relays = format!("relays it to {did}");
    assert!(
        output.stdout.contains(&relays) && output.stdout.contains("does not answer now"),
        "{output:?}"
    );
    // For a contact the directory's answer about its mediator suffices. Fetching the document from
    // the mediator would reveal the sender's address.
    let output = alice.send(&bob, "x");
    assert!(
        output.stdout.contains(&format!("relays it to {}", far.did)),
        "{output:?}"
    );
    // Without the sender's own mediator nothing is sent.
    drop(near);
    let output = alice
        .cli
        .run(&["send", &bob.account.did, "x", "--directory", &spare.url]);
    output.failed(4, "no mediator took the message", "later");
}

#[test]
fn a_relay_that_gives_up_leads_to_the_next_mediator() {
    let network = Network::multikey();
    let near = MediatorService::start_as(network, |setup| {
        setup
            .set("mediator.relay.give_up", json!("1s"))
            .set("mediator.relay.longest_pause", json!("300ms"))
    });
    let far = MediatorService::start(network);
    let alice = enrolled_person(network, "ga", 0, &[&near]);
    // The first of bob's mediators answers and accepts nothing.
    let (deaf, _) = network.site();
    let did = {
        let (url, did) = network.site();
        network.serve_mediator(&did, &url, &format!("{deaf}/nothing"));
        did
    };
    let bob = Person::new(network, "gb", 1);
    enroll_by_library(&bob, &[&far], &[&did, &far.did]);
    let output = alice.send(&bob, "the long way");
    assert!(
        output
            .stdout
            .contains(&format!("{} relays it to {did}", near.did)),
        "{output:?}"
    );
    // After the report the message goes to the second mediator.
    let returned = crate::http::eventually("a report", || {
        let received = alice.receive(&[]);
        received.into_iter().find(|one| one["type"] == "returned")
    });
    assert_eq!(returned["to"], *bob.account.did);
    assert_eq!(returned["next"], "again");
    assert_eq!(returned["mediator"], *far.did);
    let received = bob.collect(1);
    assert_eq!(texts(&received), ["the long way"]);
    assert_eq!(received[0]["attribution"]["outcome"], "verified");
    // A message for a recipient without a second mediator is given up.
    let carl = Person::new(network, "gc", 1);
    enroll_by_library(&carl, &[&far], &[&did]);
    alice.send(&carl, "in vain");
    let returned = crate::http::eventually("a report", || {
        let received = alice.receive(&[]);
        received.into_iter().find(|one| one["type"] == "returned")
    });
    assert_eq!(
        (&returned["next"], &returned["to"]),
        (&json!("givenUp"), &json!(carl.account.did))
    );
    let shown = alice.cli.run(&["receive", "--all"]).success();
    assert_eq!(shown.stdout, "", "a report is no mail");
}

#[test]
fn a_device_that_was_replaced_is_told_where_replies_go() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let (alice, old) = (
        enrolled_person(network, "da", 0, &[&mediator]),
        enrolled_person(network, "db", 1, &[&mediator]),
    );
    let words = "warning: your account now publishes another device's key; replies go there";
    assert!(
        !old.send(&alice, "from the only device")
            .stderr
            .contains("warning")
    );
    let new = Person::of(old.account.clone());
    let handle = &new.account.handle;
    new.run(&["enroll", handle, "-m", &mediator.did, "--replace"])
        .success();
    let output = old.send(&alice, "from the old device");
    assert!(output.stderr.contains(words), "{output:?}");
    assert!(output.stdout.contains("sent to"), "{output:?}");
    assert!(
        !new.send(&alice, "from the new device")
            .stderr
            .contains("warning")
    );
    // The key of this wallet that it replaced itself is no other device's.
    new.run(&["rotate"]).success();
    assert!(
        !new.send(&alice, "after a rotation")
            .stderr
            .contains("warning")
    );
    new.account.delete_record();
    mediator
        .service()
        .until_refused(&new.account.did, "NotEnrolled");
    let output = new.send(&alice, "from no device");
    assert!(
        output.stderr.contains("publishes no messaging key now"),
        "{output:?}"
    );
}
