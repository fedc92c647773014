//! Directories and PDSes that lie to a client. Each lie is refused, or overruled with a warning
//! that names the lying server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use super::{CliEnv, Output};
use crate::http::{RUNTIME, eventually, try_request};
use crate::network::{Account, MEDIATOR_KEY, Network, text};
use crate::service::{Service, Setup};

/// Changes an answer, given the path with its query and the JSON of a success.
type Rule = dyn Fn(&str, Value) -> Value + Send + Sync;

/// A server that passes requests on to another server and changes its answers.
pub(super) struct LyingServer {
    pub(super) url: String,
}

impl LyingServer {
    pub(super) fn before(
        real: &str,
        rule: impl Fn(&str, Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        let real: Arc<str> = real.trim_end_matches('/').into();
        let rule: Arc<Rule> = Arc::new(rule);
        let answer = move |uri: Uri, method: axum::http::Method, body: Bytes| {
            let (real, rule) = (Arc::clone(&real), Arc::clone(&rule));
            async move {
                let url = format!("{real}{uri}");
                let asked = uri.to_string();
                // The helper blocks on a runtime of its own.
                let answered = tokio::task::spawn_blocking(move || {
                    let headers = [("content-type", "application/json")];
                    try_request(method.as_str(), &url, &headers, Some(body.to_vec()))
                });
                let Ok(Ok(answer)) = answered.await else {
                    return StatusCode::BAD_GATEWAY.into_response();
                };
                let status = StatusCode::from_u16(answer.status).expect("a status");
                let body = match (answer.status, serde_json::from_slice(&answer.body)) {
                    (200, Ok(value)) => rule(&asked, value).to_string().into_bytes(),
                    _ => answer.body,
                };
                (status, [("content-type", "application/json")], body).into_response()
            }
        };
        let listener = RUNTIME.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let router = Router::new().fallback(answer);
        RUNTIME.spawn(async move { axum::serve(listener, router).await });
        Self {
            url: format!("http://localhost:{port}"),
        }
    }

    /// Starts a directory that changes its recipient views.
    pub(super) fn directory(
        service: &Service,
        rule: impl Fn(Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self::before(&service.url(""), move |asked, answer| {
            if asked.contains("resolveRecipient") {
                rule(answer)
            } else {
                answer
            }
        })
    }
}

/// Returns an environment whose requests can be told apart by their contact, and which may use
/// another PLC directory.
fn cli_env(network: &Network, plc: Option<&str>) -> (CliEnv, String) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let contact = format!("liars-{}@", NUMBER.fetch_add(1, Ordering::Relaxed));
    let cli = CliEnv::new(network);
    let config = std::fs::read_to_string(cli.path("config.toml")).expect("a file");
    let config = config.replace("[net]\n", &format!("[net]\ncontact = \"{contact}\"\n"));
    let config = config.replace(network.plc(), plc.unwrap_or(network.plc()));
    std::fs::write(cli.path("config.toml"), config).expect("a file");
    (cli, contact)
}

/// Starts a directory without sources.
fn start_directory() -> (&'static Network, Service) {
    let network = Network::multikey();
    (network, Setup::new(network).start())
}

/// Creates an account with a key package whose mediator answers.
fn enrolled(network: &'static Network, name: &str) -> Account {
    network.enrolled(name, 0, json!({"mediators": [network.mediator()]}))
}

/// Returns the directory's view with all evidence.
#[track_caller]
fn view(service: &Service, did: &str) -> Value {
    eventually("an answer with the operation log", || {
        let view = service.recipient_with_proof(did).ok()?;
        view["proof"]["plcLog"].is_array().then_some(view)
    })
}

/// Refreshes the account and returns its view with all evidence.
#[track_caller]
fn view_now(service: &Service, did: &str) -> Value {
    service.refresh(did).expect("an outcome");
    view(service, did)
}

#[track_caller]
fn resolve(cli: &CliEnv, actor: &str, directory: &str) -> Output {
    cli.run(&["resolve", actor, "--directory", directory, "--json"])
}

fn codes(answer: &Value) -> Vec<&str> {
    let warnings = answer["warnings"].as_array().expect("a list");
    warnings.iter().map(|one| text(one, "/code")).collect()
}

/// Makes a PDS refuse this environment's requests from now on.
fn silence(network: &Network, contact: &str) {
    let limit = json!({"pds": 0, "status": 503, "count": 1000, "agent": contact});
    network.op("pds.limit", limit);
}

/// Returns a CAR with a record of `did` in a repository that another key signs.
fn forged_car(did: &str, record: &Value) -> String {
    use shrike::crypto::K256SigningKey;
    use shrike::repo::Repo;
    use shrike::syntax as library;

    let clock = library::TidClock::new(1).expect("a clock");
    let mut repo = Repo::new(library::Did::try_from(did).expect("a DID"), clock);
    let collection = library::Nsid::try_from("at.didcomm.keyPackage").expect("a name");
    let rkey = library::RecordKey::try_from("self").expect("a key");
    let bytes = serde_ipld_dagcbor::to_vec(record).expect("a record");
    repo.create(&collection, &rkey, &bytes).expect("a record");
    let key = K256SigningKey::from_bytes(&[7; 32]).expect("a key");
    repo.commit(&key).expect("a commit");
    let car = repo.record_proof(&collection, &rkey).expect("a proof");
    data_encoding::BASE64_NOPAD.encode(&car)
}

#[test]
fn an_honest_answer_is_verified_and_remembered() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let (cli, _) = cli_env(network, None);
    let directory = service.url("");
    let output = cli
        .run(&["resolve", &alice.handle, "--directory", &directory])
        .success();
    for part in [
        &*alice.handle,
        &alice.did,
        &network.pds_url(0),
        text(&alice.made, "/peer/did"),
        "first contact",
        "nothing newer",
        "reachable",
        "compare the fingerprint",
    ] {
        assert!(output.stdout.contains(part), "{part} in {output:?}");
    }
    assert_eq!(output.stderr, "");
    let answer = resolve(&cli, &alice.did, &directory).success().json();
    assert_eq!(answer["contact"], "same");
    assert_eq!(answer["handle"], *alice.handle);
    assert_eq!(answer["record"], alice.made["keyPackage"]);
    assert_eq!(answer["warnings"], json!([]));
    assert_eq!(answer["ambiguous"], false);
    assert_eq!(answer["operations"], 1);
    assert_eq!(
        answer["verified"].as_array().map(Vec::len),
        Some(5),
        "{answer}"
    );
    // The result without a directory is the same, except for fields that only a directory can fill.
    let own = cli
        .run(&["resolve", &alice.handle, "--directly", "--json"])
        .success()
        .json();
    assert_eq!(own["cid"], answer["cid"]);
    assert_eq!(own.get("ambiguous"), None);

