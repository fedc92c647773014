use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};

use super::*;

impl ByteSize for String {
    fn bytes(&self) -> usize {
        self.len()
    }
}

const HOUR: Duration = Duration::from_secs(3600);

/// Look-ups that count themselves and end when the test releases them.
struct Source {
    lookups: Lookups<String, String>,
    clock: Clock,
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
    ended: Arc<Notify>,
}

impl Source {
    fn new(bytes: u64) -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        Self {
            lookups: Lookups::new(bytes, clock.clone()),
            clock,
            asked: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
            ended: Arc::default(),
        }
    }

    /// Looks up: `<n>` for the n-th look-up, or `fail`, once the gate is open.
    fn ask(
        &self,
        freshness: Freshness,
        fail: bool,
    ) -> impl Future<Output = Option<String>> + use<> {
        let (lookups, asked) = (self.lookups.clone(), Arc::clone(&self.asked));
        let (gate, ended) = (Arc::clone(&self.gate), Arc::clone(&self.ended));
        async move {
            let fetch = |_known| {
                let n = asked.fetch_add(1, Ordering::SeqCst) + 1;
                async move {
                    gate.acquire().await.unwrap().forget();
                    ended.notify_one();
                    Fetched {
                        value: if fail {
                            "fail".to_owned()
                        } else {
                            n.to_string()
                        },
                        fresh: if fail { HOUR / 30 } else { HOUR },
                        usable: if fail { HOUR / 30 } else { 24 * HOUR },
                        transient: fail,
                    }
                }
            };
            lookups.look_up(&"key".to_owned(), freshness, fetch).await
        }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Releases one look-up, and returns when its answer is cached.
    async fn release(&self) {
        self.gate.add_permits(1);
        self.ended.notified().await;
        while !self.lookups.inner.in_flight.is_empty() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn concurrent_callers_share_one_look_up() {
    let source = Source::new(1 << 20);
    let callers: Vec<_> = (0..50)
        .map(|i| {
            let freshness = if i % 2 == 0 {
                Freshness::Cached
            } else {
                Freshness::Refresh
            };
            tokio::spawn(source.ask(freshness, false))
        })
        .collect();
    tokio::task::yield_now().await;
    source.release().await;
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap(), "1");
    }
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_nothing_from_the_others() {
    let source = Source::new(1 << 20);
    let first = tokio::spawn(source.ask(Freshness::Cached, false));
    tokio::task::yield_now().await;
    let second = tokio::spawn(source.ask(Freshness::Cached, false));
    tokio::task::yield_now().await;
    first.abort();
    source.release().await;
    assert_eq!(second.await.unwrap().unwrap(), "1");
    assert_eq!(source.asked(), 1);
}

#[tokio::test]
async fn stale_answers_are_served_while_one_look_up_runs_in_the_background() {
    let source = Source::new(1 << 20);
    source.gate.add_permits(1);
    assert_eq!(source.ask(Freshness::Cached, false).await.unwrap(), "1");
    source.ended.notified().await;
    source.clock.advance(HOUR - Duration::from_millis(1));
    assert_eq!(source.ask(Freshness::Cached, false).await.unwrap(), "1");
    assert_eq!(source.asked(), 1);
    source.clock.advance(Duration::from_millis(1));
    for _ in 0..5 {
        assert_eq!(source.ask(Freshness::Cached, false).await.unwrap(), "1");
    }
    assert_eq!(source.asked(), 2);
    source.release().await;
    assert_eq!(source.ask(Freshness::Cached, false).await.unwrap(), "2");
    // Past the hard limit the old answer is not served.
    source.clock.advance(24 * HOUR);
    assert_eq!(source.lookups.cached(&"key".to_owned()), None);
    source.gate.add_permits(1);
    assert_eq!(source.ask(Freshness::Cached, false).await.unwrap(), "3");
}

#[tokio::test]
async fn a_failure_in_the_background_keeps_the_older_answer() {
    let source = Source::new(1 << 20);
    source.gate.add_permits(1);
    source.ask(Freshness::Cached, false).await.unwrap();
    source.ended.notified().await;
    source.clock.advance(2 * HOUR);
    assert_eq!(source.ask(Freshness::Cached, true).await.unwrap(), "1");
    source.release().await;
    // Not asked again until the failure's own time is over. A refresh returns the failure.
    assert_eq!(source.ask(Freshness::Cached, true).await.unwrap(), "1");
    assert_eq!(source.asked(), 2);
    source.gate.add_permits(1);
    assert_eq!(source.ask(Freshness::Refresh, true).await.unwrap(), "fail");
    source.ended.notified().await;
    source.clock.advance(HOUR / 30);
    assert_eq!(source.ask(Freshness::Cached, false).await.unwrap(), "1");
    source.release().await;
    assert_eq!(source.ask(Freshness::Cached, false).await.unwrap(), "4");
    // The hard limit of the old answer has not moved.
    source.clock.advance(23 * HOUR);
    source.gate.add_permits(1);
    assert_eq!(source.ask(Freshness::Refresh, true).await.unwrap(), "fail");
    source.clock.advance(HOUR);
    assert_eq!(source.lookups.cached(&"key".to_owned()), None);
}

#[tokio::test]
async fn a_purge_keeps_the_answer_of_a_running_look_up_out() {
    let source = Source::new(1 << 20);
    let before = tokio::spawn(source.ask(Freshness::Cached, false));
    while source.asked() < 1 {
        tokio::task::yield_now().await;
    }
    source.lookups.purge(&"key".to_owned());
    let after = tokio::spawn(source.ask(Freshness::Cached, false));
    while source.asked() < 2 {
        tokio::task::yield_now().await;
    }
    // The gate is first come, first served: the older look-up ends first, and answers only its own
    // caller.
    source.gate.add_permits(1);
    assert_eq!(before.await.unwrap().unwrap(), "1");
    assert_eq!(source.lookups.cached(&"key".to_owned()), None);
    source.gate.add_permits(1);
    assert_eq!(after.await.unwrap().unwrap(), "2");
    assert_eq!(source.lookups.cached(&"key".to_owned()).unwrap(), "2");
}

/// A purge between a caller's read of the cache and the start of the look-up: when the look-up
/// fails, the older answer must not come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_is_not_undone_by_a_failure() {
    let source = Source::new(1 << 20);
    let key = "key".to_owned();
    source.gate.add_permits(2);
    source.ask(Freshness::Cached, false).await.unwrap();
    for freshness in [Freshness::Refresh, Freshness::Cached] {
        source.clock.advance(2 * HOUR);
        let inner = &source.lookups.inner;
        let caller = inner.in_flight.detach(&key, || {
            let caller = tokio::spawn(source.ask(freshness, true));
            // Time for the caller to read the cache and to wait for the lock.
            std::thread::sleep(Duration::from_millis(100));
            inner.cache.remove(&key);
            caller
        });
        caller.await.unwrap().unwrap();
        while !source.lookups.inner.in_flight.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_ne!(source.lookups.cached(&key).as_deref(), Some("1"));
        source.lookups.purge(&key);
        source.gate.add_permits(2);
        source.ask(Freshness::Cached, false).await.unwrap();
    }
}

