//! What goes wrong: several sources of faults, side by side, so that faults overlap. Single faults find little.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::config::Weather;
use super::net::Cut;
use super::world::World;
use crate::base::rng::Rng;
use crate::storage::SyncPolicy;

/// After how long a disk that is synced once a second has what it was given, however slow it is.
const SYNCED_AFTER: Duration = Duration::from_millis(3_000);

/// Lets things go wrong until the returned set is dropped.
pub fn unleash(world: &Arc<World>) -> JoinSet<()> {
    let faults = world.config.faults.clone();
    let mut sources = JoinSet::new();
    (0..faults.crashes).for_each(|_| drop(sources.spawn(crashes(world.clone(), world.fork()))));
    (0..faults.cuts).for_each(|_| drop(sources.spawn(cuts(world.clone(), world.fork()))));
    (0..faults.pauses).for_each(|_| drop(sources.spawn(pauses(world.clone(), world.fork()))));
    if faults.weather.delay_ms > 0 {
        sources.spawn(weather(world.clone(), world.fork()));
    }
    if faults.skew_ms > 0 {
        sources.spawn(clocks(world.clone(), world.fork()));
    }
    if faults.slow_disks {
        sources.spawn(slow_disks(world.clone(), world.fork()));
    }
    if faults.blackouts {
        sources.spawn(blackouts(world.clone(), world.fork()));
    }
    if faults.broken_disks {
        sources.spawn(broken_disks(world.clone(), world.fork()));
    }
    sources
}

async fn crashes(world: Arc<World>, mut rng: Rng) {
    loop {
        pause(&mut rng, 100, 3_000).await;
        let at = rng.below(world.len() as u64) as usize;
        let power_fails = world.config.faults.power_cuts && rng.chance(0.6) && may_forget(&world);
        world.crash(at, power_fails);
        pause(&mut rng, 20, 2_000).await;
        world.start(at);
    }
}

/// All nodes at once. Only disks that sync before they acknowledge stand a power cut of all.
async fn blackouts(world: Arc<World>, mut rng: Rng) {
    loop {
        pause(&mut rng, 1_000, 6_000).await;
        let power_fails = world.config.faults.power_cuts && world.config.sync == SyncPolicy::Always;
        (0..world.len()).for_each(|at| world.crash(at, power_fails));
        pause(&mut rng, 10, 500).await;
        world.start_all();
    }
}

/// Whether a power cut may take what a node has not synced. Disks that are synced only once a second promise less: what
/// one of them forgets is on another, so no two may forget within the time that a sync takes. Ones that are synced when
/// the kernel likes promise nothing here.
fn may_forget(world: &World) -> bool {
    match world.config.sync {
        SyncPolicy::Always => true,
        SyncPolicy::EverySec => {
            world.config.options.write_quorum > 1 && world.config.owners() > 1 && world.forgets_alone(SYNCED_AFTER)
        }
        SyncPolicy::No => false,
    }
}

async fn cuts(world: Arc<World>, mut rng: Rng) {
    loop {
        pause(&mut rng, 100, 3_000).await;
        let ways = ways(&world, &mut rng);
        let cut = [Cut::Refuse, Cut::Swallow, Cut::Stall][rng.below(3) as usize];
        let breaks = rng.chance(0.5);
        for (from, to) in &ways {
            world.set_cut(*from, *to, Some(cut));
            if breaks {
                world.net.break_link(world.id(*from), world.id(*to));
            }
        }
        pause(&mut rng, 30, 3_000).await;
        ways.iter().for_each(|(from, to)| world.set_cut(*from, *to, None));
    }
}

/// Which ways are cut: of one pair, one way or both; all of one node; between two halves, perhaps with a bridge.
fn ways(world: &World, rng: &mut Rng) -> Vec<(usize, usize)> {
    let nodes = world.len() as u64;
    let (a, b) = (rng.below(nodes) as usize, rng.below(nodes) as usize);
    let all = (0..world.len()).flat_map(|from| (0..world.len()).map(move |to| (from, to)));
    let all = all.filter(|(from, to)| from != to);
    match rng.below(6) {
        0 => vec![(a, b)],
        1 => vec![(a, b), (b, a)],
        2 => all.filter(|(from, to)| *from == a || *to == a).collect(),
        3 => all.filter(|(_, to)| *to == a).collect(),
        4 => all.filter(|(from, to)| (*from <= a) != (*to <= a)).collect(),
        _ => all.filter(|(from, to)| (*from < a) != (*to < a) && *from != a && *to != a).collect(),
    }
}

async fn pauses(world: Arc<World>, mut rng: Rng) {
    loop {
        pause(&mut rng, 200, 3_000).await;
        let id = world.id(rng.below(world.len() as u64) as usize);
        world.net.set_paused(id, true);
        pause(&mut rng, 30, 2_500).await;
        world.net.set_paused(id, false);
    }
}

async fn weather(world: Arc<World>, mut rng: Rng) {
    let Weather { loss, duplication, reordering, delay_ms } = world.config.faults.weather;
    loop {
        let mut part = |worst: f64| worst * rng.below(101) as f64 / 100.0;
        let (loss, duplication, reordering) = (part(loss), part(duplication), part(reordering));
        world.net.set_weather(Weather { loss, duplication, reordering, delay_ms: 1 + rng.below(delay_ms) });
        pause(&mut rng, 200, 2_000).await;
    }
}

async fn clocks(world: Arc<World>, mut rng: Rng) {
    loop {
        pause(&mut rng, 300, 3_000).await;
        world.disturb_clock(rng.below(world.len() as u64) as usize, world.config.faults.skew_ms);
    }
}

async fn slow_disks(world: Arc<World>, mut rng: Rng) {
    loop {
        pause(&mut rng, 200, 3_000).await;
        let at = rng.below(world.len() as u64) as usize;
        world.node(at).inspect(|(_, env)| env.set_slow_disk(true));
        pause(&mut rng, 100, 2_000).await;
        world.node(at).inspect(|(_, env)| env.set_slow_disk(false));
    }
}

async fn broken_disks(world: Arc<World>, mut rng: Rng) {
    loop {
        pause(&mut rng, 300, 4_000).await;
        let at = rng.below(world.len() as u64) as usize;
        world.break_disk(at);
        pause(&mut rng, 50, 1_000).await;
        world.crash(at, false);
        world.start(at);
    }
}

async fn pause(rng: &mut Rng, least_ms: u64, most_ms: u64) {
    let until = Instant::now() + Duration::from_millis(least_ms + rng.below(most_ms - least_ms));
    sleep(until - Instant::now()).await;
}
