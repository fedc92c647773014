//! Changes of a contact: keys with and without a succession, handles that move, and the attribution
//! of messages meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use atcomm_client::succession::statement;
use atcomm_client::{
    Attribution, Claim, DirectoryClient, KeyChange, MessagingKey, Pin, Recipient, RecipientError,
    RecipientLookup, SendBlocker, SenderLookup, UnverifiedReason, Warning, fingerprint,
};
use atcomm_net::identity::{Identity, IdentitySettings};
use atcomm_net::net::{Net, NetSettings};
use atcomm_proto::clock::Clock;
use atcomm_proto::syntax::{Actor, Origin};
use serde_json::{Value, json};

use super::CliEnv;
use super::lying_servers::LyingServer;
use crate::http::{RUNTIME, eventually};
use crate::network::{Account, Network, text};
use crate::service::{Service, Setup};

/// Starts a directory that follows both PDSes of the network.
fn start_directory() -> (&'static Network, Service) {
    let network = Network::multikey();
    let service = Setup::beside(network).streams_only().start();
    service.until_following(2);
    (network, service)
}

fn enrolled(network: &'static Network, name: &str) -> Account {
    network.enrolled(name, 0, json!({"mediators": [network.mediator()]}))
}

/// Publishes a key, with a succession by the key before it if `before` is given.
fn publish(account: &Account, key: &MessagingKey, before: Option<&MessagingKey>) -> Value {
    let mut record = account.made["keyPackage"].clone();
    record["did"] = json!(key.peer.as_str());
    record["createdAt"] = json!(Clock::system().now().to_string());
    if let Some(before) = before {
        let now = Clock::system().now();
        let succession = statement(
            &before.peer,
            &before.signing,
            &key.peer,
            &account.did(),
            now,
        )
        .expect("a statement");
        record["succession"] = json!(succession);
    }
    account.put_raw(record)
}

fn mint() -> MessagingKey {
    MessagingKey::mint(Clock::system().now())
}

#[test]
fn a_new_key_needs_the_word_of_the_old_one_or_its_owner_s_acceptance() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let cli = CliEnv::new(network);
    let directory = service.url("");
    let resolve = || {
        cli.run(&[
            "resolve",
            &alice.handle,
            "--directory",
            &directory,
            "--json",
        ])
    };
    let keys = [mint(), mint(), mint(), mint(), mint()];
    publish(&alice, &keys[0], None);
    assert_eq!(resolve().success().json()["contact"], "first");

    publish(&alice, &keys[1], Some(&keys[0]));
    let answer = resolve().success().json();
    assert_eq!(answer["contact"], "vouched");
    assert_eq!(answer["before"]["peer"], keys[0].peer.as_str());
    assert_eq!(resolve().success().json()["contact"], "same");

    // Two changes at once; the directory has seen the one in between.
    publish(&alice, &keys[2], Some(&keys[1]));
    let put = publish(&alice, &keys[3], Some(&keys[2]));
    service.until_cid(&alice.did, &put["cid"]);
    assert_eq!(resolve().success().json()["contact"], "vouched");

    // A key without a succession.
    publish(&alice, &keys[4], None);
    for _ in 0..2 {
        let output = resolve();
        let accept = format!("atcomm contacts accept {}", alice.did);
        output.failed(3, "has changed", &accept);
        let answer = output.json();
        assert_eq!(answer["contact"], "changed");
        assert!(answer["hold"].is_string(), "{answer}");
        let contact = cli.json(&["contacts", "show", &alice.did]);
        assert_eq!(contact["peer"], keys[3].peer.as_str());
        assert_eq!(contact["changed"]["peer"], keys[4].peer.as_str());
    }
    let output = cli.run(&["contacts"]).success();
    assert!(output.stdout.contains("NEW KEY"), "{output:?}");

    // Another key is published before the user accepts this one.
    let sixth = mint();
    publish(&alice, &sixth, None);
    let accept = [
        "contacts",
        "accept",
        &alice.handle,
        "--directory",
        &directory,
    ];
    let output = cli.run(&accept);
    output.failed(3, &fingerprint(sixth.peer.as_str()), "accept again");
    let output = cli.run(&accept).success();
    assert!(
        output.stdout.contains("the new key is accepted"),
        "{output:?}"
    );
    assert_eq!(resolve().success().json()["contact"], "same");
    let contact = cli.json(&["contacts", "show", &alice.did]);
    assert_eq!(contact["peer"], sixth.peer.as_str());
    assert_eq!(contact["previous"]["peer"], keys[3].peer.as_str());
    assert_eq!(contact.get("changed"), None);
    let output = cli.run(&accept).success();
    assert!(output.stdout.contains("nothing waited"), "{output:?}");
}

