//! Nodes as child processes that end with the test, however it ends, and clusters of them.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::place::coordinator;
pub use super::place::{holdings, program};
use super::wire::Wire;

/// More than any step takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Ports that this program has given out.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Held by tests that keep the whole machine busy, so that their figures are their own.
pub static ALONE: Mutex<()> = Mutex::new(());

/// Ports that nobody listens on, below those that the system takes for outgoing connections: a node that is down for a
/// moment must find its ports free when it returns.
pub fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let mut given = GIVEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut held = Vec::new();
    let mut next = 10_000 + (std::process::id() % 1_800) as u16 * 12;
    while held.len() < COUNT {
        next = if next >= 32_000 { 10_000 } else { next + 1 };
        if !given.contains(&next)
            && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, next))
        {
            held.push((next, listener));
        }
    }
    let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
    given.extend(&ports);
    ports.try_into().unwrap()
}

/// A node's place: its directory, ports and words. It runs or not.
pub struct Node {
    pub name: String,
    pub dir: PathBuf,
    pub port: u16,
    pub peer_port: u16,
    admin_port: u16,
    /// Directives besides those of its place.
    pub words: Vec<String>,
    /// Variables besides those of the test's own environment.
    pub variables: Vec<(String, String)>,
    log: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node that is not running yet, below `parent`.
    pub fn new(parent: &Path, name: &str, words: &[&str]) -> Node {
        let [port, peer_port, admin_port] = free_ports();
        Node {
            name: name.to_owned(),
            dir: parent.join(name),
            port,
            peer_port,
            admin_port,
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            variables: Vec::new(),
            log: parent.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Starts the process; whether it serves is not waited for.
    pub fn start(&mut self) -> &mut Node {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut command = program();
        command.args(["--bind", "127.0.0.1", "--node-name", &self.name]);
        command.args(["--port", &self.port.to_string(), "--peer-port", &self.peer_port.to_string()]);
        command.args(["--admin-port", &self.admin_port.to_string()]).arg("--dir").arg(&self.dir).args(&self.words);
        command.envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
        self
    }

    /// Starts it and waits until it answers.
    pub fn serve(&mut self) -> &mut Node {
        self.start().wait_until_it_answers();
        self
    }

    pub fn wait_until_it_answers(&mut self) {
        let began = Instant::now();
        loop {
            if let Ok(mut wire) = Wire::open(self.port)
                && wire.try_call(&["PING"]).is_ok()
            {
                return;
            }
            if let Some(status) = self.ended() {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            assert!(began.elapsed() < PATIENCE, "{} does not answer:\n{}", self.name, self.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Gives it other ports; it must not run.
    pub fn move_elsewhere(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        [self.port, self.peer_port, self.admin_port] = free_ports();
    }

    /// Its exit status, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), "TERM");
        self.wait_for_the_end()
    }

    /// Waits until the process ends by itself.
    pub fn wait_for_the_end(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if began.elapsed() > PATIENCE {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("{} does not end:\n{}", self.name, self.log());
            }
            sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// All that it has said since its directory was made, over all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it has said something.
    pub fn wait_until_it_says(&self, wanted: &str) {
        let began = Instant::now();
        while !self.log().contains(wanted) {
            assert!(began.elapsed() < PATIENCE, "'{wanted}' was not said in:\n{}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    pub fn wire(&self) -> Wire {
        Wire::to(self.port)
    }

    /// Memory that is in use by the process, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.log());
        }
    }
}

/// Sends a signal by name.
pub fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap().success());
}

/// Nodes that know each other.
pub struct Cluster {
    pub nodes: Vec<Node>,
    _dir: TempDir,
}

impl Cluster {
    /// As many nodes, serving, and each sees all others.
    pub fn of(count: usize, words: &[&str]) -> Cluster {
        Cluster::placed(count, words, |_| {})
    }

    /// The same, each at the place that `place` gives it.
    pub fn placed(count: usize, words: &[&str], place: impl Fn(&mut Node)) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes: Vec<Node> = Vec::new();
        for number in 1..=count {
            let mut node = Node::new(dir.path(), &format!("node-{number}"), words);
            if let Some(first) = nodes.first() {
                node.words.extend(["--join".to_owned(), format!("127.0.0.1:{}", first.peer_port)]);
            }
            place(&mut node);
            node.serve();
            nodes.push(node);
        }
        let cluster = Cluster { nodes, _dir: dir };
        cluster.wait_until_whole();
        cluster
    }

    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|node| node.port).collect()
    }

    /// Waits until every node sees all nodes alive, and all agree on who coordinates what and that everyone takes part.
    pub fn wait_until_whole(&self) {
        let began = Instant::now();
        let mut seen = Err("nothing yet".to_owned());
        while began.elapsed() < PATIENCE {
            seen = self.is_whole();
            if seen.is_ok() {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("the cluster does not become whole: {seen:?}");
    }

    fn is_whole(&self) -> Result<(), String> {
        let keys: Vec<String> = (0..40).map(|key| format!("probe:{key}")).collect();
        let mut opinions = BTreeSet::new();
        for node in &self.nodes {
            let mut wire = Wire::open(node.port).map_err(|error| format!("{}: {error}", node.name))?;
            let mut opinion = Vec::new();
            for key in &keys {
                let place = wire.try_call(&["DYNAMO.WHERE", key]).map_err(|error| format!("{}: {error}", node.name))?;
                opinion.push(coordinator(&place)?);
            }
            opinions.insert(opinion);
        }
        let everyone: BTreeSet<&String> = opinions.iter().flatten().collect();
        let whole = opinions.len() == 1 && everyone.len() == self.nodes.len();
        if whole { Ok(()) } else { Err(format!("{} opinions, {everyone:?} coordinate", opinions.len())) }
    }
}
