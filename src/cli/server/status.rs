//! `atcomm server status`: the state of the running service.

use std::io::{self, Write};

use super::super::output::show;
use super::super::terminal::line;
use super::super::{CliError, Exit, ServiceFlags};
use crate::server::{
    MediatorStatus, PublicUrlStatus, ServiceSource, ServiceStatus, ask_service_status,
};
use atcomm_proto::clock::Timestamp;

/// Prints the state of the service that runs on the data directory.
pub(super) fn run(flags: &ServiceFlags, stdout: &mut dyn Write) -> Result<(), CliError> {
    let status = ask_service_status(&flags.data_dir()?, false)?;
    show(flags.json, stdout, &status, |out| text(&status, out))?;
    if status.healthy {
        return Ok(());
    }
    Err(CliError {
        exit: Exit::Failed,
        message: "the service cannot write its databases".to_owned(),
        hint: "the disk may be full or broken: see the log of the service".to_owned(),
    })
}

fn row(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "{name:<12} {}", line(value))
}

fn text(status: &ServiceStatus, out: &mut dyn Write) -> io::Result<()> {
    let databases = if status.healthy {
        "writable"
    } else {
        "cannot be written"
    };
    let known = format!(
        "{} in the directory, {} wait for a lookup",
        status.entries, status.pending
    );
    row(out, "version", &status.version)?;
    row(out, "started", &status.started_at)?;
    row(out, "databases", databases)?;
    row(out, "accounts", &known)?;
    if let Some(mediator) = &status.mediator {
        mediator_text(mediator, out)?;
    }
    if let Some(url) = &status.public_url {
        public_text(url, out)?;
    }
    for source in &status.sources {
        row(out, "source", &of_source(source, &status.now))?;
    }
    if let Some(memory) = status.memory {
        row(out, "memory", &size(memory))?;
    }
    if let Some(disk) = status.disk {
        let free = format!("{} free of {}", size(disk.free), size(disk.total));
        row(out, "disk", &free)?;
    }
    Ok(())
}

fn mediator_text(mediator: &MediatorStatus, out: &mut dyn Write) -> io::Result<()> {
    let mailbox = &mediator.mailbox;
    let waiting = format!(
        "{} registered, {} messages wait ({} of {})",
        accounts(mailbox.accounts),
        mailbox.messages,
        size(mailbox.bytes),
        size(mediator.total_bytes)
    );
    row(out, "mediator", &mailbox.did)?;
    row(out, "admission", &mediator.admission)?;
    if let Some(end) = &mediator.retires_at {
        row(out, "retires", &format!("takes no messages after {end}"))?;
    }
    row(out, "mailbox", &waiting)?;
    let relay = format!("{} messages wait", mediator.relay_waiting);
    row(out, "relay", &relay)
}

fn public_text(status: &PublicUrlStatus, out: &mut dyn Write) -> io::Result<()> {
    let works = if status.ok { "works" } else { "does not work" };
    let checked = format!("{} {works}, checked {}", status.url, status.checked_at);
    row(out, "public", &checked)?;
    for finding in status.findings.iter().filter(|finding| !finding.ok) {
        row(out, "", &format!("{}: {}", finding.check, finding.detail))?;
        if let Some(hint) = &finding.hint {
            row(out, "", &format!("hint: {hint}"))?;
        }
    }
    Ok(())
}

fn accounts(number: u64) -> String {
    match number {
        1 => "1 account".to_owned(),
        number => format!("{number} accounts"),
    }
}

/// Returns the state of a source in one line.
pub(super) fn of_source(source: &ServiceSource, now: &str) -> String {
    let mut parts = vec![source.name.clone()];
    if source.followed {
        match &source.connected_since {
            Some(since) => parts.push(format!("connected since {since}")),
            None => parts.push("not connected".to_owned()),
        }
        match &source.covered_until {
            Some(until) => parts.push(format!("newest event {} ago", age(until, now))),
            None => parts.push("no event yet".to_owned()),
        }
    }
    if source.lists {
        match (&source.failure, &source.listed_at) {
            (Some(failure), _) => parts.push(format!("its accounts cannot be listed: {failure}")),
            (None, Some(at)) => parts.push(format!("{} listed at {at}", accounts(source.listed))),
            (None, None) => parts.push(format!("{} listed so far", accounts(source.listed))),
        }
    }
    parts.join(", ")
}

/// Returns the time between two times (RFC 3339) in its largest unit.
pub(super) fn age(from: &str, to: &str) -> String {
    let read = Timestamp::parse_rfc3339;
    let (Some(from), Some(to)) = (read(from), read(to)) else {
        return "some time".to_owned();
    };
    match to.since(from).as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// Returns a number of bytes in its largest unit.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        // A tenth of a unit is less than a u64 holds.
        Some((name, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_told_in_their_largest_unit() {
        for (bytes, told) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (64 << 20, "64.0 MiB"),
            (8 << 30, "8.0 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(size(bytes), told);
        }
        let from = "2026-12-01T00:00:00.000Z";
        for (to, told) in [
            ("2026-12-01T00:01:59.000Z", "119 s"),
            ("2026-12-01T00:02:00.000Z", "2 min"),
            ("2026-12-01T02:00:00.000Z", "2 h"),
            ("2026-12-03T00:00:00.000Z", "2 days"),
            ("later", "some time"),
        ] {
            assert_eq!(age(from, to), told, "{to}");
        }
    }
}
