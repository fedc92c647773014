mod schemas;

use std::time::Duration;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::coordination::{self, Action, Outcome, Page, Pagination, Update, Updated};
use super::discover::{Disclose, Queries};
use super::empty::Empty;
use super::out_of_band::Invitation;
use super::pickup::{self, Status};
use super::problem::{Code, Report};
use super::routing::Forward;
use super::trust_ping::{Ping, PingResponse};
use super::*;
use crate::clock::Timestamp;
use crate::didcomm::message::{Attachment, BodyError};
use crate::syntax::Did;

const ALICE: &str = "did:example:alice";
const MEDIATOR: &str = "did:web:mediator.example";

const COORDINATION: [coordination::Version; 2] =
    [coordination::Version::V2, coordination::Version::V3];
const PICKUP: [pickup::Version; 2] = [pickup::Version::V3, pickup::Version::V4];

fn coordination_requests() -> Vec<coordination::Request> {
    use coordination::Request;
    let account = Did::parse("did:plc:abcdefghijklmnopqrstuvwx").unwrap();
    let update = |action| Update {
        recipient_did: ALICE.to_owned(),
        action,
    };
    let page = Page {
        limit: 2,
        offset: 4,
    };
    vec![
        Request::Mediate { account: None },
        Request::Mediate {
            account: Some(account),
        },
        Request::Update(vec![update(Action::Add), update(Action::Remove)]),
        Request::Update(Vec::new()),
        Request::Query(None),
        Request::Query(Some(page)),
    ]
}

fn coordination_replies() -> Vec<coordination::Reply> {
    use coordination::Reply;
    let outcomes = [
        Outcome::Success,
        Outcome::NoChange,
        Outcome::ClientError,
        Outcome::ServerError,
    ];
    let updated = outcomes.map(|result| Updated {
        recipient_did: ALICE.to_owned(),
        action: Action::Add,
        result,
    });
    vec![
        Reply::Grant {
            routing_did: vec![MEDIATOR.to_owned()],
        },
        Reply::Deny,
        Reply::Updated(updated.to_vec()),
        Reply::Recipients {
            dids: Vec::new(),
            pagination: None,
        },
        Reply::Recipients {
            dids: vec![ALICE.to_owned(), MEDIATOR.to_owned()],
            pagination: Some(Pagination {
                count: 2,
                offset: 4,
                remaining: 1,
            }),
        },
    ]
}

fn pickup_requests() -> Vec<pickup::Request> {
    use pickup::Request;
    vec![
        Request::Status {
            recipient_did: None,
        },
        Request::Delivery {
            limit: 10,
            recipient_did: Some(ALICE.to_owned()),
        },
        Request::Received(vec!["1".to_owned(), "2".to_owned()]),
        Request::Live(true),
        Request::Live(false),
    ]
}

fn pickup_replies() -> Vec<pickup::Reply> {
    use pickup::Reply;
    let status = Status {
        message_count: 7,
        recipient_did: Some(ALICE.to_owned()),
        longest_waited: None,
        newest_received: Some(Timestamp::from_millis(1_764_003_600_000)),
        oldest_received: Some(Timestamp::from_millis(1_764_000_000_000)),
        total_bytes: Some(8096),
        live_delivery: true,
    };
    vec![
        Reply::Status(Status::default()),
        Reply::Status(status),
        Reply::Delivery {
            recipient_did: None,
            messages: Vec::new(),
        },
        Reply::Delivery {
            recipient_did: Some(ALICE.to_owned()),
            messages: vec![Attachment::message("1", b"{\"a\": 1}")],
        },
    ]
}

