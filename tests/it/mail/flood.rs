//! Floods of every kind: the surplus is refused by name, other clients are served as before, and
//! memory stays bounded (invariant 7).

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use serde_json::json;

use super::hostile::assert_works;
use super::{MediatorEndpoint, PeerClient, Socket, forward, mediator, open, post};
use crate::http::{Answer, RUNTIME, eventually, request, throughout};
use crate::network::{Network, text};
use crate::service::Service;

/// Sends an envelope to each of `next`, by `tasks` concurrent tasks.
fn send_to_each(
    endpoint: &MediatorEndpoint,
    next: Vec<String>,
    inner: &[u8],
    tasks: usize,
) -> Vec<Answer> {
    let (next, inner) = (Arc::new(next), Arc::new(inner.to_vec()));
    let at = Arc::new(AtomicUsize::new(0));
    let task = || {
        let (endpoint, next) = (endpoint.clone(), Arc::clone(&next));
        let (inner, at) = (Arc::clone(&inner), Arc::clone(&at));
        async move {
            let mut answers = Vec::new();
            while let Some(did) = next.get(at.fetch_add(1, Ordering::SeqCst)) {
                let envelope = endpoint.forward(did, &inner);
                answers.push(post(endpoint.url(), envelope).await.expect("an answer"));
            }
            answers
        }
    };
    RUNTIME.block_on(async {
        let tasks: Vec<_> = (0..tasks).map(|_| tokio::spawn(task())).collect();
        let mut answers = Vec::new();
        for task in tasks {
            answers.extend(task.await.expect("a sender"));
        }
        answers
    })
}

/// Returns a DID that no mediator knows.
fn unknown_did(n: usize) -> String {
    let mut key = [0x5a; 32];
    key[..8].copy_from_slice(&n.to_be_bytes());
    let keys = [(Purpose::KeyAgreement, KeyType::X25519, &key[..])];
    PeerDid::build(&keys, &[])
        .expect("a DID")
        .as_str()
        .to_owned()
}

/// Returns all parts of a response that a sender sees, except the date.
fn visible_parts(answer: &Answer) -> String {
    let headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .collect();
    format!("{} {headers:?} {:?}", answer.status, answer.body)
}

/// Returns the memory of a service, in bytes. Its own gauge is not always up to date.
fn memory(service: &Service) -> f64 {
    let path = format!("/proc/{}/status", service.process_id());
    let status = std::fs::read_to_string(path).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.expect("its memory").trim().trim_end_matches(" kB");
    kib.parse::<f64>().expect("a number") * 1024.0
}

#[test]
fn inv7_ten_thousand_unknown_recipients_look_like_known_ones_and_leave_nothing() {
    const UNKNOWN: usize = 10_000;
    let (service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let envelope = bob.envelope("for whom it may concern");
    let known = send_to_each(&endpoint, vec![bob.did.clone(); 200], &envelope, 16);
    let before = memory(&service);
    let recipients = (0..UNKNOWN).map(unknown_did).collect();
    let unknown = send_to_each(&endpoint, recipients, &envelope, 32);
    let grown = memory(&service) - before;
    assert_eq!(unknown.len(), UNKNOWN);
    let shapes: BTreeSet<_> = known.iter().chain(&unknown).map(visible_parts).collect();
    assert_eq!(shapes.len(), 1, "{shapes:?}");
    assert_eq!(known[0].status, 202);
    // Only the rate limit of each recipient remains in memory, a few hundred bytes.
    assert!(
        grown < 24e6,
        "{grown} bytes for {UNKNOWN} unknown recipients"
    );
    println!("{UNKNOWN} unknown recipients: {grown} bytes");
    let outcomes =
        |outcome| service.metric("atcomm_mediator_forwards_total", &[("outcome", outcome)]);
    assert_eq!((outcomes("unknown"), outcomes("kept")), (10_000.0, 200.0));
    bob.empty(&endpoint);
    assert_works(&service, &endpoint, &bob);
}

#[test]
fn inv7_a_flood_to_one_recipient_is_slowed_down_and_delays_no_other() {
    let (service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.queue_rate", json!(200))
    });
    let victim = PeerClient::new();
    let others: Vec<PeerClient> = (0..10).map(|_| PeerClient::new()).collect();
    for peer in others.iter().chain([&victim]) {
        peer.enter(&endpoint);
    }
    let envelope = victim.envelope("again and again");
    let flood = {
        let (endpoint, did, envelope) = (endpoint.clone(), victim.did.clone(), envelope);
        std::thread::spawn(move || send_to_each(&endpoint, vec![did; 600], &envelope, 16))
    };
    for n in 0..10 {
        for peer in &others {
            endpoint.take(&endpoint.forward(&peer.did, &peer.envelope(&format!("letter {n}"))));
        }
    }
    let answers = flood.join().expect("a flood");
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status != 202)
        .collect();
    // One address may send a quarter of the rate: fifty at once, and a few more for each second of
    // the test.
    assert!(
        (500..=550).contains(&refused.len()),
        "{} refused",
        refused.len()
    );
    for answer in refused {
        assert_eq!(answer.status, 429);
        assert_eq!(text(&answer.json(), "/error"), "RateLimitExceeded");
        assert!(
            answer
                .header("retry-after")
                .parse::<u64>()
                .is_ok_and(|wait| wait > 0)
        );
    }
    for peer in &others {
        assert_eq!(peer.empty(&endpoint).len(), 10);
    }
    // The refusal does not reveal whether the recipient is known.
    let refused = send_to_each(
        &endpoint,
        vec![unknown_did(1); 60],
        &others[0].envelope("x"),
        1,
    );
    assert_eq!(
        refused.iter().filter(|answer| answer.status == 202).count(),
        50
    );
    assert_works(&service, &endpoint, &others[0]);
}

