use super::*;
use testkit::mediator::TestMediator;

fn mediator(name: &str, state: MediatorState) -> Arc<MediatorDocument> {
    let mut document = MediatorDocument::clone(&TestMediator::new(name).document);
    document.state = state;
    Arc::new(document)
}

fn did(name: &str) -> MediatorDid {
    MediatorDid::parse(&format!("did:web:{name}.example.com")).unwrap()
}

fn shown(theirs: &[Arc<MediatorDocument>], own: &[&str]) -> Vec<String> {
    let own: Vec<MediatorDid> = own.iter().map(|name| did(name)).collect();
    let name = |did: &MediatorDid| did.as_str()["did:web:".len()..].replace(".example.com", "");
    delivery_paths(theirs, &own)
        .iter()
        .map(|way| match &way.via {
            Some(via) => format!("{} by {}", name(&way.mediator), name(via)),
            None => name(&way.mediator),
        })
        .collect()
}

#[test]
fn ways_in_their_order() {
    use MediatorState::{Reachable, Unchecked, Unreachable};
    let (a, b) = (mediator("a", Reachable), mediator("b", Reachable));
    let away = mediator("away", Unreachable);
    let (own, none): (&[&str], &[&str]) = (&["x", "y"], &[]);
    assert_eq!(shown(&[], own), none);
    assert_eq!(shown(std::slice::from_ref(&a), &[]), none);
    assert_eq!(
        shown(&[a.clone(), b.clone()], own),
        ["a by x", "a by y", "b by x", "b by y"]
    );
    // One that serves both is asked itself.
    assert_eq!(
        shown(&[a.clone(), b.clone()], &["b", "x"]),
        ["a by b", "a by x", "b"]
    );
    // Those that do not answer come last, in their order.
    let gone = mediator("gone", Unreachable);
    let new = mediator("new", Unchecked);
    assert_eq!(
        shown(&[away, gone, new, a], &["x"]),
        ["new by x", "a by x", "away by x", "gone by x"]
    );
}
