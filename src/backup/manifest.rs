//! The manifest of a set.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::error::BackupError;
use super::seal;
use crate::mediator::KEYS_FILE;
use crate::store::StoreFile;
use atcomm_proto::clock::Timestamp;

/// File of the manifest.
pub(super) const MANIFEST: &str = "manifest.json";

/// The format of a set.
const KIND: &str = "atcomm server backup/1";

/// Longest manifest, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// The parts of a set, in the order in which they are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// One of the stores.
    Store(StoreFile),
    /// The mediator's keys.
    Keys,
}

impl Part {
    /// All parts, in the order in which they are copied.
    pub(super) const ALL: [Self; 3] = [
        Self::Store(StoreFile::Mailbox),
        Self::Store(StoreFile::Directory),
        Self::Keys,
    ];

    /// Returns the name of the part's file in the data directory.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Store(file) => file.name(),
            Self::Keys => KEYS_FILE,
        }
    }
}

/// The content of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    atcomm: String,
    /// Version of the program that made the set.
    pub(super) version: String,
    /// When the set began (RFC 3339). It holds all that was acknowledged before.
    pub(super) began_at: String,
    /// When the last file was copied (RFC 3339).
    pub(super) ended_at: String,
    /// Whether the files are encrypted.
    pub(super) encrypted: bool,
    pub(super) files: Vec<SetFile>,
    /// SHA-256 of this document with an empty text here.
    digest: String,
}

/// A file of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SetFile {
    /// Name in the data directory.
    pub(super) name: String,
    /// Length in the set.
    pub(super) bytes: u64,
    /// SHA-256 of the file as it is in the set.
    pub(super) sha256: String,
    /// Schema version, where it is a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) schema: Option<i64>,
}

impl Manifest {
    /// Returns the manifest of files that were copied.
    pub(super) fn of(
        files: Vec<SetFile>,
        encrypted: bool,
        began_at: Timestamp,
        ended_at: Timestamp,
    ) -> io::Result<Self> {
        let mut manifest = Self {
            atcomm: KIND.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            began_at: began_at.to_string(),
            ended_at: ended_at.to_string(),
            encrypted,
            files,
            digest: String::new(),
        };
        manifest.digest = manifest.computed_digest()?;
        Ok(manifest)
    }

    /// Returns the manifest as it is written.
    pub(super) fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        Ok(text)
    }

    fn computed_digest(&self) -> io::Result<String> {
        let unsigned = Self {
            digest: String::new(),
            ..self.clone()
        };
        let digest = Sha256::digest(unsigned.to_vec()?);
        Ok(data_encoding::HEXLOWER.encode(&digest))
    }

    /// Reads the manifest of the set in a folder, and checks everything but the other files.
    pub(super) fn read(set: &Path) -> Result<Self, BackupError> {
        let not_a_set = |reason: &str| BackupError::NotASet {
            path: set.to_owned(),
            reason: reason.to_owned(),
        };
        let path = set.join(MANIFEST);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(not_a_set("it has no manifest.json"));
            }
            Err(error) => return Err(BackupError::File { path, error }),
        };
        let mut text = Vec::new();
        file.take(MAX_LEN + 1)
            .read_to_end(&mut text)
            .map_err(BackupError::file(&path))?;
        Self::parse(&text).map_err(|reason| match reason {
            Unreadable::Foreign => not_a_set("its manifest is of another program or version"),
            Unreadable::Damaged(reason) => BackupError::Damaged {
                file: MANIFEST.to_owned(),
                reason: reason.to_owned(),
            },
        })
    }

    /// Parses a manifest. Random bytes give an error.
    pub(super) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Kind {
            atcomm: String,
        }
        let damaged = Unreadable::Damaged;
        if text.len() as u64 > MAX_LEN {
            return Err(damaged("it is too long"));
        }
        let kind: Kind = serde_json::from_slice(text).map_err(|_| damaged("it was changed"))?;
        if kind.atcomm != KIND {
            return Err(Unreadable::Foreign);
        }
        let manifest: Self = serde_json::from_slice(text).map_err(|_| damaged("it was changed"))?;
        // Exactly as it was written, to its last byte.
        let is_as_written = manifest.to_vec().is_ok_and(|written| written == text);
        let digest = manifest.computed_digest();
        if !is_as_written || digest.ok().as_ref() != Some(&manifest.digest) {
            return Err(damaged("it was changed"));
        }
        let mut names = manifest.files.iter().map(|file| file.name.as_str());
        let mut order = Part::ALL.iter().map(|part| part.name());
        // Each name once, known and in order; at least one.
        if manifest.files.is_empty() || !names.all(|name| order.any(|known| known == name)) {
            return Err(damaged("it names other files than a backup has"));
        }
        Ok(manifest)
    }

    /// Returns the file of a part.
    pub(super) fn file(&self, part: Part) -> Option<&SetFile> {
        self.files.iter().find(|file| file.name == part.name())
    }

    /// Returns the name that a file has in the set.
    pub(super) fn stored_name(&self, name: &str) -> String {
        let end = if self.encrypted { seal::SEALED } else { "" };
        format!("{name}{end}")
    }
}

/// Why a manifest cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is of another program, or of a later format.
    Foreign,
    /// It was changed or cut.
    Damaged(&'static str),
}
