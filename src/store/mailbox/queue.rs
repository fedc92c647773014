//! The queues of mail: push, peek, acknowledge, expire.

use std::collections::HashSet;

use rusqlite::{OptionalExtension as _, params};

use super::super::columns::{collect, time, to_i64, unsigned};
use super::super::error::StoreError;
use super::fair_share::{Held, Pot, SenderClass, SenderGroup};
use super::rows::{MESSAGE_OVERHEAD, Message, Push, Pushed, QUIET_PART, Queue, QueueStatus, Quota};
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;

pub(super) const OF_ACCOUNT: &str =
    "SELECT id, did FROM recipient WHERE account = ?1 AND messages > 0";

pub(super) const OF_RECIPIENT: &str =
    "SELECT id, did FROM recipient WHERE id = ?1 AND messages > 0";

// Only a message whose sender wants it delayed waits for its time: a clock that was set back hides
// none of the others.

pub(super) const STATUS: &str =
    "SELECT count(*), coalesce(sum(size), 0), min(stored_at), max(stored_at)
 FROM message INDEXED BY message_queue
 WHERE recipient = ?1 AND available_at <= max(stored_at, ?2) AND expires_at > ?2";

pub(super) const CHOOSE: &str = "SELECT id, size FROM message INDEXED BY message_queue
 WHERE recipient = ?1 AND id > ?2 AND available_at <= max(stored_at, ?3) AND expires_at > ?3
 ORDER BY id LIMIT ?4";

/// What a push asks before it stores: the counters of the recipient and of all, when the reader was
/// here, and what the sender and its wide group hold.
pub(super) const ROOM: &str = "SELECT r.messages, r.bytes, t.messages, t.bytes, a.seen_at,
   n.messages, n.bytes, w.messages, w.bytes
 FROM recipient r CROSS JOIN total t
 LEFT JOIN account a ON a.id = r.account
 LEFT JOIN queue_share n ON n.recipient = r.id AND n.sender_group = ?2
 LEFT JOIN queue_share w ON w.recipient = r.id AND w.sender_group = ?3
 WHERE r.id = ?1 AND t.name = 'mail'";

pub(super) const PUSH: &str = "INSERT INTO message
   (recipient, hash, size, stored_at, available_at, expires_at, body, sender_group)
 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
 ON CONFLICT (recipient, hash) DO NOTHING";

pub(super) const READ: &str = "SELECT hash, stored_at, expires_at, body FROM message WHERE id = ?1";

pub(super) const PROLONG: &str = "UPDATE message SET expires_at = max(expires_at, ?3),
   available_at = min(available_at, max(stored_at + 1, ?4))
 WHERE recipient = ?1 AND hash = ?2";

pub(super) const ACK: &str = "DELETE FROM message WHERE recipient = ?1 AND hash = ?2";

pub(super) const COUNTS: &str =
    "SELECT id, messages FROM recipient WHERE account = ?1 AND messages > 0";

pub(super) const HASHES: &str = "SELECT hash FROM message WHERE recipient = ?1 ORDER BY hash";

pub(super) const DELAYED: &str = "SELECT id, size FROM message
 WHERE available_at > stored_at AND available_at <= ?1 ORDER BY available_at, id LIMIT ?2";

pub(super) const EXPIRED: &str =
    "SELECT id, size FROM message WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2";

/// Most bytes of bodies that one call of [`Tx::release`] or [`Tx::expire`] moves or deletes, so that
/// other writes do not wait long for it. One message at least is taken.
const MAX_BATCH_BYTES: u64 = 8 << 20;

/// A message chosen for delivery, its body not yet read.
struct Chosen {
    id: i64,
    size: u64,
    /// Position of its recipient.
    source: usize,
}

