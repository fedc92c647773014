//! A bot that answers every message with its own text, until it is stopped or has seen so many:
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
    // A message is in the wallet before the bot sees it, and acknowledged after.
    let bot = async |event| {
        if let Event::Received(received) = event
            && let Received::Message {
                dm, attribution, ..
            } = *received
            && let Attribution::Verified { account: from, .. } = attribution
        {
            match answer(&account, from, dm.text).await {
                Ok(mediator) => println!("answered by way of {mediator}"),
                Err(error) => eprintln!("not answered: {error}"),
            }
        }
        ControlFlow::Continue(())
    };
    Ok(account.inbox().follow(count, bot).await?)
}

async fn answer(account: &Account, to: Did, text: String) -> Result<String, Box<dyn Error>> {
    let recipient = account.recipient(&Actor::Did(to)).await?;
    let dm = account.compose(&recipient.account, text, None).await?;
    let sender = account.sender();
    let delivery = sender.send(&recipient, &dm, Consent::default()).await?;
    Ok(delivery.path.mediator.to_string())
}
