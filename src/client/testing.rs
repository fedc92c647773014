//! Mediators with their secret keys, and what they make of what is posted to them.

use std::sync::Arc;

use serde_json::json;

use crate::client::wallet::enrolment::MessagingKey;
use crate::clock::Timestamp;
use crate::didcomm::envelope::{self, Curve, SecretKey, SelfCertified, Unpacked};
use crate::didcomm::message::Message;
use crate::didcomm::party::Party;
use crate::didcomm::protocol::routing::Forward;
use crate::identity::MediatorDocument;

/// A mediator.
pub(crate) struct Post {
    pub(crate) did: String,
    pub(crate) key: SecretKey,
    pub(crate) party: Party,
    pub(crate) document: Arc<MediatorDocument>,
}

/// A mediator named `did:web:NAME.example.com`, reachable, with these services.
pub(crate) fn post_with(name: &str, services: serde_json::Value) -> Post {
    let did = format!("did:web:{name}.example.com");
    let key = SecretKey::generate(Curve::X25519, format!("{did}#key-1"));
    let document = json!({
        "did": did,
        "state": "reachable",
        "keyAgreement": [{
            "id": key.kid(),
            "type": "Multikey",
            "publicKeyMultibase": key.public().multikey(),
        }],
        "services": services,
    });
    Post {
        party: Party::from_document(&did, vec![key.public()], Vec::new()),
        document: Arc::new(serde_json::from_value(document).unwrap()),
        did,
        key,
    }
}

/// The same with one endpoint of the usual kind.
pub(crate) fn post(name: &str) -> Post {
    let uri = format!("https://{name}.example.com/didcomm");
    post_with(name, json!([{"uri": uri, "accept": ["didcomm/v2"]}]))
}

impl Post {
    /// Opens what was posted.
    pub(crate) fn open(&self, body: &[u8]) -> Unpacked {
        envelope::unpack(body, &std::slice::from_ref(&self.key), &SelfCertified).unwrap()
    }

    /// Opens a forward: who sent it, its id, who comes next and what it holds.
    pub(crate) fn forward(&self, body: &[u8]) -> (Option<String>, String, String, Vec<u8>) {
        let opened = self.open(body);
        let message = Message::parse(&opened.plaintext).unwrap();
        let next = message.body_of::<Forward>().unwrap().next;
        assert_eq!(message.to, [self.did.as_str()]);
        assert!(message.created_time.is_some());
        let [attachment] = message.attachments.as_slice() else {
            panic!("one attachment")
        };
        let sender = opened.sender.map(|sender| sender.party.did().to_owned());
        let inner = attachment.bytes().unwrap().into_owned();
        (sender, message.id, next, inner)
    }

    /// Encrypts a message to a key in the mediator's name.
    pub(crate) fn write(&self, message: Message, to: &MessagingKey) -> Vec<u8> {
        let message = message.from(self.did.as_str()).to(to.peer.as_str());
        let key = to.agreement.public();
        envelope::authcrypt(&message.to_vec(), &self.key, &[key]).unwrap()
    }
}

/// A new messaging key.
pub(crate) fn key() -> MessagingKey {
    MessagingKey::mint(Timestamp::from_millis(1_800_000_000_000))
}
