//! Composing a message: its links, its mentions and the record that it points at.

use super::dm::{Dm, MAX_MENTIONS, SpanKind, TextError, facets, spans};
use super::embed::{self, ReferenceError};
use atcomm_net::identity::Identity;
use atcomm_net::net::Net;
use atcomm_proto::syntax::{Did, Handle};

/// Errors of composing a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    /// The text cannot be sent.
    #[error("{0}")]
    Text(#[from] TextError),
    /// The record cannot be pointed at.
    #[error("the record cannot be pointed at: {0}")]
    Embed(#[from] ReferenceError),
}

impl Dm {
    /// Composes a message from one account to another. The handles that the text mentions are
    /// resolved, up to [`MAX_MENTIONS`]; one that leads to no account stays plain text. `embed` is
    /// the `at://` address of a record, which is looked up for its present version.
    pub async fn compose(
        net: &Net,
        identity: &Identity,
        from: &Did,
        to: &Did,
        text: String,
        embed: Option<&str>,
    ) -> Result<Self, ComposeError> {
        let mut dm = Self::new(text, from, to)?;
        let found = spans(&dm.text);
        let mentions = found.iter().filter_map(|span| match &span.kind {
            SpanKind::Mention(handle) => Some(handle),
            SpanKind::Link(_) => None,
        });
        let mut known: Vec<(Handle, Did)> = Vec::new();
        for handle in mentions.take(MAX_MENTIONS) {
            if let Ok(did) = identity.resolve_handle(handle).await {
                known.push((handle.clone(), did));
            }
        }
        dm.facets = facets(&found, |handle| {
            let mut known = known.iter();
            known
                .find(|(one, _)| one == handle)
                .map(|(_, did)| did.clone())
        });
        if let Some(uri) = embed {
            dm.embed = Some(embed::look_up(net, identity, uri).await?);
        }
        Ok(dm)
    }
}
