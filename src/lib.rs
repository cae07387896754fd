//! redynamo: Amazon's Dynamo (SOSP 2007), rebuilt as a drop-in Redis.
//!
//! This page is the tour: the rooms in the order in which a request passes through them. `ARCHITECTURE.md` says what was
//! decided and why; `tests/tidy.rs` holds the order in which rooms may know of each other.
//!
//! # A request
//!
//! A client's bytes arrive in [`server`]: a connection decodes them with [`resp`], finds the command in the tables of
//! [`commands`], and hands what concerns keys to the coordinator in [`replication`]. That asks [`ring`] which partition the
//! key lies in and [`cluster`]'s view who coordinates it. Elsewhere: the command is forwarded over [`peer`] messages, as it
//! came. Here: [`replica`] locks the key's region and opens a draft from [`model`]; the command, a pure function, reads
//! and changes it; what changed passes the one door (rows, clock, hash tree, counts) on its way to the committer in
//! [`storage`], and is told to the other owners. The reply leaves when W of them have it.
//!
//! # What makes it right
//!
//! [`causality`] knows what happened before what: every change has a dot, every replica of a region a clock of dots, and
//! from those two any two replicas can be made equal, in any order, without losing a concurrent change and without
//! tombstones. Everything heals by one mechanism, a sync of two replicas, in [`replication::sync`].
//!
//! # What makes it run
//!
//! [`node`] assembles a node: what it answers its peers and what it does by itself. It reaches the world (time, chance,
//! tasks, peers) only through [`env`](mod@env). There are two worlds: [`runtime`], of sockets, threads and signals, and
//! [`sim`], of a seed, in which whole clusters run on one thread and break in every way that the seed says.
//!
//! [`config`] declares every setting once, [`metrics`] every metric; [`cli`] reads the command line and runs a local
//! cluster; [`log`] writes lines as Redis does. [`base`] has what everyone uses.

// Test harnesses that `tests/` includes as well name the crate as it is named there.
#[cfg(test)]
extern crate self as redynamo;

pub mod base;
pub mod causality;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod env;
pub mod log;
pub mod metrics;
pub mod model;
pub mod node;
pub mod peer;
pub mod replica;
pub mod replication;
pub mod resp;
pub mod ring;
pub mod runtime;
pub mod server;
pub mod sim;
pub mod storage;
