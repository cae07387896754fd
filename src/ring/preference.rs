//! Preference lists: for each partition its owners in order, then every other member in the order in which they stand
//! in for owners that are away (paper §4.6). All lists are made once for a layout, because each request looks at one.
//!
//! Stand-ins come as a walk along the ring meets them, a member of the zone least used so far going first; so an
//! owner's place is taken in another failure domain if there is one left. Members that own nothing come last: they keep
//! the store writeable when nobody else is there.

use std::collections::{BTreeSet, HashMap};

use super::layout::Layout;
use super::partition::Partitions;
use crate::base::id::{NodeId, Partition};

/// What a member is to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// One of its N nodes.
    Owner,
    /// Takes writes for an owner that is away.
    StandIn,
}

/// A layout made ready for requests. Immutable: share it, and replace it as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    layout: Layout,
    hash: u128,
    /// One list of all members after the other, in the order of partitions.
    lists: Vec<NodeId>,
}

impl Ring {
    /// Works out the preference lists of `layout`: one entry per partition and member.
    pub fn new(layout: Layout) -> Ring {
        Ring { hash: layout.hash(), lists: preference_lists(&layout), layout }
    }

    /// The layout this was made from.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The layout's hash, worked out once.
    pub fn hash(&self) -> u128 {
        self.hash
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> Partitions {
        self.layout.partitions()
    }

    /// Where `key` lives.
    pub fn partition_of(&self, key: &[u8]) -> Partition {
        self.partitions().of_key(key)
    }

    /// All members in order of preference for `partition`: the first [`Ring::owner_count`] are its owners. Empty if
    /// there is no such partition.
    pub fn preference(&self, partition: Partition) -> &[NodeId] {
        let members = self.layout.members().len();
        let start = usize::from(partition.0) * members;
        self.lists.get(start..start + members).unwrap_or(&[])
    }

    /// How many owners `partition` has.
    pub fn owner_count(&self, partition: Partition) -> usize {
        self.layout.owners(partition).len()
    }

    /// The owners of `partition`, coordinator first.
    pub fn owners(&self, partition: Partition) -> &[NodeId] {
        self.layout.owners(partition)
    }

    /// The stand-ins of `partition`, in order.
    pub fn stand_ins(&self, partition: Partition) -> &[NodeId] {
        self.preference(partition).get(self.owner_count(partition)..).unwrap_or(&[])
    }

    /// The preference list of `partition`, with what each member is to it.
    pub fn roles(&self, partition: Partition) -> impl Iterator<Item = (NodeId, Role)> {
        let owners = self.owner_count(partition);
        let role = move |at| if at < owners { Role::Owner } else { Role::StandIn };
        self.preference(partition).iter().enumerate().map(move |(at, node)| (*node, role(at)))
    }

    /// What `node` is to `partition`; none for a stranger.
    pub fn role(&self, partition: Partition, node: NodeId) -> Option<Role> {
        if self.owners(partition).contains(&node) {
            return Some(Role::Owner);
        }
        self.layout.member(node).map(|_| Role::StandIn)
    }

    /// Who coordinates `partition` while those are live whom `is_live` names: the first live owner, or else the first
    /// live stand-in.
    pub fn first_live(&self, partition: Partition, is_live: impl Fn(NodeId) -> bool) -> Option<(NodeId, Role)> {
        self.roles(partition).find(|(node, _)| is_live(*node))
    }
}

/// The preference lists of all partitions, one after the other.
///
/// A walk along the ring meets members as owners. Seen backwards, the order of first meetings is a list in which the
/// owners of each partition move to the front; going round twice joins the end of the ring to its beginning.
fn preference_lists(layout: &Layout) -> Vec<NodeId> {
    let domains = Domains::new(layout);
    let mut walk: Vec<NodeId> = layout.members().iter().map(|member| member.id).collect();
    let mut backwards = Vec::new();
    for last_round in [false, true] {
        for partition in layout.partitions().iter().rev() {
            let owners = layout.owners(partition);
            owners.iter().rev().for_each(|owner| move_to_front(&mut walk, *owner));
            if last_round {
                // The owners themselves are met first.
                backwards.push(domains.sorted(&walk, owners.len()));
            }
        }
    }
    backwards.into_iter().rev().flatten().collect()
}

fn move_to_front(walk: &mut [NodeId], node: NodeId) {
    if let Some(at) = walk.iter().position(|other| *other == node) {
        walk[..=at].rotate_right(1);
    }
}

/// What stand-ins are sorted by: each member's zone, by number, and whether it owns anything.
struct Domains {
    of: HashMap<NodeId, (usize, bool)>,
    zones: usize,
}

impl Domains {
    fn new(layout: &Layout) -> Domains {
        let zones: BTreeSet<&str> = layout.members().iter().map(|member| member.zone.as_str()).collect();
        let number: HashMap<&str, usize> = zones.iter().enumerate().map(|(at, zone)| (*zone, at)).collect();
        let of = layout.members().iter().map(|m| (m.id, (number[m.zone.as_str()], m.weight > 0)));
        Domains { of: of.collect(), zones: zones.len() }
    }

