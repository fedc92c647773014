use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::{Message, error::Error as WsError};

use super::*;

async fn sends(len: usize) -> u16 {
    serve_raw(move |stream| async move {
        if let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await {
            let _ = socket.send(Message::binary(vec![7; len])).await;
            while let Some(Ok(_)) = socket.next().await {}
        }
    })
    .await
}

fn options(max_frame: usize) -> WsOptions {
    WsOptions {
        max_frame,
        handshake_timeout: Duration::from_secs(2),
        subprotocol: None,
    }
}

#[tokio::test]
async fn messages_up_to_the_limit_arrive() {
    let port = sends(1000).await;
    let net = bind(development());
    let at = url(&format!("ws://localhost:{port}/x?y=z"));
    let mut socket = net
        .connect_ws(&at, Trust::Untrusted, &options(1000))
        .await
        .unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().len(), 1000);
    let mut socket = net
        .connect_ws(&at, Trust::Untrusted, &options(999))
        .await
        .unwrap();
    assert!(matches!(
        socket.next().await,
        Some(Err(WsError::Capacity(_)))
    ));
}

#[tokio::test]
async fn wss_checks_authority_and_name() {
    let dns = NameServer::start().await;
    dns.set_address("relay.test", "127.0.0.1");
    dns.set_address("other.test", "127.0.0.1");
    let authority = Authority::generate();
    let acceptor = authority.acceptor(&["relay.test"]);
    let port = serve_raw(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await
                && let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await
            {
                let _ = socket.send(Message::text("hi")).await;
            }
        }
    })
    .await;
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        extra_ca_file: Some(authority.file()),
        ..development()
    });
    let open = async |host: &str| {
        let at = url(&format!("wss://{host}:{port}/"));
        net.connect_ws(&at, Trust::Untrusted, &options(1000)).await
    };
    let mut socket = open("relay.test").await.unwrap();
    let message = socket.next().await.unwrap().unwrap();
    assert_eq!(message.to_text().unwrap(), "hi");
    assert!(matches!(
        open("other.test").await.err(),
        Some(NetError::Tls(_))
    ));
}

#[tokio::test]
async fn refusals_of_the_upgrade_are_typed() {
    let port = serve(
        Router::new()
            .route("/plain", get(async || "no socket here"))
            .route(
                "/busy",
                get(async || (Status::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "9")])),
            ),
    )
    .await;
    let net = bind(development());
    let open = async |path: &str| {
        let at = url(&format!("ws://localhost:{port}{path}"));
        let opened = net.connect_ws(&at, Trust::Untrusted, &options(1000)).await;
        opened.err().unwrap()
    };
    assert_eq!(
        open("/plain").await,
        NetError::Handshake {
            status: 200,
            retry_after: None
        }
    );
    assert_eq!(
        open("/busy").await.retry_after(),
        Some(Duration::from_secs(9))
    );
    assert!(matches!(open("/plain").await, NetError::HostBusy { .. }));
}

#[tokio::test]
async fn a_silent_peer_ends_at_the_handshake_limit() {
    let port = serve_raw(hang).await;
    let net = bind(development());
    let at = url(&format!("ws://localhost:{port}/"));
    let options = WsOptions {
        handshake_timeout: Duration::from_millis(200),
        ..options(10)
    };
    let opened = net.connect_ws(&at, Trust::Untrusted, &options).await;
    assert_eq!(opened.err(), Some(NetError::Timeout));
}

#[tokio::test]
async fn the_policy_holds_for_sockets() {
    let net = bind(NetSettings::default());
    for (at, refusal) in [
        ("ws://relay.example.com/", Refusal::Scheme),
        ("https://relay.example.com/", Refusal::Scheme),
        ("wss://127.0.0.1/", Refusal::AddressLiteral),
        ("wss://localhost/", Refusal::HostName),
        ("wss://relay.example.com:25/", Refusal::Port),
    ] {
        let opened = net
            .connect_ws(&url(at), Trust::Untrusted, &options(10))
            .await;
        assert_eq!(refused(opened), refusal, "{at}");
    }
}
