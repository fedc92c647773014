//! A message of a Jetstream.
#![no_main]

use atcomm_proto::wire::JetstreamEvent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(event) = JetstreamEvent::parse(text) {
        assert!(!event.did.is_empty() && event.time_us > 0);
    }
});
