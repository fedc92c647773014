//! A client of a mediator that checks every response.

use std::cell::RefCell;
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::{GREETING, IDLE, Mediator, assert_refusal, assert_schema, fresh_id};
use crate::didcomm::Script;
use crate::network::text;

/// A client in a process of its own, over a foreign library.
pub(crate) struct Client {
    /// `None` only while the client is dropped.
    script: Option<Script>,
    /// The sockets that the client has opened.
    sockets: RefCell<Vec<Value>>,
    /// The identity of the client, unless a call names another.
    pub(crate) did: String,
    /// The DIDs of the mediator.
    pub(super) mediators: Vec<String>,
}

/// A message to a recipient, packed by a client.
pub(crate) struct PackedMessage {
    /// The envelope.
    pub(crate) envelope: String,
    /// The plaintext.
    pub(crate) plain: Value,
}

impl PackedMessage {
    /// Returns the id of the message at the mediator, which a recipient can compute.
    pub(crate) fn id(&self) -> String {
        use sha2::Digest as _;
        data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(&self.envelope))
    }
}

impl Client {
    /// Returns a client with one new identity.
    #[track_caller]
    pub(super) fn new(script: Script, mediators: Vec<String>) -> Self {
        Self {
            did: script.generate(),
            script: Some(script),
            sockets: RefCell::default(),
            mediators,
        }
    }

    /// Addresses the mediator by one of its DIDs.
    #[track_caller]
    pub(crate) fn turn_to(&self, did: &str, mediator: &Mediator) {
        let http = mediator.url("/didcomm");
        let ws = http.replacen("http", "ws", 1);
        self.script()
            .op("mediator", json!({"did": did, "http": http, "ws": ws}));
    }

    pub(crate) fn script(&self) -> &Script {
        self.script.as_ref().expect("until it is dropped")
    }

    /// Generates one more identity of this client.
    #[track_caller]
    pub(crate) fn generate(&self) -> String {
        self.script().generate()
    }

    /// Runs an operation as the client's own identity, or as the one in `fields`. Checks the response.
    #[track_caller]
    pub(crate) fn tell(&self, operation: &str, mut fields: Value) -> Value {
        if fields.get("from").is_none() {
            fields["from"] = json!(self.did);
        }
        let answer = self.script().op(operation, fields);
        self.check(&answer);
        answer
    }

    /// Runs an operation and requires a response. Returns the message of the response.
    #[track_caller]
    pub(crate) fn ask(&self, operation: &str, fields: Value) -> Value {
        let answer = self.tell(operation, fields);
        assert_eq!(answer["status"], 200, "{operation}: {answer}");
        answer["message"].clone()
    }

    /// Sends a message of any type and returns the response.
    #[track_caller]
    pub(crate) fn say(&self, kind: &str, body: Value) -> Value {
        self.tell(
            "send",
            json!({"message": self.message(kind, body), "return_route": "all"}),
        )
    }

    /// Makes a message of the client to the mediator.
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

    /// Asserts that a response is a problem report of this code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, answer: &Value, code: &str) {
        assert_eq!(answer["status"], 200, "{answer}");
        let report = &answer["message"];
        let kind = "https://didcomm.org/report-problem/2.0/problem-report";
        assert_eq!(report["type"], kind, "{report}");
        assert_eq!(report["body"]["code"], code, "{report}");
    }

    /// Asks for mediation and adds a recipient.
    #[track_caller]
    pub(crate) fn enter(&self, recipient: &str) {
        let granted = self.ask("request", json!({}));
        assert_eq!(granted["body"]["routing_did"], json!([self.mediators[0]]));
        assert_eq!(self.update("3.0", "add", recipient), "success");
    }

    /// Sends one update and returns its result.
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

    /// Returns the number of queued messages, for one DID or for all DIDs of the account.
    #[track_caller]
    pub(crate) fn waiting(&self, recipient: Option<&str>) -> u64 {
        let status = self.ask("status", json!({"recipient_did": recipient}));
        status["body"]["message_count"].as_u64().expect("a number")
    }

    /// Returns the messages of a delivery, unpacked.
    #[track_caller]
    pub(crate) fn fetch(&self, fields: Value) -> Vec<Value> {
        let answer = self.tell("delivery", fields);
        assert_eq!(answer["status"], 200, "{answer}");
        let attached = answer["attached"].as_array();
        attached
            .unwrap_or_else(|| panic!("no delivery: {answer}"))
            .clone()
    }

    /// Packs a message of the client to a recipient.
    #[track_caller]
    pub(crate) fn pack_for(&self, to: &str) -> PackedMessage {
        self.pack_words_for(to, "grüß dich")
    }

    /// Packs a message with these words to a recipient.
    #[track_caller]
    pub(crate) fn pack_words_for(&self, to: &str, words: &str) -> PackedMessage {
        let plain = json!({
            "id": fresh_id(),
            "typ": "application/didcomm-plain+json",
            "type": GREETING,
            "from": self.did,
            "to": [to],
            "body": {"words": words},
        });
        let packed = self.script().op(
            "pack",
            json!({"message": plain, "to": to, "from": self.did}),
        );
        PackedMessage {
            envelope: text(&packed, "/packed").to_owned(),
            plain,
        }
    }

    /// Sends an anonymous forward that has to be accepted, without a body in the response.
    #[track_caller]
    pub(crate) fn forward(&self, next: &str, message: &PackedMessage) {
        let answer = self.try_forward(json!({"next": next, "packed": message.envelope}));
        assert_eq!(answer["status"], 202, "{answer}");
    }

    /// Sends a forward, anonymous unless there is a `from`.
    #[track_caller]
    pub(crate) fn try_forward(&self, fields: Value) -> Value {
        let answer = self.script().op("forward", fields);
        self.check(&answer);
        answer
    }

    /// Returns the messages that come by a socket; fewer than `count` if no more came in time.
    #[track_caller]
    pub(crate) fn frames(&self, socket: &Value, count: usize) -> Vec<Value> {
        let answer = self
            .script()
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

    /// Returns the next frame.
    #[track_caller]
    pub(crate) fn frame(&self, socket: &Value) -> Value {
        self.frames(socket, 1).remove(0)
    }

    /// Opens a WebSocket.
    #[track_caller]
    pub(crate) fn socket(&self) -> Value {
        let socket = self.script().op("open", json!({}))["socket"].clone();
        self.sockets.borrow_mut().push(socket.clone());
        socket
    }

    /// Opens a WebSocket in live mode.
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

    /// Checks a response over HTTP, for any request.
    #[track_caller]
    fn check(&self, answer: &Value) {
        let header = |name: &str| answer["headers"][name].as_str().unwrap_or_default();
        match answer["status"].as_u64() {
            // The message was sent by a socket, or was not sent.
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

    /// Checks a message of the mediator: its encryption, its recipient and its schema.
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

impl Drop for Client {
    fn drop(&mut self) {
        // After a failure the process may hang.
        if std::thread::panicking() {
            return;
        }
        if let Some(script) = self.script.take() {
            for socket in self.sockets.take() {
                drop(script.try_op("close", json!({"socket": socket})));
            }
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(script);
        }
    }
}
