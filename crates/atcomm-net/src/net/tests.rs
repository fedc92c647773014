use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request as AxumRequest;
use axum::http::{StatusCode as Status, header};
use axum::response::IntoResponse as _;
use axum::routing::{any, get};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::testing::{
    Answer, Authority, NameServer, bind, development, local, serve, serve_raw, url,
};
use atcomm_proto::clock::{Clock, Timestamp};

mod limits;
mod sockets;

fn refused<T>(result: Result<T, NetError>) -> Refusal {
    match result.err() {
        Some(NetError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// Reads all input and never answers.
async fn hang(mut stream: tokio::net::TcpStream) {
    let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

fn hello() -> Router {
    Router::new().route("/", any(async || "hello"))
}

#[tokio::test]
async fn a_get_returns_the_resource_and_names_the_program() {
    let port = serve(Router::new().route(
        "/",
        get(async |request: AxumRequest| {
            let agent = request.headers()[header::USER_AGENT].clone();
            (
                [(header::ETAG, "\"x\"")],
                agent.to_str().unwrap().to_owned(),
            )
        }),
    ))
    .await;
    let net = bind(NetSettings {
        contact: Some("mailto:ops@example.com".to_owned()),
        ..development()
    });
    let answer = net.get(&local(port, "/")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.etag(), Some("\"x\""));
    assert!(answer.content_type().unwrap().starts_with("text/plain"));
    let agent = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(agent.starts_with("atcomm/") && agent.ends_with("(+mailto:ops@example.com)"));
    let answer = net.get(&local(port, "/nothing")).await.unwrap();
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn posts_a_body() {
    let port = serve(Router::new().route(
        "/",
        axum::routing::post(async |request: AxumRequest| {
            let kind = request.headers()[header::CONTENT_TYPE].clone();
            let body = axum::body::to_bytes(request.into_body(), 100)
                .await
                .unwrap();
            format!("{} {}", kind.to_str().unwrap(), body.len())
        }),
    ))
    .await;
    let answer = bind(development())
        .post(
            &local(port, "/"),
            "application/didcomm-encrypted+json",
            Bytes::from_static(b"{}"),
        )
        .await
        .unwrap();
    assert_eq!(&*answer.body, b"application/didcomm-encrypted+json 2");
}

#[tokio::test]
async fn inv6_loopback_needs_development_or_a_configured_address() {
    let port = serve(hello()).await;
    let public = bind(NetSettings::default());
    assert_eq!(
        refused(public.get(&local(port, "/")).await),
        Refusal::Scheme
    );
    let named = Request {
        trust: Trust::Configured,
        ..local(port, "/")
    };
    assert_eq!(&*public.get(&named).await.unwrap().body, b"hello");
    let literal = Request::new(
        url(&format!("http://127.0.0.1:{port}/")),
        Trust::Configured,
        10,
    );
    assert_eq!(public.get(&literal).await.unwrap().status, 200);
}

/// A public name that resolves to a private address is refused when the connection is made.
#[tokio::test]
async fn inv6_names_of_private_addresses_are_refused() {
    let dns = NameServer::start().await;
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        ..development()
    });
    for ip in [
        "169.254.169.254",
        "10.0.0.1",
        "192.168.1.1",
        "0.0.0.0",
        "::ffff:169.254.169.254",
        "fd00::1",
    ] {
        dns.set_address("metadata.test", ip);
        let request = Request::new(url("http://metadata.test/latest"), Trust::Untrusted, 100);
        assert_eq!(refused(net.get(&request).await), Refusal::Address, "{ip}");
        let ws = net
            .connect_ws(
                &url("ws://metadata.test/"),
                Trust::Untrusted,
                &WsOptions::default(),
            )
            .await;
        assert_eq!(refused(ws), Refusal::Address, "{ip}");
    }
    let public = bind(NetSettings {
        name_server: Some(dns.address),
        ..NetSettings::default()
    });
    dns.set_address("inside.example.com", "127.0.0.1");
    let request = Request::new(url("https://inside.example.com/"), Trust::Untrusted, 100);
    assert_eq!(refused(public.get(&request).await), Refusal::Address);
}

/// The address that was checked is the address that is dialled: one look-up for each connection,
/// and a name with a new address is checked again.
#[tokio::test]
async fn inv6_rebinding_gains_nothing() {
    let dns = NameServer::start().await;
    dns.set_address("rebind.test", "127.0.0.1");
    let closing = Router::new().route("/", get(async || ([(header::CONNECTION, "close")], "hi")));
    let port = serve(closing).await;
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        ..development()
    });
    let request = Request::new(
        url(&format!("http://rebind.test:{port}/")),
        Trust::Untrusted,
        100,
    );
    assert_eq!(net.get(&request).await.unwrap().status, 200);
    assert_eq!(dns.asked("rebind.test"), 1);
    dns.set_address("rebind.test", "169.254.169.254");
    assert_eq!(refused(net.get(&request).await), Refusal::Address);
    assert_eq!(dns.asked("rebind.test"), 2);
    // Of several addresses only the allowed ones are tried.
    dns.set(
        "rebind.test",
        Answer::Addresses(vec![
            "169.254.169.254".parse().unwrap(),
            "127.0.0.1".parse().unwrap(),
        ]),
    );
    assert_eq!(net.get(&request).await.unwrap().status, 200);
}

#[tokio::test]
async fn names_that_do_not_exist_are_distinguished_from_servers_that_fail() {
    let dns = NameServer::start().await;
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        ..development()
    });
    let ask = async |name: &str| {
        let request = Request::new(url(&format!("http://{name}:9999/")), Trust::Untrusted, 100);
        net.get(&request).await.unwrap_err()
    };
    assert_eq!(ask("absent.test").await, NetError::NoSuchHost);
    dns.set("broken.test", Answer::Code(2));
    assert_eq!(ask("broken.test").await, NetError::Connect);
    dns.set("half.test", Answer::CodeForA(2));
    assert_eq!(ask("half.test").await, NetError::Connect);
    dns.set("empty.test", Answer::Addresses(vec![]));
    assert_eq!(ask("empty.test").await, NetError::NoSuchHost);
    dns.set_address("closed.test", "127.0.0.1");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let request = Request::new(
        url(&format!("http://closed.test:{port}/")),
        Trust::Untrusted,
        1,
    );
    assert_eq!(net.get(&request).await.unwrap_err(), NetError::Connect);
}

