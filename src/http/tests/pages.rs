use super::UNKNOWN;
use super::harness::{Answer, HANDLE, TestServer};

/// Asks for a page as browsers do.
async fn browse(server: &TestServer, target: &str) -> Answer {
    let accept = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    server.get_with(target, &[accept]).await
}

/// Returns the page. Fails the test where it lacks what every page has, or loads anything but the
/// style sheet.
fn html(answer: &Answer) -> String {
    let headers = &answer.headers;
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert!(headers["content-security-policy"].starts_with("default-src 'none'; style-src 'self'"));
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let html = String::from_utf8(answer.body.clone()).unwrap();
    assert!(
        html.starts_with("<!DOCTYPE html><html lang=\"en\">"),
        "{html}"
    );
    for loads in ["<script", "<img", "<iframe", " style=", " onclick=", "src="] {
        assert!(!html.contains(loads), "{loads} in {html}");
    }
    assert_eq!(html.matches("<link ").count(), 1, "{html}");
    html
}

#[tokio::test]
async fn browsers_get_pages_and_programs_text() {
    let server = TestServer::new().await;
    let page = browse(&server, "/").await;
    assert_eq!(
        (page.status, page.headers["vary"].as_str()),
        (200, "accept")
    );
    let page = html(&page);
    for shown in [
        "action=\"/account\"",
        "<strong>1</strong> account can be written to",
        "pds.example.com</bdi></code>",
        "<h3 id=\"mediators-name\">Mediators</h3>",
        "The series has just begun.",
        "From nowhere by itself",
    ] {
        assert!(page.contains(shown), "{shown} in {page}");
    }
    let text = server.get("/").await;
    assert!(text.headers["content-type"].starts_with("text/plain"));
    assert_eq!(text.headers["vary"], "accept");
    let text = String::from_utf8(text.body).unwrap();
    assert!(
        text.contains("accounts that can be written to: 1; their servers: 1; their mediators: 1\n"),
        "{text}"
    );
    for wrong in ["/?days=30", "/?days=", "/?days=90&days=90"] {
        let page = browse(&server, wrong).await;
        assert_eq!(page.status, 400, "{wrong}");
        let page = html(&page);
        assert!(page.contains("href=\"/?days=365\""), "{page}");
    }

    let (_, rest) = page.split_once("href=\"/style.css").unwrap();
    let (version, _) = rest.split_once('"').unwrap();
    let style = server.get(&format!("/style.css{version}")).await;
    assert_eq!(style.headers["content-type"], "text/css; charset=utf-8");
    let robots = server.get("/robots.txt").await;
    let robots = String::from_utf8(robots.body).unwrap();
    assert!(robots.contains("Disallow: /account\n"), "{robots}");
}

#[tokio::test]
async fn a_page_shows_each_step_from_a_name_to_its_mail() {
    let server = TestServer::new().await;
    for typed in [
        HANDLE,
        &server.did,
        "%40Alice.Example.com%20",
        "https%3A%2F%2Fbsky.app%2Fprofile%2Falice.example.com",
    ] {
        let page = browse(&server, &format!("/account?actor={typed}")).await;
        assert_eq!(page.status, 200, "{typed}");
        assert_eq!(page.headers["cache-control"], "no-store");
        let page = html(&page);
        for shown in [
            "<h1><bdi>alice.example.com</bdi></h1>",
            &format!("<code>{}</code>", server.did),
            "<code>https://pds.example.com</code>",
            "/at.didcomm.keyPackage/self</code>",
            "<code>did:peer:2.",
            "<code>did:web:",
            "atcomm resolve alice.example.com --directly",
            "<dt>Checked</dt><dd><time datetime=\"2026-12-31T23:59:00.000Z\">2026-12-31 23:59 UTC</time>",
        ] {
            assert!(page.contains(shown), "{shown} in {page}");
        }
    }
}

#[tokio::test]
async fn programs_get_the_steps_and_problems_as_text() {
    let server = TestServer::new().await;
    let found = server.get(&format!("/account?actor={HANDLE}")).await;
    assert_eq!(
        (found.status, found.headers["vary"].as_str()),
        (200, "accept")
    );
    assert!(found.headers["content-type"].starts_with("text/plain"));
    let found = String::from_utf8(found.body).unwrap();
    for shown in [
        "alice.example.com has a proven key",
        "name         alice.example.com  (checked 2026-12-31T23:59:00.000Z)\n",
        "PDS          https://pds.example.com  (checked 2026-12-31T23:59:00.000Z)\n",
        &format!("at://{}/at.didcomm.keyPackage/self  (checked ", server.did),
        "did:peer     did:peer:2.",
        "mediator     did:web:",
    ] {
        assert!(found.contains(shown), "{shown} in {found}");
    }
    let wrong = server.get("/account?actor=%1B%5B31mred%3Cb%3E").await;
    assert_eq!(
        (wrong.status, wrong.headers["cache-control"].as_str()),
        (400, "no-store")
    );
    let wrong = String::from_utf8(wrong.body).unwrap();
    assert!(
        wrong.starts_with("This names no account\n\u{fffd}[31mred<b>\n"),
        "{wrong}"
    );
}

#[tokio::test]
async fn what_is_typed_wrongly_or_not_found_is_said_in_words() {
    let server = TestServer::new().await;
    for (target, status, words) in [
        ("/account", 400, "This names no account"),
        ("/account?actor=", 400, "This names no account"),
        ("/account?actor=no", 400, "This names no account"),
        ("/account?actor=a.b&actor=c.d", 400, "This names no account"),
        (
            "/account?actor=%3Cscript%3Ealert(1)%3C/script%3E",
            400,
            "&lt;script&gt;alert(1)&lt;/script&gt;",
        ),
        (
            "/account?actor=%22%20autofocus%20onfocus=%22x",
            400,
            "value=\"&quot; autofocus onfocus=&quot;x\"",
        ),
        (
            &format!("/account?actor={UNKNOWN}"),
            502,
            "The account&#39;s servers do not answer",
        ),
    ] {
        let page = browse(&server, target).await;
        assert_eq!(page.status, status, "{target}");
        let page = html(&page).replace('\'', "&#39;");
        assert!(page.contains(words), "{words} in {page}");
        assert!(page.contains("action=\"/account\""), "{page}");
    }
}
