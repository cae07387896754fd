//! What goes wrong: faults drawn from a seed, up to three at a time, each undone after a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use redynamo::base::rng::Rng;

use super::cluster::Cluster;
use super::logbook::Logbook;
use super::net::{Cut, Layer, between};
use super::node::Node;

/// Faults at a time.
const AT_ONCE: usize = 3;
/// Nodes that are killed, paused or emptied at a time, but for a blackout.
const OUT_AT_ONCE: usize = 2;
/// How long a node may take to do without a restart once its disk has room again.
const DISK_RECOVERS_WITHIN: Duration = Duration::from_secs(15);

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Partition,
    Loss,
    Kill,
    Blackout,
    Pause,
    Clock,
    Wipe,
    /// To an older disk.
    Rollback,
    FullDisk,
}

/// Which ways a partition cuts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Two groups, as equal as can be.
    Halves,
    /// One node alone.
    Alone,
    /// Two groups and one node that both see.
    Bridge,
    /// One group is not heard by the other.
    OneWay,
    /// Each sees its neighbours only.
    Ring,
}

pub const PATTERNS: [Pattern; 5] = [Pattern::Halves, Pattern::Alone, Pattern::Bridge, Pattern::OneWay, Pattern::Ring];

impl Pattern {
    /// The ways that it cuts between nodes in the order of `nodes`.
    pub fn ways(self, nodes: &[usize]) -> Vec<(usize, usize)> {
        let group = |part: &[usize]| part.to_vec();
        let (first, rest) = nodes.split_first().unwrap();
        match self {
            Pattern::Halves => between(&[group(&nodes[..nodes.len() / 2]), group(&nodes[nodes.len() / 2..])]),
            Pattern::Alone => between(&[vec![*first], group(rest)]),
            Pattern::Bridge => between(&[group(&rest[..rest.len() / 2]), group(&rest[rest.len() / 2..])]),
            Pattern::OneWay => {
                let (deaf, heard) = nodes.split_at(nodes.len() / 2);
                deaf.iter().flat_map(|to| heard.iter().map(move |from| (*from, *to))).collect()
            }
            Pattern::Ring => {
                let far = |a: usize, b: usize| !matches!(a.abs_diff(b), 0 | 1) && a.abs_diff(b) != nodes.len() - 1;
                let all = (0..nodes.len()).flat_map(|a| (0..nodes.len()).map(move |b| (a, b)));
                all.filter(|(a, b)| far(*a, *b)).map(|(a, b)| (nodes[a], nodes[b])).collect()
            }
        }
    }
}

/// How a fault ends.
enum Undo {
    Mend(u64),
    Start(usize),
    GoOn(usize),
    Free(usize),
    Nothing,
}

struct Active {
    until: Instant,
    undo: Undo,
}

/// The source of faults of a run.
pub struct Nemesis {
    rng: Rng,
    book: Arc<Logbook>,
    active: Vec<Active>,
    menu: Vec<Fault>,
    /// A node was wiped or rolled back since all owners were last equal. A second one could lose the last copy.
    forgot: bool,
    pub counts: BTreeMap<Fault, u64>,
    /// Nodes that wanted a restart after their disk had been full.
    pub restarts_for_disks: u64,
}

impl Nemesis {
    /// Draws from `menu`, in which a fault may stand several times.
    pub fn new(rng: Rng, menu: &[Fault], book: &Arc<Logbook>) -> Nemesis {
        Nemesis {
            rng,
            book: book.clone(),
            active: Vec::new(),
            menu: menu.to_vec(),
            forgot: false,
            counts: BTreeMap::new(),
            restarts_for_disks: 0,
        }
    }

    /// Lets things go wrong for a while. Some of it still is, afterwards.
    pub fn rage(&mut self, cluster: &mut Cluster, time: Duration) {
        let end = Instant::now() + time;
        let mut next = Instant::now() + self.span(200, 1_500);
        while Instant::now() < end {
            self.undo(cluster, Instant::now());
            if Instant::now() >= next && self.active.len() < AT_ONCE {
                self.strike(cluster);
                next = Instant::now() + self.span(200, 3_000);
            }
            self.look_for_ends(cluster);
            sleep(Duration::from_millis(50));
        }
    }

