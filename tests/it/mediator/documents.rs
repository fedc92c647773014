//! The mediator's DID document, invitation and features.

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::{Mediator, assert_schema, get};
use crate::network::text;

#[test]
fn the_did_document_can_be_read_by_simple_readers() {
    let mediator = Mediator::open();
    let answer = get(&mediator, "/.well-known/did.json");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/did+json");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let document = answer.json();
    let did = text(&document, "/id");
    let port = mediator
        .url("")
        .rsplit_once(':')
        .map(|(_, port)| port.to_owned());
    assert_eq!(
        did,
        format!("did:web:localhost%3A{}", port.expect("a port"))
    );

    let methods = document["verificationMethod"].as_array().expect("a list");
    let method = |id: &Value| {
        let found = methods.iter().find(|method| method["id"] == *id);
        found.unwrap_or_else(|| panic!("no {id} in {document}"))
    };
    for (relationship, prefix) in [("keyAgreement", "z6LS"), ("authentication", "z6Mk")] {
        let kids = document[relationship].as_array().expect("a list");
        assert_eq!(kids.len(), 1);
        assert!(text(&kids[0], "").starts_with(&format!("{did}#")));
        let method = method(&kids[0]);
        assert_eq!(method["type"], "Multikey");
        assert_eq!(method["controller"], did);
        assert!(
            text(method, "/publicKeyMultibase").starts_with(prefix),
            "{method}"
        );
    }

    let services = document["service"].as_array().expect("a list");
    let ids: Vec<_> = services
        .iter()
        .map(|service| text(service, "/id"))
        .collect();
    let wanted = ["didcomm", "didcomm-ws", "atcomm_directory"].map(|id| format!("{did}#{id}"));
    assert_eq!(ids, wanted);
    let http = mediator.url("/didcomm");
    let ws = http.replacen("http", "ws", 1);
    for (service, uri) in services.iter().zip([&http, &ws]) {
        assert_eq!(service["type"], "DIDCommMessaging");
        let endpoint = json!({"uri": uri, "accept": ["didcomm/v2"], "routingKeys": []});
        assert_eq!(service["serviceEndpoint"], endpoint);
    }
    assert_eq!(services[2]["serviceEndpoint"], mediator.url(""));
}

#[test]
fn the_invitation_is_read_as_json_and_out_of_a_link() {
    let mediator = Mediator::open();
    let answer = get(&mediator, "/invitation");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    let invitation = answer.json();
    assert_schema(&invitation);
    assert_eq!(
        invitation["type"],
        "https://didcomm.org/out-of-band/2.0/invitation"
    );
    assert_eq!(invitation["body"]["goal_code"], "request-mediate");
    assert_eq!(invitation["body"]["accept"], json!(["didcomm/v2"]));
    assert!(text(&invitation, "/from").starts_with("did:peer:2.Ez6LS"));
    assert_eq!(get(&mediator, "/invitation").json(), invitation);

    let carried = BASE64URL_NOPAD.encode(&answer.body);
    for oob in [
        carried.clone(),
        format!("{carried}=="),
        format!("{carried}%3D%3D"),
    ] {
        let read = get(&mediator, &format!("/invitation?_oob={oob}"));
        assert_eq!(read.status, 200, "{}", read.text());
        assert_eq!(read.json(), invitation);
    }
    let mut other = invitation.clone();
    other["from"] = json!("did:peer:2.Ez6LSrfCAhzvNQfJmHrw9Ho2Z2J8K2z2XmChTsD5W5W3MNZyQ");
    for oob in [
        BASE64URL_NOPAD.encode(other.to_string().as_bytes()),
        BASE64URL_NOPAD.encode(b"{}"),
        "%25".to_owned(),
        format!("{carried}&_oob={carried}"),
        String::new(),
    ] {
        let refused = get(&mediator, &format!("/invitation?_oob={oob}"));
        assert_eq!(refused.status, 400, "{oob}: {}", refused.text());
        super::assert_refusal(&refused.text());
    }

    // A client answers an invitation by naming it.
    let client = mediator.client();
    let extra = json!({"pthid": invitation["id"]});
    let granted = client.ask("request", json!({"extra": extra}));
    assert_eq!(granted["body"]["routing_did"], json!([invitation["from"]]));
}

#[test]
fn features_are_disclosed_by_literal_and_prefix() {
    let mediator = Mediator::open();
    let client = mediator.client();
    let disclosed = |kind: &str, wanted: &str| {
        let query = json!({"feature-type": kind, "match": wanted});
        let answer = client.ask("discover", json!({"queries": [query]}));
        assert_eq!(
            answer["type"],
            "https://didcomm.org/discover-features/2.0/disclose"
        );
        answer["body"]["disclosures"]
            .as_array()
            .expect("a list")
            .clone()
    };
    let ids = |found: &[Value]| -> Vec<String> {
        let mut ids: Vec<_> = found
            .iter()
            .map(|one| text(one, "/id").to_owned())
            .collect();
        ids.sort();
        ids
    };
    let site = "https://didcomm.org";
    let all = [
        "coordinate-mediation/2.0",
        "coordinate-mediation/3.0",
        "discover-features/2.0",
        "empty/1.0",
        "message-pickup/4.0",
        "messagepickup/3.0",
        "out-of-band/2.0",
        "report-problem/2.0",
        "routing/2.0",
        "trust-ping/2.0",
    ]
    .map(|protocol| format!("{site}/{protocol}"));
    assert_eq!(ids(&disclosed("protocol", "*")), all);
    assert_eq!(ids(&disclosed("protocol", &format!("{site}/*"))), all);
    let coordination = disclosed("protocol", &format!("{site}/coordinate-mediation/*"));
    assert_eq!(ids(&coordination), all[..2]);
    assert!(
        coordination
            .iter()
            .all(|one| one["roles"] == json!(["mediator"]))
    );
    assert_eq!(ids(&disclosed("protocol", &all[8])), all[8..9]);
    for nothing in [&all[8][..all[8].len() - 1], "*/routing/2.0", "routing"] {
        assert_eq!(disclosed("protocol", nothing), Vec::<Value>::new());
    }
    let constraint = json!({
        "feature-type": "constraint", "id": "max_receive_bytes", "max_receive_bytes": "1048576",
    });
    for wanted in ["max_receive_bytes", "max*", "*"] {
        let found = disclosed("constraint", wanted);
        assert_eq!(found, std::slice::from_ref(&constraint));
    }
    assert_eq!(
        ids(&disclosed("goal-code", "request-mediate")),
        ["request-mediate"]
    );
    assert_eq!(
        ids(&disclosed("header", "*")),
        ["delay_milli", "expires_time", "return_route"]
    );
    assert_eq!(disclosed("unheard-of", "*"), Vec::<Value>::new());
    let queries = json!([
        {"feature-type": "header", "match": "*"},
        {"feature-type": "header", "match": "return_route"},
        {"feature-type": "goal-code", "match": "*"},
    ]);
    let both = client.ask("discover", json!({"queries": queries}));
    assert_eq!(
        both["body"]["disclosures"].as_array().map(Vec::len),
        Some(4)
    );
}
