//! Every metric, declared once: name, help, and where it is counted. What is counted on the way of a request is a plain
//! atomic here; [`publish`] hands all of them to the exporter when it is asked, so that a request never pays for a
//! registry.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
pub struct Count {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Count {
    const fn new(name: &'static str, help: &'static str) -> Count {
        Count { name, help, value: AtomicU64::new(0) }
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it counts, in a sentence.
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Starts again at 0 (CONFIG RESETSTAT).
    pub fn reset(&self) {
        self.value.store(0, Ordering::Relaxed);
    }
}

macro_rules! counts {
    ($($name:ident = $text:literal, $help:literal;)*) => {
        $(#[doc = $help] pub static $name: Count = Count::new($text, $help);)*

        /// All counts.
        pub static COUNTS: &[&Count] = &[$(&$name),*];
    };
}

counts! {
    FORWARDS = "redynamo_forwards_total", "Commands sent on to their coordinator.";
    READ_REPAIRS = "redynamo_read_repairs_total", "Rows that a read found different on two replicas.";
    READ_QUORUM_FAILURES = "redynamo_read_quorum_failures_total", "Reads refused because too few replicas answered.";
    WRITE_QUORUM_FAILURES = "redynamo_write_quorum_failures_total", "Writes refused because too few replicas were reachable.";
    UNKNOWN_OUTCOMES = "redynamo_unknown_outcomes_total", "Writes answered with an unknown outcome.";
    EXPIRED_KEYS = "redynamo_expired_keys_total", "Keys deleted because their deadline had passed.";
    GAPS = "redynamo_gaps_total", "Deltas that came before an earlier one of the same row.";
    SYNCED_ROWS = "redynamo_sync_rows_total", "Rows changed by syncs.";
    SYNCED_REGIONS = "redynamo_sync_regions_total", "Regions made equal with a peer.";
    PEER_INPUT_BYTES = "redynamo_peer_input_bytes_total", "Bytes received from other nodes.";
    PEER_OUTPUT_BYTES = "redynamo_peer_output_bytes_total", "Bytes sent to other nodes.";
    CLOCK_SKEW_REJECTED = "redynamo_clock_skew_rejected_total", "Stamps of peers that lay too far ahead to be learned from.";
}

/// Tells the exporter names, help texts and values of all counts.
pub fn publish() {
    for count in COUNTS {
        metrics::describe_counter!(count.name, count.help);
        metrics::counter!(count.name).absolute(count.get());
    }
}
