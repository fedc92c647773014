//! `atcomm server doctor` and `config`: each line right, and each wrong once.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::public_url::fixed;
use super::{atcomm, config};
use crate::http::eventually;
use crate::mail::free_port;
use crate::network::Network;
use crate::service::{Service, Setup};

/// The findings of the doctor, whatever they are.
fn findings(config: &Path) -> Vec<Value> {
    let told = atcomm(&["server", "doctor", "--json"], config);
    let answer = told.json();
    let checks = answer["checks"].as_array().expect("checks").clone();
    let failed = checks.iter().filter(|one| one["ok"] == false).count();
    // Exit code, `ok` and the message agree with the lines.
    assert_eq!(told.code, Some(i32::from(failed > 0)), "{answer}");
    assert_eq!(answer["ok"], failed == 0);
    if failed > 0 {
        let message = format!("atcomm: {failed} of {} checks failed\n", checks.len());
        assert!(told.stderr.starts_with(&message), "{}", told.stderr);
    }
    for one in &checks {
        assert!(one["ok"] == true || one["hint"].is_string(), "{one}");
    }
    checks
}

fn of(service: &Service) -> Vec<Value> {
    findings(&config(&service.data_dir()))
}

#[track_caller]
fn assert_failed(findings: &[Value], check: &str, word: &str) {
    let found = findings.iter().find(|one| one["check"] == check);
    let found = found.unwrap_or_else(|| panic!("{check} in {findings:?}"));
    assert_eq!(found["ok"], false, "{found}");
    let detail = found["detail"].as_str().expect("a text");
    assert!(detail.contains(word), "{found}");
}

#[test]
fn everything_is_well_beside_a_pds() {
    let network = Network::multikey();
    let port = free_port();
    let service = Setup::new(network)
        .set("pds.url", json!(network.pds_url(0)))
        .set("mediator.admission", json!("local"))
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set("http.check_public_url", json!(true))
        .set(
            "mediator.public_url",
            json!(format!("http://localhost:{port}")),
        )
        // What may wait in all has to fit the disk of this machine.
        .set("mediator.total_bytes", json!(1 << 20))
        .start();
    service.until_following(1);
    let found = eventually("everything is well", || {
        let found = of(&service);
        found.iter().all(|one| one["ok"] == true).then_some(found)
    });
    let checks: Vec<&str> = found
        .iter()
        .filter_map(|one| one["check"].as_str())
        .collect();
    assert_eq!(
        checks,
        [
            "config",
            "data",
            "space",
            "service",
            "files",
            "source",
            "public",
            "did.json",
            "websocket",
            "proxy",
            "pds",
            "listRepos",
            "plc",
            "clock"
        ]
    );
    // For people: a line each.
    let told = atcomm(&["server", "doctor"], &config(&service.data_dir()));
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    for check in checks {
        let line = format!("ok      {check} ");
        assert!(told.stdout.contains(&line), "{check} in {}", told.stdout);
    }
    let status = atcomm(&["server", "status"], &config(&service.data_dir()));
    assert_eq!(status.code, Some(0));
    for word in [
        "databases    writable",
        "admission    local",
        "connected since",
    ] {
        assert!(status.stdout.contains(word), "{word} in {}", status.stdout);
    }
}

#[test]
fn what_is_wrong_with_the_machine_is_told() {
    let service = Setup::offline()
        .set("http.max_connections", json!(100_000_000))
        .set("mediator.total_bytes", json!(1_u64 << 60))
        .set("mediator.public_url", json!("http://localhost:9"))
        .start();
    let (data_dir, file) = (service.data_dir(), config(&service.data_dir()));
    let found = of(&service);
    assert_failed(&found, "files", "of 100000000 connections");
    assert_failed(&found, "space", "waiting messages may take");
    assert_failed(&found, "plc", "cannot be reached");
    let keys = data_dir.join("mediator-keys.json");
    std::fs::set_permissions(&keys, Permissions::from_mode(0o644)).expect("a file");
    assert_failed(&of(&service), "data", "may be read by other users");
    std::fs::set_permissions(&keys, Permissions::from_mode(0o600)).expect("a file");
    std::fs::set_permissions(&data_dir, Permissions::from_mode(0o755)).expect("a folder");
    assert_failed(&of(&service), "data", "(mode 755)");
    std::fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).expect("a folder");
    drop(service.stop());
    let told = atcomm(&["server", "status"], &file);
    assert_eq!(
        told.code,
        Some(2),
        "the file is gone with the folder: {}",
        told.stderr
    );
}

