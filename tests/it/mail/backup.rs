//! The loss of a disk: a backup made under load, everything deleted, restored.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{MediatorEndpoint, PeerClient, mediator, open, post};
use crate::http::{RUNTIME, eventually};
use crate::network::{Network, text};
use crate::updates::Subscriber;

const SENDERS: usize = 8;

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_atcomm"));
    command.arg("server").args(arguments);
    command
}

fn run(arguments: &[&str]) -> Output {
    program(arguments).output().expect("the program")
}

/// Runs a command that succeeds. Returns its answer.
#[track_caller]
fn done(arguments: &[&str]) -> Value {
    let output = run(&[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Makes new keys for a mediator.
#[track_caller]
fn rotate(data: &Path) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(["keys", "rotate", "--json", "--data-dir", name(data)])
        .output()
        .expect("the program");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Runs a command that fails. Returns what it says.
#[track_caller]
fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    assert!(stderr.contains("hint: "), "{stderr}");
    stderr
}

fn name(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Senders that go on until they are told to end, whether or not the mediator runs.
struct Load {
    /// The words of the messages that were acknowledged.
    taken: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(endpoint: &MediatorEndpoint, peer: &Arc<PeerClient>) -> Self {
        let (taken, stop) = (
            Arc::<Mutex<Vec<String>>>::default(),
            Arc::<AtomicBool>::default(),
        );
        let sender = |sender: usize| {
            let (endpoint, peer) = (endpoint.clone(), Arc::clone(peer));
            let (taken, stop) = (Arc::clone(&taken), Arc::clone(&stop));
            std::thread::spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let words = format!("letter {sender} {n}");
                    let envelope = endpoint.forward(&peer.did, &peer.envelope(&words));
                    match RUNTIME.block_on(post(endpoint.url(), envelope)) {
                        Ok(answer) => {
                            assert_eq!(answer.status, 202, "{}", answer.text());
                            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
                            taken.push(words);
                        }
                        Err(_) => std::thread::sleep(Duration::from_millis(20)),
                    }
                }
            })
        };
        let threads = (0..SENDERS).map(sender).collect();
        Self {
            taken,
            stop,
            threads,
        }
    }

    /// Returns the words of the messages that were acknowledged up to now.
    fn taken(&self) -> Vec<String> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.clone()
    }

    fn until_taken(&self, count: usize) {
        eventually("forwards are taken", || {
            (self.taken().len() >= count).then_some(())
        });
    }

    fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a sender");
        }
    }
}

#[test]
fn inv3_inv10_a_dead_disk_takes_nothing_that_was_acknowledged_before_the_backup() {
    let network = Network::multikey();
    let (service, endpoint) = mediator(network, |setup| {
        open(setup)
            .pds(network, 0)
            .streams_only()
            .no_refresh_on_demand()
    });
    service.until_following(1);
    let alice = network.enrolled("alice", 0, json!({}));
    service.until(&alice.did, "the package", |_| true);
    let (reader, stream) = Subscriber::read(&service, "?cursor=0");
    drop(reader);
    let bob = Arc::new(PeerClient::new());
    bob.enter(&endpoint);
    // What was picked up before does not come back.
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("picked up")));
    assert_eq!(bob.collect(&endpoint, 1), ["picked up"]);

    let load = Load::start(&endpoint, &bob);
    load.until_taken(200);
    let sets = tempfile::tempdir().expect("a directory");
    let before = load.taken();
    let data = service.data_dir();
    let made = done(&["backup", name(sets.path()), "--data-dir", name(&data)]);
    load.until_taken(before.len() + 100);
    // The directory goes on after the backup, too.
    let carol = network.enrolled("carol", 0, json!({}));
    let updated = alice.put(json!({"label": "after the backup"}));
    service.until(&carol.did, "the package", |_| true);
    service.until_cid(&alice.did, &updated["cid"]);
    let (reader, again) = Subscriber::read(&service, "?cursor=0");
    assert_eq!(again, stream);
    let lost = reader.until(&mut Default::default(), |states| {
        states.contains_key(&carol.did)
            && states
                .get(&alice.did)
                .is_some_and(|told| told["cid"] == updated["cid"])
    });

    let stopped = service.kill();
    load.end();
    std::fs::remove_dir_all(&data).expect("a directory");
    let restored = done(&["restore", text(&made, "/path"), name(&data)]);
    assert_eq!(restored["files"], made["files"]);
    let service = stopped.start();
    let after = MediatorEndpoint::at(endpoint.port);
    assert_eq!(
        (&after.did, after.key.as_bytes()),
        (&endpoint.did, endpoint.key.as_bytes())
    );

    let mut words: Vec<String> = bob
        .empty(&endpoint)
        .iter()
        .map(|one| bob.words(one))
        .collect();
    words.sort();
    let count = words.len();
    words.dedup();
    assert_eq!(words.len(), count, "some came twice");
    for taken in &before {
        assert!(
            words.binary_search(taken).is_ok(),
            "{taken} is lost of {count}"
        );
    }
    assert!(!words.contains(&"picked up".to_owned()));
    // The account that had registered before goes on.
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("after")));
    assert_eq!(bob.collect(&endpoint, 1), ["after"]);

    // The source is read on from the older cursor: what happened since comes again.
    service.until_cid(&alice.did, &updated["cid"]);
    service.until(&carol.did, "the package", |_| true);
    // A follower of the log that is lost is told.
    let query = format!("?cursor={lost}&stream={stream}");
    assert_eq!(
        Subscriber::start(&service, &query).error(),
        "StreamMismatch"
    );
}

