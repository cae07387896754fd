//! Every metric, declared once: name, kind, labels, help. A name says its unit, as Prometheus asks for: `_seconds` and
//! `_bytes` are the only ones, `_total` marks counters, `_info` what is always 1.
//!
//! What is counted on the way of a request is a plain atomic here ([`COUNTS`]); everything else ([`FAMILIES`]) is looked
//! up when somebody asks. Both come together on a [`Page`], made anew for each scrape, so that a request never pays for a
//! registry and no series outlives what it describes.
//!
//! Deliberately absent: labels whose values clients or their number choose (keys, clients, addresses).

mod page;

use std::sync::atomic::{AtomicU64, Ordering};

pub use page::{Page, Timings};

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until it is reset.
    Counter,
    /// The same, with fractions.
    Fractions,
    /// It goes up and down.
    Gauge,
    /// Counts by how large what was observed is.
    Histogram,
}

/// A metric's declaration.
#[derive(Debug)]
pub struct Metric {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// A number that only grows, counted where it happens.
#[derive(Debug)]
pub struct Count {
    metric: Metric,
    value: AtomicU64,
}

impl Count {
    const fn new(name: &'static str, help: &'static str) -> Count {
        Count { metric: Metric { name, kind: Kind::Counter, labels: &[], help }, value: AtomicU64::new(0) }
    }

    /// Its declaration.
    pub fn metric(&self) -> &Metric {
        &self.metric
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

/// A number for each value of a label that has few; counted where it happens, as [`Count`] is.
#[derive(Debug)]
pub struct Split {
    metric: Metric,
    values: &'static [&'static str],
    counts: [AtomicU64; MOST_VALUES],
}

/// Values that the label of a [`Split`] may have.
const MOST_VALUES: usize = 8;

impl Split {
    const fn new(
        name: &'static str,
        labels: &'static [&'static str],
        values: &'static [&'static str],
        help: &'static str,
    ) -> Split {
        assert!(values.len() <= MOST_VALUES && labels.len() == 1, "a label with few values");
        let metric = Metric { name, kind: Kind::Counter, labels, help };
        Split { metric, values, counts: [const { AtomicU64::new(0) }; MOST_VALUES] }
    }

    /// Its declaration.
    pub fn metric(&self) -> &Metric {
        &self.metric
    }

    /// Each value of its label with the count so far.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.values.iter().zip(&self.counts).map(|(value, count)| (*value, count.load(Ordering::Relaxed)))
    }

    fn add(&self, value: usize, n: u64) {
        if let Some(count) = self.counts.get(value) {
            count.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Starts again at 0.
    pub fn reset(&self) {
        self.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }
}

/// What showed that a row was behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A read that asked several replicas.
    Read,
    /// A sync.
    Sync,
    /// A hint that was delivered.
    Hint,
    /// A change that came before an earlier one of its row.
    Gap,
}

/// Rows were made whole that were behind.
pub fn repaired(cause: Cause, rows: u64) {
    REPAIRED_ROWS.add(cause as usize, rows);
}

/// Sets everything back that is counted here (CONFIG RESETSTAT).
pub fn reset() {
    COUNTS.iter().for_each(|count| count.reset());
    SPLITS.iter().for_each(|split| split.reset());
}

