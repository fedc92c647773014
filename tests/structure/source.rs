//! The crates of the workspace as text: their files, modules and ranks, and the files that a file
//! imports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A crate of the workspace.
pub(super) struct Crate {
    /// The name in its manifest.
    pub(super) name: String,
    pub(super) manifest: String,
    pub(super) files: Vec<Source>,
    /// The rank of each module below the root; empty where the root states none.
    pub(super) ranks: BTreeMap<String, u32>,
}

/// A file of a crate.
pub(super) struct Source {
    /// Below the top of the workspace.
    pub(super) path: PathBuf,
    /// The path of the module: `["net", "dns"]`; empty for the crate's root.
    pub(super) module: Vec<String>,
    pub(super) text: String,
    /// Without comments.
    pub(super) code: String,
    pub(super) is_test: bool,
}

/// The top of the workspace.
pub(super) fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Crate {
    /// The crates of the workspace: the program, then those of `crates/` by name.
    pub(super) fn all() -> Vec<Self> {
        let mut folders: Vec<PathBuf> = std::fs::read_dir(top().join("crates"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.join("Cargo.toml").is_file())
            .collect();
        folders.sort();
        folders.insert(0, top().to_owned());
        folders.iter().map(|folder| Self::read(folder)).collect()
    }

    fn read(folder: &Path) -> Self {
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let package = manifest.split_once("[package]").expect("a package").1;
        let name = package.split_once("name = \"").unwrap().1;
        let name = name.split_once('"').unwrap().0.to_owned();
        let src = folder.join("src");
        let files = rust_files(&src).into_iter().map(|path| {
            let below = path.strip_prefix(&src).unwrap().with_extension("");
            let mut module: Vec<String> = below
                .iter()
                .map(|name| name.to_string_lossy().into_owned())
                .collect();
            if ["lib", "mod"].contains(&module.last().unwrap().as_str()) {
                module.pop();
            }
            Source::read(&path, module)
        });
        Self {
            files: files.collect(),
            ranks: ranks(&std::fs::read_to_string(src.join("lib.rs")).unwrap()),
            name,
            manifest,
        }
    }

    /// The files that each product file of the crate imports, by `use` declarations: the file
    /// that a path names, and the file that defines the item where the first re-exports it.
    pub(super) fn imports(&self) -> BTreeMap<&[String], BTreeSet<&[String]>> {
        let product = self.files.iter().filter(|file| !file.is_test);
        let files: BTreeMap<&[String], Vec<Vec<String>>> = product
            .map(|file| (file.module.as_slice(), uses(file.product())))
            .collect();
        let mut found = BTreeMap::new();
        for (module, paths) in &files {
            let targets: &mut BTreeSet<&[String]> = found.entry(*module).or_default();
            for path in paths {
                let Some((named, item)) = locate(&files, module, path) else {
                    continue;
                };
                targets.insert(named);
                if let Some(item) = item.first() {
                    targets.extend(defining(&files, named, item, 0));
                }
            }
            targets.remove(module);
        }
        found
    }
}

impl Source {
    /// Reads a file as `module`; a module named `tests` or `testing` anywhere makes it a test.
    pub(super) fn read(path: &Path, module: Vec<String>) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        Self {
            path: path.strip_prefix(top()).unwrap().to_owned(),
            is_test: module.iter().any(|name| name == "tests"),
            code: without_comments(&text),
            module,
            text,
        }
    }

    /// The code that is built without tests, which stand last in a file.
    pub(super) fn product(&self) -> &str {
        if self.is_test {
            return "";
        }
        let end = self.code.find("#[cfg(test)]\nmod tests {");
        &self.code[..end.unwrap_or(self.code.len())]
    }

    /// The module below the root; empty for the root.
    pub(super) fn top_module(&self) -> &str {
        self.module.first().map_or("", String::as_str)
    }
}

/// All Rust files below a folder, sorted.
pub(super) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
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
    found
}

/// The code without the lines that are comments.
pub(super) fn without_comments(text: &str) -> String {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    code.fold(String::new(), |all, line| all + line + "\n")
}

/// The rank of each module: `// 4` in the root stands above the modules of rank 4.
fn ranks(root: &str) -> BTreeMap<String, u32> {
    let mut ranks = BTreeMap::new();
    let mut rank = None;
    for line in root.lines() {
        if let Some(Ok(number)) = line.strip_prefix("// ").map(str::parse) {
            assert!(
                rank.is_none_or(|before| before < number),
                "ranks rise: {line}"
            );
            rank = Some(number);
        } else if let (Some(module), Some(rank)) = (module_of(line), rank) {
            ranks.insert(module.to_owned(), rank);
        }
    }
    ranks
}

