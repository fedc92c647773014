//! Attribution of messages: the look-up of their senders, the contacts that come of it, and the time
//! that may be spent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::lookup::sender::{Attributed, SenderLookup};
use crate::wallet::Wallet;
use crate::wallet::error::WalletError;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::verify::attribution::{
    AccountState, Attribution, Claim, UnverifiedReason, attribute,
};

/// Timeout for attributing one message.
const ATTRIBUTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Time that may be spent within [`LOOKUP_BUDGET_WINDOW`] on accounts that are no contacts and
/// cannot be reached. Messages beyond it are shown as not verified, and their senders are looked up
/// when they are shown again.
const LOOKUP_BUDGET: Duration = Duration::from_secs(60);

/// Window of [`LOOKUP_BUDGET`].
const LOOKUP_BUDGET_WINDOW: Duration = Duration::from_secs(600);

/// Attributes messages of one account, and saves contacts.
pub(super) struct Attributor {
    wallet: Wallet,
    senders: SenderLookup,
    clock: Clock,
    budget: LookupBudget,
}

/// Time spent on accounts that cannot be reached. Each message may claim another account whose host
/// does not answer, and all messages behind it would wait.
#[derive(Default)]
struct LookupBudget(Mutex<Option<(Timestamp, Duration)>>);

impl LookupBudget {
    fn add(&self, time: Duration, now: Timestamp) {
        let mut budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *budget = Some(match *budget {
            Some((since, spent)) if now.since(since) < LOOKUP_BUDGET_WINDOW => {
                (since, spent + time)
            }
            _ => (now, time),
        });
    }

    fn is_spent(&self, now: Timestamp) -> bool {
        let budget = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        budget.is_some_and(|(since, spent)| {
            now.since(since) < LOOKUP_BUDGET_WINDOW && spent >= LOOKUP_BUDGET
        })
    }
}

impl Attributor {
    pub(super) fn new(wallet: Wallet, senders: SenderLookup, clock: Clock) -> Self {
        Self {
            wallet,
            senders,
            clock,
            budget: LookupBudget::default(),
        }
    }

    /// Attributes a message by what is known now, and saves what is learnt of a contact.
    pub(super) async fn attribute(&self, claim: &Claim) -> Result<Attribution, WalletError> {
        let pins = self.wallet.contacts()?;
        let account = claim.account();
        let is_known = account.is_none_or(|account| pins.iter().any(|pin| pin.account == account));
        if !is_known && self.budget.is_spent(self.clock.now()) {
            return Ok(self.unreachable(claim));
        }
        let began = Instant::now();
        let found = timeout(ATTRIBUTION_TIMEOUT, self.senders.attribute(claim, &pins)).await;
        let Attributed { attribution, pin } = found.unwrap_or_else(|_| Attributed {
            attribution: self.unreachable(claim),
            pin: None,
        });
        if !is_known && is_unreachable(&attribution) {
            self.budget.add(began.elapsed(), self.clock.now());
        }
        match self.wallet.record(&pins, pin.as_ref()) {
            // A contact too long for its file is the doing of its account, which thereby stays
            // unknown; the message counts.
            Ok(_) | Err(WalletError::TooLong { .. }) => Ok(attribution),
            Err(error) => Err(error),
        }
    }

    fn unreachable(&self, claim: &Claim) -> Attribution {
        let unknown = AccountState::Unknown(UnverifiedReason::Unreachable);
        attribute(claim, &unknown, None, self.clock.now())
    }
}

fn is_unreachable(attribution: &Attribution) -> bool {
    matches!(
        attribution,
        Attribution::Unverified {
            reason: UnverifiedReason::Unreachable,
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv7_senders_whose_hosts_hang_delay_the_others_for_a_bounded_time() {
        let budget = LookupBudget::default();
        let start = Timestamp::from_millis(1_800_000_000_000);
        assert!(!budget.is_spent(start));
        budget.add(LOOKUP_BUDGET / 2, start);
        assert!(!budget.is_spent(start));
        budget.add(LOOKUP_BUDGET / 2, start.plus(LOOKUP_BUDGET_WINDOW / 2));
        assert!(budget.is_spent(start.plus(LOOKUP_BUDGET_WINDOW / 2)));
        let later = start.plus(LOOKUP_BUDGET_WINDOW);
        assert!(!budget.is_spent(later));
        budget.add(LOOKUP_BUDGET / 2, later);
        assert!(!budget.is_spent(later));
    }
}