impl Queries<'_> {
    /// Returns what can be delivered of a queue at `now`: neither delayed nor expired messages
    /// count. Reads the queue's index and no bodies.
    pub fn queue(&self, queue: Queue, now: Timestamp) -> Result<QueueStatus, StoreError> {
        let mut query = self.0.prepare_cached(STATUS)?;
        let mut status = QueueStatus::default();
        for (recipient, _) in self.sources(queue)? {
            let (messages, bytes, oldest, newest): (_, _, Option<i64>, Option<i64>) = query
                .query_row(params![recipient, now.millis()], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })?;
            status.messages += unsigned(messages);
            status.bytes += unsigned(bytes);
            let oldest = oldest.map(Timestamp::from_millis);
            let newest = newest.map(Timestamp::from_millis);
            status.oldest = status.oldest.into_iter().chain(oldest).min();
            status.newest = status.newest.into_iter().chain(newest).max();
        }
        Ok(status)
    }

    /// Returns the messages of a queue with an id greater than `after`, the oldest first: at most
    /// `limit`, and until `take` refuses one, given the length of its body. Delayed and expired
    /// messages are left out. Asks before it reads a body, reads none that it does not return, and
    /// removes nothing.
    ///
    /// [`Tx::release`] moves a delayed message to the end of the queue, so that a reader who
    /// continues after the last id does not miss it.
    pub fn peek(
        &self,
        queue: Queue,
        after: i64,
        limit: usize,
        mut take: impl FnMut(u64) -> bool,
        now: Timestamp,
    ) -> Result<Vec<Message>, StoreError> {
        let sources = self.sources(queue)?;
        let mut choose = self.0.prepare_cached(CHOOSE)?;
        let mut chosen = Vec::new();
        for (source, (recipient, _)) in sources.iter().enumerate() {
            let rows = choose.query_map(
                params![recipient, after, now.millis(), to_i64(limit)],
                |row| {
                    Ok(Chosen {
                        id: row.get(0)?,
                        size: unsigned(row.get(1)?),
                        source,
                    })
                },
            )?;
            for row in rows {
                chosen.push(row?);
            }
        }
        chosen.sort_unstable_by_key(|message| message.id);
        chosen.truncate(limit);
        let mut read = self.0.prepare_cached(READ)?;
        let mut messages = Vec::new();
        for Chosen { id, size, source } in chosen {
            if !take(size) {
                break;
            }
            let Some((_, recipient)) = sources.get(source) else {
                break;
            };
            messages.push(read.query_row([id], |row| {
                Ok(Message {
                    id,
                    recipient: recipient.clone(),
                    hash: row.get("hash")?,
                    body: row.get("body")?,
                    stored_at: time(row, "stored_at")?,
                    expires_at: time(row, "expires_at")?,
                })
            })?);
        }
        Ok(messages)
    }

    /// Returns the greatest id of a message, or 0 without messages. Later messages have greater
    /// ids.
    pub fn newest_message(&self) -> Result<i64, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT coalesce(max(id), 0) FROM message")?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// Returns the number of messages of all recipients, and the bytes of their bodies.
    pub fn totals(&self) -> Result<(u64, u64), StoreError> {
        self.total("mail")
    }

    /// Returns the ids and DIDs of a queue's recipients that have mail.
    fn sources(&self, queue: Queue) -> Result<Vec<(i64, String)>, StoreError> {
        let (sql, id) = match queue {
            Queue::Account(id) => (OF_ACCOUNT, id),
            Queue::Recipient(id) => (OF_RECIPIENT, id),
        };
        let mut query = self.0.prepare_cached(sql)?;
        collect(query.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }
}

/// What a push is judged by.
struct QueueRoom {
    recipient: Held,
    all: Held,
    reader_seen_at: Option<Timestamp>,
    sender: Held,
    wide_group: Held,
}

