//! `redynamo local N`: a cluster on this machine, one process a node, for trying things out and for tests.
//!
//! Nodes are children of this process in groups of their own, so that Ctrl-C reaches only this process. Each holds the
//! other end of a pipe as its standard input: closing it tells a node to stop, and it closes by itself if this process
//! is killed. A node that dies stays dead, so that one can watch what the others do; the command that brings it back is
//! printed.

use std::io::{self, Write};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::Refusal;
use super::ping::{is_serving, ping};
use crate::config::{Config, Settings, Sources};

/// How long a node may take from its start to its first answer.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long nodes may take to stop before they are killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How often a starting node is asked whether it answers.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How long one such question may take.
const ASK_PATIENCE: Duration = Duration::from_secs(1);

/// Settings that every node must have for itself: whoever gives one to all of them is told so.
const OWN: [&str; 4] = ["join", "node-name", "logfile", "pidfile"];
/// Environment variables that must not reach the nodes: the plan has read them.
const PLANNED: [&str; 5] = ["port", "cluster-port", "peer-port", "admin-port", "dir"];

/// The nodes to run.
#[derive(Clone, Debug)]
pub struct Plan {
    nodes: Vec<Node>,
}

/// One node of a plan.
#[derive(Clone, Debug)]
struct Node {
    name: String,
    /// Its command line, without the program.
    arguments: Vec<String>,
    port: u16,
    /// Where it answers clients, `host:port`.
    address: String,
    metrics: Option<String>,
}

impl Plan {
    /// A plan of `count` nodes. Directives and environment are those of the first node, as far as a node has something
    /// for itself; ports of the next ones follow.
    pub fn new(count: u16, directives: Vec<String>, environment: Vec<(String, String)>) -> Result<Plan, Refusal> {
        let first =
            Sources { environment: environment.clone(), flags: directives.clone(), ..Sources::default() }.load()?;
        for name in OWN {
            if first.get(&[name]).iter().any(|(_, text)| !text.is_empty()) {
                return Err(Refusal::Other(format!("redynamo local: {name} cannot be the same for every node")));
            }
        }
        let node = |index| Node::new(index, &first, &directives, &environment);
        let nodes = (0..count).map(node).collect::<Result<_, _>>()?;
        Ok(Plan { nodes })
    }
}

impl Node {
    fn new(
        index: u16,
        first: &Settings,
        directives: &[String],
        environment: &[(String, String)],
    ) -> Result<Node, Refusal> {
        let config = first.config();
        let name = format!("node-{}", index + 1);
        let dir = config.dir.join(&name).to_string_lossy().into_owned();
        let mut own = vec!["--node-name".to_owned(), name.clone(), "--dir".to_owned(), dir];
        for (directive, port) in ports(first, &config) {
            let port = port.checked_add(index).ok_or_else(|| too_high(directive))?;
            own.extend([format!("--{directive}"), port.to_string()]);
        }
        if index > 0 {
            let host = config.peer_bind.first().map_or("127.0.0.1", |bind| match bind.host.as_str() {
                "0.0.0.0" => "127.0.0.1",
                "::" => "::1",
                host => host,
            });
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            own.extend(["--join".to_owned(), format!("{host}:{}", config.peer_port)]);
        }
        let arguments = [directives, &own].concat();
        // The node reads the same words: what it would refuse is refused before anything is started.
        let sources = Sources { environment: environment.to_vec(), flags: arguments.clone(), ..Sources::default() };
        let config = sources.load()?.config();
        Ok(Node {
            name,
            arguments,
            port: config.port.or(config.cluster_port).unwrap_or_default(),
            address: config.client_address(),
            metrics: config.metrics_url(),
        })
    }

