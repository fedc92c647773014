//! The example programs of the client library, built and run as a bot's author would.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::json;

use super::enrolled::{enrolled_person, texts};
use super::{MediatorService, Person};
use crate::network::{Network, root};

/// The folder of the built examples. They are built where the tests were run without them.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--offline",
            "--locked",
            "--workspace",
            "--examples",
        ])
        .current_dir(root())
        .stdin(Stdio::null())
        .status()
        .expect("cargo");
    assert!(built.success(), "the examples are built");
    let program = Path::new(env!("CARGO_BIN_EXE_atcomm"));
    program.parent().expect("a folder").join("examples")
});

impl Person {
    /// Writes the settings that a program of the library reads.
    fn settings(&self) -> PathBuf {
        let network = self.account.network;
        let settings = json!({
            "home": self.cli.wallet(),
            "net": {
                "development": true,
                "name_server": network.name_server(),
                "host_rate": 1000,
                "host_burst": 1000,
            },
            "identity": {"plc_url": network.plc()},
        });
        let path = self.cli.path("settings.json");
        std::fs::write(&path, settings.to_string()).expect("a file");
        path
    }
}

fn example(name: &str) -> Command {
    let mut command = Command::new(FOLDER.join(name));
    command.stdin(Stdio::null());
    command
}

/// Runs an example to its end, which has to be a success, and returns what it printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().expect("a program");
    let talk = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{talk}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_examples_of_the_client_find_write_and_answer() {
    let network = Network::multikey();
    let (near, far) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let alice = enrolled_person(network, "xa", 0, &[&near]);
    let bot = enrolled_person(network, "xb", 1, &[&far]);

    let found = run(example("resolve")
        .arg(&bot.account.handle)
        .arg(alice.settings()));
    for part in [&bot.account.did, &bot.account.handle, &far.did] {
        assert!(found.contains(part.as_str()), "{part}: {found}");
    }
    assert!(!found.contains("not safe"), "{found}");

    let mut echo = example("echo")
        .arg(bot.settings())
        .arg("1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("a program");
    let sent = run(example("send")
        .arg(alice.settings())
        .args([&bot.account.handle, "hello, bot"]));
    assert!(sent.contains(&far.did), "{sent}");
    assert!(echo.wait().expect("an end").success());
    let received = alice.collect(1);
    assert_eq!(texts(&received), ["hello, bot"]);
    assert_eq!(received[0]["attribution"]["handle"], *bot.account.handle);

    let refused = example("send")
        .arg(alice.settings())
        .output()
        .expect("a program");
    let talk = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && talk.contains("usage"),
        "{talk}"
    );
}
