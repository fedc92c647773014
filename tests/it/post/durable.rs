//! Acknowledged messages survive the end of the process, of a socket and of a client.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{MediatorEndpoint, Peer, Socket, mediator, open, post};
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
                        // Without a response the sender does not know whether it was accepted.
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
    const LETTERS: usize = 2000;
    let (service, home) = mediator(Network::multikey(), open);
    let peers: Vec<Peer> = (0..4).map(|_| Peer::new()).collect();
    peers.iter().for_each(|peer| peer.enter(&home));
    let envelopes = numbered(LETTERS)
        .iter()
        .zip(peers.iter().cycle())
        .map(|(words, peer)| home.forward(&peer.did, &peer.letter(words)))
        .collect();
    let taken = Arc::new(AtomicUsize::new(0));
    let sending = send_all(&home, envelopes, &taken);
    let mut service = Some(service);
    for at in [300, 900, 1500] {
        eventually("forwards are taken", || {
            (taken.load(Ordering::SeqCst) >= at).then_some(())
        });
        service = Some(service.take().expect("a service").kill().start());
    }
    let again = sending.join().expect("senders");
    assert!(again > 0, "no kill hit a forward");
    assert_eq!(taken.load(Ordering::SeqCst), LETTERS);
    let words = peers.iter().flat_map(|peer| {
        let letters = peer.empty(&home);
        letters.into_iter().map(|letter| peer.words(&letter))
    });
    assert_each_once(words.collect(), LETTERS);
}

#[test]
fn inv3_a_socket_that_is_cut_in_the_middle_of_a_push_loses_nothing() {
    const LETTERS: usize = 300;
    let (_service, home) = mediator(Network::multikey(), open);
    let bob = Peer::new();
    bob.enter(&home);
    let mut socket = Socket::live(&home, &bob);
    let envelopes = numbered(LETTERS)
        .iter()
        .map(|words| home.forward(&bob.did, &bob.letter(words)))
        .collect();
    let sending = send_all(&home, envelopes, &Arc::default());
    for _ in 0..40 {
        bob.words(&socket.next().expect("a letter"));
    }
    drop(socket);
    // A socket that never reads while messages come.
    let frozen = Socket::live(&home, &bob);
    sending.join().expect("senders");
    assert_eq!(bob.status(&home).message_count, LETTERS as u64);
    let words = bob.empty(&home);
    drop(frozen);
    assert_each_once(
        words.iter().map(|letter| bob.words(letter)).collect(),
        LETTERS,
    );
}

#[test]
fn two_sockets_of_one_recipient_both_get_everything() {
    const LETTERS: usize = 200;
    let (_service, home) = mediator(Network::multikey(), open);
    let bob = Peer::new();
    bob.enter(&home);
    let mut sockets = [(); 2].map(|()| Socket::live(&home, &bob));
    let frozen = Socket::live(&home, &bob);
    let envelopes = numbered(LETTERS)
        .iter()
        .map(|words| home.forward(&bob.did, &bob.letter(words)))
        .collect();
    let sending = send_all(&home, envelopes, &Arc::default());
    for socket in &mut sockets {
        let words = (0..LETTERS).map(|_| bob.words(&socket.next().expect("a letter")));
        assert_each_once(words.collect(), LETTERS);
    }
    sending.join().expect("senders");
    drop(frozen);
    // Messages stay queued until they are acknowledged, pushed or not.
    assert_eq!(bob.empty(&home).len(), LETTERS);
    for socket in &mut sockets {
        assert_eq!(socket.next_within(Duration::from_millis(300)), None);
    }
}

#[test]
fn inv10_what_was_acknowledged_does_not_come_back_after_a_kill() {
    let (service, home) = mediator(Network::multikey(), open);
    let bob = Peer::new();
    bob.enter(&home);
    for words in numbered(60) {
        home.take(&home.forward(&bob.did, &bob.letter(&words)));
    }
    let mut mail = bob.fetch(&home);
    let rest: BTreeSet<String> = mail.split_off(25).into_iter().map(|(id, _)| id).collect();
    let ids: Vec<String> = mail.into_iter().map(|(id, _)| id).collect();
    let ask = atcomm_proto::didcomm::protocol::pickup::Request::Received(ids);
    let ask = ask.write(super::pickup::Version::V3, super::id());
    let envelope = bob.seal(&home, ask);
    assert_eq!(home.post(&envelope).status, 202);
    let service = service.kill().start();
    let left: BTreeSet<String> = bob.fetch(&home).into_iter().map(|(id, _)| id).collect();
    assert_eq!(left, rest);
    // A recorded request cannot be replayed, not even after a restart.
    home.take(&home.forward(&bob.did, &bob.letter("later")));
    assert_eq!(home.post(&envelope).status, 202);
    assert_eq!(bob.status(&home).message_count, 36);
    let replays = service.metric("atcomm_mediator_messages_total", &[("outcome", "replay")]);
    assert_eq!(replays, 1.0);
}
