//! A server on loopback, and a client that returns the whole response.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::REFRESH;
use crate::dataset::Editions;
use crate::directory::{
    Authority, Begun, Directory, Finding, IdentityFacts, Observation, PendingUpdate,
};
use crate::http::{Http, HttpSettings};
use crate::mediator::{KEYS_FILE, Keys, Mediator, MediatorSettings, PublicAddress};
use crate::resolve::{ResolveSettings, Resolver};
use crate::store::{DirectoryStore, MailboxStore, Trigger};
use atcomm_net::identity::{HandleCheck, Identity, IdentitySettings};
use atcomm_net::net::{Net, NetSettings};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::key::SigningKey;
use atcomm_proto::proof::{Container, Proven, verify};
use atcomm_proto::syntax::{Did, Handle, Origin};

/// The handle of the account in the directory.
pub(super) const HANDLE: &str = "alice.example.com";

/// A server whose directory has one account, proven by a response of a real PDS.
pub(super) struct TestServer {
    pub(super) _dir: tempfile::TempDir,
    pub(super) resolver: Resolver,
    /// Present if the setup has settings for one.
    pub(super) mediator: Option<Mediator>,
    pub(super) address: SocketAddr,
    pub(super) did: String,
    pub(super) car: Vec<u8>,
    pub(super) stop: CancellationToken,
    pub(super) running: JoinHandle<()>,
}

#[derive(Default)]
pub(super) struct Setup {
    pub(super) http: HttpSettings,
    pub(super) resolve: ResolveSettings,
    pub(super) plc: Option<SocketAddr>,
    /// Settings of a mediator at `https://mail.example.com` with an empty mailbox.
    pub(super) mediator: Option<MediatorSettings>,
    /// Datasets that are served.
    pub(super) editions: Option<Editions>,
}

impl Setup {
    pub(super) async fn start(self) -> TestServer {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_millis(1_798_761_540_000));
        let store = DirectoryStore::open(&dir.path().join("directory.db")).unwrap();
        let directory = Directory::bind(store, clock.clone(), 1 << 20)
            .await
            .unwrap();
        let net = NetSettings {
            development: true,
            ..NetSettings::default()
        };
        let net = Net::bind(net, clock.clone()).unwrap();
        // Port 9 is closed.
        let plc = self.plc.map_or("http://127.0.0.1:9".to_owned(), |plc| {
            format!("http://{plc}")
        });
        let identity = IdentitySettings {
            plc_url: Origin::parse(&plc).unwrap(),
            ..IdentitySettings::default()
        };
        let identity = Identity::bind(net.clone(), identity, clock.clone());
        let routes = Vec::new();
        let resolver = Resolver::bind(
            net,
            identity,
            Arc::new(directory),
            routes,
            self.resolve,
            clock.clone(),
        );
        let (did, car) = enroll(&resolver, clock.now()).await;
        let mediator = match self.mediator {
            Some(settings) => Some(mediator(settings, dir.path(), &resolver, clock).await),
            None => None,
        };
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let http = Http::bind(
            HttpSettings {
                listen,
                ..self.http
            },
            resolver.clone(),
            mediator.clone(),
            mediator.as_ref().map(Mediator::address),
        )
        .unwrap();
        let http = match self.editions {
            Some(editions) => http.with_datasets(editions),
            None => http,
        };
        let (address, stop) = (http.local_addr(), CancellationToken::new());
        let running = tokio::spawn(http.run(stop.clone()));
        TestServer {
            _dir: dir,
            resolver,
            mediator,
            address,
            did,
            car,
            stop,
            running,
        }
    }
}

async fn mediator(
    settings: MediatorSettings,
    dir: &Path,
    resolver: &Resolver,
    clock: Clock,
) -> Mediator {
    let address = PublicAddress::parse("https://mail.example.com", false).unwrap();
    let keys = Keys::open(&dir.join(KEYS_FILE), false, &address, clock.now()).unwrap();
    let mailbox = MailboxStore::open(&dir.join("mailbox.db")).unwrap();
    let (resolver, local) = (resolver.clone(), BTreeSet::new());
    Mediator::bind(settings, address, local, keys, mailbox, resolver, clock)
        .await
        .unwrap()
}

