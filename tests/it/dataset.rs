//! Datasets: the program makes them, and programs of others judge them.

use std::path::Path;
use std::process::{Command, Output};

use atcomm::store::directory::{Day, DayDelta, GroupKind};
use atcomm::store::{Coverage, DirectoryStore, SourceCursor};
use serde_json::{Value, json};
use testkit::network::script;

use crate::http::{self, RUNTIME, eventually};
use crate::service::{Service, Setup};

const RELAY: &str = "relay https://relay.example.com";

/// Days of the series, of which the last is still open.
const DAYS: i32 = 60;

fn atcomm(args: &[&str], data_dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .arg("dataset")
        .args(args)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .expect("the program")
}

/// Returns what happened on a day: many accounts come to one host, a few to another.
fn delta(day: i32, host: &str) -> DayDelta {
    let group = |kind, name: &str| (kind, name.to_owned(), 1);
    DayDelta {
        stock: [1, 0, 0],
        new: 1,
        delay: Some(i64::from(day) * 1000),
        groups: vec![
            group(GroupKind::Host, host),
            group(GroupKind::Mediator, "did:web:mail.example.com"),
            group(GroupKind::KeyType, "X25519"),
        ],
        ..DayDelta::default()
    }
}

/// Writes a time series as the directory does.
fn write_series(data_dir: &Path, first: Day) {
    std::fs::create_dir_all(data_dir).expect("the data directory");
    let store = DirectoryStore::open(&data_dir.join("directory.db")).expect("a store");
    for n in 0..DAYS {
        let day = first.plus(n);
        let write = store.transact(move |tx| {
            for source in [RELAY, "pds https://alice.example.com"] {
                let (source, until) = (source.to_owned(), day.start());
                tx.set_coverage(&Coverage {
                    source: source.clone(),
                    since: first.start(),
                    until,
                })?;
                let cursor = SourceCursor {
                    source,
                    position: i64::from(n),
                    event_time: None,
                };
                tx.set_cursor(&cursor, until)?;
            }
            let newest = tx.reach_day(day.start())?;
            let before = day.plus(-1);
            tx.set_hosts(before, 40, 39)?;
            tx.cover_day(before, day.start())?;
            tx.close_day(before, day.start())?;
            for host in ["pds.example.com"; 7] {
                tx.add_to_day(day, newest, &delta(n, host))?;
            }
            if n % 12 == 0 {
                tx.add_to_day(day, newest, &delta(n, "alice.example.com"))?;
            }
            Ok(())
        });
        RUNTIME.block_on(write).expect("the store");
    }
    RUNTIME.block_on(store.shutdown());
}

/// Asks the judges.
#[track_caller]
fn judged(dataset: &Path) -> Value {
    let output = script("dataset/judge.sh")
        .arg(dataset)
        .output()
        .expect("python");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn judges_of_others_find_a_dataset_valid() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    let first = Day::parse("2030-01-01").expect("a day");
    write_series(&data_dir, first);
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    let made = atcomm(&[one.to_str().expect("UTF-8"), "--json"], &data_dir);
    assert!(made.status.success(), "{made:?}");
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    assert_eq!(made["until"], first.plus(DAYS - 2).to_string());
    assert_eq!(made["since"], first.to_string());

    let said = judged(&one);
    let rows = &said["dataPackage"]["rows"];
    assert_eq!(said["dataPackage"]["valid"], true, "{said}");
    assert_eq!(rows["daily"], DAYS - 1);
    assert_eq!(said["croissant"]["errors"], json!([]), "{said}");
    assert_eq!(said["croissant"]["warnings"], json!([]), "{said}");
    assert_eq!(said["croissant"]["rows"], *rows);
    for table in ["daily", "groups", "sources"] {
        let of = &said["parquet"][table];
        assert_eq!(of["rows"], rows[table], "{said}");
        let differences = (&of["onlyInParquet"], &of["onlyInCsv"]);
        assert_eq!(differences, (&json!(0), &json!(0)), "{said}");
    }
    assert_eq!(said["parquet"]["daily"]["types"]["day"], "DATE");

    let provenance = std::fs::read(one.join("provenance.json")).expect("the file");
    let provenance: Value = serde_json::from_slice(&provenance).expect("JSON");
    let (pds, relay) = (&provenance["sources"][0], &provenance["sources"][1]);
    assert_eq!(
        (&relay["source"], &relay["cursor"]),
        (&json!(RELAY), &json!(DAYS - 1))
    );
    assert_eq!(
        (&pds["source"], &pds["cursor"]),
        (&json!("pds"), &Value::Null)
    );
    assert_eq!(provenance["days"]["complete"], DAYS - 1);

    // The same once more, and again where it is: nothing is overwritten.
    let name = other.to_str().expect("UTF-8");
    let until = first.plus(DAYS).to_string();
    assert!(atcomm(&[name, "--to", &until], &data_dir).status.success());
    for file in made["files"].as_array().expect("files") {
        let name = file["name"].as_str().expect("a name");
        let bytes = std::fs::read(one.join(name)).expect("the file");
        assert_eq!(bytes, std::fs::read(other.join(name)).expect("the file"));
        assert_eq!(file["bytes"], bytes.len());
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("alice") && !text.contains("did:"), "{name}");
    }
    let again = atcomm(&[name], &data_dir);
    let message = String::from_utf8_lossy(&again.stderr);
    assert_eq!(again.status.code(), Some(1), "{message}");
    assert!(message.contains("exists"), "{message}");
}

