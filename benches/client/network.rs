//! The network, two services and the people of the client's bench.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use atcomm::config::{Config, Overrides};
use atcomm::server::Server;
use atcomm_client::enrolment::enroll::{Enroller, Plan, mediator_did};
use atcomm_client::{
    Account, AccountClient, Client, MediatorClient, RecipientLookup, Settings, Wallet, document,
};
use atcomm_net::identity::{Freshness, Identity, MediatorDocument};
use atcomm_net::net::{Request, Trust};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Actor, Did, Handle};
use serde_json::{Value, json};
use testkit::network::Network;
use tokio_util::sync::CancellationToken;
use url::Url;

pub(crate) struct BenchNetwork {
    dir: PathBuf,
    network: Network,
    services: Vec<Service>,
}

struct Service {
    port: u16,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

/// An enrolled account with its wallet and its client.
pub(crate) struct Person {
    pub(crate) account: Account,
    settings: Settings,
}

impl BenchNetwork {
    pub(crate) async fn start() -> Self {
        let network = Network::start(&["--multikey"]);
        let dir = std::env::temp_dir().join(format!("atcomm-bench-client-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut bench = Self {
            dir,
            network,
            services: Vec::new(),
        };
        for pds in 0..2 {
            let service = bench.service(pds).await;
            bench.services.push(service);
        }
        bench
    }

    pub(crate) async fn stop(self) {
        for service in self.services {
            service.stop.cancel();
            service.ended.await.unwrap();
        }
        self.network.stop();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }

    /// Returns the part of a configuration that points to the network.
    fn network_settings(&self) -> String {
        format!(
            "[net]\ndevelopment = true\nname_server = {:?}\nhost_rate = 100000\n\
             host_burst = 100000\n[identity]\nplc_url = {:?}\n",
            self.network.text("/dns"),
            self.network.text("/plc"),
        )
    }

    fn config(&self, name: &str, text: &str) -> Config {
        let file = self.dir.join(format!("{name}.toml"));
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), &Overrides::default()).unwrap()
    }

    async fn service(&self, pds: usize) -> Service {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let url = self.network.text(&format!("/pds/{pds}/url"));
        let name = format!("service{pds}");
        let text = format!(
            "data_dir = {:?}\n[http]\nlisten = \"127.0.0.1:{port}\"\n[mediator]\n\
             public_url = \"http://localhost:{port}\"\nqueue_rate = 1000000\n\
             address_rate = 1000000\n[[sources]]\nkind = \"pds\"\nurl = {url:?}\n{}",
            self.dir.join(&name),
            self.network_settings()
        );
        let config = self.config(&name, &text);
        let server = Server::bind(config, Clock::system()).await.unwrap();
        let stop = server.stopper();
        let ended = tokio::spawn(async move { server.join().await.unwrap() });
        Service { port, stop, ended }
    }

    /// Creates an account on a PDS and enrols it with the service beside that PDS.
    pub(crate) async fn enrolled(&self, name: &str, pds: usize) -> Person {
        let config = self.config(name, &self.network_settings());
        let settings = Settings {
            home: self.dir.join(format!("wallet-{name}")),
            directory: None,
            net: config.net,
            identity: config.identity,
        };
        let client = Client::bind(settings.net.clone(), settings.identity.clone(), None).unwrap();
        let net = &client.net;
        let url = Url::parse(&format!("{}/account.create", self.network.text("/control"))).unwrap();
        let made = net
            .post(
                &Request::new(url, Trust::Configured, 1 << 20),
                "application/json",
                json!({"name": name, "pds": pds}).to_string().into(),
            )
            .await
            .unwrap();
        let made: Value = serde_json::from_slice(&made.body).unwrap();
        let wallet = Wallet::open(&settings.home).unwrap();
        let enroller = Enroller::new(&client, &wallet);
        let did = Did::parse(made["did"].as_str().unwrap()).unwrap();
        let located = enroller.locate(&Actor::Did(did.clone())).await.unwrap();
        let store = wallet.account_store(&did);
        AccountClient::new(net, &located.pds, &store)
            .sign_in(did.as_str(), made["password"].as_str().unwrap(), None)
            .await
            .unwrap();
        let host = format!("localhost:{}", self.services[pds].port);
        let plan = Plan {
            mediators: vec![mediator_did(&host, true).unwrap()],
            ..Plan::default()
        };
        let outcome = enroller.enroll(&located, &plan, &mut |_| {}).await.unwrap();
        assert!(outcome.missing.is_empty(), "{:?}", outcome.missing);
        Person {
            account: Account::of_wallet(client, &settings.home, None).unwrap(),
            settings,
        }
    }
}

impl Person {
    pub(crate) fn did(&self) -> &Did {
        &self.account.enrolment().account
    }

    pub(crate) fn handle(&self) -> Handle {
        self.account.enrolment().handle.clone().unwrap()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.account.client().clock.now()
    }

    /// Returns a look-up with empty caches.
    pub(crate) fn new_lookup(&self) -> RecipientLookup {
        let client = self.account.client().clone();
        let settings = self.settings.identity.clone();
        let client = Client {
            identity: Identity::bind(client.net.clone(), settings, client.clock.clone()),
            ..client
        };
        client.lookup(self.account.enrolment().directory.as_ref())
    }

    /// Returns the document of the person's own mediator.
    pub(crate) async fn own_document(&self) -> Arc<MediatorDocument> {
        let did = &self.account.enrolment().mediators[0];
        document(&self.account.client().identity, did, Freshness::Cached)
            .await
            .unwrap()
    }

    /// Returns a client of the person's own mediator, for the current key.
    pub(crate) async fn mediator(&self) -> MediatorClient {
        let Client { net, clock, .. } = self.account.client();
        let document = self.own_document().await;
        MediatorClient::with_document(net, clock, document, self.account.key().unwrap()).unwrap()
    }
}
