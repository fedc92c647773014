//! The local network of `tests/network/`: a DID directory, real PDSes, a name server, a web host
//! and a control port. One network per shape of DID documents is shared by all tests.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, OnceLock};

use atcomm_proto::key::SigningKey;
use atcomm_proto::syntax::Did;
use serde_json::{Value, json};

use crate::http::{request, try_request};

/// A network with the documents of the `@did-plc/server` package: an uncompressed key and relative
/// ids.
static OLDER: LazyLock<Network> = LazyLock::new(|| Network::start(&[]));

/// A network with the documents of the public directory.
static MULTIKEY: LazyLock<Network> = LazyLock::new(|| Network::start(&["--multikey"]));

/// Number of accounts on the other PDS implementation, arroba, created at its start.
const ARROBA_ACCOUNTS: usize = 12;

/// The index of a PDS: 0 or 1.
pub(crate) type Pds = usize;

/// Runs a test in both shapes of DID documents.
macro_rules! in_both_shapes {
    ($($(#[$meta:meta])* fn $name:ident($network:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$meta])*
            fn check($network: &'static crate::network::Network) $body

            #[test]
            fn older_documents() {
                check(crate::network::Network::older());
            }

            #[test]
            fn multikey_documents() {
                check(crate::network::Network::multikey());
            }
        }
    )*};
}
pub(crate) use in_both_shapes;

/// A running network, with counters of the names and accounts that tests have used.
pub(crate) struct Network {
    process: testkit::network::Network,
    control: String,
    names: AtomicUsize,
    arroba: OnceLock<Value>,
    arroba_taken: AtomicUsize,
}

/// An account on one of the PDSes.
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) network: &'static Network,
    pub(crate) name: String,
    pub(crate) did: String,
    pub(crate) handle: String,
    /// The answer of the control port to the creation of the account.
    pub(crate) made: Value,
}

/// An account on arroba.
#[derive(Clone)]
pub(crate) struct ArrobaAccount {
    pub(crate) network: &'static Network,
    pub(crate) did: String,
    pub(crate) handle: String,
}

/// Returns the root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

impl Network {
    pub(crate) fn older() -> &'static Self {
        &OLDER
    }

    pub(crate) fn multikey() -> &'static Self {
        &MULTIKEY
    }

    /// Starts a network for one test that would disturb others.
    pub(crate) fn own(flags: &[&str]) -> &'static Self {
        Box::leak(Box::new(Self::start(flags)))
    }

    fn start(flags: &[&str]) -> Self {
        let process = testkit::network::Network::start(flags);
        Self {
            control: process.text("/control").to_owned(),
            process,
            names: AtomicUsize::new(0),
            arroba: OnceLock::new(),
            arroba_taken: AtomicUsize::new(0),
        }
    }

    /// Runs a control operation that has to succeed.
    #[track_caller]
    pub(crate) fn op(&self, operation: &str, body: Value) -> Value {
        self.try_op(operation, &body)
            .unwrap_or_else(|e| panic!("{operation} {body}: {e}"))
    }

    fn try_op(&self, operation: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}/{operation}", self.control);
        let body = body.to_string().into_bytes();
        let answer = try_request("POST", &url, &[], Some(body)).map_err(|e| e.to_string())?;
        match answer.status {
            200 => Ok(answer.json()),
            _ => Err(answer.text()),
        }
    }

    pub(crate) fn plc(&self) -> &str {
        self.process.text("/plc")
    }

    pub(crate) fn name_server(&self) -> &str {
        self.process.text("/dns")
    }

    pub(crate) fn pds_url(&self, pds: Pds) -> String {
        self.process.text(&format!("/pds/{pds}/url")).to_owned()
    }

    /// Returns the last sequence number of a PDS's firehose.
    pub(crate) fn seq(&self, pds: Pds) -> i64 {
        self.op("state", json!({}))["pds"][pds]["seq"]
            .as_i64()
            .expect("a PDS that runs")
    }

    /// Returns an unused name of at most 18 characters.
    pub(crate) fn name(&self, prefix: &str) -> String {
        let number = self.names.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}{number}");
        assert!(name.len() <= 18, "{name} is too long for a handle");
        name
    }

    /// Creates an account on a PDS, without a key package.
    pub(crate) fn account(&'static self, prefix: &str, pds: Pds) -> Account {
        self.make(prefix, pds, "account.create", Value::Null)
    }

    /// Creates an account with a key package of the given fields.
    pub(crate) fn enrolled(&'static self, prefix: &str, pds: Pds, package: Value) -> Account {
        self.make(prefix, pds, "account.create", package)
    }

    /// Creates an account whose DID is a did:web.
    pub(crate) fn web_account(&'static self, prefix: &str, pds: Pds, package: Value) -> Account {
        self.make(prefix, pds, "account.createWeb", package)
    }

    fn make(&'static self, prefix: &str, pds: Pds, operation: &str, key_package: Value) -> Account {
        let mut body = json!({"name": self.name(prefix), "pds": pds});
        if !key_package.is_null() {
            body["keyPackage"] = key_package;
        }
        let made = self.op(operation, body);
        Account {
            network: self,
            name: text(&made, "/name").to_owned(),
            did: text(&made, "/did").to_owned(),
            handle: text(&made, "/handle").to_owned(),
            made,
        }
    }

    /// Returns the URL of arroba, which the first call starts.
    pub(crate) fn arroba_url(&self) -> &str {
        text(self.arroba(), "/url")
    }

    /// Returns the password of all accounts on arroba.
    pub(crate) fn arroba_password(&self) -> &str {
        text(self.arroba(), "/token")
    }

    fn arroba(&self) -> &Value {
        self.arroba.get_or_init(|| {
            let handles: Vec<_> = (0..ARROBA_ACCOUNTS)
                .map(|number| format!("peer{number}.arroba.test"))
                .collect();
            self.op("peer.start", json!({"handles": handles}))
        })
    }

    /// Returns an account on arroba that no other test uses.
    pub(crate) fn arroba_account(&'static self) -> ArrobaAccount {
        let number = self.arroba_taken.fetch_add(1, Ordering::Relaxed);
        let account = &self.arroba()["accounts"][number];
        assert!(account.is_object(), "PEER_ACCOUNTS is too small");
        ArrobaAccount {
            network: self,
            did: text(account, "/did").to_owned(),
            handle: text(account, "/handle").to_owned(),
        }
    }

    /// Opens a port of the web host. Returns its URL and its did:web.
    pub(crate) fn site(&self) -> (String, String) {
        let site = self.op("web.open", json!({}));
        (
            text(&site, "/url").to_owned(),
            text(&site, "/did").to_owned(),
        )
    }

    /// Creates a mediator with a document and an endpoint that answers. Returns its DID.
    pub(crate) fn mediator(&self) -> String {
        let (url, did) = self.site();
        self.serve_mediator(&did, &url, &format!("{url}/didcomm"));
        did
    }

    /// Serves the document of a mediator at `url`.
    pub(crate) fn serve_mediator(&self, did: &str, url: &str, endpoint: &str) {
        let host = url.strip_prefix("http://").expect("a plain URL");
        let document = mediator_document(did, endpoint);
        self.op(
            "web.set",
            json!({"host": host, "path": "/.well-known/did.json", "body": document}),
        );
    }

    /// Returns the account's signing key from the DID directory, read independently of the service.
    pub(crate) fn signing_key(&self, did: &str) -> SigningKey {
        let url = format!("{}/{did}/data", self.plc());
        let data = request("GET", &url, &[], None).json();
        SigningKey::from_did_key(text(&data, "/verificationMethods/atproto")).expect("a key")
    }
}

