//! Envelopes as JSON.
//!
//! Derived code reads every structure: it refuses a known member that appears twice, and ignores
//! unknown members. Texts are borrowed from the input.

use std::borrow::Cow;
use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::error::EnvelopeError;

/// Most recipients of one envelope: they are the keys of one party, and a `did:peer:2` has at most
/// eight elements.
pub const MAX_RECIPIENTS: usize = 32;

/// Most signatures of one message, each of which is verified.
pub const MAX_SIGNATURES: usize = 4;

/// Longest protected header, in characters of base64url: it contains the sender's key id twice.
pub const MAX_PROTECTED: usize = 16 * 1024;

/// A text, borrowed unless it has escapes.
#[derive(Debug, Clone)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Decodes the text as base64url without padding and stray bits, so that bytes have only one
    /// spelling.
    pub(super) fn decode(&self) -> Result<Vec<u8>, EnvelopeError> {
        BASE64URL_NOPAD
            .decode(self.0.as_bytes())
            .map_err(|_| EnvelopeError::Base64)
    }

    /// Like [`decode`](Self::decode), with room for more bytes at the end.
    pub(super) fn decode_with_room(&self, room: usize) -> Result<Vec<u8>, EnvelopeError> {
        let len = BASE64URL_NOPAD
            .decode_len(self.0.len())
            .map_err(|_| EnvelopeError::Base64)?;
        let mut bytes = Vec::with_capacity(len + room);
        bytes.resize(len, 0);
        BASE64URL_NOPAD
            .decode_mut(self.0.as_bytes(), &mut bytes)
            .map_err(|_| EnvelopeError::Base64)?;
        Ok(bytes)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A list that keeps at most one item over its limit.
#[derive(Debug)]
pub(super) struct List<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MAX: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
            type Value = List<T, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    // One item over the limit is kept, so that the list is known to be too long.
                    if list.len() <= MAX {
                        list.push(item);
                    }
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_seq(ListVisitor(std::marker::PhantomData))
    }
}

impl<T, const MAX: usize> List<T, MAX> {
    fn is_over(&self) -> bool {
        self.0.len() > MAX
    }
}

/// The headers that decide how an envelope is opened, protected or not.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Header<'a> {
    #[serde(borrow)]
    pub(super) alg: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) enc: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) kid: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) skid: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) apu: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) apv: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) epk: Option<Jwk<'a>>,
    /// Unsupported headers that change the meaning of the bytes.
    pub(super) zip: Option<IgnoredAny>,
    pub(super) crit: Option<IgnoredAny>,
    pub(super) b64: Option<IgnoredAny>,
}

impl<'a> Header<'a> {
    /// Reads a decoded protected header.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, EnvelopeError> {
        let header: Self = object(json)?;
        if header.zip.is_some() || header.crit.is_some() || header.b64.is_some() {
            return Err(EnvelopeError::Header("zip, crit and b64 are not supported"));
        }
        Ok(header)
    }

    /// Returns whether none of the headers is present that must be protected. The key agreement
    /// itself binds a recipient's key id and own ephemeral key.
    fn is_harmless(&self) -> bool {
        self.alg.is_none()
            && self.enc.is_none()
            && self.skid.is_none()
            && self.apu.is_none()
            && self.apv.is_none()
            && self.zip.is_none()
            && self.crit.is_none()
            && self.b64.is_none()
    }
}

/// A public key as JSON Web Key.
#[derive(Debug, Deserialize)]
pub(super) struct Jwk<'a> {
    #[serde(borrow)]
    pub(super) kty: Text<'a>,
    #[serde(borrow)]
    pub(super) crv: Text<'a>,
    #[serde(borrow)]
    pub(super) x: Text<'a>,
    #[serde(borrow, default)]
    pub(super) y: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Recipient<'a> {
    #[serde(borrow, default)]
    pub(super) header: Header<'a>,
    #[serde(borrow)]
    pub(super) encrypted_key: Text<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Signature<'a> {
    #[serde(borrow)]
    pub(super) protected: Text<'a>,
    #[serde(borrow, default)]
    pub(super) header: Header<'a>,
    #[serde(borrow)]
    pub(super) signature: Text<'a>,
}

