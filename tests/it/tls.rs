//! RabbitMQ over TLS: work gets done, certificates log in, and what keeps a connection from coming about is told.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use amiquip::AmqpProperties;
use serde_json::json;
use tempfile::TempDir;

use crate::support::broker::{BROKER_TIMEOUT, Vhost, with_id};
use crate::support::certificates::{Authority, Validity};
use crate::support::daemon::{DAEMON_TIMEOUT, Daemon};
use crate::support::node::Node;
use crate::support::scene::{Scene, Setup};
use crate::support::wait_until;

/// Whatever keeps a connection from coming about is to be told within this time, with default settings.
const TOLD: Duration = Duration::from_secs(10);
/// A job that runs nothing that a test could need.
const JOB: &str = "[jobs.work]\nqueue = \"work\"\nhandler.discard = true\n";

/// A node with TLS, whose certificate is for `localhost` and 127.0.0.1; the authority `ours` issued it, and the node takes
/// certificates of clients from it. All files are in the node's folder.
struct Secured {
    node: Node,
    ours: Authority,
}

impl Secured {
    /// `more`: of the node's configuration.
    fn start(more: &str) -> Self {
        let folder = TempDir::with_prefix("warrend-tls-").expect("a temporary folder can be made");
        let ours = Authority::new(folder.path(), "ours");
        ours.issue("server", &["localhost", "127.0.0.1"], Validity::Now);
        fs::write(folder.path().join("extra_plugins"), "rabbitmq_auth_mechanism_ssl\n").expect("it is writable");
        configure(folder.path(), more);
        Self { node: Node::start_in(folder), ours }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.node.folder().join(name)
    }

    /// `urls` and what comes before `[broker.tls]`, with the keys of that table after it.
    fn broker(&self, url: &str, tls: &[(&str, &str)]) -> String {
        let reconnect = "reconnect = { initial = \"50ms\", max = \"500ms\" }";
        let mut text = format!("urls = [{url:?}]\n{reconnect}\n[broker.tls]\n");
        for (key, value) in tls {
            let value =
                if key.ends_with("_file") { self.path(value).display().to_string() } else { (*value).to_owned() };
            text.push_str(&format!("{key} = {value:?}\n"));
        }
        text
    }

    /// The URL of the TLS port, into that vhost.
    fn url(&self, vhost: &Vhost, host: &str) -> String {
        format!("amqps://guest:guest@{host}:{}/{}", self.node.tls_port(), vhost.name())
    }
}

fn configure(folder: &std::path::Path, more: &str) {
    let file = |name: &str| folder.join(name).display().to_string();
    let text = format!(
        "listeners.ssl.1 = 127.0.0.1:@TLS_PORT@\n\
         ssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
         ssl_options.verify = verify_peer\n{more}\n",
        file("ours.ca.pem"),
        file("server.pem"),
        file("server.key"),
    );
    fs::write(folder.join("extra.conf"), text).expect("the node's folder is writable");
}

const OPTIONAL: &str = "ssl_options.fail_if_no_peer_cert = false";
const OURS: (&str, &str) = ("ca_file", "ours.ca.pem");

