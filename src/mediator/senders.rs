//! The parties that mail is charged to: groups of senders, each of which may use a share of what
//! all of them use.
//!
//! A sender is its account, where an envelope proves an account that may read here, and its
//! address. Accounts on one host, and addresses of one network, share twice the share of one, so
//! that many accounts or addresses of one owner gain little. Parties are known by a keyed hash.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::Core;
use super::admission::Admission;
use crate::store::{MailboxStore, Sender, SenderClass, SenderGroup, StoreError};
use atcomm_net::net::group_of;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::didcomm::envelope::Authenticated;
use atcomm_proto::didcomm::message::fresh_id;

/// Key in the mailbox's store: the key of the hashes. It stays, because what waits is counted by
/// them.
const HASH_KEY: &str = "sender_hash_key";

/// Bits of an IPv6 address that name its network: what one subscriber with its own network has.
const NETWORK_BITS: u32 = 48;

/// Names parties by keyed hashes.
pub(super) struct SenderNames {
    key: [u8; 32],
}

impl SenderNames {
    /// Reads the key, or makes one at the first start.
    pub(super) async fn load(mailbox: &MailboxStore) -> Result<Self, StoreError> {
        let text = mailbox
            .transact(|tx| {
                if let Some(text) = tx.meta(HASH_KEY)? {
                    return Ok(text);
                }
                let text = format!("{}{}", fresh_id(), fresh_id());
                tx.set_meta(HASH_KEY, &text)?;
                Ok(text)
            })
            .await?;
        Ok(Self {
            key: Sha256::digest(text).into(),
        })
    }

    /// Returns the party of an address: the address itself for IPv4; for IPv6 its /64, and its /48
    /// as the wide group.
    pub(super) fn address(&self, address: IpAddr) -> Sender {
        let address = address.to_canonical();
        let narrow = group_of(address);
        let group = if address.is_ipv6() {
            let network = narrow & (u128::MAX << (128 - NETWORK_BITS));
            self.group(
                ("network", &network.to_be_bytes()),
                Some(("address", &narrow.to_be_bytes())),
            )
        } else {
            self.group(("address", &narrow.to_be_bytes()), None)
        };
        Sender {
            group,
            class: SenderClass::Other,
        }
    }

    /// Returns the party of an account by its canonical did:peer, in the wide group of the host of
    /// the atproto account that names it, if one does.
    pub(super) fn account(&self, did: &str, host: Option<&str>, class: SenderClass) -> Sender {
        let account = ("account", did.as_bytes());
        let group = match host {
            Some(host) => self.group(("host", host.as_bytes()), Some(account)),
            None => self.group(account, None),
        };
        Sender { group, class }
    }

    /// Returns the party of this mediator itself, whose reports find room where senders have none.
    pub(super) fn own(&self) -> Sender {
        Sender {
            group: self.group(("own", &[]), None),
            class: SenderClass::Local,
        }
    }

    fn group(&self, wide: (&str, &[u8]), narrow: Option<(&str, &[u8])>) -> SenderGroup {
        let mut group = [0; 16];
        group[..8].copy_from_slice(&self.hash(wide));
        if let Some(narrow) = narrow {
            group[8..].copy_from_slice(&self.hash(narrow));
        }
        SenderGroup(group)
    }

    fn hash(&self, (kind, name): (&str, &[u8])) -> [u8; 8] {
        let hash = Sha256::new_with_prefix(self.key)
            .chain_update(kind)
            .chain_update([0])
            .chain_update(name)
            .finalize();
        let mut half = [0; 8];
        half.copy_from_slice(&hash[..8]);
        half
    }
}

impl Core {
    /// Returns the parties that a sender is, in the order in which they are charged: its account,
    /// if a key package lets it read here, and its address. An account without a key package is
    /// made by whom it pleases, as often as it pleases, and counts as its address.
    pub(super) async fn senders_of(
        &self,
        sender: Option<&Authenticated>,
        address: IpAddr,
        now: Timestamp,
    ) -> Result<Vec<Sender>, StoreError> {
        let mut parties = Vec::with_capacity(2);
        if let Some(sender) = sender {
            let did = sender.party.canonical().to_owned();
            let account = self.mailbox.query(move |q| {
                let is_reader =
                    q.account(&did)?.is_some() && Admission::of(&q.claims(&did)?, now).reading;
                let hosts = if is_reader {
                    q.hosts_of(&did)?
                } else {
                    Vec::new()
                };
                Ok(is_reader.then_some((did, hosts)))
            });
            if let Some((did, hosts)) = account.await? {
                let local = hosts.iter().find(|host| host.is_local);
                let class = local.map_or(SenderClass::Registered, |_| SenderClass::Local);
                let host = local.or(hosts.first()).map(|host| host.name.as_str());
                parties.push(self.sender_names.account(&did, host, class));
            }
        }
        parties.push(self.sender_names.address(address));
        Ok(parties)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parties_share_wide_groups_by_network_and_host() {
        let names = SenderNames { key: [7; 32] };
        let address = |text: &str| names.address(text.parse().unwrap()).group;
        assert_eq!(address("192.0.2.1"), address("::ffff:192.0.2.1"));
        assert_eq!(address("192.0.2.1"), address("192.0.2.1").wide());
        assert_ne!(address("192.0.2.1").wide(), address("192.0.2.2").wide());
        let (a, b) = (address("2001:db8:0:1::1"), address("2001:db8:0:2::1"));
        assert_eq!(a, address("2001:db8:0:1::ffff"));
        assert!(a != b && a.wide() == b.wide() && a != a.wide());
        assert_ne!(a.wide(), address("2001:db8:1:1::1").wide());

        let account = |did, host| names.account(did, host, SenderClass::Registered).group;
        let (a, b) = (
            account("a", Some("x.example")),
            account("b", Some("x.example")),
        );
        assert!(a != b && a.wide() == b.wide());
        assert_ne!(a.wide(), account("a", Some("y.example")).wide());
        assert_eq!(account("a", None), account("a", None).wide());
        let other = SenderNames { key: [8; 32] };
        assert_ne!(
            other.address("192.0.2.1".parse().unwrap()).group,
            address("192.0.2.1")
        );
    }
}
