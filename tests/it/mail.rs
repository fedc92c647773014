//! Mail in quantity and under stress: promises of a mediator while processes are killed, sockets
//! are cut, other mediators are down and senders are hostile.
//!
//! The clients here use this project's own envelopes and protocols, since they have to be many and
//! fast. The module `mediator` tests the same with a foreign client.

pub(crate) mod attacks;
mod durable;
mod edges;
mod enrolled;
mod flood;
mod hostile;
mod relay;
mod silence;
mod unlisted;

use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atcomm_proto::clock::Clock;
use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use atcomm_proto::didcomm::envelope::{
    ContentEncryption, Curve, PublicKey, SecretKey, Unpacked, anoncrypt, authcrypt, unpack,
};
use atcomm_proto::didcomm::message::{Message, ReturnRoute};
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::coordination::{self, Action, Outcome, Update};
use atcomm_proto::didcomm::protocol::pickup::{self, Status};
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::didcomm::protocol::routing::Forward;
use atcomm_proto::syntax::Did;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::http::{Answer, RUNTIME, eventually, request};
use crate::network::{Network, text};
use crate::service::{Service, Setup};

const MEDIA_TYPE: &str = "application/didcomm-encrypted+json";

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    let _runtime = RUNTIME.enter();
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a client")
});

