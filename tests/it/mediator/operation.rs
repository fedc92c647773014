//! Operation: key rotation, the status of queues, and the loss of a file.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use super::{Mediator, get};
use crate::http::eventually;
use crate::network::text;

const KEYS: &str = "mediator-keys.json";
const DOCUMENT: &str = "/.well-known/did.json";

#[track_caller]
fn assert_private(path: &Path) {
    let mode = path.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", path.display());
}

#[test]
fn keys_change_under_running_clients() {
    let mediator = Mediator::start(Mediator::setup());
    let keys = mediator.service().data_dir().join(KEYS);
    assert_private(&keys);
    let (peer_did, web) = (mediator.did.clone(), mediator.web.clone());
    let before = get(&mediator, DOCUMENT).json();
    let client = mediator.member();
    let know = |document| {
        client
            .script()
            .op("know", json!({"did": web, "document": document}))
    };
    know(&before);
    let by_web = json!({"to": web});
    assert_eq!(client.tell("ping", by_web.clone())["status"], 200);

    let rotated = mediator.operate(&["keys", "rotate"]);
    assert_eq!(rotated, json!({"generation": 2, "inUse": true}));
    assert_private(&keys);
    let after = get(&mediator, DOCUMENT).json();
    assert_eq!(before["id"], after["id"]);
    for relationship in ["keyAgreement", "authentication"] {
        assert_ne!(before[relationship], after[relationship]);
        assert_eq!(after[relationship].as_array().map(Vec::len), Some(1));
    }
    let invitation = get(&mediator, "/invitation").json();
    let new_peer_did = text(&invitation, "/from").to_owned();
    assert_ne!(new_peer_did, peer_did);

    // A client with the old keys gets responses from them, since it cannot verify others.
    let old = client.tell("ping", by_web.clone());
    assert_eq!(old["status"], 200, "{old}");
    assert_eq!(old["sender"], before["keyAgreement"][0]);
    let old = client.tell("ping", json!({}));
    assert_eq!(old["message"]["from"], peer_did);
    client.forward(&client.did, &client.pack_for(&client.did));
    assert_eq!(client.waiting(None), 1);

    // A client that resolves again finds the new keys and gets responses from them.
    know(&after);
    let new = client.tell("ping", by_web);
    assert_eq!(new["status"], 200, "{new}");
    assert_eq!(new["sender"], after["keyAgreement"][0]);
    let mut newcomer = mediator.client();
    newcomer.mediators = vec![new_peer_did.clone()];
    newcomer.turn_to(&new_peer_did, &mediator);
    newcomer.enter(&newcomer.did);
    newcomer.forward(&newcomer.did, &newcomer.pack_for(&newcomer.did));
    assert_eq!(newcomer.waiting(None), 1);
    // The account is the same under both DIDs of the mediator.
    client.turn_to(&new_peer_did, &mediator);
    let status = client.script().op("status", json!({"from": client.did}));
    assert_eq!(status["message"]["body"]["message_count"], 1, "{status}");
    client.turn_to(&peer_did, &mediator);

    let mediator = Mediator::restart(mediator.stop());
    assert_eq!(get(&mediator, DOCUMENT).json(), after);
    assert_eq!(mediator.did, new_peer_did);
    assert_eq!(client.waiting(None), 1);
}

#[test]
fn keys_are_changed_while_nothing_runs() {
    let mediator = Mediator::start(Mediator::setup());
    let client = mediator.member();
    let before = get(&mediator, DOCUMENT).json();
    let stopped = mediator.stop();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(["keys", "rotate", "--json", "--data-dir"])
        .arg(stopped.data_dir())
        .output()
        .expect("the program");
    let rotated: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(rotated, json!({"generation": 2, "inUse": false}));
    let mediator = Mediator::restart(stopped);
    assert_ne!(get(&mediator, DOCUMENT).json(), before);
    assert_eq!(client.waiting(None), 0);
}

#[test]
fn without_its_keys_it_does_not_start_on_mail_that_is_there() {
    let mediator = Mediator::start(Mediator::setup());
    let stopped = mediator.stop();
    let (keys, mailbox) = (
        stopped.data_dir().join(KEYS),
        stopped.data_dir().join("mailbox.db"),
    );
    let kept = std::fs::read(&keys).expect("the keys");
    std::fs::remove_file(&keys).expect("a file");
    let (code, stderr) = stopped.refuses_to_start();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
    assert!(
        stderr.contains("backup") && stderr.contains("mailbox.db"),
        "{stderr}"
    );
    assert!(
        !keys.exists() && mailbox.exists(),
        "nothing is made in their place"
    );

    // The service does not start on keys that other users may read.
    std::fs::write(&keys, kept).expect("a file");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).expect("a file");
    let (code, stderr) = stopped.refuses_to_start();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("hint: chmod 600"), "{stderr}");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).expect("a file");
    drop(Mediator::restart(stopped));
}

