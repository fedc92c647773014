//! Responses to requests that are not carried out.

use serde_json::{Value, json};

use super::{Client, GREETING, Mediator, VERSIONS, assert_schema};
use crate::didcomm::{Library, Script};
use crate::http::request;
use crate::network::text;

const REPLAYED: &str = "e.p.crypto.message.dejavu";
const NOT_ENROLLED: &str = "e.p.req.not_enroll";

#[test]
fn the_same_request_twice_is_a_problem_also_after_a_crash() {
    let mediator = Mediator::start(Mediator::setup());
    let client = mediator.member();
    let first = client.tell("ping", json!({}));
    assert_eq!(first["status"], 200);
    let again = |client: &Client| client.tell("send", json!({"packed": first["packed"]}));
    for _ in 0..2 {
        let answer = again(&client);
        client.assert_problem(&answer, REPLAYED);
        assert_eq!(answer["message"]["pthid"], first["sent"]["id"]);
        assert_eq!(answer["message"]["ack"], json!([first["sent"]["id"]]));
    }
    // A request without a wanted response cannot be replayed, either.
    let silent = client.tell("ping", json!({"return_route": null}));
    assert_eq!(silent["status"], 202);
    // A forward may be repeated, and is stored once.
    let message = client.pack_for(&client.did);
    for from in [Value::Null, json!(client.did)] {
        let forward = json!({"next": client.did, "packed": message.envelope, "from": from});
        let sent = client.try_forward(forward);
        let repeated = client.tell("send", json!({"packed": sent["packed"]}));
        assert_eq!(repeated["status"], 202, "{repeated}");
    }
    assert_eq!(client.waiting(None), 1);

    let mediator = Mediator::restart(mediator.kill());
    client.turn_to(&mediator.did, &mediator);
    client.assert_problem(&again(&client), REPLAYED);
    let silent = client.tell("send", json!({"packed": silent["packed"]}));
    assert_eq!(silent["status"], 202);
    assert_eq!(client.waiting(None), 1);
}

#[test]
fn of_the_same_request_at_the_same_time_one_is_carried_out() {
    let mediator = Mediator::open();
    let client = mediator.client();
    for round in 0..5 {
        let packed = client.tell("request", json!({"post": false}));
        let body = text(&packed, "/packed").as_bytes();
        let post = || {
            let url = mediator.url("/didcomm");
            request("POST", &url, &[], Some(body.to_vec()))
        };
        let answers: Vec<_> = std::thread::scope(|scope| {
            let running: Vec<_> = (0..8).map(|_| scope.spawn(post)).collect();
            let ended = running.into_iter().map(|one| one.join());
            ended.map(|answer| answer.expect("an answer")).collect()
        });
        let granted = answers.iter().filter(|answer| {
            assert_eq!(answer.status, 200, "{}", answer.text());
            let opened = client
                .script()
                .op("unpack", json!({"packed": answer.text()}));
            let message = &opened["message"];
            assert_schema(message);
            let granted = text(message, "/type").ends_with("/mediate-grant");
            assert!(granted || message["body"]["code"] == REPLAYED, "{message}");
            granted
        });
        assert_eq!(granted.count(), 1, "in round {round}");
    }
}

#[test]
fn unknown_protocols_and_versions_are_unsupported() {
    let mediator = Mediator::open();
    let client = mediator.client();
    for kind in [
        "https://didcomm.org/unknown-protocol/1.0/request",
        "https://didcomm.org/basicmessage/100.0/message",
        "https://didcomm.org/messagepickup/100.0/status-request",
        "https://didcomm.org/coordinate-mediation/4.0/mediate-request",
        "https://didcomm.org/trust-ping/2.0/pong",
        "https://example.org/trust-ping/2.0/ping",
        GREETING,
        "no type at all",
    ] {
        let answer = client.say(kind, json!({"content": "hello"}));
        client.assert_problem(&answer, "e.p.msg.unsupported");
    }
    // A report has no report in response, an empty message no response.
    for (kind, body) in [
        (
            "https://didcomm.org/report-problem/2.0/problem-report",
            json!({"code": "e.p.msg"}),
        ),
        (
            "https://didcomm.org/report-problem/2.0/problem-report",
            json!({}),
        ),
        ("https://didcomm.org/empty/1.0/empty", json!({})),
    ] {
        let answer = client.say(kind, body);
        assert_eq!(answer["status"], 202, "{answer}");
    }
}