    let contacts = cli.json(&["contacts"]);
    assert_eq!(contacts[0]["did"], *alice.did);
    assert_eq!(contacts[0]["fingerprint"], answer["fingerprint"]);
    let shown = cli.json(&["contacts", "show", &alice.handle]);
    assert_eq!(shown, contacts[0]);
    cli.run(&["contacts", "forget", &alice.handle]).success();
    assert_eq!(cli.json(&["contacts", "list"]), json!([]));
    let output = cli.run(&["contacts", "show", &alice.handle]);
    output.failed(1, "is no contact of this wallet", "atcomm contacts");
}

#[test]
fn what_shows_a_package_can_be_handed_on_and_verified_without_a_network() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    view(&service, &alice.did);
    let (cli, _) = cli_env(network, None);
    let directory = service.url("");
    let online = ["resolve", &alice.handle, "--directory", &directory];
    let with = |more: &[&str]| cli.run(&[&online[..], more].concat());
    let output = with(&["--proof", "proof.json"]).success();
    assert!(output.stderr.contains("saved proof.json"), "{output:?}");

    // Another environment without network verifies the same evidence.
    let other = CliEnv::new(network);
    std::fs::write(
        other.path("config.toml"),
        "[net]\nname_server = \"127.0.0.1:9\"\n[identity]\nplc_url = \"http://127.0.0.1:9\"\n",
    )
    .expect("a file");
    std::fs::copy(cli.path("proof.json"), other.path("proof.json")).expect("a file");
    let output = other.run(&["resolve", "--offline", "proof.json"]).success();
    for part in [
        &*alice.did,
        text(&alice.made, "/peer/did"),
        "not verified",
        "identifier (1 operations)",
        "nothing newer exists",
        "handle",
    ] {
        assert!(output.stdout.contains(part), "{part} in {output:?}");
    }
    let offline = |name: &str| other.run(&["resolve", "--offline", name, "--json"]);
    let answer = offline("proof.json").success().json();
    assert_eq!(answer["record"], alice.made["keyPackage"]);
    assert!(!other.wallet().exists());
    other
        .run(&["resolve", &alice.handle, "--offline", "proof.json"])
        .success();
    let output = other.run(&["resolve", "bob.pds0.test", "--offline", "proof.json"]);
    output.failed(3, "another account", "the account that it is about");

    let good: Value =
        serde_json::from_slice(&std::fs::read(cli.path("proof.json")).expect("a file"))
            .expect("JSON");
    let tampered = |change: &dyn Fn(&mut Value)| {
        let mut file = good.clone();
        change(&mut file);
        std::fs::write(other.path("bad.json"), file.to_string()).expect("a file");
        offline("bad.json")
    };
    let record = json!({"$type": "at.didcomm.keyPackage", "did": "did:peer:2.x"});
    let forged = forged_car(&alice.did, &record);
    tampered(&|file| file["car"]["$bytes"] = json!(forged)).failed(
        3,
        "not signed by the account's current key",
        "do not use",
    );
    tampered(&|file| file["plcLog"][0]["operation"]["verificationMethods"]["atproto"] = json!("x"))
        .failed(3, "the operation log does not verify", "do not use");
    tampered(&|file| file["plcLog"] = Value::Null).failed(3, "no operation log", "the network");
    tampered(&|file| file["atcomm"] = json!("evidence/9")).failed(1, "another version", "--proof");
    other.run(&["resolve", "--offline", "missing.json"]).failed(
        1,
        "cannot read missing.json",
        "--proof",
    );

    with(&["--proof", "missing/proof.json"]).failed(1, "cannot write", "make it first");
    with(&["--proof", "/dev"]).failed(1, "cannot write /dev", "directory");
    let full = cli.limited(
        "ulimit -f 0; trap '' XFSZ",
        &[&online[..], &["--proof", "f"]].concat(),
    );
    super::finish(full, "").failed(1, "cannot write", "no room left");
    assert!(!cli.path("f").exists());
    cli.run(&["resolve"]).failed(2, "no account given", "ACTOR");
    cli.run(&["resolve", "not a handle"])
        .failed(2, "not a", "a DID");
}

