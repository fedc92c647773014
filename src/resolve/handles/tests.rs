use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::*;
use crate::directory::{Batch, Directory};
use crate::resolve::{ResolveSettings, Route, Worker};
use crate::store::{AnnouncedChange, DirectoryStore, NewPending, Trigger};
use atcomm_net::identity::IdentitySettings;
use atcomm_net::net::{Net, NetSettings};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Actor, Handle, Origin};
use testkit::net::{Answer, Authority, NameServer, serve};
use testkit::proto::plc::k256;
use testkit::proto::repo::{TestRepo, package, peer};

const PDS: &str = "https://pds.example.com";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The PLC directory and the PDS of all accounts: documents and proofs by account.
#[derive(Default)]
struct Served {
    documents: HashMap<String, Value>,
    cars: HashMap<String, Vec<u8>>,
}

#[derive(Clone, Default)]
struct Accounts(Arc<Mutex<Served>>);

fn did(n: usize) -> Did {
    let digit = |i: u32| char::from(b'a' + ((n >> (4 * i)) & 15) as u8);
    let tail: String = (0..16).map(digit).collect();
    Did::parse(&format!("did:plc:aaaaaaaa{tail}")).unwrap()
}

impl Accounts {
    /// Serves the accounts. Returns the address.
    async fn serve(&self) -> String {
        let found = |found: Option<Vec<u8>>| found.ok_or(StatusCode::NOT_FOUND);
        let document = async move |State(Self(served)), UrlPath(did): UrlPath<String>| {
            let served: Arc<Mutex<Served>> = served;
            let document = served.lock().unwrap().documents.get(&did).cloned();
            found(document.map(|document| document.to_string().into()))
        };
        let car = async move |State(Self(served)), Query(query): Query<HashMap<String, String>>| {
            let served: Arc<Mutex<Served>> = served;
            let car = served.lock().unwrap().cars.get(&query["did"]).cloned();
            found(car)
        };
        let router = Router::new()
            .route("/{did}", get(document))
            .route("/xrpc/com.atproto.sync.getRecord", get(car))
            .with_state(self.clone());
        format!("http://localhost:{}", serve(router).await)
    }

    /// Makes an account with a package, which claims this handle.
    fn enroll(&self, n: usize, handle: &str) -> Did {
        let did = did(n);
        let mut repo = TestRepo::new(did.as_str(), 1);
        // A mediator of a method that is not looked up.
        repo.put(&package(&peer(n as u8), &["did:example:mediator"]));
        let mut served = self.0.lock().unwrap();
        served.cars.insert(did.to_string(), repo.car());
        drop(served);
        self.claim(&did, handle);
        did
    }

    fn claim(&self, did: &Did, handle: &str) {
        let key = k256(1).text();
        let document = json!({
            "id": did,
            "alsoKnownAs": [format!("at://{handle}")],
            "verificationMethod": [{
                "id": format!("{did}#atproto"), "type": "Multikey", "controller": did,
                "publicKeyMultibase": key.trim_start_matches("did:key:"),
            }],
            "service": [{
                "id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": PDS,
            }],
        });
        let mut served = self.0.lock().unwrap();
        served.documents.insert(did.to_string(), document);
    }
}

/// A directory that looks at accounts, with its worker while it runs.
struct Running {
    resolver: Resolver,
    stop: CancellationToken,
}

impl Running {
    async fn start(dir: &Path, here: &str, net: NetSettings) -> Self {
        let clock = Clock::system();
        let store = DirectoryStore::open(&dir.join("directory.db")).unwrap();
        let directory = Directory::bind(store, clock.clone(), 1 << 20).await;
        let net = Net::bind(net, clock.clone()).unwrap();
        let identity = IdentitySettings {
            plc_url: Origin::parse(here).unwrap(),
            plc_rate: 10_000,
            ..IdentitySettings::default()
        };
        let route = Route {
            origin: Origin::parse(PDS).unwrap(),
            connect: Url::parse(here).unwrap(),
        };
        let settings = ResolveSettings {
            negative_ttl: Duration::ZERO,
            ..ResolveSettings::default()
        };
        let resolver = Resolver::bind(
            net.clone(),
            Identity::bind(net, identity, clock.clone()),
            Arc::new(directory.unwrap()),
            vec![route],
            settings,
            clock,
        );
        let stop = CancellationToken::new();
        Self { resolver, stop }
    }

