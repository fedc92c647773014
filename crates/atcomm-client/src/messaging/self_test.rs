//! A message from an account to itself by way of one mediator, which shows whether mail of others
//! arrives.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::send;
use super::unpack::unpack;
use super::wrap::{seal, wrap};
use crate::mediator::client::{Mail, MailError, MediatorClient};
use crate::mediator::live::Live;
use crate::mediator::route::{Progress, RouteError};
use crate::wallet::enrolment::MessagingKey;
use atcomm_net::net::Net;
use atcomm_proto::clock::Clock;
use atcomm_proto::didcomm::envelope::EnvelopeError;
use atcomm_proto::didcomm::message::{Message, fresh_id};
use atcomm_proto::didcomm::protocol::trust_ping::Ping;

/// Timeout for the message to come back.
const SELF_TEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Most messages that are searched where the mediator has no live mode; the oldest come first.
const MAX_SEARCHED: u64 = 100;

/// Errors of the self-test.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelfTestError {
    /// The mediator failed.
    #[error("{0}")]
    Mail(#[from] MailError),
    /// The message cannot be encrypted.
    #[error("a message to oneself cannot be made: {0}")]
    Sealing(#[source] EnvelopeError),
    /// The message cannot be wrapped for the mediator.
    #[error("a message to oneself cannot be made: {0}")]
    Wrapping(#[source] RouteError),
    /// The mediator accepted the message and did not deliver it.
    #[error("the mediator took a message and did not hand it over within {} s", SELF_TEST_TIMEOUT.as_secs())]
    Lost,
}

/// Sends a message to the client's own key, waits for it and acknowledges it. Other mail stays in
/// the queue. Returns the time that it took.
pub async fn self_test(
    net: &Net,
    clock: &Clock,
    client: &MediatorClient,
) -> Result<Duration, SelfTestError> {
    // Live mode is on before the message is sent, so that the message is pushed.
    let live = match client.live().await {
        Ok(live) => Some(live),
        Err(error) if error.is_transient() => return Err(error.into()),
        Err(_) => None,
    };
    let began = Instant::now();
    let id = fresh_id();
    post(net, clock, client, &id).await?;
    let found = match live {
        Some(mut live) => {
            let found = wait_for_push(client, &mut live, &id, began + SELF_TEST_TIMEOUT).await?;
            live.close().await;
            found
        }
        None => {
            let waiting = client.fetch(MAX_SEARCHED).await?;
            waiting.into_iter().find(|mail| is_own(client, mail, &id))
        }
    };
    let mail = found.ok_or(SelfTestError::Lost)?;
    client.acknowledge(&[mail.id]).await?;
    Ok(began.elapsed())
}

async fn wait_for_push(
    client: &MediatorClient,
    live: &mut Live,
    id: &str,
    until: Instant,
) -> Result<Option<Mail>, SelfTestError> {
    loop {
        let Ok(mail) = timeout_at(until, live.next()).await else {
            return Ok(None);
        };
        let mut mail = mail?.into_iter();
        if let Some(found) = mail.find(|mail| is_own(client, mail, id)) {
            return Ok(Some(found));
        }
    }
}

fn is_own(client: &MediatorClient, mail: &Mail, id: &str) -> bool {
    let own = client.key().peer.as_str();
    unpack(&mail.envelope, client.key(), &[])
        .is_ok_and(|unpacked| unpacked.message.id == id && unpacked.sender.as_deref() == Some(own))
}

/// Posts a ping without a request for an answer, in the way in which mail is posted.
async fn post(
    net: &Net,
    clock: &Clock,
    client: &MediatorClient,
    id: &str,
) -> Result<(), SelfTestError> {
    let key: &MessagingKey = client.key();
    let now = clock.now().millis() / 1000;
    let ping = Ping {
        response_requested: false,
    };
    let message = Message::new(id, &ping).created_time(now);
    let sealed = seal(message, key, &key.peer).map_err(SelfTestError::Sealing)?;
    let document = client.document();
    let peer = key.peer.as_str();
    let wrapped = wrap(&sealed, peer, document, document, key, now, &|_| None)
        .map_err(SelfTestError::Wrapping)?;
    match wrapped {
        Progress::Done(wrapped) => Ok(send::post(net, wrapped).await?),
        Progress::Need(did) => Err(SelfTestError::Wrapping(RouteError::NoDocument(did))),
    }
}
