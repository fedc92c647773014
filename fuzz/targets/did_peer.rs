//! A did:peer of method 2 or 4.
#![no_main]

use atcomm_proto::did_peer::{PeerDid, PeerDid4};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(peer) = PeerDid::parse(text) {
        assert_eq!(peer.as_str(), text, "a DID is kept verbatim");
        assert!(peer.keys().iter().all(|key| peer.key(&key.id).is_some()));
    }
    if let Ok(peer) = PeerDid4::parse(text) {
        assert!(peer.long().starts_with(peer.short()));
    }
});