/// Returns messages of every type.
fn every_message() -> Vec<Message> {
    let envelope = RawValue::from_string("{\"protected\":\"e30\"}".to_owned()).unwrap();
    let mut all = vec![
        Forward::of("1", ALICE, envelope),
        Message::new("1", &Ping::default()),
        Message::new("1", &PingResponse),
        Message::new("1", &Queries { queries: vec![] }),
        Message::new(
            "1",
            &Disclose {
                disclosures: vec![],
            },
        ),
        Message::new("1", &Invitation::default()).from(MEDIATOR),
        Message::new("1", &Report::from(Code::Expired)),
        Message::new("1", &Empty),
    ];
    for version in COORDINATION {
        all.extend(
            coordination_requests()
                .iter()
                .map(|r| r.write(version, "1")),
        );
        all.extend(
            coordination_replies()
                .into_iter()
                .map(|r| r.write(version, "1")),
        );
    }
    for version in PICKUP {
        all.extend(pickup_requests().iter().map(|r| r.write(version, "1")));
        all.extend(pickup_replies().into_iter().map(|r| r.write(version, "1")));
    }
    all
}

fn body<B: Body>(message: &Message) -> Result<Option<Message>, FieldError> {
    match message.body_of::<B>() {
        Ok(body) => Ok(Some(Message::new("1", &body))),
        Err(BodyError::Type(_)) => Ok(None),
        Err(BodyError::Field(err)) => Err(err),
    }
}

/// Reads a message by its type and writes it with the same headers; `None` for unknown types.
fn write_again(message: &Message) -> Result<Option<Message>, FieldError> {
    let with_headers = |written: Message| {
        assert_eq!(written.kind, message.kind);
        Some(Message {
            body: written.body,
            ..message.clone()
        })
    };
    // The attachments of a forward are checked where it is received.
    if message.kind == Forward::TYPE {
        match Request::read(message) {
            Ok(Request::Forward(forward)) => {
                return Ok(with_headers(Message::new("1", &forward)));
            }
            Err(ReadError::Malformed { why, .. }) => return Err(why),
            other => panic!("{other:?}"),
        }
    }
    if let Some((version, request)) = coordination::Request::of(message)? {
        return Ok(with_headers(request.write(version, "1")));
    }
    if let Some((version, reply)) = coordination::Reply::of(message)? {
        return Ok(with_headers(reply.write(version, "1")));
    }
    if let Some((version, request)) = pickup::Request::of(message)? {
        return Ok(with_headers(request.write(version, "1")));
    }
    if let Some((version, reply)) = pickup::Reply::of(message)? {
        let written = reply.write(version, "1");
        assert_eq!(written.attachments, message.attachments);
        return Ok(with_headers(written));
    }
    for read in [
        body::<Ping>,
        body::<PingResponse>,
        body::<Queries>,
        body::<Disclose>,
        body::<Invitation>,
        body::<Report>,
        body::<Empty>,
    ] {
        if let Some(written) = read(message)? {
            return Ok(with_headers(written));
        }
    }
    Ok(None)
}

fn message(kind: &str, body: Value) -> Message {
    let message = json!({"id": "1", "type": format!("https://didcomm.org/{kind}"), "body": body});
    Message::parse(message.to_string().as_bytes()).unwrap()
}

fn read(kind: &str, body: Value) -> Result<Request, ReadError> {
    Request::read(&message(kind, body))
}

fn body_text(message: &Message) -> &str {
    message.body.get()
}

#[test]
fn every_message_survives_the_wire() {
    for message in every_message() {
        let read = Message::parse(&message.to_vec()).unwrap();
        assert_eq!(read, message);
        assert_eq!(write_again(&read).unwrap(), Some(message));
    }
    for version in COORDINATION {
        for request in coordination_requests() {
            let read = coordination::Request::of(&request.write(version, "1"));
            assert_eq!(read, Ok(Some((version, request))));
        }
        for reply in coordination_replies() {
            let read = coordination::Reply::of(&reply.clone().write(version, "1"));
            assert_eq!(read, Ok(Some((version, reply))));
        }
    }
    for version in PICKUP {
        for request in pickup_requests() {
            let read = pickup::Request::of(&request.write(version, "1"));
            assert_eq!(read, Ok(Some((version, request))));
        }
        for reply in pickup_replies() {
            let read = pickup::Reply::of(&reply.clone().write(version, "1"));
            assert_eq!(read, Ok(Some((version, reply))));
        }
    }
}

