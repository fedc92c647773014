//! The wallet: one directory with the keys of its accounts, their mail and the contacts.
//!
//! ```text
//! contacts/<name>.json                  a contact (`Pin`)
//! accounts/<name>/enrolment.json        keys, mediators, and how far their publication has come
//! accounts/<name>/session.json          session at the PDS
//! accounts/<name>/mail/<name>.json      a message that was received
//! accounts/<name>/mail/<name>.unshown   the mark that it was not shown yet; empty
//! accounts/<name>/mail/<name>.<group>.unproven   the mark that it counts as mail of unknown senders
//! accounts/<name>/sent/<name>.json      a message that was sent
//! ```
//!
//! Envelopes that cannot be unpacked have a folder of their own; see [`undecryptable`]. Both they and
//! mail that nothing proves to be of a known account are bounded; see [`unproven`].
//!
//! A name is a hash of what identifies the file, so no text of others becomes a path. Every file is
//! JSON, `{"version": 1, "content": ...}`, readable by its owner only, and replaced in one step:
//! after `kill -9` or a power cut it has the old content or the new one. `enrolment.json` is
//! trusted and cannot be made again: without it, mail under way to the account cannot be read, and
//! a new key has to be published. A lost session is replaced by signing in again. Without the
//! contacts, a key that was swapped looks like a first contact.

pub mod backup;
pub mod enrolment;
pub mod error;
pub mod file;
pub mod mark;
pub mod messages;
pub mod session;
pub(crate) mod stored;
pub mod undecryptable;
pub mod unproven;
pub mod unshown;

use std::io;
use std::path::{Path, PathBuf};

use atcomm_net::durable::{self, Lock};
use atcomm_proto::syntax::{Actor, Did};
use atcomm_proto::typed;
use atcomm_proto::verify::pin::Pin;

use enrolment::Enrolment;
use error::{Damage, WalletError};
use session::Session;
use stored::{MAX_KEYS, StoredEnrolment, StoredSession};

/// Longest `enrolment.json`, in bytes: a key takes less than a KiB.
const MAX_ENROLMENT: usize = 256 * 1024;

/// Longest file of a session, in bytes; a token takes one or two KiB.
const MAX_SESSION: usize = 64 * 1024;

/// Longest file of a contact, in bytes: the keys of 32 mediators.
const MAX_PIN: usize = 256 * 1024;

/// Most accounts that are read.
pub(super) const MAX_ACCOUNTS: usize = 1000;

/// Most contacts that are read.
pub(super) const MAX_CONTACTS: usize = 100_000;

/// A wallet in a directory. Cloning is cheap; several processes can use one wallet at a time.
#[derive(Debug, Clone)]
pub struct Wallet {
    home: PathBuf,
}

/// The part of a wallet that belongs to one account.
#[derive(Debug, Clone)]
pub struct AccountStore {
    home: PathBuf,
    account: Did,
}

