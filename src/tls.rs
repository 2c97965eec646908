//! Whom to trust, and who we are: certificates and keys from files, for every part that speaks TLS.
//!
//! Nothing here connects to anything. Files are read when they are asked for, and kept by nobody, so that renewed ones need
//! no restart. Verification cannot be switched off: there is no way to say so.

#[cfg(test)]
pub mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};

/// Why files cannot be used: one sentence that names them.
#[derive(Debug)]
pub struct Fault {
    /// What the system said, where a file could not be read.
    pub unread: Option<io::ErrorKind>,
    sentence: String,
}

impl Fault {
    fn new(sentence: String) -> Self {
        Self { unread: None, sentence }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// The implementation of all ciphers and signatures.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// How a host is called in a certificate; `None` where it can stand in none.
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).ok()
}

/// The certificates of those who may vouch for a peer: of the file, or else the system's.
pub fn authorities(ca_file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, Fault> {
    if let Some(path) = ca_file {
        return read_certificates("ca_file", path);
    }
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let sentence = "the system has no certificates to trust: install ca-certificates, or set ca_file";
        return Err(Fault::new(sentence.to_owned()));
    }
    Ok(found.certs)
}

/// The certificates of a `cert_file`, our own first.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    read_certificates("cert_file", path)
}

/// Reads a file of at least one certificate. `key`: as the configuration calls it.
fn read_certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let text = read(key, path)?;
    // A file may hold more than certificates.
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|_| Fault::new(format!("the {key} {} is not a PEM file", path.display())))?;
    if found.is_empty() {
        return Err(Fault::new(format!("the {key} {} holds no certificate", path.display())));
    }
    Ok(found)
}

fn read(key: &str, path: &Path) -> Result<Vec<u8>, Fault> {
    std::fs::read(path).map_err(|error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or_default().to_lowercase();
        Fault { unread: Some(error.kind()), sentence: format!("the {key} {} cannot be read: {text}", path.display()) }
    })
}

/// A certificate of ours with the key that belongs to it.
#[derive(Debug)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads a certificate, with those that it takes to reach an authority after it, and its key in PKCS#8, PKCS#1 or SEC1.
    pub fn read(cert_file: &Path, key_file: &Path) -> Result<Self, Fault> {
        let chain = certificates(cert_file)?;
        let key = private_key(key_file)?;
        let (cert, shown) = (cert_file.display(), key_file.display());
        let key = ring::default_provider().key_provider.load_private_key(key).map_err(|_| {
            Fault::new(format!(
                "the key_file {shown} holds a key that cannot be used: it must be RSA of at least 2048 bits, ECDSA with \
                 P-256 or P-384, or Ed25519"
            ))
        })?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Self(Arc::new(pair))),
            Err(Error::InconsistentKeys(_)) => Err(Fault::new(format!(
                "the key_file {shown} does not belong to the certificate in the cert_file {cert}"
            ))),
            Err(error) => {
                let why = certificate_trouble(&error);
                Err(Fault::new(format!("the cert_file {cert} holds a certificate that cannot be used: {why}")))
            }
        }
    }

    /// For a client that shows it.
    pub fn pair(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0)
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    let text = read("key_file", path)?;
    let fault = |what: &str| Err(Fault::new(format!("the key_file {} {what}", path.display())));
    let marked = |mark: &str| text.windows(mark.len()).any(|part| part == mark.as_bytes());
    match PrivateKeyDer::from_pem_slice(&text) {
        // The password would have to stand in a file beside it.
        _ if marked("BEGIN ENCRYPTED") || marked("4,ENCRYPTED") => {
            fault("is encrypted: store it decrypted, with `openssl pkey -in OLD -out NEW`")
        }
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => fault("holds no private key"),
        Err(_) => fault("is not a PEM file"),
    }
}

/// What is wrong with a certificate that could not even be taken apart.
fn certificate_trouble(error: &Error) -> String {
    if matches!(error, Error::InvalidCertificate(CertificateError::BadEncoding)) {
        return "it is damaged".to_owned();
    }
    // The commonest: made with `openssl x509 -req` and no extensions.
    if format!("{error:?}").contains("UnsupportedCertVersion") {
        return "it is of X.509 version 1; have it issued with extensions, which makes it version 3".to_owned();
    }
    format!("{error}")
}

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from: u64,
    /// The last second; `None`: for ever.
    pub until: Option<u64>,
}

/// `None` where the certificate cannot be taken apart.
///
/// The library tells a date only where it stands against the certificate, so it is asked about the first second of time and
/// about the last that a certificate can name. It looks at the dates before anything else, so it needs no authority.
pub fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    const YEAR_10000: u64 = 253_402_300_800;
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    let judge = |second: u64| {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(second));
        let judged = verify_server_cert_signed_by_trust_anchor(&parsed, &RootCertStore::empty(), &[], at, &[]);
        match judged {
            Err(Error::InvalidCertificate(error)) => Some(error),
            Ok(()) | Err(_) => None,
        }
    };
    let (first, last) = (judge(0)?, judge(YEAR_10000 - 1)?);
    let from =
        if let CertificateError::NotValidYetContext { not_before, .. } = first { not_before.as_secs() } else { 0 };
    let until =
        if let CertificateError::ExpiredContext { not_after, .. } = last { Some(not_after.as_secs()) } else { None };
    Some(Validity { from, until })
}

/// A second since 1970 as the date of a certificate is told.
pub fn date(second: u64) -> String {
    let time = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    time.map_or_else(|| "an unknown time".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string())
}
