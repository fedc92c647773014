//! The program itself as a process: started from a configuration file in its own directory, called
//! over HTTP, ended by SIGTERM or killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use atcomm::store::directory::Queries;
use atcomm::store::{Change, DirectoryStore, Entry, StoreError};
use atcomm_proto::proof::{Container, Proven, verify};
use atcomm_proto::syntax::Did;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::http::{Answer, RUNTIME, eventually, request, within};
use crate::lexicon::assert_valid;
use crate::network::{Network, Pds};

pub(crate) const RESOLVE: &str = "at.didcomm.directory.resolveRecipient";
pub(crate) const PROOF: &str = "at.didcomm.directory.getProof";
pub(crate) const HISTORY: &str = "at.didcomm.directory.getHistory";
pub(crate) const REFRESH: &str = "at.didcomm.directory.refresh";

/// Timeout of a start or an end, on a machine that is busy with other tests.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(20);

/// The configuration of a service.
#[derive(Clone)]
pub(crate) struct Setup {
    settings: BTreeMap<String, Value>,
    sources: Vec<Value>,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// Returns settings of a service without sources and without a network.
    pub(crate) fn offline() -> Self {
        let setup = Self {
            settings: BTreeMap::new(),
            sources: Vec::new(),
            environment: Vec::new(),
        };
        setup
            .set("http.listen", json!("127.0.0.1:0"))
            .set("metrics.listen", json!("127.0.0.1:0"))
            .set("net.development", json!(true))
            .set("net.name_server", json!("127.0.0.1:9"))
            .set("identity.plc_url", json!("http://localhost:9"))
    }

    /// Returns settings of a service without sources in `network`.
    pub(crate) fn new(network: &Network) -> Self {
        Self::offline()
            .set("net.name_server", json!(network.name_server()))
            .set("identity.plc_url", json!(network.plc()))
            // All tests call from one address and for names below few domains.
            .set("net.host_rate", json!(1000))
            .set("net.host_burst", json!(1000))
            // The other tests keep both cores busy, so a late permit must not count as a refusal.
            .set("net.busy_wait", json!("5s"))
            .set("resolve.misses_per_minute", json!(100_000))
            .set("http.rate_limit", json!(0))
    }

    /// Returns settings of a service that follows both PDSes of `network`.
    pub(crate) fn beside(network: &Network) -> Self {
        Self::new(network).pds(network, 0).pds(network, 1)
    }

    /// Sets one key, such as `net.development`.
    pub(crate) fn set(mut self, key: &str, value: Value) -> Self {
        self.settings.insert(key.to_owned(), value);
        self
    }

