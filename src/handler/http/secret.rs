//! Signatures by which a receiver knows that a request is ours, as Standard Webhooks has them.
//!
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use std::fs::File;
use std::io::Read;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What stands before the key in its file.
const PREFIX: &str = "whsec_";
/// Bytes of a secret file, at most; a key of 64 bytes, the longest that the specification asks for, has 94.
const MAX_FILE: u64 = 4096;

/// A key that the receiver has too.
pub struct Secret(Vec<u8>);

impl Secret {
    /// Reads a file with one line. An error is a sentence that names the file, and never what is in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE).read_to_end(&mut text))
            .map_err(|error| format!("the secret_file {shown} cannot be read: {error}"))?;
        let key = str::from_utf8(&text).ok().and_then(|text| text.trim().strip_prefix(PREFIX));
        let key = key.and_then(|base64| STANDARD.decode(base64).ok()).filter(|key| !key.is_empty());
        key.map(Self).ok_or_else(|| format!("the secret_file {shown} is not one line of `{PREFIX}` and base64"))
    }

    /// The value of `webhook-signature`.
    pub fn sign(&self, id: &str, seconds: i64, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}
