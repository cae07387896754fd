//! What gates the service does not wait for what does not: a coordinator that takes over settles soon, however many
//! partitions it has to compare, and however slowly repairs go on.

use std::time::Duration;

use redynamo::base::id::{Db, Partition, Region};
use redynamo::causality::expiry::Deadline;
use redynamo::model::{Delta, Fault, Ttl};
use redynamo::replication::admission::Rules;
use redynamo::sim::World;
use redynamo::sim::world::Crash;
use tokio::time::{Instant, sleep};

use super::scenarios::{config, started};
use super::simulate;

/// Writes rows of a kilobyte at a node, about four into every partition, telling nobody.
fn put_everywhere(world: &World, at: usize) {
    let (node, env) = world.node(at).unwrap();
    for key in (0..u64::from(world.config.partitions.count()) * 4).map(|n| format!("key:{n}")) {
        let region = Region { db: Db(0), partition: world.config.partitions.of_key(key.as_bytes()) };
        let set = node.replica().update(
            region,
            redynamo::env::Env::now_ms(&*env),
            |draft| draft.set(key.as_bytes(), vec![b'v'; 1000].into(), Ttl::Set(Deadline::Never)),
            None::<fn(Delta, bool)>,
        );
        let set: Result<_, Fault> = set;
        set.unwrap();
    }
}

/// Partitions that a node coordinates.
fn coordinated(world: &World, at: usize) -> Vec<Partition> {
    let (node, _) = world.node(at).unwrap();
    let view = node.coordinator.view.load();
    view.ring.partitions().iter().filter(|partition| view.coordinator(*partition) == Some(node.me)).collect()
}

#[test]
fn who_takes_over_settles_in_many_partitions_side_by_side_whatever_is_left_to_repairs() {
    simulate(async {
        let mut config = config(3, 3, 1024);
        config.options.sync_interval = Duration::from_secs(3600);
        let world = started(config, 1).await;
        let slow = Rules { limit: Some(Duration::from_nanos(1)), floor: 1, throttle: true };
        (0..3).for_each(|at| world.node(at).unwrap().0.coordinator.admission.set_rules(slow));
        [1, 2].iter().for_each(|at| put_everywhere(&world, *at));
        let before = [1, 2].map(|at| coordinated(&world, at));
        let began = Instant::now();
        world.crash(0, Crash::Kill);
        let is_settled = |at: usize| {
            let (mine, (node, _)) = (coordinated(&world, at), world.node(at).unwrap());
            mine.len() > before[at - 1].len() && mine.iter().all(|partition| node.coordinator.is_settled(*partition))
        };
        while !(is_settled(1) && is_settled(2)) {
            assert!(began.elapsed() < Duration::from_secs(300), "not settled");
            sleep(Duration::from_millis(1)).await;
        }
        let taken: usize = [1, 2].iter().map(|at| coordinated(&world, *at).len() - before[at - 1].len()).sum();
        println!("{taken} partitions, all different, were settled {:?} after their coordinator's end", began.elapsed());
        assert!(taken > 300 && began.elapsed() < Duration::from_secs(5), "{taken}, {:?}", began.elapsed());
        let rows =
            |at: usize, partition| world.node(at).unwrap().0.replica().tally(Region { db: Db(0), partition }).keys;
        let whole = |partition: &Partition| rows(1, *partition) == rows(2, *partition);
        assert!(
            coordinated(&world, 1).iter().filter(|at| !before[0].contains(at)).any(whole),
            "what they lacked was pulled"
        );
        world.end();
    });
}
