//! The shape of the source: ranks of modules, crates and what they may depend on, where libraries
//! may be used, circles of files, sizes, and words.

// Lints of product code that spare tests look for this attribute.
#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

mod source;

use source::{Crate, Source, circles, rust_files, top, uses, without_comments};

/// Longest file, in lines.
const MAX_LINES: usize = 600;

/// Longest function of the product, in lines.
const MAX_FUNCTION: usize = 60;

/// Longer functions, by file and name, each with its reason.
const LONG_FUNCTIONS: [(&str, &str, &str); 0] = [];

/// Longest `main.rs`, in lines: everything is in the library.
const MAX_MAIN: usize = 60;

/// The programs that show how the client library is used.
const EXAMPLES: &str = "crates/atcomm-client/examples";

/// Longest example, in lines: what a beginner reads in one go.
const MAX_EXAMPLE: usize = 60;

/// Names that say nothing about what a module holds.
const EMPTY_NAMES: [&str; 8] = [
    "util", "utils", "common", "helper", "helpers", "types", "prelude", "misc",
];

/// What each crate may depend on of the others. Cargo refuses circles, this refuses new arrows.
const CRATES: [(&str, &[&str]); 5] = [
    ("atcomm", &["atcomm-proto", "atcomm-net", "atcomm-client"]),
    ("atcomm-client", &["atcomm-proto", "atcomm-net"]),
    ("atcomm-net", &["atcomm-proto"]),
    ("atcomm-proto", &[]),
    ("testkit", &["atcomm-proto", "atcomm-net"]),
];

/// Libraries that belong to few modules, outside of tests: `crate/module`, or a whole crate.
const HOMES: [(&str, &[&str]); 27] = [
    ("rusqlite", &["atcomm/store"]),
    ("axum", &["atcomm/http"]),
    ("plotters", &["atcomm/http"]),
    ("tower", &["atcomm/http"]),
    ("hyper", &["atcomm/http"]),
    ("hyper_util", &["atcomm/http"]),
    ("reqwest", &["atcomm-net/net"]),
    ("tungstenite", &["atcomm-net/net"]),
    ("tokio_tungstenite", &["atcomm-net/net", "atcomm/http"]),
    ("tokio_rustls", &["atcomm-net/net"]),
    ("rustls", &["atcomm-net/net"]),
    ("hickory_resolver", &["atcomm-net/net"]),
    ("shrike", &["atcomm-proto/key", "atcomm-proto/proof"]),
    ("askar_crypto", &["atcomm-proto/didcomm"]),
    ("figment", &["atcomm/config"]),
    ("metrics_exporter_prometheus", &["atcomm/server"]),
    ("tracing_subscriber", &["atcomm/cli"]),
    ("indicatif", &["atcomm/cli"]),
    ("clap", &["atcomm/cli"]),
    ("clap_complete", &["atcomm/cli"]),
    ("clap_mangen", &["atcomm/cli"]),
    ("rpassword", &["atcomm/cli"]),
    ("terminal_size", &["atcomm/cli"]),
    ("unicode_width", &["atcomm/cli"]),
    ("age", &["atcomm-client/wallet"]),
    ("csv", &["atcomm/dataset", "atcomm/cli"]),
    ("parquet", &["atcomm/dataset"]),
];

/// Libraries that the crate without I/O does without.
const IMPURE: [&str; 6] = [
    "tokio",
    "tokio_util",
    "futures_util",
    "quick_cache",
    "reqwest",
    "tracing",
];

/// Crates that the author of a client must not have to build.
const NOT_IN_A_CLIENT: [&str; 6] = [
    "axum",
    "rusqlite",
    "libsqlite3-sys",
    "clap",
    "figment",
    "metrics-exporter-prometheus",
];

/// Comments that are texts of `--help`, an interface like literals, by file and word.
const HELP_TEXTS: [(&str, &str); 4] = [
    ("src/cli.rs", "nobody"),
    ("src/cli.rs", "somebody"),
    ("src/cli/send.rs", "nobody"),
    ("src/cli/whoami.rs", "nobody"),
];

