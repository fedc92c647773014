//! The write-ahead log beside the file: readers in its way, crashes, and copies put beside it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

/// Pushes so many bodies of 10 kB each in one transaction.
async fn flood(f: &Fixture, recipient: i64, numbers: std::ops::Range<u32>) {
    f.write(move |tx| {
        for n in numbers {
            let mut body = vec![0; 10_000];
            body[..4].copy_from_slice(&n.to_be_bytes());
            let push = Push {
                hash: hash(&body),
                body: &body,
                ..message(recipient, "")
            };
            assert!(matches!(tx.push(&push, &AMPLE)?, Pushed::Stored(_)));
        }
        Ok(())
    })
    .await;
}

fn log_of(file: &Path) -> PathBuf {
    file.with_file_name("mailbox.db-wal")
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inv7_a_writer_without_a_pause_does_not_let_the_log_grow() {
    let f = open();
    let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let mut longest = 0;
    for n in 0..300 {
        flood(&f, ids[0], n * 10..n * 10 + 10).await;
        longest = longest.max(length(&log_of(&f.path)));
    }
    // 30 MB were written; twice the limit in tests is 2 MiB.
    assert!(longest < 2 << 20, "{longest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_reader_of_another_program_holds_nothing_up() {
    let f = open();
    let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let recipient = ids[0];
    // A connection that passes no barrier is as good as another program.
    let other = Connection::open(&f.path).unwrap();
    let seen = |conn: &Connection| -> i64 {
        conn.query_row("SELECT count(*) FROM message", [], |row| row.get(0))
            .unwrap()
    };
    other.execute_batch("BEGIN").unwrap();
    assert_eq!(seen(&other), 0);
    let began = Instant::now();
    let (mut written, mut read) = (Duration::ZERO, Duration::ZERO);
    for n in 0..200 {
        let before = Instant::now();
        flood(&f, recipient, n * 10..n * 10 + 10).await;
        written = written.max(before.elapsed());
        let before = Instant::now();
        assert_eq!(f.read(|q| q.totals()).await.0, u64::from(n) * 10 + 10);
        read = read.max(before.elapsed());
    }
    let log = length(&log_of(&f.path));
    println!(
        "20 MB beside a reader of another program: {:.1?}; longest write {written:.1?}, longest \
         read {read:.1?}, log {log} bytes",
        began.elapsed()
    );
    assert_eq!(seen(&other), 0, "the other program reads one state");
    assert!(log > 20_000_000, "{log}");
    assert_eq!(f.store.log_bytes(), log);
    // A single wait for a lock would take ten seconds.
    assert!(began.elapsed() < Duration::from_secs(10));
    other.execute_batch("COMMIT").unwrap();
    let left = Instant::now();
    while length(&log_of(&f.path)) > 2 << 20 {
        assert!(left.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    flood(&f, recipient, 9000..9010).await;
    f.store.shutdown().await;
    drop(other);
    assert_eq!(length(&log_of(&f.path)), 0);
}

/// The files of a killed process.
struct Image {
    dir: tempfile::TempDir,
    messages: u64,
}

impl Image {
    /// Copies the files of a store that does not write at the moment, the file before its log.
    async fn of(f: &Fixture) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(&f.path, dir.path().join("mailbox.db")).unwrap();
        fs::copy(log_of(&f.path), log_of(&dir.path().join("mailbox.db"))).unwrap();
        let messages = f.read(|q| q.totals()).await.0;
        Self { dir, messages }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("mailbox.db")
    }

    /// Returns the number of messages that a store finds, each of them read.
    async fn opened(&self) -> Result<u64, StoreError> {
        let store = MailboxStore::open(&self.file())?;
        let messages = store.query(|q| q.totals()).await?.0;
        let found = store
            .query(|q| {
                let sql = "SELECT count(*), sum(length(body)) FROM message";
                Ok(q.0.query_row(sql, [], |row| row.get::<_, i64>(0))?)
            })
            .await?;
        let intact: String = store
            .query(|q| {
                Ok(q.0.query_row("PRAGMA integrity_check", [], |row| row.get(0))?)
            })
            .await?;
        assert_eq!(intact, "ok");
        assert_eq!(unsigned(found), messages);
        // Nothing of the store touches the files any more when this returns.
        store.shutdown().await;
        Ok(messages)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn inv10_files_of_a_killed_process_always_open_and_foreign_ones_never_mix() {
    let f = open();
    let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
    let mut images: Vec<Image> = Vec::new();
    let (mut own, mut refused, mut same) = (0, 0, 0);
    for n in 0..40 {
        // From one small commit to several lengths of the log.
        let count = [1, 3, 40, 9, 150][n as usize % 5];
        for at in 0..count {
            flood(&f, ids[0], n * 1000 + at..n * 1000 + at + 1).await;
        }
        let image = Image::of(&f).await;
        for before in &images {
            // Every earlier file, put beside the log of this moment.
            let mixed = Image {
                dir: tempfile::tempdir().unwrap(),
                messages: image.messages,
            };
            fs::copy(before.file(), mixed.file()).unwrap();
            fs::copy(log_of(&image.file()), log_of(&mixed.file())).unwrap();
            match mixed.opened().await {
                // A file from the time of this log is made whole by it.
                Ok(messages) => {
                    assert_eq!(messages, image.messages);
                    same += 1;
                }
                Err(StoreError::ForeignLog(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        images.push(Image::of(&f).await);
        assert_eq!(image.opened().await.unwrap(), image.messages);
        own += 1;
        if images.len() > 6 {
            images.remove(0);
        }
    }
    println!(
        "{own} killed processes; earlier files beside their logs: {refused} refused, {same} made whole"
    );
    assert!(refused > 20, "{refused}");
}

/// Makes a copy as the tools of the engine do.
fn copy_of(file: &Path, to: &Path) {
    let conn = Connection::open(file).unwrap();
    let sql = format!("VACUUM INTO '{}'", to.display());
    conn.execute_batch(&sql).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_beside_the_log_of_another_file_is_refused_and_left_alone() {
    for messages in [1, 400] {
        let f = open();
        let (_, ids) = f.account("did:peer:a", &["did:peer:x"]).await;
        flood(&f, ids[0], 0..messages).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        f.push(ids[0], "in the copy").await;
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy.db");
        copy_of(&f.path, &copy);
        for n in 0..30 {
            f.push(ids[0], &format!("after the copy {n}")).await;
        }
        let image = Image::of(&f).await;
        fs::copy(&copy, image.file()).unwrap();
        let before = (
            fs::read(image.file()).unwrap(),
            fs::read(log_of(&image.file())).unwrap(),
        );
        let refused = image.opened().await;
        assert!(
            matches!(&refused, Err(StoreError::ForeignLog(log)) if *log == log_of(&image.file())),
            "{messages}: {refused:?}"
        );
        let after = (
            fs::read(image.file()).unwrap(),
            fs::read(log_of(&image.file())).unwrap(),
        );
        assert!(before == after, "nothing was changed");
        // As the hint says.
        fs::remove_file(log_of(&image.file())).unwrap();
        assert_eq!(image.opened().await.unwrap(), u64::from(messages) + 1);
    }
}

#[tokio::test]
async fn an_empty_file_beside_a_log_is_refused() {
    let f = open();
    f.account("did:peer:a", &["did:peer:x"]).await;
    let image = Image::of(&f).await;
    fs::write(image.file(), "").unwrap();
    assert!(matches!(
        image.opened().await,
        Err(StoreError::ForeignLog(_))
    ));
}

#[tokio::test]
async fn a_log_that_the_engine_does_not_replay_is_no_obstacle() {
    let f = open();
    f.account("did:peer:a", &["did:peer:x"]).await;
    let image = Image::of(&f).await;
    let log = fs::read(log_of(&image.file())).unwrap();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("cut header", log[..20].to_vec()),
        ("header alone", log[..32].to_vec()),
        ("cut frame", log[..2000].to_vec()),
        ("no log", vec![7; 9000]),
    ] {
        fs::write(log_of(&image.file()), bytes).unwrap();
        // The file holds what had been moved into it: nothing yet, not even the tables.
        let opened = image.opened().await;
        assert!(opened.is_ok(), "{what}: {opened:?}");
        let _again = fs::copy(&f.path, image.file()).unwrap();
    }
}
