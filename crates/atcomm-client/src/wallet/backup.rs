//! Backups: the keys and contacts of a wallet in one file, encrypted to a passphrase.
//!
//! The file is an age file (age-encryption.org/v1) of one scrypt recipient, armored, so `age -d`
//! opens it too. In it is one JSON document:
//!
//! ```text
//! {"atcomm": "atcomm backup/1", "madeAt": <ms>, "accounts": [<as in enrolment.json>], "contacts": [<as in
//! contacts/*.json>]}
//! ```
//!
//! Sessions are left out, since a password brings a new one, and mail, since it grows.

use std::collections::BTreeSet;
use std::io::{self, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, scrypt};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::enrolment::{Enrolment, replace_all};
use super::error::WalletError;
use super::stored::{MAX_KEYS, StoredEnrolment};
use super::{MAX_ACCOUNTS, MAX_CONTACTS, Wallet};
use atcomm_net::durable::{self, Lock, Mode};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::Did;
use atcomm_proto::verify::pin::Pin;

/// The format of the document.
const KIND: &str = "atcomm backup/1";

/// Work of trying a passphrase, as a power of two: about a second and 256 MiB of memory, as in the
/// reference implementation of age.
const WORK_FACTOR: u8 = if cfg!(fuzzing) { 1 } else { 18 };

/// Most work that a file may ask for: four times as much.
const MAX_WORK_FACTOR: u8 = if cfg!(fuzzing) { 2 } else { 20 };

/// Longest file, and longest document in it, in bytes.
const MAX_LEN: usize = 64 << 20;

/// Interval of asking for a lock that another process holds.
const LOCK_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Shortest passphrase that is accepted, in characters. An attacker who has the file can try any number of
/// passphrases.
pub const MIN_PASSPHRASE: usize = 10;

