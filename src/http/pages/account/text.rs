//! The same pages for programs that print.

use super::{Checks, Found, Problem};
use atcomm_net::identity::MediatorState;
use atcomm_proto::syntax::RemoteText;

impl Found {
    /// Returns the steps as lines: what they lead to, and when each was checked.
    pub(in super::super) fn text(&self, checks: &Checks) -> String {
        let mut text = format!("{} {}\n\n", self.name(), self.verdict());
        let mut line = |name: &str, value: &str, at: Option<&str>| {
            let value = RemoteText::new(value);
            text.push_str(&format!("{name:<12} {}", value.as_str()));
            if let Some(at) = at {
                text.push_str(&format!("  (checked {})", RemoteText::new(at).as_str()));
            }
            text.push('\n');
        };
        let time = |at: Option<atcomm_proto::clock::Timestamp>| at.map(|at| at.to_string());
        let (handle_at, identity_at) = (time(checks.handle_at), time(checks.identity_at));
        let proved_at = self.verification.proved_at.as_deref();
        if self.has_handle() {
            line("name", &self.handle, handle_at.as_deref());
        }
        line("account", &self.did, None);
        line("PDS", &self.pds, identity_at.as_deref());
        line("signing key", &self.verification.signing_key, None);
        line("key package", &self.key_package.uri, proved_at);
        line("hash", &self.key_package.cid, None);
        // Longer than remote text may be, and checked when it was read.
        text.push_str(&format!("{:<12} {}\n", "did:peer", self.peer.did));
        for mediator in &self.mediators {
            let mut line = format!("{:<12} {}", "mediator", mediator.did);
            let (_, words) = super::mediator_state(mediator.state);
            line.push_str(&format!(", {words}"));
            if let Some(at) = &mediator.checked_at {
                line.push_str(&format!("  (checked {at})"));
            }
            text.push_str(&line);
            text.push('\n');
        }
        text.push_str(&format!(
            "\nThe same, verified on your own machine: atcomm resolve {} --directly\n",
            self.name()
        ));
        text
    }

    fn verdict(&self) -> &'static str {
        let is_reachable = |one: &super::MediatorView| one.state == MediatorState::Reachable;
        if self.status == "regressed" {
            "is shown by its server in an older state than before; this is the newest that was proven."
        } else if self.verification.stale {
            "can be written to, as far as is known; its servers do not answer just now."
        } else if self.mediators.iter().any(is_reachable) {
            "can be written to. Every step was checked."
        } else {
            "has a proven key, and none of its mediators can be reached now."
        }
    }
}

impl Problem {
    /// Returns the problem as lines. `typed` is what names the account.
    pub(in super::super) fn text(&self, typed: &str) -> String {
        let mut text = format!("{}\n", self.title);
        if !typed.is_empty() {
            text.push_str(&format!("{}\n", RemoteText::new(typed).as_str()));
        }
        text.push_str(&format!("\n{}\n", self.words));
        if let Some((introduction, detail)) = &self.detail {
            let detail = RemoteText::new(detail);
            text.push_str(&format!("{introduction}: {}\n", detail.as_str()));
        }
        text
    }
}
