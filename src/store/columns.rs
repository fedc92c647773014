//! Columns and rows read as the values they were written from.

use ipld_core::cid::Cid;
use rusqlite::Row;

use super::StoreError;
use super::row::{
    AccountStatus, Change, ChangeKind, Entry, Hint, MediatorRow, PackageState, PendingRow,
    ProofMethod,
};
use crate::clock::Timestamp;
use crate::key::SigningKey;
use crate::syntax::{Did, Handle, MediatorDid, Origin, Rev};

pub(super) fn to_i64(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A count from the file; none is ever below zero.
pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(super) fn collect<T>(
    rows: impl Iterator<Item = Result<T, rusqlite::Error>>,
) -> Result<Vec<T>, StoreError> {
    rows.collect::<Result<_, _>>().map_err(StoreError::from)
}

/// A column's text read as what it must be; anything else is damage, because only this program
/// writes the file.
pub(super) fn parsed<T, E>(
    row: &Row<'_>,
    column: impl rusqlite::RowIndex,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, rusqlite::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let text = row.get_ref(column)?;
    parse(text.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

pub(super) fn maybe<T, E>(
    row: &Row<'_>,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, rusqlite::Error>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(None),
        _ => parsed(row, column, parse).map(Some),
    }
}

pub(super) fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, rusqlite::Error> {
    row.get(column).map(Timestamp::from_millis)
}

/// A word that this program never writes.
#[derive(Debug, thiserror::Error)]
#[error("unknown word in the store: {0}")]
pub(super) struct UnknownWord(pub(super) String);

pub(super) fn read_entry(row: &Row<'_>) -> Result<Entry, rusqlite::Error> {
    Ok(Entry {
        did: parsed(row, "did", Did::parse)?,
        handle: maybe(row, "handle", Handle::parse)?,
        pds: maybe(row, "pds", Origin::parse)?,
        signing_key: maybe(row, "signing_key", SigningKey::from_did_key)?,
        status: AccountStatus::parse(row.get_ref("status")?.as_str()?),
        state: parsed(row, "state", |s| {
            PackageState::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        reason: row.get("reason")?,
        detail: row.get("detail")?,
        rev: maybe(row, "rev", Rev::parse)?,
        commit: maybe(row, "commit_cid", str::parse::<Cid>)?,
        cid: maybe(row, "cid", str::parse::<Cid>)?,
        record: row.get("record")?,
        proof: row.get("proof")?,
        proof_pds: maybe(row, "proof_pds", Origin::parse)?,
        proof_key: maybe(row, "proof_key", SigningKey::from_did_key)?,
        identity_key: maybe(row, "identity_key", SigningKey::from_did_key)?,
        peer: row.get("peer")?,
        mediators: Vec::new(),
        regressed: row.get("regressed")?,
        source: row.get("source")?,
        method: parsed(row, "method", |s| {
            ProofMethod::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        observed_at: time(row, "observed_at")?,
        proved_at: row
            .get::<_, Option<i64>>("proved_at")?
            .map(Timestamp::from_millis),
        checked_at: time(row, "checked_at")?,
        next_check_at: time(row, "next_check_at")?,
        failures: row.get("failures")?,
        change_seq: row.get("change_seq")?,
    })
}

pub(super) fn read_change(row: &Row<'_>) -> Result<Change, rusqlite::Error> {
    Ok(Change {
        seq: row.get("seq")?,
        did: parsed(row, "did", Did::parse)?,
        kind: parsed(row, "kind", |s| {
            ChangeKind::parse(s).ok_or_else(|| UnknownWord(s.to_owned()))
        })?,
        rev: maybe(row, "rev", Rev::parse)?,
        cid: maybe(row, "cid", str::parse::<Cid>)?,
        peer: row.get("peer")?,
        mediators: maybe(row, "mediators", |s| serde_json::from_str(s))?.unwrap_or_default(),
        key: maybe(row, "key", SigningKey::from_did_key)?,
        detail: row.get("detail")?,
        seen_at: time(row, "seen_at")?,
        proof: row.get("proof")?,
    })
}

pub(super) fn read_pending(row: &Row<'_>) -> Result<PendingRow, rusqlite::Error> {
    Ok(PendingRow {
        did: parsed(row, "did", Did::parse)?,
        reason: row.get("reason")?,
        hint: match (
            row.get::<_, Option<String>>("hint")?,
            maybe(row, "hint_pds", Origin::parse)?,
        ) {
            (Some(status), Some(pds)) => Some(Hint {
                status: AccountStatus::parse(&status),
                pds,
            }),
            _ => None,
        },
        not_before: time(row, "not_before")?,
        attempts: row.get("attempts")?,
        generation: row.get("generation")?,
        since: time(row, "since")?,
    })
}

pub(super) fn read_mediator(row: &Row<'_>) -> Result<MediatorRow, rusqlite::Error> {
    Ok(MediatorRow {
        did: parsed(row, "did", MediatorDid::parse)?,
        document: row.get("document")?,
        checked_at: time(row, "checked_at")?,
        next_check_at: time(row, "next_check_at")?,
        failures: row.get("failures")?,
    })
}
