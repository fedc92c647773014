//! coordinate-mediation 2.0 and 3.0: requesting mediation and listing the recipients.
//!
//! Both versions have the same contents: 2.0 calls the recipients keys and grants one routing DID,
//! 3.0 calls them recipients and grants a list. The specification page has only the common headers.

use serde::Serialize;

use crate::didcomm::message::{
    DOC, FieldError, FieldFault, MAX_DID, Message, Object, TypeUri, raw,
};
use crate::syntax::Did;

/// Most changes of one update: each is a write, and all are answered in one message.
pub const MAX_UPDATES: usize = 100;

/// Most routing DIDs of a grant.
const MAX_ROUTING: usize = 16;

/// Most recipients of one page.
const MAX_PAGE: usize = 1000;

/// The version of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// 2.0.
    V2,
    /// 3.0.
    V3,
}

impl Version {
    /// Returns the protocol as it is disclosed.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::V2 => "https://didcomm.org/coordinate-mediation/2.0",
            Self::V3 => "https://didcomm.org/coordinate-mediation/3.0",
        }
    }

    /// Returns the version of a message type; `None` if it is of another protocol.
    pub fn of(kind: &TypeUri<'_>) -> Option<Self> {
        match (kind.doc, kind.protocol, kind.major) {
            (DOC, "coordinate-mediation", 2) => Some(Self::V2),
            (DOC, "coordinate-mediation", 3) => Some(Self::V3),
            _ => None,
        }
    }

    fn message<T: Serialize>(self, name: &str, id: impl Into<String>, body: &T) -> Message {
        Message::with_body(id, &format!("{}/{name}", self.protocol()), raw(body))
    }
}

/// The requests of a recipient to its mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `mediate-request`.
    Mediate {
        /// The atproto account of the sender, an addition of ours: a hint where its key package is
        /// looked for. The mediator does not rely on it.
        account: Option<Did>,
    },
    /// `keylist-update`, `recipient-update`: changes in the order to make them.
    Update(Vec<Update>),
    /// `keylist-query`, `recipient-query`: the whole list, or a page.
    Query(Option<Page>),
}

/// A change to the list of recipients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Update {
    /// The recipient as it was sent, which may not be a DID.
    pub recipient_did: String,
    /// Whether to add or remove the recipient.
    pub action: Action,
}

/// The changes to a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Add the recipient.
    Add,
    /// Remove the recipient.
    Remove,
}

/// A requested part of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Page {
    /// Most entries of the page.
    pub limit: u64,
    /// Number of entries to skip.
    pub offset: u64,
}

/// The replies of a mediator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// `mediate-grant`.
    Grant {
        /// The DIDs to send forwards to, at least one; version 2.0 can name only the first.
        routing_did: Vec<String>,
    },
    /// `mediate-deny`.
    Deny,
    /// `keylist-update-response`, `recipient-update-response`: the result of each change.
    Updated(Vec<Updated>),
    /// `keylist`, `recipient`.
    Recipients {
        /// The recipients.
        dids: Vec<String>,
        /// The part of the list that this is; `None` if the request asked for no page.
        pagination: Option<Pagination>,
    },
}

/// The result of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Updated {
    /// The recipient as it was sent.
    pub recipient_did: String,
    /// The change as it was sent.
    pub action: Action,
    /// The result of the change.
    pub result: Outcome,
}

/// The results of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The change was made.
    Success,
    /// The list was so before.
    NoChange,
    /// The change was refused: it is forbidden to the sender, or the recipient is not a DID.
    ClientError,
    /// The mediator failed.
    ServerError,
}

/// The part of a list that a reply contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Pagination {
    /// Number of entries in this reply.
    pub count: u64,
    /// Number of entries before them.
    pub offset: u64,
    /// Number of entries after them.
    pub remaining: u64,
}

#[derive(Serialize)]
struct EmptyBody {}

#[derive(Serialize)]
struct RecipientEntry<'a> {
    recipient_did: &'a str,
}

