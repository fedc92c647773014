//! Wrong usage: clap's errors as one line, with what helps as the hint.

use std::ffi::OsString;
use std::io::Write;

use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{Cli, CliError, Exit};

/// Prints help or version where the arguments ask for it; any other error of clap is wrong usage.
pub(super) fn usage_error(
    error: &clap::Error,
    args: &[OsString],
    stdout: &mut dyn Write,
) -> Result<(), CliError> {
    let text = error.render();
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // A closed standard output is no error: its reader has seen enough.
        let _ = write!(stdout, "{text}");
        return Ok(());
    }
    let message = if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        "no command is given".to_owned()
    } else {
        reason(&text.to_string())
    };
    let command = command(args);
    let help = format!("{command} --help tells more");
    Err(CliError {
        exit: Exit::Usage,
        message,
        hint: match suggestion(error, args, &command) {
            Some(suggestion) => format!("{suggestion}; {help}"),
            None => help,
        },
    })
}

/// Returns clap's error in one line: its first, with the list that follows where it announces one.
fn reason(text: &str) -> String {
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default();
    let first = line.strip_prefix("error: ").unwrap_or(line);
    let named: Vec<&str> = lines
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    if named.is_empty() {
        first.to_owned()
    } else {
        format!("{first} {}", named.join(" "))
    }
}

/// Returns the command that the arguments name, such as `atcomm contacts accept`.
fn command(args: &[OsString]) -> String {
    let mut here = Cli::command();
    let mut words = vec![here.get_name().to_owned()];
    for arg in args.iter().skip(1).filter_map(|arg| arg.to_str()) {
        if let Some(next) = here.find_subcommand(arg) {
            words.push(next.get_name().to_owned());
            here = next.clone();
        } else if !arg.starts_with('-') {
            break;
        }
    }
    words.join(" ")
}

/// Returns what was probably meant.
fn suggestion(error: &clap::Error, args: &[OsString], command: &str) -> Option<String> {
    let named = |kind| match error.get(kind)? {
        ContextValue::String(one) => Some(one.clone()),
        ContextValue::Strings(several) => several.first().cloned(),
        _ => None,
    };
    let near = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ];
    let unknown = named(ContextKind::InvalidArg);
    if error.kind() == ErrorKind::UnknownArgument
        && let Some(flag) = &unknown
    {
        if is_before_command(flag, args) {
            return Some(format!("flags come after the command: {command} {flag}"));
        }
        if command == "atcomm send" && !flag.starts_with('-') {
            return Some("put the message in quotes".to_owned());
        }
    }
    let meant = near.into_iter().find_map(named)?;
    Some(format!("did you mean {meant}?"))
}

/// Whether a flag stands before the command.
fn is_before_command(flag: &str, args: &[OsString]) -> bool {
    let root = Cli::command();
    let mut words = args.iter().skip(1).filter_map(|arg| arg.to_str());
    let before = words
        .by_ref()
        .take_while(|word| root.find_subcommand(word).is_none())
        .collect::<Vec<_>>();
    let is_it = |word: &&str| word.split('=').next() == Some(flag);
    before.len() + 1 < args.len() && before.iter().any(is_it)
}
