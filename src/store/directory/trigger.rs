//! What leads to a refresh, as the table `pending` holds it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::columns::words;
use atcomm_proto::syntax::Origin;

words! {
    /// The kind of a source.
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    SourceKind {
        /// One PDS: its firehose, and `listRepos`.
        Pds = "pds",
        /// A relay: the firehose of many, and `listReposByCollection`.
        Relay = "relay",
        /// A Jetstream v1 host: events without proofs, and nothing to enumerate.
        Jetstream = "jetstream",
    }
}

words! {
    /// The kind of a stream's event.
    EventKind {
        /// A write to our collection, or one that may be.
        Commit = "commit",
        /// The repository as a whole.
        Sync = "sync",
        /// The account's DID document or handle.
        Identity = "identity",
        /// The account's status.
        Account = "account",
    }
}

/// What leads to a refresh.
///
/// Its text, which the table `pending` holds, is written by [`Display`](fmt::Display) and read by
/// [`Trigger::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// An event of a stream.
    Event {
        /// The kind of the stream's host.
        source: SourceKind,
        /// What the event is about.
        event: EventKind,
    },
    /// An enumeration that lists the account: that of the PDS named here, or else of a relay.
    Listing(Option<Origin>),
    /// The request of a client.
    Request,
    /// The age of the entry.
    Recheck,
}

impl Trigger {
    /// The word that an entry keeps as its source: `pds`, `relay`, `jetstream`, `listing`,
    /// `request` or `recheck`.
    pub fn source(&self) -> &'static str {
        match self {
            Self::Event { source, .. } => source.as_str(),
            Self::Listing(_) => "listing",
            Self::Request => "request",
            Self::Recheck => "recheck",
        }
    }

    /// Returns whether a source of the operator names the account, by an event or in a listing.
    pub fn is_of_source(&self) -> bool {
        matches!(self, Self::Event { .. } | Self::Listing(_))
    }

    /// Reads a stored text. Returns `None` for a text that this version never writes.
    pub fn parse(s: &str) -> Option<Self> {
        match s.split_once(' ') {
            Some(("listing", pds)) => Some(Self::Listing(Origin::parse(pds).ok())),
            Some((source, event)) => Some(Self::Event {
                source: SourceKind::parse(source)?,
                event: EventKind::parse(event)?,
            }),
            None => match s {
                "listing" => Some(Self::Listing(None)),
                "request" => Some(Self::Request),
                "recheck" => Some(Self::Recheck),
                _ => None,
            },
        }
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.source())?;
        match self {
            Self::Event { event, .. } => write!(f, " {}", event.as_str()),
            Self::Listing(Some(pds)) => write!(f, " {pds}"),
            Self::Listing(None) | Self::Request | Self::Recheck => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_are_read_as_they_were_written() {
        let pds = Origin::parse("https://pds.example.com").unwrap();
        let mut texts = Vec::new();
        let events = SourceKind::ALL.iter().flat_map(|source| {
            EventKind::ALL.iter().map(|event| Trigger::Event {
                source: *source,
                event: *event,
            })
        });
        for trigger in events.chain([
            Trigger::Listing(Some(pds)),
            Trigger::Listing(None),
            Trigger::Request,
            Trigger::Recheck,
        ]) {
            let text = trigger.to_string();
            assert_eq!(Trigger::parse(&text), Some(trigger), "{text}");
            texts.push(text);
        }
        // Files of earlier versions hold these texts.
        for text in [
            "pds commit",
            "pds sync",
            "relay identity",
            "relay account",
            "jetstream commit",
            "listing https://pds.example.com",
            "listing",
        ] {
            assert!(texts.iter().any(|one| one == text), "{text}");
        }
        for unknown in [
            "",
            "pds",
            "commit",
            "pds commit x",
            "pds ",
            "elsewhere commit",
        ] {
            assert_eq!(Trigger::parse(unknown), None, "{unknown}");
        }
    }
}
