use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::config::Config;
use crate::mediator::KeysError;

/// Returns a configuration without sources that listens on free ports.
fn config(data_dir: &Path) -> Config {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut config = Config {
        data_dir: data_dir.to_owned(),
        sources: Vec::new(),
        ..Config::default()
    };
    config.http.listen = any;
    config.metrics.listen = Some(any);
    config
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_server_serves_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(with_mediator(dir.path()), Clock::system())
        .await
        .unwrap();
    let (http, metrics) = (server.http_addr(), server.metrics_addr().unwrap());
    assert!(
        get(http, "/xrpc/_health")
            .await
            .contains(env!("CARGO_PKG_VERSION"))
    );
    assert!(!get(http, "/metrics").await.contains("atcomm_info"));
    let wanted = [
        "atcomm_info{version=",
        "atcomm_directory_entries 0",
        "atcomm_directory_pending 0",
        "atcomm_store_healthy 1",
        "process_resident_memory_bytes ",
        "atcomm_http_requests_total{method=\"_health\",status=\"200\"}",
        "atcomm_http_request_seconds_bucket{method=\"_health\",le=\"0.001\"}",
        "# HELP atcomm_mediator_queued_messages ",
        "atcomm_mediator_queued_messages 0",
        "atcomm_mediator_healthy 1",
    ];
    let begun = std::time::Instant::now();
    loop {
        let page = get(metrics, "/metrics").await;
        let missing: Vec<_> = wanted
            .iter()
            .filter(|line| !page.contains(**line))
            .collect();
        if missing.is_empty() {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{missing:?} in {page}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.shutdown();
    server.join().await.unwrap();
    assert!(TcpStream::connect(http).await.is_err());
    assert!(TcpStream::connect(metrics).await.is_err());
}

#[tokio::test]
async fn a_second_server_starts_only_beside_its_own_data() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Server::bind(config(dir.path()), Clock::system())
        .await
        .unwrap();
    let error = Server::bind(config(dir.path()), Clock::system())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ServerError::Locked(_)), "{error}");
    let second = Server::bind(config(other.path()), Clock::system())
        .await
        .unwrap();
    let mut taken = config(&other.path().join("third"));
    taken.http.listen = second.http_addr();
    let error = Server::bind(taken, Clock::system()).await.err().unwrap();
    assert!(matches!(error, ServerError::Http(_)), "{error}");
    for server in [first, second] {
        server.shutdown();
        server.join().await.unwrap();
    }
    // The directory is unlocked again, and its files are used.
    let again = Server::bind(config(dir.path()), Clock::system())
        .await
        .unwrap();
    again.stopper().cancel();
    again.join().await.unwrap();
}

#[tokio::test]
async fn wrong_settings_are_errors_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let mut twice = config(dir.path());
    let source = Config::default().sources.remove(0);
    twice.sources = vec![source.clone(), source];
    let mut port = config(dir.path());
    port.net.https_port = 8443;
    for wrong in [twice, port] {
        let error = Server::bind(wrong, Clock::system()).await.err().unwrap();
        assert!(error.is_configuration(), "{error}");
    }
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Server::bind(config(&file), Clock::system())
        .await
        .err()
        .unwrap();
    assert!(
        !error.is_configuration() && matches!(error, ServerError::DataDir { .. }),
        "{error}"
    );
    let damaged = dir.path().join("damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(
        damaged.join("directory.db"),
        "not a database, but longer than a header",
    )
    .unwrap();
    let error = Server::bind(config(&damaged), Clock::system())
        .await
        .err()
        .unwrap();
    assert!(matches!(error, ServerError::Store { .. }), "{error}");
}

#[tokio::test]
async fn a_task_that_ends_ends_the_service() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::bind(config(dir.path()), Clock::system())
        .await
        .unwrap();
    server.spawn("a test", std::future::ready(()));
    let error = server.join().await.unwrap_err();
    assert_eq!(error.to_string(), "a test ended unexpectedly");
}

/// Returns the same configuration with a mediator.
fn with_mediator(data_dir: &Path) -> Config {
    let mut config = config(data_dir);
    config.mediator.public_url = Some("https://mail.example.com".to_owned());
    config
}

