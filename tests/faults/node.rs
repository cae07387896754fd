//! A node as a process in a namespace, with a disk that can fill up and a clock that can be wrong.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::arena::tool;
use super::net::{ADMIN_PORT, PEER_PORT, PORT, address, ip};
use super::place::without_settings;
use super::wire::Wire;

/// Room for a node's data where the disk is to fill up.
const SMALL_DISK: &str = "size=160m";

/// How long a node may take to say how it is.
const ADMIN_PATIENCE: Duration = Duration::from_secs(3);

/// Where Debian has it, by architecture.
const FAKETIME: [&str; 3] = ["x86_64-linux-gnu", "aarch64-linux-gnu", ""];

/// A node's place and words. It runs or not.
pub struct Node {
    pub number: usize,
    pub name: String,
    home: PathBuf,
    namespace: PathBuf,
    log: PathBuf,
    small_disk: bool,
    faketime: Option<PathBuf>,
    /// Directives besides those of its place.
    pub words: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// A node that is not running yet, below `parent`.
    pub fn new(number: usize, parent: &Path, namespace: PathBuf, small_disk: bool, words: &[&str]) -> Node {
        let name = format!("node-{}", number + 1);
        let (home, log) = (parent.join(&name), parent.join(format!("{name}.log")));
        fs::create_dir(&home).unwrap();
        if small_disk {
            tool("mount", &["-t", "tmpfs", "-o", SMALL_DISK, "small-disk", home.to_str().unwrap()]);
        }
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        let mut node =
            Node { number, name, home, namespace, log, small_disk, faketime: faketime(), words, child: None };
        node.set_clock(0);
        node
    }

    /// Starts the process; whether it serves is not waited for.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let mut log = File::options().create(true).append(true).open(&self.log).unwrap();
        let _ = writeln!(log, "---- started");
        let mut command = without_settings(Command::new("nsenter"));
        command.arg(format!("--net={}", self.namespace.display())).arg(env!("CARGO_BIN_EXE_redynamo"));
        command.args(["--bind", &ip(self.number).to_string(), "--node-name", &self.name]);
        command.args(["--port", &PORT.to_string(), "--peer-port", &PEER_PORT.to_string()]);
        command.args(["--admin-port", &ADMIN_PORT.to_string()]);
        command.args(["--protected-mode", "no", "--cluster-secret", "between ourselves"]);
        command.arg("--dir").arg(self.data()).args(&self.words);
        if let Some(library) = &self.faketime {
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", self.clock());
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Its exit status, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// Whether its last life ended before it served, since its disk was full: one line says so, and who supervises it
    /// starts it again. Once it serves it must outlive that.
    pub fn found_no_room_to_start(&self) -> bool {
        let log = self.log();
        let life = log.rsplit("---- started").next().unwrap_or_default();
        life.ends_with("No space left on device (os error 28)\n") && !life.contains("Ready to accept connections")
    }

    pub fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL, which a paused process hears too.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
        }
    }

    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        if let Some(child) = &self.child {
            // It may just have ended by itself, which others notice.
            let _ = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
        }
    }

    /// Loses all data; it must not run.
    pub fn wipe(&mut self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let _ = fs::remove_dir_all(self.data());
    }

    /// Keeps a copy of its data as it is now; it must not run.
    pub fn take_snapshot(&self) {
        assert!(self.child.is_none(), "{} runs", self.name);
        self.drop_snapshot();
        copy(&self.data(), &self.snapshot());
    }

    pub fn drop_snapshot(&self) {
        let _ = fs::remove_dir_all(self.snapshot());
    }

    pub fn has_snapshot(&self) -> bool {
        self.snapshot().exists()
    }

    /// Puts its data back to what they were; it must not run.
    pub fn roll_back(&mut self) {
        self.wipe();
        copy(&self.snapshot(), &self.data());
    }

    /// Takes all room that is left on its disk, which must be a small one.
    pub fn fill_disk(&self) {
        assert!(self.small_disk, "{} has no disk that could be filled", self.name);
        let mut ballast = File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0; 1 << 16]).is_ok() {}
        // Whatever is left of the last block.
        while ballast.write_all(&[0; 64]).is_ok() {}
    }

    pub fn free_disk(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    pub fn has_small_disk(&self) -> bool {
        self.small_disk
    }

    /// How far its wall clock is off, in milliseconds. Nothing if there is no libfaketime.
    pub fn set_clock(&mut self, ms: i64) {
        let (sign, whole) = (if ms < 0 { '-' } else { '+' }, ms.unsigned_abs());
        let next = self.clock().with_extension("next");
        fs::write(&next, format!("{sign}{}.{:03}\n", whole / 1000, whole % 1000)).unwrap();
        fs::rename(next, self.clock()).unwrap();
    }

    pub fn has_clock(&self) -> bool {
        self.faketime.is_some()
    }

    /// Data and ballast; the data must outlive a small disk.
    pub fn keep_data(&self) {
        if self.small_disk {
            self.free_disk();
            copy(&self.data(), &self.home.with_extension("data"));
        }
    }

    /// All that it has said, over all its lives.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Writes a line into its log.
    pub fn note(&self, line: &str) {
        let log = File::options().create(true).append(true).open(&self.log);
        let _ = log.and_then(|mut log| writeln!(log, "---- {line}"));
    }

    pub fn wire(&self, patience: Duration) -> std::io::Result<Wire> {
        Wire::dial(address(self.number), patience)
    }

    /// Whether it holds what it should and its store takes writes, as it says itself.
    pub fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect_timeout(&(ip(self.number), ADMIN_PORT).into(), ADMIN_PATIENCE)?;
            stream.set_read_timeout(Some(ADMIN_PATIENCE))?;
            stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
    }

    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn snapshot(&self) -> PathBuf {
        self.home.with_extension("snapshot")
    }

    fn ballast(&self) -> PathBuf {
        self.home.join("ballast")
    }

    fn clock(&self) -> PathBuf {
        self.home.with_extension("clock")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            self.keep_data();
        }
        if self.small_disk {
            let _ = Command::new("umount").arg(&self.home).status();
        }
    }
}

fn copy(from: &Path, to: &Path) {
    // Journals are mostly holes.
    let _ = Command::new("cp").args(["-a", "--sparse=always"]).arg(from).arg(to).status();
}

fn faketime() -> Option<PathBuf> {
    let places = FAKETIME.iter().map(|place| Path::new("/usr/lib").join(place).join("faketime/libfaketimeMT.so.1"));
    places.into_iter().find(|place| place.exists())
}
