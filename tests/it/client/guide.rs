//! The programs of `docs/client-guide.md`, one in Python and one in TypeScript, write to each
//! other. They share no code with each other or with the service. The quotes in the guide are
//! checked as well.

mod bad_input;
mod command;
mod quotes;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::network::script;

use super::{MediatorService, Output, Running, finish};
use crate::didcomm::Script;
use crate::http::{eventually, request};
use crate::network::{Account, Network, mediator_document, root, text};
use crate::service::RESOLVE;

/// The language of a user's program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Python,
    TypeScript,
}

use Language::{Python, TypeScript};

/// An account with one of the two programs.
struct User {
    language: Language,
    account: Account,
    dir: TempDir,
    directory: String,
    plc: String,
}

impl User {
    /// Creates an account on a PDS, with the directory of a service.
    fn new(language: Language, name: &str, pds: usize, mediator: &MediatorService) -> Self {
        Self {
            language,
            account: Network::multikey().account(name, pds),
            dir: TempDir::new().expect("a directory"),
            directory: mediator.url.clone(),
            plc: Network::multikey().plc().to_owned(),
        }
    }

    /// Creates an account and enrols it with a mediator.
    #[track_caller]
    fn enrolled(language: Language, name: &str, pds: usize, mediator: &MediatorService) -> Self {
        let user = Self::new(language, name, pds, mediator);
        user.enroll(&[&mediator.did]);
        user
    }

