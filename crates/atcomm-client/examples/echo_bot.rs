//! A bot that answers every message of a verified sender with the text of the message.
//!
//! `cargo run -p atcomm-client --example echo_bot -- WALLET` reads the wallet in the directory
//! WALLET, which holds one account that `atcomm enroll` has enrolled.

#![expect(clippy::print_stderr, reason = "a bot reports what it could not do")]

use std::error::Error;
use std::ops::ControlFlow;

use atcomm_client::{Account, Attribution, Consent, Event, Received, Settings};
use atcomm_proto::syntax::{Actor, Did};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let home = std::env::args_os().nth(1).ok_or("no wallet given")?;
    let settings = Settings {
        home: home.into(),
        ..Settings::default()
    };
    let account = Account::open(&settings, None)?;
    let bot = async |event: Event| {
        if let Event::Received(received) = event
            && let Received::Message {
                dm, attribution, ..
            } = *received
            && let Attribution::Verified { account: from, .. } = attribution
            && let Err(error) = answer(&account, from, dm.text).await
        {
            eprintln!("not answered: {error}");
        }
        ControlFlow::Continue(())
    };
    Ok(account.inbox().follow(None, bot).await?)
}

async fn answer(account: &Account, to: Did, text: String) -> Result<(), Box<dyn Error>> {
    let recipient = account.recipient(&Actor::Did(to)).await?;
    let dm = account.compose(&recipient.account, text, None).await?;
    let sender = account.sender();
    sender.send(&recipient, &dm, Consent::default()).await?;
    Ok(())
}