#[test]
fn inv7_one_address_has_one_allowance() {
    let (service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.address_rate", json!(100))
    });
    let answers = send_to_each(&endpoint, (0..150).map(unknown_did).collect(), b"{}", 4);
    let of = |status: u16| {
        answers
            .iter()
            .filter(|answer| answer.status == status)
            .count()
    };
    // Unreadable messages are charged like others.
    assert_eq!(of(400) + of(429), 150);
    assert!((100..=112).contains(&of(400)), "{} were unpacked", of(400));
    assert_eq!(Socket::try_open(&endpoint).err(), Some(429));
    let limited = service.metric(
        "atcomm_mediator_refused_total",
        &[("reason", "rate_limited")],
    );
    assert!(limited >= 38.0);
}

#[test]
fn inv7_a_full_queue_refuses_by_name_until_there_is_room() {
    let (service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.queue_messages", json!(19))
    });
    let [alice, bob, carol] = [(); 3].map(|()| PeerClient::new());
    for peer in [&alice, &bob, &carol] {
        peer.enter(&endpoint);
    }
    let envelopes: Vec<_> = (0..6)
        .map(|n| bob.envelope(&format!("letter {n}")))
        .collect();
    for envelope in &envelopes[..5] {
        endpoint.take(&endpoint.forward(&bob.did, envelope));
    }
    let answer = endpoint.post(&endpoint.forward(&bob.did, &envelopes[5]));
    assert_eq!(answer.status, 503);
    assert_eq!(text(&answer.json(), "/error"), "QueueFull");
    assert!(
        answer
            .header("retry-after")
            .parse::<u64>()
            .is_ok_and(|wait| wait > 0)
    );
    // A socket has no status: an authenticated sender who wants answers gets a report.
    let mut socket = Socket::open(&endpoint);
    let named = forward(&bob.did, &envelopes[5]).return_route(super::ReturnRoute::All);
    socket.send(alice.seal(&endpoint, named));
    let told = alice.open(&endpoint, &socket.next().expect("an answer"));
    let report = told.body_of::<super::Report>().expect("a report");
    assert_eq!(report.code, "e.p.me.res.storage");
    // A duplicate is not stored twice, and other recipients have their own quota. Of nineteen places
    // one address may use five.
    endpoint.take(&endpoint.forward(&bob.did, &envelopes[0]));
    endpoint.take(&endpoint.forward(&carol.did, &carol.envelope("beside")));
    let mail = bob.fetch(&endpoint);
    assert_eq!(mail.len(), 5);
    assert_eq!(bob.acknowledge(&endpoint, vec![mail[0].0.clone()]), 4);
    endpoint.take(&endpoint.forward(&bob.did, &envelopes[5]));
    assert_eq!(bob.collect(&endpoint, 5).len(), 5);
    assert_eq!(carol.collect(&endpoint, 1), ["beside"]);
    assert_works(&service, &endpoint, &carol);
}

/// Sends the head of a request that announces a body, and its first byte.
fn slow(endpoint: &MediatorEndpoint, len: usize, address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", endpoint.port)).expect("a connection");
    let head = format!(
        "POST /didcomm HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {address}\r\n\
         content-length: {len}\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).expect("it is read");
    stream
}

#[test]
fn inv7_bodies_that_never_come_delay_no_other_request_and_end() {
    let (service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup)
            .set("mediator.receive_memory", json!(8 << 20))
            .set("http.timeout", json!("4s"))
    });
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    // These bodies announce ten times the memory for receiving.
    let mut slow: Vec<_> = (0..80).map(|_| slow(&endpoint, 1 << 20, "x")).collect();
    for n in 0..20 {
        endpoint.take(&endpoint.forward(&bob.did, &bob.envelope(&format!("letter {n}"))));
    }
    assert_eq!(bob.collect(&endpoint, 20).len(), 20);
    for stream in &mut slow {
        let wait = Some(Duration::from_secs(15));
        stream.set_read_timeout(wait).expect("a socket");
        let mut answer = [0; 12];
        // The connection gets a refusal or is cut.
        match stream.read(&mut answer) {
            Ok(0) => {}
            Ok(_) => assert!(answer.starts_with(b"HTTP/1.1 "), "{answer:?}"),
            Err(error) => panic!("it is still open: {error}"),
        }
    }
    assert_works(&service, &endpoint, &bob);
}

