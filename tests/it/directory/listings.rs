//! Lists of accounts as other servers write them, and servers that refuse them for a while.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::print_harm;
use crate::frames::Firehose;
use crate::http::{RUNTIME, eventually};
use crate::network::{Account, Network};
use crate::service::{Service, Setup};

const STATE: &str = "atcomm_ingest_backfill_state";

/// Returns status and body of a page, given the cursor and the number of requests before.
type Rule = dyn Fn(Option<&str>, usize) -> (u16, String) + Send + Sync;

/// A server that lists accounts as a rule says, and remembers the cursors that it was asked for.
struct Lister {
    port: u16,
    asked: Arc<Mutex<Vec<Option<String>>>>,
    /// Requests for a stream, which the server does not have.
    streams: Arc<AtomicUsize>,
}

impl Lister {
    /// Starts a server.
    fn start(rule: impl Fn(Option<&str>, usize) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = RUNTIME
            .block_on(TcpListener::bind("127.0.0.1:0"))
            .expect("a port");
        let port = listener.local_addr().expect("a port").port();
        let asked: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let rule = Arc::new(rule);
        let all = Arc::clone(&asked);
        let streams: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&streams);
        RUNTIME.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (rule, all) = (Arc::clone(&rule), Arc::clone(&all));
                let counted = Arc::clone(&counted);
                tokio::spawn(async move { answer(client, &*rule, &all, &counted).await });
            }
        });
        Self {
            port,
            asked,
            streams,
        }
    }

    fn url(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    fn asked(&self) -> Vec<Option<String>> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn answer(
    mut client: TcpStream,
    rule: &Rule,
    asked: &Mutex<Vec<Option<String>>>,
    streams: &AtomicUsize,
) {
    let mut head = vec![0; 16 * 1024];
    let mut len = 0;
    while !head[..len].windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        match client.read(&mut head[len..]).await {
            Ok(read @ 1..) => len += read,
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head[..len]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (status, body) = if path.starts_with("/xrpc/com.atproto.sync.list") {
        let cursor = path
            .split_once("cursor=")
            .map(|(_, cursor)| cursor.to_owned());
        let before = {
            let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
            asked.push(cursor.clone());
            asked.len() - 1
        };
        rule(cursor.as_deref(), before)
    } else {
        streams.fetch_add(1, Ordering::Relaxed);
        (404, "{\"error\":\"Not Found\"}".to_owned())
    };
    let answer = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    drop(client.write_all(answer.as_bytes()).await);
    drop(client.shutdown().await);
}

/// Returns a page of these accounts.
fn page(dids: &[&str], cursor: Option<&str>) -> String {
    let repos: Vec<_> = dids.iter().map(|did| json!({"did": did})).collect();
    json!({"repos": repos, "cursor": cursor}).to_string()
}

/// Returns the settings of a service that only lists.
fn listing(network: &Network, listers: &[&Lister]) -> Setup {
    let mut setup = Setup::new(network).no_refresh_on_demand();
    for lister in listers {
        setup = setup.source(json!({"url": lister.url(), "kind": "relay", "stream": false}));
    }
    setup
}

fn found(service: &Service, account: &Account) {
    let view = service.until(&account.did, "what the list brings", |_| true);
    assert_eq!(view["verification"]["source"], "listing");
}

/// The refusal is the first answer of the source, which has no stream.
#[test]
fn a_list_that_is_refused_once_is_asked_for_again() {
    let network = Network::multikey();
    let began = Instant::now();
    let refused = [400, 401, 404, 501].map(|status| {
        let account = network.enrolled("listed", 0, json!({}));
        let did = account.did.clone();
        let lister = Lister::start(move |_, before| match before {
            0 => (status, "{\"error\":\"Not Found\"}".to_owned()),
            _ => (200, page(&[&did], None)),
        });
        (status, account, lister)
    });
    let listers: Vec<&Lister> = refused.iter().map(|(_, _, lister)| lister).collect();
    let service = listing(network, &listers).start();
    for (status, account, lister) in &refused {
        found(&service, account);
        print_harm(
            "a list that is refused once",
            &format!("one answer with HTTP {status}"),
            &format!(
                "found after {:.1} s, asked {} times",
                began.elapsed().as_secs_f64(),
                lister.asked().len()
            ),
        );
    }
    service.until_counted(STATE, &[("state", "complete")], 4.0);
    let done = "atcomm_ingest_backfill_complete_timestamp_seconds";
    assert!(
        service.metric(done, &[]) > 4.0e9,
        "{}",
        service.metrics_page()
    );
    assert!(
        service.log().contains("this source brings nothing"),
        "{}",
        service.log()
    );
}

/// After a restart the source no longer knows the cursor that it gave before.
#[test]
fn a_cursor_that_the_source_refuses_leads_back_to_the_first_page() {
    let network = Network::multikey();
    let [alice, bob] = [(); 2].map(|()| network.enrolled("listed", 0, json!({})));
    let dids = [alice.did.clone(), bob.did.clone()];
    let first = dids[0].clone();
    let stuck = Lister::start(move |cursor, _| match cursor {
        None => (200, page(&[&first], Some("old"))),
        Some(_) => (503, String::new()),
    });
    let service = listing(network, &[&stuck]).start();
    found(&service, &alice);
    service.until_counted(STATE, &[("state", "failed")], 1.0);
    let left = service.stop();
    let name = format!("relay {}", stuck.url());
    let asked = name.clone();
    let row = left.read(move |q| q.backfill(&asked)).expect("a state");
    assert_eq!(row.position.as_deref(), Some("old"));
    // The same source, moved to a server that has other cursors.
    let moved = Lister::start(move |cursor, _| match cursor {
        None => (200, page(&[&dids[0]], Some("new"))),
        Some("new") => (200, page(&[&dids[1]], None)),
        Some(_) => (400, "{\"error\":\"InvalidRequest\"}".to_owned()),
    });
    let began = Instant::now();
    let source = json!({
        "url": stuck.url(), "connect": moved.url(), "kind": "relay", "stream": false,
    });
    let setup = Setup::new(network).source(source).no_refresh_on_demand();
    let service = left.start_as(setup);
    found(&service, &bob);
    print_harm(
        "a cursor that the source no longer knows",
        "one answer with HTTP 400",
        &format!("found after {:.1} s", began.elapsed().as_secs_f64()),
    );
    service.until_counted(STATE, &[("state", "complete")], 1.0);
    let row = service.stop().read(move |q| q.backfill(&name));
    assert!(row.is_some_and(|row| row.done_at.is_some()));
}

#[test]
fn odd_pages_cost_their_odd_entries() {
    let network = Network::multikey();
    let [alice, bob] = [(); 2].map(|()| network.enrolled("listed", 0, json!({})));
    let (first, second) = (alice.did.clone(), bob.did.clone());
    let lister = Lister::start(move |cursor, _| {
        let body = match cursor {
            None => "{\"repos\":null,\"cursor\":5}".to_owned(),
            Some("5") => json!({"cursor": "a", "repos": [
                {}, null, 7, "x", [], {"did": null}, {"did": 7}, {"did": "no"},
                {"did": first, "active": "yes", "head": 1, "rev": null},
            ]})
            .to_string(),
            Some("a") => "{\"cursor\":\"b\"}".to_owned(),
            _ => page(&[&second], None),
        };
        (200, body)
    });
    let service = listing(network, &[&lister]).start();
    found(&service, &alice);
    found(&service, &bob);
    service.until_counted(STATE, &[("state", "complete")], 1.0);
    let drops = service.metric("atcomm_ingest_drops_total", &[("reason", "listing_entry")]);
    assert_eq!(drops, 8.0);
    assert_eq!(lister.asked().len(), 4);
}

#[test]
fn inv7_a_list_that_runs_in_a_circle_is_given_up() {
    let network = Network::multikey();
    let alice = network.enrolled("listed", 0, json!({}));
    let did = alice.did.clone();
    let circle = Lister::start(move |cursor, _| {
        let next = match cursor {
            None | Some("3") => "1",
            Some("1") => "2",
            _ => "3",
        };
        (200, page(&[&did], Some(next)))
    });
    let did = alice.did.clone();
    let standing = Lister::start(move |_, _| (200, page(&[&did], Some("1"))));
    let service = listing(network, &[&circle, &standing]).start();
    found(&service, &alice);
    service.until_counted(STATE, &[("state", "failed")], 2.0);
    let pages = [circle.asked().len(), standing.asked().len()];
    print_harm(
        "lists that do not end",
        "a circle of three cursors, and one cursor that stands",
        &format!("given up after {pages:?} pages, and tried again in an hour"),
    );
    assert!(pages.iter().all(|pages| *pages < 12), "{pages:?}");
}

/// A relay's own program does not list by collection. A server beside it does.
#[test]
fn stream_and_list_of_one_source_may_have_different_addresses() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let [alice, bob] = [(); 2].map(|()| network.enrolled("listed", 0, json!({})));
    let hose = Firehose::start(network, &json!(0));
    let dids = [alice.did.clone(), bob.did.clone()];
    let [one, two] = dids.map(|did| Lister::start(move |_, _| (200, page(&[&did], None))));
    let made = network.op("jetstream.start", json!({"history": false}));
    let setup = Setup::new(network)
        .source(json!({"url": hose.url, "kind": "relay", "list": one.url()}))
        .source(json!({"url": made["url"], "kind": "jetstream", "list": two.url()}))
        .no_refresh_on_demand();
    let service = setup.start();
    service.until_following(2);
    found(&service, &alice);
    found(&service, &bob);
    let carol = network.enrolled("carol", 0, json!({}));
    let view = service.until(&carol.did, "what the stream brings", |_| true);
    assert_ne!(view["verification"]["source"], "listing");
    eventually("both lists are read", || {
        let both = !one.asked().is_empty() && !two.asked().is_empty();
        both.then_some(())
    });
    let log = service.log();
    let sources: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" source "))
        .collect();
    assert!(
        [&one, &two]
            .iter()
            .all(|lister| sources.iter().any(|line| line.contains(&lister.url()))),
        "{log}"
    );
}

/// The kind of the source is wrong, so that its stream is never found.
#[test]
fn the_log_says_what_to_change_and_not_at_each_attempt() {
    let network = Network::multikey();
    let lister = Lister::start(|_, _| (404, String::new()));
    let source = json!({"url": lister.url(), "kind": "relay"});
    let service = Setup::new(network)
        .source(source)
        .no_refresh_on_demand()
        .start();
    eventually("some attempts", || {
        (lister.streams.load(Ordering::Relaxed) >= 4).then_some(())
    });
    let log = service.log();
    let hint = "the host answered 404 to a stream of kind relay: is it a jetstream?";
    let lines: Vec<&str> = log.lines().filter(|line| line.contains(hint)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(&lister.url()), "{log}");
    assert!(!log.contains("walk=true"), "{log}");
}
