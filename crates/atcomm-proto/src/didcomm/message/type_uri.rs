//! Names of message types.

/// Address at which the standard protocols are described; the beginning of their types.
pub(in crate::didcomm) const DOC: &str = "https://didcomm.org/";

/// The parts of a message type, `<doc><protocol>/<major>.<minor>/<name>`.
///
/// Types are compared without their minor version: a newer minor version adds fields and changes
/// none (DIDComm v2.1, "Message Types").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeUri<'a> {
    /// Address at which the protocol is described, with its final slash: `https://didcomm.org/`.
    pub doc: &'a str,
    /// Name of the protocol, such as `trust-ping`.
    pub protocol: &'a str,
    /// Major version; another major version is another protocol.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Name of the message within the protocol, such as `ping-response`.
    pub name: &'a str,
}

/// The error of a text that is not `<doc><protocol>/<major>.<minor>/<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not written as protocol, version and name of a message behind an address")]
pub struct TypeUriError;

impl<'a> TypeUri<'a> {
    /// Splits a message type into its parts.
    pub fn parse(text: &'a str) -> Result<Self, TypeUriError> {
        let (rest, name) = text.rsplit_once('/').ok_or(TypeUriError)?;
        let (rest, version) = rest.rsplit_once('/').ok_or(TypeUriError)?;
        let cut = rest.rfind('/').ok_or(TypeUriError)?;
        let (doc, protocol) = rest.split_at_checked(cut + 1).ok_or(TypeUriError)?;
        let (major, minor) = version.split_once('.').ok_or(TypeUriError)?;
        if name.is_empty() || protocol.is_empty() || doc.len() < 2 {
            return Err(TypeUriError);
        }
        Ok(Self {
            doc,
            protocol,
            major: number(major)?,
            minor: number(minor)?,
            name,
        })
    }

    /// Returns whether a message of this type can be read as one of `other`.
    pub fn reads_as(&self, other: &TypeUri<'_>) -> bool {
        self.doc == other.doc
            && self.protocol == other.protocol
            && self.major == other.major
            && self.name == other.name
    }
}

fn number(text: &str) -> Result<u32, TypeUriError> {
    // `parse` alone would accept a sign.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TypeUriError);
    }
    text.parse().map_err(|_| TypeUriError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_comparison() {
        let ping = TypeUri::parse("https://didcomm.org/trust-ping/2.0/ping").unwrap();
        assert_eq!(ping.doc, DOC);
        assert_eq!((ping.protocol, ping.name), ("trust-ping", "ping"));
        assert_eq!((ping.major, ping.minor), (2, 0));
        let like = |text| ping.reads_as(&TypeUri::parse(text).unwrap());
        assert!(like("https://didcomm.org/trust-ping/2.7/ping"));
        for other in [
            "https://didcomm.org/trust-ping/3.0/ping",
            "https://didcomm.org/trust-ping/2.0/ping-response",
            "https://didcomm.org/trustping/2.0/ping",
            "https://didcomm.example/trust-ping/2.0/ping",
        ] {
            assert!(!like(other), "{other}");
        }
        let far = TypeUri::parse("did:sov:BzCbsNYhMrjHiqZDTUASHg;spec/basicmessage/100.0/message");
        assert_eq!(far.unwrap().major, 100);
    }

    #[test]
    fn texts_that_are_none() {
        for text in [
            "",
            "ping",
            "/////",
            "https://didcomm.org/trust-ping/2/ping",
            "https://didcomm.org/trust-ping/+2.0/ping",
            "https://didcomm.org/trust-ping/2.0.1/ping",
            "https://didcomm.org/trust-ping/.0/ping",
            "https://didcomm.org/trust-ping/99999999999.0/ping",
            "https://didcomm.org/trust-ping/2.0/",
            "https://didcomm.org//2.0/ping",
            "trust-ping/2.0/ping",
        ] {
            assert_eq!(TypeUri::parse(text), Err(TypeUriError), "{text}");
        }
    }
}
