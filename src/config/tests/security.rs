//! The files of `[broker.tls]`, which `warrend check` looks into and a start does not.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::tls::tests::{Authority, Issued, valid};

/// A folder whose `[broker.tls]` names `ca.pem`, `client.pem` and `client.key`, all of them good.
fn secured(issued: &Issued) -> Folder {
    let text = "broker.urls = [\"amqps://h\"]
[broker.tls]
ca_file = \"ca.pem\"
cert_file = \"client.pem\"
key_file = \"client.key\"
auth = \"external\"
[jobs.a]
queue = \"q\"
handler.discard = true
";
    let folder = Folder::new(text).with("ca.pem", &Authority::new("ours").pem()).with("client.pem", &issued.pem());
    let folder = folder.with("client.key", &issued.key.serialize_pem());
    folder.chmod("client.key", 0o640);
    folder
}

impl Folder {
    fn chmod(&self, name: &str, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.0.path().join(name), permissions).expect("our own file");
    }

    /// What `warrend check` finds, without the folder's name.
    fn inspect(&self) -> Vec<String> {
        let found = super::super::check(&self.0.path().join("warrend.toml"), &environment);
        let report = found.map_or_else(|report| report, |loaded| loaded.warnings);
        let folder = format!("{}/", self.0.path().display());
        outline(&report).into_iter().map(|line| line.replace(&folder, "")).collect()
    }
}

#[test]
fn good_files_are_good_and_a_start_does_not_look_at_bad_ones() {
    let folder = secured(&Authority::new("ours").issue(&["client"]));
    assert_eq!(folder.inspect(), [""; 0]);
    let tls = folder.good().config.broker.tls;
    let path = |name: &str| folder.0.path().join(name);
    let identity = Identity { cert_file: path("client.pem"), key_file: path("client.key") };
    assert_eq!(tls, Tls { ca_file: Some(path("ca.pem")), identity: Some(identity), login: Login::Certificate });
    for name in ["ca.pem", "client.pem", "client.key"] {
        std::fs::remove_file(path(name)).expect("it is there");
    }
    assert!(folder.good().warnings.entries.is_empty());
    let missing = |line: usize, key: &str, name: &str| {
        format!("{line}:{} the {key} {name} cannot be read: no such file or directory", key.len() + 4)
    };
    // Without a certificate nothing can be said of its key.
    assert_eq!(folder.inspect(), [missing(3, "ca_file", "ca.pem"), missing(4, "cert_file", "client.pem")]);
}

#[test]
fn files_that_cannot_be_used_are_found() {
    let authority = Authority::new("ours");
    let folder = secured(&authority.issue(&["client"]));
    folder.write("ca.pem", b"");
    folder.write("client.key", authority.issue(&["client"]).key.serialize_pem().as_bytes());
    let expect = [
        "3:11 the ca_file ca.pem holds no certificate",
        "5:12 the key_file client.key does not belong to the certificate in the cert_file client.pem",
    ];
    assert_eq!(folder.inspect(), expect);
    folder.write("client.key", b"secret");
    assert_eq!(folder.inspect()[1], "5:12 the key_file client.key holds no private key");
}

#[test]
fn a_key_that_everybody_can_read_is_warned_of() {
    let folder = secured(&Authority::new("ours").issue(&["client"]));
    for (mode, told) in [(0o600, 0), (0o640, 0), (0o644, 1), (0o602, 1)] {
        folder.chmod("client.key", mode);
        let found = folder.inspect();
        assert_eq!(found.len(), told, "{mode:o} {found:?}");
        assert!(found.iter().all(|line| line.starts_with("5:12 every user of this machine can")), "{found:?}");
    }
}

#[test]
fn an_end_that_is_near_is_warned_of_and_one_that_is_past_is_an_error() {
    let authority = Authority::new("ours");
    for (from, until, expect) in [
        (-10, 40, None),
        (-10, 20, Some("a certificate in this file expires at 20")),
        (-10, -2, Some("a certificate in this file expired at 20")),
        (5, 40, Some("a certificate in this file is not valid before 20")),
    ] {
        let folder = secured(&authority.issue_with(&["client"], valid(from, until)));
        let found = folder.inspect();
        assert_eq!(found.len(), usize::from(expect.is_some()), "{found:?}");
        for (line, expect) in found.iter().zip(expect) {
            assert!(line.starts_with(&format!("4:13 {expect}")), "{line}");
        }
        let usable = super::super::check(&folder.0.path().join("warrend.toml"), &environment).is_ok();
        assert_eq!(usable, from < 0 && until > 0);
    }
}

/// systemd's credentials are there only while their service runs.
#[test]
fn credentials_of_a_service_that_does_not_run_are_warned_of() {
    let text = "broker.urls = [\"amqps://h\"]\nbroker.tls.ca_file = \"/run/credentials/no-such.service/ca\"\n\
                [jobs.a]\nqueue = \"q\"\nhandler.discard = true\n";
    let folder = Folder::new(text);
    assert!(folder.inspect()[0].starts_with("2:22 the ca_file /run/credentials/no-such.service/ca cannot be read"));
    assert!(super::super::check(&folder.0.path().join("warrend.toml"), &environment).is_ok());
}
