//! `atcomm serve`.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::signal::Shutdown;
use super::{CliError, Exit, Serve, log};
use crate::config::{Config, Overrides};
use crate::server::Server;
use atcomm_proto::clock::Clock;

/// Time for blocking calls, such as a look-up of a host by the system, after all tasks have ended.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the error of a resource that the system refuses at the start.
fn refused(error: io::Error) -> CliError {
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
        .map_err(refused)?;
    let result = runtime.block_on(async {
        // Before the service starts, so that a signal during its start ends it in order.
        let shutdown = Shutdown::listen().map_err(refused)?;
        let server = Server::bind(config, Clock::system()).await?;
        tokio::spawn(pass_on(shutdown, server.stopper()));
        if let Some(bars) = bars {
            tokio::spawn(log::show(bars, server.progress()));
        }
        Ok(server.join().await?)
    });
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

/// Stops the service at the first signal and ends the process at the second, which loses nothing that was
/// acknowledged.
async fn pass_on(mut shutdown: Shutdown, stop: CancellationToken) {
    shutdown.requested().await;
    stop.cancel();
    shutdown.requested().await;
    std::process::exit(Exit::Failed.code().into());
}
