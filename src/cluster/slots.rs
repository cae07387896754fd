//! Who answers for which slots on the cluster face: one node for each, the first live one of its preference list that has
//! such a face. Clients that know Redis Cluster go there by themselves.
//!
//! No replicas are named, although every owner could answer: a node that is master of one slot and replica of another
//! is more than several client libraries can hold.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use super::view::Standing;
use crate::base::id::{NodeId, Partition};
use crate::ring::Ring;

/// A run of slots and who answers for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRange {
    /// First slot.
    pub first: u16,
    /// Last slot, included.
    pub last: u16,
    /// Who answers.
    pub node: NodeId,
}

/// All slots that somebody answers for: in order, neighbours of one node together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SlotMap {
    /// The runs.
    pub ranges: Vec<SlotRange>,
    /// Differs when the runs or the addresses of those who answer differ.
    pub hash: u64,
}

impl SlotMap {
    /// The map of a ring, given everyone's standing and who coordinates each partition.
    pub(super) fn new(
        ring: &Ring,
        nodes: &BTreeMap<NodeId, Standing>,
        coordinator: impl Fn(Partition) -> Option<NodeId>,
    ) -> SlotMap {
        let has_face = |id: &NodeId| nodes.get(id).is_some_and(|standing| standing.member.cluster_port > 0);
        if !nodes.keys().any(has_face) {
            return SlotMap::default();
        }
        let is_live = |id: &NodeId| nodes.get(id).is_some_and(|standing| standing.live);
        let mut ranges: Vec<SlotRange> = Vec::new();
        for partition in ring.partitions().iter() {
            let others = ring.preference(partition).iter().copied().filter(|id| is_live(id));
            let Some(node) = coordinator(partition).into_iter().chain(others).find(|id| has_face(id)) else { continue };
            let slots = ring.partitions().slots(partition);
            match ranges.last_mut().filter(|range| range.node == node && range.last.wrapping_add(1) == slots.start) {
                Some(range) => range.last = slots.end.saturating_sub(1),
                None => ranges.push(SlotRange { first: slots.start, last: slots.end.saturating_sub(1), node }),
            }
        }
        let hash = hash_of(&ranges, nodes);
        SlotMap { ranges, hash }
    }

    /// Who answers for a slot.
    pub fn node_of(&self, slot: u16) -> Option<NodeId> {
        let at = self.ranges.partition_point(|range| range.last < slot);
        self.ranges.get(at).filter(|range| range.first <= slot).map(|range| range.node)
    }

    /// How many slots somebody answers for.
    pub fn covered(&self) -> usize {
        self.ranges.iter().map(|range| usize::from(range.last - range.first) + 1).sum()
    }
}

fn hash_of(ranges: &[SlotRange], nodes: &BTreeMap<NodeId, Standing>) -> u64 {
    let mut text = Vec::new();
    for SlotRange { first, last, node } in ranges {
        text.extend([first.to_be_bytes(), last.to_be_bytes()].concat());
        text.extend(node.0.to_be_bytes());
    }
    for (id, Standing { member, .. }) in nodes {
        if ranges.iter().any(|range| range.node == *id) {
            text.extend(member.host.as_bytes());
            text.extend(member.cluster_port.to_be_bytes());
        }
    }
    xxh3_64(&text)
}
