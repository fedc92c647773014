//! `atcomm rotate` and `atcomm unenroll`.

use atcomm_client::succession::vouches;
use serde_json::json;

use super::{MediatorService, Person};
use crate::network::{Network, in_both_shapes, text};

in_both_shapes! {
    fn each_key_vouches_for_the_next(network) {
        let mediator = MediatorService::start(network);
        let alice = Person::enrolled(network, "alice", 0, &mediator);
        let mut peers = vec![alice.peer()];
        for _ in 0..2 {
            let output = alice.cli.run(&["rotate"]).success();
            assert!(output.stdout.starts_with(&format!("{} has a new messaging key\n", alice.account.handle)));
            let record = alice.record().expect("a record");
            let peer = alice.peer();
            assert_eq!(record["did"], json!(peer));
            let before = peers.last().expect("a key");
            assert_ne!(*before, peer);
            let succession = text(&record, "/succession");
            assert!(vouches(succession, before, &peer, &alice.account.did()));
            peers.push(peer);
            // The directory and the mediator are updated at once.
            let view = mediator.service().recipient(&alice.account.handle).expect("a recipient");
            assert_eq!(text(&view, "/peer/did"), peers.last().expect("a key"));
        }
        let keys = alice.cli.json(&["whoami"])["accounts"][0]["keys"].clone();
        let kept: Vec<_> = keys.as_array().expect("a list").iter().rev()
            .map(|key| text(key, "/peer")).collect();
        assert_eq!(kept, peers);
        let states: Vec<_> = keys.as_array().expect("a list").iter()
            .map(|key| text(key, "/state")).collect();
        assert_eq!(states, ["published", "replaced", "replaced"]);
        for key in keys.as_array().expect("a list") {
            assert_eq!(key["registered"], json!([mediator.did]), "mail to each is read");
        }
    }
}

#[test]
fn what_was_changed_elsewhere_is_not_rotated_over() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::new(network, "alice", 0);
    alice
        .cli
        .run(&["rotate"])
        .failed(2, "there is no account in the wallet", "enroll");
    alice.enroll(&[&mediator.did]).success();
    let peer = alice.peer();
    alice.account.put(json!({"label": "elsewhere"}));
    let there = alice.record();
    alice
        .cli
        .run(&["rotate"])
        .failed(1, "of a device named \"elsewhere\"", "--replace");
    assert_eq!(alice.record(), there);
    let whoami = alice.cli.run(&["whoami"]).success();
    assert!(
        whoami
            .stdout
            .contains("names a key that this wallet does not have"),
        "{whoami:?}"
    );
    alice.account.delete_record();
    alice
        .cli
        .run(&["rotate"])
        .failed(1, "publishes no key any more", "atcomm enroll");
    let whoami = alice.cli.run(&["whoami"]).success();
    assert!(
        whoami.stdout.contains("record     there is none"),
        "{whoami:?}"
    );
    // The existing key is published again.
    assert_eq!(alice.peer(), peer);
    alice.cli.run(&["enroll", &alice.account.handle]).success();
    assert_eq!(alice.record().expect("a record")["did"], json!(peer));
}

#[test]
fn a_rotation_that_was_stopped_is_finished() {
    let (network, _turn) = super::disturbed();
    let mut mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 0, &mediator);
    let before = alice.peer();
    // Interrupted before the record is written.
    let held = super::hold_requests(network, "/xrpc/com.atproto.repo.putRecord");
    let mut running = super::Running::start(alice.cli.command(&["rotate"]));
    held.until_asked();
    running.signal("KILL");
    assert_eq!(running.end().code, None);
    drop(held);
    let keys = alice.cli.json(&["whoami", "--offline"])["accounts"][0]["keys"].clone();
    let states = [text(&keys[0], "/state"), text(&keys[1], "/state")];
    assert_eq!(states, ["minted", "published"]);
    let minted = text(&keys[0], "/peer").to_owned();
    alice.cli.run(&["rotate"]).success();
    assert_eq!(alice.peer(), minted);
    let record = alice.record().expect("a record");
    assert!(vouches(
        text(&record, "/succession"),
        &before,
        &minted,
        &alice.account.did()
    ));
    // The mediator is down.
    let stopped = mediator.service.take().expect("it is up").stop();
    alice
        .cli
        .run(&["rotate"])
        .failed(4, "does not keep the mail yet", "atcomm enroll");
    let newest = alice.peer();
    assert_ne!(newest, minted);
    mediator.service = Some(stopped.start());
    alice.cli.run(&["enroll", &alice.account.handle]).success();
    assert_eq!(alice.peer(), newest);
    let keys = alice.cli.json(&["whoami", "--offline"])["accounts"][0]["keys"].clone();
    assert_eq!(keys.as_array().map(Vec::len), Some(3));
    assert_eq!(keys[0]["registered"], json!([mediator.did]));
}

#[test]
fn leaving_takes_the_record_and_keeps_the_keys() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 0, &mediator);
    let handle = &alice.account.handle;
    let peer = alice.peer();
    let output = alice.cli.run(&["unenroll"]).success();
    assert_eq!(
        output.stdout,
        format!(
            "{handle} is not enrolled from this wallet any more\nmail that is on its way is read for \
             another 14 days\n"
        )
    );
    assert_eq!(
        output.stderr,
        format!(
            "the account's record is deleted\nthe directory {} has seen that\n{} is asked for mail for \
             another 14 days\n",
            mediator.url, mediator.did
        )
    );
    assert_eq!(alice.record(), None);
    let refused = mediator
        .service()
        .recipient(handle)
        .expect_err("no recipient");
    assert_eq!(refused.name, "NotEnrolled");
    let account = alice.cli.json(&["whoami"])["accounts"][0].clone();
    assert_eq!(
        (
            text(&account, "/keys/0/peer"),
            text(&account, "/keys/0/state")
        ),
        (&*peer, "replaced")
    );
    assert_eq!(
        (&account["signedIn"], text(&account, "/record/is")),
        (&json!(false), "missing")
    );
    // A second run has nothing to do and needs no password.
    alice.cli.run(&["unenroll"]).success();
    // Enrolling again publishes a new key.
    alice.run(&["enroll", handle]).success();
    assert_ne!(alice.peer(), peer);
    assert_eq!(
        alice.record().expect("a record")["did"],
        json!(alice.peer())
    );
    // A field that another device has written is preserved.
    alice.account.put(json!({"label": "elsewhere"}));
    let there = alice.record();
    let output = alice.cli.run(&["unenroll"]).success();
    assert!(output.stdout.contains("was left as it is"), "{output:?}");
    assert_eq!(alice.record(), there);
}
