//! The unit under a real systemd: the whole way of a message within its sandbox, the watchdog, the
//! journal, and what systemd thinks of it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::machine::{Connection, Machine};
use super::run;
use crate::http::{eventually, try_request, within};
use crate::mail::{Recipient, free_port};
use crate::network::root;
use crate::service::Setup;

/// Highest exposure that `systemd-analyze security` may find; 10 is that of no sandbox at all.
const MAX_EXPOSURE: f64 = 1.2;

#[test]
fn the_unit_is_exposed_little() {
    let unit = root().join("deploy/systemd/atcomm.service");
    let report = run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(&unit));
    let (_, level) = report
        .rsplit_once("atcomm.service: ")
        .unwrap_or_else(|| panic!("{report}"));
    let exposure: f64 = level
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{report}"));
    assert!(exposure <= MAX_EXPOSURE, "{report}");
}

/// Installs the package without starting its service, and gives it these settings.
fn install(machine: &Machine, setup: &Setup) {
    // The file by which an administrator forbids packages to start services.
    machine.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n");
    machine.run("chmod +x /usr/sbin/policy-rc.d; dpkg -i /release/*.deb; rm /usr/sbin/policy-rc.d");
    assert_eq!(machine.property("ActiveState"), "inactive");
    let settings = setup.toml(Path::new("/var/lib/atcomm"));
    machine.write("/etc/atcomm/atcomm.toml", &settings);
    machine.run("systemctl start atcomm");
}

#[test]
fn messages_go_their_way_within_the_sandbox_of_the_unit() {
    let Some(machine) = Machine::boot(Connection::Shared) else {
        return;
    };
    // A name that only the hosts file of the machine knows, as in a network of containers.
    let plc = TcpListener::bind("127.0.0.1:0").expect("a port");
    let plc_port = plc.local_addr().expect("a port").port();
    machine.run("echo 127.0.0.1 plc.internal >>/etc/hosts");
    let port = free_port();
    let setup = Setup::offline()
        .set("http.listen", json!(format!("127.0.0.1:{port}")))
        .set(
            "identity.plc_url",
            json!(format!("http://plc.internal:{plc_port}")),
        )
        .set(
            "mediator.public_url",
            json!(format!("http://localhost:{port}")),
        )
        .set("mediator.admission", json!("open"));
    install(&machine, &setup);

    // It is ready when `systemctl start` ends, and confined.
    let recipient = Recipient::at(port);
    let id = machine.property("MainPID");
    let status = machine.run(&format!("cat /proc/{id}/status"));
    for line in [
        "Seccomp:\t2",
        "NoNewPrivs:\t1",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
    ] {
        assert!(status.contains(line), "{line} in {status}");
    }
    assert_ne!(
        machine.run(&format!("stat -c %U /proc/{id}")).trim(),
        "root"
    );
    let state = machine.run("stat -c '%U %a' /var/lib/atcomm /var/lib/atcomm/mailbox.db");
    assert_eq!(state, "atcomm 700\natcomm 600\n");

    assert_eq!(recipient.is_told_live("by a socket"), "by a socket");
    recipient.reads();
    recipient.is_sent("before a restart");
    machine.run("systemctl restart atcomm");
    recipient.is_sent("after it");
    let mut words = recipient.reads();
    words.sort();
    assert_eq!(words, ["after it", "before a restart"]);
    let commands = machine
        .run("runuser -u atcomm -- atcomm mailbox status --json --config /etc/atcomm/atcomm.toml");
    assert_eq!(
        serde_json::from_str::<Value>(&commands).expect("JSON")["accounts"],
        1
    );

    let ask = format!(
        "http://127.0.0.1:{port}/xrpc/at.didcomm.directory.resolveRecipient?actor=did:plc:ewvi7nxzyoun6zhxrhs64oiz"
    );
    let asking = std::thread::spawn(move || drop(try_request("GET", &ask, &[], None)));
    plc.set_nonblocking(true).expect("a listener");
    eventually("the name of the hosts file is dialled", || {
        plc.accept().ok()
    });
    asking.join().expect("a thread");

    let before = machine.property("MainPID");
    machine.run("systemctl reload atcomm");
    eventually("the configuration is read again", || {
        let journal = machine.run("journalctl -u atcomm --no-pager");
        journal
            .contains("the configuration is read again")
            .then_some(())
    });
    assert_eq!(machine.property("MainPID"), before);

    the_journal_has_it(&machine);
    a_wrong_configuration_is_not_tried_again(&machine, &setup);
    a_process_that_hangs_is_replaced(&machine, &setup);
    machine.run("systemctl stop atcomm");
    assert_eq!(machine.property("Result"), "success");
}

/// The journal has each line once, with a priority and without a time of its own.
fn the_journal_has_it(machine: &Machine) {
    let lines = machine.run("journalctl -u atcomm -o json --no-pager");
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |word: &str| {
        let found = lines.iter().find(|line| {
            let text = line["MESSAGE"].as_str().unwrap_or_default();
            text.contains(word)
        });
        found.unwrap_or_else(|| panic!("{word} in {lines:?}"))
    };
    let (listening, development) = (of(" listening "), of("development is on"));
    assert_eq!(
        (&listening["PRIORITY"], &development["PRIORITY"]),
        (&json!("6"), &json!("4"))
    );
    let text = listening["MESSAGE"].as_str().unwrap_or_default();
    assert!(text.trim_start().starts_with("INFO atcomm"), "{text}");
}

fn a_wrong_configuration_is_not_tried_again(machine: &Machine, setup: &Setup) {
    machine.write("/etc/atcomm/atcomm.toml", "lisen = 1\n");
    assert!(!machine.try_run("systemctl restart atcomm").status.success());
    assert_eq!(machine.property("ExecMainStatus"), "2");
    assert_eq!(machine.property("NRestarts"), "0");
    assert_eq!(machine.property("ActiveState"), "failed");
    let settings = setup.toml(Path::new("/var/lib/atcomm"));
    machine.write("/etc/atcomm/atcomm.toml", &settings);
}

fn a_process_that_hangs_is_replaced(machine: &Machine, _: &Setup) {
    machine.run(
        "mkdir -p /etc/systemd/system/atcomm.service.d
         printf '[Service]\\nWatchdogSec=4s\\nTimeoutAbortSec=1s\\n' >/etc/systemd/system/atcomm.service.d/test.conf
         systemctl daemon-reload
         systemctl restart atcomm",
    );
    let before = machine.property("MainPID");
    machine.run(&format!("kill -STOP {before}"));
    within(
        Duration::from_secs(90),
        "systemd starts another process",
        || {
            let now = machine.property("MainPID");
            (now != before && machine.property("ActiveState") == "active").then_some(())
        },
    );
    let journal = machine.run("journalctl -u atcomm --no-pager");
    assert!(journal.contains("Watchdog timeout"), "{journal}");
}
