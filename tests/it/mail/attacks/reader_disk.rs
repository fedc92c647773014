//! An unknown sender who fills the disk of a reader.

use std::time::Instant;

use atcomm_client::MessagingKey;
use atcomm_client::dm::Dm;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::did_peer::PeerDid;
use atcomm_proto::didcomm::envelope::{ContentEncryption, Curve, PublicKey, anoncrypt, authcrypt};
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::didcomm::protocol::Body as _;
use serde_json::json;

use super::print_harm;
use crate::client::enrolled::{enrolled_person, texts};
use crate::client::receive::{dm_of, forge, peer_of, post_envelope};
use crate::client::{MediatorService, Person};
use crate::network::Network;

/// Bytes of filler in each message of the flood.
const FILLER: usize = 3 << 19;

/// Direct messages of one key without an account, each with a header that nothing shows.
const LETTERS: usize = 52;

/// Anonymous messages of a type that nothing shows.
const JUNK: usize = 8;

/// Messages that are posted before the reader fetches: fewer than a queue holds.
const ROUND: usize = 15;

/// The room that the wallet gives to senders that nothing proves, in bytes, and what one process may
/// exceed it by.
const ROOM: u64 = (64 << 20) / 16 * 17;

fn plaintext(n: usize, kind: &str, from: Option<&MessagingKey>, to: &PeerDid) -> Vec<u8> {
    let mut message = json!({
        "id": fresh_id(),
        "type": kind,
        "to": [to.as_str()],
        "body": {"text": format!("flood {n}")},
        "filler": "x".repeat(FILLER),
    });
    if let Some(from) = from {
        message["from"] = json!(from.peer.as_str());
    }
    message.to_string().into_bytes()
}

/// Bytes of the wallet's files.
fn disk(person: &Person) -> u64 {
    let files = person.cli.files();
    let sizes = files.iter().filter_map(|(path, _)| path.metadata().ok());
    sizes.map(|meta| meta.len()).sum()
}

#[test]
fn inv7_a_flood_of_unknown_senders_fills_a_part_of_the_readers_disk_and_no_share_of_others() {
    let network = Network::multikey();
    let mediator = MediatorService::start_as(network, |setup| {
        // One address may fill the queue as many together may by default.
        setup
            .set("mediator.max_message", json!(8 << 20))
            .set("mediator.queue_bytes", json!(256 << 20))
    });
    let friend = enrolled_person(network, "xa", 0, &[&mediator]);
    let bob = enrolled_person(network, "xb", 1, &[&mediator]);
    let peer = peer_of(&bob);
    let post = |envelope: &[u8]| post_envelope(network, &mediator, peer.as_str(), envelope);
    // Another unknown sender with something to say, and a contact; both before the flood.
    let honest = MessagingKey::mint(Timestamp::from_millis(0));
    post(&forge(
        &honest,
        &bob,
        &dm_of("from an unknown sender", None, None),
    ));
    friend.send(&bob, "from a contact");
    assert_eq!(bob.receive(&[]).len(), 2);
    let before = disk(&bob);

    let key = &peer.key_agreement()[0];
    let to = PublicKey::new(key.id.as_str(), Curve::X25519, key.as_bytes()).expect("a key");
    let flooder = MessagingKey::mint(Timestamp::from_millis(0));
    let began = Instant::now();
    let (mut bytes, mut longest) = (0, 0);
    for n in 0..LETTERS + JUNK {
        let envelope = if n < LETTERS {
            let letter = plaintext(n, Dm::TYPE, Some(&flooder), &peer);
            authcrypt(&letter, &flooder.agreement, std::slice::from_ref(&to))
        } else {
            let junk = plaintext(n, "https://example.com/1.0/junk", None, &peer);
            anoncrypt(
                &junk,
                std::slice::from_ref(&to),
                ContentEncryption::A256CbcHs512,
            )
        };
        let envelope = envelope.expect("an envelope");
        bytes += envelope.len();
        post(&envelope);
        if (n + 1) % ROUND == 0 {
            // Receiving goes on whatever comes.
            bob.cli.run(&["receive"]).success();
            longest = longest.max(disk(&bob));
        }
    }
    friend.send(&bob, "after the flood");
    assert_eq!(texts(&bob.receive(&[])), ["after the flood"]);
    let grown = longest - before;
    let shown = bob.receive(&["--all"]);
    let shown: Vec<&str> = shown
        .iter()
        .filter_map(|one| one["text"].as_str())
        .collect();
    let others = [
        "from an unknown sender",
        "from a contact",
        "after the flood",
    ];
    let kept = others.iter().filter(|words| shown.contains(words)).count();
    print_harm(
        "an unknown sender fills the disk of a reader",
        &format!(
            "1 key without an account and anonymous mail, {} messages, {} MiB, {} s",
            LETTERS + JUNK,
            bytes >> 20,
            began.elapsed().as_secs(),
        ),
        &format!(
            "the wallet grew by {} MiB at most; {} of 3 messages of others are kept; receiving ended \
             0 times",
            grown >> 20,
            kept,
        ),
    );
    assert_eq!(kept, others.len(), "{shown:?}");
    assert!(grown <= ROOM, "{grown} bytes");
}
