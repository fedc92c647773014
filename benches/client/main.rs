//! What a message costs from end to end: resolve, verify, pack, relay through two mediators,
//! unpack, attribute and store.
//!
//! `cargo bench --bench client` starts the network of `tests/network/`, two whole services and two
//! wallets, all on loopback, and prints the median of each step with its share. The sender has the
//! recipient as a contact already, and the PDSes take no part in a message; the first contact, in
//! which the client also asks the account's own servers, is printed by itself.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench may end with a message and prints its figures"
)]

mod network;

use std::time::{Duration, Instant};

use atcomm_client::dm::Dm;
use atcomm_client::wrap::{seal, wrap};
use atcomm_client::{Attribution, Consent, Live, Mail, MediatorClient, Received, Recipient};
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::proof::{Container, verify};
use atcomm_proto::syntax::Actor;
use testkit::bench::median;

use network::{BenchNetwork, Person};

/// Number of messages whose medians are printed.
const MESSAGES: usize = 300;

/// Number of messages before those, which are not counted.
const WARM_UP: usize = 20;

/// Number of first contacts whose median is printed.
const CONTACTS: usize = 15;

/// Durations of the steps of a message, in milliseconds.
#[derive(Default)]
struct Steps {
    resolve: Vec<f64>,
    verify: Vec<f64>,
    pack: Vec<f64>,
    first_hop: Vec<f64>,
    second_hop: Vec<f64>,
    read: Vec<f64>,
    acknowledge: Vec<f64>,
    whole: Vec<f64>,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let network = BenchNetwork::start().await;
        let (alice, bob) = (
            network.enrolled("alice", 0).await,
            network.enrolled("bob", 1).await,
        );
        first_contact(&alice, &bob).await;
        messages(&alice, &bob).await;
        network.stop().await;
    });
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Measures the look-up of an account that is no contact yet: the directory, the PLC directory, the
/// handle, the mediator's document and the account's PDS. Each round has a new client, whose caches
/// are empty.
async fn first_contact(alice: &Person, bob: &Person) {
    let mut figures = Vec::new();
    for _ in 0..CONTACTS {
        let lookup = alice.new_lookup();
        let actor = Actor::Handle(bob.handle());
        let began = Instant::now();
        let recipient = lookup.resolve(&actor, &[]).await.unwrap();
        figures.push(millis(began.elapsed()));
        assert!(recipient.handle.is_some(), "the handle is verified");
    }
    println!(
        "first contact by handle, everything asked anew: {:.2} ms",
        median(&figures)
    );
}

/// Measures messages from one person to the other, one after the other, received in live mode.
async fn messages(alice: &Person, bob: &Person) {
    let client = bob.mediator().await;
    let mut live = client.live().await.unwrap();
    let receiver = bob.account.receiver();
    let actor = Actor::Did(bob.did().clone());
    alice.account.recipient(&actor).await.unwrap();
    let writer = Actor::Did(alice.did().clone());
    bob.account.recipient(&writer).await.unwrap();
    let mut steps = Steps::default();
    for round in 0..WARM_UP + MESSAGES {
        let mut one = Steps::default();
        send_one(
            alice, &actor, &mut live, &mut one, &client, &receiver, round,
        )
        .await;
        if round >= WARM_UP {
            steps.add(one);
        }
    }
    live.close().await;
    steps.print();
}

async fn send_one(
    alice: &Person,
    actor: &Actor,
    live: &mut Live,
    steps: &mut Steps,
    client: &MediatorClient,
    receiver: &atcomm_client::Receiver,
    round: usize,
) {
    let began = Instant::now();
    let recipient = alice.account.recipient(actor).await.unwrap();
    steps.resolve.push(millis(began.elapsed()));
    let checking = Instant::now();
    let package = &recipient.package;
    verify(
        package.car(),
        Container::GetRecord,
        package.account(),
        package.signing_key(),
        alice.now(),
    )
    .unwrap();
    let checked = checking.elapsed();
    steps.verify.push(millis(checked));

    let dm = Dm::new(format!("message {round}"), alice.did(), &recipient.account).unwrap();
    // The sender below packs the message once more; here the packing is timed by itself.
    let packed = pack(alice, &recipient, &dm).await;
    steps.pack.push(millis(packed));

    let posting = Instant::now();
    let sender = alice.account.sender();
    let (sent, mail) = tokio::join!(
        async {
            let delivery = sender.send(&recipient, &dm, Consent::default()).await;
            (delivery.unwrap(), posting.elapsed())
        },
        async {
            let mail: Vec<Mail> = live.next().await.unwrap();
            (mail, posting.elapsed())
        }
    );
    steps.first_hop.push(millis(sent.1.saturating_sub(packed)));
    let arrived = mail.1.max(sent.1);
    steps
        .second_hop
        .push(millis(arrived.saturating_sub(sent.1)));

    let reading = Instant::now();
    let [mail] = &mail.0[..] else {
        panic!("{} messages at once", mail.0.len())
    };
    match receiver.process(client, mail).await.unwrap().received {
        Received::Message {
            attribution: Attribution::Verified { .. },
            ..
        } => {}
        other => panic!("not a verified message: {other:?}"),
    }
    steps.read.push(millis(reading.elapsed()));
    let acknowledging = Instant::now();
    let ids = std::slice::from_ref(&mail.id);
    client.acknowledge(ids).await.unwrap();
    steps.acknowledge.push(millis(acknowledging.elapsed()));
    // The steps that ran twice for their own figures are subtracted.
    steps
        .whole
        .push(millis(began.elapsed().saturating_sub(checked + packed)));
    alice.account.store().delete_sent(&sent.0.id).unwrap();
}

/// Encrypts and wraps a message; how long that takes.
async fn pack(alice: &Person, recipient: &Recipient, dm: &Dm) -> Duration {
    let own = alice.own_document().await;
    let seconds = alice.now().millis() / 1000;
    let began = Instant::now();
    let key = alice.account.key().unwrap();
    let to = &recipient.package.package().peer;
    let message = dm.message(fresh_id(), key.peer.as_str(), to.as_str(), seconds);
    let envelope = seal(message, key, to).unwrap();
    let theirs = &recipient.mediators[0];
    let wrapped = wrap(&envelope, to.as_str(), theirs, &own, key, seconds, &|_| {
        None
    });
    assert!(wrapped.unwrap().done().is_some());
    began.elapsed()
}

impl Steps {
    fn add(&mut self, one: Self) {
        self.resolve.extend(one.resolve);
        self.verify.extend(one.verify);
        self.pack.extend(one.pack);
        self.first_hop.extend(one.first_hop);
        self.second_hop.extend(one.second_hop);
        self.read.extend(one.read);
        self.acknowledge.extend(one.acknowledge);
        self.whole.extend(one.whole);
    }

    fn print(&self) {
        let whole = median(&self.whole);
        println!("one message to a contact, {MESSAGES} one after the other: {whole:.2} ms in all");
        for (name, figures) in [
            ("resolve, one hop, verified", &self.resolve),
            ("  of which the proof", &self.verify),
            ("pack: authcrypt, two forwards", &self.pack),
            ("first hop, kept by the relay", &self.first_hop),
            ("second hop, kept, on the socket", &self.second_hop),
            ("open, attribute, keep", &self.read),
            ("acknowledge", &self.acknowledge),
        ] {
            let figure = median(figures);
            println!(
                "  {name:<34} {figure:>7.2} ms  {:>3.0} %",
                100.0 * figure / whole
            );
        }
    }
}
