//! `atcomm receive` with messages made to stop it, to imitate others, or to be lost.

use std::process::Stdio;

use atcomm_client::dm::Dm;
use atcomm_client::wrap::{seal, wrap};
use atcomm_client::{AccountStore, GivenUp, MessagingKey, SentMessage, Wallet, document};
use atcomm_net::identity::Freshness;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::did_peer::PeerDid;
use atcomm_proto::didcomm::envelope::{Curve, PublicKey, authcrypt};
use atcomm_proto::didcomm::message::fresh_id;
use atcomm_proto::didcomm::protocol::Body as _;
use atcomm_proto::syntax::MediatorDid;
use atcomm_proto::syntax::RemoteText;

use super::enrolled::{enrolled_person, library_context, texts};
use super::{MediatorService, Person, Running};
use crate::http::{RUNTIME, request};
use crate::network::{Network, text};

fn peer_of(person: &Person) -> PeerDid {
    let record = person.record().expect("a record");
    PeerDid::parse(text(&record, "/did")).expect("a did:peer")
}

fn store_of(person: &Person) -> AccountStore {
    let wallet = Wallet::open(&person.cli.wallet()).expect("a wallet");
    wallet.account_store(&person.account.did())
}

/// Posts an envelope for `to` to the mediator.
#[track_caller]
fn post_envelope(
    network: &'static Network,
    mediator: &MediatorService,
    to: &PeerDid,
    envelope: &[u8],
) {
    let context = library_context(network);
    let did = MediatorDid::parse(&mediator.did).expect("a DID");
    let document = RUNTIME.block_on(document(&context.identity, &did, Freshness::Cached));
    let document = document.expect("a document");
    let key = MessagingKey::mint(Timestamp::from_millis(0));
    let now = context.clock.now().millis() / 1000;
    let to = to.as_str();
    let wrapped = wrap(envelope, to, &document, &document, &key, now, &|_| None).expect("a route");
    let wrapped = wrapped.done().expect("no other mediator on the way");
    let answer = request("POST", wrapped.url.as_str(), &[], Some(wrapped.body));
    assert_eq!(answer.status, 202, "{}", answer.text());
}

fn dm_of(words: &str) -> Dm {
    Dm {
        text: words.to_owned(),
        sender_did: None,
        recipient_did: None,
        facets: Vec::new(),
        embed: None,
    }
}

#[test]
fn no_message_stops_those_after_it() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let bob = enrolled_person(network, "kb", 1, &[&mediator]);
    let (peer, unknown_key) = (peer_of(&bob), MessagingKey::mint(Timestamp::from_millis(0)));
    let agreement = &peer.key_agreement()[0];
    let to = PublicKey::new(agreement.id.as_str(), Curve::X25519, agreement.as_bytes());
    let to = [to.expect("a key")];
    let deep =
        |depth: usize, inner: &str| format!("{}{inner}{}", "[".repeat(depth), "]".repeat(depth));
    let many = vec!["[]"; 60_000].join(",");
    let chosen = [
        deep(120, &many),
        deep(126, ""),
        deep(5000, ""),
        "1e999".to_owned(),
    ];
    for (n, header) in chosen.iter().enumerate() {
        let plaintext = format!(
            r#"{{"id":"{}","type":"{}","from":"{}","to":["{}"],"body":{{"text":"{n}"}},"x":{header}}}"#,
            fresh_id(),
            Dm::TYPE,
            unknown_key.peer.as_str(),
            peer.as_str(),
        );
        let envelope = authcrypt(plaintext.as_bytes(), &unknown_key.agreement, &to);
        post_envelope(network, &mediator, &peer, &envelope.expect("an envelope"));
    }
    let last = dm_of("last").message(fresh_id(), unknown_key.peer.as_str(), peer.as_str(), 0);
    let last = seal(last, &unknown_key, &peer).expect("an envelope");
    post_envelope(network, &mediator, &peer, &last);
    let wanted = ["0", "1", "2", "3", "last"];
    assert_eq!(texts(&bob.receive(&[])), wanted);
    assert!(bob.receive(&[]).is_empty(), "all was acknowledged");
    assert_eq!(texts(&bob.receive(&["--all"])), wanted);
    // A file that is damaged later is skipped and reported.
    let files = bob.cli.files();
    let of = |words: &str| {
        let mut found = files.iter().filter(|(path, _)| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            path.to_string_lossy().contains("/mail/") && text.contains(words)
        });
        found.next().expect("a file").0.clone()
    };
    std::fs::write(of("1e999"), "{").expect("written");
    let output = bob.cli.run(&["receive", "--all", "--json"]).success();
    assert!(
        output.stderr.contains("warning: left out: ") && output.stderr.contains("is damaged"),
        "{output:?}"
    );
    assert_eq!(
        super::enrolled::lines(&output.stdout).len(),
        wanted.len() - 1
    );
}

#[test]
fn what_was_given_up_is_reported_until_it_has_been_read() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let bob = enrolled_person(network, "kg", 1, &[&mediator]);
    let sent = SentMessage {
        id: "m1".to_owned(),
        account: bob.account.did(),
        handle: None,
        peer: peer_of(&bob).as_str().to_owned(),
        from: peer_of(&bob).as_str().to_owned(),
        envelope: "{}".to_owned(),
        mediators: Vec::new(),
        attempts: Vec::new(),
        at: Timestamp::from_millis(0),
        given_up: Some(GivenUp {
            words: RemoteText::new("nobody took it"),
            failed: vec![RemoteText::new("a: it is away")],
        }),
    };
    store_of(&bob).save_sent(&sent.id, &sent).expect("kept");
    // The reading end of the pipe is closed, so that the report cannot be printed.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = bob.cli.command(&["receive"]);
    command.stdout(Stdio::from(writer));
    let output = Running::start(command).end();
    assert_eq!(output.code, Some(0), "{output:?}");
    let output = bob.cli.run(&["receive"]).success();
    let words = ": nobody took it\n* it was not delivered: a: it is away; send it again";
    assert!(output.stdout.contains(words), "{output:?}");
    let output = bob.cli.run(&["receive"]).success();
    assert_eq!(output.stdout, "");
}
