//! Takeover: coordinators that die, return, or are slow and do not know that they were deposed (rule 7 of the causality
//! rules), and stand-ins that take their place.

use std::sync::Arc;
use std::time::Duration;

use redynamo::base::id::{Db, Partition, Region};
use redynamo::base::rng::Rng;
use redynamo::commands::session::Quorum;
use redynamo::config::StrictDatabases;
use redynamo::model::RowKey;
use redynamo::resp::Reply;
use redynamo::sim::client::{Asking, ask_as};
use redynamo::sim::net::Cut;
use redynamo::sim::world::Crash;
use redynamo::sim::{Config, World, check};
use tokio::time::sleep;

use super::scenarios::{config, send, started};
use super::simulate;

const STRICT: Quorum = Quorum { read: None, write: None, strict: Some(true), report: false };
const SLOPPY: Quorum = Quorum { read: None, write: None, strict: None, report: false };

/// A cluster of one partition, its nodes in the order in which they coordinate: owners, then stand-ins.
struct Cluster {
    world: Arc<World>,
    order: Vec<usize>,
}

impl Cluster {
    async fn start(nodes: usize, seed: u64) -> Cluster {
        Cluster::of(config(nodes, 3, 1), seed).await
    }

    async fn of(config: Config, seed: u64) -> Cluster {
        let nodes = config.nodes;
        let world = started(config, seed).await;
        let view = world.node(0).unwrap().0.coordinator.view.load_full();
        let list = view.ring.preference(Partition(0)).to_vec();
        let order: Vec<usize> = list.iter().map(|id| (0..nodes).find(|at| world.id(*at) == *id).unwrap()).collect();
        let cluster = Cluster { world, order };
        while !cluster.node(0).coordinator.is_settled(Partition(0)) {
            sleep(Duration::from_millis(10)).await;
        }
        cluster
    }

    fn node(&self, place: usize) -> Arc<redynamo::node::Node> {
        self.world.node(self.order[place]).unwrap().0
    }

    /// Sends a command to the node at a place.
    async fn ask(&self, place: usize, quorum: Quorum, words: &str) -> Reply {
        let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        let asking = Asking { db: Db(0), quorum, wrote: None };
        ask_as(&self.world, self.order[place], asking, &args).await.reply
    }

    /// The same until it is done: errors that say that nothing was done are the client's to try again, and a removal may be
    /// tried again in any case.
    async fn insist(&self, place: usize, quorum: Quorum, words: &str) -> Reply {
        for _ in 0..200 {
            let reply = self.ask(place, quorum, words).await;
            if !reply.is_error() {
                return reply;
            }
            assert!(!starts_with(&reply, "UNKNOWN") || words.starts_with("DEL "), "{words}: {reply:?}");
            sleep(Duration::from_millis(50)).await;
        }
        panic!("{words} was never done");
    }

    fn part(&self, one: usize, other: usize, cut: Option<Cut>) {
        self.world.set_cut(self.order[one], self.order[other], cut);
        self.world.set_cut(self.order[other], self.order[one], cut);
    }

    fn kill(&self, place: usize) {
        self.world.crash(self.order[place], Crash::Kill);
    }

    fn revive(&self, place: usize) {
        self.world.start(self.order[place]);
    }

    /// Until `by` takes `coordinator` for the coordinator.
    async fn follows(&self, by: usize, coordinator: usize) {
        let id = self.world.id(self.order[coordinator]);
        for _ in 0..2_000 {
            if self.node(by).coordinator.view.load().coordinator(Partition(0)) == Some(id) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{by} never took {coordinator} for the coordinator");
    }

    async fn heal(&self) {
        self.world.calm();
        assert!(self.world.settled(Duration::from_secs(60)).await);
        sleep(Duration::from_secs(8)).await;
        assert_eq!(check::converged(&self.world), Ok(()));
    }

    /// How many values a key has, everywhere.
    fn siblings(&self, key: &str) -> usize {
        let region = Region { db: Db(0), partition: Partition(0) };
        let cell = self.node(0).replica().cell(region, &RowKey::head(Db(0), key.as_bytes())).unwrap();
        cell.versions().len()
    }
}

fn starts_with(reply: &Reply, prefix: &str) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with(prefix.as_bytes()))
}

fn bulk(text: &str) -> Reply {
    Reply::bulk(text.to_owned())
}

