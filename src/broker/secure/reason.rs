//! Why no TLS came about, in sentences that say what to mend.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::Security;
use crate::tls::date;

/// Names of a certificate that a sentence tells.
const MOST_NAMES: usize = 5;

impl Security {
    /// The reason, to go after "no TLS with HOST:".
    pub(super) fn reason(&self, error: &Error) -> String {
        if let Error::InvalidCertificate(error) = error {
            return self.distrust(error);
        }
        if let Error::AlertReceived(alert) = error {
            return self.alarm(*alert);
        }
        // The first bytes of AMQP are taken for the head of a record of some unknown type or size.
        if matches!(error, Error::InvalidMessage(_) | Error::PeerSentOversizedRecord) {
            return "what came is not TLS; is this the broker's TLS port? its plain one takes amqp://".to_owned();
        }
        if let Error::PeerIncompatible(lacking) = error {
            return incompatible(lacking);
        }
        format!("{error}")
    }

    /// Why we do not trust the broker's certificate.
    fn distrust(&self, error: &CertificateError) -> String {
        if let CertificateError::NotValidForNameContext { expected, presented } = error {
            let expected = expected.to_str();
            return match names(presented) {
                None => format!(
                    "the broker's certificate names no host at all; have it issued for {expected} (subjectAltName), or \
                     check broker.urls"
                ),
                Some(names) => format!(
                    "the broker's certificate is for {names} and not for {expected}; check broker.urls, or have it issued \
                     for that name too"
                ),
            };
        }
        if let CertificateError::ExpiredContext { not_after, .. } = error {
            let since = date(not_after.as_secs());
            return format!(
                "the broker's certificate expired at {since}; renew it, or check the clock of this machine"
            );
        }
        if let CertificateError::NotValidYetContext { not_before, .. } = error {
            let from = date(not_before.as_secs());
            return format!("the broker's certificate is not valid before {from}; check the clock of this machine");
        }
        if matches!(error, CertificateError::UnknownIssuer) {
            return match &self.ca_file {
                Some(path) => format!(
                    "none of the authorities in {} issued the broker's certificate; check broker.tls.ca_file, and that the \
                     broker sends the certificates in between",
                    path.display()
                ),
                None => {
                    "this system knows no authority that issued the broker's certificate; set broker.tls.ca_file to \
                         that authority's certificate"
                        .to_owned()
                }
            };
        }
        if matches!(error, CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose) {
            return "the broker's certificate is not meant for servers; have it issued with extendedKeyUsage serverAuth"
                .to_owned();
        }
        if format!("{error:?}").contains("CaUsedAsEndEntity") {
            return "the broker shows an authority's own certificate; have that authority issue one for the broker"
                .to_owned();
        }
        if format!("{error:?}").contains("UnsupportedCertVersion") {
            return "the broker's certificate is of X.509 version 1; have it issued with a subjectAltName, as version 3"
                .to_owned();
        }
        format!("the broker's certificate cannot be trusted ({error}); have it issued anew")
    }

    /// What the broker had against us. TLS gives it one word for that.
    fn alarm(&self, alert: AlertDescription) -> String {
        let word = format!("{alert:?}");
        if alert == AlertDescription::ProtocolVersion {
            return "the broker speaks neither TLS 1.2 nor TLS 1.3; allow one of them there (ssl_options.versions)"
                .to_owned();
        }
        if alert == AlertDescription::UnrecognisedName {
            return "the broker does not know itself by the host's name in broker.urls; check that".to_owned();
        }
        let about_us = [
            AlertDescription::BadCertificate,
            AlertDescription::UnsupportedCertificate,
            AlertDescription::CertificateRevoked,
            AlertDescription::CertificateExpired,
            AlertDescription::CertificateUnknown,
            AlertDescription::UnknownCA,
            AlertDescription::AccessDenied,
            AlertDescription::DecryptError,
        ];
        match &self.cert_file {
            Some(path) if about_us.contains(&alert) => format!(
                "the broker refused the certificate in {} ({word}); check that it is valid and that the broker knows its \
                 authority (ssl_options.cacertfile there)",
                path.display()
            ),
            // TLS 1.2 has no word of its own for a certificate that is missing.
            None if [AlertDescription::CertificateRequired, AlertDescription::HandshakeFailure].contains(&alert) => {
                "the broker demands a certificate of its clients; set broker.tls.cert_file and key_file".to_owned()
            }
            Some(_) | None => format!("the broker ended the connection ({word}); its log says why"),
        }
    }
}

/// A part of TLS that both sides do not have in common.
fn incompatible(lacking: &PeerIncompatible) -> String {
    let versions = [
        PeerIncompatible::ServerDoesNotSupportTls12Or13,
        PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        PeerIncompatible::Tls12NotOffered,
        PeerIncompatible::Tls12NotOfferedOrEnabled,
    ];
    if versions.contains(lacking) {
        return "the broker speaks neither TLS 1.2 nor TLS 1.3; allow one of them there (ssl_options.versions)"
            .to_owned();
    }
    format!("the broker and warrend have too little of TLS in common ({lacking:?}); allow modern ciphers there")
}

/// The names of a certificate, which come as `DnsName("localhost")` and `IpAddress(127.0.0.1)`.
fn names(presented: &[String]) -> Option<String> {
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        let inner = inner.trim_matches('"');
        inner.chars().filter(|c| !c.is_control()).take(255).collect::<String>()
    };
    let names: Vec<String> = presented.iter().take(MOST_NAMES).map(plain).collect();
    let more = presented.len().checked_sub(MOST_NAMES).filter(|more| *more > 0);
    let more = more.map_or_else(String::new, |more| format!(" and {more} more"));
    (!names.is_empty()).then(|| format!("{}{more}", names.join(", ")))
}