impl Wallet {
    /// Opens the wallet in `home`. The directory is created with the first write. A directory that
    /// users other than its owner may read is refused.
    pub fn open(home: &Path) -> Result<Self, WalletError> {
        let unreadable = |error| WalletError::Unreadable {
            path: home.to_owned(),
            error,
        };
        match std::fs::metadata(home) {
            Ok(meta) if !meta.is_dir() => {
                return Err(unreadable(io::ErrorKind::NotADirectory.into()));
            }
            Ok(meta) if !durable::is_private(&meta) => {
                return Err(WalletError::Exposed {
                    path: home.to_owned(),
                });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
        }
        file::sweep(home);
        Ok(Self {
            home: home.to_owned(),
        })
    }

    /// The directory of the wallet.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Returns the accounts that were enrolled from this wallet, in order of their DIDs.
    pub fn accounts(&self) -> Result<Vec<Did>, WalletError> {
        let enrolments = self.enrolments()?;
        Ok(enrolments.into_iter().map(|one| one.account).collect())
    }

    /// Returns the enrolments of all accounts, in order of their DIDs.
    pub fn enrolments(&self) -> Result<Vec<Enrolment>, WalletError> {
        let folder = self.home.join("accounts");
        let unreadable = |error| WalletError::Unreadable {
            path: folder.clone(),
            error,
        };
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(error)),
        };
        let mut all: Vec<Enrolment> = Vec::new();
        for entry in entries.take(file::MAX_ENTRIES) {
            if all.len() == MAX_ACCOUNTS {
                break;
            }
            let path = entry.map_err(unreadable)?.path().join("enrolment.json");
            all.extend(read_enrolment(&path)?);
        }
        all.sort_by(|a, b| a.account.cmp(&b.account));
        Ok(all)
    }

    /// Finds an account of the wallet by handle or DID; without either, the only account.
    pub fn find(&self, actor: Option<&str>) -> Result<AccountStore, WalletError> {
        let all = self.enrolments()?;
        let found: Vec<Did> = match actor.map(|text| (text, typed::actor(text))) {
            None if all.is_empty() => {
                return Err(WalletError::NoAccount {
                    home: self.home.clone(),
                });
            }
            None => all.into_iter().map(|one| one.account).collect(),
            Some((text, wanted)) => {
                let is_it = |one: &Enrolment| match &wanted {
                    Ok(Actor::Did(did)) => one.account == *did,
                    Ok(Actor::Handle(handle)) => one.handle.as_ref() == Some(handle),
                    Err(_) => false,
                };
                let found: Vec<Did> = all
                    .iter()
                    .filter(|one| is_it(one))
                    .map(|one| one.account.clone())
                    .collect();
                if found.is_empty() {
                    return Err(WalletError::Unknown {
                        actor: text.to_owned(),
                        home: self.home.clone(),
                    });
                }
                found
            }
        };
        match found.as_slice() {
            [one] => Ok(self.account_store(one)),
            _ => Err(WalletError::Several { accounts: found }),
        }
    }

    /// Returns the part of an account, also of one that is not in the wallet yet.
    pub fn account_store(&self, account: &Did) -> AccountStore {
        AccountStore {
            home: self.home.clone(),
            account: account.clone(),
        }
    }

    /// Returns the contact of an account.
    pub fn pin(&self, account: &Did) -> Result<Option<Pin>, WalletError> {
        let path = self.pin_path(account);
        let pin = file::read::<Pin>(&path, MAX_PIN)?;
        match pin {
            Some(pin) if pin.account != *account => Err(WalletError::Damaged {
                path,
                reason: Damage::OtherAccount,
            }),
            pin => Ok(pin),
        }
    }

    /// Returns all contacts, in order of their DIDs.
    pub fn contacts(&self) -> Result<Vec<Pin>, WalletError> {
        let files = file::list(&self.home.join("contacts"))?;
        let mut pins = Vec::new();
        for one in files.into_iter().take(MAX_CONTACTS) {
            pins.extend(file::read::<Pin>(&one.path, MAX_PIN)?);
        }
        pins.sort_by(|a, b| a.account.cmp(&b.account));
        Ok(pins)
    }

    /// Saves a contact, whatever was saved of it. On disk when this returns. A pin that was made
    /// from a former one is saved by [`Wallet::replace_pin`].
    pub fn save_pin(&self, pin: &Pin) -> Result<(), WalletError> {
        file::write(&self.home, &self.pin_path(&pin.account), pin, MAX_PIN)
    }

    /// Saves a pin in place of the pin that it was made from, `before`, and returns whether it did.
    /// Where another process has changed the contact since, nothing is written and the look-up has
    /// to be repeated.
    pub fn replace_pin(&self, before: Option<&Pin>, pin: &Pin) -> Result<bool, WalletError> {
        if before == Some(pin) {
            return Ok(true);
        }
        let _lock = self.lock()?;
        if self.pin(&pin.account)?.as_ref() != before {
            return Ok(false);
        }
        self.save_pin(pin)?;
        Ok(true)
    }

    /// Saves the pin that a look-up led to, and returns whether the pin stands now; see
    /// [`Wallet::replace_pin`]. `pins` are the contacts that the look-up was made with. `None`
    /// leaves the contact as it is.
    pub fn record(&self, pins: &[Pin], pin: Option<&Pin>) -> Result<bool, WalletError> {
        let Some(pin) = pin else {
            return Ok(true);
        };
        let before = pins.iter().find(|known| known.account == pin.account);
        self.replace_pin(before, pin)
    }

    /// Deletes a contact. Returns whether there was one.
    pub fn delete_pin(&self, account: &Did) -> Result<bool, WalletError> {
        file::remove(&self.pin_path(account))
    }

    /// Takes the lock of the contacts, for reading a contact and writing what follows from it. To
    /// be held for moments only, and not while waiting for the network.
    pub fn lock(&self) -> Result<Lock, WalletError> {
        file::lock(&self.home.join("contacts"), "lock")
    }

    fn pin_path(&self, account: &Did) -> PathBuf {
        let name = file::name(&[account.as_str().as_bytes()]);
        self.home.join("contacts").join(format!("{name}.json"))
    }
}