    /// Returns the program with these arguments and with a minimal environment.
    fn command(&self, args: &[&str]) -> Command {
        let examples = "../../docs/examples";
        let (program, file) = match self.language {
            Python => ("python/.venv/bin/python", "python/atcomm_client.py"),
            TypeScript => ("typescript/node_modules/.bin/tsx", "typescript/client.ts"),
        };
        let mut command = script(&format!("{examples}/{program}"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("DIRECTORY", &self.directory)
            .env("PDS", text(&self.account.made, "/pdsUrl"))
            .env("PLC", &self.plc)
            .env("KEYS", self.dir.path().join("keys.json"))
            .arg(script(&format!("{examples}/{file}")).get_program())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Output {
        finish(self.command(args), "")
    }

    /// Runs a command that has to succeed. Returns its lines of JSON.
    #[track_caller]
    fn says(&self, args: &[&str]) -> Vec<Value> {
        let output = self.run(args).success();
        let lines = output.stdout.lines().map(serde_json::from_str);
        lines
            .collect::<Result<_, _>>()
            .unwrap_or_else(|e| panic!("{e} in {output:?}"))
    }

    /// Runs a command that has to succeed. Returns its only line of JSON.
    #[track_caller]
    fn answer(&self, args: &[&str]) -> Value {
        let mut lines = self.says(args);
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.remove(0)
    }

    /// Asserts that a command fails with an error of this name.
    #[track_caller]
    fn is_refused(&self, args: &[&str], name: &str) {
        let output = self.run(args);
        assert_eq!(output.code, Some(1), "{output:?}");
        let told = output.stderr.matches(&format!("{name}: ")).count();
        assert_eq!(told, 1, "{output:?}");
    }

    /// Enrols with an app password, which has to succeed.
    #[track_caller]
    fn enroll(&self, mediators: &[&str]) {
        let output = self.try_enroll(mediators).success();
        assert_eq!(output.json()["did"], self.account.did);
    }

    #[track_caller]
    fn try_enroll(&self, mediators: &[&str]) -> Output {
        let token = self.account.op("session", json!({}));
        let token = format!("Bearer {}", text(&token, "/accessJwt"));
        let device = self.account.network.name("device");
        let made = request(
            "POST",
            &format!(
                "{}/xrpc/com.atproto.server.createAppPassword",
                text(&self.account.made, "/pdsUrl")
            ),
            &[
                ("authorization", &token),
                ("content-type", "application/json"),
            ],
            Some(json!({"name": device}).to_string().into_bytes()),
        );
        let password = text(&made.json(), "/password").to_owned();
        let mut args = vec!["enroll", &self.account.handle];
        args.extend(mediators);
        let mut command = self.command(&args);
        command.env("PASSWORD", &password);
        let output = finish(command, "");
        let kept = fs::read_to_string(self.dir.path().join("keys.json")).unwrap_or_default();
        assert!(!kept.contains(&password), "the password is written down");
        output
    }

    fn state(&self) -> Value {
        let file = fs::read(self.dir.path().join("keys.json")).expect("its keys");
        serde_json::from_slice(&file).expect("JSON")
    }

    fn peer(&self) -> String {
        text(&self.state(), "/peer").to_owned()
    }

    /// Waits for `count` messages. Returns all received messages in order of arrival.
    #[track_caller]
    fn receive(&self, count: usize) -> Vec<Value> {
        let mut came = Vec::new();
        eventually(&format!("{count} messages come"), || {
            came.extend(self.says(&["receive"]));
            (came.len() >= count).then_some(())
        });
        assert_eq!(came.len(), count, "{came:?}");
        came
    }
}

#[test]
fn the_program_in_typescript_is_well_typed() {
    let directory = root().join("docs/examples/typescript");
    let mut command = script("../../docs/examples/typescript/node_modules/.bin/tsc");
    let output = command
        .args(["--noEmit", "--project"])
        .arg(directory)
        .output();
    let output = output.expect("tsc");
    let errors = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{errors}");
}

/// Asserts that a message is shown under the verified name of its sender.
#[track_caller]
fn assert_verified(message: &Value, writer: &User, words: &str) {
    assert_eq!(message["outcome"], "verified", "{message}");
    assert_eq!(message["account"], writer.account.did);
    assert_eq!(message["handle"], writer.account.handle);
    assert_eq!(message["from"], writer.peer());
    assert_eq!(message["unaccepted"], false);
    assert_eq!(message["text"], words);
}

#[test]
fn programs_in_two_languages_write_to_each_other_through_two_mediators() {
    let network = Network::multikey();
    let [near, far] = [(); 2].map(|()| MediatorService::start(network));
    let alice = User::enrolled(Python, "alice", 0, &near);
    let bob = User::enrolled(TypeScript, "bob", 1, &far);
    for (user, own) in [(&alice, &near), (&bob, &far)] {
        // Enrolling again preserves fields that another program has added.
        user.account
            .put(json!({"did": user.peer(), "mediators": [own.did], "label": "phone"}));
        user.enroll(&[&own.did, &near.did]);
        user.enroll(&[&own.did]);
        let view = own.service().refresh(&user.account.did).expect("a package");
        let record = &view["recipient"]["keyPackage"]["value"];
        assert_eq!(record["label"], "phone", "{view}");
        assert_eq!(record["mediators"], json!([own.did]));
    }
    for (user, other, mediator) in [(&alice, &bob, &far), (&bob, &alice, &near)] {
        let mode = fs::metadata(user.dir.path().join("keys.json")).expect("a file");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        // The recipient is given by handle and by DID, with the pin that the first message left.
        for actor in [&other.account.handle, &other.account.did] {
            let found = user.answer(&["resolve", actor]);
            assert_eq!(found["did"], other.account.did);
            assert_eq!(found["handle"], other.account.handle);
            assert_eq!(found["peer"], other.peer());
            assert_eq!(found["mediators"], json!([mediator.did]));
        }
        let words = format!("grüß dich, {}\u{1b}[2J", other.account.name);
        let sent = user.answer(&["send", &other.account.handle, &words]);
        assert_eq!(sent["by"], mediator.did);
        assert_verified(&other.receive(1)[0], user, &words);
        // The message was acknowledged.
        assert_eq!(other.says(&["receive"]), [Value::Null; 0]);
    }
    for mediator in [&near, &far] {
        let carried = [("outcome", "delivered")];
        mediator
            .service()
            .until_counted("atcomm_mediator_relay_total", &carried, 1.0);
    }
}

#[test]
fn a_program_in_live_mode_is_rung_by_what_comes() {
    let mediator = MediatorService::start(Network::multikey());
    let alice = User::enrolled(Python, "alice", 0, &mediator);
    let bob = User::enrolled(TypeScript, "bob", 1, &mediator);
    alice.says(&["send", &bob.account.handle, "before"]);
    let out = bob.dir.path().join("out");
    let mut command = bob.command(&["receive", "--live"]);
    command.stdout(fs::File::create(&out).expect("a file"));
    let running = Running::start(command);
    let lines = |count: usize| {
        eventually("bob hears of it", || {
            let out = fs::read_to_string(&out).expect("a file");
            let lines: Vec<Value> = out
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect();
            (lines.len() >= count).then_some(lines)
        })
    };
    assert_verified(&lines(1)[0], &alice, "before");
    // Sender and recipient share a mediator, so the message is wrapped once.
    alice.says(&["send", &bob.account.handle, "while bob waits"]);
    assert_verified(&lines(2)[1], &alice, "while bob waits");
    drop(running);
    assert_eq!(bob.says(&["receive"]), [Value::Null; 0]);
}

/// A client that sends messages with any headers and any claim.
struct Forger {
    script: Script,
    did: String,
}

impl Forger {
    fn new(mediator: &MediatorService) -> Self {
        let script = Script::client();
        let invitation = request("GET", &format!("{}/invitation", mediator.url), &[], None);
        let mediator_did = text(&invitation.json(), "/from").to_owned();
        let http = format!("{}/didcomm", mediator.url);
        script.op("mediator", json!({"did": mediator_did, "http": http}));
        let did = script.generate();
        Self { script, did }
    }

    /// Sends a message whose envelope comes from `sender`, with these headers and this body.
    #[track_caller]
    fn write(&self, to: &User, sender: Option<&str>, headers: Value, body: Value) {
        let peer = to.peer();
        let mut message = json!({
            "id": self.script.generate(),
            "typ": "application/didcomm-plain+json",
            "type": "https://didcomm.at/dm/1.0/message",
            "from": self.did,
            "to": [peer],
            "body": body,
        });
        for (name, value) in headers.as_object().expect("headers") {
            message[name] = value.clone();
        }
        let packed = json!({"text": message.to_string(), "to": peer, "from": sender});
        let packed = self.script.op("pack", packed);
        let forward = json!({"next": peer, "packed": packed["packed"]});
        let sent = self.script.op("forward", forward);
        assert_eq!(sent["status"], 202, "{sent}");
    }
}

#[test]
fn who_did_not_write_a_message_is_not_shown_as_its_writer() {
    let mediator = MediatorService::start(Network::multikey());
    let alice = User::enrolled(Python, "alice", 0, &mediator);
    let forger = Forger::new(&mediator);
    for language in [Python, TypeScript] {
        let bob = User::enrolled(language, "bob", 1, &mediator);
        let claim = json!({"text": "send money", "senderDid": alice.account.did});
        let by = Some(forger.did.as_str());
        // First an honest envelope around a false claim, then an envelope under another account's
        // name.
        forger.write(&bob, by, json!({}), claim.clone());
        forger.write(&bob, by, json!({"from": alice.peer()}), claim.clone());
        forger.write(&bob, by, json!({"to": [alice.peer()]}), claim.clone());
        forger.write(&bob, by, json!({}), json!({"text": "no claim"}));
        forger.write(&bob, None, json!({"from": null}), claim.clone());
        let meant = json!({"text": "hi", "senderDid": alice.account.did, "recipientDid": alice.account.did});
        forger.write(&bob, by, json!({}), meant);
        let nonsense = json!({"text": "hi", "senderDid": {"did": "web"}});
        forger.write(&bob, by, json!({}), nonsense);
        let nowhere = json!({"text": "hi", "senderDid": "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"});
        forger.write(&bob, by, json!({}), nowhere);
        forger.write(&bob, by, json!({}), json!({"text": 7}));
        forger.write(&bob, by, json!({"id": null}), claim.clone());
        forger.write(&bob, by, json!({"pthid": [{}]}), claim);
        let came = bob.receive(11);
        let outcomes: Vec<_> = came.iter().map(|one| text(one, "/outcome")).collect();
        let expected = [
            "mismatch",
            "rejected",
            "rejected",
            "unattributed",
            "anonymous",
            "misdirected",
            "unverified",
            "unverified",
            "rejected",
            "rejected",
            "mismatch",
        ];
        assert_eq!(outcomes, expected, "{language:?}: {came:?}");
        for one in &came {
            assert!(one.get("handle").is_none(), "{language:?}: {one}");
            assert!(one.get("account").is_none(), "{language:?}: {one}");
        }
    }
}

#[test]
fn a_sender_with_another_program_cannot_write_as_another_account() {
    let mediator = MediatorService::start(Network::multikey());
    let alice = User::enrolled(Python, "alice", 0, &mediator);
    for language in [Python, TypeScript] {
        let carol = User::enrolled(language, "carol", 0, &mediator);
        let bob = User::enrolled(language, "bob", 1, &mediator);
        let keys = carol.dir.path().join("keys.json");
        let mut state = carol.state();
        state["account"] = json!(alice.account.did);
        fs::write(&keys, state.to_string()).expect("a file");
        carol.says(&["send", &bob.account.handle, "it is me, alice"]);
        let came = bob.receive(1).remove(0);
        assert_eq!(came["outcome"], "mismatch", "{came}");
        assert_eq!(came["claimed"], alice.account.did);
        assert!(came.get("handle").is_none(), "{came}");
    }
}

#[test]
fn a_changed_key_is_told_and_stops_sending_until_it_is_accepted() {
    let mediator = MediatorService::start(Network::multikey());
    for language in [Python, TypeScript] {
        let alice = User::enrolled(Python, "alice", 0, &mediator);
        let bob = User::enrolled(language, "bob", 1, &mediator);
        alice.says(&["send", &bob.account.handle, "before"]);
        assert_verified(&bob.receive(1)[0], &alice, "before");
        // One message is under way while another device replaces the key.
        alice.says(&["send", &bob.account.handle, "under way"]);
        let put = alice.account.put(json!({"mediators": [mediator.did]}));
        mediator
            .service()
            .until_cid(&alice.account.did, &put["cid"]);
        let came = bob.receive(1).remove(0);
        assert_eq!(came["outcome"], "verifiedPrevious", "{came}");
        assert_eq!(came["handle"], alice.account.handle);
        bob.is_refused(&["send", &alice.account.handle, "hm"], "ChangedKey");
        let found = bob.answer(&["resolve", &alice.account.handle, "--accept"]);
        assert_eq!(found["changed"], true);
        bob.says(&["send", &alice.account.handle, "fine"]);
        alice.says(&["send", &bob.account.handle, "still the old one"]);
        assert_eq!(bob.receive(1)[0]["outcome"], "verifiedPrevious");
        alice.account.delete_record();
        mediator
            .service()
            .until_refused(&alice.account.did, "NotEnrolled");
        alice.says(&["send", &bob.account.handle, "and now without"]);
        let came = bob.receive(1).remove(0);
        assert_eq!(came["outcome"], "revoked", "{came}");
        assert!(came.get("handle").is_none(), "{came}");
    }
}

#[test]
fn what_one_account_publishes_of_another_is_neither_read_nor_answered_unwarned() {
    let mediator = MediatorService::start(Network::multikey());
    for language in [Python, TypeScript] {
        let alice = User::enrolled(language, "alice", 0, &mediator);
        let bob = User::enrolled(language, "bob", 1, &mediator);
        let thief = Network::multikey().enrolled(
            "thief",
            0,
            json!({"did": bob.peer(), "mediators": [mediator.did]}),
        );
        mediator.service().refresh(&thief.did).expect("the package");
        alice.is_refused(&["send", &thief.handle, "for the thief"], "Ambiguous");
        alice.says(&["send", &thief.handle, "for the thief", "--anyway"]);
        let came = bob.receive(1).remove(0);
        assert_eq!(came["outcome"], "misdirected", "{came}");
        assert_eq!(came["meant"], thief.did);
    }
}

#[test]
fn a_directory_that_lies_is_found_out() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let bob = network.enrolled("bob", 1, json!({}));
    let carol = network.enrolled("carol", 1, json!({}));
    let [of_bob, of_carol] = [&bob, &carol].map(|account| {
        let view = mediator.service().recipient_with_proof(&account.did);
        view.expect("a package")
    });
    let newer = bob.put(json!({}));
    mediator.service().until_cid(&bob.did, &newer["cid"]);
    let (lies, _) = network.site();
    let host = lies.strip_prefix("http://").expect("a URL");
    let tell = |view: &Value| {
        let path = format!("/xrpc/{RESOLVE}");
        network.op(
            "web.set",
            json!({"host": host, "path": path, "body": view, "contentType": "application/json"}),
        );
    };
    for language in [Python, TypeScript] {
        let mut alice = User::new(language, "alice", 0, &mediator);
        alice.directory = lies.clone();
        // The proof of another account, and the right proof with one character changed.
        let mut lie = of_bob.clone();
        lie["proof"] = of_carol["proof"].clone();
        tell(&lie);
        alice.is_refused(&["resolve", &bob.handle], "BadProof");
        let car = text(&of_bob, "/proof/car/$bytes");
        for at in (0..car.len()).step_by(car.len() / 6) {
            let other = if car.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut changed = car.to_owned();
            changed.replace_range(at..=at, other);
            lie["proof"]["car"]["$bytes"] = json!(changed);
            tell(&lie);
            alice.is_refused(&["resolve", &bob.handle], "BadProof");
        }
        // Values beside a good proof are not trusted, and an outdated proof is recognised.
        let mut lie = of_bob.clone();
        lie["peer"] = of_carol["peer"].clone();
        lie["keyPackage"] = of_carol["keyPackage"].clone();
        lie["handle"] = json!(carol.handle);
        tell(&lie);
        let found = alice.answer(&["resolve", &bob.handle]);
        assert_eq!(found["peer"], newer["record"]["did"], "{language:?}");
        assert_eq!(found["handle"], bob.handle);
        // For a pinned contact neither an older proof nor the operation log of another account is
        // accepted.
        let mut lie = of_bob.clone();
        lie["peer"]["did"] = found["peer"].clone();
        tell(&lie);
        alice.is_refused(&["resolve", &bob.handle], "RolledBack");
        let mut lie = mediator
            .service()
            .recipient_with_proof(&bob.did)
            .expect("it");
        lie["proof"]["plcLog"] = of_carol["proof"]["plcLog"].clone();
        tell(&lie);
        let output = alice.run(&["resolve", &bob.handle]);
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(1), ""),
            "{output:?}"
        );
        // The absence of a package has to be proven.
        network.op(
            "web.set",
            json!({"host": host, "path": format!("/xrpc/{RESOLVE}"), "status": 400,
                "body": {"error": "NotEnrolled", "message": "so they say"}}),
        );
        let proof = mediator.service().proof(&bob.did).expect("a proof");
        network.op(
            "web.set",
            json!({"host": host, "path": "/xrpc/at.didcomm.directory.getProof",
                "body": {"not": proof.len()}}),
        );
        alice.is_refused(&["resolve", &bob.handle], "BadProof");
    }
}

