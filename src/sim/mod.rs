//! A whole cluster in one thread, ruled by a seed: the test world.
//!
//! It is part of the library because it assembles the same rooms as production does, and because integration tests and
//! people who chase a failing seed need it; nothing of a server refers to it.
//!
//! ```text
//! run(seed) ─▶ Config::draw ─▶ World: Net (real frames) · SimEnv (clock, chance, tasks) · Disk (unsynced tails)
//!                  chaos: Clients ∥ Nemesis      calm: heal all      checks: History, Oracle, World
//! ```
//!
//! Time is tokio's, paused: it moves on only when nobody has anything to do. Chance comes from the seed alone, every order
//! that can be seen is that of ordered maps, and so one seed is one run.
//!
//! Deliberately absent: sockets, threads, RESP, and real disks; processes are tested elsewhere.

mod ambush;
pub mod check;
pub mod client;
pub mod collections;
pub mod config;
pub mod disk;
pub mod env;
pub mod history;
pub mod losses;
pub mod nemesis;
pub mod net;
pub mod oracle;
pub mod plant;
pub mod run;
pub mod sequential;
pub mod workload;
pub mod world;

pub use config::Config;
pub use plant::Plant;
pub use run::{Choice, Report, run};
pub use world::World;
