//! Disks that fill up, break and hang below running nodes. Needs root for file systems of its own, and strace for disks
//! that break; what cannot be had is skipped, and said.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use super::process::{ALONE, Cluster, Node, PATIENCE};
use super::wire::{Value, Wire, request};

const MIB: usize = 1 << 20;

/// A small file system in memory, with a file that can fill it. Gone when dropped.
struct SmallDisk {
    path: PathBuf,
    filler: PathBuf,
}

impl SmallDisk {
    /// None, and a word on why, if this user may not mount one.
    fn mount(path: &Path, mib: usize) -> Option<SmallDisk> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no file system of a test's own can be mounted here (it takes root): {mounted:?}");
            return None;
        }
        Some(SmallDisk { path: path.to_owned(), filler: path.join("filler") })
    }

    /// Fills it until so many bytes are free, and never more than that.
    fn fill(&self, left: usize) {
        let mut file = File::options().create(true).append(true).open(&self.filler).unwrap();
        let block = vec![1; 64 * 1024];
        loop {
            let stat = rustix::fs::statvfs(&self.path).unwrap();
            let room = usize::try_from(stat.f_bavail * stat.f_frsize).unwrap().saturating_sub(left);
            if room == 0 || file.write_all(&block[..room.min(block.len())]).is_err() {
                return;
            }
        }
    }

    fn free(&self) {
        fs::remove_file(&self.filler).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

/// A node of its own on a small disk.
fn on_a_small_disk(mib: usize, words: &[&str]) -> Option<(tempfile::TempDir, SmallDisk, Node)> {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "single", words);
    let disk = SmallDisk::mount(&dir.path().join("disk"), mib)?;
    node.dir = disk.path.join("data");
    node.serve();
    Some((dir, disk, node))
}

/// Writes keys of about 4 KB, from `first` on, until one is refused; answers how many were acknowledged, and the error.
fn write_until_refused(wire: &mut Wire, first: usize) -> (usize, String) {
    let value = vec![b'x'; 4000];
    for n in first.. {
        match wire.try_call(&[b"SET".as_slice(), format!("key:{n}").as_bytes(), &value]) {
            Ok(Value::Error(why)) => return (n - first, why),
            Ok(_) => {}
            Err(error) => panic!("the connection failed before anything was refused: {error}"),
        }
    }
    unreachable!("there are enough numbers")
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        sleep(Duration::from_millis(20));
    }
}