async fn ended(server: Server) {
    server.shutdown();
    server.join().await.unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

async fn json(address: SocketAddr, path: &str) -> serde_json::Value {
    let answer = get(address, path).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn a_mediator_runs_if_it_has_an_address() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(with_mediator(dir.path()), Clock::system())
        .await
        .unwrap();
    let http = server.http_addr();
    let document = json(http, "/.well-known/did.json").await;
    assert_eq!(document["id"], "did:web:mail.example.com");
    let keys = &document["verificationMethod"];
    assert_eq!(keys[0]["id"], "did:web:mail.example.com#key-1");
    let invitation = json(http, "/invitation").await;
    assert!(
        get(http, "/")
            .await
            .contains("\ndid:web:mail.example.com\n")
    );
    // Keys, and the socket that replaces them, are accessible to the user of the service only.
    for file in [KEYS_FILE, "admin.sock"] {
        assert_eq!(mode(&dir.path().join(file)), 0o600, "{file}");
    }
    let second = Server::bind(with_mediator(dir.path()), Clock::system()).await;
    assert!(matches!(second.err(), Some(ServerError::Locked(_))));
    // The second server has not removed the socket of the first.
    let data_dir = dir.path().to_owned();
    let status = tokio::task::spawn_blocking(move || ask_mailbox_status(&data_dir));
    let status = status.await.unwrap().unwrap();
    assert_eq!(
        (status.did.as_str(), status.accounts, status.messages),
        ("did:web:mail.example.com", 0, 0)
    );
    ended(server).await;
    assert!(!dir.path().join("admin.sock").exists());
    // DIDs and keys survive a restart, also one that finds the socket of a crashed process.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("admin.sock")).unwrap());
    let again = Server::bind(with_mediator(dir.path()), Clock::system())
        .await
        .unwrap();
    let http = again.http_addr();
    assert_eq!(json(http, "/.well-known/did.json").await, document);
    assert_eq!(json(http, "/invitation").await, invitation);
    ended(again).await;
}

#[tokio::test]
async fn without_an_address_there_is_no_mediator() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(config(dir.path()), Clock::system())
        .await
        .unwrap();
    let answer = get(server.http_addr(), "/.well-known/did.json").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    for file in [KEYS_FILE, MAILBOX_FILE] {
        assert!(!dir.path().join(file).exists(), "{file}");
    }
    let data_dir = dir.path().to_owned();
    let rotated = tokio::task::spawn_blocking(move || rotate_keys(&data_dir));
    let refused = rotated.await.unwrap().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "this service is no mediator: mediator.public_url is not set"
    );
    assert!(matches!(refused, AdminError::Refused(_)), "{refused:?}");
    ended(server).await;
}

#[tokio::test]
async fn a_wrong_public_url_is_an_error_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in [
        "mail.example.com",
        "http://mail.example.com",
        "https://mail.example.com/didcomm",
        "https://192.0.2.1",
        "https://localhost",
    ] {
        let mut config = config(dir.path());
        config.mediator.public_url = Some(wrong.to_owned());
        let error = Server::bind(config, Clock::system()).await.err().unwrap();
        assert!(error.is_configuration(), "{wrong}: {error}");
        let message = error.to_string();
        assert!(message.starts_with("mediator.public_url: "), "{message}");
        assert!(
            matches!(error, ServerError::Mediator(MediatorError::Address(_))),
            "{error:?}"
        );
        assert!(!dir.path().join(KEYS_FILE).exists());
    }
}

#[tokio::test]
async fn mail_without_its_keys_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join(KEYS_FILE);
    let server = Server::bind(with_mediator(dir.path()), Clock::system())
        .await
        .unwrap();
    ended(server).await;
    let refused = async || {
        Server::bind(with_mediator(dir.path()), Clock::system())
            .await
            .err()
            .unwrap()
    };
    std::fs::set_permissions(&keys, Permissions::from_mode(0o640)).unwrap();
    let error = refused().await;
    assert!(
        matches!(
            error,
            ServerError::Mediator(MediatorError::Keys(KeysError::Exposed(_)))
        ),
        "{error:?}"
    );
    std::fs::rename(&keys, dir.path().join("moved")).unwrap();
    let error = refused().await;
    assert!(!error.is_configuration() && error.to_string().contains("are gone"));
    assert!(
        matches!(
            error,
            ServerError::Mediator(MediatorError::Keys(KeysError::Vanished(_)))
        ),
        "{error:?}"
    );
    // New keys would make the loss permanent.
    assert!(!keys.exists());
    // Without mail there is nothing to lose.
    std::fs::remove_file(dir.path().join(MAILBOX_FILE)).unwrap();
    let server = Server::bind(with_mediator(dir.path()), Clock::system())
        .await
        .unwrap();
    ended(server).await;
    assert_eq!(mode(&keys), 0o600);
}
