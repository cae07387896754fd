//! Messages between connections of several nodes.

use std::time::Instant;

use super::process::{Cluster, PATIENCE};
use super::wire::{Value, Wire};

fn words(value: &Value) -> Vec<String> {
    value.items().iter().map(Value::text).collect()
}

/// A subscriber of each node.
fn listeners(cluster: &Cluster, subscribe: &str) -> Vec<Wire> {
    let listen = |port| {
        let mut wire = Wire::to(port);
        wire.say(subscribe);
        wire
    };
    cluster.ports().into_iter().map(listen).collect()
}

#[test]
fn a_message_reaches_the_subscribers_of_every_node_once_and_in_its_publishers_order() {
    let cluster = Cluster::of(3, &[]);
    let mut all = listeners(&cluster, "SUBSCRIBE news");
    all.extend(listeners(&cluster, "PSUBSCRIBE n*"));
    for (at, port) in cluster.ports().into_iter().enumerate() {
        let mut publisher = Wire::to(port);
        for number in 0..50 {
            let heard = publisher.say(&format!("PUBLISH news {at}:{number}"));
            assert_eq!(heard, Value::Int(2), "it counts this node's own");
        }
        for wire in &mut all {
            let texts: Vec<String> = (0..50).map(|_| words(&wire.read().unwrap()).pop().unwrap()).collect();
            let expected: Vec<String> = (0..50).map(|number| format!("{at}:{number}")).collect();
            assert_eq!(texts, expected);
        }
    }
    for wire in &mut all {
        assert_eq!(words(&wire.say("PING end")), ["pong", "end"], "nothing came twice");
    }
}

#[test]
fn who_listens_anywhere_is_counted_everywhere_on_the_plain_face() {
    let cluster = Cluster::of(3, &[]);
    let _listeners = (listeners(&cluster, "SUBSCRIBE a"), listeners(&cluster, "PSUBSCRIBE b*"));
    let _one = listeners(&cluster, "SSUBSCRIBE c").pop();
    for node in &cluster.nodes {
        let mut wire = node.wire();
        assert_eq!(words(&wire.say("PUBSUB CHANNELS")), ["a"]);
        assert_eq!(words(&wire.say("PUBSUB NUMSUB a x")), ["a", "3", "x", "0"]);
        assert_eq!(wire.say("PUBSUB NUMPAT"), Value::Int(1), "patterns, not who listens to them");
    }
}

#[test]
fn a_change_is_told_of_by_its_coordinator_to_subscribers_of_every_node() {
    let cluster = Cluster::of(3, &["--notify-keyspace-events", "Eg$x"]);
    let mut all = listeners(&cluster, "PSUBSCRIBE __keyevent@0__:*");
    let mut writer = cluster.nodes[0].wire();
    for number in 0..20 {
        writer.say(&format!("SET key:{number} v"));
        for wire in &mut all {
            assert_eq!(words(&wire.read().unwrap())[2..], ["__keyevent@0__:set".to_owned(), format!("key:{number}")]);
        }
    }
    writer.say("PEXPIRE key:1 20");
    for wire in &mut all {
        for event in ["expire", "expired"] {
            assert_eq!(words(&wire.read().unwrap())[2..], [format!("__keyevent@0__:{event}"), "key:1".to_owned()]);
        }
    }
}

#[test]
fn a_subscriber_that_does_not_read_is_disconnected_at_its_limit_and_the_others_are_served() {
    let cluster = Cluster::of(2, &["--client-output-buffer-limit", "pubsub 2mb 0 0"]);
    let mut lazy = cluster.nodes[1].wire();
    lazy.say("SUBSCRIBE news");
    let mut eager = cluster.nodes[1].wire();
    eager.say("SUBSCRIBE news");
    let mut publisher = cluster.nodes[0].wire();
    let message = "x".repeat(256 * 1024);
    let began = Instant::now();
    loop {
        publisher.call(&["PUBLISH", "news", &message]);
        assert_eq!(words(&eager.read().unwrap())[2].len(), message.len());
        let mut looks = cluster.nodes[1].wire();
        if looks.say("PUBSUB NUMSUB news") == Value::Many(vec!["news".into(), Value::Int(1)]) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "it is still there");
    }
    cluster.nodes[1].wait_until_it_says("closed for overcoming of output buffer limits");
}
