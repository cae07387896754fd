//! What keeps a node from starting is said in one line, and the program ends with an error; only joining is tried for ever.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use redynamo::storage::format::FORMAT_VERSION;
use xxhash_rust::xxh3::xxh3_64;

use super::process::{Cluster, Node, PATIENCE, free_ports};
use super::wire::Value;

/// Runs a node that cannot start, and takes what it says.
fn fails(dir: &Path, words: &[&str]) -> String {
    let beside = tempfile::tempdir().unwrap();
    let mut node = Node::new(beside.path(), "failing", words);
    node.dir = dir.to_owned();
    let status = node.start().wait_for_the_end();
    let said = node.log();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

/// The one line of what was said that has `wanted`; it must be the only one that complains.
fn complaint<'s>(said: &'s str, wanted: &str) -> &'s str {
    let complaints: Vec<&str> = said.lines().filter(|line| line.contains(wanted)).collect();
    let [one] = complaints[..] else { panic!("{} lines with '{wanted}' in:\n{said}", complaints.len()) };
    assert_eq!(said.trim_end().lines().last(), Some(one), "something is said after it:\n{said}");
    one
}

/// A data directory that a node left in order, with some keys.
fn used_directory() -> (tempfile::TempDir, PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let mut node = Node::new(parent.path(), "data", &[]);
    node.serve();
    let mut wire = node.wire();
    for n in 0..100 {
        assert_eq!(wire.call(&["SET", &format!("key:{n}"), "value"]), Value::from("OK"));
    }
    assert_eq!(node.terminate().code(), Some(0), "{}", node.log());
    let dir = node.dir.clone();
    (parent, dir)
}

#[test]
fn a_port_in_use_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for directive in ["--port", "--peer-port", "--admin-port"] {
        let said = fails(&dir.path().join("data"), &[directive, &port]);
        let line = complaint(&said, "Could not listen on");
        assert!(line.contains(&format!("127.0.0.1:{port}")) && line.contains("in use"), "{line}");
    }
    assert!(!dir.path().join("data").exists(), "a directory was made for nothing");
}

#[test]
fn a_directory_in_use_is_named_and_its_owner_goes_on() {
    let parent = tempfile::tempdir().unwrap();
    let mut node = Node::new(parent.path(), "owner", &[]);
    node.serve();
    let said = fails(&node.dir, &[]);
    complaint(&said, &format!("{} is in use by another process", node.dir.display()));
    assert_eq!(node.wire().say("PING"), Value::from("PONG"));
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("letter.txt"), "dear").unwrap();
    complaint(&fails(dir.path(), &[]), "is not empty and not a redynamo data directory");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let file = dir.path().join("letter.txt");
    assert!(fails(&file, &[]).contains("letter.txt"));
}

#[test]
fn a_damaged_directory_is_named() {
    let (_parent, dir) = used_directory();
    for (file, what) in [("FORMAT", "FORMAT"), ("MARK", "mark")] {
        let path = dir.join(file);
        let sound = fs::read(&path).unwrap();
        let mut flipped = sound.clone();
        flipped[sound.len() / 2] ^= 0x20;
        for broken in [&sound[..sound.len() / 2], &[], &flipped, b"\xff\xfe nonsense"] {
            fs::write(&path, broken).unwrap();
            let said = fails(&dir, &[]);
            assert!(complaint(&said, "damaged").contains(what), "{file}: {said}");
        }
        fs::write(&path, &sound).unwrap();
    }
    // Nothing was made worse by trying.
    let mut node = Node::new(dir.parent().unwrap(), "data", &[]);
    node.serve();
    assert_eq!(node.wire().say("DBSIZE"), Value::Int(100));
}

#[test]
fn damaged_files_of_the_engine_are_told_or_harmless_but_never_wrong_answers() {
    let (parent, dir) = used_directory();
    let sound = parent.path().join("sound");
    copy(&dir, &sound);
    let mut told = 0;
    for file in files(&dir.join("rows")) {
        let name = file.strip_prefix(&dir).unwrap();
        let bytes = fs::read(sound.join(name)).unwrap();
        for (how, broken) in damages(&bytes) {
            fs::remove_dir_all(&dir).unwrap();
            copy(&sound, &dir);
            fs::write(&file, broken).unwrap();
            told += u32::from(is_told_or_harmless(&dir, &format!("{} {how}", name.display())));
        }
    }
    assert!(told > 0, "no damage was noticed at all");
}

