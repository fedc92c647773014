//! Events that were lost upstream: noticed, said, and mended.
//!
//! While the stream is lost, accounts change in nine ways. After the loss every answer is right, or
//! says that it is stale; and soon it is right. Most services here make no refresh on request, so
//! what becomes right does so by itself.

mod jetstream;
mod pds;
mod relay;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::network::{Account, Network};
use crate::service::{Service, XrpcError};

const GAPS: &str = "atcomm_ingest_gaps_total";

/// Time after a gap is counted at which its entries are in doubt, on a busy machine.
const DOUBT_TIMEOUT: Duration = Duration::from_secs(3);

/// Time within which everything is right, with some hundred entries on a busy machine.
const MEND_TIMEOUT: Duration = Duration::from_secs(90);

/// The network of all tests here: others have accounts that change all the time.
fn network() -> &'static Network {
    static NETWORK: LazyLock<&Network> = LazyLock::new(|| Network::own(&["--multikey"]));
    &NETWORK
}

type Answer = Result<Value, XrpcError>;

/// One account, and what a right answer about it is.
struct Case {
    kind: &'static str,
    did: String,
    right: Box<dyn Fn(&Answer) -> bool>,
}

/// The accounts that change, one for each kind, on PDS 0.
struct Accounts {
    kinds: Vec<(&'static str, Account)>,
}

const KINDS: [&str; 9] = [
    "enrolled",
    "changed",
    "record deleted",
    "renamed",
    "deactivated",
    "account deleted",
    "key rotated",
    "moved",
    "taken down",
];

impl Accounts {
    /// Makes the accounts, and waits until the service has those with a package.
    fn known_to(service: &Service) -> Self {
        let made = KINDS.map(|kind| match kind {
            "enrolled" => (kind, network().account("loss", 0)),
            _ => (kind, network().enrolled("loss", 0, json!({}))),
        });
        for (kind, account) in &made {
            if *kind != "enrolled" {
                service.until(&account.did, kind, |view| view["handle"] == *account.handle);
            }
        }
        Self { kinds: made.into() }
    }

    /// Changes each account in its way.
    fn change(&self) -> Vec<Case> {
        self.kinds
            .iter()
            .map(|(kind, account)| Case {
                kind,
                did: account.did.clone(),
                right: change(kind, account),
            })
            .collect()
    }
}

/// Changes an account. Returns what tells a right answer.
fn change(kind: &str, account: &Account) -> Box<dyn Fn(&Answer) -> bool> {
    let refused = |names: &'static [&'static str]| -> Box<dyn Fn(&Answer) -> bool> {
        let is = |error: &XrpcError| names.contains(&error.name.as_str());
        Box::new(move |answer| answer.as_ref().is_err_and(is))
    };
    let shows = |pointer: &'static str, value: Value| -> Box<dyn Fn(&Answer) -> bool> {
        let is = move |view: &Value| {
            view.pointer(pointer) == Some(&value) && view["verification"]["stale"] == false
        };
        Box::new(move |answer| answer.as_ref().is_ok_and(&is))
    };
    match kind {
        "enrolled" | "changed" => {
            let put = account.put(json!({"label": "while the stream was lost"}));
            shows("/keyPackage/cid", put["cid"].clone())
        }
        "record deleted" => {
            account.delete_record();
            refused(&["NotEnrolled"])
        }
        "renamed" => {
            let handle = format!("{}.renamed.test", account.name);
            account.op("account.rename", json!({"handle": handle}));
            shows("/handle", json!(handle))
        }
        "deactivated" => {
            account.op("account.deactivate", json!({}));
            refused(&["AccountInactive"])
        }
        "account deleted" => {
            account.op("account.delete", json!({}));
            // One answer that knows no such account hides no account: until the second one an hour
            // later the entry says that it is stale.
            Box::new(|answer| match answer {
                Ok(view) => view["verification"]["stale"] == true,
                Err(error) => ["AccountInactive", "Overloaded"].contains(&error.name.as_str()),
            })
        }
        "key rotated" => {
            account.op("account.rotate", json!({}));
            let key = account.network.signing_key(&account.did).did_key();
            shows("/verification/signingKey", json!(key))
        }
        "moved" => {
            account.op("account.migrate", json!({"to": 1}));
            shows("/pds", json!(account.network.pds_url(1)))
        }
        "taken down" => {
            account.op("account.takedown", json!({}));
            refused(&["AccountInactive"])
        }
        _ => panic!("no such kind: {kind}"),
    }
}

/// Waits until the service has noticed the loss, and asserts that from then on no answer is wrong
/// without a word. Returns once all are right, except those of `not`, which only a request or a later
/// look can find. Prints a row of the table.
#[track_caller]
fn assert_mended(loss: &str, service: &Service, cases: &[Case], not: &[&str]) {
    let began = Instant::now();
    service.until_counted(GAPS, &[], 1.0);
    let noticed = began.elapsed();
    let mut right: Vec<Option<Duration>> = vec![None; cases.len()];
    let is_awaited = |case: &Case| !not.contains(&case.kind);
    while cases
        .iter()
        .zip(&right)
        .any(|(case, right)| right.is_none() && is_awaited(case))
    {
        assert!(
            began.elapsed() < noticed + MEND_TIMEOUT,
            "{loss}: not right: {:?}\n{}",
            cases
                .iter()
                .zip(&right)
                .map(|(case, right)| (case.kind, right))
                .collect::<Vec<_>>(),
            service.log(),
        );
        for (case, right) in cases.iter().zip(&mut right) {
            if right.is_some() || !is_awaited(case) {
                continue;
            }
            let asked = began.elapsed();
            let answer = service.recipient(&case.did);
            if (case.right)(&answer) {
                *right = Some(began.elapsed());
            } else if let Ok(view) = &answer {
                let verification = &view["verification"];
                let says =
                    verification["stale"] == true && verification["knownGoodUntil"].is_string();
                // A new name that is not verified yet is no name.
                let unnamed = case.kind == "renamed" && view["handle"] == "handle.invalid";
                assert!(
                    says || unnamed || asked < noticed + DOUBT_TIMEOUT,
                    "{loss}, {}: {view}",
                    case.kind
                );
            }
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    let seconds = |duration: &Option<Duration>| {
        duration.map_or("later".to_owned(), |d| format!("{:.1}", d.as_secs_f64()))
    };
    let row: Vec<String> = cases
        .iter()
        .zip(&right)
        .map(|(case, right)| format!("{} {}", case.kind, seconds(right)))
        .collect();
    println!(
        "{loss}: noticed after {:.1} s; right after (s): {}",
        noticed.as_secs_f64(),
        row.join(", ")
    );
}

/// Asserts that the service has reported no gap.
#[track_caller]
fn assert_no_gap(service: &Service) {
    assert_eq!(service.metric(GAPS, &[]), 0.0, "{}", service.log());
}
