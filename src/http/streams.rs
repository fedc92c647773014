//! The two ways to follow the change log.

use std::sync::Arc;

use axum::Router;
use tokio_util::sync::CancellationToken;

use super::channel::{self, Channel};
use super::updates::{self, Updates, UpdatesSettings};
use crate::directory::Directory;

/// The readers of the change log.
#[derive(Clone)]
pub(super) struct Streams {
    updates: Updates,
    channel: Channel,
}

impl Streams {
    pub(super) fn new(directory: &Arc<Directory>, settings: &UpdatesSettings) -> Self {
        Self {
            updates: Updates::new(Arc::clone(directory), settings),
            channel: Channel::new(Arc::clone(directory), settings),
        }
    }

    /// Returns the routes of both.
    pub(super) fn routes(&self) -> Router {
        updates::routes(self.updates.clone()).merge(channel::routes(self.channel.clone()))
    }

    /// Serves until `stop`, and waits for the end of all sockets.
    pub(super) async fn run(self, stop: CancellationToken) {
        tokio::join!(self.updates.run(stop.clone()), self.channel.run(stop));
    }
}
