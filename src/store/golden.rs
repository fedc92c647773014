//! Golden stores: a small file of each schema version that there was, in `fixtures/stores/`, brought
//! to the newest version and killed at each step of the way.
//!
//! A golden store is made once, by [`make_golden_stores`], when its version is new, and never
//! again: it is what a program of that version has left on some disk. Each version adds rows in the
//! form that was written then to those of the versions before.

mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use rusqlite::Connection;
use rusqlite::types::Value;

use super::copy::StoreFile;
use super::error::StoreError;
use super::schema::{self, Schema};
use super::{DirectoryStore, MailboxStore};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/stores");

/// Tells the process that is killed which file it is to upgrade.
const FILE: &str = "ATCOMM_TEST_UPGRADE";

const FILES: [StoreFile; 2] = [StoreFile::Mailbox, StoreFile::Directory];

fn fixture(file: StoreFile, version: usize) -> PathBuf {
    let stem = file.name().trim_end_matches(".db");
    Path::new(FOLDER).join(format!("{stem}-{version:02}.db.gz"))
}

fn versions(file: StoreFile) -> usize {
    file.schema().migrations.len()
}

/// Makes the golden stores that are missing: `cargo test --lib make_golden_stores -- --ignored`.
#[test]
#[ignore = "writes fixtures"]
fn make_golden_stores() {
    for file in FILES {
        for version in 1..=versions(file) {
            let path = fixture(file, version);
            if path.exists() {
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let store = dir.path().join("store.db");
            make(&store, file, version);
            let text = fs::read(&store).unwrap();
            let mut packed = GzEncoder::new(File::create(&path).unwrap(), Compression::best());
            packed.write_all(&text).unwrap();
            packed.finish().unwrap();
        }
    }
}

fn make(path: &Path, file: StoreFile, version: usize) {
    let conn = Connection::open(path).unwrap();
    // The first version knew no map of pages.
    if version > 1 {
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")
            .unwrap();
    }
    for upto in 1..=version {
        schema::migrate(&conn, &file.schema().migrations[..upto]).unwrap();
        conn.execute_batch(rows::of(file, upto)).unwrap();
    }
}

/// Unpacks a golden store into a folder.
fn unpack(dir: &Path, file: StoreFile, version: usize) -> PathBuf {
    let path = dir.join(format!("{version}-{}", file.name()));
    let packed = File::open(fixture(file, version));
    let packed = packed.unwrap_or_else(|error| {
        panic!(
            "{}: {error}; see make_golden_stores",
            fixture(file, version).display()
        )
    });
    let mut text = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut text).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// The rows of each table, each row by its columns.
type Content = BTreeMap<String, Vec<BTreeMap<String, String>>>;

fn content(path: &Path) -> Content {
    let conn = Connection::open(path).unwrap();
    schema::add_functions(&conn).unwrap();
    let list = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
    let mut tables = conn.prepare(list).unwrap();
    let names = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let rows = |name: &str| {
        let mut query = conn.prepare(&format!("SELECT * FROM \"{name}\"")).unwrap();
        let columns: Vec<String> = query
            .column_names()
            .into_iter()
            .map(str::to_owned)
            .collect();
        let read = query.query_map([], |row| {
            let cells = columns.iter().enumerate();
            cells
                .map(|(at, column)| Ok((column.clone(), format!("{:?}", row.get::<_, Value>(at)?))))
                .collect()
        });
        read.unwrap().map(Result::unwrap).collect()
    };
    names
        .map(|name| name.unwrap())
        .map(|name| (name.clone(), rows(&name)))
        .collect()
}

/// Columns that a later step changes for a reason of its own.
const CHANGED: [(&str, &str); 10] = [
    // The second version of the mailbox gives closed queues back to their accounts.
    ("recipient", "account"),
    // What was kept in two columns of `entry` is in `proof`; see below.
    ("entry", "proof"),
    ("entry", "record"),
    // Starts of the change log are noted by the service, not by the schema.
    ("change_log", "floor"),
    // Mediators count since the eleventh version of the directory.
    ("domain_share", "bytes"),
    ("domain_share", "asked_bytes"),
    ("all_shares", "bytes"),
    ("all_shares", "asked_bytes"),
    // Counters of what is counted differently since.
    ("total", "bytes"),
    ("destination", "waiting_bytes"),
];

/// Returns the rows of `before` that `after` lacks, looking only at columns that both have.
fn lost(before: &Content, after: &Content) -> Vec<String> {
    let mut lost = Vec::new();
    for (table, rows) in before {
        let none = Vec::new();
        let left = after.get(table).unwrap_or(&none);
        let of = |rows: &[BTreeMap<String, String>]| -> BTreeSet<String> {
            rows.iter().flat_map(BTreeMap::keys).cloned().collect()
        };
        let columns: BTreeSet<String> = of(rows).intersection(&of(left)).cloned().collect();
        let project = |row: &BTreeMap<String, String>| -> Vec<String> {
            let kept = row.iter().filter(|(column, _)| {
                columns.contains(*column) && !CHANGED.contains(&(&**table, &***column))
            });
            kept.map(|(column, value)| format!("{column}={value}"))
                .collect()
        };
        let left: BTreeSet<Vec<String>> = left.iter().map(project).collect();
        for row in rows.iter().map(project) {
            if !left.contains(&row) {
                lost.push(format!("{table}: {row:?}"));
            }
        }
    }
    // A proof may have moved, and is never lost.
    let proofs = |content: &Content, table: &str, column: &str| -> BTreeSet<String> {
        let rows = content.get(table).into_iter().flatten();
        let proofs = rows
            .filter_map(|row| row.get(column))
            .filter(|cell| *cell != "Null");
        proofs.cloned().collect()
    };
    let mut left = proofs(after, "proof", "car");
    left.extend(proofs(after, "entry", "proof"));
    lost.extend(proofs(before, "entry", "proof").difference(&left).cloned());
    lost
}

/// Opens a store as the service does, and closes it.
async fn open(path: &Path, file: StoreFile) {
    match file {
        StoreFile::Mailbox => MailboxStore::open(path).unwrap().shutdown().await,
        StoreFile::Directory => DirectoryStore::open(path).unwrap().shutdown().await,
    }
}

#[tokio::test]
async fn a_store_of_each_version_is_upgraded_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for file in FILES {
        for version in 1..=versions(file) {
            let path = unpack(dir.path(), file, version);
            let before = content(&path);
            let filled = before.values().filter(|rows| !rows.is_empty()).count();
            assert!(
                filled >= 7,
                "{file:?} {version} has rows in {filled} tables only"
            );
            open(&path, file).await;
            let after = content(&path);
            assert_eq!(lost(&before, &after), [""; 0], "{file:?} {version}");
            // It has the form of a store that is new.
            let new = dir.path().join(format!("new-{version}-{}", file.name()));
            open(&new, file).await;
            assert_eq!(form(&path), form(&new), "{file:?} {version}");
            check_use(&path, file).await;
        }
    }
}

