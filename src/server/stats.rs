//! What was done, counted where it happens: per command calls, time and failures; bytes and connections.
//!
//! Plain atomics, found by the address of the command's declaration; INFO, LATENCY and /metrics read them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::commands::spec::{Across, Combine, Run};
use crate::commands::{Spec, everything};
use crate::resp::Reply;

/// Upper bounds of the latency buckets, in microseconds; what is above the last counts without a bound.
pub const BUCKETS_US: [u64; 16] =
    [25, 50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200, 102_400, 409_600, 1_638_400, 6_553_600];

/// A number that only grows until it is reset.
#[derive(Debug, Default)]
pub struct Sum(AtomicU64);

impl Sum {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Back to 0.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// One command's share.
#[derive(Debug, Default)]
pub struct CommandStats {
    /// Calls that ran.
    pub calls: Sum,
    /// Time they took, in microseconds.
    pub usec: Sum,
    /// Calls that ran and answered an error.
    pub failed: Sum,
    /// Calls that were refused before they ran.
    pub rejected: Sum,
    /// Calls by how long they took: up to each of [`BUCKETS_US`], then those above.
    pub buckets: [Sum; BUCKETS_US.len() + 1],
}

/// Everything that a server counts.
#[derive(Debug)]
pub struct Stats {
    commands: HashMap<usize, (&'static Spec, CommandStats)>,
    /// Connections accepted.
    pub connections: Sum,
    /// Connections refused.
    pub rejected_connections: Sum,
    /// Bytes read from clients.
    pub input_bytes: Sum,
    /// Bytes written to clients.
    pub output_bytes: Sum,
    /// Reads from clients' sockets.
    pub reads: Sum,
    /// Writes to clients' sockets.
    pub writes: Sum,
    /// Keys that a command asked for and found.
    pub hits: Sum,
    /// Keys that a command asked for and did not find.
    pub misses: Sum,
    /// Requests that named no command.
    pub unknown_commands: Sum,
    /// Error replies, by their code.
    pub errors: dashmap::DashMap<String, u64>,
}

impl Stats {
    /// Nothing counted yet.
    #[expect(clippy::new_without_default, reason = "it is built from the command tables, which is worth saying")]
    pub fn new() -> Self {
        Stats {
            commands: everything().map(|spec| (address(spec), (spec, CommandStats::default()))).collect(),
            connections: Sum::default(),
            rejected_connections: Sum::default(),
            input_bytes: Sum::default(),
            output_bytes: Sum::default(),
            reads: Sum::default(),
            writes: Sum::default(),
            hits: Sum::default(),
            misses: Sum::default(),
            unknown_commands: Sum::default(),
            errors: dashmap::DashMap::new(),
        }
    }

    /// Counts a call that ran.
    pub fn ran(&self, spec: &'static Spec, took: Duration, failed: bool) {
        let Some((_, stats)) = self.commands.get(&address(spec)) else { return };
        let micros = took.as_micros() as u64;
        stats.calls.add(1);
        stats.usec.add(micros);
        stats.failed.add(failed.into());
        stats.buckets[BUCKETS_US.partition_point(|bound| *bound < micros)].add(1);
    }

    /// Counts the keys that a read found, as far as its reply tells: values there and not there. What answers a number
    /// (EXISTS, STRLEN) tells nothing.
    pub fn looked_up(&self, spec: &Spec, reply: &Reply) {
        if !matches!(spec.run, Run::Read(_)) {
            return;
        }
        match reply {
            Reply::Bulk(_) => self.hits.add(1),
            Reply::Nil => self.misses.add(1),
            Reply::Array(values) if spec.across == Across::Split(Combine::Interleave) => {
                let misses = values.iter().filter(|value| **value == Reply::Nil).count() as u64;
                self.misses.add(misses);
                self.hits.add(values.len() as u64 - misses);
            }
            _ => {}
        }
    }

    /// Counts a call that was refused before it ran.
    pub fn rejected(&self, spec: &'static Spec) {
        if let Some((_, stats)) = self.commands.get(&address(spec)) {
            stats.rejected.add(1);
        }
    }

    /// Counts an error reply by its code: the first word.
    pub fn error(&self, text: &[u8]) {
        let code = text.split(|byte| *byte == b' ').next().unwrap_or_default();
        // Codes are ours and few; a forged one cannot come in through here without bound.
        if self.errors.len() < 128 {
            *self.errors.entry(String::from_utf8_lossy(code).into_owned()).or_default() += 1;
        }
    }

    /// Every command with what is counted of it.
    pub fn commands(&self) -> impl Iterator<Item = &(&'static Spec, CommandStats)> {
        self.commands.values()
    }

    /// Calls of all commands that ran.
    pub fn total_calls(&self) -> u64 {
        self.commands().map(|(_, stats)| stats.calls.get()).sum()
    }

    /// Starts again (CONFIG RESETSTAT).
    pub fn reset(&self) {
        for (_, stats) in self.commands() {
            [&stats.calls, &stats.usec, &stats.failed, &stats.rejected].into_iter().for_each(Sum::reset);
            stats.buckets.iter().for_each(Sum::reset);
        }
        let sums = [
            &self.connections,
            &self.rejected_connections,
            &self.input_bytes,
            &self.output_bytes,
            &self.reads,
            &self.writes,
            &self.hits,
            &self.misses,
            &self.unknown_commands,
        ];
        sums.into_iter().for_each(Sum::reset);
        self.errors.clear();
    }
}

/// Every declaration comes out of one static table, where it stays: its address names it.
fn address(spec: &'static Spec) -> usize {
    std::ptr::from_ref(spec).addr()
}
