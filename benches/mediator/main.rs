//! Speed of the mediator: unpacking, durable forwards, pickup and live mode.
//!
//! `cargo bench --bench mediator` prints each figure with its target and the limit measured in the
//! same run. The whole service runs on loopback in the same process as its clients. Figures are
//! medians of rounds, and comparisons are made round by round. An argument selects sections by
//! name: unpack, forward, outside, pickup, live; `soak` takes an hour and runs only when it is named.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench may end with a message and prints its figures"
)]

mod outside;
mod service;
mod soak;

use std::hint::black_box;
use std::time::{Duration, Instant};

use atcomm::store::{MailboxStore, Push, Pushed, Quota, Sender, SenderClass, SenderGroup};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::{Curve, SecretKey, SelfCertified, unpack};
use sha2::{Digest as _, Sha256};

use testkit::bench::{Sections, median, rate};
use testkit::load::{Connection, Report, post};

use service::{BenchMediator, MEDIA_TYPE, PATH};

/// Number of rounds whose median is printed.
const ROUNDS: usize = 7;

/// Number of connections that send at once.
const CONNECTIONS: usize = 64;

/// Number of messages in one round.
const MESSAGES: usize = 6000;

/// Length of the recipient's message inside a forward, in bytes.
const BODY: usize = 600;

fn main() {
    if let Some(address) = std::env::var_os(soak::LOAD) {
        return soak::load(address.to_str().unwrap());
    }
    let sections = Sections::from_arguments();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(BenchMediator::start());
    if sections.contain("unpack") {
        unpacking(&bench);
    }
    if sections.contain("forward") {
        forwards(&runtime, &bench);
    }
    if sections.contain("outside") {
        outside::reader(&runtime, &bench);
    }
    if sections.contain("pickup") {
        pickups(&runtime, &bench);
    }
    if sections.contain("live") {
        live(&runtime, &bench);
    }
    if sections.name("soak") {
        soak::run(&runtime, &bench);
    }
    runtime.block_on(bench.stop());
}

/// Measures unpacking a forward, beside the key agreement that it includes.
fn unpacking(bench: &BenchMediator) {
    let ring = [SecretKey::generate(
        Curve::X25519,
        "did:web:bench.example.com#key-1",
    )];
    let key = ring[0].public();
    let forward = bench.forward_to(&key, 0, 0, None);
    let ours = rate(ROUNDS, || {
        black_box(unpack(&forward, &ring.as_slice(), &SelfCertified).unwrap());
    });
    let bytes = ring[0].to_bytes();
    let secret = x25519::StaticSecret::from(<[u8; 32]>::try_from(&bytes[..]).unwrap());
    let public = x25519::PublicKey::from(<[u8; 32]>::try_from(key.as_bytes()).unwrap());
    let bare = rate(ROUNDS, || {
        black_box(secret.diffie_hellman(black_box(&public)));
    });
    println!(
        "unpack, anoncrypt forward of {} bytes, one core: {ours:.0}/s; the key agreement alone \
         {bare:.0}/s, share of it {:.2}",
        forward.len(),
        ours / bare
    );
}

/// Posts all messages over the given number of connections.
async fn send(bench: &BenchMediator, connections: usize, messages: Vec<Vec<u8>>) -> Report {
    post(bench.address, connections, PATH, MEDIA_TYPE, messages).await
}

/// Measures forwards of 64 clients, each accepted once it is on disk, beside the same forwards
/// unpacked and not stored, and beside the store alone.
fn forwards(runtime: &tokio::runtime::Runtime, bench: &BenchMediator) {
    let (mut ours, mut opened, mut stored, mut ratios) = (vec![], vec![], vec![], vec![]);
    let mut latencies = Vec::new();
    for round in 0..ROUNDS {
        // The same messages, but expired: they are unpacked, read and not stored.
        let over = bench.forwards(MESSAGES, 2 * round, Some(1));
        let kept = bench.forwards(MESSAGES, 2 * round + 1, None);
        let a = runtime.block_on(send(bench, CONNECTIONS, over));
        let b = runtime.block_on(send(bench, CONNECTIONS, kept));
        assert_eq!(
            (a.refused, b.refused),
            (0, 0),
            "a valid message was refused"
        );
        ratios.push(b.rate / a.rate);
        opened.push(a.rate);
        latencies.push((b.p50, b.p99));
        ours.push(b.rate);
        stored.push(runtime.block_on(store_alone()));
    }
    latencies.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (p50, p99) = latencies[ROUNDS / 2];
    println!(
        "forward accepted durably, {CONNECTIONS} clients, these included: {:.0}/s, p50 {p50:.1} \
         ms, p99 {p99:.1} ms, none refused; opened and not kept {:.0}/s, ratio {:.2} (target at \
         least 0.70); the store alone {:.0}/s (an established mediator: 1,800-2,800/s)",
        median(&ours),
        median(&opened),
        median(&ratios),
        median(&stored)
    );
}

