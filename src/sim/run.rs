//! One run: chaos, then calm, then checks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::check;
use super::client::{Client, ask};
use super::collections;
use super::config::Config;
use super::history::{
    Deed, History, Key, Op, Outcome, check_appends, check_contexts, check_counter, check_plain, check_reads,
};
use super::nemesis::{self, FaultName};
use super::plant::Plant;
use super::sequential::{check_lock, check_moved, check_order, check_own};
use super::world::World;
use crate::base::id::Db;
use crate::base::rng::Rng;
use crate::causality::{Cell, Payload};
use crate::model::Visible;

/// How long nodes may take to heal once everything is calm.
const HEALING: Duration = Duration::from_secs(60);

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What the seed drew.
    pub config: Config,
    /// What must not have happened; nothing if all is well.
    pub violations: Vec<String>,
    /// Hash over everything that was sent and answered: the same for the same seed.
    pub trace: u64,
    /// How many events that is over.
    pub events: u64,
    /// Commands; and of them done, not done, unknown.
    pub ops: (usize, [usize; 3]),
    /// Why commands were not done, or nobody knows whether, and how often.
    pub refusals: BTreeMap<String, u64>,
    /// How much time passed in it.
    pub simulated: Duration,
    /// How many faults of each kind happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// Each of those that can be left out of a replay.
    pub named_faults: Vec<FaultName>,
}

/// What a run is to be besides its seed.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Faults to leave out.
    pub left_out: BTreeSet<FaultName>,
    /// Whether half of the commands are about collections.
    pub collections: bool,
}

/// Runs a seed. To be called in a paused, single-threaded runtime.
pub async fn run(seed: u64, choice: &Choice) -> Report {
    let mut rng = Rng::new(seed);
    let config = Config { collections: choice.collections, ..Config::draw(&mut rng) };
    let began = Instant::now();
    let world = World::new(config, rng, choice.plant);
    world.leave_out(&choice.left_out);
    let history = Arc::new(Mutex::new(History::default()));
    world.start_all();
    let mut violations = Vec::new();
    violations.extend(chaos(&world, &history).await.err());
    if violations.is_empty() {
        violations.extend(calm(&world).await.err());
    }
    if violations.is_empty() {
        violations.extend(checks(&world, &history.lock()));
        violations.extend(check::survives_a_restart(&world).err());
    }
    world.end();
    let oracle = world.oracle.lock();
    violations.extend(oracle.violations().iter().cloned());
    let (trace, events) = oracle.traced();
    let ops = history.lock().counts();
    let refusals = history.lock().refusals().clone();
    let simulated = began.elapsed();
    let (config, faults, named_faults) = (world.config.clone(), world.faults(), world.happened());
    Report { seed, config, violations, trace, events, ops, refusals, simulated, faults, named_faults }
}

async fn chaos(world: &Arc<World>, history: &Arc<Mutex<History>>) -> Result<(), String> {
    if world.config.is_calm() && !world.settled(HEALING).await {
        return Err("nodes that nothing disturbs are not ready".into());
    }
    let faults = nemesis::unleash(world);
    let end = Instant::now() + world.config.chaos;
    let mut clients: JoinSet<()> =
        (0..world.config.clients).map(|number| Client::new(world, history, number).run_until(end)).collect();
    while let Some(ended) = clients.join_next().await {
        ended.map_err(|error| format!("a client ended badly: {error}"))?;
        // Who still waits for an answer gets it in whatever weather there is.
    }
    drop(faults);
    Ok(())
}

