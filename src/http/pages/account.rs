//! The page about one account: the way from its name to where its mail is kept, each step with what
//! was checked and when.

mod text;

use axum::http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::layout::{look_up_form, mediator_state, page, time};
use crate::directory::Refusal;
use crate::store::Entry;
use atcomm_net::identity::MediatorState;
use atcomm_proto::clock::Timestamp;
use atcomm_proto::syntax::{LexiconError, RemoteText};

/// A recipient view, as far as the page shows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Found {
    did: String,
    handle: String,
    pds: String,
    status: String,
    key_package: Package,
    peer: Peer,
    mediators: Vec<MediatorView>,
    verification: Verification,
}

#[derive(Deserialize)]
struct Package {
    uri: String,
    cid: String,
    value: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Peer {
    did: String,
    key_agreement: Vec<Key>,
    ambiguous: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Key {
    public_key_multibase: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MediatorView {
    did: String,
    state: MediatorState,
    checked_at: Option<String>,
    reason: Option<String>,
    services: Vec<ServiceView>,
}

#[derive(Deserialize)]
struct ServiceView {
    uri: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verification {
    signing_key: String,
    #[serde(default)]
    before_move: bool,
    proved_at: Option<String>,
    observed_at: String,
    stale: bool,
    known_good_until: Option<String>,
}

impl Found {
    /// Reads the body of a view.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }

    /// Returns the name that people know the account by.
    fn name(&self) -> &str {
        if self.has_handle() {
            &self.handle
        } else {
            &self.did
        }
    }

    fn has_handle(&self) -> bool {
        self.handle != "handle.invalid"
    }

    /// Returns the number of mediators that can be reached.
    fn reachable(&self) -> usize {
        let mediators = self.mediators.iter();
        mediators
            .filter(|one| one.state == MediatorState::Reachable)
            .count()
    }

    /// Returns text that the account wrote about its package.
    fn label(&self) -> Option<RemoteText> {
        let label = self.key_package.value.get("label")?.as_str()?;
        Some(RemoteText::new(label)).filter(|label| !label.as_str().is_empty())
    }
}

/// When the steps were checked that a recipient view has no time of.
#[derive(Default)]
pub(super) struct Checks {
    /// When handle and DID last named each other.
    handle_at: Option<Timestamp>,
    /// When the DID document was read.
    identity_at: Option<Timestamp>,
}

impl Checks {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            handle_at: entry.handle_at,
            identity_at: entry.identity_at,
        }
    }
}

/// Returns the page about an account that can be written to.
pub(super) fn found(found: &Found, checks: &Checks) -> Markup {
    let name = found.name();
    let reachable = found.reachable();
    let content = html! {
        h1 { bdi { (name) } }
        @if found.status == "regressed" {
            p .verdict.warn {
                "The account's server shows an older state than it has shown before. What stands below is "
                "the newest that was proven."
            }
        } @else if found.verification.stale {
            p .verdict.warn {
                "This account can be written to, as far as is known. "
                @match &found.verification.known_good_until {
                    Some(until) => {
                        "Changes after " (time(until)) " may have been missed, and its servers did not answer "
                        "just now."
                    }
                    None => { "It has not been proven again for long: its servers do not answer." }
                }
            }
        } @else if reachable == 0 {
            p .verdict.warn {
                "This account has a key that was proven, and none of its mediators can be reached now: a "
                "message would have to wait."
            }
        } @else {
            p .verdict.good { "This account can be written to. Every step below was checked." }
        }
        ol .chain {
            (step_name(found, checks))
            (step_host(found, checks))
            (step_package(found))
            (step_key(found))
            (step_mediators(found, reachable))
        }
        (not_shown(name))
        (look_up_form(name))
    };
    page(&format!("{name}: how it is written to"), &content)
}

fn step_name(found: &Found, checks: &Checks) -> Markup {
    html! {
        li {
            h2 { "The name" }
            @if found.has_handle() {
                p {
                    "The name " strong { bdi { (found.handle) } } " leads to the account, and the account "
                    "names it back."
                }
            } @else {
                p {
                    "The account has no name that leads back to it. A name that it claims is not "
                    "believed before that."
                }
            }
            dl {
                (row("Account", &html! { code { (found.did) } }))
                @if let Some(at) = checks.handle_at.filter(|_| found.has_handle()) {
                    (row("Checked", &time(&at.to_string())))
                }
            }
        }
    }
}

fn step_host(found: &Found, checks: &Checks) -> Markup {
    html! {
        li {
            h2 { "Where the account lives" }
            p { "The document of the account's DID names the server that holds its data, and its signing key." }
            dl {
                (row("PDS", &html! { code { (found.pds) } }))
                (row("Signing key", &html! { code { (found.verification.signing_key) } }))
                @if let Some(at) = checks.identity_at { (row("Checked", &time(&at.to_string()))) }
            }
            @if found.verification.before_move {
                p .hint {
                    "The account has moved. Its key package is signed with the key that it had before."
                }
            }
        }
    }
}

fn step_package(found: &Found) -> Markup {
    html! {
        li {
            h2 { "What the account published" }
            p {
                "A key package in the account's own repository. Its hash was followed up to the root of the "
                "repository, and the signature there is by the account's signing key."
            }
            dl {
                (row("Record", &html! { code { (found.key_package.uri) } }))
                (row("Hash", &html! { code { (found.key_package.cid) } }))
                @if let Some(label) = found.label() {
                    (row("Label", &html! { bdi { (label.as_str()) } }))
                }
                (row("First seen", &time(&found.verification.observed_at)))
                @if let Some(proved_at) = &found.verification.proved_at {
                    (row("Checked", &time(proved_at)))
                }
            }
        }
    }
}

fn step_key(found: &Found) -> Markup {
    html! {
        li {
            h2 { "The messaging key" }
            p {
                "Messages are encrypted to this key, which the package names. It is well-formed and fit for "
                "encryption. Its secret half is with the account's owner alone."
            }
            dl {
                (row("did:peer", &html! { code { (found.peer.did) } }))
                @for key in &found.peer.key_agreement {
                    (row("Encrypt to", &html! { code { (key.public_key_multibase) } }))
                }
                @if let Some(proved_at) = &found.verification.proved_at {
                    (row("Checked", &time(proved_at)))
                }
            }
            @if found.peer.ambiguous {
                p .note.warn {
                    "Other accounts publish the same key. Only one of them has its secret half, and a "
                    "message shows which one: be careful with whom you write."
                }
            }
        }
    }
}

fn step_mediators(found: &Found, reachable: usize) -> Markup {
    html! {
        li {
            h2 { "Where its mail is kept" }
            p {
                @match (found.mediators.len(), reachable) {
                    (0, _) => "The package names no mediator: messages cannot be delivered by anybody.",
                    (_, 0) => "None of the mediators that the package names can be reached now.",
                    _ => "Mediators keep encrypted messages until they are fetched, and cannot read them.",
                }
            }
            @for mediator in &found.mediators { (mediator_view(mediator)) }
        }
    }
}

fn mediator_view(mediator: &MediatorView) -> Markup {
    let (class, words) = mediator_state(mediator.state);
    html! {
        div .mediator {
            p { code { (mediator.did) } " " span class={ "state " (class) } { (words) } }
            dl {
                @if let Some(reason) = &mediator.reason {
                    (row("Why", &html! { bdi { (reason) } }))
                }
                @if let Some(checked_at) = &mediator.checked_at {
                    (row("Checked", &time(checked_at)))
                }
                @for service in &mediator.services {
                    (row("Endpoint", &html! { code { (service.uri) } }))
                }
            }
        }
    }
}

/// Says what no directory can show.
fn not_shown(name: &str) -> Markup {
    html! {
        section .limits aria-labelledby="limits" {
            h2 #limits { "What this page cannot show" }
            ul {
                li { "That this server tells the truth. Your own program need not take its word." }
                li { "That nothing newer exists. A server of the account could hold back a change." }
                li { "Who the person behind the name is." }
            }
            p { "The same, verified on your own machine, with the account's own servers asked:" }
            pre { code { "atcomm resolve " (name) " --directly" } }
        }
    }
}

/// The reason why there is nothing to show.
pub(super) struct Problem {
    pub(super) status: StatusCode,
    title: &'static str,
    words: &'static str,
    /// The same more exactly, with what introduces it.
    detail: Option<(&'static str, String)>,
}

/// Returns the problem of an account that cannot be written to.
pub(super) fn refused(refusal: &Refusal) -> Problem {
    let (title, words) = match refusal.kind {
        LexiconError::HandleNotFound => (
            "There is no account of this name",
            "The name leads to no account. Look at its spelling. A name that was just set up may take \
             some minutes to be seen.",
        ),
        LexiconError::DidNotFound => (
            "There is no such account",
            "The DID is unknown, or it was ended.",
        ),
        LexiconError::NotEnrolled => (
            "This account takes no encrypted messages yet",
            "It publishes no messaging key, and its own repository proves that.",
        ),
        LexiconError::NotEnrolledUnproven => (
            "This account takes no encrypted messages yet",
            "Its server says that it publishes no messaging key. The server gave no proof of that.",
        ),
        LexiconError::AccountInactive => (
            "This account is not active",
            "Its server does not serve it at the moment, so nothing is told about it.",
        ),
        LexiconError::InvalidKeyPackage => (
            "This account's messaging key cannot be used",
            "It publishes a key package that breaks a rule. Its owner has to publish a new one.",
        ),
        LexiconError::UpstreamFailure => (
            "The account's servers do not answer",
            "A server that has to be asked gave no usable answer. That may pass: try again in a minute.",
        ),
    };
    Problem {
        status: match refusal.kind {
            LexiconError::UpstreamFailure => StatusCode::BAD_GATEWAY,
            _ => StatusCode::NOT_FOUND,
        },
        title,
        words,
        detail: Some(("In the words of the directory", refusal.message.clone())),
    }
}

/// Returns the problem of a text that names no account.
pub(super) fn not_typed(why: &str) -> Problem {
    Problem {
        status: StatusCode::BAD_REQUEST,
        title: "This names no account",
        words: "An account is named by its handle, such as alice.example.com, or by its DID.",
        detail: Some(("What is wrong with it", why.to_owned())),
    }
}

/// Returns the problem of a client that is to come back.
pub(super) fn busy() -> Problem {
    Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "Not now",
        words: "Too many accounts are being looked up at the moment. Try again in a few seconds.",
        detail: None,
    }
}

/// Returns the problem of a failure of this server.
pub(super) fn unavailable() -> Problem {
    Problem {
        status: StatusCode::SERVICE_UNAVAILABLE,
        title: "Not now",
        words: "This server cannot answer at the moment. Its log says why.",
        detail: None,
    }
}

impl Problem {
    /// Returns the page. `typed` is what names the account.
    pub(super) fn html(&self, typed: &str) -> Markup {
        let content = html! {
            h1 { (self.title) }
            @if !typed.is_empty() { p .typed { bdi { (RemoteText::new(typed).as_str()) } } }
            p { (self.words) }
            @if let Some((introduction, detail)) = &self.detail {
                p .hint { (introduction) ": " bdi { (RemoteText::new(detail).as_str()) } }
            }
            (look_up_form(typed))
        };
        page(self.title, &content)
    }
}

fn row(name: &str, value: &Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}