    /// Adds variables to the environment.
    pub(crate) fn environment(mut self, variables: Vec<(String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// Adds a source.
    pub(crate) fn source(mut self, source: Value) -> Self {
        self.sources.push(source);
        self
    }

    /// Adds a PDS as a source.
    pub(crate) fn pds(self, network: &Network, pds: Pds) -> Self {
        self.source(json!({"url": network.pds_url(pds), "kind": "pds"}))
    }

    /// Sets the sources to be followed without a backfill.
    pub(crate) fn streams_only(mut self) -> Self {
        for source in &mut self.sources {
            source["walk"] = json!(false);
        }
        self
    }

    /// Takes the sources away, so that accounts are looked at on request only.
    pub(crate) fn without_sources(mut self) -> Self {
        self.sources.clear();
        self
    }

    /// Allows no refresh on demand, so that every answer comes from a source.
    pub(crate) fn no_refresh_on_demand(self) -> Self {
        self.set("resolve.on_demand", json!(0))
    }

    fn toml(&self, data_dir: &Path) -> String {
        let mut toml = format!("data_dir = {:?}\n", data_dir.display().to_string());
        for (key, value) in &self.settings {
            // Strings, numbers and lists of JSON are the same in TOML.
            toml.push_str(&format!("{key} = {value}\n"));
        }
        if self.sources.is_empty() {
            toml.push_str("sources = []\n");
        }
        for source in &self.sources {
            toml.push_str("[[sources]]\n");
            for (key, value) in source.as_object().expect("an object") {
                toml.push_str(&format!("{key} = {value}\n"));
            }
        }
        toml
    }

    /// Starts a service in an empty directory.
    #[track_caller]
    pub(crate) fn start(self) -> Service {
        let dir = TempDir::new().expect("a temporary directory");
        Service::start(self, Arc::new(dir))
    }
}

/// A running service. Dropping it sends SIGTERM, and panics if the service does not end properly.
pub(crate) struct Service {
    child: Option<Child>,
    dir: Arc<TempDir>,
    setup: Setup,
    log: Arc<Mutex<String>>,
    address: String,
    metrics: String,
}

/// The directory and settings of a service that has ended.
pub(crate) struct Stopped {
    dir: Arc<TempDir>,
    setup: Setup,
}

/// An error as XRPC returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct XrpcError {
    pub(crate) status: u16,
    pub(crate) name: String,
    pub(crate) message: String,
    pub(crate) retry_after: Option<u64>,
}

impl Service {
    #[track_caller]
    fn start(setup: Setup, dir: Arc<TempDir>) -> Self {
        let config = dir.path().join("config.toml");
        std::fs::write(&config, setup.toml(&dir.path().join("data"))).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_atcomm"))
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .envs(setup.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let log: Arc<Mutex<String>> = Arc::default();
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let copy = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = copy.lock().unwrap_or_else(PoisonError::into_inner);
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut service = Self {
            child: Some(child),
            dir,
            setup,
            log,
            address: String::new(),
            metrics: String::new(),
        };
        let (address, metrics) = within(PROCESS_TIMEOUT, "the service listens", || {
            let child = service.child.as_mut()?;
            let ended = child.try_wait().expect("a child");
            assert!(ended.is_none(), "the service ended: {}", service.log());
            Some((
                service.logged_address("listening")?,
                service.logged_address("metrics")?,
            ))
        });
        service.address = address;
        service.metrics = metrics;
        service
    }

    /// Returns the address in the line of the log with `word`.
    fn logged_address(&self, word: &str) -> Option<String> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains(word))?;
        let at = line.find("127.0.0.1:")?;
        let address: String = line[at..]
            .chars()
            .take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':'))
            .collect();
        Some(address)
    }

    /// Returns the data directory.
    pub(crate) fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("data")
    }

    /// Returns the process id.
    pub(crate) fn process_id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Returns the log up to now.
    pub(crate) fn log(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Calls a query; parameters are escaped.
    pub(crate) fn query(&self, nsid: &str, params: &[(&str, &str)]) -> Answer {
        self.query_with(nsid, params, &[])
    }

    /// Calls a query with headers.
    pub(crate) fn query_with(
        &self,
        nsid: &str,
        params: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut url = url::Url::parse(&self.url(&format!("/xrpc/{nsid}"))).expect("a URL");
        url.query_pairs_mut().extend_pairs(params);
        request("GET", url.as_str(), headers, None)
    }

    /// Calls `resolveRecipient` and checks the answer against the lexicon.
    #[track_caller]
    pub(crate) fn recipient(&self, actor: &str) -> Result<Value, XrpcError> {
        checked(RESOLVE, &self.query(RESOLVE, &[("actor", actor)]))
    }

    /// Calls `resolveRecipient` with the proof and checks the answer against the lexicon.
    #[track_caller]
    pub(crate) fn recipient_with_proof(&self, actor: &str) -> Result<Value, XrpcError> {
        let params = [("actor", actor), ("proof", "true")];
        checked(RESOLVE, &self.query(RESOLVE, &params))
    }

    /// Calls `getProof`. The proof is not verified.
    #[track_caller]
    pub(crate) fn proof(&self, did: &str) -> Result<Vec<u8>, XrpcError> {
        let answer = self.query(PROOF, &[("did", did)]);
        if answer.status == 200 {
            assert_eq!(answer.header("content-type"), "application/vnd.ipld.car");
            return Ok(answer.body);
        }
        Err(xrpc_error(PROOF, &answer))
    }

    /// Calls `refresh` and checks the answer against the lexicon.
    #[track_caller]
    pub(crate) fn refresh(&self, did: &str) -> Result<Value, XrpcError> {
        let headers = [("content-type", "application/json")];
        let body = json!({"did": did}).to_string().into_bytes();
        let url = self.url(&format!("/xrpc/{REFRESH}"));
        checked(REFRESH, &request("POST", &url, &headers, Some(body)))
    }

    /// Waits until `wanted` accepts the answer about an actor. Returns the answer.
    #[track_caller]
    pub(crate) fn until(&self, actor: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let start = Instant::now();
        loop {
            let answer = self.recipient(actor);
            if let Ok(view) = &answer
                && wanted(view)
            {
                return view.clone();
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "not within 30 s: {what}; last {last:?}"
            );
            last = Some(answer);
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Waits until the actor's package is the one with this CID.
    #[track_caller]
    pub(crate) fn until_cid(&self, actor: &str, cid: &Value) -> Value {
        let what = format!("{actor} is shown with {cid}");
        self.until(actor, &what, |view| view["keyPackage"]["cid"] == *cid)
    }

    /// Waits until the actor is refused with this error. Returns the error.
    #[track_caller]
    pub(crate) fn until_refused(&self, actor: &str, name: &str) -> XrpcError {
        let mut last = None;
        let start = Instant::now();
        loop {
            let answer = self.recipient(actor);
            if let Err(failure) = &answer
                && failure.name == name
            {
                return failure.clone();
            }
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "{actor} is not refused with {name} within 30 s; last {last:?}"
            );
            last = Some(answer);
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Returns the page of the metrics listener.
    pub(crate) fn metrics_page(&self) -> String {
        let url = format!("http://{}/metrics", self.metrics);
        request("GET", &url, &[], None).text()
    }

    /// Returns the sum of a metric over all its labels that include these.
    pub(crate) fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let page = self.metrics_page();
        page.lines()
            .filter(|line| {
                let rest = line.strip_prefix(name).unwrap_or_default();
                rest.starts_with(['{', ' '])
                    && labels
                        .iter()
                        .all(|(key, value)| rest.contains(&format!("{key}={value:?}")))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            // The sum of nothing would be printed as -0.
            .fold(0.0, |sum, value| sum + value)
    }

    /// Waits until a counter is at least `least`.
    #[track_caller]
    pub(crate) fn until_counted(&self, name: &str, labels: &[(&str, &str)], least: f64) {
        eventually(&format!("{name} {labels:?} reaches {least}"), || {
            (self.metric(name, labels) >= least).then_some(())
        });
    }

    /// Waits until `sources` sources are connected.
    #[track_caller]
    pub(crate) fn until_following(&self, sources: usize) {
        self.until_counted("atcomm_ingest_connected", &[], sources as f64);
    }

    /// Ends the service by SIGTERM.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Stopped {
        self.terminate();
        self.stopped()
    }

    /// Kills the service, like a power cut.
    #[track_caller]
    pub(crate) fn kill(mut self) -> Stopped {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("a child");
            child.wait().expect("a child");
        }
        self.stopped()
    }

    fn stopped(&self) -> Stopped {
        Stopped {
            dir: Arc::clone(&self.dir),
            setup: self.setup.clone(),
        }
    }

    #[track_caller]
    fn terminate(&mut self) {
        let Some(child) = self.child.take() else {
            return;
        };
        let status = end(child);
        let log = self.log();
        assert!(status.is_some_and(|s| s.success()), "{status:?}: {log}");
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// Sends SIGTERM and waits for the end; `None` after the timeout.
fn end(mut child: Child) -> Option<ExitStatus> {
    let sent = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(sent.is_ok_and(|status| status.success()), "kill -TERM");
    let start = Instant::now();
    while start.elapsed() < PROCESS_TIMEOUT {
        if let Some(status) = child.try_wait().expect("a child") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(child.kill());
    None
}

impl Drop for Service {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return self.terminate();
        }
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
            let log = self.log();
            let tail = log.len().saturating_sub(6000);
            let tail = (tail..=log.len()).find(|at| log.is_char_boundary(*at));
            println!("log of the service: {}", &log[tail.unwrap_or(0)..]);
        }
    }
}

impl Stopped {
    /// Starts the service again in its directory.
    #[track_caller]
    pub(crate) fn start(self) -> Service {
        Service::start(self.setup, self.dir)
    }

    /// Starts the service again with other settings.
    #[track_caller]
    pub(crate) fn start_as(self, setup: Setup) -> Service {
        Service::start(setup, self.dir)
    }

    /// Returns the data directory.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Starts a service that has to end at once. Returns its exit code and its standard error.
    #[track_caller]
    pub(crate) fn refuses_to_start(&self) -> (Option<i32>, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_atcomm"))
            .arg("serve")
            .arg("--config")
            .arg(self.dir.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let began = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if began.elapsed() > PROCESS_TIMEOUT {
                drop(child.kill());
                panic!("it starts: {:?}", child.wait_with_output());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output().expect("its output");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    }

    /// Reads the store of the ended service.
    pub(crate) fn read<T, F>(&self, question: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(&Queries<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let path = self.dir.path().join("data/directory.db");
        let store = DirectoryStore::open(&path).expect("a store");
        let answer = RUNTIME.block_on(async {
            let answer = store.query(question).await;
            store.shutdown().await;
            answer
        });
        answer.expect("an answer of the store")
    }

    /// Returns the entry of an account.
    pub(crate) fn entry(&self, did: &str) -> Option<Entry> {
        let did = Did::parse(did).expect("a DID");
        self.read(move |q| q.entry(&did))
    }

    /// Returns all changes of an account, the oldest first.
    pub(crate) fn changes(&self, did: &str) -> Vec<Change> {
        let did = Did::parse(did).expect("a DID");
        let mut changes = self.read(move |q| q.changes(&did, 100_000));
        changes.reverse();
        changes
    }
}

/// Checks an answer of success or failure against the lexicon. Returns its body.
#[track_caller]
pub(crate) fn checked(nsid: &str, answer: &Answer) -> Result<Value, XrpcError> {
    if answer.status == 200 {
        let body = answer.json();
        assert_valid(nsid, "output", &body);
        return Ok(body);
    }
    Err(xrpc_error(nsid, answer))
}

/// Checks an error against the lexicon. Returns the error.
#[track_caller]
pub(crate) fn xrpc_error(nsid: &str, answer: &Answer) -> XrpcError {
    let body = answer.json();
    assert_valid(
        nsid,
        "error",
        &json!({"status": answer.status, "body": body}),
    );
    assert_eq!(answer.header("cache-control"), "no-store");
    let field = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    XrpcError {
        status: answer.status,
        name: field("error"),
        message: field("message"),
        retry_after: answer.header("retry-after").parse().ok(),
    }
}

/// Verifies a proof under the account's present key in the DID directory.
#[track_caller]
pub(crate) fn proven(network: &Network, did: &str, car: &[u8]) -> Proven {
    let key = network.signing_key(did);
    let did = Did::parse(did).expect("a DID");
    let now = atcomm_proto::clock::Clock::system().now();
    verify(car, Container::Commit, &did, &key, now).expect("a proof that holds")
}

/// Returns the CAR in an answer with a proof.
#[track_caller]
pub(crate) fn car_of(view: &Value) -> Vec<u8> {
    let text = crate::network::text(view, "/proof/car/$bytes");
    data_encoding::BASE64_NOPAD
        .decode(text.as_bytes())
        .expect("base64")
}