#[test]
fn a_handle_that_names_another_account_is_not_followed() {
    let (network, service) = start_directory();
    let (alice, mallory) = (enrolled(network, "alice"), enrolled(network, "mallory"));
    let cli = CliEnv::new(network);
    let directory = service.url("");
    let resolve = |actor: &str| cli.run(&["resolve", actor, "--directory", &directory, "--json"]);
    resolve(&alice.handle).success();
    let other = format!("{}.pds0.test", network.name("gone"));
    alice.op("account.rename", json!({"handle": other}));
    mallory.op("account.rename", json!({"handle": alice.handle}));
    let output = eventually("the handle has moved", || {
        let output = resolve(&alice.handle);
        (output.code == Some(3)).then_some(output)
    });
    output.failed(
        3,
        &format!("now names the account {}", mallory.did),
        "by another way",
    );
    assert!(
        output.json()["warnings"]
            .to_string()
            .contains("handleMoved"),
        "{output:?}"
    );
    // The answer is the same after the other account has become a contact.
    assert_eq!(resolve(&alice.handle).code, Some(3));
    let output = cli.run(&[
        "contacts",
        "accept",
        &alice.handle,
        "--directory",
        &directory,
    ]);
    assert!(
        output
            .success()
            .stdout
            .contains("accepted as this account's")
    );
    assert_eq!(resolve(&alice.handle).success().json()["did"], *mallory.did);
    // The account is found by its DID and by its new handle.
    let answer = resolve(&alice.did).success().json();
    assert_eq!(
        (&answer["contact"], &answer["handle"]),
        (&json!("same"), &json!(other))
    );
}

/// A message in the name of a contact whose handle another account has taken makes the reader look
/// the contact up. The handle no longer leads to the contact, and the pin still records that it
/// once did.
#[test]
fn a_forged_message_does_not_make_a_handle_free() {
    let (network, service) = start_directory();
    let (alice, mallory) = (enrolled(network, "alice"), enrolled(network, "mallory"));
    let mut reader = Reader::new(network, &service.url(""));
    let by_handle = Actor::parse(&alice.handle).expect("a handle");
    reader.resolve(&by_handle).expect("the package");
    let other = format!("{}.pds0.test", network.name("gone"));
    alice.op("account.rename", json!({"handle": other}));
    mallory.op("account.rename", json!({"handle": alice.handle}));
    let theirs = text(&mallory.made, "/peer/did").to_owned();
    let found = eventually("the handle has moved", || {
        let found = reader.attribute(&alice, &theirs);
        let pin = reader.pins.iter().find(|pin| pin.account == alice.did())?;
        let handle = pin.handle.as_ref()?;
        (handle.as_str() == other).then_some(found)
    });
    assert!(matches!(found, Attribution::Mismatch { .. }), "{found:?}");
    // A new client has no recent look-up of the handle in its cache.
    let mut reader = Reader {
        pins: reader.pins,
        ..Reader::new(network, &service.url(""))
    };
    let hold = |reader: &mut Reader| {
        let found = reader.resolve(&by_handle).expect("the package");
        assert_eq!(found.account, mallory.did());
        found.key_blocker()
    };
    let expected = Some(SendBlocker::HandleMoved {
        handle: alice.handle.parse().expect("a handle"),
        before: alice.did(),
        now: mallory.did(),
    });
    for _ in 0..2 {
        assert_eq!(hold(&mut reader), expected);
    }
    // Messages of the other account do not show the handle as verified either.
    match reader.attribute(&mallory, &theirs) {
        Attribution::Verified {
            known_of, handle, ..
        } => {
            assert_eq!(
                known_of.or(handle.is_none().then(|| alice.did())),
                Some(alice.did())
            );
        }
        other => panic!("{other:?}"),
    }
    let mut fresh = Reader::new(network, &service.url(""));
    fresh.pins = reader
        .pins
        .iter()
        .filter(|pin| pin.account == alice.did())
        .cloned()
        .collect();
    match fresh.attribute(&mallory, &theirs) {
        Attribution::Verified {
            known_of, handle, ..
        } => {
            assert_eq!(known_of, Some(alice.did()));
            assert_eq!(handle.expect("a handle").as_str(), alice.handle);
        }
        other => panic!("{other:?}"),
    }
}