#[tokio::test]
async fn a_look_up_that_panics_does_not_block_the_next() {
    let source = Source::new(1 << 20);
    let dead = source
        .lookups
        .look_up(&"key".to_owned(), Freshness::Cached, |_| async {
            panic!("on purpose")
        })
        .await;
    assert_eq!(dead, None);
    source.gate.add_permits(1);
    assert!(source.ask(Freshness::Cached, false).await.is_some());
}

#[tokio::test]
async fn inv7_look_ups_and_memory_are_bounded() {
    let lookups: Lookups<String, String> = Lookups::new(1 << 20, Clock::system());
    let found = |len: usize| Fetched {
        value: "x".repeat(len),
        fresh: HOUR,
        usable: HOUR,
        transient: false,
    };
    for i in 0..4000 {
        let fetch = |_| async move { found(1000) };
        lookups
            .look_up(&i.to_string(), Freshness::Cached, fetch)
            .await
            .unwrap();
    }
    assert!(lookups.inner.cache.weight() <= 1 << 20);
    for i in 0..MAX_IN_FLIGHT {
        let lookups = lookups.clone();
        tokio::spawn(async move {
            let fetch = |_| std::future::pending::<Fetched<String>>();
            lookups
                .look_up(&format!("hang{i}"), Freshness::Cached, fetch)
                .await
        });
    }
    while lookups.inner.in_flight.len() < MAX_IN_FLIGHT {
        tokio::task::yield_now().await;
    }
    let fetch = |_| async move { found(1) };
    let key = "one more".to_owned();
    assert_eq!(lookups.look_up(&key, Freshness::Cached, fetch).await, None);
}

/// On every machine, however many parts a divided cache of this size would have.
#[tokio::test]
async fn a_large_answer_is_cached_in_an_undivided_cache() {
    let lookups: Lookups<String, String> = Lookups::undivided(1 << 20, Clock::system());
    for i in 0..10 {
        let key = i.to_string();
        let fetch = |_| async {
            Fetched {
                value: "x".repeat(400_000),
                fresh: HOUR,
                usable: HOUR,
                transient: false,
            }
        };
        lookups
            .look_up(&key, Freshness::Cached, fetch)
            .await
            .unwrap();
        assert!(lookups.cached(&key).is_some(), "{i}");
        assert!(lookups.inner.cache.weight() <= 1 << 20);
    }
}
