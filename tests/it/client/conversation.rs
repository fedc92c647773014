//! A whole acquaintance by the commands alone: enrolling, writing, a new key, leaving.

use super::enrolled::texts;
use super::{MediatorService, Person};
use crate::http::eventually;
use crate::network::Network;

#[test]
fn a_key_is_replaced_in_the_middle_of_a_conversation() {
    let network = Network::multikey();
    let (near, far) = (
        MediatorService::start(network),
        MediatorService::start(network),
    );
    let alice = Person::enrolled(network, "ea", 0, &near);
    let bob = Person::enrolled(network, "eb", 1, &far);
    for person in [&alice, &bob] {
        let output = person.cli.run(&["check"]).success();
        assert!(output.stdout.contains("came back in"), "{output:?}");
    }
    alice.send(&bob, "one");
    let received = bob.collect(1);
    assert_eq!(received[0]["attribution"]["handle"], *alice.account.handle);
    bob.send(&alice, "two");
    // Both under way while bob takes a new key: one to it before, one by it before.
    alice.send(&bob, "three");
    eventually("it has arrived", || {
        let status = bob.cli.json(&["check"]);
        (status["ok"] == true).then_some(())
    });
    bob.run(&["rotate"]).success();
    let received = alice.collect(1);
    assert_eq!(texts(&received), ["two"]);
    assert_eq!(received[0]["attribution"]["outcome"], "verifiedPrevious");
    assert_eq!(received[0]["attribution"]["handle"], *bob.account.handle);
    // The key before vouches for the new one, so nobody is stopped; alice has learnt of it by what
    // she received.
    assert_eq!(alice.send(&bob, "four").stderr, "");
    let received = bob.collect(2);
    assert_eq!(texts(&received), ["three", "four"]);
    assert!(
        received
            .iter()
            .all(|one| one["attribution"]["outcome"] == "verified")
    );
    bob.send(&alice, "five");
    let received = alice.collect(1);
    assert_eq!(received[0]["attribution"]["outcome"], "verified");
    assert_eq!(received[0]["attribution"]["unaccepted"], false);
    bob.cli.run(&["check"]).success();
    // Whoever has left cannot be written to any more.
    bob.run(&["unenroll"]).success();
    let output = alice.cli.run(&["send", &bob.account.handle, "six"]);
    output.failed(1, "has no key package", "enroll");
}
