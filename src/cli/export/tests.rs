use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use clap::Parser as _;
use serde_json::Value;

use super::super::{Cli, Command};
use super::*;
use crate::store::directory::Owner;
use crate::store::{AccountStatus, Change, ChangeKind, DirectoryStore, Entry, PackageState};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin, Rev};

const ACCOUNTS: i64 = 40;

/// A data directory of a service that runs, with accounts and a change of each.
struct Service {
    dir: tempfile::TempDir,
    store: DirectoryStore,
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_893_456_000_000 + seconds * 1000)
}

fn did(n: i64) -> Did {
    let letter = |i: i32| char::from(b'a' + u8::try_from((n >> (i * 2)) & 3).unwrap());
    let tail: String = (0..24).map(letter).collect();
    Did::parse(&format!("did:plc:{tail}")).unwrap()
}

fn entry(n: i64) -> Entry {
    let hidden = n % 4 == 0;
    Entry {
        handle: Some(Handle::parse(&format!("user{n}.example.com")).unwrap()),
        handle_at: Some(at(n)),
        pds: Some(Origin::parse("https://pds.example.com").unwrap()),
        status: if hidden {
            AccountStatus::parse("=cmd|x")
        } else {
            AccountStatus::Active
        },
        state: PackageState::Present,
        detail: Some(format!("about user{n}.example.com")),
        rev: Some(Rev::parse("3n2wo76pa3k2w").unwrap()),
        peer: Some(format!("did:peer:2.{n}")),
        mediators: ["did:web:b.example.com", "did:web:a.example.com"]
            .map(|did| MediatorDid::parse(did).unwrap())
            .to_vec(),
        ..Entry::empty(did(n), "relay", at(n))
    }
}

