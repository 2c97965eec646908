//! Compressed bodies: handlers get them decoded, the broker keeps them as they came, and a bomb harms nobody.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::time::Duration;

use amiquip::{AmqpProperties, Delivery};
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use crate::amqp::{integer, take, text};
use crate::support::broker::{Vhost, with_id};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::journal::Journal;

/// A second of the delay ladder is a real one, and the machine may be busy.
const LADDER_TIMEOUT: Duration = Duration::from_secs(40);

const MIB: usize = 1 << 20;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn bare_deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

fn zstd(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, 0).expect("memory takes it")
}

fn encoded(id: &str, content_encoding: &str) -> AmqpProperties {
    with_id(id).with_content_encoding(content_encoding.to_owned())
}

/// The dead letters by message id.
fn letters(vhost: &Vhost) -> BTreeMap<String, Delivery> {
    let letters = vhost.drain("work.dead").into_iter();
    letters.map(|letter| (letter.properties.message_id().clone().expect("ours have an id"), letter)).collect()
}

#[test]
fn handlers_get_bodies_decoded_and_copies_keep_them_as_they_came() {
    let plain = "what the publisher meant\n".repeat(1000).into_bytes();
    let cases = [
        ("gzip", "gzip", gzip(&plain)),
        ("gzip-twice", "x-gzip", [gzip(&plain[..99]), gzip(&plain[99..])].concat()),
        ("zlib", "Deflate", zlib(&plain)),
        ("deflate", "deflate", bare_deflate(&plain)),
        ("zstd", "zstd", zstd(&plain)),
        ("both", "gzip, zstd", zstd(&gzip(&plain))),
        ("celery", "utf-8", plain.clone()),
    ];
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = |name: &str, attempt: u32, what: &str| folder.path().join(format!("{name}.{attempt}.{what}"));
    // The second attempt gets the copy of the first, and the dead letter is the copy of the second.
    let run = format!(
        "file='{}'/$WARREND_KEY.$WARREND_ATTEMPT\ncat >\"$file.body\"\ncat <&3 >\"$file.json\"\n\
         [ \"$WARREND_ATTEMPT\" = 2 ] && exit 65\nexit 75",
        folder.path().display()
    );
    let journal = Journal::new(folder.path(), &run);
    let job = format!(
        "[jobs.work]\nqueue = \"work\"\nhandler.command = {}\nretry = {{ initial = \"1s\", jitter = 0.0 }}\n",
        journal.command()
    );
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    vhost.publish_all("work", cases.iter().map(|(name, encoding, body)| (body.clone(), encoded(name, encoding))));
    let all = u32::try_from(cases.len()).expect("it is small");
    daemon.wait_until("all are dead", LADDER_TIMEOUT, |_| vhost.ready("work.dead") == Some(all));
    let letters = letters(&vhost);
    for (name, encoding, body) in &cases {
        for attempt in [1, 2] {
            let given = fs::read(path(name, attempt, "body")).expect("the handler wrote it");
            assert!(given == plain, "attempt {attempt} of {name} got {} bytes", given.len());
            let metadata = fs::read(path(name, attempt, "json")).expect("the handler wrote it");
            let metadata: serde_json::Value = serde_json::from_slice(&metadata).expect("JSON");
            let told = if *name == "celery" { "utf-8".into() } else { serde_json::Value::Null };
            assert_eq!(metadata["content_encoding"], told, "attempt {attempt} of {name}");
        }
        let letter = &letters[*name];
        assert!(letter.body == *body, "{name}: {} bytes", letter.body.len());
        assert_eq!(letter.properties.content_encoding().as_deref(), Some(*encoding), "{name}");
        assert_eq!(integer(letter, "x-warrend-attempt"), 3, "{name}");
    }
}

/// A frame of blocks of 128 KiB of zeros, which take four bytes each.
fn zstd_bomb(blocks: usize) -> Vec<u8> {
    // Magic number, no flags, a window of 8 MiB.
    let mut bomb = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 13 << 3];
    for block in 1..=blocks {
        let last = u32::from(block == blocks);
        bomb.extend(((128_u32 << 10) << 3 | 1 << 1 | last).to_le_bytes());
    }
    bomb
}

/// The most memory that the daemon had so far, in bytes.
fn peak_memory(daemon: &Daemon) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid().expect("it runs")));
    let status = status.expect("a process that runs has one");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
    peak.and_then(|kib| kib.parse::<usize>().ok()).expect("Linux says it") << 10
}

