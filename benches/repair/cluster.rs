//! Three nodes on loopback, each a process; connections to them; the rows that they hold.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Writes in flight on each of the connections that load the rows.
const PIPELINE: usize = 200;
/// Connections to each node that load the rows.
const LOADERS: usize = 4;
/// How often it is looked whether something holds.
const LOOK: Duration = Duration::from_millis(500);
/// What starting, joining and catching up may take.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Three nodes, all owners of everything. They end with this value.
pub struct Cluster {
    home: tempfile::TempDir,
    /// Of each node: for clients, for peers, for /metrics.
    pub ports: Vec<[u16; 3]>,
    nodes: Vec<Option<Child>>,
    settings: Vec<String>,
}

impl Cluster {
    /// Starts three nodes with these settings, and waits until they are one cluster.
    pub async fn start(settings: &[&str]) -> Cluster {
        let settings = settings.iter().map(|word| (*word).to_owned()).collect();
        let ports = (0..3).map(|_| free_ports()).collect();
        let mut cluster =
            Cluster { home: tempfile::tempdir().unwrap(), ports, nodes: vec![None, None, None], settings };
        for at in 0..3 {
            cluster.start_node(at).await;
        }
        cluster.until_ready().await;
        cluster
    }

    /// Starts a node with what is in its directory.
    pub async fn start_node(&mut self, at: usize) {
        let binary = std::env::var("REDYNAMO").unwrap_or_else(|_| env!("CARGO_BIN_EXE_redynamo").to_owned());
        let [port, peer_port, admin_port] = self.ports[at];
        let mut command = Command::new(binary);
        command.args(["--port", &port.to_string(), "--peer-port", &peer_port.to_string()]);
        command.args(["--admin-port", &admin_port.to_string(), "--dir", self.dir(at).to_str().unwrap()]);
        command.args(["--loglevel", "warning"]).args(&self.settings);
        if at > 0 {
            command.args(["--join", &format!("127.0.0.1:{}", self.ports[0][1])]);
        }
        self.nodes[at] = Some(command.stdin(Stdio::null()).stdout(Stdio::inherit()).spawn().unwrap());
        answers(port).await;
    }

    /// Kills a node, and with `wipe` takes its directory away.
    pub fn kill(&mut self, at: usize, wipe: bool) {
        end(self.nodes[at].take());
        if wipe {
            std::fs::remove_dir_all(self.dir(at)).unwrap();
        }
    }

    /// Stops a node where it is, or lets it go on.
    pub fn pause(&self, at: usize, yes: bool) {
        let id = self.nodes[at].as_ref().unwrap().id().to_string();
        let done = Command::new("kill").args([if yes { "-STOP" } else { "-CONT" }, &id]).status().unwrap();
        assert!(done.success());
    }

    /// Waits until all three are ready and see each other.
    pub async fn until_ready(&self) {
        for [port, ..] in &self.ports {
            until(async || {
                let info = info(*port).await;
                says(&info, "ready", "1") && says(&info, "nodes_live", "3")
            })
            .await;
        }
    }

    /// Waits until a node sees so many live ones, itself among them.
    pub async fn until_it_sees(&self, at: usize, live: usize) {
        until(async || says(&info(self.ports[at][0]).await, "nodes_live", &live.to_string())).await;
    }

    /// What a node says at /metrics, summed over the labels.
    pub fn metric(&self, at: usize, name: &str) -> f64 {
        page(self.ports[at][2]).lines().filter_map(|line| value_of(line, name)).sum()
    }

    fn dir(&self, at: usize) -> std::path::PathBuf {
        Path::new(self.home.path()).join(at.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.drain(..).for_each(end);
    }
}

fn end(node: Option<Child>) {
    if let Some(mut node) = node {
        let _ = node.kill();
        let _ = node.wait();
    }
}

fn free_ports() -> [u16; 3] {
    let held: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    ports.try_into().unwrap()
}

fn page(port: u16) -> String {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

fn value_of(line: &str, name: &str) -> Option<f64> {
    let rest = line.strip_prefix(name)?;
    let value = if rest.starts_with('{') { rest.split_once('}')?.1 } else { rest };
    value.strip_prefix(' ')?.trim().parse().ok()
}

/// A connection to a node.
pub struct Wire {
    pub reading: BufReader<tokio::net::tcp::OwnedReadHalf>,
    pub writing: tokio::net::tcp::OwnedWriteHalf,
}

impl Wire {
    pub async fn open(port: u16) -> Option<Wire> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let (reading, writing) = stream.into_split();
        Some(Wire { reading: BufReader::new(reading), writing })
    }

    async fn say(&mut self, words: &[&[u8]]) -> Option<Vec<u8>> {
        self.writing.write_all(&request(words)).await.ok()?;
        reply(&mut self.reading).await
    }
}

pub fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A reply that is no array: its first line, or the bytes that it says follow.
pub async fn reply(reading: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    if reading.read_until(b'\n', &mut line).await.ok()? == 0 {
        return None;
    }
    if line.first() == Some(&b'$')
        && let Ok(len) = std::str::from_utf8(&line[1..]).unwrap_or("-1").trim().parse::<usize>()
    {
        line = vec![0; len + 2];
        reading.read_exact(&mut line).await.ok()?;
    }
    Some(line)
}

async fn answers(port: u16) {
    until(async || match Wire::open(port).await {
        Some(mut wire) => wire.say(&[b"PING"]).await.is_some_and(|pong| pong.starts_with(b"+PONG")),
        None => false,
    })
    .await;
}

/// What a node says of itself. Asked for rarely and without what other nodes must be asked for: it takes time from clients.
pub async fn info(port: u16) -> BTreeMap<String, String> {
    let Some(mut wire) = Wire::open(port).await else { return BTreeMap::new() };
    let text = wire.say(&[b"INFO", b"redynamo"]).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

pub fn says(info: &BTreeMap<String, String>, name: &str, value: &str) -> bool {
    info.get(name).is_some_and(|said| said == value)
}

pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "it took too long");
        sleep(LOOK).await;
    }
}

pub fn key_of(at: u64) -> Vec<u8> {
    format!("key:{at:012}").into_bytes()
}

/// Writes a value under every one of these keys, at the nodes with these ports.
pub async fn fill(keys: impl Iterator<Item = u64>, value: &[u8], ports: &[u16]) {
    let (keys, written) = (keys.collect::<Vec<u64>>(), Arc::new(AtomicU64::new(0)));
    let workers = LOADERS * ports.len();
    let tasks = (0..workers).map(|worker| {
        let (port, value, written) = (ports[worker % ports.len()], value.to_vec(), written.clone());
        let mine: Vec<u64> = keys.iter().copied().skip(worker).step_by(workers).collect();
        tokio::spawn(async move {
            let mut wire = Wire::open(port).await.unwrap();
            for chunk in mine.chunks(PIPELINE) {
                let all: Vec<u8> = chunk.iter().flat_map(|at| request(&[b"SET", &key_of(*at), &value])).collect();
                wire.writing.write_all(&all).await.unwrap();
                for _ in chunk {
                    let told = reply(&mut wire.reading).await.unwrap();
                    assert!(told.starts_with(b"+OK"), "{}", String::from_utf8_lossy(&told));
                }
                written.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(written.load(Ordering::Relaxed), keys.len() as u64);
}
