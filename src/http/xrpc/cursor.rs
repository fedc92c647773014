//! The cursors of lists.
//!
//! A cursor holds the DID after which the next page begins, and a digest of the list's name and
//! filters, so that a cursor of one list is refused by another. It is opaque to clients.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest as _, Sha256};

use super::super::error::XrpcError;
use super::super::params::Params;
use atcomm_proto::syntax::MediatorDid;

/// Bytes of the digest: cursors are mixed up by mistake, and a forged one shows no more than any
/// other.
const DIGEST_LEN: usize = 6;

/// The cursors of one list under its filters.
pub(super) struct Cursors([u8; DIGEST_LEN]);

impl Cursors {
    /// Returns those of the list with this name and these filters, in their normal form.
    pub(super) fn of(name: &str, filters: &[Option<&str>]) -> Self {
        let mut hash = Sha256::new();
        for part in [Some(name)].iter().chain(filters) {
            // No text has this byte, so no two lists are the same to the digest.
            hash.update(part.map_or(&b"\xfe"[..], str::as_bytes));
            hash.update(b"\xff");
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut short = [0; DIGEST_LEN];
        short.copy_from_slice(&digest[..DIGEST_LEN]);
        Self(short)
    }

    /// Returns the cursor of a page after a DID.
    pub(super) fn after(&self, did: &str) -> String {
        BASE64URL_NOPAD.encode(&[&self.0, did.as_bytes()].concat())
    }

    /// Reads the parameter `cursor`: the DID after which the page begins, if there is one.
    pub(super) fn read(&self, params: &Params<'_>) -> Result<Option<String>, XrpcError> {
        let Some(text) = params.one("cursor")? else {
            return Ok(None);
        };
        let did = self.did_in(&text).ok_or_else(|| {
            XrpcError::invalid(
                "parameter cursor is none that this server gave for these parameters",
            )
        })?;
        Ok(Some(did))
    }

    fn did_in(&self, text: &str) -> Option<String> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
        let did = std::str::from_utf8(bytes.strip_prefix(&self.0)?).ok()?;
        MediatorDid::parse(did).ok()?;
        Some(did.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    #[test]
    fn a_cursor_is_of_one_list_under_one_filter() {
        let lists = [
            Cursors::of("a", &[]),
            Cursors::of("b", &[]),
            Cursors::of("a", &[None]),
            Cursors::of("a", &[Some("")]),
            Cursors::of("a", &[Some("x"), None]),
            Cursors::of("a", &[None, Some("x")]),
            Cursors::of("ax", &[None]),
        ];
        for (i, list) in lists.iter().enumerate() {
            let cursor = list.after(DID);
            for (j, other) in lists.iter().enumerate() {
                let found = other.did_in(&cursor);
                assert_eq!(found.is_some(), i == j, "{i} {j}");
            }
            assert_eq!(list.did_in(&cursor).as_deref(), Some(DID));
        }
    }

    #[test]
    fn what_is_no_cursor_is_refused_by_its_name() {
        let list = Cursors::of("a", &[]);
        let no_did = list.after("alice.example.com");
        for text in ["", "x", "1", DID, "%00", &no_did] {
            let query = format!("cursor={text}");
            assert!(list.read(&Params::of_query(&query)).is_err(), "{text}");
        }
        assert!(matches!(list.read(&Params::of_query("")), Ok(None)));
    }

    proptest! {
        #[test]
        fn inv8_no_text_is_read_as_anything_but_a_did(text in "[A-Za-z0-9_-]{0,60}") {
            let list = Cursors::of("a", &[]);
            if let Some(did) = list.did_in(&text) {
                prop_assert_eq!(list.after(&did), text);
            }
        }
    }
}
