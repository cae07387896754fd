//! `INFO`: facts as sections of `name:value`, under the names that libraries, exporters and dashboards read.
//!
//! What Redis has and this store has not (forks, replicas of Redis' kind, scripts) is shown as in a Redis that does not
//! use it, so that whoever divides or compares finds a number. `maxmemory` is never 0, since dashboards divide by it.

use std::fmt::{Display, Write};

use super::call::Call;
use super::errors::Answer;
use super::facts::{CommandFacts, Facts};
use super::host::Host;
use super::session::{Face, Session};
use crate::resp::Reply;

/// The Redis that this node says it is.
pub const REDIS_VERSION: &str = "7.2.4";

/// This store's own version.
pub const OWN_VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn info(call: &Call, session: &Session, host: &dyn Host) -> Answer {
    let asked: Vec<String> =
        call.args[1..].iter().map(|section| String::from_utf8_lossy(section).to_ascii_lowercase()).collect();
    let mut facts = host.facts();
    facts.server.cluster_face = session.face == Face::Cluster;
    Ok(Reply::text(render(&facts, &asked)))
}

/// A section: what it is called, whether it is shown when nothing particular is asked for, and what it holds.
struct Section {
    title: &'static str,
    by_default: bool,
    fill: fn(&Facts, &mut Lines),
}

const SECTIONS: [Section; 14] = [
    Section { title: "Server", by_default: true, fill: server },
    Section { title: "Clients", by_default: true, fill: clients },
    Section { title: "Memory", by_default: true, fill: memory },
    Section { title: "Persistence", by_default: true, fill: persistence },
    Section { title: "Stats", by_default: true, fill: stats },
    Section { title: "Replication", by_default: true, fill: replication },
    Section { title: "CPU", by_default: true, fill: cpu },
    Section { title: "Modules", by_default: true, fill: |_, _| {} },
    Section { title: "Commandstats", by_default: false, fill: command_stats },
    Section { title: "Errorstats", by_default: true, fill: error_stats },
    Section { title: "Latencystats", by_default: false, fill: latency_stats },
    Section { title: "Cluster", by_default: true, fill: cluster },
    Section { title: "Keyspace", by_default: true, fill: keyspace },
    Section { title: "Redynamo", by_default: true, fill: own },
];

impl Section {
    /// Whether `asked`, in lower case, names it; nothing asked for is `default`.
    fn is_asked_for(&self, asked: &[String]) -> bool {
        let name = self.title.to_ascii_lowercase();
        (asked.is_empty() && self.by_default)
            || asked.iter().any(|word| match word.as_str() {
                "default" => self.by_default,
                "all" | "everything" => true,
                "module_list" => name == "modules",
                word => word == name,
            })
    }
}

/// The sections that are asked for, by names in lower case, in Redis' order.
pub fn render(facts: &Facts, asked: &[String]) -> String {
    let mut lines = Lines(String::with_capacity(8 * 1024));
    for section in SECTIONS.iter().filter(|section| section.is_asked_for(asked)) {
        lines.begin(section.title);
        (section.fill)(facts, &mut lines);
    }
    lines.0
}

/// The text as it grows.
struct Lines(String);

impl Lines {
    fn begin(&mut self, title: &str) {
        let gap = if self.0.is_empty() { "" } else { "\r\n" };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{gap}# {title}\r\n");
    }

    fn add(&mut self, name: impl Display, value: impl Display) {
        let _ = write!(self.0, "{name}:{value}\r\n");
    }

    fn zeros(&mut self, names: &[&str]) {
        names.iter().for_each(|name| self.add(name, 0));
    }

    /// A number of bytes, as a number and for people.
    fn bytes(&mut self, name: &str, bytes: u64) {
        self.add(name, bytes);
        self.add(format_args!("{name}_human"), human(bytes));
    }
}

fn cluster(facts: &Facts, lines: &mut Lines) {
    lines.add("cluster_enabled", u8::from(facts.server.cluster_face));
}

