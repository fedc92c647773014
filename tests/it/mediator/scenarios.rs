//! The usual test scenarios for mediators of DIDComm v2, in both versions of coordinate-mediation,
//! with a foreign client.

use serde_json::{Value, json};

use super::{Client, Mediator, PackedMessage, VERSIONS};
use crate::network::text;

/// Runs a test in both versions of coordinate-mediation.
macro_rules! in_both_versions {
    ($($(#[$meta:meta])* fn $name:ident($version:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$meta])*
            fn check($version: &str) $body

            #[test]
            fn version_2() {
                check(VERSIONS[0]);
            }

            #[test]
            fn version_3() {
                check(VERSIONS[1]);
            }
        }
    )*};
}

/// Returns the type of a response of coordinate-mediation.
fn kind(version: &str, of_2: &str, of_3: &str) -> String {
    let name = if version == "2.0" { of_2 } else { of_3 };
    format!("https://didcomm.org/coordinate-mediation/{version}/{name}")
}

/// Asks for mediation in this version and adds an alias.
fn enter(client: &Client, version: &str) -> String {
    let granted = client.ask("request", json!({"version": version}));
    assert_eq!(
        granted["type"],
        kind(version, "mediate-grant", "mediate-grant")
    );
    let alias = client.generate();
    assert_eq!(client.update(version, "add", &alias), "success");
    alias
}

/// Returns the list of recipients and its pagination.
#[track_caller]
fn list(client: &Client, version: &str, paginate: Value) -> (Vec<String>, Value) {
    let answer = client.ask("query", json!({"version": version, "paginate": paginate}));
    assert_eq!(answer["type"], kind(version, "keylist", "recipient"));
    let field = if version == "2.0" { "keys" } else { "dids" };
    let listed = answer["body"][field].as_array().expect("a list");
    let dids = listed
        .iter()
        .map(|one| text(one, "/recipient_did").to_owned());
    (dids.collect(), answer["body"]["pagination"].clone())
}

/// Asserts that the delivered message is the one that was sent.
#[track_caller]
fn assert_same(attached: &Value, message: &PackedMessage) {
    assert_eq!(attached["message"], message.plain, "{attached}");
    let sender = format!("{}#key-2", text(&message.plain, "/from"));
    assert_eq!(attached["sender"], sender);
    assert_eq!(attached["forms"], json!(["base64", "json"]));
}

