//! Requests of accounts whose right to read has ended, and requests of long ago.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atcomm::store::{Claim, ClaimState, MailboxStore};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::coordination::{self, Action, Update};
use atcomm_proto::syntax::Did;
use serde_json::json;

use super::super::{MediatorEndpoint, PeerClient, Report, id, mediator, open};
use super::print_harm;
use crate::http::RUNTIME;
use crate::network::Network;

#[test]
fn who_may_not_read_any_more_reads_nothing_with_a_new_request() {
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| setup);
    let bob = PeerClient::new();
    let package = json!({"did": bob.did, "mediators": [endpoint.did]});
    let account = network.enrolled("bob", 0, package);
    service.refresh(&account.did).expect("the package");
    assert!(bob.request(&endpoint, Some(&account.did)));
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("too old")));
    let waiting = bob.fetch(&endpoint);
    assert_eq!(waiting.len(), 1);
    account.delete_record();
    service.refresh(&account.did).expect("an absence");
    let stopped = service.stop();
    // The record was removed fifteen days ago.
    let (path, peer) = (stopped.data_dir().join("mailbox.db"), bob.did.clone());
    let claim = Claim {
        account: Did::parse(&account.did).expect("a DID"),
        peer,
        state: ClaimState::Dropped,
        since: seconds_from_now(-15 * 24 * 3600),
    };
    RUNTIME.block_on(async move {
        let store = MailboxStore::open(&path).expect("the mailbox");
        let put = store.transact(move |tx| tx.put_claim(&claim));
        put.await.expect("a write");
        store.shutdown().await;
    });
    let service = stopped.start();
    // A grant without a record stands for a quarter of an hour.
    assert!(bob.request(&endpoint, None));
    let (counted, handed_out) = (bob.status(&endpoint).message_count, bob.fetch(&endpoint));
    let ids: Vec<String> = waiting.into_iter().map(|(id, _)| id).collect();
    bob.acknowledge(&endpoint, ids);
    print_harm(
        "asking for mediation again after the right to read has ended",
        "1 request",
        &format!("{counted} counted, {} handed out", handed_out.len()),
    );
    assert_eq!((counted, handed_out.len()), (0, 0));
    // A record that names the mediator again brings the right back, and nothing was deleted.
    account.put(json!({"did": bob.did, "mediators": [endpoint.did]}));
    service.refresh(&account.did).expect("the package");
    assert!(bob.request(&endpoint, Some(&account.did)));
    assert_eq!(bob.collect(&endpoint, 1), ["too old"]);
}

fn seconds_from_now(seconds: i64) -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or(Duration::ZERO).as_secs();
    let now = i64::try_from(now).expect("a time");
    Timestamp::from_millis((now + seconds) * 1000)
}

/// Removes the client's DID from its account. Returns the code of a refusal.
fn remove(peer: &PeerClient, endpoint: &MediatorEndpoint, created: Option<i64>) -> Option<String> {
    let update = coordination::Request::Update(vec![Update {
        recipient_did: peer.did.clone(),
        action: Action::Remove,
    }]);
    let mut message: Message = update.write(coordination::Version::V3, id());
    message.created_time = created;
    let answer = peer.ask(endpoint, message);
    if answer.kind.ends_with("/problem-report") {
        return Some(answer.body_of::<Report>().expect("a report").code);
    }
    None
}

/// What was recorded can be sent again once its id is forgotten, after a day.
#[test]
fn changes_that_could_be_repeated_later_are_refused() {
    let (_service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let now = seconds_from_now(0).millis() / 1000;
    let expired = || Some("e.p.req.time".to_owned());
    // A sender that never dates anything is heard.
    assert_eq!(remove(&bob, &endpoint, None), None);
    let year = 365 * 24 * 3600;
    let far = [now + year, now - year, now + 13 * 3600, now - 13 * 3600];
    let refused = far.map(|at| remove(&bob, &endpoint, Some(at)));
    assert_eq!(remove(&bob, &endpoint, Some(now)), None);
    let undated = remove(&bob, &endpoint, None);
    print_harm(
        "changes from the far future, and undated ones of a sender that dates its changes",
        "5 requests",
        &format!("refused: {refused:?} and {undated:?}"),
    );
    assert_eq!(refused, far.map(|_| expired()));
    assert_eq!(undated, expired());
    assert_eq!(remove(&bob, &endpoint, Some(now * 1000)), None);
}
