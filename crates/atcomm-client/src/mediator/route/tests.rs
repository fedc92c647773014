use serde_json::json;

use super::*;
use crate::testing::key;
use testkit::mediator::TestMediator;

const NOW: i64 = 1_800_000_000;

fn known<'a>(
    posts: &'a [&TestMediator],
) -> impl Fn(&MediatorDid) -> Option<Arc<MediatorDocument>> + 'a {
    |did| {
        let mut posts = posts.iter();
        let found = posts.find(|post| post.did == did.as_str());
        found.map(|post| Arc::clone(&post.document))
    }
}

#[test]
fn the_first_endpoint_that_can_be_posted_to() {
    for (services, endpoint) in [
        (
            json!([{"uri": "https://m.example.com/x"}]),
            Some("https://m.example.com/x"),
        ),
        (
            json!([
                {"uri": "wss://m.example.com/ws", "accept": ["didcomm/v2"]},
                {"uri": "https://m.example.com/old", "accept": ["didcomm/aip1"]},
                {"uri": "didcomm:transport/queue"},
                {"uri": "https://m.example.com/x", "accept": ["didcomm/aip1", "didcomm/v2;env=x"]},
            ]),
            Some("https://m.example.com/x"),
        ),
        (json!([{"uri": "wss://m.example.com/ws"}]), None),
        // The mediator's own DID is no endpoint.
        (json!([{"uri": "did:web:m.example.com"}]), None),
        (json!([{"uri": "did:example:m"}]), None),
        (json!([]), None),
    ] {
        let post = TestMediator::with_services("m", services);
        let route = Route::to(&post.document, &known(&[&post]));
        match endpoint {
            Some(endpoint) => {
                assert_eq!(route.unwrap().done().unwrap().endpoint.as_str(), endpoint)
            }
            None => assert_eq!(route.unwrap_err(), RouteError::NoEndpoint),
        }
    }
}

#[test]
fn another_mediator_as_an_endpoint_is_wrapped_for() {
    let front = TestMediator::new("front");
    let m = TestMediator::with_services("m", json!([{"uri": front.did}]));
    let route = Route::to(&m.document, &known(&[])).unwrap();
    let did = MediatorDid::parse(&front.did).unwrap();
    assert!(matches!(route, Progress::Need(needed) if needed == did));
    let route = Route::to(&m.document, &known(&[&front]))
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(route.endpoint.as_str(), "https://front.example.com/didcomm");
    // White space shows that the envelope is passed on to the byte.
    let message = br#"{ "protected": "x",  "recipients": [] }"#.to_vec();
    let (sender, _, next, inner) = front.forward(&route.wrap(message.clone(), NOW).unwrap());
    assert_eq!((sender, next), (None, m.did.clone()));
    assert_eq!(inner, message);
    // Only one level is followed.
    let behind = TestMediator::with_services("behind", json!([{"uri": m.did}]));
    let route = Route::to(&behind.document, &known(&[&front, &m]));
    assert_eq!(route.unwrap_err(), RouteError::NoEndpoint);
}

#[test]
fn routing_keys_are_wrapped_for_with_the_last_one_innermost() {
    let (gate, alias) = (TestMediator::new("gate"), key());
    let own = "did:web:m.example.com#key-1";
    let keys = json!([gate.key.kid(), alias.peer.as_str(), own]);
    let uri = "https://gate.example.com/didcomm";
    let m = TestMediator::with_services("m", json!([{"uri": uri, "routingKeys": keys}]));
    let route = Route::to(&m.document, &known(&[&gate]))
        .unwrap()
        .done()
        .unwrap();
    let body = route.wrap(b"{}".to_vec(), NOW).unwrap();
    let (_, _, next, inner) = gate.forward(&body);
    assert_eq!(next, alias.peer.as_str());
    let opened = envelope::unpack(
        &inner,
        &alias,
        &atcomm_proto::didcomm::envelope::SelfCertified,
    );
    let forward =
        atcomm_proto::didcomm::message::Message::parse(&opened.unwrap().plaintext).unwrap();
    assert_eq!(forward.body_of::<Forward>().unwrap().next, m.did);
    assert_eq!(forward.attachments[0].bytes().unwrap().as_ref(), b"{}");
}

#[test]
fn inv7_ways_are_bounded_and_keys_are_usable() {
    let with = |keys: serde_json::Value| {
        let uri = "https://m.example.com/didcomm";
        TestMediator::with_services("m", json!([{"uri": uri, "routingKeys": keys}]))
    };
    let many: Vec<String> = (0..=MAX_ROUTING_KEYS).map(|_| key().peer.into()).collect();
    for (keys, error) in [
        (json!(many), RouteError::TooManyKeys),
        (json!(["did:example:x#1"]), RouteError::NoKey),
        (json!(["nonsense"]), RouteError::NoKey),
        (json!([format!("{}#key-2", key().peer)]), RouteError::NoKey),
        (json!([format!("{}#key-9", key().peer)]), RouteError::NoKey),
    ] {
        let post = with(keys);
        assert_eq!(Route::to(&post.document, &known(&[])).unwrap_err(), error);
    }
    let post = with(json!([]));
    let route = Route::to(&post.document, &known(&[]))
        .unwrap()
        .done()
        .unwrap();
    assert_eq!(route.wrap(b"no JSON".to_vec(), NOW).unwrap(), b"no JSON");
    let wrapped = forward("1".to_owned(), b"no JSON", &post.key.public(), "x", NOW);
    assert_eq!(wrapped, Err(RouteError::Wrapping));
}
