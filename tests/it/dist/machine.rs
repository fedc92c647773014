//! A machine with Debian and systemd, thrown away at its end: a folder that mmdebstrap fills once, a
//! layer in memory over it, and systemd-nspawn, which boots the two.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::release::{Release, scratch};
use super::{output, run};
use crate::http::within;

/// Time for the machine to boot, far longer than it takes on a busy machine.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);

/// The Debian release that is installed.
const SUITE: &str = "bookworm";

/// Packages beside the essential ones.
const PACKAGES: &str = "systemd,systemd-sysv";

/// Mounts the layer, which ends with this process, and boots. Where no systemd runs outside, nothing
/// makes a control group for the machine, so that is done here.
const BOOT: &str = r#"
set -e
base=$1 layer=$2 group=$3
shift 3
if ! [ -d /run/systemd/system ]; then
  for tree in $TREES; do
    if [ -e "$tree/cgroup.procs" ]; then
      mkdir -p "$tree/$group"
      echo $$ >"$tree/$group/cgroup.procs"
    fi
  done
  set -- --keep-unit "$@"
fi
mount -t tmpfs -o mode=755 none "$layer"
mkdir "$layer/up" "$layer/work" "$layer/root"
mount -t overlay -o "lowerdir=$base,upperdir=$layer/up,workdir=$layer/work" overlay "$layer/root"
exec systemd-nspawn --quiet --register=no --machine="$group" --directory "$layer/root" --resolv-conf=off --link-journal=no \
  --console=read-only "$@" --boot systemd.unit=basic.target
"#;

static BASE: LazyLock<PathBuf> = LazyLock::new(debian);

/// Roots of the trees of control groups that systemd uses, in the three shapes that there are.
const TREES: &str = "/sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd";

/// A machine takes memory and both cores, so there is one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// How a machine is connected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Connection {
    /// It shares the network of this machine, and the tests reach its services.
    Shared,
    /// It reaches itself alone.
    None,
}

/// A running machine. The release lies in its folder `/release`.
pub(super) struct Machine {
    nspawn: Child,
    leader: String,
    /// Name of the machine and of its control group.
    name: String,
    _layer: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Machine {
    /// Boots a machine. Returns `None` where that is not possible: only root may mount and boot.
    #[track_caller]
    pub(super) fn boot(connection: Connection) -> Option<Self> {
        if run(Command::new("id").arg("-u")).trim() != "0" {
            println!("not tested: a machine is booted by root only");
            return None;
        }
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let release = Release::shared().dir.display().to_string();
        let layer = tempfile::tempdir().expect("a folder");
        let name = format!("atcomm-test-{}", std::process::id());
        let console = File::create(scratch().join("machine.log")).expect("a file");
        let mut command = Command::new("setpriv");
        command
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--mount",
                "sh",
                "-c",
                BOOT,
                "sh",
            ])
            .args([BASE.as_path(), layer.path()])
            .arg(&name)
            .env("TREES", TREES)
            .arg(format!("--bind-ro={release}:/release"));
        if connection == Connection::None {
            command.arg("--private-network");
        }
        let console_too = console.try_clone().expect("a file");
        let nspawn = command
            .stdin(Stdio::null())
            .stdout(console)
            .stderr(console_too)
            .spawn()
            .expect("setpriv");
        let mut machine = Self {
            nspawn,
            leader: String::new(),
            name,
            _layer: layer,
            _turn: turn,
        };
        machine.wait_for_boot();
        Some(machine)
    }

    #[track_caller]
    fn wait_for_boot(&mut self) {
        let id = self.nspawn.id();
        self.leader = within(BOOT_TIMEOUT, "the machine has a first process", || {
            let ended = self.nspawn.try_wait().expect("a child");
            assert!(ended.is_none(), "{}", console());
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
            let leader = children.split_whitespace().next()?.to_owned();
            let name = fs::read_to_string(format!("/proc/{leader}/comm")).ok()?;
            (name.trim() == "systemd").then_some(leader)
        });
        within(BOOT_TIMEOUT, "the machine has booted", || {
            let state = self.try_run("systemctl is-system-running");
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            ["running", "degraded"]
                .contains(&state.as_str())
                .then_some(())
        });
    }

    /// Runs a script in the machine that has to succeed, and returns what it wrote to standard
    /// output.
    #[track_caller]
    pub(super) fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{script}: {}\n{}{}\n{}",
            output.status,
            text(&output.stdout),
            text(&output.stderr),
            text(&self.try_run("journalctl --no-pager -n 40 -u atcomm").stdout),
        );
        text(&output.stdout)
    }

    /// Runs a script in the machine.
    #[track_caller]
    pub(super) fn try_run(&self, script: &str) -> Output {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader])
            .args(["--mount", "--uts", "--ipc", "--net", "--pid", "--root"])
            .args([
                "env",
                "-i",
                "--chdir=/",
                "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL=C.UTF-8",
            ])
            .args(["DEBIAN_FRONTEND=noninteractive", "sh", "-e", "-c", script]);
        output(&mut command)
    }

    /// Writes a file of the machine.
    #[track_caller]
    pub(super) fn write(&self, path: &str, text: &str) {
        let outside = format!("/proc/{}/root{path}", self.leader);
        fs::write(outside, text).expect("a file of the machine");
    }

    /// Copies a file into the machine.
    #[track_caller]
    pub(super) fn copy(&self, file: &Path, path: &str) {
        let outside = format!("/proc/{}/root{path}", self.leader);
        fs::copy(file, outside).expect("a file of the machine");
    }

    /// Returns properties of the service, by name.
    #[track_caller]
    pub(super) fn property(&self, name: &str) -> String {
        let value = self.run(&format!("systemctl show --value -p {name} atcomm.service"));
        value.trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With the first process of the machine all others end, and nspawn.
        if !self.leader.is_empty() {
            drop(Command::new("kill").args(["-KILL", &self.leader]).status());
        } else {
            drop(self.nspawn.kill());
        }
        drop(self.nspawn.wait());
        // The kernel empties the groups soon after the processes have ended.
        let remove = format!(
            "for tree in {TREES}; do for try in 1 2 3 4 5; do
               [ -d $tree/{0} ] || break; find $tree/{0} -depth -type d -exec rmdir {{}} + && break; sleep 0.2
             done; done",
            self.name
        );
        drop(
            Command::new("sh")
                .args(["-c", &remove])
                .stderr(Stdio::null())
                .status(),
        );
        if std::thread::panicking() {
            println!("console of the machine: {}", console());
        }
    }
}

fn console() -> String {
    fs::read_to_string(scratch().join("machine.log")).unwrap_or_default()
}

/// Returns a folder with Debian, which stays for the next run.
fn debian() -> PathBuf {
    let base = scratch().join(format!("debian-{SUITE}"));
    if base.exists() {
        return base;
    }
    let part = scratch().join(format!("debian-{SUITE}.part"));
    if part.exists() {
        fs::remove_dir_all(&part).expect("what an interrupted run left");
    }
    run(Command::new("mmdebstrap")
        .args([
            "--quiet",
            "--variant=essential",
            "--dpkgopt=force-unsafe-io",
        ])
        .arg(format!("--include={PACKAGES}"))
        .arg(SUITE)
        .arg(&part));
    fs::rename(&part, &base).expect("a folder");
    base
}
