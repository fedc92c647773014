use std::sync::Mutex;

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::post as on_post;
use serde_json::json;

use super::*;
use crate::testing::key;
use atcomm_proto::didcomm::envelope::{
    ContentEncryption, Curve, SecretKey, SelfCertified, anoncrypt, sign,
};
use atcomm_proto::didcomm::message::Attachment;
use atcomm_proto::didcomm::protocol::coordination::{Reply, Updated, Version};
use testkit::mediator::TestMediator;
use testkit::net::{bind, development, serve};

/// The answer of a mediator to a request.
type Behaviour = Box<dyn Fn(&Scene, Message) -> (u16, Vec<u8>) + Send + Sync>;

/// A mediator with a given behaviour, and its client.
struct Scene {
    post: TestMediator,
    key: MessagingKey,
    client: MediatorClient,
}

/// Starts a mediator with this behaviour.
async fn scene(behaviour: Behaviour) -> Arc<Scene> {
    let slot: Arc<Mutex<Option<Arc<Scene>>>> = Arc::default();
    let (found, behaviour) = (Arc::clone(&slot), Arc::new(behaviour));
    let answer = on_post(move |body: Bytes| async move {
        let scene = found.lock().unwrap().clone().unwrap();
        let opened = envelope::unpack(
            &body,
            &std::slice::from_ref(&scene.post.key),
            &SelfCertified,
        )
        .unwrap();
        let sender = opened.sender.unwrap();
        assert_eq!(sender.party.did(), scene.key.peer.as_str());
        let question = Message::parse(&opened.plaintext).unwrap();
        assert_eq!(question.return_route, Some(ReturnRoute::All));
        assert!(question.created_time.is_some());
        let (status, body) = behaviour(&scene, question);
        (StatusCode::from_u16(status).unwrap(), body).into_response()
    });
    let port = serve(Router::new().route("/didcomm", answer)).await;
    let uri = format!("http://localhost:{port}/didcomm");
    let post = TestMediator::with_services("mail", json!([{"uri": uri, "accept": ["didcomm/v2"]}]));
    let key = key();
    let net = bind(development());
    let document = Arc::clone(&post.document);
    let client = MediatorClient::with_document(&net, &Clock::system(), document, &key).unwrap();
    let scene = Arc::new(Scene { post, key, client });
    *slot.lock().unwrap() = Some(Arc::clone(&scene));
    scene
}

fn pong(question: &Message) -> Message {
    Message::new("a1", &PingResponse).thid(question.id.as_str())
}

async fn ping(
    behaviour: impl Fn(&Scene, Message) -> (u16, Vec<u8>) + Send + Sync + 'static,
) -> Result<(), MailError> {
    scene(Box::new(behaviour)).await.client.ping().await
}

#[tokio::test]
async fn an_answer_of_the_mediator_in_the_thread_counts() {
    let answered =
        ping(|scene, question| (200, scene.post.write(pong(&question), &scene.key.agreement)));
    assert_eq!(answered.await, Ok(()));
}

