//! Members of a cluster, and the set of them that every node keeps.
//!
//! Two nodes' sets merge member by member: of two descriptions the later incarnation counts, of two decisions about a
//! member the later one, and a removal is for ever. Whatever the order in which nodes hear of each other, they come to the
//! same set (the laws are tested below).

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_varint};
use crate::base::id::{ClusterId, NodeId};
use crate::ring::{Layout, LayoutMember, Partitions, plan};

/// Written now; 1 had no length, no features and no standing for a member.
const FORMAT: u8 = 2;

/// What this program can do that an earlier one cannot, as bits: a node uses with a peer what both have.
pub const FEATURES: u64 = 0b1;

/// What was decided about a member. Decisions are made by people, at any node; so they have a version of their own beside
/// the member's incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum MemberState {
    /// It takes part.
    #[default]
    Up = 0,
    /// It is to leave once its data has moved.
    Leaving = 1,
    /// It has left, for ever: whoever comes back under its id is refused.
    Removed = 2,
}

impl MemberState {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            MemberState::Up => "up",
            MemberState::Leaving => "leaving",
            MemberState::Removed => "removed",
        }
    }

    fn of(number: u8) -> Decoded<MemberState> {
        match number {
            0 => Ok(MemberState::Up),
            1 => Ok(MemberState::Leaving),
            2 => Ok(MemberState::Removed),
            _ => Err(DecodeError::Unknown("member state")),
        }
    }
}

/// One node, as it introduces itself, and what was decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Random, made with its data directory.
    pub id: NodeId,
    /// Grows with every start: of two descriptions the later one counts.
    pub incarnation: u64,
    /// What people call it.
    pub name: String,
    /// Where it listens: host name or address.
    pub host: String,
    /// Port for clients.
    pub port: u16,
    /// Port for cluster clients; 0: it has no such face.
    pub cluster_port: u16,
    /// Port for peers.
    pub peer_port: u16,
    /// Where it stands; owners are spread over zones.
    pub zone: String,
    /// Its share of the data, relative to others'.
    pub weight: u32,
    /// What its program can do: bits of [`FEATURES`].
    pub features: u64,
    /// What was decided about it.
    pub state: MemberState,
    /// Grows with every decision.
    pub decision: u64,
}

impl Member {
    /// Appends the member. What a later program appends to that is skipped by this one.
    pub fn put(&self, out: &mut impl BufMut) {
        let mut own = Vec::with_capacity(64);
        self.put_described(&mut own);
        put_varint(&mut own, self.features);
        own.put_u8(self.state as u8);
        put_varint(&mut own, self.decision);
        own.put_u16(self.cluster_port);
        put_bytes(out, &own);
    }

    /// Reads what [`Member::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Member> {
        let mut own = Reader::new(reader.bytes()?);
        let mut member = Member::read_described(&mut own)?;
        member.features = own.varint()?;
        member.state = MemberState::of(own.u8()?)?;
        member.decision = own.varint()?;
        // A program before this one did not say.
        member.cluster_port = if own.remaining() > 0 { own.u16()? } else { 0 };
        Ok(member)
    }

    fn put_described(&self, out: &mut impl BufMut) {
        out.put_u64(self.id.0);
        put_varint(out, self.incarnation);
        put_bytes(out, self.name.as_bytes());
        put_bytes(out, self.host.as_bytes());
        out.put_u16(self.port);
        out.put_u16(self.peer_port);
        put_bytes(out, self.zone.as_bytes());
        put_varint(out, self.weight.into());
    }

    /// A member as format 1 had it.
    fn read_described(reader: &mut Reader) -> Decoded<Member> {
        Ok(Member {
            id: NodeId(reader.u64()?),
            incarnation: reader.varint()?,
            name: reader.text()?,
            host: reader.text()?,
            port: reader.u16()?,
            cluster_port: 0,
            peer_port: reader.u16()?,
            zone: reader.text()?,
            weight: u32::try_from(reader.varint()?).map_err(|_| DecodeError::Invalid("weight"))?,
            features: 0,
            state: MemberState::Up,
            decision: 0,
        })
    }

    /// Whether it takes part: it has not been removed.
    pub fn is_present(&self) -> bool {
        self.state != MemberState::Removed
    }

    /// Takes over what `other`, the same member as somebody else knows it, says later.
    fn merge(&mut self, other: &Member) {
        let decided = |member: &Member| (!member.is_present(), member.decision, member.state);
        let decision = std::cmp::max(decided(self), decided(other));
        // Of two descriptions of one incarnation (an address seen from two sides) all nodes take the same.
        let described = |member: &Member| {
            let mut out = Vec::new();
            member.put_described(&mut out);
            (member.incarnation, out, member.features, member.cluster_port)
        };
        if described(other) > described(self) {
            *self = other.clone();
        }
        (_, self.decision, self.state) = decision;
    }

    /// `host:peer-port`.
    pub fn peer_addr(&self) -> String {
        join_host(&self.host, self.peer_port)
    }

    /// `host:cluster-port`.
    pub fn cluster_addr(&self) -> String {
        join_host(&self.host, self.cluster_port)
    }

    /// `host:port`.
    pub fn client_addr(&self) -> String {
        join_host(&self.host, self.port)
    }
}

