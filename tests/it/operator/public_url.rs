//! The public address as others see it, behind a proxy with TLS that does well, or not.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{atcomm, config};
use crate::http::{RUNTIME, eventually};
use crate::mail::free_port;
use crate::proxy::{Authority, Proxy};
use crate::service::{Service, Setup};

/// What a proxy does to requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxying {
    /// Appends the client to `X-Forwarded-For`.
    Well,
    PassesHeaderOn,
    DropsHeader,
    DropsUpgrade,
    HidesDocument,
}

/// Changes the head of a request.
fn proxied(head: Vec<u8>, way: Proxying) -> Vec<u8> {
    const CLAIMED: &str = "x-forwarded-for: 192.0.2.1\r\n";
    let Ok(text) = String::from_utf8(head.clone()) else {
        return head;
    };
    if !text.starts_with("GET ") {
        return head;
    }
    let own = "x-forwarded-for: 127.0.0.1\r\n";
    let added = |text: &str| text.replacen("\r\n", &format!("\r\n{own}"), 1);
    let changed = match way {
        // After those of the client, if there are any.
        Proxying::Well if text.contains(CLAIMED) => {
            text.replace(CLAIMED, "x-forwarded-for: 192.0.2.1, 127.0.0.1\r\n")
        }
        Proxying::Well => added(&text),
        Proxying::PassesHeaderOn => text,
        Proxying::DropsHeader => text.replace(CLAIMED, ""),
        Proxying::DropsUpgrade => added(&text)
            .replace(CLAIMED, "")
            .replace("Upgrade: websocket\r\n", "")
            .replace("Connection: Upgrade\r\n", ""),
        Proxying::HidesDocument => text.replace("/.well-known/did.json", "/elsewhere"),
    };
    changed.into_bytes()
}

/// A mediator behind a proxy with TLS.
struct Proxied {
    service: Service,
    way: Arc<Mutex<Proxying>>,
    _authority: Authority,
}

impl Proxied {
    fn start(change: impl FnOnce(Setup) -> Setup) -> Self {
        let (port, authority) = (free_port(), Authority::new());
        let way = Arc::new(Mutex::new(Proxying::Well));
        let chosen = Arc::clone(&way);
        let to = format!("http://127.0.0.1:{port}");
        let proxy = Proxy::tls_with(&to, &authority, move |head| {
            Some(proxied(head, *chosen.lock().expect("a way")))
        });
        let setup = Setup::offline()
            .set("http.listen", json!(format!("127.0.0.1:{port}")))
            .set("http.check_public_url", json!(true))
            .set("mediator.public_url", json!(proxy.url("https")))
            .set("net.extra_ca_file", json!(authority.file()));
        Self {
            service: change(setup).start(),
            way,
            _authority: authority,
        }
    }

    fn proxies(&self, way: Proxying) {
        *self.way.lock().expect("a way") = way;
    }

    /// Waits until the doctor says so of a check.
    #[track_caller]
    fn until(&self, check: &str, ok: bool, word: &str) -> Value {
        eventually(&format!("{check}: {word}"), || {
            let found = finding(&self.service, check)?;
            let is_it =
                found["ok"] == ok && found["detail"].as_str().is_some_and(|it| it.contains(word));
            is_it.then_some(found)
        })
    }
}

/// Asks the doctor, which checks the address anew, for one check.
fn finding(service: &Service, check: &str) -> Option<Value> {
    let told = atcomm(
        &["server", "doctor", "--json"],
        &config(&service.data_dir()),
    );
    let checks = told.json()["checks"].as_array()?.clone();
    checks.into_iter().find(|one| one["check"] == check)
}

#[test]
fn a_service_sees_how_others_reach_it() {
    let proxied = Proxied::start(|setup| setup);
    // At the start, without being asked.
    proxied
        .service
        .until_counted("atcomm_public_url_ok", &[], 1.0);
    assert!(proxied.service.log().contains("the public address works"));
    let told = atcomm(
        &["server", "status", "--json"],
        &config(&proxied.service.data_dir()),
    );
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    let public = &told.json()["publicUrl"];
    assert_eq!(public["ok"], true, "{public}");
    let checks: Vec<&Value> = public["findings"]
        .as_array()
        .expect("findings")
        .iter()
        .map(|one| &one["check"])
        .collect();
    assert_eq!(checks, ["certificate", "did.json", "websocket", "proxy"]);

    for (way, check, word) in [
        (Proxying::DropsHeader, "proxy", "sends no X-Forwarded-For"),
        (Proxying::PassesHeaderOn, "proxy", "of clients on as it is"),
        (Proxying::DropsUpgrade, "websocket", "does not open"),
        (Proxying::HidesDocument, "did.json", "answers 404"),
    ] {
        proxied.proxies(way);
        let found = proxied.until(check, false, word);
        assert!(found["hint"].is_string(), "{found}");
        assert_eq!(proxied.service.metric("atcomm_public_url_ok", &[]), 0.0);
    }
    proxied.proxies(Proxying::Well);
    proxied.until("proxy", true, "arrives");
    assert_eq!(proxied.service.metric("atcomm_public_url_ok", &[]), 1.0);
}