#[test]
fn a_lock_stays_taken_when_its_coordinator_is_killed_and_when_it_returns() {
    for seed in 0..5 {
        simulate(async {
            let cluster = Cluster::start(3, seed).await;
            assert_eq!(cluster.ask(0, STRICT, "SET lock a NX").await, Reply::ok());
            cluster.kill(0);
            cluster.follows(1, 1).await;
            assert_eq!(cluster.insist(1, STRICT, "SET lock b NX").await, Reply::Nil);
            assert_eq!(cluster.insist(2, STRICT, "GET lock").await, bulk("a"));
            assert_eq!(cluster.insist(1, STRICT, "DEL lock").await, Reply::Int(1));
            assert_eq!(cluster.insist(2, STRICT, "SET lock c NX").await, Reply::ok());
            cluster.revive(0);
            cluster.follows(0, 0).await;
            assert_eq!(cluster.insist(0, STRICT, "SET lock d NX").await, Reply::Nil);
            cluster.heal().await;
            assert_eq!(cluster.ask(0, STRICT, "GET lock").await, bulk("c"));
            cluster.world.end();
        });
    }
}

#[test]
fn a_slow_coordinator_that_was_deposed_while_it_slept_grants_no_second_lock() {
    for seed in 0..10 {
        simulate(async {
            let cluster = Cluster::start(3, seed).await;
            // It takes itself for the coordinator, and its command is on its way when it falls asleep.
            let id = cluster.world.id(cluster.order[0]);
            cluster.world.net.set_paused(id, true);
            let sleeping = tokio::spawn({
                let (world, at) = (cluster.world.clone(), cluster.order[0]);
                async move {
                    let args: [&[u8]; 4] = [b"SET", b"lock", b"a", b"NX"];
                    ask_as(&world, at, Asking { db: Db(0), quorum: STRICT, wrote: None }, &args).await.reply
                }
            });
            cluster.follows(1, 1).await;
            let other = cluster.insist(1, STRICT, "SET lock b NX").await;
            cluster.world.net.set_paused(id, false);
            let first = sleeping.await.unwrap();
            let won = [&other, &first].into_iter().filter(|reply| **reply == Reply::ok()).count();
            assert!(won <= 1, "{first:?} and {other:?}");
            cluster.heal().await;
            assert_eq!(cluster.siblings("lock"), 1, "{first:?} and {other:?}");
            cluster.world.end();
        });
    }
}

/// The first owner is deposed while it deletes a lock: of what it tells, the third owner has all and says nothing back, and
/// the second, who coordinates by then, gets it after it has granted the lock to another.
async fn deposed_while_it_deletes(seed: u64, words: &'static str) -> (Cluster, Reply, Reply) {
    let mut config = config(3, 3, 1);
    config.options.peer_timeout = Duration::from_secs(20);
    let cluster = Cluster::of(config, seed).await;
    assert_eq!(cluster.insist(0, STRICT, "SET lock a NX").await, Reply::ok());
    let way = |from: usize, to: usize, cut| cluster.world.set_cut(cluster.order[from], cluster.order[to], cut);
    way(0, 1, Some(Cut::Stall));
    way(1, 0, Some(Cut::Stall));
    way(2, 0, Some(Cut::Stall));
    let deleting = tokio::spawn({
        let (world, at) = (cluster.world.clone(), cluster.order[0]);
        async move {
            let args: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            ask_as(&world, at, Asking { db: Db(0), quorum: STRICT, wrote: None }, &args).await.reply
        }
    });
    cluster.follows(1, 1).await;
    let taken = cluster.insist(1, STRICT, "SET lock b NX").await;
    // What the second says arrives first.
    way(0, 1, None);
    way(1, 0, None);
    sleep(Duration::from_millis(500)).await;
    way(2, 0, None);
    (cluster, deleting.await.unwrap(), taken)
}

#[test]
fn a_removal_by_a_coordinator_that_was_deposed_takes_no_lock_that_was_free_because_of_it() {
    for seed in 0..10 {
        for words in ["DEL lock", "GETDEL lock", "UNLINK lock"] {
            simulate(async {
                let (cluster, deleted, taken) = deposed_while_it_deletes(seed, words).await;
                assert_eq!(taken, Reply::ok(), "seed {seed}: {words} took effect where it was heard");
                assert!(starts_with(&deleted, "UNKNOWN"), "seed {seed}: {words}: {deleted:?}");
                assert_eq!(cluster.insist(1, STRICT, "GET lock").await, bulk("b"), "seed {seed}: {words}");
                cluster.heal().await;
                assert_eq!(cluster.ask(0, STRICT, "GET lock").await, bulk("b"), "seed {seed}: {words}");
                cluster.world.end();
            });
        }
    }
}