macro_rules! counts {
    ($($name:ident = $text:literal, $help:literal;)*) => {
        $(#[doc = $help] pub static $name: Count = Count::new($text, $help);)*

        /// All counts.
        pub static COUNTS: &[&Count] = &[$(&$name),*];
    };
}

macro_rules! splits {
    ($($name:ident = $text:literal $label:literal $values:expr, $help:literal;)*) => {
        $(#[doc = $help] pub static $name: Split = Split::new($text, &[$label], &$values, $help);)*

        /// All counts that are split by a label.
        pub static SPLITS: &[&Split] = &[$(&$name),*];
    };
}

macro_rules! families {
    ($($name:ident: $kind:ident = $text:literal $labels:expr, $help:literal;)*) => {
        $(#[doc = $help] pub static $name: Metric =
            Metric { name: $text, kind: Kind::$kind, labels: &$labels, help: $help };)*

        /// Everything that is looked up when somebody asks.
        pub static FAMILIES: &[&Metric] = &[$(&$name),*];
    };
}

counts! {
    FORWARDS = "redynamo_forwards_total", "Commands sent on to their coordinator.";
    SECOND_HOPS = "redynamo_second_hops_total", "Of these, commands that had been sent on once before, by a node that did not know better.";
    NUDGES = "redynamo_nudges_total", "Cluster clients told to ask for the slots anew, by one MOVED each.";
    PUBLISHED = "redynamo_published_total", "Messages published at this node, keyspace events among them.";
    HEDGED_READS = "redynamo_hedged_reads_total", "Replicas asked in addition because another took long.";
    HEDGES_WON = "redynamo_hedges_won_total", "Replicas asked in addition that answered while the slow one had not.";
    READ_QUORUM_FAILURES = "redynamo_read_quorum_failures_total", "Reads refused because too few replicas answered.";
    WRITE_QUORUM_FAILURES = "redynamo_write_quorum_failures_total", "Writes refused because too few replicas were reachable.";
    UNKNOWN_OUTCOMES = "redynamo_unknown_outcomes_total", "Writes answered with an unknown outcome.";
    HINTS_SENT = "redynamo_hints_sent_total", "Changes that a stand-in was told in place of an owner.";
    OVERLOADS = "redynamo_overloads_total", "Commands refused because too many were being coordinated.";
    TERMS_CLAIMED = "redynamo_terms_claimed_total", "Terms that this node claimed in order to coordinate a partition.";
    DEPOSALS = "redynamo_deposals_total", "Writes of this node that met a later coordinator.";
    CONFLICTS = "redynamo_conflicts_total", "Conditional writes of this node that met versions which it had not seen.";
    EXPIRED_KEYS = "redynamo_expired_keys_total", "Keys deleted because their deadline had passed.";
    SIBLINGS_MADE = "redynamo_siblings_made_total", "Rows of this node that went from one value, or none, to several.";
    GAPS = "redynamo_gaps_total", "Deltas that came before an earlier one of the same row.";
    HINTS_SKIPPED = "redynamo_hints_skipped_total", "Deltas kept for an owner that is away without a hint, since there were too many.";
    HINTS_DELIVERED = "redynamo_hints_delivered_total", "Hints that their owners, back again, have acknowledged.";
    REGIONS_GIVEN_BACK = "redynamo_regions_given_back_total", "Regions that owners have pulled from this node, which stood in, before it forgot them.";
    SYNCED_REGIONS = "redynamo_sync_regions_total", "Regions made equal with a peer.";
    PEER_REQUESTS_REFUSED = "redynamo_peer_requests_refused_total", "Requests that were not sent to another node because too many waited for it.";
    PEER_INPUT_BYTES = "redynamo_peer_input_bytes_total", "Bytes received from other nodes.";
    PEER_OUTPUT_BYTES = "redynamo_peer_output_bytes_total", "Bytes sent to other nodes.";
    STORE_RECOVERIES = "redynamo_store_recoveries_total", "Times that a store which had failed was opened again.";
    CLOCK_SKEW_REJECTED = "redynamo_clock_skew_rejected_total", "Stamps of peers that lay too far ahead to be learned from.";
}

splits! {
    REPAIRED_ROWS = "redynamo_repaired_rows_total" "cause" ["read", "sync", "hint", "gap"], "Rows that were behind and were made whole, by what showed it.";
}

families! {
    BUILD_INFO: Gauge = "redynamo_build_info" ["version"], "Version of the program, in a label; always 1.";
    NODE_INFO: Gauge = "redynamo_node_info" ["node_id", "node_name", "zone", "cluster"], "This node, in labels; always 1.";
    READY: Gauge = "redynamo_ready" [], "1 if the node holds what it should and coordinates its partitions.";
    WRITABLE: Gauge = "redynamo_writable" [], "1 if the node's store takes writes.";

    COMMANDS: Counter = "redynamo_commands_total" ["cmd", "outcome"], "Commands by name and by what became of them: ok, error, or rejected before they ran.";
    COMMAND_DURATION: Histogram = "redynamo_command_duration_seconds" ["class"], "Time from a command's turn to its reply, by what it does: read, write, other.";
    ERRORS: Counter = "redynamo_error_replies_total" ["code"], "Error replies by their code.";
    KEY_HITS: Counter = "redynamo_key_hits_total" [], "Keys that reads found.";
    KEY_MISSES: Counter = "redynamo_key_misses_total" [], "Keys that reads did not find.";
    SLOW_COMMANDS: Gauge = "redynamo_slow_log_entries" [], "Commands in the slow log.";

    CONNECTIONS: Gauge = "redynamo_connections" [], "Clients connected.";
    CONNECTIONS_LIMIT: Gauge = "redynamo_connections_limit" [], "Clients that may be connected at once.";
    CONNECTIONS_ACCEPTED: Counter = "redynamo_connections_accepted_total" [], "Connections of clients that were accepted.";
    CONNECTIONS_REJECTED: Counter = "redynamo_connections_rejected_total" [], "Connections of clients that were turned away.";
    CLIENT_INPUT_BYTES: Counter = "redynamo_client_input_bytes_total" [], "Bytes received from clients.";
    CLIENT_OUTPUT_BYTES: Counter = "redynamo_client_output_bytes_total" [], "Bytes sent to clients.";

    NODES: Gauge = "redynamo_nodes" ["state"], "Members as this node sees them: live or down.";
    LONELY: Gauge = "redynamo_lonely" [], "1 if the node had live peers and now none of the other members answers.";
    LAYOUT_DISPUTES: Gauge = "redynamo_layout_disputes" [], "Members that know the same members as this node and have another layout.";
    REPLICAS: Gauge = "redynamo_replicas" [], "Owners that each partition should have.";
    PARTITIONS: Gauge = "redynamo_partitions" ["role"], "Partitions that this node owns, and those that it coordinates.";
    PARTITIONS_UNSETTLED: Gauge = "redynamo_partitions_unsettled" [], "Partitions that this node coordinates, but not on its own word yet.";
    LAYOUT_VERSION: Gauge = "redynamo_layout_version" [], "Version of the layout.";

    ADMISSION_SLICE: Gauge = "redynamo_admission_slice_bytes" [], "Bytes a second that background work may take now.";
    ADMISSION_REASON: Gauge = "redynamo_admission_reason" ["reason"], "1 for why background work may take that: idle, growing, latency, floor, listening, unlimited.";
    ADMISSION_THROTTLED: Fractions = "redynamo_admission_throttled_seconds_total" [], "Time that background work was held back for, all of it together.";
    FOREGROUND: Gauge = "redynamo_foreground_p99_seconds" [], "What 99 of 100 commands did not exceed lately; 0 if there were few.";
    FOREGROUND_CALM: Gauge = "redynamo_foreground_calm_p99_seconds" [], "The same without background work; 0 if that is not known.";
    FOREGROUND_LIMIT: Gauge = "redynamo_foreground_limit_p99_seconds" [], "What background work leaves to the foreground; 0 if that is not known.";
    COUNTED: Gauge = "redynamo_counted" [], "1 if this node counts in quorums: it has lost nothing and its store takes writes.";
    AMNESIAC: Gauge = "redynamo_amnesiac" [], "1 if this node may have lost what it acknowledged and has not caught up yet.";
    ALONE: Gauge = "redynamo_alone" [], "1 if there are other members and this node reaches none of them.";
    HINTS_PENDING: Gauge = "redynamo_hints_pending" ["node"], "Changes kept for another node that is, or was, away.";
    HINTS_BYTES: Gauge = "redynamo_hints_bytes" ["node"], "Bytes of changes kept for another node.";
    HINTS_OLDEST: Gauge = "redynamo_hints_oldest_age_seconds" ["node"], "How long ago the oldest change was kept that another node has not got yet; 0 if there is none.";
    UNVERIFIED_OLDEST: Gauge = "redynamo_unverified_oldest_age_seconds" [], "How long ago that pair of a partition and another owner was compared which was compared longest ago.";
    UNVERIFIED_OVERDUE: Gauge = "redynamo_unverified_overdue" [], "Pairs of a partition and another owner that were not compared within twice the time that is set.";
    PEER_PHI: Gauge = "redynamo_peer_phi" ["node"], "How unlikely another node's silence is, as a power of ten; from 8 on it is taken for away.";
    PEER_ROUND_TRIP_MEAN: Gauge = "redynamo_peer_round_trip_mean_seconds" ["node"], "Time to an answer of another node lately, in the mean; 0 if it was not asked.";
    PEER_ROUND_TRIP_P99: Gauge = "redynamo_peer_round_trip_p99_seconds" ["node"], "What 99 of 100 answers of another node did not exceed lately; 0 if it was hardly asked.";

    KEYS: Gauge = "redynamo_keys" ["db"], "Keys of the whole cluster by database.";
    KEYS_EXPIRING: Gauge = "redynamo_keys_expiring" ["db"], "Keys of the whole cluster that have a deadline, by database.";
    SIBLING_KEYS: Gauge = "redynamo_sibling_keys" ["db"], "Keys of the whole cluster that have several values, by database.";

    ROW_CACHE_BYTES: Gauge = "redynamo_row_cache_bytes" [], "Bytes of decoded rows kept in memory.";
    ROW_CACHE_MISSES: Counter = "redynamo_row_cache_misses_total" [], "Point reads that the store had to answer.";
    MEMORY_ALLOCATED: Gauge = "redynamo_memory_allocated_bytes" [], "Bytes that the program has allocated.";

    COMMIT_BATCHES: Counter = "redynamo_commit_batches_total" [], "Batches written to the store.";
    COMMIT_ROWS: Counter = "redynamo_commit_rows_total" [], "Rows written to the store: divided by batches, the size of a group commit.";
    COMMIT_SYNCS: Counter = "redynamo_commit_syncs_total" [], "Times the store was forced to disk.";
    COMMIT_PENDING_BYTES: Gauge = "redynamo_commit_pending_bytes" [], "Bytes that wait to be written to the store.";
    COMMIT_PENDING: Gauge = "redynamo_commit_pending_submissions" [], "Changes that are in memory and not in the store yet.";
    COMMIT_UNSYNCED: Gauge = "redynamo_commit_unsynced_submissions" [], "Changes that are in the store and not forced to disk yet.";

    STORAGE_DISK_BYTES: Gauge = "redynamo_storage_disk_bytes" [], "Bytes on disk, journals included.";
    STORAGE_JOURNAL_BYTES: Gauge = "redynamo_storage_journal_bytes" [], "Bytes of journals on disk.";
    STORAGE_JOURNALS: Gauge = "redynamo_storage_journals" [], "Journals on disk.";
    STORAGE_MEMTABLE_BYTES: Gauge = "redynamo_storage_memtable_bytes" [], "Bytes of rows in memory that are not in sorted files yet.";
    STORAGE_FLUSHES_PENDING: Gauge = "redynamo_storage_flushes_pending" [], "Full journals whose rows wait to be written into sorted files.";
    STORAGE_TABLES: Gauge = "redynamo_storage_tables" [], "Sorted files on disk.";
    STORAGE_COMPACTIONS_RUNNING: Gauge = "redynamo_storage_compactions_running" [], "Compactions that run now.";
    STORAGE_COMPACTIONS: Counter = "redynamo_storage_compactions_total" [], "Compactions done.";
    STORAGE_COMPACTION_SECONDS: Fractions = "redynamo_storage_compaction_seconds_total" [], "Time spent compacting.";
    STORAGE_CACHE_BYTES: Gauge = "redynamo_storage_cache_bytes" [], "Bytes in the store's cache of blocks.";
    STORAGE_CACHE_LIMIT_BYTES: Gauge = "redynamo_storage_cache_limit_bytes" [], "Most bytes that the store's cache of blocks may take.";

    DISK_FREE_BYTES: Gauge = "redynamo_disk_free_bytes" [], "Bytes that are free on the disk of the data directory.";

    PROCESS_CPU_SECONDS: Fractions = "process_cpu_seconds_total" [], "Processor time in the program and in the kernel.";
    PROCESS_RESIDENT_BYTES: Gauge = "process_resident_memory_bytes" [], "Resident memory.";
    PROCESS_VIRTUAL_BYTES: Gauge = "process_virtual_memory_bytes" [], "Address space.";
    PROCESS_OPEN_FDS: Gauge = "process_open_fds" [], "Open file descriptors.";
    PROCESS_MAX_FDS: Gauge = "process_max_fds" [], "Most file descriptors that may be open.";
    PROCESS_START_SECONDS: Gauge = "process_start_time_seconds" [], "When the process started, since the epoch.";
}

/// Every metric there is.
pub fn declared() -> impl Iterator<Item = &'static Metric> {
    let counts = COUNTS.iter().map(|count| count.metric()).chain(SPLITS.iter().map(|split| split.metric()));
    counts.chain(FAMILIES.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_name_is_declared_twice() {
        let names: BTreeSet<_> = declared().map(|metric| metric.name).collect();
        assert_eq!(names.len(), declared().count());
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        for Metric { name, kind, .. } in declared() {
            assert!(name.starts_with("redynamo_") || name.starts_with("process_"), "{name}");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
                "{name}"
            );
            let counts = matches!(kind, Kind::Counter | Kind::Fractions);
            assert_eq!(name.ends_with("_total"), counts, "{name}: counters end in _total, nothing else does");
            for ending in ["_sum", "_count", "_bucket"] {
                assert!(!name.ends_with(ending), "{name}: the parts of histograms end so");
            }
            let odd_units = ["_ms", "_us", "_micros", "_millis", "_kb", "_mb", "_minutes", "_percent"];
            assert!(!odd_units.iter().any(|unit| name.contains(unit)), "{name}: base units only");
            // Points in time are gauges, and durations that say which: ages and estimates. Others are histograms or sums.
            let is_gauge = ["_time_", "_age_", "_mean_", "_p99_"].iter().any(|word| name.contains(word));
            let is_duration = name.contains("_seconds") && !is_gauge;
            assert_eq!(is_duration, matches!(kind, Kind::Histogram | Kind::Fractions), "{name}");
        }
    }

    #[test]
    fn labels_are_words_and_help_is_a_sentence() {
        for Metric { name, labels, help, .. } in declared() {
            assert!(
                help.ends_with('.') && help.starts_with(|first: char| first.is_ascii_uppercase() || first == '1'),
                "{name}: {help}"
            );
            for label in *labels {
                assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}: {label}");
                assert!(
                    !["le", "quantile", "instance", "job", "key", "client", "user"].contains(label),
                    "{name}: {label}"
                );
            }
        }
    }
}
