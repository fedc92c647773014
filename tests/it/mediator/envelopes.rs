//! Envelopes of foreign clients in use, and forbidden ones.

use serde_json::{Value, json};

use super::{Client, Mediator};
use crate::didcomm::{Library, Script};
use crate::http::request;
use crate::network::text;

const PING: &str = "https://didcomm.org/trust-ping/2.0/ping";
const RESPONSE: &str = "https://didcomm.org/trust-ping/2.0/ping-response";

/// Posts a message that another library has packed.
fn post(mediator: &Mediator, packed: &Value) -> crate::http::Answer {
    let headers = [("content-type", "application/didcomm-encrypted+json")];
    let body = text(packed, "/packed").as_bytes().to_vec();
    request("POST", &mediator.url("/didcomm"), &headers, Some(body))
}

fn ping(from: &str, to: &str) -> Value {
    json!({
        "id": super::fresh_id(),
        "typ": "application/didcomm-plain+json",
        "type": PING,
        "from": from,
        "to": [to],
        "return_route": "all",
        "body": {},
    })
}

/// Asserts that the client gets a response to a ping as `from`.
#[track_caller]
fn assert_answered(client: &Client, fields: Value) -> Value {
    let answer = client.tell("ping", fields);
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(answer["message"]["type"], RESPONSE);
    answer
}

#[test]
fn three_encryptions_of_anonymous_forwards_are_read() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let others = Script::envelopes(Library::Sicpa);
    let about = others.op("library", json!({}));
    let encryptions = about["anoncrypt"].as_array().expect("a list");
    assert_eq!(encryptions.len(), 3);
    for (number, enc) in (1..).zip(encryptions) {
        let message = client.pack_words_for(&client.did, text(enc, ""));
        let inner: Value = serde_json::from_str(&message.envelope).expect("JSON");
        let forward = json!({
            "id": super::fresh_id(),
            "type": "https://didcomm.org/routing/2.0/forward",
            "body": {"next": client.did},
            "attachments": [{"data": {"json": inner}}],
        });
        let packed = others.op(
            "pack",
            json!({"message": forward, "to": mediator.did, "enc": enc}),
        );
        let answer = post(&mediator, &packed);
        assert_eq!(answer.status, 202, "{enc}: {}", answer.text());
        let attached = client.fetch(json!({}));
        assert_eq!(attached.len(), number);
        assert_eq!(attached[number - 1]["message"], message.plain);
    }
}

#[test]
fn authcrypts_of_both_libraries_are_answered_so_that_they_can_read_it() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let others = Script::envelopes(Library::Sicpa);
    let did = others.generate();
    for protect in [false, true] {
        assert_answered(&client, json!({"protect": protect}));

        let message = ping(&did, &mediator.did);
        let fields = json!({
            "message": message, "to": mediator.did, "from": did, "protect": protect,
        });
        let answer = post(&mediator, &others.op("pack", fields));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let opened = others.op("unpack", json!({"packed": answer.text()}));
        assert_eq!(opened["message"]["type"], RESPONSE);
        assert_eq!(opened["message"]["thid"], message["id"]);
        assert!(text(&opened, "/sender").starts_with(&format!("{}#", mediator.did)));
    }
    // A signed message inside, and a key in place of the DID as the recipient.
    let kid = format!("{}#key-1", mediator.did);
    let signed = |fields: Value| {
        let mut pack = json!({"message": ping(&did, &mediator.did), "signer": did});
        for (name, value) in fields.as_object().expect("an object") {
            pack[name] = value.clone();
        }
        post(&mediator, &others.op("pack", pack)).status
    };
    assert_eq!(signed(json!({"to": kid, "from": did})), 200);
    // Any recipient of a signed message can repeat it, so a signature does not suffice to act for the
    // signer. Without encryption it is no message for this mediator.
    assert_eq!(signed(json!({"to": kid})), 202);
    assert_eq!(signed(json!({})), 400);
}

#[test]
fn the_ephemeral_key_may_stand_with_the_recipient() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let message = client.pack_for(&client.did);
    let fields = json!({"next": client.did, "packed": message.envelope});
    let sent = client.try_forward(fields);
    let packed: Value = serde_json::from_str(text(&sent, "/packed")).expect("JSON");
    // This library is the one with this form.
    assert!(
        packed["recipients"][0]["header"]["epk"].is_object(),
        "{packed}"
    );
    assert_eq!(sent["status"], 202);
    assert_eq!(client.waiting(None), 1);
}

#[test]
fn a_did_peer_4_is_known_by_its_short_form_once_the_long_one_came() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let made = client.script().op("generate", json!({"method": 4}));
    let (long, short) = (text(&made, "/did"), text(&made, "/short"));
    assert!(long.starts_with(&format!("{short}:")));

    let refused = client.tell("ping", json!({"from": short}));
    assert_eq!(refused["status"], 400, "{refused}");
    assert_answered(&client, json!({"from": long}));
    let granted = client.ask("request", json!({"from": long}));
    assert_eq!(granted["to"], json!([long]));
    let add = |did: &str| json!([{"recipient_did": did, "action": "add"}]);
    for (did, result) in [(long, "success"), (short, "no_change")] {
        let answer = client.ask("update", json!({"from": long, "updates": add(did)}));
        assert_eq!(answer["body"]["updated"][0]["result"], result);
        assert_eq!(answer["body"]["updated"][0]["recipient_did"], did);
    }
    // Both forms of the DID share one queue, and each can read it.
    for next in [long, short] {
        client.forward(next, &client.pack_for(next));
    }
    assert_answered(&client, json!({"from": short}));
    for from in [long, short] {
        let status = client.ask("status", json!({"from": from}));
        assert_eq!(status["body"]["message_count"], 2);
        assert_eq!(status["to"], json!([from]));
        let status = client.ask("status", json!({"from": from, "recipient_did": short}));
        assert_eq!(status["body"]["message_count"], 2);
    }
}

