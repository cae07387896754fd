//! Settling: before this node coordinates a partition on its own word, it pulls what enough other owners have.
//!
//! With N − W others heard, at least one of them is in every write's quorum, so nothing that was acknowledged is missing.
//! Until then a coordinator asks for each key before it evaluates (see the write path), and a node that has just started
//! leaves coordinating to others if it can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Node;
use crate::base::id::{NodeId, Partition};

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

    /// Pulls from every live co-owner of partitions that are not settled.
    async fn settle(self: &Arc<Self>) {
        let wanted = self.unsettled_partitions();
        if wanted.is_empty() {
            return self.become_ready();
        }
        if !self.is_known_to_all() {
            // Whoever does not take this node for live tells it nothing of what it writes after a sync.
            return;
        }
        let mut heard: BTreeMap<Partition, usize> = wanted.iter().map(|partition| (*partition, 0)).collect();
        for (peer, partitions) in self.co_owned(&wanted) {
            match self.coordinator.sync_with(peer, &partitions).await {
                Ok(_) => partitions.iter().for_each(|partition| *heard.entry(*partition).or_default() += 1),
                Err(error) => tracing::debug!(%peer, %error, "a sync ended early"),
            }
            self.settle_heard(&heard);
        }
        self.settle_heard(&heard);
        self.become_ready();
    }

    fn settle_heard(&self, heard: &BTreeMap<Partition, usize>) {
        let write = self.coordinator.quorums.least_write();
        for (partition, others) in heard {
            if *others >= self.coordinator.others_to_hear(*partition, write) {
                self.coordinator.set_settled(*partition, true);
            }
        }
    }

    fn become_ready(&self) {
        if !self.ready.load(Ordering::Relaxed) && self.unsettled_partitions().is_empty() {
            self.replica().prove();
            self.ready.store(true, Ordering::Relaxed);
            tracing::info!("This node holds what it should and coordinates its partitions");
            self.refresh(false);
        }
    }

    fn unsettled_partitions(&self) -> Vec<Partition> {
        let view = self.coordinator.view.load();
        let mine = view.ring.partitions().iter().filter(|partition| view.owns(*partition));
        mine.filter(|partition| !self.coordinator.is_settled(*partition)).collect()
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
