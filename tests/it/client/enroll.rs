//! `atcomm enroll` on real PDSes, and the conditions that prevent it.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::lying_servers::LyingServer;
use super::{CliEnv, MediatorService, Person, disturbed, finish};
use crate::network::{Account, Network, in_both_shapes, text};

in_both_shapes! {
    fn enrolling_publishes_a_key_for_which_the_mediator_keeps_mail(network) {
        let mediator = MediatorService::start(network);
        let alice = Person::new(network, "alice", 0);
        let handle = &alice.account.handle;
        let enroll = ["enroll", handle, "--mediator", &mediator.url, "--label", "laptop"];
        let output = alice.run(&enroll).success();
        let peer = alice.peer();
        assert_eq!(
            output.stdout,
            format!(
                "{handle} is enrolled\n  account    {}\n  messaging  {peer}\n  mediator   {}\n  \
                 directory  {}\n  wallet     {}\n",
                alice.account.did, mediator.did, mediator.url, alice.cli.wallet().display()
            )
        );
        assert_eq!(
            output.stderr,
            format!(
                "a new messaging key is in the wallet\nthe account's record names it\nthe directory \
                 {} has seen that\n{} keeps the mail\nonly this wallet can read your mail: make a \
                 backup with `atcomm backup FILE`\n",
                mediator.url, mediator.did
            )
        );
        // The PDS and the directory have the same record.
        let record = alice.record().expect("a record");
        let made = text(&record, "/createdAt").to_owned();
        assert_eq!(record, json!({
            "$type": "at.didcomm.keyPackage",
            "did": peer,
            "mediators": [mediator.did],
            "label": "laptop",
            "createdAt": made,
        }));
        let view = mediator.service().recipient(handle).expect("a recipient");
        assert_eq!(text(&view, "/peer/did"), peer);
        assert_eq!(text(&view, "/mediators/0/state"), "reachable");
        for (path, mode) in alice.cli.files() {
            assert_eq!(mode, 0o600, "{path:?}");
        }
        let password = alice.password();
        for (path, _) in alice.cli.files() {
            let kept = std::fs::read_to_string(path).expect("text");
            assert!(!kept.contains(password), "{kept}");
        }
        // A second run changes nothing and needs no password.
        let again = alice.cli.run(&["enroll", handle]).success();
        assert!(again.stderr.contains("the account's record is as it should be"), "{again:?}");
        assert!(!again.stderr.contains("backup"), "{again:?}");
        assert_eq!(alice.record().as_ref(), Some(&record));
        // Another label, and a second mediator that becomes the first.
        let second = MediatorService::start(network);
        let changed = alice.cli.json(&[
            "enroll", handle, "--label", "",
            "-m", &second.did, "-m", &mediator.did, "-m", &second.did,
        ]);
        assert_eq!(changed["mediators"], json!([
            {"did": second.did, "registered": true},
            {"did": mediator.did, "registered": true},
        ]));
        assert_eq!(alice.record(), Some(json!({
            "$type": "at.didcomm.keyPackage",
            "did": peer,
            "mediators": [second.did, mediator.did],
            "createdAt": made,
        })));
        // The first mediator is dropped: it is still asked for mail.
        let output = alice.cli.run(&["enroll", handle, "-m", &second.did]).success();
        let words = format!("{} is asked for mail for another 14 days", mediator.did);
        assert!(output.stderr.contains(&words), "{output:?}");
        let key = &alice.cli.json(&["whoami"])["accounts"][0]["keys"][0];
        assert_eq!(key["registered"], json!([second.did]));
        assert_eq!(key["dropped"][0]["mediator"], json!(mediator.did));
    }
}

#[test]
fn an_account_of_a_web_did_is_enrolled_by_its_did() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let carol = Person::of(network.web_account("carol", 1, serde_json::Value::Null));
    let report = {
        let mut command =
            carol.command(&["enroll", &carol.account.did, "-m", &mediator.did, "--json"]);
        command.env("ATCOMM_DIRECTORY", &mediator.url);
        finish(command, "").success().json()
    };
    assert_eq!(report["account"], json!(carol.account.did));
    assert_eq!(report["directory"], json!(mediator.url));
    assert_eq!(carol.record().expect("a record")["did"], report["peer"]);
}