#[test]
fn the_operator_sees_queues() {
    // No mediator listens there.
    let elsewhere = "did:web:localhost%3A9";
    let setup = Mediator::setup().set("mediator.relay.allow", json!([elsewhere]));
    let mediator = Mediator::start(setup);
    assert_private(&mediator.service().data_dir().join("admin.sock"));
    let client = mediator.member();
    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    let status = mediator.operate(&["mailbox", "status"]);
    assert_eq!(status["did"], mediator.web);
    assert_eq!(status["accounts"], 1);
    assert_eq!(status["messages"], 1);
    assert_eq!(status["bytes"], message.envelope.len());
    assert!(
        status["fileBytes"].as_u64().is_some_and(|bytes| bytes > 0),
        "{status}"
    );
    client.ask("received", json!({"ids": [message.id()]}));
    let status = mediator.operate(&["mailbox", "status"]);
    assert_eq!(
        (&status["messages"], &status["bytes"]),
        (&json!(0), &json!(0))
    );
    let status = mediator.operate(&["relay", "status"]);
    let nothing = json!({"waiting": 0, "waitingBytes": 0, "destinations": []});
    assert_eq!(status, nothing);
    client.forward(elsewhere, &message);
    let status = eventually("an attempt failed", || {
        let status = mediator.operate(&["relay", "status"]);
        (status["destinations"][0]["failed"].as_u64() > Some(0)).then_some(status)
    });
    assert_eq!(status["waiting"], 1);
    // With its route.
    let bytes = status["waitingBytes"].as_u64().expect("a number");
    assert!(bytes > message.envelope.len() as u64, "{status}");
    let destination = &status["destinations"][0];
    assert_eq!(destination["did"], elsewhere);
    assert_eq!(destination["waiting"], 1);
    assert_eq!(destination["delivered"], 0);
    assert!(destination["lastError"].is_string(), "{destination}");
    assert!(destination["lastAt"].is_string(), "{destination}");

    // The admin socket ends with the service, and the command gives a hint then.
    let stopped = mediator.stop();
    assert!(!stopped.data_dir().join("admin.sock").exists());
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(["mailbox", "status", "--data-dir"])
        .arg(stopped.data_dir())
        .output()
        .expect("the program");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("no service runs") && stderr.contains("hint: "),
        "{stderr}"
    );
}

#[test]
fn the_operator_finds_a_queue_and_empties_it() {
    let mediator = Mediator::start(Mediator::setup());
    let (full, other) = (mediator.member(), mediator.member());
    let mut bytes = 0;
    for _ in 0..3 {
        let message = full.pack_for(&full.did);
        bytes += message.envelope.len();
        full.forward(&full.did, &message);
    }
    other.forward(&other.did, &other.pack_for(&other.did));
    let list = mediator.operate(&["mailbox", "list", "--limit", "1"]);
    assert_eq!(list["messages"], 4);
    assert_eq!(list["queues"].as_array().map(Vec::len), Some(1));
    let queue = &list["queues"][0];
    assert_eq!(queue["did"], full.did);
    assert_eq!(
        (&queue["messages"], &queue["bytes"]),
        (&json!(3), &json!(bytes))
    );
    assert_eq!(
        (&queue["registered"], &queue["accounts"]),
        (&json!(true), &json!([]))
    );
    assert!(queue["oldest"].is_string(), "{queue}");

    let emptied = json!([{"did": full.did, "messages": 3, "bytes": bytes}]);
    let purge = |dry_run: bool| {
        let mut arguments = vec!["mailbox", "purge", &full.did];
        arguments.extend(dry_run.then_some("--dry-run"));
        mediator.operate(&arguments)
    };
    let counted = purge(true);
    assert_eq!(counted["dryRun"], true);
    assert_eq!(counted["queues"], emptied);
    assert_eq!(full.waiting(None), 3);
    let purged = purge(false);
    assert_eq!(
        (&purged["dryRun"], &purged["queues"]),
        (&json!(false), &emptied)
    );
    assert_eq!((full.waiting(None), other.waiting(None)), (0, 1));
    assert_eq!(purge(false)["messages"], 0);
    // The queue takes mail as before.
    full.forward(&full.did, &full.pack_for(&full.did));
    assert_eq!(full.waiting(None), 1);

    for (did, wanted) in [
        (
            "did:peer:2.unknown",
            "no queue is kept here for did:peer:2.unknown",
        ),
        (
            "did:plc:ewvi7nxzyoun6zhxrhs64oiz",
            "no queue is kept here for did:plc",
        ),
        ("alice.example.com", "alice.example.com is no did:peer"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_atcomm"))
            .args(["mailbox", "purge", did, "--data-dir"])
            .arg(mediator.service().data_dir())
            .output()
            .expect("the program");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains(wanted) && stderr.contains("hint: "),
            "{stderr}"
        );
    }
}
