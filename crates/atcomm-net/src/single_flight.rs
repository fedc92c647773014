//! At most one task per key at a time, whose answer all callers of that time share.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

/// The tasks under way. Cloning is cheap, and clones share the tasks.
///
/// A task runs by itself: a caller that goes away takes nothing from the other callers. Must be
/// used inside a tokio runtime.
pub struct SingleFlight<K, V> {
    /// Also held while [`Task::finish`] runs, so that it has an order with [`SingleFlight::detach`].
    table: Arc<Mutex<Table<K, V>>>,
    max: usize,
}

struct Table<K, V> {
    by_key: HashMap<K, Flight<V>>,
    started: u64,
}

struct Flight<V> {
    id: u64,
    answer: Answer<V>,
}

/// The answer of a task: `None` where the task was turned away or ended in a panic.
pub struct Answer<V>(Shared<BoxFuture<'static, Option<V>>>);

impl<V> Clone for Answer<V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V: Clone> Future for Answer<V> {
    type Output = Option<V>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<V>> {
        self.0.poll_unpin(context)
    }
}

impl<K, V> Clone for SingleFlight<K, V> {
    fn clone(&self) -> Self {
        Self {
            table: Arc::clone(&self.table),
            max: self.max,
        }
    }
}

impl<K: Hash + Eq, V> SingleFlight<K, V> {
    /// Creates an empty table. While `max` tasks are under way, further ones are turned away.
    pub fn new(max: usize) -> Self {
        Self {
            table: Arc::new(Mutex::new(Table {
                by_key: HashMap::new(),
                started: 0,
            })),
            max,
        }
    }

    /// Returns the number of tasks that can be joined.
    pub fn len(&self) -> usize {
        lock(&self.table).by_key.len()
    }

    /// Whether no task can be joined.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the answer of the task of `key` that is under way.
    pub fn running<Q>(&self, key: &Q) -> Option<Answer<V>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let table = lock(&self.table);
        table.by_key.get(key).map(|flight| flight.answer.clone())
    }

    /// Lets no later caller join the task of `key`; those that joined still get its answer. `also`
    /// runs before another task of `key` can start, and before or after all of a task's `finish`.
    pub fn detach<R>(&self, key: &K, also: impl FnOnce() -> R) -> R {
        let mut table = lock(&self.table);
        table.by_key.remove(key);
        also()
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Hash + Eq + Clone + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns the answer of the task of `key`, started here where none is under way.
    ///
    /// `start` makes the task. `finish` makes the answer of what the task came to, and is told
    /// whether the task can still be joined; it is not after [`SingleFlight::detach`]. Both run
    /// under the lock of the table and must be short.
    pub fn join<F: Future + Send + 'static>(
        &self,
        key: &K,
        start: impl FnOnce() -> F,
        finish: impl FnOnce(F::Output, bool) -> V + Send + 'static,
    ) -> Answer<V> {
        let mut table = lock(&self.table);
        match table.by_key.get(key) {
            Some(flight) => flight.answer.clone(),
            None => self.start(&mut table, key, start, finish),
        }
    }

    /// Does the same with an answer that is not earlier than this call: waits for the tasks of
    /// `key` that began before, and shares none of them.
    pub async fn start_next<F: Future + Send + 'static>(
        &self,
        key: &K,
        start: impl FnOnce() -> F,
        finish: impl FnOnce(F::Output, bool) -> V + Send + 'static,
    ) -> Option<V> {
        let answer = loop {
            let earlier = {
                let mut table = lock(&self.table);
                match table.by_key.get(key) {
                    Some(flight) => flight.answer.clone(),
                    None => break self.start(&mut table, key, start, finish),
                }
            };
            earlier.await;
        };
        answer.await
    }

    fn start<F: Future + Send + 'static>(
        &self,
        table: &mut Table<K, V>,
        key: &K,
        start: impl FnOnce() -> F,
        finish: impl FnOnce(F::Output, bool) -> V + Send + 'static,
    ) -> Answer<V> {
        if table.by_key.len() >= self.max {
            return Answer(std::future::ready(None).boxed().shared());
        }
        table.started += 1;
        let id = table.started;
        let guard = InFlightGuard {
            table: Arc::clone(&self.table),
            key: key.clone(),
            id,
        };
        let task = start();
        let task = tokio::spawn(async move {
            let output = task.await;
            guard.finish(|is_current| finish(output, is_current))
        });
        let answer = task.map(|ended| {
            ended
                .inspect_err(|error| tracing::error!(%error, "a shared task failed"))
                .ok()
        });
        let answer = Answer(answer.boxed().shared());
        let flight = Flight {
            id,
            answer: answer.clone(),
        };
        table.by_key.insert(key.clone(), flight);
        answer
    }
}

