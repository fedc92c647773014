//! Mediators with their secret keys, for tests that open the mediator's mail.

use std::sync::Arc;

use serde_json::json;

use atcomm_net::identity::MediatorDocument;
use atcomm_proto::didcomm::envelope::{self, Curve, SecretKey, SelfCertified, Unpacked};
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::party::Party;
use atcomm_proto::didcomm::protocol::routing::Forward;

/// A mediator with its secret key.
pub struct TestMediator {
    /// The did:web of the mediator.
    pub did: String,
    /// The X25519 key that messages for the mediator are encrypted to.
    pub key: SecretKey,
    /// The mediator as a party of an envelope.
    pub party: Party,
    /// The document that names the key and the services.
    pub document: Arc<MediatorDocument>,
}

impl TestMediator {
    /// Returns a reachable mediator named `did:web:NAME.example.com` with one HTTPS endpoint.
    pub fn new(name: &str) -> Self {
        let uri = format!("https://{name}.example.com/didcomm");
        Self::with_services(name, json!([{"uri": uri, "accept": ["didcomm/v2"]}]))
    }

    /// Returns a reachable mediator named `did:web:NAME.example.com` whose document has `services`.
    pub fn with_services(name: &str, services: serde_json::Value) -> Self {
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
        Self {
            party: Party::from_document(&did, vec![key.public()], Vec::new()),
            document: Arc::new(serde_json::from_value(document).unwrap()),
            did,
            key,
        }
    }

    /// Decrypts an envelope for the mediator.
    pub fn open(&self, body: &[u8]) -> Unpacked {
        envelope::unpack(body, &std::slice::from_ref(&self.key), &SelfCertified).unwrap()
    }

    /// Decrypts a forward. Returns its sender, its id, the next recipient and the inner message.
    pub fn forward(&self, body: &[u8]) -> (Option<String>, String, String, Vec<u8>) {
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

    /// Encrypts a message from the mediator to the key of a did:peer.
    pub fn write(&self, message: Message, to: &SecretKey) -> Vec<u8> {
        let (peer, _) = to.kid().split_once('#').unwrap();
        let message = message.from(self.did.as_str()).to(peer);
        envelope::authcrypt(&message.to_vec(), &self.key, &[to.public()]).unwrap()
    }
}
