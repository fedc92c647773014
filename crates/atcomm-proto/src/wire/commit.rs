//! The commit object of a repository, as far as the order of commits is checked by it.

use super::cbor::{CID_LEN, CborReader};

/// A commit object. Its signature is not checked, so it says nothing that may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitObject<'a> {
    /// DID of the account; unchecked.
    pub did: &'a str,
    /// Revision of the commit; unchecked.
    pub rev: &'a str,
    /// CID of the tree's root, in binary form.
    pub data: &'a [u8; CID_LEN],
}

impl<'a> CommitObject<'a> {
    /// Reads the block of a commit. `None` where the block is no commit.
    pub fn parse(block: &'a [u8]) -> Option<Self> {
        let mut reader = CborReader::new(block);
        let (mut did, mut rev, mut data) = (None, None, None);
        for _ in 0..reader.map().ok()?? {
            match reader.key().ok()? {
                "did" => did = reader.text().ok()?,
                "rev" => rev = reader.text().ok()?,
                "data" => data = reader.block_link().ok()?,
                _ => reader.skip().ok()?,
            }
        }
        Some(Self {
            did: did?,
            rev: rev?,
            data: data?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ipld_core::cid::Cid;
    use ipld_core::ipld::Ipld;

    use super::*;

    #[test]
    fn a_commit_is_read_whatever_else_it_holds() {
        let mut data = [7; CID_LEN];
        data[..4].copy_from_slice(&[0x01, 0x71, 0x12, 0x20]);
        let mut fields = BTreeMap::from([
            ("did".to_owned(), Ipld::String("did:plc:a".to_owned())),
            ("rev".to_owned(), Ipld::String("3n2wo76pa3k2w".to_owned())),
            (
                "data".to_owned(),
                Ipld::Link(Cid::try_from(&data[..]).unwrap()),
            ),
            ("prev".to_owned(), Ipld::Null),
            ("sig".to_owned(), Ipld::Bytes(vec![1; 64])),
            ("version".to_owned(), Ipld::Integer(3)),
        ]);
        let block = serde_ipld_dagcbor::to_vec(&Ipld::Map(fields.clone())).unwrap();
        assert_eq!(
            CommitObject::parse(&block),
            Some(CommitObject {
                did: "did:plc:a",
                rev: "3n2wo76pa3k2w",
                data: &data
            })
        );
        for len in 0..block.len() {
            assert_eq!(CommitObject::parse(&block[..len]), None);
        }
        for field in ["did", "rev", "data"] {
            let value = fields.insert(field.to_owned(), Ipld::Integer(1));
            let block = serde_ipld_dagcbor::to_vec(&Ipld::Map(fields.clone())).unwrap();
            assert_eq!(CommitObject::parse(&block), None, "{field}");
            fields.insert(field.to_owned(), value.unwrap());
        }
    }
}
