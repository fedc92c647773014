//! The programs of the guide meet whatever a mediator may hand out, and mediators that are none.

use atcomm_proto::did_peer::{KeyType, PeerDid, Purpose};
use atcomm_proto::didcomm::envelope::{ContentEncryption, Curve, SecretKey, anoncrypt, authcrypt};
use atcomm_proto::didcomm::party::Party;
use serde_json::{Value, json};

use super::{Python, TypeScript, User, assert_verified};
use crate::client::MediatorService;
use crate::http::request;
use crate::mail::attacks::poison::{garbage, poison};
use crate::mail::plant;
use crate::network::{Network, text};

const DM: &str = "https://didcomm.at/dm/1.0/message";

/// Returns a did:peer and its key.
fn new_writer() -> (String, SecretKey) {
    let key = SecretKey::generate(Curve::X25519, "new");
    let public = key.public();
    let keys = [(Purpose::KeyAgreement, KeyType::X25519, public.as_bytes())];
    let did = PeerDid::build(&keys, &[])
        .expect("a DID")
        .as_str()
        .to_owned();
    let kid = format!("{did}#key-1");
    let key = SecretKey::from_bytes(Curve::X25519, kid, &key.to_bytes()).expect("a key");
    (did, key)
}

/// Returns plaintexts that an honest envelope may contain, `from` a writer `to` a reader.
fn plaintexts(from: &str, to: &str) -> Vec<String> {
    let with = |headers: Value, body: Value| {
        let mut message = json!({
            "id": "hostile", "type": DM, "from": from, "to": [to], "body": body,
        });
        for (name, value) in headers.as_object().expect("headers") {
            message[name] = value.clone();
        }
        message.to_string()
    };
    let words = || json!({"text": "hm"});
    let no_text = json!({"toString": null, "valueOf": {}, "__proto__": {"toString": 1}});
    let report = "https://didcomm.org/report-problem/2.0/problem-report";
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let filled = |member: &str, levels: usize| {
        let id = format!("{member} {levels}");
        with(json!({"id": id}), json!({"text": "hm", member: "~"})).replace("\"~\"", &deep(levels))
    };
    vec![
        filled("senderDid", 900),
        filled("senderDid", 1500),
        filled("senderDid", 100_000),
        filled("recipientDid", 900),
        filled("recipientDid", 100_000),
        with(
            json!({"id": "a"}),
            json!({"text": "hm", "senderDid": no_text}),
        ),
        with(
            json!({"id": "b"}),
            json!({"text": "hm", "recipientDid": no_text}),
        ),
        with(json!({"id": "c", "pthid": no_text}), words()),
        with(
            json!({"id": "d", "type": report, "pthid": "__proto__"}),
            words(),
        ),
        with(
            json!({"id": "e", "type": report, "pthid": no_text}),
            words(),
        ),
        with(json!({"id": "x".repeat(100_000)}), words()),
        with(json!({"id": "~"}), words()).replace('~', "\\ud800"),
        with(json!({"id": "f"}), json!({"text": "~"})).replace('~', "\\ud800\\u0000"),
        with(json!({"id": "g"}), json!({"text": {"length": 1}})),
        with(json!({"id": "h", "body": null}), Value::Null),
        with(json!({"id": "i"}), json!([1, 2])),
        with(json!({"id": "j", "type": no_text}), words()),
        with(
            json!({"id": "k", "type": "https://example.org/other/1.0/kind"}),
            words(),
        ),
        with(json!({"id": "l", "to": 5}), words()),
        with(json!({"id": "m", "to": null}), words()),
        with(json!({"id": "n", "from": no_text}), words()),
        "null".to_owned(),
        "[]".to_owned(),
        "\"text\"".to_owned(),
        "1e999".to_owned(),
        String::new(),
    ]
}