/// Ways to spoil a file.
fn damages(sound: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let half = &sound[..sound.len() / 2];
    let mut garbled = sound.to_vec();
    garbled.iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
    vec![("cut in half", half.to_vec()), ("garbled", garbled)]
}

/// Starts a node on a damaged directory: true if it refuses. If it serves, all keys must be there.
fn is_told_or_harmless(dir: &Path, damage: &str) -> bool {
    let mut node = Node::new(dir.parent().unwrap(), "data", &[]);
    let before = node.log().len();
    node.start();
    loop {
        if let Some(status) = node.ended() {
            let log = node.log();
            let said = &log[before..];
            assert_eq!(status.code(), Some(1), "{damage}: {said}");
            assert!(!said.contains("panicked"), "{damage}: {said}");
            let last = said.trim_end().lines().last().unwrap_or_default();
            assert!(last.contains(&dir.display().to_string()) || last.contains("damaged"), "{damage}: {said}");
            return true;
        }
        if node.log()[before..].contains("Ready to accept connections") {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(node.wire().say("DBSIZE"), Value::Int(100), "{damage}: {}", node.log());
    false
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

#[test]
fn a_format_of_the_future_is_told_from_damage() {
    let (_parent, dir) = used_directory();
    let body = format!("redynamo data directory\nformat {}\ncreated by 9.0.0\n", FORMAT_VERSION + 1);
    fs::write(dir.join("FORMAT"), format!("{body}checksum {:016x}\n", xxh3_64(body.as_bytes()))).unwrap();
    let said = fails(&dir, &[]);
    let line = complaint(&said, &format!("has data format {}", FORMAT_VERSION + 1));
    assert!(line.contains(&format!("knows up to {FORMAT_VERSION}")), "{line}");
}

#[test]
fn a_copied_directory_is_served_by_a_new_actor() {
    let (parent, dir) = used_directory();
    copy(&dir, &parent.path().join("copied"));
    let mut node = Node::new(parent.path(), "copied", &[]);
    node.serve();
    assert!(node.log().contains("takes a new actor id"), "{}", node.log());
    assert_eq!(node.wire().say("DBSIZE"), Value::Int(100));
}

#[test]
fn fewer_databases_than_hold_keys_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    let mut node = Node::new(parent.path(), "data", &[]);
    node.serve();
    let mut wire = node.wire();
    wire.say("SELECT 9");
    wire.say("SET k v");
    assert_eq!(node.terminate().code(), Some(0));
    let said = fails(&node.dir, &["--databases", "4"]);
    assert!(said.lines().last().unwrap().contains("database 9 holds keys: 'databases' must be at least 10"), "{said}");
}

#[test]
fn whoever_cannot_join_says_why_tries_for_ever_and_ends_in_order_when_told() {
    let parent = tempfile::tempdir().unwrap();
    let mut first = Node::new(parent.path(), "first", &["--cluster-secret", "right"]);
    first.serve();
    let seed = format!("127.0.0.1:{}", first.peer_port);
    let [nobody] = free_ports();
    let nobody = format!("127.0.0.1:{nobody}");
    for (name, words, why) in [
        ("unreachable", vec!["--join", &nobody], "refused"),
        ("no-secret", vec!["--join", &seed], "secret"),
        ("wrong-secret", vec!["--join", &seed, "--cluster-secret", "wrong"], "secret"),
        (
            "other-name",
            vec!["--join", &seed, "--cluster-secret", "right", "--cluster-name", "other"],
            "'redynamo', not 'other'",
        ),
        ("first", vec!["--join", &seed, "--cluster-secret", "right"], "taken"),
    ] {
        let below = parent.path().join(format!("case {name}"));
        fs::create_dir(&below).unwrap();
        let mut node = Node::new(&below, name, &words);
        node.start().wait_until_it_says("Not joined yet, trying again");
        let log = node.log();
        let line = log.lines().find(|line| line.contains("Not joined yet")).unwrap();
        assert!(line.contains(why), "{name}: {line}");
        assert_eq!(log.matches("Not joined yet").count(), 1, "{name} repeats itself: {log}");
        assert_eq!(node.terminate().code(), Some(0), "{name}: {}", node.log());
    }
    assert!(!first.log().contains("panicked"));
    assert_eq!(first.wire().say("SET k v"), Value::from("OK"), "nobody who was refused counts");
}

#[test]
fn a_node_joins_as_soon_as_there_is_somebody_to_join() {
    let parent = tempfile::tempdir().unwrap();
    let mut first = Node::new(parent.path(), "first", &[]);
    let mut second = Node::new(parent.path(), "second", &["--join", &format!("127.0.0.1:{}", first.peer_port)]);
    second.start().wait_until_it_says("Not joined yet");
    first.serve();
    second.wait_until_it_answers();
    assert_eq!(first.wire().say("SET k v"), Value::from("OK"));
    assert_eq!(second.wire().say("GET k"), Value::from("v"));
}

#[test]
fn a_member_of_another_cluster_does_not_change_over() {
    let parent = tempfile::tempdir().unwrap();
    let mut first = Node::new(parent.path(), "first", &[]);
    let mut stranger = Node::new(parent.path(), "stranger", &[]);
    first.serve();
    stranger.serve();
    assert_eq!(stranger.wire().say("SET k strange"), Value::from("OK"));
    assert_eq!(stranger.terminate().code(), Some(0));
    // What the directory says goes before what the words say.
    stranger.words = vec!["--join".to_owned(), format!("127.0.0.1:{}", first.peer_port)];
    stranger.serve();
    assert_eq!(stranger.wire().say("GET k"), Value::from("strange"));
    assert_eq!(first.wire().say("GET k"), Value::Nil);
    assert_eq!(first.wire().say("SET k v"), Value::from("OK"));
}

#[test]
fn a_stranger_in_the_place_of_a_member_is_told_and_not_trusted() {
    let parent = tempfile::tempdir().unwrap();
    let mut first = Node::new(parent.path(), "first", &[]);
    let mut second = Node::new(parent.path(), "second", &["--join", &format!("127.0.0.1:{}", first.peer_port)]);
    first.serve();
    second.serve();
    assert_eq!(first.wire().say("SET k v"), Value::from("OK"));
    second.kill();
    // It lost its disk and forgot whom to join: what comes back is another cluster.
    fs::remove_dir_all(&second.dir).unwrap();
    second.words.clear();
    second.serve();
    first.wait_until_it_says("No link to node");
    assert!(first.log().contains(": another cluster"), "{}", first.log());
    assert_eq!(second.wire().say("GET k"), Value::Nil);
    assert!(first.wire().say("SET k w").error().starts_with("NOREPLICAS not done: 1 of 2"));
}

#[test]
fn a_node_tells_its_supervisor_when_it_serves_and_keeps_its_pid_file_until_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (pid_file, path) = (dir.path().join("node.pid"), dir.path().join("notify"));
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = || {
        let mut buffer = [0; 200];
        let length = supervisor.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let words = ["--supervised", "systemd", "--pidfile", pid_file.to_str().unwrap()];
    let mut node = Node::new(dir.path(), "supervised", &words);
    node.variables.push(("NOTIFY_SOCKET".to_owned(), path.to_str().unwrap().to_owned()));
    node.start();
    assert!(heard().starts_with("READY=1\n"));
    assert_eq!(node.wire().say("PING"), Value::from("PONG"), "it serves when it says so");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), format!("{}\n", node.pid()));
    assert_eq!(node.terminate().code(), Some(0), "{}", node.log());
    assert!(heard().starts_with("STOPPING=1\n"));
    assert!(!pid_file.exists());
}

