//! Which certificates a server may show: the system's, or those of `ca_file` in their place.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustls::crypto::ring;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

use super::request::Target;

/// What TLS connections are made with. Verification cannot be switched off.
#[derive(Debug)]
pub struct Trust(Option<Arc<Vec<Certificate<'static>>>>);

/// The system's certificates, read once for all who use them at one time: they are some 300 KiB.
static SYSTEM: Mutex<Weak<Vec<Certificate<'static>>>> = Mutex::new(Weak::new());

impl Trust {
    /// Reads the certificates, where the target asks for TLS. An error is a sentence that names the file.
    pub fn new(target: &Target, ca_file: Option<&Path>) -> Result<Self, String> {
        if !target.is_tls() {
            return Ok(Self(None));
        }
        let roots = ca_file.map_or_else(of_the_system, of_file)?;
        Ok(Self(Some(roots)))
    }

    /// For the client.
    pub fn tls(&self) -> TlsConfig {
        let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()));
        let roots = self.0.clone().unwrap_or_default();
        builder.root_certs(RootCerts::Specific(roots)).build()
    }
}

fn of_file(path: &Path) -> Result<Arc<Vec<Certificate<'static>>>, String> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|error| format!("the ca_file {shown} cannot be read: {error}"))?;
    let mut roots = Vec::new();
    for item in parse_pem(&text) {
        match item {
            Ok(PemItem::Certificate(certificate)) => roots.push(certificate),
            // A file may hold more than certificates.
            Ok(_) => {}
            Err(_) => return Err(format!("the ca_file {shown} is not a PEM file")),
        }
    }
    if roots.is_empty() {
        return Err(format!("the ca_file {shown} holds no certificate"));
    }
    Ok(Arc::new(roots))
}

fn of_the_system() -> Result<Arc<Vec<Certificate<'static>>>, String> {
    let mut shared = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = shared.upgrade() {
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err("the system has no certificates to trust: install ca-certificates, or set ca_file".to_owned());
    }
    let roots = found.certs.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let roots = Arc::new(roots);
    *shared = Arc::downgrade(&roots);
    Ok(roots)
}
