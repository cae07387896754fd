//! What two replicas that differ a little cost to make equal: in proportion to the difference, not to the data.
//!
//! `REDYNAMO_TRAFFIC_KEYS` sets how many keys there are (of which every hundredth differs).

use std::time::Duration;

use redynamo::base::id::{Db, Region};
use redynamo::causality::expiry::Deadline;
use redynamo::model::{Delta, Fault, Ttl};
use redynamo::ring::Partitions;
use redynamo::sim::net::Cut;
use redynamo::sim::{World, check};
use tokio::time::{Instant, sleep};

use super::scenarios::{config, started};
use super::{number, simulate};

/// Rows that a leaf of the hash tree has, about: as many as with a million keys in 256 partitions.
const ROWS_PER_LEAF: u64 = 4;

/// Writes keys at a node as a coordinator would, telling nobody.
fn put(world: &World, at: usize, keys: impl Iterator<Item = u64>, value: &str) {
    let (node, env) = world.node(at).unwrap();
    for key in keys.map(|n| format!("key:{n}")) {
        let region = Region { db: Db(0), partition: world.config.partitions.of_key(key.as_bytes()) };
        let now = redynamo::env::Env::now_ms(&*env);
        let set = node.replica().update(
            region,
            now,
            |draft| draft.set(key.as_bytes(), value.to_owned().into(), Ttl::Set(Deadline::Never)),
            None::<fn(Delta, bool)>,
        );
        let set: Result<_, Fault> = set;
        set.unwrap();
    }
}

#[test]
fn what_is_moved_is_in_proportion_to_what_differs() {
    let keys = number("REDYNAMO_TRAFFIC_KEYS").unwrap_or(8_192);
    let diverged = keys / 100;
    simulate(async {
        let partitions = (keys / 1024 / ROWS_PER_LEAF).next_power_of_two().clamp(1, 256) as u16;
        assert!(Partitions::new(partitions).is_some());
        let mut config = config(2, 2, partitions);
        (config.options.read_quorum, config.options.write_quorum) = (1, 1);
        (config.options.sync_interval, config.cache_bytes) = (Duration::from_secs(10), 1 << 30);
        let world = started(config, 1).await;
        put(&world, 0, 0..keys, &"v".repeat(100));
        until_equal(&world).await;
        let idle = bytes_of_a_period(&world).await;
        [(0, 1), (1, 0)].iter().for_each(|(from, to)| world.set_cut(*from, *to, Some(Cut::Refuse)));
        sleep(Duration::from_secs(5)).await;
        put(&world, 0, (0..diverged / 2).map(|n| n * 200), &"a".repeat(100));
        put(&world, 1, (0..diverged / 2).map(|n| n * 200 + 100), &"b".repeat(100));
        let (before, began) = (world.net.delivered(), Instant::now());
        [(0, 1), (1, 0)].iter().for_each(|(from, to)| world.set_cut(*from, *to, None));
        until_equal(&world).await;
        let (moved, took) = (world.net.delivered() - before, began.elapsed());
        let per_row = moved / diverged;
        println!(
            "{keys} keys in {partitions} partitions, {diverged} diverged: equal after {took:?}, {moved} bytes moved, \
             {per_row} for each row that differed; {idle} in a period in which nothing did"
        );
        assert!(per_row < 1_100, "{per_row} bytes for each row that differed");
        assert!(took < Duration::from_secs(60), "{took:?}");
        assert!(idle < 200_000 + 64 * 1024, "{idle} bytes to see that nothing differs");
        world.end();
    });
}

async fn until_equal(world: &World) {
    let began = Instant::now();
    while let Err(why) = check::converged(world) {
        assert!(began.elapsed() < Duration::from_secs(600), "{}", why.chars().take(200).collect::<String>());
        sleep(Duration::from_millis(500)).await;
    }
}

async fn bytes_of_a_period(world: &World) -> u64 {
    sleep(Duration::from_secs(20)).await;
    let before = world.net.delivered();
    sleep(world.config.options.sync_interval).await;
    world.net.delivered() - before
}
