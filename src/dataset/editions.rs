//! The editions that a service keeps: a dataset after each day that is closed, in a folder of its own
//! under the last day's name.
//!
//! An edition is written once and never changed. Of those that are there when the service starts each
//! is taken as it is, if all files that its list of hashes names are there.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::error::DatasetError;
use super::output::DatasetFile;
use super::{DatasetRequest, HASHES, days, write};
use crate::store::DirectoryFile;
use crate::store::directory::Day;
use atcomm_net::durable;
use sha2::{Digest as _, Sha256};

/// Interval between two looks for a day that has been closed.
const INTERVAL: Duration = Duration::from_secs(60);

/// Interval after an edition that could not be made, which may have been much work.
const RETRY_INTERVAL: Duration = Duration::from_secs(600);

/// Pause after a page of rows, as a multiple of the time that the page took: the work takes a quarter
/// of a core.
const PAUSE: u32 = 3;

/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// Most bytes of a list of hashes.
const MAX_HASHES: u64 = 64 * 1024;

/// The editions of a service. Clones share them.
#[derive(Clone)]
pub struct Editions {
    folder: PathBuf,
    known: Arc<RwLock<BTreeMap<Day, Arc<Edition>>>>,
}

/// A dataset that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edition {
    /// The last day, after which it is named.
    pub day: Day,
    /// Its files, in the order of their names.
    pub files: Vec<DatasetFile>,
    folder: PathBuf,
}

impl Edition {
    /// Returns a file and its path.
    pub fn file(&self, name: &str) -> Option<(&DatasetFile, PathBuf)> {
        let file = self.files.iter().find(|file| file.name == name)?;
        Some((file, self.folder.join(&file.name)))
    }

    /// Reads what an edition of `day` has in `folder`, or `None` where a file is missing.
    fn read(folder: &Path, day: Day) -> io::Result<Option<Self>> {
        let sums = folder.join(HASHES);
        let length = match fs::metadata(&sums) {
            Ok(meta) => meta.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if length > MAX_HASHES {
            return Ok(None);
        }
        let text = fs::read_to_string(&sums)?;
        let mut files = vec![DatasetFile {
            name: HASHES.to_owned(),
            bytes: length,
            sha256: data_encoding::HEXLOWER.encode(&Sha256::digest(text.as_bytes())),
        }];
        for line in text.lines() {
            let Some((sha256, name)) = line.split_once("  ").filter(|(_, name)| is_name(name))
            else {
                return Ok(None);
            };
            let Ok(meta) = fs::metadata(folder.join(name)) else {
                return Ok(None);
            };
            files.push(DatasetFile {
                name: name.to_owned(),
                bytes: meta.len(),
                sha256: sha256.to_owned(),
            });
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Some(Self {
            day,
            files,
            folder: folder.to_owned(),
        }))
    }
}

/// Returns whether a name is that of a file in the folder itself.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(allowed)
}

impl Editions {
    /// Opens the editions in `folder`, which is created where it is missing. A folder in it that is
    /// no whole edition is deleted.
    pub fn open(folder: &Path) -> io::Result<Self> {
        durable::create_dir_all(folder).map_err(|failed| failed.error)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if !path.is_dir() {
                continue;
            }
            let name = path.file_name().and_then(|name| name.to_str());
            let edition = match name.and_then(Day::parse) {
                Some(day) => Edition::read(&path, day)?,
                None => None,
            };
            match edition {
                Some(edition) => drop(known.insert(edition.day, Arc::new(edition))),
                None => fs::remove_dir_all(&path)?,
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            known: Arc::new(RwLock::new(known)),
        })
    }

    /// Returns the newest edition.
    pub fn latest(&self) -> Option<Arc<Edition>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.values().next_back().cloned()
    }

    /// Returns the edition of a day.
    pub fn of(&self, day: Day) -> Option<Arc<Edition>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(&day).cloned()
    }

    /// Makes the edition of the last day that is closed in the directory's file at `from`, unless it
    /// is there, and deletes the oldest ones. Returns whether one was made.
    pub fn renew(
        &self,
        from: &Path,
        request: &DatasetRequest,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<bool, DatasetError> {
        let until = match days(&DirectoryFile::open(from)?, request) {
            Ok((_, until)) => until,
            Err(DatasetError::NoClosedDay) => return Ok(false),
            Err(error) => return Err(error),
        };
        // A clock that was put back does not bring old days again.
        if self.latest().is_some_and(|latest| latest.day >= until) {
            return Ok(false);
        }
        let request = DatasetRequest {
            until: Some(until),
            ..request.clone()
        };
        let folder = self.folder.join(until.to_string());
        let dataset = write(from, &folder, &request, go_on)?;
        let edition = Edition {
            day: until,
            files: dataset.files,
            folder,
        };
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(until, Arc::new(edition));
        let most = usize::try_from(request.settings.editions).unwrap_or(usize::MAX);
        let mut old = Vec::new();
        while known.len() > most.max(1) {
            old.extend(known.pop_first().map(|(_, edition)| edition));
        }
        drop(known);
        // A reader that has opened a file reads it to its end.
        for edition in old {
            fs::remove_dir_all(&edition.folder)?;
        }
        Ok(true)
    }

    /// Makes an edition after each day, one at a time and slowly, until `stop`. What fails is logged
    /// and tried again.
    pub async fn run(self, from: PathBuf, request: DatasetRequest, stop: CancellationToken) {
        loop {
            let (editions, from, request) = (self.clone(), from.clone(), request.clone());
            let stopping = stop.clone();
            let begun = Instant::now();
            let work = tokio::task::spawn_blocking(move || {
                editions.renew(&from, &request, &mut pace(&stopping))
            });
            let pause = match work.await {
                Ok(Ok(is_new)) => {
                    if is_new {
                        self.report(begun.elapsed());
                    }
                    INTERVAL
                }
                Ok(Err(DatasetError::Stopped)) => INTERVAL,
                Ok(Err(error)) => {
                    metrics::counter!("atcomm_dataset_failures_total").increment(1);
                    tracing::error!(%error, "the dataset of the last day cannot be made");
                    RETRY_INTERVAL
                }
                // The panic hook has logged the place.
                Err(_panic) => {
                    metrics::counter!("atcomm_dataset_failures_total").increment(1);
                    RETRY_INTERVAL
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

impl Editions {
    /// Tells that an edition was made.
    fn report(&self, took: Duration) {
        let day = self.latest().map(|latest| latest.day.to_string());
        let seconds = took.as_secs_f64();
        metrics::gauge!("atcomm_dataset_seconds").set(seconds);
        tracing::info!(day, seconds, "a dataset was made");
    }
}

/// Returns what is called between pages: it pauses, so that the work leaves the machine to others.
fn pace(stop: &CancellationToken) -> impl FnMut() -> bool {
    let mut resumed = Instant::now();
    move || {
        let pause = resumed.elapsed().saturating_mul(PAUSE).min(MAX_PAUSE);
        std::thread::sleep(pause);
        resumed = Instant::now();
        !stop.is_cancelled()
    }
}
