//! `deploy/rehearse.sh`: from an empty directory to a message whose sender is verified, beside a real
//! PDS with a real Caddy.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use testkit::network::script;

use crate::network::root;

/// Most commands that an operator and two users type.
const MAX_COMMANDS: usize = 9;

/// Longest time from the first command to the message.
const MAX_TIME: Duration = Duration::from_secs(600);

#[test]
fn an_operator_needs_fewer_than_ten_commands() {
    // The script expects that the network is installed.
    drop(script("run.sh"));
    let begun = Instant::now();
    let output = Command::new(root().join("deploy/rehearse.sh"))
        .args(["--binary", env!("CARGO_BIN_EXE_atcomm")])
        .stdin(Stdio::null())
        .output()
        .expect("bash");
    let [told, failed] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{told}\n{failed}");
    assert!(begun.elapsed() < MAX_TIME, "{told}");
    let commands: Vec<&str> = told.lines().filter(|line| is_command(line)).collect();
    assert!((1..=MAX_COMMANDS).contains(&commands.len()), "{commands:?}");
    // Each with its time.
    let times = told
        .lines()
        .filter(|line| line.starts_with("   (") && line.ends_with(" s)"));
    assert_eq!(times.count(), commands.len(), "{told}");
    assert!(told.contains("@alice.pds0.test (verified)"), "{told}");
    let last = told.lines().last().unwrap_or_default();
    assert!(
        last.ends_with("a message came, and its sender is verified"),
        "{told}"
    );
}

/// Returns whether a line shows a command: its number and a dollar sign.
fn is_command(line: &str) -> bool {
    let number = line.split_once("$ ").map(|(number, _)| number);
    number.is_some_and(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}