/// The cached result of one process does not replace a newer pin that another process has saved.
#[test]
fn what_was_found_out_lately_does_not_outlive_what_is_known() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let asked = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&asked);
    let counter = LyingServer::directory(&service, move |view| {
        counted.fetch_add(1, Ordering::Relaxed);
        view
    });
    let mut reader = Reader::new(network, &counter.url);
    let [first, second, third] = [mint(), mint(), mint()];
    publish(&alice, &first, None);
    let senders = SenderLookup::new(reader.recipients());
    let ask = |reader: &mut Reader, key: &MessagingKey| {
        let claim = reader.claim(&alice, key.peer.as_str());
        let found = RUNTIME.block_on(senders.attribute(&claim, &reader.pins));
        if let Some(pin) = found.pin.clone() {
            reader.keep(pin);
        }
        found
    };
    let found = ask(&mut reader, &first);
    assert!(
        matches!(found.attribution, Attribution::Verified { .. }),
        "{found:?}"
    );
    let pinned = found.pin.expect("a pin");
    // A pin that is saved already is not returned again.
    assert_eq!(ask(&mut reader, &first).pin, None);
    // A forged message comes in alice's name. Then alice rotates her key and writes at once.
    let found = ask(&mut reader, &second);
    assert!(
        matches!(found.attribution, Attribution::Mismatch { .. }),
        "{found:?}"
    );
    publish(&alice, &second, Some(&first));
    let found = ask(&mut reader, &second);
    let Attribution::Verified { unaccepted, .. } = found.attribution else {
        panic!("{found:?}")
    };
    assert!(!unaccepted);
    let rotated = found.pin.expect("a pin");
    assert_eq!(rotated.peer, second.peer.as_str());
    // The number of look-ups that forged messages cause is bounded.
    let before = asked.load(Ordering::Relaxed);
    for _ in 0..20 {
        ask(&mut reader, &third);
    }
    assert!(asked.load(Ordering::Relaxed) - before <= 4);
    // Another process restores an older pin. The reader checks it again and does not overwrite it
    // with a cached result.
    reader.keep(pinned);
    let found = ask(&mut reader, &second);
    assert_eq!(found.pin.expect("a new pin").peer, second.peer.as_str());
}

