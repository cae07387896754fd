//! What this node knows of itself, put together for INFO, MEMORY, LATENCY and their kin.

use std::collections::BTreeMap;

use super::Server;
use super::stats::{BUCKETS_US, CommandStats, Stats, Sum};
use super::system::{self, Process};
use crate::base::id::NodeId;
use crate::cluster::view::Standing;
use crate::commands::facts::{
    ClientsFacts, ClusterFacts, ClusterNode, CommandFacts, Facts, Histogram, KeyspaceFacts, MemoryFacts,
    PersistenceFacts, ServerFacts, StatsFacts,
};
use crate::commands::host::Host;
use crate::commands::info::OWN_VERSION;
use crate::config::Supervised;
use crate::metrics;
use crate::node::Node;
use crate::replica::HintStats;
use crate::storage::Usage;

/// Everything.
pub fn of(server: &Server) -> Facts {
    let process = Process::read();
    let usage = server.node().replica().store().usage();
    let keyspace = server.keyspace();
    Facts {
        server: server_facts(server),
        clients: clients(server),
        memory: memory(server, &process),
        persistence: persistence(server, &usage),
        stats: stats(server),
        cpu: process.cpu(),
        commands: commands(&server.stats),
        errors: errors(&server.stats),
        own: own(server, &usage, &keyspace),
        keyspace,
    }
}

/// The cluster as its other face shows it.
pub fn cluster(node: &Node) -> ClusterFacts {
    let view = node.coordinator.view.load();
    let members = view.nodes.values().filter(|standing| standing.member.cluster_port > 0);
    let nodes: Vec<ClusterNode> = members
        .map(|Standing { member, live, .. }| ClusterNode {
            // A node's own id, filled up to the length that clients know.
            id: format!("{:016x}{:024}", member.id.0, 0),
            name: member.name.clone(),
            host: member.host.clone(),
            port: member.cluster_port,
            peer_port: member.peer_port,
            started_ms: member.incarnation,
            live: *live,
            myself: member.id == view.me,
        })
        .collect();
    let ids: Vec<NodeId> = view
        .nodes
        .values()
        .filter(|standing| standing.member.cluster_port > 0)
        .map(|standing| standing.member.id)
        .collect();
    let place = |id: NodeId| ids.iter().position(|known| *known == id);
    let slots = view.slots.ranges.iter().filter_map(|range| Some((range.first, range.last, place(range.node)?)));
    ClusterFacts { slots: slots.collect(), nodes, hash: view.slots.hash }
}

fn server_facts(server: &Server) -> ServerFacts {
    let path = |path: &std::path::Path| path.display().to_string();
    ServerFacts {
        cluster_face: false,
        os: system::os(),
        supervised: supervised(server.settings.config().supervised),
        process_id: std::process::id(),
        run_id: server.run_id.clone(),
        tcp_port: server.settings.config().port.unwrap_or(0),
        now_us: server.now_us(),
        uptime_s: server.started.elapsed().as_secs(),
        executable: std::env::current_exe().map(|exe| path(&exe)).unwrap_or_default(),
        config_file: server.settings.file().map(path).unwrap_or_default(),
    }
}

/// In the words of Redis. Upstart is never told anything.
fn supervised(by: Supervised) -> &'static str {
    match by {
        Supervised::Systemd => "systemd",
        Supervised::Auto => "unknown",
        Supervised::No | Supervised::Upstart => "no",
    }
}

fn clients(server: &Server) -> ClientsFacts {
    let all = server.clients();
    let most = |size: fn(&crate::commands::facts::ClientFacts) -> u64| all.iter().map(size).max().unwrap_or(0);
    ClientsFacts {
        connected: server.clients.len() as u64,
        max: server.settings.config().maxclients.into(),
        blocked: 0,
        max_input_buffer: most(|client| client.query_buffer),
        max_output_buffer: most(|client| client.output_buffer_peak),
    }
}