#[test]
fn inv3_no_bad_message_hides_a_good_one_from_a_program_of_the_guide() {
    let mediator = MediatorService::start(Network::multikey());
    let alice = User::enrolled(Python, "alice", 0, &mediator);
    for language in [Python, TypeScript] {
        let bob = User::enrolled(language, "bob", 1, &mediator);
        let (writer, secret) = new_writer();
        let party = Party::resolve(&bob.peer()).expect("a did:peer");
        let to = &party.key_agreement()[..1];
        let seal = |plaintext: &str| {
            anoncrypt(plaintext.as_bytes(), to, ContentEncryption::A256CbcHs512).expect("it")
        };
        let letter = seal(&json!({"id": "p", "type": DM, "body": {"text": "hm"}}).to_string());
        let mut planted = garbage(&letter);
        planted.extend(poison(letter));
        for plaintext in plaintexts(&writer, &bob.peer()) {
            planted.push(("anonymous", seal(&plaintext)));
            // Another layer shows who wrote it, where that can be sealed at all.
            let sealed = authcrypt(plaintext.as_bytes(), &secret, to);
            planted.push(("by a writer", sealed.expect("an envelope")));
        }
        for (_, body) in &planted {
            plant(mediator.service(), &bob.peer(), body);
        }
        alice.says(&["send", &bob.account.handle, "behind"]);
        let came = bob.says(&["receive"]);
        let (last, others) = came.split_last().expect("messages");
        assert_verified(last, &alice, "behind");
        // Each leaves a line: nothing was acknowledged without a word.
        let told = |word: &str| others.iter().filter(|one| one["outcome"] == word).count();
        println!(
            "{language:?}: {} planted, {} told, of which {} rejected",
            planted.len(),
            others.len(),
            told("rejected"),
        );
        assert_eq!(others.len(), planted.len(), "{language:?}: {others:?}");
        for one in others {
            assert_ne!(one["outcome"], "verified", "{language:?}: {one}");
            let is_traced = one["outcome"] != "rejected" || one["delivery"].is_string();
            assert!(is_traced, "{language:?}: {one}");
        }
        assert_eq!(bob.says(&["receive"]), [Value::Null; 0], "{language:?}");
    }
}

/// Returns the record of an account as its PDS shows it.
fn record(user: &User) -> Value {
    let url = format!(
        "{}/xrpc/com.atproto.repo.getRecord?repo={}&collection=at.didcomm.keyPackage&rkey=self",
        text(&user.account.made, "/pdsUrl"),
        user.account.did,
    );
    request("GET", &url, &[], None).json()
}

#[test]
fn nothing_is_published_or_saved_before_every_mediator_answers() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let host = mediator.url.trim_start_matches("http://").to_owned();
    // A mediator with a document, whose endpoint takes nothing.
    let silent = network.mediator();
    for language in [Python, TypeScript] {
        let bob = User::enrolled(language, "bob", 1, &mediator);
        let before = (record(&bob), bob.state());
        for (names, error) in [
            (vec!["localhost:9"], "Unreachable"),
            (vec!["did:web:localhost%3A9"], "Unreachable"),
            (vec![&*host, "did:web:localhost%3A9"], "Unreachable"),
            (vec!["no host"], "UnsupportedDid"),
            (vec!["did:web:a.example:path"], "UnsupportedDid"),
            (vec!["did:key:z6Mk"], "UnsupportedDid"),
            (vec![&*host, &*silent], "Unsupported"),
        ] {
            let output = bob.try_enroll(&names);
            assert_eq!(output.code, Some(1), "{output:?}");
            assert_eq!(output.stdout, "", "{output:?}");
            let told = output.stderr.matches(&format!("{error}: ")).count();
            assert_eq!(told, 1, "{language:?} {names:?}: {output:?}");
            assert_eq!(
                (record(&bob), bob.state()),
                before,
                "{language:?} {names:?}"
            );
        }
        // A host and an origin are as good as the did:web.
        for name in [&host, &format!(" {}/ ", mediator.url)] {
            bob.enroll(&[name]);
            assert_eq!(record(&bob)["value"]["mediators"], json!([mediator.did]));
        }
    }
}

#[test]
fn programs_of_the_guide_say_what_is_missing() {
    let mediator = MediatorService::start(Network::multikey());
    for language in [Python, TypeScript] {
        let user = User::new(language, "carol", 0, &mediator);
        for (missing, args) in [
            ("DIRECTORY", &["resolve", "x.test"][..]),
            ("PDS", &["resolve", "x.test"]),
            ("PASSWORD", &["enroll", "x.test", "localhost:9"]),
        ] {
            let mut command = user.command(args);
            command.env_remove(missing);
            let output = super::finish(command, "");
            assert_eq!(output.code, Some(1), "{output:?}");
            let told = format!("Usage: {missing} is not set");
            assert!(output.stderr.starts_with(&told), "{language:?}: {output:?}");
        }
        let output = user.run(&["receive"]);
        assert!(output.stderr.contains("enroll first"), "{output:?}");
    }
}
