//! A proxy in front of a real server: it relays TCP, optionally with TLS towards the client and
//! with a rule that may change or drop bytes. All answers come from the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy, split};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::http::RUNTIME;

/// Decides about bytes that a client sends: returns the bytes to pass on, or `None` to withhold
/// them.
type Rule = dyn Fn(Vec<u8>) -> Option<Vec<u8>> + Send + Sync;

/// A proxy that runs until the tests end.
pub(crate) struct Proxy {
    pub(crate) port: u16,
}

impl Proxy {
    /// Starts a proxy without TLS, with a rule.
    pub(crate) fn new(
        to: &str,
        rule: impl Fn(Vec<u8>) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::start(to, None, Arc::new(rule))
    }

    /// Starts a proxy with TLS.
    pub(crate) fn tls(to: &str, authority: &Authority, names: &[&str]) -> Self {
        Self::start(to, Some(authority.acceptor(names)), Arc::new(Some))
    }

    fn start(to: &str, acceptor: Option<TlsAcceptor>, rule: Arc<Rule>) -> Self {
        let to = to
            .trim_start_matches("http://")
            .replace("localhost", "127.0.0.1");
        let to: SocketAddr = to.parse().expect("an address");
        let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("a port").port();
        RUNTIME.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, rule) = (acceptor.clone(), Arc::clone(&rule));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(to).await else {
                        return;
                    };
                    match acceptor {
                        None => join(client, server, &*rule).await,
                        Some(acceptor) => {
                            if let Ok(client) = acceptor.accept(client).await {
                                join(client, server, &*rule).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port }
    }

    pub(crate) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.port)
    }
}

/// Relays bytes until either side ends.
async fn join(client: impl AsyncRead + AsyncWrite, server: TcpStream, rule: &Rule) {
    let (mut from_client, mut to_client) = split(client);
    let (mut from_server, mut to_server) = split(server);
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let Some(bytes) = rule(buffer[..read].to_vec()) else {
                return std::future::pending().await;
            };
            if to_server.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    let back = async {
        // The other direction may end here, since the side that ended first has sent all of its
        // bytes.
        drop(copy(&mut from_server, &mut to_client).await);
        drop(to_client.shutdown().await);
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

/// A certificate authority made for one test.
pub(crate) struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let authority = Self {
            issuer: rcgen::Issuer::new(params, key),
            dir: TempDir::new().expect("a temporary directory"),
        };
        std::fs::write(authority.file(), certificate.pem()).expect("a file");
        authority
    }

    /// Returns the path of the certificate, for `net.extra_ca_file`.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = rcgen::CertificateParams::new(names).expect("names");
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .expect("a certificate with its key");
        TlsAcceptor::from(Arc::new(config))
    }
}