/// Whether the file stands below the rules for the product: `testkit` serves tests.
fn is_product(of: &Crate) -> bool {
    of.name != "testkit"
}

/// What follows `name::` wherever that stands as a path's beginning.
fn paths<'c>(code: &'c str, name: &str) -> impl Iterator<Item = &'c str> {
    let start = format!("{name}::");
    code.match_indices(&start)
        .filter(|(at, _)| {
            let before = code[..*at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '$')
        })
        .map(|(at, found)| &code[at + found.len()..])
        .collect::<Vec<_>>()
        .into_iter()
}

fn mentions(code: &str, library: &str) -> bool {
    paths(code, library).next().is_some() || code.contains(&format!("use {library};"))
}

/// The modules below the root that code names: `crate::a::B`.
fn modules_named(code: &str) -> BTreeSet<String> {
    let name = |rest: &str| -> String {
        rest.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    paths(code, "crate").map(name).collect()
}

#[test]
fn every_module_has_a_rank_and_imports_lower_ones() {
    for of in Crate::all().into_iter().filter(is_product) {
        let ranked = of.files.iter().filter(|file| {
            !["", "main", "testing"].contains(&file.top_module()) && !of.ranks.is_empty()
        });
        let present: BTreeSet<&str> = ranked.clone().map(Source::top_module).collect();
        let known: BTreeSet<&str> = of.ranks.keys().map(String::as_str).collect();
        assert_eq!(
            present, known,
            "{}: modules, and those with a rank",
            of.name
        );
        for file in ranked {
            for other in modules_named(&file.code) {
                let (rank, own) = (of.ranks.get(&other), of.ranks[file.top_module()]);
                let fits = other == file.top_module()
                    || other == "testing"
                    || rank.is_some_and(|rank| *rank < own);
                assert!(
                    fits,
                    "{}: crate::{other} has rank {rank:?}",
                    file.path.display()
                );
            }
        }
    }
}

#[test]
fn crates_depend_on_those_below_them() {
    let allowed = BTreeMap::from(CRATES);
    let crates = Crate::all();
    let names: BTreeSet<&str> = crates.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(names, allowed.keys().copied().collect());
    for of in &crates {
        let (_, rest) = of.manifest.split_once("\n[dependencies]\n").unwrap();
        let section = rest.split("\n[").next().unwrap();
        let ours: BTreeSet<&str> = section
            .lines()
            .filter_map(|line| line.split(['.', ' ']).next())
            .filter(|name| names.contains(name))
            .collect();
        assert_eq!(
            ours,
            allowed[of.name.as_str()].iter().copied().collect(),
            "{}",
            of.name
        );
    }
}

#[test]
fn a_client_builds_no_server() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--package",
            "atcomm-client",
        ])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(top())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let tree: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(
        tree.contains("atcomm-net") && tree.contains("reqwest"),
        "{tree:?}"
    );
    for library in NOT_IN_A_CLIENT {
        assert!(
            !tree.contains(library),
            "{library} is in the tree of atcomm-client"
        );
    }
    println!("{} crates in the tree of atcomm-client", tree.len());
}