#[test]
fn malformed_bodies_are_named_by_their_type() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let site = "https://didcomm.org";
    for (kind, body) in [
        ("messagepickup/3.0/delivery-request", json!({})),
        (
            "messagepickup/3.0/delivery-request",
            json!({"limit": "many"}),
        ),
        ("messagepickup/3.0/delivery-request", json!({"limit": -1})),
        (
            "messagepickup/3.0/status-request",
            json!({"recipient_did": 7}),
        ),
        (
            "messagepickup/3.0/messages-received",
            json!({"message_id_list": "one"}),
        ),
        (
            "messagepickup/3.0/live-delivery-change",
            json!({"live_delivery": "maybe"}),
        ),
        ("message-pickup/4.0/delivery-request", json!({"limit": 1})),
        (
            "coordinate-mediation/2.0/keylist-update",
            json!({"updates": {}}),
        ),
        (
            "coordinate-mediation/2.0/keylist-query",
            json!({"paginate": {"limit": 1}}),
        ),
        (
            "coordinate-mediation/3.0/recipient-update",
            json!({"updates": [{"action": "add"}]}),
        ),
        (
            "coordinate-mediation/3.0/recipient-query",
            json!({"paginate": 3}),
        ),
        ("trust-ping/2.0/ping", json!({"response_requested": 1})),
        (
            "discover-features/2.0/queries",
            json!({"queries": [{"match": "*"}]}),
        ),
    ] {
        let kind = format!("{site}/{kind}");
        let answer = client.say(&kind, body);
        client.assert_problem(&answer, &format!("e.p.msg.{kind}"));
    }
    // A malformed forward is refused, since its sender would believe it delivered.
    let kind = format!("{site}/routing/2.0/forward");
    let answer = client.say(&kind, json!({}));
    client.assert_problem(&answer, &format!("e.p.msg.{kind}"));
    let (socket, forward) = (client.socket(), client.message(&kind, json!({})));
    let by_socket = json!({"message": forward, "socket": socket, "return_route": "all"});
    client.tell("send", by_socket);
    let report = client.frame(&socket);
    assert_eq!(report["message"]["body"]["code"], format!("e.p.msg.{kind}"));
    assert_eq!(report["message"]["pthid"], forward["id"]);

    let mut update = json!({"updates": []});
    for _ in 0..101 {
        let one = json!({"recipient_did": client.did, "action": "add"});
        update["updates"].as_array_mut().expect("a list").push(one);
    }
    for (version, name) in VERSIONS.iter().zip(["keylist-update", "recipient-update"]) {
        let kind = format!("{site}/coordinate-mediation/{version}/{name}");
        let answer = client.say(&kind, update.clone());
        client.assert_problem(&answer, &format!("e.p.msg.{kind}"));
    }
}

#[test]
fn nothing_is_told_to_who_is_not_enrolled() {
    let mediator = Mediator::open();
    let client = mediator.client();
    for pickup in ["3.0", "4.0"] {
        for operation in ["status", "delivery", "live"] {
            let answer = client.tell(operation, json!({"pickup": pickup}));
            client.assert_problem(&answer, NOT_ENROLLED);
        }
        let answer = client.tell("received", json!({"pickup": pickup, "ids": ["00"]}));
        client.assert_problem(&answer, NOT_ENROLLED);
    }
    for version in VERSIONS {
        let update = json!({"recipient_did": client.did, "action": "add"});
        let answer = client.tell("update", json!({"version": version, "updates": [update]}));
        client.assert_problem(&answer, NOT_ENROLLED);
        let answer = client.tell("query", json!({"version": version}));
        client.assert_problem(&answer, NOT_ENROLLED);
    }
    // An unauthenticated sender gets no response.
    for operation in ["ping", "status", "request"] {
        let answer = client.tell(operation, json!({"from": null}));
        assert_eq!(answer["status"], 202, "{answer}");
    }
}

#[test]
fn an_unknown_recipient_is_told_only_where_the_operator_wants_it() {
    let quiet = Mediator::open();
    let client = quiet.client();
    let unknown = client.generate();
    let message = client.pack_for(&unknown);
    let forward = |client: &Client, from: Value, return_route: Value| {
        client.try_forward(json!({
            "next": unknown, "packed": message.envelope, "from": from, "return_route": return_route,
        }))
    };
    for from in [Value::Null, json!(client.did)] {
        let answer = forward(&client, from, json!("all"));
        assert_eq!(answer["status"], 202, "{answer}");
    }
    drop(quiet);

    let telling = Mediator::start(Mediator::setup().set("mediator.report_unknown", json!(true)));
    let client = telling.client();
    for from in [Value::Null, json!(client.did)] {
        let answer = forward(&client, from, Value::Null);
        assert_eq!(answer["status"], 202, "{answer}");
    }
    let answer = forward(&client, json!(client.did), json!("all"));
    client.assert_problem(&answer, NOT_ENROLLED);

    let answer = forward(&client, Value::Null, json!("all"));
    assert_eq!(answer["status"], 200, "{answer}");
    assert_eq!(
        answer["headers"]["content-type"],
        "application/didcomm-signed+json"
    );
    let reader = Script::envelopes(Library::Sicpa);
    let opened = reader.op("unpack", json!({"packed": answer["body"]}));
    assert_eq!(opened["layers"], json!(["signed EdDSA"]));
    assert!(text(&opened, "/signer").starts_with(&format!("{}#", telling.did)));
    let report = &opened["message"];
    assert_schema(report);
    assert_eq!(report["from"], telling.did);
    assert_eq!(report["body"]["code"], NOT_ENROLLED);
    assert_eq!(report["pthid"], answer["sent"]["id"]);

    // A known recipient is never reported.
    let member = telling.member();
    let fields = json!({"next": member.did, "packed": message.envelope, "return_route": "all"});
    let answer = client.try_forward(fields);
    assert_eq!(answer["status"], 202, "{answer}");
}

#[test]
fn a_request_that_came_too_late_is_not_carried_out() {
    let mediator = Mediator::open();
    let client = mediator.member();
    let late = json!({"expires_time": 1_700_000_000});
    let answer = client.tell("ping", json!({"extra": late}));
    client.assert_problem(&answer, "e.p.req.time");
    let message = client.pack_for(&client.did);
    let fields = json!({"next": client.did, "packed": message.envelope, "extra": late});
    assert_eq!(client.try_forward(fields)["status"], 202);
    assert_eq!(client.waiting(None), 0);
}
