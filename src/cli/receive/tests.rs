use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::routing::post as on_post;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use atcomm_client::{Courier, Enrolment, RecipientLookup, UnverifiedReason, Wallet};
use atcomm_net::identity::{Identity, IdentitySettings};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope;
use atcomm_proto::didcomm::message::{Attachment, fresh_id};
use atcomm_proto::didcomm::protocol::pickup::{Reply, Status, Version};
use atcomm_proto::syntax::{Did, Origin};
use testkit::mediator::TestMediator;
use testkit::net::{bind, development, serve};

/// A new messaging key.
fn key() -> MessagingKey {
    MessagingKey::mint(Timestamp::from_millis(1_800_000_000_000))
}

/// A mediator that hands out one envelope for ever, each time under a new id.
async fn lying_mediator(
    envelope: Arc<Vec<u8>>,
    asked: Arc<AtomicU32>,
    to: MessagingKey,
) -> TestMediator {
    let slot: Arc<std::sync::OnceLock<TestMediator>> = Arc::default();
    let found = Arc::clone(&slot);
    let answer = on_post(move |body: Bytes| async move {
        let post = found.get().unwrap();
        let ring = std::slice::from_ref(&post.key);
        let opened = envelope::unpack(&body, &ring, &envelope::SelfCertified).unwrap();
        let question = Message::parse(&opened.plaintext).unwrap();
        let reply = match question.kind.ends_with("/delivery-request") {
            true => {
                asked.fetch_add(1, Ordering::Relaxed);
                Reply::Delivery {
                    recipient_did: None,
                    messages: vec![Attachment::message(fresh_id(), &envelope)],
                }
            }
            false => Reply::Status(Status::default()),
        };
        let reply = reply.write(Version::V3, fresh_id());
        post.write(reply.thid(question.id.as_str()), &to.agreement)
    });
    let port = serve(Router::new().route("/didcomm", answer)).await;
    let uri = format!("http://localhost:{port}/didcomm");
    let services = json!([{"uri": uri, "accept": ["didcomm/v2"]}]);
    let post = TestMediator::with_services("mail", services.clone());
    let again = TestMediator {
        did: post.did.clone(),
        key: post.key.clone(),
        party: post.party.clone(),
        document: Arc::clone(&post.document),
    };
    assert!(slot.set(again).is_ok());
    post
}

#[tokio::test]
async fn a_mediator_that_hands_out_the_same_for_ever_is_left() {
    let dir = TempDir::new().unwrap();
    let wallet = Wallet::open(&dir.path().join("wallet")).unwrap();
    let account = Did::parse("did:web:bob.example.com").unwrap();
    let (net, clock) = (bind(development()), Clock::system());
    let identity = Identity::bind(net.clone(), IdentitySettings::default(), clock.clone());
    let (bob, stranger) = (key(), key());
    let dm = Dm {
        text: "again".to_owned(),
        sender_did: None,
        recipient_did: None,
        facets: Vec::new(),
        embed: None,
    };
    let message = dm.message("1", stranger.peer.as_str(), bob.peer.as_str(), 0);
    let message = atcomm_client::wrap::seal(message, &stranger, &bob.peer).unwrap();
    // Its own, and what nobody can open.
    for (envelope, copies) in [(message, MAX_STALE), (b"junk".to_vec(), MAX_STALE - 1)] {
        let asked = Arc::<AtomicU32>::default();
        let mediator = lying_mediator(Arc::new(envelope), Arc::clone(&asked), bob.clone()).await;
        let document = Arc::clone(&mediator.document);
        let client = MediatorClient::with_document(&net, &clock, document, &bob).unwrap();
        let enrolment = Enrolment {
            account: account.clone(),
            handle: None,
            pds: Origin::parse("https://pds.example.com").unwrap(),
            directory: None,
            mediators: vec![client.did().clone()],
            label: None,
            keys: vec![bob.clone()],
        };
        let receiver = Receiver::new(
            wallet.clone(),
            wallet.account_store(&account),
            enrolment,
            RecipientLookup::new(net.clone(), identity.clone(), clock.clone(), None),
            Courier::new(&net, &identity, &clock),
            clock.clone(),
        );
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut output = Output {
            json: true,
            stdout: &mut stdout,
            stderr: &mut stderr,
            clock: clock.clone(),
            left: None,
            copies: 0,
            fresh: 0,
            closed: false,
        };
        let left = fetch(&receiver, &client, &mut output).await;
        assert!(matches!(left, Err(Left::Mail(MailError::NotOurs(_)))));
        assert_eq!(output.copies, u64::from(copies));
        assert_eq!(asked.load(Ordering::Relaxed), copies + 1);
        assert_eq!(String::from_utf8(stdout).unwrap().lines().count(), 1);
    }
}

#[test]
fn what_may_have_been_judged_wrongly_is_looked_at_again() {
    let claimed = Did::parse("did:web:alice.example.com").unwrap();
    let mismatch = Attribution::Mismatch {
        claimed: claimed.clone(),
        replaced_at: None,
    };
    let revoked = Attribution::Revoked { claimed };
    let doubt = |reason| Attribution::Unverified {
        claimed: "x".to_owned(),
        reason,
        pinned: false,
    };
    let mut left = 3;
    assert!(is_open(&mismatch, Duration::ZERO, &mut left));
    assert!(is_open(&revoked, PREVIOUS_KEY_GRACE, &mut left));
    assert!(!is_open(
        &revoked,
        PREVIOUS_KEY_GRACE + Duration::from_secs(1),
        &mut left
    ));
    assert!(!is_open(&Attribution::Anonymous, Duration::ZERO, &mut left));
    assert!(!is_open(
        &doubt(UnverifiedReason::NotAnAccount),
        Duration::ZERO,
        &mut left
    ));
    assert_eq!(left, 1);
    assert!(is_open(&mismatch, Duration::ZERO, &mut left));
    assert!(
        !is_open(&mismatch, Duration::ZERO, &mut left),
        "the looks are bounded"
    );
    assert!(is_open(
        &doubt(UnverifiedReason::Unreachable),
        PREVIOUS_KEY_GRACE * 100,
        &mut left
    ));
}
