//! A sign of life while a command waits for servers: after a second, on a terminal, on standard
//! error.

use std::io::{self, IsTerminal as _, Write};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Time before anything is shown: most answers come earlier.
const SHOWN_AFTER: Duration = Duration::from_secs(1);

/// Interval in which the sign moves.
const SPIN: Duration = Duration::from_millis(200);

/// The sign of this process, while it is shown.
static SIGN: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn sign() -> MutexGuard<'static, Option<ProgressBar>> {
    SIGN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a future, and shows that it is waited for.
pub(super) async fn wait_for<T>(work: impl Future<Output = T>) -> T {
    if !io::stderr().is_terminal() {
        return work.await;
    }
    let mut work = pin!(work);
    if let Ok(done) = tokio::time::timeout(SHOWN_AFTER, &mut work).await {
        return done;
    }
    let bar = ProgressBar::new_spinner().with_elapsed(SHOWN_AFTER);
    if let Ok(style) = ProgressStyle::with_template("{spinner} waiting for an answer ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(SPIN);
    *sign() = Some(bar.clone());
    let done = work.await;
    sign().take();
    bar.finish_and_clear();
    done
}

/// A writer to a terminal on which the sign may be shown. While it is, whole lines are written, in
/// between two pictures of the sign.
pub(super) struct Beside<'w> {
    inner: &'w mut dyn Write,
    /// The beginning of a line.
    begun: Vec<u8>,
}

impl<'w> Beside<'w> {
    pub(super) fn new(inner: &'w mut dyn Write) -> Self {
        Self {
            inner,
            begun: Vec::new(),
        }
    }
}

impl Write for Beside<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The lock is not held while the bytes are written: another thread may show the sign.
        let Some(bar) = sign().clone() else {
            self.write_begun()?;
            return self.inner.write(bytes);
        };
        self.begun.extend_from_slice(bytes);
        if bytes.contains(&b'\n') {
            bar.suspend(|| self.write_begun())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_begun()?;
        self.inner.flush()
    }
}

impl Beside<'_> {
    fn write_begun(&mut self) -> io::Result<()> {
        if self.begun.is_empty() {
            return Ok(());
        }
        let begun = std::mem::take(&mut self.begun);
        self.inner.write_all(&begun)?;
        self.inner.flush()
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        // Nothing is left to report an error to.
        self.write_begun().ok();
    }
}
