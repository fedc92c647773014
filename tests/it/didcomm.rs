//! DIDComm by foreign libraries in processes of their own (`tests/network/didcomm/`).

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::network::script;

use crate::network::{root, text};

/// Timeout of one operation. The scripts give up earlier, so an operation that reaches it hangs.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(90);

/// The library that a script runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Library {
    /// `didcomm-messaging`: no signatures and one content encryption; also used by the client and
    /// the quickstart.
    Messaging,
    /// `didcomm`: signatures, three content encryptions, P-256.
    Sicpa,
}

impl Library {
    pub(crate) const BOTH: [Self; 2] = [Self::Messaging, Self::Sicpa];

    /// Returns a script over this library, ready to be started.
    pub(crate) fn script(self, name: &str) -> Command {
        let mut command = script(match self {
            Self::Messaging => "didcomm/.venv-messaging/bin/python",
            Self::Sicpa => "didcomm/.venv-sicpa/bin/python",
        });
        command
            .arg(root().join("tests/network/didcomm").join(name))
            // All servers of the tests are on this machine, whatever proxy the user has set.
            .env("no_proxy", "*")
            // The tests write no files into the source tree.
            .env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

/// A running script: one line in, one line out. It is killed when dropped.
pub(crate) struct Script {
    name: &'static str,
    child: Child,
    pipes: Mutex<(ChildStdin, Receiver<String>)>,
}

impl Script {
    pub(crate) fn start(library: Library, name: &'static str, arguments: &[&str]) -> Self {
        let mut child = library
            .script(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        // Reading has a thread of its own, so that a hanging script fails a test instead of
        // blocking it.
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            name,
            child,
            pipes: Mutex::new((input, lines)),
        }
    }

    /// Starts `envelopes.py`, which packs and unpacks.
    pub(crate) fn envelopes(library: Library) -> Self {
        Self::start(library, "envelopes.py", &[])
    }

    /// Starts `client.py`, a client of a mediator that also has the operations of `envelopes.py`.
    pub(crate) fn client() -> Self {
        Self::start(Library::Messaging, "client.py", &[])
    }

    /// Runs an operation that has to succeed.
    #[track_caller]
    pub(crate) fn op(&self, operation: &str, fields: Value) -> Value {
        self.try_op(operation, fields.clone())
            .unwrap_or_else(|e| panic!("{} {operation} {fields}: {e}", self.name))
    }

    /// Runs an operation; an error is `{"class", "error"}`, the exception that the library raised.
    #[track_caller]
    pub(crate) fn try_op(&self, operation: &str, mut fields: Value) -> Result<Value, Value> {
        fields["op"] = json!(operation);
        // After a test panicked at its timeout, an answer is still to come, so no further operation
        // is sent.
        let mut pipes = self.pipes.lock().expect("no operation failed before");
        writeln!(pipes.0, "{fields}").unwrap_or_else(|e| panic!("{} {operation}: {e}", self.name));
        let line = pipes.1.recv_timeout(OPERATION_TIMEOUT);
        let line = line.unwrap_or_else(|e| panic!("{} {operation}: {e}", self.name));
        let answer: Value = serde_json::from_str(&line).expect("a line of JSON");
        match answer["ok"].as_bool() {
            Some(true) => Ok(answer),
            _ => Err(answer),
        }
    }

    /// Returns a new did:peer:2, whose secrets the script stores.
    #[track_caller]
    pub(crate) fn generate(&self) -> String {
        text(&self.op("generate", json!({})), "/did").to_owned()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // The script may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns a plaintext message of no protocol.
fn greeting(fields: Value) -> Value {
    let mut message = json!({
        "id": "one",
        "typ": "application/didcomm-plain+json",
        "type": "https://example.org/greeting/1.0/hello",
        "body": {"words": "grüß dich"},
    });
    for (name, value) in fields.as_object().expect("an object") {
        message[name] = value.clone();
    }
    message
}

#[test]
fn the_libraries_of_others_read_each_other() {
    let [messaging, sicpa] = Library::BOTH.map(Script::envelopes);
    for (from, to) in [(&messaging, &sicpa), (&sicpa, &messaging)] {
        let (alice, bob) = (from.generate(), to.generate());
        let message = greeting(json!({"from": alice, "to": [bob]}));
        for protect in [false, true] {
            let packed = from.op(
                "pack",
                json!({"message": message, "to": bob, "from": alice, "protect": protect}),
            );
            let opened = to.op("unpack", json!({"packed": packed["packed"]}));
            assert_eq!(opened["message"], message);
            assert_eq!(opened["sender"], format!("{alice}#key-2"));
            assert_eq!(opened["recipient"], format!("{bob}#key-2"));
        }

        let message = greeting(json!({}));
        let about = from.op("library", json!({}));
        for enc in about["anoncrypt"].as_array().expect("a list") {
            let packed = from.op("pack", json!({"message": message, "to": bob, "enc": enc}));
            let opened = to.op("unpack", json!({"packed": packed["packed"]}));
            assert_eq!(opened["message"], message);
            assert_eq!(opened["sender"], Value::Null);
            assert_eq!(
                opened["layers"],
                json!([format!("anoncrypt {}", text(enc, ""))])
            );
            // Unpacking needs the recipient's secret.
            let refused = from.try_op("unpack", json!({"packed": packed["packed"]}));
            assert!(refused.is_err(), "{refused:?}");
        }
    }
}

#[test]
fn an_identity_made_elsewhere_opens_with_the_imported_secret() {
    // RFC 7748, section 6.1: the second key pair.
    let secret = "XasIfmJKikt54X-Lg4AO5m87sSkmGLb9HC-LJ_-I4Os";
    let did = "did:peer:2.Ez6LSrfCAhzvNQfJmHrw9Ho2Z2J8K2z2XmChTsD5W5W3MNZyQ";
    for library in Library::BOTH {
        let script = Script::envelopes(library);
        let kid = format!("{did}#key-1");
        let packed = script.op("pack", json!({"message": greeting(json!({})), "to": did}));
        let packed = json!({"packed": packed["packed"]});
        let refused = script.try_op("unpack", packed.clone());
        assert!(refused.is_err(), "{refused:?}");
        let key = json!({"kid": kid, "curve": "X25519", "secret": secret});
        script.op("import", json!({"keys": [key]}));
        assert_eq!(script.op("unpack", packed)["recipient"], kid);
    }
}

#[test]
fn a_forward_of_the_client_is_unwrapped_by_the_other_library() {
    let (client, others) = (Script::client(), Script::envelopes(Library::Sicpa));
    let (near, far) = (others.generate(), others.generate());
    let (alice, bob) = (client.generate(), others.generate());
    let inner = client.op(
        "pack",
        json!({"message": greeting(json!({"from": alice, "to": [bob]})), "to": bob, "from": alice}),
    );
    let inner = text(&inner, "/packed");
    for form in ["json", "base64"] {
        let sent = client.op(
            "forward",
            json!({"next": bob, "packed": [inner, inner], "form": form, "through": [near, far],
                "extra": {"expires_time": 2_000_000_000, "delay_milli": -5}, "post": false}),
        );
        let outer = plaintext_of(&others, text(&sent, "/packed"));
        assert_eq!(outer["body"]["next"], far);
        assert_eq!(outer["to"], json!([near]));
        assert_eq!(outer["expires_time"], 2_000_000_000);
        assert_eq!(outer["delay_milli"], -5);
        let forward = plaintext_of(&others, &attached(&outer["attachments"][0]));
        assert_eq!(forward["body"]["next"], bob);
        assert_eq!(forward["attachments"].as_array().map(Vec::len), Some(2));
        for attachment in forward["attachments"].as_array().expect("a list") {
            let envelope = attached(attachment);
            let opened = others.op("unpack", json!({"packed": envelope}));
            assert_eq!(opened["sender"], format!("{alice}#key-2"));
        }
    }
}

/// Returns the plaintext of an anonymous envelope.
fn plaintext_of(script: &Script, packed: &str) -> Value {
    let opened = script.op("unpack", json!({"packed": packed}));
    assert_eq!(opened["sender"], Value::Null);
    opened["message"].clone()
}

/// Returns the attached envelope in either form.
fn attached(attachment: &Value) -> String {
    match attachment["data"]["base64"].as_str() {
        Some(base64) => {
            let bytes = data_encoding::BASE64URL_NOPAD.decode(base64.as_bytes());
            String::from_utf8(bytes.expect("base64url")).expect("text")
        }
        None => attachment["data"]["json"].to_string(),
    }
}

#[test]
fn the_validator_refuses_what_does_not_fit_the_schema() {
    let directory = tempfile::tempdir().expect("a directory");
    let schema = json!({"type": "object", "properties": {"limit": {"$ref": "limit.json"}}});
    let limit = json!({"type": "integer", "minimum": 1});
    for (name, schema) in [("request.json", schema), ("limit.json", limit)] {
        std::fs::write(directory.path().join(name), schema.to_string()).expect("a file");
    }
    let arguments = [directory.path().to_str().expect("text")];
    let validator = Script::start(Library::Messaging, "schemas.py", &arguments);
    let check = |schema, instance| {
        validator.try_op("check", json!({"schema": schema, "instance": instance}))
    };
    assert!(check("request.json", json!({"limit": 1})).is_ok());
    let refused = check("request.json", json!({"limit": 0})).expect_err("not that few");
    assert!(
        text(&refused, "/error").ends_with("at $.limit"),
        "{refused}"
    );
    assert!(check("absent.json", json!({})).is_err());
}
