//! The planner: from members, N and the last layout to the next. A pure function; every node computes the same.
//!
//! What it promises, in order of precedence:
//! 1. A partition's owners are r different nodes: N, or all that have weight when they are fewer.
//! 2. They lie in min(N, zones) zones, as evenly as zones allow.
//! 3. Every node owns its ideal load (by weight, under 1 and 2: see `ideal`) rounded up or down; so does every zone.
//! 4. What moves is the **least possible** under 1 to 3: no factor, the optimum.
//! 5. Every position in the lists is as even as the owners themselves: a node coordinates its load / r, rounded up or
//!    down. When it fails, its co-owners follow in proportion to what they share with it. A list goes through all zones
//!    before it comes back to one, so the first two owners are in two zones.
//! 6. Which nodes share partitions is spread by hash, so that many nodes help to rebuild a lost one.
//!
//! # How
//!
//! **Choosing** owners is one flow problem. A partition is a source of r places; a place goes into a zone, then to a
//! node of that zone (once: its pipe has room for one), then down the drain:
//!
//! ```text
//!            ┌─ least ──────────────────┐
//!   source ──┤                          ├─► zone of p ─┬─1─► node ─┬─ ⌊ideal⌋ ─────────────► sink
//!            └─ rest ─► partition p ─1──┘              └─1─► …     └─1─► zone ─┬─ ⌊…⌋ ─────►
//!                                                                              └─1─► spill ─►
//! ```
//!
//! Keeping an owner costs 0, a new one costs 1; the cheapest full flow is the layout with the fewest moves. *Full* is
//! what makes it obey: source and sink side both have room for exactly Q · r places, so every pipe at either end runs
//! full. Hence each zone gets its least in each partition, and each node its ideal rounded down. One place more has to
//! share the zone's own remainder with its neighbours, and that of the zone what is left of all: so both stay within
//! one, and *which* nodes are rounded up is the flow's choice too. That a full flow exists is shown in `ideal`.
//!
//! **Ordering** the chosen owners is the same problem again, once for each position: a partition is a source of 1; it
//! may go to any of its owners not listed yet whose zone has been used least; a node takes what it would get if each
//! partition dealt itself evenly among those. The drain has a finer first stage: pairs (owner at the position before,
//! this node), which is what spreads the load of a failed node. Keeping a position costs 0, so that coordination moves
//! little as well.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::flow::{Network, Pipe, Vertex};
use super::ideal::{Ideal, Share, Zone};
use super::layout::{Layout, LayoutMember, MAX_REPLICAS};
use super::partition::Partitions;
use crate::base::id::{NodeId, Partition};

/// Owners of each partition, in ring order.
type Owners = Vec<Vec<NodeId>>;

/// The layout that follows `previous` for these members, in whatever order they are given (of two with one id, the one
/// of less weight counts). `replicas` is held to 1..=[`MAX_REPLICAS`]. Q is fixed when a cluster is made: of a previous
/// layout with another number of partitions only version and hash are followed.
pub fn plan(members: &[LayoutMember], partitions: Partitions, replicas: u8, previous: Option<&Layout>) -> Layout {
    let mut members = members.to_vec();
    members.sort();
    members.dedup_by_key(|member| member.id);
    let replicas = replicas.clamp(1, MAX_REPLICAS);
    let ideal = Ideal::new(&members, partitions, replicas);
    let before = Before(previous.filter(|layout| layout.partitions() == partitions));
    let chosen = choose(&ideal, partitions, before);
    let owners = order(&ideal, partitions, chosen, before);
    Layout {
        version: previous.map_or(1, |layout| layout.version().saturating_add(1)),
        parent: previous.map_or(0, Layout::hash),
        partitions,
        replicas,
        members,
        owners,
    }
}

/// Which nodes own each partition, in no order.
fn choose(ideal: &Ideal, partitions: Partitions, before: Before) -> Owners {
    let mut dealer = Dealer::new();
    let drains = drains_by_weight(&mut dealer, ideal, partitions);
    let floating = ideal.owners - ideal.zones.iter().map(|zone| zone.least).sum::<u64>();
    for partition in shuffled(partitions, before.version()) {
        let place = dealer.vertex();
        dealer.supply(place, floating);
        let zones = sorted(ideal.zones.iter().zip(&drains), |(zone, _)| zone_affinity(partition, zone));
        for (zone, drains) in zones {
            let entry = dealer.vertex();
            dealer.supply(entry, zone.least);
            dealer.net.pipe(place, entry, zone.most - zone.least, 0);
            let nodes =
                sorted(zone.nodes.iter().zip(drains), |(node, _)| node_affinity(partition, node.id, node.share));
            for (node, drain) in nodes {
                dealer.offer(partition, entry, node.id, *drain, before.owned(partition, node.id));
            }
        }
    }
    dealer.deal(partitions)
}

