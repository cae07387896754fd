//! What stand-ins took while owners were away, and how everyone comes to have it.

use std::sync::Arc;
use std::time::Duration;

use redynamo::base::id::Partition;
use redynamo::node::Node;
use redynamo::resp::Reply;
use redynamo::sim::config::Weather;
use redynamo::sim::world::Crash;
use redynamo::sim::{World, check};
use tokio::time::{Instant, sleep};

use super::scenarios::{config, keys_of, send, started};
use super::simulate;

fn node(world: &World, at: usize) -> Arc<Node> {
    world.node(at).unwrap().0
}

/// Hints that are kept anywhere.
fn hints(world: &World) -> u64 {
    let of = |at: usize| node(world, at).replica().hint_stats().values().map(|kept| kept.count).sum::<u64>();
    (0..world.len()).filter(|at| world.node(*at).is_some()).map(of).sum()
}

/// Regions that somebody holds and does not own.
fn outside(world: &World) -> usize {
    let of = |at: usize| {
        let node = node(world, at);
        let view = node.coordinator.view.load_full();
        node.replica().regions_outside(|partition| view.owns(partition)).len()
    };
    (0..world.len()).filter(|at| world.node(*at).is_some()).map(of).sum()
}

/// Waits until nothing is kept for anybody; says how long that took.
async fn handed_off(world: &World) -> Duration {
    let began = Instant::now();
    while hints(world) > 0 || outside(world) > 0 {
        assert!(began.elapsed() < Duration::from_secs(120), "{} hints, {} regions", hints(world), outside(world));
        sleep(Duration::from_millis(50)).await;
    }
    began.elapsed()
}

#[test]
fn what_stand_ins_took_reaches_the_owners_and_is_forgotten_then_on_a_network_that_loses_and_reorders() {
    for seed in 0..6 {
        simulate(async {
            let mut config = config(5, 3, 4);
            // So that only hints and what is given back can bring it there.
            config.options.sync_interval = Duration::from_secs(3_600);
            let world = started(config, seed).await;
            let (away, other) = (seed as usize % 5, (seed as usize + 1) % 5);
            let keys: Vec<String> = keys_of(&world, away).take(30).collect();
            world.crash(away, Crash::Kill);
            while node(&world, other).coordinator.view.load().is_live(world.id(away)) {
                sleep(Duration::from_millis(10)).await;
            }
            for round in 0..3 {
                for key in &keys {
                    let told = send(&world, other, &format!("SET {key} {round}")).await;
                    assert_eq!(told, Reply::ok(), "seed {seed}, {key}");
                }
            }
            assert!(hints(&world) >= 90 && outside(&world) > 0, "{} {}", hints(&world), outside(&world));
            sleep(Duration::from_secs(30)).await;
            assert!(hints(&world) >= 90, "nothing is let go of while its owner is away");
            world.net.set_weather(Weather { loss: 0.2, duplication: 0.2, reordering: 0.3, delay_ms: 30 });
            world.start(away);
            handed_off(&world).await;
            world.calm();
            sleep(Duration::from_secs(5)).await;
            assert_eq!(check::converged(&world), Ok(()), "seed {seed}");
            for key in &keys {
                assert_eq!(send(&world, away, &format!("GET {key}")).await, Reply::bulk("2"), "seed {seed}, {key}");
            }
            world.end();
        });
    }
}

#[test]
fn a_stand_in_that_dies_before_it_gave_back_does_so_when_it_returns() {
    simulate(async {
        let world = started(config(5, 3, 4), 3).await;
        let keys: Vec<String> = keys_of(&world, 0).take(20).collect();
        world.crash(0, Crash::Kill);
        sleep(Duration::from_secs(3)).await;
        for key in &keys {
            assert_eq!(send(&world, 1, &format!("INCR {key}")).await, Reply::Int(1));
        }
        let kept = hints(&world);
        assert!(kept >= 20);
        (1..5).for_each(|at| world.crash(at, Crash::Kill));
        world.start_all();
        assert!(world.settled(Duration::from_secs(60)).await);
        handed_off(&world).await;
        sleep(Duration::from_secs(3)).await;
        assert_eq!(check::converged(&world), Ok(()));
        for key in &keys {
            assert_eq!(send(&world, 2, &format!("GET {key}")).await, Reply::bulk("1"));
        }
        world.end();
    });
}

#[test]
fn every_pair_of_owners_is_compared_within_a_period_and_whoever_is_away_shows() {
    simulate(async {
        let world = started(config(3, 3, 16), 1).await;
        let period = world.config.options.sync_interval;
        sleep(period * 20).await;
        for _ in 0..100 {
            sleep(Duration::from_millis(77)).await;
            let status = node(&world, 0).sync_status();
            assert_eq!((status.pairs, status.overdue, status.period), (32, 0, period));
            let oldest = status.oldest.unwrap();
            assert!(oldest.once && oldest.age <= period * 2, "{oldest:?}");
        }
        world.crash(1, Crash::Kill);
        sleep(period * 60).await;
        let status = node(&world, 0).sync_status();
        let (oldest, live) = (status.oldest.unwrap(), status.oldest_live.unwrap());
        assert!(oldest.peer == world.id(1) && oldest.age >= period * 59, "{oldest:?}");
        assert!(live.peer == world.id(2) && live.age <= period * 2 && status.overdue == 16, "{live:?}");
        world.start(1);
        sleep(period * 5).await;
        assert_eq!(node(&world, 0).sync_status().overdue, 0);
        world.end();
    });
}

#[test]
fn what_somebody_asks_for_is_compared_at_once() {
    simulate(async {
        let mut config = config(3, 3, 16);
        config.options.sync_interval = Duration::from_secs(3_600);
        let world = started(config, 1).await;
        sleep(Duration::from_secs(600)).await;
        let own = node(&world, 0);
        let age = |partition| {
            let pairs = own.sync_pairs().into_iter().filter(|pair| pair.partition == partition);
            pairs.map(|pair| pair.age).max().unwrap()
        };
        assert!(age(Partition(3)) >= Duration::from_secs(500));
        assert_eq!(own.sync_now(Some(Partition(3)), None), 2);
        sleep(Duration::from_secs(5)).await;
        assert!(age(Partition(3)) <= Duration::from_secs(5) && age(Partition(4)) >= Duration::from_secs(500));
        assert_eq!(own.sync_now(None, None), 32);
        sleep(Duration::from_secs(5)).await;
        assert!(own.sync_pairs().iter().all(|pair| pair.age <= Duration::from_secs(5)));
        assert_eq!(own.sync_status().wanted, 0);
        world.end();
    });
}
