//! The one TLS configuration of all outbound connections.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::error::{AuthoritiesError, SettingsError};

/// Returns a configuration that trusts the public authorities and those in the file `extra_ca`. The
/// file is read once: a later change needs a restart.
pub(super) fn client_config(extra_ca: Option<&Path>) -> Result<ClientConfig, SettingsError> {
    let mut roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    if let Some(path) = extra_ca {
        add_authorities(&mut roots, path).map_err(|error| SettingsError::Authorities {
            path: path.to_owned(),
            error,
        })?;
    }
    let provider = ring::default_provider();
    // Libraries that use the provider of the process must find this one. Only the first call has an
    // effect; all calls install the same provider.
    provider.clone().install_default().ok();
    Ok(ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(SettingsError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Adds the certificates of a file.
fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), AuthoritiesError> {
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
        found = true;
    }
    if found {
        Ok(())
    } else {
        Err(AuthoritiesError::NoCertificate)
    }
}