/// Measures pushes of messages of the same size by as many tasks, without HTTP and envelopes.
async fn store_alone() -> f64 {
    let dir = tempfile::tempdir().unwrap();
    let store = std::sync::Arc::new(MailboxStore::open(&dir.path().join("mailbox.db")).unwrap());
    let queues: Vec<i64> = store
        .transact(|tx| {
            (0..service::RECIPIENTS)
                .map(|n| tx.open_queue(&format!("did:peer:{n}")))
                .collect()
        })
        .await
        .unwrap();
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..CONNECTIONS {
        let (store, queues) = (std::sync::Arc::clone(&store), queues.clone());
        tasks.spawn(async move {
            for n in 0..MESSAGES / CONNECTIONS {
                let mut body = vec![b'x'; BODY + 700];
                body[..16].copy_from_slice(&((task * MESSAGES + n) as u128).to_be_bytes());
                let recipient = queues[n % queues.len()];
                let pushed = store.transact(move |tx| {
                    let now = Timestamp::from_millis(1_800_000_000_000);
                    let push = Push {
                        recipient,
                        hash: Sha256::digest(&body).into(),
                        body: &body,
                        now,
                        available_at: now,
                        expires_at: now.plus(Duration::from_secs(3600)),
                        senders: &[Sender {
                            group: SenderGroup([1; 16]),
                            class: SenderClass::Other,
                        }],
                    };
                    let quota = Quota {
                        messages: u64::MAX >> 1,
                        bytes: u64::MAX >> 1,
                        total_bytes: u64::MAX >> 1,
                        seen_since: now,
                    };
                    tx.push(&push, &quota)
                });
                assert!(matches!(pushed.await.unwrap(), Pushed::Stored(_)));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let rate = (MESSAGES / CONNECTIONS * CONNECTIONS) as f64 / began.elapsed().as_secs_f64();
    store.shutdown().await;
    rate
}

/// Measures one client that picks up one message, and 100 messages in one round trip.
fn pickups(runtime: &tokio::runtime::Runtime, bench: &BenchMediator) {
    for (limit, target) in [(1, "0.8"), (100, "5")] {
        let mut figures = Vec::new();
        let recipient = bench.recipient(limit);
        let forwards = bench.forwards_for(&recipient, limit, limit);
        let sent = runtime.block_on(send(bench, 8, forwards));
        assert_eq!(sent.refused, 0);
        runtime.block_on(async {
            let mut connection = Connection::connect(bench.address).await;
            for n in 0..200 {
                let request = recipient.delivery_request(limit);
                let began = Instant::now();
                let answer = connection.post(PATH, MEDIA_TYPE, &request).await;
                figures.push(began.elapsed().as_secs_f64() * 1000.0);
                assert_eq!(answer.status, 200);
                if n == 0 {
                    assert_eq!(recipient.count(answer.body), limit);
                }
            }
        });
        println!(
            "pickup of {limit} in one round trip, its request not timed: median {:.2} ms (target \
             under {target} ms)",
            median(&figures)
        );
    }
}

/// Measures the time from a forward's first byte to the message on the recipient's socket.
fn live(runtime: &tokio::runtime::Runtime, bench: &BenchMediator) {
    let recipient = bench.recipient(7);
    let figures = runtime.block_on(async {
        let mut socket = bench.live_socket(&recipient).await;
        let mut connection = Connection::connect(bench.address).await;
        let mut figures = Vec::new();
        for forward in bench.forwards_for(&recipient, 200, 77) {
            let began = Instant::now();
            let answer = connection.post(PATH, MEDIA_TYPE, &forward).await;
            let accepted = began.elapsed().as_secs_f64() * 1000.0;
            assert_eq!(answer.status, 202);
            service::next_text(&mut socket).await;
            figures.push((began.elapsed().as_secs_f64() * 1000.0, accepted));
        }
        figures
    });
    println!(
        "live delivery, from sending the forward to the recipient's socket: median {:.2} ms, of \
         which until it is accepted durably {:.2} ms",
        median(&figures.iter().map(|f| f.0).collect::<Vec<_>>()),
        median(&figures.iter().map(|f| f.1).collect::<Vec<_>>())
    );
}
