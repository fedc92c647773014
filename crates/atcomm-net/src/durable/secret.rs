//! Secrets as private files hold them.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A secret text in a serialised file: a token, or the bytes of a key in base64url. Wiped when it is
/// dropped.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Holds a text.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Encodes bytes in base64url without padding.
    pub fn encode(bytes: &[u8]) -> Self {
        Self(BASE64URL_NOPAD.encode(bytes))
    }

    /// Decodes base64url without padding; `None` where the text is something else.
    pub fn decode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = BASE64URL_NOPAD.decode(self.0.as_bytes());
        bytes.ok().map(Zeroizing::new)
    }

    /// Takes the text out.
    pub fn into_text(mut self) -> Zeroizing<String> {
        Zeroizing::new(std::mem::take(&mut self.0))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_encoded_decoded_and_never_shown() {
        let secret = SecretText::encode(&[0xfb, 0xff, 0]);
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"-_8A\"");
        assert_eq!(secret.decode().unwrap()[..], [0xfb, 0xff, 0]);
        assert_eq!(format!("{secret:?}"), "SecretText(..)");
        let read: SecretText = serde_json::from_str("\"a token\"").unwrap();
        assert!(read.decode().is_none());
        assert_eq!(*read.into_text(), "a token");
        assert_eq!(*SecretText::new("x".to_owned()).into_text(), "x");
    }
}
