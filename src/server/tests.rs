use std::net::Ipv4Addr;
use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::config::Config;

/// A service that follows nothing and listens where there is room.
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
async fn it_serves_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(config(dir.path()), Clock::system())
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
    // The directory is free again, and what it holds is used.
    let again = Server::bind(config(dir.path()), Clock::system())
        .await
        .unwrap();
    again.stopper().cancel();
    again.join().await.unwrap();
}

#[tokio::test]
async fn settings_that_do_not_fit_are_the_operators_to_change() {
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
        !error.is_configuration() && error.hint().contains("data_dir"),
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
async fn a_part_that_ends_takes_the_rest_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::bind(config(dir.path()), Clock::system())
        .await
        .unwrap();
    server.start("a test", std::future::ready(()));
    let error = server.join().await.unwrap_err();
    assert_eq!(error.to_string(), "a test ended unexpectedly");
}
