//! Replies come in the order of requests, and commands of one connection take effect in it, wherever keys live.

use std::io::Write;
use std::thread;

use redynamo::base::rng::Rng;

use super::process::Cluster;
use super::wire::{Value, Wire, request};

const DEPTH: usize = 1_000;

#[test]
fn replies_to_a_deep_pipeline_come_in_order_whoever_coordinates() {
    let cluster = Cluster::of(3, &[]);
    for node in &cluster.nodes {
        let mut wire = node.wire();
        let name = &node.name;
        let sets: Vec<_> = (0..DEPTH).map(|n| request(&["SET", &format!("{name}:{n}"), &n.to_string()])).collect();
        assert!(wire.pipeline(&sets).iter().all(|reply| *reply == Value::from("OK")));
        // Answered at once, at another node, by all nodes, by the connection itself: in one pipeline.
        let mixed: Vec<_> = (0..DEPTH)
            .map(|n| match n % 7 {
                0 => request(&["ECHO", &n.to_string()]),
                1 => request(&["MGET", &format!("{name}:{n}"), &format!("{name}:{}", n - 1), "nothing"]),
                2 => request(&["NOSUCH", &n.to_string()]),
                _ => request(&["GET", &format!("{name}:{n}")]),
            })
            .collect();
        for (n, reply) in wire.pipeline(&mixed).into_iter().enumerate() {
            let text = |n: usize| Value::from(n.to_string().as_str());
            match n % 7 {
                1 => assert_eq!(reply, Value::Many(vec![text(n), text(n - 1), Value::Nil])),
                2 => assert!(reply.error().contains(&format!("'{n}'")), "{reply:?}"),
                _ => assert_eq!(reply, text(n)),
            }
        }
    }
}

/// What one connection does to a few keys that are its own has to look as if there were no cluster.
#[test]
fn commands_of_one_connection_to_one_key_never_overtake_each_other() {
    let cluster = Cluster::of(3, &[]);
    thread::scope(|scope| {
        for (number, port) in cluster.ports().into_iter().cycle().take(6).enumerate() {
            scope.spawn(move || follow_a_model(port, number as u64));
        }
    });
}

/// What a key may hold here.
#[derive(Default, Clone)]
struct Model(Vec<Option<String>>);

impl Model {
    /// A random command and the reply that is due.
    fn step(&mut self, owner: u64, rng: &mut Rng) -> (Vec<u8>, Value) {
        let at = rng.below(self.0.len() as u64) as usize;
        let other = rng.below(self.0.len() as u64) as usize;
        let name = |at: usize| format!("own:{owner}:{at}");
        let shown = |held: &Option<String>| held.as_deref().map_or(Value::Nil, Value::from);
        let number = rng.below(1_000).to_string();
        match rng.below(9) {
            0 | 1 => {
                self.0[at] = Some(number.clone());
                (request(&["SET", &name(at), &number]), Value::from("OK"))
            }
            2 | 3 => {
                let next = self.0[at].as_ref().map_or(0, |text| text.parse::<i64>().unwrap()) + 1;
                self.0[at] = Some(next.to_string());
                (request(&["INCR", &name(at)]), Value::Int(next))
            }
            4 => (request(&["DEL", &name(at)]), Value::Int(self.0[at].take().map_or(0, |_| 1))),
            5 => {
                let due = Value::Many(vec![shown(&self.0[at]), shown(&self.0[other])]);
                (request(&["MGET", &name(at), &name(other)]), due)
            }
            6 => {
                let before = shown(&self.0[at]);
                self.0[at] = Some(number.clone());
                (request(&["SET", &name(at), &number, "GET"]), before)
            }
            7 => {
                self.0[at] = Some(number.clone());
                self.0[other] = Some("7".to_owned());
                (request(&["MSET", &name(at), &number, &name(other), "7"]), Value::from("OK"))
            }
            _ => (request(&["GET", &name(at)]), shown(&self.0[at])),
        }
    }
}

