//! `trust-ping/2.0` and `discover-features/2.0`.

use super::{Reply, Session};
use crate::mediator::fresh_id;
use atcomm_proto::didcomm::envelope::Authenticated;
use atcomm_proto::didcomm::message::Message;
use atcomm_proto::didcomm::protocol::discover::{Disclose, Disclosure, Queries, Query};
use atcomm_proto::didcomm::protocol::empty::Empty;
use atcomm_proto::didcomm::protocol::out_of_band::{Invitation, REQUEST_MEDIATE};
use atcomm_proto::didcomm::protocol::problem::Report;
use atcomm_proto::didcomm::protocol::routing::Forward;
use atcomm_proto::didcomm::protocol::trust_ping::{Ping, PingResponse};
use atcomm_proto::didcomm::protocol::{Body as _, coordination, pickup};

/// Returns all features that are disclosed, in their order.
fn features(max_message: usize) -> Vec<Disclosure> {
    let protocols = [
        (Forward::PROTOCOL, "mediator"),
        (coordination::Version::V2.protocol(), "mediator"),
        (coordination::Version::V3.protocol(), "mediator"),
        (pickup::Version::V3.protocol(), "mediator"),
        (pickup::Version::V4.protocol(), "mediator"),
        (Ping::PROTOCOL, "receiver"),
        (Queries::PROTOCOL, "responder"),
        (Invitation::PROTOCOL, "sender"),
        (Report::PROTOCOL, "notifier"),
        (Empty::PROTOCOL, "receiver"),
    ];
    let mut features: Vec<Disclosure> = protocols
        .iter()
        .map(|(id, role)| Disclosure::protocol(id, &[role]))
        .collect();
    features.push(Disclosure::new("goal-code", REQUEST_MEDIATE));
    features.push(Disclosure::new("header", "return_route"));
    features.push(Disclosure::new("header", "delay_milli"));
    features.push(Disclosure::new("header", "expires_time"));
    features.push(Disclosure::max_receive_bytes(max_message as u64));
    features
}

impl Session<Authenticated> {
    pub(super) fn ping(&self, ping: &Ping) -> Reply {
        if ping.response_requested {
            Reply::of(self.ctx.reply(Message::new(fresh_id(), &PingResponse)))
        } else {
            Reply::none()
        }
    }

    pub(super) fn disclose(&self, queries: &Queries) -> Reply {
        let mut disclosures = features(self.ctx.core.settings.max_message);
        disclosures.retain(|feature| {
            let is_asked = |query: &Query| query.matches(&feature.feature_type, &feature.id);
            queries.queries.iter().any(is_asked)
        });
        Reply::of(
            self.ctx
                .reply(Message::new(fresh_id(), &Disclose { disclosures })),
        )
    }
}
