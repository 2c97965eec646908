//! `warrend check` looks into the certificates and keys that the configuration names. A start does not: their files are read
//! at each connect, and one that is not there yet may come.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::place::Place;
use super::section::{Got, Reader};
use super::value::days;
use crate::tls::{self, Fault, Identity, Validity};

/// A certificate that ends within this time is told: half of what most authorities that renew by themselves leave.
const SOON: Duration = days(30);
/// Where systemd puts credentials, as long as their service runs.
const CREDENTIALS: &str = "/run/credentials/";
/// What may be done with a file by those who are neither its owner nor of its group.
const BY_OTHERS: u32 = 0o007;

/// Judges the files of `[broker.tls]`, as far as they are named.
pub fn judge_tls(
    reader: &Reader<'_>,
    ca_file: &Got<Option<PathBuf>>,
    cert_file: &Got<Option<PathBuf>>,
    key_file: &Got<Option<PathBuf>>,
) {
    if let (Some(path), Some(place)) = (&ca_file.value, ca_file.at)
        && let Err(fault) = tls::authorities(Some(path))
    {
        note(reader, path, place, &fault);
    }
    let certificate = cert_file.value.as_deref().zip(cert_file.at);
    let key = key_file.value.as_deref().zip(key_file.at);
    if let Some((path, place)) = key {
        judge_secrecy(reader, path, place);
    }
    let (Some((cert_path, cert_place)), Some((key_path, key_place))) = (certificate, key) else { return };
    // What is wrong is told where its file is named.
    let chain = tls::certificates(cert_path);
    match &chain {
        Ok(chain) => chain.iter().filter_map(tls::validity).for_each(|valid| judge_validity(reader, valid, cert_place)),
        Err(fault) => note(reader, cert_path, cert_place, fault),
    }
    if chain.is_ok()
        && let Err(fault) = Identity::read(cert_path, key_path)
    {
        note(reader, key_path, key_place, &fault);
    }
}

fn note(reader: &Reader<'_>, path: &Path, place: Place, fault: &Fault) {
    match fault.unread {
        Some(ErrorKind::PermissionDenied) => {
            let help = "run this check as the user of the daemon, or let that user read the file";
            reader.warn(place, fault.to_string(), help);
        }
        Some(ErrorKind::NotFound) if path.starts_with(CREDENTIALS) => {
            let help = "it is there while the service runs and has it in LoadCredential=";
            reader.warn(place, fault.to_string(), help);
        }
        Some(_) => reader.error(place, fault.to_string(), "check the path, and that the file is there"),
        None => reader.error(place, fault.to_string(), "docs/TLS.md says how to make the files"),
    }
}

fn judge_validity(reader: &Reader<'_>, valid: Validity, place: Place) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let expired = valid.until.filter(|until| *until < now);
    if let Some(until) = expired {
        let message = format!("a certificate in this file expired at {}", tls::date(until));
        reader.error(place, message, "renew it: the broker will refuse it");
    } else if valid.from > now {
        let message = format!("a certificate in this file is not valid before {}", tls::date(valid.from));
        reader.error(place, message, "wait until then, or check the clock of this machine");
    } else if let Some(until) = valid.until.filter(|until| *until < now + SOON.as_secs()) {
        let message = format!("a certificate in this file expires at {}", tls::date(until));
        reader.warn(place, message, "renew it in time; a running daemon takes the new file at its next connect");
    }
}

fn judge_secrecy(reader: &Reader<'_>, path: &Path, place: Place) {
    // What cannot be looked at cannot be read either, which is told then.
    let Ok(metadata) = std::fs::metadata(path) else { return };
    if metadata.permissions().mode() & BY_OTHERS != 0 {
        let help = format!("chmod o= {}", path.display());
        reader.warn(place, "every user of this machine can read or change this private key", help);
    }
}
