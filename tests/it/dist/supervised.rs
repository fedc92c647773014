//! The service and its service manager: here a socket of the test plays systemd.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::http::{eventually, request};
use crate::service::Setup;

/// Time for a message of the service, far longer than it takes on a busy machine.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// A service with a log in a file.
struct Supervised {
    child: Child,
    dir: TempDir,
}

impl Supervised {
    /// Starts the service in a folder, with an environment that is made from the log's file.
    fn start(dir: TempDir, environment: impl Fn(&File) -> Vec<(String, String)>) -> Self {
        let config = dir.path().join("config.toml");
        let setup = Setup::offline();
        fs::write(&config, setup.toml(&dir.path().join("data"))).expect("a file");
        let log = File::create(dir.path().join("log")).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_atcomm"));
        command.arg("serve").arg("--config").arg(&config);
        let environment = environment(&log);
        let child = command
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program");
        Self { child, dir }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).expect("a file")
    }

    /// Waits until the service listens, and returns its address.
    fn address(&self) -> String {
        eventually("the service listens", || {
            let log = self.log();
            let line = log.lines().find(|line| line.contains(" listening "))?;
            let (_, address) = line.split_once("address=")?;
            Some(address.trim().to_owned())
        })
    }

    fn terminate(&mut self) {
        let id = self.child.id().to_string();
        super::run(Command::new("kill").args(["-TERM", &id]));
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn socket(dir: &Path) -> (UnixDatagram, String) {
    let path = dir.join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    let timeout = Some(MESSAGE_TIMEOUT);
    socket.set_read_timeout(timeout).expect("a timeout");
    (socket, path.to_str().expect("text").to_owned())
}

fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).expect("a message in time");
    let text = String::from_utf8_lossy(&buffer[..length]);
    text.trim_end().to_owned()
}

#[test]
fn the_service_manager_hears_of_readiness_life_and_end() {
    let dir = TempDir::new().expect("a folder");
    let (socket, path) = socket(dir.path());
    let mut service = Supervised::start(dir, |_| {
        vec![
            ("NOTIFY_SOCKET".to_owned(), path.clone()),
            ("WATCHDOG_USEC".to_owned(), "2000000".to_owned()),
        ]
    });
    assert_eq!(message(&socket), "READY=1");
    let address = service.address();
    let health = request("GET", &format!("http://{address}/xrpc/_health"), &[], None);
    assert_eq!(health.status, 200);
    for _ in 0..3 {
        assert_eq!(message(&socket), "WATCHDOG=1");
    }
    service.terminate();
    let last = std::iter::repeat_with(|| message(&socket)).find(|message| message != "WATCHDOG=1");
    assert_eq!(last.as_deref(), Some("STOPPING=1"));
    let ended = service.child.wait().expect("a child");
    assert!(ended.success(), "{ended}: {}", service.log());
}

#[test]
fn a_process_that_is_not_watched_reports_no_life() {
    let dir = TempDir::new().expect("a folder");
    let (socket, path) = socket(dir.path());
    let mut service = Supervised::start(dir, |_| {
        vec![
            ("NOTIFY_SOCKET".to_owned(), path.clone()),
            ("WATCHDOG_USEC".to_owned(), "200000".to_owned()),
            // That of another process, from which these variables are inherited.
            ("WATCHDOG_PID".to_owned(), "1".to_owned()),
        ]
    });
    assert_eq!(message(&socket), "READY=1");
    std::thread::sleep(Duration::from_millis(500));
    service.terminate();
    assert_eq!(message(&socket), "STOPPING=1");
}

#[test]
fn the_journal_gets_priorities_and_no_second_time() {
    let stream = |log: &File| {
        let log = log.metadata().expect("a file");
        format!("{}:{}", log.dev(), log.ino())
    };
    let dir = || TempDir::new().expect("a folder");
    let journal = Supervised::start(dir(), |log| {
        vec![("JOURNAL_STREAM".to_owned(), stream(log))]
    });
    journal.address();
    let log = journal.log();
    for line in log.lines() {
        let rest = line.strip_prefix("<6>").or(line.strip_prefix("<4>"));
        let rest = rest.unwrap_or_else(|| panic!("no priority in {line}"));
        let level = rest.trim_start().split(' ').next().unwrap_or_default();
        assert_eq!(
            level,
            if line.starts_with("<6>") {
                "INFO"
            } else {
                "WARN"
            }
        );
    }
    assert!(log.contains("<4> WARN"), "{log}");

    // The variable alone is inherited by every process that a unit starts.
    let file = Supervised::start(dir(), |_| {
        vec![("JOURNAL_STREAM".to_owned(), "1:2".to_owned())]
    });
    file.address();
    for line in file.log().lines() {
        assert!(line.starts_with("20") && line.contains("Z "), "{line}");
    }
}
