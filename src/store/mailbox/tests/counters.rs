//! Counters against a recount, and contents against a model, under random operations.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rusqlite::Connection;

use super::super::super::schema;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    Push {
        to: u8,
        text: u8,
        delay: i64,
        ttl: i64,
    },
    Ack {
        account: u8,
        texts: Vec<u8>,
    },
    Bind {
        to: u8,
        account: u8,
    },
    Rebind {
        to: u8,
        account: u8,
    },
    Unbind {
        to: u8,
        account: u8,
    },
    DeleteAccount {
        account: u8,
    },
    DropIdle,
    Release {
        limit: usize,
    },
    Expire {
        limit: usize,
    },
    Out {
        destination: u8,
        text: u8,
    },
    OutDone {
        destination: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (to, account, text) = (0..5_u8, 0..3_u8, 0..12_u8);
    prop_oneof![
        8 => (to.clone(), text.clone(), 0..6_i64, 1..30_i64)
            .prop_map(|(to, text, delay, ttl)| Step::Push { to, text, delay, ttl }),
        3 => (account.clone(), prop::collection::vec(text.clone(), 0..5))
            .prop_map(|(account, texts)| Step::Ack { account, texts }),
        2 => (to.clone(), account.clone()).prop_map(|(to, account)| Step::Bind { to, account }),
        1 => (to.clone(), account.clone()).prop_map(|(to, account)| Step::Rebind { to, account }),
        1 => (to, account.clone()).prop_map(|(to, account)| Step::Unbind { to, account }),
        1 => account.prop_map(|account| Step::DeleteAccount { account }),
        1 => Just(Step::DropIdle),
        1 => (1..4_usize).prop_map(|limit| Step::Release { limit }),
        1 => (1..4_usize).prop_map(|limit| Step::Expire { limit }),
        3 => (0..3_u8, text).prop_map(|(destination, text)| Step::Out { destination, text }),
        1 => (0..3_u8).prop_map(|destination| Step::OutDone { destination }),
    ]
}

fn body(text: u8) -> Vec<u8> {
    vec![text; usize::from(text) + 1]
}

/// What waits for each recipient, by text: when it ends.
#[derive(Default)]
struct Model {
    mail: BTreeMap<(String, u8), i64>,
    bound: BTreeMap<String, u8>,
}

const QUOTA: Quota = Quota {
    messages: 6,
    bytes: 40,
    total_bytes: 90,
};

impl Model {
    fn bytes(&self, of: Option<&str>) -> (u64, u64) {
        let held = self
            .mail
            .keys()
            .filter(|(did, _)| of.is_none_or(|of| of == did));
        held.fold((0, 0), |(messages, bytes), (_, text)| {
            (messages + 1, bytes + body(*text).len() as u64)
        })
    }

    fn push(&mut self, did: &str, text: u8, ends: i64) -> &'static str {
        let size = body(text).len() as u64;
        let (messages, bytes) = self.bytes(Some(did));
        let key = (did.to_owned(), text);
        if let Some(known) = self.mail.get_mut(&key) {
            *known = ends.max(*known);
            "duplicate"
        } else if messages >= QUOTA.messages || bytes + size > QUOTA.bytes {
            "recipient full"
        } else if self.bytes(None).1 + size > QUOTA.total_bytes {
            "store full"
        } else {
            self.mail.insert(key, ends);
            "stored"
        }
    }
}

fn word(pushed: Pushed) -> &'static str {
    match pushed {
        Pushed::Stored(_) => "stored",
        Pushed::Duplicate => "duplicate",
        Pushed::RecipientFull => "recipient full",
        Pushed::StoreFull => "store full",
        Pushed::Gone => "gone",
    }
}

fn recount(conn: &Connection) {
    let wrong: i64 = conn
        .query_row(
            "SELECT (SELECT count(*) FROM recipient r WHERE (r.messages, r.bytes) IS NOT
                 (SELECT count(*), coalesce(sum(length(body)), 0) FROM message m
                  WHERE m.recipient = r.id))
               + (SELECT count(*) FROM destination d WHERE (d.waiting, d.waiting_bytes) IS NOT
                 (SELECT count(*), coalesce(sum(length(body)), 0) FROM outbound o
                  WHERE o.destination = d.did))
               + (SELECT (messages, bytes) IS NOT
                   (SELECT count(*), coalesce(sum(length(body)), 0) FROM message)
                  FROM total WHERE name = 'mail')
               + (SELECT (messages, bytes) IS NOT
                   (SELECT count(*), coalesce(sum(length(body)), 0) FROM outbound)
                  FROM total WHERE name = 'relay')",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(wrong, 0, "a counter differs from what is there");
}

