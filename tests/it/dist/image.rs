//! The image: built of the release, run by podman as a user without rights, on a root that cannot be
//! written.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::release::Release;
use super::{output, run};
use crate::http::eventually;
use crate::mail::{Recipient, free_port};
use crate::network::root;

const IMAGE: &str = "localhost/atcomm:test";
const CONTAINER: &str = "atcomm-test";

/// Images and containers of one test.
struct Podman(TempDir);

impl Podman {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("podman");
        for (flag, name) in [("--root", "images"), ("--runroot", "run")] {
            command.arg(flag).arg(self.0.path().join(name));
        }
        // What works on every file system and without systemd.
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]);
        command.args(["--runtime", "runc"]).args(args);
        command
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        run(&mut self.command(args)).trim().to_owned()
    }

    /// Starts a mediator on a port that admits everybody, with its data in the volume.
    #[track_caller]
    fn serve(&self, port: u16) {
        let variables = [
            format!("ATCOMM_HTTP__LISTEN=127.0.0.1:{port}"),
            format!("ATCOMM_MEDIATOR__PUBLIC_URL=http://localhost:{port}"),
            "ATCOMM_MEDIATOR__ADMISSION=open".to_owned(),
            "ATCOMM_NET__DEVELOPMENT=true".to_owned(),
            "ATCOMM_NET__NAME_SERVER=127.0.0.1:9".to_owned(),
            "ATCOMM_IDENTITY__PLC_URL=http://localhost:9".to_owned(),
            "ATCOMM_SOURCES=[]".to_owned(),
        ];
        let mut args = vec!["run", "--detach", "--replace", "--name", CONTAINER];
        args.extend([
            "--read-only",
            "--read-only-tmpfs=false",
            "--network",
            "host",
        ]);
        args.extend(["--volume", "atcomm-data:/data", "--cap-drop", "all"]);
        // Where the limits of the machine are low, podman must not ask for its own.
        args.extend([
            "--ulimit",
            "nofile=2048:2048",
            "--ulimit",
            "nproc=1000:1000",
        ]);
        for variable in &variables {
            args.extend(["--env", variable.as_str()]);
        }
        args.push(IMAGE);
        self.run(&args);
        eventually("the container is healthy", || {
            let health = output(&mut self.command(&["healthcheck", "run", CONTAINER]));
            health.status.success().then_some(())
        });
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = output(&mut self.command(&["logs", CONTAINER]));
            println!("log: {}", String::from_utf8_lossy(&log.stderr));
        }
        drop(output(&mut self.command(&[
            "rm",
            "--force",
            "--time",
            "0",
            "--volumes",
            CONTAINER,
        ])));
    }
}

#[test]
fn messages_go_their_way_through_a_container_without_rights() {
    if run(Command::new("id").arg("-u")).trim() != "0" {
        println!("not tested: the image is run by root only");
        return;
    }
    let podman = Podman(TempDir::new().expect("a folder"));
    let file = root().join("deploy/Containerfile").display().to_string();
    let context = Release::shared().dir.join("image").display().to_string();
    podman.run(&[
        "build",
        "--isolation",
        "chroot",
        "--format",
        "docker",
        "--tag",
        IMAGE,
        "--file",
        &file,
        &context,
    ]);
    let image: Value =
        serde_json::from_str(&podman.run(&["image", "inspect", IMAGE])).expect("JSON");
    let image = &image[0];
    assert_eq!(image["Config"]["User"], "10001:10001");
    let layers = image["RootFS"]["Layers"].as_array().expect("a list");
    assert_eq!(layers.len(), 3, "a layer for each COPY, and none below");

    let port = free_port();
    podman.serve(port);
    let recipient = Recipient::at(port);
    assert_eq!(recipient.is_told_live("by a socket"), "by a socket");
    recipient.reads();
    recipient.is_sent("before the end");

    podman.run(&["stop", "--time", "30", CONTAINER]);
    let ended = podman.run(&["inspect", "--format", "{{.State.ExitCode}}", CONTAINER]);
    assert_eq!(ended, "0");
    let health = output(&mut podman.command(&["healthcheck", "run", CONTAINER]));
    assert!(
        !health.status.success(),
        "health of a container that has ended"
    );

    // Another container with the same volume, as after an update.
    podman.serve(port);
    assert_eq!(recipient.reads(), ["before the end"]);
}
