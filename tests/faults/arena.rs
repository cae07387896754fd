//! A private world for a test: network, mounts and processes of its own. The test's program starts itself anew in
//! namespaces; when that process ends, however it does, the kernel ends every process in them and takes down links, rules
//! and mounts.

use std::io::{BufRead, BufReader, Read, Write, stderr, stdin};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use super::place::without_settings;

/// Says that this process is in an arena, and where its files go.
const ARENA: &str = "FAULTS_ARENA";

/// Two arenas at once would share two cores.
static ALONE: Mutex<()> = Mutex::new(());

/// Without and with a user namespace: who is not root needs one.
const WAYS: [&[&str]; 2] = [&[], &["--user", "--map-root-user"]];

/// What an arena is made of.
const NAMESPACES: [&str; 6] = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Everything that a test will ask of its arena.
const PROBE: &str = "ip link add probe type bridge && ip link add one type veth peer name other \
                     && mount -t tmpfs -o size=1m probe /mnt \
                     && iptables -A INPUT -m statistic --mode random --probability 0.5 -j DROP \
                     && iptables -A INPUT -p tcp -j REJECT --reject-with tcp-reset";

/// Runs the body of the test that is called `test` in an arena, with a directory that is kept if it fails.
pub fn within(test: &str, body: impl FnOnce(&Path)) {
    if let Some(dir) = std::env::var_os(ARENA) {
        end_with_the_parent();
        return body(&PathBuf::from(dir));
    }
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(way) = WAYS.into_iter().find(|way| is_possible(way)) else {
        // Past the test harness, which hides what passes.
        let _ =
            writeln!(stderr(), "\nSKIPPED {test}: this machine allows no network namespaces with bridge and iptables");
        return;
    };
    let dir = tempfile::Builder::new().prefix("faults-").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    if !run_again(way, test, dir.path()) {
        panic!("{test} failed; logs and data of its nodes are in {}", dir.keep().display());
    }
}

fn is_possible(way: &[&str]) -> bool {
    let mut probe = Command::new("unshare");
    probe.args(way).args(NAMESPACES).args(["sh", "-c", PROBE]);
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
}

/// Whether the test passed in there.
fn run_again(way: &[&str], test: &str, dir: &Path) -> bool {
    let mut command = Command::new("unshare");
    command.args(way).args(NAMESPACES).arg(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]).env(ARENA, dir);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It ends when this pipe does.
    let _life = child.stdin.take();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let told =
        thread::spawn(move || BufReader::new(err).lines().map_while(Result::ok).for_each(|line| eprintln!("{line}")));
    for line in BufReader::new(out).lines().map_while(Result::ok) {
        println!("{line}");
    }
    let _ = told.join();
    child.wait().unwrap().success()
}

/// Nobody else would end the first process of its namespace: signals of the terminal do not reach it.
fn end_with_the_parent() {
    thread::spawn(|| {
        let _ = stdin().read_to_end(&mut Vec::new());
        std::process::exit(101);
    });
}

/// Runs a tool that must succeed.
pub fn tool(program: &str, args: &[&str]) {
    tool_with(program, args, "");
}

/// Likewise, with something to read.
pub fn tool_with(program: &str, args: &[&str], input: &str) {
    let mut command = without_settings(Command::new(program));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}