#[test]
fn a_service_that_does_not_run_and_a_wrong_configuration_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("atcomm.toml");
    let write = |text: &str| std::fs::write(&file, text).expect("a file");
    let data_dir = dir.path().join("data");
    let base = format!(
        "data_dir = {:?}\npublic_sources = false\nidentity.plc_url = 'http://localhost:9'\n",
        data_dir.display().to_string()
    );
    write(&base);
    let found = findings(&file);
    assert_failed(&found, "data", "cannot use");
    assert_failed(&found, "service", "no service runs");
    let told = atcomm(&["server", "status"], &file);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("no service runs"), "{}", told.stderr);
    let told = atcomm(&["server", "config", "check"], &file);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stdout.contains("no sources"), "{}", told.stdout);

    for (text, message, hint) in [
        (
            "mediator.public-url = 'https://mail.example.com'\n",
            "unknown key mediator.public-url",
            "did you mean mediator.public_url?",
        ),
        (
            "mediator.public_url = 'https://mail.example.com'\n",
            "no PDS is yours",
            "pds.url",
        ),
        (
            "pds.connect = 'http://127.0.0.1:3000'\n",
            "pds.url is not",
            "pds.url",
        ),
    ] {
        write(&format!("{base}{text}"));
        let found = findings(&file);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_failed(&found, "config", message);
        assert!(
            found[0]["hint"]
                .as_str()
                .is_some_and(|it| it.contains(hint)),
            "{found:?}"
        );
        // The same at the check, and at the start.
        for args in [&["server", "config", "check"][..], &["serve"]] {
            let told = atcomm(args, &file);
            assert_eq!(told.code, Some(2), "{args:?}: {}", told.stderr);
            assert!(told.stderr.contains(message), "{}", told.stderr);
            assert!(told.stderr.contains(hint), "{}", told.stderr);
        }
    }
}

#[test]
fn what_is_wrong_with_other_servers_is_told() {
    let late = "HTTP/1.1 200 OK\r\ndate: Tue, 01 Dec 2020 10:00:00 GMT\r\ncontent-length: 2\r\n\
                connection: close\r\n\r\n{}";
    let (late, dead) = (fixed(late.to_owned()), free_port());
    let dead = format!("http://localhost:{dead}");
    let service = Setup::offline()
        .set(
            "identity.plc_url",
            json!(format!("http://localhost:{late}")),
        )
        .source(json!({"kind": "pds", "url": dead}))
        .source(json!({"kind": "pds", "url": format!("http://localhost:{late}")}))
        .start();
    let found = of(&service);
    assert_failed(&found, "clock", "differs by");
    assert_failed(&found, "pds", "cannot be reached");
    assert_failed(&found, "source", "not connected");
    // It answers, and lists nothing.
    let lists: Vec<&Value> = found
        .iter()
        .filter(|one| one["check"] == "listRepos")
        .collect();
    assert_eq!(lists.len(), 2);
    assert!(
        lists[0]["detail"]
            .as_str()
            .is_some_and(|it| it.contains("cannot be reached"))
    );
    assert!(
        lists[1]["detail"]
            .as_str()
            .is_some_and(|it| it.contains("no list of accounts"))
    );
    assert_eq!(lists[1]["ok"], false);
}

#[test]
fn a_configuration_is_shown_without_its_secrets() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("atcomm.toml");
    let example = atcomm(&["server", "config", "example"], &file);
    assert_eq!(example.code, Some(2), "it reads no file, so it takes none");
    let text = "http.updates.channel_password = 'a long secret of mine'\n\
                pds.url = 'https://pds.example.com'\n[mediator]\nallow = ['did:web:a.example']\n";
    std::fs::write(&file, text).expect("a file");
    let shown = atcomm(&["server", "config", "show"], &file);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(!shown.stdout.contains("secret of mine"), "{}", shown.stdout);
    for line in [
        "pds.url = \"https://pds.example.com\"\n",
        "mediator.allow = [\"did:web:a.example\"]\n",
        "http.updates.channel_password = \"(not shown)\"\n",
        "http.listen = \"127.0.0.1:2590\"\n",
    ] {
        assert!(shown.stdout.contains(line), "{line} in {}", shown.stdout);
    }
    // What is shown is a configuration with the same meaning, but for the secret, which is refused.
    std::fs::write(&file, &shown.stdout).expect("a file");
    let refused = atcomm(&["server", "config", "show"], &file);
    assert_eq!(refused.code, Some(2), "{}", refused.stdout);
    let secret = shown.stdout.replace("(not shown)", "another long secret");
    std::fs::write(&file, secret).expect("a file");
    let again = atcomm(&["server", "config", "show"], &file);
    assert_eq!(again.stdout, shown.stdout);
}