fn memory(server: &Server, process: &Process) -> MemoryFacts {
    let facts = system::allocator();
    let (peak, startup) = {
        let mut samples = server.samples.lock();
        (samples.note_memory(facts.used), samples.startup)
    };
    let total_system = system::total_memory();
    // Where the machine does not say what it has, what is taken is the least that it has.
    let limit = server.settings.config().maxmemory.unwrap_or(total_system.max(facts.used).max(1));
    MemoryFacts {
        peak,
        startup,
        rss: process.resident,
        total_system,
        limit,
        clients: server.clients().iter().map(|client| client.total_memory).sum(),
        dataset: server.node().replica().cache_bytes(),
        ..facts
    }
}

fn persistence(server: &Server, usage: &Usage) -> PersistenceFacts {
    let committer = server.node().replica().committer().clone();
    PersistenceFacts {
        // Clients are served only once everything is read.
        loading: false,
        unsynced_changes: committer.last().0.saturating_sub(committer.synced().0),
        last_sync_s: server.synced_s(server.samples.lock().synced_s),
        writable: server.node().replica().check_healthy().is_ok(),
        disk_bytes: usage.disk_bytes,
        buffered_bytes: committer.bytes_pending() as u64,
        delayed_syncs: 0,
    }
}

fn stats(server: &Server) -> StatsFacts {
    let stats = &server.stats;
    let [channels, patterns, shards] = server.pubsub.counts();
    let (commands_per_s, input_per_s, output_per_s) = {
        let samples = server.samples.lock();
        (samples.commands_per_s, samples.input_per_s, samples.output_per_s)
    };
    StatsFacts {
        channels,
        patterns,
        shards,
        connections: stats.connections.get(),
        rejected_connections: stats.rejected_connections.get(),
        commands: stats.total_calls(),
        commands_per_s,
        net_input_bytes: stats.input_bytes.get(),
        net_output_bytes: stats.output_bytes.get(),
        peer_input_bytes: metrics::PEER_INPUT_BYTES.get(),
        peer_output_bytes: metrics::PEER_OUTPUT_BYTES.get(),
        input_kbps: input_per_s / 1024.0,
        output_kbps: output_per_s / 1024.0,
        expired_keys: metrics::EXPIRED_KEYS.get(),
        keyspace_hits: stats.hits.get(),
        keyspace_misses: stats.misses.get(),
        error_replies: errors(stats).into_iter().map(|(_, count)| count).sum(),
        reads: stats.reads.get(),
        writes: stats.writes.get(),
    }
}

fn errors(stats: &Stats) -> Vec<(String, u64)> {
    let sorted: BTreeMap<String, u64> =
        stats.errors.iter().map(|entry| (entry.key().clone(), *entry.value())).collect();
    sorted.into_iter().collect()
}

fn commands(stats: &Stats) -> Vec<CommandFacts> {
    let called = stats.commands().filter(|(_, stats)| stats.calls.get() + stats.rejected.get() > 0);
    let mut facts: Vec<CommandFacts> = called
        .map(|(spec, stats)| CommandFacts {
            name: spec.full_name(),
            calls: stats.calls.get(),
            usec: stats.usec.get(),
            rejected: stats.rejected.get(),
            failed: stats.failed.get(),
            percentiles: percentiles(stats),
        })
        .collect();
    facts.sort_by(|a, b| a.name.cmp(&b.name));
    facts
}

/// How long calls took, per command that was called, in the order of their names. Calls beyond the last bound are in the
/// sum of calls only.
pub fn histograms(stats: &Stats) -> Vec<Histogram> {
    let called = stats.commands().filter(|(_, stats)| stats.calls.get() > 0);
    let mut all: Vec<Histogram> = called
        .map(|(spec, stats)| Histogram {
            command: spec.full_name(),
            calls: stats.calls.get(),
            cumulative: grown(cumulative(stats)),
        })
        .collect();
    all.sort_by(|a, b| a.command.cmp(&b.command));
    all
}

/// Bounds in microseconds, each with the calls that took at most that long.
pub fn cumulative(stats: &CommandStats) -> impl Iterator<Item = (u64, u64)> {
    let counts = stats.buckets.iter().map(Sum::get).scan(0u64, |sum, count| {
        *sum = sum.saturating_add(count);
        Some(*sum)
    });
    BUCKETS_US.into_iter().zip(counts)
}

