//! The `atcomm` binary; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let exit = atcomm::cli::run(
        std::env::args_os(),
        &mut std::io::stdout(),
        &mut std::io::stderr(),
    );
    ExitCode::from(exit.code())
}