#[test]
fn who_spells_its_key_in_its_own_way_is_answered_so() {
    let mediator = Mediator::open();
    // RFC 7748, section 6.1: the second key pair.
    let secret = "XasIfmJKikt54X-Lg4AO5m87sSkmGLb9HC-LJ_-I4Os";
    let key = "6LSrfCAhzvNQfJmHrw9Ho2Z2J8K2z2XmChTsD5W5W3MNZyQ";
    let peer = format!("did:peer:2.Ez{key}");
    for (did, fragment) in [
        (&peer, "key-1"),
        (&peer, key),
        (&peer, &format!("z{key}")),
        (&format!("did:key:z{key}"), &format!("z{key}")),
    ] {
        let client = mediator.new_client();
        let kid = format!("{did}#{fragment}");
        let method = json!({
            "id": kid, "type": "Multikey", "controller": did,
            "publicKeyMultibase": format!("z{key}"),
        });
        let document = json!({
            "id": did, "verificationMethod": [method], "keyAgreement": [kid], "authentication": [],
        });
        let script = client.script();
        script.op("know", json!({"did": did, "document": document}));
        let key = json!({"kid": kid, "curve": "X25519", "secret": secret});
        script.op("import", json!({"keys": [key]}));
        // The client stores the secret under this name only.
        let answer = assert_answered(&client, json!({"from": did}));
        assert_eq!(answer["recipient"], kid);
        client.ask("request", json!({"from": did}));
        let socket = client.socket();
        client.tell(
            "live",
            json!({"from": did, "socket": socket, "pickup": "4.0"}),
        );
        assert_eq!(client.frame(&socket)["recipient"], kid);
        let add = json!([{"recipient_did": did, "action": "add"}]);
        client.ask("update", json!({"from": did, "updates": add}));
        let message = client.pack_words_for(did, fragment);
        client.forward(did, &message);
        let pushed = client.frame(&socket);
        assert_eq!(pushed["recipient"], kid);
        assert_eq!(pushed["attached"][0]["message"], message.plain, "{pushed}");
        let ids = json!([message.id(), pushed["attached"][0]["id"]]);
        client.ask("received", json!({"from": did, "ids": ids}));
    }
}

#[test]
fn what_the_envelope_does_not_bear_out_is_refused() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let victim = mediator.member();
    let other = client.generate();
    for lie in [
        json!({"from": victim.did}),
        json!({"from": other}),
        json!({"from": null}),
        json!({"from": mediator.did}),
        json!({"to": [other]}),
        json!({"to": []}),
        json!({"to": null}),
    ] {
        for protect in [false, true] {
            let fields = json!({"extra": lie, "protect": protect});
            let answer = client.tell("status", fields);
            assert_eq!(answer["status"], 400, "{lie}: {answer}");
            assert!(
                text(&answer, "/body").contains("\"NotUnpackable\""),
                "{answer}"
            );
        }
    }
    // Several recipients are allowed, and so is an unknown header.
    let extra = json!({"to": [other, mediator.did], "unheard_of": {"a": 1}});
    assert_answered(&client, json!({"extra": extra}));

    // A `from` in an anonymous envelope proves no sender.
    victim.forward(&victim.did, &client.pack_for(&victim.did));
    for operation in ["status", "delivery", "ping"] {
        let answer = client.tell(
            operation,
            json!({"from": null, "extra": {"from": victim.did}}),
        );
        let status = answer["status"].as_u64().expect("a status");
        assert!(status == 202 || status == 400, "{answer}");
    }
    let body = json!({"message_id_list": [client.pack_for(&victim.did).id()]});
    let kind = "https://didcomm.org/messagepickup/3.0/messages-received";
    let mut message = client.message(kind, body);
    message["from"] = json!(victim.did);
    let answer = client.tell("send", json!({"message": message, "from": null}));
    assert_ne!(answer["status"], 200, "{answer}");
    assert_eq!(victim.waiting(None), 1);
}

#[test]
fn it_answers_as_who_it_was_asked_as() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let document = super::get(&mediator, "/.well-known/did.json").json();
    let know = json!({"did": mediator.web, "document": document});
    client.script().op("know", know);
    let answer = assert_answered(&client, json!({"to": mediator.web}));
    // The mediator answers as the DID that was addressed, also in the grant.
    assert_eq!(answer["message"]["from"], mediator.web);
    let granted = client.ask("request", json!({"to": mediator.web}));
    assert_eq!(granted["body"]["routing_did"], json!([mediator.web]));
}
