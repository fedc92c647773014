//! Looks an account up, verifies what is found, and prints it:
//!
//!     cargo run -p atcomm-client --example resolve -- alice.example.com [settings.json]
//!
//! No wallet is needed: the account's own servers are asked, and nothing is remembered.

#![expect(clippy::print_stdout, reason = "a program prints")]

use std::error::Error;

use atcomm_client::{Actor, Client, Settings, fingerprint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let actor = arguments.next().ok_or("usage: resolve ACTOR [SETTINGS]")?;
    let settings = match arguments.next() {
        Some(file) => Settings::read(file.as_ref())?,
        None => Settings::default(),
    };

    let client = Client::bind(settings.net, settings.identity, settings.directory)?;
    // The record is proven under the account's signing key, and that key by the operation log.
    let recipient = client
        .authoritative_lookup()
        .resolve(&Actor::parse(&actor)?, &[])
        .await?;

    let package = recipient.package.package();
    println!("account      {}", recipient.account);
    if let Some(handle) = &recipient.handle {
        println!("handle       {handle}");
    }
    println!("key          {}", package.peer.as_str());
    println!("fingerprint  {}", fingerprint(package.peer.as_str()));
    for mediator in package.distinct_mediators() {
        println!("mediator     {mediator}");
    }
    for blocker in recipient.blockers() {
        println!("not safe     {blocker}");
    }
    Ok(())
}
