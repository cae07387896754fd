//! Real processes under real faults: every node in a network namespace of its own, cut off, slowed, killed, paused,
//! emptied, filled up and given a wrong time, while clients write; afterwards everything acknowledged is there, nothing
//! deleted is, and all owners are equal.
//!
//! Needs Linux, the right to make namespaces (root, or user namespaces), and `ip`, `iptables`, `nsenter`, `unshare`;
//! wrong times need libfaketime (Debian: packages `iproute2 iptables faketime`). Where that is missing the tests say so in
//! a line and pass.
//!
//! ```text
//! cargo test --release --test faults                    a few minutes of everything
//! REDYNAMO_SOAK_MINUTES=60 cargo test --release --test faults every_fault -- --nocapture
//! ```
//!
//! The second soaks for an hour, with a tally every minute and a report at the end, and fails at the first violation;
//! `REDYNAMO_SEED=n` draws the same faults again (when what happens still depends on the machine), and
//! `REDYNAMO_SOAK_NODES=n` takes another number of nodes than five. Logs and data of a run that failed are kept where its
//! last line says.

#![allow(clippy::unwrap_used, reason = "this whole file is a test")]

mod arena;
mod check;
mod client;
mod cluster;
mod experiment;
mod load;
mod logbook;
mod mixed;
mod nemesis;
mod net;
mod node;
mod planted;
mod probes;

#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/place.rs"]
mod place;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../common/wire.rs"]
mod wire;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}