#[tokio::test]
async fn whatever_else_comes_is_not_its_answer() {
    /// An answer to a question.
    type Answer = fn(&Scene, &Message) -> Vec<u8>;
    let forgeries: [(&str, Answer); 10] = [
        ("another thread", |scene, _| {
            let answer = Message::new("a1", &PingResponse).thid("other");
            scene.post.write(answer, &scene.key.agreement)
        }),
        ("no thread", |scene, _| {
            scene
                .post
                .write(Message::new("a1", &PingResponse), &scene.key.agreement)
        }),
        ("another mediator", |scene, question| {
            TestMediator::new("other").write(pong(question), &scene.key.agreement)
        }),
        ("its name under another key", |scene, question| {
            let kid = scene.post.key.kid();
            let false_key = SecretKey::generate(Curve::X25519, kid);
            let other = TestMediator {
                key: false_key,
                ..TestMediator::new("mail")
            };
            other.write(pong(question), &scene.key.agreement)
        }),
        ("a did:peer", |scene, question| {
            let unknown = key();
            let plain = pong(question)
                .from(unknown.peer.as_str())
                .to(scene.key.peer.as_str());
            let to = [scene.key.agreement.public()];
            envelope::authcrypt(&plain.to_vec(), &unknown.agreement, &to).unwrap()
        }),
        ("anoncrypt", |scene, question| {
            let plain = pong(question)
                .from(scene.post.did.as_str())
                .to(scene.key.peer.as_str());
            let to = [scene.key.agreement.public()];
            anoncrypt(&plain.to_vec(), &to, ContentEncryption::A256CbcHs512).unwrap()
        }),
        ("signed only", |scene, question| {
            let kid = format!("{}#key-2", scene.post.did);
            let signing = SecretKey::generate(Curve::Ed25519, kid);
            sign(
                &pong(question).from(scene.post.did.as_str()).to_vec(),
                &signing,
            )
            .unwrap()
        }),
        ("plaintext", |_, question| pong(question).to_vec()),
        ("for another key", |scene, question| {
            scene.post.write(pong(question), &key().agreement)
        }),
        ("a problem of another thread", |scene, _| {
            let report = Message::new("a1", &Report::from(Code::NotEnrolled)).pthid("other");
            scene.post.write(report, &scene.key.agreement)
        }),
    ];
    for (name, answer) in forgeries {
        let got = ping(move |scene, question| (200, answer(scene, &question))).await;
        assert!(matches!(got, Err(MailError::NotOurs(_))), "{name}: {got:?}");
    }
    // A message of the mediator in the thread that is no answer to a ping.
    let other = ping(|scene, question| {
        let deny = Reply::Deny
            .write(Version::V3, "a1")
            .thid(question.id.as_str());
        (200, scene.post.write(deny, &scene.key.agreement))
    });
    assert!(matches!(other.await, Err(MailError::NotOurs(_))));
}

#[tokio::test]
async fn refusals_are_told_in_its_words() {
    let refused = ping(|_, _| {
        let body = json!({"error": "QueueFull", "message": "the queue is full"});
        (503, body.to_string().into_bytes())
    })
    .await
    .unwrap_err();
    assert_eq!(
        refused.to_string(),
        "it refused: the queue is full (QueueFull)"
    );
    assert!(refused.is_transient());
    let page = ping(|_, _| (404, b"<html>".to_vec())).await.unwrap_err();
    assert_eq!(
        page.to_string(),
        "it refused: it answered with the status 404 (404)"
    );
    assert!(!page.is_transient());
    let reported = ping(|scene, question| {
        let report = Report::from(Code::NotEnrolled).about("a1", &question);
        (200, scene.post.write(report, &scene.key.agreement))
    })
    .await
    .unwrap_err();
    assert!(reported.is_code(Code::NotEnrolled) && !reported.is_transient());
    assert_eq!(ping(|_, _| (202, Vec::new())).await, Err(MailError::Silent));
    let long = ping(|_, _| (200, vec![b' '; MAX_ANSWER + 1])).await;
    assert!(
        matches!(long, Err(MailError::Unreachable { .. })),
        "{long:?}"
    );
    let words = ping(|_, _| {
        let body = json!({"error": "\u{e4}".repeat(2000), "message": "\u{e4}".repeat(2000)});
        (400, body.to_string().into_bytes())
    });
    let MailError::Refused { code, words, .. } = words.await.unwrap_err() else {
        panic!("a refusal")
    };
    assert!(
        code.as_str().len() <= RemoteText::MAX_BYTES
            && words.as_str().len() <= RemoteText::MAX_BYTES
    );
}

