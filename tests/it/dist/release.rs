//! The release, made of the program that the tests run: linked once more, statically, and packed by
//! `deploy/dist.sh` as `make dist` does it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::SystemTime;

use super::run;
use crate::network::root;

/// The release that all tests share.
static RELEASE: LazyLock<Release> = LazyLock::new(|| Release::make("release"));

/// A folder as `make dist` leaves it.
pub(super) struct Release {
    pub(super) dir: PathBuf,
}

impl Release {
    pub(super) fn shared() -> &'static Self {
        &RELEASE
    }

    fn make(name: &str) -> Self {
        let program = static_program();
        let dir = scratch().join(name);
        run(Command::new("deploy/dist.sh")
            .current_dir(root())
            .env("BINARY", &program)
            .env("DIST", &dir)
            .env("LEVEL", "1")
            .env("CARGO", env!("CARGO")));
        Self { dir }
    }

    /// Returns the only file whose name ends so.
    #[track_caller]
    pub(super) fn file(&self, end: &str) -> PathBuf {
        let mut found = self.files();
        found.retain(|path| path.to_string_lossy().ends_with(end));
        assert_eq!(found.len(), 1, "{end}: {found:?}");
        found.remove(0)
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).expect("a folder");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
        files.retain(|path| path.is_file());
        files.sort();
        files
    }
}

/// Returns the folder of what these tests make, which stays for a look at it.
pub(super) fn scratch() -> &'static Path {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(path).expect("a folder");
    path
}

/// Links the program that the tests run once more, with the C library inside. The release is built
/// for this from scratch, with optimisation; the libraries of the tests differ in nothing else.
fn static_program() -> PathBuf {
    let deps = Path::new(env!("CARGO_BIN_EXE_atcomm")).with_file_name("deps");
    let newest = |path: &PathBuf| {
        let modified = fs::metadata(path).and_then(|of| of.modified());
        modified.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    let library = fs::read_dir(&deps)
        .expect("a folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libatcomm-") && name.ends_with(".rlib")
        })
        .max_by_key(newest)
        .expect("the library");
    let program = scratch().join("atcomm-static");
    run(Command::new("rustc")
        .current_dir(root())
        .args(["--edition", "2024", "--crate-name", "atcomm"])
        .args(["-C", "target-feature=+crt-static", "src/main.rs"])
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg("--extern")
        .arg(format!("atcomm={}", library.display()))
        .arg("-o")
        .arg(&program));
    program
}

#[test]
fn the_program_needs_no_library_of_the_machine() {
    let release = Release::shared();
    let program = release.dir.join("image/atcomm");
    let headers = run(Command::new("readelf").arg("-lW").arg(&program));
    assert!(headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP"), "{headers}");
    let needed = run(Command::new("readelf").arg("-dW").arg(&program));
    assert!(!needed.contains("NEEDED"), "{needed}");
    // The program of the tests is the counterexample.
    let dynamic = env!("CARGO_BIN_EXE_atcomm");
    assert!(run(Command::new("readelf").args(["-lW", dynamic])).contains("INTERP"));
}

#[test]
fn a_release_is_whole_named_by_its_sums_and_made_again_the_same() {
    let release = Release::shared();
    let sums = fs::read_to_string(release.dir.join("SHA256SUMS")).expect("a file");
    let named: Vec<&str> = sums.lines().filter_map(|line| line.get(66..)).collect();
    let files = release.files();
    let present: Vec<_> = files
        .iter()
        .filter_map(|path| path.file_name()?.to_str())
        .filter(|name| *name != "SHA256SUMS")
        .collect();
    assert_eq!(named, present);
    run(Command::new("sha256sum")
        .args(["-c", "SHA256SUMS"])
        .current_dir(&release.dir));

    let bill: serde_json::Value =
        serde_json::from_slice(&fs::read(release.file(".cdx.json")).expect("a file"))
            .expect("JSON");
    assert_eq!(bill["bomFormat"], "CycloneDX");
    let components = bill["components"].as_array().expect("a list");
    let of = |name: &str| components.iter().find(|one| one["name"] == name);
    for linked in ["rusqlite", "rustls", "tokio", "atcomm-proto"] {
        assert!(of(linked).is_some(), "{linked} is missing");
    }
    assert!(of("didcomm").is_none(), "a library of the tests is named");
    let text = bill.to_string();
    let here = root().to_str().expect("a path");
    assert!(
        !text.contains(here),
        "the list names a path of this machine"
    );

    let again = Release::make("again");
    let again = fs::read_to_string(again.dir.join("SHA256SUMS")).expect("a file");
    assert_eq!(again, sums);
}