fn info(wire: &mut Wire, name: &str) -> String {
    let text = wire.say("INFO everything").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

fn takes_writes(port: u16) -> bool {
    Wire::open(port).and_then(|mut wire| wire.try_call(&["SET", "probe", "x"])).is_ok_and(|reply| !reply.is_error())
}

/// Everything from `key:0` to `key:count` is there.
fn check_keys(wire: &mut Wire, count: usize) {
    for n in 0..count {
        assert_eq!(wire.call(&["STRLEN", &format!("key:{n}")]), Value::Int(4000), "key:{n}, which was acknowledged");
    }
}

#[test]
fn a_disk_that_fills_up_stops_writes_and_nothing_else_until_there_is_room() {
    let Some((_dir, disk, mut node)) = on_a_small_disk(256, &["--disk-free-min", "0"]) else { return };
    let mut wire = node.wire();
    let mut idle = node.wire();
    assert_eq!(idle.say("PING"), Value::from("PONG"));
    let sets: Vec<_> = (0..500).map(|n| request(&["SET", &format!("early:{n}"), "x"])).collect();
    wire.pipeline(&sets);
    disk.fill(MIB);
    let (written, why) = write_until_refused(&mut wire, 0);
    assert!(why.starts_with("UNKNOWN") || why.starts_with("MISCONF not done"), "{why}");
    // Refused at once, clearly, and as often as one likes; what is stored is read meanwhile.
    let mut wire = node.wire();
    for n in 0..50 {
        let began = Instant::now();
        let refused = wire.call(&["SET", &format!("late:{n}"), "x"]);
        assert!(refused.error().starts_with("MISCONF not done: "), "{refused:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(wire.call(&["GET", &format!("early:{n}")]), Value::from("x"));
    }
    assert_eq!(wire.say("GET late:0"), Value::Nil);
    assert!(wire.say("DEL early:0").error().starts_with("MISCONF not done: "));
    assert!(wire.say("FLUSHALL").is_error());
    check_keys(&mut wire, written);
    assert_eq!(info(&mut wire, "aof_last_write_status"), "err");
    assert!(info(&mut wire, "writes_refused").contains("takes no more writes"));
    wait_until("it says so of itself", || *wire.say("DYNAMO.NODES").items()[0].field("counted") == Value::Int(0));

    disk.free();
    wait_until("writes are taken again", || takes_writes(node.port));
    // Connections have lived on, and what was acknowledged is there; what was refused is not.
    assert_eq!(idle.say("SET idle x"), Value::from("OK"));
    for wire in [&mut wire, &mut idle] {
        check_keys(wire, written);
        assert_eq!(wire.say("GET late:0"), Value::Nil);
        assert_eq!(wire.say("GET early:0"), Value::from("x"));
        assert_eq!(info(wire, "aof_last_write_status"), "ok");
    }
    assert!(node.ended().is_none(), "it is the same process");
    // And it can happen again, and the node stops in order.
    disk.fill(0);
    assert!(write_until_refused(&mut wire, written).1.len() > 5);
    disk.free();
    wait_until("writes are taken again", || takes_writes(node.port));
    assert_eq!(node.terminate().code(), Some(0), "{}", node.log());
    node.serve();
    check_keys(&mut node.wire(), written);
}

#[test]
fn when_room_runs_low_deletions_are_taken_in_until_there_is_half_of_it() {
    let Some((_dir, disk, mut node)) = on_a_small_disk(256, &["--disk-free-min", "32mb"]) else { return };
    let mut wire = node.wire();
    assert_eq!(wire.say("MSET a 1 b 2 more 3"), Value::from("OK"));
    disk.fill(28 * MIB);
    wait_until("writes are refused", || wire.say("SET more x").is_error());
    let refused = wire.say("INCR n").error().to_owned();
    assert!(refused.starts_with("MISCONF not done: only ") && refused.contains("disk-free-min"), "{refused}");
    assert_eq!(
        (wire.say("DEL a"), wire.say("GET a"), wire.say("GET b")),
        (Value::Int(1), Value::Nil, Value::from("2"))
    );
    assert!(wire.say("APPEND b x").is_error());
    assert_eq!(wire.say("DBSIZE"), Value::Int(2));
    let first = node.wire().say("INFO everything").text();
    assert!(first.contains("aof_last_write_status:err"), "{first}");

    disk.fill(8 * MIB);
    wait_until("deletions are refused", || wire.say("DEL none").is_error());
    // The operator's way out besides more room.
    assert_eq!(wire.say("CONFIG SET disk-free-min 1mb"), Value::from("OK"));
    wait_until("writes are taken again", || wire.say("SET more x") == Value::from("OK"));
    assert_eq!(wire.say("CONFIG SET disk-free-min 32mb"), Value::from("OK"));
    wait_until("writes are refused", || wire.say("SET more y").is_error());
    disk.free();
    wait_until("writes are taken again", || wire.say("SET more z") == Value::from("OK"));
    assert!(!node.log().contains("it is opened again"), "nothing has failed:\n{}", node.log());
    assert_eq!(node.terminate().code(), Some(0));
}

/// Clients that write through every node, and what became of it.
struct Load {
    stop: AtomicBool,
    /// When, and whether it was acknowledged; by client.
    done: Mutex<Vec<Vec<(Instant, bool, String)>>>,
}

impl Load {
    fn client(&self, port: u16, name: usize) {
        let (mut done, mut wire) = (Vec::new(), None);
        let value = "v".repeat(200);
        while !self.stop.load(Ordering::Relaxed) {
            let key = format!("load:{name}:{}", done.len());
            let reply = match &mut wire {
                Some(wire) => Wire::try_call(wire, &["SET", &key, &value]),
                none => Wire::open(port).and_then(|open| none.insert(open).try_call(&["SET", &key, &value])),
            };
            let outcome = match reply {
                Ok(Value::Error(why)) => why,
                Ok(_) => String::new(),
                Err(error) => error.to_string(),
            };
            if outcome.starts_with("UNKNOWN") || !outcome.contains("not done") && !outcome.is_empty() {
                // Connections that were told so may be closed.
                wire = None;
            }
            done.push((Instant::now(), outcome.is_empty(), outcome));
            sleep(Duration::from_millis(2));
        }
        self.done.lock().unwrap()[name] = done;
    }
}

/// Whether all nodes say so of one: of its being `ready`, of its being `counted`, or of all these.
fn all_say(cluster: &Cluster, of: &str, what: &[&str], yes: bool) -> bool {
    let value = Value::Int(yes.into());
    cluster.nodes.iter().all(|node| {
        let nodes = node.wire().say("DYNAMO.NODES");
        let mut named = nodes.items().iter().filter(|standing| standing.field("name").text() == of);
        named.all(|standing| what.iter().all(|what| *standing.field(what) == value))
    })
}

#[test]
fn a_full_disk_of_one_node_of_three_costs_no_write_and_hardly_an_answer() {
    full_disk_among_three(&["--disk-free-min", "0"], "it is opened again");
}

#[test]
fn a_disk_of_one_node_of_three_that_runs_low_costs_hardly_an_answer() {
    full_disk_among_three(&["--disk-free-min", "24mb"], "leaves the quorums");
}

fn full_disk_among_three(words: &[&str], says: &str) {
    let _alone = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&dir.path().join("disk"), 256) else { return };
    let mut cluster = Cluster::placed(3, words, |node| {
        if node.name == "node-2" {
            node.dir = disk.path.join("data");
        }
    });
    let ports = cluster.ports();
    // With little room it answers for what it has, and leaves the rest to others.
    let lost: &[&str] = if words[1] == "0" { &["ready", "counted"] } else { &["ready"] };
    let load = Load { stop: AtomicBool::new(false), done: Mutex::new(vec![Vec::new(); 6]) };
    let (mut full, mut out, mut freed) = (Instant::now(), Duration::ZERO, Instant::now());
    thread::scope(|scope| {
        for name in 0..6 {
            let (load, port) = (&load, ports[name % 3]);
            scope.spawn(move || load.client(port, name));
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            sleep(Duration::from_secs(2));
            full = Instant::now();
            // The margin's own way is a disk that has little left, not none.
            disk.fill(if words[1] == "0" { 0 } else { 16 * MIB });
            wait_until("everyone knows that it is sick", || all_say(&cluster, "node-2", lost, false));
            out = full.elapsed();
            sleep(Duration::from_secs(8).saturating_sub(out));
            disk.free();
            freed = Instant::now();
            wait_until("everyone knows that it is well", || all_say(&cluster, "node-2", &["ready", "counted"], true));
            sleep(Duration::from_secs(2));
        }));
        load.stop.store(true, Ordering::Relaxed);
        ended.unwrap_or_else(|why| std::panic::resume_unwind(why));
    });
    assert!(cluster.nodes.iter_mut().all(|node| node.ended().is_none()), "no process has ended");
    assert!(cluster.nodes[1].log().contains(says), "{}", cluster.nodes[1].log());
    assert!(out < Duration::from_secs(5), "it left the quorums after {out:?}");
    let done = load.done.into_inner().unwrap();
    let after = |at: &Instant| at.checked_duration_since(full).map_or(-1, |after| after.as_millis() as i64);
    let counted = || done.iter().flatten().filter(|(at, ..)| !(0..5_000).contains(&after(at)));
    let failed: Vec<_> = counted().filter(|(_, good, _)| !good).collect();
    let (all, in_window) =
        (counted().count(), done.iter().flatten().filter(|(_, good, _)| !good).count() - failed.len());
    eprintln!(
        "{all} writes outside of the 5 s after the disk was full, {} failed; {in_window} failed within; out of the quorums \
         after {out:?}; freed after {:?}",
        failed.len(),
        freed - full,
    );
    let mut kinds: BTreeMap<&str, (usize, i64)> = BTreeMap::new();
    for (at, _, why) in done.iter().flatten().filter(|(_, good, _)| !good) {
        let kind = kinds.entry(why).or_default();
        *kind = (kind.0 + 1, after(at));
    }
    kinds.iter().for_each(|(why, (count, last))| eprintln!("  {count} times, last after {last} ms: {why}"));
    assert!(failed.len() * 1000 <= all, "{} of {all} writes failed", failed.len());
    cluster.wait_until_whole();
    let mut wire = cluster.nodes[1].wire();
    for (name, ops) in done.iter().enumerate() {
        for (n, (_, good, _)) in ops.iter().enumerate().filter(|(_, (_, good, _))| *good) {
            let held = wire.call(&["STRLEN", &format!("load:{name}:{n}")]);
            assert_eq!(held, Value::Int(200), "load:{name}:{n} was acknowledged: {good}");
        }
    }
}

