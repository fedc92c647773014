//! An account at its PDS: the session, and the one record that this client reads and writes.
//!
//! Requests are those of `atrium-api`, sent by our own network layer. The library's `agent`, which
//! would keep the session, is not used: it panics on answers that a hostile PDS can give, and it
//! sends tokens to whichever endpoint the answer of a sign-in names. Here tokens go only to the PDS
//! that the account's own DID document names.

mod error;
mod xrpc;

use std::collections::BTreeMap;

use atrium_api::client::AtpServiceClient;
use atrium_api::com::atproto::repo::{delete_record, get_record, put_record};
use atrium_api::com::atproto::server::create_session;
use atrium_api::types::Unknown;
use atrium_api::types::string::{self, AtIdentifier, Nsid, RecordKey};
use ipld_core::cid::Cid;
use ipld_core::ipld::Ipld;
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::wallet::AccountStore;
use crate::wallet::session::Session;
use atcomm_net::net::Net;
use atcomm_proto::keypackage::MAX_MEDIATORS;
use atcomm_proto::syntax::{COLLECTION, MediatorDid, Origin, RECORD_KEY};

pub use error::{AccountError, PdsFault};

use xrpc::{Xrpc, lifted};

/// Most sessions that are tried for one request: each is one that another process has saved since.
const SESSIONS: usize = 3;

/// The key package as the PDS gives it, unproven: enough to know what is going to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// CID of the record. Passed as `swapRecord` by the next write, which fails if the record
    /// changed in between.
    pub cid: Cid,
    /// The record.
    pub value: Value,
}

impl Published {
    /// The did:peer that the record names.
    pub fn peer(&self) -> Option<&str> {
        self.value.get("did")?.as_str()
    }

    /// The mediators that the record names and that mail can be fetched from, as many as a record
    /// may name.
    pub fn mediators(&self) -> Vec<MediatorDid> {
        let named = self.value.get("mediators").and_then(Value::as_array);
        let texts = named.into_iter().flatten().filter_map(Value::as_str);
        let parsed = texts.filter_map(|text| MediatorDid::parse(text).ok());
        let fetched = parsed.filter(|did| did.web().is_some());
        fetched.take(MAX_MEDIATORS).collect()
    }
}

/// An account at its PDS, with the session in its wallet.
pub struct AccountClient {
    net: Net,
    pds: Origin,
    store: AccountStore,
}

/// The answer of `getRecord`, with any record: also one outside of the data model has to be
/// replaced.
#[derive(Deserialize)]
struct Found {
    cid: Option<String>,
    value: Value,
}

impl AccountClient {
    /// Returns the account of `store` at the PDS that its DID document names. Dials nothing.
    pub fn new(net: &Net, pds: &Origin, store: &AccountStore) -> Self {
        Self {
            net: net.clone(),
            pds: pds.clone(),
            store: store.clone(),
        }
    }

    /// The PDS.
    pub fn pds(&self) -> &Origin {
        &self.pds
    }

    /// Exchanges a password for a session, and saves the session. `identifier` is a handle or a
    /// DID. An app password suffices; `code` is the code that the PDS has sent by mail where it
    /// asks for a second factor.
    pub async fn sign_in(
        &self,
        identifier: &str,
        password: &str,
        code: Option<&str>,
    ) -> Result<(), AccountError> {
        let input = create_session::InputData {
            allow_takendown: None,
            auth_factor_token: code.map(str::to_owned),
            identifier: identifier.to_owned(),
            password: password.to_owned(),
        };
        let made = self
            .service(None)
            .service
            .com
            .atproto
            .server
            .create_session(input.into())
            .await
            .map_err(|error| match lifted(error) {
                // For a sign-in, this error means a wrong password.
                AccountError::SignedOut => AccountError::WrongPassword,
                error => error,
            })?
            .data;
        self.check_active(made.active, made.status.as_deref())?;
        self.save(made.did.as_str(), made.access_jwt, made.refresh_jwt)?;
        Ok(())
    }

