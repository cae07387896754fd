//! What a full repair does to clients: the latency of a steady load with one replica pulling everything, against the same
//! load a moment later without; with admission control and without.
//!
//! ```text
//! cargo bench --bench repair -- [--rows 1000000] [--rate 2000] [--seconds 20] [--throttle yes|no|both] [--bytes 100]
//! ```
//!
//! Three real nodes on loopback, N = 3, R = W = 2. The third is down while the rows are written, so that it returns with
//! nothing. The load is open: a request leaves when its time has come, whether or not others have been answered, and its
//! latency counts from then. It goes to all three nodes, half reads, half writes. Nodes and load share one machine: read
//! the ratio, not the figures; and where others use the machine as well, the last column: of the 99th percentiles of all
//! seconds the middle one, which a single stall does not touch. `REDYNAMO=path` measures another binary than the one built for this.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redynamo::base::rng::Rng;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Connections to each node.
const CONNECTIONS: u64 = 8;
/// Writes in flight on each of the connections that load the rows.
const PIPELINE: u64 = 200;
/// What starting, joining and catching up may take.
const PATIENCE: Duration = Duration::from_secs(1800);

#[derive(Clone)]
struct Options {
    rows: u64,
    rate: u64,
    seconds: u64,
    bytes: usize,
    throttle: Vec<&'static str>,
}

fn options() -> Options {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let mut options = Options { rows: 1_000_000, rate: 2_000, seconds: 20, bytes: 100, throttle: vec!["yes", "no"] };
    for pair in words.chunks(2) {
        let value = pair.get(1).unwrap_or_else(|| panic!("{} needs a value", pair[0]));
        match pair[0].as_str() {
            "--rows" => options.rows = value.parse().unwrap(),
            "--rate" => options.rate = value.parse().unwrap(),
            "--seconds" => options.seconds = value.parse().unwrap(),
            "--bytes" => options.bytes = value.parse().unwrap(),
            "--throttle" if value == "yes" => options.throttle = vec!["yes"],
            "--throttle" if value == "no" => options.throttle = vec!["no"],
            "--throttle" => {}
            other => panic!("unknown option {other}"),
        }
    }
    options
}

#[tokio::main]
async fn main() {
    let options = options();
    println!("{} rows of {} bytes, {} requests a second", options.rows, options.bytes, options.rate);
    println!(
        "{:<9} {:<15} {:>8} {:>9} {:>9} {:>9} {:>9} {:>7} {:>11}",
        "throttle", "", "requests", "p50 ms", "p99 ms", "p99.9 ms", "errors", "took s", "p99 of a s"
    );
    for throttle in options.throttle.clone() {
        measure(&options, throttle).await;
    }
}

/// One cluster, one repair.
async fn measure(options: &Options, throttle: &'static str) {
    let home = tempfile::tempdir().unwrap();
    let ports: Vec<[u16; 3]> = (0..3).map(|_| free_ports()).collect();
    let node = |at: usize| Node::start(home.path(), at, &ports, throttle);
    let mut nodes = vec![node(0)];
    answers(ports[0][0]).await;
    for (at, [port, ..]) in ports.iter().enumerate().skip(1) {
        nodes.push(node(at));
        answers(*port).await;
    }
    until_ready(&ports).await;
    nodes.pop();
    sleep(Duration::from_secs(4)).await;
    fill(options, &ports[..2]).await;

    let _third = node(2);
    answers(ports[2][0]).await;
    let repair = Load::begin(options, &ports);
    let began = Instant::now();
    let watched = watch(ports[2][0], options.rows);
    until_equal(&ports).await;
    let took = began.elapsed();
    watched.abort();
    let during = repair.end().await;
    sleep(Duration::from_secs(3)).await;
    let calm = Load::begin(options, &ports);
    sleep(Duration::from_secs(options.seconds)).await;
    let calm = calm.end().await;
    during.show(throttle, "with repair", took);
    calm.show("", "without", Duration::from_secs(options.seconds));
    println!(
        "{:<9} {:<15} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>9} {:>7} {:>11.2}",
        "",
        "ratio",
        "",
        during.part(0.5) / calm.part(0.5),
        during.part(0.99) / calm.part(0.99),
        during.part(0.999) / calm.part(0.999),
        "",
        "",
        during.middle_second() / calm.middle_second()
    );
}

