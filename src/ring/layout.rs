//! A layout: which nodes own each partition, in order. An immutable value with a version, its parent's hash and its
//! own, so that two layouts of one version are told apart wherever they meet (Garage's manual warns of clusters that
//! became inconsistent that way).
//!
//! Layouts are made by the planner ([`super::plan()`]) or read from disk and peers; there is no other door. What is
//! read is held to the *form* (known, distinct, weighted owners; one encoding per layout); [`Layout::check`] asks in
//! addition whether load and zones are as this program would have them, which a newer planner may see differently.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_128;

use super::ideal::{Ideal, Share};
use super::partition::Partitions;
use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_varint};
use crate::base::id::{NodeId, Partition};

/// The most owners a partition can be asked to have. Dynamo's users had 3; beyond 5 nobody gains.
pub const MAX_REPLICAS: u8 = 16;

/// The most members a layout may have: what keeps the preference lists of the finest cut in 131 MB. Dynamo's largest
/// rings had a few hundred.
pub const MAX_MEMBERS: usize = 1000;

/// First byte of an encoded layout.
const FORMAT: u8 = 1;

/// A member as a layout sees it. Members of weight 0 own nothing: they take requests and pass them on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayoutMember {
    /// Which node.
    pub id: NodeId,
    /// Its part of the data, relative to the others'.
    pub weight: u32,
    /// What it may fail together with: a rack, a room, a data centre.
    pub zone: String,
}

/// Which nodes own each partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub(super) version: u64,
    pub(super) parent: u128,
    pub(super) partitions: Partitions,
    pub(super) replicas: u8,
    pub(super) members: Vec<LayoutMember>,
    pub(super) owners: Vec<Vec<NodeId>>,
}

/// What a node has in a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeShare {
    /// Partitions it is an owner of.
    pub owned: u64,
    /// Partitions it is the first owner of: those it coordinates while all are well.
    pub coordinated: u64,
}

/// A partition that gets a new owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Move {
    /// What moves.
    pub partition: Partition,
    /// The owner that is replaced; none when the list of owners grows.
    pub from: Option<NodeId>,
    /// The new owner.
    pub to: NodeId,
}

impl Layout {
    /// 1 for a cluster's first layout, then one more each.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The hash of the layout this one was planned from; 0 for the first.
    pub fn parent(&self) -> u128 {
        self.parent
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// N: owners of each partition as asked for. There are fewer while fewer nodes have weight.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// All members, by id.
    pub fn members(&self) -> &[LayoutMember] {
        &self.members
    }

    /// The member with this id.
    pub fn member(&self, id: NodeId) -> Option<&LayoutMember> {
        let at = self.members.binary_search_by_key(&id, |member| member.id).ok()?;
        self.members.get(at)
    }

    /// The owners of `partition`, coordinator first; empty if there is no such partition. A prefix of the list is as
    /// good a list for a smaller N: it spans as many zones as it can, and every position is spread evenly over nodes.
    pub fn owners(&self, partition: Partition) -> &[NodeId] {
        self.owners.get(usize::from(partition.0)).map_or(&[], Vec::as_slice)
    }

    /// What `node` has.
    pub fn share(&self, node: NodeId) -> NodeShare {
        let count =
            |holds: &dyn Fn(&Vec<NodeId>) -> bool| self.owners.iter().filter(|owners| holds(owners)).count() as u64;
        NodeShare {
            owned: count(&|owners| owners.contains(&node)),
            coordinated: count(&|owners| owners.first() == Some(&node)),
        }
    }

    /// What has to move for this layout to become `next`: one move per place that a node gains. Which owner it replaces
    /// says whose place is taken, not where data comes from: any old owner can send it.
    pub fn moves(&self, next: &Layout) -> Vec<Move> {
        next.partitions.iter().flat_map(|partition| self.moves_of(partition, next)).collect()
    }

    /// How many moves any layout must take from `previous` to these members, whatever planner made it, if every node
    /// shall have its ideal load rounded up or down: a bound from below, by counting places alone. Zones may ask for
    /// more.
    pub fn least_moves(&self, previous: &Layout) -> u64 {
        let ideal = self.ideal();
        let places = u64::from(self.partitions.count()) * ideal.owners;
        let held = |id| previous.share(id).owned;
        let gained: u64 = ideal.nodes().map(|node| node.share.floor().saturating_sub(held(node.id))).sum();
        let kept: u64 = ideal.nodes().map(|node| node.share.ceil().min(held(node.id))).sum();
        gained.max(places.saturating_sub(kept))
    }

    /// Names the content: xxh3 of the encoding. Equal hashes, equal layouts.
    pub fn hash(&self) -> u128 {
        xxh3_128(&self.encode())
    }

    /// The one encoding of this layout.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT];
        put_varint(&mut out, self.version);
        out.put_u128(self.parent);
        out.put_u16(self.partitions.count());
        out.put_u8(self.replicas);
        put_varint(&mut out, self.members.len() as u64);
        for member in &self.members {
            out.put_u64(member.id.0);
            put_varint(&mut out, member.weight.into());
            put_bytes(&mut out, member.zone.as_bytes());
        }
        for owners in &self.owners {
            put_varint(&mut out, owners.len() as u64);
            for owner in owners {
                // An owner is a member: the planner takes it from there, and `decode` refuses others.
                let index = self.members.partition_point(|member| member.id < *owner);
                put_varint(&mut out, index as u64);
            }
        }
        out
    }

