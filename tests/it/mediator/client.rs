//! A client of a mediator, of which every answer is checked.

use std::cell::RefCell;
use std::sync::PoisonError;

use serde_json::{Value, json};

use super::{GREETING, IDLE, Mediator, assert_refusal, assert_schema, fresh_id};
use crate::didcomm::Script;
use crate::network::text;

/// A client in a process of its own, over a library that others wrote.
pub(crate) struct Client {
    /// Taken when it is dropped.
    script: Option<Script>,
    /// The sockets it has opened.
    sockets: RefCell<Vec<Value>>,
    /// The identity that it speaks as unless told otherwise.
    pub(crate) did: String,
    /// What the mediator may be called.
    pub(super) mediators: Vec<String>,
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
    /// A client by one new identity.
    #[track_caller]
    pub(super) fn new(script: Script, mediators: Vec<String>) -> Self {
        Self {
            did: script.generate(),
            script: Some(script),
            sockets: RefCell::default(),
            mediators,
        }
    }

    /// Speaks to the mediator as this DID of it.
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

    /// One more identity of this client.
    #[track_caller]
    pub(crate) fn generate(&self) -> String {
        self.script().generate()
    }

    /// An operation as the client's own identity, or as the one in `fields`. What is answered is
    /// checked.
    #[track_caller]
    pub(crate) fn tell(&self, operation: &str, mut fields: Value) -> Value {
        if fields.get("from").is_none() {
            fields["from"] = json!(self.did);
        }
        let answer = self.script().op(operation, fields);
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
        let packed = self.script().op(
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
        let answer = self.script().op("forward", fields);
        self.check(&answer);
        answer
    }

    /// What comes by a socket; less than `count` where no more came.
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

    /// The next frame.
    #[track_caller]
    pub(crate) fn frame(&self, socket: &Value) -> Value {
        self.frames(socket, 1).remove(0)
    }

    /// A new WebSocket.
    #[track_caller]
    pub(crate) fn socket(&self) -> Value {
        let socket = self.script().op("open", json!({}))["socket"].clone();
        self.sockets.borrow_mut().push(socket.clone());
        socket
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

impl Drop for Client {
    fn drop(&mut self) {
        // After a failure it may be stuck.
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
