//! redis-rs against real nodes: one by itself, and each of three by `redynamo local`.
#![allow(clippy::unwrap_used, reason = "a helper of a test that cannot go on ends the test")]

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use redis::{AsyncCommands, Client, Commands, Connection, ErrorKind, ProtocolVersion, RedisResult, ServerErrorKind};
use tempfile::TempDir;

/// More than any step takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Nodes that end with the test: they stop when their standard input closes.
struct Nodes {
    process: Child,
    /// Dropped first.
    _lifeline: Option<ChildStdin>,
    ports: Vec<u16>,
    _dir: TempDir,
}

impl Nodes {
    fn one(words: &[&str]) -> Nodes {
        Nodes::start(1, |command| command.args(["--exit-with-stdin", "yes"]).args(words))
    }

    fn three() -> Nodes {
        Nodes::start(3, |command| command)
    }

    fn start(count: u16, words: impl FnOnce(&mut Command) -> &mut Command) -> Nodes {
        let (base, dir) = (free_ports(count), tempfile::tempdir().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_redynamo"));
        if count > 1 {
            command.args(["local", &count.to_string()]);
        }
        command.args(["--port", &base.to_string(), "--dir", dir.path().to_str().unwrap(), "--admin-port", "off"]);
        words(&mut command).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lifeline = process.stdin.take();
        let said = BufReader::new(process.stdout.take().unwrap());
        let ready = if count > 1 { "nodes are ready" } else { "Ready to accept connections" };
        let mut lines = said.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains(ready)), "the nodes ended before they were ready");
        // Somebody has to read on, or they block.
        std::thread::spawn(move || lines.for_each(drop));
        let nodes = Nodes { process, _lifeline: lifeline, ports: (base..base + count).collect(), _dir: dir };
        nodes.await_each_other();
        nodes
    }

    /// Waits until every node knows that all of them are there.
    fn await_each_other(&self) {
        let deadline = Instant::now() + PATIENCE;
        let all = i64::try_from(self.ports.len()).unwrap();
        for port in &self.ports {
            while !written_by_all(*port, all).unwrap_or(true) {
                assert!(Instant::now() < deadline, "the nodes do not find each other");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn connections(&self) -> Vec<Connection> {
        let both = |port: &u16| [connect(*port, ProtocolVersion::RESP2), connect(*port, ProtocolVersion::RESP3)];
        self.ports.iter().flat_map(both).collect()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        // `local` stops its nodes when it is told to; a node by itself likewise.
        let told = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        if told.is_err() {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// Whether a write that all nodes must have is done; nothing where a password is wanted first.
fn written_by_all(port: u16, all: i64) -> Option<bool> {
    let mut connection = connect(port, ProtocolVersion::RESP2);
    let done: RedisResult<()> = redis::cmd("DYNAMO.WITH")
        .arg("W")
        .arg(all)
        .arg("SET")
        .arg(format!("there:{port}"))
        .arg(1)
        .query(&mut connection);
    match done {
        Err(error) if error.code() == Some("NOAUTH") => None,
        done => Some(done.is_ok()),
    }
}

fn connect(port: u16, protocol: ProtocolVersion) -> Connection {
    client(port, protocol, "").get_connection().unwrap()
}

fn client(port: u16, protocol: ProtocolVersion, user: &str) -> Client {
    let version = if protocol == ProtocolVersion::RESP3 { "?protocol=resp3" } else { "" };
    Client::open(format!("redis://{user}127.0.0.1:{port}/{version}")).unwrap()
}

/// The first of `count` ports in a row that are free, for clients and for nodes.
fn free_ports(count: u16) -> u16 {
    loop {
        let base = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if base < 50_000 && (base..base + count).all(|port| is_free(port) && is_free(port + 10_000)) {
            return base;
        }
    }
}

/// What each connection is to do, from an empty store.
fn battery(connection: &mut Connection) -> RedisResult<()> {
    let _: () = redis::cmd("FLUSHALL").query(connection)?;
    let _: () = connection.set("key", "value")?;
    assert_eq!(connection.get::<_, String>("key")?, "value");
    assert_eq!(connection.get::<_, Option<String>>("absent")?, None);
    assert!(!connection.set_nx::<_, _, bool>("key", "other")?);
    assert_eq!(connection.incr::<_, _, i64>("n", 41)?, 41);
    assert_eq!(connection.decr::<_, _, i64>("n", 1)?, 40);
    assert_eq!(connection.incr::<_, _, f64>("f", 2.5)?, 2.5);
    let _: () = connection.mset(&[("a", 1), ("b", 2)])?;
    assert_eq!(connection.mget::<_, Vec<Option<i64>>>(&["a", "absent", "b"])?, [Some(1), None, Some(2)]);
    assert!(connection.expire::<_, bool>("a", 100)?);
    assert!((1..=100).contains(&connection.ttl::<_, i64>("a")?));
    let bytes: Vec<u8> = (0..=255).chain(*b"\r\n").collect();
    let _: () = connection.set(&bytes, &bytes)?;
    assert_eq!(connection.get::<_, Vec<u8>>(&bytes)?, bytes);
    let (first, second): (i64, String) = redis::pipe().incr("piped", 1).get("piped").query(connection)?;
    assert_eq!((first, second.as_str()), (1, "1"));
    assert_eq!(connection.scan_match::<_, String>("[abn]")?.filter_map(Result::ok).count(), 3);
    let _: () = connection.set("text", "abc")?;
    let error = connection.incr::<_, _, i64>("text", 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Server(ServerErrorKind::ResponseError));
    assert!(error.to_string().contains("value is not an integer or out of range"), "{error}");
    let settings: std::collections::HashMap<String, String> =
        redis::cmd("CONFIG").arg("GET").arg("maxmemory-policy").query(connection)?;
    assert_eq!(settings["maxmemory-policy"], "noeviction");
    let info: redis::InfoDict = redis::cmd("INFO").query(connection)?;
    assert_eq!(info.get::<String>("redis_mode").as_deref(), Some("standalone"));
    connection.del::<_, i64>(&["key", "absent", "text"]).map(|deleted| assert_eq!(deleted, 2))
}

#[test]
fn one_node_serves_redis_rs() {
    let nodes = Nodes::one(&[]);
    nodes.connections().iter_mut().for_each(|connection| battery(connection).unwrap());
}

#[test]
fn every_node_of_three_serves_redis_rs_and_knows_what_the_others_were_told() {
    let nodes = Nodes::three();
    let mut connections = nodes.connections();
    connections.iter_mut().for_each(|connection| battery(connection).unwrap());
    let count = connections.len();
    for n in 0..120 {
        let _: () = connections[n % count].set(format!("seen:{n}"), n).unwrap();
        let _: i64 = connections[n % count].incr("counted", 1).unwrap();
    }
    for connection in &mut connections {
        assert_eq!(connection.get::<_, i64>("counted").unwrap(), 120);
        let keys: Vec<String> = (0..120).map(|n| format!("seen:{n}")).collect();
        assert_eq!(connection.mget::<_, Vec<usize>>(&keys).unwrap(), (0..120).collect::<Vec<_>>());
    }
}

#[test]
fn a_password_is_needed_refused_and_accepted() {
    let nodes = Nodes::one(&["--requirepass", "correct"]);
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        assert!(client(nodes.ports[0], protocol, ":wrong@").get_connection().is_err());
        let mut connection = client(nodes.ports[0], protocol, ":correct@").get_connection().unwrap();
        let _: () = connection.set("k", "v").unwrap();
    }
}

#[tokio::test]
async fn many_tasks_share_one_connection() {
    let nodes = Nodes::one(&[]);
    let connection =
        client(nodes.ports[0], ProtocolVersion::RESP3, "").get_multiplexed_async_connection().await.unwrap();
    let tasks = (0..200).map(|n: i64| {
        let mut connection = connection.clone();
        tokio::spawn(async move {
            let _: () = connection.set(format!("task:{n}"), n).await.unwrap();
            let _: i64 = connection.incr("tasks", 1).await.unwrap();
            connection.get::<_, i64>(format!("task:{n}")).await.unwrap()
        })
    });
    for (n, task) in tasks.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(task.await.unwrap(), i64::try_from(n).unwrap());
    }
    assert_eq!(connection.clone().get::<_, i64>("tasks").await.unwrap(), 200);
}
