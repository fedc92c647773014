//! A token by which an account calls the directory.
#![no_main]

use atcomm_proto::clock::Timestamp;
use atcomm_proto::service_token::ServiceToken;
use atcomm_proto::syntax::MediatorDid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let now = Timestamp::from_millis(1_800_000_000_000);
    let service = MediatorDid::parse("did:web:dir.example.com").expect("a DID");
    if let Ok(token) = ServiceToken::parse(text, now) {
        assert_eq!(token.identity().len(), 64);
        let _ = token.check(&service, "atcomm_directory", "at.didcomm.directory.getProof", now);
    }
});
