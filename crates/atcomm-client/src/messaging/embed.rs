//! Public records that a message points at.
//!
//! Source: atproto, "at:// URI scheme"; com.atproto.repo.getRecord; com.atproto.repo.strongRef.

use bytes::Bytes;
use ipld_core::cid::Cid;
use serde::Deserialize;

use super::dm::StrongRef;
use atcomm_net::identity::{Freshness, HandleError, Identity, IdentityError, Unusable};
use atcomm_net::net::{CallError, Net, NetError, Priority, Request, Trust, XrpcError};
use atcomm_proto::syntax::{Actor, Did};

/// The method that returns a record.
const NSID: &str = "com.atproto.repo.getRecord";

/// Longest record that is read for its CID, in bytes; the protocol has none above 1 MiB.
const MAX_RECORD: usize = 2 << 20;

/// Longest record key (atproto, "Record Key").
const MAX_KEY: usize = 512;

/// Longest NSID (atproto, "Namespaced Identifiers").
const MAX_NSID: usize = 317;

/// Errors of looking up a record to point at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not `at://account/collection/key`.
    #[error("it is not written as at://ACCOUNT/COLLECTION/KEY")]
    Syntax,
    /// The account cannot be found.
    #[error("its account cannot be found: {0}")]
    Account(#[from] UnknownAccount),
    /// There is no such record.
    #[error("there is no such record")]
    NotFound,
    /// The PDS gave no usable answer.
    #[error("its host cannot be asked: {0}")]
    Unreachable(#[from] HostFault),
}

/// Causes of [`ReferenceError::Account`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownAccount {
    /// The handle leads to no account.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// The account's DID document cannot be read.
    #[error(transparent)]
    Document(#[from] IdentityError),
    /// The account's DID document names no usable PDS.
    #[error(transparent)]
    Pds(#[from] Unusable),
}

/// Causes of [`ReferenceError::Unreachable`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// No whole response came.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The PDS answered with an error.
    #[error("it answered {}", .0.status.as_u16())]
    Refused(#[from] XrpcError),
    /// The answer does not have the form of the method.
    #[error("its answer cannot be read")]
    Malformed,
    /// The answer has no valid CID.
    #[error("its answer has no CID")]
    NoCid,
}

/// The parts of an `at://` address of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    actor: Actor,
    collection: String,
    key: String,
}

/// Looks up the present version of a record at its account's PDS. The address that is returned
/// names the account's DID, which stays when the handle changes.
pub async fn look_up(
    net: &Net,
    identity: &Identity,
    uri: &str,
) -> Result<StrongRef, ReferenceError> {
    let Parts {
        actor,
        collection,
        key,
    } = parse(uri).ok_or(ReferenceError::Syntax)?;
    let did = match actor {
        Actor::Did(did) => did,
        Actor::Handle(handle) => identity
            .resolve_handle(&handle)
            .await
            .map_err(UnknownAccount::from)?,
    };
    let document = identity
        .resolve(&did, Freshness::Cached)
        .await
        .map_err(UnknownAccount::from)?;
    let pds = document
        .pds
        .as_ref()
        .map_err(|lack| UnknownAccount::from(lack.clone()))?;
    let params = [
        ("repo", did.as_str()),
        ("collection", &collection),
        ("rkey", &key),
    ];
    let request = Request {
        priority: Priority::Interactive,
        accept: Some("application/json"),
        ..Request::xrpc(&pds.to_url(), NSID, &params, Trust::Untrusted, MAX_RECORD)
    };
    read(&did, &collection, &key, net.query(&request).await)
}

fn read(
    did: &Did,
    collection: &str,
    key: &str,
    answer: Result<Bytes, CallError>,
) -> Result<StrongRef, ReferenceError> {
    #[derive(Deserialize)]
    struct Found {
        cid: String,
    }
    let body = answer.map_err(|error| match error {
        CallError::Refused(error) if error.name() == "RecordNotFound" => ReferenceError::NotFound,
        CallError::Refused(error) => HostFault::Refused(error).into(),
        CallError::Net(error) => HostFault::Net(error).into(),
    })?;
    let found: Found = serde_json::from_slice(&body).map_err(|_| HostFault::Malformed)?;
    let cid = Cid::try_from(found.cid.as_str()).map_err(|_| HostFault::NoCid)?;
    Ok(StrongRef {
        uri: format!("at://{did}/{collection}/{key}"),
        cid: cid.to_string(),
    })
}

fn parse(uri: &str) -> Option<Parts> {
    let rest = uri.strip_prefix("at://")?;
    let mut parts = rest.split('/');
    let (actor, collection, key) = (parts.next()?, parts.next()?, parts.next()?);
    let nsid = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-';
    let tid = |b: u8| b.is_ascii_alphanumeric() || b".-_:~".contains(&b);
    let fits = parts.next().is_none()
        && collection.len() <= MAX_NSID
        && collection.matches('.').count() >= 2
        && collection.bytes().all(nsid)
        && (1..=MAX_KEY).contains(&key.len())
        && ![".", ".."].contains(&key)
        && key.bytes().all(tid);
    fits.then_some(Parts {
        actor: Actor::parse(actor).ok()?,
        collection: collection.to_owned(),
        key: key.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use atcomm_net::net::Response;

    #[test]
    fn addresses_of_records() {
        for good in [
            "at://alice.example.com/app.bsky.feed.post/3k2yihcrp6f2c",
            "at://did:web:alice.example.com/at.didcomm.keyPackage/self",
        ] {
            assert!(parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "https://bsky.app/profile/alice/post/1",
            "at://alice.example.com",
            "at://alice.example.com/app.bsky.feed.post",
            "at://alice.example.com/app.bsky.feed.post/",
            "at://alice.example.com/app.bsky.feed.post/..",
            "at://alice.example.com/app.bsky.feed.post/1/2",
            "at://alice.example.com/post/1",
            "at://alice.example.com/app.bsky.feed.post/a?b",
            "at:///app.bsky.feed.post/1",
            "at://did:peer:2.x/app.bsky.feed.post/1",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn answers_of_hosts() {
        let did = Did::parse("did:web:alice.example.com").unwrap();
        let read = |status, body: &str| {
            let answer = Response {
                status: http::StatusCode::from_u16(status).unwrap(),
                headers: http::HeaderMap::new(),
                body: Bytes::copy_from_slice(body.as_bytes()),
                retry_after: None,
            };
            read(&did, "a.b.c", "1", answer.accepted().map_err(Into::into))
        };
        let cid = "bafyreigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
        let found = read(
            200,
            &format!(r#"{{"uri":"at://x","cid":"{cid}","value":{{}}}}"#),
        );
        let found = found.unwrap();
        assert_eq!(found.uri, "at://did:web:alice.example.com/a.b.c/1");
        assert_eq!(found.cid, cid);
        let missing = r#"{"error":"RecordNotFound","message":"x"}"#;
        assert_eq!(read(400, missing), Err(ReferenceError::NotFound));
        for (status, body) in [
            (200, "{}"),
            (200, r#"{"cid":"x"}"#),
            (200, "<html>"),
            (400, r#"{"error":"InvalidRequest"}"#),
            (502, ""),
        ] {
            let refused = read(status, body).unwrap_err();
            assert!(matches!(refused, ReferenceError::Unreachable(_)), "{body}");
        }
    }
}
