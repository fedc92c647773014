//! Checks of this machine: the data directory and its disk.

use std::fs::Metadata;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::super::status::size;
use super::Finding;
use crate::config::Config;
use crate::mediator::KEYS_FILE;
use crate::server::{MAILBOX_FILE, disk_space};

/// Free space below which a disk counts as full: a store needs some to free more.
const MIN_FREE: u64 = 256 << 20;

/// Checks that the data directory is there, and is its owner's alone.
pub(super) fn data(dir: &Path) -> Finding {
    const CHECK: &str = "data";
    let shown = dir.display();
    let meta = match dir.metadata() {
        Ok(meta) => meta,
        Err(error) => {
            let hint = "`atcomm serve` creates it; or name another with data_dir or --data-dir";
            return Finding::failed(CHECK, format!("cannot use {shown}: {error}"), hint);
        }
    };
    if is_open(&meta) {
        let mode = meta.permissions().mode() & 0o777;
        let detail = format!("{shown} is open to other users (mode {mode:o})");
        return Finding::failed(CHECK, detail, format!("chmod 700 {shown}"));
    }
    let keys = dir.join(KEYS_FILE);
    if keys.metadata().is_ok_and(|meta| is_open(&meta)) {
        let detail = format!("{} may be read by other users", keys.display());
        let hint = "chmod 600 the file; if others could read it, run `atcomm server rotate-keys`";
        return Finding::failed(CHECK, detail, hint);
    }
    // The owner of this process's folder in /proc is the user that it runs as.
    let user = Path::new("/proc/self").metadata().map(|meta| meta.uid());
    if user.is_ok_and(|user| user != 0 && user != meta.uid()) {
        let detail = format!("{shown} belongs to another user (id {})", meta.uid());
        return Finding::failed(CHECK, detail, "run this as the user of the service");
    }
    Finding::ok(CHECK, format!("{shown} is its owner's alone"))
}

fn is_open(meta: &Metadata) -> bool {
    meta.permissions().mode() & 0o077 != 0
}

/// Checks that the disk has room for what the mailbox may take.
pub(super) fn space(config: &Config) -> Finding {
    const CHECK: &str = "space";
    let space = match disk_space(&config.data_dir) {
        Ok(space) => space,
        Err(error) => {
            let detail = format!("the free space is not known: {error}");
            return Finding::failed(CHECK, detail, "see the check of data");
        }
    };
    let mailbox = config.data_dir.join(MAILBOX_FILE);
    let held = mailbox.metadata().map_or(0, |file| file.len());
    let free = format!("{} free of {}", size(space.free), size(space.total));
    if space.free < MIN_FREE {
        let hint = "senders are told that queues are full: free some, or move data_dir";
        return Finding::failed(CHECK, free, hint);
    }
    match config.mediator.total_bytes {
        Some(total) if total > space.free.saturating_add(held) => Finding::failed(
            CHECK,
            format!("{free}, and waiting messages may take {}", size(total)),
            "set mediator.total_bytes lower; without it they take a quarter of the disk at most",
        ),
        _ => Finding::ok(CHECK, free),
    }
}
