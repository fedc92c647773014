//! Proofs: from the bytes of a CAR, an expected DID and its signing key to a [`VerifiedRecord`] or
//! a [`VerifiedAbsence`] of the account's key package, or to an error if neither is proven.
//!
//! A proof is the response of `com.atproto.sync.getRecord` or the `blocks` of a firehose commit: a
//! signed commit and the nodes of the repository tree on the path to the record. The sender of a
//! proof is not trusted. Only this module makes the two `Verified...` types.
//!
//! The proof library reads container and blocks, checks the signature and looks up the record in
//! the tree. The result of the library counts only if our own lookup (`tree`), which adds the rules
//! that the library leaves open, has the same result.
//!
//! Source: atproto repository and sync specifications.

mod blocks;
mod error;
mod tree;

#[cfg(test)]
mod tests;

use std::time::Duration;

use ipld_core::cid::Cid;
use shrike::cbor::{Cid as BlockCid, Codec, Value, decode, encode_value};
use shrike::mst::{DetachedTree, MstError};

use crate::clock::Timestamp;
use crate::key::{SIGNATURE_LEN, SigningKey};
use crate::syntax::{Did, RECORD_PATH, Rev};

use self::blocks::Blocks;
pub use self::blocks::{MAX_PROOF_LEN, block};
pub use self::error::ProofError;
pub use self::tree::MAX_NODE_LEN;

/// Largest CAR of one firehose commit, in bytes (sync specification).
pub const MAX_COMMIT_LEN: usize = 2_000_000;

/// Deepest nesting of maps and arrays in a record.
pub const MAX_RECORD_DEPTH: usize = 32;

/// Longest time by which a revision may lie in the future (sync specification).
pub const MAX_FUTURE: Duration = Duration::from_secs(5 * 60);

/// The source of a CAR, which decides how large the CAR may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// The response of `com.atproto.sync.getRecord`.
    GetRecord,
    /// The `blocks` of a firehose `#commit`.
    Commit,
}

/// The data that every verified proof shows besides the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    did: Did,
    key: SigningKey,
    commit: Cid,
    data: Cid,
    rev: Rev,
    car: Vec<u8>,
}

impl Commitment {
    /// Returns the account.
    pub fn did(&self) -> &Did {
        &self.did
    }

    /// Returns the key that verified the signature.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// Returns the CID of the signed commit.
    pub fn commit(&self) -> &Cid {
        &self.commit
    }

    /// Returns the CID of the tree's root.
    pub fn data(&self) -> &Cid {
        &self.data
    }

    /// Returns the revision of the commit.
    pub fn rev(&self) -> Rev {
        self.rev
    }

    /// Returns the minimal proof: commit, nodes on the path, record. At most [`MAX_PROOF_LEN`]
    /// bytes; verifying it gives this same value.
    pub fn car(&self) -> &[u8] {
        &self.car
    }
}

/// A key package record that the account's key has committed to. The `keypackage` module decides
/// whether the record is a valid key package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRecord {
    commitment: Commitment,
    cid: Cid,
    record: Vec<u8>,
}

impl VerifiedRecord {
    /// Returns account, key, commit and proof.
    pub fn commitment(&self) -> &Commitment {
        &self.commitment
    }

    /// Returns the CID of the record.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// Returns the record's DAG-CBOR, unchanged.
    pub fn record(&self) -> &[u8] {
        &self.record
    }
}

/// The proven absence of a key package: the proof has every node on the path, and none has the
/// record's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAbsence {
    commitment: Commitment,
}

impl VerifiedAbsence {
    /// Returns account, key, commit and proof.
    pub fn commitment(&self) -> &Commitment {
        &self.commitment
    }
}

/// The result of a proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proven {
    /// The record exists.
    Present(VerifiedRecord),
    /// The record does not exist.
    Absent(VerifiedAbsence),
}

impl Proven {
    /// Returns account, key, commit and proof.
    pub fn commitment(&self) -> &Commitment {
        match self {
            Self::Present(record) => &record.commitment,
            Self::Absent(absence) => &absence.commitment,
        }
    }
}

