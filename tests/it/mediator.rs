//! The program as a mediator, with foreign clients.
//!
//! [`Client::tell`] checks every response on arrival: its form, its sender, its thread, and the
//! schema of its type in `schemas/didcomm/`.

mod client;
mod clock;
mod damage;
mod documents;
mod envelopes;
mod operation;
mod ownership;
mod pickup;
mod problems;
mod quickstart;
mod quotas;
mod restored;
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

pub(crate) use client::{Client, PackedMessage};

const GREETING: &str = "https://example.org/greeting/1.0/hello";

/// The versions of coordinate-mediation.
const VERSIONS: [&str; 2] = ["2.0", "3.0"];

/// The mediator that the tests with admission `open` share while one of them runs. A static
/// mediator would outlive the process, since statics are not dropped.
static SHARED: Mutex<Weak<Mediator>> = Mutex::new(Weak::new());

/// Validates messages by their schemas.
static SCHEMAS: LazyLock<Script> = LazyLock::new(|| {
    let directory = root().join("schemas/didcomm");
    let arguments = [directory.to_str().expect("text")];
    Script::start(Library::Messaging, "schemas.py", &arguments)
});

/// Clients of finished tests, for reuse: starting a client takes as long as a test with it.
static IDLE: Mutex<Vec<Script>> = Mutex::new(Vec::new());

/// A running mediator.
pub(crate) struct Mediator {
    service: Service,
    /// The did:peer:2 of the mediator, for clients that cannot resolve a did:web.
    pub(crate) did: String,
    /// The did:web of the mediator.
    pub(crate) web: String,
    base: String,
}

impl Mediator {
    /// Returns settings of a mediator with open admission.
    pub(crate) fn setup() -> Setup {
        Setup::offline().set("mediator.admission", json!("open"))
    }

    /// Returns the shared mediator.
    #[track_caller]
    pub(crate) fn open() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let mediator = Arc::new(Self::start(Self::setup()));
            *shared = Arc::downgrade(&mediator);
            mediator
        })
    }

    /// Starts a mediator on a free port, which its DID names.
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

    /// Restarts a mediator on its data directory.
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

    /// Stops the mediator as an operator would.
    #[track_caller]
    pub(crate) fn stop(self) -> Stopped {
        self.service.stop()
    }

    /// Kills the mediator, like a power cut.
    #[track_caller]
    pub(crate) fn kill(self) -> Stopped {
        self.service.kill()
    }

    /// Returns a client without an account, with one identity.
    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        self.client_of(idle.unwrap_or_else(Script::client))
    }

    /// Returns a client in a new process, for a test with identities of its own.
    #[track_caller]
    pub(crate) fn new_client(&self) -> Client {
        self.client_of(Script::client())
    }

    #[track_caller]
    fn client_of(&self, script: Script) -> Client {
        let client = Client::new(script, vec![self.did.clone(), self.web.clone()]);
        client.turn_to(&self.did, self);
        client
    }

    /// Returns a client with an account that its own DID is added to.
    #[track_caller]
    pub(crate) fn member(&self) -> Client {
        let client = self.client();
        client.enter(&client.did);
        client
    }

    /// Runs an operator's command on this mediator's data directory and returns its output.
    #[track_caller]
    pub(crate) fn operate(&self, arguments: &[&str]) -> Value {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_atcomm"))
            .args(arguments)
            .arg("--data-dir")
            .arg(self.service.data_dir())
            .arg("--json")
            .output()
            .expect("the program");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

/// Returns a free port below the range of outgoing connections, so that it is still free when its
/// mediator is restarted.
fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(61);
    (0..12_000)
        .map(|_| NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(begin))
        .map(|number| 20_000 + u16::try_from(number % 12_000).expect("below"))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Checks a refusal over HTTP: the name of the error and a message, and nothing else.
#[track_caller]
pub(crate) fn assert_refusal(body: &str) {
    let body: Value = serde_json::from_str(body).expect("JSON");
    let fields: Vec<_> = body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["error", "message"], "{body}");
    assert!(!text(&body, "/error").is_empty() && !text(&body, "/message").is_empty());
}

/// Checks a message by the schema of its type.
#[track_caller]
pub(crate) fn assert_schema(message: &Value) {
    let kind = text(message, "/type");
    let known = kind.strip_prefix("https://didcomm.org/");
    let known = known.unwrap_or_else(|| panic!("{kind} is of no known protocol"));
    let schema = format!("{}.json", known.replace('/', "."));
    SCHEMAS.op("check", json!({"schema": schema, "instance": message}));
}

/// Fetches one of the mediator's documents.
#[track_caller]
pub(crate) fn get(mediator: &Mediator, path: &str) -> Answer {
    request("GET", &mediator.url(path), &[], None)
}

/// Returns an unused id.
fn fresh_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("message-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
