//! Answers every message with its own text, until it is stopped or has answered so many:
//!
//!     cargo run -p atcomm-client --example echo -- settings.json [COUNT]
//!
//! Messages of senders that are not verified are left unanswered: the answer would go to an account
//! that did not write them.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program prints"
)]

use std::error::Error;
use std::ops::ControlFlow;

use atcomm_client::{Account, Actor, Attribution, Consent, Did, Event, Received, Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("usage: echo SETTINGS [COUNT]")?;
    let count = arguments.next().map(|count| count.parse()).transpose()?;

    let account = Account::open(&Settings::read(file.as_ref())?, None)?;
    let inbox = account.inbox();
    // A message is in the wallet before this sees it, and acknowledged after.
    let follow = inbox.follow(count, async |event| {
        let Event::Received(received) = event else {
            return ControlFlow::Continue(());
        };
        if let Received::Message {
            dm,
            attribution: Attribution::Verified { account: from, .. },
            ..
        } = *received
        {
            match answer(&account, from, dm.text).await {
                Ok(mediator) => println!("answered by way of {mediator}"),
                Err(error) => eprintln!("not answered: {error}"),
            }
        }
        ControlFlow::Continue(())
    });
    Ok(follow.await?)
}

async fn answer(account: &Account, to: Did, text: String) -> Result<String, Box<dyn Error>> {
    let recipient = account.recipient(&Actor::Did(to.clone())).await?;
    let dm = account.compose(&to, text, None).await?;
    let delivery = account
        .sender()
        .send(&recipient, &dm, Consent::default())
        .await?;
    Ok(delivery.path.mediator.to_string())
}
