use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::lookup::recipient::RecipientLookup;
use crate::lookup::sender::SenderLookup;
use crate::messaging::dm::Dm;
use crate::messaging::send::Sender;
use crate::messaging::wrap::seal;
use crate::testing::key;
use crate::wallet::Wallet;
use atcomm_net::identity::IdentitySettings;
use atcomm_proto::didcomm::envelope::{self, Curve, SecretKey, SelfCertified};
use atcomm_proto::didcomm::message::{Attachment, fresh_id};
use atcomm_proto::didcomm::protocol::pickup::{Reply, Request, Status, Version};
use atcomm_proto::syntax::{Did, Origin};
use atcomm_proto::verify::attribution::UnverifiedReason;
use testkit::net::{bind, development, serve};

/// A mediator with the queue of one key, at a port of this machine.
struct QueueMediator {
    port: u16,
    key: SecretKey,
    owner: MessagingKey,
    state: Mutex<State>,
    /// Number of delivery requests.
    asked: AtomicU32,
}

#[derive(Default)]
struct State {
    /// Ids and envelopes.
    queue: Vec<(String, Vec<u8>)>,
    /// An envelope that is handed out for ever, each time under a new id.
    endless: Option<Vec<u8>>,
    on_acknowledge: Option<OnAcknowledge>,
}

/// Called with the ids of each acknowledgement.
type OnAcknowledge = Box<dyn FnMut(&[String]) + Send>;

impl QueueMediator {
    async fn start(owner: &MessagingKey) -> Arc<Self> {
        let slot: Arc<OnceLock<Arc<Self>>> = Arc::default();
        let (documents, requests) = (Arc::clone(&slot), Arc::clone(&slot));
        let document = get(move || async move { documents.get().unwrap().document().to_string() });
        let answer = post(move |body: Bytes| async move { requests.get().unwrap().answer(&body) });
        let router = Router::new()
            .route("/.well-known/did.json", document)
            .route("/didcomm", answer);
        let port = serve(router).await;
        let id = format!("did:web:localhost%3A{port}#key-1");
        let mediator = Arc::new(Self {
            port,
            key: SecretKey::generate(Curve::X25519, id),
            owner: owner.clone(),
            state: Mutex::default(),
            asked: AtomicU32::new(0),
        });
        assert!(slot.set(Arc::clone(&mediator)).is_ok());
        mediator
    }

    fn did(&self) -> String {
        format!("did:web:localhost%3A{}", self.port)
    }

    fn document(&self) -> Value {
        let did = self.did();
        json!({
            "id": did,
            "verificationMethod": [{
                "id": self.key.kid(),
                "type": "Multikey",
                "controller": did,
                "publicKeyMultibase": self.key.public().multikey(),
            }],
            "keyAgreement": [self.key.kid()],
            "service": [{
                "id": format!("{did}#didcomm"),
                "type": "DIDCommMessaging",
                "serviceEndpoint": [{
                    "uri": format!("http://localhost:{}/didcomm", self.port),
                    "accept": ["didcomm/v2"],
                }],
            }],
        })
    }

    fn answer(&self, body: &[u8]) -> Vec<u8> {
        let ring = std::slice::from_ref(&self.key);
        let opened = envelope::unpack(body, &ring, &SelfCertified).unwrap();
        let question = Message::parse(&opened.plaintext).unwrap();
        let (_, request) = Request::of(&question).unwrap().unwrap();
        let reply = self.reply(request).write(Version::V3, fresh_id());
        let reply = reply
            .thid(question.id.as_str())
            .from(self.did())
            .to(self.owner.peer.as_str());
        let to = [self.owner.agreement.public()];
        envelope::authcrypt(&reply.to_vec(), &self.key, &to).unwrap()
    }

    fn reply(&self, request: Request) -> Reply {
        let mut state = self.state.lock().unwrap();
        match request {
            Request::Delivery { limit, .. } => {
                self.asked.fetch_add(1, Ordering::Relaxed);
                let endless = state.endless.iter().map(|envelope| (fresh_id(), envelope));
                let queued = state
                    .queue
                    .iter()
                    .map(|(id, envelope)| (id.clone(), envelope));
                let messages = endless.chain(queued).take(usize::try_from(limit).unwrap());
                Reply::Delivery {
                    recipient_did: None,
                    messages: messages
                        .map(|(id, envelope)| Attachment::message(id, envelope))
                        .collect(),
                }
            }
            Request::Received(ids) => {
                if let Some(on_acknowledge) = &mut state.on_acknowledge {
                    on_acknowledge(&ids);
                }
                state.queue.retain(|(id, _)| !ids.contains(id));
                Reply::Status(Status::default())
            }
            _ => Reply::Status(Status::default()),
        }
    }

