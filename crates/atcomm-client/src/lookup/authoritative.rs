//! The account's own servers: the operation log of its DID, and its PDS.

use std::time::Duration;

use serde_json::value::RawValue;

use atcomm_net::identity::{
    DidDocument, Freshness, Identity, IdentityError, PdsOptions, PlcLogError, RecordAnswer,
    UnusableAnswer, fetch_record,
};
use atcomm_net::net::{Net, Priority};
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::plc::VerifiedLog;
use atcomm_proto::proof::ProofError;
use atcomm_proto::syntax::Did;
use atcomm_proto::verify::evidence::{EvidenceError, Keys, ProofResult};

/// Timeout for fetching the record from the PDS. Short enough that the remaining look-ups still fit
/// into the time for one message.
const PDS_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the servers that an account itself names.
#[derive(Clone)]
pub(super) struct Authoritative {
    net: Net,
    identity: Identity,
    clock: Clock,
}

/// The identity of an account, from its own servers.
#[derive(Debug, Clone)]
pub(super) struct AccountIdentity {
    /// The DID document; for a `did:plc` the state that the operation log leads to.
    pub(super) document: DidDocument,
    /// The keys under which proofs of the account count.
    pub(super) keys: Keys,
    /// The operation log of a `did:plc`.
    pub(super) log: Option<(VerifiedLog, Box<RawValue>)>,
}

/// Errors of looking up an account's identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountIdentityError {
    /// There is no such DID, or it has ended.
    #[error("there is no such DID, or it has ended")]
    NoAccount,
    /// The operation log failed verification, or leads to no usable signing key.
    #[error("what the directory of DIDs shows of it is not proven: {0}")]
    Unproven(#[source] EvidenceError),
    /// The document cannot be used.
    #[error(transparent)]
    Useless(IdentityError),
    /// No server answers.
    #[error("it cannot be looked up now: {0}")]
    Unreachable(#[source] IdentityOutage),
}

/// Causes of [`AccountIdentityError::Unreachable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityOutage {
    /// The operation log of a `did:plc` cannot be read.
    #[error(transparent)]
    Log(#[from] PlcLogError),
    /// The DID document of a `did:web` cannot be read.
    #[error(transparent)]
    Document(#[from] IdentityError),
}

/// Looks up the DID document of an account anew. For a `did:plc` it is the state that the verified
/// operations lead to, since a mirror of the PLC directory can name any PDS; for a `did:web` it is
/// what the host serves.
pub async fn proven_document(
    net: &Net,
    identity: &Identity,
    clock: &Clock,
    did: &Did,
) -> Result<DidDocument, AccountIdentityError> {
    let own = Authoritative::new(net.clone(), identity.clone(), clock.clone());
    Ok(own.identify(did).await?.document)
}

/// Answers of an account's PDS about its key package.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HostAnswer {
    /// A proof.
    Proven(ProofResult),
    /// The PDS says that there is no record, without a proof.
    NotThere,
    /// The account is not active.
    Inactive(&'static str),
    /// A package that breaks a rule, or an answer that proves nothing.
    Useless(EvidenceError),
    /// No usable answer.
    Silent(String),
}

impl Authoritative {
    pub(super) fn new(net: Net, identity: Identity, clock: Clock) -> Self {
        Self {
            net,
            identity,
            clock,
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Looks up the identity of an account anew.
    pub(super) async fn identify(
        &self,
        did: &Did,
    ) -> Result<AccountIdentity, AccountIdentityError> {
        if did.web().is_some() {
            return self.identify_web(did).await;
        }
        self.identity.purge(did);
        let log = self
            .identity
            .plc_log(did, Freshness::Refresh)
            .await
            .map_err(|error| match error {
                PlcLogError::NotFound => AccountIdentityError::NoAccount,
                PlcLogError::Invalid(why) => AccountIdentityError::Unproven(why.into()),
                PlcLogError::Unreachable { .. } => AccountIdentityError::Unreachable(error.into()),
            })?;
        let asked_at = log.asked_at();
        let (log, raw) = (log.verified().clone(), log.entries().to_owned());
        let keys = match Keys::of_log(&log) {
            Ok(keys) => keys,
            Err(EvidenceError::Tombstoned) => return Err(AccountIdentityError::NoAccount),
            Err(why) => return Err(AccountIdentityError::Unproven(why)),
        };
        let state = log.current().ok_or(AccountIdentityError::NoAccount)?;
        let document = DidDocument {
            did: did.clone(),
            claimed_handle: state.handle.clone(),
            pds: state
                .pds
                .clone()
                .ok_or(atcomm_net::identity::Unusable::Missing),
            signing_key: Ok(keys.current.clone()),
            asked_at,
        };
        Ok(AccountIdentity {
            document,
            keys,
            log: Some((log, raw)),
        })
    }

    async fn identify_web(&self, did: &Did) -> Result<AccountIdentity, AccountIdentityError> {
        self.identity.purge(did);
        let document = self
            .identity
            .resolve(did, Freshness::Refresh)
            .await
            .map_err(|error| match error {
                IdentityError::NotFound | IdentityError::Tombstoned => {
                    AccountIdentityError::NoAccount
                }
                IdentityError::Unreachable { .. } => {
                    AccountIdentityError::Unreachable(error.into())
                }
                IdentityError::Malformed(_) | IdentityError::Refused(_) => {
                    AccountIdentityError::Useless(error)
                }
            })?;
        let key = document.signing_key.clone();
        let current =
            key.map_err(|_| AccountIdentityError::Unproven(EvidenceError::NoSigningKey))?;
        Ok(AccountIdentity {
            document: (*document).clone(),
            keys: Keys {
                current,
                pre_migration_key: None,
            },
            log: None,
        })
    }

    /// Asks the account's PDS for its key package.
    pub(super) async fn answer(&self, identity: &AccountIdentity) -> HostAnswer {
        let did = &identity.document.did;
        let pds = match &identity.document.pds {
            Ok(pds) => pds,
            Err(reason) => return HostAnswer::Silent(format!("it names no usable PDS: {reason}")),
        };
        let options = PdsOptions {
            priority: Priority::Interactive,
            timeout: Some(PDS_TIMEOUT),
            ..PdsOptions::default()
        };
        match fetch_record(&self.net, did, pds, options).await {
            Ok(RecordAnswer::Car(car)) => self.weigh(identity, &car, self.clock.now()),
            Ok(RecordAnswer::RecordNotFound) => HostAnswer::NotThere,
            Ok(RecordAnswer::RepoNotFound) => HostAnswer::Inactive("its host does not know it"),
            Ok(RecordAnswer::Inactive(status)) => HostAnswer::Inactive(status.as_str()),
            Ok(RecordAnswer::Unusable(UnusableAnswer::Oversize)) => {
                HostAnswer::Useless(EvidenceError::Proof(ProofError::Oversize))
            }
            Ok(RecordAnswer::Unusable(why)) => HostAnswer::Silent(why.to_string()),
            Err(error) => HostAnswer::Silent(error.to_string()),
        }
    }

    fn weigh(&self, identity: &AccountIdentity, car: &[u8], now: Timestamp) -> HostAnswer {
        match identity.keys.prove(&identity.document.did, car, now) {
            Ok(shown) => HostAnswer::Proven(shown),
            Err(why) => HostAnswer::Useless(why),
        }
    }
}
