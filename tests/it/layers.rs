//! The shape of the source: ranks of modules, where libraries may be used, sizes and names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Greatest length of a file, in lines.
const MAX_LINES: usize = 600;

/// Greatest length of `main.rs`, in lines: the program is in the library.
const MAX_MAIN: usize = 60;

/// Names that do not tell the contents of a module.
const EMPTY_NAMES: [&str; 8] = [
    "util", "utils", "common", "helper", "helpers", "types", "prelude", "misc",
];

/// Libraries that only the named modules use, except in tests.
const HOMES: [(&str, &[&str]); 23] = [
    ("rusqlite", &["store"]),
    ("axum", &["http"]),
    ("tower", &["http"]),
    ("reqwest", &["net"]),
    ("tungstenite", &["net"]),
    // `http` uses it only to learn why a WebSocket of axum ended, which axum does not report.
    ("tokio_tungstenite", &["net", "http"]),
    ("tokio_rustls", &["net"]),
    ("rustls", &["net"]),
    ("hickory_resolver", &["net"]),
    ("shrike", &["key", "proof"]),
    ("askar_crypto", &["didcomm"]),
    ("figment", &["config"]),
    ("metrics_exporter_prometheus", &["server"]),
    ("tracing_subscriber", &["cli"]),
    ("indicatif", &["cli"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("rpassword", &["cli"]),
    ("terminal_size", &["cli"]),
    ("unicode_width", &["cli"]),
    ("age", &["client"]),
    ("tempfile", &["durable"]),
];

/// A file of `src`.
struct Source {
    path: PathBuf,
    /// The module below the root to which the file belongs.
    module: String,
    /// The text without comments.
    code: String,
    lines: usize,
    is_test: bool,
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Returns all files of all modules, without the root and `main.rs`.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![src()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.retain(|path| *path != src().join("lib.rs") && *path != src().join("main.rs"));
    found.into_iter().map(read).collect()
}

fn read(path: PathBuf) -> Source {
    let text = std::fs::read_to_string(&path).unwrap();
    let path = path.strip_prefix(src()).unwrap().to_owned();
    let names: Vec<String> = path
        .with_extension("")
        .iter()
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    Source {
        module: names[0].clone(),
        is_test: names
            .iter()
            .any(|name| name == "tests" || name == "testing"),
        code: without_comments(&text),
        lines: text.lines().count(),
        path,
    }
}

fn without_comments(text: &str) -> String {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.fold(String::new(), |all, line| all + line + "\n")
}

impl Source {
    /// Returns the code without its tests, which stand last in a file.
    fn product(&self) -> &str {
        if self.is_test {
            return "";
        }
        let end = self.code.find("#[cfg(test)]\nmod tests {");
        &self.code[..end.unwrap_or(self.code.len())]
    }
}

/// Returns the rank of each module: `// 4` in the root stands above the modules of rank 4.
fn ranks() -> BTreeMap<String, u32> {
    let mut ranks = BTreeMap::new();
    let mut rank = None;
    for line in std::fs::read_to_string(src().join("lib.rs"))
        .unwrap()
        .lines()
    {
        if let Some(number) = line.strip_prefix("// ") {
            let number = number.parse().expect("a comment in the root is a rank");
            assert!(
                rank.is_none_or(|before| before < number),
                "ranks rise: {line}"
            );
            rank = Some(number);
        } else if let Some(module) = line.strip_prefix("pub mod ") {
            let module = module.trim_end_matches(';').to_owned();
            ranks.insert(module, rank.expect("a rank above the first module"));
        }
    }
    ranks
}

/// Returns the text after each `name::` that begins a path.
fn paths<'c>(code: &'c str, name: &str) -> impl Iterator<Item = &'c str> {
    let start = format!("{name}::");
    code.match_indices(&start)
        .filter(|(at, _)| {
            let before = code[..*at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
        })
        .map(|(at, found)| &code[at + found.len()..])
        .collect::<Vec<_>>()
        .into_iter()
}

fn uses(code: &str, library: &str) -> bool {
    paths(code, library).next().is_some() || code.contains(&format!("use {library};"))
}

/// Returns the modules below the root that code imports: `crate::a::B` and `crate::{a, b::C}`.
fn imports(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        let text = text.trim_start();
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut found = BTreeSet::new();
    for rest in paths(code, "crate") {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut begins = true;
        for (at, c) in group.char_indices() {
            if begins && depth == 0 && c != '}' {
                found.insert(name(&group[at..]));
            }
            begins = c == ',';
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found.remove("");
    found
}

#[test]
fn every_module_has_a_rank_and_imports_lower_ones() {
    let ranks = ranks();
    let sources = sources();
    let present: BTreeSet<&String> = sources.iter().map(|source| &source.module).collect();
    assert_eq!(
        present,
        ranks.keys().collect(),
        "modules in src, and in the root with a rank"
    );
    for source in &sources {
        for other in imports(&source.code) {
            let rank = ranks.get(&other);
            let fits = other == source.module || rank.is_some_and(|r| *r < ranks[&source.module]);
            assert!(
                fits,
                "{}: crate::{other} has rank {rank:?}",
                source.path.display()
            );
        }
    }
}

#[test]
fn libraries_stay_where_they_belong() {
    for source in sources() {
        let (module, path, code) = (
            source.module.as_str(),
            source.path.display(),
            source.product(),
        );
        for (library, homes) in HOMES {
            assert!(
                homes.contains(&module) || !uses(code, library),
                "{path} uses {library}"
            );
        }
    }
}

#[test]
fn files_are_short_and_names_say_something() {
    for source in sources() {
        let path = source.path.display();
        assert!(
            source.lines <= MAX_LINES,
            "{path} has {} lines",
            source.lines
        );
        for name in source.path.with_extension("").iter() {
            assert!(
                !EMPTY_NAMES.contains(&name.to_str().unwrap()),
                "{path}: {name:?}"
            );
        }
    }
    let main = std::fs::read_to_string(src().join("main.rs")).unwrap();
    assert!(main.lines().count() < MAX_MAIN);
}

#[test]
fn imports_are_found() {
    let code = without_comments(
        "// crate::comment\nuse crate::a::B;\nuse crate::{b, c::{D, E}, f};\nlet x = crate::g::h();\n\
         my_crate::no(); $crate::macro_rules;",
    );
    let found: Vec<String> = imports(&code).into_iter().collect();
    assert_eq!(found, ["a", "b", "c", "f", "g", "macro_rules"]);
    assert!(uses("use axum;", "axum") && uses("x(axum::y)", "axum"));
    assert!(!uses("not_axum::y", "axum") && !uses("my::axum::y", "axum"));
}
