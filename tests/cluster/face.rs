//! The cluster face: what every node says of the slots, what it answers for its own, and the nudge after a change.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::process::{Cluster, Node, PATIENCE, free_ports};
use super::wire::{Value, Wire, request};

/// Nodes with both faces.
fn cluster_of(count: usize) -> Cluster {
    Cluster::placed(count, &[], |node| {
        let [port] = free_ports();
        node.words.extend(["--cluster-port".to_owned(), port.to_string()]);
    })
}

fn face_of(node: &Node) -> u16 {
    let at = node.words.iter().position(|word| word == "--cluster-port").unwrap();
    node.words[at + 1].parse().unwrap()
}

fn faces(cluster: &Cluster) -> Vec<u16> {
    cluster.nodes.iter().map(face_of).collect()
}

/// First slot, last slot, port.
fn slots(wire: &mut Wire) -> Vec<(i64, i64, u16)> {
    let rows = wire.say("CLUSTER SLOTS");
    let row = |row: &Value| {
        let parts = row.items();
        assert_eq!(parts.len(), 3, "one node for each slot, no replicas");
        (parts[0].int(), parts[1].int(), parts[2].items()[1].int() as u16)
    };
    rows.items().iter().map(row).collect()
}

fn owner(slots: &[(i64, i64, u16)], slot: i64) -> u16 {
    slots.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).unwrap().2
}

#[test]
fn every_node_says_the_same_of_the_slots_and_they_are_covered_once() {
    let cluster = cluster_of(3);
    let views: BTreeSet<Vec<(i64, i64, u16)>> =
        faces(&cluster).into_iter().map(|port| slots(&mut Wire::to(port))).collect();
    assert_eq!(views.len(), 1);
    let view = views.into_iter().next().unwrap();
    let mut next = 0;
    for (first, last, _) in &view {
        assert!(*first == next && last >= first);
        next = last + 1;
    }
    assert_eq!(next, 16384);
    assert!(view.windows(2).all(|pair| pair[0].2 != pair[1].2), "neighbours of one node stand together");
    let ports: BTreeSet<u16> = view.iter().map(|row| row.2).collect();
    assert_eq!(ports, faces(&cluster).into_iter().collect());
    let lines = |port: u16| Wire::to(port).say("CLUSTER NODES").text().replace("myself,", "");
    assert!(faces(&cluster).into_iter().all(|port| lines(port) == lines(face_of(&cluster.nodes[0]))));
    for node in &cluster.nodes {
        let mut wire = Wire::to(face_of(node));
        assert!(wire.say("CLUSTER INFO").text().contains("cluster_state:ok\r\n"));
        let id = wire.say("CLUSTER MYID").text();
        let mine = format!("{id} 127.0.0.1:{}@{} myself,master - 0 0 ", face_of(node), node.peer_port);
        assert!(wire.say("CLUSTER NODES").text().contains(&mine));
        assert_eq!(wire.say("CLUSTER SHARDS").items().len(), 3);
        assert_eq!(wire.say("CLUSTER LINKS").items().len(), 4);
        assert_eq!(node.wire().say("CLUSTER SLOTS").error(), "ERR This instance has cluster support disabled");
    }
}

