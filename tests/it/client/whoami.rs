//! `atcomm whoami`, `atcomm completions` and `atcomm man`.

use super::{Home, Person, Station, finish};
use crate::network::{Network, text};

#[test]
fn the_wallet_shows_its_accounts() {
    let network = Network::multikey();
    let station = Station::start(network);
    let alice = Person::enrolled(network, "alice", 0, &station);
    let bob = network.account("bob", 1);
    let mut enroll =
        alice
            .home
            .command(&["enroll", &bob.handle, "-m", &station.did, "--label", "desk"]);
    enroll.env("ATCOMM_PASSWORD", text(&bob.made, "/password"));
    finish(enroll, "").done();
    let shown = alice
        .home
        .run(&["whoami", "--account", &bob.handle])
        .done()
        .out;
    let report = alice.home.json(&["whoami", "--account", &bob.did]);
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
            station.did,
            station.url,
            alice.home.wallet().display(),
        )
    );
    let all = alice.home.json(&["whoami", "--offline"]);
    assert_eq!(all["accounts"].as_array().map(Vec::len), Some(2));
    assert_eq!(text(&all, "/accounts/0/record/why"), "nobody was asked");
    alice
        .home
        .run(&["rotate"])
        .failed(2, "the wallet has several accounts: ", "--account");
    alice.home.run(&["rotate", "--account", &bob.handle]).done();
    alice
        .home
        .run(&["whoami", "--account", "carol.test"])
        .failed(2, "carol.test is not in the wallet", "whoami");
    // Damage is named, and nothing goes on over it.
    let file = alice.home.file("enrolment.json");
    std::fs::write(&file, "{").expect("a file");
    alice
        .home
        .run(&["whoami"])
        .failed(1, "is damaged", "atcomm restore");
}

#[test]
fn every_shell_and_the_manual_are_served() {
    let home = Home::new(Network::multikey());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.run(&["completions", shell]).done().out;
        assert!(script.contains("unenroll"), "{shell}: {script}");
    }
    home.run(&["completions", "csh"])
        .failed(2, "invalid value 'csh'", "--help");
    let page = home.run(&["man"]).done().out;
    assert!(
        page.contains(".TH") && page.contains("atcomm\\-enroll(1)"),
        "{page}"
    );
    let written = home.run(&["man", "pages"]).done().out;
    let pages: Vec<_> = written.lines().collect();
    assert!(
        pages.contains(&"pages/atcomm-enroll.1") && pages.contains(&"pages/atcomm.1"),
        "{written}"
    );
    for page in pages {
        let text = std::fs::read_to_string(home.path(page)).expect("a page");
        assert!(text.contains(".SH \"EXIT STATUS\""), "{page}: {text}");
    }
    std::fs::write(home.path("file"), "").expect("a file");
    home.run(&["man", "file"])
        .failed(1, "cannot write file", "directory");
}