#[test]
fn two_that_both_take_themselves_for_the_coordinator_grant_one_lock_each_time() {
    for seed in 0..10 {
        simulate(async {
            let cluster = Cluster::start(3, seed).await;
            cluster.part(0, 1, Some(Cut::Refuse));
            cluster.follows(1, 1).await;
            cluster.follows(0, 0).await;
            for round in 0..10 {
                let words = |name| format!("SET lock{round} {name} NX");
                let (a, b) = (words("a"), words("b"));
                let (one, other) = tokio::join!(cluster.ask(0, STRICT, &a), cluster.ask(1, STRICT, &b));
                let won = [&one, &other].into_iter().filter(|reply| **reply == Reply::ok()).count();
                assert!(won <= 1, "seed {seed}, round {round}: {one:?} and {other:?}");
            }
            cluster.heal().await;
            (0..10).for_each(|round| assert!(cluster.siblings(&format!("lock{round}")) <= 1));
            cluster.world.end();
        });
    }
}

#[test]
fn a_client_that_hops_between_two_coordinators_breeds_no_siblings_and_reads_its_own_writes() {
    for seed in 0..20 {
        simulate(async {
            let (cluster, mut rng) = (Cluster::start(3, seed).await, Rng::new(seed));
            cluster.part(0, 1, Some(Cut::Refuse));
            cluster.follows(1, 1).await;
            for n in 0..25 {
                let (writes, reads) = (rng.below(2) as usize, rng.below(3) as usize);
                let (words, left) = match rng.below(4) {
                    0 => ("DEL k".to_owned(), Reply::Nil),
                    _ => (format!("SET k {n}"), bulk(&n.to_string())),
                };
                assert!(!cluster.insist(writes, STRICT, &words).await.is_error());
                assert_eq!(cluster.insist(reads, STRICT, "GET k").await, left, "seed {seed}: {words}");
            }
            cluster.insist(1, STRICT, "SET k last").await;
            cluster.heal().await;
            assert_eq!(cluster.siblings("k"), 1, "seed {seed}");
            cluster.world.end();
        });
    }
}

#[test]
fn increments_are_exact_and_appended_words_stand_once_whoever_coordinates() {
    for seed in 0..10 {
        simulate(async {
            let (cluster, mut rng) = (Cluster::start(3, seed).await, Rng::new(seed));
            let mut words = String::new();
            for round in 1..=30 {
                match round {
                    8 => cluster.kill(0),
                    16 => cluster.revive(0),
                    24 => cluster.part(0, 1, Some(Cut::Refuse)),
                    _ => {}
                }
                let at = loop {
                    let at = rng.below(3) as usize;
                    if cluster.world.node(cluster.order[at]).is_some() {
                        break at;
                    }
                };
                assert_eq!(cluster.insist(at, STRICT, "INCR n").await, Reply::Int(round), "seed {seed}");
                words += &format!("{round};");
                let length = Reply::Int(words.len() as i64);
                assert_eq!(cluster.insist(at, STRICT, &format!("APPEND a {round};")).await, length, "seed {seed}");
            }
            cluster.heal().await;
            assert_eq!(cluster.ask(1, STRICT, "GET n").await, bulk("30"), "seed {seed}");
            assert_eq!(cluster.ask(1, STRICT, "GET a").await, bulk(&words), "seed {seed}");
            cluster.world.end();
        });
    }
}

#[test]
fn where_no_owner_is_reachable_stand_ins_coordinate_and_nothing_of_it_is_lost() {
    simulate(async {
        let cluster = Cluster::start(6, 1).await;
        assert_eq!(cluster.ask(4, SLOPPY, "SET old 1").await, Reply::ok());
        (0..3).for_each(|owner| cluster.kill(owner));
        cluster.follows(4, 3).await;
        cluster.follows(3, 3).await;
        for n in 0..20 {
            assert_eq!(cluster.insist(3 + n % 3, SLOPPY, &format!("SET k{n} {n}")).await, Reply::ok());
            assert_eq!(cluster.insist(3 + n % 3, SLOPPY, "INCR n").await, Reply::Int(n as i64 + 1));
        }
        assert_eq!(cluster.insist(5, SLOPPY, "GET k7").await, bulk("7"));
        assert_eq!(cluster.insist(5, SLOPPY, "DBSIZE").await, Reply::Int(21), "stand-ins answer for what they hold");
        assert!(starts_with(&cluster.ask(4, STRICT, "SET k 1").await, "NOREPLICAS"));
        (0..3).for_each(|owner| cluster.revive(owner));
        cluster.heal().await;
        for n in 0..20 {
            assert_eq!(cluster.ask(0, STRICT, &format!("GET k{n}")).await, bulk(&n.to_string()));
        }
        assert_eq!(cluster.ask(1, STRICT, "GET n").await, bulk("20"));
        assert_eq!(cluster.ask(1, STRICT, "GET old").await, bulk("1"));
        cluster.world.end();
    });
}

