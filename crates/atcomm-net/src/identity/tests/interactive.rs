use tokio::io::AsyncReadExt as _;

use super::*;
use crate::testing::serve_raw;
use atcomm_proto::syntax::MediatorDid;

/// Clients share a rate at the PLC directory, which does not limit background work.
#[tokio::test]
async fn clients_cannot_use_up_the_directory() {
    let plc = Plc::default();
    let clock = by_hand();
    let port = plc.serve().await;
    let settings = IdentitySettings {
        plc_url: Origin::parse(&format!("http://localhost:{port}")).unwrap(),
        plc_rate: 2,
        ..IdentitySettings::default()
    };
    let net = Net::bind(NetSettings::default(), clock.clone()).unwrap();
    let background = Identity::bind(net, settings, clock.clone());
    let interactive = background.interactive();
    plc.set(ALICE, 200, document(ALICE, "alice.test"));
    plc.set(BOB, 200, document(BOB, "bob.test"));
    let (alice, bob) = (did(ALICE), did(BOB));
    let busy = |secs| {
        Err(IdentityError::Unreachable {
            retry_after: Some(Duration::from_secs(secs)),
        })
    };
    let ask = async |identity: &Identity, did: &Did, freshness| {
        identity.resolve(did, freshness).await.map(drop)
    };
    // A cached document costs nothing.
    for _ in 0..5 {
        assert_eq!(ask(&interactive, &alice, Freshness::Cached).await, Ok(()));
    }
    assert_eq!(ask(&interactive, &alice, Freshness::Refresh).await, Ok(()));
    assert_eq!(plc.asked(), 2);
    assert_eq!(ask(&interactive, &bob, Freshness::Cached).await, busy(30));
    assert_eq!(
        ask(&interactive, &alice, Freshness::Refresh).await,
        busy(30)
    );
    assert_eq!(ask(&interactive, &alice, Freshness::Cached).await, Ok(()));
    assert_eq!(plc.asked(), 2);
    // The refusal is not cached, since it does not concern background work.
    assert_eq!(ask(&background, &bob, Freshness::Cached).await, Ok(()));
    assert_eq!(ask(&background, &bob, Freshness::Refresh).await, Ok(()));
    assert_eq!(plc.asked(), 4);
    // A stale document is served without a look-up in the background.
    clock.advance(Duration::from_secs(3600));
    assert_eq!(ask(&interactive, &alice, Freshness::Refresh).await, Ok(()));
    assert_eq!(ask(&interactive, &alice, Freshness::Refresh).await, Ok(()));
    assert_eq!(ask(&interactive, &bob, Freshness::Cached).await, Ok(()));
    assert_eq!(plc.asked(), 6);
}

/// Hosts that hang under interactive look-ups of any kind leave slots for background work.
#[tokio::test]
async fn interactive_look_ups_take_interactive_slots() {
    let dns = NameServer::start().await;
    let held = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&held);
    let hanging = serve_raw(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move { while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {} }
    })
    .await;
    for name in ["a.test", "b.test", "c.test", "d.test"] {
        dns.set_address(name, "127.0.0.1");
    }
    let net = bind(NetSettings {
        name_server: Some(dns.address),
        https_port: hanging,
        in_flight: 3,
        busy_wait: Duration::ZERO,
        ..development()
    });
    let background = Identity::bind(net, IdentitySettings::default(), Clock::system());
    let interactive = background.interactive();
    let first = {
        let interactive = interactive.clone();
        tokio::spawn(async move { interactive.resolve_handle(&handle("a.test")).await })
    };
    let second = {
        let interactive = interactive.clone();
        let mediator = MediatorDid::parse("did:web:b.test").unwrap();
        tokio::spawn(async move {
            interactive
                .mediator(&mediator, Freshness::Refresh, None)
                .await
        })
    };
    while held.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Two of three slots are the share of interactive work.
    let web = did("did:web:c.test");
    assert!(matches!(
        interactive.resolve(&web, Freshness::Refresh).await,
        Err(IdentityError::Unreachable {
            retry_after: Some(_)
        })
    ));
    let third = tokio::spawn(async move {
        let did = did("did:web:d.test");
        background.resolve(&did, Freshness::Refresh).await
    });
    while held.load(Ordering::SeqCst) < 3 {
        assert!(!third.is_finished(), "background work found a slot");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.abort();
    second.abort();
    third.abort();
}
