//! `atcomm server config`: the example, the check, and the settings that apply.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::output::{show, unwritten};
use super::super::terminal::line;
use super::super::{CliError, ending};
use crate::config::{Config, ConfigError, Overrides};
use crate::ingest::SourceSettings;

/// The example, as the sources have it.
const EXAMPLE: &str = include_str!("../../../deploy/config.example.toml");

/// Keys whose values are not shown.
const SECRET_KEYS: [&str; 1] = ["channel_password"];

/// The commands below `atcomm server config`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Print an example with every setting, its default and its reason
    #[command(after_help = ending!("\
  atcomm server config example > atcomm.toml"))]
    Example,
    /// Check a configuration as `atcomm serve` does at its start
    #[command(after_help = ending!("\
  atcomm server config check --config /etc/atcomm.toml"))]
    Check(File),
    /// Print the settings that apply, after file and environment; secrets are left out
    #[command(after_help = ending!("\
  atcomm server config show --config /etc/atcomm.toml
  atcomm server config show --json | jq .mediator"))]
    Show(File),
}

/// The configuration that is meant.
#[derive(Debug, Args)]
pub(in crate::cli) struct File {
    /// Configuration file of the service (TOML)
    #[arg(long, value_name = "FILE", env = "ATCOMM_CONFIG")]
    config: Option<PathBuf>,
    /// Show JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &Command, stdout: &mut dyn Write) -> Result<(), CliError> {
    match command {
        Command::Example => stdout
            .write_all(EXAMPLE.as_bytes())
            .and_then(|()| stdout.flush())
            .or_else(unwritten),
        Command::Check(file) => check(file, stdout),
        Command::Show(file) => show_settings(file, stdout),
    }
}

impl File {
    fn load(&self) -> Result<Config, CliError> {
        Ok(Config::load(self.config.as_deref(), &Overrides::default())?)
    }
}

fn check(file: &File, stdout: &mut dyn Write) -> Result<(), CliError> {
    let config = file.load()?;
    config.check()?;
    let summary = summary(&config)?;
    let answer = json!({"ok": true, "summary": summary});
    show(file.json, stdout, &answer, |out| {
        writeln!(out, "the configuration is valid")?;
        for one in &summary {
            writeln!(out, "  {}", line(one))?;
        }
        Ok(())
    })
}

/// Returns what a configuration amounts to, in a few lines.
pub(super) fn summary(config: &Config) -> Result<Vec<String>, ConfigError> {
    let sources = config.all_sources()?;
    let names: Vec<String> = sources.iter().filter_map(SourceSettings::name).collect();
    let mut lines = vec![format!("data in {}", config.data_dir.display())];
    lines.push(format!("listens on {}", config.http.listen));
    match &config.mediator.public_url {
        Some(url) => {
            let admission = config.mediator.admission.as_str();
            lines.push(format!("mediator at {url}, admission {admission}"));
        }
        None => lines.push("no mediator".to_owned()),
    }
    match names.as_slice() {
        [] => lines.push("no sources".to_owned()),
        names => lines.push(format!("sources: {}", names.join(", "))),
    }
    Ok(lines)
}

fn show_settings(file: &File, stdout: &mut dyn Write) -> Result<(), CliError> {
    let config = file.load()?;
    let mut settings = json!(config);
    hide_secrets(&mut settings);
    show(file.json, stdout, &settings, |out| {
        let mut lines = Vec::new();
        flatten(&settings, "", &mut lines);
        lines
            .iter()
            .try_for_each(|one| writeln!(out, "{}", line(one)))
    })
}

fn hide_secrets(settings: &mut Value) {
    let Value::Object(fields) = settings else {
        return;
    };
    for (key, value) in fields {
        if SECRET_KEYS.contains(&key.as_str()) && !value.is_null() {
            *value = Value::from("(not shown)");
        } else {
            hide_secrets(value);
        }
    }
}

/// Adds a line of TOML for each key that has a value.
fn flatten(value: &Value, path: &str, lines: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                flatten(value, &path, lines);
            }
        }
        value => lines.push(format!("{path} = {}", toml(value))),
    }
}

/// Writes a value as TOML. Texts, numbers and switches are written as in JSON.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(fields) => {
            let known = fields.iter().filter(|(_, value)| !value.is_null());
            let fields: Vec<String> = known
                .map(|(key, value)| format!("{key} = {}", toml(value)))
                .collect();
            format!("{{ {} }}", fields.join(", "))
        }
        value => value.to_string(),
    }
}
