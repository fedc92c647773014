//! Lists of accounts and mediators, and their numbers.

use serde_json::{Value, json};

use crate::http::eventually;
use crate::network::{Account, Network, text};
use crate::service::{Service, Setup, checked, xrpc_error};

const RECIPIENTS: &str = "at.didcomm.directory.listRecipients";
const MEDIATORS: &str = "at.didcomm.directory.listMediators";
const STATS: &str = "at.didcomm.directory.getStats";
const REPOS: &str = "com.atproto.sync.listReposByCollection";

const COLLECTION: (&str, &str) = ("collection", "at.didcomm.keyPackage");

/// Mediators that nothing answers for.
const ONE: &str = "did:web:one.mediator.test";
const TWO: &str = "did:web:two.mediator.test";

/// Returns the items of all pages of a list.
#[track_caller]
fn all(service: &Service, nsid: &str, items: &str, params: &[(&str, &str)]) -> Vec<Value> {
    let (mut found, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut params = params.to_vec();
        params.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = checked(nsid, &service.query(nsid, &params)).expect("a page");
        found.extend(page[items].as_array().expect("a list").clone());
        match page.get("cursor") {
            Some(next) => cursor = Some(next.as_str().expect("text").to_owned()),
            None => return found,
        }
    }
}

/// Returns the DIDs of a list.
#[track_caller]
fn dids(list: &[Value]) -> Vec<&str> {
    list.iter().map(|item| text(item, "/did")).collect()
}

#[track_caller]
fn recipients(service: &Service, params: &[(&str, &str)]) -> Vec<Value> {
    all(service, RECIPIENTS, "recipients", params)
}

#[track_caller]
fn stats(service: &Service) -> Value {
    checked(STATS, &service.query(STATS, &[])).expect("numbers")
}

/// Returns the numbers once they are as wanted: an answer is up to a second old.
#[track_caller]
fn until_stats(service: &Service, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually(what, || Some(stats(service)).filter(&wanted))
}

/// Accounts in all states but two, which nothing else changes. The service has no source.
struct World {
    service: Service,
    /// Enrolled, at the PDSes 0, 0 and 1.
    alice: Account,
    bob: Account,
    carol: Account,
    removed: Account,
    inactive: Account,
    invalid: Account,
}

impl World {
    fn new(network: &'static Network) -> Self {
        let service = Setup::new(network).start();
        let enrolled = |name: &str, pds, mediators: &[&str]| {
            let account = network.enrolled(name, pds, json!({"mediators": mediators}));
            service.recipient(&account.did).expect("the package");
            account
        };
        let world = Self {
            alice: enrolled("alice", 0, &[ONE]),
            bob: enrolled("bob", 0, &[TWO, ONE, TWO]),
            carol: enrolled("carol", 1, &[ONE]),
            removed: enrolled("gone", 1, &[ONE]),
            inactive: enrolled("idle", 0, &[TWO]),
            invalid: enrolled("odd", 0, &[ONE]),
            service,
        };
        world.removed.delete_record();
        world.inactive.op("account.deactivate", json!({}));
        let record = json!({"$type": "at.didcomm.keyPackage", "mediators": []});
        world.invalid.put_raw(record);
        for (account, outcome) in [
            (&world.removed, "removed"),
            (&world.inactive, "inactive"),
            (&world.invalid, "invalid"),
        ] {
            let refreshed = world.service.refresh(&account.did).expect("an outcome");
            assert_eq!(refreshed["outcome"], outcome);
        }
        world
    }

    fn of(&self, accounts: &[&Account]) -> Vec<String> {
        let mut dids: Vec<String> = accounts.iter().map(|account| account.did.clone()).collect();
        dids.sort();
        dids
    }

    #[track_caller]
    fn lists(&self, params: &[(&str, &str)], accounts: &[&Account]) {
        let expected = self.of(accounts);
        for limit in ["1", "2", "500"] {
            let params = [params, &[("limit", limit)]].concat();
            let listed = recipients(&self.service, &params);
            assert_eq!(dids(&listed), expected, "{params:?}");
        }
    }
}