/// Returns a number for a message, port or name, used once in this run.
fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns a free port below the range of outgoing connections, so that it stays free while the
/// mediator on it is down.
pub(crate) fn free_port() -> u16 {
    let start = std::process::id() as usize * 61;
    loop {
        let port = u16::try_from(12_000 + (start + number()) % 8000).expect("a port");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The public data of a mediator.
#[derive(Clone, Debug)]
struct MediatorEndpoint {
    port: u16,
    did: String,
    key: PublicKey,
    party: Party,
}

/// Starts a mediator in `network`, with rates that only tests of rates reach. `change` makes the
/// other settings.
#[track_caller]
fn mediator(network: &Network, change: impl FnOnce(Setup) -> Setup) -> (Service, MediatorEndpoint) {
    let port = free_port();
    let setup = Setup::new(network)
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set(
            "mediator.public_url",
            json!(format!("http://localhost:{port}")),
        )
        .set("mediator.queue_rate", json!(1_000_000))
        .set("mediator.address_rate", json!(1_000_000));
    let service = change(setup).start();
    (service, MediatorEndpoint::at(port))
}

/// Sets open admission.
fn open(setup: Setup) -> Setup {
    setup.set("mediator.admission", json!("open"))
}

impl MediatorEndpoint {
    /// Reads a mediator's document.
    fn at(port: u16) -> Self {
        let url = format!("http://127.0.0.1:{port}/.well-known/did.json");
        let document = request("GET", &url, &[], None).json();
        let did = text(&document, "/id").to_owned();
        let kid = text(&document, "/keyAgreement/0");
        let methods = document["verificationMethod"].as_array().expect("a list");
        let method = methods.iter().find(|method| method["id"] == kid);
        let multikey = text(method.expect("the key"), "/publicKeyMultibase");
        let key = PublicKey::from_multikey(kid, multikey).expect("a key");
        let party = Party::from_document(&did, vec![key.clone()], Vec::new());
        Self {
            port,
            did,
            key,
            party,
        }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/didcomm", self.port)
    }

    /// Returns an anonymous forward to `next`.
    fn forward(&self, next: &str, envelope: &[u8]) -> Vec<u8> {
        self.seal(&forward(next, envelope))
    }

    /// Encrypts a message anonymously.
    fn seal(&self, message: &Message) -> Vec<u8> {
        let to = std::slice::from_ref(&self.key);
        anoncrypt(&message.to_vec(), to, ContentEncryption::A256CbcHs512).expect("an envelope")
    }

    /// Sends an envelope.
    #[track_caller]
    fn post(&self, envelope: &[u8]) -> Answer {
        RUNTIME
            .block_on(post(self.url(), envelope.to_vec()))
            .expect("an answer")
    }

    /// Sends an envelope that has to be accepted without a response.
    #[track_caller]
    fn take(&self, envelope: &[u8]) {
        let answer = self.post(envelope);
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert!(answer.body.is_empty(), "{}", answer.text());
    }

    /// Sends an envelope that has to be refused. Returns the error's name.
    #[track_caller]
    fn refuse(&self, envelope: &[u8], status: u16) -> String {
        let answer = self.post(envelope);
        assert_eq!(answer.status, status, "{}", answer.text());
        text(&answer.json(), "/error").to_owned()
    }
}

/// Returns the plaintext of a forward to `next`.
fn forward(next: &str, envelope: &[u8]) -> Message {
    let raw = RawValue::from_string(String::from_utf8(envelope.to_vec()).expect("text"));
    Forward::of(format!("forward-{}", number()), next, raw.expect("JSON"))
}

/// Sends an envelope; calls may run concurrently.
async fn post(url: String, envelope: Vec<u8>) -> Result<Answer, reqwest::Error> {
    let request = CLIENT.post(url).header("content-type", MEDIA_TYPE);
    let response = request.body(envelope).send().await?;
    Ok(Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.bytes().await?.to_vec(),
    })
}

/// A client with a did:peer:2.
#[derive(Clone, Debug)]
struct PeerClient {
    did: String,
    keys: [SecretKey; 1],
}

impl PeerClient {
    fn new() -> Self {
        let agreement = SecretKey::generate(Curve::X25519, "new");
        let signing = SecretKey::generate(Curve::Ed25519, "new");
        let (public, verifying) = (agreement.public(), signing.public());
        let keys = [
            (Purpose::KeyAgreement, KeyType::X25519, public.as_bytes()),
            (
                Purpose::Authentication,
                KeyType::Ed25519,
                verifying.as_bytes(),
            ),
        ];
        let did = PeerDid::build(&keys, &[])
            .expect("a DID")
            .as_str()
            .to_owned();
        let kid = format!("{did}#key-1");
        let key = SecretKey::from_bytes(Curve::X25519, kid, &agreement.to_bytes());
        Self {
            did,
            keys: [key.expect("a key")],
        }
    }

    /// Encrypts words for this client anonymously.
    fn envelope(&self, words: &str) -> Vec<u8> {
        let message = json!({
            "id": format!("letter-{}", number()),
            "typ": "application/didcomm-plain+json",
            "type": "https://example.org/letter/1.0/words",
            "body": {"words": words},
        });
        let to = [self.keys[0].public()];
        let sealed = anoncrypt(
            message.to_string().as_bytes(),
            &to,
            ContentEncryption::A256CbcHs512,
        );
        sealed.expect("an envelope")
    }

    /// Returns the words in an envelope for this client.
    #[track_caller]
    fn words(&self, envelope: &[u8]) -> String {
        let opened = unpack(envelope, &self.keys, &|_: &str| None).expect("a letter to this peer");
        let message: Value = serde_json::from_slice(&opened.plaintext).expect("JSON");
        text(&message, "/body/words").to_owned()
    }

    /// Encrypts a message of this client to a mediator.
    fn seal(&self, to: &MediatorEndpoint, message: Message) -> Vec<u8> {
        let message = message.from(&self.did).to(&to.did);
        let key = std::slice::from_ref(&to.key);
        authcrypt(&message.to_vec(), &self.keys[0], key).expect("an envelope")
    }

    /// Opens a message of a mediator.
    #[track_caller]
    fn open(&self, from: &MediatorEndpoint, envelope: &[u8]) -> Message {
        let party = |did: &str| from.party.is(did).then(|| from.party.clone());
        let opened = unpack(envelope, &self.keys, &party);
        let Unpacked {
            plaintext, sender, ..
        } = opened.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(envelope)));
        assert!(sender.is_some(), "an answer without a sender");
        Message::parse(&plaintext).expect("a message")
    }

    /// Sends a request and returns the response.
    #[track_caller]
    fn ask(&self, mediator: &MediatorEndpoint, message: Message) -> Message {
        let answer = mediator.post(&self.seal(mediator, message.return_route(ReturnRoute::All)));
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.open(mediator, &answer.body)
    }

    /// Asks for mediation. Returns whether it was granted.
    #[track_caller]
    fn request(&self, mediator: &MediatorEndpoint, account: Option<&str>) -> bool {
        let account = account.map(|did| Did::parse(did).expect("a DID"));
        let ask = coordination::Request::Mediate { account };
        let answer = self.ask(mediator, ask.write(coordination::Version::V3, id()));
        match coordination::Reply::of(&answer).expect("an answer") {
            Some((_, coordination::Reply::Grant { routing_did })) => {
                assert_eq!(routing_did, std::slice::from_ref(&mediator.did));
                true
            }
            Some((_, coordination::Reply::Deny)) => false,
            other => panic!("{other:?} to a mediate-request"),
        }
    }

    /// Adds a recipient DID to the account.
    #[track_caller]
    fn add(&self, mediator: &MediatorEndpoint, did: &str) -> Outcome {
        self.update(mediator, Action::Add, did)
    }

    /// Adds a recipient DID to the account, or removes it.
    #[track_caller]
    fn update(&self, mediator: &MediatorEndpoint, action: Action, did: &str) -> Outcome {
        let update = coordination::Request::Update(vec![Update {
            recipient_did: did.to_owned(),
            action,
        }]);
        let answer = self.ask(mediator, update.write(coordination::Version::V3, id()));
        match coordination::Reply::of(&answer).expect("an answer") {
            Some((_, coordination::Reply::Updated(updated))) => updated[0].result,
            other => panic!("{other:?} to an update"),
        }
    }

    /// Registers, and adds the client's own DID.
    #[track_caller]
    fn enter(&self, mediator: &MediatorEndpoint) {
        assert!(self.request(mediator, None), "denied");
        assert_eq!(self.add(mediator, &self.did), Outcome::Success);
    }

    #[track_caller]
    fn pick_up(&self, mediator: &MediatorEndpoint, ask: &pickup::Request) -> pickup::Reply {
        let answer = self.ask(mediator, ask.write(pickup::Version::V3, id()));
        match pickup::Reply::of(&answer).expect("an answer") {
            Some((_, reply)) => reply,
            None => panic!("{} to a pickup: {}", answer.kind, answer.body),
        }
    }

    /// Returns the status of the client's queue.
    #[track_caller]
    fn status(&self, mediator: &MediatorEndpoint) -> Status {
        let ask = pickup::Request::Status {
            recipient_did: None,
        };
        match self.pick_up(mediator, &ask) {
            pickup::Reply::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }

    /// Returns queued messages with their ids, at most a hundred.
    #[track_caller]
    fn fetch(&self, mediator: &MediatorEndpoint) -> Vec<(String, Vec<u8>)> {
        let ask = pickup::Request::Delivery {
            limit: 100,
            recipient_did: None,
        };
        match self.pick_up(mediator, &ask) {
            pickup::Reply::Status(status) => {
                assert_eq!(status.message_count, 0);
                Vec::new()
            }
            pickup::Reply::Delivery { messages, .. } => messages
                .iter()
                .map(|one| {
                    let bytes = one.bytes().expect("an attachment").into_owned();
                    (one.id.clone().expect("an id"), bytes)
                })
                .collect(),
        }
    }

    /// Acknowledges messages. Returns the number of messages that stay queued.
    #[track_caller]
    fn acknowledge(&self, mediator: &MediatorEndpoint, ids: Vec<String>) -> u64 {
        match self.pick_up(mediator, &pickup::Request::Received(ids)) {
            pickup::Reply::Status(status) => status.message_count,
            other => panic!("{other:?}"),
        }
    }

    /// Fetches and acknowledges all queued messages.
    #[track_caller]
    fn empty(&self, mediator: &MediatorEndpoint) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let mail = self.fetch(mediator);
            if mail.is_empty() {
                return all;
            }
            let (ids, envelopes): (Vec<_>, Vec<_>) = mail.into_iter().unzip();
            self.acknowledge(mediator, ids);
            all.extend(envelopes);
        }
    }

    /// Waits for `count` messages and acknowledges them. Returns their words in order of arrival.
    #[track_caller]
    fn collect(&self, mediator: &MediatorEndpoint, count: usize) -> Vec<String> {
        let mut words = Vec::new();
        eventually(&format!("{count} letters come"), || {
            let envelopes = self.empty(mediator);
            words.extend(envelopes.iter().map(|envelope| self.words(envelope)));
            (words.len() >= count).then_some(())
        });
        words
    }

    /// Waits for a problem report of a mediator. Returns it with the thread that it is about.
    #[track_caller]
    fn report(&self, mediator: &MediatorEndpoint) -> (Report, String) {
        let envelope = eventually("a report comes", || self.empty(mediator).pop());
        let message = self.open(mediator, &envelope);
        let report = message.body_of::<Report>().expect("a report");
        (report, message.pthid.expect("the thread that failed"))
    }
}

