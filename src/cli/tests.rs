use std::fs::File;
use std::path::Path;

use clap::CommandFactory as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::*;
use crate::config::Config;
use crate::server::Server;
use atcomm_proto::clock::Clock;

/// Exit, standard output and standard error of a command.
fn atcomm(args: &[&str]) -> (Exit, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let args = std::iter::once("atcomm")
        .chain(args.iter().copied())
        .map(OsString::from);
    let exit = run(args, &mut stdout, &mut stderr);
    (
        exit,
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// Exit, message and hint of a command that fails at once: two lines on standard error, nothing else.
fn error(args: &[&str]) -> (Exit, String, String) {
    let (exit, stdout, stderr) = atcomm(args);
    assert_eq!(stdout, "");
    let lines: Vec<&str> = stderr.lines().collect();
    let [message, hint] = lines[..] else {
        panic!("{stderr}")
    };
    let message = message.strip_prefix("atcomm: ").unwrap().to_owned();
    assert!(
        message.starts_with(|c: char| !c.is_uppercase()) && !message.ends_with('.'),
        "{message}"
    );
    (
        exit,
        message,
        hint.strip_prefix("hint: ").unwrap().to_owned(),
    )
}

#[test]
fn help_and_version_are_data() {
    Cli::command().debug_assert();
    let (exit, stdout, stderr) = atcomm(&["--version"]);
    assert_eq!((exit, stderr.as_str()), (Exit::Done, ""));
    assert_eq!(stdout, format!("atcomm {}\n", env!("CARGO_PKG_VERSION")));
    for (args, wanted) in [
        (&["--help"][..], &["serve", "relay", "mailbox", "keys"][..]),
        (&["serve", "--help"], &["serve", "--listen"]),
        (&["relay", "--help"], &["status"]),
        (
            &["resolve", "--help"],
            &["ACTOR", "--proof", "--offline", "--directly", "--json"],
        ),
        (&["contacts", "--help"], &["show", "accept", "forget"]),
        (
            &["contacts", "accept", "--help"],
            &["fingerprint", "--json"],
        ),
        (&["relay", "status", "--help"], &["--data-dir", "--json"]),
        (
            &["snapshot", "--help"],
            &["FILE", "docs/research.md", "--data-dir", "--json"],
        ),
        (
            &["stats", "--help"],
            &["getStats", "--days", "--data-dir", "--json"],
        ),
        (&["mailbox", "--help"], &["status", "list", "purge"]),
        (&["mailbox", "list", "--help"], &["--limit", "--json"]),
        (
            &["mailbox", "purge", "--help"],
            &["DID", "--dry-run", "mediator.deny", "--data-dir"],
        ),
        (&["mailbox", "status", "--help"], &["--data-dir", "--json"]),
        (&["keys", "--help"], &["rotate", "30 days"]),
        (
            &["keys", "rotate", "--help"],
            &["--data-dir", "--json", "did:peer"],
        ),
    ] {
        let (exit, stdout, stderr) = atcomm(args);
        assert_eq!((exit, stderr.as_str()), (Exit::Done, ""));
        for wanted in wanted.iter().chain(&["Exit codes:"]) {
            assert!(stdout.contains(wanted), "{wanted} in {stdout}");
        }
    }
}

#[test]
fn wrong_usage_is_one_line_and_a_hint() {
    for (args, expected) in [
        (&[][..], "no command is given"),
        (&["relay"], "no command is given"),
        (&["keys"], "no command is given"),
        (&["keys", "show"], "unrecognized subcommand 'show'"),
        (
            &["mailbox", "status", "--follow"],
            "unexpected argument '--follow' found",
        ),
        (
            &["mailbox", "list", "--limit", "0"],
            "invalid value '0' for '--limit <N>': 0 is not in 1..=1000",
        ),
        (
            &["mailbox", "purge"],
            "the following required arguments were not provided: <DID>",
        ),
        (&["sing"], "unrecognized subcommand 'sing'"),
        (
            &["enroll"],
            "the following required arguments were not provided: <ACTOR>",
        ),
        (
            &["serve", "--lisen", "x"],
            "unexpected argument '--lisen' found",
        ),
        (
            &["serve", "--listen", "here"],
            "invalid value 'here' for '--listen <ADDR>': not an address and a port, such as \
             127.0.0.1:2590 for this machine or 0.0.0.0:2590 for every interface",
        ),
        (
            &["serve", "--listen"],
            "a value is required for '--listen <ADDR>' but none was supplied",
        ),
    ] {
        let (exit, message, hint) = error(args);
        assert_eq!((exit.code(), message.as_str()), (2, expected));
        assert!(hint.contains("--help"), "{hint}");
    }
}

#[test]
fn a_hint_says_what_was_meant_and_whose_help_tells_more() {
    for (args, hint) in [
        (
            &["sned", "bob.example.com"][..],
            "did you mean send?; atcomm --help tells more",
        ),
        (
            &["recieve"],
            "did you mean receive?; atcomm --help tells more",
        ),
        (
            &["receive", "--acount", "x"],
            "did you mean --account?; atcomm receive --help tells more",
        ),
        (
            &["receive", "--limit", "0"],
            "atcomm receive --help tells more",
        ),
        (
            &["serve", "--listen", "mail.example.com"],
            "atcomm serve --help tells more",
        ),
        (
            &["completions", "bahs"],
            "did you mean bash?; atcomm completions --help tells more",
        ),
        (
            &["contacts", "accept"],
            "atcomm contacts accept --help tells more",
        ),
        (
            &["--json", "whoami"],
            "flags come after the command: atcomm whoami --json; atcomm whoami --help tells more",
        ),
        (
            &["--home=x", "contacts", "show", "y"],
            "flags come after the command: atcomm contacts show --home; atcomm contacts show \
             --help tells more",
        ),
        (
            &["send", "bob.example.com", "hello", "there"],
            "put the message in quotes; atcomm send --help tells more",
        ),
    ] {
        let (exit, _, found) = error(args);
        assert_eq!((exit.code(), found.as_str()), (2, hint), "{args:?}");
    }
}

#[test]
fn names_are_taken_as_people_give_them() {
    let dir = tempfile::tempdir().unwrap();
    let wallet = dir.path().join("wallet");
    let home = wallet.to_str().unwrap();
    // The name was read where the answer is that this wallet does not know the account.
    for name in [
        " bob.example.com",
        "@bob.example.com",
        "\u{202a}bob.example.com\u{202c}",
        "at://bob.example.com",
        "https://bsky.app/profile/bob.example.com",
    ] {
        let (exit, message, _) = error(&["contacts", "show", name, "--home", home]);
        assert_eq!(exit, Exit::Failed, "{name:?}: {message}");
        assert!(
            message.ends_with("is no contact of this wallet"),
            "{message}"
        );
    }
    for directory in [
        "mail.example.com",
        "mail.example.com/",
        "did:web:mail.example.com",
    ] {
        let args = ["contacts", "list", "--home", home, "--directory", directory];
        assert_eq!(atcomm(&args).0, Exit::Done, "{directory}");
    }
    let args = ["contacts", "list", "--directory", "mail.example.com/x"];
    let (exit, message, hint) = error(&args);
    assert_eq!(exit, Exit::Usage);
    assert!(
        message.contains("mail.example.com/x is no directory"),
        "{message}"
    );
    assert!(hint.contains("mail.example.com"), "{hint}");
}

#[test]
fn wrong_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("atcomm.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[http]\nport = 80\n").unwrap();
    let (exit, message, hint) = error(&["serve", "--config", path]);
    assert_eq!(
        (exit.code(), message),
        (2, format!("unknown key http.port in {path}"))
    );
    assert!(hint.contains("listen"), "{hint}");
    std::fs::remove_file(&file).unwrap();
    let (exit, message, _) = error(&["serve", "--config", path]);
    assert_eq!(exit.code(), 2);
    assert!(
        message.starts_with(&format!("cannot read {path}: ")),
        "{message}"
    );
    let (exit, message, hint) = error(&["serve", "--log", "atcomm=loud"]);
    assert_eq!(exit.code(), 2);
    assert!(
        message.starts_with("log.filter \"atcomm=loud\": "),
        "{message}"
    );
    assert!(hint.contains("info"), "{hint}");
}

/// A service on a data directory, with a mediator if it has an address.
fn service(dir: &Path, public_url: Option<&str>) -> (Runtime, Server) {
    let mut config = Config {
        data_dir: dir.to_owned(),
        ..Config::default()
    };
    config.http.listen.set_port(0);
    config.sources.clear();
    config.mediator.public_url = public_url.map(str::to_owned);
    let runtime = Runtime::new().unwrap();
    let server = runtime
        .block_on(Server::bind(config, Clock::system()))
        .unwrap();
    (runtime, server)
}

fn end((runtime, server): (Runtime, Server)) {
    server.shutdown();
    runtime.block_on(server.join()).unwrap();
}

const MAIL: &str = "https://mail.example.com";

/// The answer of a command with `--json`.
fn answer(command: [&str; 2], dir: &str) -> Value {
    let args = [command[0], command[1], "--data-dir", dir, "--json"];
    let (exit, stdout, stderr) = atcomm(&args);
    assert_eq!((exit, stderr.as_str()), (Exit::Done, ""), "{stdout}");
    assert!(stdout.ends_with("}\n"), "{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

/// The answer of a command as text.
fn told(command: [&str; 2], dir: &str) -> String {
    let (exit, stdout, stderr) = atcomm(&[command[0], command[1], "--data-dir", dir]);
    assert_eq!((exit, stderr.as_str()), (Exit::Done, ""), "{stdout}");
    stdout
}

const RELAY: [&str; 2] = ["relay", "status"];
const MAILBOX: [&str; 2] = ["mailbox", "status"];
const ROTATE: [&str; 2] = ["keys", "rotate"];

#[test]
fn without_a_service_there_is_none_to_ask() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for command in [RELAY, MAILBOX] {
        for more in [&[][..], &["--json"]] {
            let args = [&command[..], &["--data-dir", path], more].concat();
            let (exit, message, hint) = error(&args);
            assert_eq!(
                (exit.code(), message),
                (1, format!("no service runs on {path}"))
            );
            assert!(
                hint.contains("atcomm serve") && hint.contains("--data-dir"),
                "{hint}"
            );
        }
    }
    let (exit, message, hint) = error(&["keys", "rotate", "--data-dir", path]);
    assert_eq!(exit.code(), 1);
    assert_eq!(
        message,
        format!("there are no keys of a mediator in {path}")
    );
    assert!(hint.contains("--data-dir"), "{hint}");
    // Nothing is left behind where nothing was.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_directory_alone_is_no_mediator() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let running = service(dir.path(), None);
    for command in [RELAY, MAILBOX, ROTATE] {
        let (exit, message, hint) = error(&[command[0], command[1], "--data-dir", path]);
        assert_eq!(exit.code(), 1);
        assert!(message.starts_with("this service is no mediator"));
        assert!(hint.contains("[mediator]"), "{hint}");
    }
    end(running);
}

#[test]
fn a_service_tells_of_its_mail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let running = service(dir.path(), Some(MAIL));
    let mut status = answer(MAILBOX, path);
    let size = status["fileBytes"].take().as_u64().unwrap();
    assert!(size > 0);
    assert_eq!(
        status,
        json!({
            "did": "did:web:mail.example.com",
            "accounts": 0,
            "messages": 0,
            "bytes": 0,
            "fileBytes": null,
        })
    );
    let text = told(MAILBOX, path);
    assert!(text.starts_with("did:web:mail.example.com\n"), "{text}");
    assert!(text.contains("0 messages wait to be picked up"), "{text}");
    assert_eq!(
        answer(RELAY, path),
        json!({"waiting": 0, "waitingBytes": 0, "destinations": []})
    );
    let text = told(RELAY, path);
    assert!(text.contains("nothing was carried anywhere yet"), "{text}");
    end(running);
}

#[test]
fn keys_are_rotated_with_the_service_running_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let running = service(dir.path(), Some(MAIL));
    assert_eq!(
        answer(ROTATE, path),
        json!({"generation": 2, "inUse": true})
    );
    let text = told(ROTATE, path);
    assert!(text.contains("generation 3") && text.contains("backup"));
    assert!(!text.contains("no service runs"), "{text}");
    end(running);
    assert_eq!(
        answer(ROTATE, path),
        json!({"generation": 4, "inUse": false})
    );
    let text = told(ROTATE, path);
    assert!(
        text.contains("generation 5") && text.contains("no service runs"),
        "{text}"
    );
    // A service that starts up or ends has the directory without answering yet, or any more.
    let lock = File::create(dir.path().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let (exit, message, hint) = error(&["keys", "rotate", "--data-dir", path]);
    assert_eq!(exit.code(), 1);
    assert!(message.ends_with("is in use by another process"));
    assert!(hint.contains("stop the other process"), "{hint}");
    drop(lock);
    // A service that is started takes the keys that were made without it.
    end(service(dir.path(), Some(MAIL)));
    let keys = std::fs::read_to_string(dir.path().join("mediator-keys.json")).unwrap();
    let keys: Value = serde_json::from_str(&keys).unwrap();
    let numbers: Vec<_> = keys["generations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["number"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[test]
fn a_data_directory_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let running = service(dir.path(), None);
    let path = dir.path().to_str().unwrap();
    let args = [
        "serve",
        "--data-dir",
        path,
        "--listen",
        "127.0.0.1:0",
        "--log",
        "off",
    ];
    let (exit, message, hint) = error(&args);
    assert_eq!(exit.code(), 1);
    assert_eq!(
        message,
        format!("the data directory {path} is in use by another process")
    );
    assert!(hint.contains("--data-dir"), "{hint}");
    end(running);
}