#[test]
fn an_owner_that_does_not_answer_is_stood_in_for_at_once() {
    simulate(async {
        let cluster = Cluster::start(5, 2).await;
        // Both other owners fall silent: nobody has noticed yet.
        for owner in [1, 2] {
            cluster.world.net.set_paused(cluster.world.id(cluster.order[owner]), true);
        }
        let asked = tokio::time::Instant::now();
        assert_eq!(cluster.ask(0, SLOPPY, "SET k 1").await, Reply::ok());
        assert!(asked.elapsed() < Duration::from_millis(900), "{:?}", asked.elapsed());
        assert!(starts_with(&cluster.ask(0, STRICT, "SET k 2").await, "UNKNOWN"), "stand-ins do not count");
        cluster.heal().await;
        cluster.world.end();
    });
}

#[test]
fn both_sides_of_a_cut_accept_writes_and_keep_both() {
    simulate(async {
        let cluster = Cluster::start(5, 3).await;
        // Two owners and a stand-in on one side, one owner and a stand-in on the other.
        for (one, other) in [(0, 2), (0, 4), (1, 2), (1, 4), (3, 2), (3, 4)] {
            cluster.part(one, other, Some(Cut::Swallow));
        }
        cluster.follows(4, 2).await;
        cluster.follows(3, 0).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(cluster.insist(3, SLOPPY, "SET k majority").await, Reply::ok());
        assert_eq!(cluster.insist(4, SLOPPY, "SET k minority").await, Reply::ok());
        assert_eq!(cluster.insist(3, STRICT, "SET s 1").await, Reply::ok());
        assert!(starts_with(&cluster.ask(4, STRICT, "SET s 2").await, "NOREPLICAS"));
        for at in [3, 4] {
            assert!(!cluster.insist(at, SLOPPY, "INCRBY n 5").await.is_error());
        }
        cluster.heal().await;
        assert_eq!(cluster.siblings("k"), 2);
        assert_eq!(cluster.ask(0, STRICT, "GET n").await, bulk("10"));
        cluster.world.end();
    });
}

#[test]
fn what_a_flush_hid_stays_hidden_on_an_owner_that_was_away() {
    simulate(async {
        let cluster = Cluster::start(5, 4).await;
        assert_eq!(cluster.ask(0, SLOPPY, "SET k 1").await, Reply::ok());
        cluster.kill(0);
        cluster.follows(1, 1).await;
        assert_eq!(cluster.insist(1, SLOPPY, "FLUSHDB").await, Reply::ok());
        assert_eq!(cluster.insist(1, SLOPPY, "SET l 1").await, Reply::ok());
        cluster.heal().await;
        assert_eq!(cluster.ask(0, STRICT, "GET k").await, Reply::Nil);
        assert_eq!(cluster.ask(0, STRICT, "GET l").await, bulk("1"));
        cluster.world.end();
    });
}

#[test]
fn a_deposed_coordinator_does_not_answer_with_what_was_replaced_and_removed_meanwhile() {
    for seed in 0..5 {
        for words in ["GETSET k c", "SET k c GET", "SET k c XX", "APPEND k c"] {
            simulate(async {
                let cluster = Cluster::start(3, seed).await;
                assert_eq!(cluster.ask(0, STRICT, "SET k a").await, Reply::ok());
                cluster.part(0, 1, Some(Cut::Refuse));
                cluster.follows(1, 1).await;
                cluster.follows(0, 0).await;
                assert_eq!(cluster.insist(1, STRICT, "SET k b").await, Reply::ok());
                assert_eq!(cluster.insist(1, STRICT, "DEL k").await, Reply::Int(1));
                let told = cluster.ask(0, STRICT, words).await;
                let gone = if words.starts_with("APPEND") { Reply::Int(1) } else { Reply::Nil };
                assert!(told == gone || starts_with(&told, "UNKNOWN"), "seed {seed}: {words}: {told:?}");
                cluster.world.end();
            });
        }
    }
}

