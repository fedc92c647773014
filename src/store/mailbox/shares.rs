//! What senders and hosts hold of all mail, and on which hosts the accounts with claims are.

use rusqlite::params;

use super::super::columns::{collect, to_i64};
use super::super::error::StoreError;
use super::fair_share::{Held, SenderGroup};
use super::rows::MESSAGE_OVERHEAD;
use super::{Queries, Tx};
use atcomm_proto::syntax::Did;

/// Most hosts of the claims on one DID that are looked at.
const MAX_HOSTS: i64 = 64;

/// Oldest first of each state, and present claims before others.
pub(super) const HOSTS: &str = "SELECT h.host, h.is_local FROM claim c
 JOIN claimant h ON h.account = c.account WHERE c.peer = ?1 LIMIT ?2";

pub(super) const SENDERS: &str = "SELECT messages, bytes, recipient, sender_group FROM queue_share
 WHERE (recipient, sender_group) > (?1, ?2) ORDER BY recipient, sender_group LIMIT ?3";

pub(super) const RECIPIENTS: &str = "SELECT messages, bytes, id, did FROM recipient
 WHERE id > ?1 AND messages > 0 ORDER BY id LIMIT ?2";

/// The host of an account that has a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimantHost {
    /// The registrable domain of its PDS.
    pub name: String,
    /// Whether its PDS is one of this service's own.
    pub is_local: bool,
}

/// A position in the shares of senders.
pub type SharePosition = (i64, [u8; 16]);

impl Queries<'_> {
    /// Returns the hosts of the accounts whose key packages name a DID, those of present claims
    /// first, each once.
    pub fn hosts_of(&self, peer: &str) -> Result<Vec<ClaimantHost>, StoreError> {
        let mut query = self.0.prepare_cached(HOSTS)?;
        let rows = query.query_map(params![peer, MAX_HOSTS], |row| {
            Ok(ClaimantHost {
                name: row.get(0)?,
                is_local: row.get(1)?,
            })
        })?;
        let mut hosts: Vec<ClaimantHost> = Vec::new();
        for host in rows {
            let host = host?;
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
        Ok(hosts)
    }

    /// Calls `visit` with the bytes on the disk that each sender group, and each wide group, has in
    /// each queue: at most `limit`, from the position after `after` on. Returns the position of the
    /// last, or `None` where there are no more.
    pub fn visit_senders(
        &self,
        after: SharePosition,
        limit: usize,
        mut visit: impl FnMut(SenderGroup, u64),
    ) -> Result<Option<SharePosition>, StoreError> {
        let mut query = self.0.prepare_cached(SENDERS)?;
        let mut rows = query.query(params![after.0, after.1, to_i64(limit)])?;
        let mut last = None;
        while let Some(row) = rows.next()? {
            let (recipient, group) = (row.get(2)?, row.get(3)?);
            visit(
                SenderGroup(group),
                Held::read(row, 0)?.cost(MESSAGE_OVERHEAD),
            );
            last = Some((recipient, group));
        }
        Ok(last)
    }

    /// Calls `visit` with the DID of each recipient that has mail and the bytes of it on the disk:
    /// at most `limit`, from the id after `after` on. Returns the id of the last, or `None` where
    /// there are no more.
    pub fn visit_recipients(
        &self,
        after: i64,
        limit: usize,
        mut visit: impl FnMut(&str, u64) -> Result<(), StoreError>,
    ) -> Result<Option<i64>, StoreError> {
        let mut query = self.0.prepare_cached(RECIPIENTS)?;
        let found: Vec<(u64, i64, String)> =
            collect(query.query_map(params![after, to_i64(limit)], |row| {
                let cost = Held::read(row, 0)?.cost(MESSAGE_OVERHEAD);
                Ok((cost, row.get(2)?, row.get(3)?))
            })?)?;
        for (cost, _, did) in &found {
            visit(did, *cost)?;
        }
        Ok(found.last().map(|(_, id, _)| *id))
    }

    /// Returns the bytes on the disk of all mail.
    pub fn mail_cost(&self) -> Result<u64, StoreError> {
        let (messages, bytes) = self.totals()?;
        Ok(Held { messages, bytes }.cost(MESSAGE_OVERHEAD))
    }
}

impl Tx<'_> {
    /// Writes the host of an account, if it has claims. The host is deleted with the last of them.
    /// Idempotent.
    pub fn put_host(&self, account: &Did, host: &ClaimantHost) -> Result<(), StoreError> {
        self.conn()
            .prepare_cached(
                "INSERT INTO claimant (account, host, is_local) SELECT ?1, ?2, ?3
                 WHERE EXISTS (SELECT 1 FROM claim WHERE account = ?1)
                 ON CONFLICT (account) DO UPDATE SET host = ?2, is_local = ?3",
            )?
            .execute(params![account.as_str(), host.name, host.is_local])?;
        Ok(())
    }
}