#[test]
fn another_implementation_of_the_host_does() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let peer = network.arroba_account();
    let erin = Person::of(Account {
        network,
        name: "erin".to_owned(),
        did: peer.did,
        handle: peer.handle,
        made: json!({"password": network.arroba_password(), "pdsUrl": network.arroba_url()}),
    });
    let mut wrong = erin
        .cli
        .command(&["enroll", &erin.account.did, "-m", &mediator.did]);
    wrong.env("ATCOMM_PASSWORD", "wrong");
    finish(wrong, "").failed(1, "does not take this password", "app password");
    erin.run(&["enroll", &erin.account.did, "-m", &mediator.did])
        .success();
    assert_eq!(erin.record().expect("a record")["did"], json!(erin.peer()));
    erin.cli.run(&["rotate"]).success();
    let record = erin.record().expect("a record");
    assert_eq!(record["did"], json!(erin.peer()));
    assert!(record["succession"].is_string());
    // This PDS deletes the record and answers that it did not.
    erin.cli.run(&["unenroll"]).success();
    assert_eq!(erin.record(), None);
}

#[test]
fn without_the_right_password_nothing_is_done() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::new(network, "alice", 0);
    let enroll = ["enroll", &alice.account.handle, "-m", &mediator.did];
    alice
        .cli
        .run(&enroll)
        .failed(2, "no app password is given", "ATCOMM_PASSWORD");
    let mut command = alice.cli.command(&enroll);
    command.env("ATCOMM_PASSWORD", "wrong");
    finish(command, "").failed(1, "does not take this password", "app password");
    let mut command = alice.cli.command(&enroll);
    command.env("ATCOMM_PASSWORD", "");
    finish(command, "").failed(2, "the app password is empty", "");
    assert_eq!(alice.record(), None);
    assert!(!alice.cli.wallet().exists());
    // The password comes from standard input or from a file, and is never printed.
    let with = |file: &str, input: &str| {
        let mut args = enroll.to_vec();
        args.extend(["--password-file", file]);
        alice.cli.run_with(&args, input)
    };
    with("nowhere", "").failed(2, "cannot read nowhere", "first line");
    let output = with("-", &format!("{}\nsomething else", alice.password())).success();
    assert!(!format!("{output:?}").contains(alice.password()));
}

/// A mirror of the PLC directory serves a false document. The operation log names the PDS, and the
/// password goes to that PDS only.
#[test]
fn a_password_goes_where_the_operations_lead_and_nowhere_else() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::new(network, "alice", 0);
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let trap = LyingServer::before(&network.pds_url(0), move |_, answer| {
        counted.fetch_add(1, Ordering::Relaxed);
        answer
    });
    let (did, url) = (alice.account.did.clone(), trap.url.clone());
    let mirror = |is_cut: bool| {
        let (did, url) = (did.clone(), url.clone());
        LyingServer::before(network.plc(), move |asked, mut answer| {
            if asked.ends_with(&did) {
                answer["service"][0]["serviceEndpoint"] = json!(url);
            }
            if is_cut && asked.ends_with("/log/audit") {
                answer[0]["operation"]["services"]["atproto_pds"]["endpoint"] = json!(url);
            }
            answer
        })
    };
    let config = std::fs::read_to_string(alice.cli.path("config.toml")).expect("a file");
    let by = |mirror: &LyingServer| {
        let config = config.replace(network.plc(), &mirror.url);
        std::fs::write(alice.cli.path("config.toml"), config).expect("a file");
        alice.run(&["enroll", &alice.account.handle, "-m", &mediator.did])
    };
    by(&mirror(true)).failed(3, "is not proven", "somebody may be between");
    by(&mirror(false)).success();
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let output = alice.cli.run(&["check"]).success();
    assert!(output.stdout.contains(&network.pds_url(0)), "{output:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[test]
fn who_is_not_there_is_said() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::new(network, "alice", 0);
    let enroll = |actor: &str| alice.run(&["enroll", actor, "-m", &mediator.did]);
    enroll("nobody.pds0.test").failed(1, "nobody.pds0.test: the handle names no account", "slip");
    enroll("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").failed(1, "there is no such DID", "slip");
    enroll("alice").failed(2, "alice: ", "handle");
    // A handle that leads to alice's account without being claimed by it.
    network.op(
        "dns.set",
        json!({
            "name": "_atproto.not-hers.pds0.test", "txt": format!("did={}", alice.account.did),
        }),
    );
    enroll("not-hers.pds0.test").failed(1, "does not call itself that", "slip");
    let enroll_with = |did: &str| alice.run(&["enroll", &alice.account.handle, "-m", did]);
    enroll_with("did:key:z6Mk").failed(2, "did:key:z6Mk is no mediator", "mail.example.com");
    enroll_with("localhost:9").failed(
        4,
        "the mediator did:web:localhost%3A9: it cannot be reached",
        "later",
    );
    alice
        .run(&["enroll", &alice.account.handle])
        .failed(2, "no mediator is named", "--mediator");
    let long = "x".repeat(65);
    alice
        .run(&[
            "enroll",
            &alice.account.handle,
            "-m",
            &mediator.did,
            "--label",
            &long,
        ])
        .failed(2, "the label is longer", "phone");
    assert_eq!(alice.record(), None);
    alice
        .cli
        .run(&["whoami"])
        .failed(2, "there is no account in the wallet", "atcomm enroll");
}

