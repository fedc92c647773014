//! A directory of many accounts, served as in production except for its network.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use atcomm::directory::Directory;
use atcomm::http::{Http, HttpSettings, UpdatesSettings};
use atcomm::resolve::{ResolveSettings, Resolver};
use atcomm::store::directory::Owner;
use atcomm::store::{Change, ChangeKind, DirectoryStore};
use atcomm_net::identity::{Identity, IdentitySettings};
use atcomm_net::net::{Net, NetSettings};
use atcomm_proto::clock::Clock;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use testkit::load::Connection;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::filled::enrolled;

/// Size of the cache of rendered views, in bytes: the default of the service.
const VIEW_CACHE_BYTES: u64 = 64 << 20;

/// Name of the threads that serve. Those of the store have names of their own.
const SERVICE: &str = "service";

pub(crate) struct BenchDirectory {
    pub(crate) address: SocketAddr,
    directory: Arc<Directory>,
    stop: CancellationToken,
}

impl BenchDirectory {
    pub(crate) async fn open(dir: &Path, clock: Clock) -> Self {
        let store = DirectoryStore::open(&dir.join("directory.db")).unwrap();
        let directory = Arc::new(
            Directory::bind(store, clock.clone(), VIEW_CACHE_BYTES)
                .await
                .unwrap(),
        );
        let net = Net::bind(NetSettings::default(), clock.clone()).unwrap();
        let identity = Identity::bind(net.clone(), IdentitySettings::default(), clock.clone());
        let resolver = Resolver::bind(
            net,
            identity,
            Arc::clone(&directory),
            Vec::new(),
            ResolveSettings::default(),
            clock,
        );
        let settings = HttpSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            updates: UpdatesSettings {
                address_subscribers: usize::MAX,
                ..UpdatesSettings::default()
            },
            // All load comes from one address.
            rate_limit: 0,
            ..HttpSettings::default()
        };
        let http = Http::bind(settings, resolver, None, None).unwrap();
        let address = http.local_addr();
        let stop = CancellationToken::new();
        tokio::spawn(http.run(stop.clone()));
        Self {
            address,
            directory,
            stop,
        }
    }

    /// Has an account change, as a check of its handle has it.
    pub(crate) async fn change(&self, n: u64) {
        let did = enrolled(n);
        let now = Clock::system().now();
        let change = self.directory.store().transact(move |tx| {
            let entry = tx.entry(&did)?;
            if let Some(entry) = entry {
                let change = Change::of(&entry, ChangeKind::Identity, None, now);
                tx.append_change(&change, &Owner::of(&entry))?;
            }
            Ok(())
        });
        change.await.unwrap();
    }

    pub(crate) async fn close(self) {
        self.stop.cancel();
        self.directory.shutdown().await;
    }

    /// Returns the resident memory of this process, in megabytes.
    pub(crate) fn resident() -> f64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: f64 = statm
            .split(' ')
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0.0);
        pages * 4096.0 / 1e6
    }
}

/// Returns the runtime of the service.
pub(crate) fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(2).thread_name(SERVICE).enable_all();
    builder.build().unwrap()
}

/// Returns the seconds of CPU that the threads of the service and its store have taken.
pub(crate) fn cpu_of_service() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let ticks = tasks.flatten().filter_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(") ")?;
        if name != SERVICE && !name.starts_with("store") {
            return None;
        }
        // User and system time are the fields 14 and 15 (proc(5)).
        let mut fields = rest.split(' ').skip(11).map(str::parse::<f64>);
        Some(fields.next()?.ok()? + fields.next()?.ok()?)
    });
    ticks.sum::<f64>() / 100.0
}

/// Serves the same bytes to every request and does nothing else.
pub(crate) fn bare(runtime: &Runtime, body: Vec<u8>) -> SocketAddr {
    let body = bytes::Bytes::from(body);
    let handler = move || {
        let body = body.clone();
        async move { ([(CONTENT_TYPE, "application/json")], body) }
    };
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/", get(handler))).await },
        );
        address
    })
}

/// Returns the body of an answer.
pub(crate) fn body_of(runtime: &Runtime, address: SocketAddr, path: &str) -> Vec<u8> {
    runtime.block_on(async {
        let mut connection = Connection::connect(address).await;
        let answer = connection.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        answer.body.to_vec()
    })
}
