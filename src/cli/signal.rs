//! Signals that ask the process to end.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Catches both signals from now on, for work without a runtime. Returns a function that tells
/// whether one has come.
pub(super) fn watch() -> io::Result<impl Fn() -> bool> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut shutdown = {
        let _within = runtime.enter();
        Shutdown::listen()?
    };
    let has_come = Arc::new(AtomicBool::new(false));
    let noted = Arc::clone(&has_come);
    let wait = move || {
        runtime.block_on(shutdown.requested());
        noted.store(true, Ordering::Relaxed);
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)?;
    Ok(move || has_come.load(Ordering::Relaxed))
}

/// Requests to end: SIGTERM, and SIGINT as from Ctrl-C.
pub(super) struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
}

impl Shutdown {
    /// Catches both signals from now on; neither ends the process by itself any more, even after the
    /// value is dropped. Must be called within a runtime.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal; one that came since [`Shutdown::listen`] counts.
    pub(super) async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
