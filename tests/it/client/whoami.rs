//! `atcomm whoami`, `atcomm completions` and `atcomm man`.

use super::{CliEnv, MediatorService, Person, finish};
use crate::network::{Network, text};

#[test]
fn the_wallet_shows_its_accounts() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 0, &mediator);
    let bob = network.account("bob", 1);
    let mut enroll = alice.cli.command(&[
        "enroll",
        &bob.handle,
        "-m",
        &mediator.did,
        "--label",
        "desk",
    ]);
    enroll.env("ATCOMM_PASSWORD", text(&bob.made, "/password"));
    finish(enroll, "").success();
    let shown = alice
        .cli
        .run(&["whoami", "--account", &bob.handle])
        .success()
        .stdout;
    let report = alice.cli.json(&["whoami", "--account", &bob.did]);
    let key = &report["accounts"][0]["keys"][0];
    assert_eq!(
        shown,
        format!(
            "{}\n  account    {}\n  pds        {} (signed in)\n  record     names the key of this \
             wallet\n  label      desk\n  messaging  {}\n             published {}\n  mediator   {}\n  \
             directory  {}\nin the wallet {}\n",
            bob.handle,
            bob.did,
            network.pds_url(1),
            text(key, "/peer"),
            text(key, "/since"),
            mediator.did,
            mediator.url,
            alice.cli.wallet().display(),
        )
    );
    let all = alice.cli.json(&["whoami", "--offline"]);
    assert_eq!(all["accounts"].as_array().map(Vec::len), Some(2));
    assert_eq!(text(&all, "/accounts/0/record/why"), "nobody was asked");
    alice
        .cli
        .run(&["rotate"])
        .failed(2, "the wallet has several accounts: ", "--account");
    alice
        .cli
        .run(&["rotate", "--account", &bob.handle])
        .success();
    alice
        .cli
        .run(&["whoami", "--account", "carol.test"])
        .failed(2, "carol.test is not in the wallet", "whoami");
    // A damaged file is named, and no command continues with it.
    let file = alice.cli.file("enrolment.json");
    std::fs::write(&file, "{").expect("a file");
    alice
        .cli
        .run(&["whoami"])
        .failed(1, "is damaged", "atcomm restore");
}

#[test]
fn every_shell_and_the_manual_are_served() {
    let cli = CliEnv::new(Network::multikey());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = cli.run(&["completions", shell]).success().stdout;
        assert!(script.contains("unenroll"), "{shell}: {script}");
    }
    cli.run(&["completions", "csh"])
        .failed(2, "invalid value 'csh'", "--help");
    let page = cli.run(&["man"]).success().stdout;
    assert!(
        page.contains(".TH") && page.contains("atcomm\\-enroll(1)"),
        "{page}"
    );
    let written = cli.run(&["man", "pages"]).success().stdout;
    let pages: Vec<_> = written.lines().collect();
    assert!(
        pages.contains(&"pages/atcomm-enroll.1") && pages.contains(&"pages/atcomm.1"),
        "{written}"
    );
    for page in pages {
        let text = std::fs::read_to_string(cli.path(page)).expect("a page");
        assert!(text.contains(".SH \"EXIT STATUS\""), "{page}: {text}");
    }
    std::fs::write(cli.path("file"), "").expect("a file");
    cli.run(&["man", "file"])
        .failed(1, "cannot write file", "directory");
}