#[test]
fn what_a_mediator_receives() {
    let mut received = 0;
    for message in every_message() {
        let is_request = coordination::Request::of(&message).unwrap().is_some()
            || pickup::Request::of(&message).unwrap().is_some()
            || [
                Forward::TYPE,
                Ping::TYPE,
                Queries::TYPE,
                Empty::TYPE,
                Report::TYPE,
            ]
            .contains(&message.kind.as_str());
        match Request::read(&message) {
            Ok(_) => {
                assert!(is_request, "{}", message.kind);
                received += 1;
            }
            Err(err) => {
                assert!(!is_request, "{}: {err}", message.kind);
                let kind = message.kind;
                assert_eq!(err, ReadError::UnknownType { kind });
            }
        }
    }
    assert_eq!(received, 2 * (6 + 5) + 5);
    let ping = read(
        "trust-ping/2.0/ping",
        json!({"response_requested": "false"}),
    );
    let silent = Ping {
        response_requested: false,
    };
    assert_eq!(ping, Ok(Request::Ping(silent)));
    let ping = read("trust-ping/2.0/ping", json!({}));
    assert_eq!(ping, Ok(Request::Ping(Ping::default())));
}

#[test]
fn types_that_are_not_known() {
    for kind in [
        "basicmessage/2.0/message",
        "basicmessage/100.0/message",
        "trust-ping/1.0/ping",
        "trust-ping/3.0/ping",
        "coordinate-mediation/1.0/mediate-request",
        "coordinate-mediation/4.0/mediate-request",
        "coordinate-mediation/2.0/recipient-update",
        "coordinate-mediation/3.0/keylist-update",
        "coordinate-mediation/3.0/mediate-grant",
        "messagepickup/2.0/status-request",
        "messagepickup/4.0/status-request",
        "message-pickup/3.0/status-request",
        "messagepickup/3.0/status",
        "nonsense",
        "a/b/c/d/e",
    ] {
        let err = read(kind, json!({})).unwrap_err();
        let kind = format!("https://didcomm.org/{kind}");
        assert_eq!(err, ReadError::UnknownType { kind: kind.clone() });
        let report = err.report();
        assert_eq!(report.code, "e.p.msg.unsupported");
        assert!(report.text().contains(&kind), "{}", report.text());
    }
    // The same name under another address is another protocol.
    let mut elsewhere = message("trust-ping/2.0/ping", json!({}));
    elsewhere.kind = "https://didcomm.example/trust-ping/2.0/ping".to_owned();
    assert!(Request::read(&elsewhere).is_err());
    // A newer minor version is read as the known one.
    assert!(read("messagepickup/3.1/status-request", json!({})).is_ok());
    assert!(read("coordinate-mediation/2.1/mediate-request", json!({})).is_ok());
}

#[test]
fn malformed_bodies_name_the_field() {
    for (kind, body, sentence) in [
        (
            "routing/2.0/forward",
            json!({"next": ALICE}),
            "the field `attachments` is missing",
        ),
        (
            "coordinate-mediation/3.0/recipient-update",
            json!({"updates": [{"recipient_did": ALICE, "action": "add"}, {"action": "add"}]}),
            "the field `updates[1].recipient_did` is missing",
        ),
        (
            "coordinate-mediation/2.0/keylist-update",
            json!({"updates": [{"recipient_did": ALICE, "action": "replace"}]}),
            "the field `updates[0].action` is not one of add, remove",
        ),
        (
            "coordinate-mediation/2.0/keylist-query",
            json!({"paginate": {"limit": 5}}),
            "the field `paginate.offset` is missing",
        ),
        (
            "coordinate-mediation/3.0/mediate-request",
            json!({"account": "did:key:z6Mk"}),
            "the field `account` is unusable: an account's DID is did:plc or did:web",
        ),
        (
            "messagepickup/3.0/delivery-request",
            json!({"message_count_limit": 5}),
            "the field `limit` is missing",
        ),
        (
            "message-pickup/4.0/delivery-request",
            json!({"limit": 5}),
            "the field `message_count_limit` is missing",
        ),
        (
            "messagepickup/3.0/delivery-request",
            json!({"limit": -1}),
            "the field `limit` is below zero",
        ),
        (
            "messagepickup/3.0/live-delivery-change",
            json!({"live_delivery": "yes"}),
            "the field `live_delivery` is neither true nor false",
        ),
        (
            "messagepickup/3.0/messages-received",
            json!({"message_id_list": ["1", 2]}),
            "the field `message_id_list[1]` is not a string",
        ),
        (
            "discover-features/2.0/queries",
            json!({"queries": vec![json!({"feature-type": "protocol", "match": "*"}); 33]}),
            "the field `queries` has more than 32 entries",
        ),
    ] {
        let err = read(kind, body).unwrap_err();
        assert_eq!(err.to_string(), sentence);
        let report = err.report();
        assert_eq!(report.code, format!("e.p.msg.https://didcomm.org/{kind}"));
        assert_eq!(report.comment.as_deref(), Some(sentence));
    }
}

