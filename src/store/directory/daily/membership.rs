//! What an entry counts as.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Row;

use super::super::super::columns::{UnknownWord, collect, maybe, parsed, words};
use super::super::super::error::StoreError;
use super::super::rows::{AccountStatus, Entry, PackageState};
use super::super::{Queries, Tx};
use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use atcomm_proto::syntax::{Did, Origin};

words! {
    /// The kind of a group of accounts.
    GroupKind {
        /// Enrolled accounts, by the host of their PDS.
        Host = "host",
        /// Enrolled accounts, by each mediator that their package names.
        Mediator = "mediator",
        /// Enrolled accounts, by the type of each key agreement key of their did:peer.
        KeyType = "keyType",
        /// Accounts with an invalid package, by the rule that it breaks.
        Rule = "rule",
    }
}

/// What an entry counts as in the totals: one of the three at most, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// Its account is active and has a valid package.
    Enrolled,
    /// Its account has a package and is not active.
    Inactive,
    /// Its account is active and has an invalid package.
    Invalid,
}

/// What an entry counts as, with its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    counted: Option<Counted>,
    groups: BTreeSet<(&'static str, String)>,
}

/// The columns of an entry that its membership is made of.
struct Columns<'e> {
    state: PackageState,
    status: &'e AccountStatus,
    reason: Option<&'e str>,
    pds: Option<&'e Origin>,
    peer: Option<&'e str>,
}

impl Membership {
    /// Returns the membership of an entry; `None`: there is no entry.
    pub fn of(entry: Option<&Entry>) -> Self {
        entry.map_or_else(Self::default, |entry| {
            let mediators = entry.mediators.iter();
            let columns = Columns {
                state: entry.state,
                status: &entry.status,
                reason: entry.reason.as_deref(),
                pds: entry.pds.as_ref(),
                peer: entry.peer.as_deref(),
            };
            columns.membership(mediators.map(|did| did.as_str().to_owned()))
        })
    }

    /// Returns whether two entries of one account count as the same for sure. Most writes prove an
    /// unchanged package again.
    pub fn is_same(old: &Entry, new: &Entry) -> bool {
        old.state == new.state
            && old.status.is_active() == new.status.is_active()
            && old.reason == new.reason
            && old.pds == new.pds
            && old.peer == new.peer
            && old.mediators == new.mediators
    }

    /// Returns whether the account is enrolled.
    pub fn is_enrolled(&self) -> bool {
        self.counted == Some(Counted::Enrolled)
    }

    /// Returns one account as it counts in the totals: enrolled, inactive, invalid.
    pub fn stock(&self) -> [i64; 3] {
        let is = |counted| i64::from(self.counted == Some(counted));
        [
            is(Counted::Enrolled),
            is(Counted::Inactive),
            is(Counted::Invalid),
        ]
    }

    /// Returns the groups that an account leaves and joins when it comes to another membership.
    pub fn moves(&self, to: &Self) -> Vec<(GroupKind, String, i64)> {
        let left = self.groups.difference(&to.groups).map(|group| (group, -1));
        let joined = to.groups.difference(&self.groups).map(|group| (group, 1));
        left.chain(joined)
            .filter_map(|((kind, name), accounts)| {
                Some((GroupKind::parse(kind)?, name.clone(), accounts))
            })
            .collect()
    }
}

