//! Settings of the client.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use atcomm_proto::syntax::Origin;

/// Settings of the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientSettings {
    /// Directory of the wallet. Absent: `wallet` in the default `data_dir`.
    pub home: Option<PathBuf>,
    /// The directory to ask for recipients, an origin. Absent: the one that the own mediator's
    /// document names.
    pub directory: Option<Origin>,
}