#[test]
fn the_service_makes_backups_by_itself_and_they_open_with_their_identity_only() {
    let sets = tempfile::tempdir().expect("a directory");
    let identities = ["first", "second"].map(|file| {
        let identity = age::x25519::Identity::generate();
        let path = sets.path().join(file);
        std::fs::write(&path, identity.to_string().expose_secret()).expect("a file");
        (path, identity.to_public().to_string())
    });
    let [(right, recipient), (wrong, _)] = &identities;
    let dir = sets.path().join("sets");
    let (service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup)
            .set("backup.dir", json!(name(&dir)))
            .set("backup.recipients", json!([recipient]))
    });
    service.until_counted("atcomm_backup_timestamp_seconds", &[], 1.0);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    endpoint.take(&endpoint.forward(&bob.did, &bob.envelope("kept")));
    let data = service.data_dir();
    // A second one, by command, beside the first.
    let made = done(&[
        "backup",
        name(&dir),
        "--keep",
        "1",
        "-r",
        recipient,
        "--data-dir",
        name(&data),
    ]);
    assert_eq!(
        (&made["encrypted"], &made["deleted"]),
        (&json!(true), &json!(1))
    );
    let set = text(&made, "/path");

    assert!(refused(&["restore", set, name(&data)]).contains("is encrypted"));
    let identity = |path: &Path, target: &Path| {
        ["restore", set, name(target), "-i", name(path)].map(str::to_owned)
    };
    let told = refused(&identity(right, &data).each_ref().map(String::as_str));
    assert!(told.contains("in use by another process"), "{told}");
    let new = sets.path().join("new");
    let told = refused(&identity(wrong, &new).each_ref().map(String::as_str));
    assert!(told.contains("none of the identities"), "{told}");
    let told = refused(&["restore", name(&dir), name(&new)]);
    assert!(told.contains(set), "it names the newest: {told}");

    let stopped = service.kill();
    let told = refused(&identity(right, &data).each_ref().map(String::as_str));
    assert!(told.contains("--replace"), "{told}");
    let mut replace = identity(right, &data).to_vec();
    replace.push("--replace".to_owned());
    let restored = done(&replace.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(
        Path::new(text(&restored, "/replaced"))
            .join("mailbox.db")
            .exists()
    );
    let _service = stopped.start();
    assert_eq!(bob.collect(&endpoint, 1), ["kept"]);
}

#[test]
fn inv10_a_continuous_copy_has_everything_that_was_acknowledged_before_its_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let identity = age::x25519::Identity::generate();
    let key = dir.path().join("key");
    std::fs::write(&key, identity.to_string().expose_secret()).expect("a file");
    let copy = dir.path().join("copy");
    let (service, endpoint) = mediator(Network::multikey(), |setup| {
        open(setup).set("backup.copy.dir", json!(name(&copy))).set(
            "backup.recipients",
            json!([identity.to_public().to_string()]),
        )
    });
    let bob = Arc::new(PeerClient::new());
    bob.enter(&endpoint);
    let load = Load::start(&endpoint, &bob);
    load.until_taken(150);
    assert_eq!(rotate(&service.data_dir())["generation"], 2);
    load.until_taken(300);
    let taken = load.taken();
    load.end();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs_f64();
    service.until_counted("atcomm_copy_timestamp_seconds", &[], now);
    let stopped = service.kill();
    let data = stopped.data_dir();
    let keys = std::fs::read(data.join("mediator-keys.json")).expect("a file");
    std::fs::remove_dir_all(&data).expect("a directory");

    let set = names(&copy)
        .into_iter()
        .find(|name| name.starts_with("atcomm-") && !name.ends_with(".segments"))
        .expect("a base");
    let set = copy.join(set);
    let restored = done(&["restore", name(&set), name(&data), "-i", name(&key)]);
    assert!(restored["segments"].as_u64() >= Some(1), "{restored}");
    assert_eq!(
        std::fs::read(data.join("mediator-keys.json")).expect("a file"),
        keys
    );
    let _service = stopped.start();
    let mut words: Vec<String> = bob
        .empty(&endpoint)
        .iter()
        .map(|one| bob.words(one))
        .collect();
    words.sort();
    for taken in &taken {
        assert!(words.binary_search(taken).is_ok(), "{taken} is lost");
    }
}

