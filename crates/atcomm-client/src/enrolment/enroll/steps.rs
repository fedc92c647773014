//! The steps of enrolling, replacing a key and unenrolling.

use std::time::Duration;

use super::published::has;
use super::record::{Task, task};
use super::{EnrolError, Enroller, Located, Step, next_key};
use crate::account::Client;
use crate::enrolment::account::{AccountError, Published};
use crate::lookup::directory::DirectoryClient;
use crate::mediator::client::{MailError, MediatorClient};
use crate::wallet::enrolment::{Enrolment, KeyState, MAX_HOLDERS, MessagingKey, replace_all};
use atcomm_net::durable::Lock;
use atcomm_net::identity::Freshness;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{MediatorDid, Origin};

/// Times that a record is read and written again where another writer was faster.
const ATTEMPTS: usize = 4;

/// Interval of asking for a lock that another process holds.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

impl Enroller {
    /// Waits until no other process changes how the account is enrolled, and locks it.
    pub(super) async fn begin(
        &self,
        located: &Located,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Lock, EnrolError> {
        let store = self.store(located);
        if let Some(lock) = store.change_lock()? {
            return Ok(lock);
        }
        observe(Step::Waiting);
        loop {
            tokio::time::sleep(LOCK_POLL_INTERVAL).await;
            if let Some(lock) = store.change_lock()? {
                return Ok(lock);
            }
        }
    }

    /// Changes the enrolment in the wallet under its lock. On disk when it returns.
    pub(super) fn change(
        &self,
        located: &Located,
        change: impl FnOnce(Option<Enrolment>) -> Enrolment,
    ) -> Result<Enrolment, EnrolError> {
        let store = self.store(located);
        let _lock = store.lock()?;
        let mut enrolment = change(store.enrolment()?);
        enrolment.pds.clone_from(&located.pds);
        enrolment.handle.clone_from(&located.handle);
        store.save(&enrolment)?;
        Ok(enrolment)
    }

    /// Makes the record name the next key, and saves that it does. Expired keys are deleted after
    /// that and not before: until the record has been read it may name any of them, whatever the
    /// wallet and the clock say.
    pub(super) async fn publish(
        &self,
        located: &Located,
        replace: bool,
        observe: &mut dyn FnMut(Step),
    ) -> Result<(), EnrolError> {
        let client = self.client(located);
        let not_enrolled = || EnrolError::NotEnrolled(located.account.clone());
        let enrolment = self.store(located).enrolment()?.ok_or_else(not_enrolled)?;
        let key = next_key(&enrolment).ok_or_else(not_enrolled)?;
        let mut attempts = 0;
        let there = loop {
            let there = client.record().await?;
            let value = there.as_ref().map(|there| &there.value);
            let record = match task(&enrolment, key, value, replace, self.client.clock.now())? {
                Task::Nothing => {
                    observe(Step::Unchanged);
                    break there;
                }
                Task::Write(record) => record,
            };
            self.note_dropped(located, there.as_ref(), Some(key))?;
            attempts += 1;
            match client
                .put(&record, there.as_ref().map(|there| &there.cid))
                .await
            {
                Ok(_) => {
                    observe(Step::Published);
                    break there;
                }
                // Another writer, such as another device, was faster; the present record is read
                // again.
                Err(AccountError::Swapped) if attempts < ATTEMPTS => {}
                Err(error) => return Err(error.into()),
            }
        };
        let peer = key.peer.as_str().to_owned();
        let now = self.client.clock.now();
        let enrolment = self.change(located, |before| {
            let mut enrolment = before.unwrap_or(enrolment);
            update_states(&mut enrolment, &peer, there.as_ref(), now);
            enrolment
        })?;
        let present = enrolment.keys.iter().find(|key| key.peer.as_str() == peer);
        for dropped in present.into_iter().flat_map(|key| &key.dropped) {
            if dropped.at == Some(now) {
                observe(Step::Dropped(dropped.did.clone()));
            }
        }
        Ok(())
    }

    /// Notes the mediators that the record names for a key of the wallet and is about to name no
    /// more: mail may wait there whether or not the key was registered. `present` is the key that
    /// the record is going to name. On disk before the record is written.
    fn note_dropped(
        &self,
        located: &Located,
        there: Option<&Published>,
        present: Option<&MessagingKey>,
    ) -> Result<(), EnrolError> {
        let store = self.store(located);
        let (Some(there), Some(known)) = (there, store.enrolment()?) else {
            return Ok(());
        };
        let note = |mut enrolment: Enrolment| {
            for key in &mut enrolment.keys {
                if there.peer() != Some(key.peer.as_str()) {
                    continue;
                }
                if present.is_some_and(|present| present.peer == key.peer) {
                    key.note_changed(&there.mediators(), &enrolment.mediators);
                } else {
                    key.note_replaced(&there.mediators());
                }
            }
            enrolment
        };
        let count = |one: &Enrolment| one.keys.iter().map(|key| key.dropped.len()).sum::<usize>();
        if count(&note(known.clone())) > count(&known) {
            self.change(located, |before| note(before.unwrap_or(known)))?;
        }
        Ok(())
    }

    /// Deletes the record where it names a key of the wallet. Returns the did:peer of a record that
    /// names another one, which stays.
    pub(super) async fn withdraw(
        &self,
        located: &Located,
        enrolment: &Enrolment,
        observe: &mut dyn FnMut(Step),
    ) -> Result<Option<String>, EnrolError> {
        let client = self.client(located);
        let mut attempts = 0;
        loop {
            let Some(there) = client.record().await? else {
                observe(Step::Unchanged);
                return Ok(None);
            };
            if !has(enrolment, there.peer()) {
                observe(Step::Unchanged);
                return Ok(there.peer().map(str::to_owned));
            }
            self.note_dropped(located, Some(&there), None)?;
            attempts += 1;
            match client.delete(&there.cid).await {
                Ok(()) => {
                    observe(Step::Deleted);
                    return Ok(None);
                }
                Err(AccountError::Swapped) if attempts < ATTEMPTS => {}
                // Some servers delete the record and then fail to answer.
                Err(
                    AccountError::Refused { .. }
                    | AccountError::Unusable(_)
                    | AccountError::Malformed(_),
                ) if attempts < ATTEMPTS
                    && client
                        .record()
                        .await?
                        .is_none_or(|now| now.cid != there.cid) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has the directory refresh the account, and registers the published key with the mediators.
    /// Returns the mediators that have not accepted it.
    pub(super) async fn finish(
        &self,
        located: &Located,
        is_named: bool,
        observe: &mut dyn FnMut(Step),
    ) -> Result<(Enrolment, Vec<(MediatorDid, MailError)>), EnrolError> {
        let not_enrolled = || EnrolError::NotEnrolled(located.account.clone());
        let mut enrolment = self.store(located).enrolment()?.ok_or_else(not_enrolled)?;
        let key = enrolment.current().cloned().ok_or_else(not_enrolled)?;
        self.update_directory(&enrolment, Some(&key), is_named, observe)
            .await;
        let mut missing = Vec::new();
        for did in enrolment.mediators.clone() {
            match self.register(&did, &key, located).await {
                Ok(()) => {
                    enrolment = self.save_registration(located, &key, &did)?;
                    observe(Step::Registered(did));
                }
                Err(error) => {
                    observe(Step::RegisterFailed(did.clone(), error.clone()));
                    missing.push((did, error));
                }
            }
        }
        Ok((enrolment, missing))
    }

    /// Saves that a key is registered with a mediator.
    fn save_registration(
        &self,
        located: &Located,
        key: &MessagingKey,
        did: &MediatorDid,
    ) -> Result<Enrolment, EnrolError> {
        let not_enrolled = || EnrolError::NotEnrolled(located.account.clone());
        let before = self.store(located).enrolment()?.ok_or_else(not_enrolled)?;
        self.change(located, |known| {
            let mut enrolment = known.unwrap_or(before);
            for known in &mut enrolment.keys {
                if known.peer != key.peer {
                    continue;
                }
                known.dropped.retain(|one| one.did != *did);
                known.registered.retain(|one| one != did);
                if known.registered.len() < MAX_HOLDERS {
                    known.registered.push(did.clone());
                }
            }
            enrolment
        })
    }

    async fn mediator(
        &self,
        did: &MediatorDid,
        key: &MessagingKey,
    ) -> Result<MediatorClient, MailError> {
        let Client {
            net,
            identity,
            clock,
            ..
        } = &self.client;
        MediatorClient::open(net, identity, clock, did, key, Freshness::Cached).await
    }

    async fn register(
        &self,
        did: &MediatorDid,
        key: &MessagingKey,
        located: &Located,
    ) -> Result<(), MailError> {
        let mediator = self.mediator(did, key).await?;
        mediator.register(&located.account).await
    }

    /// Returns the directory of the first mediator that names one.
    pub(super) async fn directory_of(&self, mediators: &[MediatorDid]) -> Option<Origin> {
        for did in mediators {
            if let Some(directory) = self.client.identity.directory_beside(did).await {
                return Some(directory);
            }
        }
        None
    }

    /// Asks the directory to refresh the account now, instead of when the event stream brings the
    /// change.
    pub(super) async fn update_directory(
        &self,
        enrolment: &Enrolment,
        key: Option<&MessagingKey>,
        is_named: bool,
        observe: &mut dyn FnMut(Step),
    ) {
        let Some(directory) = &enrolment.directory else {
            return;
        };
        let net = self.client.net.clone();
        let client = if is_named {
            DirectoryClient::configured(net, directory.clone())
        } else {
            DirectoryClient::untrusted(net, directory.clone())
        };
        let wanted: &[&str] = match key {
            Some(_) => &["package", "unchanged"],
            None => &["removed", "notEnrolled"],
        };
        let directory = directory.clone();
        observe(match client.refresh(&enrolment.account).await {
            Ok(seen) if wanted.contains(&seen.outcome.as_str()) => {
                Step::DirectoryUpdated(directory)
            }
            Ok(seen) => {
                let reason = seen.reason.unwrap_or(seen.outcome);
                Step::DirectoryPending(directory, format!("it found {reason}"))
            }
            Err(error) => Step::DirectoryPending(directory, error.to_string()),
        });
    }
}

/// Updates the states of the keys after a write of the record, which names `present` now and was
/// `there` before. Expired keys are deleted, but only where the record was read: an unread one may
/// name any of them.
fn update_states(
    enrolment: &mut Enrolment,
    present: &str,
    there: Option<&Published>,
    now: Timestamp,
) {
    let Enrolment {
        keys, mediators, ..
    } = enrolment;
    replace_all(keys, Some(present), mediators, now);
    let before = there.and_then(Published::peer);
    for key in &mut *keys {
        let peer = key.peer.as_str();
        if peer == present {
            // A wallet of before has mediators that the record does not name, and no time.
            key.note_changed(&[], mediators);
            key.date_dropped(mediators, now);
            if !matches!(key.state, KeyState::Published { .. }) {
                key.state = KeyState::Published { at: now };
            }
        } else if before == Some(peer) {
            // Senders used it until now, whatever state was saved.
            key.state = KeyState::Replaced { at: now };
        }
    }
    if there.is_some() {
        keys.retain(|key| key.reads(now));
    }
}

#[cfg(test)]
mod tests {
    use ipld_core::cid::Cid;
    use serde_json::json;

    use super::*;
    use crate::enrolment::enroll::mint;
    use crate::wallet::enrolment::{DROPPED_MEDIATOR_RETENTION, REPLACED_KEY_RETENTION};
    use crate::wallet::stored::MAX_KEYS;
    use atcomm_proto::syntax::Did;

    const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

    fn key(state: KeyState) -> MessagingKey {
        MessagingKey {
            state,
            ..MessagingKey::mint(NOW)
        }
    }

    fn record(peer: &str) -> Published {
        Published {
            cid: Cid::default(),
            value: json!({"did": peer}),
        }
    }

    fn mediator(name: &str) -> MediatorDid {
        MediatorDid::parse(&format!("did:web:{name}.example.com")).unwrap()
    }

    fn enrolment(keys: Vec<MessagingKey>) -> Enrolment {
        Enrolment {
            account: Did::parse("did:web:bob.example.com").unwrap(),
            handle: None,
            pds: Origin::parse("https://pds.example.com").unwrap(),
            directory: None,
            mediators: Vec::new(),
            label: None,
            keys,
        }
    }

    fn peers(keys: &[MessagingKey]) -> Vec<String> {
        keys.iter().map(|key| key.peer.to_string()).collect()
    }

    #[test]
    fn keys_go_when_the_record_is_known_and_never_the_one_that_it_named() {
        let long_ago = KeyState::Replaced {
            at: NOW.minus(REPLACED_KEY_RETENTION * 3),
        };
        let keys = vec![key(KeyState::Minted), key(long_ago), key(long_ago)];
        let [new, named, old] = [0, 1, 2].map(|place: usize| peers(&keys)[place].clone());
        // The key is saved as replaced, and the record names it all the same.
        let mut seen = enrolment(keys.clone());
        update_states(&mut seen, &new, Some(&record(&named)), NOW);
        assert_eq!(peers(&seen.keys), [new.clone(), named.clone()]);
        assert_eq!(seen.keys[0].state, KeyState::Published { at: NOW });
        assert_eq!(seen.keys[1].state, KeyState::Replaced { at: NOW });
        // The record before is unknown.
        let mut unseen = enrolment(keys);
        update_states(&mut unseen, &new, None, NOW);
        assert_eq!(peers(&unseen.keys), [new.clone(), named, old]);
        // The record names it already.
        let later = NOW.plus(REPLACED_KEY_RETENTION);
        update_states(&mut seen, &new, Some(&record(&new)), later);
        assert_eq!(peers(&seen.keys), [new]);
        assert_eq!(seen.keys[0].state, KeyState::Published { at: NOW });
    }

    #[test]
    fn inv3_every_mediator_that_was_named_is_asked_until_the_time_is_over() {
        let [first, second] = ["a", "b"].map(mediator);
        let mut moved = enrolment(vec![key(KeyState::Published { at: NOW })]);
        let peer = peers(&moved.keys)[0].clone();
        // A wallet of before knows a mediator that the record does not name, and not since when.
        moved.keys[0].registered = vec![first.clone(), second.clone()];
        moved.mediators = vec![second.clone()];
        update_states(&mut moved, &peer, Some(&record(&peer)), NOW);
        let left = |one: &Enrolment, at| {
            let may_leave = |did: &&&MediatorDid| one.may_leave(&one.keys[0], did, at);
            let holders = one.holders(&one.keys[0]);
            holders
                .iter()
                .filter(may_leave)
                .copied()
                .cloned()
                .collect::<Vec<_>>()
        };
        let over = NOW.plus(DROPPED_MEDIATOR_RETENTION);
        assert_eq!(moved.holders(&moved.keys[0]), [&second, &first]);
        assert_eq!(
            left(&moved, over.minus(std::time::Duration::from_millis(1))),
            []
        );
        assert_eq!(left(&moved, over), std::slice::from_ref(&first));
        // Mail is not relayed by way of it.
        assert_eq!(
            moved.mediators_of(&moved.keys[0]),
            std::slice::from_ref(&second)
        );
        // A later run does not begin the time anew; naming it again ends the time.
        update_states(&mut moved, &peer, Some(&record(&peer)), over);
        assert_eq!(left(&moved, over), std::slice::from_ref(&first));
        moved.mediators = vec![first.clone()];
        update_states(&mut moved, &peer, Some(&record(&peer)), over);
        assert_eq!(left(&moved, over), []);
        assert_eq!(
            left(&moved, over.plus(DROPPED_MEDIATOR_RETENTION)),
            [second]
        );
        // Noted, and the record is not known to be written: not left however long that takes.
        moved.mediators.clear();
        moved.keys[0].note_changed(std::slice::from_ref(&first), &[]);
        assert!(!left(&moved, over.plus(DROPPED_MEDIATOR_RETENTION * 9)).contains(&first));
    }

    #[test]
    fn where_there_is_no_room_the_key_in_the_record_is_not_the_one_that_goes() {
        let mut keys: Vec<_> = (0..MAX_KEYS)
            .map(|age| {
                let age = std::time::Duration::from_secs(age as u64);
                key(KeyState::Replaced { at: NOW.minus(age) })
            })
            .collect();
        let all = peers(&keys);
        let [.., before_last, last] = &all[..] else {
            panic!("two at least")
        };
        mint(&mut keys, Some(&record(last)), NOW);
        let left = peers(&keys);
        assert_eq!((keys.len(), keys[0].state), (MAX_KEYS, KeyState::Minted));
        assert!(left.contains(last) && !left.contains(before_last));
    }
}
