//! What operators install, tried as they would type it: the release of `deploy/dist.sh`, and the
//! service under systemd.

mod image;
mod install;
mod machine;
mod release;
mod supervised;
mod unit;

use std::process::{Command, Output};

/// Runs a command that has to succeed, and returns what it wrote to standard output.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn output(command: &mut Command) -> Output {
    let output = command.stdin(std::process::Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
