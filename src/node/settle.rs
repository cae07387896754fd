//! Settling: before this node coordinates a partition on its own word, it pulls what enough other owners have.
//!
//! With N − W others heard, at least one of them is in every write's quorum, so nothing that was acknowledged is missing.
//! Who coordinates claims a term from those others before it pulls (rule 7). Until it is settled, a coordinator claims and
//! asks for each key before it evaluates (see the write path), and a node that has just started leaves coordinating to
//! others if it can: it catches up, which claims nothing, and takes its place then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Node;
use crate::base::id::{NodeId, Partition};
use crate::replication::Hold;

/// How often to look when nobody rings.
const PAUSE: Duration = Duration::from_millis(200);

impl Node {
    pub(super) async fn settle_loop(self: Arc<Self>) {
        while !self.is_stopping() {
            self.settle().await;
            if timeout(PAUSE, self.unsettled.notified()).await.is_ok() {
                // Changes come in bunches.
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Pulls from every live co-owner of partitions that this node has not caught up with. Those that it coordinates it
    /// claims first, so that what was pulled is all there is.
    async fn settle(self: &Arc<Self>) {
        let (behind, coordinated) = self.unsettled_partitions();
        if behind.is_empty() && coordinated.is_empty() {
            return self.become_ready();
        }
        if !behind.is_empty() && !self.is_known_to_all() {
            // Whoever does not take this node for live tells it nothing of what it writes after a sync.
            return;
        }
        let holds = self.coordinator.claim(&coordinated).await;
        let wanted: BTreeSet<Partition> = behind.into_iter().chain(coordinated).collect();
        let wanted: Vec<Partition> = wanted.into_iter().collect();
        let mut heard: BTreeMap<Partition, Vec<NodeId>> = wanted.iter().map(|at| (*at, Vec::new())).collect();
        for (peer, partitions) in self.co_owned(&wanted) {
            match self.coordinator.sync_with(peer, &partitions).await {
                Ok(_) => partitions.iter().for_each(|partition| heard.entry(*partition).or_default().push(peer)),
                Err(error) => tracing::debug!(%peer, %error, "a sync ended early"),
            }
            self.settle_heard(&heard, &holds);
        }
        self.settle_heard(&heard, &holds);
        self.become_ready();
    }

    fn settle_heard(&self, heard: &BTreeMap<Partition, Vec<NodeId>>, holds: &BTreeMap<Partition, Hold>) {
        let write = self.coordinator.quorums.least_write();
        for (partition, others) in heard {
            let enough = self.coordinator.others_to_hear(*partition, write);
            if others.len() >= enough {
                self.coordinator.set_caught_up(*partition, true);
            }
            let Some(hold) = holds.get(partition) else { continue };
            if others.iter().filter(|peer| hold.granted.contains(peer)).count() >= enough {
                self.coordinator.set_settled(*partition, hold.term);
            }
        }
    }

    fn become_ready(&self) {
        if !self.ready.load(Ordering::Relaxed) && self.unsettled_partitions().0.is_empty() {
            self.replica().prove();
            self.ready.store(true, Ordering::Relaxed);
            tracing::info!("This node holds what it should and coordinates its partitions");
            self.refresh(false);
        }
    }

    /// Partitions that this node owns and has not caught up with, and those that it coordinates and is not settled in.
    fn unsettled_partitions(&self) -> (Vec<Partition>, Vec<Partition>) {
        let view = self.coordinator.view.load();
        let mine = || view.ring.partitions().iter().filter(|partition| view.owns(*partition));
        let behind = mine().filter(|partition| !self.coordinator.is_caught_up(*partition)).collect();
        let coordinated = mine().filter(|partition| {
            view.coordinator(*partition) == Some(self.me) && !self.coordinator.is_settled(*partition)
        });
        (behind, coordinated.collect())
    }

    /// Live co-owners, each with those of `partitions` that it owns as well.
    pub(super) fn co_owned(&self, partitions: &[Partition]) -> BTreeMap<NodeId, Vec<Partition>> {
        let view = self.coordinator.view.load();
        let mut peers: BTreeMap<NodeId, Vec<Partition>> = BTreeMap::new();
        for partition in partitions {
            for peer in view.live_peers(*partition) {
                peers.entry(peer).or_default().push(*partition);
            }
        }
        peers
    }
}
