//! A mediator that retires: it tells its accounts, takes no new ones, and takes mail until its end.

use std::process::Command;

use atcomm_proto::didcomm::protocol::problem::{RETIRING, Report};
use serde_json::{Value, json};

use super::enrolled::{is_accepted, package_naming};
use super::{Message, PeerClient, mediator, unpack};
use crate::http::eventually;
use crate::network::Network;
use crate::service::Service;

/// Runs `atcomm server drain` with flags. Returns when the mediator retires.
#[track_caller]
fn drain(service: &Service, flags: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(["server", "drain", "--json", "--data-dir"])
        .arg(service.data_dir())
        .args(flags)
        .output()
        .expect("the program");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    answer["retiresAt"].clone()
}

#[test]
fn a_mediator_that_retires_says_so_and_takes_mail_until_its_end() {
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| {
        setup
            .pds(network, 0)
            .streams_only()
            .set("mediator.report_unknown", json!(true))
    });
    let (old, new) = (PeerClient::new(), PeerClient::new());
    let account = network.enrolled("old", 0, package_naming(&old, &endpoint));
    let newcomer = network.enrolled("new", 0, package_naming(&new, &endpoint));
    for one in [&account, &newcomer] {
        service.refresh(&one.did).expect("the package");
    }
    assert!(old.request(&endpoint, Some(&account.did)));
    let end = drain(&service, &[]);
    assert!(end.is_string());
    // Those who are there stay, and no others come.
    assert!(old.request(&endpoint, Some(&account.did)));
    assert!(!new.request(&endpoint, Some(&newcomer.did)));
    assert!(is_accepted(&endpoint, &old, "until the end"));
    let report = eventually("the account is told", || {
        let envelopes = old.empty(&endpoint);
        let party = |did: &str| endpoint.party.is(did).then(|| endpoint.party.clone());
        let reports = envelopes.iter().filter_map(|envelope| {
            let opened = unpack(envelope, &old.keys, &party).ok()?;
            let message = Message::parse(&opened.plaintext).ok()?;
            message.body_of::<Report>().ok()
        });
        reports.into_iter().find(|report| report.code == RETIRING)
    });
    assert_eq!(
        report.args,
        [
            endpoint.did.clone(),
            end.as_str().expect("a time").to_owned()
        ]
    );
    // The decision survives a restart, and nothing is told twice.
    let service = service.stop().start();
    assert!(!new.request(&endpoint, Some(&newcomer.did)));
    assert!(is_accepted(&endpoint, &old, "after a restart"));
    // The end itself: nothing is taken, and what waits can be fetched.
    drain(&service, &["--days", "0"]);
    assert!(!is_accepted(&endpoint, &old, "too late"));
    assert_eq!(old.empty(&endpoint).len(), 1);
    assert_eq!(drain(&service, &["--cancel"]), Value::Null);
    assert!(is_accepted(&endpoint, &old, "again"));
    assert!(new.request(&endpoint, Some(&newcomer.did)));
}
