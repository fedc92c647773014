//! Passwords and passphrases: from a file, the environment or the terminal, never from an
//! argument, which every process of the machine can read.

use std::io::IsTerminal as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::{CliError, Exit};

/// Longest secret that is read, in bytes.
const MAX_LEN: usize = 1024;

/// The places from which a secret is read.
pub(super) struct Source<'a> {
    /// Name of the secret, such as `app password`.
    pub(super) name: &'a str,
    /// The file that the flag names; `-` is standard input.
    pub(super) file: Option<&'a Path>,
    /// Name of the flag.
    pub(super) flag: &'a str,
    /// Name of the environment variable.
    pub(super) variable: &'a str,
}

impl Source<'_> {
    /// Whether [`Source::read`] asks at a terminal.
    pub(super) fn asks(&self) -> bool {
        self.file.is_none()
            && std::env::var_os(self.variable).is_none()
            && std::io::stdin().is_terminal()
    }

    /// Reads the secret: the file's first line, else the variable, else a line typed at the terminal. With
    /// `twice` a new secret has to be typed once more.
    pub(super) fn read(&self, prompt: &str, twice: bool) -> Result<Zeroizing<String>, CliError> {
        let secret = if let Some(file) = self.file {
            self.read_file(file)?
        } else if let Ok(value) = std::env::var(self.variable) {
            Zeroizing::new(value)
        } else if std::io::stdin().is_terminal() {
            self.typed(prompt, twice)?
        } else {
            return Err(self.usage_error(
                format!("no {} is given", self.name),
                format!(
                    "set {}, name a file with {}, or run it in a terminal",
                    self.variable, self.flag
                ),
            ));
        };
        let secret = Zeroizing::new(secret.trim_end_matches(['\n', '\r']).to_owned());
        match secret.len() {
            0 => Err(self.usage_error(
                format!("the {} is empty", self.name),
                "nothing was done".to_owned(),
            )),
            MAX_LEN.. => Err(self.usage_error(
                format!("the {} is longer than {MAX_LEN} bytes", self.name),
                "it is the first line of the file that counts".to_owned(),
            )),
            _ => Ok(secret),
        }
    }

    fn read_file(&self, file: &Path) -> Result<Zeroizing<String>, CliError> {
        let text = if file == Path::new("-") {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        } else {
            std::fs::read_to_string(file)
        };
        let text = Zeroizing::new(text.map_err(|error| {
            self.usage_error(
                format!("cannot read {}: {error}", file.display()),
                format!("its first line has to be the {}", self.name),
            )
        })?);
        Ok(Zeroizing::new(
            text.lines().next().unwrap_or_default().to_owned(),
        ))
    }

    fn typed(&self, prompt: &str, twice: bool) -> Result<Zeroizing<String>, CliError> {
        let ask = |prompt: &str| {
            rpassword::prompt_password(prompt)
                .map(Zeroizing::new)
                .map_err(|error| {
                    self.usage_error(
                        format!("cannot read the {}: {error}", self.name),
                        format!("set {} instead", self.variable),
                    )
                })
        };
        let secret = ask(prompt)?;
        if twice && *ask("Once more: ")? != *secret {
            return Err(self.usage_error(
                "the two are not the same".to_owned(),
                "nothing was done".to_owned(),
            ));
        }
        Ok(secret)
    }

    fn usage_error(&self, message: String, hint: String) -> CliError {
        CliError {
            exit: Exit::Usage,
            message,
            hint,
        }
    }
}