/// Grants, and then answers updates with this outcome.
fn registrar(outcome: Outcome) -> Behaviour {
    Box::new(move |scene, question| {
        let (_, request) = coordination::Request::of(&question).unwrap().unwrap();
        let reply = match request {
            coordination::Request::Mediate { account } => {
                assert_eq!(account.unwrap().as_str(), "did:web:alice.example.com");
                Reply::Grant {
                    routing_did: vec![scene.post.did.clone()],
                }
            }
            coordination::Request::Update(updates) => {
                let [update] = updates.as_slice() else {
                    panic!("one update")
                };
                assert_eq!(update.recipient_did, scene.key.peer.as_str());
                Reply::Updated(vec![Updated {
                    recipient_did: update.recipient_did.clone(),
                    action: update.action,
                    result: outcome,
                }])
            }
            coordination::Request::Query(_) => panic!("not asked"),
        };
        let reply = reply.write(Version::V3, "a1").thid(question.id.as_str());
        (200, scene.post.write(reply, &scene.key.agreement))
    })
}

#[tokio::test]
async fn a_key_is_registered_when_it_is_listed() {
    let account = Did::parse("did:web:alice.example.com").unwrap();
    for (outcome, listed) in [
        (Outcome::Success, true),
        (Outcome::NoChange, true),
        (Outcome::ClientError, false),
        (Outcome::ServerError, false),
    ] {
        let scene = scene(registrar(outcome)).await;
        let result = scene.client.register(&account).await;
        assert_eq!(result.is_ok(), listed, "{result:?}");
        assert_eq!(scene.client.remove().await.is_ok(), listed);
    }
    let denied = scene(Box::new(|scene, question| {
        let deny = Reply::Deny
            .write(Version::V3, "a1")
            .thid(question.id.as_str());
        (200, scene.post.write(deny, &scene.key.agreement))
    }));
    assert_eq!(
        denied.await.client.register(&account).await,
        Err(MailError::Denied)
    );
    // The key is not registered any more.
    let unknown = scene(Box::new(|scene, question| {
        let report = Report::from(Code::NotEnrolled).about("a1", &question);
        (200, scene.post.write(report, &scene.key.agreement))
    }))
    .await;
    assert_eq!(unknown.client.remove().await, Ok(()));
    assert_eq!(unknown.client.is_registered().await, Ok(false));
}

#[tokio::test]
async fn mail_is_taken_as_it_was_handed_over() {
    let scene = scene(Box::new(|scene, question| {
        let (version, _) = pickup::Request::of(&question).unwrap().unwrap();
        let mut link = Attachment::message("3", b"{}");
        link.data.base64 = None;
        link.data.json = None;
        link.data.links = vec!["https://example.com".to_owned()];
        let mut nameless = Attachment::message("4", b"{}");
        nameless.id = None;
        let reply = pickup::Reply::Delivery {
            recipient_did: None,
            messages: vec![
                Attachment::message("1", br#"{ "a":  1 }"#),
                Attachment::message("2", b"\xff"),
                link,
                nameless,
            ],
        };
        let reply = reply.write(version, "a1").thid(question.id.as_str());
        (200, scene.post.write(reply, &scene.key.agreement))
    }))
    .await;
    let mail = scene.client.fetch(10).await.unwrap();
    let mail: Vec<_> = mail
        .iter()
        .map(|one| (one.id.as_str(), &*one.envelope))
        .collect();
    assert_eq!(
        mail,
        [
            ("1", &br#"{ "a":  1 }"#[..]),
            ("2", &b"\xff"[..]),
            // It can be acknowledged, so that it is not delivered again.
            ("3", &b""[..]),
        ]
    );
}

#[test]
fn documents_that_cannot_be_used() {
    let net = bind(development());
    let client = |post: &TestMediator| {
        let document = Arc::clone(&post.document);
        MediatorClient::with_document(&net, &Clock::system(), document, &key())
    };
    let silent = TestMediator::with_services("m", json!([{"uri": "wss://m.example.com/ws"}]));
    assert!(matches!(client(&silent), Err(MailError::Unusable(_))));
    let mut keyless = TestMediator::new("m");
    let mut document = MediatorDocument::clone(&keyless.document);
    document.key_agreement.clear();
    keyless.document = Arc::new(document);
    assert!(matches!(client(&keyless), Err(MailError::Unusable(_))));
    assert!(client(&TestMediator::new("m")).is_ok());
}
