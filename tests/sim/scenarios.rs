//! What seeds found, each as a story of its own.

use std::sync::Arc;
use std::time::Duration;

use redynamo::base::id::{Db, Partition, Region};
use redynamo::base::rng::Rng;
use redynamo::model::RowKey;
use redynamo::node::NodeOptions;
use redynamo::resp::Reply;
use redynamo::ring::Partitions;
use redynamo::sim::client::ask;
use redynamo::sim::config::Faults;
use redynamo::sim::net::Cut;
use redynamo::sim::world::Crash;
use redynamo::sim::{Config, World, check};
use redynamo::storage::SyncPolicy;
use tokio::time::sleep;

use super::simulate;

const LONG: Duration = Duration::from_secs(30);

/// A cluster in which nothing goes wrong by itself: N as given, R and W majorities.
pub fn config(nodes: usize, replicas: u8, partitions: u16) -> Config {
    let majority = replicas.min(nodes as u8) / 2 + 1;
    Config {
        nodes,
        replicas,
        zones: 0,
        partitions: Partitions::new(partitions).unwrap(),
        options: NodeOptions {
            databases: 2,
            read_quorum: majority,
            write_quorum: majority,
            sync_interval: Duration::from_secs(1),
            ..NodeOptions::default()
        },
        sync: SyncPolicy::EverySec,
        cache_bytes: 1 << 20,
        hint_limit: 1 << 20,
        clients: 0,
        strict_clients: 0,
        think: Duration::ZERO,
        keys: 0,
        chaos: Duration::ZERO,
        faults: Faults::default(),
        flushes: false,
        collections: false,
    }
}

pub async fn started(config: Config, seed: u64) -> Arc<World> {
    let world = World::new(config, Rng::new(seed), None);
    world.start_all();
    assert!(world.settled(LONG).await);
    world
}

pub async fn send(world: &World, at: usize, words: &str) -> Reply {
    let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
    ask(world, at, Db(0), &args).await.reply
}

/// Keys `k0`, `k1` … of which node `at` is an owner.
pub fn keys_of(world: &World, at: usize) -> impl Iterator<Item = String> {
    let view = world.node(at).unwrap().0.coordinator.view.load_full();
    let (partitions, id) = (world.config.partitions, world.id(at));
    (0..).map(|n| format!("k{n}")).filter(move |key| view.ring.owners(partitions.of_key(key.as_bytes())).contains(&id))
}

fn starts_with(reply: &Reply, prefix: &str) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with(prefix.as_bytes()))
}

#[test]
fn a_write_of_which_a_part_was_done_is_not_said_to_be_not_done() {
    simulate(async {
        let world = started(config(2, 1, 8), 1).await;
        let (mine, theirs) = (keys_of(&world, 0).next().unwrap(), keys_of(&world, 1).next().unwrap());
        world.crash(1, Crash::Kill);
        let told = send(&world, 0, &format!("MSET {mine} 1 {theirs} 1")).await;
        assert_eq!(send(&world, 0, &format!("GET {mine}")).await, Reply::bulk("1"));
        assert!(starts_with(&told, "UNKNOWN"), "{told:?}");
        let told = send(&world, 0, &format!("MSET {theirs} 1 {theirs} 2")).await;
        assert!(starts_with(&told, "NOREPLICAS"), "{told:?}");
        world.end();
    });
}

#[test]
fn a_flush_that_one_node_did_not_hear_of_is_not_said_to_be_not_done() {
    simulate(async {
        let world = started(config(2, 1, 8), 2).await;
        let mine = keys_of(&world, 0).next().unwrap();
        send(&world, 0, &format!("SET {mine} 1")).await;
        world.set_cut(0, 1, Some(Cut::Swallow));
        let told = send(&world, 0, "FLUSHDB").await;
        assert!(starts_with(&told, "UNKNOWN"), "{told:?}");
        assert_eq!(send(&world, 0, &format!("GET {mine}")).await, Reply::Nil);
        world.end();
    });
}

