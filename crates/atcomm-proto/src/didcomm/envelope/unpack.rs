//! Unpacking envelopes.

use sha2::{Digest as _, Sha256};

use super::agreement::{Context, Method, WrappingKey, apv};
use super::content::ContentEncryption;
use super::error::EnvelopeError;
use super::keyring::{Keyring, Resolve};
use super::kid::did_of;
use super::unpacked::{Authenticated, Layer, Unpacked};
use super::wire::{Encrypted, Envelope, Header, Jwk, LayerContent, Signature, Signed, Text};
use crate::didcomm::i_json;
use crate::didcomm::key::{Curve, KeyError, Pair, jwk_pair};
use crate::didcomm::party::{Party, is_same_did};

/// Opens an envelope with all its layers and checks its statements about sender and recipient.
///
/// `ring` holds our keys; `parties` resolves the sender and the signer. If `parties` does not know
/// a DID, the error names it; the caller may resolve the DID and call again, since nothing has
/// changed. The caller bounds the size of `bytes`.
pub fn unpack(
    bytes: &[u8],
    ring: &dyn Keyring,
    parties: &dyn Resolve,
) -> Result<Unpacked, EnvelopeError> {
    let mut unpacker = Unpacker {
        ring,
        parties,
        layers: Vec::with_capacity(2),
        sender: None,
        replay_id: None,
        signer: None,
        recipients: Vec::with_capacity(2),
    };
    let mut content = unpacker.open(bytes)?;
    loop {
        let inner = LayerContent::read(&content)?;
        if !inner.is_envelope() {
            unpacker.check(&inner)?;
            break;
        }
        // Terminates, since the depth of allowed layers is bounded.
        content = unpacker.open(&content)?;
    }
    Ok(Unpacked {
        plaintext: content,
        sender: unpacker.sender,
        replay_id: unpacker.replay_id,
        signer: unpacker.signer,
        recipient: unpacker.recipients.into_iter().next(),
        layers: unpacker.layers,
    })
}

/// Returns the DID whose keys are needed to open an authcrypted message, without using any key.
/// `None` for other messages and for anything unreadable.
pub fn sender_did(bytes: &[u8]) -> Option<String> {
    let Ok(Envelope::Encrypted(envelope)) = Envelope::read(bytes) else {
        return None;
    };
    let decoded = envelope.protected.decode().ok()?;
    let protected = Protected::read(&decoded).ok()?;
    let skid = protected.skid?;
    Some(did_of(&skid).ok()?.to_owned())
}

/// Returns the ids of the keys to which a message is encrypted, as written and in their order;
/// empty for anything else.
pub fn recipient_kids(bytes: &[u8]) -> Vec<String> {
    let Ok(Envelope::Encrypted(envelope)) = Envelope::read(bytes) else {
        return Vec::new();
    };
    let kids = envelope.recipients.iter();
    kids.filter_map(|one| Some(one.header.kid.as_ref()?.as_str().to_owned()))
        .collect()
}

/// Checks what of an encrypted message a mediator can see: it names a key to which it is encrypted,
/// and every reader can read it and its protected header as JSON.
pub fn check_encrypted(bytes: &[u8]) -> Result<(), EnvelopeError> {
    i_json::check(bytes)?;
    let Envelope::Encrypted(envelope) = Envelope::read(bytes)? else {
        return Err(EnvelopeError::NotAnEnvelope);
    };
    let mut recipients = envelope.recipients.iter();
    if !recipients.any(|one| one.header.kid.is_some()) {
        return Err(EnvelopeError::KeyId);
    }
    Ok(i_json::check(&envelope.protected.decode()?)?)
}

/// The results of the layers opened so far.
struct Unpacker<'a> {
    ring: &'a dyn Keyring,
    parties: &'a dyn Resolve,
    layers: Vec<Layer>,
    sender: Option<Authenticated>,
    replay_id: Option<[u8; 32]>,
    signer: Option<Authenticated>,
    /// The ids of our keys that opened a layer.
    recipients: Vec<String>,
}

