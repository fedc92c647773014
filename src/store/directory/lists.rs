//! Lists of accounts and mediators, page by page.
//!
//! All are in the order of DIDs: a page begins after the DID at which the page before ended, so that
//! an account which is there throughout is on one page exactly, whatever changes meanwhile.

use std::collections::HashMap;

use rusqlite::{Row, Rows, params};

use super::super::columns::{
    UnknownWord, collect, maybe, maybe_time, parsed, time, to_i64, unsigned, words,
};
use super::super::error::StoreError;
use super::Queries;
use super::rows::{AccountStatus, PackageState};
use super::tally::Tally;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin, Rev, SyntaxError};

/// Rows that are read for a page. Where few of them are on the list the page is short.
pub(super) const MAX_READ: usize = if cfg!(test) { 20 } else { 1000 };

words! {
    /// The state that an account is listed under: each under one.
    AccountState {
        /// Active, with a valid package.
        Enrolled = "enrolled",
        /// Not active.
        Inactive = "inactive",
        /// Active, with a package that breaks a rule.
        Invalid = "invalid",
        /// Active, and proven to have no package any more.
        Removed = "removed",
        /// Active, and without a package by the word of its PDS.
        RemovedUnproven = "removedUnproven",
        /// Active, and nothing is proven under its present key and PDS.
        Unverifiable = "unverifiable",
    }
}

/// The accounts on a list: those to which all that is given applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccountFilter {
    /// Accounts of this PDS.
    pub pds: Option<Origin>,
    /// Accounts whose valid package names this mediator.
    pub mediator: Option<MediatorDid>,
    /// Accounts in this state.
    pub state: Option<AccountState>,
}

/// An account on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAccount {
    /// The account.
    pub did: Did,
    /// Handle, verified in both directions at `handle_at`.
    pub handle: Option<Handle>,
    /// When handle and DID last named each other.
    pub handle_at: Option<Timestamp>,
    /// The account's PDS.
    pub pds: Option<Origin>,
    /// The account's state.
    pub state: AccountState,
    /// The status of an account that is not active; the rule that a package breaks, or the reason
    /// why nothing is proven.
    pub reason: Option<String>,
    /// Revision of the newest proof.
    pub rev: Option<Rev>,
    /// When the state of the account's package was first seen.
    pub observed_at: Timestamp,
}

/// A mediator on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedMediator {
    /// The mediator.
    pub did: MediatorDid,
    /// Enrolled accounts that name it.
    pub recipients: u64,
    /// Its document as JSON, if it was ever to be looked up.
    pub document: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage<T> {
    /// The items, in the order of their DIDs. There may be fewer than asked for, or none, before
    /// the end of the list.
    pub items: Vec<T>,
    /// The DID after which the next page begins; `None` at the end of the list.
    pub next: Option<String>,
}

/// The places of the columns in a row of a list.
const DID: usize = 0;
const HANDLE: usize = 1;
const HANDLE_AT: usize = 2;
const PDS: usize = 3;
const STATUS: usize = 4;
const STATE: usize = 5;
const REASON: usize = 6;
const REV: usize = 7;
const OBSERVED_AT: usize = 8;

/// Whether the package names the mediator that is asked for beside the selection.
const NAMES_MEDIATOR: usize = 9;

/// All columns are in one index in the order of DIDs, so that the accounts of a page are read from few
/// pages of the file: by their rows they would be read from one each.
macro_rules! accounts {
    ($from:literal) => {
        concat!(
            "SELECT e.did, e.handle, e.handle_at, e.pds, e.status, e.state, e.reason, e.rev,
               e.observed_at, CASE WHEN ?4 IS NULL THEN 1 ELSE EXISTS (
                 SELECT 1 FROM entry_mediator AS n WHERE n.mediator = ?4 AND n.did = e.did) END
             FROM ",
            $from,
            " LIMIT ?2"
        )
    };
}

pub(super) const ALL: &str =
    accounts!("entry AS e INDEXED BY entry_listed WHERE e.did > ?1 ORDER BY e.did");

pub(super) const OF_PDS: &str = accounts!(
    "entry AS o INDEXED BY entry_pds_did CROSS JOIN entry AS e INDEXED BY entry_listed
       ON e.did = o.did WHERE o.pds = ?3 AND o.did > ?1 ORDER BY o.did"
);