    fn queued(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.queue.iter().map(|(id, _)| id.clone()).collect()
    }
}

/// An account whose mail is at one mediator, and without accounts to look up.
struct Scene {
    dir: TempDir,
    mediator: Arc<QueueMediator>,
    store: AccountStore,
    inbox: Inbox,
    unknown: MessagingKey,
}

impl Scene {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let wallet = Wallet::open(&dir.path().join("wallet")).unwrap();
        let account = Did::parse("did:web:bob.example.com").unwrap();
        let (net, clock) = (bind(development()), Clock::system());
        let identity = Identity::bind(net.clone(), IdentitySettings::default(), clock.clone());
        let bob = key();
        let mediator = QueueMediator::start(&bob).await;
        let enrolment = Arc::new(Enrolment {
            account: account.clone(),
            handle: None,
            pds: Origin::parse("https://pds.example.com").unwrap(),
            directory: None,
            mediators: vec![MediatorDid::parse(&mediator.did()).unwrap()],
            label: None,
            keys: vec![bob],
        });
        let store = wallet.account_store(&account);
        let receiver = Receiver::new(
            wallet,
            store.clone(),
            Arc::clone(&enrolment),
            SenderLookup::new(RecipientLookup::new(
                net.clone(),
                identity.clone(),
                clock.clone(),
                None,
            )),
            Sender::new(&net, &identity, &clock, &store, &enrolment),
            clock.clone(),
        );
        Self {
            inbox: Inbox::new(&net, &identity, &clock, &store, &enrolment, receiver),
            dir,
            mediator,
            store,
            unknown: key(),
        }
    }

    /// A message of a sender that claims no account.
    fn letter(&self, id: &str) -> Vec<u8> {
        let dm = Dm {
            text: "again".to_owned(),
            sender_did: None,
            recipient_did: None,
            facets: Vec::new(),
            embed: None,
        };
        let bob = &self.mediator.owner.peer;
        let message = dm.message(id, self.unknown.peer.as_str(), bob.as_str(), 0);
        seal(message, &self.unknown, bob).unwrap()
    }

    /// Queues letters with the ids `m0`, `m1` and so on under the ids `q0`, `q1` and so on.
    fn queue(&self, count: usize) {
        let letters = (0..count).map(|n| (format!("q{n}"), self.letter(&format!("m{n}"))));
        self.mediator.state.lock().unwrap().queue = letters.collect();
    }
}

fn stored_ids(store: &AccountStore) -> Vec<String> {
    let Ok(items) = store.received(None) else {
        return Vec::new();
    };
    let id = |item| match item {
        Ok(StoredItem::Message(message)) => message.id,
        other => panic!("{other:?}"),
    };
    items.map(id).collect()
}

/// What the mediator saw at an acknowledgement.
#[derive(Debug, PartialEq)]
struct Acknowledged {
    ids: Vec<String>,
    stored: Vec<String>,
    shown: Vec<String>,
}