/// Verifies that `car` proves the presence or absence of `did`'s key package under a commit signed
/// by `key`.
///
/// Every block is hashed, those off the path included. `now` bounds how far the revision may lie in
/// the future; its age is not checked, because some servers count instead of reading a clock.
///
/// ```
/// use atcomm_proto::clock::Timestamp;
/// use atcomm_proto::key::SigningKey;
/// use atcomm_proto::keypackage::KeyPackage;
/// use atcomm_proto::proof::{Container, Proven, verify};
/// use atcomm_proto::syntax::Did;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/proof/repo-k256-50-present.car");
/// // The answer of com.atproto.sync.getRecord, the account, and the key that its DID document names.
/// let car = std::fs::read(file)?;
/// let did = Did::parse("did:plc:k256withfifty22222222222")?;
/// let key = SigningKey::from_did_key("did:key:zQ3shSZ1smbbrtE4goThcr6uEaJZ3WANzVdjbtGvnUeRfNDEK")?;
/// let now = Timestamp::from_millis(1_798_761_540_000);
///
/// let Proven::Present(record) = verify(&car, Container::GetRecord, &did, &key, now)? else {
///     panic!("the account has a key package");
/// };
/// let package = KeyPackage::parse(record.record())?;
/// assert_eq!(package.mediators[0].as_str(), "did:web:mediator.example");
///
/// // One other bit anywhere, and nothing is proven.
/// let mut damaged = car.clone();
/// damaged[1000] ^= 1;
/// assert!(verify(&damaged, Container::GetRecord, &did, &key, now).is_err());
/// # Ok(())
/// # }
/// ```
pub fn verify(
    car: &[u8],
    container: Container,
    did: &Did,
    key: &SigningKey,
    now: Timestamp,
) -> Result<Proven, ProofError> {
    let cap = match container {
        Container::GetRecord => MAX_PROOF_LEN,
        Container::Commit => MAX_COMMIT_LEN,
    };
    if car.len() > cap {
        return Err(ProofError::Oversize);
    }
    let blocks = Blocks::read(car)?;
    let commit = read_commit(&blocks, did, now)?;
    key.verify(&commit.unsigned, commit.signature)
        .map_err(|_| ProofError::Signature)?;
    let found = library_lookup(&blocks, commit.data)?;
    let path = tree::lookup(&blocks, commit.data)?;
    // Two implementations have read the same bytes; if they differ, neither result counts.
    if found != path.value {
        return Err(ProofError::Tree);
    }
    let record = path
        .value
        .map(|cid| Ok((cid, read_record(&blocks, cid)?)))
        .transpose()?;
    let mut needed = path.nodes;
    needed.extend(path.value);
    let commitment = Commitment {
        did: did.clone(),
        key: key.clone(),
        commit: public_cid(&blocks.root)?,
        data: public_cid(&commit.data)?,
        rev: commit.rev,
        car: blocks.subset_car(&needed)?,
    };
    Ok(match record {
        None => Proven::Absent(VerifiedAbsence { commitment }),
        Some((cid, record)) => {
            let (cid, record) = (public_cid(&cid)?, record.to_vec());
            Proven::Present(VerifiedRecord {
                commitment,
                cid,
                record,
            })
        }
    })
}

/// The parts of a signed commit that the proof needs.
struct Commit<'a> {
    rev: Rev,
    data: BlockCid,
    signature: &'a [u8],
    /// The signed bytes: the commit without its signature, in canonical form.
    unsigned: Vec<u8>,
}

/// Reads the commit at the root: of version 3, of the expected account and not from the future. The
/// commit must have exactly six fields in canonical form, so that the signature covers every byte.
///
/// The library's own reader does not accept every DID of an account, and accepts other fields.
fn read_commit<'a>(
    blocks: &Blocks<'a>,
    did: &Did,
    now: Timestamp,
) -> Result<Commit<'a>, ProofError> {
    let bytes = blocks.get(&blocks.root).ok_or(ProofError::Roots)?;
    if blocks.root.codec() != Codec::Drisl || bytes.len() > MAX_NODE_LEN {
        return Err(ProofError::Commit);
    }
    let Ok(Value::Map(mut fields)) = decode(bytes) else {
        return Err(ProofError::Commit);
    };
    let [
        ("did", Value::Text(owner)),
        ("rev", Value::Text(rev)),
        ("sig", Value::Bytes(signature)),
        ("data", Value::Cid(data)),
        // Some servers link the previous commit.
        ("prev", Value::Null | Value::Cid(_)),
        ("version", Value::Unsigned(3)),
    ] = fields.as_slice()
    else {
        return Err(ProofError::Commit);
    };
    let (owner, rev, signature, data) = (*owner, *rev, *signature, *data);
    if signature.len() != SIGNATURE_LEN {
        return Err(ProofError::Signature);
    }
    if owner != did.as_str() {
        return Err(ProofError::WrongDid);
    }
    let rev = Rev::parse(rev).map_err(|_| ProofError::Rev)?;
    let latest = now.plus(MAX_FUTURE).millis();
    if i64::try_from(rev.micros() / 1000).unwrap_or(i64::MAX) > latest {
        return Err(ProofError::Future);
    }
    fields.retain(|(name, _)| *name != "sig");
    let unsigned = encode_value(&Value::Map(fields)).map_err(|_| ProofError::Commit)?;
    Ok(Commit {
        rev,
        data,
        signature,
        unsigned,
    })
}

/// Refuses what the data model forbids and the decoder accepts: floats and unlimited nesting.
fn check_record(value: &Value<'_>, depth: usize) -> Result<(), ProofError> {
    let inner = depth.checked_sub(1).ok_or(ProofError::Record);
    match value {
        Value::Float(_) => Err(ProofError::Record),
        Value::Array(items) => {
            let inner = inner?;
            items.iter().try_for_each(|item| check_record(item, inner))
        }
        Value::Map(fields) => {
            let inner = inner?;
            fields
                .iter()
                .try_for_each(|(_, item)| check_record(item, inner))
        }
        _ => Ok(()),
    }
}

/// Returns the record that the library's own lookup in the tree finds.
fn library_lookup(blocks: &Blocks<'_>, root: BlockCid) -> Result<Option<BlockCid>, ProofError> {
    DetachedTree::load(root)
        .get(blocks, RECORD_PATH)
        .map_err(|error| match error {
            MstError::BlockNotFound(_) => ProofError::Incomplete,
            _ => ProofError::Tree,
        })
}

/// Returns the record block, which must be a map in strict DAG-CBOR.
fn read_record<'a>(blocks: &Blocks<'a>, cid: BlockCid) -> Result<&'a [u8], ProofError> {
    if cid.codec() != Codec::Drisl {
        return Err(ProofError::Record);
    }
    let bytes = blocks.get(&cid).ok_or(ProofError::Incomplete)?;
    match decode(bytes) {
        Ok(value @ Value::Map(_)) => check_record(&value, MAX_RECORD_DEPTH)?,
        _ => return Err(ProofError::Record),
    }
    Ok(bytes)
}

fn public_cid(cid: &BlockCid) -> Result<Cid, ProofError> {
    Cid::try_from(&cid.to_bytes()[..]).map_err(|_| ProofError::Malformed)
}
