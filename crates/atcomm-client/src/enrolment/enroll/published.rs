//! The record of an account, seen from a wallet.

use crate::enrolment::account::Published;
use crate::wallet::enrolment::Enrolment;

/// The key that the record of an account names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishedState {
    /// There is no record.
    Missing,
    /// The present key of the wallet.
    Current,
    /// Another key of the wallet, such as a replaced one.
    NotCurrent {
        /// The did:peer.
        peer: String,
    },
    /// A key that is not in the wallet.
    Foreign {
        /// The did:peer; `None` where the record names none.
        peer: Option<String>,
    },
}

impl PublishedState {
    /// Compares a record with the keys of a wallet.
    pub(in crate::enrolment) fn of(
        record: Option<&Published>,
        enrolment: Option<&Enrolment>,
    ) -> Self {
        match record {
            None => Self::Missing,
            Some(record) => Self::of_named(record.peer(), enrolment),
        }
    }

    /// Compares the did:peer of a record, `None` where there is no record, with the keys of a wallet.
    pub(in crate::enrolment) fn of_peer(peer: Option<&str>, enrolment: Option<&Enrolment>) -> Self {
        match peer {
            None => Self::Missing,
            peer => Self::of_named(peer, enrolment),
        }
    }

    fn of_named(peer: Option<&str>, enrolment: Option<&Enrolment>) -> Self {
        let current = enrolment.and_then(Enrolment::current);
        match peer {
            Some(peer) if current.is_some_and(|key| key.peer.as_str() == peer) => Self::Current,
            Some(peer) if enrolment.is_some_and(|known| has(known, Some(peer))) => {
                Self::NotCurrent {
                    peer: peer.to_owned(),
                }
            }
            _ => Self::Foreign {
                peer: peer.map(str::to_owned),
            },
        }
    }

    /// Whether the record names a key of the wallet.
    pub fn is_ours(&self) -> bool {
        matches!(self, Self::Current | Self::NotCurrent { .. })
    }
}

/// Whether a did:peer is one of the account's keys in the wallet.
pub(super) fn has(enrolment: &Enrolment, peer: Option<&str>) -> bool {
    let mut keys = enrolment.keys.iter();
    keys.any(|key| Some(key.peer.as_str()) == peer)
}

#[cfg(test)]
mod tests {
    use ipld_core::cid::Cid;
    use serde_json::{Value, json};

    use super::*;
    use crate::wallet::enrolment::{KeyState, MessagingKey};
    use atcomm_proto::clock::Timestamp;
    use atcomm_proto::syntax::{Did, Origin};

    #[test]
    fn a_record_names_the_present_key_another_of_ours_a_foreign_one_or_none() {
        let now = Timestamp::from_millis(1_790_000_000_000);
        let keys = [
            KeyState::Minted,
            KeyState::Published { at: now },
            KeyState::Replaced { at: now },
        ];
        let enrolment = Enrolment {
            account: Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap(),
            handle: None,
            pds: Origin::parse("https://pds.example.com").unwrap(),
            directory: None,
            mediators: Vec::new(),
            label: None,
            keys: keys
                .map(|state| MessagingKey {
                    state,
                    ..MessagingKey::mint(now)
                })
                .to_vec(),
        };
        let record = |value: Value| Published {
            cid: Cid::default(),
            value,
        };
        let of = |value: Value| PublishedState::of(Some(&record(value)), Some(&enrolment));
        let peers: Vec<&str> = enrolment.keys.iter().map(|key| key.peer.as_str()).collect();
        assert_eq!(of(json!({"did": peers[1]})), PublishedState::Current);
        for peer in [peers[0], peers[2]] {
            let state = of(json!({"did": peer}));
            let peer = peer.to_owned();
            assert!(state.is_ours());
            assert_eq!(state, PublishedState::NotCurrent { peer });
        }
        for (value, peer) in [
            (json!({"did": "did:peer:2.Ez"}), Some("did:peer:2.Ez")),
            (json!({"did": 7}), None),
            (json!("text"), None),
        ] {
            let state = of(value);
            let peer = peer.map(str::to_owned);
            assert!(!state.is_ours());
            assert_eq!(state, PublishedState::Foreign { peer });
        }
        let missing = PublishedState::of(None, Some(&enrolment));
        assert_eq!(missing, PublishedState::Missing);
        assert!(!missing.is_ours());
        let unknown = PublishedState::of(Some(&record(json!({"did": peers[1]}))), None);
        assert!(!unknown.is_ours());
    }
}
