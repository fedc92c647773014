use std::os::unix::fs::symlink;
use std::process::Command;

use tempfile::TempDir;

use super::*;

/// Where the process of [`writes_each_mode`] writes.
const FOLDER: &str = "ATCOMM_TEST_FOLDER";

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Moves a file's time of modification back by an hour and a second.
fn age(path: &Path) {
    let past = SystemTime::now().checked_sub(ABANDONED + Duration::from_secs(1));
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(past.unwrap()).unwrap();
}

/// What a process leaves that is killed before it gave the file its name.
fn killed(path: &Path, bytes: &[u8]) -> PathBuf {
    let staged = Staged::beside(path, bytes, Mode::Private).unwrap();
    let (_, left) = staged.file.keep().unwrap();
    left
}

#[test]
fn a_file_is_replaced_whole_and_nothing_else_is_left() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    replace(&path, b"one", Mode::Private).unwrap();
    let mut reader = File::open(&path).unwrap();
    replace(&path, b"two", Mode::Private).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    // A reader that was there before goes on with the old file.
    let mut old = String::new();
    reader.read_to_string(&mut old).unwrap();
    assert_eq!(old, "one");
    assert_eq!(names(dir.path()), ["file"]);
    for not in [Path::new("/"), dir.path(), &dir.path().join("none/file")] {
        replace(not, b"x", Mode::Private).unwrap_err();
    }
    let missing = replace(&dir.path().join("none/file"), b"x", Mode::Private).unwrap_err();
    // With the system's own words.
    assert!(missing.raw_os_error().is_some(), "{missing:?}");
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn inv10_an_interrupted_replace_leaves_the_old_file_and_is_in_nobodys_way() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    replace(&path, b"old", Mode::Private).unwrap();
    let left = killed(&path, b"ne");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(mode(&left), 0o600);
    // A writer that fails, and does not die, leaves nothing.
    drop(Staged::beside(&path, b"ne", Mode::Private).unwrap());
    assert_eq!(names(dir.path()).len(), 2);
    replace(&path, b"new", Mode::Private).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    // It may be another writer's that is at work, until it is old.
    assert!(left.exists());
    let others = [
        ".file.abcdef.old",
        ".file.abc-ef.new",
        ".file.abcdefg.new",
        ".files.abcdef.new",
        "file.abcdef.new",
    ];
    for other in others {
        fs::write(dir.path().join(other), "").unwrap();
        age(&dir.path().join(other));
    }
    age(&left);
    replace(&path, b"newer", Mode::Private).unwrap();
    assert!(!left.exists());
    assert_eq!(names(dir.path()).len(), others.len() + 1);
}

#[test]
fn a_staging_folder_is_cleared_of_what_is_old() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    let staging = dir.path().join("tmp");
    create_dir_all(&staging).unwrap();
    let (old, young) = (staging.join("any"), staging.join("other"));
    for left in [&old, &young] {
        fs::write(left, "x").unwrap();
    }
    age(&old);
    remove_abandoned(&staging);
    remove_abandoned(&dir.path().join("none"));
    assert_eq!(names(&staging), ["other"]);
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let staged = Staged::new(&staging, b"text", Mode::Private).unwrap();
    staged.with_modified(past).unwrap().replace(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"text");
    assert_eq!(path.metadata().unwrap().modified().unwrap(), past);
    assert_eq!(names(&staging), ["other"]);
}

/// The other half of the test below.
#[test]
#[ignore = "run by the test below, under another umask"]
fn writes_each_mode() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    replace(&folder.join("private"), b"x", Mode::Private).unwrap();
    create_new(&folder.join("new"), b"x", Mode::Private).unwrap();
    replace(&folder.join("shared"), b"x", Mode::Umask).unwrap();
    create_dir_all(&folder.join("above/below")).unwrap();
}

