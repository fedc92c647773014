//! Verification of keys and messages of other accounts: evidence, attribution, pinning and
//! succession, as pure functions of bytes and time.

pub mod attribution;
pub mod evidence;
pub mod fingerprint;
pub mod pin;
pub mod pinning;
pub mod succession;
