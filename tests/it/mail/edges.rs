//! HTTP as other agents and odd clients speak it: what is meant well is served, and the rest is told
//! what is wrong by a status.

use serde_json::json;

use super::{PeerClient, mediator, open};
use crate::http::request;
use crate::network::{Network, text};

#[test]
fn an_encrypted_message_is_taken_under_any_media_type() {
    let (_service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let types = [
        "application/didcomm-envelope-enc",
        "application/didcomm-enc-env",
        "application/ssi-agent-wire",
        "application/jose+json",
        "application/jwm",
        "application/didcomm-signed+json",
        "*/*",
        "nonsense",
        "; charset=utf-8",
        "application/vnd.of-tomorrow; profile=\"a;b\"",
    ];
    for media_type in types {
        let envelope = endpoint.forward(&bob.did, &bob.envelope(media_type));
        let headers = [("content-type", media_type)];
        let answer = request("POST", &endpoint.url(), &headers, Some(envelope));
        assert_eq!(answer.status, 202, "{media_type}: {}", answer.text());
        // What is not encrypted is refused for its type.
        let plain = json!({"id": "1", "type": "https://example.org/letter/1.0/words"});
        let plain = plain.to_string().into_bytes();
        let answer = request("POST", &endpoint.url(), &headers, Some(plain));
        let name = text(&answer.json(), "/error").to_owned();
        if media_type.starts_with(';') {
            assert_eq!((answer.status, &*name), (400, "NotUnpackable"));
        } else {
            assert_eq!(
                (answer.status, &*name),
                (415, "UnsupportedMediaType"),
                "{media_type}"
            );
        }
    }
    assert_eq!(bob.collect(&endpoint, types.len()), types);
}
