//! Every fault, several at a time, in rounds: clients work while it rages; everything is repaired, clients rest, owners
//! become equal, and what is there is compared with what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redynamo::base::rng::Rng;
use redynamo::sim::history::{Deed, Op, Outcome};

use super::arena::within;
use super::check::check_all;
use super::client::Client;
use super::cluster::{Cluster, Held, STRICT_DATABASE};
use super::load::Worker;
use super::logbook::{Counts, Logbook, Phase};
use super::nemesis::{Fault, Nemesis};
use super::net::address;
use super::number;

/// Clients for each node, besides one of the strict database.
const CLIENTS: usize = 2;
/// Whether the strict database is used by runs that are not asked to soak, too.
const STRICT_IN_ORDINARY_RUNS: bool = false;
/// Kinds of commands in the strict database.
const ONLY_OWNERS: [&str; 3] = ["strict", "strict read", "lock"];
/// Keys that are written at the beginning and never again.
const KEPT: u64 = 1_000;
/// How long faults rage before all is repaired and looked at.
const RAGE_MS: (u64, u64) = (15_000, 30_000);
/// In every such round all keys are looked at, in others those of this round and the last.
const ALL_KEYS_EVERY: u64 = 5;
/// How long somebody may look after a command of unknown outcome.
const UNKNOWN_FOR: Duration = Duration::from_secs(15);
/// What a run without any wish takes.
const ORDINARY: Duration = Duration::from_secs(60);

const MENU: &[Fault] = &[
    Fault::Partition,
    Fault::Partition,
    Fault::Partition,
    Fault::Partition,
    Fault::Loss,
    Fault::Kill,
    Fault::Kill,
    Fault::Kill,
    Fault::Kill,
    Fault::Pause,
    Fault::Pause,
    Fault::Clock,
    Fault::FullDisk,
    Fault::Blackout,
    Fault::Wipe,
    Fault::Wipe,
    Fault::Rollback,
];

#[test]
fn every_fault_leaves_what_was_acknowledged_and_brings_nothing_back() {
    within("mixed::every_fault_leaves_what_was_acknowledged_and_brings_nothing_back", |dir| {
        let time = number("REDYNAMO_SOAK_MINUTES").map_or(ORDINARY, |minutes| Duration::from_secs(60 * minutes));
        let seed = number("REDYNAMO_SEED").unwrap_or_else(|| u64::from(std::process::id()) ^ clock());
        let nodes = number("REDYNAMO_SOAK_NODES").map_or(5, |nodes| nodes.clamp(3, 7) as usize);
        println!("REDYNAMO_SEED={seed}: {nodes} nodes for {time:?}");
        Run::begin(dir, seed, nodes).go_on_for(time);
    });
}

fn clock() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A run.
struct Run {
    cluster: Cluster,
    book: Arc<Logbook>,
    nemesis: Nemesis,
    rng: Rng,
    /// Clients work in the strict database too.
    strict: bool,
    told: Instant,
    /// How long it took until the cluster was whole, and until owners were equal.
    healed: Vec<(Duration, Duration)>,
}

impl Run {
    fn begin(dir: &Path, seed: u64, nodes: usize) -> Run {
        let cluster = Cluster::of(nodes, 2, dir, &["--strict-databases", STRICT_DATABASE]);
        let (mut rng, book) = (Rng::new(seed), Arc::new(Logbook::new(dir)));
        let nemesis = Nemesis::new(rng.fork(), MENU, &book);
        let strict = number("REDYNAMO_SOAK_MINUTES").is_some() || STRICT_IN_ORDINARY_RUNS;
        let mut run = Run { cluster, book, nemesis, rng, strict, told: Instant::now(), healed: Vec::new() };
        run.write_what_is_kept();
        run
    }

    fn write_what_is_kept(&mut self) {
        let mut wire = self.cluster.nodes[0].wire(Duration::from_secs(10)).unwrap();
        for id in 0..KEPT {
            let (key, value) = (Bytes::from(format!("p{id}")), Bytes::from(format!("kept {id}")));
            let began = self.book.moment();
            assert!(!wire.call(&[b"SET", key.as_ref(), &value]).is_error());
            self.book.note(usize::MAX, began, &key, Deed::Set(value), Outcome::Done);
        }
    }

    fn go_on_for(mut self, time: Duration) {
        let end = Instant::now() + time;
        let workers = self.workers();
        let clients = workers.len();
        scope(|scope| {
            for worker in workers {
                scope.spawn(move || worker.run());
            }
            while Instant::now() < end && self.book.violations().is_empty() {
                self.round(clients, end);
            }
            if self.book.violations().is_empty() {
                self.look(true);
            }
            self.book.set_phase(Phase::End);
        });
        self.report();
        let violations = self.book.violations();
        assert!(violations.is_empty(), "{} violations, the first of them:\n{}", violations.len(), violations[0]);
    }

    fn workers(&mut self) -> Vec<Worker> {
        let addresses: Vec<_> = (0..self.cluster.len()).map(address).collect();
        let mut workers = Vec::new();
        for number in 0..self.cluster.len() * CLIENTS {
            workers.push(Worker::new(Client::new(number, &addresses, self.rng.fork(), &self.book), false));
        }
        for number in 0..if self.strict { self.cluster.len() } else { 0 } {
            let client = Client::new(number + workers.len(), &addresses, self.rng.fork(), &self.book);
            workers.push(Worker::new(client.greeting(&["SELECT", STRICT_DATABASE]), true));
        }
        workers
    }