/// Fills a mailbox with some megabytes, and ends its service.
fn filled() -> crate::service::Stopped {
    const MESSAGES: usize = 60;
    let (service, endpoint) = mediator(Network::multikey(), open);
    let bob = PeerClient::new();
    bob.enter(&endpoint);
    let large = "x".repeat(60_000);
    for n in 0..MESSAGES {
        let words = format!("{n} {large}");
        endpoint.take(&endpoint.forward(&bob.did, &bob.envelope(&words)));
    }
    service.stop()
}

/// Returns the names in a directory but for locks; none where there is no directory.
fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .map(|name| name.into_string().expect("UTF-8"))
        .filter(|name| !name.ends_with("lock"))
        .collect()
}

fn start(arguments: &[&str]) -> Child {
    let command = &mut program(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program")
}

#[test]
fn inv10_a_kill_or_a_full_disk_in_the_middle_leaves_nothing_that_is_taken_for_whole() {
    const ROUNDS: u64 = 12;
    let stopped = filled();
    let data = stopped.data_dir();
    let dir = tempfile::tempdir().expect("a directory");
    let sets = dir.path().join("sets");
    let backup = ["backup", name(&sets), "--data-dir", name(&data)];
    for round in 0..ROUNDS {
        let mut child = start(&backup);
        std::thread::sleep(Duration::from_millis(round * 7));
        drop(child.kill());
        child.wait().expect("a child");
        // Whatever has the name of a set is one.
        for set in names(&sets).iter().filter(|name| !name.starts_with('.')) {
            let target = dir.path().join("whole");
            done(&["restore", name(&sets.join(set)), name(&target)]);
            std::fs::remove_dir_all(&target).expect("a directory");
        }
    }
    // Files cannot grow beyond a megabyte, as on a disk that is full.
    let full = |arguments: &[&str]| {
        let limited = "trap '' XFSZ; ulimit -f 1024; exec \"$@\"";
        let output = Command::new("sh")
            .args(["-c", limited, "sh", env!("CARGO_BIN_EXE_atcomm"), "server"])
            .args(arguments)
            .output();
        let output = output.expect("a shell");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("hint: "), "{stderr}");
    };
    let before = names(&sets).len();
    full(&backup);
    assert!(
        names(&sets).iter().all(|name| !name.starts_with('.')),
        "{:?}",
        names(&sets)
    );
    assert!(names(&sets).len() <= before);

    let made = done(&backup);
    let set = text(&made, "/path");
    let target = dir.path().join("new");
    full(&["restore", set, name(&target)]);
    assert_eq!(names(&target), [""; 0]);
    for round in 0..ROUNDS {
        let mut child = start(&["restore", set, name(&target)]);
        std::thread::sleep(Duration::from_millis(round * 5));
        drop(child.kill());
        child.wait().expect("a child");
        let found = names(&target);
        let is_unfinished = found.contains(&"restore-unfinished".to_owned());
        let count = ["mailbox.db", "directory.db", "mediator-keys.json"]
            .iter()
            .filter(|file| found.contains(&(**file).to_owned()))
            .count();
        assert!(is_unfinished || count == 0 || count == 3, "{found:?}");
        if count == 3 && !is_unfinished {
            std::fs::remove_dir_all(&target).expect("a directory");
        }
    }
    // As a kill between two files leaves it: no service starts before the restore is run again.
    drop(std::fs::remove_dir_all(&target));
    std::fs::create_dir(&target).expect("a directory");
    std::fs::write(target.join("restore-unfinished"), "").expect("a file");
    std::fs::copy(data.join("mailbox.db"), target.join("mailbox.db")).expect("a file");
    let mut serve = Command::new(env!("CARGO_BIN_EXE_atcomm"));
    let serve = serve.args(["serve", "--data-dir", name(&target)]).output();
    let serve = serve.expect("the program");
    let told = String::from_utf8_lossy(&serve.stderr);
    assert!(
        !serve.status.success() && told.contains("was not finished"),
        "{told}"
    );
    done(&["restore", set, name(&target)]);
    assert!(!target.join("restore-unfinished").exists());
}
