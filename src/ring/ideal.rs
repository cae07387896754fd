//! Who should own how much: each node's share by weight, under what a partition's owners must look like.
//!
//! **Each partition.** It has r owners: N different nodes, or all that have weight when they are fewer. Zones share
//! them as evenly as their sizes allow: there is a level ℓ such that a zone holds all of its nodes if it has no more
//! than ℓ, and otherwise ℓ or ℓ + 1. So owners lie in min(N, zones) zones, and the loss of one zone takes as few as it
//! can.
//!
//! **Load.** The rule above bounds what a zone can own (`least` to `most` places in each of Q partitions) and what a
//! node can (Q). Where weight and zones disagree, zones win. The ideal load is then what *filling with water* gives:
//! one level λ for all, a node's load being min(Q, λ · weight); a zone whose nodes would get less or more than the zone
//! may is held at its bound and has a level of its own. (In other words: the loads with the least Σ load²/weight.)
//!
//! Shares are exact fractions. If every node takes its ideal rounded up or down, and every zone likewise, an assignment
//! exists: give every partition the same fraction of every node, and round the flow.

use std::collections::BTreeMap;

use super::layout::LayoutMember;
use super::partition::Partitions;
use crate::base::id::NodeId;

/// A fraction of places, not negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    of: u128,
    parts: u128,
}

impl Share {
    /// `of / parts`; `parts` is not 0.
    pub(super) fn new(of: u128, parts: u128) -> Share {
        Share { of, parts }
    }

    pub(super) fn floor(self) -> u64 {
        (self.of / self.parts) as u64
    }

    pub(super) fn ceil(self) -> u64 {
        self.of.div_ceil(self.parts) as u64
    }

    /// Whether `load` is this share, rounded up or down.
    pub(super) fn allows(self, load: u64) -> bool {
        (self.floor()..=self.ceil()).contains(&load)
    }
}

/// The ideal loads of a set of members.
#[derive(Debug)]
pub(super) struct Ideal {
    /// r: owners of each partition.
    pub(super) owners: u64,
    /// Zones that have nodes with weight, by name.
    pub(super) zones: Vec<Zone>,
}

/// What one zone should own.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) name: String,
    /// Its nodes with weight, by id.
    pub(super) nodes: Vec<Node>,
    /// Owners of each partition that lie here, at least.
    pub(super) least: u64,
    /// Owners of each partition that lie here, at most.
    pub(super) most: u64,
    /// Places in all partitions together.
    pub(super) share: Share,
}

/// What one node should own.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) weight: u32,
    /// Partitions.
    pub(super) share: Share,
}

impl Ideal {
    /// The ideal for `members`, whose ids are distinct and sorted.
    pub(super) fn new(members: &[LayoutMember], partitions: Partitions, replicas: u8) -> Ideal {
        let mut by_zone: BTreeMap<&str, Vec<Node>> = BTreeMap::new();
        for LayoutMember { id, weight, zone } in members.iter().filter(|member| member.weight > 0) {
            by_zone.entry(zone).or_default().push(Node { id: *id, weight: *weight, share: Share::new(0, 1) });
        }
        let sizes: Vec<u64> = by_zone.values().map(|nodes| nodes.len() as u64).collect();
        let owners = sizes.iter().sum::<u64>().min(replicas.into());
        let level = even_level(&sizes, owners);
        let zones = by_zone.into_iter().map(|(name, nodes)| Zone::new(name, nodes, level)).collect();
        let mut ideal = Ideal { owners, zones };
        ideal.pour(partitions.count().into());
        ideal
    }