    /// Whether the saved session is valid, after refreshing it where it has expired; then no
    /// password is needed. A session that the PDS gives no answer about counts as valid: not every
    /// PDS has a working `getSession`, and the request that needs the session will show it.
    pub async fn is_signed_in(&self) -> Result<bool, AccountError> {
        match self.check().await {
            Ok(()) => Ok(true),
            Err(
                AccountError::Failing(_)
                | AccountError::Refused { .. }
                | AccountError::Unusable(_)
                | AccountError::Malformed(_),
            ) => Ok(true),
            Err(AccountError::SignedOut) => {
                let session = self.store.session()?;
                if session.is_some_and(|session| session.pds == self.pds) {
                    // The session is of no use any more. Nothing is known of one of another PDS.
                    self.store.delete_session()?;
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn check(&self) -> Result<(), AccountError> {
        let info = self
            .with_session(async |service| {
                let server = &service.service.com.atproto.server;
                server.get_session().await.map_err(lifted)
            })
            .await?
            .data;
        self.check_active(info.active, info.status.as_deref())?;
        if info.did.as_str() == self.store.account().as_str() {
            Ok(())
        } else {
            Err(AccountError::SignedOut)
        }
    }

    /// Ends the session, at the PDS as far as it can be reached, and here.
    pub async fn sign_out(&self) -> Result<(), AccountError> {
        let Some(session) = self.store.session()? else {
            return Ok(());
        };
        if session.pds == self.pds {
            let service = self.service(Some(&session));
            // A session that the PDS is not told about expires by itself.
            drop(service.service.com.atproto.server.delete_session().await);
        }
        self.store.delete_session()?;
        Ok(())
    }

    /// Reads the key package in the repository. Needs no session.
    pub async fn record(&self) -> Result<Option<Published>, AccountError> {
        let parameters = get_record::ParametersData {
            cid: None,
            collection: collection()?,
            repo: self.repo()?,
            rkey: record_key()?,
        };
        let answer = xrpc::query::<_, Found>(&self.xrpc(None), get_record::NSID, parameters).await;
        match answer {
            Ok(Found { cid, value }) => {
                let cid = cid.as_deref().map(Cid::try_from);
                let Some(Ok(cid)) = cid else {
                    return Err(PdsFault::NoCid.into());
                };
                Ok(Some(Published { cid, value }))
            }
            Err(AccountError::Refused { error, .. }) if error == "RecordNotFound" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the key package in place of `before`, or as the first one, and returns the CID of the
    /// record. Fails with [`AccountError::Swapped`] where the record has changed meanwhile; writing
    /// the record that is there already succeeds. Some PDS implementations cannot compare: then the
    /// record is compared here, and a change between that and the write goes unnoticed.
    pub async fn put(&self, record: &Value, before: Option<&Cid>) -> Result<Cid, AccountError> {
        let record = serde_json::from_value::<Unknown>(record.clone()).map_err(PdsFault::Record)?;
        let mut input: put_record::Input = put_record::InputData {
            collection: collection()?,
            record,
            repo: self.repo()?,
            rkey: record_key()?,
            swap_commit: None,
            swap_record: before.map(|cid| string::Cid::new(*cid)),
            // A PDS that knows the lexicon may validate the record; one that does not must not
            // refuse it.
            validate: None,
        }
        .into();
        if before.is_none() {
            // The generated types cannot express that there must be no record yet, which is a null.
            let none = std::iter::once(("swapRecord".to_owned(), Ipld::Null));
            input.extra_data = Ipld::Map(none.collect());
        }
        let write = async |input: &put_record::Input| {
            self.with_session(async |service| {
                let repo = &service.service.com.atproto.repo;
                repo.put_record(input.clone()).await.map_err(lifted)
            })
            .await
        };
        let written = match write(&input).await {
            Err(error) if error.is_about_swap() => {
                self.compare(before).await?;
                input.data.swap_record = None;
                input.extra_data = Ipld::Map(BTreeMap::new());
                write(&input).await
            }
            written => written,
        }?;
        Ok(*written.data.cid.as_ref())
    }

    /// Deletes the key package that is `before`. Fails with [`AccountError::Swapped`] where the
    /// record has changed meanwhile, with the same gap.
    pub async fn delete(&self, before: &Cid) -> Result<(), AccountError> {
        let mut input: delete_record::Input = delete_record::InputData {
            collection: collection()?,
            repo: self.repo()?,
            rkey: record_key()?,
            swap_commit: None,
            swap_record: Some(string::Cid::new(*before)),
        }
        .into();
        let write = async |input: &delete_record::Input| {
            self.with_session(async |service| {
                let repo = &service.service.com.atproto.repo;
                repo.delete_record(input.clone()).await.map_err(lifted)
            })
            .await
        };
        match write(&input).await {
            Err(error) if error.is_about_swap() => {
                self.compare(Some(before)).await?;
                input.data.swap_record = None;
                write(&input).await.map(drop)
            }
            written => written.map(drop),
        }
    }

    /// Fails with [`AccountError::Swapped`] unless the record is `before`. For PDS implementations
    /// whose refusal mentions the comparison: it can be a mismatch, or a comparison that they do
    /// not have.
    async fn compare(&self, before: Option<&Cid>) -> Result<(), AccountError> {
        let there = self.record().await?;
        if there.as_ref().map(|there| &there.cid) == before {
            Ok(())
        } else {
            Err(AccountError::Swapped)
        }
    }

    /// Sends a request with the saved session, and once more with a refreshed one where it has
    /// expired. A session that another process has saved in the meantime, which ended the old one,
    /// is used: [`AccountError::SignedOut`] is about the session that is saved now.
    async fn with_session<T>(
        &self,
        work: impl AsyncFn(&AtpServiceClient<Xrpc>) -> Result<T, AccountError>,
    ) -> Result<T, AccountError> {
        let mut session = self.session()?;
        for _ in 0..SESSIONS {
            match work(&self.service(Some(&session))).await {
                Err(AccountError::SignedOut) => {}
                result => return result,
            }
            let kept = self.session()?;
            if kept != session {
                session = kept;
                continue;
            }
            match self.refresh(&session).await {
                Ok(fresh) => return work(&self.service(Some(&fresh))).await,
                Err(AccountError::SignedOut) => {}
                Err(error) => return Err(error),
            }
            let kept = self.session()?;
            if kept == session {
                break;
            }
            session = kept;
        }
        Err(AccountError::SignedOut)
    }

    /// Returns the saved session. One of another PDS is not sent anywhere: the account has moved.
    fn session(&self) -> Result<Session, AccountError> {
        let session = self.store.session()?.filter(|kept| kept.pds == self.pds);
        session.ok_or(AccountError::SignedOut)
    }

    async fn refresh(&self, session: &Session) -> Result<Session, AccountError> {
        let service = self.service(Some(session));
        let server = &service.service.com.atproto.server;
        let made = server.refresh_session().await.map_err(lifted)?.data;
        self.check_active(made.active, made.status.as_deref())?;
        self.save(made.did.as_str(), made.access_jwt, made.refresh_jwt)
    }

    fn save(&self, did: &str, access: String, refresh: String) -> Result<Session, AccountError> {
        let session = Session {
            pds: self.pds.clone(),
            access: Zeroizing::new(access),
            refresh: Zeroizing::new(refresh),
        };
        if did != self.store.account().as_str() {
            return Err(PdsFault::OtherAccount.into());
        }
        self.store.save_session(&session)?;
        Ok(session)
    }

    fn check_active(&self, active: Option<bool>, status: Option<&str>) -> Result<(), AccountError> {
        match active {
            Some(false) => Err(AccountError::inactive(status.unwrap_or("inactive"))),
            _ => Ok(()),
        }
    }

    fn xrpc(&self, session: Option<&Session>) -> Xrpc {
        Xrpc::new(&self.net, &self.pds, session)
    }

    fn service(&self, session: Option<&Session>) -> AtpServiceClient<Xrpc> {
        AtpServiceClient::new(self.xrpc(session))
    }

    fn repo(&self) -> Result<AtIdentifier, AccountError> {
        let did = string::Did::new(self.store.account().as_str().to_owned());
        Ok(AtIdentifier::Did(did.map_err(PdsFault::Identifier)?))
    }
}

fn collection() -> Result<Nsid, PdsFault> {
    Nsid::new(COLLECTION.to_owned()).map_err(PdsFault::Identifier)
}

fn record_key() -> Result<RecordKey, PdsFault> {
    RecordKey::new(RECORD_KEY.to_owned()).map_err(PdsFault::Identifier)
}

#[cfg(test)]
mod tests;
