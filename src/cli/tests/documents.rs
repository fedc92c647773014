//! The commands and configurations that the documentation shows are understood by the program.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use super::*;
use crate::config::Overrides;

fn documents() -> Vec<(PathBuf, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = std::fs::read_dir(top.join("docs")).unwrap();
    let mut paths: Vec<PathBuf> = pages.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    paths.extend(["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(|name| top.join(name)));
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path, text)
    };
    paths.into_iter().map(read).collect()
}

/// Returns the words of a command line up to what is the shell's: a comment, a pipe, a redirection
/// or a second command.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![];
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, '|' | '>' | '<' | '&' | ';') => break,
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Returns the calls of the program in a text: in lines of blocks of code, after a prompt or not,
/// and in code within sentences. Headings and links to them are no calls.
fn calls(text: &str) -> Vec<String> {
    let mut calls = Vec::new();
    let mut prose = String::new();
    let mut is_block = false;
    for line in text.lines() {
        let code = line.trim_start();
        is_block ^= code.starts_with("```");
        if is_block || line.starts_with("    ") {
            let typed = code.split_once("$ ").map_or(code, |(_, typed)| typed);
            let typed = typed.strip_prefix("sudo ").unwrap_or(typed);
            calls.extend(typed.starts_with("atcomm ").then(|| typed.to_owned()));
        } else if !line.starts_with('#') {
            prose.push_str(&line.replace("[`", "[").replace("`](", "]("));
            prose.push(' ');
        }
    }
    let spans = prose.split('`').skip(1).step_by(2).map(str::trim);
    calls.extend(
        spans
            .filter(|span| span.starts_with("atcomm "))
            .map(str::to_owned),
    );
    calls
}

/// Whether the program understands a call. One that stands for others may lack arguments, and may
/// end in `…` or `...`.
fn is_understood(call: &str) -> bool {
    let mut words = words(call);
    words.retain(|word| word != "…" && word != "...");
    match Cli::try_parse_from(&words) {
        Ok(_) => true,
        Err(error) => matches!(
            error.kind(),
            ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::MissingRequiredArgument
                | ErrorKind::MissingSubcommand
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        ),
    }
}

#[test]
fn commands_in_the_documentation_exist_with_their_flags() {
    let mut count = 0;
    let mut faults = Vec::new();
    for (path, text) in documents() {
        for call in calls(&text) {
            count += 1;
            if !is_understood(&call) {
                faults.push(format!("{}: {call}", path.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(count > 50, "only {count} commands found");
}

#[test]
fn configurations_in_the_documentation_are_accepted() {
    let mut count = 0;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("atcomm.toml");
    for (path, text) in documents() {
        for block in text.split("```toml\n").skip(1) {
            let (block, _) = block.split_once("```").unwrap();
            std::fs::write(&file, block).unwrap();
            let read = Config::load(Some(&file), &Overrides::default());
            assert!(read.is_ok(), "{}: {block}: {read:?}", path.display());
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn commands_are_found_and_wrong_ones_refused() {
    let text = "Run `atcomm whoami` or\n`atcomm\nkeys rotate`; `cargo atcomm`.\n\n    atcomm send bob 'a # b' # c\n\n\
                ```console\nalice$ atcomm receive --json | jq\n(exit code 3)\n```\n";
    let found = calls(text);
    assert_eq!(
        found,
        [
            "atcomm send bob 'a # b' # c",
            "atcomm receive --json | jq",
            "atcomm whoami",
            "atcomm keys rotate"
        ]
    );
    assert_eq!(words(&found[0]), ["atcomm", "send", "bob", "a # b"]);
    assert_eq!(words(&found[1]), ["atcomm", "receive", "--json"]);
    assert!(found.iter().all(|call| is_understood(call)));
    assert!(is_understood("atcomm enroll …"));
    for wrong in [
        "atcomm sned bob",
        "atcomm send --loud bob",
        "atcomm keys turn",
        "atcomm receive --limit none",
    ] {
        assert!(!is_understood(wrong), "{wrong}");
    }
}
