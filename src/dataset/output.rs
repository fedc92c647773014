//! The files of a dataset: written in order, measured and hashed on the way.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetFile {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// A file that is measured and hashed as it is written.
pub(super) struct Output {
    name: String,
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Output {
    /// Creates a file in a folder.
    pub(super) fn create(folder: &Path, name: &str) -> io::Result<Self> {
        let path = folder.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(Self {
            name: name.to_owned(),
            file: BufWriter::new(file),
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Ends the file. It is on disk when this returns.
    pub(super) fn finish(self) -> io::Result<DatasetFile> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        Ok(DatasetFile {
            name: self.name,
            bytes: self.bytes,
            sha256: HEXLOWER.encode(&self.hash.finalize()),
        })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        if let Some(written) = bytes.get(..written) {
            self.hash.update(written);
            self.bytes += u64::try_from(written.len()).unwrap_or(u64::MAX);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a whole file.
pub(super) fn write_file(folder: &Path, name: &str, text: &str) -> io::Result<DatasetFile> {
    let mut output = Output::create(folder, name)?;
    output.write_all(text.as_bytes())?;
    output.finish()
}
