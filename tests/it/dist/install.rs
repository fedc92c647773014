//! The package and `install.sh`, as an operator uses them on a machine of their own.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use super::machine::{Connection, Machine};
use super::release::{Release, scratch};
use super::{output, run};

/// Asks the service of a machine for its health until it answers.
const HEALTHY: &str = "atcomm server health --config /etc/atcomm/atcomm.toml";

#[test]
fn the_package_is_installed_upgraded_removed_and_purged() {
    let release = Release::shared();
    let newer = scratch().join("newer.deb");
    make_newer(&release.file(".deb"), &newer);
    let Some(machine) = Machine::boot(Connection::None) else {
        return;
    };
    // Every dependency that is not there is an error of dpkg.
    machine.run("dpkg -i /release/*.deb");
    assert_eq!(machine.run(HEALTHY), "the service is healthy\n");
    let modes = machine.run("stat -c '%U:%G %a' /etc/atcomm/atcomm.toml /var/lib/atcomm");
    assert_eq!(modes, "root:atcomm 640\natcomm:atcomm 700\n");
    for file in [
        "/usr/share/man/man1/atcomm-serve.1.gz",
        "/usr/share/bash-completion/completions/atcomm",
        "/usr/share/zsh/vendor-completions/_atcomm",
        "/usr/share/fish/vendor_completions.d/atcomm.fish",
        "/usr/share/doc/atcomm/config.example.toml",
        "/usr/share/doc/atcomm/copyright",
    ] {
        machine.run(&format!("test -s {file}"));
    }
    let faults = machine.run(
        "dpkg --verify atcomm; systemd-analyze verify /lib/systemd/system/atcomm.service 2>&1 | grep -v man || true",
    );
    assert_eq!(faults, "");

    machine.copy(&newer, "/newer.deb");
    upgrade(&machine);
    remove(&machine);
    purge(&machine);
}

/// Makes the package of a later version.
fn make_newer(package: &Path, newer: &Path) {
    let tree = scratch().join("newer");
    if tree.exists() {
        fs::remove_dir_all(&tree).expect("a folder");
    }
    run(Command::new("dpkg-deb").arg("-R").arg(package).arg(&tree));
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("a file");
    let version = format!("Version: {}", env!("CARGO_PKG_VERSION"));
    assert!(text.contains(&version), "{text}");
    fs::write(&control, text.replace(&version, "Version: 99.0.0")).expect("a file");
    run(Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "--build"])
        .args([tree.as_path(), newer]));
}

/// An upgrade asks nothing, keeps settings and decisions of the administrator, and restarts what ran.
fn upgrade(machine: &Machine) {
    machine.run("echo '# mine' >>/etc/atcomm/atcomm.toml");
    let before = machine.property("MainPID");
    machine.run("dpkg -i /newer.deb");
    assert_eq!(
        machine.run("dpkg-query -W -f '${Version}' atcomm"),
        "99.0.0"
    );
    assert_ne!(machine.property("MainPID"), before);
    machine.run(HEALTHY);
    let settings =
        machine.run("tail -n 1 /etc/atcomm/atcomm.toml; stat -c %a /etc/atcomm/atcomm.toml");
    assert_eq!(settings, "# mine\n640\n");

    machine.run("systemctl disable --now atcomm; dpkg -i --force-downgrade /release/atcomm_*.deb");
    assert_eq!(machine.property("ActiveState"), "inactive");
    assert_eq!(machine.property("UnitFileState"), "disabled");
    machine.run("systemctl enable --now atcomm");
}

fn remove(machine: &Machine) {
    machine.run("dpkg --remove atcomm");
    machine.run("test ! -e /usr/bin/atcomm; test -s /var/lib/atcomm/directory.db; test -s /etc/atcomm/atcomm.toml");
    let running = machine.try_run("systemctl is-active atcomm");
    assert!(!running.status.success());
}

/// A purge takes the settings. It takes the data only while there are no messages and keys in it.
fn purge(machine: &Machine) {
    machine.run("dpkg --purge atcomm; test ! -e /etc/atcomm; test ! -e /var/lib/atcomm");
    machine.run("dpkg -i /release/atcomm_*.deb");
    machine.run(
        "printf '[mediator]\\npublic_url = \"https://mail.example.com\"\\nadmission = \"local\"\\n' >>/etc/atcomm/atcomm.toml
         systemctl restart atcomm",
    );
    let said = machine.run("dpkg --purge atcomm 2>&1");
    assert!(said.contains("/var/lib/atcomm is kept"), "{said}");
    machine.run("test -s /var/lib/atcomm/mediator-keys.json; test ! -e /etc/atcomm");
}

