use proptest::prelude::*;

use super::super::unpack::unpack;
use super::*;
use crate::testing::key;
use atcomm_proto::didcomm::message::Message;
use testkit::mediator::TestMediator;

fn did(name: &str) -> MediatorDid {
    MediatorDid::parse(&format!("did:web:{name}.example.com")).unwrap()
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + millis)
}

fn sent(mediators: &[&str]) -> SentMessage {
    SentMessage {
        id: "m1".to_owned(),
        account: Did::parse("did:web:bob.example.com").unwrap(),
        handle: None,
        peer: "did:peer:2.Ez6LSbob".to_owned(),
        from: "did:peer:2.Ez6LSalice".to_owned(),
        envelope: "{}".to_owned(),
        mediators: mediators.iter().map(|name| did(name)).collect(),
        attempts: Vec::new(),
        at: at(0),
        given_up: None,
    }
}

fn report(by: &str, forward: &str) -> UndeliverableReport {
    UndeliverableReport {
        by: did(by).as_str().to_owned(),
        about: vec![forward.to_owned()],
        code: RemoteText::new("e.p.xfer.undeliverable"),
        words: RemoteText::new("it did not take it"),
    }
}

impl SentMessage {
    fn taken(mut self, mediator: &str, via: Option<&str>, forward: &str) -> Self {
        self.begin(did(mediator), via.map(did), forward.to_owned(), at(0));
        self.end(forward, AttemptState::Taken);
        self
    }

    fn failed(mut self, mediator: &str, via: Option<&str>, forward: &str) -> Self {
        self.begin(did(mediator), via.map(did), forward.to_owned(), at(0));
        self.end(forward, AttemptState::Failed(RemoteText::new("no")));
        self
    }
}

#[test]
fn a_report_leads_to_the_mediator_that_was_not_tried() {
    let mut one = sent(&["a", "b", "c"]).taken("a", Some("own"), "f1");
    let next = ReportOutcome::TryNext(vec![did("b"), did("c")]);
    assert_eq!(one.report(&report("own", "f1")), next);
    // Who was interrupted after that hears the same again.
    assert_eq!(one.report(&report("own", "f1")), next);
    let mut one = one.taken("b", Some("own"), "f2");
    // The first report once more, while the second attempt is on its way.
    assert_eq!(one.report(&report("own", "f1")), ReportOutcome::Pending);
    let next = ReportOutcome::TryNext(vec![did("c")]);
    assert_eq!(one.report(&report("own", "f2")), next);
    let mut one = one.taken("c", Some("own"), "f3");
    assert_eq!(one.report(&report("own", "f3")), ReportOutcome::GivenUp);
    assert_eq!(one.report(&report("own", "f2")), ReportOutcome::GivenUp);
}

#[test]
fn only_who_relayed_it_is_believed() {
    let before = sent(&["a", "b"]).taken("a", Some("own"), "f1");
    for (by, forward) in [("a", "f1"), ("other", "f1"), ("own", "f2"), ("own", "m1")] {
        let mut one = before.clone();
        assert_eq!(one.report(&report(by, forward)), ReportOutcome::NotOurs);
        assert_eq!(one, before);
    }
    // A message that was posted to the mediator itself has no relay.
    let mut direct = sent(&["a"]).taken("a", None, "f1");
    assert_eq!(direct.report(&report("a", "f1")), ReportOutcome::NotOurs);
}

#[test]
fn an_attempt_that_was_interrupted_is_made_again() {
    let mut one = sent(&["a", "b"]).taken("a", Some("own"), "f1");
    let next = ReportOutcome::TryNext(vec![did("b")]);
    assert_eq!(one.report(&report("own", "f1")), next);
    one.begin(did("b"), Some(did("own")), "f2".to_owned(), at(1));
    assert_eq!(one.report(&report("own", "f1")), next);
}

#[test]
fn one_that_failed_at_once_by_one_way_may_be_under_way_by_another() {
    let mut one =
        sent(&["a", "b"])
            .failed("a", Some("first"), "f1")
            .taken("a", Some("second"), "f2");
    assert_eq!(
        one.report(&report("second", "f2")),
        ReportOutcome::TryNext(vec![did("b")])
    );
}

#[test]
fn reports_are_waited_for_as_long_as_a_relay_may_fail() {
    assert!(!sent(&["a"]).is_open(at(0)));
    assert!(!sent(&["a"]).taken("a", None, "f1").is_open(at(0)));
    assert!(!sent(&["a"]).failed("a", Some("own"), "f1").is_open(at(0)));
    let one = sent(&["a"]).taken("a", Some("own"), "f1");
    assert!(one.is_open(at(0)));
    assert!(!one.is_open(at(0).plus(SENT_RETENTION)));
}

#[test]
fn reports_are_read_of_who_is_known() {
    let (own, alice) = (TestMediator::new("own"), key());
    let mut body = Report::new("e.p.xfer.undeliverable", "{1} did not take the message");
    body.args = vec!["did:web:a.example.com".to_owned()];
    let message = Message::new("r1", &body).pthid("f1").ack("f1");
    let unpacked = unpack(
        &own.write(message, &alice.agreement),
        &alice,
        std::slice::from_ref(&own.party),
    );
    let read = UndeliverableReport::read(&unpacked.unwrap()).unwrap();
    assert_eq!(read.words, "did:web:a.example.com did not take the message");
    assert_eq!(read.code, "e.p.xfer.undeliverable");
    let mut one = sent(&["a"]).taken("a", Some("own"), "f1");
    assert_eq!(one.report(&read), ReportOutcome::GivenUp);
    let ping = Message::new(
        "p",
        &atcomm_proto::didcomm::protocol::trust_ping::Ping::default(),
    );
    let unpacked = unpack(
        &own.write(ping, &alice.agreement),
        &alice,
        std::slice::from_ref(&own.party),
    );
    assert_eq!(UndeliverableReport::read(&unpacked.unwrap()), None);
}

#[test]
fn it_outlives_a_restart() {
    let one = sent(&["a", "b"])
        .failed("a", Some("own"), "f1")
        .taken("b", Some("own"), "f2");
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<SentMessage>(&text).unwrap(), one);
}

proptest! {
    /// Whatever is reported in whatever order: while one attempt may still arrive nothing is sent
    /// again, and no mediator that has failed is named again.
    #[test]
    fn reports_lead_to_untried_mediators_only(
        tried in 1usize..5, reports in proptest::collection::vec(0usize..6, 0..12),
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let mut one = sent(&names);
        let forward = |n: usize| format!("f{n}");
        for (n, name) in names.iter().enumerate().take(tried) {
            one = one.taken(name, Some("own"), &forward(n));
        }
        let mut failed = std::collections::BTreeSet::new();
        for n in reports {
            let verdict = one.report(&report("own", &forward(n)));
            if n >= tried {
                prop_assert_eq!(verdict, ReportOutcome::NotOurs);
                continue;
            }
            failed.insert(n);
            if failed.len() < tried {
                prop_assert_eq!(verdict, ReportOutcome::Pending);
            } else {
                let left = names[tried..].iter().map(|name| did(name)).collect();
                prop_assert_eq!(verdict, ReportOutcome::TryNext(left));
            }
        }
    }
}