const SYNCS: &str = "fsync,fdatasync";
/// In microseconds: for longer than the test may take.
const HANGS: &str = "delay_enter=300000000";

/// strace, attached to a process: some of its system calls do something else.
struct Injection(Child);

impl Injection {
    /// None, and a word on why, if processes cannot be traced here.
    fn into(pid: u32, calls: &str, fault: &str, files: &[PathBuf]) -> Option<Injection> {
        let mut command = Command::new("strace");
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{fault}"));
        command.args(["-f", "-qq", "-e", &trace, "-e", &inject, "-p", &pid.to_string()]);
        files.iter().for_each(|file| {
            command.arg("-P").arg(file);
        });
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            eprintln!("SKIPPED: strace is not installed");
            return None;
        };
        let traced = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("TracerPid:\t0\n");
        let began = Instant::now();
        while traced() {
            if child.try_wait().unwrap().is_some() || began.elapsed() > PATIENCE {
                eprintln!("SKIPPED: strace may not trace other processes here");
                return None;
            }
            sleep(Duration::from_millis(10));
        }
        Some(Injection(child))
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // One that is in the middle of a delay hears nothing else; what it traced goes on without it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_disk_that_does_not_sync_is_sick_until_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "single", &["--appendfsync", "always"]);
    node.serve();
    let mut wire = node.wire();
    assert_eq!(wire.say("SET before x"), Value::from("OK"));
    let Some(broken) = Injection::into(node.pid(), SYNCS, "error=EIO", &[]) else { return };
    let failed = wire.say("SET during x");
    assert!(failed.error().starts_with("UNKNOWN"), "{failed:?}");
    let mut wire = node.wire();
    wait_until("writes are refused", || wire.say("SET during y").error().starts_with("MISCONF not done"));
    assert_eq!(wire.say("GET before"), Value::from("x"));
    sleep(Duration::from_secs(2));
    assert!(wire.say("SET during y").is_error(), "a disk that does not sync is not taken for well");
    drop(broken);
    wait_until("writes are taken again", || takes_writes(node.port));
    assert_eq!((wire.say("GET before"), wire.say("SET after x")), (Value::from("x"), Value::from("OK")));
    assert_eq!(node.terminate().code(), Some(0), "{}", node.log());
}

