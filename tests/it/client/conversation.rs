//! A whole acquaintance by commands alone: enrolling, writing, rotating a key, unenrolling.

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
    // Two messages are under way while bob rotates: one to the previous key, one written by it.
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
    // The previous key has signed a succession, so sending is not blocked. alice knows the new key
    // from the message that she received.
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
    // An account that has unenrolled cannot be written to.
    bob.run(&["unenroll"]).success();
    let output = alice.cli.run(&["send", &bob.account.handle, "six"]);
    output.failed(1, "has no key package", "enroll");
}
