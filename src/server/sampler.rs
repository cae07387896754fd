//! What is looked at once a second, because a single look says nothing (rates, peaks) or costs other nodes' time (keys of
//! the whole cluster).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::{Server, system};
use crate::base::id::Db;
use crate::commands::facts::KeyspaceFacts;
use crate::replica::Tally;

const PAUSE: Duration = Duration::from_secs(1);

/// What the last looks gave.
#[derive(Debug)]
pub struct Samples {
    /// Commands a second.
    pub commands_per_s: u64,
    /// Bytes a second from clients.
    pub input_per_s: f64,
    /// Bytes a second to clients.
    pub output_per_s: f64,
    /// The most memory that was ever seen allocated, in bytes.
    pub peak: u64,
    /// Memory allocated at the first look, in bytes.
    pub startup: u64,
    /// When all that had been written was last seen to be on disk, in seconds since the epoch.
    pub synced_s: u64,
    /// Databases of the whole cluster that have keys.
    pub keyspace: BTreeMap<Db, Tally>,
    last: Sums,
    /// The database that is asked for although nothing is known of it, each in turn.
    turn: u8,
}

/// Sums at a moment.
#[derive(Debug, Clone, Copy)]
struct Sums {
    at: Instant,
    commands: u64,
    input: u64,
    output: u64,
}

impl Samples {
    /// Nothing was seen yet but the memory in use.
    pub fn new() -> Samples {
        let allocated = system::allocated();
        Samples {
            commands_per_s: 0,
            input_per_s: 0.0,
            output_per_s: 0.0,
            peak: allocated,
            startup: allocated,
            synced_s: system::wall().as_secs(),
            keyspace: BTreeMap::new(),
            last: Sums { at: Instant::now(), commands: 0, input: 0, output: 0 },
            turn: 0,
        }
    }

    /// Takes in how much memory is allocated now; answers the peak.
    pub fn note_memory(&mut self, allocated: u64) -> u64 {
        self.peak = self.peak.max(allocated);
        self.peak
    }

    /// Begins anew with what goes on lately (CONFIG RESETSTAT).
    pub fn restart_peaks(&mut self) {
        self.peak = system::allocated();
        self.last = Sums { at: Instant::now(), commands: 0, input: 0, output: 0 };
    }

    fn note_sums(&mut self, now: Sums) {
        let seconds = now.at.saturating_duration_since(self.last.at).as_secs_f64().max(1e-3);
        // Sums that were reset meanwhile begin at 0 again.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        self.commands_per_s = rate(now.commands, self.last.commands).round() as u64;
        self.input_per_s = rate(now.input, self.last.input);
        self.output_per_s = rate(now.output, self.last.output);
        self.last = now;
    }
}

impl Default for Samples {
    fn default() -> Self {
        Samples::new()
    }
}

impl Server {
    /// Looks once a second, for as long as the runtime lives.
    pub async fn sample_loop(self: Arc<Self>) {
        loop {
            sleep(PAUSE).await;
            self.pubsub.check_limits();
            self.sample().await;
        }
    }

    /// One look.
    pub async fn sample(&self) {
        let sums = Sums {
            at: Instant::now(),
            commands: self.stats.total_calls(),
            input: self.stats.input_bytes.get(),
            output: self.stats.output_bytes.get(),
        };
        {
            let mut samples = self.samples.lock();
            samples.note_sums(sums);
            samples.note_memory(system::allocated());
            samples.synced_s = self.synced_s(samples.synced_s);
        }
        if !self.node().coordinator.view.load().is_alone() {
            self.sample_keyspace().await;
        }
    }

    /// When all that had been written was last known to be on disk: now, if it is, else `before`.
    pub(super) fn synced_s(&self, before: u64) -> u64 {
        let committer = self.node().replica().committer().clone();
        if committer.synced() >= committer.last() { system::wall().as_secs() } else { before }
    }

    /// Databases with keys: this node's own word while it is alone, else what all said when they were last asked.
    pub(super) fn keyspace(&self) -> Vec<KeyspaceFacts> {
        let alone = self.node().coordinator.view.load().is_alone();
        let tallies = if alone { self.local_keyspace() } else { self.samples.lock().keyspace.clone() };
        let facts = |(db, tally): (Db, Tally)| KeyspaceFacts {
            db,
            keys: tally.keys,
            expires: tally.expiring,
            siblings: tally.siblings,
            avg_ttl_ms: 0,
        };
        tallies.into_iter().filter(|(_, tally)| tally.keys > 0).map(facts).collect()
    }

    fn local_keyspace(&self) -> BTreeMap<Db, Tally> {
        let replica = self.node().replica().clone();
        let mut tallies: BTreeMap<Db, Tally> = BTreeMap::new();
        replica.regions().for_each(|region| tallies.entry(region.db).or_default().add(&replica.tally(region)));
        tallies
    }

    async fn sample_keyspace(&self) {
        for db in self.dbs_to_ask() {
            // What is not answered for stays as it was: a node that is away is no reason to show fewer keys.
            if let Ok(tally) = self.node().coordinator.db_tally(db).await {
                self.samples.lock().keyspace.insert(db, tally);
            }
        }
    }

    /// Databases that are known to have something, and one more.
    fn dbs_to_ask(&self) -> BTreeSet<Db> {
        let local: BTreeSet<Db> = self.node().replica().regions().map(|region| region.db).collect();
        let mut samples = self.samples.lock();
        let next = u16::from(samples.turn) + 1;
        samples.turn = if next < self.node().options().databases { next as u8 } else { 0 };
        let known = samples.keyspace.iter().filter(|(_, tally)| tally.keys > 0).map(|(db, _)| *db);
        known.chain(local).chain([Db(samples.turn)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_what_was_added_since_the_last_look() {
        let mut samples = Samples::new();
        let start = samples.last.at;
        let sums = |after_ms: u64, sum: u64| Sums {
            at: start + Duration::from_millis(after_ms),
            commands: sum,
            input: sum,
            output: 2 * sum,
        };
        samples.note_sums(sums(1_000, 100));
        samples.note_sums(sums(3_000, 500));
        assert_eq!((samples.commands_per_s, samples.input_per_s, samples.output_per_s), (200, 200.0, 400.0));
        samples.note_sums(sums(4_000, 0));
        assert_eq!(samples.commands_per_s, 0, "the sums were reset");
    }

    #[test]
    fn the_peak_never_sinks() {
        let mut samples = Samples::new();
        let peak = samples.peak;
        assert_eq!(samples.note_memory(peak + 10), peak + 10);
        assert_eq!(samples.note_memory(1), peak + 10);
    }
}
