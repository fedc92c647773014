//! `make demo`: the demo runs to its end, and the README shows the output of its commands.

use std::process::Stdio;
use testkit::network::script;

use crate::network::root;

/// Start of the transcript in the README; [`END`] follows it.
const BEGIN: &str = "<!-- what `make demo` prints; a test compares it -->\n\n```console\n";
const END: &str = "```\n";

#[test]
fn the_readme_shows_what_the_demo_prints() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("transcript");
    let output = script("demo.sh")
        .args(["--once", "--binary", env!("CARGO_BIN_EXE_atcomm")])
        .arg("--transcript")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .expect("tests/network/demo.sh");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let told = std::fs::read_to_string(&file).expect("a transcript");
    let readme = std::fs::read_to_string(root().join("README.md")).expect("the README");
    let (_, rest) = readme.split_once(BEGIN).expect("the beginning of it");
    let (shown, _) = rest.split_once(END).expect("its end");
    if shown != told {
        let differs = shown
            .lines()
            .zip(told.lines())
            .find(|(shown, told)| shown != told);
        panic!("the README shows another transcript: {differs:?}; this was printed:\n{told}");
    }
}
