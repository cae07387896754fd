//! What a seed draws: the shape of its cluster, its settings, its clients and its weather.

use std::time::Duration;

use crate::base::rng::Rng;
use crate::config::StrictDatabases;
use crate::node::NodeOptions;
use crate::ring::Partitions;
use crate::storage::SyncPolicy;

/// Everything that a run depends on besides its seed's stream of chance.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many nodes, 1 to 9.
    pub nodes: usize,
    /// N as it is set, 1 to 5; no more than `nodes` count.
    pub replicas: u8,
    /// How many zones the nodes stand in, in turn; 0 for none.
    pub zones: usize,
    /// How the slots are cut: few partitions, so that clients meet.
    pub partitions: Partitions,
    /// Settings of every node.
    pub options: NodeOptions,
    /// When disks are synced.
    pub sync: SyncPolicy,
    /// Bytes for each node's cache of heads.
    pub cache_bytes: u64,
    /// Bytes of hints that a node keeps: few now and then, so that they are not all.
    pub hint_limit: u64,
    /// How many clients.
    pub clients: usize,
    /// How many of them, the first ones, let only owners count.
    pub strict_clients: usize,
    /// Longest pause between two commands of a client.
    pub think: Duration,
    /// Keys of each family: few, so that clients meet.
    pub keys: u64,
    /// How long clients and faults run.
    pub chaos: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// Whether clients flush a database now and then.
    pub flushes: bool,
    /// Whether half of the commands are about collections.
    pub collections: bool,
}

/// What goes wrong, and how often. Sources of faults run side by side, so that faults overlap.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// How many sources of crashes.
    pub crashes: usize,
    /// Longest time that a crashed node stays down.
    pub down: Duration,
    /// A crash may be a power cut.
    pub power_cuts: bool,
    /// A node may come back with an empty disk.
    pub wipes: bool,
    /// A node may come back with an older disk, with or without the mark of then.
    pub rollbacks: bool,
    /// Now and then all nodes crash at once.
    pub blackouts: bool,
    /// How many sources of cuts.
    pub cuts: usize,
    /// How many sources of pauses.
    pub pauses: usize,
    /// How many sources of ambushes.
    pub ambushes: usize,
    /// Worst weather: a message is lost, duplicated, overtaken with up to these chances.
    pub weather: Weather,
    /// Clocks are set wrong and jump by up to so many milliseconds.
    pub skew_ms: u64,
    /// Disks become slow now and then.
    pub slow_disks: bool,
    /// Disks are full, or refuse to write, for a while now and then.
    pub sick_disks: bool,
}

/// What happens to messages.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// Chance of being lost.
    pub loss: f64,
    /// Chance of being delivered twice.
    pub duplication: f64,
    /// Chance of being overtaken by later ones.
    pub reordering: f64,
    /// Longest way, in milliseconds.
    pub delay_ms: u64,
}

impl Config {
    /// Draws a configuration.
    pub fn draw(rng: &mut Rng) -> Config {
        // Mostly as clusters are.
        let nodes = match rng.below(20) {
            0 | 1 => 1 + rng.below(2),
            2..=14 => 3 + rng.below(3),
            _ => 3 + rng.below(7),
        } as usize;
        let replicas = [3, 3, 3, 3, 3, 5, 5, 4, 4, 2, 1][rng.below(11) as usize];
        let owners = u64::from(replicas).min(nodes as u64);
        let pick = |rng: &mut Rng| 1 + rng.below(owners) as u8;
        // Majorities, as most clusters have them.
        let majority = (owners / 2 + 1) as u8;
        let (read, write) = if rng.chance(0.7) { (majority, majority) } else { (pick(rng), pick(rng)) };
        let clients = 2 + rng.below(4) as usize;
        let faults = if rng.chance(0.1) { Faults::default() } else { Faults::draw(rng) };
        let longer = if faults.ambushes > 0 { 3_000 } else { 0 };
        let strict_clients = match rng.below(5) {
            0 => 0,
            1..=3 => clients,
            _ => rng.below(clients as u64 + 1) as usize,
        };
        Config {
            nodes,
            replicas,
            zones: if rng.chance(0.7) { 0 } else { 1 + rng.below(4) as usize },
            partitions: Partitions::new([1, 1, 2, 2, 4, 4, 8][rng.below(7) as usize]).expect("a power of two"),
            options: options(rng, read, write, strict_clients == clients),
            sync: [SyncPolicy::Always, SyncPolicy::EverySec, SyncPolicy::No][rng.below(3) as usize],
            cache_bytes: if rng.chance(0.5) { 1 << 12 } else { 1 << 22 },
            hint_limit: [0, rng.below(2_000), 1 << 20, 1 << 20][rng.below(4) as usize],
            clients,
            strict_clients,
            think: Duration::from_millis(10 + rng.below(80)),
            keys: 1 + rng.below(4),
            chaos: Duration::from_millis(3_000 + longer + rng.below(7_000)),
            faults,
            flushes: rng.chance(0.5),
            collections: false,
        }
    }

    /// How many owners a partition has.
    pub fn owners(&self) -> usize {
        usize::from(self.replicas).min(self.nodes)
    }

    /// W of most commands; none asks for less.
    pub fn write_quorum(&self) -> usize {
        usize::from(self.options.write_quorum).clamp(1, self.owners())
    }