/// Sending to a contact whose pinned key is unchanged asks the directory only, and nothing else
/// until an answer differs.
#[test]
fn a_known_contact_costs_one_question_until_something_differs() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let key = mint();
    let put = publish(&alice, &key, None);
    let view = eventually("the view with handle and mediator", || {
        let view = service.recipient_with_proof(&alice.did).ok()?;
        let whole = view["keyPackage"]["cid"] == put["cid"]
            && view["handle"] == *alice.handle
            && view["mediators"][0]["state"] == "reachable";
        whole.then_some(view)
    });
    let mut reader = Reader::new(network, &service.url(""));
    let actor = Actor::parse(&alice.handle).expect("a handle");
    let first = reader.resolve(&actor).expect("the package");
    assert!(first.authoritative && first.trust.change == KeyChange::First);
    let again = reader.resolve(&actor).expect("the package");
    assert!(
        !again.authoritative && again.trust.change == KeyChange::Same,
        "{:?}",
        again.warnings
    );
    assert_eq!(again.warnings, []);
    assert_eq!(again.handle, first.handle);
    assert_eq!(
        again.mediators[0].key_agreement,
        first.mediators[0].key_agreement
    );
    assert_eq!(again.evidence.car, again.package.car());

    // Each false answer of a directory leads to look-ups at the account's own servers.
    let lies: [fn(&mut Value); 6] = [
        |view| view["mediators"][0]["services"][0]["uri"] = json!("https://mallory.example/"),
        |view| view["mediators"][0]["keyAgreement"] = json!([]),
        |view| view["handle"] = json!("mallory.example"),
        |view| view["verification"]["stale"] = json!(true),
        |view| view["peer"]["ambiguous"] = json!(true),
        |view| view["status"] = json!("regressed"),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let liar = LyingServer::directory(&service, move |mut view| {
            lie(&mut view);
            view
        });
        reader.directory = Origin::parse(&liar.url).expect("an origin");
        let found = reader.resolve(&actor).expect("the package");
        assert_eq!(found.package.peer(), key.peer.as_str());
        assert_eq!(found.handle, first.handle);
        assert_eq!(
            found.mediators[0].key_agreement,
            first.mediators[0].key_agreement
        );
        assert_eq!(
            found.mediators[0].services, first.mediators[0].services,
            "{number}"
        );
        // Changed documents of mediators cost look-ups of those documents only.
        assert_eq!(found.authoritative, number >= 2, "{number}");
    }

    // A pin that was not checked for a day is checked again.
    reader.directory = Origin::parse(&service.url("")).expect("an origin");
    let day = std::time::Duration::from_secs(24 * 3600 + 1);
    reader.pins[0].last_seen = Clock::system().now().minus(day);
    assert!(reader.resolve(&actor).expect("the package").authoritative);
    assert!(!reader.resolve(&actor).expect("the package").authoritative);

    // The answer of an outdated directory is older than the pin.
    let put = publish(&alice, &key, None);
    service.until_cid(&alice.did, &put["cid"]);
    reader.resolve(&actor).expect("the package");
    let liar = LyingServer::directory(&service, move |_| view.clone());
    reader.directory = Origin::parse(&liar.url).expect("an origin");
    let found = reader.resolve(&actor).expect("the package");
    assert!(found.authoritative);
    assert_eq!(found.warnings, [Warning::DirectoryOutdated]);
    assert_eq!(found.package.cid(), text(&put, "/cid"));
}

/// A client that receives messages and holds its pins in memory.
struct Reader {
    net: Net,
    identity: Identity,
    directory: Origin,
    reader: Account,
    pins: Vec<Pin>,
}

impl Reader {
    fn new(network: &'static Network, directory: &str) -> Self {
        let clock = Clock::system();
        let settings = NetSettings {
            development: true,
            name_server: Some(network.name_server().parse().expect("an address")),
            host_rate: 1000,
            host_burst: 1000,
            ..NetSettings::default()
        };
        let _runtime = RUNTIME.enter();
        let net = Net::bind(settings, clock.clone()).expect("a network");
        let identity = IdentitySettings {
            plc_url: Origin::parse(network.plc()).expect("an origin"),
            ..IdentitySettings::default()
        };
        Self {
            identity: Identity::bind(net.clone(), identity, clock),
            net,
            directory: Origin::parse(directory).expect("an origin"),
            reader: network.account("reader", 1),
            pins: Vec::new(),
        }
    }

    fn recipients(&self) -> RecipientLookup {
        let directory = DirectoryClient::configured(self.net.clone(), self.directory.clone());
        let (net, identity) = (self.net.clone(), self.identity.clone());
        RecipientLookup::new(net, identity, Clock::system(), Some(directory))
    }

    fn keep(&mut self, pin: Pin) {
        self.pins.retain(|known| known.account != pin.account);
        self.pins.push(pin);
    }

    /// Resolves a recipient and saves the pin.
    fn resolve(&mut self, actor: &Actor) -> Result<Recipient, RecipientError> {
        let found = RUNTIME.block_on(self.recipients().resolve(actor, &self.pins))?;
        if let Some(pin) = found.trust.pin.clone() {
            self.keep(pin);
        }
        Ok(found)
    }

