//! What a node keeps when it stops in order and when it is killed: everything.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::process::{Cluster, Node, PATIENCE};
use super::wire::{Value, Wire, request};

/// How a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Terminated,
    Killed,
}

fn one_node(words: &[&str]) -> (Node, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut node = Node::new(dir.path(), "single", words);
    node.serve();
    (node, dir)
}

fn begin_again(node: &mut Node, end: End) {
    match end {
        End::Terminated => assert_eq!(node.terminate().code(), Some(0), "{}", node.log()),
        End::Killed => node.kill(),
    }
    node.serve();
}

const KEYS: usize = 2_000;

#[test]
fn a_node_that_was_stopped_keeps_everything() {
    keeps_everything("everysec", End::Terminated);
}

#[test]
fn a_node_that_was_killed_keeps_everything() {
    keeps_everything("everysec", End::Killed);
}

#[test]
fn a_node_that_syncs_every_write_keeps_everything_however_it_ends() {
    keeps_everything("always", End::Killed);
    keeps_everything("always", End::Terminated);
}

fn keeps_everything(fsync: &str, end: End) {
    let (mut node, _dir) = one_node(&["--appendfsync", fsync]);
    let mut wire = node.wire();
    let sets: Vec<_> = (0..KEYS).map(|n| request(&["SET", &format!("key:{n}"), &format!("value {n}")])).collect();
    assert!(wire.pipeline(&sets).iter().all(|reply| *reply == Value::from("OK")));
    for line in [
        "SET lasting x EX 1000",
        "SET lasting-still x EX 1000",
        "PERSIST lasting-still",
        "INCRBY counter 41",
        "INCRBYFLOAT sum 1.5",
        "APPEND text abc",
        "SET deleted x",
        "DEL deleted",
        "SELECT 9",
        "SET there nine",
        "SELECT 0",
        "DYNAMO.PUT siblings - one",
        "DYNAMO.PUT siblings - two",
    ] {
        assert!(!wire.say(line).is_error(), "{line}");
    }
    let big = vec![b'x'; 3 << 20];
    assert_eq!(wire.call(&[b"SET".as_slice(), b"big", &big]), Value::from("OK"));
    let before = facts(&mut wire);
    let ends = wire.say("PEXPIRETIME lasting");
    wire.say("SET fleeting x PX 100");

    begin_again(&mut node, end);
    let mut wire = node.wire();
    let until = Instant::now() + PATIENCE;
    while wire.say("DBSIZE") != before.0 {
        assert!(Instant::now() < until, "what was to expire is still there");
        sleep(Duration::from_millis(10));
    }
    assert_eq!(wire.say("EXISTS fleeting"), Value::Int(0));
    assert_eq!(facts(&mut wire), before, "appendfsync {fsync}, {end:?}");
    assert_eq!(wire.say("PEXPIRETIME lasting"), ends);
    assert_eq!(wire.say("TTL lasting-still"), Value::Int(-1));
    assert_eq!(wire.say("GET deleted"), Value::Nil);
    assert_eq!(wire.say("GET big"), Value::Text(big));
    let gets: Vec<_> = (0..KEYS).map(|n| request(&["GET", &format!("key:{n}")])).collect();
    for (n, value) in wire.pipeline(&gets).into_iter().enumerate() {
        assert_eq!(value, Value::from(format!("value {n}").as_str()));
    }
    // A counter goes on counting, and new dots are new.
    assert_eq!(wire.say("INCR counter"), Value::Int(42));
    assert_eq!(wire.say("GET counter"), Value::from("42"));
    assert_eq!(wire.say("SET key:0 again"), Value::from("OK"));
    assert_eq!(wire.say("GET key:0"), Value::from("again"));
    wire.say("SELECT 9");
    assert_eq!((wire.say("GET there"), wire.say("DBSIZE")), (Value::from("nine"), Value::Int(1)));
}

/// What must be the same before and after: counts, the keys of a scan, siblings with their dots.
fn facts(wire: &mut Wire) -> (Value, Vec<String>, Value) {
    let mut keys = scan(wire);
    keys.sort();
    keys.dedup();
    let size = wire.say("DBSIZE");
    assert_eq!(size, Value::Int(keys.len() as i64));
    let siblings = wire.say("DYNAMO.GET siblings").field("siblings").clone();
    assert_eq!(siblings.items().len(), 2);
    (size, keys, siblings)
}

fn scan(wire: &mut Wire) -> Vec<String> {
    let (mut keys, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let page = wire.call(&["SCAN", &cursor, "COUNT", "500"]);
        keys.extend(page.items()[1].items().iter().map(Value::text));
        cursor = page.items()[0].text();
        if cursor == "0" {
            return keys;
        }
    }
}

