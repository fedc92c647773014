//! Evidence: a proof and an operation log, in one file that can be verified without a network.
//!
//! Evidence shows that the account's signing key committed to a record and, for a `did:plc`, that
//! this key follows from the account's identifier. [`CANNOT_SHOW`] lists what evidence cannot show.

use std::sync::Arc;

use data_encoding::{BASE64, BASE64_NOPAD};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::clock::Timestamp;
use crate::key::SigningKey;
use crate::keypackage::{InvalidKeyPackage, KeyPackage, Rule, record_json};
use crate::plc::{self, LogError, VerifiedLog};
use crate::proof::{
    Container, MAX_FUTURE, MAX_PROOF_LEN, ProofError, Proven, VerifiedRecord, verify as verify_car,
};
use crate::syntax::{Did, Handle, Origin, Rev};

/// The format of the file and its version.
const FORMAT: &str = "evidence/1";

/// Longest file, in bytes. Covers a log and a proof of the greatest length, the directory's answer
/// with both once more, and white space.
pub const MAX_FILE_LEN: usize = 4 * 1024 * 1024;

/// The facts that no file can show.
pub const CANNOT_SHOW: [&str; 5] = [
    "that the handle is the account's: it is a claim until it is looked up",
    "that nothing newer exists: a later package, or later operations that replaced the signing key",
    "when the operations of the log were made: no signature covers that",
    "what its mediators' documents say",
    "whether the account is active",
];

/// Errors of reading and verifying evidence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The file does not have this format, or is longer than [`MAX_FILE_LEN`].
    #[error("it is not a file of evidence: {0}")]
    Format(#[from] FormatError),
    /// The file has no operation log, without which the signing key of a `did:plc` is not proven.
    #[error("it has no operation log, so nothing shows the account's signing key")]
    NoLog,
    /// The account is a `did:web`, whose signing key stands only in a document on its host.
    #[error("the signing key of a did:web is shown by its host alone")]
    Web,
    /// The operation log does not verify.
    #[error("the operation log does not verify: {0}")]
    Log(#[from] LogError),
    /// The account has ended.
    #[error("the account has ended")]
    Tombstoned,
    /// The account has no signing key.
    #[error("the account has no signing key that can be used")]
    NoSigningKey,
    /// The proof does not hold under the account's key.
    #[error("the proof does not hold: {0}")]
    Proof(#[source] ProofError),
    /// The proof shows that the account has no key package.
    #[error("it proves that the account has no key package")]
    Absent,
    /// The record is not a valid key package.
    #[error("the record is not a valid key package: {0}")]
    Invalid(#[source] InvalidKeyPackage),
}

/// Errors of the format of a file of evidence.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FormatError {
    /// The file is longer than [`MAX_FILE_LEN`].
    #[error("it is longer than 4 MiB")]
    TooLong,
    /// The file is not JSON, or a field is missing or of another type.
    #[error(transparent)]
    Json(Arc<serde_json::Error>),
    /// The file names another format or version.
    #[error("it is of another version")]
    Version,
    /// The proof is not base64.
    #[error("car is not base64")]
    Base64,
}

/// Compares the texts, since errors of reading JSON cannot be compared.
impl PartialEq for FormatError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for FormatError {}

/// A proof about an account with its context, as written to a file. Nothing in it is verified.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The account.
    pub did: Did,
    /// The handle of the account, as verified by the maker of the file.
    pub handle: Option<Handle>,
    /// The directory that was asked.
    pub directory: Option<Origin>,
    /// The time at which the directory was asked.
    pub asked_at: Timestamp,
    /// The proof: a CAR.
    pub car: Vec<u8>,
    /// The operation log: a JSON array, as returned by the PLC directory.
    pub plc_log: Option<Box<RawValue>>,
    /// The unchanged answer of the directory.
    pub answer: Option<Box<RawValue>>,
}

/// The JSON of a file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    atcomm: String,
    did: Did,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handle: Option<Handle>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory: Option<Origin>,
    #[serde(with = "crate::clock::serde::rfc3339")]
    asked_at: Timestamp,
    car: Base64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plc_log: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<Box<RawValue>>,
}

