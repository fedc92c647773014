//! `atcomm serve`.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::signal::Shutdown;
use super::{CliError, Exit, Serve, log};
use crate::config::{Config, Overrides};
use crate::server::Server;
use atcomm_proto::clock::Clock;

/// Time for what runs outside of tasks, such as a look-up of the system's, after all has ended.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// What the system refuses before there is anything to serve.
fn system(error: io::Error) -> CliError {
    CliError {
        exit: Exit::Failed,
        message: format!("cannot start: {error}"),
        hint: "the limits of this user or container may be too low".to_owned(),
    }
}

/// Runs the directory until a signal ends it.
pub(super) fn serve(args: Serve) -> Result<(), CliError> {
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
        let shutdown = Shutdown::listen().map_err(system)?;
        let server = Server::bind(config, Clock::system()).await?;
        tokio::spawn(pass_on(shutdown, server.stopper()));
        if let Some(bars) = bars {
            tokio::spawn(log::show(bars, server.progress()));
        }
        Ok(server.join().await?)
    });
    runtime.shutdown_timeout(LEFTOVERS);
    result
}

/// Stops the service at the first signal, and ends the process at the second: nothing that was
/// acknowledged is lost by that.
async fn pass_on(mut shutdown: Shutdown, stop: CancellationToken) {
    shutdown.requested().await;
    stop.cancel();
    shutdown.requested().await;
    std::process::exit(Exit::Failed.code().into());
}
