//! A private RabbitMQ node of one test, for those that stop, kill and restart their broker.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::broker::Broker;
use super::script;

/// A node of its own, beside the one that the tests share. Takes 5 to 20 s to start; ended when it is dropped.
pub struct Node {
    place: Place,
    broker: Broker,
}

/// Where a node lies in its row of ports, by broker.sh: AMQP first, and this much further AMQP over TLS.
const TLS_PORT: u16 = 4;

/// What broker.sh knows a node by.
struct Place {
    folder: TempDir,
    /// Before `@localhost`.
    name: String,
    /// The folder of the node whose cluster it joins.
    cluster: Option<PathBuf>,
}

impl Node {
    /// Starts one with empty folders.
    pub fn start() -> Self {
        Self::start_as("warrend", None)
    }

    /// Starts one in a folder that may hold `extra.conf` and `extra_plugins`, which see in broker.sh.
    pub fn start_in(folder: TempDir) -> Self {
        Self::start_at(Place { folder, name: "warrend".to_owned(), cluster: None })
    }

    /// Starts one under that name, as a member of the cluster of another.
    pub fn start_as(name: &str, cluster: Option<&Self>) -> Self {
        let folder = TempDir::with_prefix("warrend-node-").expect("a temporary folder can be made");
        let cluster = cluster.map(|node| node.place.folder.path().to_owned());
        Self::start_at(Place { folder, name: name.to_owned(), cluster })
    }

    fn start_at(place: Place) -> Self {
        place.run("start");
        let exports = place.run("env");
        let value = |name: &str| {
            let value =
                exports.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("broker.sh env says {name}: {exports}")).to_owned()
        };
        let broker = Broker::at(&value("WARREND_TEST_AMQP_URL"), &value("WARREND_TEST_MANAGEMENT_URL"));
        match broker {
            Ok(broker) => Self { place, broker },
            Err(why) => panic!("{why}"),
        }
    }

    /// Its name as the broker tells it.
    pub fn name(&self) -> String {
        format!("{}@localhost", self.place.name)
    }

    /// The broker that it serves. Its address stays the same over restarts.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.place.folder.path()
    }

    /// The port of AMQP over TLS, where its `extra.conf` has it listen there.
    pub fn tls_port(&self) -> u16 {
        let address = self.broker.address();
        let port = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        port.expect("an address ends with its port") + TLS_PORT
    }

    /// Has it read the files of its certificates again.
    pub fn reread_certificates(&self) {
        self.place.run("reread");
    }

    /// Stops it in good order; its data stays.
    pub fn stop(&self) {
        self.place.run("stop");
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        self.place.run("kill");
    }

    /// Stops its processes where they are: connections stay and nothing answers.
    pub fn freeze(&self) {
        self.place.run("freeze");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.place.run("thaw");
    }

    /// Has it believe that memory is short, or no longer: publishers are blocked meanwhile.
    pub fn alarm(&self, short: bool) {
        self.place.run(if short { "alarm" } else { "no-alarm" });
    }

    /// The same with the disk.
    pub fn disk_alarm(&self, short: bool) {
        self.place.run(if short { "disk-alarm" } else { "no-disk-alarm" });
    }

    /// Has it evaluate an Erlang expression, for what no client can do; gives the value as text.
    pub fn eval(&self, expression: &str) -> String {
        let output = self.place.broker_sh("eval").arg(expression).output().expect("bash runs broker.sh");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "eval {expression}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Brings it back with its data, and returns once it serves.
    pub fn start_again(&self) {
        self.place.run("start");
    }
}

impl Drop for Node {
    #[expect(clippy::print_stderr, reason = "whoever reads of the failure must find the folder")]
    fn drop(&mut self) {
        // Nothing to keep of its state: a kill is quicker, and `stop` then ends the epmd.
        for command in ["kill", "stop"] {
            let _ = self.place.broker_sh(command).output();
        }
        if std::thread::panicking() {
            self.place.folder.disable_cleanup(true);
            eprintln!("the folder of the node is kept: {}", self.place.folder.path().display());
        }
    }
}

impl Place {
    fn broker_sh(&self, command: &str) -> Command {
        let mut script = Command::new(script("broker.sh"));
        script.arg(command).env("WARREND_BROKER_DIR", self.folder.path()).env("WARREND_BROKER_NAME", &self.name);
        script.env_remove("WARREND_AMQP_URL").env_remove("WARREND_BROKER_JOIN").stdin(Stdio::null());
        if let Some(cluster) = &self.cluster {
            script.env("WARREND_BROKER_JOIN", cluster);
        }
        script
    }

    fn run(&self, command: &str) -> String {
        let output = self.broker_sh(command).output().expect("bash runs broker.sh");
        assert!(output.status.success(), "broker.sh {command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}