impl Columns<'_> {
    fn membership(&self, mediators: impl Iterator<Item = String>) -> Membership {
        let is_active = self.status.is_active();
        let counted = match (self.state, is_active) {
            (PackageState::Present, true) => Some(Counted::Enrolled),
            (PackageState::Invalid, true) => Some(Counted::Invalid),
            (PackageState::Present | PackageState::Invalid, false) => Some(Counted::Inactive),
            _ => None,
        };
        let mut groups = BTreeSet::new();
        match counted {
            Some(Counted::Enrolled) => {
                let host = self.pds.map_or("", Origin::host);
                groups.insert((GroupKind::Host.as_str(), host.to_owned()));
                groups.extend(mediators.map(|name| (GroupKind::Mediator.as_str(), name)));
                let types = self.peer.map(key_types).unwrap_or_default();
                groups.extend(types.map(|name| (GroupKind::KeyType.as_str(), name)));
            }
            Some(Counted::Invalid) => {
                let rule = self.reason.unwrap_or_default();
                groups.insert((GroupKind::Rule.as_str(), rule.to_owned()));
            }
            Some(Counted::Inactive) | None => {}
        }
        Membership { counted, groups }
    }
}

/// Returns the names of the types of a did:peer's key agreement keys, each once or more.
fn key_types(peer: &str) -> std::vec::IntoIter<String> {
    let keys = PeerDid::parse(peer).map_or_else(|_| Vec::new(), |peer| peer.keys().to_vec());
    let names: Vec<String> = keys
        .iter()
        .filter(|key| key.purpose == Purpose::KeyAgreement)
        .map(|key| key_type_name(key.key_type).to_owned())
        .collect();
    names.into_iter()
}

/// Returns the name of a type of keys, as JOSE writes it.
fn key_type_name(key_type: KeyType) -> &'static str {
    match key_type {
        KeyType::X25519 => "X25519",
        KeyType::Ed25519 => "Ed25519",
        KeyType::P256 => "P-256",
        KeyType::K256 => "secp256k1",
    }
}

impl Tx<'_> {
    /// Counts all entries into `group_now`. Returns the totals: enrolled, inactive, invalid. Reads
    /// every entry, so it is for the first start only.
    pub(super) fn count_memberships(&self) -> Result<Vec<(usize, i64)>, StoreError> {
        let mut stock: BTreeMap<usize, i64> = BTreeMap::new();
        let mut groups: BTreeMap<(&'static str, String), i64> = BTreeMap::new();
        self.each_membership(|membership| {
            for (at, count) in membership.stock().into_iter().enumerate() {
                *stock.entry(at).or_default() += count;
            }
            for group in membership.groups {
                *groups.entry(group).or_default() += 1;
            }
        })?;
        for ((kind, name), accounts) in groups {
            if let Some(kind) = GroupKind::parse(kind) {
                self.move_group_now(kind, &name, accounts)?;
            }
        }
        Ok(stock.into_iter().collect())
    }
}

impl Queries<'_> {
    /// Calls `count` with the membership of every entry.
    pub(super) fn each_membership(
        &self,
        mut count: impl FnMut(Membership),
    ) -> Result<(), StoreError> {
        let mut mediators = self
            .0
            .prepare_cached("SELECT mediator FROM entry_mediator WHERE did = ?1")?;
        let mut entries = self.0.prepare(
            "SELECT did, state, status, reason, pds, peer FROM entry
             WHERE state IN ('present', 'invalid')",
        )?;
        let mut rows = entries.query([])?;
        while let Some(row) = rows.next()? {
            let did = parsed(row, 0, Did::parse)?;
            let named = collect(mediators.query_map([did.as_str()], |row| row.get(0))?)?;
            count(read_membership(row, named)?);
        }
        Ok(())
    }
}

fn read_membership(row: &Row<'_>, mediators: Vec<String>) -> Result<Membership, rusqlite::Error> {
    let state = parsed(row, "state", |s| {
        PackageState::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
    })?;
    let (reason, peer): (Option<String>, Option<String>) = (row.get("reason")?, row.get("peer")?);
    let pds = maybe(row, "pds", Origin::parse)?;
    let columns = Columns {
        state,
        status: &AccountStatus::parse(row.get_ref("status")?.as_str()?),
        reason: reason.as_deref(),
        pds: pds.as_ref(),
        peer: peer.as_deref(),
    };
    Ok(columns.membership(mediators.into_iter()))
}