#[test]
fn a_proxy_that_is_not_trusted_is_named() {
    let proxied = Proxied::start(|setup| setup.set("http.trusted_proxies", json!([])));
    let found = proxied.until("proxy", false, "trusted_proxies does not name");
    assert!(
        found["detail"]
            .as_str()
            .is_some_and(|it| it.contains("127.0.0.1"))
    );
    // The log warns by itself, with what to do.
    let log = proxied.service.log();
    let warning = log.lines().find(|line| line.contains("does not work"));
    assert!(warning.is_some_and(|line| line.contains("hint=")), "{log}");
}

#[test]
fn a_certificate_that_others_refuse_is_seen() {
    let other = Authority::new();
    let proxied = Proxied::start(|setup| setup.set("net.extra_ca_file", json!(other.file())));
    proxied.until("certificate", false, "TLS failed");
}

/// Answers every request with the same bytes.
pub(super) fn fixed(answer: String) -> u16 {
    let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0"));
    let listener = listener.expect("a port");
    let port = listener.local_addr().expect("a port").port();
    RUNTIME.spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut head = vec![0; 16 << 10];
                drop(client.read(&mut head).await);
                drop(client.write_all(answer.as_bytes()).await);
                drop(client.shutdown().await);
            });
        }
    });
    port
}

/// A service whose public address leads to a server with a fixed answer.
fn elsewhere(answer: impl FnOnce(u16) -> String) -> Service {
    let port = fixed(answer(free_port()));
    Setup::offline()
        .set("http.check_public_url", json!(true))
        .set(
            "mediator.public_url",
            json!(format!("http://localhost:{port}")),
        )
        .start()
}

#[test]
fn an_address_that_leads_elsewhere_is_seen() {
    let with_body = |body: String| {
        let len = body.len();
        format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n{body}")
    };
    let redirects = "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://example.com/\r\n\
                     content-length: 0\r\nconnection: close\r\n\r\n";
    let long = "x".repeat(100_000);
    for (answer, word) in [
        (redirects.to_owned(), "redirects (308)"),
        (with_body("{}".to_owned()), "not the one of this service"),
        (
            with_body("<html>".to_owned()),
            "not the one of this service",
        ),
        (
            with_body(json!({"id": "did:web:other.example"}).to_string()),
            "not the one",
        ),
        (with_body(long), "longer than"),
    ] {
        let service = elsewhere(|_| answer);
        let found = finding(&service, "did.json").expect("a finding");
        assert_eq!(found["ok"], false, "{found}");
        let detail = found["detail"].as_str().expect("a text");
        assert!(detail.contains(word), "{found}");
        assert_eq!(service.metric("atcomm_public_url_ok", &[]), 0.0);
    }
    let dead = Setup::offline()
        .set("http.check_public_url", json!(true))
        .set(
            "mediator.public_url",
            json!(format!("http://localhost:{}", free_port())),
        )
        .start();
    let found = finding(&dead, "did.json").expect("a finding");
    assert!(
        found["detail"]
            .as_str()
            .is_some_and(|it| it.contains("cannot be reached"))
    );
    let unknown = Setup::offline()
        .set("http.check_public_url", json!(true))
        .set("mediator.public_url", json!("https://mail.nowhere.test"))
        .start();
    // The name server of the test answers nothing.
    let found = finding(&unknown, "did.json").or_else(|| finding(&unknown, "dns"));
    assert_eq!(found.expect("a finding")["ok"], false);
}

/// Another service with the same name has other keys.
#[test]
fn another_services_keys_are_noticed() {
    let (port, public) = (free_port(), free_port());
    let url = format!("http://localhost:{public}");
    let other = Setup::offline()
        .set("http.listen", json!(format!("127.0.0.1:{public}")))
        .set("mediator.public_url", json!(url))
        .start();
    let service = Setup::offline()
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set("http.check_public_url", json!(true))
        .set("mediator.public_url", json!(url))
        .start();
    let found = finding(&service, "did.json").expect("a finding");
    assert_eq!(found["detail"], "it has other keys than this service");
    drop(other);
}
