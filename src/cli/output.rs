//! Data on standard output: text, or JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::terminal::json as json_text;
use super::{CliError, Exit};

/// Writes an answer, as JSON or by `render_text`.
pub(super) fn show<T: Serialize>(
    json: bool,
    stdout: &mut dyn Write,
    answer: &T,
    render_text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CliError> {
    write(json, stdout, answer, render_text).or_else(unwritten)
}

/// Writes an answer as [`show`] does, and returns any error, for commands that remember what was
/// shown.
pub(super) fn write<T: Serialize>(
    json: bool,
    stdout: &mut dyn Write,
    answer: &T,
    render_text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    if json {
        let text = serde_json::to_string_pretty(answer)?;
        writeln!(stdout, "{}", json_text(&text))?;
    } else {
        render_text(stdout)?;
    }
    stdout.flush()
}

/// Ignores that standard output is closed: its reader has seen enough. Any other error, such as a full
/// disk, fails the command.
pub(super) fn unwritten(error: io::Error) -> Result<(), CliError> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(());
    }
    Err(CliError {
        exit: Exit::Failed,
        message: format!("cannot write the answer: {error}"),
        hint: "look at where standard output goes".to_owned(),
    })
}
