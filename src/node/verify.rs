//! Which partitions have been compared with whom, and when: whatever was verified longest ago is compared next, so that
//! every pair of a partition and a co-owner is verified within a period.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Node;
use crate::base::id::{NodeId, Partition};
use crate::replication::admission::Work;

/// In how many steps a period is done: each compares what is due then.
const STEPS: u32 = 8;
/// Partitions that are compared in one go.
const AT_ONCE: usize = 32;

/// A partition and another of its owners.
type Pair = (Partition, NodeId);

/// When pairs were verified.
pub(super) struct Verified {
    began: Instant,
    state: Mutex<State>,
    rung: Notify,
}

#[derive(Default)]
struct State {
    verified: BTreeMap<Pair, Instant>,
    /// To be compared now, whenever it was verified.
    wanted: BTreeSet<Pair>,
    running: Option<(NodeId, usize)>,
}

/// A pair that has not been verified for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unverified {
    /// The partition.
    pub partition: Partition,
    /// The other owner.
    pub peer: NodeId,
    /// How long ago they were last compared, or this node started.
    pub age: Duration,
    /// They have been compared since this node started.
    pub once: bool,
}

/// How comparing gets on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncStatus {
    /// Within which time every pair of a partition and another owner is to be compared.
    pub period: Duration,
    /// How many pairs there are.
    pub pairs: usize,
    /// How many of them have not been compared within twice that time.
    pub overdue: usize,
    /// The pair that was compared longest ago; none if this node shares nothing with anybody.
    pub oldest: Option<Unverified>,
    /// The same among pairs whose other owner is live.
    pub oldest_live: Option<Unverified>,
    /// With whom it is comparing now, and how many partitions.
    pub running: Option<(NodeId, usize)>,
    /// How many pairs somebody asked for that have not been compared yet.
    pub wanted: usize,
}

impl Verified {
    pub fn new() -> Verified {
        Verified { began: Instant::now(), state: Mutex::default(), rung: Notify::new() }
    }

    fn note(&self, peer: NodeId, partitions: &[Partition]) {
        let mut state = self.state.lock();
        for partition in partitions {
            state.verified.insert((*partition, peer), Instant::now());
            state.wanted.remove(&(*partition, peer));
        }
    }

    fn of(&self, (partition, peer): Pair) -> Unverified {
        let at = self.state.lock().verified.get(&(partition, peer)).copied();
        Unverified { partition, peer, age: at.unwrap_or(self.began).elapsed(), once: at.is_some() }
    }
}

impl Node {
    /// Compares every partition with every live co-owner, whatever was verified longest ago first.
    pub(super) async fn sync_loop(self: Arc<Self>) {
        while !self.is_stopping() {
            let pause = self.options.sync_interval / STEPS;
            let jitter = Duration::from_millis(self.env.random() % (pause.as_millis() as u64 / 2).max(1));
            let _ = timeout(pause + jitter, self.verified.rung.notified()).await;
            let mut away = BTreeSet::new();
            for (peer, partitions) in self.due() {
                if !away.contains(&peer) && !self.compare(peer, &partitions).await {
                    away.insert(peer);
                }
            }
        }
    }

    /// What is to be compared now, in order: with whom, and what.
    fn due(&self) -> Vec<(NodeId, Vec<Partition>)> {
        let after = self.options.sync_interval - self.options.sync_interval / STEPS;
        let wanted = self.verified.state.lock().wanted.clone();
        let view = self.coordinator.view.load();
        let mut due = self.sync_pairs();
        due.retain(|pair| {
            view.is_live(pair.peer) && (pair.age >= after || wanted.contains(&(pair.partition, pair.peer)))
        });
        due.sort_by_key(|pair| std::cmp::Reverse(pair.age));
        let mut batches: Vec<(NodeId, Vec<Partition>)> = Vec::new();
        for Unverified { partition, peer, .. } in due {
            match batches.iter_mut().find(|(with, some)| *with == peer && some.len() < AT_ONCE) {
                Some((_, some)) => some.push(partition),
                None => batches.push((peer, vec![partition])),
            }
        }
        batches
    }

    async fn compare(self: &Arc<Self>, peer: NodeId, partitions: &[Partition]) -> bool {
        self.verified.state.lock().running = Some((peer, partitions.len()));
        let pulled = self.coordinator.sync_with(peer, partitions, Work::Repair).await;
        self.verified.state.lock().running = None;
        self.note_verified(peer, &pulled.partitions);
        if let Some(error) = &pulled.ended {
            tracing::debug!(%peer, %error, "a sync ended early");
        }
        pulled.ended.is_none()
    }

    /// All that a peer has of these partitions has been pulled.
    pub(super) fn note_verified(&self, peer: NodeId, partitions: &[Partition]) {
        self.verified.note(peer, partitions);
    }

    /// Every pair of a partition of this node and another owner of it.
    pub fn sync_pairs(&self) -> Vec<Unverified> {
        let view = self.coordinator.view.load();
        let mine = view.ring.partitions().iter().filter(|partition| view.owns(*partition));
        let others = |partition| view.ring.owners(partition).iter().filter(|owner| **owner != self.me);
        mine.flat_map(|partition| others(partition).map(move |peer| self.verified.of((partition, *peer)))).collect()
    }

    /// How comparing gets on.
    pub fn sync_status(&self) -> SyncStatus {
        let period = self.options.sync_interval;
        let (pairs, view) = (self.sync_pairs(), self.coordinator.view.load());
        let oldest = |pairs: &mut dyn Iterator<Item = &Unverified>| pairs.max_by_key(|pair| pair.age).copied();
        let state = self.verified.state.lock();
        SyncStatus {
            period,
            pairs: pairs.len(),
            overdue: pairs.iter().filter(|pair| pair.age > period * 2).count(),
            oldest: oldest(&mut pairs.iter()),
            oldest_live: oldest(&mut pairs.iter().filter(|pair| view.is_live(pair.peer))),
            running: state.running,
            wanted: state.wanted.len(),
        }
    }

    /// Compares now, whenever it was done last: one partition or all, with one peer or all. Answers how many pairs that is.
    pub fn sync_now(&self, partition: Option<Partition>, peer: Option<NodeId>) -> usize {
        let mut pairs = self.sync_pairs();
        pairs.retain(|pair| partition.is_none_or(|partition| partition == pair.partition));
        pairs.retain(|pair| peer.is_none_or(|peer| peer == pair.peer));
        self.verified.state.lock().wanted.extend(pairs.iter().map(|pair| (pair.partition, pair.peer)));
        self.verified.rung.notify_one();
        pairs.len()
    }
}
