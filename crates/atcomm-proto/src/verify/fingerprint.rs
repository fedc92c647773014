//! A messaging key in a form that two people can read to each other.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Bytes of the hash that are shown: nobody finds a second key to 128 bits.
const LEN: usize = 16;

/// The fingerprint of a did:peer: half of the SHA-256 of its text, in eight groups of four
/// hexadecimal digits.
pub fn fingerprint(peer: &str) -> String {
    let hash = Sha256::digest(peer.as_bytes());
    let digits = HEXLOWER.encode(hash.get(..LEN).unwrap_or_default());
    let groups = digits.as_bytes().chunks(4).map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_eight_groups_of_the_hash() {
        // The hash of "abc", from FIPS 180-2.
        let expected = "ba78 16bf 8f01 cfea 4141 40de 5dae 2223";
        assert_eq!(fingerprint("abc"), expected);
        assert_ne!(fingerprint("abd"), expected);
    }
}
