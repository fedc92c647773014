//! Pseudonyms: what a name becomes in an export that is given to others.

use std::path::Path;

use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::super::{CliError, Exit};
use atcomm_net::durable::{ReadError, read_private};

/// Shortest secret, in bytes: as long as the output of the hash (RFC 2104, section 3).
const MIN_KEY: usize = 32;

/// Longest file of a secret, in bytes.
const MAX_KEY: usize = 4096;

/// Bytes of a pseudonym. Two of a hundred million are alike with a chance of 1 in 10^22.
const LEN: usize = 16;

/// The kind of a name. The same text as another kind of name has another pseudonym.
#[derive(Debug, Clone, Copy)]
pub(super) enum Domain {
    Did,
    Handle,
    Peer,
}

impl Domain {
    /// Returns the beginning of what is hashed. It ends in a byte that is in no name.
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::Did => b"atcomm export did\0",
            Self::Handle => b"atcomm export handle\0",
            Self::Peer => b"atcomm export peer\0",
        }
    }
}

/// A secret under which names become pseudonyms.
#[derive(Clone)]
pub(super) struct Pseudonyms(Hmac<Sha256>);

impl Pseudonyms {
    /// Reads the secret: the whole content of a file that its owner alone may read.
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        let hint = "a secret is made by: (umask 077; head -c 32 /dev/urandom > KEYFILE)";
        let failed = |message: &str, hint: &str| CliError {
            exit: Exit::Usage,
            message: format!("cannot use the secret in {}: {message}", path.display()),
            hint: hint.to_owned(),
        };
        let key = match read_private(path, MAX_KEY) {
            Ok(Some(key)) => key,
            Ok(None) => return Err(failed("there is no such file", hint)),
            Err(error @ ReadError::Exposed) => {
                return Err(failed(&error.to_string(), "chmod 600 the file"));
            }
            Err(error) => return Err(failed(&error.to_string(), hint)),
        };
        if key.len() < MIN_KEY {
            return Err(failed("it is shorter than 32 bytes", hint));
        }
        Self::new(&key).ok_or_else(|| failed("it is no key", hint))
    }

    fn new(key: &[u8]) -> Option<Self> {
        Some(Self(Hmac::new_from_slice(key).ok()?))
    }

    /// Returns the pseudonym of a name: HMAC-SHA256 of its kind and itself, cut to 16 bytes, in
    /// hexadecimal digits.
    pub(super) fn of(&self, domain: Domain, name: &str) -> String {
        let mut mac = self.0.clone();
        mac.update(domain.prefix());
        mac.update(name.as_bytes());
        let whole = mac.finalize().into_bytes();
        HEXLOWER.encode(whole.get(..LEN).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// The expected values are those of Python's `hmac`:
    /// `hmac.new(bytes(range(32)), b"atcomm export did\0did:plc:abc", "sha256").hexdigest()[:32]`.
    #[test]
    fn a_pseudonym_depends_on_secret_kind_and_name_alone() {
        let key: Vec<u8> = (0..32).collect();
        let pseudonyms = Pseudonyms::new(&key).unwrap();
        for (domain, name, expected) in [
            (
                Domain::Did,
                "did:plc:abc",
                "75d03d5c5c3b56bf4b9942ff7681679f",
            ),
            (
                Domain::Handle,
                "did:plc:abc",
                "3a67d7837844df8cb2944846e53620bb",
            ),
            (
                Domain::Peer,
                "did:plc:abc",
                "7f9d8b08aef80f31eb7f5d04a3f62351",
            ),
        ] {
            assert_eq!(pseudonyms.of(domain, name), expected);
            assert_eq!(pseudonyms.clone().of(domain, name), expected);
        }
        let other = Pseudonyms::new(&[7; 32]).unwrap();
        assert_ne!(
            other.of(Domain::Did, "did:plc:abc"),
            "75d03d5c5c3b56bf4b9942ff7681679f"
        );
    }

    #[test]
    fn a_secret_is_long_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let refused = |wanted: &str| {
            let error = Pseudonyms::read(&path).err().unwrap();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.message.contains(wanted), "{}", error.message);
        };
        refused("there is no such file");
        std::fs::write(&path, [1; 31]).unwrap();
        let mode = |mode| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).unwrap();
        };
        mode(0o600);
        refused("shorter than 32 bytes");
        std::fs::write(&path, [1; 4097]).unwrap();
        refused("longer than 4096 bytes");
        std::fs::write(&path, [1; 32]).unwrap();
        mode(0o640);
        refused("others than its owner");
        mode(0o600);
        assert!(Pseudonyms::read(&path).is_ok());
    }
}