#[test]
fn a_directory_with_a_key_and_a_proof_of_its_own_is_refused() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let mallory = enrolled(network, "mallory");
    let mut record = alice.made["keyPackage"].clone();
    record["did"] = mallory.made["peer"]["did"].clone();
    let car = forged_car(&alice.did, &record);
    let peer = mallory.made["peer"]["did"].clone();
    let liar = LyingServer::directory(&service, move |mut view| {
        view["keyPackage"]["value"] = record.clone();
        view["peer"]["did"] = peer.clone();
        view["proof"]["car"]["$bytes"] = json!(car);
        view
    });
    let (cli, _) = cli_env(network, None);
    let refused = |url: &str, why: &str| {
        let output = resolve(&cli, &alice.handle, url);
        output.failed(3, why, "--directly");
        assert!(
            output
                .stderr
                .contains("the answer of the directory failed verification"),
            "{output:?}"
        );
        assert_eq!(output.stdout, "");
        assert_eq!(cli.json(&["contacts"]), json!([]));
    };
    refused(&liar.url, "not signed by the account's current key");

    // Another key stands beside the true proof, in each place.
    for pointer in ["/keyPackage/value/did", "/peer/did"] {
        let peer = mallory.made["peer"]["did"].clone();
        let liar = LyingServer::directory(&service, move |mut view| {
            *view.pointer_mut(pointer).expect("a field") = peer.clone();
            view
        });
        refused(&liar.url, "is not what it proves");
    }
    let liar = LyingServer::directory(&service, |mut view| {
        view.as_object_mut()
            .expect("an object")
            .shift_remove("proof");
        view
    });
    refused(&liar.url, "it has no proof");
    let own = cli
        .run(&["resolve", &alice.handle, "--directly", "--json"])
        .success()
        .json();
    assert_eq!(own["peer"], alice.made["peer"]["did"]);
}

