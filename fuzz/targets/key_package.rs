//! The record of a key package, as DAG-CBOR.
#![no_main]

use atcomm_proto::keypackage::KeyPackage;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match KeyPackage::parse(data) {
        Ok(package) => assert!(!package.peer.key_agreement().is_empty()),
        Err(invalid) => assert!(!invalid.to_string().is_empty()),
    }
});