/// The members of an encrypted or a signed message, general or flattened (RFC 7516 section 7.2, RFC
/// 7515 section 7.2).
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Members<'a> {
    #[serde(borrow)]
    protected: Option<Text<'a>>,
    #[serde(borrow)]
    unprotected: Option<Header<'a>>,
    #[serde(borrow)]
    header: Option<Header<'a>>,
    #[serde(borrow)]
    recipients: Option<List<Recipient<'a>, MAX_RECIPIENTS>>,
    #[serde(borrow)]
    encrypted_key: Option<Text<'a>>,
    #[serde(borrow)]
    iv: Option<Text<'a>>,
    #[serde(borrow)]
    ciphertext: Option<Text<'a>>,
    #[serde(borrow)]
    tag: Option<Text<'a>>,
    aad: Option<IgnoredAny>,
    #[serde(borrow)]
    payload: Option<Text<'a>>,
    #[serde(borrow)]
    signatures: Option<List<Signature<'a>, MAX_SIGNATURES>>,
    #[serde(borrow)]
    signature: Option<Text<'a>>,
}

/// An encrypted message with all its members, each within its limit.
#[derive(Debug)]
pub(super) struct Encrypted<'a> {
    pub(super) protected: Text<'a>,
    pub(super) recipients: Vec<Recipient<'a>>,
    pub(super) iv: Text<'a>,
    pub(super) ciphertext: Text<'a>,
    pub(super) tag: Text<'a>,
}

/// A signed message with all its members, each within its limit.
#[derive(Debug)]
pub(super) struct Signed<'a> {
    pub(super) payload: Text<'a>,
    pub(super) signatures: Vec<Signature<'a>>,
}

/// An envelope of either kind.
#[derive(Debug)]
pub(super) enum Envelope<'a> {
    Encrypted(Encrypted<'a>),
    Signed(Signed<'a>),
}

impl<'a> Envelope<'a> {
    pub(super) fn read(json: &'a [u8]) -> Result<Self, EnvelopeError> {
        let members: Members<'a> = object(json)?;
        match (members.ciphertext.is_some(), members.payload.is_some()) {
            (true, false) => members.encrypted().map(Self::Encrypted),
            (false, true) => members.signed().map(Self::Signed),
            (true, true) => Err(EnvelopeError::Header("it is encrypted and signed at once")),
            (false, false) => Err(EnvelopeError::NotAnEnvelope),
        }
    }
}

impl<'a> Members<'a> {
    fn encrypted(self) -> Result<Encrypted<'a>, EnvelopeError> {
        let missing = || EnvelopeError::Header("a member of an encrypted message is missing");
        if self.signatures.is_some() || self.signature.is_some() {
            return Err(EnvelopeError::Header("it is encrypted and signed at once"));
        }
        if self.aad.is_some() {
            return Err(EnvelopeError::Header("aad is not supported"));
        }
        let is_open = |header: &Header<'_>| {
            header.is_harmless() && header.kid.is_none() && header.epk.is_none()
        };
        if !self.unprotected.as_ref().is_none_or(is_open) {
            return Err(UNPROTECTED);
        }
        let recipients = match (self.recipients, self.encrypted_key) {
            (Some(list), None) if self.header.is_none() => {
                if list.is_over() {
                    return Err(EnvelopeError::Limit("recipients"));
                }
                list.0
            }
            (None, Some(encrypted_key)) => vec![Recipient {
                header: self.header.unwrap_or_default(),
                encrypted_key,
            }],
            (None, None) => return Err(missing()),
            _ => return Err(EnvelopeError::Header("recipients are given in two ways")),
        };
        if recipients.is_empty() {
            return Err(missing());
        }
        if !recipients.iter().all(|one| one.header.is_harmless()) {
            return Err(UNPROTECTED);
        }
        Ok(Encrypted {
            protected: limited(self.protected.ok_or_else(missing)?)?,
            recipients,
            iv: self.iv.ok_or_else(missing)?,
            ciphertext: self.ciphertext.ok_or_else(missing)?,
            tag: self.tag.ok_or_else(missing)?,
        })
    }

    fn signed(self) -> Result<Signed<'a>, EnvelopeError> {
        let missing = || EnvelopeError::Header("a member of a signed message is missing");
        let (signatures, payload) = match (self.signatures, self.signature) {
            (Some(list), None) if self.protected.is_none() && self.header.is_none() => {
                if list.is_over() {
                    return Err(EnvelopeError::Limit("signatures"));
                }
                (list.0, self.payload)
            }
            (None, Some(signature)) => {
                let one = Signature {
                    protected: self.protected.ok_or_else(missing)?,
                    header: self.header.unwrap_or_default(),
                    signature,
                };
                (vec![one], self.payload)
            }
            (None, None) => return Err(missing()),
            _ => return Err(EnvelopeError::Header("signatures are given in two ways")),
        };
        if signatures.is_empty() {
            return Err(missing());
        }
        for one in &signatures {
            if one.protected.as_str().len() > MAX_PROTECTED {
                return Err(EnvelopeError::Limit("a protected header"));
            }
            if !one.header.is_harmless() {
                return Err(UNPROTECTED);
            }
        }
        Ok(Signed {
            payload: payload.ok_or_else(missing)?,
            signatures,
        })
    }
}

