//! A view: layout, members and liveness as one immutable value, swapped as a whole. Every request reads one.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::member::Member;
use crate::base::id::{NodeId, Partition};
use crate::ring::Ring;

/// What this node believes of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its description.
    pub member: Member,
    /// It answers.
    pub live: bool,
    /// It says that it holds what it should.
    pub ready: bool,
}

/// Everything a request needs to know of the cluster.
pub struct ClusterView {
    /// This node.
    pub me: NodeId,
    /// Who owns what.
    pub ring: Arc<Ring>,
    /// Everyone, this node included.
    pub nodes: BTreeMap<NodeId, Standing>,
    /// The first owner to coordinate each partition, by its number; none when no owner is live.
    coordinators: Vec<Option<NodeId>>,
}

impl ClusterView {
    /// The view of `me`, given everyone's standing.
    pub fn new(me: NodeId, ring: Arc<Ring>, nodes: BTreeMap<NodeId, Standing>) -> Self {
        let coordinators = ring.partitions().iter().map(|partition| {
            let live = |id: NodeId| nodes.get(&id).is_some_and(|standing| standing.live);
            let ready = |id: NodeId| live(id) && nodes.get(&id).is_some_and(|standing| standing.ready);
            let owners = ring.owners(partition);
            // One that came back with gaps coordinates only if nobody else can.
            owners.iter().copied().find(|id| ready(*id)).or_else(|| owners.iter().copied().find(|id| live(*id)))
        });
        ClusterView { me, coordinators: coordinators.collect(), ring, nodes }
    }

    /// Who coordinates `partition`; none when none of its owners is live.
    pub fn coordinator(&self, partition: Partition) -> Option<NodeId> {
        self.coordinators.get(usize::from(partition.0)).copied().flatten()
    }

    /// Owners of `partition` other than this node that are live.
    pub fn live_peers(&self, partition: Partition) -> SmallVec<[NodeId; 4]> {
        self.ring.owners(partition).iter().copied().filter(|id| *id != self.me && self.is_live(*id)).collect()
    }

    /// Whether this node owns `partition`.
    pub fn owns(&self, partition: Partition) -> bool {
        self.ring.owners(partition).contains(&self.me)
    }

    /// Whether `node` answers, as far as this node knows.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|standing| standing.live)
    }

    /// Whether this node is the whole cluster.
    pub fn is_alone(&self) -> bool {
        self.nodes.len() == 1
    }
}