    fn work(&self) {
        let worker = Worker::new(self.resolver.clone());
        tokio::spawn(worker.run(self.stop.clone()));
    }

    async fn end(self) {
        self.stop.cancel();
        self.resolver.directory().shutdown().await;
    }

    /// Makes a refresh of each account pending, as a listing does.
    async fn list(&self, dids: &[Did]) {
        let now = self.resolver.inner.clock.now();
        let pending = |did: &Did| NewPending {
            did: did.clone(),
            trigger: Trigger::Listing(None),
            announced: AnnouncedChange::Keep,
            not_before: now,
        };
        let batch = Batch {
            pending: dids.iter().map(pending).collect(),
            ..Batch::default()
        };
        self.resolver.directory().apply_batch(batch).await.unwrap();
        self.resolver.wake();
    }

    /// The handle in the view of an actor, as the directory has it.
    async fn shown(&self, actor: &str) -> Option<String> {
        let actor = Actor::parse(actor).unwrap();
        let found = self.resolver.directory().recipient(&actor).await.unwrap();
        let view = found.found().unwrap()?;
        let view: Value = serde_json::from_slice(&view.body).unwrap();
        Some(view["handle"].as_str().unwrap().to_owned())
    }

    async fn until_shown(&self, actor: &Did, handle: &str) {
        let start = Instant::now();
        while self.shown(actor.as_str()).await.as_deref() != Some(handle) {
            let waited = start.elapsed();
            assert!(waited < Duration::from_secs(60), "{actor} is not {handle}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn asking(name_server: SocketAddr) -> NetSettings {
    NetSettings {
        name_server: Some(name_server),
        ..NetSettings::default()
    }
}

/// A name server that takes questions and answers none.
async fn mute() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Returns how long the first enumeration takes.
async fn enumerate(accounts: &Accounts, dids: &[Did], name_server: SocketAddr) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let here = accounts.serve().await;
    let running = Running::start(dir.path(), &here, asking(name_server)).await;
    running.list(dids).await;
    let start = Instant::now();
    running.work();
    while running.resolver.directory().len() < dids.len() {
        let known = running.resolver.directory().len();
        assert!(start.elapsed() < Duration::from_secs(120), "{known} known");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let taken = start.elapsed();
    running.end().await;
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inv7_an_enumeration_waits_for_no_name_server() {
    const ACCOUNTS: usize = 2000;
    let accounts = Accounts::default();
    let dns = NameServer::start().await;
    let dids: Vec<Did> = (0..ACCOUNTS)
        .map(|n| {
            let handle = format!("user{n}.domain{}.com", n % 200);
            let did = accounts.enroll(n, &handle);
            dns.set_did(&handle, did.as_str());
            did
        })
        .collect();
    let (_socket, silent) = mute().await;
    let mut taken = [Duration::ZERO; 2];
    for (taken, name_server) in taken.iter_mut().zip([dns.address, silent]) {
        *taken = enumerate(&accounts, &dids, name_server).await;
    }
    let [answering, mute] = taken;
    let ratio = mute.as_secs_f64() / answering.as_secs_f64();
    println!(
        "enumeration of {ACCOUNTS} accounts: {answering:.1?} with a name server that answers, \
         {mute:.1?} with one that does not: {ratio:.2}"
    );
    assert!(ratio <= 1.5, "{ratio}");
}

#[tokio::test]
async fn inv7_handles_of_a_mute_domain_hold_up_no_other() {
    let accounts = Accounts::default();
    let dns = NameServer::start().await;
    let mut dids: Vec<Did> = (0..300)
        .map(|n| {
            let handle = format!("user{n}.mute.net");
            dns.set(&format!("_atproto.{handle}"), Answer::Silence);
            dns.set(&handle, Answer::Silence);
            accounts.enroll(n, &handle)
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let here = accounts.serve().await;
    let running = Running::start(dir.path(), &here, asking(dns.address)).await;
    running.work();
    running.list(&dids).await;
    while running.resolver.directory().len() < dids.len() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // In the order in which they became due, 24 at a time, the last would wait for a minute and a
    // half.
    let late = accounts.enroll(1000, "late.example.org");
    dns.set_did("late.example.org", late.as_str());
    dids.push(late.clone());
    running.list(&dids).await;
    running.until_shown(&late, "late.example.org").await;
    let asked = |n: usize| dns.asked(&format!("_atproto.user{n}.mute.net"));
    let mute = (0..300).filter(|n| asked(*n) > 0).count();
    println!("{mute} of 300 mute names asked until another is confirmed");
    assert!(mute < 150, "{mute}");
    assert_eq!(
        running.shown(dids[0].as_str()).await.unwrap(),
        "handle.invalid"
    );
    running.end().await;
}

#[tokio::test]
async fn a_name_that_a_client_asks_by_is_looked_up_once() {
    let accounts = Accounts::default();
    let dns = NameServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let here = accounts.serve().await;
    let running = Running::start(dir.path(), &here, asking(dns.address)).await;
    let alice = accounts.enroll(1, "alice.example.com");
    let ask = async |name: &str| {
        let actor = Actor::Handle(Handle::parse(name).unwrap());
        running.resolver.recipient(&actor, CLIENT).await
    };
    for (name, questions) in [("alice.example.com", 1), ("renamed.example.org", 1)] {
        accounts.claim(&alice, name);
        dns.set_did(name, alice.as_str());
        let view = ask(name).await.unwrap();
        assert_eq!(
            (&view.did, view.handle.as_ref().unwrap().as_str()),
            (&alice, name)
        );
        assert_eq!(dns.asked(&format!("_atproto.{name}")), questions, "{name}");
    }
    // The name server still has the name that she claims no more.
    assert!(ask("alice.example.com").await.is_err());
    running.end().await;
}

#[tokio::test]
async fn a_check_that_is_due_outlives_a_restart() {
    let accounts = Accounts::default();
    let dns = NameServer::start().await;
    let dir = tempfile::tempdir().unwrap();
    let here = accounts.serve().await;
    let alice = accounts.enroll(1, "alice.example.com");
    dns.set_did("alice.example.com", alice.as_str());
    // Its check is due from the refresh on, and no worker makes it.
    let (_socket, silent) = mute().await;
    let running = Running::start(dir.path(), &here, asking(silent)).await;
    let actor = Actor::Did(alice.clone());
    let start = Instant::now();
    let view = running.resolver.recipient(&actor, CLIENT).await.unwrap();
    println!(
        "first answer with a mute name server after {:.1?}",
        start.elapsed()
    );
    assert_eq!(view.handle, None);
    running.end().await;
    let running = Running::start(dir.path(), &here, asking(dns.address)).await;
    running.work();
    running.until_shown(&alice, "alice.example.com").await;
    running.end().await;
}

/// The host of a page gives out names to many, and is asked within its limits only.
#[tokio::test]
async fn a_new_name_comes_as_soon_as_its_host_may_be_asked() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let accounts = Accounts::default();
    let dns = NameServer::start().await;
    let alice = accounts.enroll(1, "old.example.com");
    dns.set_did("old.example.com", alice.as_str());
    let page = alice.to_string();
    let router = Router::new().route("/.well-known/atproto-did", get(async move || page));
    let authority = Authority::generate();
    let port = authority.serve(&["new.hosting.test"], router).await;
    for name in ["new.hosting.test", "other.hosting.test"] {
        dns.set_address(name, "127.0.0.1");
    }
    let dir = tempfile::tempdir().unwrap();
    let here = accounts.serve().await;
    let net = NetSettings {
        development: true,
        https_port: port,
        extra_ca_file: Some(authority.file()),
        host_rate: 1,
        host_burst: 3,
        busy_wait: Duration::ZERO,
        ..asking(dns.address)
    };
    let running = Running::start(dir.path(), &here, net).await;
    running.list(std::slice::from_ref(&alice)).await;
    running.work();
    running.until_shown(&alice, "old.example.com").await;
    // Others have used up what the host may be asked.
    let other = Handle::parse("other.hosting.test").unwrap();
    let identity = &running.resolver.inner.identity;
    let busy = async || {
        let checked = identity.check_handle(&alice, &other).await;
        checked.retry_after.is_some()
    };
    while !busy().await {}
    accounts.claim(&alice, "new.hosting.test");
    let refreshed = running.resolver.refresh(&alice, CLIENT).await;
    refreshed.unwrap();
    assert_ne!(
        running.shown(alice.as_str()).await.unwrap(),
        "old.example.com"
    );
    assert_eq!(running.shown("old.example.com").await, None);
    running.until_shown(&alice, "new.hosting.test").await;
    running.end().await;
}