/// Only where the count grows.
fn grown(cumulative: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut before = 0;
    cumulative.filter(|(_, count)| std::mem::replace(&mut before, *count) < *count).collect()
}

/// Upper bounds of the buckets in which the percentiles lie: never less than the truth, up to the last bound.
fn percentiles(stats: &CommandStats) -> Option<[f64; 3]> {
    let calls: u64 = stats.buckets.iter().map(Sum::get).sum();
    if calls == 0 {
        return None;
    }
    let bounds: Vec<(u64, u64)> = cumulative(stats).collect();
    let last = BUCKETS_US.last().copied().unwrap_or_default();
    Some([0.5, 0.99, 0.999].map(|part| {
        let rank = (calls as f64 * part).ceil() as u64;
        bounds.iter().find(|(_, count)| *count >= rank).map_or(last, |(bound, _)| *bound) as f64
    }))
}

/// This store's own section.
fn own(server: &Server, usage: &Usage, keyspace: &[KeyspaceFacts]) -> Vec<(&'static str, String)> {
    let mut facts = identity(server);
    facts.extend(place(server));
    facts.push(("keys_with_siblings", keyspace.iter().map(|db| db.siblings).sum::<u64>().to_string()));
    facts.extend(disk(server, usage));
    facts.extend(replication());
    facts.extend(health(server));
    facts.extend(background(server));
    facts
}

fn identity(server: &Server) -> Vec<(&'static str, String)> {
    let config = server.settings.config();
    let member = server.node().member();
    let text = |get: fn(crate::cluster::Member) -> String| member.clone().map(get).unwrap_or_default();
    vec![
        ("redynamo_version", OWN_VERSION.to_owned()),
        ("node_id", server.node().me.to_string()),
        ("node_name", text(|member| member.name)),
        ("zone", text(|member| member.zone)),
        ("actor_id", server.node().replica().actor().to_string()),
        ("cluster_id", server.node().membership().cluster.to_string()),
        ("cluster_name", config.cluster_name.clone()),
    ]
}

fn place(server: &Server) -> Vec<(&'static str, String)> {
    let census = Census::of(server);
    let layout = server.node().coordinator.view.load().ring.clone();
    vec![
        ("ready", u8::from(server.node().is_ready()).to_string()),
        ("writes_refused", server.node().replica().check_healthy().err().map_or(String::new(), |why| why.to_string())),
        ("nodes", census.nodes.to_string()),
        ("nodes_live", census.live.to_string()),
        ("lonely", u8::from(server.node().is_lonely()).to_string()),
        ("layout_disputes", server.node().disputed().len().to_string()),
        ("replicas", layout.layout().replicas().to_string()),
        ("partitions", layout.partitions().count().to_string()),
        ("partitions_owned", census.owned.to_string()),
        ("partitions_coordinated", census.coordinated.to_string()),
        ("partitions_unsettled", census.unsettled.to_string()),
        ("layout_version", layout.layout().version().to_string()),
        ("layout_hash", format!("{:032x}", layout.hash())),
    ]
}

