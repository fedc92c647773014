//! The outbox: mail for other mediators, and the outcomes of its delivery.

use rusqlite::{OptionalExtension as _, Row, named_params, params};

use super::super::columns::{collect, signed, time, to_i64, unsigned};
use super::super::error::StoreError;
use super::fair_share::{Held, Pot, SenderClass, SenderGroup};
use super::rows::{
    NewOutbound, OUTBOUND_OVERHEAD, OutPushed, Outbound, OutboxQuota, Outcome, RelayOutcome,
};
use super::{Queries, Tx};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::RemoteText;

/// Most bytes of bodies in one answer of [`Queries::outbox_due`], which holds at least one message.
const MAX_DUE_BYTES: u64 = 8 << 20;

pub(super) const DUE: &str = "SELECT next_at, id, size FROM outbound INDEXED BY outbound_due
 WHERE destination = ?1 AND next_at <= ?2 ORDER BY next_at, id LIMIT ?3";

/// The destinations with a due message, each with the time of the longest due.
pub(super) const HEADS: &str = "SELECT did, head FROM (
   SELECT did, (SELECT min(next_at) FROM outbound WHERE destination = did) AS head
   FROM destination INDEXED BY destination_waiting WHERE waiting > 0)
 WHERE head <= ?1";

pub(super) const OUTCOMES: &str = "SELECT * FROM destination ORDER BY last_at DESC LIMIT ?1";

pub(super) const PRUNE: &str = "DELETE FROM destination WHERE did IN (
   SELECT did FROM destination WHERE last_at < ?1 AND waiting = 0 LIMIT ?2)";

/// What a push asks before it stores: the counters of all, of the destination, of the sender and its
/// wide group for both, and of the domain.
pub(super) const ROOM: &str = "SELECT t.messages, t.bytes, o.messages, d.waiting, d.waiting_bytes,
   dn.messages, dn.bytes, dw.messages, dw.bytes, n.messages, n.bytes, n.opened,
   w.messages, w.bytes, w.opened, m.messages, m.bytes, m.opened
 FROM total t CROSS JOIN total o
 LEFT JOIN destination d ON d.did = ?1
 LEFT JOIN outbox_share dn ON dn.scope = ?1 AND dn.sender_group = ?2
 LEFT JOIN outbox_share dw ON dw.scope = ?1 AND dw.sender_group = ?3
 LEFT JOIN outbox_share n ON n.scope = '' AND n.sender_group = ?2
 LEFT JOIN outbox_share w ON w.scope = '' AND w.sender_group = ?3
 LEFT JOIN outbox_share m ON m.scope = '@' || ?4 AND m.sender_group = x''
 WHERE t.name = 'relay' AND o.name = 'destinations'";

/// What a push is judged by; pairs are of the sender and of its wide group.
struct OutboxRoom {
    all: Held,
    /// Destinations that messages wait for.
    destinations: u64,
    destination: Held,
    of_destination: [Held; 2],
    of_sender: [Held; 2],
    /// Destinations for which these were first.
    opened: [u64; 2],
    domain: Held,
    opened_in_domain: u64,
}

impl OutboxRoom {
    /// Returns whether nothing waits for the destination yet.
    fn opens(&self) -> bool {
        self.destination.messages == 0
    }

    /// Returns why a message is not stored, if it is not.
    fn refuse(
        &self,
        class: SenderClass,
        new: &NewOutbound<'_>,
        quota: &OutboxQuota,
    ) -> Option<OutPushed> {
        let cost = new.body.len() as u64 + new.extra() + OUTBOUND_OVERHEAD;
        let of = |limit, used| Pot {
            limit: class.part_of(limit),
            used,
        };
        let fits = |messages: Pot, bytes: Pot, [sender, wide]: [Held; 2]| {
            let costs = |held: Held| held.cost(OUTBOUND_OVERHEAD);
            messages.admits_one_of_sender(sender.messages, wide.messages)
                && bytes.admits_sender(costs(sender), costs(wide), cost)
        };
        let messages = of(quota.per_destination_messages, self.destination.messages);
        let bytes = of(
            quota.per_destination_bytes,
            self.destination.cost(OUTBOUND_OVERHEAD),
        );
        if !fits(messages, bytes, self.of_destination) {
            return Some(OutPushed::DestinationFull);
        }
        let messages = of(quota.total_messages, self.all.messages);
        let bytes = of(quota.total_bytes, self.all.cost(OUTBOUND_OVERHEAD));
        let destinations = of(quota.destinations, self.destinations);
        let domain = self.domain.cost(OUTBOUND_OVERHEAD);
        let has_room = fits(messages, bytes, self.of_sender)
            && messages.admits_domain(self.domain.messages, 1)
            && bytes.admits_domain(domain, cost);
        let may_open = !self.opens()
            || destinations.admits_one_of_sender(self.opened[0], self.opened[1])
                && destinations.admits_domain(self.opened_in_domain, 1);
        (!has_room || !may_open).then_some(OutPushed::StoreFull)
    }
}

