//! `atcomm man`: manual pages from the descriptions of the commands.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::output::unwritten;
use super::{Cli, CliError, EXIT_CODES, Exit};

/// `atcomm man`.
#[derive(Debug, clap::Args)]
pub(super) struct Pages {
    /// Directory for one page per command [default: the first page to standard output]
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Files of commands that use the wallet.
const WALLET_FILES: &[(&str, &str)] = &[
    (
        "~/.local/share/atcomm/wallet",
        "The wallet: messaging keys, sessions, contacts and mail, for its owner only. Its loss \
         costs the mail that is under way; see atcomm-backup(1).",
    ),
    (
        "FILE of --config",
        "Settings (TOML); the sections client, net and identity are read. \
         deploy/config.example.toml describes every one.",
    ),
];

/// Files of commands that use the service.
const SERVICE_FILES: &[(&str, &str)] = &[
    (
        "~/.local/share/atcomm",
        "The default data directory: directory.db, mailbox.db and mediator-keys.json.",
    ),
    (
        "FILE of --config",
        "Settings (TOML); deploy/config.example.toml describes every one.",
    ),
];

/// Writes the manual: the first page, or one page per command to a directory.
pub(super) fn man(args: &Pages, stdout: &mut dyn Write) -> Result<(), CliError> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let Some(directory) = &args.directory else {
        let page = page(&root, "atcomm").map_err(|error| failed(Path::new("-"), &error))?;
        return stdout
            .write_all(&page)
            .and_then(|()| stdout.flush())
            .or_else(unwritten);
    };
    let mut pages = Vec::new();
    collect(&root, "atcomm", &mut pages);
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
    for (name, command) in pages {
        let path = directory.join(format!("{name}.1"));
        page(command, &name)
            .and_then(|page| std::fs::write(&path, page))
            .map_err(|error| failed(&path, &error))?;
        writeln!(stdout, "{}", path.display()).or_else(unwritten)?;
    }
    Ok(())
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError {
        exit: Exit::Failed,
        message: format!("cannot write {}: {error}", path.display()),
        hint: "name a directory that can be written".to_owned(),
    }
}

/// Adds a command and all below it to `pages`, each with the name of its page.
fn collect<'c>(command: &'c Command, name: &str, pages: &mut Vec<(String, &'c Command)>) {
    pages.push((name.to_owned(), command));
    for below in command.get_subcommands() {
        collect(below, &format!("{name}-{}", below.get_name()), pages);
    }
}

/// Renders the page of one command.
fn page(command: &Command, name: &str) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let shown = command.clone().display_name(name.to_owned());
    let man = Man::new(shown)
        .title(name.to_uppercase())
        .section("1")
        .manual("atcomm");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let below: Vec<_> = command.get_subcommands().collect();
    if !below.is_empty() {
        heading(&mut page, "COMMANDS")?;
        for one in below {
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            item(&mut page, &format!("{name}-{}(1)", one.get_name()), &about)?;
        }
    }
    environment(&mut page, command)?;
    files(&mut page, command)?;
    for block in after(command).split("\n\n") {
        let (title, lines) = block.split_once('\n').unwrap_or((block, ""));
        let title = match title {
            "Exit codes:" => "EXIT STATUS".to_owned(),
            title => title.trim_end_matches(':').to_uppercase(),
        };
        heading(&mut page, &title)?;
        writeln!(page, ".nf")?;
        for line in lines.lines() {
            writeln!(page, "{}", escaped(line.trim_start_matches("  ")))?;
        }
        writeln!(page, ".fi")?;
    }
    if name != "atcomm" {
        heading(&mut page, "SEE ALSO")?;
        writeln!(page, "atcomm(1)")?;
    }
    Ok(page)
}

fn after(command: &Command) -> String {
    let own = command.get_after_help().map(ToString::to_string);
    own.unwrap_or_else(|| EXIT_CODES.to_owned())
}

fn has(command: &Command, flag: &str) -> bool {
    command
        .get_arguments()
        .any(|arg| arg.get_long() == Some(flag))
}

/// Writes the variables of the command's flags and of the secrets that it asks for.
fn environment(page: &mut Vec<u8>, command: &Command) -> io::Result<()> {
    let mut variables = Vec::new();
    for arg in command.get_arguments() {
        if let (Some(variable), Some(flag)) = (arg.get_env(), arg.get_long()) {
            let name = variable.to_string_lossy().into_owned();
            variables.push((name, format!("The same as --{flag}.")));
        }
    }
    for (flag, name, what) in [
        (
            "password-file",
            "ATCOMM_PASSWORD",
            "App password, where --password-file is not given.",
        ),
        (
            "passphrase-file",
            "ATCOMM_PASSPHRASE",
            "Passphrase of the backup, where --passphrase-file is not given.",
        ),
    ] {
        if has(command, flag) {
            variables.push((name.to_owned(), what.to_owned()));
        }
    }
    if has(command, "config") {
        let what = "Any setting of the configuration; http.listen is ATCOMM_HTTP__LISTEN.";
        variables.push(("ATCOMM_*".to_owned(), what.to_owned()));
    }
    if variables.is_empty() {
        return Ok(());
    }
    heading(page, "ENVIRONMENT")?;
    for (name, what) in variables {
        item(page, &name, &what)?;
    }
    Ok(())
}

fn files(page: &mut Vec<u8>, command: &Command) -> io::Result<()> {
    let files = match (has(command, "home"), has(command, "data-dir")) {
        (true, _) => WALLET_FILES,
        (false, true) => SERVICE_FILES,
        (false, false) => return Ok(()),
    };
    heading(page, "FILES")?;
    for (path, what) in files {
        item(page, path, what)?;
    }
    Ok(())
}

fn heading(page: &mut Vec<u8>, title: &str) -> io::Result<()> {
    writeln!(page, ".SH \"{}\"", escaped(title))
}

fn item(page: &mut Vec<u8>, term: &str, text: &str) -> io::Result<()> {
    writeln!(page, ".TP\n\\fB{}\\fR\n{}", escaped(term), escaped(text))
}

/// Escapes a text for roff.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_what_a_new_user_needs() {
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        let mut pages = Vec::new();
        collect(&root, "atcomm", &mut pages);
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for wanted in [
            "atcomm",
            "atcomm-enroll",
            "atcomm-serve",
            "atcomm-keys-rotate",
        ] {
            assert!(names.contains(&wanted), "{wanted} in {names:?}");
        }
        for (name, command) in &pages {
            let text = String::from_utf8(page(command, name).unwrap()).unwrap();
            assert!(text.contains(".SH \"EXIT STATUS\""), "{name}: {text}");
            assert!(text.contains(".SH NAME"), "{name}: {text}");
            assert!(
                has(command, "home") <= text.contains(".SH \"FILES\""),
                "{name}"
            );
            // Every command of the client shows how it is used; parts of one need not.
            let is_part = name.matches('-').count() > 1;
            let shows = text.contains(".SH \"EXAMPLES\"");
            assert!(is_part || has(command, "home") <= shows, "{name}");
        }
    }

    #[test]
    fn roff_does_what_we_mean() {
        assert_eq!(escaped("a\\b --flag"), "a\\eb \\-\\-flag");
        assert_eq!(escaped(".SH"), "\\&.SH");
    }
}
