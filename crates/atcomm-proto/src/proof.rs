//! Proofs: from the bytes of a CAR, an expected DID and its signing key to a [`VerifiedRecord`]
//! or a [`VerifiedAbsence`] of the account's key package, or to a reason why neither is shown.
//!
//! A proof is what `com.atproto.sync.getRecord` answers, or the `blocks` of a firehose commit: a
//! signed commit and the nodes of the repository tree on the path to the record. Nothing of who
//! sent it is trusted. Only this module makes the two `Verified...` types.
//!
//! The proof library reads container and blocks, checks the signature and walks the tree; its
//! answer counts only when our own walk (`tree`), which adds the rules it leaves open, reaches the
//! same one.
//!
//! Source: atproto repository and sync specifications.

mod tree;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use ipld_core::cid::Cid;
use shrike::car::{BlockRef, SliceReader, Writer};
use shrike::cbor::{Cid as BlockCid, Codec, Value, decode, encode_value};
use shrike::mst::{BlockSource, DetachedTree, MstError};

use crate::clock::Timestamp;
use crate::key::{SIGNATURE_LEN, SigningKey};
use crate::syntax::{Did, RECORD_PATH, Rev};

/// Largest answer of `getRecord` taken as a proof, in bytes. A typical one has 1 to 6 KB; an
/// account can inflate its own path with neighbours, and pays for it by not being shown.
pub const MAX_PROOF_LEN: usize = 64 * 1024;

/// Largest CAR of one firehose commit, in bytes (sync specification).
pub const MAX_COMMIT_LEN: usize = 2_000_000;

/// Largest tree node on the path, in bytes.
pub const MAX_NODE_LEN: usize = 16 * 1024;

/// Deepest nesting of maps and arrays in a record.
pub const MAX_RECORD_DEPTH: usize = 32;

/// How far a revision may lie in the future (sync specification).
pub const MAX_FUTURE: Duration = Duration::from_secs(5 * 60);

/// Where the CAR comes from, which decides how large it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// The answer of `com.atproto.sync.getRecord`.
    GetRecord,
    /// The `blocks` of a firehose `#commit`.
    Commit,
}

/// Why a CAR proves nothing. Each has a stable code for metrics and for the kept entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProofError {
    /// The CAR, the record's path or a node of it is larger than allowed.
    #[error("the proof is larger than allowed")]
    Oversize,
    /// Not a well-formed CAR.
    #[error("the proof is not a well-formed CAR")]
    Malformed,
    /// No root, several, or one that is not in the CAR.
    #[error("the proof does not have exactly one root")]
    Roots,
    /// A block whose bytes do not hash to its CID.
    #[error("a block of the proof does not match its CID")]
    Hash,
    /// A block on the path is missing: neither presence nor absence is shown.
    #[error("a block on the path to the record is missing")]
    Incomplete,
    /// Not a version 3 commit in canonical form.
    #[error("the root is not a version 3 commit")]
    Commit,
    /// The commit belongs to another account.
    #[error("the commit belongs to another account")]
    WrongDid,
    /// The signature is not by the account's current key.
    #[error("the commit is not signed by the account's current key")]
    Signature,
    /// The revision is not a TID.
    #[error("the revision is not a TID")]
    Rev,
    /// The revision lies more than five minutes in the future.
    #[error("the revision lies in the future")]
    Future,
    /// A node of the tree breaks the rules of its shape.
    #[error("the repository tree in the proof is malformed")]
    Tree,
    /// The record block is not a map in strict DAG-CBOR.
    #[error("the record is not valid DAG-CBOR")]
    Record,
}

impl ProofError {
    /// Stable code, for metrics and for the entry that keeps it.
    pub fn code(self) -> &'static str {
        match self {
            Self::Oversize => "proof_oversize",
            Self::Malformed => "proof_malformed",
            Self::Roots => "proof_roots",
            Self::Hash => "proof_hash",
            Self::Incomplete => "proof_incomplete",
            Self::Commit => "proof_commit",
            Self::WrongDid => "proof_wrong_did",
            Self::Signature => "proof_signature",
            Self::Rev => "proof_rev",
            Self::Future => "proof_future",
            Self::Tree => "proof_tree",
            Self::Record => "proof_record",
        }
    }
}

/// What every verified proof shows, besides the record itself.
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
    /// The account.
    pub fn did(&self) -> &Did {
        &self.did
    }

    /// The key whose signature was checked.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// CID of the signed commit.
    pub fn commit(&self) -> &Cid {
        &self.commit
    }

    /// CID of the tree's root.
    pub fn data(&self) -> &Cid {
        &self.data
    }

    /// Revision of the commit.
    pub fn rev(&self) -> Rev {
        self.rev
    }

    /// The proof itself, cut to what it needs: commit, nodes on the path, record. At most
    /// [`MAX_PROOF_LEN`] bytes; verifying it again gives this same value.
    pub fn car(&self) -> &[u8] {
        &self.car
    }
}

/// A key package record that the account's key committed to. Whether it is a valid package is
/// the `keypackage` module's question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRecord {
    commitment: Commitment,
    cid: Cid,
    record: Vec<u8>,
}

