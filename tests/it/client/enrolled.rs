//! People who enrolled by the library instead of the command, for tests of later steps.

use std::time::Duration;

use atcomm_client::{AccountClient, Enrolment, KeyState, MediatorClient, MessagingKey, Wallet};
use atcomm_net::identity::{Freshness, Identity, IdentitySettings};
use atcomm_net::net::{Net, NetSettings};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Handle, MediatorDid, Origin};
use serde_json::{Value, json};

use super::{MediatorService, Output, Person, Running};
use crate::http::RUNTIME;
use crate::network::{Network, text};

/// The library's access to a network.
pub(crate) struct LibraryContext {
    pub(crate) net: Net,
    pub(crate) identity: Identity,
    pub(crate) clock: Clock,
}

pub(crate) fn library_context(network: &Network) -> LibraryContext {
    let clock = Clock::system();
    let settings = NetSettings {
        development: true,
        name_server: Some(network.name_server().parse().expect("an address")),
        host_rate: 1000,
        host_burst: 1000,
        ..NetSettings::default()
    };
    let net = Net::bind(settings, clock.clone()).expect("a network");
    let settings = IdentitySettings {
        plc_url: Origin::parse(network.plc()).expect("an origin"),
        ..IdentitySettings::default()
    };
    LibraryContext {
        identity: Identity::bind(net.clone(), settings, clock.clone()),
        net,
        clock,
    }
}

/// Creates an account and enrols it with these services in their order. The first is the directory,
/// too.
#[track_caller]
pub(crate) fn enrolled_person(
    network: &'static Network,
    prefix: &str,
    pds: usize,
    services: &[&MediatorService],
) -> Person {
    let others: Vec<&str> = services
        .iter()
        .map(|mediator| mediator.did.as_str())
        .collect();
    let person = Person::new(network, prefix, pds);
    enroll_by_library(&person, services, &others);
    person
}

/// Enrols an existing account with these services, with a record that names `mediators`.
#[track_caller]
pub(crate) fn enroll_by_library(
    person: &Person,
    services: &[&MediatorService],
    mediators: &[&str],
) -> MessagingKey {
    let context = library_context(person.account.network);
    let mut key = MessagingKey::mint(context.clock.now());
    person
        .account
        .put(json!({"did": key.peer.as_str(), "mediators": mediators}));
    let did = |text: &str| MediatorDid::parse(text).expect("a DID");
    let account = person.account.did();
    RUNTIME.block_on(async {
        for mediator in services {
            let did_web = did(&mediator.did);
            let (net, identity, clock) = (&context.net, &context.identity, &context.clock);
            let client =
                MediatorClient::open(net, identity, clock, &did_web, &key, Freshness::Cached);
            let client = client.await.expect("a mediator");
            client.register(&account).await.expect("registered");
            client.register(&account).await.expect("registered again");
        }
    });
    key.state = KeyState::Published {
        at: context.clock.now(),
    };
    key.registered = services.iter().map(|mediator| did(&mediator.did)).collect();
    let pds = Origin::parse(text(&person.account.made, "/pdsUrl")).expect("an origin");
    let enrolment = Enrolment {
        account: account.clone(),
        handle: Handle::parse(&person.account.handle).ok(),
        pds: pds.clone(),
        directory: Origin::parse(&services[0].url).ok(),
        mediators: mediators.iter().map(|text| did(text)).collect(),
        label: None,
        keys: vec![key.clone()],
    };
    let wallet = Wallet::open(&person.cli.wallet()).expect("a wallet");
    let store = wallet.account_store(&account);
    store.save(&enrolment).expect("kept");
    let client = AccountClient::new(&context.net, &pds, &store);
    let signed_in = RUNTIME.block_on(client.sign_in(&person.account.did, person.password(), None));
    signed_in.expect("signed in");
    key
}

impl Person {
    /// Sends a message. The command has to succeed.
    #[track_caller]
    pub(crate) fn send(&self, to: &Person, words: &str) -> Output {
        self.cli.run(&["send", &to.account.handle, words]).success()
    }

    /// Receives messages. Returns them as JSON.
    #[track_caller]
    pub(crate) fn receive(&self, more: &[&str]) -> Vec<Value> {
        let mut args = vec!["receive", "--json"];
        args.extend(more);
        lines(&self.cli.run(&args).success().stdout)
    }

    /// Waits for `count` messages.
    #[track_caller]
    pub(crate) fn collect(&self, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        crate::http::eventually("mail", || {
            all.extend(self.receive(&[]));
            (all.len() >= count).then_some(())
        });
        assert_eq!(all.len(), count, "{all:?}");
        all
    }
}

/// Parses one JSON object from each line.
#[track_caller]
pub(crate) fn lines(out: &str) -> Vec<Value> {
    let read = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    out.lines().map(read).collect()
}

/// Returns the texts of messages.
pub(crate) fn texts(received: &[Value]) -> Vec<&str> {
    received.iter().map(|one| text(one, "/text")).collect()
}

/// Waits until `time` has passed or the command has ended.
pub(crate) fn for_a_while(running: &mut Running, time: Duration) {
    let start = std::time::Instant::now();
    while start.elapsed() < time && !running.has_ended() {
        std::thread::sleep(Duration::from_millis(2));
    }
}
