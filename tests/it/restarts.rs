//! Accounts from before the start of the service, events while it was down, and work that a kill
//! interrupted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use atcomm::store::{ChangeKind, PackageState};
use serde_json::{Value, json};

use crate::http::eventually;
use crate::network::{Account, Network, in_both_shapes};
use crate::proxy::Proxy;
use crate::service::{Setup, Stopped};

in_both_shapes! {
    fn accounts_enrolled_before_the_first_start_are_found_by_the_backfill(network) {
        let accounts = [0, 1].map(|pds| network.enrolled("before", pds, json!({})));
        let erin = network.arroba_account();
        erin.put(json!({"label": "arroba"}));
        // Without a stream only the backfill can find the accounts.
        let listed = |url: &str| json!({"url": url, "kind": "pds", "stream": false});
        let setup = Setup::new(network)
            .source(listed(&network.pds_url(0)))
            .source(listed(&network.pds_url(1)))
            .source(listed(network.arroba_url()));
        let service = setup.no_refresh_on_demand().start();
        for (did, handle) in accounts
            .iter()
            .map(|account| (&account.did, &account.handle))
            .chain([(&erin.did, &erin.handle)])
        {
            let view = service.until(did, "the package with its handle", |view| {
                view["handle"] == **handle
            });
            assert_eq!(view["verification"]["source"], "listing");
            assert_eq!(view["verification"]["method"], "getRecord");
        }
    }

    fn inv2_what_happened_while_the_service_was_down_comes_by_the_cursor(network) {
        let source = json!({"url": network.pds_url(0), "kind": "pds", "walk": false});
        let setup = Setup::new(network)
            .source(source)
            .no_refresh_on_demand()
            .set("net.contact", json!("cursor.example"));
        let service = setup.start();
        let [alice, bob, carol] =
            ["alice", "bob", "carol"].map(|name| network.enrolled(name, 0, json!({})));
        for account in [&alice, &bob, &carol] {
            service.until(&account.did, "the package", |_| true);
        }
        let left = service.stop();
        let stored = cursor(&left, &network.pds_url(0));
        assert!(stored <= network.seq(0));
        let updated = alice.put(json!({"label": "while it was down"}));
        bob.delete_record();
        carol.op("account.deactivate", json!({}));
        let dave = network.enrolled("dave", 0, json!({}));
        let service = left.start();
        service.until_cid(&alice.did, &updated["cid"]);
        service.until_refused(&bob.did, "NotEnrolled");
        service.until_refused(&carol.did, "AccountInactive");
        let view = service.until(&dave.did, "the package", |_| true);
        assert_eq!(view["verification"]["source"], "pds");
        // The service asked for the event at its cursor, not for all from the beginning.
        let path = "/xrpc/com.atproto.sync.subscribeRepos";
        let asked = network.op(
            "pds.requests",
            json!({"pds": 0, "agent": "cursor.example", "path": path, "log": true}),
        );
        let url = asked["log"][1]["url"].to_string();
        assert!(url.contains(&format!("cursor={}", stored - 1)), "{asked}");
    }
}

/// Returns the cursor of the stream of a PDS.
fn cursor(left: &Stopped, url: &str) -> i64 {
    let source = format!("pds {url}");
    let cursor = left.read(move |q| q.cursor(&source));
    cursor.expect("a cursor").position
}

/// A kill interrupts a backfill of many small pages, as a server may serve them: it continues at
/// its cursor.
#[test]
fn inv10_a_backfill_continues_after_a_kill_where_it_was() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let accounts: Vec<Account> = (0..30)
        .map(|_| network.enrolled("listed", 0, json!({})))
        .collect();
    let pages = Arc::new(AtomicUsize::new(0));
    let open = Arc::new(AtomicBool::new(false));
    let proxy = {
        let (pages, open) = (Arc::clone(&pages), Arc::clone(&open));
        Proxy::new(&network.pds_url(0), move |bytes| {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if !text.contains("sync.listRepos") {
                return Some(bytes);
            }
            if pages.fetch_add(1, Ordering::SeqCst) >= 3 && !open.load(Ordering::SeqCst) {
                return None;
            }
            Some(text.replace("limit=500", "limit=4").into_bytes())
        })
    };
    let setup = Setup::new(network)
        .source(json!({
            "url": network.pds_url(0), "connect": proxy.url("http"), "kind": "pds", "stream": false,
        }))
        .no_refresh_on_demand();
    let service = setup.start();
    eventually("the fourth page is asked for", || {
        (pages.load(Ordering::SeqCst) >= 4).then_some(())
    });
    let left = service.kill();
    let name = format!("pds {}", network.pds_url(0));
    let backfill = left.read(move |q| q.backfill(&name)).expect("a backfill");
    assert_eq!((backfill.seen, backfill.done_at), (12, None));
    open.store(true, Ordering::SeqCst);
    let service = left.start();
    for account in &accounts {
        let view = service.until(&account.did, "the package", |_| true);
        assert_eq!(view["keyPackage"]["value"], account.made["keyPackage"]);
    }
    let left = service.stop();
    let name = format!("pds {}", network.pds_url(0));
    let backfill = left.read(move |q| q.backfill(&name)).expect("a backfill");
    assert!(
        backfill.seen == 30 && backfill.done_at.is_some(),
        "{backfill:?}"
    );
    // A finished backfill is not repeated at every restart.
    let before = pages.load(Ordering::SeqCst);
    let service = left.start();
    service.until(&accounts[0].did, "the package", |_| true);
    let later = network.enrolled("later", 0, json!({}));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(pages.load(Ordering::SeqCst), before);
    assert!(service.recipient(&later.did).is_err());
}