    /// The command that starts this node by hand.
    fn command(&self, program: &[String]) -> String {
        program.iter().chain(&self.arguments).map(|word| shell_quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// The ports that must be spelt out for each node: those that do not follow from another.
fn ports(first: &Settings, config: &Config) -> Vec<(&'static str, u16)> {
    let given = |name: &str| first.get(&[name]).iter().any(|(_, text)| text != "0" && text != "off");
    let mut ports = vec![("port", config.port)];
    ports.push(("cluster-port", config.cluster_port));
    ports.push(("peer-port", Some(config.peer_port).filter(|_| given("peer-port"))));
    ports.push(("admin-port", config.admin_port.filter(|_| given("admin-port"))));
    ports.into_iter().filter_map(|(name, port)| Some((name, port?))).collect()
}

fn too_high(directive: &str) -> Refusal {
    Refusal::Other(format!("redynamo local: there are not enough ports above {directive} for that many nodes"))
}

/// A word as a shell needs it.
fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Where everything is printed.
pub type Output = Arc<Mutex<dyn Write + Send>>;

/// Prints a line. Nobody may be reading any more: then nodes are to be stopped all the same, so that this cannot fail.
fn say(output: &Output, line: impl AsRef<str>) {
    let mut output = output.lock();
    let _ = writeln!(output, "{}", line.as_ref());
    let _ = output.flush();
}

/// Runs a plan until Ctrl-C or SIGTERM. The program is this one.
pub fn run_until_signal(plan: &Plan) -> Result<(), String> {
    let wrong = |error: io::Error| format!("redynamo local: {error}");
    let program = std::env::current_exe().map_err(wrong)?.to_string_lossy().into_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(wrong)?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let mut interrupt = signal(SignalKind::interrupt()).map_err(wrong)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(wrong)?;
        let stop = async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        run(plan, &[program], stop, Arc::new(Mutex::new(io::stdout()))).await
    })
}

/// Runs a plan until `stop`. `program` is the program of a node and the words before a node's own. An error if a node
/// does not start, or if none is left.
pub async fn run(
    plan: &Plan,
    program: &[String],
    stop: impl Future<Output = ()>,
    output: Output,
) -> Result<(), String> {
    let mut cluster = Cluster::start(plan, program, output)?;
    tokio::pin!(stop);
    let result = tokio::select! {
        () = &mut stop => Ok(()),
        result = cluster.serve() => result,
    };
    cluster.stop().await;
    result
}

/// Running nodes.
struct Cluster<'p> {
    plan: &'p Plan,
    program: &'p [String],
    output: Output,
    /// The pipes that keep nodes alive.
    lifelines: Vec<ChildStdin>,
    /// Set when nodes are to be killed.
    kill: watch::Sender<bool>,
    deaths: UnboundedReceiver<(usize, io::Result<ExitStatus>)>,
    alive: usize,
    readers: Vec<JoinHandle<()>>,
}

impl<'p> Cluster<'p> {
    fn start(plan: &'p Plan, program: &'p [String], output: Output) -> Result<Cluster<'p>, String> {
        let (died, deaths) = unbounded_channel();
        let kill = watch::Sender::new(false);
        let (lifelines, readers) = (Vec::new(), Vec::new());
        let mut cluster = Cluster { plan, program, output, lifelines, kill, deaths, alive: 0, readers };
        for (index, node) in plan.nodes.iter().enumerate() {
            cluster
                .spawn(index, node, died.clone())
                .map_err(|error| format!("{} cannot be started: {error}", node.name))?;
        }
        Ok(cluster)
    }

    fn spawn(
        &mut self,
        index: usize,
        node: &Node,
        died: UnboundedSender<(usize, io::Result<ExitStatus>)>,
    ) -> io::Result<()> {
        let [program, leading @ ..] = self.program else { return Err(io::ErrorKind::InvalidInput.into()) };
        let mut command = Command::new(program);
        command.args(leading).args(&node.arguments).args(["--exit-with-stdin", "yes"]);
        for name in PLANNED {
            if let Some(directive) = crate::config::find(name) {
                command.env_remove(directive.variable());
            }
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        self.lifelines.extend(child.stdin.take());
        if let Some(stdout) = child.stdout.take() {
            self.readers.push(tokio::spawn(print(node.name.clone(), stdout, Arc::clone(&self.output))));
        }
        if let Some(stderr) = child.stderr.take() {
            self.readers.push(tokio::spawn(print(node.name.clone(), stderr, Arc::clone(&self.output))));
        }
        self.alive += 1;
        let pid = child.id().map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        say(&self.output, format!("{} is starting, pid {pid}", node.name));
        tokio::spawn(attend(index, child, self.kill.subscribe(), died));
        Ok(())
    }

    /// Waits for all nodes to answer, then tells of deaths until none is left.
    async fn serve(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_PATIENCE;
        for node in &self.plan.nodes {
            tokio::select! {
                answered = timeout_at(deadline, answers(&node.address)) => {
                    answered.map_err(|_| format!("{} does not answer at {}", node.name, node.address))?;
                }
                Some((index, status)) = self.deaths.recv() => {
                    self.alive -= 1;
                    return Err(format!("{} failed to start: {}", self.name(index), ending(&status)));
                }
            }
        }
        self.introduce();
        while self.alive > 0 {
            let Some((index, status)) = self.deaths.recv().await else { break };
            self.alive -= 1;
            self.mourn(index, &status);
        }
        Err("no node is left".to_owned())
    }

    fn introduce(&self) {
        let mut text = format!("\n{} nodes are ready. Any of them takes any command:\n", self.plan.nodes.len());
        for node in &self.plan.nodes {
            text += &format!("  redis-cli -p {:<6} # {}", node.port, node.name);
            text += &node.metrics.as_ref().map_or_else(String::new, |url| format!(", metrics at {url}"));
            text.push('\n');
        }
        say(&self.output, text + "Ctrl-C stops them all.\n");
    }

    fn mourn(&self, index: usize, status: &io::Result<ExitStatus>) {
        let others =
            if self.alive == 1 { "1 node is left".to_owned() } else { format!("{} nodes are left", self.alive) };
        say(&self.output, format!("{} is dead: {}; {others}. To bring it back:", self.name(index), ending(status)));
        if let Some(node) = self.plan.nodes.get(index) {
            say(&self.output, format!("  {}", node.command(self.program)));
        }
    }

    /// Tells nodes to stop, kills those that do not, and prints what they still say.
    async fn stop(mut self) {
        self.lifelines.clear();
        let deadline = Instant::now() + STOP_PATIENCE;
        while self.alive > 0 {
            match timeout_at(deadline, self.deaths.recv()).await {
                Ok(Some(_)) => self.alive -= 1,
                Ok(None) => break,
                Err(_) => {
                    say(&self.output, format!("{} nodes did not stop in time and are killed", self.alive));
                    self.kill.send_replace(true);
                    while self.deaths.recv().await.is_some() {}
                    break;
                }
            }
        }
        for reader in self.readers {
            // A node's own child may hold the other end for longer: then its words are not waited for.
            let _ = timeout(ASK_PATIENCE, reader).await;
        }
        say(&self.output, "All nodes have stopped.");
    }

    fn name(&self, index: usize) -> &str {
        self.plan.nodes.get(index).map_or("a node", |node| &node.name)
    }
}

