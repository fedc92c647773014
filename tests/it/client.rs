//! The client's commands as users run them: the program itself, with its own wallet and
//! configuration, on a real network, with a real service as mediator and directory.

mod backup;
mod changes;
mod check;
mod concurrent;
mod conversation;
mod demo;
mod enroll;
pub(crate) mod enrolled;
mod examples;
mod guide;
mod hostile;
mod interrupted;
mod lying_servers;
mod promised;
pub(crate) mod receive;
mod rotate;
mod send;
mod typed;
mod unprinted;
mod whoami;

use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mail::free_port;
use crate::network::{Account, Network, text};
use crate::service::{Service, Setup};

/// Timeout of a command that does not wait for incoming mail.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// The environment of a command: a directory with a wallet and a configuration for one network.
pub(crate) struct CliEnv {
    dir: TempDir,
}

/// An account and the environment of its commands.
pub(crate) struct Person {
    pub(crate) cli: CliEnv,
    pub(crate) account: Account,
}

/// The exit code of a command and the text that the command printed.
#[derive(Debug)]
pub(crate) struct Output {
    /// The exit code; `None` after the end by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command that runs.
pub(crate) struct Running {
    child: Option<Child>,
}

/// A service that is mediator and directory, and follows both PDSes of a network.
pub(crate) struct MediatorService {
    /// The running service; `None` while it is stopped.
    pub(crate) service: Option<Service>,
    pub(crate) did: String,
    pub(crate) url: String,
}

impl CliEnv {
    /// Creates an environment without a wallet.
    pub(crate) fn new(network: &Network) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let config = format!(
            "[net]\ndevelopment = true\nname_server = \"{}\"\nhost_rate = 1000\nhost_burst = 1000\n\
             [identity]\nplc_url = \"{}\"\n",
            network.name_server(),
            network.plc(),
        );
        std::fs::write(dir.path().join("config.toml"), config).expect("a file");
        Self { dir }
    }

    /// Returns the path of the wallet, which the first command that writes creates.
    pub(crate) fn wallet(&self) -> PathBuf {
        self.dir.path().join("wallet")
    }

    /// Returns every file of the wallet with its mode.
    pub(crate) fn files(&self) -> Vec<(PathBuf, u32)> {
        use std::os::unix::fs::PermissionsExt as _;

        let mut found = Vec::new();
        let mut folders = vec![self.wallet()];
        while let Some(folder) = folders.pop() {
            // The folder does not exist before the first write.
            for entry in std::fs::read_dir(folder).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                let mode = path.metadata().expect("a file").permissions().mode() & 0o777;
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((path, mode));
                }
            }
        }
        found
    }

    /// Returns the path of the first file of this name in the wallet.
    #[track_caller]
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let mut files = self.files();
        files.sort();
        let found = files.into_iter().find(|(path, _)| path.ends_with(name));
        found.expect("such a file").0
    }

    /// Returns the path of a file beside the wallet.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the program with these arguments and with a minimal environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atcomm"));
        self.prepare(&mut command);
        command.args(args);
        command
    }

    /// Returns the program under a shell that first runs `before`, such as `ulimit -f 0`.
    pub(crate) fn limited(&self, before: &str, args: &[&str]) -> Command {
        let mut command = Command::new("sh");
        self.prepare(&mut command);
        command
            .arg("-c")
            .arg(format!("{before}\nexec \"$0\" \"$@\""))
            .arg(env!("CARGO_BIN_EXE_atcomm"))
            .args(args);
        command
    }

    fn prepare(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("ATCOMM_CONFIG", self.dir.path().join("config.toml"))
            .env("ATCOMM_HOME", self.wallet())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args), "")
    }

    /// Runs a command to its end with `input` on standard input.
    #[track_caller]
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Output {
        finish(self.command(args), input)
    }

    /// Runs a command with `--json`, which has to succeed. Returns its JSON.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        self.run(&all).success().json()
    }
}

