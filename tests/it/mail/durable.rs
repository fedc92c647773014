//! Acknowledged messages survive the end of the process, of a socket and of a client.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{MediatorEndpoint, PeerClient, Socket, mediator, open, post};
use crate::http::{RUNTIME, eventually};
use crate::network::Network;

const SENDERS: usize = 64;

/// Sends every envelope by [`SENDERS`] tasks, each repeatedly until it is accepted. `taken` counts
/// the accepted ones.
fn send_all(
    to: &MediatorEndpoint,
    envelopes: Vec<Vec<u8>>,
    taken: &Arc<AtomicUsize>,
) -> JoinHandle<usize> {
    let next = Arc::new(AtomicUsize::new(0));
    let envelopes = Arc::new(envelopes);
    let (url, taken) = (to.url(), Arc::clone(taken));
    let sender = move || {
        let (next, envelopes) = (Arc::clone(&next), Arc::clone(&envelopes));
        let (url, taken) = (url.clone(), Arc::clone(&taken));
        async move {
            let mut again = 0;
            while let Some(envelope) = envelopes.get(next.fetch_add(1, Ordering::SeqCst)) {
                loop {
                    match post(url.clone(), envelope.clone()).await {
                        Ok(answer) => {
                            assert_eq!(answer.status, 202, "{}", answer.text());
                            break;
                        }
                        // Without a response the sender does not know whether the message was
                        // accepted.
                        Err(_) => {
                            again += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                taken.fetch_add(1, Ordering::SeqCst);
            }
            again
        }
    };
    std::thread::spawn(move || {
        RUNTIME.block_on(async {
            let tasks: Vec<_> = (0..SENDERS).map(|_| tokio::spawn(sender())).collect();
            let mut again = 0;
            for task in tasks {
                again += task.await.expect("a sender");
            }
            again
        })
    })
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("letter {n:05}")).collect()
}

#[track_caller]
fn assert_each_once(mut words: Vec<String>, count: usize) {
    words.sort();
    let different: BTreeSet<_> = words.iter().collect();
    assert_eq!(different.len(), words.len(), "some came twice");
    assert_eq!(words, numbered(count));
}

#[test]
fn inv3_inv10_kills_under_2000_forwards_lose_nothing_and_double_nothing() {
    const MESSAGES: usize = 2000;
    let (service, endpoint) = mediator(Network::multikey(), open);
    let peers: Vec<PeerClient> = (0..4).map(|_| PeerClient::new()).collect();
    peers.iter().for_each(|peer| peer.enter(&endpoint));
    let envelopes = numbered(MESSAGES)
        .iter()
        .zip(peers.iter().cycle())
        .map(|(words, peer)| endpoint.forward(&peer.did, &peer.envelope(words)))
        .collect();
    let taken = Arc::new(AtomicUsize::new(0));
    let sending = send_all(&endpoint, envelopes, &taken);
    let mut service = Some(service);
    for at in [300, 900, 1500] {
        eventually("forwards are taken", || {
            (taken.load(Ordering::SeqCst) >= at).then_some(())
        });
        service = Some(service.take().expect("a service").kill().start());
    }
    let again = sending.join().expect("senders");
    assert!(again > 0, "no kill hit a forward");
    assert_eq!(taken.load(Ordering::SeqCst), MESSAGES);
    let words = peers.iter().flat_map(|peer| {
        let envelopes = peer.empty(&endpoint);
        envelopes.into_iter().map(|envelope| peer.words(&envelope))
    });
    assert_each_once(words.collect(), MESSAGES);
}

#[test]
fn inv3_a_socket_that_is_cut_in_the_middle_of_a_push_loses_nothing() {
    const MESSAGES: usize = 300;
    let (_service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let mut socket = Socket::live(&endpoint, &bob);
    let envelopes = numbered(MESSAGES)
        .iter()
        .map(|words| endpoint.forward(&bob.did, &bob.envelope(words)))
        .collect();
    let sending = send_all(&endpoint, envelopes, &Arc::default());
    for _ in 0..40 {
        bob.words(&socket.next().expect("a letter"));
    }
    drop(socket);
    // A socket that never reads while messages come.
    let frozen = Socket::live(&endpoint, &bob);
    sending.join().expect("senders");
    assert_eq!(bob.status(&endpoint).message_count, MESSAGES as u64);
    let words = bob.empty(&endpoint);
    drop(frozen);
    assert_each_once(
        words.iter().map(|envelope| bob.words(envelope)).collect(),
        MESSAGES,
    );
}

#[test]
fn two_sockets_of_one_recipient_both_get_everything() {
    const MESSAGES: usize = 200;
    let (_service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let mut sockets = [(); 2].map(|()| Socket::live(&endpoint, &bob));
    let frozen = Socket::live(&endpoint, &bob);
    let envelopes = numbered(MESSAGES)
        .iter()
        .map(|words| endpoint.forward(&bob.did, &bob.envelope(words)))
        .collect();
    let sending = send_all(&endpoint, envelopes, &Arc::default());
    for socket in &mut sockets {
        let words = (0..MESSAGES).map(|_| bob.words(&socket.next().expect("a letter")));
        assert_each_once(words.collect(), MESSAGES);
    }
    sending.join().expect("senders");
    drop(frozen);
    // Messages stay queued until they are acknowledged, pushed or not.
    assert_eq!(bob.empty(&endpoint).len(), MESSAGES);
    for socket in &mut sockets {
        assert_eq!(socket.next_within(Duration::from_millis(300)), None);
    }
}

#[test]
fn inv10_what_was_acknowledged_does_not_come_back_after_a_kill() {
    let (service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    for words in numbered(60) {
        endpoint.take(&endpoint.forward(&bob.did, &bob.envelope(&words)));
    }
    let mut mail = bob.fetch(&endpoint);
    let rest: BTreeSet<String> = mail.split_off(25).into_iter().map(|(id, _)| id).collect();
    let ids: Vec<String> = mail.into_iter().map(|(id, _)| id).collect();
    let ask = atcomm_proto::didcomm::protocol::pickup::Request::Received(ids);
    let ask = ask.write(super::pickup::Version::V3, super::id());
    let envelope = bob.seal(&endpoint, ask);
    assert_eq!(endpoint.post(&envelope).status, 202);
    let service = service.kill().start();
    let left: BTreeSet<String> = bob.fetch(&endpoint).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, rest);
    // A recorded request cannot be replayed, not even after a restart.
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("later")));
    assert_eq!(endpoint.post(&envelope).status, 202);
    assert_eq!(bob.status(&endpoint).message_count, 36);
    let replays = service.metric("atcomm_mediator_messages_total", &[("outcome", "replay")]);
    assert_eq!(replays, 1.0);
}