#[test]
fn inv7_memory_for_bodies_is_bounded() {
    let (service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup).set("mediator.receive_memory", json!(4 << 20))
    });
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let before = memory(&service);
    // Forty bodies arrive except for their last byte.
    let mut large: Vec<_> = (0..40).map(|_| slow(&endpoint, 1 << 20, "x")).collect();
    let part = vec![b'x'; (1 << 20) - 2];
    for stream in &mut large {
        let timeout = Some(Duration::from_millis(30));
        stream.set_write_timeout(timeout).expect("a socket");
        // A write blocks when the service does not read.
        drop(stream.write_all(&part));
    }
    let grown = memory(&service) - before;
    assert!(
        grown < 9e6,
        "{grown} bytes for bodies that are not complete"
    );
    println!("40 incomplete bodies of 1 MiB: {grown} bytes");
    drop(large);
    eventually("there is room again for the longest of messages", || {
        (endpoint.post(&vec![b'x'; 1 << 20]).status == 400).then_some(())
    });
    assert_works(&service, &endpoint, &bob);
}

/// Connections that stay open after long messages, as those of mediators do.
#[test]
fn inv7_a_connection_that_has_sent_much_keeps_little_memory() {
    const CONNECTIONS: u32 = 100;
    let (service, endpoint) = mediator(Network::multikey(), open);
    let body = vec![b'x'; (1 << 20) - 1];
    let before = memory(&service);
    let _idle: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut stream = slow(&endpoint, 1 << 20, "x");
            stream.write_all(&body).expect("it is read");
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 400");
            stream
        })
        .collect();
    let each = (memory(&service) - before) / f64::from(CONNECTIONS);
    assert!(each < 200e3, "{each} bytes for each idle connection");
    println!("{each} bytes for each idle connection that sent 1 MiB");
}

#[test]
fn inv7_one_address_takes_up_a_part_of_the_memory_for_bodies() {
    let (service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup)
            .set("mediator.receive_memory", json!(8 << 20))
            .set("http.trusted_proxies", json!(["127.0.0.0/8"]))
    });
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let part = vec![b'x'; (1 << 20) - 2];
    // A quarter of the memory and one message more: three messages.
    let mut large: Vec<_> = (0..3)
        .map(|_| slow(&endpoint, 1 << 20, "203.0.113.7"))
        .collect();
    for stream in &mut large {
        stream.write_all(&part).expect("it is read");
    }
    let post_as = |address: &'static str, envelope: Vec<u8>| {
        let headers = [("x-forwarded-for", address)];
        request("POST", &endpoint.url(), &headers, Some(envelope)).status
    };
    for n in 0..20 {
        let envelope = endpoint.forward(&bob.did, &bob.envelope(&format!("letter {n}")));
        assert_eq!(post_as("203.0.113.8", envelope), 202);
    }
    // Further messages of the address wait once this memory is used.
    eventually("its share is taken up", || {
        (post_as("203.0.113.7", part.clone()) == 429).then_some(())
    });
    drop(large);
    assert_eq!(bob.collect(&endpoint, 20).len(), 20);
    assert_works(&service, &endpoint, &bob);
}

#[test]
fn inv7_sockets_over_the_cap_are_refused_until_one_ends() {
    for (key, status) in [("address_sockets", 429), ("max_sockets", 503)] {
        let (service, endpoint) = mediator(Network::multikey(), |setup| {
            open(setup).set(&format!("mediator.{key}"), json!(3))
        });
        let bob = PeerClient::new();
        bob.enter(&endpoint);
        let mut sockets: Vec<_> = (0..2).map(|_| Socket::open(&endpoint)).collect();
        sockets.push(Socket::live(&endpoint, &bob));
        for _ in 0..20 {
            assert_eq!(Socket::try_open(&endpoint).err(), Some(status), "{key}");
        }
        // Requests and open sockets are still served.
        endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("for the socket")));
        let live = sockets.last_mut().expect("a socket").next();
        assert_eq!(bob.words(&live.expect("a letter")), "for the socket");
        sockets.remove(0);
        eventually("a place is free", || Socket::try_open(&endpoint).ok());
        drop(sockets);
        eventually("all places are free", || {
            (service.metric("atcomm_mediator_sockets", &[]) == 0.0).then_some(())
        });
        throughout(Duration::from_millis(100), "they stay so", || {
            service.metric("atcomm_mediator_sockets", &[]) == 0.0
        });
        bob.empty(&endpoint);
        assert_works(&service, &endpoint, &bob);
    }
}
