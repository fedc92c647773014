//! Relays, and streams that cannot continue at their cursor.

use serde_json::json;

use crate::frames::Firehose;
use crate::network::{Network, Pds, in_both_shapes};
use crate::proxy::Proxy;
use crate::service::{Service, Setup};

const GAPS: &str = "atcomm_ingest_gaps_total";

in_both_shapes! {
    fn a_relay_brings_the_accounts_of_many_hosts(network) {
        // The relay passes on the events of one PDS; proofs are fetched from the accounts' own
        // PDSes.
        let hose = Firehose::start(network, &json!(0));
        let source = json!({"url": hose.url, "kind": "relay"});
        let service = Setup::new(network).source(source).no_refresh_on_demand().start();
        service.until_following(1);
        let alice = network.enrolled("alice", 0, json!({}));
        let view = service.until(&alice.did, "the package", |view| view["handle"] == *alice.handle);
        assert_eq!(view["verification"]["source"], "relay");
        assert_eq!(view["pds"], *network.pds_url(0));
        let put = alice.put(json!({"label": "second"}));
        let view = service.until_cid(&alice.did, &put["cid"]);
        assert_eq!(view["verification"]["method"], "commit");
        alice.op("account.deactivate", json!({}));
        service.until_refused(&alice.did, "AccountInactive");
        alice.op("account.activate", json!({}));
        service.until_cid(&alice.did, &put["cid"]);
        alice.op("account.rotate", json!({}));
        let key = network.signing_key(&alice.did).did_key();
        service.until(&alice.did, "the new key", |view| view["verification"]["signingKey"] == *key);
        // After a broken connection the stream continues at the cursor.
        hose.cut();
        alice.delete_record();
        service.until_refused(&alice.did, "NotEnrolled");
        // Accounts without a package whose events report only their status leave no entry.
        let bob = network.account("bob", 0);
        let carol = network.enrolled("carol", 0, json!({}));
        service.until(&carol.did, "what comes behind", |_| true);
        let left = service.stop();
        assert_eq!(left.entry(&bob.did), None);
        let did = bob.did();
        assert_eq!(left.read(move |q| q.pending(&did)), None);
    }

    fn a_relay_is_enumerated_by_collection(network) {
        let alice = network.enrolled("alice", 0, json!({}));
        let bob = network.account("bob", 0);
        let relay = listing_relay(network, 0);
        let source = json!({"url": relay.url("http"), "kind": "relay", "stream": false});
        let service = Setup::new(network).source(source).no_refresh_on_demand().start();
        let view = service.until(&alice.did, "the package", |_| true);
        assert_eq!(view["verification"]["source"], "listing");
        assert_eq!(service.stop().entry(&bob.did), None);
    }
}

/// Starts a proxy that makes a PDS a relay: it answers for the collection by listing all accounts
/// of the PDS. A relay may list accounts whose record is deleted.
pub(crate) fn listing_relay(network: &Network, pds: Pds) -> Proxy {
    Proxy::new(&network.pds_url(pds), |bytes| {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let listing = text.replace("sync.listReposByCollection", "sync.listRepos");
        Some(listing.into_bytes())
    })
}

/// The source is replaced by a server with lower sequence numbers, which reports that the cursor
/// lies in its future. The service logs an error, continues with live events, and backfills the
/// accounts.
#[test]
fn a_cursor_in_the_future_is_an_alarm_and_leads_to_a_backfill() {
    let network = Network::own(&["--multikey"]);
    let long_ago = network.enrolled("longago", 1, json!({}));
    for name in ["one", "two", "three", "four"] {
        network.enrolled(name, 0, json!({}));
    }
    assert!(network.seq(0) > network.seq(1));
    let url = network.pds_url(0);
    let follow = |connect: String| {
        let source = json!({"url": url, "connect": connect, "kind": "relay"});
        Setup::new(network).source(source).no_refresh_on_demand()
    };
    let service = follow(network.pds_url(0)).start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    let listed = listing_relay(network, 1);
    let service = service.stop().start_as(follow(listed.url("http")));
    service.until_counted(GAPS, &[], 1.0);
    assert_error_logged(&service, "future");
    service.until(&long_ago.did, "what the backfill found", |_| true);
    service
        .recipient(&alice.did)
        .expect("what was known before");
    let bob = network.enrolled("bob", 1, json!({}));
    service.until(&bob.did, "what is live", |_| true);
    let put = bob.put(json!({"label": "second"}));
    service.until_cid(&bob.did, &put["cid"]);
}

/// A relay is followed from its live events. Before the first event there is no cursor to continue
/// from, so events during a broken connection are missed.
#[test]
fn a_stream_that_breaks_before_it_has_a_position_leads_to_a_backfill() {
    let network = Network::own(&["--multikey", "--pds", "1"]);
    let alice = network.enrolled("alice", 0, json!({}));
    let hose = Firehose::start(network, &json!(listing_relay(network, 0).url("http")));
    let source = json!({"url": hose.url, "kind": "relay"});
    let service = Setup::new(network)
        .source(source)
        .no_refresh_on_demand()
        .start();
    service.until_following(1);
    service.until(&alice.did, "what the first backfill found", |_| true);
    hose.cut();
    let bob = network.enrolled("bob", 0, json!({}));
    service.until(&bob.did, "the package", |_| true);
    service.until_counted(GAPS, &[], 1.0);
}

/// The source has discarded the events after the cursor, reports so, and continues with those that
/// it has.
#[test]
fn a_cursor_that_is_too_old_leads_to_a_backfill() {
    let forgetful = json!({"repoBackfillLimitMs": 1}).to_string();
    let network = Network::own(&["--multikey", "--pds", "1", "--pds-config", &forgetful]);
    let service = Setup::new(network)
        .pds(network, 0)
        .no_refresh_on_demand()
        .start();
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    let bob = network.enrolled("bob", 0, json!({}));
    for account in [&alice, &bob] {
        service.until(&account.did, "the package", |_| true);
    }
    let left = service.stop();
    let put = alice.put(json!({"label": "missed"}));
    bob.delete_record();
    let carol = network.enrolled("carol", 0, json!({}));
    let service = left.start();
    service.until_counted(GAPS, &[], 1.0);
    service.until_cid(&alice.did, &put["cid"]);
    service.until_refused(&bob.did, "NotEnrolled");
    let view = service.until(&carol.did, "the package", |_| true);
    assert_eq!(view["verification"]["source"], "listing");
}

fn assert_error_logged(service: &Service, word: &str) {
    let log = service.log();
    let alarmed = log
        .lines()
        .any(|line| line.contains("ERROR") && line.contains(word));
    assert!(alarmed, "{log}");
}