#[test]
fn accounts_are_listed_by_pds_mediator_and_state() {
    let network = Network::multikey();
    let w = World::new(network);
    let (first, second) = (network.pds_url(0), network.pds_url(1));
    let all = [
        &w.alice,
        &w.bob,
        &w.carol,
        &w.removed,
        &w.inactive,
        &w.invalid,
    ];
    w.lists(&[], &all);
    w.lists(&[("state", "enrolled")], &[&w.alice, &w.bob, &w.carol]);
    w.lists(&[("state", "removed")], &[&w.removed]);
    w.lists(&[("state", "inactive")], &[&w.inactive]);
    w.lists(&[("state", "invalid")], &[&w.invalid]);
    w.lists(&[("state", "unverifiable")], &[]);
    w.lists(&[("host", &second)], &[&w.carol, &w.removed]);
    w.lists(&[("host", &second), ("state", "enrolled")], &[&w.carol]);
    w.lists(&[("host", "elsewhere.example.com")], &[]);
    w.lists(&[("mediator", ONE)], &[&w.alice, &w.bob, &w.carol]);
    w.lists(&[("mediator", TWO)], &[&w.bob, &w.inactive]);
    w.lists(&[("mediator", TWO), ("state", "enrolled")], &[&w.bob]);
    w.lists(&[("mediator", ONE), ("host", &first)], &[&w.alice, &w.bob]);
    w.lists(
        &[("mediator", TWO), ("host", &first), ("state", "inactive")],
        &[&w.inactive],
    );

    let view = w.service.until(&w.alice.did, "the handle", |view| {
        view["handle"] == *w.alice.handle
    });
    let listed = recipients(&w.service, &[]);
    let item = |account: &Account| {
        let mut items = listed.iter();
        let item = items.find(|item| item["did"] == *account.did);
        item.expect("a listed account").clone()
    };
    assert_eq!(
        item(&w.alice),
        json!({
            "did": w.alice.did,
            "handle": w.alice.handle,
            "pds": first,
            "state": "enrolled",
            "rev": view["keyPackage"]["rev"],
            "observedAt": view["verification"]["observedAt"],
        })
    );
    assert_eq!(item(&w.inactive)["reason"], "deactivated");
    assert_eq!(item(&w.inactive).get("rev"), None);
    assert_eq!(item(&w.invalid)["reason"], "did");
}

#[test]
fn mediators_are_listed_with_their_recipients() {
    let w = World::new(Network::multikey());
    for limit in ["1", "100"] {
        let listed = all(&w.service, MEDIATORS, "mediators", &[("limit", limit)]);
        assert_eq!(dids(&listed), [ONE, TWO]);
        let counts: Vec<&Value> = listed.iter().map(|item| &item["recipients"]).collect();
        assert_eq!(counts, [3, 1]);
        assert!(listed.iter().all(|item| item["endpoints"] == json!([])));
    }
}

/// A directory is a source for another one, as a relay's list is.
#[test]
fn another_directory_finds_the_accounts_in_the_list_of_this_one() {
    let network = Network::multikey();
    let w = World::new(network);
    let listed = all(&w.service, REPOS, "repos", &[COLLECTION, ("limit", "2")]);
    let expected = w.of(&[&w.alice, &w.bob, &w.carol, &w.invalid]);
    assert_eq!(dids(&listed), expected);
    let source = json!({"url": w.service.url(""), "kind": "relay", "stream": false});
    let other = Setup::new(network)
        .no_refresh_on_demand()
        .source(source)
        .start();
    for account in [&w.alice, &w.bob, &w.carol] {
        other.until(&account.did, "an account of the other list", |_| true);
    }
    other.until_refused(&w.invalid.did, "InvalidKeyPackage");
    let known = recipients(&other, &[]);
    assert_eq!(dids(&known), expected);
}

#[test]
fn the_numbers_are_those_of_the_accounts() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let empty = stats(&service);
    assert_eq!(empty["totals"]["accounts"], 0);
    assert_eq!(
        empty["byPds"],
        json!({"groups": 0, "largest": [], "others": 0})
    );
    drop(service);

    let w = World::new(network);
    let numbers = until_stats(&w.service, "six accounts", |numbers| {
        numbers["totals"]["accounts"] == 6 && numbers["totals"]["invalid"] == 1
    });
    assert_eq!(
        numbers["totals"],
        json!({
            "accounts": 6, "enrolled": 3, "inactive": 1, "invalid": 1, "removed": 1,
            "removedUnproven": 0, "unverifiable": 0, "regressed": 0, "inDoubt": 0,
            "ambiguousPeers": 0,
        })
    );
    let group = |name: &str, accounts: u64| json!({"name": name, "accounts": accounts});
    let grouping =
        |groups: &[Value]| json!({"groups": groups.len(), "largest": groups, "others": 0});
    let pdses = [group(&network.pds_url(0), 2), group(&network.pds_url(1), 1)];
    assert_eq!(numbers["byPds"], grouping(&pdses));
    let mediators = [group(ONE, 3), group(TWO, 1)];
    assert_eq!(numbers["byMediator"], grouping(&mediators));
    let key_types = [group("X25519/Ed25519", 3)];
    assert_eq!(numbers["byKeyType"], grouping(&key_types));
    assert_eq!(numbers["inactive"], grouping(&[group("deactivated", 1)]));
    assert_eq!(numbers["invalid"], grouping(&[group("did", 1)]));
    assert_eq!(numbers["unverifiable"], grouping(&[]));
    let happened = |enrolments, rotations, removals, deletions| {
        json!({"enrolments": enrolments, "rotations": rotations, "removals": removals,
            "deletions": deletions})
    };
    assert_eq!(numbers["changes"]["last24Hours"], happened(6, 0, 1, 0));

    // Another key, another's key, a package again, an account that ends.
    w.alice.put(json!({"mediators": [TWO]}));
    let made = w.carol.put(json!({"mediators": [ONE]}));
    w.bob
        .put(json!({"mediators": [ONE], "did": made["record"]["did"]}));
    w.removed.put(json!({"mediators": [ONE]}));
    w.invalid.op("account.delete", json!({"tombstone": true}));
    for account in [&w.alice, &w.carol, &w.bob, &w.removed] {
        w.service.refresh(&account.did).expect("an outcome");
    }
    let ended = w.service.refresh(&w.invalid.did).expect_err("no account");
    assert_eq!(ended.name, "DidNotFound");
    let numbers = until_stats(&w.service, "five accounts", |numbers| {
        numbers["totals"]["accounts"] == 5
    });
    assert_eq!(numbers["totals"]["enrolled"], 4);
    assert_eq!(numbers["totals"]["ambiguousPeers"], 1);
    let mediators = [group(ONE, 3), group(TWO, 1)];
    assert_eq!(numbers["byMediator"], grouping(&mediators));
    for span in ["last24Hours", "last7Days", "last30Days"] {
        assert_eq!(numbers["changes"][span], happened(7, 3, 1, 1), "{span}");
    }

    // They are the same after a restart, and an answer that is known is not sent again.
    let service = w.service.stop().start();
    let again = stats(&service);
    assert_eq!(again["totals"], numbers["totals"]);
    assert_eq!(again["changes"], numbers["changes"]);
    let answer = service.query(STATS, &[]);
    let etag = answer.header("etag").to_owned();
    let known = service.query_with(STATS, &[], &[("if-none-match", &etag)]);
    assert_eq!(known.status, 304);
}

