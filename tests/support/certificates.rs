//! An authority of a test's own, and the certificates that it issues.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::ToSpan as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};

/// Issues certificates into a folder, as PEM files.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// When a certificate is valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Now,
    Past,
    Future,
    /// Now, and for ten days more.
    Soon,
}

impl Authority {
    /// Writes `NAME.ca.pem`.
    pub fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new([]).expect("no names are good names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a key can sign");
        fs::write(folder.join(format!("{name}.ca.pem")), issuer.pem()).expect("the folder is writable");
        Self { issuer, folder: folder.to_owned() }
    }

    /// Writes `NAME.pem` and `NAME.key`: a certificate for these hosts, with `name` as its common name.
    pub fn issue(&self, name: &str, hosts: &[&str], valid: Validity) {
        self.issue_as(name, name, hosts, valid);
    }

    /// The same with another common name.
    pub fn issue_as(&self, name: &str, common_name: &str, hosts: &[&str], valid: Validity) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("hosts of a test are names or addresses");
        params.distinguished_name.push(DnType::CommonName, common_name);
        match valid {
            Validity::Now => {}
            Validity::Past => params.not_after = date_time_ymd(2024, 2, 3),
            Validity::Future => params.not_before = date_time_ymd(2093, 4, 5),
            Validity::Soon => {
                let (year, month, day) = in_ten_days();
                params.not_after = date_time_ymd(year, month, day);
            }
        }
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("a key can sign");
        let write = |kind: &str, text: String| {
            fs::write(self.folder.join(format!("{name}.{kind}")), text).expect("the folder is writable");
        };
        write("pem", certificate.pem());
        write("key", key.serialize_pem());
    }
}

/// Year, month and day.
fn in_ten_days() -> (i32, u8, u8) {
    let day = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date().saturating_add(10.days());
    let unsigned = |part: i8| u8::try_from(part).expect("months and days are positive");
    (day.year().into(), unsigned(day.month()), unsigned(day.day()))
}