#[test]
fn a_rename_whose_source_stayed_is_not_said_to_be_not_done() {
    simulate(async {
        let world = started(config(2, 1, 8), 3).await;
        let (target, source) = (keys_of(&world, 0).next().unwrap(), keys_of(&world, 1).next().unwrap());
        send(&world, 0, &format!("SET {source} 1")).await;
        let (node, env) = world.node(0).unwrap();
        env.set_slow_disk(true);
        let renaming = tokio::spawn({
            let (world, words) = (world.clone(), format!("RENAME {source} {target}"));
            async move { send(&world, 0, &words).await }
        });
        let region = Region { db: Db(0), partition: world.config.partitions.of_key(target.as_bytes()) };
        let row = RowKey::head(Db(0), target.as_bytes());
        while node.replica().cell(region, &row).unwrap().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
        world.set_cut(0, 1, Some(Cut::Refuse));
        let told = renaming.await.unwrap();
        assert!(starts_with(&told, "UNKNOWN"), "{told:?}");
        world.end();
    });
}

#[test]
fn what_ends_is_hidden_although_its_stamp_ran_ahead_of_the_clock() {
    simulate(async {
        let world = started(config(1, 1, 1), 4).await;
        world.set_clock(0, 5_000);
        for key in ["k", "n"] {
            send(&world, 0, &format!("SET {key} 1 PX 60000")).await;
        }
        world.set_clock(0, 0);
        // A value, one that keeps its deadline, a counter on a base, and one without.
        for words in ["SET v 1 PX 100", "SET k 1 PX 100", "APPEND k 2", "SET n 1 PX 100", "INCR n", "INCR m"] {
            send(&world, 0, words).await;
        }
        send(&world, 0, "PEXPIRE m 100").await;
        sleep(Duration::from_secs(10)).await;
        for key in ["v", "k", "n", "m"] {
            assert_eq!(send(&world, 0, &format!("GET {key}")).await, Reply::Nil, "{key}");
        }
        world.end();
    });
}

#[test]
fn whatever_ends_is_reaped_also_what_ends_in_the_millisecond_of_a_look() {
    simulate(async {
        let world = started(config(1, 1, 256), 5).await;
        let keys = keys_of(&world, 0).scan([false; 256], |taken, key| {
            let partition = world.config.partitions.of_key(key.as_bytes());
            Some((!std::mem::replace(&mut taken[usize::from(partition.0)], true)).then_some(key))
        });
        // One in each region, so that one look at each meets a deadline in its very millisecond.
        for (at, key) in keys.flatten().take(256).enumerate() {
            send(&world, 0, &format!("SET {key} 1 PX {}", 2_000 - at)).await;
        }
        sleep(Duration::from_secs(5)).await;
        let (node, _) = world.node(0).unwrap();
        let left = |partition| node.replica().tally(Region { db: Db(0), partition }).keys;
        assert_eq!(world.config.partitions.iter().map(left).sum::<u64>(), 0);
        world.end();
    });
}

#[test]
fn a_coordinator_that_forgot_increments_acknowledges_nothing_until_it_has_heard_of_them() {
    for seed in 0..10 {
        simulate(async {
            let (world, at) = forgetful(seed).await;
            let told = send(&world, at, "INCR n").await;
            assert!(told.is_error() && !world.node(at).unwrap().0.health().counted, "seed {seed}: {told:?}");
            let unknown = starts_with(&told, "UNKNOWN");
            heal(&world).await;
            let Reply::Bulk(now) = send(&world, at, "GET n").await else { panic!("nothing is left") };
            let now: i64 = std::str::from_utf8(&now).unwrap().parse().unwrap();
            assert!(now == 12 || (unknown && now == 13), "seed {seed}: {now}");
            count(&world, at, 3).await;
            assert_eq!(send(&world, at, "GETDEL n").await, Reply::bulk((now + 3).to_string()), "seed {seed}");
            sleep(Duration::from_secs(5)).await;
            assert_eq!(send(&world, at, "GET n").await, Reply::Nil, "seed {seed}");
            assert_eq!(check::converged(&world), Ok(()));
            world.end();
        });
    }
}