fn server(facts: &Facts, lines: &mut Lines) {
    let server = &facts.server;
    lines.add("redis_version", REDIS_VERSION);
    lines.add("redynamo_version", OWN_VERSION);
    lines.add("redis_git_sha1", "00000000");
    lines.add("redis_git_dirty", 0);
    lines.add("redis_build_id", 0);
    lines.add("redis_mode", if server.cluster_face { "cluster" } else { "standalone" });
    lines.add("os", &server.os);
    lines.add("arch_bits", usize::BITS);
    lines.add("monotonic_clock", "POSIX clock_gettime");
    lines.add("multiplexing_api", "tokio");
    lines.add("process_id", server.process_id);
    lines.add("process_supervised", server.supervised);
    lines.add("run_id", &server.run_id);
    lines.add("tcp_port", server.tcp_port);
    lines.add("server_time_usec", server.now_us);
    lines.add("uptime_in_seconds", server.uptime_s);
    lines.add("uptime_in_days", server.uptime_s / 86_400);
    lines.add("hz", 10);
    lines.add("configured_hz", 10);
    lines.add("lru_clock", (server.now_us / 1_000_000) & 0xff_ffff);
    lines.add("executable", &server.executable);
    lines.add("config_file", &server.config_file);
    lines.add("io_threads_active", 0);
}

fn clients(facts: &Facts, lines: &mut Lines) {
    let clients = &facts.clients;
    lines.add("connected_clients", clients.connected);
    lines.add("cluster_connections", 0);
    lines.add("maxclients", clients.max);
    lines.add("client_recent_max_input_buffer", clients.max_input_buffer);
    lines.add("client_recent_max_output_buffer", clients.max_output_buffer);
    lines.add("blocked_clients", clients.blocked);
    lines.zeros(&[
        "tracking_clients",
        "clients_in_timeout_table",
        "total_blocking_keys",
        "total_blocking_keys_on_nokey",
    ]);
}

fn memory(facts: &Facts, lines: &mut Lines) {
    let memory = &facts.memory;
    lines.bytes("used_memory", memory.used);
    lines.bytes("used_memory_rss", memory.rss);
    lines.bytes("used_memory_peak", memory.peak);
    lines.add("used_memory_peak_perc", percent(memory.used, memory.peak));
    lines.add("used_memory_overhead", memory.used.saturating_sub(memory.dataset));
    lines.add("used_memory_startup", memory.startup);
    lines.add("used_memory_dataset", memory.dataset);
    lines.add("used_memory_dataset_perc", percent(memory.dataset, memory.used.saturating_sub(memory.startup)));
    lines.add("allocator_allocated", memory.used);
    lines.add("allocator_active", memory.active);
    lines.add("allocator_resident", memory.resident);
    lines.bytes("total_system_memory", memory.total_system);
    lines.bytes("used_memory_lua", 0);
    lines.zeros(&["used_memory_vm_eval", "used_memory_scripts_eval", "number_of_cached_scripts"]);
    lines.zeros(&["number_of_functions", "number_of_libraries", "used_memory_vm_functions"]);
    lines.bytes("used_memory_vm_total", 0);
    lines.add("used_memory_functions", 0);
    lines.bytes("used_memory_scripts", 0);
    lines.bytes("maxmemory", memory.limit);
    // Memory is a cache of what is on disk: no key is ever dropped for want of it.
    lines.add("maxmemory_policy", "noeviction");
    fragmentation(facts, lines);
    lines.zeros(&["mem_not_counted_for_evict", "mem_replication_backlog", "mem_total_replication_buffers"]);
    lines.add("mem_clients_slaves", 0);
    lines.add("mem_clients_normal", memory.clients);
    lines.zeros(&["mem_cluster_links", "mem_aof_buffer"]);
    lines.add("mem_allocator", &memory.allocator);
    lines.zeros(&["active_defrag_running", "lazyfree_pending_objects", "lazyfreed_objects"]);
}