/// Returns the document of a mediator with one key and one endpoint.
pub(crate) fn mediator_document(did: &str, endpoint: &str) -> Value {
    json!({
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": did,
        "verificationMethod": [{
            "id": format!("{did}#key-1"),
            "type": "Multikey",
            "controller": did,
            "publicKeyMultibase": MEDIATOR_KEY,
        }],
        "keyAgreement": [format!("{did}#key-1")],
        "service": [{
            "id": format!("{did}#didcomm"),
            "type": "DIDCommMessaging",
            "serviceEndpoint": {
                "uri": endpoint,
                "accept": ["didcomm/v2"],
                "routingKeys": [format!("{did}#key-1")],
            },
        }],
    })
}

/// An X25519 key: the base point, which any decoder accepts.
pub(crate) const MEDIATOR_KEY: &str = "z6LShs9GGnqk85isEBzzshkuVWrVKsRp24GnDuHk8QWkARMW";

impl Account {
    /// Runs a control operation on this account.
    #[track_caller]
    pub(crate) fn op(&self, operation: &str, mut body: Value) -> Value {
        body["account"] = json!(self.name);
        self.network.op(operation, body)
    }

    /// Writes a key package of the given fields. The answer has `cid` and `record`.
    #[track_caller]
    pub(crate) fn put(&self, fields: Value) -> Value {
        self.op("record.put", json!({"keyPackage": fields}))
    }

    /// Writes any record under the name of the key package.
    #[track_caller]
    pub(crate) fn put_raw(&self, record: Value) -> Value {
        self.op("record.put", json!({"record": record}))
    }

    /// Deletes the key package.
    #[track_caller]
    pub(crate) fn delete_record(&self) {
        self.op("record.delete", json!({}));
    }

    /// Writes a record unrelated to messaging.
    #[track_caller]
    pub(crate) fn write_note(&self, rkey: &str) {
        let record = json!({"$type": "at.example.note", "text": rkey});
        self.op(
            "record.put",
            json!({"collection": "at.example.note", "rkey": rkey, "record": record}),
        );
    }

    pub(crate) fn did(&self) -> Did {
        Did::parse(&self.did).expect("a DID")
    }
}

impl ArrobaAccount {
    /// Writes a key package of the given fields. The answer has `cid` and `record`.
    #[track_caller]
    pub(crate) fn put(&self, fields: Value) -> Value {
        self.network.op(
            "peer.put",
            json!({"handle": self.handle, "keyPackage": fields}),
        )
    }

    /// Deletes the key package.
    #[track_caller]
    pub(crate) fn delete_record(&self) {
        self.network
            .op("peer.delete", json!({"handle": self.handle}));
    }
}

/// Returns the text at a JSON pointer.
#[track_caller]
pub(crate) fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {value}"))
}