    /// Reads an encoded layout. Refuses another format, what breaks the form (see the module), and any second encoding.
    pub fn decode(bytes: &Bytes) -> Decoded<Layout> {
        let mut reader = Reader::new(bytes.clone());
        if reader.u8()? != FORMAT {
            return Err(DecodeError::Unknown("layout format"));
        }
        let (version, parent) = (reader.varint()?, reader.u128()?);
        let partitions = Partitions::new(reader.u16()?).ok_or(DecodeError::Invalid("number of partitions"))?;
        let replicas = reader.u8()?;
        let members = (0..reader.count()?).map(|_| read_member(&mut reader)).collect::<Decoded<Vec<_>>>()?;
        let owners = partitions.iter().map(|_| read_owners(&mut reader, &members)).collect::<Decoded<Vec<_>>>()?;
        reader.finish()?;
        let layout = Layout { version, parent, partitions, replicas, members, owners };
        layout.check_form().map_err(|_| DecodeError::Invalid("layout"))?;
        if layout.encode() == **bytes { Ok(layout) } else { Err(DecodeError::Invalid("layout encoding")) }
    }

    /// Whether this layout is all that the planner promises; if not, the first thing that is wrong.
    pub fn check(&self) -> Result<(), String> {
        self.check_form()?;
        self.check_zones()?;
        self.check_load()
    }

    /// What would be ideal for the members of this layout.
    pub(super) fn ideal(&self) -> Ideal {
        Ideal::new(&self.members, self.partitions, self.replicas)
    }

    fn moves_of(&self, partition: Partition, next: &Layout) -> impl Iterator<Item = Move> {
        let (old, new) = (self.owners(partition), next.owners(partition));
        let mut replaced = old.iter().filter(|owner| !new.contains(owner)).copied();
        let gained = new.iter().filter(|owner| !old.contains(owner));
        gained.map(move |&to| Move { partition, from: replaced.next(), to })
    }

    /// The invariants without which a layout means nothing.
    fn check_form(&self) -> Result<(), String> {
        ensure(self.version > 0, || "version 0".into())?;
        ensure((1..=MAX_REPLICAS).contains(&self.replicas), || format!("{} replicas", self.replicas))?;
        ensure(self.members.len() <= MAX_MEMBERS, || format!("{} members", self.members.len()))?;
        ensure(self.members.is_sorted_by(|a, b| a.id < b.id), || "members out of order".into())?;
        ensure(self.owners.len() == usize::from(self.partitions.count()), || "partitions are missing".into())?;
        let weighted: BTreeSet<NodeId> = self.members.iter().filter(|m| m.weight > 0).map(|m| m.id).collect();
        let due = weighted.len().min(self.replicas.into());
        for (partition, owners) in self.owners.iter().enumerate() {
            let distinct: BTreeSet<NodeId> = owners.iter().copied().collect();
            ensure(distinct.len() == owners.len(), || format!("partition {partition} has an owner twice"))?;
            ensure(distinct.is_subset(&weighted), || format!("partition {partition} has an owner without weight"))?;
            ensure(owners.len() == due, || format!("partition {partition} has {} owners, not {due}", owners.len()))?;
        }
        Ok(())
    }

