//! Accounts that call with a token, mostly through their PDS.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::refresh::ResolveError;
use super::{MAX_CACHED, Resolver};
use atcomm_net::identity::{Freshness, IdentityError};
use atcomm_net::ttl_cache::TtlCache;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::key::SigningKey;
use atcomm_proto::service_token::{CLOCK_TOLERANCE, ServiceToken, TokenError};
use atcomm_proto::syntax::Did;

/// Tokens that are remembered until they expire, the newest. Who makes more of them in their
/// time can use their own again, which gains nothing but a cached answer.
const MAX_TOKENS: usize = 100_000;

/// Least time between two look-ups of an account because of a signature that does not verify.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// Why a caller is refused.
#[derive(Debug)]
pub enum CallerError {
    /// The token is refused.
    Token(TokenError),
    /// The token was used before.
    Replayed,
    /// The account of the token has no document, or none that can be found now.
    Account(IdentityError),
    /// The look at the account's document is beyond a limit, or takes too long.
    Resolve(ResolveError),
}

impl From<TokenError> for CallerError {
    fn from(error: TokenError) -> Self {
        Self::Token(error)
    }
}

impl From<ResolveError> for CallerError {
    fn from(error: ResolveError) -> Self {
        Self::Resolve(error)
    }
}

/// What is remembered of callers.
pub(super) struct Callers {
    used: Mutex<TtlCache<String, ()>>,
    looked_again: TtlCache<Did, ()>,
    clock: Clock,
}

impl Callers {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            used: Mutex::new(TtlCache::with_entries(MAX_TOKENS, clock.clone())),
            looked_again: TtlCache::with_entries(MAX_CACHED, clock.clone()),
            clock,
        }
    }

    /// Takes note that a token is used. Returns whether it is so for the first time.
    fn is_first_use(&self, token: &ServiceToken<'_>) -> bool {
        let rest = token.expires_at().since(self.clock.now());
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = token.identity();
        let is_first = used.get(&identity).is_none();
        if is_first {
            used.insert(identity, (), rest + CLOCK_TOLERANCE);
        }
        is_first
    }
}

impl Resolver {
    /// Verifies that a token, which was checked for this service and method, is signed by its
    /// account and was not used before. A look at an account that is not known pays out of the
    /// allowance of `client`, as every look does.
    pub async fn verify_caller(
        &self,
        token: &ServiceToken<'_>,
        client: IpAddr,
    ) -> Result<(), CallerError> {
        let did = token.account();
        let cached = self.inner.identity.cached(did);
        let known = match &cached {
            Some(document) => document.signing_key.clone().ok(),
            None => self.key_of_caller(did, Freshness::Cached, client).await?,
        };
        if let Err(error) = verify(token, known) {
            let callers = &self.inner.callers;
            if cached.is_none() || callers.looked_again.get(did).is_some() {
                return Err(error.into());
            }
            // The account may have another key by now.
            callers
                .looked_again
                .insert(did.clone(), (), LOOK_AGAIN_AFTER);
            verify(
                token,
                self.key_of_caller(did, Freshness::Refresh, client).await?,
            )?;
        }
        if !self.inner.callers.is_first_use(token) {
            return Err(CallerError::Replayed);
        }
        Ok(())
    }

    /// Looks up the signing key of an account. `None` where its document has none.
    async fn key_of_caller(
        &self,
        did: &Did,
        freshness: Freshness,
        client: IpAddr,
    ) -> Result<Option<SigningKey>, CallerError> {
        self.charge(client)?;
        let _permit = self.permit()?;
        let identity = self.inner.identity.interactive();
        let document = self.with_timeout(identity.resolve(did, freshness)).await?;
        Ok(document
            .map_err(CallerError::Account)?
            .signing_key
            .clone()
            .ok())
    }

    /// Returns the time by which tokens are judged.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }
}

fn verify(token: &ServiceToken<'_>, key: Option<SigningKey>) -> Result<(), TokenError> {
    token.verify(&key.ok_or(TokenError::Signature)?)
}
