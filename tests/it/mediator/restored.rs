//! Copies of `mailbox.db`: put back beside the log of a killed service, and as the README says.

use std::path::Path;
use std::process::Command;

use super::{Client, Mediator};
use crate::service::Stopped;

/// Copies a database in use, as `sqlite3 FILE ".backup COPY"` does.
#[track_caller]
fn back_up(file: &Path, copy: &Path) {
    let program = "import sqlite3, sys\n\
                   source, target = (sqlite3.connect(path) for path in sys.argv[1:])\n\
                   source.backup(target)\n\
                   target.close()\n";
    let status = Command::new("python3")
        .args(["-c", program])
        .args([file, copy])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "python3");
}

#[track_caller]
fn forward(client: &Client, count: usize) {
    for _ in 0..count {
        client.forward(&client.did, &client.pack_for(&client.did));
    }
}

/// Puts the copy back and expects the refusal, with the files as they were.
#[track_caller]
fn assert_refused(stopped: &Stopped, file: &str, copy: &Path) {
    let file = stopped.data_dir().join(file);
    std::fs::copy(copy, &file).expect("a file");
    let log = file.with_extension("db-wal");
    let before = [&file, &log].map(|path| std::fs::read(path).expect("a file"));
    let (code, stderr) = stopped.refuses_to_start();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("belongs to another state of the file"),
        "{stderr}"
    );
    assert!(
        stderr.contains("hint: ") && stderr.contains("-wal and -shm"),
        "{stderr}"
    );
    let after = [&file, &log].map(|path| std::fs::read(path).expect("a file"));
    assert!(before == after, "nothing is changed");
}

#[test]
fn inv10_a_copy_beside_the_log_of_a_killed_service_is_refused() {
    // Of the large file most pages are in the file only, of the small one all are in the log, too.
    for before in [1, 120] {
        let mediator = Mediator::start(Mediator::setup());
        let client = mediator.member();
        forward(&client, before);
        let mediator = Mediator::restart(mediator.stop());
        forward(&client, 2);
        let copy = mediator.service().data_dir().join("copy.db");
        back_up(&mediator.service().data_dir().join("mailbox.db"), &copy);
        forward(&client, 20);
        let stopped = mediator.kill();
        assert_refused(&stopped, "mailbox.db", &copy);

        // As the hint says.
        for end in ["db-wal", "db-shm"] {
            let beside = stopped.data_dir().join("mailbox.db").with_extension(end);
            std::fs::remove_file(beside).expect("a file");
        }
        let mediator = Mediator::restart(stopped);
        assert_eq!(client.waiting(None), before as u64 + 2);
        forward(&client, 1);
        assert_eq!(client.waiting(None), before as u64 + 3);
        drop(mediator);
    }
}

#[test]
fn inv10_a_copy_from_before_the_start_is_refused_too() {
    let mediator = Mediator::start(Mediator::setup());
    let client = mediator.member();
    forward(&client, 1);
    let stopped = mediator.stop();
    let copy = stopped.data_dir().join("copy.db");
    std::fs::copy(stopped.data_dir().join("mailbox.db"), &copy).expect("a file");
    let mediator = Mediator::restart(stopped);
    forward(&client, 1);
    let stopped = mediator.kill();
    let crashed = std::fs::read(stopped.data_dir().join("mailbox.db")).expect("a file");
    assert_refused(&stopped, "mailbox.db", &copy);
    // The file of the log goes on.
    std::fs::write(stopped.data_dir().join("mailbox.db"), crashed).expect("a file");
    let _mediator = Mediator::restart(stopped);
    assert_eq!(client.waiting(None), 2);
}

#[test]
fn inv10_a_killed_service_starts_again_every_time() {
    let mut mediator = Mediator::start(Mediator::setup());
    let client = mediator.member();
    for n in 1..=20 {
        forward(&client, n % 3);
        mediator = Mediator::restart(mediator.kill());
    }
    assert_eq!(client.waiting(None), (1..=20).map(|n| n % 3).sum::<u64>());
}
