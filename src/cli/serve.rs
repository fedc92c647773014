//! `atcomm serve`.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Complaint, Exit, Serve, log};
use crate::config::{Config, Overrides};
use crate::server::Server;
use atcomm_proto::clock::Clock;

/// Time for what runs outside of tasks, such as a look-up of the system's, after all has ended.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// What the system refuses before there is anything to serve.
fn system(error: io::Error) -> Complaint {
    Complaint {
        exit: Exit::Failed,
        message: format!("cannot start: {error}"),
        hint: "the limits of this user or container may be too low".to_owned(),
    }
}

/// Runs the directory until a signal ends it.
pub(super) fn serve(args: Serve) -> Result<(), Complaint> {
    let overrides = Overrides {
        listen: args.listen,
        data_dir: args.data_dir,
        metrics: args.metrics,
        log: args.log,
        ..Overrides::default()
    };
    let config = Config::load(args.config.as_deref(), &overrides)?;
    let bars = log::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(system)?;
    let result = runtime.block_on(async {
        // Before the service, so that a signal during its start ends it well.
        let signals = Signals::listen().map_err(system)?;
        let server = Server::bind(config, Clock::system()).await?;
        tokio::spawn(signals.pass_on(server.stopper()));
        if let Some(bars) = bars {
            tokio::spawn(log::show(bars, server.progress()));
        }
        Ok(server.join().await?)
    });
    runtime.shutdown_timeout(LEFTOVERS);
    result
}

/// What asks the process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self {
            terminate,
            interrupt,
        })
    }

    /// The first signal lets the service end, the second ends the process: nothing that was
    /// acknowledged is lost by that.
    async fn pass_on(mut self, stop: CancellationToken) {
        self.next().await;
        stop.cancel();
        self.next().await;
        std::process::exit(Exit::Failed.code().into());
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
