//! The operation log of a did:plc.
#![no_main]

use atcomm_proto::plc;
use atcomm_proto::syntax::Did;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Each log among the seeds is about its own DID, which its first entry names.
    let log = serde_json::from_slice::<serde_json::Value>(data).ok();
    let did = log
        .as_ref()
        .and_then(|log| log.get(0)?.get("did")?.as_str());
    if let Ok(did) = Did::parse(did.unwrap_or("did:plc:ewvi7nxzyoun6zhxrhs64oiz")) {
        let _ = plc::verify(&did, data);
    }
});