#[test]
fn a_proof_of_another_account_is_refused() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let mallory = enrolled(network, "mallory");
    let theirs = view(&service, &mallory.did);
    let whole = theirs.clone();
    let liar = LyingServer::directory(&service, move |_| whole.clone());
    let (cli, _) = cli_env(network, None);
    let output = resolve(&cli, &alice.handle, &liar.url);
    output.failed(
        3,
        &format!("another account, {}", mallory.did),
        "--directly",
    );
    let did = alice.did.clone();
    let liar = LyingServer::directory(&service, move |_| {
        let mut renamed = theirs.clone();
        renamed["did"] = json!(did);
        renamed
    });
    let output = resolve(&cli, &alice.handle, &liar.url);
    output.failed(3, "the commit belongs to another account", "--directly");
}

#[test]
fn an_old_proof_is_overruled_or_refused() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let old = view(&service, &alice.did);
    let put = alice.put(json!({"mediators": alice.made["keyPackage"]["mediators"]}));
    let stale = old.clone();
    let liar = LyingServer::directory(&service, move |_| stale.clone());

    // First contact: the account's own PDS has a newer record.
    let (first, _) = cli_env(network, None);
    let answer = resolve(&first, &alice.handle, &liar.url).success().json();
    assert_eq!(codes(&answer), ["directoryOutdated"]);
    assert_eq!(answer["cid"], put["cid"]);
    assert_eq!(answer["peer"], put["record"]["did"]);

    // First contact without an answer of the PDS: the answer cannot be confirmed as current, so
    // nothing is sent and no pin is saved.
    let (alone, contact) = cli_env(network, None);
    silence(network, &contact);
    let output = resolve(&alone, &alice.handle, &liar.url);
    output.failed(
        4,
        "nobody but the directory shows the messaging key",
        "--anyway",
    );
    let answer = output.json();
    assert!(answer["hold"].is_string(), "{answer}");
    assert_eq!(alone.json(&["contacts"]), json!([]));
    let accept = [
        "contacts",
        "accept",
        &alice.handle,
        "--directory",
        &liar.url,
    ];
    alone
        .run(&accept)
        .failed(4, "nobody but the directory", "try again later");
    assert_eq!(alone.json(&["contacts"]), json!([]));
    assert_eq!(codes(&answer), ["hostSilent"]);
    assert_eq!(answer["cid"], old["keyPackage"]["cid"]);
    assert!(
        answer["notVerified"]
            .to_string()
            .contains("nothing newer exists")
    );
    let output = alone.run(&["resolve", &alice.handle, "--directory", &liar.url]);
    assert!(
        output
            .stderr
            .contains("warning: the account's own host could not be asked"),
        "{output:?}"
    );

    // A contact without an answer of the PDS: the pin is newer.
    let (known, contact) = cli_env(network, None);
    let honest = view_now(&service, &alice.did);
    assert_eq!(honest["keyPackage"]["cid"], put["cid"]);
    resolve(&known, &alice.handle, &service.url("")).success();
    silence(network, &contact);
    let output = resolve(&known, &alice.handle, &liar.url);
    output.failed(
        3,
        "older than what was seen before",
        "hiding something newer",
    );
    // Without the directory, the account's PDS is the only server left to ask, and does not answer.
    let output = known.run(&["resolve", &alice.handle, "--directly"]);
    output.failed(4, "the account's own host", "try again later");
}

#[test]
fn the_account_s_own_host_has_the_last_word() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let old = view(&service, &alice.did);
    alice.delete_record();
    let bob = enrolled(network, "bob");
    let liar = LyingServer::directory(&service, move |_| old.clone());
    let (cli, _) = cli_env(network, None);
    let output = resolve(&cli, &alice.handle, &liar.url);
    output.failed(1, "no key package", "enrol");
    // A record that only the account's own PDS serves is found without a directory.
    let no_directory = "http://localhost:1025";
    let answer = resolve(&cli, &bob.did, no_directory).success().json();
    assert_eq!(codes(&answer), ["directorySilent"]);
    // A server that is no directory, and a directory with answers of excessive length.
    let liar = LyingServer::directory(&service, |_| json!({"did": "x".repeat(2_000_000)}));
    let answer = resolve(&cli, &bob.did, &liar.url).success().json();
    assert_eq!(codes(&answer), ["directorySilent"]);
    let answer = resolve(&cli, &bob.did, network.plc()).success().json();
    assert_eq!(codes(&answer), ["directorySilent"]);
}