    fn round(&mut self, clients: usize, end: Instant) {
        self.book.next_round();
        self.book.set_phase(Phase::Work);
        let (least, most) = RAGE_MS;
        let rage = Duration::from_millis(least + self.rng.below(most - least));
        self.nemesis.rage(
            &mut self.cluster,
            rage.min(end.saturating_duration_since(Instant::now()).max(Duration::from_secs(5))),
        );
        let whole = self.nemesis.heal(&mut self.cluster);
        self.book.set_phase(Phase::Rest);
        while self.book.resting().load(Ordering::SeqCst) < clients {
            sleep(Duration::from_millis(10));
        }
        match whole {
            Ok(whole) => self.healed.push((whole, Duration::ZERO)),
            Err(why) => return self.book.violation(why),
        }
        self.look(self.book.round().is_multiple_of(ALL_KEYS_EVERY));
        if self.told.elapsed() > Duration::from_secs(60) {
            self.told = Instant::now();
            self.tell();
        }
    }

    /// Waits until all owners are equal and compares what is there with what was acknowledged.
    fn look(&mut self, everywhere: bool) {
        let ops = self.ops(everywhere);
        let keys: Vec<Bytes> = ops.keys().cloned().collect();
        match self.cluster.wait_until_equal(keys.clone()) {
            Ok(equal) => self.healed.iter_mut().next_back().into_iter().for_each(|(_, took)| *took = equal),
            Err(why) => return self.book.violation(why),
        }
        for node in self.cluster.nodes.iter().filter(|node| node.log().contains("panicked")) {
            self.book.violation(format!("{} panicked", node.name));
        }
        match self.held_alike(&ops, &keys) {
            Ok(held) => {
                let wrong = check_all(ops.iter().map(|(key, ops)| (key, ops.as_slice())), &held);
                wrong.into_iter().for_each(|what| self.book.violation(what));
            }
            Err(why) => self.book.violation(why),
        }
        self.nemesis.all_is_equal();
    }

    /// What all nodes answer, if they answer alike. A command of unknown outcome may be done, or undone, until nobody looks
    /// after it any more: what differs because of one is read again until then.
    fn held_alike(&self, ops: &BTreeMap<Bytes, Vec<Op>>, keys: &[Bytes]) -> Result<BTreeMap<Bytes, Held>, String> {
        let until = Instant::now() + UNKNOWN_FOR;
        loop {
            let first = self.cluster.read(0, keys)?;
            let mut differing = BTreeSet::new();
            for node in 1..self.cluster.len() {
                let held = self.cluster.read(node, keys)?;
                differing.extend(keys.iter().filter(|key| first.get(*key) != held.get(*key)));
            }
            let unknown = |key: &&Bytes| ops[*key].iter().any(|op| op.outcome == Outcome::Unknown);
            match differing.iter().find(|key| !unknown(key) || Instant::now() > until) {
                Some(key) => return Err(format!("{key:?} is answered otherwise by one node than by another")),
                None if differing.is_empty() => return Ok(first),
                None => sleep(Duration::from_secs(1)),
            }
        }
    }

    /// What was done to the keys that are looked at. Locks come and go.
    fn ops(&self, everywhere: bool) -> BTreeMap<Bytes, Vec<Op>> {
        let history = self.book.history.lock().unwrap();
        let round = self.book.round();
        let recent = |key: &Bytes| {
            let text = String::from_utf8_lossy(key).into_owned();
            let of_round = |round: u64| ["a", "r"].iter().any(|kind| text.starts_with(&format!("{kind}{round}-")));
            !matches!(key.first(), Some(b'a' | b'r' | b'p')) || of_round(round) || of_round(round.saturating_sub(1))
        };
        let keys = history.keys().filter(|(key, _)| everywhere || recent(key));
        keys.map(|(key, ops)| (key.clone(), ops.to_vec())).collect()
    }

    /// One line.
    fn tell(&self) {
        let all = self.book.tallies().values().fold(Counts::default(), |sum, tally| sum.plus(tally.all));
        println!(
            "{:>6.1} min, round {}: {all}; faults {:?}; violations {}",
            self.book.elapsed().as_secs_f64() / 60.0,
            self.book.round(),
            self.nemesis.counts,
            self.book.violations().len()
        );
    }

    fn report(&self) {
        let (mut all, mut calm) = (Counts::default(), Counts::default());
        println!("after {:?} and {} rounds", self.book.elapsed(), self.book.round());
        for (kind, tally) in self.book.tallies() {
            println!("  {kind:<12} {}", tally.all);
            all = all.plus(tally.all);
            // What only owners may do is not always possible where a node reaches two others.
            if !ONLY_OWNERS.contains(&kind) {
                calm = calm.plus(tally.calm);
            }
        }
        println!("  {:<12} {all}", "all");
        println!("  {:<12} {calm}", "calm");
        self.book.errors().iter().for_each(|(error, count)| println!("  {count:>6} times {error}"));
        println!("  faults {:?}, restarts after full disks {}", self.nemesis.counts, self.nemesis.restarts_for_disks);
        let longest = |of: fn(&(Duration, Duration)) -> Duration| self.healed.iter().map(of).max().unwrap_or_default();
        println!("  whole within {:?}, equal within {:?} more", longest(|took| took.0), longest(|took| took.1));
        for violation in self.book.violations().iter().take(40) {
            println!("  VIOLATION {violation}");
        }
    }
}
