//! Our own lookup in the repository tree (MST), from its root to the key package's path.
//!
//! The lookup checks all rules of the tree that the nodes of one path can show: canonical nodes,
//! every key of a node at the node's height, heights falling by one from parent to child, keys
//! ascending and within the range that the parent leaves. A tree that breaks one of these rules
//! could show a record to one reader and its absence to another.

use shrike::cbor::{Cid as BlockCid, Codec, Value, decode};
use shrike::mst::{height_for_key, is_valid_key};

use super::blocks::Blocks;
use super::error::ProofError;
use crate::syntax::RECORD_PATH;

/// Largest tree node on the path, in bytes.
pub const MAX_NODE_LEN: usize = 16 * 1024;

/// The path to the record, or to the position where it would be.
pub(super) struct Path {
    /// The nodes passed, root first.
    pub(super) nodes: Vec<BlockCid>,
    /// The record; `None` if the tree does not have it.
    pub(super) value: Option<BlockCid>,
}

/// The range in which the keys of a subtree must lie, exclusive at both ends.
#[derive(Default)]
struct KeyRange {
    above: Option<String>,
    below: Option<String>,
}

impl KeyRange {
    fn holds(&self, key: &str) -> bool {
        self.above.as_deref().is_none_or(|low| low < key)
            && self.below.as_deref().is_none_or(|high| key < high)
    }
}

/// Looks up [`RECORD_PATH`] in the tree below `root`.
pub(super) fn lookup(blocks: &Blocks<'_>, root: BlockCid) -> Result<Path, ProofError> {
    let mut path = Path {
        nodes: Vec::new(),
        value: None,
    };
    let mut range = KeyRange::default();
    // Height of the parent node; the keys of the root give the root's own height.
    let mut parent: Option<u8> = None;
    let mut cid = root;
    loop {
        let node = Node::read(blocks, cid)?;
        path.nodes.push(cid);
        let height = node.height(parent)?;
        if node.keys.iter().any(|key| !range.holds(key)) {
            return Err(ProofError::Tree);
        }
        let position = node.keys.iter().position(|key| key.as_str() >= RECORD_PATH);
        let index = position.unwrap_or(node.keys.len());
        if node.keys.get(index).is_some_and(|key| key == RECORD_PATH) {
            path.value = node.values.get(index).copied();
            return Ok(path);
        }
        let child = node.children.get(index).copied().flatten();
        let Some(child) = child else { return Ok(path) };
        if let Some(key) = index.checked_sub(1).and_then(|i| node.keys.get(i)) {
            range.above = Some(key.clone());
        }
        if let Some(key) = node.keys.get(index) {
            range.below = Some(key.clone());
        }
        parent = Some(height);
        cid = child;
    }
}

/// A node with uncompressed keys.
struct Node {
    keys: Vec<String>,
    values: Vec<BlockCid>,
    /// The subtree before each key and the one after the last key: one more than `keys`.
    children: Vec<Option<BlockCid>>,
}

impl Node {
    fn read(blocks: &Blocks<'_>, cid: BlockCid) -> Result<Self, ProofError> {
        let bytes = blocks.get(&cid).ok_or(ProofError::Incomplete)?;
        if bytes.len() > MAX_NODE_LEN {
            return Err(ProofError::Oversize);
        }
        if cid.codec() != Codec::Drisl {
            return Err(ProofError::Tree);
        }
        // The decoder accepts canonical DAG-CBOR only, so a node has one encoding.
        let Ok(Value::Map(fields)) = decode(bytes) else {
            return Err(ProofError::Tree);
        };
        let [("e", Value::Array(entries)), ("l", left)] = fields.as_slice() else {
            return Err(ProofError::Tree);
        };
        let mut node = Self {
            keys: Vec::with_capacity(entries.len()),
            values: Vec::with_capacity(entries.len()),
            children: vec![subtree(left)?],
        };
        let mut previous: Vec<u8> = Vec::new();
        for entry in entries {
            let Value::Map(fields) = entry else {
                return Err(ProofError::Tree);
            };
            let [
                ("k", Value::Bytes(suffix)),
                ("p", Value::Unsigned(prefix_len)),
                ("t", right),
                ("v", Value::Cid(value)),
            ] = fields.as_slice()
            else {
                return Err(ProofError::Tree);
            };
            let prefix_len = usize::try_from(*prefix_len).map_err(|_| ProofError::Tree)?;
            let prefix = previous.get(..prefix_len).ok_or(ProofError::Tree)?;
            let key = [prefix, suffix].concat();
            // The prefix must be all that the two keys share, so that a list of keys has one
            // encoding.
            let shared = previous
                .iter()
                .zip(&key)
                .take_while(|(a, b)| a == b)
                .count();
            if shared != prefix_len || (!previous.is_empty() && previous >= key) {
                return Err(ProofError::Tree);
            }
            previous.clone_from(&key);
            let key = String::from_utf8(key).map_err(|_| ProofError::Tree)?;
            if !is_valid_key(&key) {
                return Err(ProofError::Tree);
            }
            node.keys.push(key);
            node.values.push(*value);
            node.children.push(subtree(right)?);
        }
        Ok(node)
    }

    /// Returns the height of the node above the leaves, to which all its keys hash and which is one
    /// less than the parent's.
    ///
    /// Height 0 has no subtrees, so a lookup ends after at most 128 steps. A node without keys is
    /// either an intermediate node (it has a subtree and a parent) or the root of an empty
    /// repository.
    fn height(&self, parent: Option<u8>) -> Result<u8, ProofError> {
        let expected = match parent {
            Some(height) => Some(height.checked_sub(1).ok_or(ProofError::Tree)?),
            None => None,
        };
        let subtree = self.children.iter().any(Option::is_some);
        let Some(first) = self.keys.first() else {
            return match expected {
                Some(height) if subtree && height > 0 => Ok(height),
                None if !subtree => Ok(0),
                _ => Err(ProofError::Tree),
            };
        };
        let height = height_for_key(first);
        if self.keys.iter().any(|key| height_for_key(key) != height)
            || expected.is_some_and(|expected| expected != height)
            || (height == 0 && subtree)
        {
            return Err(ProofError::Tree);
        }
        Ok(height)
    }
}

fn subtree(value: &Value<'_>) -> Result<Option<BlockCid>, ProofError> {
    match value {
        Value::Null => Ok(None),
        Value::Cid(cid) => Ok(Some(*cid)),
        _ => Err(ProofError::Tree),
    }
}