#[tokio::test]
async fn inv3_client_acknowledges_only_what_is_kept() {
    enum End {
        All,
        Limit,
        /// The caller does not take the second message, as where it cannot print it.
        Break,
        /// The wallet can be written no more once the second message is shown.
        Disk,
        /// The process ends while the second message is shown.
        Kill,
    }
    for (end, kept, acknowledged) in [
        (End::All, 4, 4),
        (End::Limit, 2, 2),
        (End::Break, 2, 1),
        (End::Disk, 2, 2),
        (End::Kill, 2, 0),
    ] {
        let scene = Scene::start().await;
        scene.queue(4);
        let shown: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen: Arc<Mutex<Vec<Acknowledged>>> = Arc::default();
        let (store, log, at_mediator) = (scene.store.clone(), shown.clone(), seen.clone());
        scene.mediator.state.lock().unwrap().on_acknowledge = Some(Box::new(move |ids| {
            at_mediator.lock().unwrap().push(Acknowledged {
                ids: ids.to_vec(),
                stored: stored_ids(&store),
                shown: log.lock().unwrap().clone(),
            });
        }));
        let account = scene.dir.path().join("wallet/accounts");
        let mail = std::fs::read_dir(&account).map(|mut dir| dir.next().unwrap().unwrap().path());
        assert!(mail.is_err(), "nothing is written before the first message");
        let sink = async |event: Event| {
            let Event::Received(received) = event else {
                panic!("{event:?}")
            };
            let Received::Message { stored, .. } = *received else {
                panic!("{received:?}")
            };
            assert!(
                stored_ids(&scene.store).contains(&stored.id),
                "shown, so on disk"
            );
            let count = {
                let mut shown = shown.lock().unwrap();
                shown.push(stored.id);
                shown.len()
            };
            match end {
                End::Break if count == 2 => return ControlFlow::Break(()),
                End::Disk if count == 2 => {
                    let account = std::fs::read_dir(&account).unwrap().next().unwrap();
                    let mail = account.unwrap().path().join("mail");
                    std::fs::rename(&mail, mail.with_extension("aside")).unwrap();
                    std::fs::write(&mail, "no folder").unwrap();
                }
                End::Kill if count == 2 => std::future::pending().await,
                _ => {}
            }
            ControlFlow::Continue(())
        };
        let limit = matches!(end, End::Limit).then_some(2);
        let drained = scene.inbox.drain(limit, sink);
        match tokio::time::timeout(Duration::from_secs(5), drained).await {
            Ok(Ok(())) => assert!(matches!(end, End::All | End::Limit | End::Break)),
            Ok(Err(InboxError::Wallet(_))) => assert!(matches!(end, End::Disk)),
            Err(_) => assert!(matches!(end, End::Kill)),
            Ok(Err(error)) => panic!("{error}"),
        }
        let ids = |prefix: &str, range: std::ops::Range<usize>| -> Vec<String> {
            range.map(|n| format!("{prefix}{n}")).collect()
        };
        assert_eq!(*shown.lock().unwrap(), ids("m", 0..kept));
        assert_eq!(scene.mediator.queued(), ids("q", acknowledged..4));
        let seen = seen.lock().unwrap();
        let all: Vec<String> = seen.iter().flat_map(|one| one.ids.clone()).collect();
        assert_eq!(all, ids("q", 0..acknowledged));
        for one in &*seen {
            let wanted: Vec<String> = one.ids.iter().map(|id| id.replace('q', "m")).collect();
            let is_kept = |id: &String| one.stored.contains(id) || matches!(end, End::Disk);
            assert!(wanted.iter().all(is_kept), "{one:?}");
            assert!(wanted.iter().all(|id| one.shown.contains(id)), "{one:?}");
        }
    }
}

#[tokio::test]
async fn inv3_what_was_kept_and_not_shown_is_shown_first_by_the_next_reader() {
    for is_killed in [true, false] {
        let scene = Scene::start().await;
        scene.queue(2);
        let ended = scene.inbox.drain(None, async |_| {
            if is_killed {
                std::future::pending().await
            } else {
                // It could not be shown.
                ControlFlow::Break(())
            }
        });
        let ended = tokio::time::timeout(Duration::from_secs(2), ended).await;
        assert_eq!(ended.is_err(), is_killed);
        assert_eq!(stored_ids(&scene.store), ["m0"]);
        assert_eq!(scene.mediator.queued(), ["q0", "q1"]);
        let mut shown = Vec::new();
        let drained = scene.inbox.drain(None, async |event| {
            let Event::Received(received) = event else {
                panic!("{event:?}")
            };
            shown.push(match *received {
                Received::Message { stored, .. } => stored.id,
                Received::Duplicate => "duplicate".to_owned(),
                other => panic!("{other:?}"),
            });
            ControlFlow::Continue(())
        });
        drained.await.unwrap();
        assert_eq!(shown, ["m0", "duplicate", "m1"]);
        assert!(scene.mediator.queued().is_empty());
        let again = scene.inbox.drain(None, async |event| panic!("{event:?}"));
        again.await.unwrap();
    }
}

#[tokio::test]
async fn inv3_what_is_only_kept_is_shown_by_the_next_reader() {
    let scene = Scene::start().await;
    scene.queue(3);
    scene
        .mediator
        .state
        .lock()
        .unwrap()
        .queue
        .push(("junk".to_owned(), b"junk".to_vec()));
    let fetched = scene.inbox.keep().await.unwrap();
    assert_eq!((fetched.messages, fetched.failed.len()), (3, 0));
    assert!(scene.mediator.queued().is_empty());
    // A reader that ends in between shows each once.
    let mut shown = Vec::new();
    for limit in [1, 100] {
        let drained = scene.inbox.drain(Some(limit), async |event| {
            let Event::Received(received) = event else {
                panic!("{event:?}")
            };
            shown.push(match *received {
                Received::Message { stored, .. } => stored.id,
                Received::Undecryptable { .. } => "junk".to_owned(),
                other => panic!("{other:?}"),
            });
            ControlFlow::Continue(())
        });
        drained.await.unwrap();
    }
    assert_eq!(shown, ["m0", "m1", "m2", "junk"]);
}

#[tokio::test]
async fn what_another_process_is_about_to_show_is_shown_once() {
    let scene = Scene::start().await;
    scene.queue(1);
    let mut inner = 0;
    let drained = scene.inbox.drain(None, async |_| {
        let drained = scene.inbox.drain(None, async |event| {
            let Event::Received(received) = event else {
                panic!("{event:?}")
            };
            assert!(matches!(*received, Received::Duplicate));
            inner += 1;
            ControlFlow::Continue(())
        });
        drained.await.unwrap();
        ControlFlow::Continue(())
    });
    drained.await.unwrap();
    assert_eq!(inner, 1);
    let again = scene.inbox.drain(None, async |event| panic!("{event:?}"));
    again.await.unwrap();
}