#[test]
fn the_key_of_another_device_is_replaced_only_when_that_is_said() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::of(network.enrolled("alice", 0, json!({"label": "old phone"})));
    let before = alice.record();
    let refused = alice.enroll(&[&mediator.did]);
    refused.failed(
        1,
        "the account publishes another key already, of a device named \"old phone\"",
        "--replace",
    );
    assert_eq!(alice.record(), before);
    alice
        .cli
        .run(&["whoami"])
        .failed(2, "there is no account", "enroll");
    let enroll = [
        "enroll",
        &alice.account.handle,
        "-m",
        &mediator.did,
        "--replace",
    ];
    alice.run(&enroll).success();
    let record = alice.record().expect("a record");
    assert_eq!(record["did"], json!(alice.peer()));
    // The record has no succession.
    assert_eq!(record.get("succession"), None);
    assert_eq!(record.get("label"), None);
}

#[test]
fn an_account_that_is_away_is_not_enrolled() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::new(network, "alice", 0);
    alice.account.op("account.deactivate", json!({}));
    alice
        .enroll(&[&mediator.did])
        .failed(1, "the account is deactivated at its PDS", "active");
    alice.account.op("account.activate", json!({}));
    alice.enroll(&[&mediator.did]).success();
    alice.account.op("account.takedown", json!({}));
    alice
        .run(&["rotate"])
        .failed(1, "the PDS refused", "run it again later");
    assert_eq!(
        alice.cli.json(&["whoami"])["accounts"][0]["keys"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[test]
fn a_session_that_has_run_out_is_made_new() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 1, &mediator);
    let file = alice.cli.file("session.json");
    let session = std::fs::read_to_string(&file).expect("text");
    let json: serde_json::Value = serde_json::from_str(&session).expect("JSON");
    let [access, refresh] =
        ["accessJwt", "refreshJwt"].map(|name| json["content"][name].as_str().expect("a token"));
    let again = ["enroll", &alice.account.handle];
    // The access token is no longer valid.
    std::fs::write(&file, session.replace(access, "eyJhbGciOiJub25lIn0.e30.")).expect("a file");
    alice.cli.run(&again).success();
    assert!(
        !std::fs::read_to_string(&file)
            .expect("text")
            .contains("eyJhbGciOiJub25lIn0")
    );
    // The refresh token is not valid either: the password is needed, and then enrolling continues.
    let broken = session
        .replace(access, "eyJhbGciOiJub25lIn0.e30.")
        .replace(refresh, "nothing");
    std::fs::write(&file, broken).expect("a file");
    let output = alice.cli.run(&again);
    output.failed(2, "no app password is given", "ATCOMM_PASSWORD");
    assert!(!output.stderr.contains("eyJ"), "{output:?}");
    assert!(!file.exists());
    alice.run(&again).success();
    alice.cli.run(&again).success();
}

#[test]
fn a_full_disk_and_a_wallet_that_others_may_read_are_refused_before_anything_is_published() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::new(network, "alice", 0);
    let enroll = ["enroll", &alice.account.handle, "-m", &mediator.did];
    let mut full = alice.cli.limited("trap '' XFSZ; ulimit -f 0", &enroll);
    full.env("ATCOMM_PASSWORD", alice.password());
    finish(full, "").failed(1, "cannot write", "there is no room left");
    assert_eq!(alice.record(), None);
    assert!(alice.cli.files().is_empty(), "{:?}", alice.cli.files());
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(alice.cli.wallet(), open).expect("a directory");
    alice
        .run(&enroll)
        .failed(1, "may be read by others", "chmod -R go= ");
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(alice.cli.wallet(), closed).expect("a directory");
    alice.run(&enroll).success();
}