fn apply(tx: &Tx<'_>, model: &mut Model, step: &Step, now: i64) {
    let did = |to: u8| format!("did:peer:r{to}");
    let account_id = |n: u8| tx.put_account(&account(&format!("did:peer:a{n}"))).unwrap();
    match step {
        Step::Push {
            to,
            text,
            delay,
            ttl,
        } => {
            let recipient = tx.open_queue(&did(*to)).unwrap();
            let body = body(*text);
            let push = Push {
                recipient,
                hash: hash(&body),
                body: &body,
                now: at(now),
                available_at: at(now + delay),
                expires_at: at(now + ttl),
            };
            let pushed = word(tx.push(&push, &QUOTA).unwrap());
            assert_eq!(pushed, model.push(&did(*to), *text, now + ttl));
        }
        Step::Ack { account, texts } => {
            let hashes: Vec<_> = texts.iter().map(|text| hash(&body(*text))).collect();
            let removed = tx.ack(account_id(*account), &hashes).unwrap();
            let before = model.mail.len();
            let bound = &model.bound;
            model
                .mail
                .retain(|(did, text), _| bound.get(did) != Some(account) || !texts.contains(text));
            assert_eq!(removed, (before - model.mail.len()) as u64);
        }
        Step::Bind { to, account } => {
            let bound = tx.bind(&did(*to), account_id(*account)).unwrap();
            let held = *model.bound.entry(did(*to)).or_insert(*account);
            assert_eq!(matches!(bound, Bound::Taken(_)), held != *account);
        }
        Step::Rebind { to, account } => {
            tx.rebind(&did(*to), account_id(*account)).unwrap();
            model.bound.insert(did(*to), *account);
        }
        Step::Unbind { to, account } => {
            let unbound = tx.unbind(&did(*to), account_id(*account)).unwrap();
            assert_eq!(unbound, model.bound.get(&did(*to)) == Some(account));
            if unbound {
                model.bound.remove(&did(*to));
            }
        }
        Step::DeleteAccount { account } => {
            assert!(tx.delete_account(account_id(*account)).unwrap());
            model.bound.retain(|_, holder| holder != account);
        }
        Step::DropIdle => {
            tx.drop_idle_recipients(9).unwrap();
            for to in 0..5 {
                let needed =
                    model.bound.contains_key(&did(to)) || model.bytes(Some(&did(to))).0 > 0;
                assert_eq!(tx.recipient(&did(to)).unwrap().is_some(), needed);
            }
        }
        Step::Release { limit } => {
            tx.release(at(now), *limit).unwrap();
        }
        Step::Expire { limit } => {
            let expired = tx.expire(at(now), *limit).unwrap();
            let past = model.mail.values().filter(|ends| **ends <= now).count();
            assert_eq!(expired, past.min(*limit) as u64);
            // Which of those that ended together went is the store's choice.
            let conn = tx.conn();
            model.mail.retain(|(did, text), _| {
                conn.prepare(
                    "SELECT 1 FROM message m JOIN recipient r ON r.id = m.recipient
                     WHERE r.did = ?1 AND m.hash = ?2",
                )
                .unwrap()
                .exists(rusqlite::params![did, hash(&body(*text))])
                .unwrap()
            });
        }
        Step::Out { destination, text } => {
            let body = body(*text);
            let new = NewOutbound {
                destination: &format!("did:web:d{destination}"),
                route: "{}",
                hash: hash(&body),
                body: &body,
                sender: None,
                thread: None,
                now: at(now),
                next_at: at(now),
                expires_at: at(now + 9),
            };
            let quota = OutboxQuota {
                per_destination_messages: 4,
                per_destination_bytes: 30,
                total_bytes: 60,
            };
            tx.outbox_push(&new, &quota).unwrap();
            assert!(tx.outbox_totals().unwrap().1 <= 60);
            assert!(tx.outbox_of(new.destination).unwrap() <= (4, 30));
        }
        Step::OutDone { destination } => {
            let destination = format!("did:web:d{destination}");
            let others: Vec<_> = (0..3).map(|n| format!("did:web:d{n}")).collect();
            let others: Vec<_> = others.into_iter().filter(|d| *d != destination).collect();
            for due in tx.outbox_due(at(now), 9, &others).unwrap() {
                tx.outbox_done(due.id, Outcome::Delivered, None, at(now))
                    .unwrap();
            }
            assert_eq!(tx.outbox_of(&destination).unwrap(), (0, 0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn counters_are_what_a_recount_gives(steps in prop::collection::vec(step(), 1..80)) {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        schema::migrate(&conn, schema::MAILBOX.migrations).unwrap();
        let tx = Tx::new(&conn);
        let mut model = Model::default();
        for (now, step) in (0..).zip(&steps) {
            apply(&tx, &mut model, step, now);
            recount(&conn);
            prop_assert_eq!(tx.totals().unwrap(), model.bytes(None));
        }
        // What is delivered to an account is what the model holds for it.
        let now = steps.len() as i64 + 6;
        for n in 0..3 {
            let id = tx.put_account(&account(&format!("did:peer:a{n}"))).unwrap();
            let mut expected: Vec<_> = model
                .mail
                .iter()
                .filter(|((did, _), ends)| model.bound.get(did) == Some(&n) && **ends > now)
                .map(|((did, text), _)| (did.clone(), body(*text)))
                .collect();
            let delivered = tx.peek(Queue::Account(id), 0, 999, 9999, at(now)).unwrap();
            prop_assert!(delivered.is_sorted_by_key(|message| message.id));
            let status = tx.queue(Queue::Account(id), at(now)).unwrap();
            let bytes = delivered.iter().map(|message| message.body.len() as u64).sum();
            prop_assert_eq!((status.messages, status.bytes), (delivered.len() as u64, bytes));
            let mut delivered: Vec<_> =
                delivered.into_iter().map(|message| (message.recipient, message.body)).collect();
            delivered.sort();
            expected.sort();
            prop_assert_eq!(delivered, expected);
        }
    }
}