#[test]
fn libraries_stay_where_they_belong() {
    for of in Crate::all().iter().filter(|of| is_product(of)) {
        for file in &of.files {
            let module = format!("{}/{}", of.name, file.top_module());
            let (path, code) = (file.path.display(), file.product());
            for (library, homes) in HOMES {
                let is_home = homes.contains(&module.as_str());
                assert!(is_home || !mentions(code, library), "{path} uses {library}");
            }
            for library in IMPURE {
                let is_pure = of.name == "atcomm-proto";
                assert!(
                    !is_pure || !mentions(code, library),
                    "{path} uses {library}"
                );
            }
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    for of in Crate::all() {
        let imports = of.imports();
        let circles: Vec<String> = circles(&imports)
            .iter()
            .map(|circle| {
                let names = circle.iter().map(|module| module.join("::"));
                names.collect::<Vec<_>>().join(", ")
            })
            .collect();
        assert!(circles.is_empty(), "{}: {circles:#?}", of.name);
    }
}

#[test]
fn files_and_functions_are_short_and_names_say_something() {
    let excused = |path: &str, name: &str| {
        let of_file = LONG_FUNCTIONS.iter();
        of_file
            .into_iter()
            .any(|(file, function, _)| *file == path && *function == name)
    };
    let mut faults = Vec::new();
    for file in Crate::all().iter().flat_map(|of| &of.files) {
        let path = file.path.to_str().unwrap();
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{path} has {lines} lines"));
        }
        for name in &file.module {
            assert!(!EMPTY_NAMES.contains(&name.as_str()), "{path}: {name:?}");
        }
        for (name, lines) in functions(file.product()) {
            if lines > MAX_FUNCTION && !excused(path, name) {
                faults.push(format!("{path}: fn {name} has {lines} lines"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap().lines().count();
    assert!(lines(&top().join("src/main.rs")) < MAX_MAIN);
    for example in rust_files(&top().join(EXAMPLES)) {
        assert!(lines(&example) < MAX_EXAMPLE, "{}", example.display());
    }
}

/// The functions of formatted code with their numbers of lines: each ends at the first closing
/// brace that stands as far to the right as its beginning.
fn functions(code: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let begins = |line: &str| {
        let words = ["pub ", "async ", "const ", "pub(super) ", "pub(crate) "];
        let mut rest = line.trim_start();
        while let Some(next) = words.iter().find_map(|word| rest.strip_prefix(word)) {
            rest = next;
        }
        rest.starts_with("fn ")
    };
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| begins(line)) {
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = lines[at..]
            .iter()
            .position(|end| end.strip_prefix(indent) == Some("}"));
        let name = line.split_once("fn ").unwrap().1;
        let name = name.split(['(', '<']).next().unwrap();
        found.extend(end.map(|end| (name, end + 1)));
    }
    found
}

/// The words that `docs/glossary.md` has retired: small ones may be no part of any name or
/// comment, those with a capital are no names of items.
fn retired() -> (BTreeSet<String>, BTreeSet<String>) {
    let glossary = std::fs::read_to_string(top().join("docs/glossary.md")).unwrap();
    let (_, table) = glossary.split_once("\n## Retired words\n").unwrap();
    let cells = table
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" |"))
        .map(|(cell, _)| cell);
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    words
        .map(str::to_owned)
        .partition(|word| word.starts_with(char::is_lowercase))
}

/// The words of a name: `for_asker` and `ForAsker` have two.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if c == '_' || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        was_lower = c.is_lowercase() || c.is_ascii_digit();
        if c != '_' {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
    }
    words
}

/// The names and words of a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|name| !name.is_empty())
}

/// The retired words of a file: small ones in comments and code, items in code. Literals are what
/// the program prints, reads or stores, which is an interface.
fn retired_in(text: &str, (small, items): &(BTreeSet<String>, BTreeSet<String>)) -> Vec<String> {
    let code = without_literals(&without_comments(text));
    let comments: String = text
        .lines()
        .filter(|line| line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    let is_small =
        |name: &&str| small.contains(*name) || words(name).iter().any(|word| small.contains(word));
    let of_metrics = |name: &&str| !name.starts_with("atcomm_");
    let in_comments = names(&comments).filter(is_small).filter(of_metrics);
    let in_code = names(&code).filter(|name| is_small(name) || items.contains(*name));
    in_comments.chain(in_code).map(str::to_owned).collect()
}

/// The code with empty literals of text.
fn without_literals(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find('"') {
        let before = &rest[..at];
        kept.push_str(before);
        rest = &rest[at + 1..];
        if before.ends_with('\'') && rest.starts_with('\'') {
            continue;
        }
        let hashes = before.len() - before.trim_end_matches('#').len();
        let is_raw = before[..before.len() - hashes].ends_with('r');
        let end = if is_raw {
            let close = format!("\"{}", "#".repeat(hashes));
            rest.find(&close).map(|end| end + close.len())
        } else {
            closing_quote(rest)
        };
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    kept + rest
}

/// Where a literal ends, after its closing quote.
fn closing_quote(literal: &str) -> Option<usize> {
    let mut is_escaped = false;
    let at = literal.find(|c| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    });
    at.map(|at| at + 1)
}

#[test]
fn no_retired_word_is_used() {
    let retired = retired();
    assert!(
        retired.0.contains("asker") && retired.1.contains("Front"),
        "{retired:?}"
    );
    let mut texts: Vec<(String, String)> = Vec::new();
    let mut folders: Vec<_> = Crate::all()
        .iter()
        .flat_map(|of| &of.files)
        .map(|file| top().join(&file.path))
        .collect();
    for folder in ["tests/it", "benches", EXAMPLES] {
        folders.extend(rust_files(&top().join(folder)));
    }
    for path in folders {
        let text = std::fs::read_to_string(&path).unwrap();
        texts.push((
            path.strip_prefix(top()).unwrap().display().to_string(),
            text,
        ));
    }
    let faults: Vec<String> = texts
        .iter()
        .filter(|(path, _)| !path.starts_with("tests/structure"))
        .flat_map(|(path, text)| {
            let is_help = |word: &str| HELP_TEXTS.contains(&(path.as_str(), word));
            let found = retired_in(text, &retired).into_iter();
            let found = found.filter(|word| !is_help(word));
            found
                .map(|word| format!("{path}: {word}"))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(
        faults.is_empty(),
        "{} uses of retired words: {faults:#?}",
        faults.len()
    );
}

#[test]
fn the_rules_find_what_they_forbid() {
    let code = without_comments(
        "// crate::comment\nuse crate::a::B;\nlet x = crate::g::h();\nmy_crate::no(); $crate::macro_rules;",
    );
    let found: Vec<String> = modules_named(&code).into_iter().collect();
    assert_eq!(found, ["a", "g"]);
    assert!(mentions("use axum;", "axum") && mentions("x(axum::y)", "axum"));
    assert!(!mentions("not_axum::y", "axum") && !mentions("my::axum::y", "axum"));

    let code = "use a::{b, c::{D as E, F}};\npub(super) use self::{\n    g,\n    h::I,\n};\n";
    let found: Vec<String> = uses(code).iter().map(|path| path.join("::")).collect();
    assert_eq!(
        found,
        ["a::b", "a::c::D", "a::c::F", "self::g", "self::h::I"]
    );

    let code = "impl A {\n    pub fn one(&self) {\n        x\n    }\n}\nfn two() -> A {\n}\n";
    assert_eq!(functions(code), [("one", 3), ("two", 2)]);

    let words = (
        BTreeSet::from(["asker".to_owned()]),
        BTreeSet::from(["Front".to_owned()]),
    );
    let text = "// An asker, in front of atcomm_asker\nstruct Front;\n\
                fn for_asker(a: TheAsker) { print(\"asker\", r#\"an \"asker\"#, '\"', asker) }";
    let found = retired_in(text, &words);
    assert_eq!(found, ["asker", "Front", "for_asker", "TheAsker", "asker"]);
}

#[test]
fn circles_are_found() {
    let module = |name: &str| {
        Source::read(
            &top().join("tests/structure/main.rs"),
            vec![name.to_owned()],
        )
    };
    let file = |name: &str, code: &str| Source {
        code: code.to_owned(),
        ..module(name)
    };
    let of = |files| Crate {
        name: String::new(),
        manifest: String::new(),
        files,
        ranks: BTreeMap::new(),
    };
    // The second reaches the first only through what the third re-exports.
    let three = of(vec![
        file("a", "use super::b::B;\n"),
        file("b", "use crate::c::A;\n"),
        file("c", "pub use crate::a::A;\n"),
    ]);
    let imports = three.imports();
    let found = circles(&imports);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].len(), 3);
    let two = of(vec![
        file("a", "use crate::b::B;\n"),
        file("b", "use std::c;\n"),
    ]);
    assert!(circles(&two.imports()).is_empty());
}
