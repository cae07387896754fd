//! A bridge with one namespace for each node, and what is broken between them. Clients sit on the bridge and reach every
//! node whatever is cut.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::arena::{tool, tool_with};

/// Port for clients of every node.
pub const PORT: u16 = 6379;
/// Port for peers of every node.
pub const PEER_PORT: u16 = 16379;
/// Where every node says how it is.
pub const ADMIN_PORT: u16 = 26379;

/// What becomes of packets on a way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// They vanish.
    Swallow,
    /// Their sender is told that the connection is gone.
    Reset,
    /// As many of them vanish.
    Lose(f64),
}

/// Ways, from one node to another, that are cut alike.
#[derive(Debug, Clone)]
pub struct Layer {
    pub ways: Vec<(usize, usize)>,
    pub cut: Cut,
}

/// The network of as many nodes.
pub struct Net {
    /// Processes that do nothing but be in a namespace.
    holders: Vec<Child>,
    layers: BTreeMap<u64, Layer>,
    next: u64,
}

impl Net {
    pub fn new(nodes: usize) -> Net {
        tool("ip", &["link", "set", "lo", "up"]);
        tool("ip", &["link", "add", "bridge", "type", "bridge"]);
        tool("ip", &["addr", "add", "10.77.0.254/24", "dev", "bridge"]);
        tool("ip", &["link", "set", "bridge", "up"]);
        let mut net = Net { holders: Vec::new(), layers: BTreeMap::new(), next: 0 };
        (0..nodes).for_each(|node| net.plug_in(node));
        net
    }

    fn plug_in(&mut self, node: usize) {
        let mut holder = Command::new("unshare");
        holder.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        self.holders.push(holder.spawn().unwrap());
        self.wait_for_namespace(node);
        let (link, pid) = (format!("link{node}"), self.holders[node].id().to_string());
        tool("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &pid]);
        tool("ip", &["link", "set", &link, "master", "bridge", "up"]);
        self.run_at(node, &["ip", "addr", "add", &format!("{}/24", ip(node)), "dev", "eth0"], "");
        self.run_at(node, &["ip", "link", "set", "eth0", "up"], "");
        self.run_at(node, &["ip", "link", "set", "lo", "up"], "");
    }

    fn wait_for_namespace(&self, node: usize) {
        let (own, began) = (std::fs::read_link("/proc/self/ns/net").unwrap(), Instant::now());
        while std::fs::read_link(self.namespace(node)).map_or(true, |other| other == own) {
            assert!(began.elapsed() < Duration::from_secs(10), "no namespace for node {node}");
            sleep(Duration::from_millis(2));
        }
    }

    /// The file that is a node's namespace.
    pub fn namespace(&self, node: usize) -> PathBuf {
        format!("/proc/{}/ns/net", self.holders[node].id()).into()
    }

    /// Cuts, until it is mended.
    pub fn cut(&mut self, layer: Layer) -> u64 {
        self.next += 1;
        self.layers.insert(self.next, layer);
        self.apply();
        self.next
    }

    pub fn mend(&mut self, cut: u64) {
        self.layers.remove(&cut);
        self.apply();
    }

    /// Whether packets from one node to another all arrive.
    pub fn is_clear(&self, from: usize, to: usize) -> bool {
        !self.layers.values().any(|layer| layer.ways.contains(&(from, to)))
    }

    /// A node drops what it would receive: so each way is cut by itself.
    fn apply(&self) {
        for node in 0..self.holders.len() {
            let mut rules = "*filter\n:INPUT ACCEPT\n:FORWARD ACCEPT\n:OUTPUT ACCEPT\n".to_owned();
            for layer in self.layers.values() {
                for (from, _) in layer.ways.iter().filter(|(_, to)| *to == node) {
                    rules.push_str(&format!("-A INPUT -s {} {}\n", ip(*from), layer.cut.rule()));
                }
            }
            rules.push_str("COMMIT\n");
            self.run_at(node, &["iptables-restore"], &rules);
        }
    }

    fn run_at(&self, node: usize, words: &[&str], input: &str) {
        let namespace = format!("--net={}", self.namespace(node).display());
        let mut args = vec![namespace.as_str()];
        args.extend(words);
        tool_with("nsenter", &args, input);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        let _ = Command::new("ip").args(["link", "del", "bridge"]).status();
    }
}

impl Cut {
    fn rule(self) -> String {
        match self {
            Cut::Swallow => "-j DROP".to_owned(),
            Cut::Reset => "-p tcp -j REJECT --reject-with tcp-reset".to_owned(),
            Cut::Lose(part) => format!("-m statistic --mode random --probability {part:.3} -j DROP"),
        }
    }
}

/// A node's address.
pub fn ip(node: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, 1 + node as u8).into()
}

/// Where a node serves clients.
pub fn address(node: usize) -> SocketAddr {
    (ip(node), PORT).into()
}

/// All ways between nodes of different groups.
pub fn between(groups: &[Vec<usize>]) -> Vec<(usize, usize)> {
    let mut ways = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        let others = groups.iter().enumerate().filter(|(other, _)| *other != at).flat_map(|(_, others)| others);
        ways.extend(others.flat_map(|to| group.iter().map(move |from| (*from, *to))));
    }
    ways
}