/// A kill may come at any time between a page, the refreshes that it triggered and their end.
#[test]
fn inv10_refreshes_of_a_backfill_are_made_after_a_kill() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let accounts: Vec<Account> = (0..10)
        .map(|_| network.enrolled("pending", 0, json!({})))
        .collect();
    network.op(
        "pds.hang",
        json!({"pds": 0, "path": "/xrpc/com.atproto.sync.getRecord"}),
    );
    let source = json!({"url": network.pds_url(0), "kind": "pds", "stream": false});
    let setup = Setup::new(network)
        .source(source)
        .no_refresh_on_demand()
        .set("net.contact", json!("pending.example"));
    let service = setup.start();
    eventually("refreshes are running", || {
        let asked = network.op(
            "pds.requests",
            json!({"pds": 0, "agent": "pending.example", "path": "/xrpc/com.atproto.sync.getRecord"}),
        );
        (asked["total"].as_u64()? >= 10).then_some(())
    });
    let left = service.kill();
    assert_eq!(left.read(|q| q.pending_count()), 10);
    network.op("pds.hang", json!({"pds": 0, "on": false}));
    let service = left.start();
    for account in &accounts {
        service.until(&account.did, "the package", |_| true);
    }
    let left = service.stop();
    assert_eq!(left.read(|q| q.pending_count()), 0);
}

/// 200 writes on both PDSes while the service is killed twice: at the end every account shows its
/// last package, and the change log has the writes in order and none of them twice.
#[test]
fn inv10_kills_in_the_middle_of_a_stream_lose_nothing_and_repeat_nothing() {
    const ACCOUNTS: usize = 8;
    const WRITES: usize = 25;
    let network = Network::multikey();
    let accounts: Vec<Account> = (0..ACCOUNTS)
        .map(|n| network.enrolled("stream", n % 2, json!({})))
        .collect();
    let setup = Setup::beside(network).no_refresh_on_demand();
    let mut service = Some(setup.start());
    let done = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..2)
        .map(|half| {
            let mine: Vec<_> = accounts
                .iter()
                .filter(|a| a.made["pds"] == half)
                .cloned()
                .collect();
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                let mut written = vec![Vec::new(); mine.len()];
                for write in 0..WRITES {
                    for (account, cids) in mine.iter().zip(&mut written) {
                        let put = account.put(json!({"label": format!("write {write}")}));
                        cids.push(put["cid"].clone());
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                }
                mine.into_iter().zip(written).collect::<Vec<_>>()
            })
        })
        .collect();
    for at in [60, 130] {
        eventually("writes go on", || {
            (done.load(Ordering::SeqCst) >= at).then_some(())
        });
        let left = service.take().expect("a service").kill();
        service = Some(left.start());
    }
    let service = service.expect("a service");
    let written: Vec<(Account, Vec<Value>)> = writers
        .into_iter()
        .flat_map(|writer| writer.join().expect("writes"))
        .collect();
    assert_eq!(done.load(Ordering::SeqCst), ACCOUNTS * WRITES);
    for (account, cids) in &written {
        service.until_cid(&account.did, cids.last().expect("writes"));
    }
    let left = service.stop();
    for (account, cids) in &written {
        let entry = left.entry(&account.did).expect("an entry");
        assert_eq!(entry.state, PackageState::Present);
        assert_eq!(
            json!(entry.cid.expect("a CID").to_string()),
            *cids.last().expect("writes")
        );
        // Events that came together lead to one refresh, so the change log may skip some; the first
        // package is from before.
        let places: Vec<_> = left
            .changes(&account.did)
            .iter()
            .filter(|change| change.kind == ChangeKind::Package)
            .map(|change| json!(change.cid.expect("a CID").to_string()))
            .map(|cid| cids.iter().position(|written| *written == cid))
            .skip_while(Option::is_none)
            .collect();
        assert!(places.iter().all(Option::is_some), "{places:?}");
        assert!(places.is_sorted_by(|a, b| a < b), "{places:?}");
        assert_eq!(places.last(), Some(&Some(WRITES - 1)));
    }
}