fn fragmentation(facts: &Facts, lines: &mut Lines) {
    let memory = &facts.memory;
    let mut pair = |name: &str, unit: &str, more: u64, less: u64| {
        lines.add(format_args!("{name}_ratio"), format_args!("{:.2}", ratio(more, less)));
        lines.add(format_args!("{name}_{unit}"), i128::from(more).saturating_sub(i128::from(less)));
    };
    pair("allocator_frag", "bytes", memory.active, memory.used);
    pair("allocator_rss", "bytes", memory.resident, memory.active);
    pair("rss_overhead", "bytes", memory.rss, memory.resident);
    pair("mem_fragmentation", "bytes", memory.rss, memory.used);
}

/// The store's journal stands for the append-only file, its syncs for Redis' saves.
fn persistence(facts: &Facts, lines: &mut Lines) {
    let disk = &facts.persistence;
    let status = if disk.writable { "ok" } else { "err" };
    lines.add("loading", u8::from(disk.loading));
    lines.zeros(&["async_loading", "current_cow_peak", "current_cow_size", "current_cow_size_age"]);
    lines.add("current_fork_perc", "0.00");
    lines.zeros(&["current_save_keys_processed", "current_save_keys_total"]);
    lines.add("rdb_changes_since_last_save", disk.unsynced_changes);
    lines.add("rdb_bgsave_in_progress", 0);
    lines.add("rdb_last_save_time", disk.last_sync_s);
    lines.add("rdb_last_bgsave_status", status);
    lines.add("rdb_last_bgsave_time_sec", -1);
    lines.add("rdb_current_bgsave_time_sec", -1);
    lines.zeros(&["rdb_saves", "rdb_last_cow_size", "rdb_last_load_keys_expired", "rdb_last_load_keys_loaded"]);
    lines.add("aof_enabled", 1);
    lines.zeros(&["aof_rewrite_in_progress", "aof_rewrite_scheduled"]);
    lines.add("aof_last_rewrite_time_sec", -1);
    lines.add("aof_current_rewrite_time_sec", -1);
    lines.add("aof_last_bgrewrite_status", "ok");
    lines.zeros(&["aof_rewrites", "aof_rewrites_consecutive_failures"]);
    lines.add("aof_last_write_status", status);
    lines.zeros(&["aof_last_cow_size", "module_fork_in_progress", "module_fork_last_cow_size"]);
    lines.add("aof_current_size", disk.disk_bytes);
    lines.add("aof_base_size", disk.disk_bytes);
    lines.add("aof_pending_rewrite", 0);
    lines.add("aof_buffer_length", disk.buffered_bytes);
    lines.add("aof_pending_bio_fsync", 0);
    lines.add("aof_delayed_fsync", disk.delayed_syncs);
}

