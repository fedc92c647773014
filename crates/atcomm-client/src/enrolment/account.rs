//! An account at its PDS: signing in, and the one record that this client reads and writes there.
//!
//! Requests are those of `atrium-api`, carried by our own network. Its `agent`, which would keep
//! the session, is not used: it asserts things about answers that a host may break at will, and
//! sends tokens on to whatever endpoint the answer of a sign-in names. Here they go to the PDS that
//! the account's own DID document names, and to no other.

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
use atcomm_proto::syntax::{COLLECTION, Origin, RECORD_KEY};

pub use error::AccountError;

use xrpc::{Xrpc, lifted};

/// Sessions that are tried for one request: each is one that another process has had since.
const SESSIONS: usize = 3;

/// The key package as the PDS gives it, unproven: enough to know what is going to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Of the record; the next write names it, and fails where another came between.
    pub cid: Cid,
    /// The record.
    pub value: Value,
}

impl Published {
    /// The did:peer that it names.
    pub fn peer(&self) -> Option<&str> {
        self.value.get("did")?.as_str()
    }
}

/// An account at its PDS, with the session that its wallet keeps.
pub struct AccountClient {
    net: Net,
    pds: Origin,
    store: AccountStore,
}

/// What `getRecord` answers, with any record: even one that is outside of the data model has to be
/// replaced.
#[derive(Deserialize)]
struct Found {
    cid: Option<String>,
    value: Value,
}

impl AccountClient {
    /// The account of `store` at the PDS that its DID document names. Asks nobody.
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

    /// Exchanges a password for a session, and keeps that. `identifier` is handle or DID. An app
    /// password does; `code` is what the PDS has sent by mail where it asks for a second factor.
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
                // Of a sign-in, this is what it means.
                AccountError::SignedOut => AccountError::WrongPassword,
                error => error,
            })?
            .data;
        self.check_active(made.active, made.status.as_deref())?;
        self.keep(made.did.as_str(), made.access_jwt, made.refresh_jwt)?;
        Ok(())
    }

    /// Whether the kept session is good; one that has run out is made new. Nothing needs a password
    /// then. One that the PDS cannot say anything about is taken for good: not every PDS has a
    /// `getSession` that works, and what the session is needed for will show it.
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
                    // Of no more use to anybody. Of that of another PDS nothing is known.
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

    /// Ends the session, at the PDS as far as that can be reached, and here.
    pub async fn sign_out(&self) -> Result<(), AccountError> {
        let Some(session) = self.store.session()? else {
            return Ok(());
        };
        if session.pds == self.pds {
            let service = self.service(Some(&session));
            // A session that nobody knows any more ends by itself.
            drop(service.service.com.atproto.server.delete_session().await);
        }
        self.store.delete_session()?;
        Ok(())
    }

    /// The key package in the repository; needs no session.
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
                    return Err(AccountError::Malformed("a record without a CID".to_owned()));
                };
                Ok(Some(Published { cid, value }))
            }
            Err(AccountError::Refused { error, .. }) if error == "RecordNotFound" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the key package in place of `before`, or as the first one; fails with
    /// [`AccountError::Swapped`] where another is there by now. Putting what is there already is no
    /// error. Gives the CID of the record. There are hosts that cannot compare: there it is compared
    /// here, and what comes between that and the write goes unseen.
    pub async fn put(&self, record: &Value, before: Option<&Cid>) -> Result<Cid, AccountError> {
        let record = serde_json::from_value::<Unknown>(record.clone())
            .map_err(|error| AccountError::Malformed(error.to_string()))?;
        let mut input: put_record::Input = put_record::InputData {
            collection: collection()?,
            record,
            repo: self.repo()?,
            rkey: record_key()?,
            swap_commit: None,
            swap_record: before.map(|cid| string::Cid::new(*cid)),
            // A PDS that knows the lexicon may check it; one that does not must not refuse.
            validate: None,
        }
        .into();
        if before.is_none() {
            // None of the generated fields says that there must be no record yet: that is a null.
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

    /// Deletes the key package that is `before`; fails with [`AccountError::Swapped`] where another
    /// is there by now, with the same gap.
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

    /// Fails with [`AccountError::Swapped`] unless the record is `before`. For hosts that speak of
    /// the comparison when they refuse: that may be a mismatch as well as that they have none.
    async fn compare(&self, before: Option<&Cid>) -> Result<(), AccountError> {
        let there = self.record().await?;
        if there.as_ref().map(|there| &there.cid) == before {
            Ok(())
        } else {
            Err(AccountError::Swapped)
        }
    }

    /// Does something by the kept session, and once more by a new one where it has run out. Where
    /// another process has had a new one in the meantime, by which the old one has ended, that is
    /// used: [`AccountError::SignedOut`] is about the session that is kept.
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

    /// The kept session. One of another PDS is shown to nobody: the account has moved.
    fn session(&self) -> Result<Session, AccountError> {
        let session = self.store.session()?.filter(|kept| kept.pds == self.pds);
        session.ok_or(AccountError::SignedOut)
    }

    async fn refresh(&self, session: &Session) -> Result<Session, AccountError> {
        let service = self.service(Some(session));
        let server = &service.service.com.atproto.server;
        let made = server.refresh_session().await.map_err(lifted)?.data;
        self.check_active(made.active, made.status.as_deref())?;
        self.keep(made.did.as_str(), made.access_jwt, made.refresh_jwt)
    }

    fn keep(&self, did: &str, access: String, refresh: String) -> Result<Session, AccountError> {
        let session = Session {
            pds: self.pds.clone(),
            access: Zeroizing::new(access),
            refresh: Zeroizing::new(refresh),
        };
        if did != self.store.account().as_str() {
            return Err(AccountError::Malformed(
                "the session of another account".to_owned(),
            ));
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
        Ok(AtIdentifier::Did(did.map_err(constant)?))
    }
}

fn collection() -> Result<Nsid, AccountError> {
    Nsid::new(COLLECTION.to_owned()).map_err(constant)
}

fn record_key() -> Result<RecordKey, AccountError> {
    RecordKey::new(RECORD_KEY.to_owned()).map_err(constant)
}

/// Our own checked identifiers are valid for the library, too.
fn constant(why: &str) -> AccountError {
    AccountError::Malformed(why.to_owned())
}

#[cfg(test)]
mod tests;