/// Bytes as the atproto data model writes them in JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Base64 {
    #[serde(rename = "$bytes")]
    text: String,
}

impl Base64 {
    /// Encodes bytes without padding.
    pub fn encode(bytes: &[u8]) -> Self {
        Self {
            text: BASE64_NOPAD.encode(bytes),
        }
    }

    /// Decodes the text, with or without padding: both are in use.
    pub fn decode(&self) -> Option<Vec<u8>> {
        let text = self.text.as_bytes();
        BASE64_NOPAD
            .decode(text)
            .or_else(|_| BASE64.decode(text))
            .ok()
    }
}

impl Evidence {
    /// Reads a file.
    pub fn read(bytes: &[u8]) -> Result<Self, EvidenceError> {
        if bytes.len() > MAX_FILE_LEN {
            return Err(FormatError::TooLong.into());
        }
        let file: File =
            serde_json::from_slice(bytes).map_err(|why| FormatError::Json(Arc::new(why)))?;
        if file.atcomm != FORMAT {
            return Err(FormatError::Version.into());
        }
        Ok(Self {
            did: file.did,
            handle: file.handle,
            directory: file.directory,
            asked_at: file.asked_at,
            car: file.car.decode().ok_or(FormatError::Base64)?,
            plc_log: file.plc_log,
            answer: file.answer,
        })
    }

    /// Returns the bytes of the file.
    pub fn to_vec(&self) -> Vec<u8> {
        let file = File {
            atcomm: FORMAT.to_owned(),
            did: self.did.clone(),
            handle: self.handle.clone(),
            directory: self.directory.clone(),
            asked_at: self.asked_at,
            car: Base64::encode(&self.car),
            plc_log: self.plc_log.clone(),
            answer: self.answer.clone(),
        };
        #[expect(
            clippy::expect_used,
            reason = "texts under constant names, and JSON that was read"
        )]
        let mut bytes = serde_json::to_vec_pretty(&file).expect("evidence is JSON");
        bytes.push(b'\n');
        bytes
    }
}

/// A key package that the account's signing key has committed to. Only this module makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedPackage {
    record: VerifiedRecord,
    package: KeyPackage,
    value: Value,
    signed_by_previous_host: bool,
}

impl VerifiedPackage {
    /// Returns the account.
    pub fn account(&self) -> &Did {
        self.record.commitment().did()
    }

    /// Returns the package.
    pub fn package(&self) -> &KeyPackage {
        &self.package
    }

    /// Returns the did:peer to encrypt to.
    pub fn peer(&self) -> &str {
        self.package.peer.as_str()
    }

    /// Returns the record as JSON, with all its fields.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Returns the CID of the record.
    pub fn cid(&self) -> String {
        self.record.cid().to_string()
    }

    /// Returns the revision of the repository in which the package is proven.
    pub fn rev(&self) -> Rev {
        self.record.commitment().rev()
    }

    /// Returns the key that signed the commit.
    pub fn signing_key(&self) -> &SigningKey {
        self.record.commitment().key()
    }

    /// Returns the minimal proof.
    pub fn car(&self) -> &[u8] {
        self.record.commitment().car()
    }

    /// Returns whether the commit is signed by the PDS that the account left. The account has then
    /// not written since its migration.
    pub fn signed_by_previous_host(&self) -> bool {
        self.signed_by_previous_host
    }

    /// Returns the time of the proof: that of the revision, which the account's PDS signed.
    pub fn proven_at(&self) -> Timestamp {
        Timestamp::from_millis(millis(self.rev()))
    }

    /// Returns the time at which the account says it made the package.
    pub fn created_at(&self) -> Option<Timestamp> {
        Timestamp::parse_rfc3339(&self.package.created_at)
    }

    /// Returns the statement of an earlier key that names this one, if the record has one
    /// ([`succession`](super::succession)).
    pub fn succession(&self) -> Option<&str> {
        self.value.get(super::succession::FIELD)?.as_str()
    }
}