#[test]
fn a_command_that_does_not_exist_cannot_be_renamed() {
    let dir = tempfile::tempdir().unwrap();
    let said = fails(&dir.path().join("data"), &["--rename-command", "gat", "get2"]);
    assert!(complaint(&said, "rename-command").contains("rename-command gat \"get2\": there is no such command"));
}

#[test]
fn a_renamed_command_is_sent_on_to_nodes_that_know_it_by_its_own_name() {
    let mut cluster = Cluster::of(3, &[]);
    let renamed = &mut cluster.nodes[0];
    renamed.terminate();
    renamed.words.extend(["--rename-command", "get", "fetch", "--rename-command", "set", ""].map(str::to_owned));
    renamed.serve();
    cluster.wait_until_whole();
    let (mut renamed, mut other) = (cluster.nodes[0].wire(), cluster.nodes[1].wire());
    for key in (0..20).map(|n| format!("key:{n}")) {
        assert_eq!(other.call(&["SET", &key, "v"]), Value::from("OK"));
        assert_eq!(renamed.call(&["FETCH", &key]), Value::from("v"));
        for refused in [renamed.call(&["GET", &key]), renamed.call(&["SET", &key, "w"])] {
            assert!(refused.error().starts_with("ERR unknown command"), "{refused:?}");
        }
    }
}
