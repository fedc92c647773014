//! Real Caddy and nginx in front of a real service, with the files of `deploy/`: messages, WebSockets,
//! the addresses of clients, and HTTPS.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{MediatorService, Person, Running};
use crate::http::{RUNTIME, eventually, within};
use crate::mail::free_port;
use crate::network::{Network, root};
use crate::proxy::Authority;
use crate::service::Setup;

/// Timeout of a start of a proxy on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests that one address may make in five minutes.
const LIMIT: u32 = 50;

/// Ports and names that a proxy is configured with.
struct Site {
    /// The name of the service.
    host: String,
    http: u16,
    https: u16,
    /// The port of the service itself.
    service: u16,
}

/// A running proxy. It is killed when it is dropped.
struct ProxyProcess {
    child: Child,
    dir: TempDir,
}

impl Drop for ProxyProcess {
    fn drop(&mut self) {
        // Workers of nginx end with their master where it ends in order.
        let id = self.child.id().to_string();
        drop(Command::new("kill").args(["-TERM", &id]).status());
        drop(self.child.wait());
    }
}

impl Site {
    fn new(host: &str) -> Self {
        let [http, https, service] = [(); 3].map(|()| free_port());
        let host = host.to_owned();
        Self {
            host,
            http,
            https,
            service,
        }
    }

    /// Returns a file of `deploy/` for this site.
    fn file(&self, name: &str) -> String {
        let text = std::fs::read_to_string(root().join("deploy").join(name)).expect("a file");
        let upstream = "127.0.0.1:2590";
        assert!(
            text.contains(upstream) && text.contains("mail.example.com"),
            "{text}"
        );
        text.replace(upstream, &format!("127.0.0.1:{}", self.service))
            .replace("mail.example.com", &self.host)
    }

    /// Starts the service, which others reach through the proxy only.
    #[track_caller]
    fn serve(&self, network: &'static Network, authority: &Path) -> MediatorService {
        network.op("dns.set", json!({"name": self.host, "a": "127.0.0.1"}));
        let url = format!("https://{}:{}", self.host, self.https);
        let service = Setup::beside(network)
            .streams_only()
            .set("http.listen", json!(format!("127.0.0.1:{}", self.service)))
            .set("http.rate_limit", json!(LIMIT))
            // The addresses of the people; the others below have none of this.
            .set("http.rate_limit_bypass", json!(["127.0.0.1"]))
            .set("mediator.public_url", json!(url))
            .set("http.check_public_url", json!(true))
            .set("net.extra_ca_file", json!(authority))
            .start();
        MediatorService {
            service: Some(service),
            did: format!("did:web:{}%3A{}", self.host, self.https),
            url,
        }
    }

    /// Sends a request through the proxy from an address of this machine. Returns status, headers and
    /// body.
    #[track_caller]
    fn ask(&self, from: &str, authority: &Path, request: Ask<'_>) -> Told {
        let authority = std::fs::read(authority).expect("a certificate");
        let authority = reqwest::Certificate::from_pem(&authority).expect("a certificate");
        let host = request.host.unwrap_or(&self.host);
        let proxy = ([127, 0, 0, 1], 0).into();
        RUNTIME.block_on(async {
            let client = reqwest::Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .local_address(from.parse::<std::net::IpAddr>().expect("an address"))
                .resolve(host, proxy)
                .tls_certs_merge([authority])
                .build()
                .expect("a client");
            let port = if request.scheme == "http" {
                self.http
            } else {
                self.https
            };
            let url = format!("{}://{host}:{port}{}", request.scheme, request.path);
            let mut sent = match request.body {
                Some(body) => client.post(url).body(body),
                None => client.get(url),
            };
            if let Some(claimed) = request.claimed {
                sent = sent.header("x-forwarded-for", claimed);
            }
            let answer = sent.send().await.expect("an answer");
            let header = |name: &str| {
                let value = answer.headers().get(name);
                value.map_or(String::new(), |value| {
                    value.to_str().expect("text").to_owned()
                })
            };
            Told {
                status: answer.status().as_u16(),
                remaining: header("ratelimit-remaining"),
                location: header("location"),
                body: answer.text().await.expect("a body"),
            }
        })
    }
}

