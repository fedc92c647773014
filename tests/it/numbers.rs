//! `atcomm stats` and `atcomm export`, beside the service and after it, and the coverage that they
//! and the time series tell of.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::gaps::listing_relay;
use crate::http::{eventually, request};
use crate::network::{Network, Pds};
use crate::service::{Service, Setup};

fn atcomm(command: &[&str], data_dir: &Path) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_atcomm"));
    program.args(command).arg("--data-dir").arg(data_dir);
    program
}

#[track_caller]
fn answer(command: &[&str], data_dir: &Path) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = atcomm(command, data_dir).output().expect("the program");
    let talk = String::from_utf8_lossy(&stderr);
    assert!(status.success() && talk.is_empty(), "{status}: {talk}");
    String::from_utf8(stdout).expect("UTF-8")
}

#[track_caller]
fn stats(data_dir: &Path) -> Value {
    let text = answer(&["stats", "--json"], data_dir);
    serde_json::from_str(&text).expect("JSON")
}

/// Returns the number of accounts of a PDS, by its own list.
fn accounts_of(network: &Network, pds: Pds) -> i64 {
    let url = format!(
        "{}/xrpc/com.atproto.sync.listRepos?limit=1000",
        network.pds_url(pds)
    );
    let list = request("GET", &url, &[], None).json();
    let repos = list["repos"].as_array().expect("a list");
    i64::try_from(repos.len()).expect("a number")
}

impl Service {
    /// Waits until the newest whole listing of the only source is this one: accounts listed, those
    /// of them unknown here, and entries of here that were not listed.
    #[track_caller]
    fn until_listed(&self, listed: i64, unknown: i64, unlisted: i64) -> Value {
        let wanted = [listed, unknown, unlisted].map(Value::from);
        eventually(&format!("the listing {wanted:?}"), || {
            let stats = stats(&self.data_dir());
            let days = stats["sources"][0]["days"].as_array()?;
            let day = days.iter().rev().find(|day| !day["listed"].is_null())?;
            let names = ["listed", "unknown", "unlisted"];
            (names.map(|name| day[name].clone()) == wanted).then(|| stats.clone())
        })
    }
}

/// Counts the gaps of the only source, and the milliseconds that they cover.
fn gaps(stats: &Value) -> (i64, i64) {
    let days = stats["sources"][0]["days"].as_array().expect("a list");
    let sum = |name: &str| -> i64 {
        let counts = days.iter().map(|day| day[name].as_i64());
        counts.map(|count| count.expect("a number")).sum()
    };
    (sum("gaps"), sum("gapMs"))
}

/// The source is one server after another, each with accounts of its own: what each lists is
/// compared with what the directory has, and each change of server is a gap.
#[test]
fn the_coverage_of_a_source_is_what_its_lists_have_and_miss() {
    let network = Network::own(&["--multikey"]);
    let first: Vec<_> = ["one", "two", "three", "four"]
        .map(|name| network.enrolled(name, 0, json!({})))
        .into();
    for name in ["five", "six"] {
        network.account(name, 0);
    }
    let seven = network.enrolled("seven", 1, json!({}));
    network.account("eight", 1);
    assert!(network.seq(0) > network.seq(1));
    let (of_first, of_second) = (accounts_of(network, 0), accounts_of(network, 1));

    let servers = [0, 1].map(|pds| listing_relay(network, pds));
    let follow = |server: usize| {
        let connect = servers[server].url("http");
        let source = json!({"url": network.pds_url(0), "connect": connect, "kind": "relay"});
        Setup::new(network).source(source).no_refresh_on_demand()
    };
    // Nothing is known.
    let service = follow(0).start();
    service.until_following(1);
    let told = service.until_listed(of_first, of_first, 0);
    assert_eq!(gaps(&told), (0, 0));
    for account in &first {
        service.until(&account.did, "what was listed", |_| true);
    }
    // An event, so that there is a position to go on from.
    let put = first[0].put(json!({"label": "second"}));
    service.until_cid(&first[0].did, &put["cid"]);

    // Nothing of what is known is on the list of the other server, whose events are others.
    let service = service.stop().start_as(follow(1));
    let told = service.until_listed(of_second, of_second, 4);
    let (count, millis) = gaps(&told);
    assert!(count >= 1 && millis > 0, "{told}");
    service.until(&seven.did, "what was listed", |_| true);
    let nine = network.enrolled("nine", 1, json!({}));
    service.until(&nine.did, "what is live", |_| true);

    // Back again: the four are listed and known, the two of the other server are not listed.
    let service = service.stop().start_as(follow(0));
    let told = service.until_listed(of_first, of_first - 4, 2);
    assert!(gaps(&told).0 > count, "{told}");
    assert_eq!(told["statistics"]["totals"]["enrolled"], 6);
}

#[test]
fn numbers_and_rows_are_read_beside_the_service_and_after_it() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let accounts = [
        network.enrolled("alice", 0, json!({})),
        network.enrolled("bob", 1, json!({})),
    ];
    for account in &accounts {
        service.recipient(&account.did).expect("the package");
    }
    let told = answer(&["stats"], &service.data_dir());
    assert!(told.contains("        2  enrolled\n"), "{told}");
    let rows = answer(&["export", "-"], &service.data_dir());
    let rows: Vec<Value> = rows
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for account in &accounts {
        let row = rows.iter().find(|row| row["did"] == *account.did);
        let row = row.unwrap_or_else(|| panic!("{} in {rows:?}", account.did));
        let view = service.recipient(&account.did).expect("the package");
        assert_eq!(row["state"], "enrolled");
        for (name, same) in [
            ("handle", &view["handle"]),
            ("peer", &view["peer"]["did"]),
            ("cid", &view["keyPackage"]["cid"]),
            ("signingKey", &view["verification"]["signingKey"]),
        ] {
            assert_eq!(row[name], *same, "{name}");
        }
    }
    // A reader that has seen enough is no fault.
    let mut child = atcomm(&["export", "-"], &service.data_dir())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program");
    drop(child.stdout.take());
    assert!(child.wait().expect("a child").success());

    let left = service.stop();
    assert_eq!(
        stats(&left.data_dir())["statistics"]["totals"]["enrolled"],
        2
    );
    let again = answer(&["export", "-"], &left.data_dir());
    assert_eq!(again.lines().count(), rows.len());
}
