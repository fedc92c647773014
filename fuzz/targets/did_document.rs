//! The DID document of an account, and that of a mediator.
#![no_main]

use atcomm_net::identity::{DidDocument, MediatorDocument};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, MediatorDid};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let now = Timestamp::from_millis(1_800_000_000_000);
    // The documents among the seeds are about various DIDs: each is read as that of its own.
    let id = serde_json::from_slice::<serde_json::Value>(data).ok();
    let id = id
        .as_ref()
        .and_then(|document| document.get("id")?.as_str());
    if let Ok(did) = Did::parse(id.unwrap_or("did:plc:ewvi7nxzyoun6zhxrhs64oiz")) {
        let _ = DidDocument::parse(data, &did, now);
    }
    if let Ok(did) = MediatorDid::parse(id.unwrap_or("did:web:mediator.example.com")) {
        if let Some(read) = MediatorDocument::unchecked(did).made_here(data, false, now) {
            let stored = read.to_stored();
            assert_eq!(
                MediatorDocument::from_stored(&stored),
                Some(read),
                "{stored}"
            );
        }
    }
});
