//! Answers with mail that are not read: each holds memory until it is written, over HTTP and over
//! WebSockets.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::super::{MediatorEndpoint, PeerClient, ReturnRoute, Socket, id, mediator, open, pickup};
use super::print_harm;
use crate::http::{RUNTIME, eventually};
use crate::network::Network;
use crate::service::{Service, Setup};

/// Length of a letter of which four are the longest delivery.
const LONG: usize = 390_000;

/// Returns a figure of a process's memory, in bytes: `VmRSS` now, `VmHWM` at most so far.
fn memory(service: &Service, figure: &str) -> f64 {
    let path = format!("/proc/{}/status", service.process_id());
    let status = std::fs::read_to_string(path).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix(figure));
    let kib = line.expect("its memory").trim_start_matches(':').trim();
    kib.trim_end_matches(" kB")
        .parse::<f64>()
        .expect("a number")
        * 1024.0
}

fn mib(bytes: f64) -> String {
    format!("{:.0} MiB", bytes / f64::from(1 << 20))
}

/// Starts a mediator with as many connections as these tests open.
fn roomy() -> (Service, MediatorEndpoint) {
    let settings = |setup: Setup| {
        open(setup)
            .set("http.max_connections", json!(6000))
            .set("mediator.max_sockets", json!(1100))
    };
    mediator(Network::multikey(), settings)
}

/// Makes a client with mail of `letters` long letters.
fn peer_with_mail(endpoint: &MediatorEndpoint, letters: usize) -> PeerClient {
    let peer = PeerClient::new();
    peer.enter(endpoint);
    for _ in 0..letters {
        endpoint.take(&endpoint.forward(&peer.did, &peer.envelope(&"x".repeat(LONG))));
    }
    peer
}

fn delivery_request(endpoint: &MediatorEndpoint, peer: &PeerClient) -> Vec<u8> {
    let ask = pickup::Request::Delivery {
        limit: 100,
        recipient_did: None,
    };
    let message = ask.write(pickup::Version::V3, id());
    peer.seal(endpoint, message.return_route(ReturnRoute::All))
}

/// Sends a request as of `address` and reads nothing.
fn ask_and_leave(endpoint: &MediatorEndpoint, address: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", endpoint.port)).expect("a connection");
    let head = format!(
        "POST /didcomm HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {address}\r\n\
         content-type: application/didcomm-encrypted+json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream
        .write_all(&[head.as_bytes(), body].concat())
        .expect("it is read");
    stream
}

/// Returns the status of a response without taking a byte of it.
fn status(stream: &TcpStream) -> u16 {
    let wait = Some(Duration::from_secs(60));
    stream.set_read_timeout(wait).expect("a socket");
    let mut begin = [0; 12];
    // A response begins with one write.
    match stream.peek(&mut begin) {
        Ok(12) => String::from_utf8_lossy(&begin[9..])
            .parse()
            .expect("a status"),
        _ => 0,
    }
}

/// Picks up all mail of an honest client, as its program would: again after a refusal. Returns the
/// number of refusals and of deliveries, and the time.
fn pick_up_all(
    endpoint: &MediatorEndpoint,
    peer: &PeerClient,
    letters: usize,
) -> (u32, u32, Duration) {
    let (begun, mut got) = (Instant::now(), 0);
    let (mut refused, mut deliveries) = (0, 0);
    while got < letters {
        let answer = endpoint.post(&delivery_request(endpoint, peer));
        if answer.status != 200 {
            assert!([429, 503].contains(&answer.status), "{}", answer.text());
            assert!(!answer.header("retry-after").is_empty());
            refused += 1;
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "nothing gets through"
            );
            std::thread::sleep(Duration::from_millis(100));
            continue;
        }
        let message = peer.open(endpoint, &answer.body);
        let Ok(Some((_, pickup::Reply::Delivery { messages, .. }))) = pickup::Reply::of(&message)
        else {
            panic!("{} to a delivery-request", message.kind)
        };
        deliveries += 1;
        got += messages.len();
        peer.acknowledge(
            endpoint,
            messages.into_iter().filter_map(|one| one.id).collect(),
        );
    }
    (refused, deliveries, begun.elapsed())
}

#[test]
fn inv7_unread_answers_of_one_address_take_a_part_of_the_memory() {
    const UNREAD: usize = 120;
    let (service, endpoint) = roomy();
    let mallory = peer_with_mail(&endpoint, 4);
    let carol = peer_with_mail(&endpoint, 4);
    let before = memory(&service, "VmRSS");
    let held: Vec<_> = (0..UNREAD)
        .map(|_| {
            ask_and_leave(
                &endpoint,
                "203.0.113.7",
                &delivery_request(&endpoint, &mallory),
            )
        })
        .collect();
    let statuses: Vec<_> = held.iter().map(status).collect();
    let grown = memory(&service, "VmHWM") - before;
    let of = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    let (refused, deliveries, took) = pick_up_all(&endpoint, &carol, 4);
    print_harm(
        "unread answers of one address",
        &format!("1 account, 1 address, {UNREAD} requests"),
        &format!(
            "{} more memory at most; {} answers made, {} refused (429), {} (503); an honest client got \
             2 MiB in {took:?} by {deliveries} deliveries after {refused} refusals",
            mib(grown),
            of(200),
            of(429),
            of(503),
        ),
    );
    assert!(of(200) > 0);
    assert_eq!(of(200) + of(429), UNREAD, "{statuses:?}");
    assert!(grown < 150e6, "{grown}");
    assert_eq!(refused, 0, "one address takes what others need");
    // What is read is released.
    drop(held);
    pick_up_all(&endpoint, &mallory, 4);
}