impl VerifiedRecord {
    /// Account, key, commit and proof.
    pub fn commitment(&self) -> &Commitment {
        &self.commitment
    }

    /// CID of the record.
    pub fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The record's DAG-CBOR, unchanged.
    pub fn record(&self) -> &[u8] {
        &self.record
    }
}

/// The proven absence of a key package: every node on the path was there, and the key was not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAbsence {
    commitment: Commitment,
}

impl VerifiedAbsence {
    /// Account, key, commit and proof.
    pub fn commitment(&self) -> &Commitment {
        &self.commitment
    }
}

/// What a proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proven {
    /// The record is there.
    Present(VerifiedRecord),
    /// The record is not there.
    Absent(VerifiedAbsence),
}

impl Proven {
    /// Account, key, commit and proof.
    pub fn commitment(&self) -> &Commitment {
        match self {
            Self::Present(record) => &record.commitment,
            Self::Absent(absence) => &absence.commitment,
        }
    }
}

/// Verifies that `car` shows the presence or absence of `did`'s key package under a commit
/// signed by `key`.
///
/// Every block is hashed, also those the path does not need. `now` bounds the revision's future;
/// nothing is concluded from its age, because some servers count instead of reading a clock.
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
    let found = ask_library(&blocks, commit.data)?;
    let path = tree::walk(&blocks, commit.data)?;
    // Two readings of the same bytes by two implementations: when they differ, neither counts.
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
        car: blocks.cut(&needed)?,
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

/// What is needed of a signed commit.
struct Commit<'a> {
    rev: Rev,
    data: BlockCid,
    signature: &'a [u8],
    /// What was signed: the commit without its signature, in canonical form.
    unsigned: Vec<u8>,
}

/// Reads the commit at the root: version 3, its six fields and no other, in canonical form, so
/// that the signature covers every byte; of the account asked for, and not from the future.
///
/// The library's own reader knows neither every DID of an account nor refuses other fields.
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
        // Some servers link the commit before.
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

/// What the data model forbids and the decoder lets pass: floats, and nesting without end.
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

/// Where the library's own walk of the tree ends.
fn ask_library(blocks: &Blocks<'_>, root: BlockCid) -> Result<Option<BlockCid>, ProofError> {
    DetachedTree::load(root)
        .get(blocks, RECORD_PATH)
        .map_err(|error| match error {
            MstError::BlockNotFound(_) => ProofError::Incomplete,
            _ => ProofError::Tree,
        })
}

/// The record block: there, and a map in strict DAG-CBOR.
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

/// The blocks of a CAR, each checked against its CID, by CID. The order of blocks means nothing:
/// some writers put the record first.
struct Blocks<'a> {
    root: BlockCid,
    by_cid: HashMap<BlockCid, &'a [u8]>,
}

impl<'a> Blocks<'a> {
    fn read(car: &'a [u8]) -> Result<Self, ProofError> {
        let reader = SliceReader::new(car).map_err(|_| ProofError::Malformed)?;
        let &[root] = reader.roots() else {
            return Err(ProofError::Roots);
        };
        // One encoding of the header: what is in the CAR beside its blocks is nothing unread.
        let mut header = Vec::with_capacity(64);
        Writer::new(&mut header, &[root]).map_err(|_| ProofError::Malformed)?;
        if !car.starts_with(&header) {
            return Err(ProofError::Malformed);
        }
        let mut by_cid = HashMap::new();
        for block in reader {
            let block = block.map_err(|_| ProofError::Malformed)?;
            if BlockCid::compute(block.cid.codec(), block.data) != block.cid {
                return Err(ProofError::Hash);
            }
            by_cid.insert(block.cid, block.data);
        }
        Ok(Self { root, by_cid })
    }

    fn get(&self, cid: &BlockCid) -> Option<&'a [u8]> {
        self.by_cid.get(cid).copied()
    }

    /// Writes the CAR that holds just the commit and `needed`, in that order.
    fn cut(&self, needed: &[BlockCid]) -> Result<Vec<u8>, ProofError> {
        let mut car = Vec::with_capacity(4096);
        let mut writer = Writer::new(&mut car, &[self.root]).map_err(|_| ProofError::Malformed)?;
        for cid in std::iter::once(&self.root).chain(needed) {
            let data = self.get(cid).ok_or(ProofError::Incomplete)?;
            writer
                .write_block_ref(BlockRef { cid: *cid, data })
                .map_err(|_| ProofError::Malformed)?;
        }
        if car.len() > MAX_PROOF_LEN {
            return Err(ProofError::Oversize);
        }
        Ok(car)
    }
}

impl BlockSource for Blocks<'_> {
    fn read_block(&self, cid: &BlockCid) -> Result<Option<Cow<'_, [u8]>>, MstError> {
        Ok(self.get(cid).map(Cow::Borrowed))
    }
}

fn public_cid(cid: &BlockCid) -> Result<Cid, ProofError> {
    Cid::try_from(&cid.to_bytes()[..]).map_err(|_| ProofError::Malformed)
}
