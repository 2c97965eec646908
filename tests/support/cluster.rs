//! Three RabbitMQ nodes on loopback that are one cluster.

use std::thread;

use serde_json::Value;

use super::broker::{Broker, Vhost};
use super::node::Node;

/// A cluster of its own. Takes half a minute to start; ended when it is dropped.
pub struct Cluster {
    /// The first one last: the others find each other by its epmd, and it is dropped after them.
    nodes: Vec<Node>,
    broker: Broker,
}

impl Cluster {
    /// Starts three nodes with empty folders.
    pub fn start() -> Self {
        let first = Node::start_as("warrend1", None);
        let join = |name| Node::start_as(name, Some(&first));
        let (second, third) = thread::scope(|scope| {
            let third = scope.spawn(|| join("warrend3"));
            (join("warrend2"), third.join().expect("the third node starts"))
        });
        let nodes = vec![third, second, first];
        let broker = Broker::cluster(nodes.iter().map(Node::broker));
        Self { nodes, broker }
    }

    /// The broker that it is, whichever of its nodes are up.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Its nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node that leads a quorum queue; `None` while nobody does.
    pub fn leader(&self, vhost: &Vhost, queue: &str) -> Option<&Node> {
        let path = format!("/api/queues/{}/{queue}?columns=leader,state", vhost.name());
        let answer = self.broker.management().call("GET", &path, None).ok()?;
        let leader = answer["leader"].as_str()?;
        self.nodes.iter().find(|node| node.name() == leader)
    }

    /// How many nodes say that they run and see all the others.
    pub fn running(&self) -> usize {
        let sees_all = |node: &&Node| {
            let listing = node.broker().management().call("GET", "/api/nodes?columns=name,running", None);
            let listing = listing.unwrap_or_default();
            let all = listing.as_array().map_or(&[] as &[Value], Vec::as_slice);
            all.len() == self.nodes.len() && all.iter().all(|node| node["running"] == true)
        };
        self.nodes.iter().filter(sees_all).count()
    }
}
