//! Writes a file in one step.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use super::super::{CliError, Exit};
use atcomm_net::durable::{self, Mode};

/// Writes a file, in place of one that has its name.
pub(super) fn save(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    write(path, bytes).map_err(|error| CliError {
        exit: Exit::Failed,
        message: format!("cannot write {}: {error}", path.display()),
        hint: match error.kind() {
            io::ErrorKind::NotFound => "its directory does not exist: make it first".to_owned(),
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => {
                "there is no room left; a file that was there is unchanged".to_owned()
            }
            _ => "name a file in a directory that you may write to".to_owned(),
        },
    })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match path.metadata() {
        Ok(meta) if meta.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        // A device or a pipe is written to and not replaced.
        Ok(meta) if !meta.is_file() => OpenOptions::new().write(true).open(path)?.write_all(bytes),
        _ => durable::replace(path, bytes, Mode::Umask),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(dir.path()).unwrap();
            entries.map(|e| e.unwrap().file_name()).collect::<Vec<_>>()
        };
        let file = dir.path().join("proof.json");
        save(&file, b"one").unwrap();
        save(&file, b"two").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        assert_eq!(names(), ["proof.json"]);

        let failed = |path: &Path| save(path, b"x").unwrap_err();
        let error = failed(&dir.path().join("missing/proof.json"));
        assert!(error.hint.contains("does not exist"), "{error:?}");
        failed(dir.path());
        failed(Path::new("/"));
        assert_eq!(names(), ["proof.json"]);
    }

    #[test]
    fn a_pipe_stays_what_it_is() {
        use std::os::unix::fs::FileTypeExt as _;

        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::read(pipe).unwrap()
        });
        save(&pipe, b"one").unwrap();
        assert_eq!(reader.join().unwrap(), b"one");
        assert!(pipe.metadata().unwrap().file_type().is_fifo());
    }
}