#[test]
fn a_proof_under_a_key_that_is_not_the_accounts_is_none() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    let bob = network.enrolled("bob", 1, json!({}));
    let view = mediator.service().recipient_with_proof(&bob.did);
    let (lies, _) = network.site();
    let host = lies.strip_prefix("http://").expect("a URL");
    let path = format!("/xrpc/{RESOLVE}");
    network.op(
        "web.set",
        json!({"host": host, "path": path, "body": view.expect("a package")}),
    );
    let mut alices =
        [Python, TypeScript].map(|language| User::new(language, "alice", 0, &mediator));
    for alice in &mut alices {
        alice.directory = lies.clone();
        alice.answer(&["resolve", &bob.handle]);
        fs::remove_file(alice.dir.path().join("keys.json")).expect("its pins");
    }
    bob.op("account.rotate", json!({"mode": "plc-only"}));
    for alice in &alices {
        alice.is_refused(&["resolve", &bob.handle], "BadProof");
    }
}

#[test]
fn a_rotated_signing_key_is_followed_by_the_log() {
    let mediator = MediatorService::start(Network::multikey());
    let bob = Network::multikey().enrolled("bob", 1, json!({}));
    let view = mediator.service().recipient(&bob.did).expect("a package");
    let mut users = [Python, TypeScript].map(|language| User::new(language, "alice", 0, &mediator));
    for user in &mut users {
        let found = user.answer(&["resolve", &bob.did]);
        assert_eq!(found["peer"], view["peer"]["did"]);
        // From here on the answer alone has to suffice.
        user.plc = "http://localhost:9".to_owned();
    }
    bob.op("account.rotate", json!({}));
    let fields =
        json!({"did": view["peer"]["did"], "mediators": view["keyPackage"]["value"]["mediators"]});
    let put = bob.put(fields);
    let view = mediator.service().until_cid(&bob.did, &put["cid"]);
    let log = mediator
        .service()
        .recipient_with_proof(&bob.did)
        .expect("it");
    assert_eq!(log["proof"]["plcLog"].as_array().map(Vec::len), Some(2));
    for user in &users {
        let found = user.answer(&["resolve", &bob.did]);
        assert_eq!(found["peer"], view["peer"]["did"]);
        assert_eq!(found["changed"], false);
    }
}

