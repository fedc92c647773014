//! Envelopes with arbitrary headers and correct cryptography, so that only the check under test can
//! refuse them.

use askar_crypto::random::fill_random;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::didcomm::envelope::agreement::{Context, Method, WrappingKey, apv};
use crate::didcomm::envelope::pack::jwk;
use crate::didcomm::envelope::{ContentEncryption, PublicKey, SecretKey};
use crate::didcomm::key::Pair;

/// The inputs of packing.
pub(super) struct Forge<'a> {
    pub(super) plaintext: Vec<u8>,
    pub(super) from: Option<&'a SecretKey>,
    pub(super) to: Vec<PublicKey>,
    pub(super) enc: ContentEncryption,
}

pub(super) fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

pub(super) fn encode(text: impl AsRef<[u8]>) -> String {
    BASE64URL_NOPAD.encode(text.as_ref())
}

fn decode(header: &Value) -> Vec<u8> {
    let text = header.as_str().unwrap_or_default();
    BASE64URL_NOPAD.decode(text.as_bytes()).unwrap_or_default()
}

impl Forge<'_> {
    /// Packs with a protected header changed by `edit`.
    pub(super) fn pack(&self, edit: impl FnOnce(&mut Value)) -> Value {
        let ephemeral = Pair::random(self.to[0].curve());
        let mut header = self.header();
        header["epk"] = serde_json::to_value(jwk(&ephemeral).unwrap()).unwrap();
        edit(&mut header);
        self.pack_with(&header.to_string(), &header, &ephemeral)
    }

    /// Returns the correct header, without an ephemeral key.
    pub(super) fn header(&self) -> Value {
        let method = if self.from.is_some() {
            Method::OnePu
        } else {
            Method::Es
        };
        let mut header = json!({
            "alg": method.name(),
            "enc": self.enc.name(),
            "apv": encode(apv(self.to.iter().map(|key| key.kid()))),
        });
        if let Some(from) = self.from {
            header["skid"] = from.kid().into();
            header["apu"] = encode(from.kid()).into();
        }
        header
    }

    /// Packs with exactly this text as protected header; the derivation follows `header`.
    pub(super) fn pack_with(&self, text: &str, header: &Value, ephemeral: &Pair) -> Value {
        let (apu, apv) = (decode(&header["apu"]), decode(&header["apv"]));
        self.seal(text, |tag, recipient| {
            let context = Context {
                method: if self.from.is_some() {
                    Method::OnePu
                } else {
                    Method::Es
                },
                apu: &apu,
                apv: &apv,
                tag,
            };
            let mut agreements = vec![(ephemeral, recipient.pair())];
            agreements.extend(self.from.map(|from| (from.pair(), recipient.pair())));
            WrappingKey::derive(&agreements, &context).unwrap()
        })
    }

    /// Packs with a wrapping key made by the caller.
    pub(super) fn seal(
        &self,
        header: &str,
        wrapping: impl Fn(&[u8], &PublicKey) -> WrappingKey,
    ) -> Value {
        let protected = encode(header);
        let (mut key, mut nonce) = (vec![0; self.enc.key_len()], vec![0; self.enc.nonce_len()]);
        fill_random(&mut key);
        fill_random(&mut nonce);
        let mut buffer = self.plaintext.clone();
        let aad = protected.as_bytes();
        let end = self.enc.seal(&key, &nonce, aad, &mut buffer).unwrap();
        let (ciphertext, tag) = buffer.split_at(end);
        let recipients = self.to.iter().map(|recipient| {
            let wrapped = wrapping(tag, recipient).wrap(&key).unwrap();
            json!({"header": {"kid": recipient.kid()}, "encrypted_key": encode(wrapped)})
        });
        json!({
            "protected": protected,
            "recipients": recipients.collect::<Vec<_>>(),
            "iv": encode(&nonce),
            "ciphertext": encode(ciphertext),
            "tag": encode(tag),
        })
    }
}
