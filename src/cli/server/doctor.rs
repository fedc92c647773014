//! `atcomm server doctor`: whether everything works, one line for each check.

mod local;
mod network;
mod service;

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::super::output::{show, unwritten};
use super::super::terminal::line;
use super::super::{CliError, Exit, ServiceFlags};
use crate::config::Config;

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    ok: bool,
    /// What was found.
    detail: String,
    /// What to do, or to know.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self {
            check,
            ok: true,
            detail: detail.into(),
            hint: None,
        }
    }

    /// A check that passes, with something to know.
    fn note(check: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..Self::ok(check, detail)
        }
    }

    fn failed(check: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            ok: false,
            ..Self::note(check, detail, hint)
        }
    }

    fn write(&self, stdout: &mut dyn Write) -> io::Result<()> {
        let word = match &self.hint {
            _ if !self.ok => "failed",
            Some(_) => "note",
            None => "ok",
        };
        // Details hold texts of other servers.
        writeln!(
            stdout,
            "{word:<7} {:<13} {}",
            self.check,
            line(&self.detail)
        )?;
        if let Some(hint) = &self.hint {
            writeln!(stdout, "{:<7} hint: {}", "", line(hint))?;
        }
        stdout.flush()
    }
}

/// Prints findings as they come, and keeps them.
struct Report<'o> {
    json: bool,
    stdout: &'o mut dyn Write,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, finding: Finding) -> Result<(), CliError> {
        if !self.json {
            finding.write(self.stdout).or_else(unwritten)?;
        }
        self.findings.push(finding);
        Ok(())
    }

    /// Prints the end, and fails if a check did.
    fn end(self) -> Result<(), CliError> {
        let failed = self.findings.iter().filter(|one| !one.ok).count();
        if self.json {
            let answer = json!({"ok": failed == 0, "checks": self.findings});
            show(true, self.stdout, &answer, |_| Ok(()))?;
        }
        if failed == 0 {
            return Ok(());
        }
        Err(CliError {
            exit: Exit::Failed,
            message: format!("{failed} of {} checks failed", self.findings.len()),
            hint: "see the hints above".to_owned(),
        })
    }
}

/// Checks a service and what it depends on.
pub(super) fn run(flags: &ServiceFlags, stdout: &mut dyn Write) -> Result<(), CliError> {
    let mut report = Report {
        json: flags.json,
        stdout,
        findings: Vec::new(),
    };
    let config = match configuration(flags) {
        Ok((config, finding)) => {
            report.add(finding)?;
            config
        }
        // Nothing else can be checked without one.
        Err(finding) => {
            report.add(finding)?;
            return report.end();
        }
    };
    report.add(local::data(&config.data_dir))?;
    report.add(local::space(&config))?;
    service::check(&config, &mut |finding| report.add(finding))?;
    network::check(&config, &mut |finding| report.add(finding))?;
    report.end()
}

fn configuration(flags: &ServiceFlags) -> Result<(Config, Finding), Finding> {
    const CHECK: &str = "config";
    let failed = |error: CliError| Finding::failed(CHECK, error.message, error.hint);
    let config = flags.config().map_err(failed)?;
    config.check().map_err(|error| failed(error.into()))?;
    let file = flags.config.as_deref().map(Path::display);
    let detail = match file {
        Some(file) => format!("{file} is valid"),
        None => "no file is named; the defaults and the environment apply".to_owned(),
    };
    Ok((config, Finding::ok(CHECK, detail)))
}
