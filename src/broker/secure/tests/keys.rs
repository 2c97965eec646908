//! Keys that change, and keys that are used up.

use std::io::{ErrorKind, Write};
use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuiteCommon, SupportedCipherSuite, Tls12CipherSuite, Tls13CipherSuite, version};

use super::pair::{Pair, write_out};

/// The peer's new keys are answered, at the latest with the next bytes, while reading goes on.
#[test]
fn keys_are_changed_while_the_socket_is_full() {
    let mut pair = Pair::new();
    pair.wire().full = true;
    for round in 0..3 {
        pair.server.refresh_traffic_keys().unwrap();
        pair.server_says(format!("after change {round}").as_bytes());
        let (found, end) = pair.read();
        assert_eq!(found, format!("after change {round}").into_bytes());
        assert_eq!(end.unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(pair.wire().to_server.is_empty());
    }
    let mut outbuf = b"under new keys".to_vec();
    assert!(write_out(&mut pair.stream, &mut outbuf).unwrap());
    pair.wire().full = false;
    assert!(!write_out(&mut pair.stream, &mut outbuf).unwrap());
    assert_eq!(pair.received(), b"under new keys");
}

/// After so many records keys are used up.
const RECORDS: u64 = 20;

// A suite of rustls lives as long as the program.
static TLS12: LazyLock<Vec<Tls12CipherSuite>> = LazyLock::new(|| {
    let worn = |suite: &SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls12(suite) => Some(Tls12CipherSuite { common: worn(&suite.common), ..**suite }),
        SupportedCipherSuite::Tls13(_) => None,
    };
    ring::ALL_CIPHER_SUITES.iter().filter_map(worn).collect()
});
static TLS13: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
    let worn = |suite: &SupportedCipherSuite| match suite {
        SupportedCipherSuite::Tls13(suite) => Some(Tls13CipherSuite { common: worn(&suite.common), ..**suite }),
        SupportedCipherSuite::Tls12(_) => None,
    };
    ring::ALL_CIPHER_SUITES.iter().filter_map(worn).collect()
});

fn worn(common: &CipherSuiteCommon) -> CipherSuiteCommon {
    CipherSuiteCommon { confidentiality_limit: RECORDS, suite: common.suite, hash_provider: common.hash_provider }
}

/// A provider whose keys are used up after [`RECORDS`].
fn short_lived() -> Arc<CryptoProvider> {
    let suites = TLS13.iter().map(SupportedCipherSuite::Tls13).chain(TLS12.iter().map(SupportedCipherSuite::Tls12));
    Arc::new(CryptoProvider { cipher_suites: suites.collect(), ..ring::default_provider() })
}

#[test]
fn keys_that_are_used_up_are_changed_or_end_the_connection() {
    let mut pair = Pair::with(short_lived(), &version::TLS13);
    for round in 0..100 {
        pair.stream.write_all(&[round]).unwrap();
        assert_eq!(pair.received(), [round]);
        pair.server_sends();
        let _ = pair.read();
    }
    let mut pair = Pair::with(short_lived(), &version::TLS12);
    let written = (0..100).find(|round| match pair.stream.write(&[*round]) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WriteZero);
            true
        }
    });
    let written: u8 = written.expect("TLS 1.2 has no way to change keys");
    let received = pair.received().len();
    assert!(received == 19 && written <= 20, "{written} {received}");
}
