//! Full queues and rates: refused by name, and no accepted message is lost.

use serde_json::json;

use super::{Mediator, assert_schema};
use crate::didcomm::{Library, Script};
use crate::http::eventually;
use crate::network::text;

#[test]
fn a_full_queue_refuses_and_keeps_what_it_has() {
    // One address may use three of twelve places.
    let mediator = Mediator::start(Mediator::setup().set("mediator.queue_messages", json!(12)));
    let client = mediator.member();
    let alias = client.generate();
    assert_eq!(client.update("3.0", "add", &alias), "success");
    let messages =
        ["one", "two", "three", "four"].map(|words| client.pack_words_for(&client.did, words));
    let (more, taken) = messages.split_last().expect("some");
    for message in taken {
        client.forward(&client.did, message);
    }
    // A duplicate is stored once, and is accepted even by a full queue.
    for message in taken {
        client.forward(&client.did, message);
    }
    assert_eq!(client.waiting(None), 3);

    let fields = json!({"next": client.did, "packed": more.envelope});
    let refused = client.try_forward(fields.clone());
    assert_eq!(refused["status"], 503, "{refused}");
    assert!(
        text(&refused, "/body").contains("\"QueueFull\""),
        "{refused}"
    );
    let retry = text(&refused, "/headers/retry-after").parse::<u32>();
    assert!(retry.is_ok_and(|seconds| seconds > 0), "{refused}");
    // An authenticated sender who wants answers gets the same status, since relays in between
    // understand only statuses.
    let (mut known, mut answered) = (fields.clone(), fields.clone());
    known["from"] = json!(client.did);
    answered["return_route"] = json!("all");
    let mut both = known.clone();
    both["return_route"] = json!("all");
    for fields in [known, answered, both] {
        let answer = client.try_forward(fields);
        assert_eq!(answer["status"], 503, "{answer}");
    }
    // A socket has no status, so the sender gets a report, signed for an unauthenticated one.
    let socket = client.socket();
    let mut by_socket = fields.clone();
    by_socket["socket"] = socket.clone();
    by_socket["return_route"] = json!("all");
    client.try_forward(by_socket.clone());
    let signed = client.frame(&socket);
    let reader = Script::envelopes(Library::Sicpa);
    let opened = reader.op("unpack", json!({"packed": signed["packed"]}));
    assert!(text(&opened, "/signer").starts_with(&mediator.did));
    assert_schema(&opened["message"]);
    assert_eq!(opened["message"]["body"]["code"], "e.p.me.res.storage");
    by_socket["from"] = json!(client.did);
    client.try_forward(by_socket);
    let report = client.frame(&socket);
    assert_eq!(report["message"]["body"]["code"], "e.p.me.res.storage");

    // Several messages in one forward are stored together or not at all.
    let other = client.pack_words_for(&alias, "five");
    let many: Vec<_> = (0..4)
        .map(|number| client.pack_words_for(&alias, &number.to_string()).envelope)
        .collect();
    let answer = client.try_forward(json!({"next": alias, "packed": many}));
    assert_eq!(answer["status"], 503, "{answer}");
    assert_eq!(client.waiting(Some(&alias)), 0);
    // Another recipient of the same account has its own quota.
    client.forward(&alias, &other);

    let attached = client.fetch(json!({"recipient_did": client.did}));
    assert_eq!(attached.len(), 3);
    for (attached, message) in attached.iter().zip(taken) {
        assert_eq!(attached["message"], message.plain);
    }
    client.ask("received", json!({"ids": [attached[0]["id"]]}));
    client.forward(&client.did, more);
    let attached = client.fetch(json!({"recipient_did": client.did}));
    assert_eq!(attached.len(), 3);
    assert_eq!(attached[2]["message"], more.plain);
}

#[test]
fn a_queue_of_too_many_bytes_is_full_as_well() {
    let mediator = Mediator::start(Mediator::setup().set("mediator.queue_bytes", json!(24_000)));
    let client = mediator.member();
    let long = client.pack_words_for(&client.did, &"long ".repeat(1500));
    let short = client.pack_for(&client.did);
    let fields = json!({"next": client.did, "packed": long.envelope});
    let refused = client.try_forward(fields);
    assert_eq!(refused["status"], 503, "{refused}");
    client.forward(&client.did, &short);
    let status = client.ask("status", json!({}));
    assert_eq!(status["body"]["total_bytes"], short.envelope.len());
}

#[test]
fn rates_of_recipients_and_addresses_are_kept() {
    let mediator = Mediator::start(
        Mediator::setup()
            .set("mediator.queue_rate", json!(8))
            .set("mediator.address_rate", json!(15))
            .set("mediator.address_sockets", json!(2)),
    );
    let client = mediator.client();
    let (first, _) = (client.socket(), client.socket());
    let refused = client.script().try_op("open", json!({}));
    let refused = refused.expect_err("there were two");
    assert!(text(&refused, "/error").contains("429"), "{refused}");
    // Removing a recipient frees its quota.
    client.script().op("close", json!({"socket": first}));
    eventually("there is room for a socket", || {
        client.script().try_op("open", json!({})).ok()
    });
    let unknown = client.generate();
    let message = client.pack_for(&unknown);
    let fields = json!({"next": unknown, "packed": message.envelope});
    let limited = |answer: &serde_json::Value| {
        assert_eq!(answer["status"], 429, "{answer}");
        assert!(
            text(answer, "/body").contains("\"RateLimitExceeded\""),
            "{answer}"
        );
        let retry = text(answer, "/headers/retry-after").parse::<u32>();
        assert!(
            retry.is_ok_and(|seconds| (1..=60).contains(&seconds)),
            "{answer}"
        );
    };
    // One address has a quarter of the rate. Unknown recipients have one, too; otherwise a refusal would reveal which recipients
    // are known.
    for _ in 0..2 {
        assert_eq!(client.try_forward(fields.clone())["status"], 202);
    }
    limited(&client.try_forward(fields));
    let other = client.generate();
    client.forward(&other, &client.pack_for(&other));

    // Sockets are charged like messages. At most eight were charged, and the address regains one or
    // two in the time of the test.
    let mut answered = 0;
    let refused = loop {
        let answer = client.tell("ping", json!({}));
        if answer["status"] != 200 {
            break answer;
        }
        answered += 1;
        assert!(answered < 30, "no rate is kept");
    };
    assert!(answered >= 7, "only {answered} of 7 were answered");
    limited(&refused);
    // Documents are not messages.
    assert_eq!(super::get(&mediator, "/invitation").status, 200);
}