fn stats(facts: &Facts, lines: &mut Lines) {
    let stats = &facts.stats;
    lines.add("total_connections_received", stats.connections);
    lines.add("total_commands_processed", stats.commands);
    lines.add("instantaneous_ops_per_sec", stats.commands_per_s);
    lines.add("total_net_input_bytes", stats.net_input_bytes);
    lines.add("total_net_output_bytes", stats.net_output_bytes);
    lines.add("total_net_repl_input_bytes", stats.peer_input_bytes);
    lines.add("total_net_repl_output_bytes", stats.peer_output_bytes);
    lines.add("instantaneous_input_kbps", format_args!("{:.2}", stats.input_kbps));
    lines.add("instantaneous_output_kbps", format_args!("{:.2}", stats.output_kbps));
    lines.add("instantaneous_input_repl_kbps", "0.00");
    lines.add("instantaneous_output_repl_kbps", "0.00");
    lines.add("rejected_connections", stats.rejected_connections);
    lines.zeros(&["sync_full", "sync_partial_ok", "sync_partial_err"]);
    lines.add("expired_keys", stats.expired_keys);
    lines.add("expired_stale_perc", "0.00");
    lines.zeros(&[
        "expired_time_cap_reached_count",
        "expire_cycle_cpu_milliseconds",
        "evicted_keys",
        "evicted_clients",
    ]);
    lines.zeros(&["total_eviction_exceeded_time", "current_eviction_exceeded_time"]);
    lines.add("keyspace_hits", stats.keyspace_hits);
    lines.add("keyspace_misses", stats.keyspace_misses);
    lines.add("pubsub_channels", stats.channels);
    lines.add("pubsub_patterns", stats.patterns);
    lines.add("pubsubshard_channels", stats.shards);
    lines.zeros(&["latest_fork_usec", "total_forks"]);
    lines.zeros(&[
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_hits",
        "active_defrag_misses",
    ]);
    lines.zeros(&["active_defrag_key_hits", "active_defrag_key_misses", "total_active_defrag_time"]);
    lines.zeros(&["current_active_defrag_time", "tracking_total_keys", "tracking_total_items"]);
    lines.zeros(&["tracking_total_prefixes", "unexpected_error_replies"]);
    lines.add("total_error_replies", stats.error_replies);
    lines.add("dump_payload_sanitizations", 0);
    lines.add("total_reads_processed", stats.reads);
    lines.add("total_writes_processed", stats.writes);
    lines.zeros(&["io_threaded_reads_processed", "io_threaded_writes_processed"]);
    lines.zeros(&["reply_buffer_shrinks", "reply_buffer_expands"]);
    lines.zeros(&["acl_access_denied_auth", "acl_access_denied_cmd", "acl_access_denied_key"]);
    lines.add("acl_access_denied_channel", 0);
}

/// Replication of Redis' kind: none. Replicas of this store are in its own section.
fn replication(facts: &Facts, lines: &mut Lines) {
    lines.add("role", "master");
    lines.add("connected_slaves", 0);
    lines.add("master_failover_state", "no-failover");
    lines.add("master_replid", &facts.server.run_id);
    lines.add("master_replid2", "0".repeat(40));
    lines.add("master_repl_offset", 0);
    lines.add("second_repl_offset", -1);
    lines.zeros(&[
        "repl_backlog_active",
        "repl_backlog_size",
        "repl_backlog_first_byte_offset",
        "repl_backlog_histlen",
    ]);
}

fn cpu(facts: &Facts, lines: &mut Lines) {
    let seconds = |us: u64| format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    let (system, user) = (seconds(facts.cpu.system_us), seconds(facts.cpu.user_us));
    lines.add("used_cpu_sys", &system);
    lines.add("used_cpu_user", &user);
    lines.add("used_cpu_sys_children", "0.000000");
    lines.add("used_cpu_user_children", "0.000000");
}

fn command_stats(facts: &Facts, lines: &mut Lines) {
    for CommandFacts { name, calls, usec, rejected, failed, .. } in &facts.commands {
        let each = ratio_or_zero(*usec, *calls);
        lines.add(
            format_args!("cmdstat_{name}"),
            format_args!(
                "calls={calls},usec={usec},usec_per_call={each:.2},rejected_calls={rejected},failed_calls={failed}"
            ),
        );
    }
}

fn error_stats(facts: &Facts, lines: &mut Lines) {
    for (code, count) in &facts.errors {
        lines.add(format_args!("errorstat_{code}"), format_args!("count={count}"));
    }
}

fn latency_stats(facts: &Facts, lines: &mut Lines) {
    for command in &facts.commands {
        if let Some([p50, p99, p999]) = command.percentiles {
            let name = format_args!("latency_percentiles_usec_{}", command.name);
            lines.add(name, format_args!("p50={p50:.3},p99={p99:.3},p99.9={p999:.3}"));
        }
    }
}

fn keyspace(facts: &Facts, lines: &mut Lines) {
    for db in facts.keyspace.iter().filter(|db| db.keys > 0) {
        lines.add(
            format_args!("db{}", db.db.0),
            format_args!("keys={},expires={},avg_ttl={}", db.keys, db.expires, db.avg_ttl_ms),
        );
    }
}