    /// Owners lie in zones as evenly as these allow, and so does every prefix of the list.
    fn check_zones(&self) -> Result<(), String> {
        let ideal = self.ideal();
        let zone_of: BTreeMap<NodeId, usize> =
            ideal.zones.iter().enumerate().flat_map(|(at, zone)| zone.nodes.iter().map(move |n| (n.id, at))).collect();
        for (partition, owners) in self.owners.iter().enumerate() {
            let zones: Vec<usize> = owners.iter().filter_map(|owner| zone_of.get(owner).copied()).collect();
            let used = |until: usize, zone: usize| zones.iter().take(until).filter(|&&other| other == zone).count();
            for (at, zone) in ideal.zones.iter().enumerate() {
                let here = used(zones.len(), at) as u64;
                let fair = (zone.least..=zone.most).contains(&here);
                ensure(fair, || format!("partition {partition} has {here} owners in one zone"))?;
            }
            for (at, &zone) in zones.iter().enumerate() {
                let first = zones.iter().skip(at).all(|&later| used(at, zone) <= used(at, later));
                ensure(first, || format!("partition {partition} goes back to a zone before it has seen all"))?;
            }
        }
        Ok(())
    }

    /// Every node owns its ideal, rounded up or down, and coordinates its even part of that.
    fn check_load(&self) -> Result<(), String> {
        let ideal = self.ideal();
        for node in ideal.nodes() {
            let NodeShare { owned, coordinated } = self.share(node.id);
            ensure(node.share.allows(owned), || format!("{} owns {owned} partitions, not {:?}", node.id, node.share))?;
            let even = Share::new(owned.into(), ideal.owners.into());
            ensure(even.allows(coordinated), || format!("{} coordinates {coordinated} of {owned}", node.id))?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

fn read_member(reader: &mut Reader) -> Decoded<LayoutMember> {
    let id = NodeId(reader.u64()?);
    let weight = u32::try_from(reader.varint()?).map_err(|_| DecodeError::Invalid("weight"))?;
    Ok(LayoutMember { id, weight, zone: reader.text()? })
}

fn read_owners(reader: &mut Reader, members: &[LayoutMember]) -> Decoded<Vec<NodeId>> {
    let owner = |reader: &mut Reader| {
        let index = usize::try_from(reader.varint()?).ok();
        index.and_then(|index| members.get(index)).map(|member| member.id).ok_or(DecodeError::Invalid("owner"))
    };
    (0..reader.count()?).map(|_| owner(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use super::*;
    use proptest::prelude::*;

    fn members(weights: &[u32]) -> Vec<LayoutMember> {
        let member = |(id, weight): (u64, &u32)| LayoutMember {
            id: NodeId(id),
            weight: *weight,
            zone: ["north", "south"][id as usize % 2].into(),
        };
        (1..).zip(weights).map(member).collect()
    }

    fn layout(weights: &[u32]) -> Layout {
        plan(&members(weights), Partitions::new(16).unwrap(), 3, None)
    }

    /// Encodes `layout` after `change` and reads it back.
    fn reread(change: impl FnOnce(&mut Layout)) -> Decoded<Layout> {
        let mut layout = layout(&[1, 2, 0, 1, 3]);
        change(&mut layout);
        Layout::decode(&layout.encode().into())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_layout_is_read_back_as_it_was(weights in prop::collection::vec(0u32..9, 0..12)) {
            let layout = layout(&weights);
            prop_assert_eq!(Layout::decode(&layout.encode().into()), Ok(layout));
        }

        #[test]
        fn damaged_bytes_are_refused_or_are_another_layout(at: prop::sample::Index, bit in 0u8..8) {
            let layout = layout(&[1, 2, 0, 1, 3]);
            let mut bytes = layout.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Layout::decode(&bytes.into()) {
                prop_assert_ne!(other.hash(), layout.hash());
            }
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(mut raw: Vec<u8>) {
            raw.insert(0, FORMAT);
            prop_assert!(Layout::decode(&raw.into()).is_err());
        }

        #[test]
        fn moves_lead_from_one_layout_to_the_next(
            before in prop::collection::vec(0u32..5, 1..8), after in prop::collection::vec(0u32..5, 1..8),
        ) {
            let old = layout(&before);
            let new = plan(&members(&after), old.partitions(), 2, Some(&old));
            let mut places: BTreeSet<(Partition, NodeId)> =
                old.partitions().iter().flat_map(|p| old.owners(p).iter().map(move |id| (p, *id))).collect();
            for Move { partition, from, to } in old.moves(&new) {
                prop_assert!(from.is_none_or(|from| places.remove(&(partition, from))));
                prop_assert!(places.insert((partition, to)));
            }
            for partition in new.partitions().iter() {
                prop_assert!(new.owners(partition).iter().all(|id| places.contains(&(partition, *id))));
            }
        }
    }

    #[test]
    fn layouts_of_one_version_are_told_apart_by_hash() {
        let (one, other) = (layout(&[1, 1, 1]), layout(&[1, 1, 2]));
        assert_eq!(one.version(), other.version());
        assert_ne!(one.hash(), other.hash());
        assert_eq!(one.hash(), layout(&[1, 1, 1]).hash());
    }

    #[test]
    fn what_breaks_the_form_is_refused() {
        let invalid = Err(DecodeError::Invalid("layout"));
        assert_eq!(reread(|_| ()), Ok(layout(&[1, 2, 0, 1, 3])));
        assert_eq!(reread(|l| l.version = 0), invalid);
        assert_eq!(reread(|l| l.replicas = 0), invalid);
        assert_eq!(reread(|l| l.replicas = MAX_REPLICAS + 1), invalid);
        assert_eq!(reread(|l| l.replicas = 2), invalid, "lists are too long then");
        assert_eq!(reread(|l| l.members.swap(0, 1)), Err(DecodeError::Invalid("layout")), "out of order");
        assert_eq!(reread(|l| l.owners[3][0] = l.owners[3][1]), invalid, "an owner twice");
        assert_eq!(reread(|l| l.owners[3][0] = NodeId(3)), invalid, "an owner of weight 0");
        assert_eq!(reread(|l| l.owners[3][0] = NodeId(77)), Err(DecodeError::Invalid("owner")), "a stranger");
        assert_eq!(reread(|l| l.owners[3].clear()), invalid);
        assert!(reread(|l| l.owners.truncate(15)).is_err());
        assert_eq!(reread(|l| l.owners.push(l.owners[0].clone())), Err(DecodeError::Trailing));
    }

    #[test]
    fn a_second_encoding_of_the_same_layout_is_refused() {
        let mut bytes = layout(&[1, 1, 1]).encode();
        assert_eq!(bytes[..2], [FORMAT, 1]);
        bytes.splice(1..2, [0x81, 0x00]);
        assert_eq!(Layout::decode(&bytes.into()), Err(DecodeError::Invalid("layout encoding")));
    }

    #[test]
    fn another_format_is_unknown() {
        let mut bytes = layout(&[1]).encode();
        bytes[0] = FORMAT + 1;
        assert_eq!(Layout::decode(&bytes.into()), Err(DecodeError::Unknown("layout format")));
    }

    #[test]
    fn check_finds_crowded_zones_and_uneven_load_that_the_form_allows() {
        let check = |change: &dyn Fn(&mut Vec<Vec<NodeId>>)| {
            let mut layout = layout(&[1, 1, 1, 1, 1, 1]);
            change(&mut layout.owners);
            layout.check_form().and(layout.check())
        };
        let zone = |parity: u64| (1..=6).filter(|id| id % 2 == parity).map(NodeId).collect::<Vec<_>>();
        assert_eq!(check(&|_| ()), Ok(()));
        assert!(check(&|owners| owners[0] = zone(0)).unwrap_err().contains("in one zone"));
        assert!(check(&|owners| *owners = vec![owners[0].clone(); 16]).unwrap_err().contains("owns"));
        assert!(check(&|owners| owners.iter_mut().for_each(|list| list.sort())).is_err());
        let coordinators = |owners: &mut Vec<Vec<NodeId>>| {
            // The two owners of one zone may change places without harm to zones or data.
            owners
                .iter_mut()
                .filter(|list| list[0].0 % 2 == list[2].0 % 2 && list[0] < list[2])
                .for_each(|l| l.swap(0, 2));
        };
        assert!(check(&coordinators).unwrap_err().contains("coordinates"));
    }

    #[test]
    fn shares_count_partitions_owned_and_coordinated() {
        let layout = layout(&[1, 1, 1, 0]);
        let shares: Vec<NodeShare> = layout.members().iter().map(|m| layout.share(m.id)).collect();
        assert!(shares[..3].iter().all(|share| share.owned == 16 && (5..=6).contains(&share.coordinated)));
        assert_eq!(shares[3], NodeShare::default());
        assert_eq!(layout.member(NodeId(4)).map(|m| m.weight), Some(0));
        assert_eq!(layout.member(NodeId(5)), None);
        assert!(layout.owners(Partition(16)).is_empty());
    }
}
