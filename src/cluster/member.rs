//! Members of a cluster, and the set of them that every node keeps.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use crate::base::codec::{DecodeError, Decoded, Reader, put_bytes, put_varint};
use crate::base::id::{ClusterId, NodeId};
use crate::ring::{Layout, LayoutMember, Partitions, plan};

const FORMAT: u8 = 1;

/// One node, as it introduces itself.
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
    /// Port for peers.
    pub peer_port: u16,
    /// Where it stands; owners are spread over zones.
    pub zone: String,
    /// Its share of the data, relative to others'.
    pub weight: u32,
}

impl Member {
    /// Appends the member.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u64(self.id.0);
        put_varint(out, self.incarnation);
        put_bytes(out, self.name.as_bytes());
        put_bytes(out, self.host.as_bytes());
        out.put_u16(self.port);
        out.put_u16(self.peer_port);
        put_bytes(out, self.zone.as_bytes());
        put_varint(out, self.weight.into());
    }

    /// Reads what [`Member::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Member> {
        Ok(Member {
            id: NodeId(reader.u64()?),
            incarnation: reader.varint()?,
            name: reader.text()?,
            host: reader.text()?,
            port: reader.u16()?,
            peer_port: reader.u16()?,
            zone: reader.text()?,
            weight: u32::try_from(reader.varint()?).map_err(|_| DecodeError::Invalid("weight"))?,
        })
    }

    /// `host:peer-port`.
    pub fn peer_addr(&self) -> String {
        join_host(&self.host, self.peer_port)
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
            if self.members.get(id).is_none_or(|mine| mine.incarnation < theirs.incarnation) {
                self.members.insert(*id, theirs.clone());
                changed = true;
            }
        }
        changed
    }

    /// The layout of these members.
    pub fn layout(&self) -> Layout {
        let members = self.members.values().map(|member| LayoutMember {
            id: member.id,
            weight: member.weight,
            zone: member.zone.clone(),
        });
        plan(&members.collect::<Vec<_>>(), self.partitions, self.replicas, None)
    }

    /// A digest by which two nodes see whether they know the same.
    pub fn digest(&self) -> u64 {
        let mut out = Vec::new();
        self.put(&mut out);
        xxh3_64(&out)
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
        if reader.u8()? != FORMAT {
            return Err(DecodeError::Unknown("membership"));
        }
        let cluster = ClusterId(reader.u64()?);
        let mut key = [0; 32];
        key.copy_from_slice(&reader.take(32)?);
        let partitions = Partitions::new(reader.u16()?).ok_or(DecodeError::Invalid("partitions"))?;
        let replicas = reader.u8()?;
        let members = (0..reader.count()?).map(|_| Member::read(reader).map(|member| (member.id, member)));
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
