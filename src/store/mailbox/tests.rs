use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::*;
use atcomm_proto::clock::Timestamp;

mod accounts;
mod counters;
mod file;
mod log;
mod outbox;
mod plans;
mod purge;
mod queue;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + seconds * 1000)
}

struct Fixture {
    _dir: tempfile::TempDir,
    path: PathBuf,
    store: Arc<MailboxStore>,
}

fn open() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mailbox.db");
    let store = Arc::new(MailboxStore::open(&path).unwrap());
    Fixture {
        _dir: dir,
        path,
        store,
    }
}

impl Fixture {
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.transact(work).await.unwrap()
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Queries<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> T {
        self.store.query(work).await.unwrap()
    }

    /// An account with the given recipients; returns its id and theirs.
    async fn account(&self, did: &str, recipients: &[&str]) -> (i64, Vec<i64>) {
        let account = account(did);
        let recipients: Vec<_> = recipients.iter().map(|&did| did.to_owned()).collect();
        self.write(move |tx| {
            let id = tx.put_account(&account)?;
            let mut ids = Vec::new();
            for did in &recipients {
                assert_eq!(tx.bind(did, id)?, Bound::New);
                ids.push(tx.recipient(did)?.unwrap().id);
            }
            Ok((id, ids))
        })
        .await
    }

    async fn push(&self, recipient: i64, text: &str) -> Pushed {
        let text = text.to_owned();
        self.write(move |tx| tx.push(&message(recipient, &text), &AMPLE))
            .await
    }

    async fn texts(&self, queue: Queue, after: i64, limit: usize, max_bytes: u64) -> Vec<String> {
        self.read(move |q| q.peek(queue, after, limit, up_to(max_bytes), at(1)))
            .await
            .into_iter()
            .map(|message| {
                assert_eq!(message.hash, hash(&message.body));
                String::from_utf8(message.body).unwrap()
            })
            .collect()
    }
}

/// Returns a choice of messages of at most `max` bytes together, but one at least.
fn up_to(max: u64) -> impl FnMut(u64) -> bool {
    let mut bytes = 0;
    move |len| {
        let is_first = bytes == 0;
        bytes += len;
        is_first || bytes <= max
    }
}

const AMPLE: Quota = Quota {
    messages: 1 << 40,
    bytes: 1 << 40,
    total_bytes: 1 << 40,
    seen_since: Timestamp::from_millis(0),
};

/// A sender whose class may use all of a quota.
const ONE: &[Sender] = &[sender(1, SenderClass::Local)];

const fn sender(number: u8, class: SenderClass) -> Sender {
    let mut group = [0; 16];
    group[0] = number;
    Sender {
        group: SenderGroup(group),
        class,
    }
}

fn hash(body: &[u8]) -> [u8; 32] {
    Sha256::digest(body).into()
}

fn account(did: &str) -> Account {
    Account {
        id: 0,
        did: did.to_owned(),
        long: format!("{did}:long"),
        granted_at: at(0),
        provisional_until: None,
        address_group: None,
        seen_at: at(0),
        dates_changes: false,
    }
}

/// Stored at 0, available at once, expires at 100.
fn message(recipient: i64, text: &str) -> Push<'_> {
    Push {
        recipient,
        hash: hash(text.as_bytes()),
        body: text.as_bytes(),
        now: at(0),
        available_at: at(0),
        expires_at: at(100),
        senders: ONE,
    }
}
