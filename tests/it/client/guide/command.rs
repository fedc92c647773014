//! The programs of the guide and the command `atcomm` write to each other.

use super::{Python, TypeScript, User};
use crate::client::MediatorService;
use crate::client::enrolled::enrolled_person;
use crate::network::Network;

#[test]
fn the_command_and_programs_of_others_write_to_each_other() {
    let network = Network::multikey();
    let (near, far) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let alice = enrolled_person(network, "alice", 0, &[&near]);
    for language in [Python, TypeScript] {
        let bob = User::enrolled(language, "bob", 1, &far);
        let words = "grüß dich, https://example.com";
        alice
            .cli
            .run(&["send", &bob.account.handle, words])
            .success();
        let came = bob.receive(1).remove(0);
        assert_eq!(came["outcome"], "verified", "{came}");
        assert_eq!(came["handle"], alice.account.handle);
        assert_eq!(came["text"], words);
        let sent = bob.answer(&["send", &alice.account.handle, "dich auch"]);
        assert_eq!(sent["by"], near.did);
        let came = alice.collect(1).remove(0);
        let whose = &came["attribution"];
        assert_eq!(whose["outcome"], "verified", "{came}");
        assert_eq!(whose["account"], bob.account.did);
        assert_eq!(whose["handle"], bob.account.handle);
        assert_eq!(came["text"], "dich auch");
    }
}

/// A succession is an extension of `atcomm`; the programs of the guide ask their user.
#[test]
fn a_program_of_the_guide_asks_before_it_writes_to_a_rotated_key() {
    let network = Network::multikey();
    let mediator = MediatorService::start(network);
    for language in [Python, TypeScript] {
        let alice = enrolled_person(network, "alice", 0, &[&mediator]);
        let bob = User::enrolled(language, "bob", 1, &mediator);
        bob.says(&["send", &alice.account.handle, "before"]);
        assert_eq!(alice.collect(1)[0]["text"], "before");
        alice.run(&["rotate"]).success();
        bob.is_refused(&["send", &alice.account.handle, "hm"], "ChangedKey");
        bob.answer(&["resolve", &alice.account.handle, "--accept"]);
        bob.says(&["send", &alice.account.handle, "after"]);
        let came = alice.collect(1).remove(0);
        assert_eq!(came["text"], "after");
        assert_eq!(came["attribution"]["outcome"], "verified", "{came}");
    }
}