/// Waits for a node's end, or ends it when told to.
async fn attend(
    index: usize,
    mut child: Child,
    mut kill: watch::Receiver<bool>,
    died: UnboundedSender<(usize, io::Result<ExitStatus>)>,
) {
    let told = async {
        // An error means that the cluster is dropped: the same.
        let _ = kill.wait_for(|kill| *kill).await;
    };
    let status = tokio::select! {
        status = child.wait() => Some(status),
        () = told => None,
    };
    let status = match status {
        Some(status) => status,
        None => match child.start_kill() {
            Ok(()) => child.wait().await,
            Err(error) => Err(error),
        },
    };
    // Nobody listens when the cluster is dropped.
    let _ = died.send((index, status));
}

/// Prints what a node says, line by line, under its name.
async fn print(name: String, from: impl AsyncRead + Unpin, output: Output) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
        say(&output, format!("{name} | {}", String::from_utf8_lossy(&line).trim_end()));
        line.clear();
    }
}

/// Returns when the node at `address` serves.
async fn answers(address: &str) {
    loop {
        let asked = address.to_owned();
        let answer = spawn_blocking(move || ping(&asked, ASK_PATIENCE)).await;
        if matches!(answer, Ok(Ok(answer)) if is_serving(&answer)) {
            return;
        }
        sleep(ASK_EVERY).await;
    }
}

fn ending(status: &io::Result<ExitStatus>) -> String {
    status.as_ref().map_or_else(ToString::to_string, ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(count: u16, words: &[&str]) -> Result<Plan, Refusal> {
        Plan::new(count, words.iter().map(|word| (*word).to_owned()).collect(), Vec::new())
    }

    #[test]
    fn nodes_get_ports_in_a_row_directories_of_their_own_and_join_the_first() {
        let plan = plan(3, &["--port", "7000", "--dir", "/d", "--requirepass", "x"]).unwrap();
        let commands: Vec<String> = plan.nodes.iter().map(|node| node.command(&["redynamo".to_owned()])).collect();
        let common = "redynamo --port 7000 --dir /d --requirepass x";
        let own = |n: u16| format!("--node-name node-{n} --dir /d/node-{n} --port {}", 6999 + n);
        let join = "--join 127.0.0.1:17000";
        assert_eq!(commands[0], format!("{common} {}", own(1)));
        assert_eq!(commands[1], format!("{common} {} {join}", own(2)));
        assert_eq!(commands[2], format!("{common} {} {join}", own(3)));
        assert_eq!(plan.nodes[2].address, "127.0.0.1:7002");
        assert_eq!(plan.nodes[2].metrics.as_deref(), Some("http://127.0.0.1:27002/metrics"));
    }

    #[test]
    fn ports_that_are_given_are_counted_up_and_off_stays_off() {
        let plan = plan(2, &["--peer-port", "9000", "--admin-port", "off", "--cluster-port", "8000"]).unwrap();
        let arguments = plan.nodes[1].arguments.join(" ");
        assert!(
            arguments.ends_with("--port 6380 --cluster-port 8001 --peer-port 9001 --join 127.0.0.1:9000"),
            "{arguments}"
        );
        assert_eq!(plan.nodes[1].metrics, None);
    }

    #[test]
    fn what_every_node_needs_for_itself_cannot_be_given_to_all() {
        for words in [["--join", "localhost:1"], ["--node-name", "x"], ["--logfile", "/x"], ["--pidfile", "/x"]] {
            assert!(matches!(plan(2, &words), Err(Refusal::Other(_))), "{words:?}");
        }
        assert!(matches!(plan(2, &["--pot", "1"]), Err(Refusal::Config(_))));
        assert!(plan(3, &["--port", "45535"]).is_err(), "the third one's admin port would be 65537");
    }

    #[test]
    fn commands_can_be_pasted_into_a_shell() {
        assert_eq!(shell_quoted("--dir"), "--dir");
        assert_eq!(shell_quoted("it's $x"), r"'it'\''s $x'");
        assert_eq!(shell_quoted(""), "''");
    }
}