/// Errors of making and restoring a backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The passphrase is too short.
    #[error("the passphrase is shorter than {MIN_PASSPHRASE} characters")]
    WeakPassphrase,
    /// The file was made with another passphrase.
    #[error("the passphrase is not the one of this backup")]
    WrongPassphrase,
    /// The file is not an age file encrypted to a passphrase.
    #[error("it is not an encrypted backup: {0}")]
    Foreign(&'static str),
    /// The file or its content was changed or cut.
    #[error("the backup is damaged: {0}")]
    Damaged(String),
    /// The file asks for more work than is accepted.
    #[error("the backup asks for too much work (scrypt 2^{0})")]
    TooMuchWork(u8),
    /// The file exists already.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The wallet has another key for the account.
    #[error("the wallet has another key for {0}")]
    Conflict(Did),
    /// The wallet has no room for the account's keys.
    #[error("the wallet would have more than {MAX_KEYS} keys of {0}")]
    TooManyKeys(Did),
    /// The backup would be too large to be restored.
    #[error("the wallet is too large for a backup: {0}")]
    TooLarge(&'static str),
    /// The wallet has no accounts.
    #[error("the wallet has no accounts")]
    Empty,
    /// The backup cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
    /// The wallet cannot be used.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

/// The content of a backup.
#[derive(Debug)]
pub struct Backup {
    /// When the backup was made.
    pub made_at: Timestamp,
    /// The accounts.
    pub accounts: Vec<Enrolment>,
    /// The contacts.
    pub contacts: Vec<Pin>,
}

/// What restoring a backup changed in a wallet.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Accounts that were not in the wallet.
    pub added: Vec<String>,
    /// Accounts that were in the wallet and got keys from the backup.
    pub merged: Vec<String>,
    /// Accounts that the backup adds nothing to.
    pub unchanged: Vec<String>,
    /// Contacts that were added, or are newer in the backup.
    pub contacts: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    atcomm: String,
    made_at: i64,
    accounts: Vec<StoredEnrolment>,
    contacts: Vec<Pin>,
}

impl Backup {
    /// Collects what is in the wallet now: everything, or an error.
    pub fn of(wallet: &Wallet, now: Timestamp) -> Result<Self, BackupError> {
        Self::below(wallet, now, MAX_ACCOUNTS, MAX_CONTACTS)
    }

    /// Collects up to these limits at which the wallet stops reading.
    fn below(
        wallet: &Wallet,
        now: Timestamp,
        max_accounts: usize,
        max_contacts: usize,
    ) -> Result<Self, BackupError> {
        let accounts = wallet.enrolments()?;
        if accounts.is_empty() {
            return Err(BackupError::Empty);
        }
        let contacts = wallet.contacts()?;
        if accounts.len() >= max_accounts {
            return Err(BackupError::TooLarge("not all of its accounts are read"));
        }
        if contacts.len() >= max_contacts {
            return Err(BackupError::TooLarge("not all of its contacts are read"));
        }
        Ok(Self {
            made_at: now,
            accounts,
            contacts,
        })
    }

    /// Encrypts the backup. Takes about a second.
    pub fn seal(&self, passphrase: &str) -> Result<Vec<u8>, BackupError> {
        if passphrase.chars().count() < MIN_PASSPHRASE {
            return Err(BackupError::WeakPassphrase);
        }
        self.seal_with(passphrase, WORK_FACTOR, MAX_LEN)
    }

    fn seal_with(
        &self,
        passphrase: &str,
        work_factor: u8,
        max_len: usize,
    ) -> Result<Vec<u8>, BackupError> {
        let document = Document {
            atcomm: KIND.to_owned(),
            made_at: self.made_at.millis(),
            accounts: self.accounts.iter().map(StoredEnrolment::of).collect(),
            contacts: self.contacts.clone(),
        };
        let unsealed = |why: &dyn ToString| BackupError::Damaged(why.to_string());
        let text = serde_json::to_vec(&document)
            .map(Zeroizing::new)
            .map_err(|error| unsealed(&error))?;
        let too_large = || BackupError::TooLarge("the file could not be restored");
        if text.len() > max_len {
            return Err(too_large());
        }
        let mut recipient = scrypt::Recipient::new(SecretString::from(passphrase.to_owned()));
        recipient.set_work_factor(work_factor);
        let recipient: &dyn age::Recipient = &recipient;
        let encryptor = Encryptor::with_recipients(std::iter::once(recipient))
            .map_err(|_| unsealed(&"it cannot be encrypted"))?;
        let write = || {
            let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
            let mut out = encryptor.wrap_output(armor)?;
            out.write_all(&text)?;
            out.finish()?.finish()
        };
        let sealed = write().map_err(|error: io::Error| unsealed(&error))?;
        if sealed.len() > max_len {
            Err(too_large())
        } else {
            Ok(sealed)
        }
    }

    /// Decrypts a file, armored or not. Takes about a second.
    pub fn open(file: &[u8], passphrase: &str) -> Result<Self, BackupError> {
        if file.len() > MAX_LEN {
            return Err(BackupError::Foreign("it is far too long"));
        }
        let decryptor = Decryptor::new_buffered(BufReader::new(ArmoredReader::new(file)))
            .map_err(|error| refusal(error, file))?;
        if !decryptor.is_scrypt() {
            return Err(BackupError::Foreign(
                "it is encrypted to a key, not to a passphrase",
            ));
        }
        let mut identity = scrypt::Identity::new(SecretString::from(passphrase.to_owned()));
        identity.set_max_work_factor(MAX_WORK_FACTOR);
        let identity: &dyn age::Identity = &identity;
        let stream = decryptor
            .decrypt(std::iter::once(identity))
            .map_err(|error| refusal(error, file))?;
        let mut text = Zeroizing::new(Vec::with_capacity(file.len()));
        stream
            .take(MAX_LEN as u64)
            .read_to_end(&mut text)
            .map_err(|_| BackupError::Damaged("it was cut or changed".to_owned()))?;
        Self::read(&text)
    }

    fn read(text: &[u8]) -> Result<Self, BackupError> {
        #[derive(Deserialize)]
        struct Kind {
            atcomm: String,
        }
        let kind: Kind = serde_json::from_slice(text)
            .map_err(|_| BackupError::Foreign("what is in it is something else"))?;
        if kind.atcomm != KIND {
            return Err(BackupError::Foreign(
                "it was made by another version of atcomm",
            ));
        }
        let document: Document = serde_json::from_slice(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            BackupError::Damaged(format!(
                "not what is expected at line {line} column {column}"
            ))
        })?;
        let accounts = document.accounts.into_iter().map(StoredEnrolment::read);
        Ok(Self {
            made_at: Timestamp::from_millis(document.made_at),
            accounts: accounts
                .collect::<Result<_, _>>()
                .map_err(BackupError::Damaged)?,
            contacts: document.contacts,
        })
    }

    /// Restores the backup into a wallet. What the wallet has stays: keys are added to its own, a
    /// key's state never goes back, and of two pins of an account the one verified later stands.
    /// Where the wallet has another present key for an account and does not have the backup's,
    /// nothing is changed unless `force` is set; then the backup's key becomes the present one, and
    /// the wallet's stays for reading. A repeated call finishes an interrupted one. `waiting` is
    /// called where another process changes how one of the accounts is enrolled, before waiting for
    /// it.
    pub fn restore(
        &self,
        wallet: &Wallet,
        force: bool,
        now: Timestamp,
        waiting: &mut dyn FnMut(&Did),
    ) -> Result<Restored, BackupError> {
        // All locks are held until the end, so that the decisions made here still hold when they
        // are written; they are taken in one order, so that two processes do not wait for each
        // other.
        let names: BTreeSet<&Did> = self.accounts.iter().map(|ours| &ours.account).collect();
        if names.len() < self.accounts.len() {
            return Err(BackupError::Damaged("it has an account twice".to_owned()));
        }
        let mut locks = Vec::new();
        for account in names {
            locks.push(change_lock(wallet, account, waiting)?);
        }
        for ours in &self.accounts {
            let Some(known) = wallet.account_store(&ours.account).enrolment()? else {
                continue;
            };
            if !force && is_conflict(&known, ours) {
                return Err(BackupError::Conflict(ours.account.clone()));
            }
            if merged(&known, ours, now).is_some_and(|both| both.keys.len() > MAX_KEYS) {
                return Err(BackupError::TooManyKeys(ours.account.clone()));
            }
        }
        let mut restored = Restored::default();
        for ours in &self.accounts {
            let store = wallet.account_store(&ours.account);
            let _lock = store.lock()?;
            let name = ours.account.to_string();
            match store.enrolment()? {
                None => {
                    store.save(ours)?;
                    restored.added.push(name);
                }
                Some(known) => match merged(&known, ours, now) {
                    Some(both) => {
                        store.save(&both)?;
                        restored.merged.push(name);
                    }
                    None => restored.unchanged.push(name),
                },
            }
        }
        let _lock = wallet.lock()?;
        for pin in &self.contacts {
            let known = wallet.pin(&pin.account)?;
            if known.is_none_or(|known| known.last_seen < pin.last_seen) {
                wallet.save_pin(pin)?;
                restored.contacts += 1;
            }
        }
        Ok(restored)
    }
}

