//! Data on standard output: text for people, or JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::terminal::json as json_text;
use super::{CliError, Exit};

/// Writes an answer, as JSON or as `people` has it.
pub(super) fn show<T: Serialize>(
    json: bool,
    stdout: &mut dyn Write,
    answer: &T,
    people: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), CliError> {
    let shown = match json {
        true => serde_json::to_string_pretty(answer)
            .map_err(io::Error::from)
            .and_then(|text| writeln!(stdout, "{}", json_text(&text))),
        false => people(stdout),
    };
    shown.and_then(|()| stdout.flush()).or_else(unwritten)
}

/// What cannot be written has nobody who reads it, unless the disk behind it is full.
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
