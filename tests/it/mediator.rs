//! The program as a mediator, and clients of it that others wrote.
//!
//! Every answer is looked at when it comes ([`Client::tell`]): its form, whom it is from, which
//! thread it is in, and whether it is as the schema of its type in `schemas/didcomm/` says.

mod documents;
mod envelopes;
mod operation;
mod ownership;
mod pickup;
mod problems;
mod quickstart;
mod quotas;
mod scenarios;
mod sockets;
mod transport;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use crate::didcomm::{Library, Script};
use crate::http::{Answer, request};
use crate::network::{root, text};
use crate::service::{Service, Setup, Stopped};

const GREETING: &str = "https://example.org/greeting/1.0/hello";

/// The versions of coordinate-mediation.
const VERSIONS: [&str; 2] = ["2.0", "3.0"];

/// The one that the tests with admission `open` share, as long as one of them runs. What lives
/// until the end of the process would outlive it.
static SHARED: Mutex<Weak<Mediator>> = Mutex::new(Weak::new());

/// Judges messages by their schemas.
static SCHEMAS: LazyLock<Script> = LazyLock::new(|| {
    let directory = root().join("schemas/didcomm");
    let arguments = [directory.to_str().expect("text")];
    Script::start(Library::Messaging, "schemas.py", &arguments)
});

/// A running mediator.
pub(crate) struct Mediator {
    service: Service,
    /// Its did:peer:2, which clients that look up no did:web are given.
    pub(crate) did: String,
    /// Its did:web.
    pub(crate) web: String,
    base: String,
}

impl Mediator {
    /// Settings of a mediator that keeps mail for whoever asks.
    pub(crate) fn setup() -> Setup {
        Setup::offline().set("mediator.admission", json!("open"))
    }

    /// The shared one.
    #[track_caller]
    pub(crate) fn open() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let mediator = Arc::new(Self::start(Self::setup()));
            *shared = Arc::downgrade(&mediator);
            mediator
        })
    }

    /// Starts one at a free port, which its DID names.
    #[track_caller]
    pub(crate) fn start(setup: Setup) -> Self {
        let port = free_port();
        let setup = setup
            .set("http.listen", json!(format!("127.0.0.1:{port}")))
            .set(
                "mediator.public_url",
                json!(format!("http://localhost:{port}")),
            );
        Self::of(setup.start())
    }

    /// Starts one again on what it left.
    #[track_caller]
    pub(crate) fn restart(stopped: Stopped) -> Self {
        Self::of(stopped.start())
    }

    #[track_caller]
    fn of(service: Service) -> Self {
        let base = service.url("").replace("127.0.0.1", "localhost");
        let invitation = request("GET", &service.url("/invitation"), &[], None).json();
        let document = request("GET", &service.url("/.well-known/did.json"), &[], None).json();
        Self {
            did: text(&invitation, "/from").to_owned(),
            web: text(&document, "/id").to_owned(),
            service,
            base,
        }
    }

    pub(crate) fn service(&self) -> &Service {
        &self.service
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// Ends it as an operator would.
    #[track_caller]
    pub(crate) fn stop(self) -> Stopped {
        self.service.stop()
    }

    /// Ends it as a power cut would.
    #[track_caller]
    pub(crate) fn kill(self) -> Stopped {
        self.service.kill()
    }

    /// A client without an account, with one identity.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        let script = Script::client();
        let client = Client {
            did: script.generate(),
            script,
            mediators: vec![self.did.clone(), self.web.clone()],
        };
        client.turn_to(&self.did, self);
        client
    }

    /// A client with an account that its own DID is added to.
    #[track_caller]
    pub(crate) fn member(&self) -> Client {
        let client = self.client();
        client.enter(&client.did);
        client
    }

    /// What the operator's program says on this mediator's data directory.
    #[track_caller]
    pub(crate) fn operate(&self, arguments: &[&str]) -> Value {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_atcomm"))
            .args(arguments)
            .arg("--data-dir")
            .arg(self.service.data_dir())
            .arg("--json")
            .output()
            .expect("the program");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// A port that nobody has. It is below the range that the system gives outgoing connections, so
/// that a mediator finds its own free when it is started again.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(61);
    (0..12_000)
        .map(|_| NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(begin))
        .map(|number| 20_000 + u16::try_from(number % 12_000).expect("below"))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// A client in a process of its own, over a library that others wrote.
pub(crate) struct Client {
    script: Script,
    /// The identity that it speaks as unless told otherwise.
    pub(crate) did: String,
    /// What the mediator may be called.
    mediators: Vec<String>,
}

/// A message to somebody, packed by the client.
pub(crate) struct Letter {
    /// The envelope.
    pub(crate) packed: String,
    /// What is in it.
    pub(crate) plain: Value,
}

impl Letter {
    /// Its id at the mediator, which a recipient can work out by itself.
    pub(crate) fn id(&self) -> String {
        use sha2::Digest as _;
        data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(&self.packed))
    }
}

