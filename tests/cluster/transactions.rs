//! Transactions on several nodes: forwarded, watched across nodes, whole or not at all when a coordinator dies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use super::place::coordinator;
use super::process::{Cluster, PATIENCE};
use super::wire::{Value, Wire, request};

fn say_all(wire: &mut Wire, lines: &[&str]) -> Value {
    lines.iter().map(|line| wire.say(line)).last().unwrap()
}

/// The number of the node that coordinates a key.
fn coordinator_of(cluster: &Cluster, key: &str) -> usize {
    let name = coordinator(&cluster.nodes[0].wire().say(&format!("DYNAMO.WHERE {key}"))).unwrap();
    cluster.nodes.iter().position(|node| node.name == name).unwrap()
}

#[test]
fn a_transaction_sent_to_any_node_is_done_as_one() {
    let cluster = Cluster::of(3, &[]);
    for (at, node) in cluster.nodes.iter().enumerate() {
        let mut wire = node.wire();
        let tag = format!("{{t{at}}}");
        let lines =
            ["MULTI", &format!("SET {tag}a 1"), &format!("INCR {tag}a"), "PING", &format!("GET {tag}a"), "EXEC"];
        let replies = say_all(&mut wire, &lines);
        assert_eq!(replies, Value::Many(vec!["OK".into(), Value::Int(2), "PONG".into(), "2".into()]));
        let lines = ["MULTI", "SET x 1", "SET y 2", "MGET x y", "EXEC"];
        let both = Value::Many(vec!["1".into(), "2".into()]);
        assert_eq!(say_all(&mut wire, &lines), Value::Many(vec!["OK".into(), "OK".into(), both]));
    }
}

#[test]
fn a_watched_key_that_changed_through_another_node_stops_the_transaction() {
    let cluster = Cluster::of(3, &[]);
    for (at, node) in cluster.nodes.iter().enumerate() {
        let (mut wire, mut other) = (node.wire(), cluster.nodes[(at + 1) % 3].wire());
        for (key, written) in [("{k}a", "{k}b"), ("k", "elsewhere")] {
            other.say(&format!("SET {key} 1"));
            wire.say(&format!("WATCH {key}"));
            other.say(&format!("SET {key} 1"));
            assert_eq!(say_all(&mut wire, &["MULTI", &format!("SET {written} wrong"), "EXEC"]), Value::Nil);
            assert_eq!(wire.say(&format!("GET {written}")), Value::Nil);
            wire.say(&format!("WATCH {key}"));
            let done = say_all(&mut wire, &["MULTI", &format!("GET {key}"), "EXEC"]);
            assert_eq!(done, Value::Many(vec!["1".into()]));
        }
    }
}

#[test]
fn optimistic_increments_through_all_nodes_lose_none() {
    let cluster = Cluster::of(3, &[]);
    const EACH: usize = 40;
    scope(|threads| {
        for node in &cluster.nodes {
            threads.spawn(|| {
                let mut wire = node.wire();
                let mut done = 0;
                while done < EACH {
                    wire.say("WATCH {c}n");
                    let now = match wire.say("GET {c}n") {
                        Value::Nil => 0,
                        value => value.text().parse::<usize>().unwrap(),
                    };
                    wire.say("MULTI");
                    wire.say(&format!("SET {{c}}n {}", now + 1));
                    wire.say("INCR {c}check");
                    done += usize::from(wire.say("EXEC") != Value::Nil);
                }
            });
        }
    });
    let mut wire = cluster.nodes[0].wire();
    let sum = (3 * EACH).to_string();
    assert_eq!(wire.say("MGET {c}n {c}check"), Value::Many(vec![sum.as_str().into(), sum.as_str().into()]));
}

#[test]
fn readers_never_see_half_of_a_transaction_of_one_slot() {
    let cluster = Cluster::of(3, &[]);
    let stop = AtomicBool::new(false);
    scope(|threads| {
        threads.spawn(|| {
            let mut wire = cluster.nodes[1].wire();
            for number in 0..300 {
                let lines = ["MULTI", &format!("SET {{h}}a {number}"), &format!("SET {{h}}b {number}"), "EXEC"];
                assert_eq!(say_all(&mut wire, &lines), Value::Many(vec!["OK".into(), "OK".into()]));
            }
            stop.store(true, Ordering::Relaxed);
        });
        for node in &cluster.nodes {
            threads.spawn(|| {
                let mut wire = node.wire();
                while !stop.load(Ordering::Relaxed) {
                    let both = wire.say("MGET {h}a {h}b");
                    assert_eq!(both.items()[0], both.items()[1]);
                }
            });
        }
    });
}