/// The result of a proof under the keys of an account.
#[derive(Debug, Clone, PartialEq)]
pub enum ProofResult {
    /// The account has a valid key package.
    Package(Box<VerifiedPackage>),
    /// The account has no key package.
    Absent {
        /// The revision at which the package is absent.
        rev: Rev,
        /// The key that signed the commit.
        key: SigningKey,
    },
}

/// The keys under which an account's proofs count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The current key.
    pub current: SigningKey,
    /// The key of the PDS that the account left, and the time of the migration.
    pub pre_migration_key: Option<(SigningKey, Timestamp)>,
}

impl Keys {
    /// Returns the keys at the end of a log.
    pub fn of_log(log: &VerifiedLog) -> Result<Self, EvidenceError> {
        let state = log.current().ok_or(EvidenceError::Tombstoned)?;
        let current = state.signing_key.clone();
        Ok(Self {
            current: current.ok_or(EvidenceError::NoSigningKey)?,
            pre_migration_key: log.pre_migration_key().map(|(key, at)| (key.clone(), at)),
        })
    }

    /// Verifies a CAR. Under the key before a migration only commits up to the migration count.
    pub fn prove(
        &self,
        did: &Did,
        car: &[u8],
        now: Timestamp,
    ) -> Result<ProofResult, EvidenceError> {
        let under = |key: &SigningKey| verify_car(car, Container::GetRecord, did, key, now);
        let mut verdict = under(&self.current);
        let mut signed_by_previous_host = false;
        if verdict == Err(ProofError::Signature)
            && let Some((key, until)) = &self.pre_migration_key
            && let Ok(proven) = under(key)
            && millis(proven.commitment().rev()) <= until.plus(MAX_FUTURE).millis()
        {
            verdict = Ok(proven);
            signed_by_previous_host = true;
        }
        match verdict.map_err(EvidenceError::Proof)? {
            Proven::Absent(absence) => Ok(ProofResult::Absent {
                rev: absence.commitment().rev(),
                key: absence.commitment().key().clone(),
            }),
            Proven::Present(record) => {
                let package = KeyPackage::parse(record.record()).map_err(EvidenceError::Invalid)?;
                // A record that was parsed has a JSON form.
                let value = record_json(record.record()).map_err(|why| {
                    EvidenceError::Invalid(InvalidKeyPackage {
                        rule: Rule::DataModel,
                        detail: why.to_string(),
                    })
                })?;
                Ok(ProofResult::Package(Box::new(VerifiedPackage {
                    record,
                    package,
                    value,
                    signed_by_previous_host,
                })))
            }
        }
    }
}

/// Returns the time that a revision encodes, in milliseconds since 1970.
fn millis(rev: Rev) -> i64 {
    i64::try_from(rev.micros() / 1000).unwrap_or(i64::MAX)
}

/// A verified file of evidence: the package, and the log that leads to its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// The package.
    pub package: VerifiedPackage,
    /// The operations of the account that the file has.
    pub log: VerifiedLog,
}

/// Verifies evidence about a `did:plc` without a network. `now` bounds how far in the future the
/// revision may lie.
pub fn verify(evidence: &Evidence, now: Timestamp) -> Result<Verified, EvidenceError> {
    if evidence.did.web().is_some() {
        return Err(EvidenceError::Web);
    }
    if evidence.car.len() > MAX_PROOF_LEN {
        return Err(EvidenceError::Proof(ProofError::Oversize));
    }
    let log = evidence.plc_log.as_ref().ok_or(EvidenceError::NoLog)?;
    let log = plc::verify(&evidence.did, log.get().as_bytes())?;
    match Keys::of_log(&log)?.prove(&evidence.did, &evidence.car, now)? {
        ProofResult::Package(package) => Ok(Verified {
            package: *package,
            log,
        }),
        ProofResult::Absent { .. } => Err(EvidenceError::Absent),
    }
}

#[cfg(test)]
mod tests;
