//! The recipient view: an entry as `resolveRecipient` returns it
//! (`lexicons/at/didcomm/directory/defs.json`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use data_encoding::{BASE64_NOPAD, HEXLOWER};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::apply::{STALE, handle};
use crate::store::{Entry, PackageState};
use atcomm_net::identity::{MediatorDocument, PlcLog};
use atcomm_proto::clock::Timestamp;
use atcomm_proto::did_peer::{PeerDid, PeerKey};
use atcomm_proto::keypackage::record_json;
use atcomm_proto::plc::VerifiedLog;
use atcomm_proto::proof;
use atcomm_proto::syntax::{Did, Handle, LexiconError, RECORD_PATH, Rev};

/// Most mediators of one package that are looked up and shown with their documents. A sender takes
/// the first that answers.
pub const MAX_MEDIATORS: usize = 8;

/// The reason why there is no recipient view for an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error of the lexicon.
    pub kind: LexiconError,
    /// The reason as a sentence.
    pub message: String,
}

impl Refusal {
    /// Makes a refusal. The message names the rule, and never a secret.
    pub fn new(kind: LexiconError, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// A rendered recipient view, ready to be sent.
#[derive(Debug, Clone)]
pub struct RecipientView {
    /// The account it is about.
    pub did: Did,
    /// The account's verified handle, which the view is cached under too.
    pub handle: Option<Handle>,
    /// Revision of the newest proof.
    pub rev: Option<Rev>,
    /// The JSON body.
    pub body: Bytes,
    /// Weak entity tag: over the body without its check times.
    pub etag: String,
    /// When the view was rendered; ages in it refer to this time.
    pub at: Timestamp,
    /// Whether later events of the account may have been missed.
    pub in_doubt: bool,
}

/// The extent of a view.
#[derive(Debug)]
pub(super) enum ViewOptions {
    /// All that sending needs.
    Plain,
    /// The proof as well, with the account's operation log if it leads to the proof's key.
    Proof(Option<Arc<PlcLog>>),
}

/// What a view is made of besides the entry.
pub(super) struct ViewContext {
    /// The entry's mediators in its order. Those beyond [`MAX_MEDIATORS`] are unchecked.
    pub(super) mediators: Vec<MediatorDocument>,
    /// Whether another active account names the same did:peer.
    pub(super) ambiguous: bool,
    /// CAR of the newest proof, with the record.
    pub(super) proof: Option<Vec<u8>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RecipientBody<'a> {
    did: &'a Did,
    handle: &'a str,
    pds: &'a str,
    status: &'a str,
    key_package: KeyPackageView<'a>,
    peer: PeerView<'a>,
    mediators: Vec<MediatorDocument>,
    verification: VerificationView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proof: Option<ProofView<'a>>,
}

#[derive(Serialize)]
struct KeyPackageView<'a> {
    uri: String,
    cid: String,
    rev: &'a str,
    value: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PeerView<'a> {
    did: &'a str,
    key_agreement: &'a [PeerKey],
    authentication: &'a [PeerKey],
    ambiguous: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct VerificationView<'a> {
    signing_key: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    before_move: bool,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    proved_at: Option<String>,
    observed_at: String,
    source: &'a str,
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_good_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProofView<'a> {
    car: BytesView,
    #[serde(skip_serializing_if = "Option::is_none")]
    plc_log: Option<&'a RawValue>,
}

impl<'a> ProofView<'a> {
    pub(super) fn new(car: &[u8], plc_log: Option<&'a RawValue>) -> Self {
        Self {
            car: BytesView {
                base64: BASE64_NOPAD.encode(car),
            },
            plc_log,
        }
    }
}

/// Bytes as the atproto data model writes them in JSON.
#[derive(Serialize)]
struct BytesView {
    #[serde(rename = "$bytes")]
    base64: String,
}

/// Returns the refusal for an account that its PDS does not serve.
pub(super) fn inactive(entry: &Entry) -> Refusal {
    Refusal::new(
        LexiconError::AccountInactive,
        format!("the account is not active: {}", entry.status),
    )
}

/// Returns whether an operation log leads to the key that the entry's proof is signed with: the
/// account's present key, or the one before the migration to its present PDS.
fn leads_to_proof(log: &VerifiedLog, entry: &Entry) -> bool {
    let now = log.current().and_then(|state| state.signing_key.as_ref());
    if now.is_none() || now != entry.identity_key.as_ref() {
        return false;
    }
    entry.proof_key == entry.identity_key
        || log.pre_migration_key().map(|(key, _)| key) == entry.proof_key.as_ref()
}

/// Returns the refusal for an entry that has no recipient view.
pub(super) fn refusal(entry: &Entry) -> Option<Refusal> {
    if !entry.status.is_active() {
        return Some(inactive(entry));
    }
    let detail = || entry.detail.clone().unwrap_or_default();
    match entry.state {
        PackageState::Present => None,
        PackageState::Invalid => Some(Refusal::new(LexiconError::InvalidKeyPackage, detail())),
        PackageState::Removed => Some(Refusal::new(
            LexiconError::NotEnrolled,
            "the account has removed its key package (proven)",
        )),
        PackageState::RemovedUnproven => Some(Refusal::new(
            LexiconError::NotEnrolledUnproven,
            "the account's PDS says that it has no key package, and gives no proof of that",
        )),
        PackageState::Unverifiable => Some(Refusal::new(
            LexiconError::UpstreamFailure,
            format!(
                "the account's key package cannot be verified: {} ({})",
                detail(),
                entry.reason.as_deref().unwrap_or("unverifiable")
            ),
        )),
    }
}

/// Renders a present package. Returns `None` when the entry does not hold what its state promises,
/// which only damage can bring about.
pub(super) fn render(
    entry: &Entry,
    context: &ViewContext,
    options: &ViewOptions,
    now: Timestamp,
) -> Option<RecipientView> {
    let peer = PeerDid::parse(entry.peer.as_deref()?).ok()?;
    let age = entry.proved_at.map(|proved| now.since(proved));
    let handle = handle::shown(entry, now);
    let mut view = body(entry, &peer, context, handle, age)?;
    if let ViewOptions::Proof(log) = options {
        let log = log
            .as_deref()
            .filter(|log| leads_to_proof(log.verified(), entry));
        let car = context.proof.as_deref()?;
        view.proof = Some(ProofView::new(car, log.map(PlcLog::entries)));
    }
    // The tag covers what a reader acts on, so not the times of the last checks.
    let digest = Sha256::digest(serde_json::to_vec(&view).ok()?);
    view.mediators.clone_from(&context.mediators);
    view.verification.proved_at = entry.proved_at.map(|at| at.to_string());
    view.verification.age = age.map(|age| age.as_secs());
    Some(RecipientView {
        did: entry.did.clone(),
        handle: handle.cloned(),
        rev: entry.rev,
        body: serde_json::to_vec(&view).ok()?.into(),
        etag: format!("W/\"{}\"", HEXLOWER.encode(digest.get(..16)?)),
        at: now,
        in_doubt: entry.doubt_since.is_some(),
    })
}

/// Returns the body of a view, without a proof and without the times of the last checks.
fn body<'a>(
    entry: &'a Entry,
    peer: &'a PeerDid,
    context: &ViewContext,
    handle: Option<&'a Handle>,
    age: Option<Duration>,
) -> Option<RecipientBody<'a>> {
    let mut mediators = context.mediators.clone();
    for mediator in &mut mediators {
        mediator.checked_at = None;
        mediator.reason = None;
    }
    let cid = entry.cid.as_ref()?;
    let record = proof::block(context.proof.as_deref()?, cid).ok()?;
    Some(RecipientBody {
        did: &entry.did,
        handle: handle.map_or("handle.invalid", Handle::as_str),
        pds: entry.pds.as_ref()?.as_str(),
        status: if entry.regressed {
            "regressed"
        } else {
            entry.status.as_str()
        },
        key_package: KeyPackageView {
            uri: format!("at://{}/{RECORD_PATH}", entry.did),
            cid: cid.to_string(),
            rev: entry.rev.as_ref()?.as_str(),
            value: record_json(record).ok()?,
        },
        peer: PeerView {
            did: peer.as_str(),
            key_agreement: peer.key_agreement(),
            authentication: peer.authentication(),
            ambiguous: context.ambiguous,
        },
        mediators,
        verification: VerificationView {
            signing_key: entry.proof_key.as_ref()?.did_key(),
            before_move: entry.proof_key != entry.identity_key,
            method: entry.method.as_str(),
            proved_at: None,
            observed_at: entry.observed_at.to_string(),
            source: &entry.source,
            stale: entry.doubt_since.is_some() || age.is_none_or(|age| age > STALE),
            known_good_until: entry.doubt_since.map(|until| until.to_string()),
            age: None,
        },
        proof: None,
    })
}
