//! A message of a firehose.
#![no_main]

use atcomm_proto::wire::Frame;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(frame) = Frame::parse(data) {
        assert_eq!(
            Frame::parse(data),
            Ok(frame),
            "the same bytes are the same frame"
        );
    }
});
