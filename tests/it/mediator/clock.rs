//! A clock that is set forward and back under the running service.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::Mediator;
use crate::http::eventually;

/// Returns where Debian keeps the library that shows a process another time.
fn library() -> String {
    let library = format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1",
        std::env::consts::ARCH
    );
    assert!(
        Path::new(&library).exists(),
        "{library} is missing (hint: apt-get install libfaketime)"
    );
    library
}

/// A clock of a service, set through a file.
struct Faked {
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Faked {
    /// Returns a clock that shows the time, and the environment of a process that has it.
    fn new() -> (Self, Vec<(String, String)>) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("time");
        std::fs::write(&file, "+0").unwrap();
        let (library, name) = (library(), file.display().to_string());
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("FAKETIME_TIMESTAMP_FILE", name.as_str()),
            ("FAKETIME_NO_CACHE", "1"),
            // Waits last as long as ever: only the time of day jumps.
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        (Self { file, _dir: dir }, environment.to_vec())
    }

    /// Sets the clock off by so many days.
    fn set(&self, days: i32) {
        std::fs::write(&self.file, format!("{days:+}d")).unwrap();
    }
}

/// Whatever the clock does within the life of a message, mail is taken, kept and read.
#[test]
fn inv3_mail_survives_a_clock_that_jumps() {
    let (clock, environment) = Faked::new();
    let setup = Mediator::setup().environment(environment);
    let mediator = Mediator::start(setup);
    let client = mediator.member();
    let mut sent = 0;
    for days in [0, 2, -2, 1, -1, 0] {
        clock.set(days);
        client.forward(&client.did, &client.pack_for(&client.did));
        sent += 1;
        assert_eq!(client.waiting(None), sent, "{days} days off");
        assert_eq!(
            client.fetch(json!({"limit": 100})).len() as u64,
            sent,
            "{days} days off"
        );
    }
    // The same with a start in each of these times.
    let mut stopped = mediator.kill();
    for days in [3, -3, 0] {
        clock.set(days);
        let mediator = Mediator::restart(stopped);
        client.forward(&client.did, &client.pack_for(&client.did));
        sent += 1;
        assert_eq!(
            client.fetch(json!({"limit": 100})).len() as u64,
            sent,
            "started {days} days off"
        );
        stopped = mediator.kill();
    }
    // A clock that is a year ahead ends lives, which is what it says; new mail is taken all the same.
    clock.set(365);
    let mediator = Mediator::restart(stopped);
    eventually("old mail has expired", || {
        (client.waiting(None) == 0).then_some(())
    });
    client.forward(&client.did, &client.pack_for(&client.did));
    assert_eq!(client.waiting(None), 1);
    // Back in the present, what was taken in the future is still there.
    clock.set(0);
    assert_eq!(client.fetch(json!({"limit": 100})).len(), 1);
    drop(mediator);
}