fn disk(server: &Server, usage: &Usage) -> Vec<(&'static str, String)> {
    let replica = server.node().replica().clone();
    let totals = replica.committer().totals();
    let numbers = [
        ("disk_free_bytes", server.free_disk()),
        ("storage_disk_bytes", usage.disk_bytes),
        ("storage_journal_bytes", usage.journal_bytes),
        ("storage_memtable_bytes", usage.memtable_bytes),
        ("storage_tables", usage.tables),
        ("storage_compactions_running", usage.compactions_running),
        ("storage_cache_bytes", usage.cache_bytes),
        ("row_cache_bytes", replica.cache_bytes()),
        ("row_cache_misses", replica.cache_misses()),
        ("commit_batches", totals.batches),
        ("commit_rows", totals.changes),
        ("commit_syncs", totals.syncs),
        ("commit_pending_bytes", replica.committer().bytes_pending() as u64),
        ("store_recoveries", metrics::STORE_RECOVERIES.get()),
    ];
    numbers.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

fn replication() -> Vec<(&'static str, String)> {
    let counts = [
        ("forwards", &metrics::FORWARDS),
        ("second_hops", &metrics::SECOND_HOPS),
        ("read_quorum_failures", &metrics::READ_QUORUM_FAILURES),
        ("write_quorum_failures", &metrics::WRITE_QUORUM_FAILURES),
        ("unknown_outcomes", &metrics::UNKNOWN_OUTCOMES),
        ("gaps", &metrics::GAPS),
        ("overloads", &metrics::OVERLOADS),
        ("terms_claimed", &metrics::TERMS_CLAIMED),
        ("terms_lost", &metrics::DEPOSALS),
        ("conflicts", &metrics::CONFLICTS),
        ("hints_sent", &metrics::HINTS_SENT),
        ("hints_skipped", &metrics::HINTS_SKIPPED),
        ("hedged_reads", &metrics::HEDGED_READS),
        ("hedges_won", &metrics::HEDGES_WON),
        ("siblings_made", &metrics::SIBLINGS_MADE),
        ("synced_regions", &metrics::SYNCED_REGIONS),
        ("hints_delivered", &metrics::HINTS_DELIVERED),
        ("regions_given_back", &metrics::REGIONS_GIVEN_BACK),
    ];
    let names = ["repaired_by_read", "repaired_by_sync", "repaired_by_hint", "repaired_by_gap"];
    let repaired =
        names.into_iter().zip(metrics::REPAIRED_ROWS.all()).map(|(name, (_, count))| (name, count.to_string()));
    counts.into_iter().map(|(name, count)| (name, count.get().to_string())).chain(repaired).collect()
}

/// What an operator looks at first: what is owed to others, and whether this node is well.
fn health(server: &Server) -> Vec<(&'static str, String)> {
    let (node, stats) = (&server.node(), server.node().replica().hint_stats());
    let sum = |of: fn(&HintStats) -> u64| stats.values().map(of).sum::<u64>().to_string();
    let status = node.sync_status();
    let flag = |yes: bool| u8::from(yes).to_string();
    let oldest = stats.values().map(|stats| stats.oldest_ms).filter(|ms| *ms > 0).min();
    let age = oldest.map_or(0, |ms| server.now_ms().saturating_sub(ms) / 1000);
    vec![
        ("counted", flag(node.health().counted)),
        ("amnesiac", flag(node.replica().is_amnesiac())),
        ("alone", flag(node.is_lonely())),
        ("hints", sum(|stats| stats.count)),
        ("hint_bytes", sum(|stats| stats.bytes)),
        ("hints_oldest_seconds", age.to_string()),
        ("oldest_unverified_seconds", status.oldest.map_or(0, |pair| pair.age.as_secs()).to_string()),
        ("sync_overdue", status.overdue.to_string()),
        ("sync_never", node.sync_pairs().iter().filter(|pair| !pair.once).count().to_string()),
    ]
}

fn background(server: &Server) -> Vec<(&'static str, String)> {
    let slice = server.node().coordinator.admission.slice();
    let micros = |time: Option<std::time::Duration>| time.map_or(0, |time| time.as_micros()).to_string();
    vec![
        ("background_bytes_per_second", slice.bytes_per_s.to_string()),
        ("background_reason", slice.reason.name().to_owned()),
        ("foreground_p99_us", micros(slice.foreground)),
        ("foreground_calm_p99_us", micros(slice.calm)),
        ("foreground_limit_us", micros(slice.limit)),
        ("background_waited_ms", server.node().coordinator.admission.throttled().as_millis().to_string()),
    ]
}

/// Nodes and partitions as this node sees them now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Census {
    /// Members.
    pub nodes: u64,
    /// Those that answer, this one included.
    pub live: u64,
    /// Partitions that this node owns.
    pub owned: u64,
    /// Those that it coordinates.
    pub coordinated: u64,
    /// Of these, those that it may not coordinate on its own word yet.
    pub unsettled: u64,
}

