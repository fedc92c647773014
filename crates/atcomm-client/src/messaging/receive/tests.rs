use tempfile::TempDir;

use super::super::outbox::{Attempt, AttemptState};
use super::*;
use crate::lookup::recipient::RecipientLookup;
use crate::testing::key;
use crate::wallet::enrolment::{KeyState, REPLACED_KEY_RETENTION};
use crate::wallet::messages::{MAX_UNREADABLE, StoredItem};
use atcomm_net::identity::{Identity, IdentitySettings};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::{self, ContentEncryption, authcrypt};
use atcomm_proto::syntax::{Did, MediatorDid, Origin};
use testkit::mediator::TestMediator;
use testkit::net::{bind, development};

/// An account with one mediator and no directory.
struct Scene {
    _dir: TempDir,
    own: TestMediator,
    client: MediatorClient,
    receiver: Receiver,
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn scene_of(key: MessagingKey) -> Scene {
    let dir = TempDir::new().unwrap();
    let wallet = Wallet::open(&dir.path().join("wallet")).unwrap();
    let account = Did::parse("did:web:bob.example.com").unwrap();
    let (net, clock) = (bind(development()), Clock::manual(now()));
    let identity = Identity::bind(net.clone(), IdentitySettings::default(), clock.clone());
    let own = TestMediator::new("own");
    let document = own.document.clone();
    let client = MediatorClient::with_document(&net, &clock, document, &key).unwrap();
    let enrolment = Arc::new(Enrolment {
        account: account.clone(),
        handle: None,
        pds: Origin::parse("https://pds.example.com").unwrap(),
        directory: None,
        mediators: vec![client.did().clone()],
        label: None,
        keys: vec![key],
    });
    let store = wallet.account_store(&account);
    let sender = Sender::new(&net, &identity, &clock, &store, &enrolment);
    let receiver = Receiver::new(
        wallet,
        store,
        enrolment,
        SenderLookup::new(RecipientLookup::new(
            net.clone(),
            identity.clone(),
            clock.clone(),
            None,
        )),
        sender,
        clock,
    );
    Scene {
        _dir: dir,
        own,
        client,
        receiver,
    }
}

impl Scene {
    fn key(&self) -> &MessagingKey {
        self.client.key()
    }

    async fn take(&self, id: &str, envelope: Vec<u8>) -> Processed {
        let mail = Mail {
            id: id.to_owned(),
            envelope,
        };
        self.receiver.process(&self.client, &mail).await.unwrap()
    }

    /// A message of an unknown sender with fields of its choice.
    fn message_of(&self, unknown: &MessagingKey, id: &str, more: &str) -> Vec<u8> {
        let plaintext = format!(
            r#"{{"id":"{id}","type":"{}","from":"{}","to":["{}"],"body":{{"text":"hi"}}{more}}}"#,
            Dm::TYPE,
            unknown.peer.as_str(),
            self.key().peer.as_str(),
        );
        let to = self.key().agreement.public();
        authcrypt(plaintext.as_bytes(), &unknown.agreement, &[to]).unwrap()
    }