impl Service {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(crate::server::DIRECTORY_FILE);
        let store = DirectoryStore::open(&path).unwrap();
        for n in 0..ACCOUNTS {
            let written = store.transact(move |tx| {
                let entry = entry(n);
                tx.put_entry(&entry)?;
                let owner = Owner {
                    domain: "example.com".to_owned(),
                    asked: false,
                };
                let change = Change::of(&entry, ChangeKind::Package, entry.detail.clone(), at(n));
                tx.append_change(&change, &owner)
            });
            written.await.unwrap();
        }
        Self { dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn args(&self, file: &str, more: &[&str]) -> Export {
        let data_dir = self.dir.path().to_str().unwrap();
        let args = ["atcomm", "export", file, "--data-dir", data_dir];
        let args = args.iter().chain(more);
        let Command::Export(args) = Cli::try_parse_from(args).unwrap().command else {
            panic!("another command")
        };
        args
    }

    fn run(&self, file: &str, more: &[&str]) -> Result<String, CliError> {
        let mut stdout = Vec::new();
        let exported = super::run(&self.args(file, more), &mut stdout, &|| false);
        exported.map(|()| String::from_utf8(stdout).unwrap())
    }

    /// Returns the rows that are written to standard output.
    fn rows(&self, more: &[&str]) -> Vec<Value> {
        let text = self.run("-", more).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn key(&self, byte: u8) -> String {
        let path = self.path(&format!("key{byte}"));
        atcomm_net::durable::replace(&path, &[byte; 32], Mode::Private).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn texts<'v>(rows: &'v [Value], name: &str) -> Vec<&'v str> {
    rows.iter().map(|row| row[name].as_str().unwrap()).collect()
}

#[tokio::test]
async fn every_account_is_a_row_beside_the_service() {
    let service = Service::start().await;
    let rows = service.rows(&[]);
    assert_eq!(i64::try_from(rows.len()).unwrap(), ACCOUNTS);
    for (n, row) in rows.iter().enumerate() {
        let n = i64::try_from(n).unwrap();
        assert_eq!(row["did"], did(n).as_str());
        assert_eq!(row["handle"], format!("user{n}.example.com"));
        assert_eq!(
            row["mediators"],
            serde_json::json!(["did:web:b.example.com", "did:web:a.example.com"])
        );
        let (state, reason) = if n % 4 == 0 {
            ("inactive", Value::from("=cmd|x"))
        } else {
            ("enrolled", Value::Null)
        };
        assert_eq!(
            (row["state"].as_str(), &row["reason"]),
            (Some(state), &reason)
        );
        assert_eq!(row["observedAt"], at(n).to_string());
        assert_eq!(row["provedAt"], Value::Null);
        assert_eq!(row["regressed"], false);
    }
    let changes = service.rows(&["--table", "changes"]);
    let seqs: Vec<i64> = changes
        .iter()
        .map(|row| row["seq"].as_i64().unwrap())
        .collect();
    assert!(seqs.is_sorted() && seqs.len() == rows.len());
    assert_eq!(changes[3]["did"], did(3).as_str());
    assert_eq!(changes[3]["kind"], "package");
    assert_eq!(changes[3]["seenAt"], at(3).to_string());
    assert!(service.store.is_healthy());
}

#[tokio::test]
async fn a_file_is_new_private_and_whole() {
    let service = Service::start().await;
    let path = service.path("accounts.csv");
    let file = path.to_str().unwrap();
    let told = service.run(file, &["--json"]).unwrap();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["rows"], ACCOUNTS);
    assert_eq!(
        (&told["format"], &told["table"]),
        (&"csv".into(), &"accounts".into())
    );
    let meta = std::fs::metadata(&path).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o600);
    let mut reader = csv::Reader::from_path(&path).unwrap();
    let names: Vec<String> = reader
        .headers()
        .unwrap()
        .iter()
        .map(str::to_owned)
        .collect();
    let columns = ExportTable::Accounts.columns().iter();
    assert!(columns.map(|column| column.name).eq(&names));
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    assert_eq!(i64::try_from(rows.len()).unwrap(), ACCOUNTS);
    let reason = names.iter().position(|name| name == "reason").unwrap();
    assert_eq!(&rows[4][reason], "'=cmd|x");
    // It is not overwritten, and what fails leaves nothing.
    let whole = std::fs::read(&path).unwrap();
    let refused = service.run(file, &[]).unwrap_err();
    assert!(refused.message.ends_with("exists"), "{}", refused.message);
    assert_eq!(std::fs::read(&path).unwrap(), whole);
    let nowhere = service.path("missing/accounts.csv");
    let failed = service.run(nowhere.to_str().unwrap(), &[]).unwrap_err();
    assert!(
        failed.message.starts_with("cannot write"),
        "{}",
        failed.message
    );
    let left: Vec<_> = std::fs::read_dir(service.dir.path()).unwrap().collect();
    let left = left.into_iter().map(|entry| entry.unwrap().file_name());
    assert_eq!(
        left.filter(|name| name.to_str().unwrap().contains("accounts"))
            .count(),
        1
    );
}

#[tokio::test]
async fn pseudonyms_are_the_same_under_one_secret_and_tell_no_name() {
    let service = Service::start().await;
    let (key, other) = (service.key(1), service.key(2));
    let rows = service.rows(&["--pseudonyms", &key]);
    let again = service.rows(&["--pseudonyms", &key]);
    assert_eq!(rows, again);
    assert_eq!(i64::try_from(rows.len()).unwrap(), ACCOUNTS);
    let changes = service.rows(&["--pseudonyms", &key, "--table", "changes"]);
    let mut of_accounts = texts(&rows, "did");
    assert_eq!(
        of_accounts,
        texts(&changes, "did"),
        "the same in both tables"
    );
    // In the order of pseudonyms, which is none of DIDs and changes.
    assert!(of_accounts.is_sorted());
    let others = service.rows(&["--pseudonyms", &other]);
    let others = texts(&others, "did");
    assert!(!others.iter().any(|did| of_accounts.contains(did)));
    for rows in [&rows, &changes] {
        for row in rows {
            let text = row.to_string();
            for name in ["did:plc:", "user", "did:peer:", "3n2wo76pa3k2w", "T0"] {
                assert!(!text.contains(name), "{name} in {text}");
            }
        }
    }
    assert_eq!(rows[0]["observedAt"], "2030-01-01");
    assert_eq!(rows[0]["pds"], "https://pds.example.com");
    of_accounts.extend(texts(&rows, "handle"));
    of_accounts.extend(texts(&rows, "peer"));
    let count = of_accounts.len();
    of_accounts.sort_unstable();
    of_accounts.dedup();
    assert_eq!(of_accounts.len(), count, "each name has its own");
}