    /// Everything is repaired, and waits until the cluster is whole; how long that took.
    pub fn heal(&mut self, cluster: &mut Cluster) -> Result<Duration, String> {
        self.undo(cluster, Instant::now() + Duration::from_secs(3_600));
        cluster.nodes.iter_mut().for_each(|node| node.set_clock(0));
        self.book.fault();
        self.revive_full_disks(cluster);
        self.book.line(format_args!("HEALED"));
        let healed = cluster.wait_until_whole();
        self.look_for_ends(cluster);
        healed
    }

    /// All owners are equal: whatever any of them loses is somewhere else.
    pub fn all_is_equal(&mut self) {
        self.forgot = false;
    }

    fn strike(&mut self, cluster: &mut Cluster) {
        let fault = *self.rng.pick(&self.menu).unwrap();
        // Drawn whether it can be done or not, so that the next draw does not depend on it.
        let (order, time, amount) = (self.order(cluster.len()), self.span(500, 8_000), self.rng.below(1_000));
        // Whatever breaks from here on is no surprise.
        self.book.fault();
        let Some((undo, told)) = self.commit(cluster, fault, &order, amount) else { return };
        println!("  {:>8.3} s: {fault:?} {told} for {time:?}", self.book.elapsed().as_secs_f64());
        self.book.line(format_args!("FAULT {fault:?} {told} for {time:?}"));
        *self.counts.entry(fault).or_default() += 1;
        self.book.fault();
        self.active.extend(undo.into_iter().map(|undo| Active { until: Instant::now() + time, undo }));
        self.tell_who_is_able(cluster);
    }

    /// Does it, if it can be done now.
    fn commit(
        &mut self,
        cluster: &mut Cluster,
        fault: Fault,
        order: &[usize],
        amount: u64,
    ) -> Option<(Vec<Undo>, String)> {
        let busy = self.busy();
        let free = order.iter().copied().find(|node| !busy.contains(node) && cluster.nodes[*node].runs());
        let able = free.filter(|_| busy.len() < OUT_AT_ONCE);
        match fault {
            Fault::Partition => Some(partition(cluster, order, amount)),
            Fault::Loss => Some(loss(cluster, order, amount)),
            Fault::Kill => {
                let node = able?;
                cluster.nodes[node].kill();
                Some((vec![Undo::Start(node)], cluster.nodes[node].name.clone()))
            }
            Fault::Blackout if busy.is_empty() => {
                cluster.nodes.iter_mut().for_each(|node| node.kill());
                Some(((0..cluster.len()).map(Undo::Start).collect(), "of all".to_owned()))
            }
            Fault::Blackout => None,
            Fault::Pause => {
                let node = able?;
                cluster.nodes[node].pause();
                Some((vec![Undo::GoOn(node)], cluster.nodes[node].name.clone()))
            }
            Fault::Clock => {
                let node = &mut cluster.nodes[order[0]];
                let off = wrong_by(amount);
                node.set_clock(off);
                // It stays wrong until it is set again.
                node.has_clock().then(|| (vec![Undo::Nothing], format!("{} by {off} ms", node.name)))
            }
            Fault::Wipe | Fault::Rollback if self.forgot => None,
            Fault::Wipe => {
                let node = &mut cluster.nodes[able?];
                node.kill();
                node.wipe();
                // What it was before is another node's.
                node.drop_snapshot();
                Some((self.forgetful(node, "wiped"), node.name.clone()))
            }
            Fault::Rollback => {
                let node = able.filter(|node| cluster.nodes[*node].has_snapshot())?;
                let node = &mut cluster.nodes[node];
                node.kill();
                node.roll_back();
                Some((self.forgetful(node, "rolled back"), node.name.clone()))
            }
            Fault::FullDisk => {
                let node =
                    order.iter().copied().find(|node| !busy.contains(node) && cluster.nodes[*node].has_small_disk())?;
                cluster.nodes[node].fill_disk();
                Some((vec![Undo::Free(node)], cluster.nodes[node].name.clone()))
            }
        }
    }

    fn forgetful(&mut self, node: &Node, how: &str) -> Vec<Undo> {
        node.note(how);
        self.forgot = true;
        vec![Undo::Start(node.number)]
    }

