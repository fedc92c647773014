//! Settings of datasets (`[dataset]`).

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

/// Largest threshold.
const MAX_THRESHOLD: u32 = 1000;

/// Most days of one dataset.
const MAX_DAYS: u32 = 3660;

/// Most editions that are kept.
const MAX_EDITIONS: u32 = 366;

/// Longest text of a setting, in bytes.
const MAX_TEXT: usize = 200;

/// Settings of datasets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DatasetSettings {
    /// Whether `serve` makes a dataset after each day and serves it below `/dataset/`. Absent: true.
    pub serve: bool,
    /// Numbers are rounded to multiples of it, and numbers of accounts below twice as much are not
    /// shown: from 1, which shows every number as it is, to 1000. Absent: 10. A change gives a second
    /// look at the same numbers, so it is chosen once.
    #[serde(deserialize_with = "threshold")]
    pub threshold: u32,
    /// Days that a dataset holds, from 1 to 3660. Absent: 365.
    #[serde(deserialize_with = "days")]
    pub days: u32,
    /// Editions that are kept and served, from 1 to 366; the oldest are deleted. Absent: 7.
    #[serde(deserialize_with = "editions")]
    pub editions: u32,
    /// Who publishes the dataset, for those who cite it. Absent: the host of `http.public_url` or
    /// `mediator.public_url`, or the name of the program.
    #[serde(deserialize_with = "maybe_line")]
    pub publisher: Option<String>,
    /// Its licence, as an identifier of SPDX. Absent: `CC0-1.0`.
    #[serde(deserialize_with = "licence")]
    pub license: String,
}

impl Default for DatasetSettings {
    fn default() -> Self {
        Self {
            serve: true,
            threshold: 10,
            days: 365,
            editions: 7,
            publisher: None,
            license: "CC0-1.0".to_owned(),
        }
    }
}

fn between<'de, D: Deserializer<'de>>(deserializer: D, max: u32) -> Result<u32, D::Error> {
    let number = u32::deserialize(deserializer)?;
    if (1..=max).contains(&number) {
        return Ok(number);
    }
    Err(de::Error::custom(format!(
        "{number} is not from 1 to {max}"
    )))
}

fn threshold<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    between(deserializer, MAX_THRESHOLD)
}

fn days<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    between(deserializer, MAX_DAYS)
}

fn editions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    between(deserializer, MAX_EDITIONS)
}

fn maybe_line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() || text.len() > MAX_TEXT || text.chars().any(char::is_control) {
        let message = format!("it is not one line of 1 to {MAX_TEXT} bytes");
        return Err(de::Error::custom(message));
    }
    Ok(Some(text))
}

fn licence<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    if text.is_empty() || text.len() > MAX_TEXT || !text.bytes().all(allowed) {
        return Err(de::Error::custom(
            "it is not an identifier of SPDX, such as CC0-1.0",
        ));
    }
    Ok(text)
}