#[tokio::test]
async fn a_bad_secret_and_a_missing_directory_export_nothing() {
    let service = Service::start().await;
    let path = service.path("out.ndjson");
    let file = path.to_str().unwrap();
    let refused = service.run(file, &["--pseudonyms", file]).unwrap_err();
    assert_eq!(refused.exit, Exit::Usage);
    std::fs::remove_file(service.path(crate::server::DIRECTORY_FILE)).unwrap();
    let refused = service.run(file, &[]).unwrap_err();
    assert!(
        refused.message.starts_with("there is no"),
        "{}",
        refused.message
    );
    assert!(!path.exists());
}

#[tokio::test]
async fn a_request_to_end_leaves_no_file() {
    let service = Service::start().await;
    let path = service.path("out.csv");
    let args = service.args(path.to_str().unwrap(), &[]);
    let rows = std::cell::Cell::new(0);
    let is_ended = || {
        rows.set(rows.get() + 1);
        rows.get() > ACCOUNTS / 2
    };
    let ended = run(&args, &mut Vec::new(), &is_ended).unwrap_err();
    assert!(
        ended.message.starts_with("ended before"),
        "{}",
        ended.message
    );
    let mut left = std::fs::read_dir(service.dir.path()).unwrap();
    assert!(!left.any(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("out.csv")
    }));
}

/// Longest time for which the service may be moving its log.
const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// A reader of standard output that looks, whenever it is given something, whether the log of the
/// service can be started anew.
struct SlowReader {
    path: PathBuf,
    looks: u64,
}

impl Write for SlowReader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let conn = rusqlite::Connection::open(&self.path).unwrap();
        conn.busy_timeout(Duration::ZERO).unwrap();
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let is_blocked = || conn.query_row(sql, [], |row| row.get(0)).unwrap();
        // The service may be moving the log itself, for a moment.
        let begun = Instant::now();
        while is_blocked() {
            let waited = begun.elapsed();
            assert!(
                waited < LOG_TIMEOUT,
                "a transaction is open while the reader reads"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.looks += 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_is_slow_holds_no_transaction_open() {
    let service = Service::start().await;
    let path = service.path(crate::server::DIRECTORY_FILE);
    // There is a log to be started anew.
    assert!(service.store.log_bytes() > 0);
    let mut reader = SlowReader { path, looks: 0 };
    run(&service.args("-", &[]), &mut reader, &|| false).unwrap();
    assert!(reader.looks > 0);
}

/// The research documentation lists the columns: each table, each column, and which of them are left
/// out with pseudonyms.
#[test]
fn the_columns_are_documented() {
    let text = include_str!("../../../docs/research.md");
    let (_, section) = text.split_once("## Rows").unwrap();
    for table in ExportTable::ALL {
        let head = format!("`{}`, one row for each", table.as_str());
        let (_, rest) = section.split_once(&head).unwrap();
        let documented: Vec<(&str, bool)> = rest
            .lines()
            .skip_while(|line| !line.starts_with("| `"))
            .take_while(|line| line.starts_with('|'))
            .flat_map(|line| {
                let (names, meaning) = line[1..].split_once('|').unwrap();
                let telling = meaning.contains("(not with pseudonyms)");
                names
                    .split(',')
                    .map(move |name| (name.trim().trim_matches('`'), telling))
            })
            .collect();
        let columns = table.columns().iter();
        let columns: Vec<(&str, bool)> = columns
            .map(|column| (column.name, column.is_telling))
            .collect();
        assert_eq!(documented, columns, "{table:?}");
    }
}
