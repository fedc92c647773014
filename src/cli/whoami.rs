//! `atcomm whoami`: the accounts of the wallet, and the records at their PDSes.

use std::io::{self, Write};

use serde::Serialize;

use super::CliError;
use super::context::{CommandContext, Own};
use super::output::show;
use super::terminal::line;
use atcomm_client::{
    EnrolError, Enroller, Enrolment, KeyState, Located, PublishedState, Session, Wallet,
    WalletError,
};
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
    /// Where the account is now; where that is not known, where it was.
    pds: String,
    /// Where the account was when the wallet changed its record last, if it has moved since.
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_from: Option<String>,
    directory: Option<String>,
    label: Option<String>,
    mediators: Vec<String>,
    /// Whether the wallet has a session there.
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
    /// Mediators that the record does not name any more, and that are asked for mail all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dropped: Vec<Dropped>,
}

#[derive(Serialize)]
struct Dropped {
    mediator: String,
    /// Absent where the record may still name it.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<String>,
}

/// The record at the account's PDS.
#[derive(Serialize)]
#[serde(tag = "is", rename_all = "camelCase")]
enum Record {
    /// The record names the present key of the wallet.
    Ours,
    /// The record names a key of the wallet that was replaced.
    Replaced { peer: String },
    /// The record names a key that the wallet does not have, or none that can be read.
    Another { peer: Option<String> },
    /// There is no record.
    Missing,
    /// The PDS was not asked, or gave no answer.
    Unknown { why: String },
}

impl From<PublishedState> for Record {
    fn from(state: PublishedState) -> Self {
        match state {
            PublishedState::Missing => Self::Missing,
            PublishedState::Current => Self::Ours,
            PublishedState::NotCurrent { peer } => Self::Replaced { peer },
            PublishedState::Foreign { peer } => Self::Another { peer },
        }
    }
}

impl Account {
    fn of(
        enrolment: &Enrolment,
        located: Option<&Located>,
        session: Option<&Session>,
        record: Record,
    ) -> Self {
        let pds = located.map_or(&enrolment.pds, |located| &located.pds);
        let handle = match located {
            Some(located) => located.handle.as_ref(),
            None => enrolment.handle.as_ref(),
        };
        let text = |did: &atcomm_proto::syntax::MediatorDid| did.to_string();
        let keys = enrolment.keys.iter().map(|key| {
            let (state, since) = match key.state {
                KeyState::Minted => ("minted", key.minted_at),
                KeyState::Published { at } => ("published", at),
                KeyState::Replaced { at } => ("replaced", at),
            };
            let serving = key.registered.iter().filter(|did| !key.has_dropped(did));
            let dropped = key.dropped.iter().map(|one| Dropped {
                mediator: text(&one.did),
                since: one.at.map(|at| at.to_string()),
            });
            Key {
                peer: key.peer.as_str().to_owned(),
                state,
                since: since.to_string(),
                registered: serving.map(text).collect(),
                dropped: dropped.collect(),
            }
        });
        Self {
            account: enrolment.account.to_string(),
            handle: handle.map(ToString::to_string),
            pds: pds.to_string(),
            moved_from: (*pds != enrolment.pds).then(|| enrolment.pds.to_string()),
            directory: enrolment.directory.as_ref().map(ToString::to_string),
            label: enrolment.label.clone(),
            mediators: enrolment.mediators.iter().map(text).collect(),
            signed_in: session.is_some_and(|session| session.pds == *pds),
            keys: keys.collect(),
            record,
        }
    }

    fn render_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let name = self.handle.as_ref().unwrap_or(&self.account);
        writeln!(out, "{name}")?;
        writeln!(out, "  account    {}", self.account)?;
        let signed_in = if self.signed_in {
            "signed in"
        } else {
            "not signed in"
        };
        writeln!(out, "  pds        {} ({signed_in})", self.pds)?;
        if let Some(before) = &self.moved_from {
            writeln!(
                out,
                "             moved from {before}; `atcomm enroll` signs in anew"
            )?;
        }
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
            let note = if present.is_some_and(|key| key.registered.contains(did)) {
                ""
            } else {
                " (not registered)"
            };
            writeln!(out, "  mediator   {did}{note}")?;
        }
        for one in present.into_iter().flat_map(|key| &key.dropped) {
            let since = one.since.as_deref().unwrap_or("now");
            writeln!(
                out,
                "  before     {} (until {since}; still asked for mail)",
                one.mediator
            )?;
        }
        if let Some(directory) = &self.directory {
            writeln!(out, "  directory  {directory}")?;
        }
        Ok(())
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
    let enroller = Enroller::new(&context.client, &wallet);
    let mut accounts = Vec::new();
    for enrolment in &enrolments {
        let session = wallet.account_store(&enrolment.account).session()?;
        let (located, record) = if args.offline {
            let why = "nobody was asked".to_owned();
            (None, Record::Unknown { why })
        } else {
            context.block_on(look_up(&enroller, enrolment))
        };
        accounts.push(Account::of(
            enrolment,
            located.as_ref(),
            session.as_ref(),
            record,
        ));
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

/// Finds an account, and its record there.
async fn look_up(enroller: &Enroller, enrolment: &Enrolment) -> (Option<Located>, Record) {
    let unknown = |error: EnrolError| Record::Unknown {
        why: error.to_string(),
    };
    let actor = Actor::Did(enrolment.account.clone());
    let located = match enroller.locate(&actor).await {
        Ok(located) => located,
        Err(error) => return (None, unknown(error)),
    };
    let record = match enroller.published_state(&located).await {
        Ok(state) => state.into(),
        Err(error) => unknown(error),
    };
    (Some(located), record)
}