impl Unpacker<'_> {
    /// Opens one layer.
    fn open(&mut self, bytes: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
        match Envelope::read(bytes)? {
            Envelope::Encrypted(envelope) => self.decrypt(&envelope),
            Envelope::Signed(envelope) => self.verify(&envelope),
        }
    }

    /// Records a layer if it is allowed inside the previous ones. An anoncrypt may hold a layer of
    /// another kind. An authcrypt may hold a signed message: the specification discourages it, and
    /// the examples of its appendix do it.
    fn push(&mut self, layer: Layer) -> Result<(), EnvelopeError> {
        let fits = matches!(
            (self.layers.as_slice(), layer),
            ([], _)
                | ([Layer::Anoncrypt(_)], Layer::Authcrypt | Layer::Signed)
                | ([Layer::Authcrypt], Layer::Signed)
        );
        if !fits {
            return Err(EnvelopeError::Stacking);
        }
        self.layers.push(layer);
        Ok(())
    }

    fn party(&self, did: &str) -> Result<Party, EnvelopeError> {
        self.parties
            .party(did)
            .ok_or_else(|| EnvelopeError::Unresolved {
                did: did.to_owned(),
            })
    }

    /// Decrypts a layer with the first of our keys that it is encrypted to.
    fn decrypt(&mut self, envelope: &Encrypted<'_>) -> Result<Vec<u8>, EnvelopeError> {
        let decoded = envelope.protected.decode()?;
        let protected = Protected::read(&decoded)?;
        self.push(match protected.method {
            Method::OnePu => Layer::Authcrypt,
            Method::Es => Layer::Anoncrypt(protected.enc),
        })?;
        let kids = recipients(envelope)?;
        if protected.apv != apv(kids.iter().copied()) {
            return Err(EnvelopeError::Apv);
        }

        let common = protected.epk.as_ref().map(ephemeral).transpose()?;
        let mut ours = kids
            .iter()
            .zip(&envelope.recipients)
            .filter_map(|(kid, one)| Some((*kid, one, self.ring.secret(kid)?)));
        let (kid, recipient, secret) = ours.next().ok_or(EnvelopeError::NotForUs)?;
        let ephemeral = match (common, &recipient.header.epk) {
            (Some(epk), None) => epk,
            // One library gives each recipient of an anoncrypt its own ephemeral key. This key is
            // unprotected, which does no harm, since another key gives another secret.
            (None, Some(epk)) if protected.method == Method::Es => ephemeral(epk)?,
            _ => return Err(EnvelopeError::EphemeralKey),
        };

        let sender = match &protected.skid {
            Some(skid) => Some(Authenticated {
                party: self.party(did_of(skid)?)?,
                kid: skid.clone(),
            }),
            None => None,
        };
        let sender_key = match &sender {
            Some(sender) => {
                let key = sender.party.agreement_key(&sender.kid);
                Some(key.ok_or(EnvelopeError::SenderKey)?)
            }
            None => None,
        };

        let own = secret.pair();
        let agreements = match sender_key {
            Some(key) => &[(own, &ephemeral), (own, key.pair())][..],
            None => &[(own, &ephemeral)][..],
        };
        let tag = envelope.tag.decode()?;
        let content = protected.open(envelope, &recipient.encrypted_key, agreements, &tag)?;

        self.recipients.push(kid.to_owned());
        if sender.is_some() {
            self.sender = sender;
            self.replay_id = Some(replay_id(envelope, &tag));
        }
        Ok(content)
    }

    fn verify(&mut self, envelope: &Signed<'_>) -> Result<Vec<u8>, EnvelopeError> {
        self.push(Layer::Signed)?;
        let mut signer: Option<Authenticated> = None;
        for signature in &envelope.signatures {
            let decoded = signature.protected.decode()?;
            let protected = Header::read(&decoded)?;
            let kid = signer_kid(&protected, signature)?;
            let did = did_of(kid)?;
            let party = match &signer {
                None => self.party(did)?,
                // All signatures must be of one party, since `from` can name only one.
                Some(first) if first.party.is(did) => first.party.clone(),
                Some(_) => return Err(EnvelopeError::From),
            };
            let curve = match protected.alg.as_ref().map(|alg| alg.as_str()) {
                Some("EdDSA") => Curve::Ed25519,
                Some("ES256") => Curve::P256,
                _ => return Err(EnvelopeError::Algorithm),
            };
            let key = party
                .authentication_key(kid)
                .ok_or(EnvelopeError::SenderKey)?;
            if key.curve() != curve {
                return Err(EnvelopeError::Curve);
            }
            let input = [signature.protected.as_str(), envelope.payload.as_str()].join(".");
            let raw = signature.signature.decode()?;
            let holds = match key.pair() {
                Pair::Ed25519(pair) => pair.verify_signature(input.as_bytes(), &raw),
                Pair::P256(pair) => pair.verify_signature(input.as_bytes(), &raw),
                Pair::X25519(_) => false,
            };
            if !holds {
                return Err(EnvelopeError::Signature);
            }
            if signer.is_none() {
                let kid = kid.to_owned();
                signer = Some(Authenticated { party, kid });
            }
        }
        self.signer = signer;
        envelope.payload.decode()
    }

    /// Compares `from` and `to` of the plaintext with the keys that were used.
    fn check(&self, inner: &LayerContent<'_>) -> Result<(), EnvelopeError> {
        let from = inner.from.as_ref().map(|from| from.as_str());
        for proven in [&self.sender, &self.signer].into_iter().flatten() {
            if !from.is_some_and(|from| proven.party.is(from)) {
                return Err(EnvelopeError::From);
            }
        }
        // Without `to` a recipient could pass a signed message on as if it had been meant for
        // another recipient.
        let is_proven = self.sender.is_some() || self.signer.is_some();
        for kid in &self.recipients {
            let did = did_of(kid)?;
            match &inner.to {
                Some(to) if to.0.iter().any(|to| is_same_did(to.as_str(), did)) => {}
                None if !is_proven => {}
                _ => return Err(EnvelopeError::To),
            }
        }
        Ok(())
    }
}