/// Of every state but `enrolled`.
pub(super) const IN_STATE: &str = accounts!(
    "entry AS o INDEXED BY entry_account_state CROSS JOIN entry AS e INDEXED BY entry_listed
       ON e.did = o.did
       WHERE o.account_state = ?3 AND o.account_state <> 'enrolled' AND o.did > ?1 ORDER BY o.did"
);

/// An account that names the mediator twice comes twice.
pub(super) const OF_MEDIATOR: &str = accounts!(
    "entry_mediator AS m INDEXED BY entry_mediator_mediator CROSS JOIN entry AS e
       INDEXED BY entry_listed ON e.did = m.did WHERE m.mediator = ?3 AND m.did > ?1 ORDER BY m.did"
);

pub(super) const MEDIATORS: &str = "SELECT t.name, t.count, m.document
 FROM tally AS t LEFT JOIN mediator AS m ON m.did = t.name
 WHERE t.kind = 'mediator' AND t.name > ?1 ORDER BY t.name LIMIT ?2";

/// The part of a filter by whose index a page is read.
#[derive(Debug, Clone, Copy)]
enum Selection<'f> {
    All,
    Pds(&'f str),
    State(&'f str),
    Mediator(&'f str),
}

impl Queries<'_> {
    /// Returns the accounts on a list after a DID, at most `limit`. Reads a thousand rows at most.
    pub fn list_accounts(
        &self,
        filter: &AccountFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage<ListedAccount>, StoreError> {
        let selection = self.selection(filter)?;
        let (sql, key) = match selection {
            Selection::All => (ALL, None),
            Selection::Pds(pds) => (OF_PDS, Some(pds)),
            Selection::State(state) => (IN_STATE, Some(state)),
            Selection::Mediator(did) => (OF_MEDIATOR, Some(did)),
        };
        let mediator = match selection {
            Selection::Mediator(_) => None,
            _ => filter.mediator.as_ref().map(MediatorDid::as_str),
        };
        let mut query = self.0.prepare_cached(sql)?;
        let (after, most) = (after.unwrap_or_default(), to_i64(MAX_READ));
        let rows = query.query(params![after, most, key, mediator])?;
        let mut origins = Origins::default();
        page(rows, limit, MAX_READ, |row| {
            let is_listed = passes(row, filter)?;
            is_listed
                .then(|| read_account(row, &mut origins))
                .transpose()
        })
    }

    /// Returns the accounts after a DID that have a package and are active, at most `limit`. Reads
    /// a thousand more rows at most.
    pub fn list_repos(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage<Did>, StoreError> {
        let mut query = self.0.prepare_cached(ALL)?;
        let most = limit.saturating_add(MAX_READ);
        let nothing: Option<&str> = None;
        let after = after.unwrap_or_default();
        let rows = query.query(params![after, to_i64(most), nothing, nothing])?;
        page(rows, limit, most, |row| {
            let state = read_state(row)?;
            let is_listed = matches!(state, AccountState::Enrolled | AccountState::Invalid);
            is_listed.then(|| parsed(row, DID, Did::parse)).transpose()
        })
    }

    /// Returns the mediators after a DID that enrolled accounts name, at most `limit`.
    pub fn list_mediators(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ListPage<ListedMediator>, StoreError> {
        let mut query = self.0.prepare_cached(MEDIATORS)?;
        let most = to_i64(limit.saturating_add(1));
        let rows = query.query_map(params![after.unwrap_or_default(), most], |row| {
            Ok(ListedMediator {
                did: parsed(row, 0, MediatorDid::parse)?,
                recipients: unsigned(row.get(1)?),
                document: row.get(2)?,
            })
        })?;
        let mut items = collect(rows)?;
        let is_last = items.len() <= limit;
        items.truncate(limit);
        let last = items.last().filter(|_| !is_last);
        Ok(ListPage {
            next: last.map(|item| item.did.as_str().to_owned()),
            items,
        })
    }

    /// Returns the part of a filter that the fewest accounts pass, as far as they are counted: the
    /// more rows of a page are on the list, the fewer are read for it.
    fn selection<'f>(&self, filter: &'f AccountFilter) -> Result<Selection<'f>, StoreError> {
        let mut counted = Vec::new();
        if let Some(mediator) = &filter.mediator {
            let mediator = mediator.as_str();
            let count = self.tally(Tally::Mediator, mediator)?;
            counted.push((count, Selection::Mediator(mediator)));
        }
        if let Some(state) = filter
            .state
            .filter(|state| *state != AccountState::Enrolled)
        {
            let count = self.tally(Tally::State, state.as_str())?;
            counted.push((count, Selection::State(state.as_str())));
        }
        if let Some(pds) = &filter.pds {
            let count = self.tally(Tally::Pds, pds.as_str())?;
            counted.push((count, Selection::Pds(pds.as_str())));
        }
        let fewest = counted.into_iter().min_by_key(|(count, _)| *count);
        Ok(fewest.map_or(Selection::All, |(_, selection)| selection))
    }
}

/// The PDSes in the rows of a page: most accounts are at few of them, and to check the syntax of a
/// URL costs more than to read the row.
#[derive(Default)]
struct Origins(HashMap<String, Origin>);

impl Origins {
    fn parse(&mut self, text: &str) -> Result<Origin, SyntaxError> {
        if let Some(origin) = self.0.get(text) {
            return Ok(origin.clone());
        }
        let origin = Origin::parse(text)?;
        self.0.insert(text.to_owned(), origin.clone());
        Ok(origin)
    }
}

/// Returns whether a row is on the list.
fn passes(row: &Row<'_>, filter: &AccountFilter) -> Result<bool, rusqlite::Error> {
    let pds = filter.pds.as_ref().map(Origin::as_str);
    if pds.is_some() && text(row, PDS)? != pds {
        return Ok(false);
    }
    if let Some(state) = filter.state
        && read_state(row)? != state
    {
        return Ok(false);
    }
    row.get(NAMES_MEDIATOR)
}

/// Reads the items of a page from `most` rows or fewer, each of which begins with a DID, in its
/// order. `read` returns `None` for a row that is not on the list.
fn page<T>(
    mut rows: Rows<'_>,
    limit: usize,
    most: usize,
    mut read: impl FnMut(&Row<'_>) -> Result<Option<T>, rusqlite::Error>,
) -> Result<ListPage<T>, StoreError> {
    let mut items = Vec::new();
    let (mut last, mut seen) = (String::new(), 0);
    while let Some(row) = rows.next()? {
        let did = row.get_ref(DID)?.as_str().map_err(rusqlite::Error::from)?;
        seen += 1;
        if did == last {
            continue;
        }
        if let Some(item) = read(row)? {
            if items.len() == limit {
                return Ok(ListPage {
                    items,
                    next: Some(last),
                });
            }
            items.push(item);
        }
        last.clear();
        last.push_str(did);
    }
    Ok(ListPage {
        items,
        next: (seen == most).then_some(last),
    })
}

fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<Option<&'r str>, rusqlite::Error> {
    Ok(row.get_ref(column)?.as_str_or_null()?)
}

/// Reads the state that an account is listed under: the column `account_state` by what it is
/// generated from, which an index can hold.
fn read_state(row: &Row<'_>) -> Result<AccountState, rusqlite::Error> {
    if !AccountStatus::parse(row.get_ref(STATUS)?.as_str()?).is_active() {
        return Ok(AccountState::Inactive);
    }
    parsed(row, STATE, |word| {
        let state = PackageState::parse(word).ok_or_else(|| UnknownWord(word.to_owned()))?;
        Ok::<_, UnknownWord>(match state {
            PackageState::Present => AccountState::Enrolled,
            PackageState::Invalid => AccountState::Invalid,
            PackageState::Removed => AccountState::Removed,
            PackageState::RemovedUnproven => AccountState::RemovedUnproven,
            PackageState::Unverifiable => AccountState::Unverifiable,
        })
    })
}

fn read_account(row: &Row<'_>, origins: &mut Origins) -> Result<ListedAccount, rusqlite::Error> {
    let state = read_state(row)?;
    Ok(ListedAccount {
        did: parsed(row, DID, Did::parse)?,
        handle: maybe(row, HANDLE, Handle::parse)?,
        handle_at: maybe_time(row, HANDLE_AT)?,
        pds: maybe(row, PDS, |text| origins.parse(text))?,
        state,
        reason: match state {
            AccountState::Inactive => Some(row.get(STATUS)?),
            AccountState::Invalid | AccountState::Unverifiable => {
                let reason: Option<String> = row.get(REASON)?;
                Some(reason.unwrap_or_default())
            }
            _ => None,
        },
        rev: maybe(row, REV, Rev::parse)?,
        observed_at: time(row, OBSERVED_AT)?,
    })
}
