//! `atcomm whoami`: the accounts of the wallet, and whether the world sees them so.

use std::io::{self, Write};

use serde::Serialize;

use super::CliError;
use super::context::{CommandContext, Own};
use super::output::show;
use super::terminal::line;
use atcomm_client::{Enroller, Enrolment, KeyState, Wallet, WalletError};
use atcomm_proto::syntax::Actor;

/// `atcomm whoami`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Look into the wallet only, and ask nobody
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    own: Own,
}

#[derive(Serialize)]
struct Report {
    wallet: String,
    accounts: Vec<Account>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    account: String,
    handle: Option<String>,
    pds: String,
    directory: Option<String>,
    label: Option<String>,
    mediators: Vec<String>,
    signed_in: bool,
    keys: Vec<Key>,
    record: Record,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    peer: String,
    state: &'static str,
    since: String,
    registered: Vec<String>,
}

/// What the account's PDS has.
#[derive(Serialize)]
#[serde(tag = "is", rename_all = "camelCase")]
enum Record {
    /// The wallet's present key.
    Ours,
    /// A key of the wallet that was replaced.
    Replaced { peer: String },
    /// A key that the wallet does not have, or none that can be read.
    Another { peer: Option<String> },
    /// None.
    Missing,
    /// It could not be asked.
    Unknown { why: String },
}

impl Account {
    fn of(enrolment: &Enrolment, signed_in: bool, record: Record) -> Self {
        let text = |did: &atcomm_proto::syntax::MediatorDid| did.to_string();
        let keys = enrolment.keys.iter().map(|key| {
            let (state, since) = match key.state {
                KeyState::Minted => ("minted", key.minted_at),
                KeyState::Published { at } => ("published", at),
                KeyState::Replaced { at } => ("replaced", at),
            };
            Key {
                peer: key.peer.as_str().to_owned(),
                state,
                since: since.to_string(),
                registered: key.registered.iter().map(text).collect(),
            }
        });
        Self {
            account: enrolment.account.to_string(),
            handle: enrolment.handle.as_ref().map(ToString::to_string),
            pds: enrolment.pds.to_string(),
            directory: enrolment.directory.as_ref().map(ToString::to_string),
            label: enrolment.label.clone(),
            mediators: enrolment.mediators.iter().map(text).collect(),
            signed_in,
            keys: keys.collect(),
            record,
        }
    }

    fn render_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = self.handle.as_ref().unwrap_or(&self.account);
        writeln!(out, "{name}")?;
        writeln!(out, "  account    {}", self.account)?;
        let signed_in = match self.signed_in {
            true => "signed in",
            false => "not signed in",
        };
        writeln!(out, "  pds        {} ({signed_in})", self.pds)?;
        let record = match &self.record {
            Record::Ours => "names the key of this wallet".to_owned(),
            Record::Replaced { .. } => {
                "names a key that was replaced here; run `atcomm enroll`".to_owned()
            }
            Record::Another { .. } => "names a key that this wallet does not have".to_owned(),
            Record::Missing => "there is none".to_owned(),
            Record::Unknown { why } => format!("not known: {}", line(why)),
        };
        writeln!(out, "  record     {record}")?;
        if let Some(label) = &self.label {
            writeln!(out, "  label      {label}")?;
        }
        for key in &self.keys {
            writeln!(out, "  messaging  {}", key.peer)?;
            writeln!(out, "             {} {}", key.state, key.since)?;
        }
        let present = self.keys.iter().find(|key| key.state == "published");
        for did in &self.mediators {
            let note = match present.is_some_and(|key| key.registered.contains(did)) {
                true => "",
                false => " (not registered)",
            };
            writeln!(out, "  mediator   {did}{note}")?;
        }
        match &self.directory {
            Some(directory) => writeln!(out, "  directory  {directory}"),
            None => Ok(()),
        }
    }
}

/// Shows the accounts of the wallet.
pub(super) fn run(args: &Args, stdout: &mut dyn Write) -> Result<(), CliError> {
    let context = CommandContext::open(&args.own.common)?;
    let wallet = Wallet::open(&context.home)?;
    let enrolments = match &args.own.account {
        Some(actor) => wallet.find(Some(actor))?.enrolment()?.into_iter().collect(),
        None => wallet.enrolments()?,
    };
    if enrolments.is_empty() {
        return Err(WalletError::NoAccount { home: context.home }.into());
    }
    let enroller = Enroller::new(
        &context.client.net,
        &context.client.identity,
        &context.client.clock,
        &wallet,
    );
    let mut accounts = Vec::new();
    for enrolment in &enrolments {
        let signed_in = wallet
            .account_store(&enrolment.account)
            .session()?
            .is_some();
        let record = match args.offline {
            true => Record::Unknown {
                why: "nobody was asked".to_owned(),
            },
            false => context.block_on(record(&enroller, enrolment)),
        };
        accounts.push(Account::of(enrolment, signed_in, record));
    }
    let report = Report {
        wallet: wallet.home().display().to_string(),
        accounts,
    };
    show(args.own.common.json, stdout, &report, |out| {
        for account in &report.accounts {
            account.render_text(out)?;
        }
        writeln!(out, "in the wallet {}", report.wallet)
    })
}

async fn record(enroller: &Enroller, enrolment: &Enrolment) -> Record {
    let actor = Actor::Did(enrolment.account.clone());
    let standing = async {
        let located = enroller.locate(&actor).await?;
        enroller.standing(&located).await
    };
    let standing = match standing.await {
        Ok(standing) => standing,
        Err(error) => {
            return Record::Unknown {
                why: error.to_string(),
            };
        }
    };
    let current = enrolment.current().map(|key| key.peer.as_str());
    match (standing.peer, standing.has_record) {
        (_, false) => Record::Missing,
        (Some(peer), _) if Some(peer.as_str()) == current => Record::Ours,
        (Some(peer), _) if standing.is_published => Record::Replaced { peer },
        (peer, _) => Record::Another { peer },
    }
}