/// The protected header of an encrypted message, with all checks that need no other part.
struct Protected<'a> {
    method: Method,
    enc: ContentEncryption,
    /// Key id of the sender of an authcrypt.
    skid: Option<String>,
    apu: Vec<u8>,
    apv: Vec<u8>,
    epk: Option<Jwk<'a>>,
}

impl<'a> Protected<'a> {
    fn read(json: &'a [u8]) -> Result<Self, EnvelopeError> {
        let header = Header::read(json)?;
        let name = header.alg.as_ref().ok_or(EnvelopeError::Algorithm)?;
        let method = Method::from_name(name.as_str()).ok_or(EnvelopeError::Algorithm)?;
        let enc = match header.enc.as_ref() {
            Some(name) => ContentEncryption::from_name(name.as_str()),
            None => None,
        };
        let enc = match (method, enc) {
            (Method::Es, Some(enc)) => enc,
            // The other algorithms do not commit to their key, and authcrypt relies on that.
            (Method::OnePu, Some(ContentEncryption::A256CbcHs512)) => {
                ContentEncryption::A256CbcHs512
            }
            _ => return Err(EnvelopeError::ContentEncryption),
        };
        let apu = match &header.apu {
            Some(apu) => apu.decode()?,
            None => Vec::new(),
        };
        let apv = header.apv.as_ref().ok_or(EnvelopeError::Apv)?.decode()?;
        let skid = match (method, &header.skid) {
            (Method::OnePu, Some(skid)) if skid.as_str().as_bytes() == apu => {
                Some(skid.as_str().to_owned())
            }
            // The specification lets a sender leave out `skid`, since `apu` has the same value.
            (Method::OnePu, None) if !apu.is_empty() => {
                Some(String::from_utf8(apu.clone()).map_err(|_| EnvelopeError::Apu)?)
            }
            (Method::OnePu, _) => return Err(EnvelopeError::Apu),
            (Method::Es, None) => None,
            (Method::Es, Some(_)) => {
                return Err(EnvelopeError::Header(
                    "an anonymous message names its sender",
                ));
            }
        };
        Ok(Self {
            method,
            enc,
            skid,
            apu,
            apv,
            epk: header.epk,
        })
    }