/// A node's process, which ends with this value.
struct Node(Child);

impl Node {
    fn start(home: &Path, at: usize, ports: &[[u16; 3]], throttle: &str) -> Node {
        let binary = std::env::var("REDYNAMO").unwrap_or_else(|_| env!("CARGO_BIN_EXE_redynamo").to_owned());
        let [port, peer_port, admin_port] = ports[at];
        let dir = home.join(at.to_string());
        let mut command = Command::new(binary);
        command.args(["--port", &port.to_string(), "--peer-port", &peer_port.to_string()]);
        command.args(["--admin-port", &admin_port.to_string(), "--dir", dir.to_str().unwrap()]);
        command.args(["--loglevel", "warning", "--background-throttle", throttle]);
        if at > 0 {
            command.args(["--join", &format!("127.0.0.1:{}", ports[0][1])]);
        }
        Node(command.stdin(Stdio::null()).stdout(Stdio::inherit()).spawn().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_ports() -> [u16; 3] {
    let held: Vec<TcpListener> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = held.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    ports.try_into().unwrap()
}

/// A connection to a node.
struct Wire {
    reading: BufReader<tokio::net::tcp::OwnedReadHalf>,
    writing: tokio::net::tcp::OwnedWriteHalf,
}

impl Wire {
    async fn open(port: u16) -> Option<Wire> {
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

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// A reply that is no array: its first line, or the bytes that it says follow.
async fn reply(reading: &mut (impl AsyncBufRead + Unpin)) -> Option<Vec<u8>> {
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
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(mut wire) = Wire::open(port).await
            && wire.say(&[b"PING"]).await.is_some_and(|pong| pong.starts_with(b"+PONG"))
        {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("the node at {port} does not answer");
}

/// A line of INFO.
async fn info(port: u16, name: &str) -> Option<String> {
    let text = Wire::open(port).await?.say(&[b"INFO", b"everything"]).await?;
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "it took too long");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn until_ready(ports: &[[u16; 3]]) {
    until(async || {
        for [port, ..] in ports {
            let (ready, live) = (info(*port, "ready").await, info(*port, "nodes_live").await);
            if ready.as_deref() != Some("1") || live.as_deref() != Some("3") {
                return false;
            }
        }
        true
    })
    .await;
}

/// Until the third node has been compared with both others in every partition.
async fn until_equal(ports: &[[u16; 3]]) {
    until_ready(ports).await;
    until(async || info(ports[2][0], "sync_never").await.as_deref() == Some("0")).await;
}

/// Writes how far a repair has come, now and then, for whoever waits.
fn watch(port: u16, rows: u64) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            sleep(Duration::from_secs(5)).await;
            let known = [
                "repaired_by_sync",
                "background_reason",
                "background_bytes_per_second",
                "foreground_p99_us",
                "foreground_limit_us",
            ];
            let mut shown = Vec::new();
            for name in known {
                shown.push(format!("{name} {}", info(port, name).await.unwrap_or_default()));
            }
            eprintln!("  of {rows} rows: {}", shown.join(", "));
        }
    })
}

fn key_of(at: u64) -> Vec<u8> {
    format!("key:{at:012}").into_bytes()
}

/// Writes all rows, at two nodes.
async fn fill(options: &Options, ports: &[[u16; 3]]) {
    let workers = 4 * ports.len() as u64;
    let written = Arc::new(AtomicU64::new(0));
    let tasks = (0..workers).map(|worker| {
        let (port, rows, value, written) =
            (ports[worker as usize % ports.len()][0], options.rows, vec![b'x'; options.bytes], written.clone());
        tokio::spawn(async move {
            let mut wire = Wire::open(port).await.unwrap();
            let mine: Vec<u64> = (worker..rows).step_by(workers as usize).collect();
            for chunk in mine.chunks(PIPELINE as usize) {
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
    assert_eq!(written.load(Ordering::Relaxed), options.rows);
}

/// A steady load under way.
struct Load {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Latencies in microseconds, and how many requests failed.
#[derive(Default)]
struct Seen {
    micros: Vec<u64>,
    /// The same by the second in which they were due.
    seconds: BTreeMap<u64, Vec<u64>>,
    errors: u64,
}

impl Load {
    fn begin(options: &Options, ports: &[[u16; 3]]) -> Load {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Seen::default())));
        let connections = CONNECTIONS * ports.len() as u64;
        let pause = Duration::from_nanos(1_000_000_000 * connections / options.rate);
        let tasks = (0..connections).map(|at| {
            let port = ports[at as usize % ports.len()][0];
            let offset = pause.mul_f64(at as f64 / connections as f64);
            tokio::spawn(connection(port, offset, pause, at, options.clone(), stop.clone(), seen.clone()))
        });
        Load { tasks: tasks.collect(), stop, seen }
    }

    async fn end(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        let mut seen = std::mem::take(&mut *self.seen.lock());
        seen.micros.sort_unstable();
        seen
    }
}

/// Requests at their times on one connection.
async fn connection(
    port: u16,
    offset: Duration,
    pause: Duration,
    number: u64,
    options: Options,
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
) {
    let Wire { mut reading, mut writing } = Wire::open(port).await.unwrap();
    let (sent, mut due) = tokio::sync::mpsc::unbounded_channel::<Instant>();
    let sending = async move {
        let (mut rng, value) = (Rng::new(number + 1), vec![b'y'; options.bytes]);
        let mut at = Instant::now() + offset;
        while !stop.load(Ordering::Relaxed) {
            sleep(at.saturating_duration_since(Instant::now())).await;
            let key = key_of(rng.below(options.rows));
            let request = if rng.chance(0.5) { request(&[b"GET", &key]) } else { request(&[b"SET", &key, &value]) };
            sent.send(at).unwrap();
            writing.write_all(&request).await.unwrap();
            at += pause;
        }
        writing
    };
    let began = Instant::now();
    let receiving = async {
        while let Some(at) = due.recv().await {
            let told = reply(&mut reading).await.unwrap();
            let took = at.elapsed().as_micros() as u64;
            let mut seen = seen.lock();
            seen.micros.push(took);
            seen.seconds.entry(at.duration_since(began).as_secs()).or_default().push(took);
            seen.errors += u64::from(told.starts_with(b"-"));
        }
    };
    tokio::join!(sending, receiving);
}

impl Seen {
    /// What this part of the requests did not exceed, in milliseconds.
    fn part(&self, part: f64) -> f64 {
        let at = ((self.micros.len() as f64 * part) as usize).min(self.micros.len().saturating_sub(1));
        self.micros.get(at).map_or(f64::NAN, |us| *us as f64 / 1e3)
    }

    /// The 99th percentile of a second, in milliseconds: the middle one of all seconds.
    fn middle_second(&self) -> f64 {
        let of_second = |micros: &Vec<u64>| {
            let mut micros = micros.clone();
            micros.sort_unstable();
            micros[micros.len() * 99 / 100]
        };
        let mut all: Vec<u64> = self.seconds.values().map(of_second).collect();
        all.sort_unstable();
        all.get(all.len() / 2).map_or(f64::NAN, |us| *us as f64 / 1e3)
    }

    fn show(&self, throttle: &str, what: &str, took: Duration) {
        println!(
            "{throttle:<9} {what:<15} {:>8} {:>9.2} {:>9.2} {:>9.2} {:>9} {:>7.1} {:>11.2}",
            self.micros.len(),
            self.part(0.5),
            self.part(0.99),
            self.part(0.999),
            self.errors,
            took.as_secs_f64(),
            self.middle_second()
        );
    }
}
