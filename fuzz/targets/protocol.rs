//! A plaintext message, and the body of every protocol in it: requests and answers.
#![no_main]

use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::{Request, coordination, discover, out_of_band, pickup};
use atcomm_proto::didcomm::protocol::{problem, routing, trust_ping};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = out_of_band::read_parameter(text);
    }
    let Ok(message) = Message::parse(data) else {
        return;
    };
    let _ = Request::read(&message);
    let _ = coordination::Reply::of(&message);
    let _ = pickup::Reply::of(&message);
    let _ = message.body_of::<discover::Disclose>();
    let _ = message.body_of::<out_of_band::Invitation>();
    let _ = message.body_of::<problem::Report>();
    let _ = message.body_of::<routing::Forward>();
    let _ = message.body_of::<trust_ping::Ping>();
    let _ = message.body_of::<trust_ping::PingResponse>();
    let again = Message::parse(&message.to_vec()).expect("what was read can be written and read");
    assert_eq!(again.to_vec(), message.to_vec());
});