    /// Unwraps the content key by the agreements and decrypts the content. The tag authenticates
    /// header, nonce and ciphertext.
    fn open(
        &self,
        envelope: &Encrypted<'_>,
        encrypted_key: &Text<'_>,
        agreements: &[(&Pair, &Pair)],
        tag: &[u8],
    ) -> Result<Vec<u8>, EnvelopeError> {
        let nonce = envelope.iv.decode()?;
        if tag.len() != self.enc.tag_len() || nonce.len() != self.enc.nonce_len() {
            return Err(EnvelopeError::Decrypt);
        }
        let context = Context {
            method: self.method,
            apu: &self.apu,
            apv: &self.apv,
            tag,
        };
        let key = WrappingKey::derive(agreements, &context)?.unwrap(encrypted_key.decode()?)?;
        let mut buffer = envelope.ciphertext.decode_with_room(tag.len())?;
        buffer.extend_from_slice(tag);
        let aad = envelope.protected.as_str().as_bytes();
        self.enc.open(&key, &nonce, aad, &mut buffer)?;
        Ok(buffer)
    }
}

/// Returns the hash that identifies an authcrypted message. The tag covers header, nonce and
/// ciphertext. Anyone can change white space and other members of the JSON around them, or add a
/// layer around the whole.
fn replay_id(envelope: &Encrypted<'_>, tag: &[u8]) -> [u8; 32] {
    Sha256::new_with_prefix(envelope.protected.as_str())
        .chain_update(tag)
        .finalize()
        .into()
}

/// Returns the recipients' key ids, which must be of one DID.
fn recipients<'e>(envelope: &'e Encrypted<'_>) -> Result<Vec<&'e str>, EnvelopeError> {
    let mut kids = Vec::with_capacity(envelope.recipients.len());
    let mut first = None;
    for recipient in &envelope.recipients {
        let kid = recipient.header.kid.as_ref().ok_or(EnvelopeError::KeyId)?;
        let did = did_of(kid.as_str())?;
        if *first.get_or_insert(did) != did {
            return Err(EnvelopeError::SeveralRecipients);
        }
        kids.push(kid.as_str());
    }
    Ok(kids)
}

fn ephemeral(jwk: &Jwk<'_>) -> Result<Pair, EnvelopeError> {
    let y = jwk.y.as_ref().map(|y| y.as_str());
    match jwk_pair(jwk.kty.as_str(), jwk.crv.as_str(), jwk.x.as_str(), y) {
        Ok(pair) => Ok(pair),
        Err(KeyError::Unsupported) => Err(EnvelopeError::Curve),
        Err(_) => Err(EnvelopeError::EphemeralKey),
    }
}

/// Returns the id of the signing key, from the protected or the unprotected header.
fn signer_kid<'h>(
    protected: &'h Header<'_>,
    signature: &'h Signature<'_>,
) -> Result<&'h str, EnvelopeError> {
    match (&protected.kid, &signature.header.kid) {
        (Some(kid), None) | (None, Some(kid)) => Ok(kid.as_str()),
        (Some(one), Some(other)) if one.as_str() == other.as_str() => Ok(one.as_str()),
        (Some(_), Some(_)) => Err(EnvelopeError::Header("a signature names two keys")),
        (None, None) => Err(EnvelopeError::KeyId),
    }
}