/// A due message, its body not yet read.
struct Due {
    /// Number of messages for the same destination before it.
    rank: usize,
    next_at: i64,
    id: i64,
    size: u64,
}

impl Queries<'_> {
    /// Returns whether any message is due by `now`.
    pub fn outbox_is_due(&self, now: Timestamp) -> Result<bool, StoreError> {
        let mut query = self.0.prepare_cached(HEADS)?;
        Ok(query.exists([now.millis()])?)
    }

    /// Returns the messages that are due by `now`, at most `limit`, without those for the
    /// destinations in `except`. The longest due message of each destination comes first, then the
    /// second of each, and so on: a destination with many messages holds up no other. Can return
    /// fewer than `limit` although more are due: ask again.
    pub fn outbox_due(
        &self,
        now: Timestamp,
        limit: usize,
        except: &[String],
    ) -> Result<Vec<Outbound>, StoreError> {
        self.outbox_due_within(now, limit, |destination| {
            if except.iter().any(|one| one == destination) {
                0
            } else {
                limit
            }
        })
    }

    /// Like [`Self::outbox_due`], with at most `room` messages of each destination. `room` is
    /// called once per destination, in the order in which the destinations became due.
    pub fn outbox_due_within(
        &self,
        now: Timestamp,
        limit: usize,
        mut room: impl FnMut(&str) -> usize,
    ) -> Result<Vec<Outbound>, StoreError> {
        let mut query = self.0.prepare_cached(HEADS)?;
        let mut rows = query.query([now.millis()])?;
        let mut heads = Vec::new();
        while let Some(row) = rows.next()? {
            heads.push((row.get::<_, i64>(1)?, row.get::<_, String>(0)?));
        }
        heads.sort_unstable();
        let mut open: Vec<(usize, String)> = Vec::new();
        for (_, destination) in heads {
            if open.len() == limit {
                break;
            }
            match room(&destination) {
                0 => {}
                room => open.push((room, destination)),
            }
        }
        let share = limit.div_ceil(open.len().max(1));
        let mut due = Vec::new();
        for (room, destination) in &open {
            due.extend(self.due(destination, now, share.min(*room))?);
        }
        due.sort_unstable_by_key(|due| (due.rank, due.next_at, due.id));
        due.truncate(limit);
        let mut read = self
            .0
            .prepare_cached("SELECT * FROM outbound WHERE id = ?1")?;
        let mut messages = Vec::new();
        let mut bytes = 0_u64;
        for Due { id, size, .. } in due {
            bytes = bytes.saturating_add(size);
            if bytes > MAX_DUE_BYTES && !messages.is_empty() {
                break;
            }
            messages.push(read.query_row([id], read_outbound)?);
        }
        Ok(messages)
    }

    /// Returns the longest due messages of one destination.
    fn due(&self, destination: &str, now: Timestamp, limit: usize) -> Result<Vec<Due>, StoreError> {
        let mut query = self.0.prepare_cached(DUE)?;
        let rows = query.query_map(params![destination, now.millis(), to_i64(limit)], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?;
        let due = rows.enumerate().map(|(rank, row)| {
            row.map(|(next_at, id, size)| Due {
                rank,
                next_at,
                id,
                size: unsigned(size),
            })
        });
        collect(due)
    }

    /// Returns the number of messages in the outbox, and the bytes of their bodies, routes, senders
    /// and threads.
    pub fn outbox_totals(&self) -> Result<(u64, u64), StoreError> {
        self.total("relay")
    }

    /// Returns the number of messages for a destination, and their bytes as in
    /// [`Self::outbox_totals`].
    pub fn outbox_of(&self, destination: &str) -> Result<(u64, u64), StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT waiting, waiting_bytes FROM destination WHERE did = ?1")?;
        let held: Option<(i64, i64)> = query
            .query_row([destination], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(held.map_or((0, 0), |(waiting, bytes)| {
            (unsigned(waiting), unsigned(bytes))
        }))
    }

    /// Returns the outcomes of the destinations, the last tried first, at most `limit`.
    pub fn relay_outcomes(&self, limit: usize) -> Result<Vec<RelayOutcome>, StoreError> {
        let mut query = self.0.prepare_cached(OUTCOMES)?;
        collect(query.query_map([to_i64(limit)], read_outcome)?)
    }
}

