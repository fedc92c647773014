//! The local network of `tests/network/` as a process: a DID directory, real PDSes, a name server,
//! a web host and a control port.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;

use serde_json::Value;

/// A running network. The process ends with its standard input, and therefore also when the tests
/// are killed.
pub struct Network {
    child: Child,
    /// The addresses of the parts, as `run.sh` prints them.
    pub ready: Value,
}

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns a script of the test network, after installing its packages if they are missing.
pub fn script(name: &str) -> Command {
    static SETUP: Once = Once::new();
    let directory = root().join("tests/network");
    SETUP.call_once(|| {
        let status = Command::new(directory.join("setup.sh")).status();
        let done = status.is_ok_and(|status| status.success());
        assert!(done, "tests/network/setup.sh failed");
    });
    Command::new(directory.join(name))
}

impl Network {
    /// Starts a network and waits until the network is ready.
    pub fn start(flags: &[&str]) -> Self {
        let mut child = script("run.sh")
            .arg("--exit-with-stdin")
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        Self {
            ready: serde_json::from_str(&line).unwrap(),
            child,
        }
    }

    /// Returns the text at a JSON pointer of [`Self::ready`], such as `/plc`.
    pub fn text(&self, pointer: &str) -> &str {
        let value = self.ready.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_else(|| panic!("{pointer} is missing in {}", self.ready))
    }

    /// Ends the network and waits for the end of the process.
    pub fn stop(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}
