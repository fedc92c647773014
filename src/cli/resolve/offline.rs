//! `atcomm resolve --offline`: verifies a file of evidence without any network.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::super::output::show;
use super::super::terminal::line;
use super::super::{CliError, Exit};
use atcomm_client::evidence::{CANNOT_SHOW, Evidence, EvidenceError, MAX_FILE_LEN, verify};
use atcomm_client::fingerprint;
use atcomm_proto::clock::{Clock, Timestamp};
use atcomm_proto::syntax::{Actor, Did, Handle};

/// The result.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    did: Did,
    /// Unverified.
    claimed_handle: Option<Handle>,
    asked_at: String,
    peer: String,
    fingerprint: String,
    record: Value,
    cid: String,
    rev: String,
    signing_key: String,
    operations: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    before_move: bool,
    cannot_show: [&'static str; CANNOT_SHOW.len()],
}

/// Verifies a file, which has to be about the account `about` where one is named.
pub(super) fn run(
    path: &Path,
    about: Option<&Actor>,
    json: bool,
    stdout: &mut dyn Write,
) -> Result<(), CliError> {
    let evidence = Evidence::read(&read(path)?).map_err(|error| refused(path, &error))?;
    let is_it = match about {
        None => true,
        Some(Actor::Did(did)) => *did == evidence.did,
        Some(Actor::Handle(handle)) => Some(handle) == evidence.handle.as_ref(),
    };
    if !is_it {
        return Err(CliError {
            exit: Exit::Untrusted,
            message: format!(
                "{} is about another account: {}",
                path.display(),
                evidence.did
            ),
            hint: "without a name the file is verified for the account that it is about".to_owned(),
        });
    }
    let now = Clock::system().now();
    let shown = verify(&evidence, now).map_err(|error| refused(path, &error))?;
    let package = &shown.package;
    let view = View {
        did: evidence.did.clone(),
        claimed_handle: evidence.handle.clone(),
        asked_at: evidence.asked_at.to_string(),
        peer: package.peer().to_owned(),
        fingerprint: fingerprint(package.peer()),
        record: package.value().clone(),
        cid: package.cid(),
        rev: package.rev().to_string(),
        signing_key: package.signing_key().did_key(),
        operations: shown.log.states().len(),
        before_move: package.signed_by_previous_host(),
        cannot_show: CANNOT_SHOW,
    };
    show(json, stdout, &view, |out| {
        view.render_text(out, evidence.asked_at, now)
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_LEN as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| CliError {
            exit: Exit::Failed,
            message: format!("cannot read {}: {error}", path.display()),
            hint: "atcomm resolve ACTOR --proof FILE makes such a file".to_owned(),
        })?;
    Ok(bytes)
}

fn refused(path: &Path, error: &EvidenceError) -> CliError {
    let (exit, hint) = match error {
        EvidenceError::Format(_) => (
            Exit::Failed,
            "atcomm resolve ACTOR --proof FILE makes such a file",
        ),
        EvidenceError::Web | EvidenceError::NoLog => (
            Exit::Untrusted,
            "it can only be verified with the network: atcomm resolve ACTOR",
        ),
        EvidenceError::Absent | EvidenceError::Tombstoned => (
            Exit::Untrusted,
            "there is nobody to write to; the account may have enrolled again since",
        ),
        _ => (
            Exit::Untrusted,
            "do not use what it says; whoever gave it to you may have changed it",
        ),
    };
    CliError {
        exit,
        message: line(&format!("{}: {error}", path.display())),
        hint: hint.to_owned(),
    }
}

impl View {
    fn render_text(
        &self,
        out: &mut dyn Write,
        asked_at: Timestamp,
        now: Timestamp,
    ) -> io::Result<()> {
        writeln!(out, "{}", self.did)?;
        if let Some(handle) = &self.claimed_handle {
            writeln!(
                out,
                "  handle        {handle} (as the file says; not verified)"
            )?;
        }
        writeln!(out, "  messaging key {}", self.peer)?;
        writeln!(out, "  fingerprint   {}", self.fingerprint)?;
        for mediator in self.record["mediators"].as_array().into_iter().flatten() {
            let mediator = mediator.as_str().unwrap_or_default();
            writeln!(out, "  mediator      {}", line(mediator))?;
        }
        let days = now.since(asked_at).as_secs() / 86_400;
        writeln!(
            out,
            "  made          {asked_at} as the file says, {days} days ago"
        )?;
        writeln!(out, "shown by the file alone:")?;
        writeln!(out, "  the record is signed by {}", self.signing_key)?;
        writeln!(
            out,
            "  that key follows from the account's identifier ({} operations)",
            self.operations
        )?;
        if self.before_move {
            writeln!(
                out,
                "  it is the key of the host that the account left since"
            )?;
        }
        writeln!(out, "not shown by any file:")?;
        for one in self.cannot_show {
            writeln!(out, "  {one}")?;
        }
        Ok(())
    }
}