/// Puts a message into the queue of a recipient behind the mediator's back, as an older version may
/// have stored it.
pub(crate) fn plant(service: &Service, recipient: &str, body: &[u8]) {
    let store = rusqlite::Connection::open(service.data_dir().join("mailbox.db")).expect("a store");
    store.busy_timeout(Duration::from_secs(10)).expect("a wait");
    let now = Clock::system().now().millis();
    let planted = store.execute(
        "INSERT INTO message (recipient, hash, size, stored_at, available_at, expires_at, body)
         SELECT id, ?2, ?3, ?4, ?4, ?4 + 3600000, ?5 FROM recipient WHERE did = ?1",
        rusqlite::params![
            recipient,
            &Sha256::digest(body)[..],
            body.len() as i64,
            now,
            body
        ],
    );
    assert_eq!(planted.expect("it is written"), 1, "{recipient}");
}

fn id() -> String {
    format!("ask-{}", number())
}

/// A WebSocket to a mediator.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    #[track_caller]
    fn open(mediator: &MediatorEndpoint) -> Self {
        Self::try_open(mediator).expect("a socket")
    }

    /// Opens a socket. Fails with the status of a refusal.
    fn try_open(mediator: &MediatorEndpoint) -> Result<Self, u16> {
        let url = format!("ws://127.0.0.1:{}/didcomm", mediator.port);
        match RUNTIME.block_on(connect_async(url)) {
            Ok((stream, _)) => Ok(Self(stream)),
            Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
                Err(answer.status().as_u16())
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Opens a socket in live mode for a client.
    #[track_caller]
    fn live(mediator: &MediatorEndpoint, peer: &PeerClient) -> Self {
        let mut socket = Self::open(mediator);
        let ask = pickup::Request::Live(true).write(pickup::Version::V3, id());
        socket.send(peer.seal(mediator, ask.return_route(ReturnRoute::All)));
        let answer = peer.open(mediator, &socket.next().expect("an answer"));
        match pickup::Reply::of(&answer) {
            Ok(Some((_, pickup::Reply::Status(status)))) => assert!(status.live_delivery),
            other => panic!("{other:?} to a live-delivery-change"),
        }
        socket
    }

    #[track_caller]
    fn send(&mut self, envelope: Vec<u8>) {
        let text = String::from_utf8(envelope).expect("text");
        RUNTIME
            .block_on(self.0.send(Frame::Text(text.into())))
            .expect("it is open");
    }

    /// Returns the next message; `None` if the socket was closed or no message came in time.
    fn next(&mut self) -> Option<Vec<u8>> {
        self.next_within(Duration::from_secs(10))
    }

    fn next_within(&mut self, wait: Duration) -> Option<Vec<u8>> {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(Ok(frame @ (Frame::Text(_) | Frame::Binary(_)))) => {
                        return Some(frame.into_data().to_vec());
                    }
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
                    _ => return None,
                }
            }
        };
        RUNTIME
            .block_on(async { tokio::time::timeout(wait, next).await })
            .unwrap_or(None)
    }
}