fn follow_a_model(port: u16, owner: u64) {
    let (mut rng, mut model, mut wire) = (Rng::new(owner), Model(vec![None; 5]), Wire::to(port));
    let rounds = if cfg!(debug_assertions) { 3 } else { 10 };
    for round in 0..rounds {
        let (requests, due): (Vec<_>, Vec<_>) = (0..DEPTH).map(|_| model.step(owner, &mut rng)).unzip();
        for (n, reply) in wire.pipeline(&requests).into_iter().enumerate() {
            let before: Vec<_> =
                requests[n.saturating_sub(12)..=n].iter().map(|one| one.escape_ascii().to_string()).collect();
            assert_eq!(reply, due[n], "round {round}, owner {owner}, after\n{}", before.join("\n"));
        }
    }
}

#[test]
fn increments_of_one_connection_answer_one_after_the_other() {
    let cluster = Cluster::of(3, &[]);
    let mut wire = cluster.nodes[2].wire();
    let increments = vec![request(&["INCR", "n"]); DEPTH];
    let due: Vec<_> = (1..=DEPTH as i64).map(Value::Int).collect();
    assert_eq!(wire.pipeline(&increments), due);
}

#[test]
fn increments_of_many_connections_answer_every_number_once() {
    let cluster = Cluster::of(3, &[]);
    let ports = cluster.ports();
    let mut answers: Vec<i64> = thread::scope(|scope| {
        let counters: Vec<_> = (0..6)
            .map(|number| {
                let port = ports[number % 3];
                scope.spawn(move || Wire::to(port).pipeline(&vec![request(&["INCR", "n"]); DEPTH]))
            })
            .collect();
        counters.into_iter().flat_map(|counter| counter.join().unwrap()).map(|reply| reply.int()).collect()
    });
    answers.sort_unstable();
    assert_eq!(answers, (1..=6 * DEPTH as i64).collect::<Vec<_>>());
}

#[test]
fn a_client_that_wants_no_replies_gets_none_and_everything_is_done() {
    let cluster = Cluster::of(3, &[]);
    let mut wire = cluster.nodes[0].wire();
    let mut requests = vec![request(&["CLIENT", "REPLY", "OFF"])];
    requests.extend((0..DEPTH).map(|n| request(&["SET", &format!("k{n}"), "x"])));
    requests.push(request(&["INCR", "n"]));
    requests.push(request(&["NOSUCH"]));
    requests.push(request(&["CLIENT", "REPLY", "ON"]));
    requests.push(request(&["CLIENT", "REPLY", "SKIP"]));
    requests.push(request(&["INCR", "n"]));
    requests.push(request(&["INCR", "n"]));
    wire.send(&requests.concat()).unwrap();
    assert_eq!(wire.read().unwrap(), Value::from("OK"), "of ON");
    assert_eq!(wire.read().unwrap(), Value::Int(3), "the one after what was skipped");
    let exist: Vec<_> = (0..DEPTH).map(|n| request(&["EXISTS", &format!("k{n}")])).collect();
    assert!(wire.pipeline(&exist).iter().all(|reply| *reply == Value::Int(1)));
}

#[test]
fn big_values_pass_through_any_node_in_pieces() {
    let cluster = Cluster::of(3, &[]);
    let mut rng = Rng::new(1);
    let big: Vec<u8> = (0..(50 << 20) / 8).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    // Over each node, so that at least two of them forward.
    for (at, node) in cluster.nodes.iter().enumerate() {
        let wire = &mut node.wire();
        let set = request(&[b"SET".as_slice(), b"big", &big]);
        for piece in set.chunks(3_000_001) {
            wire.writer().write_all(piece).unwrap();
        }
        assert_eq!(wire.read().unwrap(), Value::from("OK"), "{}", node.name);
        let reader = &cluster.nodes[(at + 1) % 3];
        assert!(reader.wire().say("GET big") == Value::Text(big.clone()), "through {}", reader.name);
        assert_eq!(node.wire().say("STRLEN big"), Value::Int(big.len() as i64));
        assert_eq!(node.wire().say("DEL big"), Value::Int(1));
    }
}
