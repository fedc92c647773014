//! message-pickup 4.0: its differences to version 3.0, and the common parts.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::Mediator;
use crate::http::eventually;

const PROTOCOL: &str = "https://didcomm.org/message-pickup/4.0";

#[test]
fn version_4_has_its_own_words() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let empty = client.tell("delivery", json!({"pickup": "4.0"}));
    assert_eq!(empty["message"]["type"], format!("{PROTOCOL}/delivery"));
    assert_eq!(empty["attached"], json!([]));

    let messages = ["one", "two", "three"].map(|words| {
        let message = client.pack_words_for(&client.did, words);
        client.forward(&client.did, &message);
        message
    });
    let status = client.ask("status", json!({"pickup": "4.0"}));
    assert_eq!(status["type"], format!("{PROTOCOL}/status"));
    assert_eq!(status["body"]["message_count"], 3);
    assert_eq!(status["body"]["longest_waited_seconds"], Value::Null);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time");
    let now = i64::try_from(now.as_millis()).expect("milliseconds");
    for time in ["oldest_received_time", "newest_received_time"] {
        let time = status["body"][time].as_i64().expect("milliseconds");
        assert!((now - 60_000..=now).contains(&time), "{status}");
    }

    // The client sends `message_count_limit` in this version.
    let attached = client.fetch(json!({"pickup": "4.0", "limit": 2}));
    assert_eq!(attached.len(), 2);
    for (attached, message) in attached.iter().zip(&messages) {
        assert_eq!(attached["message"], message.plain);
    }
    let id = attached[0]["id"].clone();
    let status = client.ask("received", json!({"pickup": "4.0", "ids": [id]}));
    assert_eq!(status["type"], format!("{PROTOCOL}/status"));
    assert_eq!(status["body"]["message_count"], 2);
    // Both versions read the same queue.
    let left = client.fetch(json!({}));
    assert_eq!(left.len(), 2);
    assert_eq!(left[0]["message"], messages[1].plain);
}

#[test]
fn version_4_pushes_deliveries() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let answer = client.tell("live", json!({"pickup": "4.0"}));
    client.assert_problem(&answer, "e.m.live-mode-not-supported");
    let socket = client.socket();
    client.tell("live", json!({"pickup": "4.0", "socket": socket}));
    let status = client.frame(&socket);
    assert_eq!(status["message"]["type"], format!("{PROTOCOL}/status"));
    assert_eq!(status["message"]["body"]["live_delivery"], true);

    let message = client.pack_for(&client.did);
    client.forward(&client.did, &message);
    let delivery = client.frame(&socket);
    assert_eq!(delivery["message"]["type"], format!("{PROTOCOL}/delivery"));
    assert_eq!(delivery["message"]["to"], json!([client.did]));
    let attached = &delivery["attached"][0];
    assert_eq!(attached["message"], message.plain);
    assert_eq!(client.waiting(None), 1);
    let ids = json!([attached["id"]]);
    client.tell(
        "received",
        json!({"pickup": "4.0", "socket": socket, "ids": ids}),
    );
    let status = client.frame(&socket);
    assert_eq!(status["message"]["body"]["message_count"], 0);
}

#[test]
fn mail_comes_when_its_time_has_come() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let (late, soon) = (
        client.pack_words_for(&client.did, "late"),
        client.pack_for(&client.did),
    );
    let fields = |message: &super::PackedMessage, delay| {
        let extra = json!({"delay_milli": delay});
        json!({"next": client.did, "packed": message.envelope, "extra": extra})
    };
    assert_eq!(client.try_forward(fields(&late, 3_600_000))["status"], 202);
    assert_eq!(client.try_forward(fields(&soon, 200))["status"], 202);
    let attached = eventually("what was delayed is handed out", || {
        let answer = client.tell("delivery", json!({}));
        answer["attached"].as_array().cloned()
    });
    assert_eq!(attached.len(), 1);
    assert_eq!(attached[0]["message"], soon.plain);
}

#[test]
fn several_messages_of_one_forward_are_several() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let messages = ["one", "two"].map(|words| client.pack_words_for(&client.did, words));
    let packed: Vec<_> = messages.iter().map(|message| &message.envelope).collect();
    let answer = client.try_forward(json!({"next": client.did, "packed": packed}));
    assert_eq!(answer["status"], 202);
    let attached = client.fetch(json!({}));
    assert_eq!(attached.len(), 2);
    // A key of the recipient names it as well.
    let more = client.pack_words_for(&client.did, "three");
    client.forward(&format!("{}#key-2", client.did), &more);
    assert_eq!(client.waiting(Some(&client.did)), 3);
}

#[test]
fn a_forward_that_cannot_be_carried_is_never_taken_for_delivered() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let message = client.pack_for(&client.did);
    let plain = message.plain.to_string();
    for (packed, form) in [
        (json!(message.envelope), "links"),
        (json!([]), "json"),
        (json!(plain), "json"),
        (json!([message.envelope, plain]), "base64"),
        (json!(vec![&message.envelope; 17]), "json"),
    ] {
        for from in [Value::Null, json!(client.did)] {
            let fields = json!({"next": client.did, "packed": packed, "form": form, "from": from});
            let answer = client.try_forward(fields);
            assert_eq!(answer["status"], 400, "{form} {packed}: {answer}");
        }
    }
    assert_eq!(client.waiting(None), 0);
}

#[test]
fn a_forward_to_the_mediator_itself_is_opened_once_more() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let document = super::get(&mediator, "/.well-known/did.json").json();
    let know = json!({"did": mediator.web, "document": document});
    client.script().op("know", know);
    let (peer_did, web) = (&mediator.did, &mediator.web);
    let mut waiting = 0;
    for (through, kept) in [
        (vec![peer_did, peer_did], 1),
        (vec![peer_did, web], 1),
        (vec![web, peer_did], 1),
        (vec![peer_did, peer_did, web], 0),
    ] {
        for form in ["json", "base64"] {
            let message = client.pack_words_for(&client.did, form);
            let fields = json!({
                "next": client.did, "packed": message.envelope, "form": form, "through": through,
            });
            // The message does not loop, and does not count as delivered.
            let status = if kept == 1 { 202 } else { 400 };
            assert_eq!(client.try_forward(fields)["status"], status, "{through:?}");
            waiting += kept;
            assert_eq!(client.waiting(None), waiting, "{through:?}");
        }
    }
}