#[test]
fn a_judge_finds_a_dataset_that_was_tampered_with() {
    let dir = tempfile::tempdir().expect("a directory");
    let data_dir = dir.path().join("data");
    write_series(&data_dir, Day::parse("2030-01-01").expect("a day"));
    let set = dir.path().join("set");
    let made = atcomm(&[set.to_str().expect("UTF-8")], &data_dir);
    assert!(made.status.success(), "{made:?}");
    let table = set.join("daily.csv");
    let text = std::fs::read_to_string(&table).expect("the table");
    std::fs::write(&table, text.replacen(",true\n", ",false\n", 1)).expect("a file");
    let said = judged(&set);
    assert_eq!(said["dataPackage"]["valid"], false, "{said}");
    assert_ne!(said["croissant"]["errors"], json!([]), "{said}");
    assert_eq!(said["parquet"]["daily"]["onlyInCsv"], 1, "{said}");
}

#[test]
fn a_service_publishes_what_the_command_makes() {
    let service = Setup::offline().start();
    let get = |service: &Service, path: &str| http::request("GET", &service.url(path), &[], None);
    let none = get(&service, "/dataset/latest.json");
    assert_eq!(
        (none.status, none.json()["error"].as_str()),
        (404, Some("NotFound"))
    );
    let service = service.stop();
    // As if it had run for some weeks.
    let data_dir = service.data_dir();
    for end in ["", "-wal", "-shm"] {
        let file = data_dir.join(format!("directory.db{end}"));
        assert!(std::fs::remove_file(file).is_ok() || !end.is_empty());
    }
    let first = Day::parse("2030-01-01").expect("a day");
    write_series(&data_dir, first);
    let service = service.start();
    let latest = eventually("the dataset", || {
        let latest = get(&service, "/dataset/latest.json");
        (latest.status == 200).then(|| latest.json())
    });
    assert_eq!(latest["edition"], first.plus(DAYS - 2).to_string());
    let dir = tempfile::tempdir().expect("a directory");
    let by_hand = dir.path().join("by-hand");
    let name = by_hand.to_str().expect("UTF-8");
    let config = data_dir.with_file_name("config.toml");
    let config = config.to_str().expect("UTF-8");
    assert!(
        atcomm(&[name, "--config", config], &data_dir)
            .status
            .success()
    );
    let files = latest["files"].as_array().expect("files");
    assert_eq!(
        files.len(),
        std::fs::read_dir(&by_hand).expect("a folder").count()
    );
    for file in files {
        let answer = get(&service, file["url"].as_str().expect("an address"));
        let name = file["name"].as_str().expect("a name");
        assert_eq!(answer.status, 200, "{name}");
        let bytes = std::fs::read(by_hand.join(name)).expect("the file");
        assert_eq!(answer.body, bytes, "{name}");
    }
}

#[test]
fn without_a_closed_day_there_is_nothing_to_publish() {
    let service = Setup::offline().start();
    let dir = tempfile::tempdir().expect("a directory");
    let set = dir.path().join("set");
    let name = set.to_str().expect("UTF-8");
    let refused = atcomm(&[name], &service.data_dir());
    let message = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{message}");
    assert!(
        message.contains("no day of the time series is closed"),
        "{message}"
    );
    let wrong = atcomm(&[name, "--from", "yesterday"], &service.data_dir());
    assert_eq!(wrong.status.code(), Some(2));
    assert!(!set.exists());
}