/// Jobs and publisher alike, with bodies that fill every buffer on the way, in both directions.
#[test]
fn a_load_is_worked_over_tls() {
    let secured = Secured::start(OPTIONAL);
    let mut scene = Scene::new(Vhost::on(secured.node.broker()), &Setup { tap: false, ..Setup::default() });
    let url = secured.url(&scene.vhost, "localhost");
    scene.daemon.set_broker(&secured.broker(&url, &[OURS]));
    scene.daemon.start();
    let status = scene.daemon.status().expect("the daemon answers");
    assert_eq!(status["broker"]["tls"], "TLSv1.3", "{status:#}");
    let shown = scene.daemon.run(&["status"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("TLSv1.3: connected, 0 reconnects"), "{shown:?}");
    scene.publish(500);
    scene.wait_until_settled();
    // All connections into the vhost are encrypted: the job's and the publisher's.
    wait_until("the broker lists both connections", BROKER_TIMEOUT, || scene.vhost.connections().len() == 2);
    let list = format!("/api/vhosts/{}/connections?columns=ssl,ssl_protocol", scene.vhost.name());
    let list = secured.node.broker().management().call("GET", &list, None).expect("it lists them");
    let connections = list.as_array().expect("a list");
    assert!(connections.iter().all(|one| one["ssl"] == true && one["ssl_protocol"] == "tlsv1.3"), "{list:#}");
    scene.stop();
    eprintln!("{}", scene.judge());

    let vhost = Vhost::on(secured.node.broker());
    let job = "[jobs.work]\nqueue = \"work\"\nhandler.command = [\"sh\", \"-c\", \"cat >/dev/null; exit 65\"]\n";
    vhost.declare("work");
    let body = |n: u8| -> Vec<u8> { (0..1_usize << 20).map(|at| (at % 251) as u8 ^ n).collect() };
    let mut daemon = Daemon::with_broker(&secured.broker(&secured.url(&vhost, "127.0.0.1"), &[OURS]), job);
    daemon.start();
    vhost.publish_all("work", (0..30).map(|n| (body(n), with_id(&n.to_string()))));
    daemon.wait_until("all are dead", Duration::from_secs(60), |_| vhost.ready("work.dead") == Some(30));
    for letter in vhost.drain("work.dead") {
        let id = letter.properties.message_id().clone().expect("ours have an id");
        assert!(letter.body == body(id.parse().expect("a number")), "the body of {id} is another");
    }
    let status = daemon.status().expect("the daemon answers");
    assert_eq!(status["broker"]["reconnects"], 0, "{}", daemon.log_tail());
    assert!(daemon.terminate().success());
    // The one-shot commands go the same way.
    let published = daemon.run_with_input(&["publish", "work", "-"], &body(7));
    assert!(published.status.success(), "{published:?}");
    assert!(vhost.get("work").expect("it was confirmed").body == body(7));
}

/// Somebody who answers the first that comes with these bytes.
fn says(answer: Vec<u8>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody comes");
        stream.read_exact(&mut [0; 5]).expect("it says hello");
        stream.write_all(&answer).expect("it listens");
        // Until it has gone: what is closed with something unread is reset.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    (address, peer)
}

/// Each fault, with what is told of it; the node is the same throughout, its certificate is not.
#[test]
fn what_keeps_a_connection_from_coming_about_is_told_in_one_sentence() {
    let secured = Secured::start(OPTIONAL);
    let vhost = Vhost::on(secured.node.broker());
    let theirs = Authority::new(secured.node.folder(), "theirs");
    theirs.issue("stranger", &["client"], Validity::Now);
    secured.ours.issue("client", &["client"], Validity::Now);
    secured.ours.issue("other", &["client"], Validity::Now);
    let mut daemon = Daemon::with_broker("urls = []", JOB);
    let mut told = |broker: String, begin: &str, part: &str| {
        daemon.set_broker(&broker);
        let begun = Instant::now();
        let output = daemon.run(&["publish", "work"]);
        let took = begun.elapsed();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let sentence = text.lines().last().unwrap_or_default();
        assert_eq!(output.status.code(), Some(69), "{text}");
        assert!(
            sentence.starts_with(&format!("warrend: {begin}")) && sentence.contains(part),
            "{text}\n{begin} {part}"
        );
        assert!(!text.contains("guest:guest") && !sentence.ends_with('.'), "{text}");
        assert!(took < TOLD, "{took:?}: {text}");
        eprintln!("{took:?}: {sentence}");
    };
    let (port, localhost) = (secured.node.tls_port(), secured.url(&vhost, "localhost"));
    let no_tls = |host: &str| format!("no TLS with RabbitMQ at {host}:{port}: ");

    secured.ours.issue("server", &["rabbit.example.org"], Validity::Now);
    secured.node.reread_certificates();
    told(secured.broker(&localhost, &[OURS]), &no_tls("localhost"), "is for rabbit.example.org and not for localhost");
    secured.ours.issue("server", &["localhost"], Validity::Past);
    secured.node.reread_certificates();
    told(secured.broker(&localhost, &[OURS]), &no_tls("localhost"), "certificate expired at 2024-02-03");
    secured.ours.issue("server", &["localhost"], Validity::Future);
    secured.node.reread_certificates();
    told(secured.broker(&localhost, &[OURS]), &no_tls("localhost"), "is not valid before 2093-04-05");
    secured.ours.issue("server", &["localhost"], Validity::Now);
    secured.node.reread_certificates();
    let address = secured.url(&vhost, "127.0.0.1");
    told(secured.broker(&address, &[OURS]), &no_tls("127.0.0.1"), "is for localhost and not for 127.0.0.1");
    let unknown = [("ca_file", "theirs.ca.pem")];
    told(secured.broker(&localhost, &unknown), &no_tls("localhost"), "none of the authorities in ");

    // The wrong port, either way.
    let host = secured.node.broker().address();
    let wrong = format!("amqps://guest:guest@{host}/{}", vhost.name());
    told(secured.broker(&wrong, &[OURS]), &format!("no TLS with RabbitMQ at {host}: what came is not TLS"), "amqp://");
    let wrong = format!("amqp://guest:guest@127.0.0.1:{port}/{}", vhost.name());
    // Its answer may be read, or be lost with a reset.
    told(format!("urls = [{wrong:?}]"), &format!("cannot reach RabbitMQ at 127.0.0.1:{port}: "), "amqps://");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = silent.local_addr().expect("it is bound");
    let begin = format!("cannot reach RabbitMQ at {address}: the TLS handshake was not finished in time");
    told(secured.broker(&format!("amqps://{address}"), &[OURS]), &begin, "is this the broker's TLS port?");

    // One that is too old, and picks TLS 1.0 or 1.1 whatever it is offered.
    let old = "the broker speaks neither TLS 1.2 nor TLS 1.3";
    for version in [1, 2] {
        let hello = [&[22, 3, version, 0, 42, 2, 0, 0, 38, 3, version][..], &[7; 32], &[0, 0, 47, 0]].concat();
        let (address, peer) = says(hello);
        told(
            secured.broker(&format!("amqps://{address}"), &[OURS]),
            &format!("no TLS with RabbitMQ at {address}: "),
            old,
        );
        peer.join().expect("it was asked");
    }

    // Files on this side.
    let with = |cert: &str, key: &str| secured.broker(&localhost, &[OURS, ("cert_file", cert), ("key_file", key)]);
    told(with("client.pem", "gone.key"), "the key_file ", "gone.key cannot be read: no such file or directory; check");
    told(with("client.pem", "other.key"), "the key_file ", "does not belong to the certificate in the cert_file");
    told(with("stranger.pem", "stranger.key"), &no_tls("localhost"), "the broker refused the certificate in ");

    // A login by certificate, where nobody has that name, and where the broker does not offer it.
    let url = localhost.replace("guest:guest@", "");
    let tls = [OURS, ("cert_file", "client.pem"), ("key_file", "client.key"), ("auth", "external")];
    let external = secured.broker(&url, &tls);
    let begin = format!("RabbitMQ at localhost:{port} refused the connection: it offers no logins by certificate");
    told(external.clone(), &begin, "rabbitmq_auth_mechanism_ssl");
    secured.node.stop();
    let demanding = "ssl_options.fail_if_no_peer_cert = true\nssl_cert_login_from = common_name\n\
                     auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL";
    configure(secured.node.folder(), demanding);
    secured.node.start_again();
    let begin = format!("RabbitMQ at localhost:{port} refused ");
    told(external, &begin, "our certificate");
    let demands = "the broker demands a certificate of its clients; set broker.tls.cert_file and key_file";
    told(secured.broker(&localhost, &[OURS]), &no_tls("localhost"), demands);
    secured.node.stop();
    configure(secured.node.folder(), "ssl_options.versions.1 = tlsv1.1");
    secured.node.start_again();
    told(secured.broker(&localhost, &[OURS]), &no_tls("localhost"), old);
}

/// Before they have ended, when nothing could be done in time.
#[test]
fn the_doctor_tells_of_certificates_that_end_soon() {
    let secured = Secured::start(OPTIONAL);
    let vhost = Vhost::on(secured.node.broker());
    vhost.declare("work");
    secured.ours.issue("client", &["client"], Validity::Now);
    let tls = [OURS, ("cert_file", "client.pem"), ("key_file", "client.key")];
    let daemon = Daemon::with_broker(&secured.broker(&secured.url(&vhost, "localhost"), &tls), JOB);
    let told = || {
        let output = daemon.run(&["check", "--online", "--format", "json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
        let finding = |code: &str| {
            let all = report["findings"].as_array().expect("a list");
            let found = all.iter().find(|found| found["code"] == code).expect("it is judged");
            (
                found["level"].as_str().unwrap_or_default().to_owned(),
                found["text"].as_str().unwrap_or_default().to_owned(),
            )
        };
        (output.status.code(), [finding("broker-certificate"), finding("own-certificate")])
    };
    let (code, well) = told();
    assert!(code == Some(0) && well.iter().all(|(level, _)| level == "ok"), "{well:#?}");
    secured.ours.issue("client", &["client"], Validity::Soon);
    secured.ours.issue("server", &["localhost"], Validity::Soon);
    secured.node.reread_certificates();
    let (code, ill) = told();
    assert!(code == Some(0) && ill.iter().all(|(level, _)| level == "warning"), "{ill:#?}");
    assert!(ill[0].1.contains("the certificate of localhost") && ill[1].1.contains("client.pem"), "{ill:#?}");
}

/// The user of every connection into the vhost but the test's own, and the subject of its certificate.
fn logged_in(node: &Node, vhost: &Vhost) -> Vec<(String, String)> {
    let list = format!("/api/vhosts/{}/connections?columns=user,peer_cert_subject", vhost.name());
    let list = node.broker().management().call("GET", &list, None).expect("it lists them");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    list.as_array().map_or_else(Vec::new, |all| {
        let users = all.iter().map(|one| (text(&one["user"]), text(&one["peer_cert_subject"])));
        users.filter(|(user, _)| user != "guest").collect()
    })
}

/// A daemon that is not trusted goes on trying, and the files that it finds at its next connect are those that it uses.
#[test]
fn a_certificate_logs_in_and_its_renewal_needs_no_restart() {
    let external = "ssl_options.fail_if_no_peer_cert = true\nssl_cert_login_from = common_name\n\
                    auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL";
    let secured = Secured::start(external);
    let vhost = Vhost::on(secured.node.broker());
    vhost.declare("work");
    let management = secured.node.broker().management();
    for user in ["first", "second"] {
        let user_path = format!("/api/users/{user}");
        management.call("PUT", &user_path, Some(&json!({"password_hash": "", "tags": ""}))).expect("users can be made");
        let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
        let permissions = format!("/api/permissions/{}/{user}", vhost.name());
        management.call("PUT", &permissions, Some(&all)).expect("permissions can be given");
    }
    let theirs = Authority::new(secured.node.folder(), "theirs");
    theirs.issue_as("client", "first", &["client"], Validity::Now);
    let url = secured.url(&vhost, "localhost").replace("guest:guest@", "");
    let tls = [OURS, ("cert_file", "client.pem"), ("key_file", "client.key"), ("auth", "external")];
    let mut daemon = Daemon::with_broker(&secured.broker(&url, &tls), JOB);
    daemon.spawn(&[]);
    daemon.wait_until("the refusal is told", DAEMON_TIMEOUT, |daemon| {
        daemon.status().is_some_and(|status| status["problems"].to_string().contains("refused the certificate in"))
    });
    assert_eq!(daemon.status().expect("it answers")["jobs"]["work"]["state"], "connecting");
    let job = "job work: no TLS with RabbitMQ";
    assert_eq!(daemon.log().matches(job).count(), 1, "told once\n{}", daemon.log_tail());

    secured.ours.issue_as("client", "first", &["client"], Validity::Now);
    let connected = |daemon: &Daemon| daemon.status().is_some_and(|status| status["broker"]["connected"] == true);
    daemon.wait_until("it connects by itself", DAEMON_TIMEOUT, |daemon| connected(daemon));
    let as_user = |user: &str| vec![(user.to_owned(), format!("CN={user}")); 2];
    wait_until("both log in as the first", BROKER_TIMEOUT, || logged_in(&secured.node, &vhost) == as_user("first"));
    vhost.publish("work", "x", AmqpProperties::default());
    daemon.wait_until("it works", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 1);

    secured.ours.issue_as("client", "second", &["client"], Validity::Now);
    assert_eq!(vhost.close_connections(), 2);
    wait_until("both log in as the second", BROKER_TIMEOUT, || logged_in(&secured.node, &vhost) == as_user("second"));
    daemon.wait_until("it is connected again", DAEMON_TIMEOUT, |daemon| connected(daemon));
    vhost.publish("work", "x", AmqpProperties::default());
    daemon.wait_until("it works on", DAEMON_TIMEOUT, |daemon| daemon.counter("work", "done") == 2);
    assert!(daemon.terminate().success());
}
