//! Small real servers on loopback for tests: HTTP, TLS with a certificate authority of their own,
//! raw TCP, and a name server with answers set by the test.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use url::Url;

use atcomm_net::net::{Net, NetSettings, Request, Trust};
use atcomm_proto::clock::Clock;

/// The answer of the name server for one name.
#[derive(Clone)]
pub enum Answer {
    /// Text records.
    Txt(Vec<String>),
    /// Addresses of both families.
    Addresses(Vec<IpAddr>),
    /// An answer code without records: 2 is SERVFAIL, 3 NXDOMAIN.
    Code(u8),
    /// An answer code for IPv4 addresses only; other types have no records.
    CodeForA(u8),
    /// No answer at all.
    Silence,
}

/// A name server on loopback, over UDP and TCP. Names without a set answer do not exist.
#[derive(Clone)]
pub struct NameServer {
    /// The address of both protocols.
    pub address: SocketAddr,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
}

const A: u16 = 1;
const TXT: u16 = 16;
const AAAA: u16 = 28;

impl NameServer {
    /// Starts a server on a free port; it ends with the test's runtime.
    pub async fn start() -> Self {
        // Both protocols need the same port, so ports are tried until one is free for both.
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let server = Self {
            address: tcp.local_addr().unwrap(),
            answers: Arc::default(),
            asked: Arc::default(),
        };
        let over_udp = server.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((n, peer)) = udp.recv_from(&mut buffer).await {
                if let Some(answer) = over_udp.answer(&buffer[..n], 1232) {
                    udp.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        let over_tcp = server.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let server = over_tcp.clone();
                tokio::spawn(async move {
                    while let Ok(n) = stream.read_u16().await {
                        let mut question = vec![0; usize::from(n)];
                        stream.read_exact(&mut question).await.unwrap();
                        if let Some(answer) = server.answer(&question, 65_000) {
                            stream.write_u16(answer.len() as u16).await.unwrap();
                            stream.write_all(&answer).await.unwrap();
                        }
                    }
                });
            }
        });
        server
    }

    /// Sets the answer for a name.
    pub fn set(&self, name: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(name.to_owned(), answer);
    }

    /// Sets the text record that binds a handle to a DID.
    pub fn set_did(&self, handle: &str, did: &str) {
        self.set(
            &format!("_atproto.{handle}"),
            Answer::Txt(vec![format!("did={did}")]),
        );
    }

    /// Sets one address for a name.
    pub fn set_address(&self, name: &str, ip: &str) {
        self.set(name, Answer::Addresses(vec![ip.parse().unwrap()]));
    }

    /// Returns how many queries for an IPv4 address or a text record of the name have come.
    pub fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|(n, t)| n == name && *t != AAAA)
            .count()
    }

    fn answer(&self, question: &[u8], max: usize) -> Option<Vec<u8>> {
        let mut labels = Vec::new();
        let mut at = 12;
        while question[at] != 0 {
            let len = usize::from(question[at]);
            labels.push(String::from_utf8_lossy(&question[at + 1..=at + len]).to_lowercase());
            at += 1 + len;
        }
        let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
        let name = labels.join(".");
        let found = self.answers.lock().unwrap().get(&name).cloned();
        self.asked.lock().unwrap().push((name, kind));
        let mut code = 0;
        let records: Vec<Vec<u8>> = match found {
            None => {
                code = 3;
                vec![]
            }
            Some(Answer::Code(c)) => {
                code = c;
                vec![]
            }
            Some(Answer::CodeForA(c)) => {
                code = if kind == A { c } else { 0 };
                vec![]
            }
            Some(Answer::Silence) => return None,
            Some(Answer::Txt(texts)) if kind == TXT => texts.iter().map(|t| txt_data(t)).collect(),
            Some(Answer::Addresses(ips)) => ips
                .iter()
                .filter_map(|ip| match ip {
                    IpAddr::V4(v4) if kind == A => Some(v4.octets().to_vec()),
                    IpAddr::V6(v6) if kind == AAAA => Some(v6.octets().to_vec()),
                    _ => None,
                })
                .collect(),
            Some(Answer::Txt(_)) => vec![],
        };
        let build = |records: &[Vec<u8>], truncated: bool| {
            let mut out = question[..2].to_vec();
            out.extend([0x85 | (u8::from(truncated) << 1), code, 0, 1]);
            out.extend((records.len() as u16).to_be_bytes());
            out.extend([0, 0, 0, 0]);
            out.extend(&question[12..at + 5]);
            for data in records {
                out.extend([0xc0, 0x0c]);
                out.extend(kind.to_be_bytes());
                out.extend([0, 1, 0, 0, 0, 0]);
                out.extend((data.len() as u16).to_be_bytes());
                out.extend(data);
            }
            out
        };
        let whole = build(&records, false);
        Some(if whole.len() > max {
            build(&[], true)
        } else {
            whole
        })
    }
}

fn txt_data(text: &str) -> Vec<u8> {
    if text.is_empty() {
        return vec![0];
    }
    text.as_bytes()
        .chunks(255)
        .flat_map(|chunk| [&[chunk.len() as u8], chunk].concat())
        .collect()
}

/// Serves `router` on a free loopback port until the test's runtime ends.
pub async fn serve(router: Router) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    port
}

/// Passes every connection on a free loopback port to `each`.
pub async fn serve_raw<F>(each: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    port
}

/// A certificate authority made for one test.
pub struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    /// Generates a key and writes the certificate to a file.
    pub fn generate() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let authority = Self {
            certificate,
            issuer: rcgen::Issuer::new(params, key),
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::write(authority.file(), authority.certificate.pem()).unwrap();
        authority
    }

    /// Returns the path of the certificate in PEM.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Returns an acceptor of TLS connections for `names`.
    pub fn acceptor(&self, names: &[&str]) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let leaf = rcgen::CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Serves `router` over HTTPS for `names`.
    pub async fn serve(&self, names: &[&str], router: Router) -> u16 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let listener = TlsListener {
            tcp,
            acceptor: self.acceptor(names),
        };
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        port
    }
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, peer)) = self.tcp.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// Returns settings for a network on loopback.
pub fn development() -> NetSettings {
    NetSettings {
        development: true,
        timeout: Duration::from_secs(5),
        connect_timeout: Duration::from_secs(2),
        ..NetSettings::default()
    }
}

/// Binds a network with the system's clock.
pub fn bind(settings: NetSettings) -> Net {
    Net::bind(settings, Clock::system()).unwrap()
}

/// Parses a URL.
pub fn url(s: &str) -> Url {
    Url::parse(s).unwrap()
}

/// Returns a request for the untrusted URL `http://localhost:<port><path>` with an answer of at
/// most 64 KiB.
pub fn local(port: u16, path: &str) -> Request {
    Request::new(
        url(&format!("http://localhost:{port}{path}")),
        Trust::Untrusted,
        65_536,
    )
}