#[test]
fn the_script_installs_and_uninstalls_on_a_machine_with_systemd() {
    let Some(machine) = Machine::boot(Connection::None) else {
        return;
    };
    // By itself it takes the package.
    let said = machine.run("sh /release/install.sh --yes");
    assert!(said.contains("install the package atcomm_"), "{said}");
    machine.run(HEALTHY);
    machine.run("sh /release/install.sh uninstall --yes; test ! -e /usr/bin/atcomm");
    machine.run("dpkg --purge atcomm");

    let said = machine.run("sh /release/install.sh --tar --yes");
    assert!(said.contains("start the service"), "{said}");
    assert_eq!(machine.property("ActiveState"), "active");
    machine.run(HEALTHY);
    machine.run("runuser -u atcomm -- cat /etc/atcomm/atcomm.toml");
    let exe = machine.run(&format!(
        "readlink /proc/{}/exe",
        machine.property("MainPID")
    ));
    assert_eq!(exe, "/usr/local/bin/atcomm\n");
    // Again: an update, of which the service knows.
    let before = machine.property("MainPID");
    machine.run("sh /release/install.sh --tar --yes");
    assert_ne!(machine.property("MainPID"), before);
    machine.run("sh /release/install.sh uninstall --yes");
    assert!(!machine.try_run("systemctl cat atcomm").status.success());
    machine.run("test -s /etc/atcomm/atcomm.toml; test -s /var/lib/atcomm/directory.db");
    let left = machine.run("find /usr/local /etc/systemd/system /etc/sysusers.d -name '*atcomm*'");
    assert_eq!(left, "");
}

/// Runs `install.sh` for a root of its own.
fn script(release: &Path, root: &Path, args: &[&str]) -> Output {
    output(
        Command::new("sh")
            .arg(release.join("install.sh"))
            .args(args)
            .env("DESTDIR", root),
    )
}

fn tree(root: &Path) -> String {
    run(Command::new("find")
        .args([".", "-type", "f"])
        .current_dir(root))
}

#[test]
fn the_script_says_what_it_does_and_refuses_what_was_changed() {
    let release = &Release::shared().dir;
    let dir = tempfile::tempdir().expect("a folder");
    let text = |output: &Output| {
        let [out, err] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
        format!("{out}{err}")
    };

    let dry = script(release, dir.path(), &["--dry-run"]);
    assert!(dry.status.success(), "{}", text(&dry));
    let unasked = script(release, dir.path(), &[]);
    assert!(
        text(&unasked).contains("hint: run it again with --yes"),
        "{}",
        text(&unasked)
    );
    assert!(!unasked.status.success());
    assert_eq!(tree(dir.path()), "", "a dry run changes something");

    let done = script(release, dir.path(), &["--yes"]);
    assert!(done.status.success(), "{}", text(&done));
    let planned = text(&dry);
    assert!(
        text(&done).starts_with(&planned),
        "{} after {planned}",
        text(&done)
    );
    let program = dir.path().join("usr/local/bin/atcomm");
    let version = run(Command::new(&program).arg("--version"));
    assert!(version.starts_with("atcomm "), "{version}");
    // What it changed it had said: each file is below a path that the plan names.
    let paths: Vec<&str> = planned
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|word| word.trim_end_matches(','))
        .collect();
    for file in tree(dir.path()).lines() {
        let file = dir.path().join(file.trim_start_matches("./"));
        let named = paths.iter().any(|path| file.starts_with(path));
        assert!(named, "{} is not in {planned}", file.display());
    }
    let removed = script(release, dir.path(), &["uninstall", "--yes"]);
    assert!(removed.status.success(), "{}", text(&removed));
    assert_eq!(tree(dir.path()), "./etc/atcomm/atcomm.toml\n");

    // A file that is not the one of the sums is never unpacked.
    let changed = tempfile::tempdir().expect("a folder");
    run(Command::new("cp")
        .arg("-R")
        .arg(release)
        .arg(changed.path().join("release")));
    let changed = changed.path().join("release");
    let archive = Release::shared().file(".tar.gz");
    let archive = changed.join(archive.file_name().expect("a name"));
    let mut bytes = fs::read(&archive).expect("a file");
    bytes.push(0);
    fs::write(&archive, bytes).expect("a file");
    let refused = script(&changed, dir.path(), &["--yes"]);
    assert!(
        text(&refused).contains("is not the file that SHA256SUMS names"),
        "{}",
        text(&refused)
    );
    assert!(!refused.status.success());
    assert_eq!(tree(dir.path()), "./etc/atcomm/atcomm.toml\n");

    let client = script(
        release,
        dir.path(),
        &["--no-service", "--prefix", "/opt/atcomm", "--yes"],
    );
    assert!(client.status.success(), "{}", text(&client));
    assert!(
        !dir.path()
            .join("etc/systemd/system/atcomm.service")
            .exists()
    );
    assert!(dir.path().join("opt/atcomm/bin/atcomm").exists());
}