/// The sink side of [`choose`]: what nodes and zones take. Returns the nodes' vertices as [`Ideal`] has them.
fn drains_by_weight(dealer: &mut Dealer, ideal: &Ideal, partitions: Partitions) -> Vec<Vec<Vertex>> {
    let places = u64::from(partitions.count()) * ideal.owners;
    let shares = ideal.zones.iter().map(|zone| (zone.share, zone.nodes.iter().map(|node| node.share).collect()));
    dealer.drains(places, shares.collect())
}

/// Puts the owners of each partition in order, position by position.
fn order(ideal: &Ideal, partitions: Partitions, mut chosen: Owners, before: Before) -> Owners {
    let zone_of: BTreeMap<NodeId, usize> =
        ideal.zones.iter().enumerate().flat_map(|(at, zone)| zone.nodes.iter().map(move |n| (n.id, at))).collect();
    let mut ordered: Owners = vec![Vec::new(); chosen.len()];
    for position in 0..ideal.owners as usize {
        let eligible = ordered.iter().zip(&chosen).map(|(list, left)| freshest(list, left, &zone_of)).collect();
        let next = deal_position(position, partitions, &ordered, eligible, before);
        for ((list, left), next) in ordered.iter_mut().zip(&mut chosen).zip(next) {
            left.retain(|owner| !next.contains(owner));
            list.extend(next);
        }
    }
    ordered
}

/// Those of `left` in the zones that `list` has used least.
fn freshest(list: &[NodeId], left: &[NodeId], zone_of: &BTreeMap<NodeId, usize>) -> Vec<NodeId> {
    let used = |node: &NodeId| list.iter().filter(|listed| zone_of.get(listed) == zone_of.get(node)).count();
    let least = left.iter().map(used).min();
    left.iter().filter(|node| Some(used(node)) == least).copied().collect()
}

/// Picks one of `eligible` for each partition.
fn deal_position(
    position: usize,
    partitions: Partitions,
    ordered: &Owners,
    eligible: Owners,
    before: Before,
) -> Owners {
    let mut shares: BTreeMap<NodeId, BTreeMap<Option<NodeId>, u128>> = BTreeMap::new();
    for (list, eligible) in ordered.iter().zip(&eligible) {
        for node in eligible {
            *shares.entry(*node).or_default().entry(list.last().copied()).or_default() +=
                WHOLE / eligible.len() as u128;
        }
    }
    let mut dealer = Dealer::new();
    let drains = drains_by_pair(&mut dealer, partitions, &shares);
    for ((partition, list), eligible) in partitions.iter().zip(ordered).zip(eligible) {
        let place = dealer.vertex();
        dealer.supply(place, 1);
        for node in sorted(eligible.into_iter(), |node| node_affinity(partition, *node, Share::new(1, 1))) {
            let kept = before.held(partition, position, node);
            dealer.offer(partition, place, node, drains[&(node, list.last().copied())], kept);
        }
    }
    dealer.deal(partitions)
}

/// One partition, in parts: divisible by every number of owners up to [`MAX_REPLICAS`].
const WHOLE: u128 = 720_720;

/// The sink side of [`deal_position`]: what nodes take, and of that from each predecessor.
fn drains_by_pair(
    dealer: &mut Dealer,
    partitions: Partitions,
    shares: &BTreeMap<NodeId, BTreeMap<Option<NodeId>, u128>>,
) -> BTreeMap<(NodeId, Option<NodeId>), Vertex> {
    let share = |parts| Share::new(parts, WHOLE);
    let groups =
        shares.values().map(|pairs| (share(pairs.values().sum()), pairs.values().map(|p| share(*p)).collect()));
    let drains = dealer.drains(partitions.count().into(), groups.collect());
    let names = shares.iter().flat_map(|(node, pairs)| pairs.keys().map(|last| (*node, *last)));
    names.zip(drains.into_iter().flatten()).collect()
}

