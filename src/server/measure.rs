//! The page of metrics: every declared metric, looked up where its value is.

use std::time::Duration;

use super::Server;
use super::facts::{Census, cumulative};
use super::stats::{BUCKETS_US, CommandStats, Sum};
use super::system::{self, Process};
use crate::commands::Spec;
use crate::commands::host::Host;
use crate::commands::info::OWN_VERSION;
use crate::commands::spec::Flags;
use crate::metrics::{self as m, Page, Timings};
use crate::replication::admission::Reason;
use crate::storage::Usage;

/// What commands are told apart by in the histogram of their times.
const CLASSES: [&str; 3] = ["read", "write", "other"];

impl Server {
    /// Everything that Prometheus may know. Looks at files and takes locks: off the threads that serve sockets.
    pub fn metrics(&self) -> String {
        let mut page = Page::new();
        m::COUNTS.iter().for_each(|count| page.count(count.metric(), &[], count.get()));
        for split in m::SPLITS {
            split.all().for_each(|(value, count)| page.count(split.metric(), &[value], count));
        }
        self.identity(&mut page);
        self.commands(&mut page);
        self.connections(&mut page);
        self.cluster(&mut page);
        self.background(&mut page);
        self.standing(&mut page);
        self.peers(&mut page);
        self.keys(&mut page);
        self.commits(&mut page);
        storage(&self.node().replica().store().usage(), &mut page);
        page.whole(&m::DISK_FREE_BYTES, &[], self.free_disk());
        process(&Process::read(), &mut page);
        page.render()
    }

    fn identity(&self, page: &mut Page) {
        let member = self.node().member();
        let (name, zone) = member.map(|member| (member.name, member.zone)).unwrap_or_default();
        let (id, config) = (self.node().me.to_string(), self.settings.config());
        page.whole(&m::BUILD_INFO, &[OWN_VERSION], 1);
        page.whole(&m::NODE_INFO, &[&id, &name, &zone, &config.cluster_name], 1);
        page.whole(&m::READY, &[], self.node().is_ready().into());
        page.whole(&m::WRITABLE, &[], self.node().replica().check_healthy().is_ok().into());
        page.whole(&m::MEMORY_ALLOCATED, &[], system::allocated());
    }

    fn commands(&self, page: &mut Page) {
        for (spec, stats) in self.stats.commands() {
            let (name, failed) = (spec.full_name(), stats.failed.get());
            let outcomes = [
                ("ok", stats.calls.get().saturating_sub(failed)),
                ("error", failed),
                ("rejected", stats.rejected.get()),
            ];
            for (outcome, count) in outcomes.into_iter().filter(|(_, count)| *count > 0) {
                page.count(&m::COMMANDS, &[&name, outcome], count);
            }
        }
        page.count(&m::COMMANDS, &["unknown", "rejected"], self.stats.unknown_commands.get());
        for error in &self.stats.errors {
            page.count(&m::ERRORS, &[error.key()], *error.value());
        }
        page.histogram(&m::COMMAND_DURATION, CLASSES.map(|class| (class, self.timings(class))));
        page.count(&m::KEY_HITS, &[], self.stats.hits.get());
        page.count(&m::KEY_MISSES, &[], self.stats.misses.get());
        page.whole(&m::SLOW_COMMANDS, &[], self.slow.len() as u64);
    }

    /// How long the commands of a class took.
    fn timings(&self, class: &str) -> Timings {
        let mut timings =
            Timings { cumulative: BUCKETS_US.iter().map(|us| (*us as f64 / 1e6, 0)).collect(), ..Timings::default() };
        for (_, stats) in self.stats.commands().filter(|(spec, _)| class_of(spec) == class) {
            add(&mut timings, stats);
        }
        timings
    }

    fn connections(&self, page: &mut Page) {
        let stats = &self.stats;
        page.whole(&m::CONNECTIONS, &[], self.clients.len() as u64);
        page.whole(&m::CONNECTIONS_LIMIT, &[], self.settings.config().maxclients.into());
        page.count(&m::CONNECTIONS_ACCEPTED, &[], stats.connections.get());
        page.count(&m::CONNECTIONS_REJECTED, &[], stats.rejected_connections.get());
        page.count(&m::CLIENT_INPUT_BYTES, &[], stats.input_bytes.get());
        page.count(&m::CLIENT_OUTPUT_BYTES, &[], stats.output_bytes.get());
    }

    fn cluster(&self, page: &mut Page) {
        let census = Census::of(self);
        let ring = self.node().coordinator.view.load().ring.clone();
        page.whole(&m::NODES, &["live"], census.live);
        page.whole(&m::NODES, &["down"], census.nodes.saturating_sub(census.live));
        page.whole(&m::LONELY, &[], self.node().is_lonely().into());
        page.whole(&m::LAYOUT_DISPUTES, &[], self.node().disputed().len() as u64);
        page.whole(&m::REPLICAS, &[], ring.layout().replicas().into());
        page.whole(&m::PARTITIONS, &["owned"], census.owned);
        page.whole(&m::PARTITIONS, &["coordinated"], census.coordinated);
        page.whole(&m::PARTITIONS_UNSETTLED, &[], census.unsettled);
        page.whole(&m::LAYOUT_VERSION, &[], ring.layout().version());
    }