#[tokio::test]
async fn the_limit_counts_mail_and_nothing_else() {
    let scene = Scene::start().await;
    scene.queue(3);
    {
        let mut state = scene.mediator.state.lock().unwrap();
        let copy = state.queue[0].1.clone();
        state.queue.insert(1, ("copy".to_owned(), copy));
        state.queue.insert(2, ("junk".to_owned(), b"junk".to_vec()));
    }
    let mut shown = Vec::new();
    let drained = scene.inbox.drain(Some(3), async |event| {
        let Event::Received(received) = event else {
            panic!("{event:?}")
        };
        shown.push(match *received {
            Received::Message { stored, .. } => stored.id,
            Received::Undecryptable { .. } => "junk".to_owned(),
            Received::Duplicate => "duplicate".to_owned(),
            other => panic!("{other:?}"),
        });
        ControlFlow::Continue(())
    });
    drained.await.unwrap();
    assert_eq!(shown, ["m0", "duplicate", "junk", "m1"]);
    assert_eq!(scene.mediator.queued(), ["q2"]);
    let mut history = 0;
    let told = scene.inbox.history(Some(2), async |_| {
        history += 1;
        ControlFlow::Continue(())
    });
    told.await.unwrap();
    assert_eq!(history, 2);
}

#[tokio::test]
async fn following_shows_what_waits_and_then_waits_itself() {
    let scene = Scene::start().await;
    scene.queue(2);
    let mut shown = Vec::new();
    let followed = scene.inbox.follow(None, async |event| match event {
        Event::Received(_) => {
            shown.push("mail");
            ControlFlow::Continue(())
        }
        Event::Waiting { queue, again } => {
            assert!(queue.is_current && !again);
            shown.push("waiting");
            ControlFlow::Break(())
        }
        other => panic!("{other:?}"),
    });
    followed.await.unwrap();
    assert_eq!(shown, ["mail", "mail", "waiting"]);
    scene.queue(2);
    let followed = scene
        .inbox
        .follow(Some(0), async |event| panic!("{event:?}"));
    followed.await.unwrap();
}

#[tokio::test]
async fn a_mediator_that_hands_out_the_same_for_ever_is_left() {
    let scene = Scene::start().await;
    // The unknown sender's message, and an envelope that cannot be opened.
    for (envelope, copies) in [
        (scene.letter("1"), MAX_STALE_DELIVERIES),
        (b"junk".to_vec(), MAX_STALE_DELIVERIES - 1),
    ] {
        scene.mediator.state.lock().unwrap().endless = Some(envelope);
        scene.mediator.asked.store(0, Ordering::Relaxed);
        let (mut duplicates, mut shown, mut unavailable) = (0, 0, 0);
        let drained = scene.inbox.drain(None, async |event| {
            match event {
                Event::Received(received) => match *received {
                    Received::Duplicate => duplicates += 1,
                    _ => shown += 1,
                },
                Event::Unavailable { .. } => unavailable += 1,
                other => panic!("{other:?}"),
            }
            ControlFlow::Continue(())
        });
        let left = drained.await;
        assert!(matches!(
            left,
            Err(InboxError::Mediator(MailError::NotOurs(_)))
        ));
        assert_eq!((duplicates, shown, unavailable), (copies, 1, 1));
        assert_eq!(scene.mediator.asked.load(Ordering::Relaxed), copies + 1);
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
    assert!(may_have_changed(&mismatch, Duration::ZERO, &mut left));
    assert!(may_have_changed(&revoked, PREVIOUS_KEY_GRACE, &mut left));
    assert!(!may_have_changed(
        &revoked,
        PREVIOUS_KEY_GRACE + Duration::from_secs(1),
        &mut left
    ));
    assert!(!may_have_changed(
        &Attribution::Anonymous,
        Duration::ZERO,
        &mut left
    ));
    assert!(!may_have_changed(
        &doubt(UnverifiedReason::NotAnAccount),
        Duration::ZERO,
        &mut left
    ));
    assert_eq!(left, 1);
    assert!(may_have_changed(&mismatch, Duration::ZERO, &mut left));
    assert!(
        !may_have_changed(&mismatch, Duration::ZERO, &mut left),
        "the looks are bounded"
    );
    assert!(may_have_changed(
        &doubt(UnverifiedReason::Unreachable),
        PREVIOUS_KEY_GRACE * 100,
        &mut left
    ));
}
