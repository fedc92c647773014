//! Schemas and their migrations. Times are milliseconds since 1970 and identifiers are text, so
//! that any SQLite tool can read a snapshot.

use std::collections::BTreeSet;

use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

use super::error::{Damage, StoreError};
use atcomm_net::net::owner_domain;
use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use atcomm_proto::syntax::{MediatorDid, Origin};

mod daily;
mod directory;
mod mailbox;
mod tally;

pub(super) use directory::DIRECTORY;
pub(super) use mailbox::MAILBOX;

/// One step of a schema. The steps run in order, once, each in a transaction.
pub(super) type Migration = &'static str;

/// The schema of a file.
pub(super) struct Schema {
    /// Whether free pages can be given back to the file system, in batches and on demand. A file
    /// that was made without this is rewritten once.
    pub(super) reclaims: bool,
    /// The steps that made the tables, from the first version on.
    pub(super) migrations: &'static [Migration],
}

/// Brings a file from its version to the newest, each step in its own transaction.
pub(super) fn migrate(conn: &Connection, migrations: &[Migration]) -> Result<(), StoreError> {
    let done = version(conn, migrations)?;
    add_functions(conn)?;
    for (step, migration) in (1_i64..).zip(migrations).skip(done) {
        conn.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration}; PRAGMA user_version = {step}; COMMIT;"
        ))?;
    }
    Ok(())
}

/// Returns the version of a file: the number of migrations that were made.
fn version(conn: &Connection, migrations: &[Migration]) -> Result<usize, StoreError> {
    let known = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    let found: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    usize::try_from(found)
        .map_err(|_| StoreError::Corrupt(Damage::Contents("negative schema version")))
}

/// Checks that a file has the newest version, and changes nothing.
pub(super) fn check(conn: &Connection, schema: &Schema) -> Result<(), StoreError> {
    if version(conn, schema.migrations)? < schema.migrations.len() {
        let reason = "it is of an earlier version: start the service of this version on it first";
        return Err(StoreError::Corrupt(Damage::Contents(reason)));
    }
    Ok(())
}

/// Adds what migrations and triggers ask for beside SQL: `domain_of(pds)` gives the domain under which
/// an account at a PDS counts, `domain_of_mediator(did)` that of a mediator, and `key_type_of(peer)`
/// the types of the keys in a did:peer.
pub(super) fn add_functions(conn: &Connection) -> Result<(), StoreError> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_INNOCUOUS;
    conn.create_scalar_function("domain_of", 1, flags, |context| {
        let pds: Option<String> = context.get(0)?;
        let pds = pds.and_then(|pds| Origin::parse(&pds).ok());
        Ok(domain_of(pds.as_ref()))
    })?;
    conn.create_scalar_function("domain_of_mediator", 1, flags, |context| {
        let did: String = context.get(0)?;
        Ok(MediatorDid::parse(&did).map_or_else(|_| String::new(), |did| domain_of_mediator(&did)))
    })?;
    conn.create_scalar_function("key_type_of", 1, flags, |context| {
        let peer: Option<String> = context.get(0)?;
        let peer = peer.and_then(|peer| PeerDid::parse(&peer).ok());
        Ok(peer.map_or_else(|| "unknown".to_owned(), |peer| key_type_of(&peer)))
    })?;
    Ok(())
}

/// Returns the domain under which a mediator counts: the empty one where it has no host.
pub(super) fn domain_of_mediator(did: &MediatorDid) -> String {
    did.web()
        .map_or_else(String::new, |web| owner_domain(&web.host, web.port))
}

/// Returns the domain under which an account at a PDS counts: the empty one without a PDS.
pub(super) fn domain_of(pds: Option<&Origin>) -> String {
    pds.map_or_else(String::new, |pds| {
        let url = pds.to_url();
        owner_domain(url.host_str().unwrap_or_default(), url.port())
    })
}

/// Returns the types of the keys in a did:peer: those for key agreement and those for
/// authentication, each type once, as in `X25519/Ed25519` and `P-256+X25519/none`.
pub(super) fn key_type_of(peer: &PeerDid) -> String {
    let types_for = |purpose| {
        let keys = peer.keys().iter().filter(|key| key.purpose == purpose);
        let names: BTreeSet<&str> = keys
            .map(|key| match key.key_type {
                KeyType::X25519 => "X25519",
                KeyType::Ed25519 => "Ed25519",
                KeyType::P256 => "P-256",
                KeyType::K256 => "secp256k1",
            })
            .collect();
        if names.is_empty() {
            "none".to_owned()
        } else {
            Vec::from_iter(names).join("+")
        }
    };
    let (agreement, authentication) = (
        types_for(Purpose::KeyAgreement),
        types_for(Purpose::Authentication),
    );
    format!("{agreement}/{authentication}")
}
