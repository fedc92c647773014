//! Fingerprints: short forms of messaging keys, for two people to compare.

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Bytes of the hash in a fingerprint: finding a second key with the same 128 bits is infeasible.
const LEN: usize = 16;

/// Returns the fingerprint of a did:peer: half of the SHA-256 of its text, in eight groups of four
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
    fn a_fingerprint_is_eight_groups_of_the_hash() {
        // The hash of "abc", from FIPS 180-2.
        let expected = "ba78 16bf 8f01 cfea 4141 40de 5dae 2223";
        assert_eq!(fingerprint("abc"), expected);
        assert_ne!(fingerprint("abd"), expected);
    }
}
