//! The mediator's DID document and its invitation.
//!
//! Sources: W3C DID core; DIDComm Messaging 2.1, "Service endpoint". Endpoints are objects, since
//! some clients in use fail on lists. HTTP comes first, since many clients use the first endpoint
//! only.

use data_encoding::HEXLOWER;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::address::{PROFILE, PublicAddress};
use super::keys::{IdentityKeys, Keys};
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::out_of_band::{Invitation, REQUEST_MEDIATE};

/// Returns the document of the `did:web`.
pub(super) fn did_document(address: &PublicAddress, keys: &Keys) -> Value {
    let did = address.did().as_str();
    let IdentityKeys {
        agreement, signing, ..
    } = keys.web_identity();
    let method = |key: &atcomm_proto::didcomm::envelope::PublicKey| {
        json!({
            "id": key.kid(),
            "type": "Multikey",
            "controller": did,
            "publicKeyMultibase": key.multikey(),
        })
    };
    let endpoint = |uri: String| json!({"uri": uri, "accept": [PROFILE], "routingKeys": []});
    json!({
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": did,
        "verificationMethod": [method(&agreement.public()), method(&signing.public())],
        "authentication": [signing.kid()],
        "keyAgreement": [agreement.kid()],
        "service": [
            {
                "id": format!("{did}#didcomm"),
                "type": "DIDCommMessaging",
                "serviceEndpoint": endpoint(address.http_endpoint()),
            },
            {
                "id": format!("{did}#didcomm-ws"),
                "type": "DIDCommMessaging",
                "serviceEndpoint": endpoint(address.ws_endpoint()),
            },
            address.directory_service(),
        ],
    })
}

/// Returns the invitation for clients that cannot resolve a `did:web`. It comes from the did:peer:2
/// with the same keys, `peer`.
pub(super) fn invitation(peer: &IdentityKeys) -> Message {
    let peer = peer.party.did();
    let body = Invitation {
        goal_code: Some(REQUEST_MEDIATE.to_owned()),
        goal: Some("have mail kept by this mediator".to_owned()),
        accept: vec![PROFILE.to_owned()],
    };
    // A response names this id, so it stays the same as long as the keys do.
    let id = HEXLOWER.encode(&Sha256::digest(peer)[..16]);
    Message::new(id, &body).from(peer)
}