impl QueueRoom {
    /// Returns why a message of this cost is not stored, if it is not.
    fn refuse(&self, class: SenderClass, cost: u64, quota: &Quota) -> Option<Pushed> {
        let is_quiet = self
            .reader_seen_at
            .is_none_or(|seen_at| seen_at < quota.seen_since);
        let part = |limit: u64| {
            // The smallest quota is of use, too.
            let limit = if is_quiet {
                limit.div_ceil(QUIET_PART)
            } else {
                limit
            };
            class.part_of(limit)
        };
        let messages = Pot {
            limit: part(quota.messages),
            used: self.recipient.messages,
        };
        let bytes = Pot {
            limit: part(quota.bytes),
            used: self.recipient.cost(MESSAGE_OVERHEAD),
        };
        let (sender, wide) = (self.sender, self.wide_group);
        if !messages.admits_one_of_sender(sender.messages, wide.messages)
            || !bytes.admits_sender(
                sender.cost(MESSAGE_OVERHEAD),
                wide.cost(MESSAGE_OVERHEAD),
                cost,
            )
        {
            return Some(Pushed::RecipientFull);
        }
        let all = Pot {
            limit: quota.total_bytes,
            used: self.all.cost(MESSAGE_OVERHEAD),
        };
        (!all.fits(cost)).then_some(Pushed::StoreFull)
    }
}