/// Runs a command to its end with `input` on standard input.
#[track_caller]
pub(crate) fn finish(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped());
    let mut running = Running::start(command);
    if let Some(mut stdin) = running.child().stdin.take() {
        // A command that does not read all of its input closes the pipe.
        drop(stdin.write_all(input.as_bytes()));
    }
    running.end()
}

impl Running {
    /// Starts a command.
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        Self {
            child: Some(command.spawn().expect("the program")),
        }
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("until it has ended")
    }

    /// Sends a signal, such as `INT`.
    #[track_caller]
    pub(crate) fn signal(&mut self, signal: &str) {
        let id = self.child().id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{signal}"), &id])
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal}");
    }

    /// Returns whether the command has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child().try_wait().expect("a child").is_some()
    }

    /// Waits for the end of the command.
    #[track_caller]
    pub(crate) fn end(mut self) -> Output {
        let mut child = self.child.take().expect("until it has ended");
        let pipes = [
            child
                .stdout
                .take()
                .map(|pipe| -> Box<dyn Read + Send> { Box::new(pipe) }),
            child
                .stderr
                .take()
                .map(|pipe| -> Box<dyn Read + Send> { Box::new(pipe) }),
        ];
        let [out, err] = pipes.map(|pipe| {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                if let Some(mut pipe) = pipe {
                    drop(pipe.read_to_end(&mut all));
                }
                String::from_utf8_lossy(&all).into_owned()
            })
        });
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child") {
                break status;
            }
            if start.elapsed() > COMMAND_TIMEOUT {
                drop(child.kill());
                let printed = [out, err].map(|thread| thread.join().unwrap_or_default());
                panic!("it does not end: {printed:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let [stdout, stderr] = [out, err].map(|thread| thread.join().expect("a thread"));
        let output = Output {
            code: status.code(),
            stdout,
            stderr,
        };
        assert!(!output.stderr.contains("panicked"), "{output:?}");
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Output {
    /// Asserts that the command succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// Asserts the exit code, and that the last two lines of standard error contain this message
    /// and this hint.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, message: &str, hint: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let mut lines = self.stderr.lines().rev();
        let [last, before] = [lines.next(), lines.next()].map(Option::unwrap_or_default);
        let printed = before.strip_prefix("atcomm: ").unwrap_or_default();
        let advice = last.strip_prefix("hint: ").unwrap_or_default();
        assert!(printed.contains(message), "{self:?} says {message}");
        assert!(advice.contains(hint), "{self:?} advises {hint}");
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Person {
    /// Creates an account on a PDS, without enrolling it.
    pub(crate) fn new(network: &'static Network, prefix: &str, pds: usize) -> Self {
        Self::of(network.account(prefix, pds))
    }

    /// Returns a person with this account and a new environment.
    pub(crate) fn of(account: Account) -> Self {
        Self {
            cli: CliEnv::new(account.network),
            account,
        }
    }

    /// Creates an account and enrols it with a mediator.
    #[track_caller]
    pub(crate) fn enrolled(
        network: &'static Network,
        prefix: &str,
        pds: usize,
        mediator: &MediatorService,
    ) -> Self {
        let person = Self::new(network, prefix, pds);
        person.enroll(&[&mediator.did]).success();
        person
    }

    /// Returns the password at the PDS.
    pub(crate) fn password(&self) -> &str {
        text(&self.account.made, "/password")
    }

    /// Returns a command that has the password in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.cli.command(args);
        command.env("ATCOMM_PASSWORD", self.password());
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args), "")
    }

    /// Returns the published did:peer of the wallet.
    #[track_caller]
    pub(crate) fn peer(&self) -> String {
        let whoami = self
            .cli
            .json(&["whoami", "--offline", "--account", &self.account.did]);
        let keys = whoami["accounts"][0]["keys"].as_array().expect("a list");
        let present = keys.iter().find(|key| key["state"] == "published");
        text(present.expect("a published key"), "/peer").to_owned()
    }

    /// Enrols with these mediators.
    #[track_caller]
    pub(crate) fn enroll(&self, mediators: &[&str]) -> Output {
        let mut args = vec!["enroll", &self.account.handle];
        for mediator in mediators {
            args.extend(["--mediator", mediator]);
        }
        self.run(&args)
    }

    /// Returns the key package record from the account's PDS.
    #[track_caller]
    pub(crate) fn record(&self) -> Option<Value> {
        let pds = text(&self.account.made, "/pdsUrl");
        let url = format!("{pds}/xrpc/com.atproto.repo.getRecord");
        let mut url = url::Url::parse(&url).expect("a URL");
        url.query_pairs_mut()
            .append_pair("repo", &self.account.did)
            .append_pair("collection", "at.didcomm.keyPackage")
            .append_pair("rkey", "self");
        let answer = crate::http::request("GET", url.as_str(), &[], None);
        (answer.status == 200).then(|| answer.json()["value"].clone())
    }
}

