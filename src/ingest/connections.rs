//! Which streams are connected, for the reports of the operator.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use atcomm_proto::clock::Timestamp;

/// The state of every stream. Cloning is cheap, and clones share the state.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Mutex<BTreeMap<String, Option<Timestamp>>>>);

impl Connections {
    /// Sets since when the stream of a source is connected; `None`: it is not.
    pub(super) fn set(&self, source: &str, since: Option<Timestamp>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(source.to_owned(), since);
    }

    /// Returns for each source by its name since when its stream is connected. A source whose stream
    /// is not followed is missing.
    pub fn states(&self) -> BTreeMap<String, Option<Timestamp>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
