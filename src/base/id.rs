//! Ids that are just numbers: nodes, actors, databases, partitions. Random ones are made by the caller.

use std::fmt;
use std::str::FromStr;

/// A cluster member's random id, made once with its data directory. Printed as 16 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// Who gives dots: a random id made with a data directory and replaced whenever that directory may have lost something
/// (rule 6 of the causality rules). Never used by two lives of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(pub u64);

/// A cluster's random id: nodes with another one are strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

/// A database as `SELECT` numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Db(pub u8);

/// A run of slots: the unit of ownership. Less than the cluster's number of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u16);

/// One database's share of a partition: the unit of locking, clock and hash tree. Databases have clocks of their own so
/// that flushing one is one message, and so that each may have its own number of replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Region {
    /// Which database.
    pub db: Db,
    /// Which run of slots.
    pub partition: Partition,
}

/// Who coordinates a partition, as its owners have granted it. A later term deposes an earlier one (rule 7 of the
/// causality rules); numbers may be claimed by two nodes at once, so the node decides between equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// How-manieth.
    pub number: u64,
    /// Who claimed it.
    pub node: NodeId,
}

impl Term {
    /// Before any was claimed.
    pub const NONE: Term = Term { number: 0, node: NodeId(0) };

    /// The first term of `node` after this one.
    pub fn next(self, node: NodeId) -> Term {
        Term { number: self.number.saturating_add(1), node }
    }
}

macro_rules! hex_id {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(text, 16).map($name)
            }
        }
    )*};
}
hex_id!(NodeId, ActorId, ClusterId);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.node)
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "db{}/p{}", self.db.0, self.partition.0)
    }
}