#[test]
fn a_disk_that_hangs_ends_the_process_with_a_word_for_whoever_starts_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "single", &["--appendfsync", "always", "--disk-stall-timeout", "2"]);
    node.serve();
    let mut wire = node.wire();
    assert_eq!(wire.say("SET before x"), Value::from("OK"));
    let Some(hanging) = Injection::into(node.pid(), SYNCS, HANGS, &[]) else { return };
    let began = Instant::now();
    let unknown = wire.say("SET during x");
    assert!(unknown.error().starts_with("UNKNOWN"), "{unknown:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "nobody waits for ever");
    let mut wire = node.wire();
    assert!(wire.say("SET during y").error().starts_with("MISCONF not done"));
    node.wait_until_it_says("cannot be recovered by this process: a write to it does not return");
    // Nothing is left to be traced: what hangs in the disk's queue ends with the process.
    drop(hanging);
    assert_eq!(node.wait_for_the_end().code(), Some(1));
}

#[test]
fn a_write_that_hangs_ends_the_process_even_if_it_holds_the_only_thread_that_serves() {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "single", &["--io-threads", "1", "--disk-stall-timeout", "2"]);
    node.serve();
    let mut wire = node.wire();
    assert_eq!(wire.say("SET before x"), Value::from("OK"));
    let journal = fs::read_dir(node.dir.join("journal")).unwrap().map(|entry| entry.unwrap().path());
    let journal: Vec<PathBuf> = journal.collect();
    let Some(hanging) = Injection::into(node.pid(), "write,writev,pwrite64,pwritev", HANGS, &journal) else { return };
    wire.send(&request(&["SET", "during", "x"])).unwrap();
    let began = Instant::now();
    while !["this process ends", "cannot be recovered by this process"].iter().any(|said| node.log().contains(said)) {
        assert!(began.elapsed() < PATIENCE, "{}", node.log());
        sleep(Duration::from_millis(20));
    }
    drop(hanging);
    assert_eq!(node.wait_for_the_end().code(), Some(1));
    node.serve();
    assert_eq!(node.wire().say("GET before"), Value::from("x"));
}