    fn background(&self, page: &mut Page) {
        let admission = &self.node().coordinator.admission;
        let slice = admission.slice();
        let seconds = |time: Option<Duration>| time.unwrap_or_default().as_secs_f64();
        page.whole(&m::ADMISSION_SLICE, &[], slice.bytes_per_s);
        for reason in Reason::ALL {
            page.whole(&m::ADMISSION_REASON, &[reason.name()], (slice.reason == reason).into());
        }
        page.fractions(&m::ADMISSION_THROTTLED, admission.throttled().as_secs_f64());
        page.gauge(&m::FOREGROUND, &[], seconds(slice.foreground));
        page.gauge(&m::FOREGROUND_CALM, &[], seconds(slice.calm));
        page.gauge(&m::FOREGROUND_LIMIT, &[], seconds(slice.limit));
    }

    /// How this node is, to itself.
    fn standing(&self, page: &mut Page) {
        page.whole(&m::COUNTED, &[], self.node().health().counted.into());
        page.whole(&m::AMNESIAC, &[], self.node().replica().is_amnesiac().into());
        page.whole(&m::ALONE, &[], self.node().is_lonely().into());
        let status = self.node().sync_status();
        page.gauge(&m::UNVERIFIED_OLDEST, &[], status.oldest.map_or(0.0, |pair| pair.age.as_secs_f64()));
        page.whole(&m::UNVERIFIED_OVERDUE, &[], status.overdue as u64);
    }

    /// Series by node: as many as there are members, under the names that the operator gave them.
    fn peers(&self, page: &mut Page) {
        let view = self.node().coordinator.view.load_full();
        let (hints, opinions) = (self.node().replica().hint_stats(), self.node().opinions());
        for standing in view.nodes.values().filter(|standing| standing.member.id != view.me) {
            let (id, name) = (standing.member.id, standing.member.name.as_str());
            let hints = hints.get(&id).copied().unwrap_or_default();
            page.whole(&m::HINTS_PENDING, &[name], hints.count);
            page.whole(&m::HINTS_BYTES, &[name], hints.bytes);
            page.gauge(&m::HINTS_OLDEST, &[name], age_s(hints.oldest_ms, self.now_ms()));
            let phi = opinions.iter().find(|(of, _)| *of == id).map_or(0.0, |(_, opinion)| opinion.phi);
            page.gauge(&m::PEER_PHI, &[name], phi);
            let pace = self.node().coordinator.paces.of(id);
            page.gauge(&m::PEER_ROUND_TRIP_MEAN, &[name], pace.mean().unwrap_or_default().as_secs_f64());
            page.gauge(&m::PEER_ROUND_TRIP_P99, &[name], pace.p99().unwrap_or_default().as_secs_f64());
        }
    }

    /// The first database is always there, so that an empty store shows 0 and not nothing.
    fn keys(&self, page: &mut Page) {
        let keyspace = self.keyspace();
        let empty = keyspace.iter().all(|facts| facts.db.0 != 0).then_some((0, 0, 0, 0));
        let known = keyspace.iter().map(|facts| (facts.db.0, facts.keys, facts.expires, facts.siblings));
        for (db, keys, expiring, siblings) in known.chain(empty) {
            page.whole(&m::KEYS, &[&db.to_string()], keys);
            page.whole(&m::KEYS_EXPIRING, &[&db.to_string()], expiring);
            page.whole(&m::SIBLING_KEYS, &[&db.to_string()], siblings);
        }
    }

    fn commits(&self, page: &mut Page) {
        let replica = self.node().replica().clone();
        let committer = replica.committer();
        let totals = committer.totals();
        let (synced, committed, last) = (committer.synced().0, committer.committed().0, committer.last().0);
        page.count(&m::COMMIT_BATCHES, &[], totals.batches);
        page.count(&m::COMMIT_ROWS, &[], totals.changes);
        page.count(&m::COMMIT_SYNCS, &[], totals.syncs);
        page.whole(&m::COMMIT_PENDING_BYTES, &[], committer.bytes_pending() as u64);
        page.whole(&m::COMMIT_PENDING, &[], last.saturating_sub(committed));
        page.whole(&m::COMMIT_UNSYNCED, &[], committed.saturating_sub(synced));
        page.whole(&m::ROW_CACHE_BYTES, &[], replica.cache_bytes());
        page.count(&m::ROW_CACHE_MISSES, &[], replica.cache_misses());
    }
}

/// Seconds since a moment; 0 since none.
fn age_s(since_ms: u64, now_ms: u64) -> f64 {
    if since_ms == 0 { 0.0 } else { now_ms.saturating_sub(since_ms) as f64 / 1e3 }
}

