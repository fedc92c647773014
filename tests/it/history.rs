//! Answers with the evidence for clients: proofs, also of earlier packages, and the operation log
//! with the keys that signed them.

use std::io::Write as _;
use std::process::Stdio;
use testkit::network::script;

use atcomm_proto::key::SigningKey;
use atcomm_proto::plc::{self, VerifiedLog};
use atcomm_proto::proof::{Container, Proven, verify};
use atcomm_proto::syntax::Did;
use serde_json::{Value, json};

use crate::http::eventually;
use crate::network::{Account, Network, in_both_shapes, text};
use crate::service::{HISTORY, Service, Setup, XrpcError, car_of, checked, xrpc_error};

/// Returns the verdict on a log by the reference implementation of did:plc.
#[track_caller]
fn reference_verdict(did: &str, log: &Value) -> Value {
    let mut child = script("node.sh")
        .arg("plc_log.mjs")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/network/plc_log.mjs");
    let question = json!({"did": did, "log": log});
    let mut input = child.stdin.take().expect("a pipe");
    writeln!(input, "{question}").expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("a child");
    serde_json::from_slice(&output.stdout).expect("a line of JSON")
}

/// Returns the log in an answer, after checking that this library and the reference implementation
/// agree on it.
#[track_caller]
fn log_of(did: &str, log: &Value) -> VerifiedLog {
    let bytes = log.to_string();
    let account = Did::parse(did).expect("a DID");
    let read = plc::verify(&account, bytes.as_bytes()).expect("a log that holds");
    let theirs = reference_verdict(did, log);
    assert_eq!(theirs["ok"], true, "{theirs}");
    assert_eq!(theirs["states"], read.states().len());
    let now = read.current().expect("an account that has not ended");
    let key = now.signing_key.as_ref().map(SigningKey::did_key);
    let data = &theirs["data"];
    assert_eq!(
        key.as_deref(),
        data["verificationMethods"]["atproto"].as_str()
    );
    let pds = now.pds.as_ref().map(|pds| pds.as_str());
    assert_eq!(pds, data["services"]["atproto_pds"]["endpoint"].as_str());
    let handle = now.handle.as_ref().map(|handle| format!("at://{handle}"));
    assert_eq!(handle.as_deref(), data["alsoKnownAs"][0].as_str());
    read
}

/// Returns the record that a proof shows under a key.
#[track_caller]
fn record_of(did: &str, holder: &Value, key: &SigningKey) -> String {
    let now = atcomm_proto::clock::Clock::system().now();
    let did = Did::parse(did).expect("a DID");
    let proven = verify(&car_of(holder), Container::Commit, &did, key, now);
    match proven.expect("a proof that holds") {
        Proven::Present(record) => record.cid().to_string(),
        Proven::Absent(_) => panic!("a proof of absence"),
    }
}

impl Service {
    #[track_caller]
    fn history(&self, did: &str, params: &[(&str, &str)]) -> Result<Value, XrpcError> {
        let params = [&[("did", did)], params].concat();
        checked(HISTORY, &self.query(HISTORY, &params))
    }

    /// Calls `resolveRecipient` with the proof until the answer has the operation log.
    #[track_caller]
    fn with_log(&self, did: &str) -> Value {
        eventually("an answer with the operation log", || {
            let view = self.recipient_with_proof(did).ok()?;
            view["proof"].get("plcLog").is_some().then_some(view)
        })
    }
}

/// Returns the number of requests for operation logs to the PLC directory since the last call.
fn logs_asked(network: &Network) -> i64 {
    let asked = network.op("plc.requests", json!({"reset": true}));
    let paths = asked["paths"].as_object().expect("an object").iter();
    let logs = paths.filter(|(path, _)| path.ends_with("/log/audit"));
    logs.filter_map(|(_, count)| count.as_i64()).sum()
}