    /// All nodes with weight, zone by zone.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.zones.iter().flat_map(|zone| &zone.nodes)
    }

    /// Pours Q · r places over all zones at one level. While that breaks bounds, the zones on the side that breaks them
    /// by more are held there: their level can only move further that way once the others are set right.
    fn pour(&mut self, partitions: u128) {
        let mut places = partitions * u128::from(self.owners);
        let mut free: Vec<&mut Zone> = self.zones.iter_mut().collect();
        loop {
            let level = Level::of(free.iter().flat_map(|zone| &zone.nodes), places, partitions);
            free.iter_mut().for_each(|zone| zone.take(level));
            let short: u128 = free.iter().map(|zone| zone.short(partitions)).sum();
            let over: u128 = free.iter().map(|zone| zone.over(partitions)).sum();
            if short == 0 && over == 0 {
                return;
            }
            free.retain_mut(|zone| {
                let bound = match () {
                    () if short >= over && zone.short(partitions) > 0 => zone.least,
                    () if over >= short && zone.over(partitions) > 0 => zone.most,
                    () => return true,
                };
                let held = partitions * u128::from(bound);
                zone.take(Level::of(zone.nodes.iter(), held, partitions));
                places -= held;
                false
            });
        }
    }
}

impl Zone {
    fn new(name: &str, nodes: Vec<Node>, level: u64) -> Zone {
        let size = nodes.len() as u64;
        Zone { name: name.into(), nodes, least: size.min(level), most: size.min(level + 1), share: Share::new(0, 1) }
    }

    fn take(&mut self, level: Level) {
        for node in &mut self.nodes {
            node.share = level.share(node.weight);
        }
        self.share = Share::new(self.nodes.iter().map(|node| node.share.of).sum(), level.weight);
    }

    /// By how much the share is below what the zone must own, in parts.
    fn short(&self, partitions: u128) -> u128 {
        (partitions * u128::from(self.least) * self.share.parts).saturating_sub(self.share.of)
    }

    /// By how much the share is above what the zone can own, in parts.
    fn over(&self, partitions: u128) -> u128 {
        self.share.of.saturating_sub(partitions * u128::from(self.most) * self.share.parts)
    }
}

/// How high the water stands: λ = `places / weight`, and no node gets more than `cap`.
#[derive(Debug, Clone, Copy)]
struct Level {
    places: u128,
    weight: u128,
    cap: u128,
}

impl Level {
    /// The level at which `nodes` hold `places` together, of which there are at most `cap` for each.
    fn of<'a>(nodes: impl Iterator<Item = &'a Node> + Clone, places: u128, cap: u128) -> Level {
        let mut level = Level { places, weight: 0, cap };
        loop {
            let full = nodes.clone().filter(|node| level.fills(node.weight));
            let rest = places - cap * full.count() as u128;
            let weight =
                nodes.clone().filter(|node| !level.fills(node.weight)).map(|node| u128::from(node.weight)).sum();
            if weight == 0 {
                return Level { places: cap, weight: 1, cap };
            }
            if level.weight == weight {
                return level;
            }
            level = Level { places: rest, weight, cap };
        }
    }

    /// Whether a node of this weight has all it can have. At first, when no weight has been counted, none has.
    fn fills(self, weight: u32) -> bool {
        self.weight > 0 && u128::from(weight) * self.places >= self.cap * self.weight
    }

    fn share(self, weight: u32) -> Share {
        Share::new((u128::from(weight) * self.places).min(self.cap * self.weight), self.weight)
    }
}