#[test]
fn inv7_memory_stays_bounded_under_4096_unread_answers() {
    const UNREAD: usize = 4096;
    const ACCOUNTS: usize = 64;
    let (service, endpoint) = roomy();
    let accounts: Vec<_> = (0..ACCOUNTS)
        .map(|_| peer_with_mail(&endpoint, 4))
        .collect();
    let carol = peer_with_mail(&endpoint, 4);
    let dave = peer_with_mail(&endpoint, 0);
    for n in 0..20 {
        endpoint.take(&endpoint.forward(&dave.did, &dave.envelope(&format!("note {n}"))));
    }
    let before = memory(&service, "VmRSS");
    let begun = Instant::now();
    let held: Vec<_> = (0..UNREAD)
        .map(|n| {
            let address = format!("198.51.{}.{}", n / 4 / 256, n / 4 % 256);
            let request = delivery_request(&endpoint, &accounts[n % ACCOUNTS]);
            ask_and_leave(&endpoint, &address, &request)
        })
        .collect();
    let statuses: Vec<_> = held.iter().map(status).collect();
    let took_all = begun.elapsed();
    let grown = memory(&service, "VmHWM") - before;
    let of = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    let small = pick_up_all(&endpoint, &dave, 20);
    let large = pick_up_all(&endpoint, &carol, 4);
    print_harm(
        "unread answers of many",
        &format!(
            "{ACCOUNTS} accounts, {} addresses, {UNREAD} requests in {took_all:?}",
            UNREAD / 4
        ),
        &format!(
            "{} more memory at most; {} answers made, {} refused (429), {} (503), {} closed; an honest \
             client got 20 notes in {:?} after {} refusals, another 2 MiB in {:?} by {} deliveries after \
             {} refusals",
            mib(grown),
            of(200),
            of(429),
            of(503),
            of(0),
            small.2,
            small.0,
            large.2,
            large.1,
            large.0,
        ),
    );
    assert!(grown < 600e6, "{grown}");
    assert_eq!(small.0, 0, "small mail is never refused");
    drop(held);
    for peer in &accounts[..4] {
        pick_up_all(&endpoint, peer, 4);
    }
}

/// A socket in live mode of an account, as of `address`.
fn live_socket(endpoint: &MediatorEndpoint, peer: &PeerClient, address: &str) -> Socket {
    let url = format!("ws://127.0.0.1:{}/didcomm", endpoint.port);
    let mut request = url.into_client_request().expect("a request");
    let address = address.parse().expect("a header");
    request.headers_mut().insert("x-forwarded-for", address);
    let live = pickup::Request::Live(true).write(pickup::Version::V3, id());
    let live = peer.seal(endpoint, live.return_route(ReturnRoute::All));
    let live = String::from_utf8(live).expect("text");
    RUNTIME.block_on(async {
        let (mut stream, _) = connect_async(request).await.expect("a socket");
        stream
            .send(Frame::Text(live.into()))
            .await
            .expect("it is open");
        let answer = stream.next().await;
        assert!(matches!(answer, Some(Ok(Frame::Text(_)))), "{answer:?}");
        Socket(stream)
    })
}

#[test]
fn inv7_pushes_that_are_not_read_take_a_part_of_the_memory_and_lose_nothing() {
    const ACCOUNTS: usize = 16;
    const EACH: usize = 64;
    let (service, endpoint) = roomy();
    let accounts: Vec<_> = (0..ACCOUNTS)
        .map(|_| peer_with_mail(&endpoint, 0))
        .collect();
    let carol = peer_with_mail(&endpoint, 0);
    let mut sockets: Vec<_> = accounts
        .iter()
        .enumerate()
        .flat_map(|(n, peer)| {
            let address = format!("198.51.100.{n}");
            let open = |_| live_socket(&endpoint, peer, &address);
            (0..EACH).map(open).collect::<Vec<_>>()
        })
        .collect();
    let mut listening = Socket::live(&endpoint, &carol);
    let before = memory(&service, "VmRSS");
    for peer in &accounts {
        for _ in 0..4 {
            endpoint.take(&endpoint.forward(&peer.did, &peer.envelope(&"x".repeat(LONG))));
        }
    }
    std::thread::sleep(Duration::from_secs(3));
    let grown = memory(&service, "VmHWM") - before;
    let begun = Instant::now();
    let words = "y".repeat(LONG);
    endpoint.take(&endpoint.forward(&carol.did, &carol.envelope(&words)));
    let pushed = listening.next().expect("an honest client's push");
    let took = begun.elapsed();
    assert_eq!(carol.words(&pushed), words);
    print_harm(
        "unread pushes",
        &format!(
            "{ACCOUNTS} accounts and addresses, {} sockets, 2 MiB to each socket's account",
            ACCOUNTS * EACH
        ),
        &format!(
            "{} more memory at most; an honest client's push took {took:?}",
            mib(grown)
        ),
    );
    assert!(grown < 500e6, "{grown}");
    // What waited for memory comes once there is some: every socket gets all four letters.
    let (mut last, rest) = (sockets.pop().expect("a socket"), sockets);
    drop(rest);
    let peer = &accounts[ACCOUNTS - 1];
    for n in 0..4 {
        let pushed = last.next_within(Duration::from_secs(30));
        assert_eq!(
            peer.words(&pushed.unwrap_or_else(|| panic!("letter {n}")))
                .len(),
            LONG
        );
    }
    eventually("the sockets end", || {
        (service.metric("atcomm_mediator_sockets", &[]) <= 2.0).then_some(())
    });
}
