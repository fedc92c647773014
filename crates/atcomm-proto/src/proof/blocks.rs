//! The blocks of a CAR.

use std::borrow::Cow;
use std::collections::HashMap;

use ipld_core::cid::Cid;
use shrike::car::{BlockRef, SliceReader, Writer};
use shrike::cbor::Cid as BlockCid;
use shrike::mst::{BlockSource, MstError};

use super::error::ProofError;

/// Largest response of `getRecord` accepted as a proof, in bytes. A typical one has 1 to 6 KB. An
/// account can inflate its own path with neighbouring records; its record is then not accepted.
pub const MAX_PROOF_LEN: usize = 64 * 1024;

/// Most roots of a CAR that are read.
const MAX_ROOTS: usize = 16;

/// The blocks of a CAR by CID, each checked against its CID. The order of blocks has no meaning:
/// some writers put the record first.
pub(super) struct Blocks<'a> {
    pub(super) root: BlockCid,
    by_cid: HashMap<BlockCid, &'a [u8]>,
}

impl<'a> Blocks<'a> {
    pub(super) fn read(car: &'a [u8]) -> Result<Self, ProofError> {
        let reader = SliceReader::new(car).map_err(|_| ProofError::Malformed)?;
        // The first root is the commit (repository specification, "CAR File Serialization"). Others
        // have no meaning, and are not looked at in place of the first.
        let roots = reader.roots();
        let &[root, ..] = roots else {
            return Err(ProofError::Roots);
        };
        if roots.len() > MAX_ROOTS {
            return Err(ProofError::Roots);
        }
        // The header must have its one canonical encoding, so that the CAR has no unread bytes
        // beside its roots and blocks.
        let mut header = Vec::with_capacity(64);
        Writer::new(&mut header, roots).map_err(|_| ProofError::Malformed)?;
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

    pub(super) fn get(&self, cid: &BlockCid) -> Option<&'a [u8]> {
        self.by_cid.get(cid).copied()
    }

    /// Writes a CAR with only the commit and `needed`, in that order.
    pub(super) fn subset_car(&self, needed: &[BlockCid]) -> Result<Vec<u8>, ProofError> {
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

/// Returns the block with this CID from a CAR that [`verify`](super::verify) has accepted or made,
/// such as the record of a [`VerifiedRecord`](super::VerifiedRecord) from its proof.
///
/// The block is hashed again, so a damaged copy of the CAR gives no other record than the proven
/// one. Nothing else is checked: a CAR that was not verified before proves nothing here.
pub fn block<'a>(car: &'a [u8], cid: &Cid) -> Result<&'a [u8], ProofError> {
    let wanted = BlockCid::from_bytes(&cid.to_bytes()).map_err(|_| ProofError::Malformed)?;
    let reader = SliceReader::new(car).map_err(|_| ProofError::Malformed)?;
    for block in reader {
        let block = block.map_err(|_| ProofError::Malformed)?;
        if block.cid == wanted {
            let hashed = BlockCid::compute(block.cid.codec(), block.data);
            return if hashed == wanted {
                Ok(block.data)
            } else {
                Err(ProofError::Hash)
            };
        }
    }
    Err(ProofError::Incomplete)
}

impl BlockSource for Blocks<'_> {
    fn read_block(&self, cid: &BlockCid) -> Result<Option<Cow<'_, [u8]>>, MstError> {
        Ok(self.get(cid).map(Cow::Borrowed))
    }
}
