//! What the operator of a service asks and does: `atcomm server`, and the check of the public address.

mod doctor;
mod public_url;
mod reload;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Exit code, standard output and standard error of `atcomm`.
struct Told {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn atcomm(args: &[&str], config: &Path) -> Told {
    let output = Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(args)
        .arg("--config")
        .arg(config)
        .output()
        .expect("the program");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Told {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

impl Told {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|_| panic!("no JSON: {}{}", self.stdout, self.stderr))
    }
}

/// The configuration of a service.
fn config(data_dir: &Path) -> PathBuf {
    data_dir.parent().expect("a folder").join("config.toml")
}