impl Request {
    /// Reads a request of either version; `None` if the message is of another type.
    pub fn of(message: &Message) -> Result<Option<(Version, Self)>, FieldError> {
        let Some((version, name)) = split(message) else {
            return Ok(None);
        };
        let body = || Object::body(&message.body);
        let request = match (version, name) {
            (_, "mediate-request") => Self::read_mediate(&body()?)?,
            (Version::V2, "keylist-update") | (Version::V3, "recipient-update") => {
                Self::Update(read_updates(&body()?)?)
            }
            (Version::V2, "keylist-query") | (Version::V3, "recipient-query") => {
                Self::Query(read_page(&body()?)?)
            }
            _ => return Ok(None),
        };
        Ok(Some((version, request)))
    }

    fn read_mediate(body: &Object<'_>) -> Result<Self, FieldError> {
        let account = match body.text("account", MAX_DID)? {
            None => None,
            Some(text) => Some(
                Did::parse(&text)
                    .map_err(|err| body.wrong("account", FieldFault::Rule(err.reason.into())))?,
            ),
        };
        Ok(Self::Mediate { account })
    }

    /// Returns the request as a message.
    pub fn write(&self, version: Version, id: impl Into<String>) -> Message {
        #[derive(Serialize)]
        struct Mediate<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            account: Option<&'a Did>,
        }
        #[derive(Serialize)]
        struct Updates<'a> {
            updates: &'a [Update],
        }
        #[derive(Serialize)]
        struct Query {
            #[serde(skip_serializing_if = "Option::is_none")]
            paginate: Option<Page>,
        }
        match (self, version) {
            (Self::Mediate { account }, _) => {
                let account = account.as_ref();
                version.message("mediate-request", id, &Mediate { account })
            }
            (Self::Update(updates), Version::V2) => {
                version.message("keylist-update", id, &Updates { updates })
            }
            (Self::Update(updates), Version::V3) => {
                version.message("recipient-update", id, &Updates { updates })
            }
            (Self::Query(paginate), Version::V2) => {
                let paginate = *paginate;
                version.message("keylist-query", id, &Query { paginate })
            }
            (Self::Query(paginate), Version::V3) => {
                let paginate = *paginate;
                version.message("recipient-query", id, &Query { paginate })
            }
        }
    }
}

impl Reply {
    /// Reads a reply of either version; `None` if the message is of another type.
    pub fn of(message: &Message) -> Result<Option<(Version, Self)>, FieldError> {
        let Some((version, name)) = split(message) else {
            return Ok(None);
        };
        let body = || Object::body(&message.body);
        let reply = match (version, name) {
            (_, "mediate-grant") => Self::read_grant(&body()?)?,
            (_, "mediate-deny") => Self::Deny,
            (Version::V2, "keylist-update-response")
            | (Version::V3, "recipient-update-response") => Self::Updated(read_updated(&body()?)?),
            (Version::V2, "keylist") => Self::read_recipients(&body()?, "keys")?,
            (Version::V3, "recipient") => Self::read_recipients(&body()?, "dids")?,
            _ => return Ok(None),
        };
        Ok(Some((version, reply)))
    }

    fn read_grant(body: &Object<'_>) -> Result<Self, FieldError> {
        // Some mediators write the form of the other version.
        let routing = body.one_or_more("routing_did", MAX_ROUTING, MAX_DID)?;
        let routing_did = body.required("routing_did", routing)?;
        if routing_did.is_empty() {
            return Err(body.wrong("routing_did", FieldFault::Empty));
        }
        Ok(Self::Grant { routing_did })
    }

    fn read_recipients(body: &Object<'_>, list: &str) -> Result<Self, FieldError> {
        let entries = body.required(list, body.objects(list, MAX_PAGE)?)?;
        let pagination = match body.object("pagination")? {
            None => None,
            Some(part) => Some(Pagination {
                count: part.required("count", part.count("count")?)?,
                offset: part.required("offset", part.count("offset")?)?,
                remaining: part.required("remaining", part.count("remaining")?)?,
            }),
        };
        Ok(Self::Recipients {
            dids: entries.iter().map(recipient).collect::<Result<_, _>>()?,
            pagination,
        })
    }