fn own(facts: &Facts, lines: &mut Lines) {
    facts.own.iter().for_each(|(name, value)| lines.add(name, value));
}

/// `part` of `whole`; 1 when there is no whole, as in a fresh process.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 1.0 } else { part as f64 / whole as f64 }
}

fn ratio_or_zero(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { ratio(part, whole) }
}

fn percent(part: u64, whole: u64) -> String {
    format!("{:.2}%", ratio_or_zero(part, whole) * 100.0)
}

/// Bytes for people, as Redis prints them: `512B`, `1.50K`, `23.54G`.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.2}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::Db;
    use crate::commands::facts::{KeyspaceFacts, MemoryFacts};
    use crate::commands::testing::Bench;

    fn facts() -> Facts {
        let get = CommandFacts { name: "get".into(), calls: 4, usec: 10, failed: 1, ..CommandFacts::default() };
        Facts {
            memory: MemoryFacts { used: 1536, limit: 25_276_510_208, ..MemoryFacts::default() },
            commands: vec![CommandFacts { percentiles: Some([1.0, 2.5, 3.007]), ..get }],
            errors: vec![("WRONGTYPE".into(), 2)],
            keyspace: vec![KeyspaceFacts { db: Db(3), keys: 7, expires: 2, siblings: 1, avg_ttl_ms: 50 }],
            own: vec![("partitions", "256".into())],
            ..Facts::default()
        }
    }

    fn titles(asked: &[&str]) -> Vec<String> {
        let asked: Vec<String> = asked.iter().map(|word| (*word).to_owned()).collect();
        let text = render(&facts(), &asked);
        text.lines().filter_map(|line| line.strip_prefix("# ").map(str::to_owned)).collect()
    }

    #[test]
    fn sections_are_shown_by_default_by_name_or_all() {
        assert_eq!(titles(&[]), titles(&["default"]));
        assert_eq!((titles(&[]).len(), titles(&["all"]).len(), titles(&["everything"]).len()), (12, 14, 14));
        assert_eq!(titles(&["keyspace", "server"]), ["Server", "Keyspace"]);
        assert_eq!(titles(&["default", "commandstats"]).len(), 13);
        assert!(titles(&["nosuch"]).is_empty());
    }

    #[test]
    fn sections_are_parted_by_an_empty_line_and_lines_end_in_cr_lf() {
        let text = render(&facts(), &["modules".into(), "cluster".into(), "keyspace".into(), "redynamo".into()]);
        let keyspace = "# Keyspace\r\ndb3:keys=7,expires=2,avg_ttl=50\r\n\r\n# Redynamo\r\npartitions:256\r\n";
        assert_eq!(text, format!("# Modules\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n{keyspace}"));
    }

    #[test]
    fn what_libraries_act_on_is_there() {
        let text = render(&facts(), &["all".into()]);
        for line in [
            "redis_version:7.2.4",
            "redis_mode:standalone",
            "loading:0",
            "role:master",
            "connected_slaves:0",
            "maxmemory_policy:noeviction",
            "used_memory_human:1.50K",
            "maxmemory_human:23.54G",
            "cluster_enabled:0",
            "uptime_in_days:0",
            "cmdstat_get:calls=4,usec=10,usec_per_call=2.50,rejected_calls=0,failed_calls=1",
            "errorstat_WRONGTYPE:count=2",
            "latency_percentiles_usec_get:p50=1.000,p99=2.500,p99.9=3.007",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}");
        }
    }

    #[test]
    fn the_reply_is_text_for_people() {
        let mut bench = Bench::new();
        bench.check("INFO nosuch", "$0\r\n\r\n");
        bench.run("HELLO 3");
        bench.check("INFO CLUSTER", "=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n");
    }

    #[test]
    fn sizes_are_printed_as_redis_prints_them() {
        let cases = [(0, "0B"), (1023, "1023B"), (1024, "1.00K"), (987_912, "964.76K"), (25_276_510_208, "23.54G")];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text);
        }
        assert_eq!(human(u64::MAX), "16384.00P");
    }
}
