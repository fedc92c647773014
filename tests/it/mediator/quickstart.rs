//! The quickstart of a foreign library, as its authors wrote it.

use serde_json::{Value, json};

use super::Mediator;
use crate::didcomm::Library;

#[test]
fn the_quickstart_of_others_completes_its_cycle() {
    let mediator = Mediator::open();
    let output = Library::Messaging
        .script("quickstart.py")
        .arg(mediator.url(""))
        .output()
        .expect("the quickstart");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let steps: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{errors}");
    let step = |name: &str| {
        let found = steps.iter().find(|step| step["step"] == name);
        found.unwrap_or_else(|| panic!("no step {name}: {stdout}"))
    };
    assert_eq!(step("fetch")["texts"], json!(["one", "two"]));
    assert_eq!(step("fetch_again")["texts"], json!([]));
    assert_ne!(step("live")["texts"], json!([]));
    assert_eq!(step("live")["ended"], false);
    assert_eq!(step("fetch_after_live")["texts"], step("live")["sent"]);
    assert_eq!(step("summary")["ok"], true);
}