#[test]
fn a_deposed_coordinator_that_holds_nothing_does_not_say_that_it_has_cleared_what_others_took_meanwhile() {
    for seed in 0..5 {
        simulate(async {
            let mut config = config(3, 3, 1);
            config.options.strict = StrictDatabases::These(vec![0]);
            let cluster = Cluster::of(config, seed).await;
            assert_eq!(cluster.ask(0, STRICT, "FLUSHDB").await, Reply::ok(), "nothing is there, and all say so");
            [1, 2].into_iter().for_each(|other| cluster.part(0, other, Some(Cut::Refuse)));
            cluster.follows(1, 1).await;
            assert_eq!(cluster.insist(1, STRICT, "SET k 1").await, Reply::ok());
            let flushed = cluster.ask(0, STRICT, "FLUSHDB").await;
            assert!(starts_with(&flushed, "UNKNOWN"), "seed {seed}: {flushed:?}");
            cluster.heal().await;
            assert_eq!(cluster.ask(2, STRICT, "GET k").await, bulk("1"), "seed {seed}");
            cluster.world.end();
        });
    }
}

#[test]
fn a_report_names_who_has_a_write_and_who_was_read_also_through_a_forward() {
    simulate(async {
        let cluster = Cluster::start(5, 5).await;
        let field = |reply: &Reply, name: &str| match reply {
            Reply::Map(pairs) => pairs.iter().find(|(key, _)| *key == bulk(name)).map(|(_, value)| value.clone()),
            other => panic!("{other:?} is no map"),
        };
        let count = |reply: &Reply, name| match field(reply, name) {
            Some(Reply::Array(items)) => items.len(),
            other => panic!("{other:?} is no list"),
        };
        for place in [0, 4] {
            let wrote = cluster.ask(place, SLOPPY, "DYNAMO.WITH W 3 REPORT SET k 1").await;
            assert_eq!(field(&wrote, "reply"), Some(Reply::ok()));
            assert_eq!((count(&wrote, "owners"), count(&wrote, "stand-ins")), (3, 0), "{wrote:?}");
            let read = cluster.ask(place, SLOPPY, "DYNAMO.WITH R 2 REPORT GET k").await;
            assert_eq!((field(&read, "reply"), count(&read, "owners")), (Some(bulk("1")), 2), "{read:?}");
        }
        (1..3).for_each(|owner| cluster.kill(owner));
        sleep(Duration::from_secs(5)).await;
        let wrote = cluster.insist(3, SLOPPY, "DYNAMO.WITH W 3 REPORT SET k 2").await;
        assert_eq!((count(&wrote, "owners"), count(&wrote, "stand-ins")), (1, 2), "{wrote:?}");
        assert!(starts_with(&cluster.ask(3, SLOPPY, "DYNAMO.WITH W 3 STRICT SET k 3").await, "NOREPLICAS"));
        let several = cluster.ask(0, SLOPPY, "DYNAMO.WITH REPORT DBSIZE").await;
        assert!(starts_with(&several, "ERR REPORT"), "{several:?}");
        assert_eq!(send(&cluster.world, cluster.order[0], "GET k").await, bulk("2"));
        cluster.world.end();
    });
}

#[test]
fn what_is_too_much_is_refused_before_anything_is_done() {
    simulate(async {
        let cluster = Cluster::start(3, 6).await;
        let load = cluster.node(0).coordinator.load.clone();
        let busy: Vec<_> = std::iter::from_fn(|| load.enter(0)).collect();
        for (place, words) in [(0, "SET k 1"), (0, "DYNAMO.WITH R 2 GET k"), (1, "SET k 1")] {
            let told = cluster.ask(place, SLOPPY, words).await;
            assert_eq!(told, Reply::error("NOREPLICAS not done: this node is overloaded"), "{words}");
        }
        drop(busy);
        assert_eq!(cluster.ask(0, SLOPPY, "GET k").await, Reply::Nil);
        assert_eq!(cluster.ask(1, SLOPPY, "SET k 1").await, Reply::ok());
        assert_eq!(load.now(), (0, 0));
        cluster.world.end();
    });
}
