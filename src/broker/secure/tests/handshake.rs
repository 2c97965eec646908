//! Every way in which no TLS comes about, and what is said about it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ALL_VERSIONS, ServerConfig, ServerConnection, version};

use crate::broker::{BrokerError, connect};
use crate::config::{Backoff, Broker, BrokerHost, Identity, Login, QueueKind, Tls};
use crate::tls::tests::{Authority, Files, Issued, valid};

/// The first bytes of a RabbitMQ that was spoken to in something else than AMQP.
const AMQP_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// A listener that serves one connection.
fn serve(serve: impl FnOnce(TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (address, std::thread::spawn(move || serve(listener.accept().unwrap().0)))
}

/// A server that does its handshake and hangs up once the client does, or said `bytes`, and was told why where it failed.
fn serve_tls(config: ServerConfig) -> (SocketAddr, JoinHandle<()>) {
    serve(move |mut socket| {
        let mut tls = ServerConnection::new(Arc::new(config)).unwrap();
        // A failure sends its alert; the socket closes with what the client may have sent still unread.
        while tls.is_handshaking() && tls.complete_io(&mut socket).is_ok() {}
        let _ = rustls::Stream::new(&mut tls, &mut socket).read(&mut [0; 64]);
    })
}

fn config(address: SocketAddr, host: &str, tls: Tls) -> Broker {
    let host = BrokerHost {
        host: host.to_owned(),
        port: address.port(),
        tls: true,
        user: "guest".to_owned(),
        password: "hunter2".to_owned(),
        vhost: "/".to_owned(),
    };
    Broker {
        hosts: vec![host],
        password_file: None,
        heartbeat: Duration::ZERO,
        connect_timeout: Duration::from_secs(5),
        delay_queues: QueueKind::Quorum,
        management: None,
        reconnect: Backoff { initial: Duration::from_secs(1), max: Duration::from_secs(1) },
        tls,
    }
}

/// Files of an authority that issues the broker's certificates.
struct Setup {
    authority: Authority,
    files: Files,
}

impl Setup {
    fn new() -> Self {
        let (authority, files) = (Authority::new("ours"), Files::new());
        files.write("ca.pem", &authority.pem());
        Self { authority, files }
    }

    fn tls(&self) -> Tls {
        let ca_file = self.files.write("ca.pem", &self.authority.pem());
        Tls { ca_file: Some(ca_file), identity: None, login: Login::Password }
    }

    fn tls_as(&self, issued: &Issued) -> Tls {
        let (cert_file, key_file) = self.files.write_pair("client", issued);
        Tls { identity: Some(Identity { cert_file, key_file }), ..self.tls() }
    }
}

/// Connects and gives the sentence, which is to begin and go on as told.
#[track_caller]
fn refused(config: &Broker, begin: &str, parts: &[&str]) -> BrokerError {
    let begun = Instant::now();
    let error = connect(config, 0, "test").err().expect("there is no broker");
    let took = begun.elapsed();
    let sentence = error.to_string();
    let begin = begin.replace("HOST", &config.hosts[0].to_string());
    assert!(sentence.starts_with(&begin), "{sentence}\n{begin}");
    for part in parts {
        assert!(sentence.contains(part), "{sentence}\n{part}");
    }
    assert!(!sentence.contains(['\n', '{']) && !sentence.contains("hunter2"), "{sentence}");
    assert!(!sentence.ends_with('.') && !sentence.contains(". "), "one sentence: {sentence}");
    assert!(took < config.connect_timeout, "{took:?}");
    error
}

#[test]
fn a_broker_that_is_not_the_one_that_was_meant_is_told_from_one_that_nobody_knows() {
    let setup = Setup::new();
    let check = |host: &str, issued: &Issued, tls: Tls, parts: &[&str]| {
        for version in ALL_VERSIONS {
            let (address, server) = serve_tls(issued.server(&[version], None));
            let error = refused(&config(address, host, tls.clone()), "no TLS with RabbitMQ at HOST: the broker", parts);
            assert!(matches!(error, BrokerError::Tls { .. }));
            server.join().unwrap();
        }
    };
    let ours = |names: &[&str]| setup.authority.issue(names);
    let names =
        ["the broker's certificate is for rabbit.example.org, 10.0.0.1 and not for 127.0.0.1; check broker.urls"];
    check("127.0.0.1", &ours(&["rabbit.example.org", "10.0.0.1"]), setup.tls(), &names);
    check("localhost", &ours(&["127.0.0.1"]), setup.tls(), &["is for 127.0.0.1 and not for localhost"]);
    check("127.0.0.1", &ours(&[]), setup.tls(), &["names no host at all", "subjectAltName"]);
    let many: Vec<String> = (0..9).map(|n| format!("{n}.example.org")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    check("127.0.0.1", &ours(&many), setup.tls(), &["3.example.org, 4.example.org and 4 more and not"]);
    let expired = setup.authority.issue_with(&["127.0.0.1"], valid(-20, -3));
    check("127.0.0.1", &expired, setup.tls(), &["certificate expired at 20", "renew it"]);
    let early = setup.authority.issue_with(&["127.0.0.1"], valid(3, 20));
    check("127.0.0.1", &early, setup.tls(), &["not valid before 20", "clock"]);
    let client_only = setup.authority.issue_with(&["127.0.0.1"], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    check("127.0.0.1", &client_only, setup.tls(), &["not meant for servers", "serverAuth"]);
    check("127.0.0.1", &setup.authority.as_issued(), setup.tls(), &["an authority's own certificate"]);
    let (address, server) = serve_tls(Issued::old_server());
    let begin = "no TLS with RabbitMQ at HOST: the broker's certificate is of X.509 version 1;";
    refused(&config(address, "127.0.0.1", setup.tls()), begin, &["subjectAltName"]);
    server.join().unwrap();
}

#[test]
fn a_certificate_of_an_unknown_authority_is_told() {
    let (setup, stranger) = (Setup::new(), Authority::new("stranger"));
    let tls = setup.tls();
    let issued = stranger.issue(&["127.0.0.1"]);
    let (address, server) = serve_tls(issued.server(ALL_VERSIONS, None));
    let begin = format!(
        "no TLS with RabbitMQ at HOST: none of the authorities in {} issued",
        tls.ca_file.as_ref().unwrap().display()
    );
    refused(&config(address, "127.0.0.1", tls.clone()), &begin, &["broker.tls.ca_file"]);
    server.join().unwrap();
    // Of the system's authorities, none knows it either.
    let (address, server) = serve_tls(issued.server(ALL_VERSIONS, None));
    let tls = Tls { ca_file: None, ..tls };
    if crate::tls::authorities(None).is_ok() {
        let begin = "no TLS with RabbitMQ at HOST: this system knows no authority";
        refused(&config(address, "127.0.0.1", tls), begin, &["set broker.tls.ca_file"]);
    } else {
        refused(&config(address, "127.0.0.1", tls), "the system has no certificates to trust", &["ca-certificates"]);
        drop(TcpStream::connect(address).unwrap());
    }
    server.join().unwrap();
}

#[test]
fn a_port_without_tls_is_told_at_once() {
    let setup = Setup::new();
    let port = "is this the broker's TLS port?";
    let (address, server) = serve(|mut socket| {
        socket.read_exact(&mut [0; 8]).unwrap();
        socket.write_all(AMQP_HEADER).unwrap();
    });
    let began = Instant::now();
    let host = config(address, "127.0.0.1", setup.tls());
    refused(&host, "no TLS with RabbitMQ at HOST: what came is not TLS", &[port, "amqp://"]);
    server.join().unwrap();
    let (address, server) = serve(|mut socket| {
        socket.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").unwrap();
        let _ = socket.read(&mut [0; 1000]);
    });
    refused(&config(address, "127.0.0.1", setup.tls()), "no TLS with RabbitMQ at HOST: what came is not TLS", &[port]);
    server.join().unwrap();
    let (address, server) = serve(drop);
    let error = refused(&config(address, "127.0.0.1", setup.tls()), "cannot reach RabbitMQ at HOST: ", &[port]);
    assert!(matches!(error, BrokerError::Unreachable { .. }), "it may be starting: tried again soon");
    server.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
}

/// A peer that says nothing, and one that says something all the time and never comes to an end.
#[test]
fn a_handshake_that_stalls_or_trickles_ends_in_time() {
    let setup = Setup::new();
    let begin =
        "cannot reach RabbitMQ at HOST: the TLS handshake was not finished in time (broker.connect_timeout is 1s)";
    let (address, server) = serve(|mut socket| while matches!(socket.read(&mut [0; 1000]), Ok(1..)) {});
    let mut host = config(address, "127.0.0.1", setup.tls());
    host.connect_timeout = Duration::from_secs(1);
    refused(&host, begin, &["is this the broker's TLS port?"]);
    server.join().unwrap();
    let (address, server) = serve(|mut socket| {
        // The head of a handshake record of 16 KiB, and then a byte now and then.
        let mut bytes = [22, 3, 3, 64, 0, 2, 0, 63, 252].into_iter().chain(std::iter::repeat(0));
        while socket.write_all(&[bytes.next().unwrap()]).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    host.hosts[0].port = address.port();
    refused(&host, begin, &[]);
    server.join().unwrap();
}

/// In TLS 1.3 the refusal comes after our side of the handshake is done.
#[test]
fn a_broker_that_demands_a_certificate_says_so() {
    let (setup, stranger) = (Setup::new(), Authority::new("stranger"));
    let begin = "no TLS with RabbitMQ at HOST: the broker ";
    for version in ALL_VERSIONS {
        let server = || serve_tls(setup.authority.issue(&["127.0.0.1"]).server(&[version], Some(&setup.authority)));
        let (address, thread) = server();
        let demands = "demands a certificate of its clients; set broker.tls.cert_file and key_file";
        refused(&config(address, "127.0.0.1", setup.tls()), begin, &[demands]);
        thread.join().unwrap();
        let (address, thread) = server();
        let tls = setup.tls_as(&stranger.issue(&["client"]));
        let file = tls.identity.as_ref().unwrap().cert_file.display().to_string();
        let refuses = format!("refused the certificate in {file} (");
        refused(&config(address, "127.0.0.1", tls), begin, &[&refuses, "ssl_options.cacertfile"]);
        thread.join().unwrap();
        let (address, thread) = server();
        let tls = setup.tls_as(&setup.authority.issue_with(&["client"], valid(-9, -2)));
        refused(&config(address, "127.0.0.1", tls), begin, &[&refuses, "(CertificateExpired)"]);
        thread.join().unwrap();
    }
}

#[test]
fn files_that_cannot_be_used_are_told_before_anybody_is_asked() {
    let setup = Setup::new();
    // Nobody listens there, and nobody is asked.
    let address = "127.0.0.1:1".parse().unwrap();
    let check = |tls: Tls, begin: &str| {
        let error = refused(&config(address, "127.0.0.1", tls), begin, &["; check [broker.tls]"]);
        assert!(matches!(error, BrokerError::TlsFiles { .. }));
    };
    let issued = setup.authority.issue(&["client"]);
    let good = setup.tls_as(&issued);
    check(
        Tls { ca_file: Some("/nowhere/ca.pem".into()), ..good.clone() },
        "the ca_file /nowhere/ca.pem cannot be read: no such",
    );
    let mut tls = good.clone();
    tls.identity.as_mut().unwrap().key_file = "/nowhere/x.key".into();
    check(tls, "the key_file /nowhere/x.key cannot be read: no such");
    let mut tls = good.clone();
    let other = setup.files.write("other.key", &setup.authority.issue(&["client"]).key.serialize_pem());
    tls.identity.as_mut().unwrap().key_file.clone_from(&other);
    check(tls, &format!("the key_file {} does not belong to the certificate", other.display()));
    // Read again at each connect: once they are good, the host is asked.
    setup.tls_as(&issued);
    refused(&config(address, "127.0.0.1", good), "cannot reach RabbitMQ at HOST: connection refused", &[]);
}

/// What comes after a good handshake is the business of AMQP; here it ends.
#[test]
fn a_good_handshake_goes_on_to_the_login() {
    let setup = Setup::new();
    for (version, name) in [(&version::TLS12, "127.0.0.1"), (&version::TLS13, "localhost")] {
        let config_of_server =
            setup.authority.issue(&["127.0.0.1", "localhost"]).server(&[version], Some(&setup.authority));
        let (address, server) = serve(move |mut socket| {
            let mut tls = ServerConnection::new(Arc::new(config_of_server)).unwrap();
            tls.complete_io(&mut socket).unwrap();
            assert_eq!(tls.server_name(), (name == "localhost").then_some("localhost"), "an address is no name");
            let mut stream = rustls::StreamOwned::new(tls, socket);
            let mut header = [0; 8];
            stream.read_exact(&mut header).unwrap();
            assert_eq!(header, *AMQP_HEADER);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        });
        let host = config(address, name, setup.tls_as(&setup.authority.issue(&["client"])));
        let begin = "cannot reach RabbitMQ at HOST: the AMQP handshake failed, it was closed without a word";
        refused(&host, begin, &[]);
        server.join().unwrap();
    }
}
