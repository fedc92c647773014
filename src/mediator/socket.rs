//! A conversation over one WebSocket: requests and their answers, and mail as it comes.
//!
//! Trust comes from each envelope, never from the socket: several DIDs may use one. What the
//! socket itself has is whether it may be answered on, and who is in live mode on it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;

use super::live::LiveSubscription;
use super::session::{self, LiveChange, LiveMode, Transport, Wrapped};
use super::{Answer, Core, Refused, count_refused};
use crate::store::{Message as Mail, StoreError};

/// One WebSocket's side of the mediator.
pub struct SocketSession {
    mediator: Arc<Core>,
    address: IpAddr,
    /// Whether answers are wanted on it: said once, it holds.
    answers: bool,
    live: BTreeMap<i64, LiveAccount>,
    /// Rung when mail comes for one of the accounts.
    wake: Arc<Notify>,
    /// Whether there may be mail that was not looked for yet.
    check_store: bool,
}

struct LiveAccount {
    mode: LiveMode,
    _subscription: LiveSubscription,
}

impl SocketSession {
    pub(super) fn new(mediator: Arc<Core>, address: IpAddr) -> Self {
        Self {
            mediator,
            address,
            answers: false,
            live: BTreeMap::new(),
            wake: Arc::new(Notify::new()),
            check_store: false,
        }
    }

    /// Takes one message. Returns what is to be sent now.
    pub async fn receive(&mut self, message: &[u8]) -> Vec<Bytes> {
        let mediator = Arc::clone(&self.mediator);
        // A socket is slowed down where a request would be refused.
        while let Err(wait) = mediator.by_address.charge(self.address) {
            count_refused(&Refused::RateLimited(wait));
            tokio::time::sleep(wait).await;
        }
        let transport = Transport::Socket {
            address: self.address,
            answers: self.answers,
            live: self.live.keys().copied().collect(),
        };
        let output = match session::receive(&mediator, message, transport).await {
            Ok(output) => output,
            Err(refused) => {
                // Nobody is known to answer to; what was not acknowledged will be sent again.
                count_refused(&refused);
                return Vec::new();
            }
        };
        self.answers = output.answers.unwrap_or(self.answers);
        if let Some(change) = output.live {
            self.change(change);
        }
        match output.answer {
            Answer::Reply(_, message) => vec![message],
            Answer::Accepted => Vec::new(),
        }
    }

    fn change(&mut self, change: LiveChange) {
        let LiveChange { account, on } = change;
        let Some(mode) = on else {
            self.live.remove(&account);
            return;
        };
        if let Some(known) = self.live.get_mut(&account) {
            // On already: what was not pushed yet still is.
            known.mode.wrapped = mode.wrapped;
            return;
        }
        let subscription = self.mediator.live.subscribe(account, &self.wake);
        self.live.insert(
            account,
            LiveAccount {
                mode,
                _subscription: subscription,
            },
        );
        // Mail may have come between the answer's count and the listening.
        self.check_store = true;
    }

    /// Looks for mail at the next turn, whether or not anybody rang.
    pub fn check_store(&mut self) {
        self.check_store = !self.live.is_empty();
    }

    /// Waits for mail of those in live mode. Returns what is to be sent. Can be dropped while it
    /// waits: nothing is passed over by that, because only what is returned moves on.
    pub async fn live(&mut self) -> Vec<Bytes> {
        loop {
            if !self.check_store {
                self.wake.notified().await;
                self.check_store = true;
            }
            match self.new_mail().await {
                Ok(messages) if messages.is_empty() => self.check_store = false,
                // There may be more than fits at once: look again after these.
                Ok(messages) => return messages,
                Err(error) => {
                    tracing::error!(%error, "cannot read mail for a socket");
                    self.check_store = false;
                }
            }
        }
    }

    async fn new_mail(&mut self) -> Result<Vec<Bytes>, StoreError> {
        let accounts: Vec<i64> = self.live.keys().copied().collect();
        for account in accounts {
            let Some(known) = self.live.get(&account) else {
                continue;
            };
            let mail = self.mediator.new_mail(account, known.mode.after).await?;
            let Some(last) = mail.last().map(|last| last.id) else {
                continue;
            };
            let pushed = mail.len() as u64;
            let wrapped = known.mode.wrapped.clone();
            let messages = match wrapped {
                None => mail.into_iter().map(|one| one.body.into()).collect(),
                Some(wrapped) => self.wrap(&mail, &wrapped),
            };
            // Nothing waits between this and the return.
            if let Some(known) = self.live.get_mut(&account) {
                known.mode.after = last;
            }
            metrics::counter!("atcomm_mediator_handed_out_total", "how" => "live")
                .increment(pushed);
            return Ok(messages);
        }
        Ok(Vec::new())
    }

    fn wrap(&self, mail: &[Mail], ends: &Wrapped) -> Vec<Bytes> {
        let keys = self.mediator.keys();
        // Keys that were forgotten meanwhile are answered by those of today.
        let own = keys.identity(&ends.own).unwrap_or(keys.web_identity());
        let delivery = session::live_delivery(mail, self.mediator.clock.now());
        match session::encrypt(delivery, own, &ends.sender) {
            Ok(message) => vec![message],
            Err(_) => Vec::new(),
        }
    }
}