/// Waits until no other process changes how an account is enrolled, and locks it.
fn change_lock(
    wallet: &Wallet,
    account: &Did,
    waiting: &mut dyn FnMut(&Did),
) -> Result<Lock, WalletError> {
    let store = wallet.account_store(account);
    if let Some(lock) = store.change_lock()? {
        return Ok(lock);
    }
    waiting(account);
    loop {
        std::thread::sleep(LOCK_POLL_INTERVAL);
        if let Some(lock) = store.change_lock()? {
            return Ok(lock);
        }
    }
}

/// Translates a refusal of the age library to open `file`.
fn refusal(error: DecryptError, file: &[u8]) -> BackupError {
    let begins = |words: &[u8]| file.trim_ascii_start().starts_with(words);
    match error {
        DecryptError::ExcessiveWork { required, .. } => BackupError::TooMuchWork(required),
        DecryptError::DecryptionFailed
        | DecryptError::KeyDecryptionFailed
        | DecryptError::NoMatchingKeys => BackupError::WrongPassphrase,
        DecryptError::InvalidMac => BackupError::Damaged("its header was changed".to_owned()),
        _ if begins(b"-----BEGIN AGE ENCRYPTED FILE-----") || begins(b"age-encryption.org/v1") => {
            BackupError::Damaged("it was cut or changed".to_owned())
        }
        _ => BackupError::Foreign("it is no age file"),
    }
}

fn holds(enrolment: &Enrolment, peer: &str) -> bool {
    enrolment.keys.iter().any(|key| key.peer.as_str() == peer)
}

/// Whether both have a present key and the wallet does not have the backup's: then only the owner
/// knows which one is right.
fn is_conflict(known: &Enrolment, ours: &Enrolment) -> bool {
    match (known.current(), ours.current()) {
        (Some(_), Some(key)) => !holds(known, key.peer.as_str()),
        _ => false,
    }
}

/// Merges the backup into what the wallet has; `None` where nothing changes.
fn merged(known: &Enrolment, ours: &Enrolment, now: Timestamp) -> Option<Enrolment> {
    let is_new = |peer: &str| !holds(known, peer);
    let mut added: Vec<_> = ours
        .keys
        .iter()
        .filter(|key| is_new(key.peer.as_str()))
        .cloned()
        .collect();
    if added.is_empty() {
        return None;
    }
    let mut both = known.clone();
    // A key that the wallet never had becomes the present one only where the backup says so.
    if ours.current().is_some_and(|key| is_new(key.peer.as_str())) {
        replace_all(&mut both.keys, None, &known.mediators, now);
        both.mediators.clone_from(&ours.mediators);
        both.directory.clone_from(&ours.directory);
        both.label.clone_from(&ours.label);
        added.append(&mut both.keys);
        both.keys = added;
    } else {
        // Such a key is for reading only: one that was never published is older than the wallet's
        // present one.
        replace_all(&mut added, None, &ours.mediators, now);
        both.keys.append(&mut added);
    }
    Some(both)
}

/// Writes a backup to a file, readable by its owner only and in one step; it is on disk when this
/// returns. An existing file is replaced only with `force`, also one that was created meanwhile.
pub fn write(path: &Path, backup: &[u8], force: bool) -> Result<(), BackupError> {
    if !force && path.symlink_metadata().is_ok() {
        return Err(BackupError::Exists(path.to_owned()));
    }
    let written = if force {
        durable::replace(path, backup, Mode::Private)
    } else {
        durable::create_new(path, backup, Mode::Private)
    };
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists if !force => BackupError::Exists(path.to_owned()),
        _ => BackupError::Unwritable {
            path: path.to_owned(),
            error,
        },
    })
}

/// Reads a file that may be a backup, up to the longest one.
pub fn read(input: impl io::Read) -> io::Result<Vec<u8>> {
    let mut file = Vec::new();
    input.take(MAX_LEN as u64 + 1).read_to_end(&mut file)?;
    Ok(file)
}

/// What the fuzz targets reach of this module.
#[cfg(fuzzing)]
pub mod fuzzing {
    use super::{Backup, BackupError};

    /// Reads the document in a backup.
    pub fn read(text: &[u8]) -> Result<Backup, BackupError> {
        Backup::read(text)
    }
}

#[cfg(test)]
mod tests;
