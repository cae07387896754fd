//! A node that lost its directory comes back in its own place, and gets from the others what it had.

use std::fs::remove_dir_all;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::process::{Cluster, PATIENCE, holdings};
use super::wire::{Value, Wire, request};

const KEYS: usize = 500;

fn set(wire: &mut Wire, round: usize) {
    let sets: Vec<_> = (0..KEYS).map(|n| request(&["SET", &format!("key:{n}"), &format!("{round}:{n}")])).collect();
    for (n, reply) in wire.pipeline(&sets).into_iter().enumerate() {
        assert_eq!(reply, Value::from("OK"), "round {round}, key {n}");
    }
}

fn id_of(wire: &mut Wire, name: &str) -> String {
    let nodes = wire.say("DYNAMO.NODES");
    let found = nodes.items().iter().find(|node| node.field("name").text() == name);
    found.unwrap_or_else(|| panic!("{name} is not among {nodes:?}")).field("id").text()
}

/// Kills a node, takes its directory away and starts it again; it knows only whom to join.
fn wipe(cluster: &mut Cluster, at: usize) {
    let seed = format!("127.0.0.1:{}", cluster.nodes[(at + 1) % cluster.nodes.len()].peer_port);
    let node = &mut cluster.nodes[at];
    node.kill();
    remove_dir_all(&node.dir).unwrap();
    node.words = vec!["--join".to_owned(), seed];
    node.start();
}

#[test]
fn nodes_that_lose_their_directories_one_by_one_lose_nothing() {
    let mut cluster = Cluster::of(3, &[]);
    set(&mut cluster.nodes[0].wire(), 0);
    for at in 0..3 {
        let (name, other) = (cluster.nodes[at].name.clone(), (at + 1) % 3);
        let before = id_of(&mut cluster.nodes[other].wire(), &name);
        wipe(&mut cluster, at);
        cluster.nodes[at].wait_until_it_answers();
        cluster.wait_until_whole();
        assert!(cluster.nodes[at].log().contains("takes the place of member"), "{}", cluster.nodes[at].log());
        assert_eq!(id_of(&mut cluster.nodes[other].wire(), &name), before);
        assert_eq!(cluster.nodes[at].wire().say("GET key:0"), Value::from(format!("{at}:0").as_str()));
        wait_until_equal(&cluster);
        for node in &cluster.nodes {
            let mut wire = node.wire();
            let gets: Vec<_> = (0..KEYS).map(|n| request(&["GET", &format!("key:{n}")])).collect();
            for (n, value) in wire.pipeline(&gets).into_iter().enumerate() {
                assert_eq!(value, Value::from(format!("{at}:{n}").as_str()), "{} after {name} was wiped", node.name);
            }
        }
        set(&mut cluster.nodes[at].wire(), at + 1);
    }
}

/// Waits until all owners of all keys hold the same, and something.
fn wait_until_equal(cluster: &Cluster) {
    let began = Instant::now();
    let mut wire = cluster.nodes[0].wire();
    for key in (0..KEYS).map(|n| format!("key:{n}")) {
        loop {
            let held = holdings(&wire.call(&["DYNAMO.WHERE", &key]));
            if held.len() == 3
                && held.iter().all(|dots| dots.as_ref().is_some_and(|dots| !dots.is_empty()) && *dots == held[0])
            {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{key}: {held:?}");
            sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn the_place_of_a_live_member_is_not_given_away() {
    let mut cluster = Cluster::of(3, &[]);
    set(&mut cluster.nodes[0].wire(), 0);
    let seed = format!("127.0.0.1:{}", cluster.nodes[0].peer_port);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut twin = super::process::Node::new(elsewhere.path(), "node-2", &["--join", &seed]);
    twin.start().wait_until_it_says("Not joined yet");
    assert!(twin.log().contains("the name node-2 is taken by node"), "{}", twin.log());
    cluster.wait_until_whole();
    // It was only waiting for the place: once that is free it takes it, and who comes back then is sent away.
    cluster.nodes[1].kill();
    twin.wait_until_it_answers();
    let status = cluster.nodes[1].start().wait_for_the_end();
    assert!(!status.success());
    let log = cluster.nodes[1].log();
    assert!(log.trim_end().lines().last().unwrap().contains("another node took the place of this one"), "{log}");
}
