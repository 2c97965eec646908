//! Which certificates a server may show: the system's, or those of `ca_file` in their place.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::request::Target;
use crate::tls;

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
        let builder = TlsConfig::builder().unversioned_rustls_crypto_provider(tls::provider());
        let roots = self.0.clone().unwrap_or_default();
        builder.root_certs(RootCerts::Specific(roots)).build()
    }
}

fn of_file(path: &Path) -> Result<Arc<Vec<Certificate<'static>>>, String> {
    read(Some(path)).map(Arc::new)
}

fn of_the_system() -> Result<Arc<Vec<Certificate<'static>>>, String> {
    let mut shared = SYSTEM.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(roots) = shared.upgrade() {
        return Ok(roots);
    }
    let roots = Arc::new(read(None)?);
    *shared = Arc::downgrade(&roots);
    Ok(roots)
}

fn read(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, String> {
    let found = tls::authorities(ca_file).map_err(|fault| fault.to_string())?;
    Ok(found.iter().map(|root| Certificate::from_der(root).to_owned()).collect())
}
