//! Quotes in the guide: its code occurs in the programs, and its JSON is valid as announced.

use std::fs;

use serde_json::{Value, json};

use crate::didcomm::{Library, Script};
use crate::lexicon::assert_valid;
use crate::network::root;

/// A fenced block of the guide.
struct Block {
    /// The number of its first line.
    line: usize,
    /// The language that the fence names.
    language: String,
    /// The comment on the line before the fence, which names the lexicon or schema of the content.
    says: String,
    text: String,
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn blocks(guide: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut open = false;
    let mut before = "";
    for (number, line) in guide.lines().enumerate() {
        match line.strip_prefix("```") {
            Some("") => open = false,
            Some(language) => {
                open = true;
                let says = before.strip_prefix("<!-- ").unwrap_or_default();
                found.push(Block {
                    line: number + 2,
                    language: language.to_owned(),
                    says: says.trim_end_matches(" -->").to_owned(),
                    text: String::new(),
                });
            }
            None if open => {
                let block = found.last_mut().expect("an open block");
                block.text.push_str(line);
                block.text.push('\n');
            }
            None => before = line,
        }
    }
    assert!(!open, "a block is not closed");
    found
}

/// Greatest indentation in the programs; the guide shows code without indentation.
const DEEPEST: usize = 24;

/// Returns whole lines with this indentation, as they stand in a file.
fn indented(text: &str, depth: usize) -> String {
    let lines = text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("{:depth$}{line}\n", ""),
    });
    format!("\n{}", lines.collect::<String>())
}

#[test]
fn the_code_in_the_guide_is_that_of_the_programs() {
    let programs = [
        ("python", "docs/examples/python/atcomm_client.py"),
        ("typescript", "docs/examples/typescript/client.ts"),
    ]
    .map(|(language, path)| (language, path, read(path)));
    let mut seen = [0; 2];
    for block in blocks(&read("docs/client-guide.md")) {
        if block.language == "json" {
            continue;
        }
        let known = programs
            .iter()
            .position(|(language, ..)| *language == block.language);
        let Some(index) = known else {
            panic!("line {}: a block of no program", block.line);
        };
        let (_, path, program) = &programs[index];
        assert!(
            (0..=DEEPEST).any(|depth| program.contains(&indented(&block.text, depth))),
            "line {}: this is not in {path}:\n{}",
            block.line,
            block.text
        );
        seen[index] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

#[test]
fn the_json_in_the_guide_is_as_its_lexicon_or_schema_says() {
    let schemas = root().join("schemas/didcomm");
    let arguments = [schemas.to_str().expect("text")];
    let schemas = Script::start(Library::Messaging, "schemas.py", &arguments);
    let mut answers = 0;
    for block in blocks(&read("docs/client-guide.md")) {
        if block.language != "json" {
            continue;
        }
        let value: Value = serde_json::from_str(&block.text)
            .unwrap_or_else(|e| panic!("line {}: {e}", block.line));
        let says: Vec<_> = block.says.split(' ').collect();
        match says[..] {
            ["lexicon", nsid, kind] => {
                assert_valid(nsid, kind, &value);
                answers += usize::from(kind == "output");
            }
            ["schema", schema] => {
                // A message is valid by its own schema and by the schema of all messages.
                assert_eq!(schemas_of(&value), schema, "line {}", block.line);
                schemas.op("check", json!({"schema": schema, "instance": value}));
            }
            ["json"] => {}
            _ => panic!(
                "line {}: {:?} does not say what it is",
                block.line, block.says
            ),
        }
    }
    assert!(answers > 0, "no answer of the directory is shown");
}

/// Returns the schema of a message by its type.
fn schemas_of(message: &Value) -> String {
    let kind = message["type"].as_str().expect("a type");
    match kind.strip_prefix("https://didcomm.org/") {
        Some(kind) => format!("{}.json", kind.replace('/', ".")),
        None => "message.json".to_owned(),
    }
}

/// Links to files of the repository exist.
#[test]
fn the_links_of_the_guide_lead_somewhere() {
    let guide = read("docs/client-guide.md");
    let headings: Vec<String> = guide
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            words
                .replace(' ', "-")
                .replace(|c: char| !c.is_alphanumeric() && c != '-', "")
        })
        .collect();
    for link in guide.split("](").skip(1) {
        let link = link.split(')').next().unwrap_or_default();
        if link.starts_with("https://") {
            continue;
        }
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = root().join("docs").join(path);
        assert!(target.exists(), "{link}");
        let known = headings.iter().any(|heading| heading == anchor);
        assert!(anchor.is_empty() || !path.is_empty() || known, "{link}");
    }
}
