//! The pages in a real browser: nothing to object to for axe-core, nothing wider than the screen, no
//! script, no request elsewhere; and with the keyboard alone.

mod browser;
mod year;

use serde_json::{Value, json};

use crate::http::{RUNTIME, eventually, request};
use crate::network::{Network, mediator_document};
use crate::service::{Service, Setup};

use browser::visit;

/// Text that would run, break out of an attribute, or turn what follows around.
const HOSTILE: &str = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>\u{202e}moc";

/// The same as text on a page.
const SHOWN: &str = "<script>alert(1)</script>\"><img src=x onerror=alert(1)>\u{fffd}moc";

/// Ways to look at a page.
fn views() -> impl Iterator<Item = Value> {
    let widths = [360, 800, 1920];
    widths
        .into_iter()
        .flat_map(|width| ["light", "dark"].map(|scheme| json!({"width": width, "scheme": scheme})))
}

impl Service {
    fn account_page(&self, typed: &str) -> String {
        let mut url = url::Url::parse(&self.url("/account")).expect("an address");
        url.query_pairs_mut().append_pair("actor", typed);
        url.to_string()
    }
}

#[test]
fn charts_of_a_year_are_clean_in_every_view() {
    let service = Setup::offline()
        .set("mediator.public_url", json!("http://localhost:9"))
        .start();
    let data_dir = service.data_dir();
    let stopped = service.stop();
    // The past begins without the file, and its log.
    for file in std::fs::read_dir(&data_dir).expect("a folder") {
        let file = file.expect("a file");
        if file
            .file_name()
            .to_string_lossy()
            .starts_with("directory.db")
        {
            std::fs::remove_file(file.path()).expect("a file");
        }
    }
    RUNTIME.block_on(year::fill(&data_dir));
    let service = stopped.start();
    for path in ["/", "/?days=365"] {
        for how in views() {
            visit(&service.url(path), how).assert_clean(200);
        }
        let plain = visit(&service.url(path), json!({"script": false, "judge": false}));
        plain.assert_clean(200);
        for words in [
            "Accounts that can be written to",
            "Accounts that came and went",
            "Messaging keys replaced",
            "may still change",
            "nothing ran",
            "relay https://relay.example.com",
            "did:web:mail.example.com",
            "atcomm enroll YOUR.HANDLE --mediator localhost:9",
        ] {
            assert!(plain.text().contains(words), "{words} in {}", plain.text());
        }
    }
    visit(&service.url("/?days=30"), json!({})).assert_clean(400);
}

#[test]
fn an_account_is_shown_cleanly_found_or_not() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let mediator = network.mediator();
    let alice = network.enrolled("alice", 0, json!({"mediators": [mediator]}));
    let bob = network.account("bob", 0);
    eventually("the mediator is checked", || {
        let view = service.recipient(&alice.did).expect("the package");
        (view["mediators"][0]["state"] == "reachable").then_some(())
    });
    for (typed, status, words) in [
        (&*alice.handle, 200, "This account can be written to."),
        (
            &*bob.handle,
            404,
            "This account takes no encrypted messages yet",
        ),
        ("no-one.test", 404, "There is no account of this name"),
        ("neither", 400, "This names no account"),
        ("", 400, "This names no account"),
    ] {
        let page = service.account_page(typed);
        for how in views() {
            let seen = visit(&page, how);
            seen.assert_clean(status);
            assert!(seen.text().contains(words), "{words} in {}", seen.text());
        }
        let plain = visit(&page, json!({"script": false, "judge": false}));
        plain.assert_clean(status);
        assert!(plain.text().contains(words), "{}", plain.text());
        let text = request("GET", &page, &[("accept", "*/*")], None);
        assert_eq!(text.status, status);
        assert!(text.header("content-type").starts_with("text/plain"));
    }
    let found = request("GET", &service.account_page(&alice.handle), &[], None).text();
    for shown in [&*alice.handle, &*alice.did, &network.pds_url(0), &mediator] {
        assert!(found.contains(shown), "{shown} in {found}");
    }
}

#[test]
fn an_account_is_looked_up_by_keys_alone() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let alice = network.enrolled("alice", 0, json!({}));
    let keys = json!(["Tab", "Tab", "Tab", {"text": alice.handle}, "Enter", "Tab", "Enter", "Tab"]);
    let seen = visit(&service.url("/"), json!({"keys": keys}));
    seen.assert_clean(200);
    assert_eq!(
        seen.address(),
        format!("account?actor={}#content", alice.handle)
    );
    let focus = seen.focus();
    assert_eq!(
        focus[..3],
        ["a Skip to the content", "a atcomm", "input#actor"]
    );
    // A new page begins at its beginning, where a key leads past what all pages have.
    assert!(focus[4].starts_with("body "), "{focus:?}");
    assert_eq!(focus[5], "a Skip to the content");
    assert!(focus[6].starts_with("main#content "), "{focus:?}");
    assert_eq!(focus[7], "input#actor", "{focus:?}");
    assert!(seen.text().contains("Where its mail is kept"));
}

#[test]
fn what_the_network_says_is_text_and_runs_nothing() {
    let network = Network::multikey();
    let service = Setup::new(network).start();
    let (site, mediator) = network.site();
    let mut document = mediator_document(&mediator, &format!("{site}/didcomm"));
    document["service"][0]["serviceEndpoint"]["uri"] = json!(format!("{site}/{HOSTILE}"));
    let host = site.strip_prefix("http://").expect("a plain URL");
    let path = "/.well-known/did.json";
    network.op(
        "web.set",
        json!({"host": host, "path": path, "body": document}),
    );
    let mallory = network.enrolled(
        "mallory",
        0,
        json!({"label": HOSTILE, "mediators": [mediator]}),
    );
    let how = || json!({"width": 360});
    let seen = visit(&service.account_page(&mallory.handle), how());
    seen.assert_clean(200);
    let label = seen.text().contains(SHOWN);
    assert!(label, "{}", seen.text());
    assert!(!seen.text().contains('\u{202e}'));
    mallory.put(json!({"mediators": [format!("did:web:{HOSTILE}")]}));
    service.refresh(&mallory.did).expect("an outcome");
    let seen = visit(&service.account_page(&mallory.handle), how());
    seen.assert_clean(404);
    assert!(seen.text().contains("breaks a rule"), "{}", seen.text());
    let seen = visit(&service.account_page(HOSTILE), how());
    seen.assert_clean(400);
    assert!(seen.text().contains(SHOWN), "{}", seen.text());
    let seen = visit(&service.url("/"), how());
    seen.assert_clean(200);
}

#[test]
fn the_browser_tells_what_is_wrong_with_a_page() {
    let network = Network::multikey();
    let (site, _) = network.site();
    let host = site.strip_prefix("http://").expect("a plain URL");
    let body = "<!DOCTYPE html><title>x</title><div style=\"width: 3000px\">wide</div>\
                <img src=\"http://localhost:9/x.png\"><script>alert(1)</script>";
    network.op(
        "web.set",
        json!({"host": host, "path": "/bad", "contentType": "text/html", "body": body}),
    );
    let seen = visit(&format!("{site}/bad"), json!({"width": 360}));
    for (kind, what) in [
        ("faults", "image-alt"),
        ("noise", "dialog: 1"),
        ("asked", "http://localhost:9/x.png"),
        ("overflow", "the page"),
    ] {
        let told = seen.list(kind);
        assert!(
            told.iter().any(|text| text.starts_with(what)),
            "{kind}: {told:?}"
        );
    }
}
