//! Certificates of the tests' own making, for this module and for those that use it; and what is read of files.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::server::WebPkiClientVerifier;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;

use super::*;

/// Who issues certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Issued {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For hosts of these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        self.certify(KeyPair::generate().unwrap(), names, change)
    }

    pub fn certify(&self, key: KeyPair, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        Issued { certificate: params.signed_by(&key, &self.0).unwrap(), key }
    }

    /// The authority's own certificate, as one of a server.
    pub fn as_issued(&self) -> Issued {
        let key = KeyPair::from_pem(&self.0.key().serialize_pem()).unwrap();
        Issued { certificate: AsRef::<rcgen::Certificate>::as_ref(&self.0).clone(), key }
    }
}

impl Issued {
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// For a server whose certificate is of version 1.
    pub fn old_server() -> ServerConfig {
        let certificate = CertificateDer::from_pem_slice(EC_V1.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(EC_PKCS8.as_bytes()).unwrap();
        let key = ring::default_provider().key_provider.load_private_key(key).unwrap();
        let pair = rustls::sign::SingleCertAndKey::from(CertifiedKey::new(vec![certificate], key));
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        builder.with_no_client_auth().with_cert_resolver(Arc::new(pair))
    }

    /// For a server; with `clients` it demands certificates of theirs.
    pub fn server(&self, versions: &[&'static SupportedProtocolVersion], clients: Option<&Authority>) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.0.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        builder.with_single_cert(vec![self.certificate.der().clone()], key).unwrap()
    }
}

/// Files of one test.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `NAME.pem` and `NAME.key`
    pub fn write_pair(&self, name: &str, issued: &Issued) -> (PathBuf, PathBuf) {
        let certificate = self.write(&format!("{name}.pem"), &issued.pem());
        (certificate, self.write(&format!("{name}.key"), &issued.key.serialize_pem()))
    }
}

/// A date that is `days` from today, at midnight.
pub fn in_days(certificate_date: i64) -> (i32, u8, u8) {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let date = now.date() + jiff::Span::new().days(certificate_date);
    (date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
}

/// Valid from `from` to `until`, each in days from today.
pub fn valid(from: i64, until: i64) -> impl FnOnce(&mut CertificateParams) {
    move |params| {
        let date = |days| {
            let (year, month, day) = in_days(days);
            date_time_ymd(year, month, day)
        };
        (params.not_before, params.not_after) = (date(from), date(until));
    }
}

const RSA_PKCS1: &str = include_str!("tests/rsa.pkcs1.pem");
const RSA_PKCS8: &str = include_str!("tests/rsa.pkcs8.pem");
const EC_SEC1: &str = include_str!("tests/ec.sec1.pem");
const EC_PKCS8: &str = include_str!("tests/ec.pkcs8.pem");
/// Of version 1, as `openssl x509 -req` makes it without extensions; its key is that of the others.
const EC_V1: &str = include_str!("tests/ec.v1.pem");
const ENCRYPTED: &str = include_str!("tests/ec.encrypted.pem");

#[test]
fn keys_are_read_in_every_form_that_openssl_writes() {
    let (files, authority) = (Files::new(), Authority::new("ours"));
    for (pkcs8, forms) in [(RSA_PKCS8, [RSA_PKCS8, RSA_PKCS1]), (EC_PKCS8, [EC_PKCS8, EC_SEC1])] {
        let issued = authority.certify(KeyPair::from_pem(pkcs8).unwrap(), &["client"], |_| {});
        let cert_file = files.write("cert.pem", &format!("{}{}", issued.pem(), authority.pem()));
        for form in forms {
            let identity = Identity::read(&cert_file, &files.write("key.pem", form)).unwrap();
            assert_eq!(identity.pair().cert.len(), 2);
            // Both in one file, as some authorities deliver them.
            let both = files.write("both.pem", &format!("{}{form}", issued.pem()));
            Identity::read(&both, &both).unwrap();
        }
    }
}

#[test]
fn what_is_wrong_with_a_file_is_said_with_its_name() {
    let (files, authority) = (Files::new(), Authority::new("ours"));
    let issued = authority.issue(&["client"]);
    let (cert_file, key_file) = files.write_pair("client", &issued);
    Identity::read(&cert_file, &key_file).unwrap();
    let check = |cert_file: &Path, key_file: &Path, expect: &str| {
        let sentence = Identity::read(cert_file, key_file).unwrap_err().to_string();
        let expect = expect.replace("CERT", &cert_file.display().to_string());
        let expect = expect.replace("KEY", &key_file.display().to_string());
        assert!(sentence.starts_with(&expect), "{sentence}\n{expect}");
        assert!(!sentence.contains('\n') && !sentence.ends_with('.'), "{sentence}");
    };
    let missing = PathBuf::from("/nowhere/x.pem");
    check(&missing, &key_file, "the cert_file CERT cannot be read: no such file or directory");
    check(&cert_file, &missing, "the key_file KEY cannot be read: no such file or directory");
    assert_eq!(Identity::read(&cert_file, &missing).unwrap_err().unread, Some(io::ErrorKind::NotFound));
    check(&cert_file, &cert_file, "the key_file KEY holds no private key");
    check(&key_file, &key_file, "the cert_file CERT holds no certificate");
    check(&files.write("empty", ""), &key_file, "the cert_file CERT holds no certificate");
    let torn: String = issued.pem().lines().take(3).collect::<Vec<_>>().join("\n");
    check(&files.write("torn", &torn), &key_file, "the cert_file CERT is not a PEM file");
    let torn = "-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n";
    check(&cert_file, &files.write("torn.key", torn), "the key_file KEY is not a PEM file");
    let empty = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    check(
        &files.write("bad", empty),
        &key_file,
        "the cert_file CERT holds a certificate that cannot be used: it is damaged",
    );
    let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    check(&cert_file, &files.write("bad.key", empty), "the key_file KEY holds a key that cannot be used");
    check(&cert_file, &files.write("locked.key", ENCRYPTED), "the key_file KEY is encrypted");
    let old = files.write("v1.pem", EC_V1);
    let why = "the cert_file CERT holds a certificate that cannot be used: it is of X.509 version 1; have it issued";
    check(&old, &files.write("v1.key", EC_PKCS8), why);
    let other = files.write("other.key", &authority.issue(&["client"]).key.serialize_pem());
    check(&cert_file, &other, "the key_file KEY does not belong to the certificate in the cert_file CERT");
}

#[test]
fn authorities_are_those_of_the_file() {
    let files = Files::new();
    let text = format!("# two\n{}{}", Authority::new("one").pem(), Authority::new("two").pem());
    assert_eq!(authorities(Some(&files.write("ca.pem", &text))).unwrap().len(), 2);
    let empty = files.write("empty.pem", EC_PKCS8);
    let sentence = authorities(Some(&empty)).unwrap_err().to_string();
    assert_eq!(sentence, format!("the ca_file {} holds no certificate", empty.display()));
}

#[test]
fn the_dates_of_a_certificate_are_found() {
    let authority = Authority::new("ours");
    let issued = authority.issue_with(&["client"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2051, 12, 31);
    });
    let found = validity(issued.certificate.der()).unwrap();
    assert_eq!(
        (date(found.from), found.until.map(date)),
        ("2020-01-01 00:00 UTC".to_owned(), Some("2051-12-31 00:00 UTC".to_owned()))
    );
    let passed = authority.issue_with(&["client"], |params| params.not_after = date_time_ymd(2001, 2, 3));
    assert_eq!(validity(passed.certificate.der()).unwrap().until.map(date).as_deref(), Some("2001-02-03 00:00 UTC"));
    // An authority's own certificate has dates too.
    assert!(validity(authority.as_issued().certificate.der()).unwrap().until.is_some());
    assert_eq!(validity(&CertificateDer::from(vec![1, 2, 3])), None);
}

#[test]
fn names_of_hosts_and_addresses_can_stand_in_a_certificate() {
    for host in ["localhost", "rabbit.example.org", "rabbit.example.org.", "my_rabbit-1", "10.0.0.1", "::1"] {
        assert!(server_name(host).is_some(), "{host}");
    }
    for host in ["", "a..b", "-", "[::1]"] {
        assert!(server_name(host).is_none(), "{host}");
    }
}
