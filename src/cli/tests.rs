use clap::CommandFactory as _;

use super::*;
use crate::clock::Clock;
use crate::config::Config;
use crate::server::Server;

/// Exit, standard output and standard error of a command.
fn atcomm(args: &[&str]) -> (Exit, String, String) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let args = std::iter::once("atcomm")
        .chain(args.iter().copied())
        .map(OsString::from);
    let exit = run(args, &mut stdout, &mut stderr);
    (
        exit,
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

/// The complaint of a command that does not get to work: two lines, nothing else.
fn complaint(args: &[&str]) -> (Exit, String, String) {
    let (exit, stdout, stderr) = atcomm(args);
    assert_eq!(stdout, "");
    let lines: Vec<&str> = stderr.lines().collect();
    let [message, hint] = lines[..] else {
        panic!("{stderr}")
    };
    let message = message.strip_prefix("atcomm: ").unwrap().to_owned();
    assert!(
        message.starts_with(|c: char| !c.is_uppercase()) && !message.ends_with('.'),
        "{message}"
    );
    (
        exit,
        message,
        hint.strip_prefix("hint: ").unwrap().to_owned(),
    )
}

#[test]
fn help_and_version_are_data() {
    Cli::command().debug_assert();
    let (exit, stdout, stderr) = atcomm(&["--version"]);
    assert_eq!((exit, stderr.as_str()), (Exit::Done, ""));
    assert_eq!(stdout, format!("atcomm {}\n", env!("CARGO_PKG_VERSION")));
    for args in [&["--help"][..], &["serve", "--help"]] {
        let (exit, stdout, stderr) = atcomm(args);
        assert_eq!((exit, stderr.as_str()), (Exit::Done, ""));
        assert!(
            stdout.contains("Exit codes:") && stdout.contains("serve"),
            "{stdout}"
        );
    }
}

#[test]
fn wrong_usage_is_one_line_and_a_hint() {
    for (args, expected) in [
        (&[][..], "no command is given"),
        (&["sing"], "unrecognized subcommand 'sing'"),
        (
            &["serve", "--lisen", "x"],
            "unexpected argument '--lisen' found",
        ),
        (
            &["serve", "--listen", "here"],
            "invalid value 'here' for '--listen <ADDR>': invalid socket address syntax",
        ),
        (
            &["serve", "--listen"],
            "a value is required for '--listen <ADDR>' but none was supplied",
        ),
    ] {
        let (exit, message, hint) = complaint(args);
        assert_eq!((exit.code(), message.as_str()), (2, expected));
        assert!(hint.contains("--help"), "{hint}");
    }
}

#[test]
fn wrong_configuration_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("atcomm.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "[http]\nport = 80\n").unwrap();
    let (exit, message, hint) = complaint(&["serve", "--config", path]);
    assert_eq!(
        (exit.code(), message),
        (2, format!("unknown key http.port in {path}"))
    );
    assert!(hint.contains("listen"), "{hint}");
    std::fs::remove_file(&file).unwrap();
    let (exit, message, _) = complaint(&["serve", "--config", path]);
    assert_eq!(exit.code(), 2);
    assert!(
        message.starts_with(&format!("cannot read {path}: ")),
        "{message}"
    );
    let (exit, message, hint) = complaint(&["serve", "--log", "atcomm=loud"]);
    assert_eq!(exit.code(), 2);
    assert!(
        message.starts_with("log.filter \"atcomm=loud\": "),
        "{message}"
    );
    assert!(hint.contains("info"), "{hint}");
}

#[test]
fn a_data_directory_in_use_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    config.http.listen.set_port(0);
    config.sources.clear();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime
        .block_on(Server::bind(config, Clock::system()))
        .unwrap();
    let path = dir.path().to_str().unwrap();
    let args = [
        "serve",
        "--data-dir",
        path,
        "--listen",
        "127.0.0.1:0",
        "--log",
        "off",
    ];
    let (exit, message, hint) = complaint(&args);
    assert_eq!(exit.code(), 1);
    assert_eq!(
        message,
        format!("the data directory {path} is in use by another process")
    );
    assert!(hint.contains("--data-dir"), "{hint}");
    server.shutdown();
    runtime.block_on(server.join()).unwrap();
}
