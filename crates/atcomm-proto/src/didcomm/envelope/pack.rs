//! Packing envelopes.

use askar_crypto::alg::p256::P256KeyPair;
use askar_crypto::jwk::ToJwk as _;
use askar_crypto::random::fill_random;
use data_encoding::BASE64URL_NOPAD;
use serde::Serialize;
use zeroize::Zeroizing;

use super::agreement::{Context, Method, WrappingKey, apv};
use super::content::ContentEncryption;
use super::error::EnvelopeError;
use super::kid::did_of;
use super::wire::{
    Base64, MAX_RECIPIENTS, NewEncrypted, NewHeader, NewJwk, NewKid, NewRecipient, NewSignature,
    NewSigned,
};
use crate::didcomm::key::{Curve, Pair, PublicKey, SecretKey};

/// Bytes of an envelope beside its protected header and content, for each recipient: an estimate.
const HEADERS_LEN: usize = 512;

/// Encrypts a plaintext with authentication of the sender. The keys belong to one party and have
/// the curve of the sender's key. `from` and `to` of the plaintext must name sender and recipient,
/// since recipients check them.
pub fn authcrypt(
    plaintext: &[u8],
    from: &SecretKey,
    to: &[PublicKey],
) -> Result<Vec<u8>, EnvelopeError> {
    did_of(from.kid())?;
    encrypt(plaintext, Some(from), to, ContentEncryption::A256CbcHs512)
}

/// Encrypts a plaintext or another envelope without a sender. The keys belong to one party and have
/// one curve.
pub fn anoncrypt(
    plaintext: &[u8],
    to: &[PublicKey],
    enc: ContentEncryption,
) -> Result<Vec<u8>, EnvelopeError> {
    encrypt(plaintext, None, to, enc)
}

/// Encrypts to the keys of one recipient: as authcrypt with the sender's key `from`, else as
/// anoncrypt.
fn encrypt(
    plaintext: &[u8],
    from: Option<&SecretKey>,
    to: &[PublicKey],
    enc: ContentEncryption,
) -> Result<Vec<u8>, EnvelopeError> {
    let (curve, to) = recipient_keys(to, from)?;
    let method = match from {
        Some(_) => Method::OnePu,
        None => Method::Es,
    };
    let ephemeral = match curve {
        Curve::Ed25519 => return Err(EnvelopeError::Curve),
        _ => Pair::random(curve),
    };
    let apu = from.map(SecretKey::kid).unwrap_or_default();
    let apv = apv(to.iter().map(|key| key.kid()));
    let protected = encoded(&NewHeader {
        typ: "application/didcomm-encrypted+json",
        alg: method.name(),
        enc: Some(enc.name()),
        skid: from.map(SecretKey::kid),
        apu: from.map(|_| BASE64URL_NOPAD.encode(apu.as_bytes())),
        apv: Some(BASE64URL_NOPAD.encode(&apv)),
        epk: Some(jwk(&ephemeral)?),
    })?;

    let mut key = Zeroizing::new(vec![0; enc.key_len()]);
    fill_random(&mut key);
    let mut nonce = vec![0; enc.nonce_len()];
    fill_random(&mut nonce);
    let mut buffer = Vec::with_capacity(plaintext.len() + 64);
    buffer.extend_from_slice(plaintext);
    let end = enc.seal(&key, &nonce, protected.as_bytes(), &mut buffer)?;
    let (ciphertext, tag) = buffer.split_at(end);

    let context = Context {
        method,
        apu: apu.as_bytes(),
        apv: &apv,
        tag,
    };
    let envelope = NewEncrypted {
        protected: &protected,
        recipients: wrapped_keys(&key, &ephemeral, from, &to, &context)?,
        iv: BASE64URL_NOPAD.encode(&nonce),
        ciphertext: Base64(ciphertext),
        tag: BASE64URL_NOPAD.encode(tag),
    };
    // A large message is not moved while it grows, and takes no more than its length.
    let len = BASE64URL_NOPAD.encode_len(ciphertext.len()) + protected.len();
    let mut bytes = Vec::with_capacity(len + HEADERS_LEN * to.len());
    serde_json::to_writer(&mut bytes, &envelope).map_err(|_| EnvelopeError::Json)?;
    Ok(bytes)
}