#[test]
fn a_bomb_is_dead_as_it_came_and_harms_nobody() {
    let bomb = gzip(&vec![0; MIB]).repeat(200);
    let whole = gzip(b"whole");
    let cases = [
        ("gzip", "gzip", bomb.clone(), "oversize"),
        ("deflate", "deflate", zlib(&vec![0; 64 * MIB]), "oversize"),
        ("bare-deflate", "deflate", bare_deflate(&vec![0; 64 * MIB]), "oversize"),
        ("zstd", "zstd", zstd_bomb(100_000), "oversize"),
        ("nested", "gzip, zstd", zstd(&bomb), "oversize"),
        ("cut", "gzip", whole[..whole.len() - 1].to_vec(), "undecodable"),
        ("trailing", "gzip", [&whole[..], b"more"].concat(), "undecodable"),
        ("plain", "zstd", b"plain".to_vec(), "undecodable"),
        ("nothing", "deflate", Vec::new(), "undecodable"),
    ];
    let vhost = Vhost::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let journal = Journal::new(folder.path(), "");
    let command = journal.command();
    let job = format!("[jobs.work]\nqueue = \"work\"\nmax_body = \"1MiB\"\nhandler.command = {command}\n");
    let mut daemon = Daemon::new(&vhost, &job);
    daemon.start();
    let before = peak_memory(&daemon);
    let bad = cases.iter().map(|(name, encoding, body, _)| (body.clone(), encoded(name, encoding)));
    let good = (0..cases.len()).map(|n| (gzip(&vec![0; MIB]), encoded(&format!("good-{n}"), "gzip")));
    let mixed = bad.zip(good).flat_map(|(bad, good)| [bad, good]);
    vhost.publish_all("work", mixed);
    let all = cases.len() as u64;
    daemon.wait_until("all are done or dead", DAEMON_TIMEOUT, |daemon| {
        daemon.counter("work", "done") == all && daemon.counter("work", "dead") == all
    });
    let grown = peak_memory(&daemon) - before;
    assert!(grown < 48 * MIB, "it took {} MiB more", grown / MIB);
    daemon.wait_until("all copies are there", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == u32::try_from(all).ok());
    assert!(journal.lines().iter().all(|(key, _)| key.starts_with("good-")), "what cannot be decoded never runs");
    let letters = letters(&vhost);
    for (name, encoding, body, class) in cases {
        let letter = &letters[name];
        assert!(letter.body == body, "{name}: {} bytes", letter.body.len());
        assert_eq!(letter.properties.content_encoding().as_deref(), Some(encoding), "{name}");
        assert_eq!(text(letter, "x-warrend-error-class"), class, "{name}: {}", text(letter, "x-warrend-error"));
    }
    assert!(daemon.terminate().success());
}

/// A key within the body does not depend on how the body is packed.
#[test]
fn a_key_within_a_compressed_body_is_found() {
    let vhost = Vhost::new();
    let job = "[jobs.work]\nqueue = \"work\"\nidempotency = { key = \"json:/id\", on_missing = \"dead\" }\n\
               handler.discard = true\n";
    let mut daemon = Daemon::new(&vhost, job);
    daemon.start();
    let body = br#"{"id":"order-7"}"#;
    let messages = [
        (body.to_vec(), AmqpProperties::default()),
        (gzip(body), AmqpProperties::default().with_content_encoding("gzip".to_owned())),
        (zstd(body), AmqpProperties::default().with_content_encoding("zstd".to_owned())),
        (body.to_vec(), AmqpProperties::default().with_content_encoding("zstd".to_owned())),
    ];
    vhost.publish_all("work", messages);
    daemon.wait_until("one is done, two are the same, one is broken", DAEMON_TIMEOUT, |daemon| {
        ["done", "duplicates", "dead"].map(|name| daemon.counter("work", name)) == [1, 2, 1]
    });
    daemon.wait_until("the broken one is there", DAEMON_TIMEOUT, |_| vhost.ready("work.dead") == Some(1));
    let letter = vhost.get("work.dead").expect("it was counted");
    assert_eq!(text(&letter, "x-warrend-error-class"), "undecodable");
}

#[test]
fn publish_compresses_where_it_is_told() {
    let vhost = Vhost::new();
    vhost.declare("work");
    let daemon = Daemon::new(&vhost, "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n");
    let body = b"a line of text\n".repeat(1000);
    let publish = |flags: &[&str]| {
        let output = daemon.run_with_input(&[&["publish", "work", "-"], flags].concat(), &body);
        assert!(output.status.success(), "{output:?}");
        let message = take(&vhost, "work");
        (message.properties.content_encoding().clone(), message.body)
    };
    assert_eq!(publish(&[]), (None, body.clone()));
    let (named, zipped) = publish(&["--gzip"]);
    assert_eq!(named.as_deref(), Some("gzip"));
    let mut read = Vec::new();
    flate2::read::GzDecoder::new(&zipped[..]).read_to_end(&mut read).expect("it is gzip");
    assert!(read == body && zipped.len() < body.len() / 10, "{} bytes", zipped.len());
    let (named, packed) = publish(&["--zstd"]);
    assert_eq!(named.as_deref(), Some("zstd"));
    assert!(zstd::bulk::decompress(&packed, body.len()).expect("it is zstd") == body);
    assert!(packed.len() < body.len() / 10, "{} bytes", packed.len());

    let both = daemon.run(&["publish", "work", "--gzip", "--zstd"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    assert_eq!(vhost.ready("work"), Some(0));
}
