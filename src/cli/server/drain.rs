//! `atcomm server drain`: the mediator retires.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::super::output::show;
use super::super::{CliError, ServiceFlags};
use crate::server::retire_mediator;
use atcomm_proto::clock::Clock;

/// `atcomm server drain`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Drain {
    /// Days for which messages are still taken
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u16).range(0..=3650))]
    days: u16,
    /// Go on after all
    #[arg(long, conflicts_with = "days")]
    cancel: bool,
    #[command(flatten)]
    service: ServiceFlags,
}

/// Has the mediator retire, or go on.
pub(super) fn run(args: &Drain, stdout: &mut dyn Write) -> Result<(), CliError> {
    let days = Duration::from_secs(u64::from(args.days) * 24 * 3600);
    let end = (!args.cancel).then(|| Clock::system().now().plus(days));
    retire_mediator(&args.service.data_dir()?, end)?;
    let retires_at = end.map(|end| end.to_string());
    let answer = json!({"retiresAt": retires_at});
    show(
        args.service.json,
        stdout,
        &answer,
        |out| match &retires_at {
            Some(end) => {
                writeln!(
                    out,
                    "the mediator takes messages until {end}, and no new accounts"
                )?;
                writeln!(out, "its accounts are told within the next minutes")
            }
            None => writeln!(out, "the mediator goes on"),
        },
    )
}
