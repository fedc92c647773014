//! `atcomm backup` and `atcomm restore`.

use std::os::unix::fs::PermissionsExt as _;

use super::{CliEnv, MediatorService, Output, Person, finish};
use crate::network::{Network, text};

const PASSPHRASE: &str = "correct horse battery staple";

fn with(cli: &CliEnv, args: &[&str], passphrase: &str) -> Output {
    let mut command = cli.command(args);
    command.env("ATCOMM_PASSPHRASE", passphrase);
    finish(command, "")
}

#[test]
fn a_lost_machine_is_replaced() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 0, &mediator);
    let peer = alice.peer();
    let file = alice.cli.path("backup.age");
    let path = file.to_str().expect("text");
    alice
        .cli
        .run(&["backup", path])
        .failed(2, "no passphrase is given", "ATCOMM_PASSPHRASE");
    with(&alice.cli, &["backup", path], "short").failed(
        1,
        "the passphrase is shorter",
        "several words",
    );
    assert!(!file.exists());
    let output = with(&alice.cli, &["backup", path], PASSPHRASE).success();
    assert!(
        output
            .stdout
            .ends_with("has the keys of 1 accounts and 0 contacts, without their mail\n"),
        "{output:?}"
    );
    assert_eq!(
        file.metadata().expect("a file").permissions().mode() & 0o777,
        0o600
    );
    let sealed = std::fs::read_to_string(&file).expect("text");
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n"));
    with(&alice.cli, &["backup", path], PASSPHRASE).failed(1, "exists already", "--force");
    assert_eq!(std::fs::read_to_string(&file).expect("text"), sealed);

    // A message arrives after the wallet is lost.
    let bob = Person::enrolled(network, "bob", 1, &mediator);
    bob.cli
        .run(&["send", &alice.account.handle, "are you there"])
        .success();
    let new = CliEnv::new(network);
    with(&new, &["restore", path], "correct horse battery stable").failed(
        1,
        "the passphrase is not the one",
        "try again",
    );
    new.run(&["whoami"])
        .failed(2, "there is no account", "atcomm restore");
    assert!(!new.wallet().exists());
    let restored = with(&new, &["restore", path], PASSPHRASE).success();
    assert_eq!(
        restored.stdout,
        format!(
            "{} is in the wallet now\n0 contacts were added\n",
            alice.account.did
        )
    );
    let account = new.json(&["whoami"])["accounts"][0].clone();
    assert_eq!(text(&account, "/keys/0/peer"), peer);
    assert_eq!(text(&account, "/record/is"), "ours");
    assert_eq!(account["signedIn"], false);
    // The restored wallet continues where the lost one was, and needs no password.
    let mail = new.run(&["receive"]).success();
    assert!(mail.stdout.contains("are you there"), "{mail:?}");
    assert!(mail.stdout.contains(&bob.account.handle), "{mail:?}");
    let mut again = new.command(&["enroll", &alice.account.handle]);
    again.env("ATCOMM_PASSWORD", alice.password());
    let output = finish(again, "").success();
    assert!(
        output
            .stderr
            .contains("the account's record is as it should be"),
        "{output:?}"
    );
    assert!(
        output
            .stderr
            .contains(&format!("{} keeps the mail", mediator.did)),
        "{output:?}"
    );
    // After a rotation, restoring the earlier backup changes nothing.
    new.run(&["rotate"]).success();
    let rotated = text(&new.json(&["whoami"]), "/accounts/0/keys/0/peer").to_owned();
    let again = with(&new, &["restore", path, "--force"], PASSPHRASE).success();
    assert!(
        again.stdout.contains("was in the wallet already"),
        "{again:?}"
    );
    assert_eq!(
        text(&new.json(&["whoami"]), "/accounts/0/keys/0/peer"),
        rotated
    );
}

#[test]
fn backups_go_through_pipes_and_bad_ones_are_told_apart() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let alice = Person::enrolled(network, "alice", 1, &mediator);
    std::fs::write(alice.cli.path("passphrase"), format!("{PASSPHRASE}\n")).expect("a file");
    let flags = ["--passphrase-file", "passphrase"];
    let backup = alice
        .cli
        .run(&["backup", "-", flags[0], flags[1]])
        .success()
        .stdout;
    let new = CliEnv::new(network);
    std::fs::write(new.path("passphrase"), format!("{PASSPHRASE}\n")).expect("a file");
    let restore = |input: &str| new.run_with(&["restore", "-", flags[0], flags[1]], input);
    restore("").failed(1, "it is not an encrypted backup", "atcomm backup");
    restore("my diary").failed(1, "it is not an encrypted backup", "atcomm backup");
    restore(&backup[..backup.len() / 2]).failed(1, "the backup is damaged", "another copy");
    new.run(&["restore", "nowhere.age", flags[0], flags[1]])
        .failed(1, "cannot read nowhere.age", "atcomm backup");
    new.run(&["restore", "-", flags[0], "-"]).failed(
        2,
        "cannot both come from standard input",
        "file",
    );
    assert!(!new.wallet().exists());
    let mut full = new.limited(
        "trap '' XFSZ; ulimit -f 0",
        &["restore", "-", flags[0], flags[1]],
    );
    full.env("LANG", "C");
    finish(full, &backup).failed(1, "cannot write", "no room left");
    assert!(
        new.files()
            .iter()
            .all(|(path, _)| path.ends_with("lock") || path.ends_with("change.lock")),
        "{:?}",
        new.files()
    );
    restore(&backup).success();
    // Another key for the same account is replaced only on request.
    let other = Person::of(alice.account.clone());
    std::fs::write(other.cli.path("passphrase"), format!("{PASSPHRASE}\n")).expect("a file");
    other
        .run(&[
            "enroll",
            &alice.account.handle,
            "-m",
            &mediator.did,
            "--replace",
        ])
        .success();
    let peer = other.peer();
    let args = ["restore", "-", flags[0], flags[1]];
    other
        .cli
        .run_with(&args, &backup)
        .failed(1, "the wallet has another key for", "--force");
    assert_eq!(other.peer(), peer);
    let args = ["restore", "-", flags[0], flags[1], "--force"];
    other.cli.run_with(&args, &backup).success();
    assert_eq!(
        other.peer(),
        text(&new.json(&["whoami"]), "/accounts/0/keys/0/peer")
    );
    // An empty wallet has nothing to back up.
    let empty = CliEnv::new(network);
    with(&empty, &["backup", "x.age"], PASSPHRASE).failed(
        2,
        "the wallet has no accounts",
        "enroll",
    );
}
