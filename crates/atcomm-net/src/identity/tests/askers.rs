use tokio::io::AsyncReadExt as _;

use super::*;
use crate::testing::serve_raw;
use atcomm_proto::syntax::MediatorDid;

/// Askers share a rate at the PLC directory; the background has what they leave and more.
#[tokio::test]
async fn askers_cannot_use_the_directory_up() {
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
    let asker = background.interactive();
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
    // What is in memory costs nothing.
    for _ in 0..5 {
        assert_eq!(ask(&asker, &alice, Freshness::Cached).await, Ok(()));
    }
    assert_eq!(ask(&asker, &alice, Freshness::Refresh).await, Ok(()));
    assert_eq!(plc.asked(), 2);
    assert_eq!(ask(&asker, &bob, Freshness::Cached).await, busy(30));
    assert_eq!(ask(&asker, &alice, Freshness::Refresh).await, busy(30));
    assert_eq!(ask(&asker, &alice, Freshness::Cached).await, Ok(()));
    assert_eq!(plc.asked(), 2);
    // The refusal is not remembered for those whom it does not concern.
    assert_eq!(ask(&background, &bob, Freshness::Cached).await, Ok(()));
    assert_eq!(ask(&background, &bob, Freshness::Refresh).await, Ok(()));
    assert_eq!(plc.asked(), 4);
    // An aging document is served without a look-up behind the asker's back.
    clock.advance(Duration::from_secs(3600));
    assert_eq!(ask(&asker, &alice, Freshness::Refresh).await, Ok(()));
    assert_eq!(ask(&asker, &alice, Freshness::Refresh).await, Ok(()));
    assert_eq!(ask(&asker, &bob, Freshness::Cached).await, Ok(()));
    assert_eq!(plc.asked(), 6);
}

/// Hosts that hang under askers' look-ups leave the background its places, whatever is looked up.
#[tokio::test]
async fn what_askers_cause_takes_askers_places() {
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
    let asker = background.interactive();
    let first = {
        let asker = asker.clone();
        tokio::spawn(async move { asker.resolve_handle(&handle("a.test")).await })
    };
    let second = {
        let asker = asker.clone();
        let mediator = MediatorDid::parse("did:web:b.test").unwrap();
        tokio::spawn(async move { asker.mediator(&mediator, Freshness::Refresh, None).await })
    };
    while held.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Two of three places are the askers' share.
    let web = did("did:web:c.test");
    assert!(matches!(
        asker.resolve(&web, Freshness::Refresh).await,
        Err(IdentityError::Unreachable {
            retry_after: Some(_)
        })
    ));
    let third = tokio::spawn(async move {
        let did = did("did:web:d.test");
        background.resolve(&did, Freshness::Refresh).await
    });
    while held.load(Ordering::SeqCst) < 3 {
        assert!(!third.is_finished(), "the background found a place");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.abort();
    second.abort();
    third.abort();
}