    /// Returns the reply as a message; the caller sets its thread.
    pub fn write(self, version: Version, id: impl Into<String>) -> Message {
        #[derive(Serialize)]
        struct GrantOne<'a> {
            routing_did: &'a str,
        }
        #[derive(Serialize)]
        struct GrantList<'a> {
            routing_did: &'a [String],
        }
        #[derive(Serialize)]
        struct UpdatedList<'a> {
            updated: &'a [Updated],
        }
        #[derive(Serialize)]
        struct Keys<'a> {
            keys: Vec<RecipientEntry<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pagination: Option<Pagination>,
        }
        #[derive(Serialize)]
        struct Dids<'a> {
            dids: Vec<RecipientEntry<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            pagination: Option<Pagination>,
        }
        match (self, version) {
            (Self::Grant { routing_did }, Version::V2) => {
                let routing_did = routing_did.first().map_or("", String::as_str);
                version.message("mediate-grant", id, &GrantOne { routing_did })
            }
            (Self::Grant { routing_did }, Version::V3) => version.message(
                "mediate-grant",
                id,
                &GrantList {
                    routing_did: &routing_did,
                },
            ),
            (Self::Deny, _) => version.message("mediate-deny", id, &EmptyBody {}),
            (Self::Updated(updated), Version::V2) => version.message(
                "keylist-update-response",
                id,
                &UpdatedList { updated: &updated },
            ),
            (Self::Updated(updated), Version::V3) => version.message(
                "recipient-update-response",
                id,
                &UpdatedList { updated: &updated },
            ),
            (Self::Recipients { dids, pagination }, Version::V2) => {
                let (keys, pagination) = (entries(&dids), pagination);
                version.message("keylist", id, &Keys { keys, pagination })
            }
            (Self::Recipients { dids, pagination }, Version::V3) => {
                let (dids, pagination) = (entries(&dids), pagination);
                version.message("recipient", id, &Dids { dids, pagination })
            }
        }
    }
}

fn split(message: &Message) -> Option<(Version, &str)> {
    let kind = TypeUri::parse(&message.kind).ok()?;
    Some((Version::of(&kind)?, kind.name))
}

fn entries(dids: &[String]) -> Vec<RecipientEntry<'_>> {
    let entry = |did| RecipientEntry { recipient_did: did };
    dids.iter().map(String::as_str).map(entry).collect()
}

fn recipient(entry: &Object<'_>) -> Result<String, FieldError> {
    entry.required("recipient_did", entry.text("recipient_did", MAX_DID)?)
}

fn action(entry: &Object<'_>) -> Result<Action, FieldError> {
    let word = entry.required("action", entry.text("action", MAX_DID)?)?;
    match word.as_str() {
        "add" => Ok(Action::Add),
        "remove" => Ok(Action::Remove),
        _ => Err(entry.wrong("action", FieldFault::NotOneOf("add, remove"))),
    }
}

fn read_updates(body: &Object<'_>) -> Result<Vec<Update>, FieldError> {
    let updates = body.required("updates", body.objects("updates", MAX_UPDATES)?)?;
    let read = |entry: &Object<'_>| {
        Ok(Update {
            recipient_did: recipient(entry)?,
            action: action(entry)?,
        })
    };
    updates.iter().map(read).collect()
}

fn read_updated(body: &Object<'_>) -> Result<Vec<Updated>, FieldError> {
    let updated = body.required("updated", body.objects("updated", MAX_UPDATES)?)?;
    let read = |entry: &Object<'_>| {
        let word = entry.required("result", entry.text("result", MAX_DID)?)?;
        let result = match word.as_str() {
            "success" => Outcome::Success,
            "no_change" => Outcome::NoChange,
            "client_error" => Outcome::ClientError,
            "server_error" => Outcome::ServerError,
            _ => {
                let known = "success, no_change, client_error, server_error";
                return Err(entry.wrong("result", FieldFault::NotOneOf(known)));
            }
        };
        Ok(Updated {
            recipient_did: recipient(entry)?,
            action: action(entry)?,
            result,
        })
    };
    updated.iter().map(read).collect()
}

fn read_page(body: &Object<'_>) -> Result<Option<Page>, FieldError> {
    let Some(page) = body.object("paginate")? else {
        return Ok(None);
    };
    Ok(Some(Page {
        limit: page.required("limit", page.count("limit")?)?,
        offset: page.required("offset", page.count("offset")?)?,
    }))
}