/// The largest level that zones of these sizes reach when `owners` are dealt to them evenly.
fn even_level(sizes: &[u64], owners: u64) -> u64 {
    let dealt = |level: u64| sizes.iter().map(|&size| size.min(level)).sum::<u64>();
    (1..=owners).take_while(|&level| dealt(level) <= owners).last().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ideal(nodes: &[(u32, usize)], partitions: u16, replicas: u8) -> Ideal {
        let member = |(id, (weight, zone)): (u64, &(u32, usize))| LayoutMember {
            id: NodeId(id),
            weight: *weight,
            zone: zone.to_string(),
        };
        let members: Vec<_> = (1..).zip(nodes).map(member).collect();
        Ideal::new(&members, Partitions::new(partitions).unwrap(), replicas)
    }

    fn value(share: Share) -> f64 {
        share.of as f64 / share.parts as f64
    }

    fn loads(ideal: &Ideal) -> Vec<f64> {
        let mut nodes: Vec<&Node> = ideal.nodes().collect();
        nodes.sort_by_key(|node| node.id);
        nodes.iter().map(|node| value(node.share)).collect()
    }

    #[test]
    fn load_is_by_weight_where_nothing_is_in_the_way() {
        assert_eq!(loads(&ideal(&[(1, 0), (2, 0), (4, 0), (4, 0), (5, 0)], 16, 3)), [3.0, 6.0, 12.0, 12.0, 15.0]);
    }

    #[test]
    fn no_node_owns_a_partition_twice_however_heavy_it_is() {
        assert_eq!(loads(&ideal(&[(1, 0), (1, 0), (100, 0)], 16, 2)), [8.0, 8.0, 16.0]);
        assert_eq!(loads(&ideal(&[(1, 0), (7, 0), (100, 0)], 16, 3)), [16.0; 3]);
    }

    #[test]
    fn a_zone_owns_its_least_and_no_more_than_its_most_whatever_its_weight() {
        assert_eq!(loads(&ideal(&[(1, 0), (9, 1), (9, 1), (18, 1)], 16, 2)), [16.0, 4.0, 4.0, 8.0]);
        assert_eq!(loads(&ideal(&[(90, 0), (90, 0), (1, 1), (3, 2)], 16, 2)), [8.0, 8.0, 4.0, 12.0]);
    }

    #[test]
    fn zones_share_a_partition_as_evenly_as_their_sizes_allow() {
        let bounds = |nodes: &[(u32, usize)], replicas| -> Vec<(u64, u64)> {
            ideal(nodes, 16, replicas).zones.iter().map(|zone| (zone.least, zone.most)).collect()
        };
        let sizes = |sizes: &[usize]| -> Vec<(u32, usize)> {
            sizes.iter().enumerate().flat_map(|(zone, &size)| vec![(1, zone); size]).collect()
        };
        assert_eq!(bounds(&sizes(&[3, 3, 3, 3]), 3), [(0, 1); 4]);
        assert_eq!(bounds(&sizes(&[3, 3]), 3), [(1, 2); 2]);
        assert_eq!(bounds(&sizes(&[3, 3]), 4), [(2, 3); 2]);
        assert_eq!(bounds(&sizes(&[1, 4]), 5), [(1, 1), (4, 4)]);
        assert_eq!(bounds(&sizes(&[1, 4, 2]), 5), [(1, 1), (2, 3), (2, 2)]);
        assert_eq!(bounds(&sizes(&[2]), 5), [(2, 2)]);
    }

    #[test]
    fn without_weight_there_is_nothing_to_share() {
        let ideal = ideal(&[(0, 0), (0, 1)], 16, 3);
        assert_eq!((ideal.owners, ideal.zones.len()), (0, 0));
    }

    proptest! {
        /// No place could go from a node to one that has less for its weight: so Σ load²/weight is the least there is.
        #[test]
        fn the_ideal_is_complete_within_bounds_and_nothing_could_be_fairer(
            nodes in prop::collection::vec((0u32..11, 0usize..5), 1..20), replicas in 1u8..6,
        ) {
            const NEAR: f64 = 1e-6;
            let ideal = ideal(&nodes, 64, replicas);
            let places: f64 = ideal.nodes().map(|node| value(node.share)).sum();
            prop_assert!((places - 64.0 * ideal.owners as f64).abs() < NEAR);
            for (at, zone) in ideal.zones.iter().enumerate() {
                let share = value(zone.share);
                prop_assert!(zone.least as f64 * 64.0 <= share + NEAR && share <= zone.most as f64 * 64.0 + NEAR);
                prop_assert!((zone.nodes.iter().map(|node| value(node.share)).sum::<f64>() - share).abs() < NEAR);
                for (other_at, other) in ideal.zones.iter().enumerate() {
                    let can_give = share > zone.least as f64 * 64.0 + NEAR;
                    let can_take = value(other.share) + NEAR < other.most as f64 * 64.0;
                    if at != other_at && !(can_give && can_take) {
                        continue;
                    }
                    for (from, to) in zone.nodes.iter().flat_map(|from| other.nodes.iter().map(move |to| (from, to))) {
                        let level = |node: &Node| value(node.share) / f64::from(node.weight);
                        prop_assert!(value(to.share) + NEAR > 64.0 || level(from) <= level(to) + NEAR);
                    }
                }
            }
        }
    }
}
