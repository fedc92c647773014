//! WebSockets: frames, several clients on one socket, several sockets of one client, and their ends.

use serde_json::{Value, json};

use super::{Client, Mediator};
use crate::network::text;

const RESPONSE: &str = "https://didcomm.org/trust-ping/2.0/ping-response";

/// Sends a ping by a socket. Returns its id.
fn ping(client: &Client, socket: &Value, fields: Value) -> String {
    let mut fields = fields;
    fields["socket"] = socket.clone();
    text(&client.tell("ping", fields), "/sent/id").to_owned()
}

/// Asserts that the next frame is the response to this ping.
#[track_caller]
fn assert_pong(client: &Client, socket: &Value, id: &str) {
    let frame = client.frame(socket);
    assert_eq!(frame["message"]["type"], RESPONSE, "{frame}");
    assert_eq!(frame["message"]["thid"], id, "{frame}");
}

#[track_caller]
fn until_closed(client: &Client, socket: &Value) -> Value {
    let ended = client
        .script()
        .op("frames", json!({"socket": socket, "count": 1}));
    assert_eq!(ended["frames"], json!([]), "{ended}");
    ended["closed"].clone()
}

#[test]
fn text_and_binary_frames_are_messages() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let socket = client.socket();
    for binary in [false, true] {
        let id = ping(&client, &socket, json!({"binary": binary}));
        assert_pong(&client, &socket, &id);
    }
    // Browsers send an `Origin`, and are accepted.
    let page = json!({"headers": {"Origin": "https://app.example.com"}});
    let browser = client.script().op("open", page)["socket"].clone();
    let id = ping(&client, &browser, json!({}));
    assert_pong(&client, &browser, &id);
    // An unreadable message has no response and does not end the socket.
    for garbage in ["", "hello", "{}"] {
        client.tell("send", json!({"packed": garbage, "socket": socket}));
    }
    let id = ping(&client, &socket, json!({}));
    assert_pong(&client, &socket, &id);
}

#[test]
fn a_frame_that_is_too_long_ends_the_socket() {
    let mediator = Mediator::open();
    let client = mediator.client();
    for binary in [false, true] {
        let socket = client.socket();
        let packed = " ".repeat((1 << 20) + 1);
        client.tell(
            "send",
            json!({"packed": packed, "socket": socket, "binary": binary}),
        );
        assert_eq!(until_closed(&client, &socket), 1009);
    }
    let socket = client.socket();
    let packed = " ".repeat(1 << 20);
    client.tell("send", json!({"packed": packed, "socket": socket}));
    let id = ping(&client, &socket, json!({}));
    assert_pong(&client, &socket, &id);
}

#[test]
fn answers_are_asked_for_once_on_each_socket() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let socket = client.socket();
    let silent = json!({"return_route": null});
    let unanswered = ping(&client, &socket, silent.clone());
    let first = ping(&client, &socket, json!({}));
    let second = ping(&client, &socket, silent.clone());
    assert_pong(&client, &socket, &first);
    assert_pong(&client, &socket, &second);
    assert_ne!(unanswered, first);

    let other = client.socket();
    ping(&client, &other, silent);
    let asked = ping(&client, &other, json!({}));
    assert_pong(&client, &other, &asked);
}

#[test]
fn several_share_one_socket() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let second = client.generate();
    client.ask("request", json!({"from": second}));
    let add = json!({"recipient_did": second, "action": "add"});
    client.ask("update", json!({"from": second, "updates": [add]}));

    let socket = client.live();
    client.tell("live", json!({"from": second, "socket": socket}));
    let status = client.frame(&socket);
    assert_eq!(status["message"]["to"], json!([second]));
    assert_eq!(status["message"]["body"]["live_delivery"], true);
    for did in [&client.did, &second] {
        let message = client.pack_for(did);
        client.forward(did, &message);
        assert_eq!(client.frame(&socket)["message"], message.plain);
    }
    // One of them leaves live mode, the other stays.
    client.tell(
        "live",
        json!({"from": second, "socket": socket, "on": false}),
    );
    client.frame(&socket);
    client.forward(&second, &client.pack_for(&second));
    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    assert_eq!(client.frame(&socket)["message"], message.plain);
    // Clients on one socket cannot read the mail of each other.
    client.tell("status", json!({"socket": socket, "recipient_did": second}));
    let refused = client.frame(&socket);
    assert_eq!(
        refused["message"]["body"]["code"], "e.p.req.not_enroll",
        "{refused}"
    );
}

#[test]
fn two_sockets_of_one_account_both_get_what_comes() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let (first, second) = (client.live(), client.live());
    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    for socket in [&first, &second] {
        assert_eq!(client.frame(socket)["message"], message.plain);
    }
    // A socket that reads nothing and then is cut takes no mail from the other.
    client.script().op("freeze", json!({"socket": first}));
    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    assert_eq!(client.frame(&second)["message"], message.plain);
    client
        .script()
        .op("close", json!({"socket": first, "abort": true}));
    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    assert_eq!(client.frame(&second)["message"], message.plain);
    assert_eq!(client.waiting(None), 3);
    // A socket that is closed properly ends live mode for itself only.
    let third = client.live();
    client.script().op("close", json!({"socket": second}));
    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    assert_eq!(client.frame(&third)["message"], message.plain);
}

#[test]
fn forwards_and_requests_come_by_a_socket_as_well() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let socket = client.live();
    let message = client.pack_for(&client.did);
    let fields = json!({"next": client.did, "packed": message.envelope, "socket": socket});
    client.try_forward(fields);
    assert_eq!(client.frame(&socket)["message"], message.plain);
    let alias = client.generate();
    let add = json!({"recipient_did": alias, "action": "add"});
    client.tell("update", json!({"socket": socket, "updates": [add]}));
    let updated = client.frame(&socket);
    assert_eq!(
        updated["message"]["body"]["updated"][0]["result"],
        "success"
    );
    // Mail of an alias that came after live mode was turned on is pushed, too.
    let message = client.pack_for(&alias);
    client.forward(&alias, &message);
    assert_eq!(client.frame(&socket)["message"], message.plain);
    client.tell("delivery", json!({"socket": socket, "limit": 1}));
    let delivery = client.frame(&socket);
    assert_eq!(
        delivery["attached"].as_array().map(Vec::len),
        Some(1),
        "{delivery}"
    );
}

#[test]
fn the_end_of_the_service_closes_sockets_and_keeps_mail() {
    let mediator = Mediator::start(Mediator::setup());
    let client = mediator.member();
    let (live, idle) = (client.live(), client.socket());
    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    assert_eq!(client.frame(&live)["message"], message.plain);

    let (did, stopped) = (mediator.did.clone(), mediator.stop());
    for socket in [&live, &idle] {
        assert_eq!(until_closed(&client, socket), 1001);
    }
    let mediator = Mediator::restart(stopped);
    assert_eq!(mediator.did, did);
    let attached = client.fetch(json!({}));
    assert_eq!(attached.len(), 1);
    assert_eq!(attached[0]["message"], message.plain);
    // Live mode has ended with its socket.
    let socket = client.socket();
    client.tell("status", json!({"socket": socket}));
    assert_eq!(
        client.frame(&socket)["message"]["body"]["live_delivery"],
        false
    );
}