/// Returns the statements that made all tables, indexes and triggers, and the version.
fn form(path: &Path) -> (i64, BTreeSet<String>) {
    let conn = Connection::open(path).unwrap();
    let version = conn
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    let mut query = conn
        .prepare("SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema")
        .unwrap();
    let rows = query.query_map([], |row| row.get(0)).unwrap();
    (version, rows.map(Result::unwrap).collect())
}

/// Reads an upgraded store by the questions of the service.
async fn check_use(path: &Path, file: StoreFile) {
    match file {
        StoreFile::Mailbox => {
            let store = MailboxStore::open(path).unwrap();
            let (messages, _) = store.query(|q| q.totals()).await.unwrap();
            assert_eq!(messages, 2);
            store.shutdown().await;
        }
        StoreFile::Directory => {
            let store = DirectoryStore::open(path).unwrap();
            let did = atcomm_proto::syntax::Did::parse(rows::ALICE).unwrap();
            let entry = store.query(move |q| q.entry(&did)).await.unwrap().unwrap();
            assert_eq!(entry.handle.unwrap().as_str(), "alice.example.com");
            store.shutdown().await;
        }
    }
}

/// The process that is killed: upgrades a file, tells each step when it is begun and when it is done,
/// and waits for a word.
#[test]
#[ignore = "run as a process of its own"]
fn upgrading_child() {
    let Some(path) = std::env::var_os(FILE) else {
        return;
    };
    let path = Path::new(&path);
    let name = path.file_name().unwrap().to_str().unwrap();
    let is_mailbox = name.ends_with(StoreFile::Mailbox.name());
    let file = if is_mailbox {
        StoreFile::Mailbox
    } else {
        StoreFile::Directory
    };
    let conn = Connection::open(path).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
    )
    .unwrap();
    let Schema { migrations, .. } = file.schema();
    schema::migrate_observed(&conn, migrations, &mut |number, is_done| {
        let place = if is_done { "done" } else { "begun" };
        println!("@{number} {place}");
        std::io::stdin().read_line(&mut String::new()).unwrap();
    })
    .unwrap();
    println!("@end");
}

fn start(path: &Path) -> (Child, impl Iterator<Item = String>) {
    let name = format!(
        "{}::upgrading_child",
        module_path!().split_once("::").unwrap().1
    );
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env(FILE, path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let lines = stdout.lines().map(Result::unwrap);
    // The test harness may begin the first line.
    let told = lines.filter_map(|line| Some(line.split_once('@')?.1.to_owned()));
    (child, told)
}

/// Kills the upgrade of each store within each step and after it, one kill after the other.
#[tokio::test]
async fn inv10_an_upgrade_that_is_killed_at_every_step_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for file in FILES {
        let newest = versions(file);
        for version in 1..newest {
            let path = unpack(dir.path(), file, version);
            let before = content(&path);
            for step in version + 1..=newest {
                for place in ["begun", "done"] {
                    let (mut child, mut told) = start(&path);
                    let wanted = format!("{step} {place}");
                    let mut words = child.stdin.take().unwrap();
                    loop {
                        let line = told
                            .next()
                            .unwrap_or_else(|| panic!("{wanted} never comes"));
                        if line == wanted {
                            break;
                        }
                        // Only the step that the kill before has undone is begun again.
                        assert_eq!(line, format!("{step} begun"), "on the way to {wanted}");
                        words.write_all(b"\n").unwrap();
                    }
                    child.kill().unwrap();
                    child.wait().unwrap();
                }
                assert_eq!(
                    lost(&before, &content(&path)),
                    [""; 0],
                    "{file:?} {version} {step}"
                );
            }
            open(&path, file).await;
            assert_eq!(
                lost(&before, &content(&path)),
                [""; 0],
                "{file:?} {version}"
            );
            check_use(&path, file).await;
        }
    }
}

#[tokio::test]
async fn a_newer_store_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    for file in FILES {
        let path = unpack(dir.path(), file, versions(file));
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch("PRAGMA user_version = 1000").unwrap();
        drop(conn);
        let before = fs::read(&path).unwrap();
        let opened = match file {
            StoreFile::Mailbox => MailboxStore::open(&path).err(),
            StoreFile::Directory => DirectoryStore::open(&path).err(),
        };
        assert!(
            matches!(opened, Some(StoreError::Newer { found: 1000, .. })),
            "{opened:?}"
        );
        // But for the mark that it keeps a log.
        let after = fs::read(&path).unwrap();
        assert_eq!(before[100..], after[100..]);
    }
}