/// Heals everything, and waits until all owners are equal and every node serves.
async fn calm(world: &Arc<World>) -> Result<(), String> {
    world.calm();
    if !world.settled(HEALING).await {
        return Err("nodes are not ready although all is calm".into());
    }
    // Time for what still hides, expires or repairs.
    sleep(Duration::from_secs(2) + 4 * world.config.options.max_skew).await;
    for at in 0..world.len() {
        let key = format!("z{at}");
        let told = ask(world, at, Db(0), &[b"SET", key.as_bytes(), b"1"]).await;
        if told.outcome != Outcome::Done {
            return Err(format!("node {at} does not serve although all is calm: {:?}", told.reply));
        }
    }
    let end = Instant::now() + HEALING;
    loop {
        sleep(world.config.options.sync_interval).await;
        match check::converged(world).and_then(|()| check::given_back(world)) {
            Ok(()) => {
                check::sound(world)?;
                check::agree(world)?;
                return check::listed(world).await;
            }
            Err(why) if Instant::now() >= end => return Err(why),
            Err(_) => {}
        }
    }
}

fn checks(world: &World, history: &History) -> Vec<String> {
    let mut violations = Vec::new();
    for (key, ops) in history.keys() {
        if let Err(why) = check_key(world, history, key, ops) {
            let told: Vec<String> = ops.iter().map(|op| format!("\n    {op:?}")).collect();
            violations.push(format!("{}: {why}{}", String::from_utf8_lossy(key), told.concat()));
        }
    }
    violations
}

fn check_key(world: &World, history: &History, key: &Key, ops: &[Op]) -> Result<(), String> {
    if matches!(key.first(), Some(b'k' | b'h')) {
        return collections::check(world, key, ops);
    }
    let db = Db(u8::from(key.starts_with(b"f")));
    let cell = check::cell_of(world, db, key)?;
    let last = values_of(&cell);
    let config = &world.config;
    let client = ops.first().map_or(0, |op| op.client);
    match key.first() {
        Some(b'r') => {
            check_contexts(ops, &last)?;
            if config.all_strict() && config.reads_meet(0) { check_reads(ops) } else { Ok(()) }
        }
        Some(b's' | b'f') => {
            check_plain(ops, &last, &world.oracle.lock())?;
            check_order(ops, &last, config.all_follow(), config.all_follow() && config.reads_meet(0))
        }
        Some(b'q') => check_own(ops, &last, config.writes_follow(client), config.reads_meet(client)),
        Some(b'l') => check_lock(ops, &last, config.writes_meet()),
        Some(b'm') if key.ends_with(b"a") && config.writes_follow(client) && config.reads_meet(client) => {
            let other: Key = [&key[..key.len() - 1], b"b"].concat().into();
            let there = values_of(&*check::cell_of(world, db, &other)?);
            check_moved(ops, history.of(&other), [&last, &there])
        }
        Some(b'm') => Ok(()),
        Some(b'a') => check_appends(ops, &last, world.config.is_calm()),
        Some(b'c' | b'd') => check_counter(ops, number_of(&cell)?),
        _ if last.is_empty() => Ok(()),
        _ => Err(format!("{last:?} has expired and is there: {cell:?}")),
    }?;
    if world.config.is_calm() { check_calm(ops, &cell) } else { Ok(()) }
}

/// With nothing going wrong there is one coordinator: no siblings, nothing refused, nothing unknown.
fn check_calm(ops: &[Op], cell: &Cell) -> Result<(), String> {
    let refused = |op: &&Op| op.outcome != Outcome::Done && op.deed != Deed::Move;
    if let Some(op) = ops.iter().find(refused) {
        return Err(format!("nothing went wrong and yet: {op:?}"));
    }
    let blind = ops.iter().any(|op| matches!(&op.deed, Deed::Put { .. }));
    if values_of(cell).len() > 1 && !blind { Err("siblings, although nothing went wrong".into()) } else { Ok(()) }
}

fn values_of(cell: &Cell) -> BTreeSet<Bytes> {
    let value = |payload: &Payload| match payload {
        Payload::Value(value) => Some(value.data.clone()),
        _ => None,
    };
    cell.versions().iter().filter_map(|version| value(&version.payload)).collect()
}

fn number_of(cell: &Cell) -> Result<i64, String> {
    let Some(visible) = Visible::of(cell.versions(), 0) else { return Ok(0) };
    let text = visible.text();
    std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok()).ok_or(format!("{text:?} is no number"))
}
