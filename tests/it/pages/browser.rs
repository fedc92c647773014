//! A headless Chromium (`tests/network/browser/pages.mjs`), one for all tests.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use serde_json::{Value, json};
use testkit::network::script;

/// A folder for pictures of all pages that are visited, to be looked at.
const PICTURES: &str = "PAGES_PICTURES";

static BROWSER: LazyLock<Mutex<Browser>> = LazyLock::new(|| Mutex::new(Browser::start()));

/// One line in, one line out. The process ends with its standard input.
struct Browser {
    /// Runs until the end of the tests; waiting for it earlier would block.
    _child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Browser {
    fn start() -> Self {
        let mut child = script("browser/run.sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/network/browser/run.sh");
        Self {
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(child.stdout.take().expect("a pipe")),
            _child: child,
        }
    }
}

/// What came of a visit.
pub(super) struct PageReport {
    what: String,
    seen: Value,
}

/// Opens a page. `how` has the fields of an order of `pages.mjs` without the address.
#[track_caller]
pub(super) fn visit(url: &str, mut how: Value) -> PageReport {
    let what = format!("{url} {how}");
    how["url"] = json!(url);
    if let Ok(folder) = std::env::var(PICTURES) {
        how["shot"] = json!(format!("{folder}/{}.png", file_name(&what)));
    }
    let line = {
        let mut browser = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(browser.input, "{how}").expect("the browser reads");
        let mut line = String::new();
        browser
            .output
            .read_line(&mut line)
            .expect("the browser answers");
        line
    };
    assert!(!line.is_empty(), "{what}: the browser has ended");
    let seen: Value = serde_json::from_str(&line).expect("a line of JSON");
    assert_eq!(seen["error"], Value::Null, "{what}");
    PageReport { what, seen }
}

/// Returns the letters and digits of an order without the host.
fn file_name(what: &str) -> String {
    let path = what.split_once("127.0.0.1:").map_or(what, |(_, rest)| rest);
    let path = path.trim_start_matches(|c: char| c.is_ascii_digit());
    let words = path.split(|c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join("-").chars().take(150).collect()
}

impl PageReport {
    /// Fails unless the page has the status, nothing to object to, and asks only its own server.
    #[track_caller]
    pub(super) fn assert_clean(&self, status: u16) {
        let (what, seen) = (&self.what, &self.seen);
        assert_eq!(seen["status"], status, "{what}");
        for kind in ["faults", "noise", "overflow"] {
            assert_eq!(seen[kind], json!([]), "{kind} of {what}");
        }
        let own = what.split('/').take(3).collect::<Vec<_>>().join("/") + "/";
        let asked = self.list("asked");
        assert!(!asked.is_empty(), "{what}");
        for url in asked {
            assert!(url.starts_with(&own), "{what} asks {url}");
        }
    }

    /// Returns the text that is shown.
    pub(super) fn text(&self) -> &str {
        self.seen["text"].as_str().expect("a text")
    }

    /// Returns the address after all keys, without the host.
    pub(super) fn address(&self) -> &str {
        let url = self.seen["url"].as_str().expect("an address");
        url.splitn(4, '/').nth(3).expect("a path")
    }

    /// Returns what had the focus after each key.
    pub(super) fn focus(&self) -> Vec<&str> {
        self.list("focus")
    }

    /// Returns what was seen of a kind: `faults`, `noise` and so on.
    pub(super) fn list(&self, kind: &str) -> Vec<&str> {
        let list = self.seen[kind].as_array().expect("a list");
        list.iter().filter_map(Value::as_str).collect()
    }
}