impl Tx<'_> {
    /// Takes the messages that [`Queries::outbox_due_within`] returns. None of them is due again
    /// before `until`: messages under way are not taken twice, and messages left by a crash become
    /// due.
    pub fn outbox_take(
        &self,
        now: Timestamp,
        until: Timestamp,
        limit: usize,
        room: impl FnMut(&str) -> usize,
    ) -> Result<Vec<Outbound>, StoreError> {
        let taken = self.outbox_due_within(now, limit, room)?;
        let mut lease = self
            .conn()
            .prepare_cached("UPDATE outbound SET next_at = ?2, taken = 1 WHERE id = ?1")?;
        for message in &taken {
            lease.execute(params![message.id, until.millis()])?;
        }
        Ok(taken)
    }

    /// Makes all messages due that were taken and neither deferred nor done. For the start of the
    /// service, when nothing is under way. Returns how many.
    pub fn outbox_recover(&self, now: Timestamp) -> Result<u64, StoreError> {
        let recovered = self
            .conn()
            .prepare_cached("UPDATE outbound SET next_at = ?1, taken = 0 WHERE taken = 1")?
            .execute([now.millis()])?;
        Ok(recovered as u64)
    }

    /// Stores a message for another mediator, once: the same bytes for the same destination are a
    /// duplicate while they wait, and the later end and the earlier beginning count. Nothing here
    /// removes a message when its time has ended: the relay worker does.
    pub fn outbox_push(
        &self,
        new: &NewOutbound<'_>,
        quota: &OutboxQuota,
    ) -> Result<OutPushed, StoreError> {
        let prolonged = self
            .conn()
            .prepare_cached(
                "UPDATE outbound SET expires_at = max(expires_at, ?3),
                   next_at = iif(taken OR attempts > 0, next_at, min(next_at, ?4)),
                   sender = coalesce(sender, ?5), thread = iif(sender IS NULL, ?6, thread)
                 WHERE destination = ?1 AND hash = ?2",
            )?
            .execute(params![
                new.destination,
                new.hash,
                new.expires_at.millis(),
                new.next_at.millis(),
                new.sender,
                new.thread,
            ])?;
        if prolonged > 0 {
            return Ok(OutPushed::Duplicate);
        }
        let mut refused = OutPushed::StoreFull;
        for sender in new.senders {
            let room = self.outbox_room(new, sender.group)?;
            match room.refuse(sender.class, new, quota) {
                Some(full) => refused = full,
                None => return self.outbox_store(new, sender.group, room.opens()),
            }
        }
        Ok(refused)
    }

    fn outbox_store(
        &self,
        new: &NewOutbound<'_>,
        group: SenderGroup,
        opens: bool,
    ) -> Result<OutPushed, StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO outbound (destination, route, hash, size, sender, thread, next_at,
                   created_at, expires_at, body, sender_group, domain, opened, extra)
                 VALUES (:destination, :route, :hash, :size, :sender, :thread, :next_at,
                   :created_at, :expires_at, :body, :sender_group, :domain, :opened, :extra)",
            )?
            .execute(named_params! {
                ":destination": new.destination,
                ":route": new.route,
                ":hash": new.hash,
                ":size": to_i64(new.body.len()),
                ":sender": new.sender,
                ":thread": new.thread,
                ":next_at": new.next_at.millis(),
                ":created_at": new.now.millis(),
                ":expires_at": new.expires_at.millis(),
                ":body": new.body,
                ":sender_group": group.0,
                ":domain": new.domain,
                ":opened": opens,
                ":extra": signed(new.extra()),
            })?;
        Ok(OutPushed::Stored(self.conn().last_insert_rowid()))
    }

    fn outbox_room(
        &self,
        new: &NewOutbound<'_>,
        group: SenderGroup,
    ) -> Result<OutboxRoom, StoreError> {
        let mut query = self.conn().prepare_cached(ROOM)?;
        let (group, wide) = (group.0, group.wide().0);
        let room = query.query_row(params![new.destination, group, wide, new.domain], |row| {
            let count = |at| {
                Ok::<_, rusqlite::Error>(unsigned(row.get::<_, Option<i64>>(at)?.unwrap_or(0)))
            };
            Ok(OutboxRoom {
                all: Held::read(row, 0)?,
                destinations: count(2)?,
                destination: Held::read(row, 3)?,
                of_destination: [Held::read(row, 5)?, Held::read(row, 7)?],
                of_sender: [Held::read(row, 9)?, Held::read(row, 12)?],
                opened: [count(11)?, count(14)?],
                domain: Held::read(row, 15)?,
                opened_in_domain: count(17)?,
            })
        })?;
        Ok(room)
    }

    /// Defers a message that was taken to `next_at`, for reasons other than its destination. Does
    /// nothing when the message is gone.
    pub fn outbox_defer(&self, id: i64, next_at: Timestamp) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached("UPDATE outbound SET next_at = ?2, taken = 0 WHERE id = ?1")?
            .execute(params![id, next_at.millis()])?;
        Ok(())
    }

    /// Counts a failed attempt and defers the message to `next_at`. Does nothing when the message
    /// is gone.
    pub fn outbox_retry(
        &self,
        id: i64,
        next_at: Timestamp,
        error: &RemoteText,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut retry = self.conn().prepare_cached(
            "UPDATE outbound SET attempts = attempts + 1, next_at = ?2, taken = 0 WHERE id = ?1
             RETURNING destination",
        )?;
        let destination: Option<String> = retry
            .query_row(params![id, next_at.millis()], |row| row.get(0))
            .optional()?;
        let Some(destination) = destination else {
            return Ok(());
        };
        self.conn()
            .prepare_cached(
                "UPDATE destination SET failed = failed + 1, last_error = ?2, last_at = ?3
                 WHERE did = ?1",
            )?
            .execute(params![destination, error.as_str(), now.millis()])?;
        Ok(())
    }

    /// Deletes a message and counts its outcome. The reason for a failure is saved as the
    /// destination's last error. Returns whether the message was still there. Idempotent.
    pub fn outbox_done(
        &self,
        id: i64,
        outcome: Outcome,
        why: Option<&RemoteText>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut remove = self
            .conn()
            .prepare_cached("DELETE FROM outbound WHERE id = ?1 RETURNING destination")?;
        let destination: Option<String> = remove.query_row([id], |row| row.get(0)).optional()?;
        let Some(destination) = destination else {
            return Ok(false);
        };
        self.conn()
            .prepare_cached(
                "UPDATE destination SET delivered = delivered + ?2, refused = refused + ?3,
                   given_up = given_up + ?4, last_error = coalesce(?5, last_error), last_at = ?6
                 WHERE did = ?1",
            )?
            .execute(params![
                destination,
                outcome == Outcome::Delivered,
                outcome == Outcome::Refused,
                outcome == Outcome::GivenUp,
                why.map(RemoteText::as_str),
                now.millis()
            ])?;
        Ok(true)
    }

    /// Deletes the outcomes of destinations without messages that were last tried before a time, at
    /// most `limit`. Returns how many.
    pub fn prune_outcomes(&self, before: Timestamp, limit: usize) -> Result<u64, StoreError> {
        let pruned = self
            .conn()
            .prepare_cached(PRUNE)?
            .execute(params![before.millis(), to_i64(limit)])?;
        Ok(pruned as u64)
    }
}

fn read_outbound(row: &Row<'_>) -> Result<Outbound, rusqlite::Error> {
    Ok(Outbound {
        id: row.get("id")?,
        destination: row.get("destination")?,
        route: row.get("route")?,
        hash: row.get("hash")?,
        body: row.get("body")?,
        sender: row.get("sender")?,
        thread: row.get("thread")?,
        attempts: row.get("attempts")?,
        next_at: time(row, "next_at")?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
    })
}

fn read_outcome(row: &Row<'_>) -> Result<RelayOutcome, rusqlite::Error> {
    Ok(RelayOutcome {
        destination: row.get("did")?,
        waiting: unsigned(row.get("waiting")?),
        waiting_bytes: unsigned(row.get("waiting_bytes")?),
        delivered: unsigned(row.get("delivered")?),
        failed: unsigned(row.get("failed")?),
        refused: unsigned(row.get("refused")?),
        given_up: unsigned(row.get("given_up")?),
        last_error: row
            .get::<_, Option<String>>("last_error")?
            .map(|text| RemoteText::new(&text)),
        last_at: row
            .get::<_, Option<i64>>("last_at")?
            .map(Timestamp::from_millis),
    })
}