impl Client {
    /// Speaks to the mediator as this DID of it.
    #[track_caller]
    pub(crate) fn turn_to(&self, did: &str, mediator: &Mediator) {
        let http = mediator.url("/didcomm");
        let ws = http.replacen("http", "ws", 1);
        self.script
            .op("mediator", json!({"did": did, "http": http, "ws": ws}));
    }

    pub(crate) fn script(&self) -> &Script {
        &self.script
    }

    /// One more identity of this client.
    #[track_caller]
    pub(crate) fn generate(&self) -> String {
        self.script.generate()
    }

    /// An operation as the client's own identity, or as the one in `fields`. What is answered is
    /// checked.
    #[track_caller]
    pub(crate) fn tell(&self, operation: &str, mut fields: Value) -> Value {
        if fields.get("from").is_none() {
            fields["from"] = json!(self.did);
        }
        let answer = self.script.op(operation, fields);
        self.check(&answer);
        answer
    }

    /// The same, and there has to be an answer: its message.
    #[track_caller]
    pub(crate) fn ask(&self, operation: &str, fields: Value) -> Value {
        let answer = self.tell(operation, fields);
        assert_eq!(answer["status"], 200, "{operation}: {answer}");
        answer["message"].clone()
    }

    /// A message of any type, whose answer is asked for.
    #[track_caller]
    pub(crate) fn say(&self, kind: &str, body: Value) -> Value {
        self.tell(
            "send",
            json!({"message": self.message(kind, body), "return_route": "all"}),
        )
    }

    /// A message of the client to the mediator.
    pub(crate) fn message(&self, kind: &str, body: Value) -> Value {
        json!({
            "id": fresh_id(),
            "typ": "application/didcomm-plain+json",
            "type": kind,
            "from": self.did,
            "to": [self.mediators[0]],
            "body": body,
        })
    }