#[test]
fn forwards_bring_what_they_forward() {
    let forward = |attachments: Value| {
        let mut message = message("routing/2.0/forward", json!({"next": ALICE}));
        let with = json!({"id": "1", "type": "t", "attachments": attachments});
        message.attachments = Message::parse(with.to_string().as_bytes())
            .unwrap()
            .attachments;
        Request::read(&message)
    };
    let next = ALICE.to_owned();
    let taken = Ok(Request::Forward(Forward { next }));
    assert_eq!(
        forward(json!([{"data": {"json": {}}}, {"data": {"base64": "e30"}}])),
        taken
    );
    // Links beside the content are harmless.
    let both = json!([{"data": {"json": {}, "links": ["https://files.example"]}}]);
    assert_eq!(forward(both), taken);
    let links = json!([{"data": {"json": {}}}, {"data": {"links": ["https://files.example"]}}]);
    let sentence = forward(links).unwrap_err().to_string();
    let expected = "the field `attachments[1].data` is unusable: \
                    it has to hold json or base64, links are not followed";
    assert_eq!(sentence, expected);
    assert!(forward(json!([])).is_err());
}

#[test]
fn the_two_versions_of_coordination() {
    use coordination::{Reply, Request, Version};
    let update = Request::Update(vec![]);
    let kind = |message: Message| message.kind.rsplit('/').next().unwrap().to_owned();
    assert_eq!(kind(update.write(Version::V2, "1")), "keylist-update");
    assert_eq!(kind(update.write(Version::V3, "1")), "recipient-update");
    let grant = Reply::Grant {
        routing_did: vec![MEDIATOR.to_owned(), ALICE.to_owned()],
    };
    let old = grant.clone().write(Version::V2, "1");
    assert_eq!(
        body_text(&old),
        format!(r#"{{"routing_did":"{MEDIATOR}"}}"#)
    );
    let new = grant.clone().write(Version::V3, "1");
    assert_eq!(
        body_text(&new),
        format!(r#"{{"routing_did":["{MEDIATOR}","{ALICE}"]}}"#)
    );
    assert_eq!(Reply::of(&new), Ok(Some((Version::V3, grant))));
    // The form of the other version is accepted too; a grant without a routing DID is not.
    let one = message(
        "coordinate-mediation/3.0/mediate-grant",
        json!({"routing_did": "did:a:b"}),
    );
    assert!(Reply::of(&one).unwrap().is_some());
    let none = message(
        "coordinate-mediation/3.0/mediate-grant",
        json!({"routing_did": []}),
    );
    assert_eq!(
        Reply::of(&none).unwrap_err().to_string(),
        "the field `routing_did` is empty"
    );
    let list = |version| {
        let dids = vec![ALICE.to_owned()];
        let pagination = None;
        Reply::Recipients { dids, pagination }.write(version, "1")
    };
    let keys = format!(r#"{{"keys":[{{"recipient_did":"{ALICE}"}}]}}"#);
    assert_eq!(body_text(&list(Version::V2)), keys);
    assert_eq!(body_text(&list(Version::V3)), keys.replace("keys", "dids"));
    assert_eq!(kind(list(Version::V2)), "keylist");
    assert_eq!(kind(list(Version::V3)), "recipient");
    // A mediate-request may come without a body.
    for version in COORDINATION {
        let kind = format!("{}/mediate-request", version.protocol());
        let text = format!(r#"{{"id":"1","type":"{kind}","return_route":"all"}}"#);
        let bare = Message::parse(text.as_bytes()).unwrap();
        let request = Request::Mediate { account: None };
        let expected = super::Request::Coordination(version, request);
        assert_eq!(super::Request::read(&bare), Ok(expected));
    }
}

#[test]
fn the_two_versions_of_pickup() {
    use pickup::{Reply, Request, Version};
    let status = Status {
        message_count: 1,
        longest_waited: Some(Duration::from_millis(61_900)),
        newest_received: Some(Timestamp::from_millis(1_764_000_000_999)),
        oldest_received: Some(Timestamp::from_millis(-1)),
        ..Status::default()
    };
    let old = Reply::Status(status.clone()).write(Version::V3, "1");
    assert_eq!(
        body_text(&old),
        r#"{"message_count":1,"longest_waited_seconds":61,"newest_received_time":1764000000,"oldest_received_time":-1,"live_delivery":false}"#
    );
    let new = Reply::Status(status).write(Version::V4, "1");
    assert_eq!(
        body_text(&new),
        r#"{"message_count":1,"newest_received_time":1764000000999,"oldest_received_time":-1,"live_delivery":false}"#
    );
    let Ok(Some((_, Reply::Status(status)))) = Reply::of(&old) else {
        panic!("a status");
    };
    assert_eq!(status.longest_waited, Some(Duration::from_secs(61)));
    assert_eq!(
        status.newest_received,
        Some(Timestamp::from_millis(1_764_000_000_000))
    );
    // Fields that other mediators leave out, or times out of range.
    let far = json!({"message_count": 0, "newest_received_time": i64::MAX});
    let Ok(Some((_, Reply::Status(status)))) = Reply::of(&message("messagepickup/3.0/status", far))
    else {
        panic!("a status");
    };
    assert_eq!(
        status.newest_received,
        Some(Timestamp::from_millis(i64::MAX))
    );
    // An empty queue: the empty list of attachments is written, not left out.
    let nothing = Reply::Delivery {
        recipient_did: None,
        messages: vec![],
    };
    let shown: Value = serde_json::from_slice(&nothing.write(Version::V4, "1").to_vec()).unwrap();
    assert_eq!(shown["attachments"], json!([]));
    assert_eq!(
        shown["type"],
        "https://didcomm.org/message-pickup/4.0/delivery"
    );
    // A string for a boolean, from a test suite that many clients were written against.
    let live = read_live(json!("true"));
    assert_eq!(
        live,
        Ok(super::Request::Pickup(Version::V3, Request::Live(true)))
    );
    assert_eq!(read_live(json!(true)), live);
    let many = read(
        "messagepickup/3.0/messages-received",
        json!({"message_id_list": vec!["1"; 1001]}),
    );
    let sentence = "the field `message_id_list` has more than 1000 entries";
    assert_eq!(many.unwrap_err().to_string(), sentence);
}

fn read_live(word: Value) -> Result<Request, ReadError> {
    read(
        "messagepickup/3.0/live-delivery-change",
        json!({"live_delivery": word}),
    )
}

#[test]
fn a_report_is_never_a_reason_for_one() {
    let body = json!({"code": "w.p", "args": ["a", 1, null, true]});
    let Ok(Request::Problem(Some(report))) = read("report-problem/2.0/problem-report", body) else {
        panic!("a report");
    };
    assert_eq!(report.args, ["a", "1", "?", "true"]);
    for kind in [
        "report-problem/2.0/problem-report",
        "report-problem/9.0/problem-report",
        "message-pickup/4.0/problem-report",
    ] {
        let unreadable = read(kind, json!({"comment": "no code"}));
        assert_eq!(unreadable, Ok(Request::Problem(None)), "{kind}");
    }
}