/// Partitions by hash, otherwise for each version: who comes first keeps its owners, and in ring order the same
/// runs of partitions would change hands together, time after time, until a few nodes share most of what they have.
fn shuffled(partitions: Partitions, version: u64) -> Vec<Partition> {
    sorted(partitions.iter(), |partition| xxh3_64_with_seed(&partition.0.to_be_bytes(), version))
}

/// What `partition` tries zones by: a hash, lower for those that shall own more.
fn zone_affinity(partition: Partition, zone: &Zone) -> u64 {
    affinity(partition, zone.name.as_bytes(), zone.share)
}

/// The same for nodes.
fn node_affinity(partition: Partition, node: NodeId, share: Share) -> u64 {
    affinity(partition, &node.0.to_be_bytes(), share)
}

fn affinity(partition: Partition, name: &[u8], share: Share) -> u64 {
    xxh3_64_with_seed(name, partition.0.into()) / share.ceil().max(1)
}

fn sorted<T>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> u64) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_by_cached_key(key);
    items
}

/// The layout that was, if there was one.
#[derive(Clone, Copy)]
struct Before<'a>(Option<&'a Layout>);

impl Before<'_> {
    fn version(self) -> u64 {
        self.0.map_or(0, Layout::version)
    }

    fn owned(self, partition: Partition, node: NodeId) -> bool {
        self.owners(partition).contains(&node)
    }

    fn held(self, partition: Partition, position: usize, node: NodeId) -> bool {
        self.owners(partition).get(position) == Some(&node)
    }

    fn owners(&self, partition: Partition) -> &[NodeId] {
        self.0.map_or(&[], |layout| layout.owners(partition))
    }
}

/// A network that deals partitions to nodes, from a source to drains.
struct Dealer {
    net: Network,
    source: Vertex,
    sink: Vertex,
    offers: Vec<(Partition, NodeId, Pipe)>,
}

impl Dealer {
    fn new() -> Dealer {
        let mut net = Network::default();
        let (source, sink) = (net.vertex(), net.vertex());
        Dealer { net, source, sink, offers: Vec::new() }
    }

    fn vertex(&mut self) -> Vertex {
        self.net.vertex()
    }

    /// Gives `at` that many places to pass on.
    fn supply(&mut self, at: Vertex, places: u64) {
        self.net.pipe(self.source, at, places, 0);
    }

    /// Lets `partition`, whose places come from `at`, go to `node` once: for nothing if that is how it was.
    fn offer(&mut self, partition: Partition, at: Vertex, node: NodeId, drain: Vertex, kept: bool) {
        let pipe = self.net.pipe(at, drain, 1, u32::from(!kept));
        self.offers.push((partition, node, pipe));
    }

    /// Lays the sink side for groups of shares, which add up to `places`: every share and every group takes what it is
    /// due, rounded up or down. Returns a vertex for each share.
    fn drains(&mut self, places: u64, groups: Vec<(Share, Vec<Share>)>) -> Vec<Vec<Vertex>> {
        let spill = self.vertex();
        let mut due = 0;
        let mut drains = Vec::new();
        for (group, shares) in groups {
            let remainder = self.vertex();
            let taken = shares.iter().map(|share| share.floor()).sum();
            drains.push(shares.into_iter().map(|share| self.drain(share, 0, remainder)).collect());
            self.rounded(remainder, group, taken, spill);
            due += group.floor();
        }
        self.net.pipe(spill, self.sink, places - due, 0);
        drains
    }

    fn drain(&mut self, share: Share, taken: u64, remainder: Vertex) -> Vertex {
        let at = self.vertex();
        self.rounded(at, share, taken, remainder);
        at
    }

    /// `at` must take `share` rounded down, of which `taken` is taken elsewhere, and may pass on one more.
    fn rounded(&mut self, at: Vertex, share: Share, taken: u64, remainder: Vertex) {
        self.net.pipe(at, self.sink, share.floor() - taken, 0);
        self.net.pipe(at, remainder, share.ceil() - share.floor(), 0);
    }

    /// Deals as cheaply as possible; returns who got what.
    fn deal(mut self, partitions: Partitions) -> Owners {
        self.net.fill(self.source, self.sink);
        let mut owners = vec![Vec::new(); partitions.count().into()];
        for (partition, node, pipe) in self.offers {
            if self.net.carried(pipe) > 0 {
                owners[usize::from(partition.0)].push(node);
            }
        }
        owners
    }
}

#[cfg(test)]
mod tests;
