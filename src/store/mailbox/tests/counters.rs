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
        from: u8,
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
        from: u8,
    },
    OutDone {
        destination: u8,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (to, account, text) = (0..5_u8, 0..3_u8, 0..12_u8);
    prop_oneof![
        8 => (to.clone(), text.clone(), 0..5_u8, 0..6_i64, 1..30_i64)
            .prop_map(|(to, text, from, delay, ttl)| Step::Push { to, text, from, delay, ttl }),
        3 => (account.clone(), prop::collection::vec(text.clone(), 0..5))
            .prop_map(|(account, texts)| Step::Ack { account, texts }),
        2 => (to.clone(), account.clone()).prop_map(|(to, account)| Step::Bind { to, account }),
        1 => (to.clone(), account.clone()).prop_map(|(to, account)| Step::Rebind { to, account }),
        1 => (to, account.clone()).prop_map(|(to, account)| Step::Unbind { to, account }),
        1 => account.prop_map(|account| Step::DeleteAccount { account }),
        1 => Just(Step::DropIdle),
        1 => (1..4_usize).prop_map(|limit| Step::Release { limit }),
        1 => (1..4_usize).prop_map(|limit| Step::Expire { limit }),
        3 => (0..3_u8, text, 0..5_u8)
            .prop_map(|(destination, text, from)| Step::Out { destination, text, from }),
        1 => (0..3_u8).prop_map(|destination| Step::OutDone { destination }),
    ]
}

fn body(text: u8) -> Vec<u8> {
    vec![text; usize::from(text) + 1]
}

/// A message that waits.
struct Waiting {
    ends: i64,
    from: u8,
}

/// What waits for each recipient, by text.
#[derive(Default)]
struct Model {
    mail: BTreeMap<(String, u8), Waiting>,
    bound: BTreeMap<String, u8>,
}

const QUOTA: Quota = Quota {
    messages: 8,
    bytes: 2500,
    total_bytes: 4000,
    seen_since: Timestamp::from_millis(0),
};

/// Senders 0 and 1 are of one network.
fn group_of(from: u8) -> SenderGroup {
    let mut group = sender(from.max(1), SenderClass::Other).group;
    if from < 2 {
        group.0[15] = from + 1;
    }
    group
}

impl Model {
    fn count(&self, holds: impl Fn(&str, u8) -> bool) -> (u64, u64) {
        let held = self
            .mail
            .iter()
            .filter(|((did, _), one)| holds(did, one.from));
        held.fold((0, 0), |(messages, bytes), ((_, text), _)| {
            (messages + 1, bytes + body(*text).len() as u64)
        })
    }

    fn bytes(&self, of: Option<&str>) -> (u64, u64) {
        self.count(|did, _| of.is_none_or(|of| of == did))
    }