#[test]
fn the_next_mediator_is_tried_when_one_fails() {
    let network = Network::multikey();
    let [near, far] = [(); 2].map(|()| MediatorService::start(network));
    // One mediator has no reachable document, the other refuses the message.
    let absent = "did:web:localhost%3A9";
    let (url, refusing) = network.site();
    let host = url.strip_prefix("http://").expect("a URL");
    let mut document = mediator_document(&refusing, &format!("{url}/didcomm"));
    document["service"][0]["serviceEndpoint"]["routingKeys"] = json!([]);
    for (path, status, body) in [
        ("/.well-known/did.json", 200, document),
        ("/didcomm", 400, json!({"error": "NotUnpackable"})),
    ] {
        network.op(
            "web.set",
            json!({"host": host, "path": path, "status": status, "body": body}),
        );
    }
    for language in [Python, TypeScript] {
        let alice = User::enrolled(language, "alice", 0, &near);
        let bob = User::new(language, "bob", 1, &far);
        bob.enroll(&[&far.did]);
        bob.account
            .put(json!({"did": bob.peer(), "mediators": [absent, refusing, far.did]}));
        near.service().refresh(&bob.account.did).expect("a package");
        let sent = alice.answer(&["send", &bob.account.handle, "by the third"]);
        assert_eq!(sent["by"], refusing);
        let told = alice.receive(1).remove(0);
        assert_eq!(told["resent"], far.did, "{told}");
        assert_verified(&bob.receive(1)[0], &alice, "by the third");
    }
}
