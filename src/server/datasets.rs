//! The datasets of a service: made after each day, and served.

use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::DIRECTORY_FILE;
use super::error::ServerError;
use crate::config::Config;
use crate::dataset::{DatasetRequest, Editions};
use crate::http::Http;

/// Folder of the datasets in the data directory.
const FOLDER: &str = "datasets";

/// The editions, and what they are made of.
pub(super) struct Datasets {
    editions: Editions,
    file: PathBuf,
    request: DatasetRequest,
}

impl Datasets {
    /// Opens the editions that are there. Returns `None` where none are to be served.
    pub(super) fn open(config: &Config) -> Result<Option<Self>, ServerError> {
        if !config.dataset.serve {
            return Ok(None);
        }
        let path = config.data_dir.join(FOLDER);
        let editions = Editions::open(&path);
        Ok(Some(Self {
            editions: editions.map_err(|error| ServerError::Datasets { path, error })?,
            file: config.data_dir.join(DIRECTORY_FILE),
            request: config.dataset_request(),
        }))
    }

    /// Lets a server serve the editions.
    pub(super) fn serve(&self, http: Http) -> Http {
        http.with_datasets(self.editions.clone())
    }

    /// Makes editions until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        self.editions.run(self.file, self.request, stop).await;
    }
}
