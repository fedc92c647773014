use super::*;

/// Starts a server that keeps its connections open and counts the open ones.
async fn keeps_open(open: Arc<AtomicUsize>) -> u16 {
    serve_raw(move |mut stream| {
        let open = Arc::clone(&open);
        async move {
            open.fetch_add(1, Ordering::SeqCst);
            while stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {
                // Long enough that requests at the same time need a connection each.
                tokio::time::sleep(Duration::from_millis(100)).await;
                let _ = stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await
}

/// Every name of one domain may leave a connection behind, which must not stay open.
#[tokio::test]
async fn inv7_idle_connections_to_untrusted_hosts_are_few_and_end_soon() {
    let open = Arc::new(AtomicUsize::new(0));
    let port = keeps_open(Arc::clone(&open)).await;
    let net = bind(development());
    let request = local(port, "/");
    let (a, b, c) = tokio::join!(net.get(&request), net.get(&request), net.get(&request));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    let started = Instant::now();
    let fall_to = async |n: usize, within: Duration| {
        while open.load(Ordering::SeqCst) > n {
            assert!(started.elapsed() < within, "more than {n} stay open");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    fall_to(1, Duration::from_secs(1)).await;
    fall_to(0, Duration::from_secs(8)).await;
}
