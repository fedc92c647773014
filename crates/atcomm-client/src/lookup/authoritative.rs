//! What the account's own servers say: the operation log of its DID, its PDS, its handle.

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

/// Time for a PDS to show a record: what else is known of the account must still find its way into
/// the time for one message.
const PDS_PATIENCE: Duration = Duration::from_secs(5);

/// Asks the servers that an account itself names.
#[derive(Clone)]
pub(super) struct Authoritative {
    net: Net,
    identity: Identity,
    clock: Clock,
}

/// Who an account is, as it says itself.
#[derive(Debug, Clone)]
pub(super) struct AccountIdentity {
    /// Its DID document; of a `did:plc` what the log comes to.
    pub(super) document: DidDocument,
    /// The keys under which its proofs count.
    pub(super) keys: Keys,
    /// Its operation log, of a `did:plc`.
    pub(super) log: Option<(VerifiedLog, Box<RawValue>)>,
}

/// Why it cannot be found out who an account is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountIdentityError {
    /// There is no such DID, or it has ended.
    #[error("there is no such DID, or it has ended")]
    NoAccount,
    /// What is served is not proven, or cannot be used.
    #[error("what the directory of DIDs shows of it is not proven: {0}")]
    Unproven(EvidenceError),
    /// A document that cannot be used.
    #[error("{0}")]
    Useless(String),
    /// Nobody answers.
    #[error("it cannot be looked up now: {0}")]
    Unreachable(String),
}

/// The DID document of an account, looked up anew: of a `did:plc` what its verified operations come
/// to, since a mirror of the PLC directory may name any PDS, of a `did:web` what its host serves.
pub async fn proven_document(
    net: &Net,
    identity: &Identity,
    clock: &Clock,
    did: &Did,
) -> Result<DidDocument, AccountIdentityError> {
    let own = Authoritative::new(net.clone(), identity.clone(), clock.clone());
    Ok(own.identify(did).await?.document)
}

/// What the account's PDS says of its key package.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum HostAnswer {
    /// Something that is proven.
    Proven(ProofResult),
    /// That there is none, without a proof.
    NotThere,
    /// That the account is not active.
    Inactive(&'static str),
    /// A package that breaks a rule, or what proves nothing.
    Useless(EvidenceError),
    /// No answer that says anything.
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

    /// Looks the account up anew.
    pub(super) async fn identify(
        &self,
        did: &Did,
    ) -> Result<AccountIdentity, AccountIdentityError> {
        if did.web().is_some() {
            return self.identify_web(did).await;
        }
        self.identity.purge(did);
        let log = self.identity.plc_log(did, Freshness::Refresh).await;
        let log = log.map_err(|error| match error {
            PlcLogError::NotFound => AccountIdentityError::NoAccount,
            PlcLogError::Invalid(why) => AccountIdentityError::Unproven(why.into()),
            PlcLogError::Unreachable { .. } => AccountIdentityError::Unreachable(error.to_string()),
        })?;
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
        };
        Ok(AccountIdentity {
            document,
            keys,
            log: Some((log, raw)),
        })
    }

    async fn identify_web(&self, did: &Did) -> Result<AccountIdentity, AccountIdentityError> {
        self.identity.purge(did);
        let document = self.identity.resolve(did, Freshness::Refresh).await;
        let document = document.map_err(|error| match error {
            IdentityError::NotFound | IdentityError::Tombstoned => AccountIdentityError::NoAccount,
            IdentityError::Unreachable { .. } => {
                AccountIdentityError::Unreachable(error.to_string())
            }
            IdentityError::Malformed(_) | IdentityError::Refused(_) => {
                AccountIdentityError::Useless(error.to_string())
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
            Err(lack) => return HostAnswer::Silent(format!("it names no usable PDS: {lack}")),
        };
        let options = PdsOptions {
            priority: Priority::Interactive,
            timeout: Some(PDS_PATIENCE),
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
