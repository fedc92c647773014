use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::wallet::enrolment::MessagingKey;
use atcomm_proto::verify::succession::{FIELD, statement};
use testkit::proto::account::{PDS, TestAccount};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Alice {
    account: TestAccount,
    keys: [MessagingKey; 3],
}

impl Alice {
    fn new() -> Self {
        let account = TestAccount::new(7);
        let now = Timestamp::from_millis(1_790_000_000_000);
        let keys = [(); 3].map(|()| MessagingKey::mint(now));
        Self { account, keys }
    }

    /// Publishes a key, with a succession statement that another key signed at some time.
    fn put(&mut self, key: usize, answer: Option<(usize, Timestamp)>) -> VerifiedPackage {
        let mut more = json!({"did": self.peer(key)});
        if let Some((old, at)) = answer {
            more["createdAt"] = json!(at.to_string());
            let account = self.account.log.did();
            let answer = {
                let old = &self.keys[old];
                statement(&old.peer, &old.signing, &self.keys[key].peer, &account, at)
            };
            more[FIELD] = json!(answer.unwrap());
        }
        self.account.put(3, &more)
    }

    fn peer(&self, key: usize) -> &str {
        self.keys[key].peer.as_str()
    }

    /// Returns until when a key is proven to have been the account's.
    fn until(&self, packages: &[VerifiedPackage], key: usize) -> Option<Timestamp> {
        let mut shown = shown_until(packages).into_iter();
        let found = shown.find(|previous| previous.peer == self.peer(key))?;
        Some(found.replaced_at)
    }
}

fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.millis() / 1000 * 1000)
}

#[test]
fn a_key_counts_until_it_gave_its_word_for_the_next() {
    let mut alice = Alice::new();
    let first = alice.put(0, None);
    let shown = first.proven_at();
    assert_eq!(alice.until(std::slice::from_ref(&first), 0), Some(shown));
    assert_eq!(shown_until(&[]), []);
    // The statement suffices, whatever else the directory leaves out.
    let long_ago = seconds(shown.minus(300 * DAY));
    let yesterday = seconds(shown.minus(DAY));
    let second = alice.put(1, Some((0, long_ago)));
    let third = alice.put(2, Some((1, yesterday)));
    let packages = [second.clone(), third.clone()];
    assert_eq!(alice.until(&packages, 0), Some(long_ago));
    assert_eq!(alice.until(&packages, 1), Some(second.proven_at()));
    assert_eq!(alice.until(&packages[1..], 1), Some(yesterday));
    assert_eq!(alice.until(&packages, 2), Some(third.proven_at()));
    // A rotation of today proves nothing of a key that another one has replaced long ago.
    assert_eq!(alice.until(&packages[1..], 0), None);
    let packages = [first, third];
    assert_eq!(alice.until(&packages, 0), Some(shown));
    // A package without a statement proves nothing of the key before it.
    let none = alice.put(2, None);
    assert_eq!(alice.until(&[none], 0), None);
}

#[test]
fn a_host_that_was_left_shows_nothing_of_other_keys() {
    let mut alice = Alice::new();
    alice.put(0, None);
    let car = alice.account.repo.car();
    alice.account.rotate(5, 9, "https://other.example.com");
    // The revision lies after the time of the operation in this log, which is of the past.
    let keys = Keys {
        pre_migration_key: alice
            .account
            .keys()
            .pre_migration_key
            .map(|(key, _)| (key, testkit::proto::account::NOW)),
        ..alice.account.keys()
    };
    let did = alice.account.log.did();
    let shown = keys.prove(&did, &car, testkit::proto::account::NOW);
    let atcomm_proto::verify::evidence::ProofResult::Package(old) = shown.unwrap() else {
        panic!("no package")
    };
    assert!(old.signed_by_previous_host());
    assert_ne!(
        alice
            .account
            .verified_log()
            .current()
            .unwrap()
            .pds
            .as_ref()
            .unwrap()
            .as_str(),
        PDS
    );
    assert_eq!(shown_until(&[*old]), []);
}

#[test]
fn what_was_found_out_serves_for_what_is_known_still() {
    let pin = |peer: &str| Pin {
        account: Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap(),
        handle: None,
        known_as: Vec::new(),
        peer: peer.to_owned(),
        rev: atcomm_proto::syntax::Rev::parse("3n2wo76pa3k2w").unwrap(),
        signing_key: "did:key:z".to_owned(),
        mediators: BTreeMap::new(),
        previous: None,
        changed: None,
        first_seen: Timestamp::from_millis(0),
        last_seen: Timestamp::from_millis(0),
    };
    let cached = |before: Option<Pin>, pin: Option<Pin>| CachedSender {
        at: Timestamp::from_millis(0),
        again: true,
        lookups: 1,
        state: AccountState::Removed,
        before,
        pin,
    };
    let (old, new, other) = (pin("1"), pin("2"), pin("3"));
    let moved = cached(Some(old.clone()), Some(new.clone()));
    assert!(moved.fits(Some(&old)) && moved.fits(Some(&new)));
    assert!(!moved.fits(Some(&other)) && !moved.fits(None));
    let met = cached(None, Some(new.clone()));
    assert!(met.fits(None) && met.fits(Some(&new)) && !met.fits(Some(&old)));
    let failed = cached(Some(old.clone()), None);
    assert!(failed.fits(Some(&old)) && !failed.fits(None) && !failed.fits(Some(&new)));
}

/// Longest time that the claim of an unknown sender may take of the reader.
#[tokio::test]
async fn inv7_a_sender_lookup_ends() {
    use crate::lookup::directory::DirectoryClient;
    use atcomm_net::identity::{Identity, IdentitySettings};
    use atcomm_net::net::NetSettings;
    use atcomm_proto::clock::Clock;
    use atcomm_proto::syntax::Origin;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            // The server never answers.
            open.push(stream);
        }
    });
    let silent = Origin::parse(&format!("http://localhost:{port}")).unwrap();
    let settings = NetSettings {
        development: true,
        ..NetSettings::default()
    };
    let net = testkit::net::bind(settings);
    let identity = IdentitySettings {
        plc_url: silent.clone(),
        ..IdentitySettings::default()
    };
    let identity = Identity::bind(net.clone(), identity, Clock::system());
    let directory = DirectoryClient::configured(net.clone(), silent);
    let lookup = RecipientLookup::new(net, identity, Clock::system(), Some(directory));
    let account = Did::parse("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let timeout = Duration::from_millis(300);
    let began = Instant::now();
    let found = SenderLookup::new(lookup)
        .find_until(began + timeout, &account, &[], true)
        .await;
    assert!(began.elapsed() >= timeout && began.elapsed() < SENDER_LOOKUP_TIMEOUT / 2);
    assert_eq!(
        found.state,
        AccountState::Unknown(UnverifiedReason::Unreachable)
    );
    assert_eq!(found.pin, None);
}