/// A request; `claimed` is an `X-Forwarded-For` of the client's own.
#[derive(Default)]
struct Ask<'a> {
    scheme: &'a str,
    host: Option<&'a str>,
    path: &'a str,
    claimed: Option<&'a str>,
    body: Option<Vec<u8>>,
}

/// What came back.
#[derive(Debug)]
struct Told {
    status: u16,
    remaining: String,
    location: String,
    body: String,
}

fn get(path: &str) -> Ask<'_> {
    Ask {
        scheme: "https",
        path,
        ..Ask::default()
    }
}

/// Returns a person whose program trusts the authority.
fn person(network: &'static Network, prefix: &str, pds: usize, authority: &Path) -> Person {
    let person = Person::new(network, prefix, pds);
    let file = person.cli.path("config.toml");
    let config = std::fs::read_to_string(&file).expect("a file");
    let trusting = format!(
        "[net]\nextra_ca_file = {:?}\n",
        authority.display().to_string()
    );
    std::fs::write(file, config.replacen("[net]\n", &trusting, 1)).expect("a file");
    person
}

/// People enrol, write and read by way of the proxy, by request and by WebSocket.
#[track_caller]
fn assert_messages_pass(network: &'static Network, mediator: &MediatorService, authority: &Path) {
    // The service itself gets through: its document, a WebSocket, and the address of a client.
    mediator
        .service()
        .until_counted("atcomm_public_url_ok", &[], 1.0);
    let people = [("pa", 0), ("pb", 1)];
    let [alice, bob] = people.map(|(prefix, pds)| person(network, prefix, pds, authority));
    for one in [&alice, &bob] {
        one.enroll(&[&mediator.did]).success();
    }
    alice
        .cli
        .run(&["send", &bob.account.handle, "by request"])
        .success();
    let received = bob.cli.run(&["receive"]).success();
    assert!(received.stdout.contains("by request"), "{received:?}");
    assert!(received.stdout.contains("(verified)"), "{received:?}");
    // The client falls back on requests where no socket opens, so the socket itself is counted.
    let follow = bob.cli.command(&["receive", "--follow", "--limit", "1"]);
    let follow = Running::start(follow);
    mediator
        .service()
        .until_counted("atcomm_mediator_sockets", &[], 1.0);
    eventually("live mode is on", || {
        let pushed = [("how", "live")];
        alice
            .cli
            .run(&["send", &bob.account.handle, "by socket"])
            .success();
        let count = mediator
            .service()
            .metric("atcomm_mediator_handed_out_total", &pushed);
        (count >= 1.0).then_some(())
    });
    let received = follow.end().success();
    assert!(received.stdout.contains("by socket"), "{received:?}");
}

/// Each client has the limit of its own address, whatever address it claims.
#[track_caller]
fn assert_clients_are_told_apart(site: &Site, authority: &Path) {
    let path = "/xrpc/at.didcomm.directory.getStats";
    let remaining = |from: &str, claimed: Option<&str>| {
        let ask = Ask {
            claimed,
            ..get(path)
        };
        let told = site.ask(from, authority, ask);
        assert_eq!(told.status, 200, "{told:?}");
        told.remaining.parse::<u32>().expect("a number")
    };
    assert_eq!(remaining("127.0.0.2", None), LIMIT - 1);
    assert_eq!(remaining("127.0.0.3", Some("127.0.0.2")), LIMIT - 1);
    // An address that is trusted where it stands at the end of the list is claimed at its beginning.
    assert_eq!(
        remaining("127.0.0.4", Some("127.0.0.2, 127.0.0.1")),
        LIMIT - 1
    );
    let mut last = LIMIT;
    for _ in 0..10 {
        last = remaining("127.0.0.2", Some("198.51.100.7"));
    }
    assert!(
        last < LIMIT - 5,
        "{last} are left to an address that claims another"
    );
}