    fn undo(&mut self, cluster: &mut Cluster, due: Instant) {
        let (over, active) =
            std::mem::take(&mut self.active).into_iter().partition(|active: &Active| active.until <= due);
        self.active = active;
        for Active { undo, .. } in over {
            self.book.fault();
            match undo {
                Undo::Mend(cut) => cluster.net.mend(cut),
                Undo::Start(node) => {
                    let node = &mut cluster.nodes[node];
                    if node.data().exists() && (!node.has_snapshot() || self.rng.chance(0.3)) {
                        node.take_snapshot();
                    }
                    node.start();
                }
                Undo::GoOn(node) => cluster.nodes[node].go_on(),
                Undo::Free(node) => cluster.nodes[node].free_disk(),
                Undo::Nothing => {}
            }
            self.book.fault();
        }
        self.tell_who_is_able(cluster);
    }

    /// Nodes that are well and reach another that is, both ways: with R and W of two that is enough.
    fn tell_who_is_able(&self, cluster: &Cluster) {
        let busy = self.busy();
        let well: Vec<usize> = (0..cluster.len()).filter(|node| !busy.contains(node)).collect();
        let meet = |a: usize, b: usize| a != b && cluster.net.is_clear(a, b) && cluster.net.is_clear(b, a);
        self.book.set_able(well.iter().copied().filter(|node| well.iter().any(|other| meet(*node, *other))));
    }

    /// A node whose disk was full should take writes again by itself; one that does not is restarted, and counted.
    fn revive_full_disks(&mut self, cluster: &mut Cluster) {
        let patience = Instant::now() + DISK_RECOVERS_WITHIN;
        for node in cluster.nodes.iter_mut().filter(|node| node.has_small_disk()) {
            while !node.is_ready() {
                if Instant::now() > patience {
                    self.restarts_for_disks += 1;
                    node.note("restarted: its disk had been full");
                    self.book.fault();
                    node.kill();
                    node.start();
                    break;
                }
                sleep(Duration::from_millis(500));
            }
        }
    }

    fn look_for_ends(&self, cluster: &mut Cluster) {
        for node in &mut cluster.nodes {
            if let Some(status) = node.ended() {
                if !node.found_no_room_to_start() {
                    self.book.violation(format!("{} ended by itself with {status}", node.name));
                }
                node.kill();
                node.start();
            }
        }
    }

    /// Nodes that are out, or whose disk is full.
    fn busy(&self) -> Vec<usize> {
        let node = |active: &Active| match active.undo {
            Undo::Start(node) | Undo::GoOn(node) | Undo::Free(node) => Some(node),
            Undo::Mend(_) | Undo::Nothing => None,
        };
        self.active.iter().filter_map(node).collect()
    }

    fn order(&mut self, nodes: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..nodes).collect();
        self.rng.shuffle(&mut order);
        order
    }

    fn span(&mut self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(least_ms + self.rng.below(most_ms - least_ms))
    }
}

fn partition(cluster: &mut Cluster, order: &[usize], amount: u64) -> (Vec<Undo>, String) {
    // Halves are what hurts most.
    let pattern = *PATTERNS.get(amount as usize % 7).unwrap_or(&Pattern::Halves);
    let cut = if amount.is_multiple_of(3) { Cut::Reset } else { Cut::Swallow };
    let told = format!("{pattern:?} {cut:?} {:?}", order.iter().map(|node| node + 1).collect::<Vec<_>>());
    (vec![Undo::Mend(cluster.net.cut(Layer { ways: pattern.ways(order), cut }))], told)
}

/// Packets of one node, or of all, get lost: 5 to 30 %.
fn loss(cluster: &mut Cluster, order: &[usize], amount: u64) -> (Vec<Undo>, String) {
    let part = 0.05 + 0.25 * (amount / 2) as f64 / 500.0;
    let all: Vec<Vec<usize>> = order.iter().map(|node| vec![*node]).collect();
    let (ways, whose) = match amount % 2 {
        0 => (between(&all), "everyone".to_owned()),
        _ => (Pattern::Alone.ways(order), cluster.nodes[order[0]].name.clone()),
    };
    (vec![Undo::Mend(cluster.net.cut(Layer { ways, cut: Cut::Lose(part) }))], format!("{part:.2} of {whose}"))
}

/// Up to an hour, most often far less.
fn wrong_by(amount: u64) -> i64 {
    let most = [300, 2_000, 60_000, 3_600_000][amount as usize % 4];
    let off = (amount / 8) as i64 * most / 125;
    if amount % 8 < 4 { off } else { -off }
}