/// The module that a line of the root declares, but for the tests' own.
fn module_of(line: &str) -> Option<&str> {
    let declared = line.strip_prefix("pub ").unwrap_or(line);
    let module = declared.strip_prefix("mod ")?.strip_suffix(';')?;
    (module != "testing").then_some(module)
}

/// The paths of all `use` declarations, one per imported name, without `as`.
pub(super) fn uses(code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut statement = String::new();
    for line in code.lines().map(str::trim) {
        if statement.is_empty() {
            let declared = line.strip_prefix("pub").map_or(line, |rest| {
                let rest = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'));
                rest.map_or(&line[3..], |(_, rest)| rest).trim_start()
            });
            let Some(path) = declared.strip_prefix("use ") else {
                continue;
            };
            statement.push_str(path);
        } else {
            statement.push_str(line);
        }
        if let Some(tree) = statement.strip_suffix(';') {
            expand(tree, &[], &mut found);
            statement.clear();
        }
    }
    found
}

/// Adds the paths of a tree such as `a::{b, c::{D, E}}` below `prefix`.
fn expand(tree: &str, prefix: &[String], found: &mut Vec<Vec<String>>) {
    let mut depth = 0;
    let branches = tree.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for branch in branches.map(str::trim).filter(|branch| !branch.is_empty()) {
        let (path, group) = branch.split_once('{').unwrap_or((branch, ""));
        let path = path.split(" as ").next().unwrap_or(path);
        let names = path
            .split("::")
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let path: Vec<String> = prefix
            .iter()
            .cloned()
            .chain(names.map(str::to_owned))
            .collect();
        if group.is_empty() {
            found.push(path);
        } else {
            expand(group.trim_end_matches('}').trim(), &path, found);
        }
    }
}

/// The file that a path names as seen from a module, and what is left of the path: an item.
fn locate<'a, 'p>(
    files: &BTreeMap<&'a [String], Vec<Vec<String>>>,
    module: &'a [String],
    path: &'p [String],
) -> Option<(&'a [String], &'p [String])> {
    let mut base = module.to_vec();
    let mut rest = path;
    match rest.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &rest[1..];
        }
        "self" | "super" => {
            while let Some(name @ ("self" | "super")) = rest.first().map(String::as_str) {
                if name == "super" {
                    base.pop();
                }
                rest = &rest[1..];
            }
        }
        _ => {
            let child = [module, &rest[..1]].concat();
            files.get_key_value(child.as_slice())?;
        }
    }
    while let Some(name) = rest.first() {
        let child = [base.as_slice(), std::slice::from_ref(name)].concat();
        if !files.contains_key(child.as_slice()) {
            break;
        }
        base = child;
        rest = &rest[1..];
    }
    let (named, _) = files.get_key_value(base.as_slice())?;
    Some((named, rest))
}

/// The file whose item a file re-exports by this name, if it does.
fn defining<'a>(
    files: &BTreeMap<&'a [String], Vec<Vec<String>>>,
    module: &'a [String],
    item: &String,
    depth: usize,
) -> Option<&'a [String]> {
    /// Longest chain of re-exports.
    const MAX_CHAIN: usize = 6;
    let path = files[module]
        .iter()
        .find(|path| path.last() == Some(item))?;
    let (named, rest) = locate(files, module, path)?;
    if named == module || depth == MAX_CHAIN {
        return None;
    }
    let deeper = rest
        .first()
        .and_then(|item| defining(files, named, item, depth + 1));
    Some(deeper.unwrap_or(named))
}

/// Groups of files that import each other in a circle. A module and the modules that it contains
/// are one thing seen from without, so imports between them are no part of a circle.
pub(super) fn circles<'a>(
    imports: &BTreeMap<&'a [String], BTreeSet<&'a [String]>>,
) -> Vec<BTreeSet<&'a [String]>> {
    let others = |from: &'a [String]| {
        let targets = imports.get(from).into_iter().flatten();
        targets
            .copied()
            .filter(move |to| !from.starts_with(to) && !to.starts_with(from))
    };
    let reached = |from: &'a [String]| {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&[String]> = others(from).collect();
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(others(next));
            }
        }
        reached
    };
    let reach: BTreeMap<&[String], BTreeSet<&[String]>> =
        imports.keys().map(|from| (*from, reached(from))).collect();
    let mut found: Vec<BTreeSet<&[String]>> = Vec::new();
    for (from, to) in &reach {
        if to.contains(from) && !found.iter().any(|circle| circle.contains(from)) {
            let members = to.iter().filter(|other| {
                let back = reach.get(*other);
                back.is_some_and(|back| back.contains(from))
            });
            found.push(members.copied().collect());
        }
    }
    found
}
