//! SIGHUP: a changed configuration applies to the running service, or nothing of it does.

use std::process::Command;

use serde_json::json;

use super::config;
use crate::http::{eventually, request};
use crate::mail::free_port;
use crate::service::{Service, Setup};

/// Replaces the file of a running service and asks it to read the file again. Returns the lines that
/// it logs then, at least one.
#[track_caller]
fn reload(service: &Service, text: &str) -> String {
    let before = service.log().len();
    std::fs::write(config(&service.data_dir()), text).expect("a file");
    let id = service.process_id().to_string();
    let sent = Command::new("kill").args(["-HUP", &id]).status();
    assert!(sent.is_ok_and(|status| status.success()));
    eventually("the configuration is read", || {
        let log = service.log();
        let new = log.get(before..)?;
        let done = |word: &str| new.contains(word);
        (done("is read again") || done("cannot be read again")).then(|| new.to_owned())
    })
}

/// Returns how many more requests one address may make, as the service tells.
fn limit(service: &Service) -> String {
    let answer = request(
        "GET",
        &service.url("/xrpc/at.didcomm.directory.getStats"),
        &[],
        None,
    );
    answer.header("ratelimit-limit").to_owned()
}

#[test]
fn limits_and_lists_change_while_the_service_runs() {
    let port = free_port();
    let service = Setup::offline()
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set("http.rate_limit", json!(100))
        .set(
            "mediator.public_url",
            json!(format!("http://localhost:{port}")),
        )
        .start();
    let text = std::fs::read_to_string(config(&service.data_dir())).expect("a file");
    assert_eq!(limit(&service), "100");

    let log = reload(&service, &text);
    assert!(log.contains(r#"changed="""#), "{log}");
    let other = text.replace("http.rate_limit = 100", "http.rate_limit = 200")
        + "mediator.deny = ['did:plc:ewvi7nxzyoun6zhxrhs64oiz']\n";
    let log = reload(&service, &other);
    assert!(
        log.contains(r#"changed="http.rate_limit, mediator.deny""#),
        "{log}"
    );
    assert!(!log.contains("restart"), "{log}");
    assert_eq!(limit(&service), "200");
    // Whose mail is kept is worked out anew, without a restart.
    let count = |word: &str| service.log().matches(word).count();
    eventually("the claims follow", || {
        (count("rebuilding the list of admitted accounts") + count("admission is worked out anew")
            >= 2)
            .then_some(())
    });

    // What needs a restart is told, again and again, and the rest applies.
    let restart = other.replace("http.rate_limit = 200", "http.rate_limit = 300")
        + "mediator.max_sockets = 7\nhttp.timeout = '9s'\n";
    for changed in ["http.rate_limit", ""] {
        let log = reload(&service, &restart);
        assert!(log.contains(&format!("changed={changed:?}")), "{log}");
        eventually("the rest is told", || {
            let log = service.log();
            log.contains(r#"keys="http.timeout, mediator.max_sockets""#)
                .then_some(())
        });
    }
    assert_eq!(limit(&service), "300");

    // An invalid file changes nothing, whatever is wrong with it.
    for (wrong, message) in [
        ("http.rate_limit = 'many'\n", "http.rate_limit"),
        ("mediator.denny = []\n", "mediator.denny"),
        ("pds.connect = 'http://127.0.0.1:3000'\n", "pds.url"),
        ("[[", "TOML"),
    ] {
        let text = text.replace("http.rate_limit = 100\n", "") + wrong;
        let log = reload(&service, &text);
        assert!(log.contains("all stays as it is"), "{log}");
        assert!(log.contains(message) && log.contains("hint="), "{log}");
        assert_eq!(limit(&service), "300");
    }
    std::fs::remove_file(config(&service.data_dir())).expect("a file");
    let id = service.process_id().to_string();
    let before = service.log().len();
    let sent = Command::new("kill").args(["-HUP", &id]).status();
    assert!(sent.is_ok_and(|status| status.success()));
    eventually("the missing file is told", || {
        service
            .log()
            .get(before..)?
            .contains("cannot read")
            .then_some(())
    });
    assert_eq!(limit(&service), "300");
}
