//! Servers of this machine, each on a port of its own, gone when the test is over.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use redynamo::resp::Protocol;
use tempfile::TempDir;

use super::wire::Connection;

/// A server that answers.
pub struct Server {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl Server {
    /// Redis, without persistence; none where it is not installed.
    pub fn redis() -> Option<Server> {
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !found {
            eprintln!("skipped: redis-server is not installed, so there is nothing to compare with");
            return None;
        }
        Some(Server::start(Command::new("redis-server").args(["--save", "", "--appendonly", "no"])))
    }

    /// Two of them.
    pub fn two_of_redis() -> Option<[Server; 2]> {
        Some([Server::redis()?, Server::redis()?])
    }

    /// This program.
    pub fn ours() -> Server {
        let program = env!("CARGO_BIN_EXE_redynamo");
        let peer_port = free_port().to_string();
        Server::start(Command::new(program).args([
            "--admin-port",
            "off",
            "--peer-port",
            &peer_port,
            "--loglevel",
            "warning",
        ]))
    }

    /// A new connection.
    pub fn connect(&self, protocol: Protocol) -> Connection {
        Connection::open(self.port, protocol).expect("a server that answers")
    }

    fn start(command: &mut Command) -> Server {
        let (port, dir) = (free_port(), tempfile::tempdir().unwrap());
        command.arg("--port").arg(port.to_string()).arg("--dir").arg(dir.path());
        let process = command.stdout(Stdio::null()).spawn().unwrap();
        let mut server = Server { process, port, _dir: dir };
        server.await_answer();
        server
    }

    fn await_answer(&mut self) {
        loop {
            let answer = Connection::open(self.port, Protocol::Resp2)
                .and_then(|mut connection| connection.try_call(&[Bytes::from_static(b"PING")]));
            if answer.is_ok_and(|answer| answer.as_ref() == b"+PONG\r\n") {
                return;
            }
            assert!(self.process.try_wait().unwrap().is_none(), "the server ended before it answered");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Milliseconds since the epoch.
pub fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}