#[test]
fn private_is_private_whatever_the_umask() {
    for (umask, shared) in [("0000", 0o666), ("0022", 0o644), ("0277", 0o400)] {
        let dir = TempDir::new().unwrap();
        // A file that was there does not lend its mode.
        fs::write(dir.path().join("private"), "").unwrap();
        fs::set_permissions(dir.path().join("private"), Permissions::from_mode(0o644)).unwrap();
        let done = Command::new("sh")
            .arg("-c")
            .arg(format!("umask {umask}\nexec \"$0\" \"$@\""))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "durable::tests::writes_each_mode", "--ignored"])
            .env(FOLDER, dir.path())
            .output()
            .unwrap();
        let of = |name: &str| mode(&dir.path().join(name));
        assert_eq!((of("private"), of("new")), (0o600, 0o600), "{umask}");
        assert_eq!(of("shared"), shared, "{umask}");
        // A umask may take the owner's own rights to a folder, too.
        if umask != "0277" {
            assert!(done.status.success(), "{done:?}");
            assert_eq!((of("above"), of("above/below")), (0o700, 0o700));
        }
    }
}

#[test]
fn a_link_is_replaced_and_not_followed() {
    let dir = TempDir::new().unwrap();
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    fs::write(&target, "target").unwrap();
    symlink(&target, &link).unwrap();
    let taken = create_new(&link, b"x", Mode::Private).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    replace(&link, b"new", Mode::Private).unwrap();
    assert!(link.symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read(&target).unwrap(), b"target");
    // Not even one that leads nowhere.
    let (nowhere, dangling) = (dir.path().join("nowhere"), dir.path().join("dangling"));
    symlink(&nowhere, &dangling).unwrap();
    let taken = create_new(&dangling, b"x", Mode::Private).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    replace(&dangling, b"new", Mode::Private).unwrap();
    assert!(!nowhere.exists());
    assert_eq!(names(dir.path()), ["dangling", "link", "target"]);
}

#[test]
fn a_new_file_takes_no_name_that_is_taken() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    let left = killed(&path, b"half");
    create_new(&path, b"one", Mode::Private).unwrap();
    let taken = create_new(&path, b"two", Mode::Private).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    // Nor where the file system has neither links nor a rename that refuses.
    let staged = || Staged::beside(&path, b"three", Mode::Private).unwrap();
    let taken = staged().claim(&path).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"one");
    let other = dir.path().join("other");
    staged().claim(&other).unwrap();
    assert_eq!(fs::read(&other).unwrap(), b"three");
    assert_eq!((mode(&path), mode(&other)), (0o600, 0o600));
    fs::remove_file(left).unwrap();
    assert_eq!(names(dir.path()), ["file", "other"]);
}

#[test]
fn files_are_renamed_and_removed() {
    let dir = TempDir::new().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    replace(&from, b"x", Mode::Private).unwrap();
    rename(&from, &to).unwrap();
    assert_eq!(names(dir.path()), ["to"]);
    let below = dir.path().join("deep/down");
    create_dir_all(&below).unwrap();
    create_dir_all(&below).unwrap();
    create_dir_all(Path::new("")).unwrap();
    rename(&to, &below.join("to")).unwrap();
    rename(&from, &to).unwrap_err();
    assert!(remove(&below.join("to")).unwrap());
    assert!(!remove(&below.join("to")).unwrap());
    remove(&below).unwrap_err();
    fs::write(&from, "").unwrap();
    let failed = create_dir_all(&from.join("a/b")).unwrap_err();
    assert_eq!(failed.path, from);
}

#[test]
fn private_files_are_read_up_to_a_length() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("file");
    assert!(read_private(&path, 3).unwrap().is_none());
    replace(&path, b"abc", Mode::Private).unwrap();
    assert_eq!(read_private(&path, 3).unwrap().unwrap()[..], *b"abc");
    let refused = read_private(&path, 2).unwrap_err();
    assert!(matches!(refused, ReadError::TooLong(2)), "{refused}");
    let folder = dir.path().join("folder");
    create_dir_all(&folder).unwrap();
    let refused = read_private(&folder, 1 << 20).unwrap_err();
    assert!(matches!(refused, ReadError::Io(_)), "{refused}");
    for mode in [0o640, 0o604, 0o610, 0o644] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        // Before its length is of interest.
        let refused = read_private(&path, 2).unwrap_err();
        assert!(matches!(refused, ReadError::Exposed), "{mode:o} {refused}");
    }
}

#[test]
fn one_at_a_time_has_a_lock() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("lock");
    let held = try_lock(&path).unwrap().unwrap();
    assert!(try_lock(&path).unwrap().is_none());
    assert_eq!(mode(&path), 0o600);
    drop(held);
    assert!(try_lock(&path).unwrap().is_some());
    try_lock(&dir.path().join("none/lock")).unwrap_err();
}
