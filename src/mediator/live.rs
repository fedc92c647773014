//! Sockets in live mode: new mail of an account wakes all its sockets.
//!
//! A wake-up carries no data: the socket asks the store for messages after the last one that it has
//! pushed. So a lost or doubled wake-up loses and doubles no message.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Sockets in live mode, by account.
#[derive(Default)]
pub(super) struct LiveSockets {
    listeners: Mutex<HashMap<i64, Vec<Arc<Notify>>>>,
}

/// Keeps a socket subscribed to an account until it is dropped.
pub(super) struct LiveSubscription {
    live: Arc<LiveSockets>,
    account: i64,
    wake: Arc<Notify>,
}

impl LiveSockets {
    /// Notifies `wake` of new mail of the account as long as the subscription lives.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        account: i64,
        wake: &Arc<Notify>,
    ) -> LiveSubscription {
        let mut listeners = self.lock();
        listeners.entry(account).or_default().push(Arc::clone(wake));
        LiveSubscription {
            live: Arc::clone(self),
            account,
            wake: Arc::clone(wake),
        }
    }

    /// Wakes all sockets of the account. A socket that is not waiting wakes when it next waits.
    pub(super) fn wake(&self, account: i64) {
        if let Some(sockets) = self.lock().get(&account) {
            sockets.iter().for_each(|wake| wake.notify_one());
        }
    }

    /// Returns whether an account has a socket in live mode.
    pub(super) fn contains(&self, account: i64) -> bool {
        self.lock().contains_key(&account)
    }

    /// Returns the number of accounts with a socket in live mode.
    pub(super) fn accounts(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Vec<Arc<Notify>>>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LiveSubscription {
    fn drop(&mut self) {
        let mut listeners = self.live.lock();
        if let Some(sockets) = listeners.get_mut(&self.account) {
            // One subscription of this socket only.
            if let Some(at) = sockets
                .iter()
                .position(|wake| Arc::ptr_eq(wake, &self.wake))
            {
                sockets.swap_remove(at);
            }
            if sockets.is_empty() {
                listeners.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn every_socket_of_an_account_is_woken_and_forgotten_when_it_ends() {
        let live = Arc::new(LiveSockets::default());
        let (first, second) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let one = live.subscribe(1, &first);
        let two = live.subscribe(1, &second);
        let other = live.subscribe(2, &second);
        live.wake(1);
        live.wake(1);
        assert!(first.notified().now_or_never().is_some());
        assert!(second.notified().now_or_never().is_some());
        // Two wake-ups while the socket is not waiting are one.
        assert!(first.notified().now_or_never().is_none());
        drop(one);
        live.wake(1);
        assert!(first.notified().now_or_never().is_none());
        assert!(second.notified().now_or_never().is_some());
        drop(two);
        assert_eq!(live.accounts(), 1);
        drop(other);
        assert_eq!(live.accounts(), 0);
    }
}
