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

/// The due messages of a destination, the longest due first.
pub(super) const DUE: &str = "SELECT id, size FROM outbound INDEXED BY outbound_due
 WHERE destination = ?1 AND next_at <= ?2 ORDER BY next_at, id LIMIT ?3";

/// The due message of a destination that is tried where the destination fails: the one that was tried
/// least, so that a message which makes the destination fail does not stand before all others; of
/// those the smallest, or any.
pub(super) const PROBE: &str = "SELECT id, size FROM outbound INDEXED BY outbound_due
 WHERE destination = ?1 AND next_at <= ?2 
 ORDER BY attempts, iif(?3, size, abs(random())), id LIMIT 1";

/// The destinations that messages wait for, in the order of their DIDs, each with the time when its
/// first message is due.
pub(super) const WAITING: &str = "SELECT did,
   (SELECT min(next_at) FROM outbound WHERE destination = did)
 FROM destination INDEXED BY destination_waiting WHERE waiting > 0 AND did > ?1
 ORDER BY did LIMIT ?2";

pub(super) const EXPIRED: &str = "SELECT * FROM outbound INDEXED BY outbound_expiry
 WHERE expires_at <= ?1 AND taken = 0 ORDER BY expires_at LIMIT ?2";

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

impl Queries<'_> {
    /// Returns the messages for a destination that are due by `now`, at most `limit` and within
    /// `max_bytes`, one at least; the longest due come first. The cost does not depend on what waits
    /// for others.
    pub fn outbox_due(
        &self,
        destination: &str,
        now: Timestamp,
        limit: usize,
        max_bytes: u64,
    ) -> Result<Vec<Outbound>, StoreError> {
        let mut query = self.0.prepare_cached(DUE)?;
        let rows = query.query_map(params![destination, now.millis(), to_i64(limit)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
        let due: Vec<(i64, i64)> = collect(rows)?;
        let mut messages = Vec::new();
        let mut bytes = 0_u64;
        for (id, size) in due {
            bytes = bytes.saturating_add(unsigned(size));
            if bytes > max_bytes && !messages.is_empty() {
                break;
            }
            messages.push(self.outbound(id)?);
        }
        Ok(messages)
    }

    /// Returns the message for a destination that shows best whether the destination answers: of
    /// those due by `now` and tried least the smallest, or any. Reads as many rows as the quota of
    /// one destination allows.
    pub fn outbox_probe(
        &self,
        destination: &str,
        now: Timestamp,
        smallest: bool,
    ) -> Result<Option<Outbound>, StoreError> {
        let mut query = self.0.prepare_cached(PROBE)?;
        let id = query.query_row(params![destination, now.millis(), smallest], |row| {
            row.get(0)
        });
        id.optional()?.map(|id| self.outbound(id)).transpose()
    }

    fn outbound(&self, id: i64) -> Result<Outbound, StoreError> {
        let mut read = self
            .0
            .prepare_cached("SELECT * FROM outbound WHERE id = ?1")?;
        Ok(read.query_row([id], read_outbound)?)
    }

    /// Returns when the next message for a destination is due, counting those under way by the end
    /// of their lease.
    pub fn outbox_next(&self, destination: &str) -> Result<Option<Timestamp>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT min(next_at) FROM outbound WHERE destination = ?1")?;
        let next: Option<i64> = query.query_row([destination], |row| row.get(0))?;
        Ok(next.map(Timestamp::from_millis))
    }

    /// Returns destinations that messages wait for, each with the time when its first message is
    /// due: those behind `after` in the order of DIDs, at most `limit`.
    pub fn outbox_waiting(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let mut query = self.0.prepare_cached(WAITING)?;
        let rows = query.query_map(params![after, to_i64(limit)], |row| {
            let head: Option<i64> = row.get(1)?;
            Ok((row.get(0)?, Timestamp::from_millis(head.unwrap_or(0))))
        })?;
        collect(rows)
    }

    /// Returns messages whose time has ended by `now` and that are not under way, without their
    /// bodies, at most `limit`.
    pub fn outbox_expired(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Outbound>, StoreError> {
        let mut query = self.0.prepare_cached(EXPIRED)?;
        let rows = query.query_map(params![now.millis(), to_i64(limit)], |row| {
            read_outbound_with(row, Vec::new())
        })?;
        collect(rows)
    }

    /// Returns the last failure of a destination.
    pub fn outbox_last_error(&self, destination: &str) -> Result<Option<RemoteText>, StoreError> {
        let mut query = self
            .0
            .prepare_cached("SELECT last_error FROM destination WHERE did = ?1")?;
        let error: Option<Option<String>> = query
            .query_row([destination], |row| row.get(0))
            .optional()?;
        Ok(error.flatten().map(|text| RemoteText::new(&text)))
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
    /// Takes a message that is due by `now`: it is not due again before `until`, so that a message
    /// under way is not taken twice, and one left by a crash becomes due. Returns false where it is
    /// gone or not due.
    pub fn outbox_take(
        &self,
        id: i64,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut lease = self.conn().prepare_cached(
            "UPDATE outbound SET next_at = ?3, taken = 1 WHERE id = ?1 AND next_at <= ?2",
        )?;
        Ok(lease.execute(params![id, now.millis(), until.millis()])? > 0)
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
    read_outbound_with(row, row.get("body")?)
}

fn read_outbound_with(row: &Row<'_>, body: Vec<u8>) -> Result<Outbound, rusqlite::Error> {
    Ok(Outbound {
        id: row.get("id")?,
        destination: row.get("destination")?,
        route: row.get("route")?,
        hash: row.get("hash")?,
        body,
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
