//! The one TLS configuration of all outbound connections.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::error::NetError;

/// Trusts the public authorities and those in `extra_ca`. Reads the file now: a later change of it
/// needs a restart.
pub(super) fn client_config(extra_ca: Option<&Path>) -> Result<ClientConfig, NetError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = extra_ca {
        let unusable = |reason: String| NetError::Settings(format!("{}: {reason}", path.display()));
        let mut found = false;
        for certificate in
            CertificateDer::pem_file_iter(path).map_err(|e| unusable(e.to_string()))?
        {
            let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
            roots
                .add(certificate)
                .map_err(|e| unusable(e.to_string()))?;
            found = true;
        }
        if !found {
            return Err(unusable("no certificate in this file".to_owned()));
        }
    }
    let provider = ring::default_provider();
    // Libraries that ask for the process's provider must find this one. Whoever was first wins;
    // in this process that is always the same one.
    let _ = provider.clone().install_default();
    Ok(ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| NetError::Settings(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