#[tokio::test]
async fn redirects_are_off_counted_and_checked_again() {
    let dns = NameServer::start().await;
    dns.set_address("meta.test", "169.254.169.254");
    let to = |target: String| {
        get(async move || (Status::FOUND, [(header::LOCATION, target)]).into_response())
    };
    let port = serve(
        hello()
            .route("/once", to("/".to_owned()))
            .route("/loop", to("/loop".to_owned()))
            .route("/inside", to("http://169.254.169.254/latest".to_owned()))
            .route("/named", to("http://meta.test/latest".to_owned()))
            .route("/file", to("file:///etc/passwd".to_owned())),
    )
    .await;
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        ..development()
    });
    let ask = async |path: &str, trust: Trust, redirects: u8| {
        let request = Request {
            redirects,
            trust,
            ..local(port, path)
        };
        net.get(&request).await
    };
    assert_eq!(ask("/once", Trust::Untrusted, 0).await.unwrap().status, 302);
    assert_eq!(ask("/once", Trust::Untrusted, 1).await.unwrap().status, 200);
    assert!(matches!(
        ask("/loop", Trust::Untrusted, 3).await,
        Err(NetError::Protocol(_))
    ));
    for trust in [Trust::Untrusted, Trust::Configured] {
        for (path, refusal) in [
            ("/inside", Refusal::AddressLiteral),
            ("/named", Refusal::Address),
            ("/file", Refusal::Scheme),
        ] {
            assert_eq!(refused(ask(path, trust, 3).await), refusal, "{path}");
        }
    }
}

#[tokio::test]
async fn inv7_bodies_are_capped_while_they_arrive() {
    let port = serve(
        Router::new()
            .route("/exact", get(async || vec![0_u8; 65_536]))
            .route("/over", get(async || vec![0_u8; 65_537])),
    )
    .await;
    let net = bind(development());
    let answer = net.get(&local(port, "/exact")).await.unwrap();
    assert_eq!(answer.body.len(), 65_536);
    let over = net.get(&local(port, "/over")).await.unwrap_err();
    assert_eq!(over, NetError::TooLarge { cap: 65_536 });
    // A body without a length and without an end.
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let endless = serve_raw(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(&[b'x'; 8192]).await.is_ok() {
                count.fetch_add(8192, Ordering::Relaxed);
            }
        }
    })
    .await;
    let over = net.get(&local(endless, "/")).await.unwrap_err();
    assert_eq!(over, NetError::TooLarge { cap: 65_536 });
    assert!(sent.load(Ordering::Relaxed) < 64 << 20);
}