/// The document is there without a redirect, plain HTTP leads to HTTPS, and what is too long is refused
/// by the service, not by the proxy.
#[track_caller]
fn assert_https(site: &Site, mediator: &MediatorService, authority: &Path) {
    let told = site.ask("127.0.0.5", authority, get("/.well-known/did.json"));
    let document: Value = serde_json::from_str(&told.body).expect("a document");
    assert_eq!((told.status, &document["id"]), (200, &json!(mediator.did)));
    let plain = Ask {
        scheme: "http",
        ..get("/.well-known/did.json")
    };
    let told = site.ask("127.0.0.5", authority, plain);
    assert!([301, 308].contains(&told.status), "{told:?}");
    assert!(
        told.location.starts_with(&format!("https://{}", site.host)),
        "{told:?}"
    );
    for (length, status, name) in [
        (1 << 20, 400, "NotUnpackable"),
        ((1 << 20) + 1, 413, "MessageTooLarge"),
    ] {
        let post = Ask {
            body: Some(vec![b' '; length]),
            ..get("/didcomm")
        };
        let told = site.ask("127.0.0.5", authority, post);
        assert_eq!(told.status, status, "{told:?}");
        assert!(told.body.contains(name), "{told:?}");
    }
}

/// The settings in the file for compose are settings of this program.
#[test]
fn the_service_starts_as_compose_starts_it() {
    let dir = TempDir::new().expect("a temporary directory");
    let text = std::fs::read_to_string(root().join("deploy/compose/atcomm.yaml")).expect("a file");
    let settings: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(name, _)| name.starts_with("ATCOMM_"))
        .collect();
    assert!(settings.len() > 5, "{settings:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_atcomm"))
        .args(["server", "config", "show"])
        .env_clear()
        .envs(settings.iter().copied())
        .current_dir(dir.path())
        .output()
        .expect("the program");
    let [shown, failed] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{failed}");
    for (name, value) in settings {
        assert!(shown.contains(value), "{name} is not in {shown}");
    }
}

/// Starts Caddy as the official PDS configures it, with our block behind that.
#[track_caller]
fn caddy(network: &Network, site: &Site, wildcard: &str) -> ProxyProcess {
    let dir = TempDir::new().expect("a temporary directory");
    let (web, _) = network.site();
    let allowed = json!({
        "host": web.trim_start_matches("http://"),
        "path": "/tls-check",
        "body": {"success": true},
    });
    network.op("web.set", allowed);
    let config = format!(
        "{{\n\tadmin off\n\tlocal_certs\n\tskip_install_trust\n\tdefault_bind 127.0.0.1\n\
         \thttp_port {}\n\thttps_port {}\n\
         \ton_demand_tls {{\n\t\task {web}/tls-check\n\t}}\n}}\n\
         *.{wildcard}, {wildcard} {{\n\ttls {{\n\t\ton_demand\n\t}}\n\treverse_proxy {}\n}}\n{}",
        site.http,
        site.https,
        network.pds_url(0),
        site.file("caddy/Caddyfile"),
    );
    std::fs::write(dir.path().join("Caddyfile"), config).expect("a file");
    let child = Command::new("caddy")
        .args(["run", "--adapter", "caddyfile", "--config"])
        .arg(dir.path().join("Caddyfile"))
        .env("HOME", dir.path())
        .env("XDG_DATA_HOME", dir.path())
        .env("XDG_CONFIG_HOME", dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.path().join("log")).expect("a file"))
        .spawn()
        .expect("caddy (Debian: apt-get install caddy)");
    let caddy = ProxyProcess { child, dir };
    until_listening(&caddy, site);
    caddy
}