pub(super) async fn enroll(resolver: &Resolver, now: Timestamp) -> (String, Vec<u8>) {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/proof/pds-get-record.car");
    let car = std::fs::read(&fixture).unwrap();
    let sidecar = std::fs::read(fixture.with_extension("json")).unwrap();
    let sidecar: Value = serde_json::from_slice(&sidecar).unwrap();
    let did = Did::parse(sidecar["did"].as_str().unwrap()).unwrap();
    let key = SigningKey::from_did_key(sidecar["signingKey"].as_str().unwrap()).unwrap();
    let Ok(Proven::Present(record)) = verify(&car, Container::GetRecord, &did, &key, now) else {
        panic!("the fixture does not verify")
    };
    let seen = Observation {
        did: did.clone(),
        identity: Some(IdentityFacts {
            pds: Some(Origin::parse("https://pds.example.com").unwrap()),
            key: Some(key),
            claimed: Some(Handle::parse(HANDLE).unwrap()),
            asked_at: now,
        }),
        finding: Finding::Present(record),
        authority: Authority::Pds,
        trigger: Trigger::Request,
        begun: Begun::default(),
        at: now,
    };
    let directory = resolver.directory();
    directory
        .apply(seen, PendingUpdate::Unchanged)
        .await
        .unwrap();
    let handle = Handle::parse(HANDLE).unwrap();
    let check = HandleCheck::Verified(handle.clone());
    directory
        .apply_handle(&did, &handle, check, now)
        .await
        .unwrap();
    (did.to_string(), car)
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Returns status and name of an error. Fails the test if the body or a header lacks the form of
    /// every error.
    pub(super) fn error(&self) -> (u16, String) {
        let body = self.json();
        assert!(!body["message"].as_str().unwrap().is_empty());
        assert_eq!(body.as_object().unwrap().len(), 2);
        assert_eq!(self.headers["cache-control"], "no-store");
        assert_eq!(self.headers["access-control-allow-origin"], "*");
        (self.status, body["error"].as_str().unwrap().to_owned())
    }
}

/// Sends bytes and returns those that arrive until the server closes.
pub(super) async fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may close before it has read everything.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

pub(super) async fn ask(
    address: SocketAddr,
    line: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Answer {
    let headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let length = body.len();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    let answer = exchange(address, request.as_bytes()).await;
    let end = memchr::memmem::find(&answer, b"\r\n\r\n").expect("an answer");
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .unwrap()
        .split(' ')
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: answer[end + 4..].to_vec(),
    }
}

impl TestServer {
    pub(super) async fn new() -> Self {
        Setup::default().start().await
    }

    pub(super) async fn get(&self, target: &str) -> Answer {
        ask(self.address, &format!("GET {target}"), &[], "").await
    }

    pub(super) async fn get_with(&self, target: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.address, &format!("GET {target}"), headers, "").await
    }

    pub(super) async fn refresh(&self, media_type: &str, body: &str) -> Answer {
        let headers = [("content-type", media_type)];
        ask(self.address, &format!("POST {REFRESH}"), &headers, body).await
    }
}

/// A PLC directory that answers each request with 404, after the test has released it.
pub(super) struct Plc {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<Semaphore>,
    pub(super) release: Arc<Semaphore>,
}

impl Plc {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Semaphore::new(0));
        let release = Arc::new(Semaphore::new(0));
        let (ask, wait) = (Arc::clone(&requests), Arc::clone(&release));
        let router = Router::new().fallback(async move || {
            ask.add_permits(1);
            wait.acquire().await.unwrap().forget();
            axum::http::StatusCode::NOT_FOUND
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            address,
            requests,
            release,
        }
    }
}
