//! The documentation: its links, the tests that it names, the length of the README and the
//! conversation that it quotes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::source::{rust_files, top};

/// Longest README, in lines: a door, not the house.
const MAX_README: usize = 150;

/// Folders of the project that hold documents, not searched below.
const FOLDERS: [&str; 6] = ["", "docs", "deploy", "fixtures", "tests/network", "fuzz"];

/// What stands before the lines of the conversation in the README, and before the whole of it.
const QUOTED: &str = "<!-- lines of the conversation in docs/using.md; a test compares them -->";
const CONVERSATION: &str = "<!-- what `make demo` prints; a test compares it -->";

/// Returns the documents, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let files = FOLDERS.iter().flat_map(|folder| {
        let entries = std::fs::read_dir(top().join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    files
        .filter(|path| path.extension().is_some_and(|ending| ending == "md"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

fn document(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap()
}

/// Returns a document without its blocks of code between fences.
fn without_blocks(text: &str) -> String {
    let mut is_code = false;
    let prose = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    prose.flat_map(|line| [line, "\n"]).collect()
}

/// Returns the targets of the links of a document.
fn links(text: &str) -> Vec<String> {
    let prose = without_blocks(text);
    // Every second piece between backticks is code.
    let prose: String = prose.split('`').step_by(2).collect();
    let targets = prose.split("](").skip(1);
    targets
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .collect()
}

/// Returns the fragments by which the headings of a document are linked, as code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for line in without_blocks(text).lines() {
        let title = line.trim_start_matches('#');
        let (true, Some(title)) = (line.starts_with('#'), title.strip_prefix(' ')) else {
            continue;
        };
        let kept = title.to_lowercase();
        let kept = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let anchor: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let again = (1..).map(|n| format!("{anchor}-{n}"));
        let fresh = std::iter::once(anchor.clone()).chain(again);
        all.extend(fresh.into_iter().find(|one| !all.contains(one)));
    }
    all
}

/// Returns what is wrong with a link in the document at `path`.
fn fault(path: &Path, text: &str, link: &str) -> Option<String> {
    if ["https://", "http://", "mailto:"]
        .iter()
        .any(|scheme| link.starts_with(scheme))
    {
        return None;
    }
    let (file, anchor) = match link.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (link, None),
    };
    let (target, text) = if file.is_empty() {
        (path.to_owned(), text.to_owned())
    } else {
        let target = path.parent().unwrap().join(file);
        if !target.exists() {
            return Some(format!("{}: no file for {link}", path.display()));
        }
        let text = std::fs::read_to_string(&target).unwrap_or_default();
        (target, text)
    };
    let is_known = anchor.is_none_or(|anchor| anchors(&text).contains(anchor));
    (!is_known).then(|| {
        format!(
            "{}: no heading in {} for {link}",
            path.display(),
            target.display()
        )
    })
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = documents();
    let faults: Vec<String> = documents
        .iter()
        .flat_map(|(path, text)| {
            let links = links(text);
            links
                .iter()
                .filter_map(|link| fault(path, text, link))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
    let all: usize = documents.iter().map(|(_, text)| links(text).len()).sum();
    assert!(all > 100, "only {all} links found");
}

#[test]
fn the_readme_is_short_and_quotes_the_conversation() {
    let readme = document("README.md");
    let lines = readme.lines().count();
    assert!(lines <= MAX_README, "README.md has {lines} lines");
    let block = |text: &str, marker: &str| -> Vec<String> {
        let (_, rest) = text.split_once(marker).expect("the marker");
        let (_, rest) = rest.split_once("```console\n").expect("its beginning");
        let (block, _) = rest.split_once("```\n").expect("its end");
        block.lines().map(str::to_owned).collect()
    };
    let whole = block(&document("docs/using.md"), CONVERSATION);
    let quoted = block(&readme, QUOTED);
    assert!(quoted.len() > 10, "{quoted:?}");
    let mut rest = whole.iter();
    for line in &quoted {
        assert!(
            rest.any(|one| one == line),
            "not in the conversation, or not in this order: {line}"
        );
    }
}

/// Returns the names of all tests.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["tests", "src", "crates"] {
        for path in rust_files(&top().join(folder)) {
            let text = std::fs::read_to_string(&path).unwrap();
            let (mut is_next, mut is_macro) = (false, false);
            for line in text.lines() {
                let code = line.trim_start();
                if code.starts_with("#[test]") || code.starts_with("#[tokio::test") {
                    is_next = true;
                } else if line.starts_with("in_both_") {
                    is_macro = true;
                } else if line == "}" {
                    is_macro = false;
                } else if let Some((_, name)) = code.split_once("fn ")
                    && (is_next || is_macro)
                {
                    names.extend(name.split_once('(').map(|(name, _)| name.to_owned()));
                    is_next = false;
                }
            }
        }
    }
    names
}

#[test]
fn each_row_of_the_threat_model_names_tests_that_exist() {
    let page = document("docs/verification.md");
    let (_, model) = page.split_once("\n## Threat model\n").unwrap();
    let (model, _) = model.split_once("\n## ").unwrap();
    let tests = tests();
    let rows = model
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| who |"));
    let mut count = 0;
    for row in rows {
        let (_, shown) = row
            .trim_end_matches([' ', '|'])
            .rsplit_once(" | ")
            .expect("a last column");
        let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test shows: {row}");
        for name in named {
            assert!(tests.contains(name), "there is no test {name}: {row}");
        }
        count += 1;
    }
    assert!(count > 15, "only {count} rows found");
}

#[test]
fn links_headings_and_tests_are_found() {
    let text = "# A `b`: c!\n## Same\n## Same\n[x](a.md#b) `[y](no)`\n```\n# no\n[z](no)\n```\n[w\nv](#same-1)\n";
    assert_eq!(links(text), ["a.md#b", "#same-1"]);
    let expected = ["a-b-c", "same", "same-1"].map(str::to_owned);
    assert_eq!(anchors(text), BTreeSet::from(expected));
    let path = top().join("README.md");
    for (link, is_good) in [
        ("#same-1", true),
        ("#same-2", false),
        ("docs/glossary.md", true),
        ("docs/glossary.md#retired-words", true),
        ("docs/glossary.md#no-words", false),
        ("docs/none.md", false),
        ("https://example.com/none", true),
    ] {
        assert_eq!(fault(&path, text, link).is_none(), is_good, "{link}");
    }
    let tests = tests();
    assert!(tests.contains("links_headings_and_tests_are_found"));
    assert!(tests.contains("a_network_behind_tls_is_followed_and_resolved"));
    assert!(!tests.contains("anchors"));
}