#[test]
fn wrong_parameters_of_lists_are_refused_by_name() {
    let w = World::new(Network::multikey());
    let cursor_of = |nsid: &str, params: &[(&str, &str)]| {
        let params = [params, &[("limit", "1")]].concat();
        let page = checked(nsid, &w.service.query(nsid, &params)).expect("a page");
        text(&page, "/cursor").to_owned()
    };
    let plain = cursor_of(RECIPIENTS, &[]);
    let filtered = cursor_of(RECIPIENTS, &[("state", "enrolled")]);
    let of_repos = cursor_of(REPOS, &[COLLECTION]);
    let of_mediators = cursor_of(MEDIATORS, &[]);
    let long = "x".repeat(3000);
    let wrong_cursors = ["", "0", "next", "%00", "\u{0}", "ü", &long, &w.alice.did];
    for (nsid, fixed, others) in [
        (RECIPIENTS, None, [&filtered, &of_repos, &of_mediators]),
        (MEDIATORS, None, [&plain, &filtered, &of_repos]),
        (REPOS, Some(COLLECTION), [&plain, &filtered, &of_mediators]),
    ] {
        let cursors = wrong_cursors.iter().copied();
        let others = others.iter().map(|cursor| cursor.as_str());
        for cursor in cursors.chain(others) {
            refused(&w.service, nsid, fixed, ("cursor", cursor));
        }
        for limit in ["0", "-1", "many", "2001", "99999999999999999999", "1.5", ""] {
            refused(&w.service, nsid, fixed, ("limit", limit));
        }
    }
    for (name, value) in [
        ("host", ""),
        ("host", "https://pds.example.com/path"),
        ("host", "a b"),
        ("host", "ftp://pds.example.com"),
        ("host", &long),
        ("mediator", ""),
        ("mediator", "mediator.example.com"),
        ("mediator", "did:web:"),
        ("state", ""),
        ("state", "active"),
        ("state", "Enrolled"),
    ] {
        refused(&w.service, RECIPIENTS, None, (name, value));
    }
    refused(&w.service, REPOS, None, ("collection", ""));
    refused(
        &w.service,
        REPOS,
        None,
        ("collection", "app.bsky.feed.post"),
    );
    let missing = xrpc_error(REPOS, &w.service.query(REPOS, &[]));
    assert!(missing.message.contains("collection"), "{missing:?}");
    // Each is given once.
    let twice = [("state", "enrolled"), ("state", "invalid")];
    let twice = xrpc_error(RECIPIENTS, &w.service.query(RECIPIENTS, &twice));
    assert!(twice.message.contains("state"), "{twice:?}");
}

/// Fails unless a parameter is refused with a message that names it.
#[track_caller]
fn refused(service: &Service, nsid: &str, fixed: Option<(&str, &str)>, wrong: (&str, &str)) {
    let params: Vec<(&str, &str)> = fixed.into_iter().chain([wrong]).collect();
    let failure = xrpc_error(nsid, &service.query(nsid, &params));
    assert_eq!(
        (failure.status, &*failure.name),
        (400, "InvalidRequest"),
        "{wrong:?}"
    );
    let named = format!("parameter {}", wrong.0);
    assert!(failure.message.contains(&named), "{wrong:?}: {failure:?}");
}