in_both_versions! {
    /// Add, remove, remove an unknown one, query: four scenarios.
    fn aliases_are_added_removed_and_listed(version) {
        let mediator = Mediator::open();
        let client = mediator.client();
        let granted = client.ask("request", json!({"version": version}));
        let routing = &granted["body"]["routing_did"];
        match version {
            "2.0" => assert_eq!(*routing, mediator.did),
            _ => assert_eq!(*routing, json!([mediator.did])),
        }
        assert_eq!(list(&client, version, Value::Null), (Vec::new(), Value::Null));

        let aliases: Vec<String> = (0..3).map(|_| client.generate()).collect();
        let unknown = client.generate();
        assert_eq!(client.update(version, "add", &aliases[0]), "success");
        assert_eq!(client.update(version, "add", &aliases[0]), "no_change");
        assert_eq!(client.update(version, "remove", &unknown), "no_change");
        let change = |did: &str, action: &str| json!({"recipient_did": did, "action": action});
        let updates = [
            change(&aliases[1], "add"),
            change("did:web:example.org", "add"),
            change(&aliases[2], "add"),
            change(&unknown, "remove"),
        ];
        let answer = client.ask("update", json!({"version": version, "updates": updates}));
        let named = kind(version, "keylist-update-response", "recipient-update-response");
        assert_eq!(answer["type"], named);
        let updated = answer["body"]["updated"].as_array().expect("a list");
        for (updated, (update, result)) in updated.iter().zip(updates.iter().zip(
            ["success", "client_error", "success", "no_change"],
        )) {
            assert_eq!(updated["recipient_did"], update["recipient_did"]);
            assert_eq!(updated["action"], update["action"]);
            assert_eq!(updated["result"], result);
        }
        assert_eq!(updated.len(), updates.len());

        let (mut all, page) = list(&client, version, Value::Null);
        assert_eq!(page, Value::Null);
        let page = |limit, offset| list(&client, version, json!({"limit": limit, "offset": offset}));
        let (first, cut) = page(2, 0);
        assert_eq!(cut, json!({"count": 2, "offset": 0, "remaining": 1}));
        let (second, cut) = page(2, 2);
        assert_eq!(cut, json!({"count": 1, "offset": 2, "remaining": 0}));
        assert_eq!([first, second].concat(), all);
        assert_eq!(page(2, 9), (Vec::new(), json!({"count": 0, "offset": 9, "remaining": 0})));
        let mut wanted = aliases.clone();
        all.sort();
        wanted.sort();
        assert_eq!(all, wanted);

        for alias in &aliases {
            assert_eq!(client.update(version, "remove", alias), "success");
            assert_eq!(client.update(version, "remove", alias), "no_change");
        }
        assert_eq!(list(&client, version, Value::Null).0, Vec::<String>::new());
        // The removed alias accepts no mail.
        client.forward(&aliases[0], &client.pack_for(&aliases[0]));
        assert_eq!(client.waiting(None), 0);
    }

    /// Status of 0 and 1, delivery of a forward in either form, delivery of nothing, and
    /// acknowledging: six scenarios.
    fn mail_is_picked_up_over_http(version) {
        let mediator = Mediator::open();
        let client = mediator.client();
        let alias = enter(&client, version);
        let status = client.ask("status", json!({}));
        let nothing = json!({"message_count": 0, "total_bytes": 0, "live_delivery": false});
        assert_eq!(status["type"], "https://didcomm.org/messagepickup/3.0/status");
        assert_eq!(status["body"], nothing);
        let empty = client.ask("delivery", json!({}));
        assert_eq!(empty["type"], "https://didcomm.org/messagepickup/3.0/status");
        assert_eq!(empty["body"], nothing);

        let friend = mediator.client();
        let messages = ["json", "base64"].map(|form| {
            let message = client.pack_words_for(&alias, form);
            let fields = json!({"next": alias, "packed": message.envelope, "form": form});
            assert_eq!(friend.try_forward(fields)["status"], 202);
            message
        });
        let status = client.ask("status", json!({"recipient_did": alias}));
        let body = &status["body"];
        assert_eq!(body["message_count"], 2);
        assert_eq!(body["recipient_did"], alias);
        assert_eq!(body["live_delivery"], false);
        let [oldest, newest] = ["oldest_received_time", "newest_received_time"]
            .map(|time| body[time].as_i64().expect("seconds"));
        let sent = status["created_time"].as_i64().expect("seconds");
        assert!(oldest <= newest && (0..60).contains(&(sent - oldest)), "{body}");
        assert!(body["longest_waited_seconds"].as_u64().is_some_and(|s| s < 60), "{body}");
        assert_eq!(client.waiting(Some(&client.did)), 0);

        // At most the requested number, the oldest first, repeatedly until acknowledged.
        for _ in 0..2 {
            let attached = client.fetch(json!({"limit": 1, "recipient_did": alias}));
            assert_eq!(attached.len(), 1);
            assert_same(&attached[0], &messages[0]);
            let (sent, got): (Value, Value) = (
                serde_json::from_str(&messages[0].envelope).expect("JSON"),
                serde_json::from_str(text(&attached[0], "/packed")).expect("JSON"),
            );
            assert_eq!(sent, got);
        }
        let attached = client.fetch(json!({}));
        assert_eq!(attached.len(), 2);
        assert_same(&attached[0], &messages[0]);
        assert_same(&attached[1], &messages[1]);
        assert_eq!(attached[1]["packed"], messages[1].envelope);
        assert_eq!(attached[1]["id"], messages[1].id());
        assert_eq!(client.fetch(json!({"recipient_did": alias})).len(), 2);

        let ids: Vec<_> = attached.iter().map(|one| one["id"].clone()).collect();
        let status = client.ask("received", json!({"ids": [ids[0], "no such id", "ff"]}));
        assert_eq!(status["body"]["message_count"], 1);
        let left = client.fetch(json!({}));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0]["id"], ids[1]);
        let status = client.ask("received", json!({"ids": ids}));
        assert_eq!(status["body"], nothing);
        let empty = client.ask("delivery", json!({"recipient_did": alias}));
        assert_eq!(empty["body"]["message_count"], 0);
    }

    /// Live mode over a WebSocket, and a request for it over HTTP: two scenarios.
    fn mail_is_pushed_in_live_mode(version) {
        let mediator = Mediator::open();
        let client = mediator.client();
        let alias = enter(&client, version);
        let earlier = client.pack_for(&alias);
        client.forward(&alias, &earlier);

        let answer = client.tell("live", json!({"on": "true"}));
        client.assert_problem(&answer, "e.m.live-mode-not-supported");

        let socket = client.socket();
        let asked = json!({"socket": socket, "on": "true"});
        client.tell("live", asked);
        let status = client.frame(&socket);
        assert_eq!(status["message"]["body"]["live_delivery"], true);
        assert_eq!(status["message"]["body"]["message_count"], 1);

        // Mail from before is not pushed; new mail is pushed unchanged.
        let message = client.pack_for(&alias);
        client.forward(&alias, &message);
        let pushed = client.frame(&socket);
        assert_eq!(pushed["message"], message.plain);
        let (sent, got): (Value, Value) = (
            serde_json::from_str(&message.envelope).expect("JSON"),
            serde_json::from_str(text(&pushed, "/packed")).expect("JSON"),
        );
        assert_eq!(sent, got);

        // Pushed mail stays queued until it is acknowledged, here by the hash of its bytes.
        client.tell("status", json!({"socket": socket}));
        assert_eq!(client.frame(&socket)["message"]["body"]["message_count"], 2);
        let id = data_encoding::HEXLOWER.encode(&<sha2::Sha256 as sha2::Digest>::digest(
            text(&pushed, "/packed"),
        ));
        client.tell("received", json!({"socket": socket, "ids": [id]}));
        let status = client.frame(&socket);
        assert_eq!(status["message"]["body"]["message_count"], 1);
        assert_eq!(status["message"]["body"]["live_delivery"], true);

        // After live mode is off, the next frame after a further message is the response to a request.
        client.tell("live", json!({"socket": socket, "on": false}));
        assert_eq!(client.frame(&socket)["message"]["body"]["live_delivery"], false);
        client.forward(&alias, &client.pack_for(&alias));
        client.tell("status", json!({"socket": socket}));
        let status = client.frame(&socket);
        assert_eq!(status["message"]["body"]["message_count"], 2, "{status}");
        assert_eq!(status["message"]["body"]["live_delivery"], false);
    }
}

#[test]
fn a_ping_is_answered_where_an_answer_is_wanted() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let response = client.tell("ping", json!({}));
    let kind = "https://didcomm.org/trust-ping/2.0/ping-response";
    assert_eq!(response["message"]["type"], kind);
    assert_eq!(response["message"]["thid"], response["sent"]["id"]);
    assert_eq!(response["message"]["to"], json!([client.did]));
    let thread = client.ask("ping", json!({"return_route": "thread"}));
    assert_eq!(thread["type"], kind);
    let within = client.tell("ping", json!({"extra": {"thid": "a-thread"}}));
    assert_eq!(within["message"]["thid"], "a-thread");
    for unanswered in [
        json!({"return_route": null}),
        json!({"return_route": "none"}),
        json!({"response_requested": false}),
    ] {
        let answer = client.tell("ping", unanswered);
        assert_eq!(answer["status"], 202, "{answer}");
    }
}

#[test]
fn a_request_for_mediation_needs_no_body() {
    let mediator = Mediator::open();
    let client = mediator.client();
    for version in VERSIONS {
        let granted = client.ask("request", json!({"version": version, "body": null}));
        assert_eq!(
            granted["type"],
            kind(version, "mediate-grant", "mediate-grant")
        );
    }
}