    /// `walk`, which begins with so many `owners`, with its stand-ins in order of preference. Taking the next one of
    /// the least used zone again and again is sorting by how often a member's zone is used before it.
    fn sorted(&self, walk: &[NodeId], owners: usize) -> Vec<NodeId> {
        let mut used = vec![0; self.zones];
        let ranked = walk.iter().enumerate().map(|(at, node)| {
            let (zone, owning) = self.of[node];
            used[zone] += 1;
            ((at >= owners, !owning, if at < owners { 0 } else { used[zone] }), *node)
        });
        let mut ranked: Vec<_> = ranked.collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, node)| node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LayoutMember, plan};
    use super::*;
    use proptest::prelude::*;

    fn member(id: u64, weight: u32, zone: &str) -> LayoutMember {
        LayoutMember { id: NodeId(id), weight, zone: zone.into() }
    }

    fn ring(members: &[LayoutMember], replicas: u8) -> Ring {
        Ring::new(plan(members, Partitions::new(64).unwrap(), replicas, None))
    }

    /// Stand-ins as the module's words have them, taken one by one.
    fn stand_ins_naively(layout: &Layout, partition: Partition) -> Vec<NodeId> {
        let count = layout.partitions().count();
        let ahead = (0..count).flat_map(|step| layout.owners(Partition((partition.0 + step) % count)).to_vec());
        let mut walk: Vec<NodeId> = Vec::new();
        for node in ahead.chain(layout.members().iter().map(|m| m.id)) {
            if !walk.contains(&node) {
                walk.push(node);
            }
        }
        let member = |node: &NodeId| layout.member(*node).unwrap();
        let mut list = layout.owners(partition).to_vec();
        while list.len() < walk.len() {
            let used = |node: &NodeId| list.iter().filter(|l| member(l).zone == member(node).zone).count();
            let left = walk.iter().filter(|node| !list.contains(node));
            list.push(*left.min_by_key(|node| (member(node).weight == 0, used(node))).unwrap());
        }
        list.split_off(layout.owners(partition).len())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn stand_ins_walk_the_ring_and_prefer_the_least_used_zone(
            nodes in prop::collection::vec((0u32..4, 0usize..4), 1..9), replicas in 1u8..5
        ) {
            let zones = ["a", "b", "c", "d"];
            let members: Vec<_> = (1..).zip(&nodes).map(|(id, (w, z))| member(id, *w, zones[*z])).collect();
            let ring = ring(&members, replicas);
            for partition in ring.partitions().iter() {
                prop_assert_eq!(ring.stand_ins(partition), stand_ins_naively(ring.layout(), partition));
                prop_assert_eq!(ring.owners(partition), &ring.preference(partition)[..ring.owner_count(partition)]);
                prop_assert_eq!(ring.preference(partition).len(), members.len());
            }
        }
    }

    #[test]
    fn the_first_stand_in_comes_from_a_zone_without_owners() {
        let members: Vec<_> = (0..8).map(|id| member(id, 1, ["a", "b", "c", "d"][id as usize % 4])).collect();
        let ring = ring(&members, 3);
        for partition in ring.partitions().iter() {
            let zones: BTreeSet<u64> = ring.preference(partition)[..4].iter().map(|node| node.0 % 4).collect();
            assert_eq!(zones.len(), 4);
        }
    }

    #[test]
    fn members_without_weight_stand_in_last_even_in_a_zone_of_their_own() {
        let ring = ring(&[member(1, 1, "a"), member(2, 1, "a"), member(3, 1, "a"), member(9, 0, "b")], 2);
        for partition in ring.partitions().iter() {
            assert_eq!(ring.preference(partition).last(), Some(&NodeId(9)));
            assert_eq!(ring.role(partition, NodeId(9)), Some(Role::StandIn));
        }
    }

    #[test]
    fn the_first_live_owner_coordinates_and_a_stand_in_only_when_no_owner_is_live() {
        let members: Vec<_> = (1..=5).map(|id| member(id, 1, "a")).collect();
        let ring = ring(&members, 3);
        let partition = ring.partition_of(b"foo");
        let list = ring.preference(partition).to_vec();
        for dead in 0..=5 {
            let role = if dead < 3 { Role::Owner } else { Role::StandIn };
            let live = |node| !list[..dead].contains(&node);
            assert_eq!(ring.first_live(partition, live), list.get(dead).map(|node| (*node, role)));
        }
    }

    #[test]
    fn strangers_and_partitions_that_do_not_exist_have_no_place() {
        let ring = ring(&[member(1, 1, "a")], 3);
        assert_eq!(ring.role(Partition(0), NodeId(1)), Some(Role::Owner));
        assert_eq!(ring.role(Partition(0), NodeId(2)), None);
        assert!(ring.preference(Partition(64)).is_empty());
        assert_eq!(ring.first_live(Partition(64), |_| true), None);
    }
}