/// Takes a task out of the table when the task ends, also by a panic: no caller may wait for ever.
struct InFlightGuard<K: Hash + Eq, V> {
    table: Arc<Mutex<Table<K, V>>>,
    key: K,
    id: u64,
}

impl<K: Hash + Eq, V> InFlightGuard<K, V> {
    fn finish(self, finish: impl FnOnce(bool) -> V) -> V {
        let table = lock(&self.table);
        let answer = finish(table.is_current(&self.key, self.id));
        // Dropping `self` takes the lock again.
        drop(table);
        answer
    }
}

impl<K: Hash + Eq, V> Drop for InFlightGuard<K, V> {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        if table.is_current(&self.key, self.id) {
            table.by_key.remove(&self.key);
        }
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    fn is_current(&self, key: &K, id: u64) -> bool {
        self.by_key.get(key).is_some_and(|flight| flight.id == id)
    }
}

fn lock<K, V>(table: &Mutex<Table<K, V>>) -> MutexGuard<'_, Table<K, V>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Tasks that count themselves and end when the test says so.
    struct Tasks {
        flights: SingleFlight<&'static str, usize>,
        started: Arc<AtomicUsize>,
        gate: Arc<Semaphore>,
    }

    impl Tasks {
        fn new(max: usize) -> Self {
            Self {
                flights: SingleFlight::new(max),
                started: Arc::default(),
                gate: Arc::new(Semaphore::new(0)),
            }
        }

        /// Makes the n-th task, which comes to n.
        fn task(&self) -> impl Future<Output = usize> + Send + use<> {
            let n = self.started.fetch_add(1, Ordering::SeqCst) + 1;
            let gate = Arc::clone(&self.gate);
            async move {
                gate.acquire().await.unwrap().forget();
                n
            }
        }

        fn join(&self, key: &'static str) -> Answer<usize> {
            self.flights.join(&key, || self.task(), |n, _| n)
        }
    }

    #[tokio::test]
    async fn one_task_answers_all_who_join() {
        let tasks = Tasks::new(10);
        let (first, second) = (tasks.join("a"), tasks.join("a"));
        let other = tasks.join("b");
        assert!(tasks.flights.running("a").is_some() && tasks.flights.running("c").is_none());
        tasks.gate.add_permits(2);
        assert_eq!((first.await, second.await), (Some(1), Some(1)));
        assert_eq!(other.await, Some(2));
        assert!(tasks.flights.is_empty());
    }

    #[tokio::test]
    async fn an_answer_is_not_earlier_than_the_call() {
        let tasks = Arc::new(Tasks::new(10));
        let earlier = tasks.join("a");
        let next = || {
            let tasks = Arc::clone(&tasks);
            tokio::spawn(async move {
                let start = || tasks.task();
                tasks.flights.start_next(&"a", start, |n, _| n).await
            })
        };
        let waiting = [next(), next()];
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(tasks.started.load(Ordering::SeqCst), 1);
        tasks.gate.add_permits(3);
        assert_eq!(earlier.await, Some(1));
        let mut answers = Vec::new();
        for answer in waiting {
            answers.push(answer.await.unwrap().unwrap());
        }
        answers.sort_unstable();
        assert_eq!(answers, [2, 3], "each has a task of its own");
    }

    #[tokio::test]
    async fn a_detached_task_answers_only_those_who_joined() {
        let tasks = Tasks::new(10);
        let current = Arc::new(Mutex::new(Vec::new()));
        let join = || {
            let current = Arc::clone(&current);
            tasks.flights.join(
                &"a",
                || tasks.task(),
                move |n, is_current| {
                    current.lock().unwrap().push((n, is_current));
                    n
                },
            )
        };
        let before = join();
        tasks.flights.detach(&"a", || ());
        let after = join();
        tasks.gate.add_permits(2);
        assert_eq!((before.await, after.await), (Some(1), Some(2)));
        let mut current = current.lock().unwrap().clone();
        current.sort_unstable();
        assert_eq!(current, [(1, false), (2, true)]);
    }

    #[tokio::test]
    async fn inv7_tasks_are_bounded_and_a_panic_frees_its_place() {
        let tasks = Tasks::new(1);
        let dead = tasks
            .flights
            .join(&"a", || async { panic!("on purpose") }, |(), _| 0);
        assert_eq!(tasks.join("b").await, None);
        assert_eq!(dead.await, None);
        tasks.gate.add_permits(1);
        assert_eq!(tasks.join("b").await, Some(1));
    }
}