const UNPROTECTED: EnvelopeError =
    EnvelopeError::Header("a header stands where it is not protected");

fn limited(protected: Text<'_>) -> Result<Text<'_>, EnvelopeError> {
    if protected.as_str().len() > MAX_PROTECTED {
        return Err(EnvelopeError::Limit("a protected header"));
    }
    Ok(protected)
}

/// Reads a structure from an object. Without the check the derived code would accept a list of the
/// values in order, too.
fn object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, EnvelopeError> {
    let first = json.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err(EnvelopeError::Json);
    }
    serde_json::from_slice(json).map_err(|_| EnvelopeError::Json)
}

/// The members of a layer's content that tell a plaintext from another layer.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct LayerContent<'a> {
    #[serde(borrow)]
    pub(super) from: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) to: Option<To<'a>>,
    ciphertext: Option<IgnoredAny>,
    payload: Option<IgnoredAny>,
    signatures: Option<IgnoredAny>,
    signature: Option<IgnoredAny>,
}

impl<'a> LayerContent<'a> {
    pub(super) fn read(json: &'a [u8]) -> Result<Self, EnvelopeError> {
        // The parser does not check texts that it skips.
        let json = std::str::from_utf8(json).map_err(|_| EnvelopeError::Plaintext)?;
        if !json.trim_start().starts_with('{') {
            return Err(EnvelopeError::Plaintext);
        }
        serde_json::from_str(json).map_err(|_| EnvelopeError::Plaintext)
    }

    /// Returns whether the content is another layer.
    pub(super) fn is_envelope(&self) -> bool {
        let is_signed = self.signatures.is_some() || self.signature.is_some();
        self.ciphertext.is_some() || (self.payload.is_some() && is_signed)
    }
}

/// The header `to`: a list, or one text from some clients.
#[derive(Debug)]
pub(super) struct To<'a>(pub(super) Vec<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for To<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ToVisitor;
        impl<'de> Visitor<'de> for ToVisitor {
            type Value = To<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<To<'de>, E> {
                Ok(To(vec![Text(Cow::Borrowed(text))]))
            }
            fn visit_str<E>(self, text: &str) -> Result<To<'de>, E> {
                Ok(To(vec![Text(Cow::Owned(text.to_owned()))]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<To<'de>, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(To(list))
            }
        }
        deserializer.deserialize_any(ToVisitor)
    }
}

/// An ephemeral key to be written.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum NewJwk {
    Okp {
        kty: &'static str,
        crv: &'static str,
        x: String,
    },
    Ec {
        kty: &'static str,
        crv: &'static str,
        x: String,
        y: String,
    },
}

/// A protected header to be written.
#[derive(Serialize)]
pub(super) struct NewHeader<'a> {
    pub(super) typ: &'static str,
    pub(super) alg: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) enc: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) skid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) apu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) apv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epk: Option<NewJwk>,
}

#[derive(Serialize)]
pub(super) struct NewKid<'a> {
    pub(super) kid: &'a str,
}

#[derive(Serialize)]
pub(super) struct NewRecipient<'a> {
    pub(super) header: NewKid<'a>,
    pub(super) encrypted_key: String,
}

#[derive(Serialize)]
pub(super) struct NewEncrypted<'a> {
    pub(super) protected: &'a str,
    pub(super) recipients: Vec<NewRecipient<'a>>,
    pub(super) iv: String,
    pub(super) ciphertext: Base64<'a>,
    pub(super) tag: String,
}

/// Bytes that are written as base64url, piece by piece: there is no second copy of their text.
pub(super) struct Base64<'a>(pub(super) &'a [u8]);

impl Serialize for Base64<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&BASE64URL_NOPAD.encode_display(self.0))
    }
}

#[derive(Serialize)]
pub(super) struct NewSignature<'a> {
    pub(super) protected: &'a str,
    pub(super) signature: String,
    pub(super) header: NewKid<'a>,
}

#[derive(Serialize)]
pub(super) struct NewSigned<'a> {
    pub(super) payload: &'a str,
    pub(super) signatures: [NewSignature<'a>; 1],
}
