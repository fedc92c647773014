//! `atcomm snapshot`: a copy of the directory while the service writes it.

use std::process::{Command, Output};

use atcomm::store::DirectoryStore;
use serde_json::{Value, json};

use crate::http::RUNTIME;
use crate::network::Network;
use crate::service::{Service, Setup};

fn snapshot(service: &Service, file: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(["snapshot", file, "--data-dir"])
        .arg(service.data_dir())
        .args(more)
        .output()
        .expect("the program")
}

#[test]
fn a_snapshot_holds_what_the_directory_has_and_is_one() {
    let network = Network::multikey();
    let service = Setup::new(network).pds(network, 0).start();
    let alice = network.enrolled("alice", 0, json!({}));
    let view = service.until(&alice.did, "the package", |_| true);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("copy.db");
    let name = file.to_str().expect("UTF-8");

    let taken = snapshot(&service, name, &["--json"]);
    assert!(taken.status.success(), "{taken:?}");
    let taken: Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    assert!(taken["accounts"].as_u64() >= Some(1), "{taken}");

    let again = snapshot(&service, name, &[]);
    let message = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{message}");
    assert!(message.contains("exists"), "{message}");
    service.recipient(&alice.did).expect("the package");

    let store = DirectoryStore::open(&file).expect("a directory's file");
    let did = alice.did();
    let entry = RUNTIME.block_on(store.query(move |q| q.entry(&did)));
    let entry = entry.expect("the store").expect("the entry");
    assert_eq!(
        view["keyPackage"]["cid"],
        entry.cid.expect("a CID").to_string()
    );
}