/// Checks that the recipient's keys are of one party and have the curve of the sender's key, or one
/// curve if there is no sender. Returns the curve and the keys sorted by id: some readers hash the
/// ids in the order of the recipients, and sorting makes both orders the same.
fn recipient_keys<'k>(
    to: &'k [PublicKey],
    from: Option<&SecretKey>,
) -> Result<(Curve, Vec<&'k PublicKey>), EnvelopeError> {
    let first = to.first().ok_or(EnvelopeError::NoRecipients)?;
    if to.len() > MAX_RECIPIENTS {
        return Err(EnvelopeError::Limit("recipients"));
    }
    let did = did_of(first.kid())?;
    let curve = from.map_or(first.curve(), SecretKey::curve);
    for key in to {
        if did_of(key.kid())? != did {
            return Err(EnvelopeError::SeveralRecipients);
        }
        if key.curve() != curve {
            return Err(EnvelopeError::Curve);
        }
    }
    let mut sorted: Vec<&PublicKey> = to.iter().collect();
    sorted.sort_unstable_by_key(|key| key.kid());
    Ok((curve, sorted))
}

/// Wraps the content key for each key of the recipient.
fn wrapped_keys<'k>(
    content_key: &[u8],
    ephemeral: &Pair,
    from: Option<&SecretKey>,
    to: &[&'k PublicKey],
    context: &Context<'_>,
) -> Result<Vec<NewRecipient<'k>>, EnvelopeError> {
    let wrap = |recipient: &&'k PublicKey| {
        let ephemeral = (ephemeral, recipient.pair());
        let agreements = match from {
            Some(from) => &[ephemeral, (from.pair(), recipient.pair())][..],
            None => &[ephemeral][..],
        };
        let wrapped = WrappingKey::derive(agreements, context)?.wrap(content_key)?;
        Ok(NewRecipient {
            header: NewKid {
                kid: recipient.kid(),
            },
            encrypted_key: BASE64URL_NOPAD.encode(&wrapped),
        })
    };
    to.iter().map(wrap).collect()
}

/// Signs a plaintext: EdDSA with an Ed25519 key, ES256 with a P-256 key.
pub fn sign(plaintext: &[u8], by: &SecretKey) -> Result<Vec<u8>, EnvelopeError> {
    did_of(by.kid())?;
    let alg = match by.curve() {
        Curve::Ed25519 => "EdDSA",
        Curve::P256 => "ES256",
        Curve::X25519 => return Err(EnvelopeError::Curve),
    };
    let protected = encoded(&NewHeader {
        typ: "application/didcomm-signed+json",
        alg,
        enc: None,
        skid: None,
        apu: None,
        apv: None,
        epk: None,
    })?;
    let payload = BASE64URL_NOPAD.encode(plaintext);
    let input = format!("{protected}.{payload}");
    let signature = match by.pair() {
        Pair::Ed25519(pair) => pair.sign(input.as_bytes()),
        Pair::P256(pair) => pair.sign(input.as_bytes()),
        Pair::X25519(_) => None,
    };
    json(&NewSigned {
        payload: &payload,
        signatures: [NewSignature {
            protected: &protected,
            signature: BASE64URL_NOPAD.encode(&signature.ok_or(EnvelopeError::Curve)?),
            header: NewKid { kid: by.kid() },
        }],
    })
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, EnvelopeError> {
    serde_json::to_vec(value).map_err(|_| EnvelopeError::Json)
}

fn encoded(value: &impl Serialize) -> Result<String, EnvelopeError> {
    Ok(BASE64URL_NOPAD.encode(&json(value)?))
}

pub(super) fn jwk(pair: &Pair) -> Result<NewJwk, EnvelopeError> {
    match pair {
        Pair::X25519(_) => Ok(NewJwk::Okp {
            kty: "OKP",
            crv: "X25519",
            x: BASE64URL_NOPAD.encode(&pair.public_bytes()),
        }),
        Pair::P256(pair) => {
            let (x, y) = coordinates(pair)?;
            Ok(NewJwk::Ec {
                kty: "EC",
                crv: "P-256",
                x,
                y,
            })
        }
        Pair::Ed25519(_) => Err(EnvelopeError::Curve),
    }
}

/// Returns both coordinates, which the library gives only in a whole JSON Web Key.
fn coordinates(pair: &P256KeyPair) -> Result<(String, String), EnvelopeError> {
    #[derive(serde::Deserialize)]
    struct Point {
        x: String,
        y: String,
    }
    let jwk = pair.to_jwk_public(None).map_err(|_| EnvelopeError::Curve)?;
    let point: Point = serde_json::from_str(&jwk).map_err(|_| EnvelopeError::Json)?;
    Ok((point.x, point.y))
}