#[tokio::test]
async fn inv7_the_cap_counts_decompressed_bytes() {
    let squeeze = |len: usize| {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        let zeroes = vec![0; 1 << 20];
        for _ in 0..len >> 20 {
            gz.write_all(&zeroes).unwrap();
        }
        gz.write_all(&zeroes[..len % (1 << 20)]).unwrap();
        gz.finish().unwrap()
    };
    let bomb = squeeze(64 << 20);
    assert!(bomb.len() < 70_000);
    let small = squeeze(60_000);
    let packed =
        |bytes: Vec<u8>| get(async move || ([(header::CONTENT_ENCODING, "gzip")], bytes.clone()));
    let port = serve(
        Router::new()
            .route("/bomb", packed(bomb))
            .route("/small", packed(small))
            .route("/broken", packed(b"not gzip at all".to_vec())),
    )
    .await;
    let net = bind(development());
    let answer = net.get(&local(port, "/small")).await.unwrap();
    assert_eq!(answer.body.len(), 60_000);
    let started = Instant::now();
    let over = net.get(&local(port, "/bomb")).await.unwrap_err();
    assert_eq!(over, NetError::TooLarge { cap: 65_536 });
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(matches!(
        net.get(&local(port, "/broken")).await,
        Err(NetError::Protocol(_))
    ));
}

#[tokio::test]
async fn a_body_that_drips_ends_at_the_time_limit() {
    let port = serve_raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        let _ = stream.write_all(head).await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let started = Instant::now();
    let request = Request {
        timeout: Some(Duration::from_millis(300)),
        ..local(port, "/")
    };
    let net = bind(development());
    assert_eq!(net.get(&request).await.unwrap_err(), NetError::Timeout);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn inv8_answers_that_are_not_http_are_errors() {
    for garbage in [
        &b""[..],
        b"\0\0\0\0",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 999999 Odd\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\nContent-Length: nine\r\n\r\n",
    ] {
        let port = serve_raw(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(garbage).await;
        })
        .await;
        let answer = bind(development()).get(&local(port, "/")).await;
        assert!(answer.is_err(), "{garbage:?} gave {answer:?}");
    }
}

#[tokio::test]
async fn retry_after_closes_the_host_for_every_caller() {
    let hits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&hits);
    let port = serve(Router::new().route(
        "/",
        get(async move || {
            count.fetch_add(1, Ordering::Relaxed);
            (Status::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "30")])
        }),
    ))
    .await;
    let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
    let net = Net::bind(development(), clock.clone()).unwrap();
    for trust in [Trust::Untrusted, Trust::Configured] {
        hits.store(0, Ordering::Relaxed);
        let request = Request {
            trust,
            ..local(port, "/")
        };
        let answer = net.get(&request).await.unwrap();
        assert_eq!(answer.retry_after, Some(Duration::from_secs(30)));
        clock.advance(Duration::from_secs(10));
        let busy = net.clone().get(&request).await.unwrap_err();
        assert_eq!(busy.retry_after(), Some(Duration::from_secs(20)));
        assert_eq!(hits.load(Ordering::Relaxed), 1);
        clock.advance(Duration::from_secs(20));
        net.get(&request).await.unwrap();
        assert_eq!(hits.load(Ordering::Relaxed), 2);
    }
}

