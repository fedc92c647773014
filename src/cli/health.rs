//! `atcomm server health`: whether a service answers, for the health check of a container.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::output::unwritten;
use super::{CliError, Exit};
use crate::config::{Config, Overrides};
use crate::server;

/// Maximum time for the answer: less than container engines usually give a check.
const TIMEOUT: Duration = Duration::from_secs(5);

/// `atcomm server health`.
#[derive(Debug, clap::Args)]
pub(super) struct Health {
    /// Configuration file of the service (TOML)
    #[arg(long, value_name = "FILE", env = "ATCOMM_CONFIG")]
    config: Option<PathBuf>,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

/// Asks the listener that the configuration names on this machine.
pub(super) fn health(args: &Health, stdout: &mut dyn Write) -> Result<(), CliError> {
    let config = Config::load(args.config.as_deref(), &Overrides::default())?;
    let address = config.http.listen;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(address, &error))?;
    match runtime.block_on(server::health(address, TIMEOUT)) {
        Ok(200) => report(args, stdout),
        Ok(status) => Err(CliError {
            exit: Exit::Failed,
            message: format!("the service on {address} is not healthy: it answers {status}"),
            hint: "a store cannot be written, usually since the disk is full; see its log"
                .to_owned(),
        }),
        Err(error) => Err(unreachable(address, &error)),
    }
}

fn report(args: &Health, stdout: &mut dyn Write) -> Result<(), CliError> {
    let text = if args.json {
        "{\"healthy\":true}"
    } else {
        "the service is healthy"
    };
    writeln!(stdout, "{text}").or_else(unwritten)
}

fn unreachable(address: SocketAddr, error: &io::Error) -> CliError {
    CliError {
        exit: Exit::Unreachable,
        message: format!("no service answers on {address}: {error}"),
        hint: "start it, or name its configuration with --config".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    /// Runs the command against a listener that gives one answer.
    fn answered(answer: &'static str) -> Result<(), CliError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.toml");
        let address = listener.local_addr().unwrap();
        std::fs::write(&config, format!("http.listen = '{address}'")).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 512]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let args = Health {
            config: Some(config),
            json: false,
        };
        let mut stdout = Vec::new();
        let result = health(&args, &mut stdout);
        serving.join().unwrap();
        assert_eq!(result.is_ok(), stdout == b"the service is healthy\n");
        result
    }

    #[test]
    fn only_a_healthy_service_ends_it_with_success() {
        answered("HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let full = answered("HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert_eq!(full.exit, Exit::Failed);
        assert!(full.message.ends_with("it answers 503"), "{full:?}");
        let foreign = answered("220 mail.example.com ESMTP").unwrap_err();
        assert_eq!(foreign.exit, Exit::Unreachable);
    }
}