#[test]
fn a_mediator_s_document_is_the_mediator_s_own() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let mediator = text(&alice.made, "/keyPackage/mediators/0").to_owned();
    service.until(&alice.did, "its mediator", |view| {
        view["mediators"][0]["state"] == "reachable"
    });
    let key = "z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc";
    assert_ne!(key, MEDIATOR_KEY);
    let liar = LyingServer::directory(&service, move |mut view| {
        let mediator = &mut view["mediators"][0];
        mediator["keyAgreement"][0]["publicKeyMultibase"] = json!(key);
        mediator["services"][0]["uri"] = json!("https://mallory.example.com/didcomm");
        view
    });
    let (cli, _) = cli_env(network, None);
    for _ in 0..2 {
        let output = resolve(&cli, &alice.handle, &liar.url).success();
        let answer = output.json();
        assert_eq!(codes(&answer), ["directoryMediator"]);
        let shown = &answer["mediators"][0];
        assert_eq!(shown["did"], *mediator);
        assert_eq!(shown["keyAgreement"][0]["publicKeyMultibase"], MEDIATOR_KEY);
        assert!(!output.stdout.contains("mallory.example.com"), "{output:?}");
    }
}

#[test]
fn operation_logs_that_are_cut_short_or_tampered_with_are_noticed() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let before = view(&service, &alice.did);
    alice.op("account.rotate", json!({}));
    let put = alice.put(json!({"mediators": alice.made["keyPackage"]["mediators"]}));
    let after = eventually("an answer with both operations", || {
        let view = view_now(&service, &alice.did);
        let log = view["proof"]["plcLog"].as_array()?;
        (log.len() >= 2 && view["keyPackage"]["cid"] == put["cid"]).then_some(view)
    });
    let (cli, _) = cli_env(network, None);
    let warned = |rule: fn(Value, &Value) -> Value, expected: &[&str]| {
        let (before, after) = (before.clone(), after.clone());
        let liar = LyingServer::directory(&service, move |_| rule(after.clone(), &before));
        let answer = resolve(&cli, &alice.handle, &liar.url).success().json();
        assert_eq!(codes(&answer), expected, "{answer}");
        assert_eq!(answer["peer"], put["record"]["did"]);
        answer
    };
    warned(|after, _| after, &[]);
    // The newest operation is missing.
    let answer = warned(
        |mut after, _| {
            after["proof"]["plcLog"]
                .as_array_mut()
                .expect("a list")
                .pop();
            after
        },
        &["directoryLog"],
    );
    assert!(
        answer["warnings"][0]
            .to_string()
            .contains("lacks the newest operations")
    );
    // The old package fits the shortened log: it is valid under the account's previous key.
    warned(
        |_, before| before.clone(),
        &["directoryLog", "directoryOutdated"],
    );
    // A valid operation is marked as nullified, and another one is changed.
    warned(
        |mut after, _| {
            after["proof"]["plcLog"][1]["nullified"] = json!(true);
            after
        },
        &["directoryLog"],
    );
    warned(
        |mut after, _| {
            after["proof"]["plcLog"][1]["operation"]["alsoKnownAs"] = json!(["at://x.test"]);
            after
        },
        &["directoryLog"],
    );
}

#[test]
fn a_lying_plc_directory_is_refused() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    alice.op("account.rotate", json!({}));
    alice.put(json!({"mediators": alice.made["keyPackage"]["mediators"]}));
    let refused = |rule: fn(&mut Value), why: &str| {
        let liar = LyingServer::before(network.plc(), move |asked, mut answer| {
            if asked.ends_with("/log/audit") {
                rule(&mut answer);
            }
            answer
        });
        let (cli, _) = cli_env(network, Some(&liar.url));
        for more in [&["--directory", &service.url("")][..], &["--directly"]] {
            let output = cli.run(&[&["resolve", &alice.handle], more].concat());
            output.failed(3, why, "");
        }
    };
    // Without the rotation the present key belongs to no account.
    refused(
        |log| drop(log.as_array_mut().expect("a list").pop()),
        "not signed by the account's current key",
    );
    refused(
        |log| log[1]["nullified"] = json!(true),
        "the answer of the directory of DIDs failed verification",
    );
    refused(
        |log| log[0]["operation"]["rotationKeys"] = json!([]),
        "the operation log does not verify",
    );
    refused(|log| *log = json!([]), "the log is empty");
    refused(
        |log| *log = json!({"message": "hello"}),
        "not a list of operations",
    );
}
