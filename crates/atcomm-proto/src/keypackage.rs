//! The record `at.didcomm.keyPackage`: its rules, and its JSON for views.
//!
//! A record that arrives here is proven to be the account's own, but its contents can be anything,
//! since hosts store any record under a lexicon that they do not know. A record that breaks a rule
//! is stored and displayed with the name of the rule, so that its owner can correct it.
//!
//! Source: the binding published at didcomm.at, lexicon `at.didcomm.keyPackage`.

mod datetime;
mod record;

use std::collections::BTreeMap;

use ipld_core::ipld::Ipld;
use unicode_segmentation::UnicodeSegmentation as _;

use crate::did_peer::{PeerDid, PeerDidError};
use crate::syntax::{COLLECTION, MediatorDid};

pub use self::record::{RecordError, record_json};

/// Most mediators of one package. Every sender tries them in turn, and every one is resolved and
/// indexed here; failover needs two or three.
pub const MAX_MEDIATORS: usize = 32;

/// Longest label in graphemes (binding).
pub const MAX_LABEL_GRAPHEMES: usize = 64;

/// Longest label in bytes (binding).
pub const MAX_LABEL_LEN: usize = 640;

/// A valid key package: the address at which one device of an account receives encrypted messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPackage {
    /// The DID to encrypt to, with its keys.
    pub peer: PeerDid,
    /// The mediators that accept its messages, in failover order: at least one, of any DID method,
    /// with the repetitions of the record.
    pub mediators: Vec<MediatorDid>,
    /// Name of the device, such as `phone`.
    pub label: Option<String>,
    /// Creation time as the account states it, as text; its form is checked, and nothing is ordered
    /// by it.
    pub created_at: String,
}

/// The rules of the binding that a record can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The block must be in the atproto data model.
    DataModel,
    /// The record must be an object.
    Object,
    /// `$type` must be the collection.
    Type,
    /// `did` must be a text.
    Did,
    /// `did` must be a did:peer:2.
    DidMethod,
    /// `did` must be well-formed.
    DidSyntax,
    /// `did` must carry an X25519 key agreement key.
    DidX25519,
    /// `mediators` must be a list.
    Mediators,
    /// `mediators` must name at least one mediator.
    MediatorsEmpty,
    /// `mediators` must have at most [`MAX_MEDIATORS`] entries.
    MediatorsTooMany,
    /// Each of `mediators` must be a DID.
    MediatorDid,
    /// `label` must be a text.
    Label,
    /// `label` must be within its limits.
    LabelTooLong,
    /// `createdAt` must be a text.
    CreatedAt,
    /// `createdAt` must be a datetime.
    CreatedAtSyntax,
}

impl Rule {
    /// Every rule, in the order of the checks.
    pub const ALL: [Self; 15] = [
        Self::DataModel,
        Self::Object,
        Self::Type,
        Self::Did,
        Self::DidMethod,
        Self::DidSyntax,
        Self::DidX25519,
        Self::Mediators,
        Self::MediatorsEmpty,
        Self::MediatorsTooMany,
        Self::MediatorDid,
        Self::Label,
        Self::LabelTooLong,
        Self::CreatedAt,
        Self::CreatedAtSyntax,
    ];

    /// Returns a stable code for metrics, statistics and the stored entry.
    pub fn code(self) -> &'static str {
        match self {
            Self::DataModel => "data_model",
            Self::Object => "object",
            Self::Type => "type",
            Self::Did => "did",
            Self::DidMethod => "did_method",
            Self::DidSyntax => "did_syntax",
            Self::DidX25519 => "did_x25519",
            Self::Mediators => "mediators",
            Self::MediatorsEmpty => "mediators_empty",
            Self::MediatorsTooMany => "mediators_too_many",
            Self::MediatorDid => "mediator_did",
            Self::Label => "label",
            Self::LabelTooLong => "label_too_long",
            Self::CreatedAt => "created_at",
            Self::CreatedAtSyntax => "created_at_syntax",
        }
    }

    /// Returns the rule that has this [`code`](Self::code).
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rule| rule.code() == code)
    }

    /// Returns one sentence for the caller that names the field. Contains no text of the record.
    pub fn message(self) -> &'static str {
        match self {
            Self::DataModel => "The record is not in the atproto data model.",
            Self::Object => "The record is not an object.",
            Self::Type => "The field $type is not at.didcomm.keyPackage.",
            Self::Did => "The field did is missing or not a string.",
            Self::DidMethod => "The field did is not a did:peer:2.",
            Self::DidSyntax => "The field did is not a well-formed did:peer:2.",
            Self::DidX25519 => "The field did carries no X25519 key for key agreement.",
            Self::Mediators => "The field mediators is missing or not an array.",
            Self::MediatorsEmpty => "The field mediators is empty.",
            Self::MediatorsTooMany => "The field mediators has more than 32 entries.",
            Self::MediatorDid => "An entry of the field mediators is not a DID.",
            Self::Label => "The field label is not a string.",
            Self::LabelTooLong => "The field label is longer than 64 graphemes or 640 bytes.",
            Self::CreatedAt => "The field createdAt is missing or not a string.",
            Self::CreatedAtSyntax => "The field createdAt is not a datetime.",
        }
    }
}

