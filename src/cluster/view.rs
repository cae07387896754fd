//! A view: layout, members and liveness as one immutable value, swapped as a whole. Every request reads one.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::detector::Health;
use super::member::Member;
use super::slots::SlotMap;
use crate::base::id::{NodeId, Partition};
use crate::ring::Ring;

/// What this node believes of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its description.
    pub member: Member,
    /// It answers.
    pub live: bool,
    /// How it says that it is.
    pub health: Health,
}

/// One place among the replicas that a command uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Who sits there.
    pub node: NodeId,
    /// The owner that a stand-in sits for; none for an owner.
    pub stands_in_for: Option<NodeId>,
    /// Whether it counts in quorums.
    pub counted: bool,
}

/// Everything a request needs to know of the cluster.
pub struct ClusterView {
    /// This node.
    pub me: NodeId,
    /// Who owns what.
    pub ring: Arc<Ring>,
    /// Everyone, this node included.
    pub nodes: BTreeMap<NodeId, Standing>,
    /// Who coordinates each partition, by its number; none when nobody is live.
    coordinators: Vec<Option<NodeId>>,
    /// Who answers for which slots on the cluster face.
    pub slots: SlotMap,
    /// Whether this node is the only owner of each partition, and has the only seat.
    sole: Vec<bool>,
}

impl ClusterView {
    /// The view of `me`, given everyone's standing.
    pub fn new(me: NodeId, ring: Arc<Ring>, nodes: BTreeMap<NodeId, Standing>) -> Self {
        let coordinators = ring.partitions().iter().map(|partition| {
            let live = |id: NodeId| nodes.get(&id).filter(|standing| standing.live).map(|standing| standing.health);
            let ready = |id: NodeId| live(id).is_some_and(|health| health.ready);
            let counted = |id: NodeId| live(id).is_some_and(|health| health.counted);
            let (owners, stand_ins) = (ring.owners(partition), ring.stand_ins(partition));
            let first = |list: &[NodeId], fits: &dyn Fn(NodeId) -> bool| list.iter().copied().find(|id| fits(*id));
            // One that came back with gaps coordinates only if nobody else can.
            first(owners, &ready)
                .or_else(|| first(owners, &counted))
                .or_else(|| first(stand_ins, &counted))
                .or_else(|| first(owners, &|id| live(id).is_some()))
        });
        let coordinators: Vec<Option<NodeId>> = coordinators.collect();
        let of = |partition: Partition| coordinators.get(usize::from(partition.0)).copied().flatten();
        let slots = SlotMap::new(&ring, &nodes, of);
        let view = ClusterView { me, coordinators, ring, nodes, sole: Vec::new(), slots };
        let sole = |partition| view.ring.owners(partition) == [me] && view.seats(partition).len() == 1;
        ClusterView { sole: view.ring.partitions().iter().map(sole).collect(), ..view }
    }

    /// Who coordinates `partition`: an owner if one is live, or else a stand-in; none when nobody is.
    pub fn coordinator(&self, partition: Partition) -> Option<NodeId> {
        self.coordinators.get(usize::from(partition.0)).copied().flatten()
    }

    /// Owners of `partition` other than this node that are live.
    pub fn live_peers(&self, partition: Partition) -> SmallVec<[NodeId; 4]> {
        self.ring.owners(partition).iter().copied().filter(|id| *id != self.me && self.is_live(*id)).collect()
    }

    /// The replicas that a command of `partition` uses now: its live owners in order, then a live stand-in for each owner
    /// that is away, or does not count, as far as there are any (paper §4.6).
    pub fn seats(&self, partition: Partition) -> SmallVec<[Seat; 4]> {
        let mut seats = SmallVec::new();
        let mut vacant: SmallVec<[NodeId; 4]> = SmallVec::new();
        for owner in self.ring.owners(partition) {
            let standing = self.nodes.get(owner).filter(|standing| standing.live);
            let counted = standing.is_some_and(|standing| standing.health.counted);
            if standing.is_some() {
                seats.push(Seat { node: *owner, stands_in_for: None, counted });
            }
            if !counted {
                vacant.push(*owner);
            }
        }
        let stand_ins = self.ring.stand_ins(partition).iter().filter(|id| self.counts(**id));
        seats.extend(stand_ins.zip(vacant).map(|(node, owner)| Seat {
            node: *node,
            stands_in_for: Some(owner),
            counted: true,
        }));
        seats
    }

    /// Whether `node` is live and counts in quorums.
    pub fn counts(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|standing| standing.live && standing.health.counted)
    }

    /// Whether this node owns `partition`.
    pub fn owns(&self, partition: Partition) -> bool {
        self.ring.owners(partition).contains(&self.me)
    }

    /// Whether a command of `partition` concerns this node and no other.
    pub fn is_sole(&self, partition: Partition) -> bool {
        self.sole.get(usize::from(partition.0)).copied().unwrap_or(false)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::member::MemberState;
    use crate::ring::partition::Partitions;
    use crate::ring::{LayoutMember, plan};

    fn standing(id: u64, live: bool, counted: bool) -> (NodeId, Standing) {
        let member = Member {
            id: NodeId(id),
            incarnation: 1,
            name: format!("n{id}"),
            host: "h".into(),
            port: 1,
            cluster_port: 0,
            peer_port: 2,
            zone: "z".into(),
            weight: 1,
            features: 0,
            state: MemberState::Up,
            decision: 0,
        };
        (NodeId(id), Standing { member, live, health: Health { counted, ..Health::default() } })
    }

    /// In how many of 16 partitions the first of these nodes is alone.
    fn sole(replicas: u8, nodes: &[(NodeId, Standing)]) -> usize {
        let members: Vec<_> =
            nodes.iter().map(|(id, _)| LayoutMember { id: *id, weight: 1, zone: "z".into() }).collect();
        let ring = Ring::new(plan(&members, Partitions::new(16).unwrap(), replicas, None));
        let view = ClusterView::new(nodes[0].0, Arc::new(ring), nodes.iter().cloned().collect());
        view.ring.partitions().iter().filter(|partition| view.is_sole(*partition)).count()
    }

    #[test]
    fn a_node_is_alone_where_nobody_else_owns_or_sits() {
        let (me, other, away) = (standing(1, true, true), standing(2, true, true), standing(2, false, true));
        assert_eq!(sole(3, std::slice::from_ref(&me)), 16);
        assert_eq!(sole(2, &[me.clone(), other.clone()]), 0);
        assert_eq!(sole(2, &[me.clone(), away.clone()]), 0, "an owner that is away will come back");
        assert_eq!(sole(1, &[me, away]), 8);
        let amnesiac = standing(1, true, false);
        assert_eq!(sole(1, &[amnesiac.clone(), other]), 0, "another one sits for it as well");
        assert_eq!(sole(1, &[amnesiac]), 16, "nobody else is there");
    }
}