/// Whoever coordinates is killed again and again while transactions run; what is there afterwards is whole.
#[test]
fn a_coordinator_that_dies_leaves_all_of_a_transaction_or_nothing() {
    let mut cluster = Cluster::of(3, &[]);
    for round in 0..3 {
        let tag = format!("{{r{round}}}");
        let victim = coordinator_of(&cluster, &tag);
        let (survivor, port) = ((victim + 1) % 3, cluster.nodes[victim].port);
        let asked = cluster.nodes[survivor].port;
        let mut acknowledged = 0;
        scope(|threads| {
            let writing = threads.spawn(|| {
                let mut wire = Wire::to(asked);
                let (mut number, mut last) = (0u64, 0);
                let began = Instant::now();
                while began.elapsed() < Duration::from_secs(4) {
                    number += 1;
                    wire.say("MULTI");
                    for part in ["a", "b", "c"] {
                        wire.say(&format!("SET {tag}{part} {number}"));
                    }
                    if !wire.say("EXEC").is_error() {
                        last = number;
                    }
                }
                last
            });
            std::thread::sleep(Duration::from_millis(600));
            cluster.nodes[victim].kill();
            acknowledged = writing.join().unwrap();
        });
        assert_ne!(port, asked);
        let mut wire = Wire::to(asked);
        let seen = wire.say(&format!("MGET {tag}a {tag}b {tag}c"));
        let numbers: Vec<u64> = seen.items().iter().map(|value| value.text().parse().unwrap()).collect();
        assert!(numbers.iter().all(|number| number == &numbers[0]), "{numbers:?} is not whole");
        assert!(numbers[0] >= acknowledged, "{acknowledged} was acknowledged, {numbers:?} is there");
        cluster.nodes[victim].serve();
        cluster.wait_until_whole();
        let began = Instant::now();
        let again = loop {
            let again = wire.say(&format!("MGET {tag}a {tag}b {tag}c"));
            if !again.is_error() || began.elapsed() > PATIENCE {
                break again;
            }
        };
        assert_eq!(again, seen, "also when it is back");
    }
}

#[test]
fn pipelines_around_transactions_are_answered_in_order() {
    let cluster = Cluster::of(3, &[]);
    for node in &cluster.nodes {
        let mut wire = node.wire();
        let lines: Vec<String> = (0..30)
            .flat_map(|number| {
                let key = format!("p{}", number % 7);
                [
                    format!("SET {key} {number}"),
                    "MULTI".into(),
                    format!("INCR {key}"),
                    format!("GET {key}"),
                    "EXEC".into(),
                ]
                .into_iter()
                .chain([format!("GET {key}")])
            })
            .collect();
        let requests: Vec<Vec<u8>> = lines.iter().map(|line| request(&line.split(' ').collect::<Vec<_>>())).collect();
        let replies = wire.pipeline(&requests);
        for (number, replies) in replies.chunks(6).enumerate() {
            let next = (number + 1).to_string();
            let done = Value::Many(vec![Value::Int(number as i64 + 1), next.as_str().into()]);
            assert_eq!((&replies[4], &replies[5]), (&done, &next.as_str().into()));
        }
        wire.say("FLUSHALL");
    }
}

#[test]
fn a_flush_and_what_follows_it_in_a_pipeline_keep_their_order() {
    let cluster = Cluster::of(3, &[]);
    let mut wire = cluster.nodes[0].wire();
    for round in 0..20 {
        let lines = ["FLUSHALL".to_owned(), format!("SET f{round} 1"), format!("GET f{round}")];
        let requests: Vec<Vec<u8>> = lines.iter().map(|line| request(&line.split(' ').collect::<Vec<_>>())).collect();
        assert_eq!(wire.pipeline(&requests)[2], "1".into());
    }
}
