//! The ring: where a key lives. Pure values: no I/O, no clock, no chance; the same input gives the same ring on every
//! node and in every version, which is why golden vectors pin it.
//!
//! Read in this order: a key has a [`Slot`] and a [`Token`] ([`slot`]); a run of slots is a partition ([`partition`]);
//! a [`Layout`] says who owns each partition ([`layout`]); [`plan()`] computes the next layout from the last
//! ([`mod@plan`], on `ideal` shares and a small `flow` solver); a [`Ring`] is a layout made ready for requests, with
//! the preference list of each partition ([`preference`]).
//!
//! Deliberately absent: who is alive (callers pass a closure), how far a change of layout has come (cluster), and how
//! data moves (replication).

mod flow;
mod ideal;
pub mod layout;
pub mod partition;
pub mod plan;
pub mod preference;
pub mod slot;

#[cfg(test)]
mod golden;

pub use self::layout::{Layout, LayoutMember, Move, NodeShare};
pub use self::partition::Partitions;
pub use self::plan::plan;

pub use self::preference::{Ring, Role};
pub use self::slot::{Slot, Token};