#[test]
fn a_node_stays_the_same_actor_however_it_ends_and_gives_no_dot_twice() {
    let (mut node, _dir) = one_node(&[]);
    let mut dots = Vec::new();
    for end in [End::Terminated, End::Killed, End::Killed, End::Terminated] {
        let mut wire = node.wire();
        for n in 0..3 {
            wire.say(&format!("SET k {n}"));
            let siblings = wire.say("DYNAMO.GET k").field("siblings").clone();
            let [sibling] = siblings.items() else { panic!("{siblings:?}") };
            dots.push((sibling.field("actor").text(), sibling.field("counter").int()));
        }
        begin_again(&mut node, end);
    }
    assert!(dots.iter().all(|(actor, _)| *actor == dots[0].0), "{dots:?}");
    assert!(dots.is_sorted_by(|a, b| a.1 < b.1), "{dots:?}");
}

#[test]
fn what_was_flushed_does_not_return() {
    for end in [End::Terminated, End::Killed] {
        let (mut node, _dir) = one_node(&[]);
        let mut wire = node.wire();
        let sets: Vec<_> = (0..KEYS).map(|n| request(&["SET", &format!("key:{n}"), "x"])).collect();
        wire.pipeline(&sets);
        assert_eq!(wire.say("FLUSHALL"), Value::from("OK"));
        wire.say("SET after x");
        begin_again(&mut node, end);
        let mut wire = node.wire();
        assert_eq!((wire.say("DBSIZE"), scan(&mut wire)), (Value::Int(1), vec!["after".to_owned()]));
    }
}

#[test]
fn a_node_that_returns_answers_nobody_before_it_knows_who_is_there() {
    let mut cluster = Cluster::of(3, &[]);
    for node in 0..3 {
        cluster.nodes[node].kill();
        cluster.nodes[node].start();
        let port = cluster.nodes[node].port;
        let began = Instant::now();
        let mut wire = loop {
            match Wire::open(port) {
                Ok(wire) => break wire,
                Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
            }
        };
        for n in 0..200 {
            assert_eq!(wire.call(&["SET", &format!("key:{n}"), "x"]), Value::from("OK"));
        }
        cluster.wait_until_whole();
    }
}

#[test]
fn a_cluster_of_which_all_nodes_stopped_serves_again_with_everything() {
    let mut cluster = Cluster::of(3, &[]);
    let mut wire = cluster.nodes[0].wire();
    let sets: Vec<_> = (0..KEYS).map(|n| request(&["SET", &format!("key:{n}"), &n.to_string()])).collect();
    let refused: Vec<Value> = wire.pipeline(&sets).into_iter().filter(|reply| *reply != Value::from("OK")).collect();
    assert!(refused.is_empty(), "{} of {KEYS}: {:?}", refused.len(), refused[0]);
    for end in [End::Terminated, End::Killed] {
        for node in &mut cluster.nodes {
            match end {
                End::Terminated => assert_eq!(node.terminate().code(), Some(0)),
                End::Killed => node.kill(),
            }
        }
        cluster.nodes.iter_mut().for_each(|node| {
            node.start();
        });
        cluster.nodes.iter_mut().for_each(Node::wait_until_it_answers);
        cluster.wait_until_whole();
        for node in &cluster.nodes {
            let mut wire = node.wire();
            assert_eq!(wire.say("DBSIZE"), Value::Int(KEYS as i64), "{end:?}");
            let gets: Vec<_> = (0..KEYS).map(|n| request(&["GET", &format!("key:{n}")])).collect();
            for (n, value) in wire.pipeline(&gets).into_iter().enumerate() {
                assert_eq!(value, Value::from(n.to_string().as_str()));
            }
        }
    }
}

#[test]
fn nodes_that_return_at_other_addresses_find_each_other_where_they_once_joined() {
    let mut cluster = Cluster::of(3, &[]);
    assert_eq!(cluster.nodes[2].wire().say("SET k v"), Value::from("OK"));
    for node in &mut cluster.nodes {
        assert_eq!(node.terminate().code(), Some(0));
        node.move_elsewhere();
    }
    let seed = format!("127.0.0.1:{}", cluster.nodes[0].peer_port);
    for node in &mut cluster.nodes[1..] {
        node.words = vec!["--join".to_owned(), seed.clone()];
    }
    cluster.nodes.iter_mut().for_each(|node| {
        node.start();
    });
    cluster.wait_until_whole();
    for node in &cluster.nodes {
        assert_eq!(node.wire().say("GET k"), Value::from("v"));
        assert_eq!(node.wire().say("SET k v"), Value::from("OK"));
    }
}