#[test]
fn a_coordinator_that_has_just_taken_over_knows_of_all_that_it_lists_counts_and_clears() {
    for (seed, words, expected) in [
        (0, "FLUSHDB", Reply::ok()),
        (1, "DBSIZE", Reply::Int(1)),
        (2, "KEYS *", Reply::Array(vec![Reply::bulk("k")])),
        (3, "SCAN 0", Reply::Array(vec![Reply::bulk("0"), Reply::Array(vec![Reply::bulk("k")])])),
    ] {
        simulate(async {
            let (world, at) = taken_over_without_a_write(seed).await;
            assert!(!world.node(at).unwrap().0.coordinator.is_settled(Partition(0)));
            assert_eq!(send(&world, at, words).await, expected, "{words}");
            world.start_all();
            heal(&world).await;
            let left = if words == "FLUSHDB" { Reply::Nil } else { Reply::bulk("1") };
            assert_eq!(send(&world, at, "GET k").await, left, "{words}");
            world.end();
        });
    }
}

/// Three nodes of which the first coordinated and died; the second has taken over this moment, and only the third has heard
/// of what the first acknowledged.
async fn taken_over_without_a_write(seed: u64) -> (Arc<World>, usize) {
    let world = started(config(3, 3, 1), seed).await;
    let owners = world.node(0).unwrap().0.coordinator.view.load_full().ring.owners(Partition(0)).to_vec();
    let node_of = |owner: usize| (0..3).find(|at| world.id(*at) == owners[owner]).unwrap();
    let (first, second) = (node_of(0), node_of(1));
    part(&world, first, &[second], Some(Cut::Refuse));
    assert_eq!(send(&world, first, "SET k 1").await, Reply::ok());
    part(&world, first, &[second], None);
    world.crash(first, Crash::Kill);
    while world.node(second).unwrap().0.coordinator.view.load().coordinator(Partition(0)) != Some(owners[1]) {
        sleep(Duration::from_millis(1)).await;
    }
    (world, second)
}

/// Counts to 12 at a coordinator whose disk loses the last of that, which another node has; and lets it go on, with only a
/// third node that never heard of those either.
async fn forgetful(seed: u64) -> (Arc<World>, usize) {
    let world = started(config(3, 3, 1), seed).await;
    let view = world.node(0).unwrap().0.coordinator.view.load_full();
    let coordinator = view.coordinator(Partition(0)).unwrap();
    let at = (0..3).find(|at| world.id(*at) == coordinator).unwrap();
    let (near, far) = ((at + 1) % 3, (at + 2) % 3);
    count(&world, at, 5).await;
    sleep(Duration::from_secs(3)).await;
    part(&world, far, &[at, near], Some(Cut::Refuse));
    count(&world, at, 7).await;
    world.crash(at, Crash::PowerCut);
    part(&world, far, &[at], None);
    part(&world, near, &[at, far], Some(Cut::Refuse));
    world.start(at);
    sleep(Duration::from_secs(10)).await;
    (world, at)
}

async fn count(world: &World, at: usize, times: usize) {
    for _ in 0..times {
        let told = send(world, at, "INCR n").await;
        assert!(!told.is_error(), "{told:?}");
    }
}

async fn heal(world: &World) {
    world.calm();
    assert!(world.settled(LONG).await);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(check::converged(world), Ok(()));
}

fn part(world: &World, one: usize, others: &[usize], cut: Option<Cut>) {
    for other in others {
        world.set_cut(one, *other, cut);
        world.set_cut(*other, one, cut);
    }
}
