//! The public address of the mediator, its DID and its endpoints.

use serde_json::{Value, json};
use url::{Host, Url};

use atcomm_proto::syntax::{MediatorDid, SyntaxError};

/// Path of the DIDComm endpoint, for HTTP and WebSockets.
pub const ENDPOINT: &str = "/didcomm";

/// Profile that the mediator speaks (DIDComm Messaging 2.1, "Service endpoint").
pub(super) const PROFILE: &str = "didcomm/v2";

/// The public address of the service and the `did:web` that follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicAddress {
    origin: String,
    did: MediatorDid,
}

impl PublicAddress {
    /// Parses an origin such as `https://mail.example.com`. Accepts `http` and `localhost` in
    /// development only, since a `did:web` is resolved by `https`.
    pub fn parse(text: &str, development: bool) -> Result<Self, SyntaxError> {
        let invalid = |reason| SyntaxError {
            kind: "public address",
            reason,
        };
        let url = Url::parse(text).map_err(|_| invalid("not an URL"))?;
        let plain = url.scheme() == "http" && development;
        if url.scheme() != "https" && !plain {
            return Err(invalid("it does not begin with https://"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("it has a path, query or fragment"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("it names a user"));
        }
        let Some(Host::Domain(host)) = url.host() else {
            return Err(invalid("its host is not a domain name"));
        };
        if !development && (host == "localhost" || host.ends_with(".localhost")) {
            return Err(invalid("its host is this machine to whoever reads it"));
        }
        let did = match url.port() {
            Some(port) => format!("did:web:{host}%3A{port}"),
            None => format!("did:web:{host}"),
        };
        let did = MediatorDid::parse(&did)?;
        if did.web().is_none() {
            return Err(invalid("its host is not a domain name"));
        }
        Ok(Self {
            origin: url.origin().ascii_serialization(),
            did,
        })
    }

    /// Returns the mediator's DID.
    pub fn did(&self) -> &MediatorDid {
        &self.did
    }

    /// Returns scheme, host and port.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the entry of the directory in the DID document, which PDSes pass requests on by.
    pub(super) fn directory_service(&self) -> Value {
        json!({
            "id": format!("{}#atcomm_directory", self.did),
            "type": "AtcommDirectory",
            "serviceEndpoint": self.origin,
        })
    }

    /// Returns the DID document of a directory that is no mediator.
    pub fn directory_document(&self) -> Value {
        json!({
            "@context": ["https://www.w3.org/ns/did/v1"],
            "id": self.did,
            "service": [self.directory_service()],
        })
    }

    /// Returns the URL that messages are posted to.
    pub fn http_endpoint(&self) -> String {
        format!("{}{ENDPOINT}", self.origin)
    }

    /// Returns the URL for WebSockets.
    pub fn ws_endpoint(&self) -> String {
        // `https` becomes `wss`, `http` becomes `ws`.
        format!("ws{}{ENDPOINT}", self.origin.trim_start_matches("http"))
    }

    /// Returns the services of the did:peer:2. HTTP comes first, since many clients use the first
    /// service only.
    pub(super) fn peer_services(&self) -> [Value; 2] {
        [self.http_endpoint(), self.ws_endpoint()].map(|uri| {
            json!({
                "type": "DIDCommMessaging",
                "serviceEndpoint": {"uri": uri, "accept": [PROFILE], "routingKeys": []},
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_give_dids_and_endpoints() {
        let address = PublicAddress::parse("https://Mail.Example.com/", false).unwrap();
        assert_eq!(address.did().as_str(), "did:web:mail.example.com");
        assert_eq!(address.http_endpoint(), "https://mail.example.com/didcomm");
        assert_eq!(address.ws_endpoint(), "wss://mail.example.com/didcomm");
        let local = PublicAddress::parse("http://localhost:2590", true).unwrap();
        assert_eq!(local.did().as_str(), "did:web:localhost%3A2590");
        assert_eq!(local.ws_endpoint(), "ws://localhost:2590/didcomm");
        for bad in [
            "mail.example.com",
            "http://mail.example.com",
            "https://mail.example.com/x",
            "https://u@mail.example.com",
            "https://192.0.2.1",
            "https://[::1]",
            "https://localhost",
            "https://mail.localhost:2590",
            "wss://mail.example.com",
        ] {
            assert!(PublicAddress::parse(bad, false).is_err(), "{bad}");
        }
    }
}