/// Hosts that never answer take only their own slots.
#[tokio::test]
async fn a_hanging_host_does_not_starve_others() {
    let dns = NameServer::start().await;
    dns.set_address("hang.test", "127.0.0.1");
    dns.set_address("fine.test", "127.0.0.1");
    let hanging_port = serve_raw(hang).await;
    let fine = serve(hello()).await;
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        host_concurrency: 2,
        in_flight: 4,
        busy_wait: Duration::from_millis(50),
        ..development()
    });
    let ask = |host: &str, port: u16, trust: Trust| {
        let request = Request::new(url(&format!("http://{host}:{port}/")), trust, 100);
        let net = net.clone();
        async move { net.get(&request).await }
    };
    let mut hanging = Vec::new();
    for _ in 0..10 {
        hanging.push(tokio::spawn(ask(
            "hang.test",
            hanging_port,
            Trust::Untrusted,
        )));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let busy = hanging.iter().filter(|h| h.is_finished()).count();
    assert_eq!(busy, 8, "all but two are turned away");
    let answer = ask("fine.test", fine, Trust::Untrusted).await.unwrap();
    assert_eq!(answer.status, 200);
    // Configured endpoints are reached even while all slots for untrusted hosts are taken.
    dns.set_address("hang.test", "127.0.0.1");
    dns.set_address("hang2.test", "127.0.0.1");
    for _ in 0..2 {
        hanging.push(tokio::spawn(ask(
            "hang2.test",
            hanging_port,
            Trust::Untrusted,
        )));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(matches!(
        ask("fine.test", fine, Trust::Untrusted).await,
        Err(NetError::HostBusy { .. })
    ));
    let answer = ask("localhost", fine, Trust::Configured).await.unwrap();
    assert_eq!(answer.status, 200);
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn https_checks_authority_and_name() {
    let dns = NameServer::start().await;
    dns.set_address("pds.test", "127.0.0.1");
    dns.set_address("other.test", "127.0.0.1");
    let authority = Authority::generate();
    let port = authority.serve(&["pds.test"], hello()).await;
    let settings = NetSettings {
        name_server: Some(dns.address),
        extra_ca_file: Some(authority.file()),
        ..development()
    };
    let net = bind(settings.clone());
    let ask = |host: &str| {
        Request::new(
            url(&format!("https://{host}:{port}/")),
            Trust::Untrusted,
            99,
        )
    };
    assert_eq!(&*net.get(&ask("pds.test")).await.unwrap().body, b"hello");
    assert!(matches!(
        net.get(&ask("other.test")).await,
        Err(NetError::Tls(_))
    ));
    let without = bind(NetSettings {
        extra_ca_file: None,
        ..settings
    });
    assert!(matches!(
        without.get(&ask("pds.test")).await,
        Err(NetError::Tls(_))
    ));
}

#[tokio::test]
async fn contradictory_settings_are_refused_at_start() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = format!("{}: no certificate in this file", file.path().display());
    let port = NetSettings {
        https_port: 8443,
        ..NetSettings::default()
    };
    let contact = NetSettings {
        contact: Some("line\nbreak".to_owned()),
        ..NetSettings::default()
    };
    let authorities = |path: &Path| NetSettings {
        extra_ca_file: Some(path.to_owned()),
        ..NetSettings::default()
    };
    for (settings, reason) in [
        (port, "https_port is for development only"),
        (contact, "contact has characters that no header may have"),
        (
            authorities(Path::new("/nonexistent/ca.pem")),
            "/nonexistent/ca.pem: I/O error: No such file or directory (os error 2)",
        ),
        (authorities(file.path()), empty.as_str()),
    ] {
        let error = Net::bind(settings, Clock::system()).err().unwrap();
        assert!(matches!(error, NetError::Settings(_)), "{error:?}");
        assert_eq!(error.to_string(), format!("network settings: {reason}"));
    }
}

#[test]
fn settings_read_durations_and_refuse_unknown_keys() {
    let read = serde_json::from_str::<NetSettings>;
    assert_eq!(read("{}").unwrap(), NetSettings::default());
    let some = read(r#"{"timeout":"1m 5s","name_server":"127.0.0.1:5353"}"#).unwrap();
    assert_eq!(some.timeout, Duration::from_secs(65));
    assert!(read(r#"{"time_out":"1s"}"#).is_err());
}

#[tokio::test]
async fn txt_records() {
    let dns = NameServer::start().await;
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        ..development()
    });
    let long = format!("did=did:web:{}", "a".repeat(1500));
    dns.set(
        "_atproto.a.test",
        Answer::Txt(vec!["x".to_owned(), long.clone()]),
    );
    // Over the UDP size, so the same question goes by TCP; character strings are joined.
    assert_eq!(net.txt("_atproto.a.test").await.unwrap(), ["x", &*long]);
    assert_eq!(dns.asked("_atproto.a.test"), 2);
    // No cache: the next answer is seen at once.
    dns.set("_atproto.a.test", Answer::Txt(vec!["y".to_owned()]));
    assert_eq!(net.txt("_atproto.a.test").await.unwrap(), ["y"]);
    assert_eq!(
        net.txt("_atproto.absent.test").await,
        Err(DnsError::NoRecords)
    );
    dns.set("_atproto.b.test", Answer::Txt(vec![]));
    assert_eq!(net.txt("_atproto.b.test").await, Err(DnsError::NoRecords));
    dns.set("_atproto.c.test", Answer::Code(2));
    assert_eq!(net.txt("_atproto.c.test").await, Err(DnsError::Failed));
    dns.set("_atproto.d.test", Answer::Txt(vec!["z".to_owned(); 65]));
    assert_eq!(net.txt("_atproto.d.test").await, Err(DnsError::Failed));
    for odd in ["", ".", "a..b", &"a".repeat(300), "\u{0}\u{ff}"] {
        assert!(net.txt(odd).await.is_err(), "{odd:?}");
    }
}

#[tokio::test]
async fn a_silent_name_server_is_a_failure_not_an_absence() {
    let dns = NameServer::start().await;
    dns.set("_atproto.a.test", Answer::Silence);
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        ..development()
    });
    let started = Instant::now();
    assert_eq!(net.txt("_atproto.a.test").await, Err(DnsError::Failed));
    assert!(started.elapsed() < Duration::from_secs(10));
}
