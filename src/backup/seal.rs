//! Encryption of a set's files, and the hash of what is written.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::str::FromStr as _;

use age::{DecryptError, Decryptor, Encryptor, IdentityFile, x25519};
use sha2::{Digest as _, Sha256};

use super::error::BackupError;

/// End of the names of encrypted files.
pub(super) const SEALED: &str = ".age";

/// Most recipients of a set.
const MAX_RECIPIENTS: usize = 32;

/// Longest file of identities, in bytes.
const MAX_IDENTITIES: u64 = 64 * 1024;

/// Bytes that are read at once.
const BUFFER: usize = 1 << 20;

/// To whom sets are encrypted; to none, they are not encrypted.
#[derive(Clone, Default)]
pub struct Recipients(Vec<x25519::Recipient>);

impl Recipients {
    /// Parses recipients such as `age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`.
    pub fn parse(names: &[String]) -> Result<Self, BackupError> {
        if names.len() > MAX_RECIPIENTS {
            let reason = format!("more than {MAX_RECIPIENTS}");
            return Err(BackupError::Recipient(reason));
        }
        let parsed = names.iter().map(|name| {
            x25519::Recipient::from_str(name.trim())
                .map_err(|_| BackupError::Recipient(name.clone()))
        });
        Ok(Self(parsed.collect::<Result<_, _>>()?))
    }

    /// Whether nothing is encrypted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes what `from` has to `to`, encrypted where there are recipients. `go_on` is asked again
    /// and again, and ends it by `false`. Returns the length and the SHA-256 of what was written.
    pub(super) fn write(
        &self,
        from: &mut dyn Read,
        to: &mut dyn Write,
        go_on: &mut dyn FnMut() -> bool,
    ) -> io::Result<(u64, String)> {
        let mut hashed = Hashed::new(to);
        if self.is_empty() {
            transfer(from, &mut hashed, go_on)?;
        } else {
            let recipients = self.0.iter().map(|one| one as &dyn age::Recipient);
            let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
            let mut sealed = encryptor.wrap_output(&mut hashed)?;
            transfer(from, &mut sealed, go_on)?;
            sealed.finish()?;
        }
        Ok(hashed.finish())
    }
}

/// What opens encrypted sets.
#[derive(Default)]
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    /// Reads identities as `age-keygen` writes them.
    pub fn read(from: impl BufRead) -> Result<Self, BackupError> {
        let file = IdentityFile::from_buffer(from.take(MAX_IDENTITIES))
            .map_err(|error| BackupError::Identity(error.to_string()))?;
        let identities = file
            .into_identities()
            .map_err(|error| BackupError::Identity(error.to_string()))?;
        if identities.is_empty() {
            return Err(BackupError::Identity("it is empty".to_owned()));
        }
        Ok(Self(identities))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes the content of the encrypted file `from` to `to`. `name` is that of the file in errors.
    pub(super) fn open(
        &self,
        from: impl Read,
        to: &mut dyn Write,
        name: &str,
    ) -> Result<(), BackupError> {
        let damaged = |reason: String| BackupError::Damaged {
            file: name.to_owned(),
            reason,
        };
        if self.is_empty() {
            return Err(BackupError::Encrypted);
        }
        let decryptor = Decryptor::new_buffered(BufReader::with_capacity(BUFFER, from))
            .map_err(|error| damaged(error.to_string()))?;
        let identities = self.0.iter().map(|one| &**one as &dyn age::Identity);
        let mut opened = decryptor.decrypt(identities).map_err(|error| match error {
            DecryptError::NoMatchingKeys => BackupError::WrongIdentity,
            other => damaged(other.to_string()),
        })?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = opened
                .read(&mut buffer)
                .map_err(|error| damaged(error.to_string()))?;
            if read == 0 {
                return Ok(());
            }
            to.write_all(&buffer[..read])
                .map_err(|error| BackupError::File {
                    path: name.into(),
                    error,
                })?;
        }
    }
}

/// Copies all bytes.
fn transfer(
    from: &mut dyn Read,
    to: &mut dyn Write,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..read])?;
        if !go_on() {
            return Err(stopped());
        }
    }
}

/// Returns the error of work that its caller ended.
fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "it was stopped")
}

/// A writer that hashes what it passes on.
struct Hashed<'w> {
    to: &'w mut dyn Write,
    hash: Sha256,
    bytes: u64,
}

impl<'w> Hashed<'w> {
    fn new(to: &'w mut dyn Write) -> Self {
        Self {
            to,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    fn finish(self) -> (u64, String) {
        let digest = data_encoding::HEXLOWER.encode(&self.hash.finalize());
        (self.bytes, digest)
    }
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Returns the length and the SHA-256 of what a reader has, up to `limit` bytes and one more.
pub(super) fn digest(
    from: &mut dyn Read,
    limit: u64,
    go_on: &mut dyn FnMut() -> bool,
) -> io::Result<(u64, String)> {
    let mut sink = io::sink();
    let mut hashed = Hashed::new(&mut sink);
    transfer(&mut from.take(limit.saturating_add(1)), &mut hashed, go_on)?;
    Ok(hashed.finish())
}