impl Tx<'_> {
    /// Stores a message for a recipient, once: the same bytes are a duplicate while they wait, and
    /// a new message after they were acknowledged. Of a duplicate's times the later end and the
    /// earlier beginning count. The counters of the recipient, of the sender's share and of the
    /// whole file change in the same transaction.
    pub fn push(&self, push: &Push<'_>, quota: &Quota) -> Result<Pushed, StoreError> {
        let cost = (push.body.len() as u64).saturating_add(MESSAGE_OVERHEAD);
        let mut refused = Pushed::RecipientFull;
        for sender in push.senders {
            let Some(room) = self.room(push.recipient, sender.group)? else {
                return Ok(Pushed::Gone);
            };
            match room.refuse(sender.class, cost, quota) {
                Some(full) => refused = full,
                None => return self.store(push, sender.group),
            }
        }
        // A repeated message is a duplicate even where the queue is full.
        Ok(if self.prolong(push)? {
            Pushed::Duplicate
        } else {
            refused
        })
    }

    fn store(&self, push: &Push<'_>, group: SenderGroup) -> Result<Pushed, StoreError> {
        let stored = self.conn().prepare_cached(PUSH)?.execute(params![
            push.recipient,
            push.hash,
            to_i64(push.body.len()),
            push.now.millis(),
            push.available_at.max(push.now).millis(),
            push.expires_at.millis(),
            push.body,
            group.0,
        ])?;
        if stored > 0 {
            return Ok(Pushed::Stored(self.conn().last_insert_rowid()));
        }
        self.prolong(push)?;
        Ok(Pushed::Duplicate)
    }

    /// Gives a message that waits the later end and the earlier beginning. Returns whether it waits.
    fn prolong(&self, push: &Push<'_>) -> Result<bool, StoreError> {
        let prolonged = self.conn().prepare_cached(PROLONG)?.execute(params![
            push.recipient,
            push.hash,
            push.expires_at.millis(),
            push.available_at.millis(),
        ])?;
        Ok(prolonged > 0)
    }

    fn room(&self, recipient: i64, group: SenderGroup) -> Result<Option<QueueRoom>, StoreError> {
        let mut query = self.conn().prepare_cached(ROOM)?;
        let room = query.query_row(params![recipient, group.0, group.wide().0], |row| {
            let seen_at: Option<i64> = row.get(4)?;
            Ok(QueueRoom {
                recipient: Held::read(row, 0)?,
                all: Held::read(row, 2)?,
                reader_seen_at: seen_at.map(Timestamp::from_millis),
                sender: Held::read(row, 5)?,
                wide_group: Held::read(row, 7)?,
            })
        });
        Ok(room.optional()?)
    }

    /// Deletes the messages with these hashes from all recipients bound to an account. Unknown
    /// hashes are ignored. Returns how many messages were deleted. Idempotent.
    pub fn ack(&self, account: i64, hashes: &[[u8; 32]]) -> Result<u64, StoreError> {
        let mut remove = self.conn().prepare_cached(ACK)?;
        let mut hashes_of = self.conn().prepare_cached(HASHES)?;
        let asked: HashSet<_> = hashes.iter().collect();
        let mut removed = 0;
        for (recipient, messages) in self.counts(account)? {
            // The smaller side is iterated: neither many hashes nor many recipients multiply.
            if unsigned(messages) < asked.len() as u64 {
                let waiting: Vec<[u8; 32]> =
                    collect(hashes_of.query_map([recipient], |row| row.get(0))?)?;
                for hash in waiting.iter().filter(|hash| asked.contains(hash)) {
                    removed += remove.execute(params![recipient, hash])?;
                }
            } else {
                for hash in &asked {
                    removed += remove.execute(params![recipient, hash])?;
                }
            }
        }
        Ok(removed as u64)
    }

    /// Returns the recipients of an account that have mail, and the number of their messages.
    fn counts(&self, account: i64) -> Result<Vec<(i64, i64)>, StoreError> {
        let mut query = self.conn().prepare_cached(COUNTS)?;
        collect(query.query_map([account], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// Moves delayed messages that have become due to the ends of their queues, under new ids, at
    /// most `limit` and some MiB, those due longest first. They count as stored when they became
    /// due. Returns the recipient of each, so that readers can be notified; none, if nothing is due.
    pub fn release(&self, now: Timestamp, limit: usize) -> Result<Vec<i64>, StoreError> {
        let due = self.batch(DELAYED, now, limit)?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let (mut last, mut recipients) = (self.last_message_id()?, Vec::new());
        // The row moves as a whole: no counter changes, and the body is not read here.
        let mut advance = self.conn().prepare_cached(
            "UPDATE message SET id = ?2, stored_at = available_at WHERE id = ?1
             RETURNING recipient",
        )?;
        for id in due {
            last += 1;
            recipients.push(advance.query_row([id, last], |row| row.get(0))?);
        }
        // An id is not used twice, also where the message with the greatest has left.
        self.conn()
            .prepare_cached("UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'message'")?
            .execute([last])?;
        Ok(recipients)
    }

    /// Returns the greatest id that a message has or had.
    fn last_message_id(&self) -> Result<i64, StoreError> {
        let mut query = self.conn().prepare_cached(
            "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'message'), 0)",
        )?;
        Ok(query.query_row([], |row| row.get(0))?)
    }

    /// Deletes expired messages, the longest expired first, at most `limit` and some MiB. Returns how
    /// many; 0, if there are none. Other writes wait meanwhile, some 20 ms for a thousand messages:
    /// use a `limit` of a few hundred.
    pub fn expire(&self, now: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let expired = self.batch(EXPIRED, now, limit)?;
        let mut remove = self
            .conn()
            .prepare_cached("DELETE FROM message WHERE id = ?1")?;
        for id in &expired {
            remove.execute([id])?;
        }
        Ok(expired.len() as u64)
    }

    /// Returns the ids that a query of ids and sizes gives, as many as one batch takes.
    fn batch(&self, sql: &str, now: Timestamp, limit: usize) -> Result<Vec<i64>, StoreError> {
        let mut query = self.conn().prepare_cached(sql)?;
        let mut rows = query.query(params![now.millis(), to_i64(limit)])?;
        let (mut ids, mut bytes) = (Vec::new(), 0_u64);
        while let Some(row) = rows.next()? {
            bytes = bytes.saturating_add(unsigned(row.get(1)?));
            if bytes > MAX_BATCH_BYTES && !ids.is_empty() {
                break;
            }
            ids.push(row.get(0)?);
        }
        Ok(ids)
    }
}
