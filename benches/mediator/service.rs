//! The whole service on loopback, and its clients.

use std::net::{Ipv4Addr, SocketAddr};

use atcomm::config::Config;
use atcomm::mediator::AdmissionMode;
use atcomm::server::{MAILBOX_FILE, Server};
use atcomm_proto::clock::Clock;
use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use atcomm_proto::didcomm::envelope::{
    ContentEncryption, Curve, PublicKey, SecretKey, SelfCertified, anoncrypt, authcrypt, unpack,
};
use atcomm_proto::didcomm::message::{Attachment, Message, ReturnRoute};
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::routing::Forward;
use atcomm_proto::didcomm::protocol::{coordination, pickup};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::value::RawValue;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use testkit::load::Connection;

/// Path that messages are posted to.
pub(crate) const PATH: &str = "/didcomm";

/// The media type of an envelope.
pub(crate) const MEDIA_TYPE: &str = "application/didcomm-encrypted+json";

/// Number of recipients that forwards are spread over.
pub(crate) const RECIPIENTS: usize = 16;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A client that the mediator accepts mail for.
#[derive(Clone)]
pub(crate) struct Recipient {
    did: PeerDid,
    key: std::sync::Arc<SecretKey>,
    mediator: Party,
}

pub(crate) struct BenchMediator {
    pub(crate) address: SocketAddr,
    server: Server,
    mediator: Party,
    recipients: Vec<Recipient>,
    extra: Vec<Recipient>,
    dir: TempDir,
}

impl BenchMediator {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The port was free a moment ago; nothing else on this machine should bind it in between.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut config = Config {
            data_dir: dir.path().join("data"),
            sources: Vec::new(),
            ..Config::default()
        };
        config.http.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        config.net.development = true;
        config.mediator.public_url = Some(format!("http://localhost:{port}"));
        config.mediator.admission = AdmissionMode::Open;
        // The bench measures the work, not the limits.
        config.mediator.queue_rate = u32::MAX;
        config.mediator.address_rate = u32::MAX;
        config.mediator.queue_messages = 1_000_000;
        config.mediator.queue_bytes = 8 << 30;
        let server = Server::bind(config, Clock::system()).await.unwrap();
        let address = server.http_addr();
        let mediator = peer_identity(address);
        let mut bench = Self {
            address,
            server,
            mediator,
            recipients: Vec::new(),
            extra: Vec::new(),
            dir,
        };
        let mut connection = Connection::connect(address).await;
        for n in 0..RECIPIENTS + 3 {
            let recipient = Recipient::new(bench.mediator.clone());
            recipient.register(&mut connection).await;
            if n < RECIPIENTS {
                bench.recipients.push(recipient);
            } else {
                bench.extra.push(recipient);
            }
        }
        bench
    }

    /// Returns the path of the mediator's file.
    pub(crate) fn mailbox(&self) -> std::path::PathBuf {
        self.dir.path().join("data").join(MAILBOX_FILE)
    }

    pub(crate) async fn stop(self) {
        self.server.shutdown();
        self.server.join().await.unwrap();
    }

    /// Returns the recipient of a section.
    pub(crate) fn recipient(&self, section: usize) -> Recipient {
        self.extra[match section {
            1 => 0,
            100 => 1,
            _ => 2,
        }]
        .clone()
    }

    /// Returns a new forward to the n-th recipient.
    pub(crate) fn forward_to(
        &self,
        mediator: &PublicKey,
        round: usize,
        n: usize,
        expires_time: Option<i64>,
    ) -> Vec<u8> {
        let recipient = &self.recipients[n % RECIPIENTS];
        wrap(mediator, recipient, round, n, expires_time)
    }

    pub(crate) fn forwards(
        &self,
        count: usize,
        round: usize,
        expires_time: Option<i64>,
    ) -> Vec<Vec<u8>> {
        let key = &self.mediator.key_agreement()[0];
        (0..count)
            .map(|n| self.forward_to(key, round, n, expires_time))
            .collect()
    }

    pub(crate) fn forwards_for(
        &self,
        recipient: &Recipient,
        count: usize,
        round: usize,
    ) -> Vec<Vec<u8>> {
        let key = &self.mediator.key_agreement()[0];
        (0..count)
            .map(|n| wrap(key, recipient, 1_000_000 + round, n, None))
            .collect()
    }

    pub(crate) async fn live_socket(&self, recipient: &Recipient) -> Socket {
        recipient.live_socket(self.address).await
    }
}

/// Returns the next text message on a socket.
pub(crate) async fn next_text(socket: &mut Socket) -> String {
    loop {
        if let Frame::Text(text) = socket.next().await.unwrap().unwrap() {
            return text.to_string();
        }
    }
}

