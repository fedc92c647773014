//! The query of an XRPC request.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|query: &str| atcomm::http::fuzzing::read_query(query));
