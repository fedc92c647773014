//! The columns of `entry`, and how a row of them is read.

use ipld_core::cid::Cid;
use rusqlite::Row;

use super::super::columns::{UnknownWord, maybe, maybe_time, parsed, time};
use super::rows::{AccountStatus, Entry, PackageState, ProofMethod};
use atcomm_proto::key::SigningKey;
use atcomm_proto::syntax::{Did, Handle, Origin, Rev};

/// The columns of `entry`.
pub(super) const COLUMNS: [&str; 37] = [
    "did",
    "handle",
    "pds",
    "signing_key",
    "status",
    "state",
    "reason",
    "detail",
    "rev",
    "commit_cid",
    "cid",
    "proof_pds",
    "proof_key",
    "identity_key",
    "peer",
    "regressed",
    "source",
    "method",
    "observed_at",
    "proved_at",
    "checked_at",
    "next_check_at",
    "failures",
    "change_seq",
    "claimed",
    "handle_at",
    "handle_next_at",
    "handle_failures",
    "identity_at",
    "proofs",
    "missing_since",
    "doubt_since",
    "handle_checked_at",
    "handle_news",
    "domain",
    "asked",
    "failure",
];

/// The position of a column in [`COLUMNS`]. Looking a name up in each row would cost more than reading
/// the row.
macro_rules! column {
    ($name:literal) => {
        const { position($name) }
    };
}

/// Returns the position of a column in [`COLUMNS`]. Evaluated by the compiler.
const fn position(name: &str) -> usize {
    let mut at = 0;
    while !is_same(COLUMNS[at].as_bytes(), name.as_bytes()) {
        at += 1;
    }
    at
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Reads a row of [`COLUMNS`].
pub(super) fn read_entry(row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    let signing_key = maybe(row, column!("signing_key"), SigningKey::from_did_key)?;
    // Nearly always the same key. To check that a point is on its curve costs more than to read the
    // rest of the row, so a text is checked once.
    let same_or_read = |column: usize| {
        let text = row.get_ref(column!("signing_key"))?;
        if row.get_ref(column)? == text {
            return Ok(signing_key.clone());
        }
        maybe(row, column, SigningKey::from_did_key)
    };
    let proof_key = same_or_read(column!("proof_key"))?;
    let identity_key = same_or_read(column!("identity_key"))?;
    Ok(Entry {
        did: parsed(row, column!("did"), Did::parse)?,
        handle: maybe(row, column!("handle"), Handle::parse)?,
        pds: maybe(row, column!("pds"), Origin::parse)?,
        signing_key,
        status: AccountStatus::parse(row.get_ref(column!("status"))?.as_str()?),
        state: parsed(row, column!("state"), |s| {
            PackageState::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        reason: row.get(column!("reason"))?,
        detail: row.get(column!("detail"))?,
        rev: maybe(row, column!("rev"), Rev::parse)?,
        commit: maybe(row, column!("commit_cid"), str::parse::<Cid>)?,
        cid: maybe(row, column!("cid"), str::parse::<Cid>)?,
        proof_pds: maybe(row, column!("proof_pds"), Origin::parse)?,
        proof_key,
        identity_key,
        peer: row.get(column!("peer"))?,
        mediators: Vec::new(),
        regressed: row.get(column!("regressed"))?,
        source: row.get(column!("source"))?,
        method: parsed(row, column!("method"), |s| {
            ProofMethod::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        observed_at: time(row, column!("observed_at"))?,
        proved_at: maybe_time(row, column!("proved_at"))?,
        checked_at: time(row, column!("checked_at"))?,
        next_check_at: time(row, column!("next_check_at"))?,
        failures: row.get(column!("failures"))?,
        change_seq: row.get(column!("change_seq"))?,
        claimed: maybe(row, column!("claimed"), Handle::parse)?,
        handle_at: maybe_time(row, column!("handle_at"))?,
        handle_next_at: maybe_time(row, column!("handle_next_at"))?,
        handle_failures: row.get(column!("handle_failures"))?,
        identity_at: maybe_time(row, column!("identity_at"))?,
        proofs: row.get(column!("proofs"))?,
        missing_since: maybe_time(row, column!("missing_since"))?,
        doubt_since: maybe_time(row, column!("doubt_since"))?,
        handle_checked_at: maybe_time(row, column!("handle_checked_at"))?,
        handle_news: row.get(column!("handle_news"))?,
        domain: row.get(column!("domain"))?,
        asked: row.get(column!("asked"))?,
        failure: row.get(column!("failure"))?,
    })
}
