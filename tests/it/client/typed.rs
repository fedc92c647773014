//! What people type: names as they are pasted, plans that cannot be carried out, and waiting.

use std::net::UdpSocket;
use std::process::Command;

use super::{CliEnv, MediatorService, Person, finish};
use crate::network::Network;

#[test]
fn an_account_is_found_however_it_is_pasted() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "ta", 0, &mediator);
    let handle = &alice.account.handle;
    for name in [
        format!("@{handle} "),
        format!("\u{202a}{}\u{202c}", handle.to_uppercase()),
        format!("at://{handle}/app.bsky.feed.post/3jzfcijpj2z2a"),
        format!("https://bsky.app/profile/{handle}"),
        format!("https://bsky.app/profile/{}", alice.account.did),
        format!("AT://{}", alice.account.did),
    ] {
        let found = alice.cli.json(&["resolve", &name]);
        assert_eq!(found["did"], *alice.account.did, "{name:?}");
        let own = alice.cli.json(&["whoami", "--account", &name]);
        assert_eq!(own["accounts"][0]["account"], *alice.account.did);
    }
    // The directory may be named like a mediator.
    let host = mediator.url.trim_start_matches("http://");
    alice
        .cli
        .run(&["resolve", handle, "--directory", host])
        .success();
    // An error names the account which it is about.
    let carol = network.account("tc", 1);
    alice
        .cli
        .run(&["send", &format!("@{}", carol.handle), "hello"])
        .failed(1, &carol.handle, "enroll");
}

#[test]
fn no_password_is_asked_for_a_plan_that_cannot_be_carried_out() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::new(network, "tp", 0);
    let handle = &alice.account.handle;
    let long = "x".repeat(65);
    // No password is given, and each plan fails before one is missed.
    for (plan, code, message) in [
        (&[][..], 2, "no mediator is named"),
        (&["-m", &mediator.did, "--label", &long], 2, "label"),
        (&["-m", "did:web:localhost%3A9"], 4, "did:web:localhost%3A9"),
    ] {
        let args = [&["enroll", handle], plan].concat();
        alice.cli.run(&args).failed(code, message, "");
        assert_eq!(alice.cli.files(), []);
    }
    alice
        .cli
        .run(&["enroll", handle, "-m", &mediator.did])
        .failed(2, "no app password is given", "--password-file");
    // The same where the record names another device's key.
    alice.enroll(&[&mediator.did]).success();
    let other = Person::of(alice.account.clone());
    let enroll = ["enroll", handle, "-m", &mediator.did];
    other.cli.run(&enroll).failed(1, "", "--replace");
    assert_eq!(other.cli.files(), []);
}

#[test]
fn an_account_that_has_moved_is_shown_where_it_is() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "tm", 0, &mediator);
    let before = alice.cli.json(&["whoami"]);
    assert_eq!(before["accounts"][0]["pds"], *network.pds_url(0));
    assert_eq!(before["accounts"][0]["signedIn"], true);
    assert!(before["accounts"][0]["movedFrom"].is_null());
    alice
        .account
        .op("account.migrate", serde_json::json!({"to": 1}));
    let moved = &alice.cli.json(&["whoami"])["accounts"][0];
    assert_eq!(moved["pds"], *network.pds_url(1), "{moved}");
    assert_eq!(moved["movedFrom"], *network.pds_url(0), "{moved}");
    assert_eq!(moved["signedIn"], false, "the session is the old host's");
    let shown = alice.cli.run(&["whoami"]).success().stdout;
    for line in [
        format!("pds        {} (not signed in)", network.pds_url(1)),
        format!("moved from {};", network.pds_url(0)),
    ] {
        assert!(shown.contains(&line), "{line} in {shown}");
    }
}

#[test]
fn a_command_that_waits_says_so_on_a_terminal_only() {
    const SIGN: &str = "waiting for an answer";
    let cli = CliEnv::new(Network::multikey());
    // A name server that never answers.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let address = silent.local_addr().expect("an address");
    let config = format!("[net]\ndevelopment = true\nname_server = \"{address}\"\n");
    std::fs::write(cli.path("config.toml"), config).expect("a file");
    let resolve = ["resolve", "bob.example.com", "--directly"];
    let output = cli.run(&resolve);
    assert_eq!(output.code, Some(4), "{output:?}");
    assert!(!output.stderr.contains(SIGN), "{output:?}");

    let mut terminal = Command::new("python3");
    cli.prepare(&mut terminal);
    terminal.env("TERM", "xterm");
    let program = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)";
    terminal
        .args(["-c", program, env!("CARGO_BIN_EXE_atcomm")])
        .args(resolve);
    let output = finish(terminal, "");
    assert_eq!(output.code, Some(4), "{output:?}");
    assert!(output.stdout.contains(SIGN), "{output:?}");
    assert!(output.stdout.contains("hint: "), "{output:?}");
}