fn join_host(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What all nodes of a cluster agree on: its identity, how it was made, and its members.
#[derive(Clone, PartialEq, Eq)]
pub struct Membership {
    /// The cluster's random id.
    pub cluster: ClusterId,
    /// What contexts and hash trees are keyed by; never shown.
    pub key: [u8; 32],
    /// How the slots are cut; fixed for ever.
    pub partitions: Partitions,
    /// How many owners a partition has: N.
    pub replicas: u8,
    /// Everyone.
    pub members: BTreeMap<NodeId, Member>,
}

impl Membership {
    /// Takes over what `other` knows better; says whether anything changed. Another cluster's word changes nothing.
    pub fn merge(&mut self, other: &Membership) -> bool {
        if other.cluster != self.cluster {
            return false;
        }
        let mut changed = false;
        for (id, theirs) in &other.members {
            changed |= self.take_over(*id, theirs);
        }
        changed
    }

    fn take_over(&mut self, id: NodeId, theirs: &Member) -> bool {
        match self.members.get_mut(&id) {
            Some(mine) if mine == theirs => false,
            Some(mine) => {
                let before = mine.clone();
                mine.merge(theirs);
                *mine != before
            }
            None => self.members.insert(id, theirs.clone()).is_none(),
        }
    }

    /// Removes a member for ever; says whether it was one.
    pub fn remove(&mut self, id: NodeId) -> bool {
        let Some(member) = self.members.get_mut(&id).filter(|member| member.is_present()) else { return false };
        member.state = MemberState::Removed;
        member.decision = member.decision.saturating_add(1);
        true
    }

    /// Members that take part.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.is_present())
    }

    /// The member that takes part under a name.
    pub fn named(&self, name: &str) -> Option<&Member> {
        self.present().find(|member| member.name == name)
    }

    /// The layout of the members that take part.
    pub fn layout(&self) -> Layout {
        let members = self.present().map(|member| LayoutMember {
            id: member.id,
            weight: member.weight,
            zone: member.zone.clone(),
        });
        plan(&members.collect::<Vec<_>>(), self.partitions, self.replicas, None)
    }

    /// A digest by which two nodes see whether they know the same.
    pub fn digest(&self, layout: &Layout) -> Digest {
        let mut out = Vec::new();
        self.put(&mut out);
        Digest { members: xxh3_64(&out), layout_version: layout.version(), layout: layout.hash() }
    }

    /// Appends the membership.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u8(FORMAT);
        out.put_u64(self.cluster.0);
        out.put_slice(&self.key);
        out.put_u16(self.partitions.count());
        out.put_u8(self.replicas);
        put_varint(out, self.members.len() as u64);
        self.members.values().for_each(|member| member.put(out));
    }

    /// Reads what [`Membership::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Membership> {
        let member: fn(&mut Reader) -> Decoded<Member> = match reader.u8()? {
            1 => Member::read_described,
            FORMAT => Member::read,
            _ => return Err(DecodeError::Unknown("membership")),
        };
        let cluster = ClusterId(reader.u64()?);
        let mut key = [0; 32];
        key.copy_from_slice(&reader.take(32)?);
        let partitions = Partitions::new(reader.u16()?).ok_or(DecodeError::Invalid("partitions"))?;
        let replicas = reader.u8()?;
        let members = (0..reader.count()?).map(|_| member(reader).map(|member| (member.id, member)));
        let members = members.collect::<Decoded<_>>()?;
        Ok(Membership { cluster, key, partitions, replicas, members })
    }

    /// As it is stored.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.put(&mut out);
        out.into()
    }
}

/// By which two nodes see whether they know the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest {
    /// Hash of the members.
    pub members: u64,
    /// Version of the layout.
    pub layout_version: u64,
    /// The layout's hash: those who know the same members and have another one would write to other owners.
    pub layout: u128,
}

