//! The barrier that readers and the writer of a file pass, and that can hold them up for a moment.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A barrier before the connections of one file.
#[derive(Default)]
pub(super) struct Barrier {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    readers: usize,
    writing: bool,
    readers_held: bool,
    writer_held: bool,
}

/// A reader that has passed the barrier.
pub(super) struct ReadGuard<'b>(&'b Barrier);

/// The writer between the begin and the commit of a transaction.
pub(super) struct WriteGuard<'b>(&'b Barrier);

impl Barrier {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a reader pass, once readers are not held.
    pub(super) fn enter_reader(&self) -> ReadGuard<'_> {
        let wait = |state: &mut State| state.readers_held;
        let state = self.changed.wait_while(self.state(), wait);
        state.unwrap_or_else(PoisonError::into_inner).readers += 1;
        ReadGuard(self)
    }

    /// Lets the writer pass, once it is not held. A file has one writer.
    pub(super) fn enter_writer(&self) -> WriteGuard<'_> {
        let wait = |state: &mut State| state.writer_held;
        let state = self.changed.wait_while(self.state(), wait);
        state.unwrap_or_else(PoisonError::into_inner).writing = true;
        WriteGuard(self)
    }

    /// Runs `work` while neither a reader nor the writer has passed the barrier. Returns `None`
    /// when the readers do not leave within `timeout`, or then the writer does not. The writer goes
    /// on until the readers have left.
    pub(super) fn exclusive<T>(&self, timeout: Duration, work: impl FnOnce() -> T) -> Option<T> {
        let mut state = self.state();
        state.readers_held = true;
        let readers_left = self.left(state, timeout, |state| state.readers > 0);
        let all_left = readers_left && {
            let mut state = self.state();
            state.writer_held = true;
            self.left(state, timeout, |state| state.writing)
        };
        let done = all_left.then(work);
        let mut state = self.state();
        (state.readers_held, state.writer_held) = (false, false);
        drop(state);
        self.changed.notify_all();
        done
    }

    /// Waits while `inside` holds. Returns whether it ended in time.
    fn left(
        &self,
        state: MutexGuard<'_, State>,
        timeout: Duration,
        inside: impl Fn(&State) -> bool,
    ) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(state, timeout, |state| inside(state));
        let (_state, late) = waited.unwrap_or_else(PoisonError::into_inner);
        !late.timed_out()
    }

    fn leave(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        // Nothing waits for a reader or the writer to leave unless something is held.
        let wanted = state.readers_held;
        drop(state);
        if wanted {
            self.changed.notify_all();
        }
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.0.leave(|state| state.readers -= 1);
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.0.leave(|state| state.writing = false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn the_barrier_waits_for_those_inside_and_opens_again() {
        let barrier = Barrier::default();
        let reader = barrier.enter_reader();
        assert_eq!(barrier.exclusive(SHORT, || ()), None);
        drop(barrier.enter_reader());
        let writer = barrier.enter_writer();
        drop(reader);
        assert_eq!(barrier.exclusive(SHORT, || ()), None);
        drop(writer);
        assert_eq!(barrier.exclusive(SHORT, || ()), Some(()));
        drop(barrier.enter_writer());
        drop(barrier.enter_reader());
    }

    #[test]
    fn those_who_come_during_exclusive_work_pass_after_it() {
        let barrier = Arc::new(Barrier::default());
        let working = Arc::new(AtomicBool::new(false));
        let stop = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..4)
            .map(|n| {
                let (barrier, working, stop) = (
                    Arc::clone(&barrier),
                    Arc::clone(&working),
                    Arc::clone(&stop),
                );
                std::thread::spawn(move || {
                    let mut passed = 0_u32;
                    while !stop.load(Ordering::SeqCst) {
                        let _reader = (n > 0).then(|| barrier.enter_reader());
                        let _writer = (n == 0).then(|| barrier.enter_writer());
                        assert!(!working.load(Ordering::SeqCst));
                        passed += 1;
                    }
                    passed
                })
            })
            .collect();
        for _ in 0..50 {
            let done = barrier.exclusive(LONG, || {
                working.store(true, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
                working.store(false, Ordering::SeqCst);
            });
            assert_eq!(done, Some(()));
        }
        stop.store(true, Ordering::SeqCst);
        for thread in threads {
            assert!(thread.join().unwrap() > 0);
        }
    }
}
