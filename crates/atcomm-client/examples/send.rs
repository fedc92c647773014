//! Sends one message from an account that is enrolled in a wallet (`atcomm enroll` does that):
//!
//!     cargo run -p atcomm-client --example send -- settings.json bob.example.com 'hello'
//!
//! `settings.json` names the wallet: `{"home": "/home/alice/.local/share/atcomm"}`.

#![expect(clippy::print_stdout, reason = "a program prints")]

use std::error::Error;

use atcomm_client::{Account, Actor, Consent, Settings};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [settings, to, text] = arguments.as_slice() else {
        return Err("usage: send SETTINGS ACTOR TEXT".into());
    };

    let account = Account::open(&Settings::read(settings.as_ref())?, None)?;
    let recipient = account.recipient(&Actor::parse(to)?).await?;
    let dm = account
        .compose(&recipient.account, text.clone(), None)
        .await?;
    // Without consent nothing is sent to a key that changed, or that could not be confirmed.
    let delivery = account
        .sender()
        .send(&recipient, &dm, Consent::default())
        .await?;

    println!("{} is accepted by {}", delivery.id, delivery.path.mediator);
    Ok(())
}
