//! The list of commands in `atcomm --help`, in groups.

use clap::Command;

/// The groups, and the commands in each. A command of none is listed in the last one.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Messages", &["send", "receive", "contacts", "resolve"]),
    (
        "Your keys",
        &[
            "enroll", "whoami", "check", "rotate", "unenroll", "backup", "restore",
        ],
    ),
    (
        "Server",
        &["serve", "server", "stats", "export", "snapshot", "dataset"],
    ),
    ("Other", &["completions", "man", "help"]),
];

/// Gives a command the list in groups instead of the plain one.
pub(super) fn grouped(command: Command) -> Command {
    let list = list(&command);
    command.help_template(format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{list}Options:\n{{options}}{{after-help}}"
    ))
}

fn list(command: &Command) -> String {
    let shown = command.get_subcommands().filter(|one| !one.is_hide_set());
    let mut left: Vec<(&str, String)> = shown
        .map(|one| {
            let about = one.get_about().map(ToString::to_string).unwrap_or_default();
            (one.get_name(), about)
        })
        .collect();
    left.push(("help", "Print this, or the help of a command".to_owned()));
    let mut text = String::new();
    let last = GROUPS.len() - 1;
    for (at, (title, names)) in GROUPS.iter().enumerate() {
        text.push_str(&format!("{title}:\n"));
        let mut add = |name: &str, about: &str| text.push_str(&format!("  {name:<12} {about}\n"));
        for name in *names {
            if let Some(at) = left.iter().position(|(known, _)| known == name) {
                let (name, about) = left.remove(at);
                add(name, &about);
            }
        }
        if at == last {
            left.drain(..).for_each(|(name, about)| add(name, &about));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::super::Cli;
    use super::*;

    #[test]
    fn every_command_is_in_a_group_and_every_group_has_commands_that_exist() {
        let command = Cli::command();
        let shown: Vec<&str> = command
            .get_subcommands()
            .filter(|one| !one.is_hide_set())
            .map(Command::get_name)
            .collect();
        let grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| *names)
            .copied()
            .collect();
        for name in &shown {
            assert_eq!(
                grouped.iter().filter(|one| *one == name).count(),
                1,
                "{name}"
            );
        }
        for name in grouped {
            assert!(shown.contains(&name) || name == "help", "{name}");
        }
        let list = list(&command);
        for hidden in ["mailbox", "relay", "keys"] {
            assert!(!list.contains(&format!("  {hidden} ")), "{hidden}");
        }
    }
}