/// Resolves the mediator's did:peer:2 from its invitation.
pub(crate) fn peer_identity(address: SocketAddr) -> Party {
    use std::io::{Read as _, Write as _};
    let mut socket = std::net::TcpStream::connect(address).unwrap();
    write!(
        socket,
        "GET /invitation HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let invitation = Message::parse(body.as_bytes()).unwrap();
    Party::resolve(&invitation.from.unwrap()).unwrap()
}

fn wrap(
    mediator: &PublicKey,
    recipient: &Recipient,
    round: usize,
    n: usize,
    expires_time: Option<i64>,
) -> Vec<u8> {
    // The mediator cannot decrypt the inner message. Its content need not be valid, only different
    // for each forward.
    let kid = format!("{}#key-1", recipient.did);
    let text = format!(
        "{{\"protected\":\"eyJhbGciOiJFQ0RILTFQVStBMjU2S1cifQ\",\"recipients\":[{{\"header\":\
         {{\"kid\":\"{kid}\"}},\"encrypted_key\":\"{}\"}}],\"iv\":\"AAAAAAAAAAAAAAAAAAAAAA\",\
         \"ciphertext\":\"{}{round:08x}{n:08x}\",\"tag\":\"AAAAAAAAAAAAAAAAAAAAAA\"}}",
        "A".repeat(96),
        "A".repeat(super::BODY * 4 / 3),
    );
    let raw = RawValue::from_string(text).unwrap();
    let mut forward = Forward::of(unique(), recipient.did.as_str(), raw);
    if let Some(at) = expires_time {
        forward = forward.expires_time(at);
    }
    anoncrypt(
        &forward.to_vec(),
        std::slice::from_ref(mediator),
        ContentEncryption::A256CbcHs512,
    )
    .unwrap()
}

fn unique() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Recipient {
    /// Returns a client that is not registered yet.
    pub(crate) fn new(mediator: Party) -> Self {
        let agreement = SecretKey::generate(Curve::X25519, "");
        let did = PeerDid::build(
            &[(
                Purpose::KeyAgreement,
                KeyType::X25519,
                agreement.public().as_bytes(),
            )],
            &[],
        )
        .unwrap();
        let key =
            SecretKey::from_bytes(Curve::X25519, format!("{did}#key-1"), &agreement.to_bytes())
                .unwrap();
        Self {
            did,
            key: std::sync::Arc::new(key),
            mediator,
        }
    }

    /// Registers with the mediator.
    pub(crate) async fn register(&self, connection: &mut Connection) {
        let request = coordination::Request::Mediate { account: None };
        let add = coordination::Request::Update(vec![coordination::Update {
            recipient_did: self.did.to_string(),
            action: coordination::Action::Add,
        }]);
        for request in [request, add] {
            let message = request.write(coordination::Version::V3, unique());
            let packed = self.pack(message);
            let answer = connection.post(PATH, MEDIA_TYPE, &packed).await;
            assert_eq!(answer.status, 200);
        }
    }

    fn pack(&self, message: Message) -> Vec<u8> {
        let message = message
            .from(self.did.as_str())
            .to(self.mediator.did())
            .return_route(ReturnRoute::All);
        let key = &self.mediator.key_agreement()[..1];
        authcrypt(&message.to_vec(), &self.key, key).unwrap()
    }

    pub(crate) fn delivery_request(&self, limit: usize) -> Vec<u8> {
        let request = pickup::Request::Delivery {
            limit: limit as u64,
            recipient_did: None,
        };
        self.pack(request.write(pickup::Version::V3, unique()))
    }

    /// Returns the number of messages in a delivery.
    pub(crate) fn count(&self, answer: &[u8]) -> usize {
        self.attachments(answer).len()
    }

    fn attachments(&self, answer: &[u8]) -> Vec<Attachment> {
        let ring = std::slice::from_ref(&*self.key);
        let opened = unpack(answer, &ring, &SelfCertified).unwrap();
        Message::parse(&opened.plaintext).unwrap().attachments
    }

    /// Returns a forward to this client.
    pub(crate) fn forward(&self, round: usize, n: usize) -> Vec<u8> {
        wrap(&self.mediator.key_agreement()[0], self, round, n, None)
    }

    /// Opens a socket on which new messages are pushed.
    pub(crate) async fn live_socket(&self, address: SocketAddr) -> Socket {
        let url = format!("ws://{address}/didcomm");
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let change = pickup::Request::Live(true).write(pickup::Version::V3, unique());
        let change = self.pack(change);
        socket
            .send(Frame::Text(String::from_utf8(change).unwrap().into()))
            .await
            .unwrap();
        next_text(&mut socket).await;
        socket
    }

    /// Picks up and acknowledges what waits.
    pub(crate) async fn empty(&self, connection: &mut Connection) {
        loop {
            let answer = connection
                .post(PATH, MEDIA_TYPE, &self.delivery_request(100))
                .await;
            assert_eq!(answer.status, 200);
            let ids = self.ids(answer.body);
            if ids.is_empty() {
                return;
            }
            let received = pickup::Request::Received(ids);
            let received = self.pack(received.write(pickup::Version::V3, unique()));
            let answer = connection.post(PATH, MEDIA_TYPE, &received).await;
            assert_eq!(answer.status, 200);
        }
    }

    /// Returns what acknowledges the messages of an answer.
    fn ids(&self, answer: &[u8]) -> Vec<String> {
        let attachments = self.attachments(answer);
        attachments.into_iter().filter_map(|one| one.id).collect()
    }
}
