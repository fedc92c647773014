//! Tokens by which an account calls another service, mostly through its PDS.
//!
//! Source: atproto specification, "Inter-Service Authentication (JWT)"; RFC 7515, 7519. A token is
//! signed by the account's signing key, names the service and the method, and lives for about a
//! minute.

use std::time::Duration;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::clock::Timestamp;
use crate::key::{Curve, SigningKey};
use crate::syntax::{Did, MediatorDid};

/// Longest token that is read, in bytes. Those of PDSes have about 400.
pub const MAX_TOKEN_LEN: usize = 4096;

/// Longest time until the end of a token. A PDS gives its users tokens of up to an hour.
pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);

/// How far the clocks of services may differ.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// Why a token is refused. [`TokenError::code`] is the name that servers of atproto give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is no token, or one of another kind.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// It expires more than [`MAX_LIFETIME`] from now.
    #[error("the token lives for longer than an hour")]
    LongLived,
    /// It is for another service.
    #[error("the token is for another service")]
    Audience,
    /// It is for another method, or for none.
    #[error("the token is for another method")]
    Method,
    /// It is not signed by the account's signing key.
    #[error("the token is not signed by the account's signing key")]
    Signature,
}

impl TokenError {
    /// Returns the name of the error in an answer.
    pub fn code(self) -> &'static str {
        match self {
            Self::Malformed(_) | Self::LongLived => "BadJwt",
            Self::Expired => "JwtExpired",
            Self::Audience => "BadJwtAudience",
            Self::Method => "BadJwtLexiconMethod",
            Self::Signature => "BadJwtSignature",
        }
    }
}

/// A token whose signature is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceToken<'t> {
    account: Did,
    audience: String,
    method: Option<String>,
    expires_at: Timestamp,
    id: Option<String>,
    curve: Curve,
    signed: &'t str,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    lxm: Option<String>,
    #[serde(default)]
    jti: Option<String>,
}

impl<'t> ServiceToken<'t> {
    /// Reads a token, and verifies nothing.
    pub fn parse(token: &'t str, now: Timestamp) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(TokenError::Malformed("it is longer than 4096 bytes"));
        }
        let (signed, signature) = token
            .rsplit_once('.')
            .ok_or(TokenError::Malformed("it has not three parts"))?;
        let (header, claims) = signed
            .split_once('.')
            .filter(|(_, claims)| !claims.contains('.'))
            .ok_or(TokenError::Malformed("it has not three parts"))?;
        let signature = decode(signature)?;
        let curve = curve(&json(header)?)?;
        let claims: Claims = json(claims)?;
        let expires_at = time(claims.exp)?;
        if let Some(begins) = claims.nbf
            && time(begins)? > now.plus(CLOCK_TOLERANCE)
        {
            return Err(TokenError::Malformed("it is not valid yet"));
        }
        Ok(Self {
            account: Did::parse(&claims.iss)
                .map_err(|_| TokenError::Malformed("iss is not the DID of an account"))?,
            audience: claims.aud,
            method: claims.lxm,
            expires_at,
            id: claims.jti,
            curve,
            signed,
            signature,
        })
    }

    /// Returns the account that the token says it is of.
    pub fn account(&self) -> &Did {
        &self.account
    }

    /// Returns when the token expires.
    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// Checks that the token is for the service `id` (such as `atcomm_directory`) of `service` and
    /// for this method, and that it lives. Tokens name the service with or without `#id`.
    pub fn check(
        &self,
        service: &MediatorDid,
        id: &str,
        method: &str,
        now: Timestamp,
    ) -> Result<(), TokenError> {
        let named = match self.audience.split_once('#') {
            Some((did, fragment)) => did == service.as_str() && fragment == id,
            None => self.audience == service.as_str(),
        };
        if !named {
            return Err(TokenError::Audience);
        }
        if self.method.as_deref() != Some(method) {
            return Err(TokenError::Method);
        }
        if now >= self.expires_at.plus(CLOCK_TOLERANCE) {
            return Err(TokenError::Expired);
        }
        if self.expires_at > now.plus(MAX_LIFETIME + CLOCK_TOLERANCE) {
            return Err(TokenError::LongLived);
        }
        Ok(())
    }

    /// Verifies the signature under the account's signing key.
    pub fn verify(&self, key: &SigningKey) -> Result<(), TokenError> {
        if key.curve() != self.curve {
            return Err(TokenError::Signature);
        }
        key.verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| TokenError::Signature)
    }

    /// Returns what is the same in each use of the token, and in no other token: its account with
    /// its `jti`, or with what was signed where it has none.
    pub fn identity(&self) -> String {
        let own = self.id.as_deref().unwrap_or(self.signed);
        let kind: &[u8] = if self.id.is_some() { b"jti" } else { b"all" };
        let mut hash = Sha256::new();
        for part in [self.account.as_str().as_bytes(), kind, own.as_bytes()] {
            hash.update(u64::try_from(part.len()).unwrap_or(0).to_be_bytes());
            hash.update(part);
        }
        HEXLOWER.encode(&hash.finalize())
    }
}

/// Returns the curve of the key that a token says it is signed by.
fn curve(header: &Header) -> Result<Curve, TokenError> {
    // Tokens of sign-in are of other types, and for other servers.
    let is_plain = |typ: &String| typ.eq_ignore_ascii_case("JWT");
    if !header.typ.as_ref().is_none_or(is_plain) {
        return Err(TokenError::Malformed("it is a token of another type"));
    }
    if header.crit.is_some() {
        return Err(TokenError::Malformed("it demands an extension"));
    }
    match header.alg.as_str() {
        "ES256K" => Ok(Curve::K256),
        "ES256" => Ok(Curve::P256),
        _ => Err(TokenError::Malformed("alg is neither ES256K nor ES256")),
    }
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    BASE64URL_NOPAD
        .decode(part.as_bytes())
        .map_err(|_| TokenError::Malformed("a part is not base64url"))
}

fn json<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let bytes = decode(part)?;
    // The library reads an array as an object, too.
    if bytes.first() != Some(&b'{') {
        return Err(TokenError::Malformed("a part is not a JSON object"));
    }
    serde_json::from_slice(&bytes)
        .map_err(|_| TokenError::Malformed("a claim is missing or of the wrong type"))
}

/// Reads a time in seconds, which may have a fraction (RFC 7519, section 2).
fn time(seconds: f64) -> Result<Timestamp, TokenError> {
    // Beyond this a float does not hold every second.
    const MAX_SECONDS: f64 = 9e12;
    if !(0.0..MAX_SECONDS).contains(&seconds) {
        return Err(TokenError::Malformed("a time in it is out of range"));
    }
    Ok(Timestamp::from_millis((seconds * 1000.0) as i64))
}

#[cfg(test)]
mod tests;