impl AccountStore {
    /// The account.
    pub fn account(&self) -> &Did {
        &self.account
    }

    /// Returns the account's keys and mediators; `None` where the account was never enrolled from
    /// this wallet.
    pub fn enrolment(&self) -> Result<Option<Enrolment>, WalletError> {
        let path = self.folder().join("enrolment.json");
        match read_enrolment(&path)? {
            Some(enrolment) if enrolment.account != self.account => Err(WalletError::Damaged {
                path,
                reason: Damage::OtherAccount,
            }),
            enrolment => Ok(enrolment),
        }
    }

    /// Saves the account's keys and mediators in place of the former ones. On disk when this
    /// returns. A change of a former enrolment is made under [`AccountStore::lock`].
    pub fn save(&self, enrolment: &Enrolment) -> Result<(), WalletError> {
        let path = self.folder().join("enrolment.json");
        if enrolment.keys.len() > MAX_KEYS {
            return Err(WalletError::TooLong {
                path,
                cap: MAX_ENROLMENT,
            });
        }
        let stored = StoredEnrolment::of(enrolment);
        file::write(&self.home, &path, &stored, MAX_ENROLMENT)
    }

    /// Returns the session at the account's PDS.
    pub fn session(&self) -> Result<Option<Session>, WalletError> {
        let stored = file::read::<StoredSession>(&self.session_path(), MAX_SESSION)?;
        Ok(stored.map(StoredSession::read))
    }

    /// Saves the session. On disk when this returns.
    pub fn save_session(&self, session: &Session) -> Result<(), WalletError> {
        let stored = StoredSession::of(session);
        file::write(&self.home, &self.session_path(), &stored, MAX_SESSION)
    }

    /// Deletes the session. Returns whether there was one.
    pub fn delete_session(&self) -> Result<bool, WalletError> {
        file::remove(&self.session_path())
    }

    /// Takes the lock of the account, for reading the enrolment and writing what follows from it.
    /// To be held for moments only, and not while waiting for the network.
    pub fn lock(&self) -> Result<Lock, WalletError> {
        file::lock(&self.folder(), "lock")
    }

    /// Takes the lock for changes of the enrolment, here and at the PDS; `None` where another
    /// process holds it. It is held from reading the record to recording what it names: the process
    /// that records what the record names must be the one that wrote the record. Mail is read and
    /// written without it.
    pub fn change_lock(&self) -> Result<Option<Lock>, WalletError> {
        file::try_lock(&self.folder(), "change.lock")
    }

    fn folder(&self) -> PathBuf {
        let name = file::name(&[self.account.as_str().as_bytes()]);
        self.home.join("accounts").join(name)
    }

    fn session_path(&self) -> PathBuf {
        self.folder().join("session.json")
    }
}

fn read_enrolment(path: &Path) -> Result<Option<Enrolment>, WalletError> {
    let stored = file::read::<StoredEnrolment>(path, MAX_ENROLMENT)?;
    stored
        .map(StoredEnrolment::read)
        .transpose()
        .map_err(|reason| WalletError::Damaged {
            path: path.to_owned(),
            reason: Damage::Enrolment(reason),
        })
}

#[cfg(test)]
mod tests;