impl MediatorService {
    /// Starts a service for `network`.
    #[track_caller]
    pub(crate) fn start(network: &Network) -> Self {
        Self::start_as(network, |setup| setup)
    }

    /// Starts a service for `network` with the settings that `change` makes.
    #[track_caller]
    pub(crate) fn start_as(network: &Network, change: impl FnOnce(Setup) -> Setup) -> Self {
        let port = free_port();
        let url = format!("http://localhost:{port}");
        let setup = Setup::beside(network)
            .streams_only()
            .set("http.listen", json!(format!("127.0.0.1:{port}")))
            .set("mediator.public_url", json!(url))
            .set("mediator.queue_rate", json!(1_000_000))
            .set("mediator.address_rate", json!(1_000_000));
        let service = change(setup).start();
        Self {
            service: Some(service),
            did: format!("did:web:localhost%3A{port}"),
            url,
        }
    }

    pub(crate) fn service(&self) -> &Service {
        self.service.as_ref().expect("it is up")
    }

    /// Suspends the process of the service, or continues it.
    #[track_caller]
    pub(crate) fn freeze(&self, on: bool) {
        let signal = if on { "-STOP" } else { "-CONT" };
        let id = self.service().process_id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }
}

/// Returns the network of tests that disturb it, and a lock that admits one such test at a time.
pub(crate) fn disturbed() -> (&'static Network, MutexGuard<'static, ()>) {
    static NETWORK: LazyLock<&'static Network> = LazyLock::new(|| Network::own(&["--multikey"]));
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let network = *NETWORK;
    for pds in [0, 1] {
        network.op("pds.start", json!({"pds": pds}));
        network.op("pds.hang", json!({"pds": pds, "on": false}));
        network.op("pds.limit", json!({"pds": pds, "count": 0}));
        network.op("pds.requests", json!({"pds": pds, "reset": true}));
    }
    (network, turn)
}

/// Requests to a path of the first PDS that are left unanswered while this value exists. Requests
/// that came in that time never get an answer.
pub(crate) struct HeldRequests {
    network: &'static Network,
    path: &'static str,
}

/// Leaves requests to this path without an answer from now on.
#[track_caller]
pub(crate) fn hold_requests(network: &'static Network, path: &'static str) -> HeldRequests {
    network.op("pds.requests", json!({"pds": 0, "reset": true}));
    network.op("pds.hang", json!({"pds": 0, "path": path}));
    HeldRequests { network, path }
}

impl HeldRequests {
    /// Waits until the client has sent a request to the path.
    #[track_caller]
    pub(crate) fn until_asked(&self) {
        let asked = json!({"pds": 0, "path": self.path, "agent": "atcomm"});
        crate::http::eventually(&format!("the PDS is asked {}", self.path), || {
            let asked = self.network.op("pds.requests", asked.clone());
            (asked["total"].as_u64() > Some(0)).then_some(())
        });
    }
}

impl Drop for HeldRequests {
    fn drop(&mut self) {
        self.network.op("pds.hang", json!({"pds": 0, "on": false}));
    }
}