    /// How many replicas may have forgotten something at a time, without that anything acknowledged is lost.
    pub fn may_forget(&self) -> usize {
        self.write_quorum() - 1
    }

    /// R and W meet in at least one owner.
    pub fn quorums_meet(&self) -> bool {
        usize::from(self.options.read_quorum) + self.write_quorum() > self.owners()
    }

    /// Any two writes meet in at least one owner.
    pub fn writes_meet(&self) -> bool {
        2 * self.write_quorum() > self.owners()
    }

    /// Nodes may forget what they had acknowledged.
    pub fn forgets(&self) -> bool {
        let Faults { crashes, ambushes, power_cuts, wipes, rollbacks, .. } = &self.faults;
        let cuts = *power_cuts && self.sync != SyncPolicy::Always;
        self.may_forget() > 0 && crashes + ambushes > 0 && (cuts || *wipes || *rollbacks)
    }

    /// Whether a client lets only owners count.
    pub fn is_strict(&self, client: usize) -> bool {
        client < self.strict_clients
    }

    /// Whether what a client reads was acknowledged to it or to others before: where only owners count, and R + W > N.
    /// Through stand-ins R + W > N never holds.
    pub fn reads_meet(&self, client: usize) -> bool {
        self.is_calm() || (self.is_strict(client) && self.quorums_meet())
    }

    /// Whether writes of a client follow each other, wherever it sends them: where only owners count, and W > N/2 (rule
    /// 7).
    pub fn writes_follow(&self, client: usize) -> bool {
        self.is_calm() || (self.is_strict(client) && self.writes_meet())
    }

    /// Whether all clients are strict.
    pub fn all_strict(&self) -> bool {
        self.strict_clients == self.clients
    }

    /// Whether writes of all clients follow each other.
    pub fn all_follow(&self) -> bool {
        self.all_strict() && self.writes_follow(0)
    }

    /// Whether runs of it can show most bugs: three owners, quorums that meet, faults.
    pub fn shows_much(&self) -> bool {
        self.owners() > 2 && self.quorums_meet() && self.writes_meet() && !self.is_calm()
    }

    /// Nothing goes wrong.
    pub fn is_calm(&self) -> bool {
        let Faults { crashes, blackouts, cuts, pauses, ambushes, skew_ms, slow_disks, sick_disks, .. } = &self.faults;
        let (sources, weather) = (crashes + cuts + pauses + ambushes, &self.faults.weather);
        sources == 0 && !blackouts && *skew_ms == 0 && !slow_disks && !sick_disks && weather.delay_ms == 0
    }
}

impl Faults {
    fn draw(rng: &mut Rng) -> Faults {
        let faults = Faults::of_all_kinds(rng);
        match rng.below(3) {
            // Nothing else keeps them from taking effect.
            0 => faults.only_ambushes(rng),
            1 => Faults { ambushes: 1, ..faults },
            _ => faults,
        }
    }

    fn only_ambushes(self, rng: &mut Rng) -> Faults {
        let weather = Weather { delay_ms: self.weather.delay_ms, ..Weather::default() };
        let ambushes = 1 + rng.below(2) as usize;
        Faults { ambushes, crashes: 0, cuts: 0, pauses: 0, blackouts: false, slow_disks: false, weather, ..self }
    }

    fn of_all_kinds(rng: &mut Rng) -> Faults {
        Faults {
            crashes: rng.below(3) as usize,
            down: Duration::from_millis(if rng.chance(0.3) { 6_000 } else { 2_000 }),
            power_cuts: rng.chance(0.6),
            wipes: rng.chance(0.4),
            rollbacks: rng.chance(0.4),
            blackouts: rng.chance(0.2),
            cuts: rng.below(3) as usize,
            pauses: rng.below(3) as usize,
            ambushes: 0,
            weather: Weather {
                loss: sometimes(rng, 0.3),
                duplication: sometimes(rng, 0.3),
                reordering: sometimes(rng, 0.3),
                delay_ms: 1 + rng.below(30),
            },
            skew_ms: match rng.below(4) {
                0 | 1 => 0,
                2 => 1 + rng.below(5_000),
                _ => 1 + rng.below(HOUR_MS),
            },
            slow_disks: rng.chance(0.4),
            sick_disks: rng.chance(0.4),
        }
    }
}

const HOUR_MS: u64 = 3_600_000;

/// A chance below `most` in half of the runs, none in the others.
fn sometimes(rng: &mut Rng, most: f64) -> f64 {
    if rng.chance(0.5) { most * rng.below(1000) as f64 / 1000.0 } else { 0.0 }
}

/// With `strict` only owners count in the database that is flushed: a flush goes by its database alone.
fn options(rng: &mut Rng, read_quorum: u8, write_quorum: u8, strict: bool) -> NodeOptions {
    NodeOptions {
        databases: 2,
        read_quorum,
        write_quorum,
        database_quorums: Vec::new(),
        strict: StrictDatabases::These(if strict { vec![1] } else { Vec::new() }),
        peer_timeout: Duration::from_millis(150 + rng.below(500)),
        failure_timeout: Duration::from_millis(
            200 + [800, 800, 2_000].map(|most| rng.below(most))[rng.below(3) as usize],
        ),
        max_skew: Duration::from_millis(100 + rng.below(500)),
        sync_interval: Duration::from_millis(if rng.chance(0.3) { 100 } else { 500 } + rng.below(2_000)),
    }
}
