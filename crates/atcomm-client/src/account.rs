//! One account of a wallet at work: the wiring of look-ups, sender and inbox.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::lookup::directory::DirectoryClient;
use crate::lookup::outcome::{Recipient, RecipientError};
use crate::lookup::recipient::RecipientLookup;
use crate::lookup::sender::SenderLookup;
use crate::messaging::compose::ComposeError;
use crate::messaging::dm::Dm;
use crate::messaging::inbox::Inbox;
use crate::messaging::receive::Receiver;
use crate::messaging::send::Sender;
use crate::wallet::enrolment::{Enrolment, MessagingKey};
use crate::wallet::error::WalletError;
use crate::wallet::{AccountStore, Wallet};
use atcomm_net::identity::{Identity, IdentitySettings};
use atcomm_net::net::{Net, NetError, NetSettings};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Actor, Did, Origin};

/// Settings of a client. The defaults suit the public network; only the wallet has none.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Directory of the wallet.
    pub home: PathBuf,
    /// The directory to ask for recipients. `None`: the one that the account's mediator names.
    pub directory: Option<Origin>,
    /// Settings of the network.
    pub net: NetSettings,
    /// Settings of identity look-ups.
    pub identity: IdentitySettings,
}

/// What all parts of a client share. Cloning is cheap.
#[derive(Clone)]
pub struct Client {
    /// The network.
    pub net: Net,
    /// DID documents, handles and mediators, cached.
    pub identity: Identity,
    /// The clock.
    pub clock: Clock,
    /// The directory that the settings name.
    pub directory: Option<Origin>,
}

/// An enrolled account with all that sends and receives its messages.
pub struct Account {
    client: Client,
    wallet: Wallet,
    store: AccountStore,
    enrolment: Arc<Enrolment>,
    lookup: RecipientLookup,
    senders: SenderLookup,
}

/// Errors of opening an account.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings of the network cannot be used.
    #[error("{0}")]
    Net(NetError),
    /// The wallet cannot be read, or has no such account.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// The account was never enrolled from this wallet.
    #[error("{0} has no messaging key")]
    NotEnrolled(Did),
}

/// Errors of looking up a recipient and recording the result.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The recipient cannot be written to.
    #[error(transparent)]
    Recipient(#[from] RecipientError),
    /// The contacts cannot be read or written.
    #[error(transparent)]
    Wallet(#[from] WalletError),
}

impl Settings {
    /// Reads a JSON object whose fields are those of this type, each of them optional.
    pub fn read(file: &Path) -> io::Result<Self> {
        let text = std::fs::read(file)?;
        serde_json::from_slice(&text).map_err(io::Error::from)
    }
}

impl Client {
    /// Prepares the network; dials nothing and writes nothing.
    pub fn bind(
        net: NetSettings,
        identity: IdentitySettings,
        directory: Option<Origin>,
    ) -> Result<Self, NetError> {
        let clock = Clock::system();
        let net = Net::bind(net, clock.clone())?;
        Ok(Self {
            identity: Identity::bind(net.clone(), identity, clock.clone()),
            net,
            clock,
            directory,
        })
    }

    /// Returns a look-up by the directory that the settings name, else by `known`, which a document
    /// of the network has named, else by the accounts' own servers alone.
    pub fn lookup(&self, known: Option<&Origin>) -> RecipientLookup {
        let net = || self.net.clone();
        let directory = match (&self.directory, known) {
            (Some(named), _) => Some(DirectoryClient::configured(net(), named.clone())),
            (None, Some(known)) => Some(DirectoryClient::untrusted(net(), known.clone())),
            (None, None) => None,
        };
        self.lookup_by(directory)
    }

    /// Returns a look-up by the accounts' own servers alone.
    pub fn authoritative_lookup(&self) -> RecipientLookup {
        self.lookup_by(None).thorough()
    }

    fn lookup_by(&self, directory: Option<DirectoryClient>) -> RecipientLookup {
        let (net, identity) = (self.net.clone(), self.identity.clone());
        RecipientLookup::new(net, identity, self.clock.clone(), directory)
    }
}

impl Account {
    /// Opens an account of the wallet that the settings name: by handle or DID, or without either
    /// the only one. An account that has unenrolled can be opened, too: its mail is read for a while.
    /// Dials nothing.
    pub fn open(settings: &Settings, actor: Option<&str>) -> Result<Self, OpenError> {
        let Settings {
            home,
            directory,
            net,
            identity,
        } = settings.clone();
        let client = Client::bind(net, identity, directory).map_err(OpenError::Net)?;
        Self::of_wallet(client, &home, actor)
    }

    /// Opens an account of the wallet in `home` with an existing client.
    pub fn of_wallet(client: Client, home: &Path, actor: Option<&str>) -> Result<Self, OpenError> {
        let wallet = Wallet::open(home)?;
        let store = wallet.find(actor)?;
        let Some(enrolment) = store.enrolment()? else {
            return Err(OpenError::NotEnrolled(store.account().clone()));
        };
        let lookup = client.lookup(enrolment.directory.as_ref());
        Ok(Self {
            senders: SenderLookup::new(lookup.clone()),
            lookup,
            enrolment: Arc::new(enrolment),
            client,
            wallet,
            store,
        })
    }

    /// What all parts of the client share.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The wallet.
    pub fn wallet(&self) -> &Wallet {
        &self.wallet
    }

    /// The account's part of the wallet.
    pub fn store(&self) -> &AccountStore {
        &self.store
    }

    /// The account's keys and mediators, as they were when it was opened.
    pub fn enrolment(&self) -> &Enrolment {
        &self.enrolment
    }

    /// The key that encrypts messages of the account; `None` where the account publishes none, as
    /// after unenrolling. Mail to the keys of before can be read all the same.
    pub fn key(&self) -> Option<&MessagingKey> {
        self.enrolment.current()
    }

    /// The look-up of recipients.
    pub fn lookup(&self) -> &RecipientLookup {
        &self.lookup
    }

    /// Looks up and verifies a recipient, and records its key among the contacts.
    pub async fn recipient(&self, actor: &Actor) -> Result<Recipient, LookupError> {
        let pins = self.wallet.contacts()?;
        let recipient = self.lookup.resolve(actor, &pins).await?;
        self.wallet.record(&pins, recipient.trust.pin.as_ref())?;
        Ok(recipient)
    }

    /// Composes a message to an account: looks up the accounts that the text mentions and the
    /// record that it points at, an `at://` address.
    pub async fn compose(
        &self,
        to: &Did,
        text: String,
        embed: Option<&str>,
    ) -> Result<Dm, ComposeError> {
        let Client { net, identity, .. } = &self.client;
        Dm::compose(net, identity, &self.enrolment.account, to, text, embed).await
    }

    /// Returns the sender of the account's messages.
    pub fn sender(&self) -> Sender {
        let Client {
            net,
            identity,
            clock,
            ..
        } = &self.client;
        Sender::new(net, identity, clock, &self.store, &self.enrolment)
    }

    /// Returns the receiver of the account's messages.
    pub fn receiver(&self) -> Receiver {
        Receiver::new(
            self.wallet.clone(),
            self.store.clone(),
            Arc::clone(&self.enrolment),
            self.senders.clone(),
            self.sender(),
            self.client.clock.clone(),
        )
    }

    /// Returns the account's inbox.
    pub fn inbox(&self) -> Inbox {
        let Client {
            net,
            identity,
            clock,
            ..
        } = &self.client;
        let receiver = self.receiver();
        Inbox::new(net, identity, clock, &self.store, &self.enrolment, receiver)
    }
}
