//! A private RabbitMQ node of one test, for those that stop, kill and restart their broker.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::broker::Broker;
use super::script;

/// A node of its own, beside the one that the tests share. Takes 5 to 20 s to start; ended when it is dropped.
pub struct Node {
    folder: TempDir,
    broker: Broker,
}

/// Where a node lies in its row of ports, by broker.sh: AMQP first, and this much further AMQP over TLS.
const TLS_PORT: u16 = 4;

impl Node {
    /// Starts one with empty folders.
    pub fn start() -> Self {
        Self::start_in(TempDir::with_prefix("warrend-node-").expect("a temporary folder can be made"))
    }

    /// Starts one in a folder that may hold `extra.conf` and `extra_plugins`, which see in broker.sh.
    pub fn start_in(folder: TempDir) -> Self {
        run(&folder, "start");
        let exports = run(&folder, "env");
        let value = |name: &str| {
            let value =
                exports.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='));
            value.unwrap_or_else(|| panic!("broker.sh env says {name}: {exports}")).to_owned()
        };
        let broker = Broker::at(&value("WARREND_TEST_AMQP_URL"), &value("WARREND_TEST_MANAGEMENT_URL"));
        match broker {
            Ok(broker) => Self { folder, broker },
            Err(why) => panic!("{why}"),
        }
    }

    /// The broker that it serves. Its address stays the same over restarts.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port of AMQP over TLS, where its `extra.conf` has it listen there.
    pub fn tls_port(&self) -> u16 {
        let address = self.broker.address();
        let port = address.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        port.expect("an address ends with its port") + TLS_PORT
    }

    /// Has it read the files of its certificates again.
    pub fn reread_certificates(&self) {
        run(&self.folder, "reread");
    }

    /// Stops it in good order; its data stays.
    pub fn stop(&self) {
        run(&self.folder, "stop");
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        run(&self.folder, "kill");
    }

    /// Stops its processes where they are: connections stay and nothing answers.
    pub fn freeze(&self) {
        run(&self.folder, "freeze");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        run(&self.folder, "thaw");
    }

    /// Has it believe that memory is short, or no longer: publishers are blocked meanwhile.
    pub fn alarm(&self, short: bool) {
        run(&self.folder, if short { "alarm" } else { "no-alarm" });
    }

    /// Has it evaluate an Erlang expression, for what no client can do; gives the value as text.
    pub fn eval(&self, expression: &str) -> String {
        let output = broker_sh(&self.folder, "eval").arg(expression).output().expect("bash runs broker.sh");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "eval {expression}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// Brings it back with its data, and returns once it serves.
    pub fn start_again(&self) {
        run(&self.folder, "start");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nothing to keep: a kill is quicker, and `stop` then ends the epmd.
        for command in ["kill", "stop"] {
            let _ = broker_sh(&self.folder, command).output();
        }
    }
}

fn broker_sh(folder: &TempDir, command: &str) -> Command {
    let mut script = Command::new(script("broker.sh"));
    script.arg(command).env("WARREND_BROKER_DIR", folder.path()).env_remove("WARREND_AMQP_URL").stdin(Stdio::null());
    script
}

fn run(folder: &TempDir, command: &str) -> String {
    let output = broker_sh(folder, command).output().expect("bash runs broker.sh");
    assert!(output.status.success(), "broker.sh {command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