impl Digest {
    /// Appends it.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u64(self.members);
        put_varint(out, self.layout_version);
        out.put_u128(self.layout);
    }

    /// Reads what [`Digest::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Digest> {
        Ok(Digest { members: reader.u64()?, layout_version: reader.varint()?, layout: reader.u128()? })
    }

    /// Whether another node knows the same members and yet another layout.
    pub fn disputes(&self, other: &Digest) -> bool {
        self.members == other.members && self.layout != other.layout
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("cluster", &self.cluster)
            .field("partitions", &self.partitions.count())
            .field("replicas", &self.replicas)
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id: NodeId(id),
            incarnation: 1,
            name: format!("n{id}"),
            host: "h".into(),
            port: 1,
            cluster_port: 0,
            peer_port: 2,
            zone: "z".into(),
            weight: 1,
            features: FEATURES,
            state: MemberState::Up,
            decision: 0,
        }
    }

    fn of(members: impl IntoIterator<Item = Member>) -> Membership {
        Membership {
            cluster: ClusterId(1),
            key: [3; 32],
            partitions: Partitions::new(16).unwrap(),
            replicas: 3,
            members: members.into_iter().map(|member| (member.id, member)).collect(),
        }
    }

    fn merged<'a>(all: impl IntoIterator<Item = &'a Membership>) -> Membership {
        let mut sum = of([]);
        all.into_iter().for_each(|next| _ = sum.merge(next));
        sum
    }

    prop_compose! {
        fn any_member()(id in 0u64..4, incarnation in 0u64..3, port in 0u16..2, decision in 0u64..3, state in 0u8..3)
            -> Member {
            Member { incarnation, port, decision, state: MemberState::of(state).unwrap(), ..member(id) }
        }
    }

    fn any_membership() -> impl Strategy<Value = Membership> {
        prop::collection::vec(any_member(), 0..5).prop_map(of)
    }

    proptest! {
        #[test]
        fn merging_comes_to_the_same_in_any_order_grouping_and_repetition(
            a in any_membership(), b in any_membership(), c in any_membership(),
        ) {
            let all = merged([&a, &b, &c]);
            prop_assert_eq!(&merged([&c, &a, &b]), &all);
            prop_assert_eq!(&merged([&a, &merged([&b, &c])]), &all);
            prop_assert_eq!(&merged([&b, &a, &b, &c, &a]), &all);
            let mut again = all.clone();
            prop_assert!(!again.merge(&b) && again == all, "what is known changes nothing, and says so");
        }

        #[test]
        fn whoever_was_removed_stays_removed(a in any_membership(), others in prop::collection::vec(any_membership(), 0..6)) {
            let mut removed = a.clone();
            let gone: Vec<NodeId> = removed.present().map(|member| member.id).collect();
            gone.iter().for_each(|id| assert!(removed.remove(*id) && !removed.remove(*id)));
            let all = merged(others.iter().chain([&removed]).chain(&others));
            prop_assert!(gone.iter().all(|id| all.members[id].state == MemberState::Removed));
        }

        #[test]
        fn a_membership_survives_its_encoding(a in any_membership()) {
            let mut reader = Reader::new(a.encode());
            prop_assert_eq!(Membership::read(&mut reader).unwrap(), a);
            prop_assert_eq!(reader.remaining(), 0);
        }

        #[test]
        fn any_bytes_are_members_or_refused_without_a_panic(raw: Vec<u8>, version in 0u8..4) {
            let framed = [vec![version], raw].concat();
            drop(Membership::read(&mut Reader::new(framed.into())));
        }
    }

    #[test]
    fn a_decision_outlives_the_restart_of_whom_it_is_about() {
        let leaving = Member { state: MemberState::Leaving, decision: 1, ..member(1) };
        let restarted = Member { incarnation: 9, port: 7, ..member(1) };
        let both = &merged([&of([leaving]), &of([restarted])]).members[&NodeId(1)];
        assert_eq!((both.state, both.incarnation, both.port), (MemberState::Leaving, 9, 7));
        let stays = Member { state: MemberState::Up, decision: 2, ..member(1) };
        assert_eq!(merged([&of([both.clone()]), &of([stays])]).members[&NodeId(1)].state, MemberState::Up);
    }

    #[test]
    fn whoever_was_removed_owns_nothing_and_leaves_its_name() {
        let mut all = of([member(1), member(2)]);
        assert!(all.remove(NodeId(2)));
        assert!(all.named("n2").is_none() && all.present().count() == 1);
        let layout = all.layout();
        assert!(layout.partitions().iter().all(|partition| layout.owners(partition) == [NodeId(1)]));
    }

    #[test]
    fn what_the_first_format_stored_is_read() {
        let all = of([member(1), member(2)]);
        let mut out = vec![1];
        out.put_u64(all.cluster.0);
        out.put_slice(&all.key);
        out.put_u16(all.partitions.count());
        out.put_u8(all.replicas);
        put_varint(&mut out, all.members.len() as u64);
        all.members.values().for_each(|member| member.put_described(&mut out));
        let read = Membership::read(&mut Reader::new(out.into())).unwrap();
        let expected = of([1, 2].map(|id| Member { features: 0, ..member(id) }));
        assert_eq!(read, expected);
    }

    #[test]
    fn what_a_later_program_says_of_a_member_is_skipped() {
        let mut own = Vec::new();
        member(1).put(&mut own);
        let mut reader = Reader::new(own.into());
        let inner = [&reader.bytes().unwrap()[..], b"more"].concat();
        let mut out = Vec::new();
        put_bytes(&mut out, &inner);
        assert_eq!(Member::read(&mut Reader::new(out.into())), Ok(member(1)));
    }

    #[test]
    fn the_same_members_with_another_layout_are_a_dispute_and_other_members_are_not() {
        let all = of([member(1), member(2)]);
        let digest = all.digest(&all.layout());
        let mut wire = Vec::new();
        digest.put(&mut wire);
        assert_eq!(Digest::read(&mut Reader::new(wire.into())), Ok(digest));
        assert!(digest.disputes(&Digest { layout: 1, ..digest }) && !digest.disputes(&digest));
        assert!(!digest.disputes(&Digest { members: 1, layout: 1, ..digest }), "they will learn of each other");
    }
}