    /// Is told that there is a problem, of this code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, answer: &Value, code: &str) {
        assert_eq!(answer["status"], 200, "{answer}");
        let report = &answer["message"];
        let kind = "https://didcomm.org/report-problem/2.0/problem-report";
        assert_eq!(report["type"], kind, "{report}");
        assert_eq!(report["body"]["code"], code, "{report}");
    }

    /// Asks for mediation and adds recipients.
    #[track_caller]
    pub(crate) fn enter(&self, recipient: &str) {
        let granted = self.ask("request", json!({}));
        assert_eq!(granted["body"]["routing_did"], json!([self.mediators[0]]));
        assert_eq!(self.update("3.0", "add", recipient), "success");
    }

    /// The result of one update.
    #[track_caller]
    pub(crate) fn update(&self, version: &str, action: &str, recipient: &str) -> String {
        let update = json!({"recipient_did": recipient, "action": action});
        let answer = self.ask("update", json!({"updates": [update], "version": version}));
        let updated = answer["body"]["updated"].as_array().expect("a list");
        assert_eq!(updated.len(), 1, "{answer}");
        assert_eq!(updated[0]["recipient_did"], recipient);
        assert_eq!(updated[0]["action"], action);
        text(&updated[0], "/result").to_owned()
    }

    /// Messages that wait, for one DID or for all of the account's.
    #[track_caller]
    pub(crate) fn waiting(&self, recipient: Option<&str>) -> u64 {
        let status = self.ask("status", json!({"recipient_did": recipient}));
        status["body"]["message_count"].as_u64().expect("a number")
    }

    /// What a delivery hands out, each opened.
    #[track_caller]
    pub(crate) fn fetch(&self, fields: Value) -> Vec<Value> {
        let answer = self.tell("delivery", fields);
        assert_eq!(answer["status"], 200, "{answer}");
        let attached = answer["attached"].as_array();
        attached
            .unwrap_or_else(|| panic!("no delivery: {answer}"))
            .clone()
    }

    /// A message of somebody to somebody.
    #[track_caller]
    pub(crate) fn letter(&self, to: &str) -> Letter {
        self.letter_of(to, "grüß dich")
    }

    /// The same with these words in it.
    #[track_caller]
    pub(crate) fn letter_of(&self, to: &str, words: &str) -> Letter {
        let plain = json!({
            "id": fresh_id(),
            "typ": "application/didcomm-plain+json",
            "type": GREETING,
            "from": self.did,
            "to": [to],
            "body": {"words": words},
        });
        let packed = self.script.op(
            "pack",
            json!({"message": plain, "to": to, "from": self.did}),
        );
        Letter {
            packed: text(&packed, "/packed").to_owned(),
            plain,
        }
    }

    /// Sends an anonymous forward that is taken; its success has no body.
    #[track_caller]
    pub(crate) fn forward(&self, next: &str, letter: &Letter) {
        let answer = self.try_forward(json!({"next": next, "packed": letter.packed}));
        assert_eq!(answer["status"], 202, "{answer}");
    }

    /// Sends a forward, anonymous unless there is a `from`.
    #[track_caller]
    pub(crate) fn try_forward(&self, fields: Value) -> Value {
        let answer = self.script.op("forward", fields);
        self.check(&answer);
        answer
    }

    /// What comes by a socket; less than `count` where no more came.
    #[track_caller]
    pub(crate) fn frames(&self, socket: &Value, count: usize) -> Vec<Value> {
        let answer = self
            .script
            .op("frames", json!({"socket": socket, "count": count}));
        let frames = answer["frames"].as_array().expect("a list").clone();
        for frame in &frames {
            if self.is_mediator(&frame["message"]["from"]) {
                self.check_message(frame);
            }
        }
        assert_eq!(
            frames.len(),
            count,
            "{frames:?}, closed: {}",
            answer["closed"]
        );
        frames
    }

    /// The next frame.
    #[track_caller]
    pub(crate) fn frame(&self, socket: &Value) -> Value {
        self.frames(socket, 1).remove(0)
    }

    /// A new WebSocket.
    #[track_caller]
    pub(crate) fn socket(&self) -> Value {
        self.script.op("open", json!({}))["socket"].clone()
    }

    /// A WebSocket in live mode.
    #[track_caller]
    pub(crate) fn live(&self) -> Value {
        let socket = self.socket();
        self.tell("live", json!({"socket": socket}));
        let status = self.frame(&socket);
        assert_eq!(status["message"]["body"]["live_delivery"], true, "{status}");
        socket
    }

    fn is_mediator(&self, did: &Value) -> bool {
        self.mediators.iter().any(|known| did == known)
    }

    /// An answer over HTTP is as it has to be, whatever was asked.
    #[track_caller]
    fn check(&self, answer: &Value) {
        let header = |name: &str| answer["headers"][name].as_str().unwrap_or_default();
        match answer["status"].as_u64() {
            // By a socket, or not sent at all.
            None => {}
            Some(200) => {
                assert_eq!(header("cache-control"), "no-store");
                if header("content-type") == "application/didcomm-signed+json" {
                    return;
                }
                assert_eq!(header("content-type"), "application/didcomm-encrypted+json");
                self.check_message(answer);
                let (message, sent) = (&answer["message"], &answer["sent"]);
                if sent.is_object() {
                    let thread = message.get("thid").or(message.get("pthid"));
                    assert_eq!(thread, sent.get("thid").or(sent.get("id")), "{answer}");
                }
                if message["type"]
                    .as_str()
                    .is_some_and(|kind| kind.contains("problem"))
                {
                    assert_eq!(message.get("thid"), None, "{message}");
                    assert!(message["ack"].is_array(), "{message}");
                    if sent.is_object() {
                        assert_eq!(message["ack"], json!([sent["id"]]), "{message}");
                    }
                }
            }
            Some(202) => assert_eq!(answer["body"], "", "{answer}"),
            Some(_) => {
                assert_eq!(header("content-type"), "application/json", "{answer}");
                assert_refusal(text(answer, "/body"));
            }
        }
    }

    /// A message of the mediator: encrypted by it to whom it was sent, and as its schema says.
    #[track_caller]
    fn check_message(&self, opened: &Value) {
        assert_eq!(opened.get("refused"), None, "{opened}");
        let message = &opened["message"];
        assert!(self.is_mediator(&message["from"]), "{message}");
        let (sender, from) = (text(opened, "/sender"), text(message, "/from"));
        assert!(sender.starts_with(&format!("{from}#")), "{sender}");
        assert_eq!(opened["layers"], json!(["authcrypt A256CBC-HS512"]));
        assert_schema(message);
    }
}

/// A refusal over HTTP says which and why, and nothing else.
#[track_caller]
pub(crate) fn assert_refusal(body: &str) {
    let body: Value = serde_json::from_str(body).expect("JSON");
    let fields: Vec<_> = body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["error", "message"], "{body}");
    assert!(!text(&body, "/error").is_empty() && !text(&body, "/message").is_empty());
}

/// A message is as the schema of its type says.
#[track_caller]
pub(crate) fn assert_schema(message: &Value) {
    let kind = text(message, "/type");
    let known = kind.strip_prefix("https://didcomm.org/");
    let known = known.unwrap_or_else(|| panic!("{kind} is of no known protocol"));
    let schema = format!("{}.json", known.replace('/', "."));
    SCHEMAS.op("check", json!({"schema": schema, "instance": message}));
}

/// A GET of one of the mediator's documents.
#[track_caller]
pub(crate) fn get(mediator: &Mediator, path: &str) -> Answer {
    request("GET", &mediator.url(path), &[], None)
}

/// An id that nobody else uses.
fn fresh_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("message-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