/// Waits until a proxy takes connections.
#[track_caller]
fn until_listening(proxy: &ProxyProcess, site: &Site) {
    let log = || std::fs::read_to_string(proxy.dir.path().join("log")).unwrap_or_default();
    let begun = std::time::Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", site.https)).is_err() {
        assert!(
            begun.elapsed() < START_TIMEOUT,
            "it does not start: {}",
            log()
        );
        std::thread::sleep(Duration::from_millis(25));
    }
}

#[test]
fn behind_the_caddy_of_a_pds() {
    let network = Network::multikey();
    let site = Site::new("mail.caddy.test");
    let caddy = caddy(network, &site, "caddy.test");
    let authority = caddy
        .dir
        .path()
        .join("caddy/pki/authorities/local/root.crt");
    within(START_TIMEOUT, "the authority of Caddy", || {
        authority.exists().then_some(())
    });
    let mediator = site.serve(network, &authority);
    assert_messages_pass(network, &mediator, &authority);
    assert_clients_are_told_apart(&site, &authority);
    assert_https(&site, &mediator, &authority);
    // The wildcard site of the PDS has every other name.
    let health = Ask {
        host: Some("alice.caddy.test"),
        ..get("/xrpc/_health")
    };
    let told = site.ask("127.0.0.6", &authority, health);
    assert_eq!(told.status, 200, "{told:?}");
    assert!(!told.body.contains(env!("CARGO_PKG_VERSION")), "{told:?}");
}

/// A name that users cannot take from the service, since the PDS keeps it for itself.
#[test]
fn the_pds_gives_no_account_the_handle_of_the_service() {
    let network = Network::multikey();
    let url = format!(
        "{}/xrpc/com.atproto.server.createAccount",
        network.pds_url(0)
    );
    let create = |handle: &str| {
        let body =
            json!({"handle": handle, "email": "x@example.com", "password": "a long password"});
        let headers = [("content-type", "application/json")];
        crate::http::request("POST", &url, &headers, Some(body.to_string().into_bytes()))
    };
    let refused = create("mail.pds0.test");
    assert_eq!(
        (refused.status, &refused.json()["error"]),
        (400, &json!("HandleNotAvailable"))
    );
}

#[test]
fn behind_nginx() {
    let network = Network::multikey();
    let site = Site::new("mail.nginx.test");
    let authority = Authority::new();
    let dir = TempDir::new().expect("a temporary directory");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (certificate, key) = authority.certificate(&[&site.host]);
    std::fs::write(at("fullchain.pem"), certificate).expect("a file");
    std::fs::write(at("privkey.pem"), key).expect("a file");
    let live = format!("/etc/letsencrypt/live/{}", site.host);
    let server = site
        .file("nginx/atcomm.conf")
        .replace(&live, &dir.path().display().to_string())
        .replace("listen 80;", &format!("listen 127.0.0.1:{};", site.http))
        .replace(
            "listen 443 ssl;",
            &format!("listen 127.0.0.1:{} ssl;", site.https),
        );
    let folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders = folders.map(|kind| format!("{kind}_temp_path {};\n", at(kind)));
    let config = format!(
        "user root;\nworker_processes 2;\npid {};\nerror_log stderr;\nevents {{}}\n\
         http {{\naccess_log off;\n{}\n{server}\n}}\n",
        at("pid"),
        folders.concat(),
    );
    std::fs::write(at("nginx.conf"), config).expect("a file");
    // Not on the path of users other than root.
    let path = std::env::var("PATH").unwrap_or_default();
    let child = Command::new("nginx")
        .args(["-p", &at(""), "-c", &at("nginx.conf"), "-g", "daemon off;"])
        .env("PATH", format!("{path}:/usr/sbin"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(at("log")).expect("a file"))
        .spawn()
        .expect("nginx (Debian: apt-get install nginx-light)");
    let nginx = ProxyProcess { child, dir };
    until_listening(&nginx, &site);
    let mediator = site.serve(network, &authority.file());
    assert_messages_pass(network, &mediator, &authority.file());
    assert_clients_are_told_apart(&site, &authority.file());
    assert_https(&site, &mediator, &authority.file());
}
