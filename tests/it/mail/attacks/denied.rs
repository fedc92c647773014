//! Accounts that fill the store and never read, and the operator who denies them.

use std::process::Command;

use serde_json::{Value, json};

use super::super::{MediatorEndpoint, PeerClient, mediator};
use super::print_harm;
use crate::http::eventually;
use crate::network::{Account, Network};
use crate::service::{Service, Setup};

/// Accounts of the attacker.
const ACCOUNTS: usize = 4;

/// Messages for each, and the bytes of each.
const MESSAGES: usize = 5;
const SIZE: usize = 50_000;

/// Runs a command of the operator.
#[track_caller]
fn operate(service: &Service, arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .arg("mailbox")
        .args(arguments)
        .arg("--json")
        .arg("--data-dir")
        .arg(service.data_dir())
        .output()
        .expect("the program");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn bytes(service: &Service) -> u64 {
    operate(service, &["status"])["bytes"]
        .as_u64()
        .expect("a number")
}

/// Enrols an account that names the mediator.
#[track_caller]
fn enrol(
    network: &'static Network,
    service: &Service,
    endpoint: &MediatorEndpoint,
    peer: &PeerClient,
) -> Account {
    let package = json!({"did": peer.did, "mediators": [endpoint.did]});
    let account = network.enrolled("filler", 0, package);
    service.refresh(&account.did).expect("the package");
    PeerClient::new().request(endpoint, Some(&account.did));
    account
}

/// Fills the queues of an attacker's accounts.
fn fill(endpoint: &MediatorEndpoint, peers: &[PeerClient]) {
    for peer in peers {
        for n in 0..MESSAGES {
            let words = format!("{n}").repeat(SIZE);
            endpoint.take(&endpoint.forward(&peer.did, &peer.envelope(&words)));
        }
    }
}

/// Restarts a service with other accounts denied.
#[track_caller]
fn deny(service: Service, endpoint: &MediatorEndpoint, denied: &[&str]) -> Service {
    let port = endpoint.port;
    let setup = Setup::new(Network::multikey())
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set(
            "mediator.public_url",
            json!(format!("http://localhost:{port}")),
        )
        .set("mediator.deny", json!(denied));
    service.stop().start_as(setup)
}

#[test]
fn inv7_mail_of_denied_accounts_makes_room_and_other_mail_stays() {
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| setup);
    let peers: Vec<PeerClient> = (0..ACCOUNTS).map(|_| PeerClient::new()).collect();
    let accounts: Vec<Account> = peers
        .iter()
        .map(|peer| enrol(network, &service, &endpoint, peer))
        .collect();
    // One of them has been here, which gives it no right to what waits.
    peers[0].request(&endpoint, None);
    fill(&endpoint, &peers);
    // The attacker also publishes the did:peer of an honest account.
    let alice = PeerClient::new();
    enrol(network, &service, &endpoint, &alice);
    let thief = enrol(network, &service, &endpoint, &alice);
    endpoint.take(&endpoint.forward(&alice.did, &alice.envelope("for alice")));
    let before = bytes(&service);
    assert!(before > (ACCOUNTS * MESSAGES * SIZE) as u64);
    let denied: Vec<&str> = accounts
        .iter()
        .chain([&thief])
        .map(|one| &*one.did)
        .collect();
    let service = deny(service, &endpoint, &denied);
    let mut after = bytes(&service);
    for _ in 0..100 {
        if after < 10_000 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
        after = bytes(&service);
    }
    print_harm(
        "filling the store for accounts that never read, and then are denied",
        &format!(
            "{ACCOUNTS} accounts, {} requests, {before} bytes",
            ACCOUNTS * MESSAGES
        ),
        &format!("{after} bytes still taken"),
    );
    assert!(after < 10_000, "{after} of {before} bytes are still taken");
    let left = operate(&service, &["list"]);
    assert_eq!(left["queues"].as_array().map(Vec::len), Some(1), "{left}");
    assert!(alice.request(&endpoint, None));
    assert_eq!(alice.collect(&endpoint, 1), ["for alice"]);
    let purged = service.metric("atcomm_mediator_purged_total", &[("reason", "denied")]);
    assert_eq!(purged, (ACCOUNTS * MESSAGES) as f64);
}

#[test]
fn the_operator_purges_an_account_and_not_what_others_claim() {
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| setup);
    let [own, alice] = [(); 2].map(|()| PeerClient::new());
    let account = enrol(network, &service, &endpoint, &own);
    fill(&endpoint, std::slice::from_ref(&own));
    let owner = enrol(network, &service, &endpoint, &alice);
    // The account turns to the did:peer of another: it has claimed both now.
    account.put(json!({"did": alice.did, "mediators": [endpoint.did]}));
    service.refresh(&account.did).expect("the package");
    PeerClient::new().request(&endpoint, Some(&account.did));
    endpoint.take(&endpoint.forward(&alice.did, &alice.envelope("for alice")));

    let list = operate(&service, &["list"]);
    assert_eq!(list["queues"][0]["did"], own.did);
    assert_eq!(list["queues"][0]["accounts"], json!([account.did]));
    let claimed = list["queues"][1]["accounts"].as_array().expect("a list");
    assert!(
        claimed.contains(&json!(owner.did)) && claimed.len() == 2,
        "{list}"
    );

    let purged = operate(&service, &["purge", &account.did]);
    assert_eq!(purged["messages"], MESSAGES);
    assert_eq!(purged["queues"][0]["did"], own.did);
    assert_eq!(purged["kept"][0]["did"], alice.did);
    assert_eq!(purged["kept"][0]["messages"], 1);
    let left = eventually("one queue is left", || {
        let left = operate(&service, &["list"]);
        (left["messages"] == 1).then_some(left)
    });
    assert_eq!(left["queues"][0]["did"], alice.did);
}
