//! Rows of accounts and of the change log, one after the other, for a file of the operator's own.

use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};

use super::super::columns::{unsigned, words};
use super::super::error::StoreError;
use super::Queries;

words! {
    /// What is exported.
    ExportTable {
        /// The accounts as they are now, a row each.
        Accounts = "accounts",
        /// The change log, a row for each change.
        Changes = "changes",
    }
}

/// The kind of a column's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    /// The DID of an account.
    Did,
    /// The handle of an account.
    Handle,
    /// A did:peer.
    Peer,
    /// A text; it may be of the network.
    Text,
    /// Several texts, as a JSON array.
    List,
    /// A time in milliseconds since 1970.
    Time,
    /// 0 or 1.
    Flag,
    /// A number.
    Number,
}

/// A column of an export.
#[derive(Debug, Clone, Copy)]
pub struct ExportColumn {
    /// Its name.
    pub name: &'static str,
    /// The kind of its values.
    pub kind: ColumnKind,
    /// Whether one value alone leads to the account, by what is public of it.
    pub is_telling: bool,
    sql: &'static str,
}

/// A value in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'r> {
    /// None.
    Empty,
    /// A text.
    Text(&'r str),
    /// A number, time or flag.
    Number(i64),
}

/// The key that rows are sorted by, made of an account's DID.
pub type SortKey = Box<dyn Fn(&str) -> String + Send>;

const fn column(name: &'static str, kind: ColumnKind, sql: &'static str) -> ExportColumn {
    ExportColumn {
        name,
        kind,
        is_telling: false,
        sql,
    }
}

const fn telling(name: &'static str, kind: ColumnKind, sql: &'static str) -> ExportColumn {
    ExportColumn {
        is_telling: true,
        ..column(name, kind, sql)
    }
}

const ACCOUNTS: &[ExportColumn] = &[
    column("did", ColumnKind::Did, "t.did"),
    column("handle", ColumnKind::Handle, "t.handle"),
    column("handleConfirmedAt", ColumnKind::Time, "t.handle_at"),
    column("pds", ColumnKind::Text, "t.pds"),
    column("state", ColumnKind::Text, "t.account_state"),
    column("reason", ColumnKind::Text, "t.account_reason"),
    telling("detail", ColumnKind::Text, "t.detail"),
    telling("rev", ColumnKind::Text, "t.rev"),
    telling("cid", ColumnKind::Text, "t.cid"),
    column("peer", ColumnKind::Peer, "t.peer"),
    column(
        "keyType",
        ColumnKind::Text,
        "iif(t.peer IS NULL, NULL, key_type_of(t.peer))",
    ),
    column(
        "mediators",
        ColumnKind::List,
        "(SELECT json_group_array(mediator) FROM
           (SELECT mediator FROM entry_mediator WHERE did = t.did ORDER BY position))",
    ),
    telling("signingKey", ColumnKind::Text, "t.proof_key"),
    column("regressed", ColumnKind::Flag, "t.regressed"),
    column("knownGoodUntil", ColumnKind::Time, "t.doubt_since"),
    column("source", ColumnKind::Text, "t.source"),
    column("method", ColumnKind::Text, "t.method"),
    column("observedAt", ColumnKind::Time, "t.observed_at"),
    column("provedAt", ColumnKind::Time, "t.proved_at"),
    column("checkedAt", ColumnKind::Time, "t.checked_at"),
    column("failure", ColumnKind::Text, "t.failure"),
];

const CHANGES: &[ExportColumn] = &[
    telling("seq", ColumnKind::Number, "t.seq"),
    column("did", ColumnKind::Did, "t.did"),
    column("kind", ColumnKind::Text, "t.kind"),
    column("seenAt", ColumnKind::Time, "t.seen_at"),
    telling("rev", ColumnKind::Text, "t.rev"),
    telling("cid", ColumnKind::Text, "t.cid"),
    column("peer", ColumnKind::Peer, "t.peer"),
    column("mediators", ColumnKind::List, "t.mediators"),
    telling("signingKey", ColumnKind::Text, "t.key"),
    telling("detail", ColumnKind::Text, "t.detail"),
    column("status", ColumnKind::Text, "t.status"),
    column("state", ColumnKind::Text, "t.state"),
    column("reason", ColumnKind::Text, "t.reason"),
    column("handle", ColumnKind::Handle, "t.handle"),
    column("pds", ColumnKind::Text, "t.pds"),
    column("regressed", ColumnKind::Flag, "t.regressed"),
];

impl ExportTable {
    /// Returns the columns, in their order.
    pub fn columns(self) -> &'static [ExportColumn] {
        match self {
            Self::Accounts => ACCOUNTS,
            Self::Changes => CHANGES,
        }
    }

    /// Returns the question for some of the columns. Sorted rows have those of an account together.
    fn sql(self, columns: &[ExportColumn], sorted: bool) -> String {
        let names: Vec<&str> = columns.iter().map(|column| column.sql).collect();
        let (table, rows) = match self {
            Self::Accounts => ("entry", "t.rowid"),
            Self::Changes => ("change", "t.seq"),
        };
        let key = if sorted { "sort_key(t.did), " } else { "" };
        let names = names.join(", ");
        format!("SELECT {names} FROM {table} AS t ORDER BY {key}{rows}")
    }
}

impl Queries<'_> {
    /// Returns the number of rows of a table. Of the change log it reads an index.
    pub fn count_rows(&self, table: ExportTable) -> Result<u64, StoreError> {
        match table {
            ExportTable::Accounts => Ok(self.share_of_all()?.entries),
            ExportTable::Changes => {
                let mut query = self.0.prepare_cached("SELECT count(*) FROM change")?;
                Ok(unsigned(query.query_row([], |row| row.get(0))?))
            }
        }
    }

    /// Calls `each` with the values of each row of a table, in the order of `columns`. Memory is
    /// bounded: one row, and where the rows are sorted, what the engine does not put into its
    /// temporary files.
    pub fn each_row<E: From<StoreError>>(
        &self,
        table: ExportTable,
        columns: &[ExportColumn],
        key: Option<SortKey>,
        mut each: impl FnMut(&[Cell<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let sorted = key.is_some();
        if let Some(key) = key {
            add_sort_key(self.0, key)?;
        }
        let sql = table.sql(columns, sorted);
        let mut query = self.0.prepare(&sql).map_err(StoreError::from)?;
        let mut rows = query.query([]).map_err(StoreError::from)?;
        while let Some(row) = rows.next().map_err(StoreError::from)? {
            each(&cells(row, columns.len())?)?;
        }
        Ok(())
    }
}

fn add_sort_key(conn: &Connection, key: SortKey) -> Result<(), StoreError> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    conn.create_scalar_function("sort_key", 1, flags, move |context| {
        Ok(key(context.get_raw(0).as_str()?))
    })?;
    Ok(())
}

fn cells<'r>(row: &'r Row<'_>, columns: usize) -> Result<Vec<Cell<'r>>, StoreError> {
    (0..columns)
        .map(|at| {
            Ok(match row.get_ref(at)? {
                ValueRef::Null => Cell::Empty,
                ValueRef::Integer(number) => Cell::Number(number),
                text => Cell::Text(text.as_str().map_err(rusqlite::Error::from)?),
            })
        })
        .collect()
}