impl Census {
    /// Counts them.
    pub fn of(server: &Server) -> Census {
        let coordinator = server.node().coordinator.clone();
        let view = coordinator.view.load_full();
        let partitions = || view.ring.partitions().iter();
        let coordinated = || partitions().filter(|partition| view.coordinator(*partition) == Some(view.me));
        Census {
            nodes: view.nodes.len() as u64,
            live: view.nodes.values().filter(|standing| standing.live).count() as u64,
            owned: partitions().filter(|partition| view.owns(*partition)).count() as u64,
            coordinated: coordinated().count() as u64,
            unsettled: coordinated().filter(|partition| !coordinator.is_settled(*partition)).count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::find;
    use crate::commands::info::render;
    use crate::server::testing::{run, server, server_among};
    use std::time::Duration;

    fn info(server: &Server) -> BTreeMap<String, String> {
        let text = render(&of(server), &["everything".to_owned()]);
        let pairs = text.split("\r\n").filter(|line| !line.is_empty() && !line.starts_with('#'));
        pairs
            .map(|line| line.split_once(':').unwrap_or_else(|| panic!("{line:?} is no pair")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn info_is_pairs_and_tells_what_was_done() {
        let server = server();
        for command in ["set a 1", "set b 2 ex 100", "get a", "get missing", "mget a b missing", "set", "foo"] {
            run(&server, command);
        }
        let info = info(&server);
        let is = |name: &str, value: &str| assert_eq!(info.get(name).map(String::as_str), Some(value), "{name}");
        is("db0", "keys=2,expires=1,avg_ttl=0");
        is("keyspace_hits", "3");
        is("keyspace_misses", "2");
        is("total_commands_processed", "5");
        is("total_error_replies", "2");
        is("errorstat_ERR", "count=2");
        is("cmdstat_set", "calls=2,usec=120,usec_per_call=60.00,rejected_calls=1,failed_calls=0");
        is("latency_percentiles_usec_get", "p50=100.000,p99=100.000,p99.9=100.000");
        is("redynamo_version", OWN_VERSION);
        is("node_name", "node-1");
        is("partitions_owned", "16");
        is("ready", "1");
        is("loading", "0");
        is("process_supervised", "no");
        is("rdb_changes_since_last_save", "2");
    }

    #[test]
    fn keys_with_siblings_are_counted_over_all_databases() {
        let server = server();
        let shown = || info(&server).remove("keys_with_siblings");
        for command in ["set k a", "set other b"] {
            run(&server, command);
        }
        assert_eq!(shown().as_deref(), Some("0"));
        run(&server, "dynamo put k - b");
        assert_eq!(shown().as_deref(), Some("1"));
    }

    #[test]
    fn memory_has_a_limit_a_peak_and_a_size() {
        let server = server();
        let memory = of(&server).memory;
        assert!(memory.used > 0 && memory.peak >= memory.used && memory.limit > 0);
        server.settings.set(&[("maxmemory", "1gb")]).unwrap();
        assert_eq!(of(&server).memory.limit, 1 << 30);
    }

    #[test]
    fn a_node_with_a_silent_peer_says_so() {
        let info = info(&server_among(2, "").0);
        let of = |name: &str| info.get(name).cloned().unwrap_or_default();
        assert_eq!((of("nodes"), of("nodes_live"), of("ready")), ("2".into(), "1".into(), "0".into()));
        assert_eq!((of("partitions_unsettled"), of("partitions_coordinated")), ("16".into(), "16".into()));
    }

    #[test]
    fn a_run_id_is_40_hex_digits_of_its_own() {
        let (one, other) = (server(), server());
        assert!(one.run_id.len() == 40 && one.run_id.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one.run_id, other.run_id);
    }

    #[test]
    fn percentiles_are_the_bounds_that_so_many_calls_stay_under() {
        let stats = Stats::new();
        let get = find(b"get").unwrap();
        for (micros, calls) in [(20, 90), (300, 9), (u64::MAX, 1)] {
            (0..calls).for_each(|_| stats.ran(get, Duration::from_micros(micros), false));
        }
        let (_, of_get) = stats.commands().find(|(spec, _)| spec.full_name() == "get").unwrap();
        assert_eq!(percentiles(of_get), Some([25.0, 400.0, 6_553_600.0]));
        let histogram = histograms(&stats).pop().unwrap();
        assert_eq!((histogram.command.as_str(), histogram.calls), ("get", 100));
        assert_eq!(histogram.cumulative, [(25, 90), (400, 99)], "what is above every bound is in the calls alone");
    }
}
