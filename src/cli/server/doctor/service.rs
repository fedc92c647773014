//! Checks of the running service: limits, sources, and the public address as it sees it.

use super::super::super::CliError;
use super::super::super::hint::of_admin;
use super::super::status::{age, of_source};
use super::Finding;
use crate::config::Config;
use crate::server::{PublicUrlFinding, ServiceSource, ServiceStatus, ask_service_status};
use atcomm_proto::clock::Timestamp;

/// How far a stream of the whole network may be behind. One of a single PDS may be quiet.
const MAX_LAG: u64 = 600;

/// Adds all findings of the running service.
pub(super) fn check(
    config: &Config,
    add: &mut dyn FnMut(Finding) -> Result<(), CliError>,
) -> Result<(), CliError> {
    const CHECK: &str = "service";
    let status = match ask_service_status(&config.data_dir, true) {
        Ok(status) => status,
        Err(error) => {
            let hint = of_admin(&error);
            return add(Finding::failed(CHECK, error.to_string(), hint));
        }
    };
    let (version, started) = (&status.version, &status.started_at);
    add(if status.healthy {
        Finding::ok(CHECK, format!("version {version} runs since {started}"))
    } else {
        let hint = "the disk may be full or broken: see the log of the service";
        Finding::failed(CHECK, "it cannot write its databases", hint)
    })?;
    add(files(&status))?;
    for source in &status.sources {
        add(of_one_source(source, &status.now))?;
    }
    public_url(config, &status, add)
}

/// Judges the limit of open files of the process that runs.
fn files(status: &ServiceStatus) -> Finding {
    const CHECK: &str = "files";
    let limit = status.connections;
    if limit.possible < limit.wanted {
        let detail = format!(
            "open files allow {} of {} connections",
            limit.possible, limit.wanted
        );
        let hint = "raise the limit of open files (LimitNOFILE=8192, ulimit -n 8192), or lower \
                    http.max_connections";
        return Finding::failed(CHECK, detail, hint);
    }
    Finding::ok(CHECK, format!("enough for {} connections", limit.wanted))
}

fn of_one_source(source: &ServiceSource, now: &str) -> Finding {
    const CHECK: &str = "source";
    let detail = of_source(source, now);
    if source.followed && source.connected_since.is_none() {
        let hint = "the log says why; check the address, and that this machine may connect to it";
        return Finding::failed(CHECK, detail, hint);
    }
    if source.lists && source.failure.is_some() {
        let hint = "the service tries again by itself; the log says how often that failed";
        return Finding::failed(CHECK, detail, hint);
    }
    let read = |at: &str| Timestamp::parse_rfc3339(at);
    let until = source.covered_until.as_deref().and_then(read);
    let behind = until.zip(read(now)).map(|(until, now)| now.since(until));
    let is_busy = source.followed && !source.name.starts_with("pds ");
    match behind {
        Some(behind) if is_busy && behind.as_secs() > MAX_LAG => Finding::note(
            CHECK,
            detail,
            "it may be catching up, or have nothing to tell",
        ),
        _ => Finding::ok(CHECK, detail),
    }
}

fn public_url(
    config: &Config,
    status: &ServiceStatus,
    add: &mut dyn FnMut(Finding) -> Result<(), CliError>,
) -> Result<(), CliError> {
    const CHECK: &str = "public";
    if let Some(public) = &status.public_url {
        let ago = age(&public.checked_at, &status.now);
        add(Finding::ok(
            CHECK,
            format!("{}, checked {ago} ago", public.url),
        ))?;
        return public
            .findings
            .iter()
            .try_for_each(|one| add(of_public(one)));
    }
    let has_address = config.mediator.public_url.is_some() || config.http.public_url.is_some();
    let (detail, hint) = if has_address {
        (
            "the public address is not checked",
            "set http.check_public_url to true if this machine can reach it",
        )
    } else {
        (
            "there is no public address: a directory alone, for this machine",
            "set mediator.public_url to keep messages for accounts",
        )
    };
    add(Finding::note(CHECK, detail, hint))
}

/// Returns the names of the parts of the check as this command has them.
fn of_public(one: &PublicUrlFinding) -> Finding {
    let check = ["dns", "certificate", "did.json", "websocket", "proxy"]
        .into_iter()
        .find(|name| *name == one.check)
        .unwrap_or("public");
    Finding {
        check,
        ok: one.ok,
        detail: one.detail.clone(),
        hint: one.hint.clone(),
    }
}