#[test]
fn each_node_of_the_face_has_its_own_keys_and_takes_all() {
    let cluster = cluster_of(3);
    let mut plain = cluster.nodes[0].wire();
    let mut keys: BTreeSet<String> = (0..200).map(|number| format!("key:{number}")).collect();
    keys.iter().for_each(|key| assert_eq!(plain.say(&format!("SET {key} v")), "OK".into()));
    let view = slots(&mut Wire::to(face_of(&cluster.nodes[0])));
    let (mut sum, mut scanned) = (0, BTreeSet::new());
    for port in faces(&cluster) {
        let mut wire = Wire::to(port);
        sum += wire.say("DBSIZE").int();
        let mut cursor = "0".to_owned();
        loop {
            let page = wire.say(&format!("SCAN {cursor} COUNT 50"));
            for key in page.items()[1].items() {
                let slot = wire.say(&format!("CLUSTER KEYSLOT {}", key.text())).int();
                assert_eq!(owner(&view, slot), port, "{} is another's", key.text());
                assert!(scanned.insert(key.text()), "{} twice", key.text());
            }
            cursor = page.items()[0].text();
            if cursor == "0" {
                break;
            }
        }
        assert!(keys.iter().all(|key| wire.say(&format!("GET {key}")) == "v".into()), "any node takes any key");
    }
    assert_eq!((sum, scanned), (200, keys.clone()));
    let mut wire = Wire::to(face_of(&cluster.nodes[0]));
    let slot = wire.say("CLUSTER KEYSLOT key:1").int();
    assert_eq!(wire.say(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), Value::Int(1));
    assert_eq!(wire.say(&format!("CLUSTER GETKEYSINSLOT {slot} 10")), Value::Many(vec!["key:1".into()]));
    assert_eq!(wire.say("CLUSTER COUNTKEYSINSLOT 16384").error(), "ERR Invalid slot");
    assert_eq!(wire.say("CLUSTER GETKEYSINSLOT 1 -1").error(), "ERR Invalid slot or number of keys");
    assert_eq!(wire.say("MSET a 1 b 2 c 3"), "OK".into(), "also of several slots");
    keys.extend(["a", "b", "c"].map(str::to_owned));
    assert_eq!(plain.say("DBSIZE").int(), keys.len() as i64);
    wire.say("FLUSHDB");
    let left = plain.say("DBSIZE").int();
    assert!(0 < left && left < keys.len() as i64, "only what it answers for: {left}");
    faces(&cluster).into_iter().for_each(|port| drop(Wire::to(port).say("FLUSHALL")));
    assert_eq!(plain.say("DBSIZE"), Value::Int(0));
}

/// Says a line until its answer is a MOVED.
fn until_moved(wire: &mut Wire, line: &str) -> String {
    let began = Instant::now();
    loop {
        let answer = wire.say(line);
        if let Value::Error(text) = answer {
            assert!(text.starts_with("MOVED "), "{text}");
            return text;
        }
        assert!(began.elapsed() < PATIENCE, "no nudge");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn after_a_change_each_connection_gets_one_moved_to_a_live_node() {
    let mut cluster = cluster_of(3);
    let (survivor, other) = (face_of(&cluster.nodes[0]), face_of(&cluster.nodes[1]));
    let (mut wire, mut unaware, mut plain) = (Wire::to(survivor), Wire::to(survivor), cluster.nodes[0].wire());
    let (mut queueing, mut piping) = (Wire::to(survivor), Wire::to(survivor));
    for number in 0..20 {
        assert_eq!(wire.say(&format!("SET key:{number} v")), "OK".into(), "nothing has changed yet");
    }
    queueing.say("MULTI");
    cluster.nodes[2].kill();
    let moved = until_moved(&mut wire, "GET key:1");
    let slot = wire.say("CLUSTER KEYSLOT key:1").int();
    assert_eq!(moved, format!("MOVED {slot} 127.0.0.1:{other}"));
    for number in 0..20 {
        assert_eq!(wire.say(&format!("GET key:{number}")), "v".into(), "once");
    }
    let view = slots(&mut wire);
    assert!(view.iter().all(|row| row.2 == survivor || row.2 == other));
    assert_eq!(unaware.say("PING"), "PONG".into(), "what names no key is answered");
    assert!(unaware.say("GET key:1").is_error());
    assert_eq!(unaware.say("GET key:1"), "v".into());
    let gets: Vec<Vec<u8>> = (0..5).map(|_| request(&["GET", "key:1"])).collect();
    assert!(piping.pipeline(&gets).iter().all(|value| *value == "v".into()), "not in a pipeline");
    assert_eq!(queueing.say("GET key:1"), "QUEUED".into(), "nor in a transaction");
    assert_eq!(queueing.say("EXEC"), Value::Many(vec!["v".into()]));
    assert_eq!(plain.say("GET key:1"), "v".into(), "nor on the plain face");
    let mut newcomer = Wire::to(survivor);
    assert_eq!(newcomer.say("GET key:1"), "v".into(), "who comes now is told by the slots it asks for");
    cluster.nodes[2].serve();
    cluster.wait_until_whole();
    until_moved(&mut wire, "GET key:1");
    assert_eq!(slots(&mut wire).iter().map(|row| row.2).collect::<BTreeSet<_>>().len(), 3);
}