/// The error of a record that is not a key package.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} ({}: {detail})", rule.message(), rule.code())]
pub struct InvalidKeyPackage {
    /// The first rule that the record breaks.
    pub rule: Rule,
    /// The detail for logs and for the owner; bounded, and without text of the record.
    pub detail: String,
}

fn broken(rule: Rule, detail: impl Into<String>) -> InvalidKeyPackage {
    InvalidKeyPackage {
        rule,
        detail: detail.into(),
    }
}

impl KeyPackage {
    /// Reads a record from its DAG-CBOR block. The first broken rule is the error. Fields unknown
    /// to the binding are accepted. A record that this function accepts has a [`record_json`] too.
    pub fn parse(record: &[u8]) -> Result<Self, InvalidKeyPackage> {
        let value =
            record::decode(record).map_err(|err| broken(Rule::DataModel, err.to_string()))?;
        let Ipld::Map(fields) = value else {
            return Err(broken(Rule::Object, kind(&value)));
        };
        let fields = Fields(fields);
        if fields.text("$type", Rule::Type)? != COLLECTION {
            return Err(broken(Rule::Type, "it names another type"));
        }
        let peer = PeerDid::parse(fields.text("did", Rule::Did)?).map_err(|err| {
            let rule = match err {
                PeerDidError::Method => Rule::DidMethod,
                PeerDidError::NoX25519 => Rule::DidX25519,
                _ => Rule::DidSyntax,
            };
            broken(rule, err.to_string())
        })?;
        let mediators = fields.mediators()?;
        let label = if fields.0.contains_key("label") {
            Some(fields.text("label", Rule::Label)?)
        } else {
            None
        };
        // Bytes first: their limit bounds the work of counting graphemes.
        if label.is_some_and(|label| {
            label.len() > MAX_LABEL_LEN || label.graphemes(true).count() > MAX_LABEL_GRAPHEMES
        }) {
            return Err(broken(Rule::LabelTooLong, "it is over a limit"));
        }
        let created_at = fields.text("createdAt", Rule::CreatedAt)?;
        datetime::check(created_at).map_err(|why| broken(Rule::CreatedAtSyntax, why))?;
        Ok(Self {
            peer,
            mediators,
            label: label.map(str::to_owned),
            created_at: created_at.to_owned(),
        })
    }

    /// The mediators, each once, in failover order.
    pub fn distinct_mediators(&self) -> Vec<MediatorDid> {
        distinct(&self.mediators)
    }
}

/// Returns each mediator of a list once, at its first place.
pub fn distinct(mediators: &[MediatorDid]) -> Vec<MediatorDid> {
    let mut once: Vec<MediatorDid> = Vec::new();
    for mediator in mediators {
        if !once.contains(mediator) {
            once.push(mediator.clone());
        }
    }
    once
}

struct Fields(BTreeMap<String, Ipld>);

impl Fields {
    fn text(&self, name: &str, rule: Rule) -> Result<&str, InvalidKeyPackage> {
        match self.0.get(name) {
            Some(Ipld::String(text)) => Ok(text),
            Some(other) => Err(broken(rule, kind(other))),
            None => Err(broken(rule, "it is missing")),
        }
    }

    fn mediators(&self) -> Result<Vec<MediatorDid>, InvalidKeyPackage> {
        let entries = match self.0.get("mediators") {
            Some(Ipld::List(entries)) => entries,
            Some(other) => return Err(broken(Rule::Mediators, kind(other))),
            None => return Err(broken(Rule::Mediators, "it is missing")),
        };
        if entries.is_empty() {
            return Err(broken(Rule::MediatorsEmpty, "it has no entry"));
        }
        if entries.len() > MAX_MEDIATORS {
            let detail = format!("it has {} entries", entries.len());
            return Err(broken(Rule::MediatorsTooMany, detail));
        }
        let read = |(index, entry): (usize, &Ipld)| {
            let at = |why: &str| broken(Rule::MediatorDid, format!("entry {index}: {why}"));
            match entry {
                Ipld::String(text) => MediatorDid::parse(text).map_err(|err| at(err.reason)),
                other => Err(at(kind(other))),
            }
        };
        entries.iter().enumerate().map(read).collect()
    }
}

fn kind(value: &Ipld) -> &'static str {
    match value {
        Ipld::Null => "it is null",
        Ipld::Bool(_) => "it is a boolean",
        Ipld::Integer(_) => "it is an integer",
        Ipld::Float(_) => "it is a float",
        Ipld::String(_) => "it is a string",
        Ipld::Bytes(_) => "it is bytes",
        Ipld::List(_) => "it is an array",
        Ipld::Map(_) => "it is an object",
        Ipld::Link(_) => "it is a link",
    }
}

#[cfg(test)]
mod tests;
