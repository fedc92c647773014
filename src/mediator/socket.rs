//! A conversation over one WebSocket: requests and their answers, and mail as it comes.
//!
//! Each envelope proves its own sender, since several DIDs may use one socket. The socket only has
//! whether it may be answered on, and the accounts in live mode on it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::delivery::{DeliveryRoom, NoRoom, Wrapping};
use super::live::LiveSubscription;
use super::response_memory::ResponsePermit;
use super::session::{self, LiveChange, LiveMode, Transport, WrappedDelivery};
use super::{Answer, Core, Refused, count_refused};
use crate::store::{Message as Mail, StoreError};
use atcomm_proto::didcomm::envelope;

/// One WebSocket's side of the mediator.
pub struct SocketSession {
    core: Arc<Core>,
    address: IpAddr,
    /// Whether answers are wanted on the socket. Once asked for, this holds for later messages.
    may_answer: bool,
    live: BTreeMap<i64, LiveAccount>,
    /// Notified when mail comes for one of the accounts.
    wake: Arc<Notify>,
    /// Whether the store may hold mail that was not pushed yet.
    check_store: bool,
}

struct LiveAccount {
    mode: LiveMode,
    _subscription: LiveSubscription,
}

impl SocketSession {
    pub(super) fn new(core: Arc<Core>, address: IpAddr) -> Self {
        Self {
            core,
            address,
            may_answer: false,
            live: BTreeMap::new(),
            wake: Arc::new(Notify::new()),
            check_store: false,
        }
    }

    /// Handles one message. Returns the messages to send now.
    pub async fn receive(&mut self, message: &[u8]) -> Vec<Bytes> {
        // A socket is slowed down where a request would be refused.
        while let Err(wait) = self.core.by_address.charge(self.address) {
            count_refused(&Refused::RateLimited(wait));
            tokio::time::sleep(wait).await;
        }
        let transport = Transport::Socket {
            address: self.address,
            may_answer: self.may_answer,
            live: self.live.keys().copied().collect(),
        };
        let output = match session::receive(&self.core, message, transport).await {
            Ok(output) => output,
            Err(refused) => {
                // No sender is known to answer. A message without an acknowledgement is sent again.
                count_refused(&refused);
                return Vec::new();
            }
        };
        self.may_answer = output.may_answer.unwrap_or(self.may_answer);
        if let Some(change) = output.live {
            self.change_live(change);
        }
        match output.answer {
            Answer::Reply(_, message) => vec![message],
            Answer::Accepted => Vec::new(),
        }
    }

    fn change_live(&mut self, change: LiveChange) {
        let LiveChange { account, on } = change;
        let Some(mode) = on else {
            self.live.remove(&account);
            return;
        };
        if let Some(known) = self.live.get_mut(&account) {
            // On already: `after` stays, so that mail that was not pushed yet still is.
            known.mode.wrapped = mode.wrapped;
            return;
        }
        let subscription = self.core.queues.subscribe(account, &self.wake);
        self.live.insert(
            account,
            LiveAccount {
                mode,
                _subscription: subscription,
            },
        );
        // Mail may have come between the count in the answer and the subscription.
        self.check_store = true;
    }

    /// Asks the store for mail at the next turn, woken or not.
    pub fn check_store(&mut self) {
        self.check_store = !self.live.is_empty();
    }

    /// Waits for mail of the accounts in live mode. Returns the messages to send. Cancel safe: a
    /// message counts as pushed only when it is returned.
    ///
    /// Mail that finds no memory stays in the store until there is some, or as much of it as finds
    /// some is pushed.
    pub async fn live(&mut self) -> Vec<Bytes> {
        loop {
            if !self.check_store {
                self.wake.notified().await;
                self.check_store = true;
            }
            match self.new_mail().await {
                // More mail may wait than fits at once, so the store is asked again after these.
                Ok(NewMail::Messages(messages)) => return messages,
                Ok(NewMail::None) => self.check_store = false,
                Ok(NewMail::NoRoom(no_room, permit)) => tokio::select! {
                    () = permit.wait_for(no_room.len) => {}
                    // Mail of another account may be smaller.
                    () = self.wake.notified() => {}
                },
                Err(error) => {
                    tracing::error!(%error, "cannot read mail for a socket");
                    self.check_store = false;
                }
            }
        }
    }

    /// Returns the next messages of the first account that has any and for which there is room.
    async fn new_mail(&mut self) -> Result<NewMail, StoreError> {
        let mut found = NewMail::None;
        for (account, live) in &mut self.live {
            let wrapping = match live.mode.wrapped {
                None => Wrapping::Bare,
                Some(_) => Wrapping::Delivery,
            };
            let permit = self.core.response_memory.permit(self.address, *account);
            let (mut mail, room) = self
                .core
                .queues
                .messages_after(
                    *account,
                    live.mode.after,
                    DeliveryRoom::new(wrapping, permit),
                )
                .await?;
            let mut permit = match room.finish() {
                Ok(permit) => permit,
                Err((no_room, permit)) => {
                    found = NewMail::NoRoom(no_room, permit);
                    continue;
                }
            };
            let Some(last) = mail.last().map(|last| last.id) else {
                continue;
            };
            if live.mode.wrapped.is_none() {
                // What an older version stored and would be refused today is left for a delivery,
                // which tells its id.
                mail.retain(|one| envelope::check_encrypted(&one.body).is_ok());
            }
            let pushed = mail.len() as u64;
            let messages = match &live.mode.wrapped {
                None => mail
                    .into_iter()
                    .map(|one| {
                        let part = permit.split(wrapping.len_of(one.body.len() as u64));
                        part.attach(one.body.into())
                    })
                    .collect(),
                Some(ends) => wrap(&self.core, mail, ends)
                    .map(|delivery| permit.attach(delivery))
                    .into_iter()
                    .collect(),
            };
            // No await follows, so the messages are returned.
            live.mode.after = last;
            metrics::counter!("atcomm_mediator_handed_out_total", "how" => "live")
                .increment(pushed);
            return Ok(NewMail::Messages(messages));
        }
        Ok(found)
    }
}

/// What the store holds for the accounts in live mode.
enum NewMail {
    None,
    /// Mail, as it is pushed.
    Messages(Vec<Bytes>),
    /// Mail that finds no memory now.
    NoRoom(NoRoom, ResponsePermit),
}

/// Wraps messages into one encrypted delivery.
fn wrap(core: &Core, mail: Vec<Mail>, ends: &WrappedDelivery) -> Option<Bytes> {
    let keys = core.identity.keys();
    // The present identity takes over where the keys of the other have expired meanwhile.
    let own = keys.identity(&ends.from).unwrap_or(keys.web_identity());
    let delivery = session::live_delivery(mail, core.clock.now());
    session::encrypt_reply(delivery, own, &ends.to).ok()
}