    fn claim(&self, account: &Account, writer: &str) -> Claim {
        Claim {
            sender_peer: Some(writer.to_owned()),
            sender_did: Some(account.did.clone()),
            recipient_did: Some(self.reader.did.clone()),
            recipient: self.reader.did(),
        }
    }

    /// Attributes a message that was written with this key in the account's name, by a client
    /// without cached results.
    fn attribute(&mut self, account: &Account, writer: &str) -> Attribution {
        let claim = self.claim(account, writer);
        let senders = SenderLookup::new(self.recipients());
        let found = RUNTIME.block_on(senders.attribute(&claim, &self.pins));
        if let Some(pin) = found.pin {
            self.keep(pin);
        }
        found.attribution
    }
}

#[test]
fn whose_a_message_is() {
    let (network, service) = start_directory();
    let alice = enrolled(network, "alice");
    let mut reader = Reader::new(network, &service.url(""));
    let [first, second, third, other] = [mint(), mint(), mint(), mint()];
    let put = publish(&alice, &first, None);
    service.until_cid(&alice.did, &put["cid"]);
    let by = |reader: &mut Reader, key: &MessagingKey| reader.attribute(&alice, key.peer.as_str());
    // A false claim leaves no pin.
    let found = by(&mut reader, &other);
    assert!(
        matches!(
            found,
            Attribution::Mismatch {
                replaced_at: None,
                ..
            }
        ),
        "{found:?}"
    );
    assert_eq!(reader.pins, []);
    let found = by(&mut reader, &first);
    let Attribution::Verified {
        account,
        handle,
        unaccepted,
        known_of: None,
    } = found
    else {
        panic!("{found:?}")
    };
    assert_eq!((account.as_str(), unaccepted), (&*alice.did, false));
    assert_eq!(handle.expect("a handle").as_str(), alice.handle);
    assert_eq!(reader.pins.len(), 1);

    // Just after a rotation neither the new key nor the previous one counts as a mismatch.
    let put = publish(&alice, &second, Some(&first));
    assert!(matches!(
        by(&mut reader, &second),
        Attribution::Verified {
            unaccepted: false,
            ..
        }
    ));
    let found = by(&mut reader, &first);
    assert!(
        matches!(found, Attribution::VerifiedPrevious { .. }),
        "{found:?}"
    );
    assert!(matches!(
        by(&mut reader, &other),
        Attribution::Mismatch { .. }
    ));

    // A reader without a pin accepts both keys, too, by the evidence that the directory holds.
    service.until_cid(&alice.did, &put["cid"]);
    let mut new_reader = Reader::new(network, &service.url(""));
    let found = by(&mut new_reader, &first);
    assert!(
        matches!(found, Attribution::VerifiedPrevious { .. }),
        "{found:?}"
    );

    // The next key has no succession.
    publish(&alice, &third, None);
    assert!(matches!(
        by(&mut reader, &third),
        Attribution::Verified {
            unaccepted: true,
            ..
        }
    ));
    let found = by(&mut reader, &second);
    assert!(
        matches!(found, Attribution::VerifiedPrevious { .. }),
        "{found:?}"
    );

    alice.delete_record();
    let found = by(&mut reader, &third);
    assert!(matches!(found, Attribution::Revoked { .. }), "{found:?}");
    publish(&alice, &third, None);
    alice.op("account.deactivate", json!({}));
    let found = by(&mut reader, &third);
    let Attribution::Unverified { reason, .. } = found else {
        panic!("{found:?}")
    };
    assert_eq!(reason, UnverifiedReason::Inactive);

    // A claim of an account whose servers do not answer is neither true nor false.
    let away = enrolled(network, "away");
    let peer = text(&away.made, "/peer/did").to_owned();
    crate::answers::move_services(&away, "http://localhost:1025");
    let mut alone = Reader::new(network, "http://localhost:1025");
    let found = alone.attribute(&away, &peer);
    let Attribution::Unverified { reason, .. } = found else {
        panic!("{found:?}")
    };
    assert_eq!(reason, UnverifiedReason::Unreachable);
}