    fn push(&mut self, did: &str, text: u8, from: u8, ends: i64) -> &'static str {
        let cost = |(messages, bytes)| bytes + messages * MESSAGE_OVERHEAD;
        let size = cost((1, body(text).len() as u64));
        let key = (did.to_owned(), text);
        if let Some(known) = self.mail.get_mut(&key) {
            known.ends = ends.max(known.ends);
            return "duplicate";
        }
        let part = |limit: u64| {
            let is_quiet = !self.bound.contains_key(did);
            SenderClass::Other.part_of(if is_quiet { limit.div_ceil(4) } else { limit })
        };
        let used = self.bytes(Some(did));
        let narrow = self.count(|to, one| to == did && one == from);
        let wide = self.count(|to, one| to == did && one.max(1) == from.max(1));
        let messages = Pot {
            limit: part(QUOTA.messages),
            used: used.0,
        };
        let bytes = Pot {
            limit: part(QUOTA.bytes),
            used: cost(used),
        };
        if !messages.admits_one_of_sender(narrow.0, wide.0)
            || !bytes.admits_sender(cost(narrow), cost(wide), size)
        {
            "recipient full"
        } else if cost(self.bytes(None)) + size > QUOTA.total_bytes {
            "store full"
        } else {
            self.mail.insert(key, Waiting { ends, from });
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
                 (SELECT count(*), coalesce(sum(length(body) + length(route)), 0) FROM outbound o
                  WHERE o.destination = d.did))
               + (SELECT (messages, bytes) IS NOT
                   (SELECT count(*), coalesce(sum(length(body)), 0) FROM message)
                  FROM total WHERE name = 'mail')
               + (SELECT (messages, bytes) IS NOT
                   (SELECT count(*), coalesce(sum(length(body) + length(route)), 0) FROM outbound)
                  FROM total WHERE name = 'relay')
               + (SELECT messages IS NOT (SELECT count(DISTINCT destination) FROM outbound)
                  FROM total WHERE name = 'destinations')",
            [],
            |row| row.get(0),
        )
        .unwrap();
    let shares: i64 = conn
        .query_row(
            "SELECT (SELECT count(*) FROM queue_share s WHERE messages = 0 OR (messages, bytes) IS NOT
                 (SELECT count(*), coalesce(sum(length(body)), 0) FROM message m
                  WHERE m.recipient = s.recipient AND (m.sender_group = s.sender_group
                    OR CAST(substr(m.sender_group, 1, 8) || zeroblob(8) AS BLOB) = s.sender_group)))
               + (SELECT count(*) FROM message m WHERE NOT EXISTS
                   (SELECT 1 FROM queue_share s
                    WHERE m.recipient = s.recipient AND m.sender_group = s.sender_group))
               + (SELECT count(*) FROM outbox_share s
                  WHERE messages = 0 OR (messages, bytes, opened) IS NOT
                   (SELECT count(*), coalesce(sum(size + extra), 0), coalesce(sum(opened), 0)
                    FROM outbound o
                    WHERE s.scope = '@' || o.domain OR (s.scope IN ('', o.destination)
                      AND (o.sender_group = s.sender_group
                        OR CAST(substr(o.sender_group, 1, 8) || zeroblob(8) AS BLOB)
                          = s.sender_group))))
               + (SELECT count(*) FROM outbound o WHERE NOT EXISTS
                   (SELECT 1 FROM outbox_share s WHERE s.scope = o.destination
                      AND s.sender_group = o.sender_group))",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(shares, 0, "a share differs from what is there");
    assert_eq!(wrong, 0, "a counter differs from what is there");
}

fn apply(tx: &Tx<'_>, model: &mut Model, step: &Step, now: i64) {
    let did = |to: u8| format!("did:peer:r{to}");
    let account_id = |n: u8| tx.put_account(&account(&format!("did:peer:a{n}"))).unwrap();
    match step {
        Step::Push {
            to,
            text,
            from,
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
                senders: &[Sender {
                    group: group_of(*from),
                    class: SenderClass::Other,
                }],
            };
            let pushed = word(tx.push(&push, &QUOTA).unwrap());
            assert_eq!(pushed, model.push(&did(*to), *text, *from, now + ttl));
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
            let past = model.mail.values().filter(|one| one.ends <= now).count();
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
        Step::Out {
            destination,
            text,
            from,
        } => {
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
                domain: "d",
                senders: &[Sender {
                    group: group_of(*from),
                    class: SenderClass::Local,
                }],
            };
            let quota = OutboxQuota {
                per_destination_messages: 6,
                per_destination_bytes: 6000,
                total_messages: 12,
                total_bytes: 9000,
                destinations: 8,
            };
            tx.outbox_push(&new, &quota).unwrap();
            let (messages, bytes) = tx.outbox_totals().unwrap();
            assert!(messages <= 12 && bytes + messages * OUTBOUND_OVERHEAD <= 9000);
            assert!(tx.outbox_of(new.destination).unwrap().0 <= 6);
        }
        Step::OutDone { destination } => {
            let destination = format!("did:web:d{destination}");
            for due in tx.outbox_due(&destination, at(now), 9, 1 << 40).unwrap() {
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
                .filter(|((did, _), one)| model.bound.get(did) == Some(&n) && one.ends > now)
                .map(|((did, text), _)| (did.clone(), body(*text)))
                .collect();
            let delivered = tx.peek(Queue::Account(id), 0, 999, up_to(9999), at(now)).unwrap();
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
