//! Every answer is checked against its lexicon by the validator of the reference implementation.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::{Value, json};
use testkit::network::script;

use crate::network::root;

static VALIDATOR: LazyLock<Mutex<Validator>> = LazyLock::new(|| Mutex::new(Validator::start()));

/// `tests/network/lexicon.sh`: one line in, one line out. The process ends with its standard input.
struct Validator {
    /// Runs until the end of the tests; waiting for it earlier would block.
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Validator {
    fn start() -> Self {
        let mut child = script("lexicon.sh")
            .arg(root().join("lexicons"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/network/lexicon.sh");
        Self {
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(child.stdout.take().expect("a pipe")),
            _child: child,
        }
    }
}

/// Returns what the lexicon says against a value of this kind: `params`, `input`, `output`, `error`
/// and so on.
pub(crate) fn validate(nsid: &str, kind: &str, value: &Value) -> Result<(), String> {
    let question = json!({"nsid": nsid, "kind": kind, "value": value});
    let answer = {
        let mut validator = VALIDATOR.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(validator.input, "{question}").expect("the validator reads");
        let mut line = String::new();
        validator
            .output
            .read_line(&mut line)
            .expect("the validator answers");
        line
    };
    let answer: Value = serde_json::from_str(&answer).expect("a line of JSON");
    if answer["ok"] == true {
        return Ok(());
    }
    Err(answer["error"].to_string())
}

/// Fails unless `value` is a valid `kind` of the method `nsid`.
#[track_caller]
pub(crate) fn assert_valid(nsid: &str, kind: &str, value: &Value) {
    if let Err(why) = validate(nsid, kind, value) {
        panic!("{nsid} {kind}: {why} in {value}");
    }
}

#[test]
fn the_validator_refuses_what_is_not_as_the_lexicon_says() {
    let nsid = "at.didcomm.directory.resolveRecipient";
    let declared = json!({"status": 400, "body": {"error": "NotEnrolled", "message": "x"}});
    assert_valid(nsid, "error", &declared);
    for (kind, value) in [
        ("output", json!({"did": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"})),
        (
            "error",
            json!({"status": 400, "body": {"error": "Unheard", "message": "x"}}),
        ),
        (
            "error",
            json!({"status": 400, "body": {"error": "NotEnrolled"}}),
        ),
    ] {
        let refused = std::panic::catch_unwind(|| assert_valid(nsid, kind, &value));
        assert!(refused.is_err(), "{kind} {value}");
    }
}
