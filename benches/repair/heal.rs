//! How long three replicas that differ a little need to become equal, and what that moves between them.
//!
//! Two sides of a cut are made by stopping processes: while the third node stands still the other two take one half of the
//! writes, and while those stand still the third takes the other half. All three own everything, so there are no
//! stand-ins and no hints: it is for sync to find what differs.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Options;
use super::cluster::{Cluster, fill, key_of};
use super::wire::{Value, Wire, request};

/// How often it is looked whether all are equal.
const LOOK: Duration = Duration::from_millis(250);
/// Keys that are asked about in one go.
const AT_ONCE: usize = 500;
/// Of the keys that did not diverge, every how-manieth is looked at as well.
const SAMPLE: usize = 97;
/// What equality may take before this gives up.
const PATIENCE: Duration = Duration::from_secs(600);

pub async fn run(options: &Options) {
    let cluster = Cluster::start(&["--read-quorum", "1", "--write-quorum", "1", "--hint-limit", "0"]).await;
    let all: Vec<u16> = cluster.ports.iter().map(|ports| ports[0]).collect();
    println!("{} rows of {} bytes, of which {} diverge", options.rows, options.bytes, options.diverged);
    let began = Instant::now();
    fill(0..options.rows, &vec![b'v'; options.bytes], &all).await;
    let step = (options.rows / options.diverged.max(1)).max(1) as usize;
    let diverging: Vec<u64> = (0..options.rows).step_by(step).take(options.diverged as usize).collect();
    let looked_at: Vec<u64> = (0..options.rows).step_by(SAMPLE).chain(diverging.iter().copied()).collect();
    until_equal(&cluster, &looked_at).await;
    println!("loaded and equal after {:.1} s", began.elapsed().as_secs_f64());
    let idle = idle_bytes(&cluster).await;

    let before = diverge(&cluster, &diverging, options.bytes).await;
    let began = Instant::now();
    [0, 1].iter().for_each(|at| cluster.pause(*at, false));
    let (took, looks) = until_equal(&cluster, &diverging).await;
    let now = Counted::of(&cluster, &[0, 1, 2]);
    let (moved, repaired) = (now.sent - before.sent, now.repaired - before.repaired);
    let beside = idle * began.elapsed().as_secs_f64() + looks as f64 * bytes_of_a_look(&cluster, &diverging).await;
    let moved = moved - beside;
    until_equal(&cluster, &looked_at).await;
    println!(
        "equal {:.1} s after the heal; {:.0} KB moved between nodes, {:.0} bytes for each of {} rows that diverged; \
         {repaired:.0} rows made whole at a replica",
        took.as_secs_f64(),
        moved / 1e3,
        moved / diverging.len() as f64,
        diverging.len(),
    );
    println!("without anything that differs, {:.1} KB move in a second", idle / 1e3);
}

/// What nodes say that they have done.
#[derive(Default)]
struct Counted {
    /// Bytes sent to other nodes.
    sent: f64,
    /// Rows made whole.
    repaired: f64,
}

impl Counted {
    fn of(cluster: &Cluster, nodes: &[usize]) -> Counted {
        let sum = |name| nodes.iter().map(|at| cluster.metric(*at, name)).sum();
        Counted { sent: sum("redynamo_peer_output_bytes_total"), repaired: sum("redynamo_repaired_rows_total") }
    }
}

/// Half of the keys are written on either side while the other stands still. Answers what had been done before the heal.
async fn diverge(cluster: &Cluster, keys: &[u64], bytes: usize) -> Counted {
    let (one, other) = keys.split_at(keys.len() / 2);
    cluster.pause(2, true);
    cluster.until_it_sees(0, 2).await;
    cluster.until_it_sees(1, 2).await;
    fill(one.iter().copied(), &vec![b'a'; bytes], &[cluster.ports[0][0], cluster.ports[1][0]]).await;
    // What they tell each other of these is no repair.
    sleep(Duration::from_secs(2)).await;
    let before = Counted::of(cluster, &[0, 1]);
    [0, 1].iter().for_each(|at| cluster.pause(*at, true));
    cluster.pause(2, false);
    cluster.until_it_sees(2, 1).await;
    fill(other.iter().copied(), &vec![b'b'; bytes], &[cluster.ports[2][0]]).await;
    let third = Counted::of(cluster, &[2]);
    Counted { sent: before.sent + third.sent, repaired: before.repaired + third.repaired }
}

/// Bytes that move in a second while nothing differs.
async fn idle_bytes(cluster: &Cluster) -> f64 {
    let sent = || Counted::of(cluster, &[0, 1, 2]).sent;
    let (before, began) = (sent(), Instant::now());
    sleep(Duration::from_secs(20)).await;
    (sent() - before) / began.elapsed().as_secs_f64()
}

/// Bytes that move between nodes when somebody asks where one of these keys is.
async fn bytes_of_a_look(cluster: &Cluster, keys: &[u64]) -> f64 {
    let before = Counted::of(cluster, &[0, 1, 2]).sent;
    let (_, looks) = until_equal(cluster, keys).await;
    (Counted::of(cluster, &[0, 1, 2]).sent - before) / looks.max(1) as f64
}

/// Waits until all three hold the very same versions of every key; answers how long that took, and how many keys were
/// looked at.
async fn until_equal(cluster: &Cluster, keys: &[u64]) -> (Duration, usize) {
    let (began, mut left, mut looks) = (Instant::now(), keys, 0);
    loop {
        let equal = equal_ones(cluster.ports[0][0], left, &mut looks);
        left = &left[equal..];
        if left.is_empty() {
            return (began.elapsed(), looks);
        }
        assert!(began.elapsed() < PATIENCE, "replicas differ after {:?}", began.elapsed());
        sleep(LOOK).await;
    }
}

/// How many of the first keys all three hold equally.
fn equal_ones(port: u16, keys: &[u64], looks: &mut usize) -> usize {
    let mut wire = Wire::to(port);
    for (turn, some) in keys.chunks(AT_ONCE).enumerate() {
        let asked: Vec<Vec<u8>> = some.iter().map(|key| request(&[b"DYNAMO.WHERE", &key_of(*key)[..]])).collect();
        *looks += some.len();
        if let Some(at) = wire.pipeline(&asked).iter().position(|place| !is_equal(place)) {
            return turn * AT_ONCE + at;
        }
    }
    keys.len()
}

/// Whether all owners answered, and hold the same.
fn is_equal(place: &Value) -> bool {
    let Value::Many(_) = place else { return false };
    let held: Vec<&Value> = place.field("nodes").items().iter().map(|node| node.field("holds")).collect();
    held.len() == 3 && held.iter().all(|dots| **dots != Value::Nil && *dots == held[0])
}