#[test]
fn a_host_that_is_down_or_busy_is_tried_later() {
    let (network, _turn) = disturbed();
    let mediator = MediatorService::start(network);
    let alice = Person::new(network, "alice", 0);
    network.op(
        "pds.limit",
        json!({"pds": 0, "path": "/xrpc/com.atproto.server.createSession", "retryAfter": 7}),
    );
    alice
        .enroll(&[&mediator.did])
        .failed(4, "takes no more requests now", "7 seconds");
    network.op("pds.stop", json!({"pds": 0}));
    alice
        .enroll(&[&mediator.did])
        .failed(4, "the PDS cannot be reached", "later");
    network.op("pds.start", json!({"pds": 0}));
    assert_eq!(alice.record(), None);
    alice.enroll(&[&mediator.did]).success();
    // The contents of the wallet can still be shown.
    network.op("pds.stop", json!({"pds": 0}));
    let account = &alice.cli.json(&["whoami"])["accounts"][0];
    assert_eq!(account["record"]["is"], "unknown");
    assert_eq!(account["keys"][0]["state"], "published");
    alice
        .cli
        .run(&["rotate"])
        .failed(4, "the PDS cannot be reached", "later");
    // The mediator is not told to remove the account while the record names it.
    alice
        .cli
        .run(&["unenroll"])
        .failed(4, "the PDS cannot be reached", "later");
    // `check` reports what the wallet alone can show.
    let output = alice.cli.run(&["check", "--json"]);
    assert_eq!(output.code, Some(1), "{output:?}");
    let answer = output.json();
    let checks = answer["checks"].as_array().expect("a list");
    let failed: Vec<_> = checks.iter().filter(|one| one["ok"] == false).collect();
    let named = |name: &str| failed.iter().any(|one| one["check"] == name);
    assert!(named("sign-in") && named("record"), "{answer}");
    network.op("pds.start", json!({"pds": 0}));
    assert_eq!(
        alice.record().expect("a record")["did"],
        json!(alice.peer())
    );
    network.op("plc.fail", json!({"count": 100}));
    alice
        .enroll(&[&mediator.did])
        .failed(4, "cannot be looked up now", "later");
    network.op("plc.fail", json!({"count": 0}));
    alice.enroll(&[&mediator.did]).success();
}

#[test]
fn a_mediator_that_goes_away_in_between_is_registered_with_later() {
    let (network, _turn) = disturbed();
    let mut mediator = MediatorService::start(network);
    let alice = Person::new(network, "alice", 0);
    // The mediator goes away after the key is saved and before it is published.
    network.op(
        "pds.limit",
        json!({"pds": 0, "path": "/xrpc/com.atproto.repo.putRecord", "status": 503}),
    );
    let output = alice.enroll(&[&mediator.did]);
    output.failed(4, "the PDS does not work now: it answered 503", "later");
    assert_eq!(alice.record(), None);
    let stopped = mediator.service.take().expect("it is up").stop();
    let output = alice.cli.run(&["enroll", &alice.account.handle]);
    output.failed(
        4,
        &format!("{} does not keep the mail yet", mediator.did),
        "run `atcomm enroll` again",
    );
    assert!(output.stdout.contains("(not yet)"), "{output:?}");
    let peer = alice.peer();
    assert_eq!(alice.record().expect("a record")["did"], json!(peer));
    // The mediator is still away: the outcome and the key are the same.
    alice.cli.run(&["enroll", &alice.account.handle]).failed(
        4,
        "does not keep the mail yet",
        "again",
    );
    mediator.service = Some(stopped.start());
    let output = alice.cli.run(&["enroll", &alice.account.handle]).success();
    assert!(
        output
            .stderr
            .contains("the messaging key in the wallet is used"),
        "{output:?}"
    );
    assert_eq!(alice.peer(), peer);
}

#[test]
fn of_two_wallets_at_once_one_enrols() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    for _ in 0..4 {
        let alice = Person::new(network, "alice", 0);
        let homes = [CliEnv::new(network), CliEnv::new(network)];
        let running: Vec<_> = homes
            .iter()
            .map(|cli| {
                let mut command =
                    cli.command(&["enroll", &alice.account.handle, "-m", &mediator.did]);
                command.env("ATCOMM_PASSWORD", alice.password());
                super::Running::start(command)
            })
            .collect();
        let output: Vec<_> = running.into_iter().map(super::Running::end).collect();
        let done: Vec<_> = output.iter().map(|output| output.code == Some(0)).collect();
        let peer = text(&alice.record().expect("a record"), "/did").to_owned();
        let [winner, loser] = match done[..] {
            [true, false] => [0, 1],
            [false, true] => [1, 0],
            _ => panic!("{output:?}"),
        };
        let whoami = homes[winner].json(&["whoami"]);
        assert_eq!(text(&whoami, "/accounts/0/keys/0/peer"), peer);
        output[loser].failed(1, "the account publishes another key already", "--replace");
    }
}

#[test]
fn of_one_wallet_twice_at_once_there_is_one_key() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    for _ in 0..3 {
        let alice = Person::new(network, "alice", 1);
        let running: Vec<_> = (0..3)
            .map(|_| {
                super::Running::start(alice.command(&[
                    "enroll",
                    &alice.account.handle,
                    "-m",
                    &mediator.did,
                ]))
            })
            .collect();
        for running in running {
            running.end().success();
        }
        let keys = &alice.cli.json(&["whoami"])["accounts"][0]["keys"];
        assert_eq!(keys.as_array().map(Vec::len), Some(1));
        assert_eq!(alice.record().expect("a record")["did"], keys[0]["peer"]);
    }
}