in_both_shapes! {
    fn inv1_the_log_in_an_answer_leads_from_the_did_to_the_key_of_its_proof(network) {
        let service = Setup::beside(network).start();
        let alice = network.enrolled("alice", 0, json!({}));
        service.until(&alice.did, "the package", |_| true);
        for _ in 0..2 {
            let view = service.with_log(&alice.did);
            let log = log_of(&alice.did, &view["proof"]["plcLog"]);
            let now = log.current().expect("an account");
            let key = now.signing_key.clone().expect("a key");
            assert_eq!(view["verification"]["signingKey"], key.did_key());
            assert_eq!(record_of(&alice.did, &view, &key), text(&view, "/keyPackage/cid"));
            // The log of another account does not verify for this one.
            let other = network.account("other", 0);
            let bytes = view["proof"]["plcLog"].to_string();
            assert!(plc::verify(&other.did(), bytes.as_bytes()).is_err());
            // The next proof is signed by another key.
            alice.op("account.rotate", json!({}));
            alice.put(json!({"label": "rotated"}));
            let key = network.signing_key(&alice.did).did_key();
            service.until(&alice.did, "a proof under the new key", |view| {
                view["verification"]["signingKey"] == *key
            });
        }
        // An answer has the evidence only on request.
        let plain = service.recipient(&alice.did).expect("the package");
        assert_eq!(plain.get("proof"), None);
    }

    fn inv1_packages_that_were_replaced_keep_proofs_that_hold_from_the_did_on(network) {
        let service = Setup::beside(network).start();
        let alice = network.enrolled("alice", 0, json!({"label": "first"}));
        let first = service.until(&alice.did, "the package", |_| true);
        alice.op("account.rotate", json!({}));
        let second = alice.put(json!({"label": "second"}));
        service.until_cid(&alice.did, &second["cid"]);
        let third = alice.put(json!({"label": "third"}));
        service.until_cid(&alice.did, &third["cid"]);
        let history = eventually("a history with the operation log", || {
            let history = service.history(&alice.did, &[("proof", "true")]).ok()?;
            history.get("plcLog").is_some().then_some(history)
        });
        let log = log_of(&alice.did, &history["plcLog"]);
        let known = |key: &str| {
            let mut keys = log.states().iter().filter_map(|state| state.signing_key.as_ref());
            keys.find(|known| known.did_key() == key).expect("a key that the account had")
        };
        let packages: Vec<&Value> = history["changes"].as_array().expect("a list").iter()
            .filter(|change| change["kind"] == "package").collect();
        let cids = [&third["cid"], &second["cid"], &first["keyPackage"]["cid"]];
        assert_eq!(packages.len(), cids.len());
        for (change, cid) in packages.into_iter().zip(cids) {
            let key = known(text(change, "/signingKey"));
            assert_eq!(record_of(&alice.did, change, key), *cid);
            assert_eq!(change["cid"], *cid);
        }
        // The pages together equal the whole history.
        let (mut paged, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let mut params = vec![("limit", "2"), ("proof", "true")];
            params.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
            let page = service.history(&alice.did, &params).expect("a page");
            paged.extend(page["changes"].as_array().expect("a list").clone());
            match page.get("cursor").and_then(Value::as_str) {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        assert_eq!(json!(paged), history["changes"]);
    }

    fn the_log_of_an_account_that_moved_leads_to_the_key_before(network) {
        let service = Setup::beside(network).streams_only().no_refresh_on_demand().start();
        service.until_following(2);
        let alice = network.enrolled("alice", 0, json!({}));
        service.until(&alice.did, "the package", |_| true);
        let before = service.with_log(&alice.did);
        alice.op("account.migrate", json!({"to": 1}));
        service.until(&alice.did, "the package at the new PDS", |view| {
            view["verification"]["beforeMove"] == true
        });
        let view = service.with_log(&alice.did);
        let log = log_of(&alice.did, &view["proof"]["plcLog"]);
        assert!(log.states().len() > log_of(&alice.did, &before["proof"]["plcLog"]).states().len());
        let (key, _) = log.pre_migration_key().expect("a key before the move");
        assert_eq!(view["verification"]["signingKey"], key.did_key());
        assert_eq!(record_of(&alice.did, &view, key), text(&view, "/keyPackage/cid"));
        let put = alice.put(json!({"label": "moved"}));
        service.until_cid(&alice.did, &put["cid"]);
        let view = service.with_log(&alice.did);
        let log = log_of(&alice.did, &view["proof"]["plcLog"]);
        let now = log.current().expect("an account").signing_key.clone().expect("a key");
        assert_eq!(record_of(&alice.did, &view, &now), text(&view, "/keyPackage/cid"));
    }
}

#[test]
fn who_is_no_did_plc_has_proofs_without_a_log() {
    let network = Network::multikey();
    let service = Setup::beside(network).start();
    let dave = network.web_account("dave", 0, json!({}));
    service.until(&dave.did, "the package", |_| true);
    let view = service
        .recipient_with_proof(&dave.did)
        .expect("the package");
    assert_eq!(view["proof"].get("plcLog"), None);
    assert!(!car_of(&view).is_empty());
    let history = service.history(&dave.did, &[("proof", "true")]);
    let history = history.expect("a history");
    assert_eq!(history.get("plcLog"), None);
    // The verified handle is an earlier change, since it is resolved later than the package.
    let mut changes = history["changes"].as_array().expect("a list").iter();
    let package = changes.find(|change| change["kind"] == "package");
    assert!(!car_of(package.expect("the package")).is_empty());
}

#[test]
fn histories_are_refused_or_empty_where_there_is_no_account() {
    let network = Network::multikey();
    let service = Setup::beside(network).start();
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    let unlisted = network.account("unlisted", 0);
    let empty = json!({"did": unlisted.did, "changes": []});
    let proof = [("proof", "true")];
    assert_eq!(service.history(&unlisted.did, &proof), Ok(empty));
    for params in [
        &[("limit", "0")][..],
        &[("limit", "101")],
        &[("limit", "many")],
        &[("cursor", "0")],
        &[("cursor", "-1")],
        &[("cursor", "next")],
        &[("proof", "yes")],
        &[("did", "alice.test")],
    ] {
        let params = [&[("did", &*alice.did)], params].concat();
        let answer = service.query(HISTORY, &params);
        let failure = xrpc_error(HISTORY, &answer);
        assert_eq!((failure.status, &*failure.name), (400, "InvalidRequest"));
    }
    let history = service.history(&alice.did, &[]).expect("a history");
    let changes = history["changes"].as_array().expect("a list");
    assert!(changes.iter().any(|change| change["kind"] == "package"));
    alice.op("account.deactivate", json!({}));
    service.until_refused(&alice.did, "AccountInactive");
    let refused = service.history(&alice.did, &proof).expect_err("nothing");
    assert_eq!((refused.status, &*refused.name), (400, "AccountInactive"));
    // A deleted account has no visible history.
    alice.op("account.activate", json!({}));
    service.until(&alice.did, "the package", |_| true);
    alice.op("account.delete", json!({"tombstone": true}));
    let ended = service.refresh(&alice.did).expect_err("no account");
    assert_eq!(ended.name, "DidNotFound");
    let history = service.history(&alice.did, &proof).expect("nothing");
    assert_eq!(history, json!({"did": alice.did, "changes": []}));
}

/// No event reports the change here; a refresh evicts the cached log, too.
#[test]
fn a_refreshed_account_is_shown_with_a_log_of_its_time() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let alice = network.enrolled("alice", 0, json!({}));
    let before = service.recipient_with_proof(&alice.did).expect("a view");
    let before = log_of(&alice.did, &before["proof"]["plcLog"]);
    alice.op("account.rotate", json!({}));
    alice.put(json!({"label": "rotated"}));
    let refreshed = service.refresh(&alice.did).expect("an outcome");
    assert_eq!(refreshed["outcome"], "package");
    let view = service.recipient_with_proof(&alice.did).expect("a view");
    let log = log_of(&alice.did, &view["proof"]["plcLog"]);
    assert!(log.states().len() > before.states().len());
    let key = log.current().expect("an account").signing_key.clone();
    let key = key.expect("a key");
    let cid = text(&view, "/keyPackage/cid");
    assert_eq!(record_of(&alice.did, &view, &key), cid);
}

/// Uses a network of its own, since it stops the PLC directory and counts the requests to it.
#[test]
fn logs_are_asked_for_once_and_left_out_where_they_cannot_be_had() {
    let network = Network::own(&["--multikey"]);
    let service = Setup::beside(network).start();
    let enrolled = |name: &str| -> Account {
        let account = network.enrolled(name, 0, json!({}));
        service.until(&account.did, "the package", |view| {
            view["handle"] == *account.handle
        });
        account
    };
    let (alice, bob) = (enrolled("alice"), enrolled("bob"));
    let put = alice.put(json!({"label": "second"}));
    service.until_cid(&alice.did, &put["cid"]);
    logs_asked(network);
    let view = service.with_log(&alice.did);
    assert_eq!(logs_asked(network), 1);
    network.op("plc.stop", json!({}));
    let again = service.with_log(&alice.did);
    assert_eq!(again["proof"], view["proof"]);
    let history = service.history(&alice.did, &[("proof", "true")]);
    assert_eq!(
        history.expect("a history")["plcLog"],
        view["proof"]["plcLog"]
    );
    // A log that is not cached is left out of the answer.
    let without = service.recipient_with_proof(&bob.did).expect("the package");
    assert_eq!(without["proof"].get("plcLog"), None);
    assert!(!car_of(&without).is_empty());
    network.op("plc.start", json!({}));
    // An event of the account evicts its log.
    logs_asked(network);
    alice.op("account.rotate", json!({}));
    let put = alice.put(json!({"label": "third"}));
    service.until_cid(&alice.did, &put["cid"]);
    let renewed = service.with_log(&alice.did);
    let log = log_of(&alice.did, &renewed["proof"]["plcLog"]);
    let before = log_of(&alice.did, &view["proof"]["plcLog"]);
    assert_eq!(log.states()[..before.states().len()], *before.states());
    assert!(log.states().len() > before.states().len());
    assert!(logs_asked(network) >= 1);
}

#[test]
fn logs_are_within_the_budgets_of_callers() {
    let network = Network::multikey();
    let (alice, bob) = (
        network.enrolled("alice", 0, json!({})),
        network.enrolled("bob", 0, json!({})),
    );
    for limit in ["identity.plc_rate", "resolve.misses_per_minute"] {
        let service = Setup::beside(network).set(limit, json!(1)).start();
        // Changes from the streams cost callers nothing, and neither does a history without proofs.
        for account in [&alice, &bob] {
            eventually("the package in the history", || {
                let history = service.history(&account.did, &[]).ok()?;
                let mut changes = history["changes"].as_array()?.iter();
                changes.find(|change| change["kind"] == "package").cloned()
            });
            service.until(&account.did, "the package with its handle", |view| {
                view["handle"] == *account.handle
            });
        }
        let first = service.recipient_with_proof(&alice.did).expect("a view");
        let second = service.recipient_with_proof(&bob.did).expect("a view");
        let has_log = |view: &Value| view["proof"].get("plcLog").is_some();
        assert!(has_log(&first), "{limit}");
        assert!(!has_log(&second), "{limit}");
        // A cached log costs nothing.
        let again = service.recipient_with_proof(&alice.did).expect("a view");
        assert!(has_log(&again), "{limit}");
    }
}
