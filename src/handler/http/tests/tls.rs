//! Who is trusted.

use std::fs;
use std::path::PathBuf;

use rustls::ALL_VERSIONS;

use super::server::fine;
use super::*;
use crate::tls::tests::Authority;

/// A server that this authority has certified for that host.
fn server(authority: &Authority, host: &str, steps: usize) -> Setup {
    let certified = Arc::new(authority.issue(&[host]).server(ALL_VERSIONS, None));
    let server = Server::start_tls((0..steps).map(|_| fine()).collect(), certified);
    let config = config(&format!("https://{}/s3cret", server.address));
    Setup { server, config, context: context(), stop: Stop::new().unwrap() }
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn an_authority_that_is_configured_is_trusted() {
    let authority = Authority::new("ours");
    let mut setup = server(&authority, "127.0.0.1", 3);
    let (_folder, path) = file(&format!("# ours\n{}", authority.pem()));
    setup.config.ca_file = Some(path);
    let mut handler = setup.handler();
    for _ in 0..3 {
        assert_eq!(handler.run(&input(&keyed(b"body")), &setup.stop), Outcome::Done.into());
        let seen = setup.server.seen();
        assert_eq!((seen.connection, &*seen.body), (1, &b"body"[..]));
    }
}

#[test]
fn nobody_else_is_trusted() {
    let refused = |setup: Setup, why: &str| {
        let (outcome, class, error) = failure(setup.send(&keyed(b"body")));
        assert_eq!((outcome, class), ("retry", ErrorClass::Failed));
        let expected = format!("no TLS with {}: invalid peer certificate: {why}", setup.server.address);
        assert!(error.starts_with(&expected) && !error.contains("s3cret"), "{error}");
        assert!(setup.server.rest().is_empty(), "nothing was sent");
    };
    let authority = Authority::new("ours");
    // The system does not know it.
    refused(server(&authority, "127.0.0.1", 1), "UnknownIssuer");
    let (_folder, path) = file(&Authority::new("theirs").pem());
    let mut setup = server(&authority, "127.0.0.1", 1);
    setup.config.ca_file = Some(path);
    refused(setup, "UnknownIssuer");
    let other = Authority::new("ours");
    let (_folder, path) = file(&other.pem());
    let mut setup = server(&other, "example.org", 1);
    setup.config.ca_file = Some(path);
    refused(setup, "certificate not valid for name");
}

#[test]
fn a_server_without_tls_gets_nothing() {
    let mut setup = Setup::new(vec![fine()]);
    setup.config.url = setup.config.url.replace("http:", "https:");
    setup.config.timeout = Duration::from_secs(2);
    let (outcome, _, error) = failure(setup.send(&keyed(b"body")));
    assert_eq!(outcome, "retry");
    assert!(setup.server.rest().is_empty(), "{error}");
}

#[test]
fn a_ca_file_that_is_none_breaks_the_handler_until_it_is_one() {
    let authority = Authority::new("ours");
    let mut setup = server(&authority, "127.0.0.1", 1);
    let (_folder, path) = file("");
    setup.config.ca_file = Some(path.clone());
    let mut handler = setup.handler();
    let mut run = || handler.run(&input(&keyed(b"")), &setup.stop);
    let named = |why: &str, what: &str| assert_eq!(why, format!("the ca_file {} {what}", path.display()));
    named(&broken(run()), "holds no certificate");
    fs::write(&path, "-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----\n").unwrap();
    named(&broken(run()), "is not a PEM file");
    fs::remove_file(&path).unwrap();
    assert!(broken(run()).starts_with(&format!("the ca_file {} cannot be read: ", path.display())));
    fs::write(&path, authority.pem()).unwrap();
    assert_eq!(run(), Outcome::Done.into());
}
