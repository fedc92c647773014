//! Losses at a PDS that is followed directly.

use serde_json::json;

use super::relay::Relay;
use super::{Accounts, assert_mended, network};
use crate::service::Setup;

/// A PDS whose sequence of events was lost. It says `FutureCursor`, as the reference PDS does.
#[test]
fn inv2_a_pds_that_was_set_up_anew_under_its_name() {
    let pds = Relay::start(json!({"pds": [0], "manners": "pds"}));
    let source = json!({"url": network().pds_url(0), "connect": pds.url, "kind": "pds"});
    let service = Setup::new(network())
        .source(source)
        .no_refresh_on_demand()
        .start();
    service.until_following(1);
    let accounts = Accounts::known_to(&service);
    pds.lose();
    let cases = accounts.change();
    pds.op("wipe", json!({"next": 1}));
    pds.come_back();
    assert_mended("PDS set up anew", &service, &cases, &[]);
}

/// The same, where the new numbers have passed the stored place by then.
#[test]
fn inv2_a_pds_whose_new_numbers_have_passed_the_stored_place() {
    let pds = Relay::start(json!({"pds": [0], "manners": "pds"}));
    let source = json!({"url": network().pds_url(0), "connect": pds.url, "kind": "pds"});
    let service = Setup::new(network())
        .source(source)
        .no_refresh_on_demand()
        .start();
    service.until_following(1);
    let accounts = Accounts::known_to(&service);
    pds.lose();
    let cases = accounts.change();
    pds.op("wipe", json!({"next": 1}));
    // Each account has four events.
    pds.op("set", json!({"deaf": false}));
    for _ in 0..20 {
        network().account("event", 0);
    }
    pds.come_back();
    assert_mended("PDS set up anew, numbers reached", &service, &cases, &[]);
}
