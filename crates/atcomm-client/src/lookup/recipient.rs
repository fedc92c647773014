//! The look-up of recipients: the servers that it asks, and how far it goes.

use super::authoritative::Authoritative;
use super::directory::DirectoryClient;
use super::outcome::RecipientError;
use atcomm_net::identity::Identity;
use atcomm_net::net::Net;
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Actor, Did};
use atcomm_proto::verify::evidence::{Keys, ProofResult, VerifiedPackage};

/// Looks up recipients. Cloning is cheap.
#[derive(Clone)]
pub struct RecipientLookup {
    pub(super) authoritative: Authoritative,
    pub(super) directory: Option<DirectoryClient>,
    pub(super) clock: Clock,
    pub(super) mode: Mode,
}

/// The purpose of a look-up, which decides how far it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// To send: the account's own servers are asked where the directory's answer does not match the
    /// pin.
    Send,
    /// To send or to show: the account's own servers are asked in any case.
    Thorough,
    /// To attribute a message, as far as [`Mode::Send`] goes.
    Attribute,
    /// To attribute a message again after an adverse look-up: the account's own servers are asked
    /// in any case.
    AttributeAgain,
}

impl Mode {
    pub(super) fn is_thorough(self) -> bool {
        matches!(self, Self::Thorough | Self::AttributeAgain)
    }

    /// Whether mediators' documents are read. They are not needed to attribute a message, and a
    /// message must not make its recipient dial hosts that the sender chooses.
    pub(super) fn reads_mediators(self) -> bool {
        matches!(self, Self::Send | Self::Thorough)
    }
}

impl RecipientLookup {
    /// Returns a look-up by a directory, if there is one, and by the accounts' own servers. Dials
    /// nothing.
    pub fn new(
        net: Net,
        identity: Identity,
        clock: Clock,
        directory: Option<DirectoryClient>,
    ) -> Self {
        Self {
            authoritative: Authoritative::new(net, identity, clock.clone()),
            directory,
            clock,
            mode: Mode::Send,
        }
    }

    /// Makes look-ups ask the account's own servers in any case.
    #[must_use]
    pub fn thorough(self) -> Self {
        self.with_mode(Mode::Thorough)
    }

    pub(super) fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The directory that is asked.
    pub fn directory(&self) -> Option<&DirectoryClient> {
        self.directory.as_ref()
    }

    /// Returns the account of an actor. The directory is not asked.
    pub async fn account(&self, actor: &Actor) -> Result<Did, RecipientError> {
        match actor {
            Actor::Did(did) => Ok(did.clone()),
            Actor::Handle(handle) => {
                let identity = self.authoritative.identity();
                let found = identity.resolve_handle(handle).await;
                found.map_err(|why| RecipientError::Handle {
                    handle: handle.clone(),
                    why,
                })
            }
        }
    }

    /// Returns packages of the account that the directory has seen, each proven under `keys`. The
    /// directory can leave out any; without a directory there are none.
    pub(super) async fn superseded(&self, did: &Did, keys: &Keys) -> Vec<VerifiedPackage> {
        let Some(directory) = &self.directory else {
            return Vec::new();
        };
        let changes = directory.history(did).await.unwrap_or_default();
        let now = self.clock.now();
        let proven =
            changes
                .into_iter()
                .filter_map(|change| match keys.prove(did, &change.car?, now) {
                    Ok(ProofResult::Package(package)) => Some(*package),
                    _ => None,
                });
        proven.collect()
    }
}
