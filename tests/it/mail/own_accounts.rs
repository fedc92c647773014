//! `atcomm server accounts`: the accounts of one's own PDS, and whether messages reach them.

use std::process::Command;

use serde_json::{Value, json};

use super::{PeerClient, mediator};
use crate::http::eventually;
use crate::network::Network;
use crate::service::Service;

/// Asks for the accounts, and returns one of them.
fn account(service: &Service, did: &str) -> Option<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args([
            "server",
            "accounts",
            "--json",
            "--limit",
            "10000",
            "--data-dir",
        ])
        .arg(service.data_dir())
        .output()
        .expect("the program");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["pdses"].as_array().map(Vec::len), Some(1));
    let accounts = answer["accounts"].as_array().expect("accounts").clone();
    accounts.into_iter().find(|one| one["did"] == did)
}

#[test]
fn an_operator_sees_whom_messages_reach() {
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| {
        setup
            .set("pds.url", json!(network.pds_url(0)))
            .set("mediator.admission", json!("local"))
    });
    let (near, far) = (PeerClient::new(), PeerClient::new());
    let here = json!({"did": near.did, "mediators": [endpoint.did]});
    let alice = network.enrolled("alice", 0, here.clone());
    let elsewhere = json!({"did": far.did, "mediators": ["did:web:mail.example.com"]});
    let bob = network.enrolled("bob", 0, elsewhere);
    let carol = network.enrolled("carol", 1, here);
    for one in [&alice, &bob, &carol] {
        service.until(&one.did, "the package", |_| true);
    }
    // Published, and its client has not come yet.
    let found = account(&service, &alice.did).expect("alice");
    assert_eq!(found["state"], "enrolled");
    assert_eq!(found["new"], true);
    assert_eq!(found["mediators"], json!([endpoint.did]));
    assert_eq!(found["here"], json!({"registered": false, "waiting": 0}));
    assert!(near.request(&endpoint, Some(&alice.did)));
    endpoint.take(&endpoint.forward(&near.did, &near.envelope("one")));
    let found = account(&service, &alice.did).expect("alice");
    assert_eq!(found["here"]["registered"], true);
    assert_eq!(found["here"]["waiting"], 1);
    assert!(found["here"]["seenAt"].is_string(), "{found}");
    // Another mediator keeps its mail.
    let found = account(&service, &bob.did).expect("bob");
    assert_eq!(found["state"], "enrolled");
    assert!(found.get("here").is_none(), "{found}");
    // Of another PDS.
    assert_eq!(account(&service, &carol.did), None);
    alice.delete_record();
    eventually("alice has left", || {
        let found = account(&service, &alice.did)?;
        (found["state"] == "removed").then_some(())
    });
}