    fn stored(&self) -> Vec<StoredItem> {
        let stored = self.receiver.store.received(None).unwrap();
        stored.map(Result::unwrap).collect()
    }
}

#[tokio::test]
async fn no_message_is_one_that_nothing_comes_after() {
    let scene = scene_of(key());
    let unknown = key();
    let nested = |depth: usize, inner: &str| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#","x":{open}{inner}{close}"#)
    };
    let many = vec!["[]"; 100_000].join(",");
    let cases = [
        nested(120, &many),
        nested(125, ""),
        nested(126, ""),
        nested(127, ""),
        nested(50_000, ""),
        r#","x":1e999"#.to_owned(),
        format!(r#","x":"{}""#, r#"\""#.repeat(1_400_000)),
    ];
    for (n, more) in cases.iter().enumerate() {
        let envelope = scene.message_of(&unknown, &n.to_string(), more);
        let taken = scene.take("a", envelope.clone()).await;
        let Received::Message { stored, .. } = taken.received else {
            panic!("{n}: {taken:?}")
        };
        assert_eq!(stored.cut, None, "a direct message is kept whole");
        assert!(stored.message.ends_with(&format!("{more}}}")), "{n}");
        let again = scene.take("b", envelope).await;
        assert!(matches!(again.received, Received::Duplicate), "{n}");
    }
    assert_eq!(scene.stored().len(), cases.len());
}

#[tokio::test]
async fn what_cannot_be_opened_is_one_whatever_a_mediator_calls_it() {
    let scene = scene_of(key());
    for envelope in [&b""[..], b"junk", &[0xff; 6 << 20]] {
        let taken = scene.take("a", envelope.to_vec()).await;
        let Received::Undecryptable { undecryptable } = taken.received else {
            panic!("{taken:?}")
        };
        assert_eq!(undecryptable.envelope().unwrap(), envelope);
        let again = scene.take("b", envelope.to_vec()).await;
        assert!(matches!(again.received, Received::Duplicate));
    }
    assert_eq!(scene.stored().len(), 3);
}

#[tokio::test]
async fn a_key_that_was_replaced_is_told_of_and_then_opens_nothing() {
    let unknown = key();
    for (age, opens) in [
        (
            REPLACED_KEY_RETENTION - std::time::Duration::from_millis(1),
            true,
        ),
        (REPLACED_KEY_RETENTION, false),
    ] {
        let mut key = key();
        key.state = KeyState::Replaced {
            at: now().minus(age),
        };
        let scene = scene_of(key);
        let taken = scene.take("a", scene.message_of(&unknown, "1", "")).await;
        match taken.received {
            Received::Message { stored, .. } => assert!(opens && stored.recipient_replaced),
            Received::Undecryptable { .. } => assert!(!opens),
            other => panic!("{other:?}"),
        }
    }
    let scene = scene_of(key());
    let taken = scene.take("a", scene.message_of(&unknown, "1", "")).await;
    let Received::Message { stored, .. } = taken.received else {
        panic!("{taken:?}")
    };
    assert!(!stored.recipient_replaced);
}

#[tokio::test]
async fn what_was_given_up_is_remembered_until_its_writer_was_told() {
    let scene = scene_of(key());
    let mediator = MediatorDid::parse("did:web:a.example.com").unwrap();
    let sent = SentMessage {
        id: "m1".to_owned(),
        account: Did::parse("did:web:carol.example.com").unwrap(),
        handle: None,
        peer: "did:peer:2.Ez6LScarol".to_owned(),
        from: scene.key().peer.as_str().to_owned(),
        envelope: "{}".to_owned(),
        mediators: vec![mediator.clone()],
        attempts: vec![Attempt {
            mediator,
            via: Some(scene.client.did().clone()),
            forward: "f1".to_owned(),
            state: AttemptState::Taken,
            at: now(),
        }],
        at: now(),
        given_up: None,
    };
    let store = &scene.receiver.store;
    store.save_sent(&sent.id, &sent).unwrap();
    assert!(scene.receiver.given_up().unwrap().is_empty());
    let body = Report::new("e.p.xfer.undeliverable", "nobody took it");
    let report = scene.own.write(
        Message::new("r1", &body).pthid("f1"),
        &scene.key().agreement,
    );
    // The report comes again where it was not acknowledged.
    for _ in 0..2 {
        let taken = scene.take("a", report.clone()).await;
        let Received::Undeliverable { sent, next, .. } = taken.received else {
            panic!("{taken:?}")
        };
        assert!(matches!(next, NextStep::GivenUp));
        let left = scene.receiver.given_up().unwrap();
        assert_eq!(left, std::slice::from_ref(&sent));
        // It waits for its writer however long that takes.
        assert!(sent.is_open(now().plus(crate::messaging::outbox::SENT_RETENTION * 100)));
    }
    let left = scene.receiver.given_up().unwrap();
    scene.receiver.mark_reported(&left[0].id).unwrap();
    assert!(scene.receiver.given_up().unwrap().is_empty());
    let taken = scene.take("a", report).await;
    assert!(matches!(taken.received, Received::Ignored));
}

#[tokio::test]
async fn inv7_what_cannot_be_shown_is_kept_cut() {
    let scene = scene_of(key());
    for (n, filler) in ["a", "b"].into_iter().enumerate() {
        let plaintext = format!(
            r#"{{"id":"{n}","type":"https://example.com/1.0/x","body":{{}},"x":"é{}"}}"#,
            filler.repeat(2 << 20),
        );
        let to = scene.key().agreement.public();
        let envelope =
            envelope::anoncrypt(plaintext.as_bytes(), &[to], ContentEncryption::A256CbcHs512)
                .unwrap();
        let taken = scene.take("a", envelope.clone()).await;
        let Received::Other { stored, why, .. } = taken.received else {
            panic!("{taken:?}")
        };
        let cut = stored.cut.unwrap();
        assert_eq!(cut.len, plaintext.len() as u64);
        assert!(plaintext.starts_with(&stored.message));
        assert!((MAX_UNREADABLE - 2..=MAX_UNREADABLE).contains(&stored.message.len()));
        assert!(why.contains(&cut.sha256) && why.contains(&cut.len.to_string()));
        let again = scene.take("b", envelope).await;
        assert!(matches!(again.received, Received::Duplicate));
    }
    // Two that begin alike are two.
    assert_eq!(scene.stored().len(), 2);
}

#[tokio::test]
async fn what_a_report_said_meanwhile_is_not_written_over() {
    let scene = scene_of(key());
    let mediator = MediatorDid::parse("did:web:a.example.com").unwrap();
    let own = scene.client.did().clone();
    let mut sent = SentMessage {
        id: "m1".to_owned(),
        account: Did::parse("did:web:carol.example.com").unwrap(),
        handle: None,
        peer: "did:peer:2.Ez6LScarol".to_owned(),
        from: scene.key().peer.as_str().to_owned(),
        envelope: "{}".to_owned(),
        mediators: vec![mediator.clone()],
        attempts: Vec::new(),
        at: now(),
        given_up: None,
    };
    let sender = &scene.receiver.sender;
    let begin = |sent: &mut SentMessage| sent.begin(mediator, Some(own), "f1".to_owned(), now());
    sender.change(&mut sent, begin).unwrap();
    // The relay has accepted the message and reports at once, before the sender has noted that.
    let body = Report::new("e.p.xfer.undeliverable", "no such mediator");
    let report = Message::new("r1", &body).pthid("f1");
    let report = scene.own.write(report, &scene.key().agreement);
    let taken = scene.take("a", report).await;
    assert!(matches!(
        taken.received,
        Received::Undeliverable {
            next: NextStep::GivenUp,
            ..
        }
    ));
    let end = |sent: &mut SentMessage| sent.end("f1", AttemptState::Taken);
    sender.change(&mut sent, end).unwrap();
    sender.delete_closed(&sent.id).unwrap();
    let left = scene.receiver.given_up().unwrap();
    assert_eq!(left, std::slice::from_ref(&sent));
    assert!(matches!(sent.attempts[0].state, AttemptState::Failed(_)));
    assert!(sent.given_up.is_some());
}
