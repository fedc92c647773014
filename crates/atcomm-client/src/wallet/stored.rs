//! Accounts as files contain them: the one place where secret keys become text.

use serde::{Deserialize, Serialize};

use super::enrolment::{DroppedMediator, Enrolment, KeyState, MAX_HOLDERS, MessagingKey};
use super::session::Session;
use atcomm_net::durable::SecretText;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::keypackage::MAX_MEDIATORS;
use atcomm_proto::syntax::{Did, Handle, MediatorDid, Origin};

/// Most keys of an account: the present one, and those whose mail may still come.
pub(crate) const MAX_KEYS: usize = 64;

/// An account as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredEnrolment {
    account: Did,
    handle: Option<Handle>,
    pds: Origin,
    directory: Option<Origin>,
    mediators: Vec<MediatorDid>,
    label: Option<String>,
    keys: Vec<StoredKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredKey {
    peer: String,
    x25519: SecretText,
    ed25519: SecretText,
    minted_at: i64,
    state: StoredState,
    registered: Vec<MediatorDid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<StoredDropped>,
}

#[derive(Serialize, Deserialize)]
struct StoredDropped {
    mediator: MediatorDid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<i64>,
}

/// Times are milliseconds since 1970.
#[derive(Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
enum StoredState {
    Minted,
    Published { since: i64 },
    Replaced { since: i64 },
}

/// A session as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StoredSession {
    pds: Origin,
    access_jwt: SecretText,
    refresh_jwt: SecretText,
}

impl StoredEnrolment {
    /// Returns the account's form on disk.
    pub(crate) fn of(enrolment: &Enrolment) -> Self {
        Self {
            account: enrolment.account.clone(),
            handle: enrolment.handle.clone(),
            pds: enrolment.pds.clone(),
            directory: enrolment.directory.clone(),
            mediators: enrolment.mediators.clone(),
            label: enrolment.label.clone(),
            keys: enrolment.keys.iter().map(StoredKey::of).collect(),
        }
    }

    /// Reads the account, or returns what is wrong with its form.
    pub(crate) fn read(self) -> Result<Enrolment, String> {
        if self.mediators.is_empty() || self.mediators.len() > MAX_MEDIATORS {
            return Err(format!("it names {} mediators", self.mediators.len()));
        }
        if self.keys.len() > MAX_KEYS {
            return Err(format!("it has {} keys", self.keys.len()));
        }
        let keys = self.keys.into_iter().map(StoredKey::read);
        Ok(Enrolment {
            keys: keys.collect::<Result<_, _>>()?,
            account: self.account,
            handle: self.handle,
            pds: self.pds,
            directory: self.directory,
            mediators: self.mediators,
            label: self.label,
        })
    }
}

impl StoredKey {
    fn of(key: &MessagingKey) -> Self {
        Self {
            peer: key.peer.as_str().to_owned(),
            x25519: SecretText::encode(&key.agreement.to_bytes()),
            ed25519: SecretText::encode(&key.signing.to_bytes()),
            minted_at: key.minted_at.millis(),
            state: match key.state {
                KeyState::Minted => StoredState::Minted,
                KeyState::Published { at } => StoredState::Published { since: at.millis() },
                KeyState::Replaced { at } => StoredState::Replaced { since: at.millis() },
            },
            registered: key.registered.clone(),
            dropped: key.dropped.iter().map(StoredDropped::of).collect(),
        }
    }

    fn read(self) -> Result<MessagingKey, String> {
        let bytes = |text: &SecretText| text.decode().ok_or("a key is not base64url");
        let (agreement, signing) = (bytes(&self.x25519)?, bytes(&self.ed25519)?);
        let minted_at = Timestamp::from_millis(self.minted_at);
        let key = MessagingKey::from_parts(&agreement, &signing, minted_at)
            .ok_or("a key is not 32 bytes")?;
        if key.peer.as_str() != self.peer {
            return Err("a key does not belong to its DID".to_owned());
        }
        if self.registered.len() > MAX_HOLDERS || self.dropped.len() > MAX_HOLDERS {
            return Err("a key is registered with too many mediators".to_owned());
        }
        Ok(MessagingKey {
            state: match self.state {
                StoredState::Minted => KeyState::Minted,
                StoredState::Published { since } => KeyState::Published {
                    at: Timestamp::from_millis(since),
                },
                StoredState::Replaced { since } => KeyState::Replaced {
                    at: Timestamp::from_millis(since),
                },
            },
            registered: self.registered,
            dropped: self.dropped.into_iter().map(StoredDropped::read).collect(),
            ..key
        })
    }
}

impl StoredDropped {
    fn of(dropped: &DroppedMediator) -> Self {
        Self {
            mediator: dropped.did.clone(),
            since: dropped.at.map(Timestamp::millis),
        }
    }

    fn read(self) -> DroppedMediator {
        DroppedMediator {
            did: self.mediator,
            at: self.since.map(Timestamp::from_millis),
        }
    }
}

impl StoredSession {
    pub(super) fn of(session: &Session) -> Self {
        Self {
            pds: session.pds.clone(),
            access_jwt: SecretText::new(session.access.to_string()),
            refresh_jwt: SecretText::new(session.refresh.to_string()),
        }
    }

    pub(super) fn read(self) -> Session {
        Session {
            access: self.access_jwt.into_text(),
            refresh: self.refresh_jwt.into_text(),
            pds: self.pds,
        }
    }
}