fn storage(usage: &Usage, page: &mut Page) {
    let gauges = [
        (&m::STORAGE_DISK_BYTES, usage.disk_bytes),
        (&m::STORAGE_JOURNAL_BYTES, usage.journal_bytes),
        (&m::STORAGE_JOURNALS, usage.journals),
        (&m::STORAGE_MEMTABLE_BYTES, usage.memtable_bytes),
        (&m::STORAGE_FLUSHES_PENDING, usage.flushes_pending),
        (&m::STORAGE_TABLES, usage.tables),
        (&m::STORAGE_COMPACTIONS_RUNNING, usage.compactions_running),
        (&m::STORAGE_CACHE_BYTES, usage.cache_bytes),
        (&m::STORAGE_CACHE_LIMIT_BYTES, usage.cache_limit_bytes),
    ];
    gauges.into_iter().for_each(|(metric, value)| page.whole(metric, &[], value));
    page.count(&m::STORAGE_COMPACTIONS, &[], usage.compactions_done);
    page.fractions(&m::STORAGE_COMPACTION_SECONDS, usage.compaction_micros as f64 / 1e6);
}

fn process(process: &Process, page: &mut Page) {
    page.fractions(&m::PROCESS_CPU_SECONDS, process.user_us.saturating_add(process.system_us) as f64 / 1e6);
    page.whole(&m::PROCESS_RESIDENT_BYTES, &[], process.resident);
    page.whole(&m::PROCESS_VIRTUAL_BYTES, &[], process.virtual_memory);
    page.whole(&m::PROCESS_OPEN_FDS, &[], process.open_fds);
    page.whole(&m::PROCESS_MAX_FDS, &[], process.max_fds);
    page.gauge(&m::PROCESS_START_SECONDS, &[], process.started_s);
}

fn class_of(spec: &Spec) -> &'static str {
    match (spec.flags.has(Flags::WRITE), spec.flags.has(Flags::READONLY)) {
        (true, _) => "write",
        (_, true) => "read",
        _ => "other",
    }
}

fn add(timings: &mut Timings, stats: &CommandStats) {
    for ((_, count), (_, more)) in timings.cumulative.iter_mut().zip(cumulative(stats)) {
        *count += more;
    }
    // The sum of the buckets, not of the calls: the last bucket must not lag behind the ones below it.
    timings.count += stats.buckets.iter().map(Sum::get).sum::<u64>();
    timings.sum += stats.usec.get() as f64 / 1e6;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::testing::{run, server, server_among};
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    fn busy() -> Arc<Server> {
        let server = server();
        for command in ["set k 1", "get k", "get none", "incr k", "lcs", "config get port", "nonsense"] {
            run(&server, command);
        }
        server
    }

    #[test]
    fn every_declared_metric_is_shown_with_help_type_and_a_value() {
        let among = server_among(2, "").0;
        for command in ["config get port", "nonsense"] {
            run(&among, command);
        }
        let page = among.metrics();
        for metric in m::declared() {
            let name = metric.name;
            assert!(page.contains(&format!("# HELP {name} {}\n", metric.help)), "{name} has no help");
            assert!(page.contains(&format!("# TYPE {name} ")), "{name} has no type");
            let shown = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']));
            assert!(page.lines().any(shown), "{name} has no value");
        }
    }

    #[test]
    fn the_page_counts_what_was_done() {
        let page = busy().metrics();
        for line in [
            "redynamo_commands_total{cmd=\"get\",outcome=\"ok\"} 2",
            "redynamo_commands_total{cmd=\"lcs\",outcome=\"rejected\"} 1",
            "redynamo_commands_total{cmd=\"config|get\",outcome=\"ok\"} 1",
            "redynamo_commands_total{cmd=\"unknown\",outcome=\"rejected\"} 1",
            "redynamo_command_duration_seconds_bucket{class=\"read\",le=\"0.00005\"} 0",
            "redynamo_command_duration_seconds_bucket{class=\"read\",le=\"0.0001\"} 2",
            "redynamo_command_duration_seconds_bucket{class=\"write\",le=\"+Inf\"} 2",
            "redynamo_command_duration_seconds_count{class=\"other\"} 1",
            "redynamo_error_replies_total{code=\"ERR\"} 2",
            "redynamo_keys{db=\"0\"} 1",
            "redynamo_partitions{role=\"owned\"} 16",
            "redynamo_nodes{state=\"live\"} 1",
            "redynamo_ready 1",
            "redynamo_commit_pending_submissions 2",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line} in\n{page}");
        }
    }

    #[test]
    fn keys_with_several_values_are_counted_until_they_have_one() {
        let server = server();
        let shows = |line: &str| server.metrics().lines().any(|shown| shown == line);
        for command in ["set k a", "set other b", "dynamo put k - b", "dynamo put k - c"] {
            run(&server, command);
        }
        assert!(shows("redynamo_sibling_keys{db=\"0\"} 1"));
        run(&server, "set k d");
        assert!(shows("redynamo_sibling_keys{db=\"0\"} 0"));
    }

    #[test]
    fn promtool_finds_nothing_to_complain_of() {
        let mut command = Command::new("promtool");
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut promtool) = command.spawn() else {
            eprintln!("skipped: promtool (Debian: prometheus) is not installed");
            return;
        };
        promtool.stdin.take().unwrap().write_all(busy().metrics().as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
