//! Settings of the stream of changes and of the channel (`[http.updates]`).

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// Least length of the password: one that is guessed over the network within no time of interest.
const MIN_PASSWORD_LEN: usize = 16;

/// Settings of the stream of changes and of the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpdatesSettings {
    /// Maximum simultaneous readers of `subscribeUpdates`. Absent: 1024.
    pub subscribers: usize,
    /// The same of one address (IPv6: /64). Absent: 32.
    pub address_subscribers: usize,
    /// Password of `/channel`, at least 16 characters, which its consumers send for the user
    /// `admin`. Absent: `/channel` is off.
    pub channel_password: Option<ChannelPassword>,
}

impl Default for UpdatesSettings {
    fn default() -> Self {
        Self {
            subscribers: 1024,
            address_subscribers: 32,
            channel_password: None,
        }
    }
}

/// The password of the channel.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelPassword(Zeroizing<String>);

/// A password that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a password of fewer than {MIN_PASSWORD_LEN} characters")]
pub struct ShortPassword;

impl ChannelPassword {
    /// Returns whether this is the password. How long that takes tells nothing of the password.
    pub(in crate::http) fn is(&self, said: &str) -> bool {
        Sha256::digest(self.0.as_bytes()) == Sha256::digest(said.as_bytes())
    }
}

impl TryFrom<String> for ChannelPassword {
    type Error = ShortPassword;

    fn try_from(text: String) -> Result<Self, ShortPassword> {
        let text = Zeroizing::new(text);
        if text.chars().count() < MIN_PASSWORD_LEN {
            return Err(ShortPassword);
        }
        Ok(Self(text))
    }
}

impl From<ChannelPassword> for String {
    fn from(password: ChannelPassword) -> Self {
        password.0.to_string()
    }
}

impl fmt::Debug for ChannelPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelPassword(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_long_and_shown_nowhere() {
        let read = |text: &str| ChannelPassword::try_from(text.to_owned());
        assert_eq!(read("fifteen letters"), Err(ShortPassword));
        let password = read("sixteen letters!").unwrap();
        assert!(password.is("sixteen letters!"));
        assert!(!password.is("sixteen letters") && !password.is(""));
        assert!(!format!("{password:?}").contains("letters"));
        let settings = UpdatesSettings {
            channel_password: Some(password),
            ..UpdatesSettings::default()
        };
        assert!(!format!("{settings:?}").contains("letters"));
    }
}
