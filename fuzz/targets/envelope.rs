//! An envelope: as it comes, and as the content of one that we can open, which no random bytes are.
#![no_main]

use std::sync::LazyLock;

use atcomm_proto::didcomm::envelope::{
    ContentEncryption, Curve, SecretKey, SelfCertified, anoncrypt, sender_did, unpack,
};
use data_encoding::BASE64URL_NOPAD;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The keys of the recipient in the examples of the DIDComm specification (appendix A).
static BOB: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    let keys: Value =
        serde_json::from_str(include_str!("../../fixtures/didcomm/appendix-c/keys.json")).unwrap();
    let secrets = keys["bob"]["secrets"].as_array().unwrap().iter();
    let read = secrets.filter_map(|secret| {
        let curve = match secret["crv"].as_str()? {
            "X25519" => Curve::X25519,
            "P-256" => Curve::P256,
            _ => return None,
        };
        let bytes = BASE64URL_NOPAD
            .decode(secret["d"].as_str()?.as_bytes())
            .ok()?;
        SecretKey::from_bytes(curve, secret["kid"].as_str()?, &bytes).ok()
    });
    read.collect()
});

fuzz_target!(|data: &[u8]| {
    let _ = sender_did(data);
    let _ = unpack(data, &*BOB, &SelfCertified);
    let key = [BOB[0].public()];
    if let Ok(sealed) = anoncrypt(data, &key, ContentEncryption::A256CbcHs512) {
        let _ = unpack(&sealed, &*BOB, &SelfCertified);
    }
});
