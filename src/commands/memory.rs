//! `MEMORY`: what keys take on disk, what the node takes in memory.

use bytes::BytesMut;

use super::call::Call;
use super::errors::{Answer, SYNTAX};
use super::facts::MemoryFacts;
use super::help;
use super::host::Host;
use super::info::ratio;
use super::session::Session;
use super::spec::{Group, Keys, Run, Spec};
use crate::base::id::Db;
use crate::model::{RowKey, View};
use crate::resp::Reply;

/// The subcommands.
pub static TABLE: &[Spec] = &[
    sub("DOCTOR", "", Run::Node(doctor)).doc("Says in words how memory is used.", "4.0.0", "O(1)").tips(EACH_SHARD),
    help::spec("MEMORY", Group::Server, "4.0.0"),
    sub("MALLOC-STATS", "", Run::Node(malloc_stats))
        .doc("Returns the allocator's statistics.", "4.0.0", DEPENDS)
        .tips(EACH_SHARD),
    sub("PURGE", "", Run::Node(purge))
        .doc("Has the allocator give back what it can.", "4.0.0", DEPENDS)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    sub("STATS", "", Run::Node(stats)).doc("Describes the node's memory.", "4.0.0", "O(1)").tips(EACH_SHARD),
    sub("USAGE", "key [SAMPLES count]", Run::Read(usage))
        .arity(-3)
        .keys(Keys::Range { first: 2, last: 2, step: 1 })
        .access(&[&["RO"]])
        .doc(
            "Returns how many bytes a key and its value are stored in.",
            "4.0.0",
            "O(N) where N is the number of samples.",
        ),
];

const EACH_SHARD: &[&str] = &["nondeterministic_output", "request_policy:all_shards", "response_policy:special"];
const DEPENDS: &str = "Depends on how much memory is allocated, could be slow";

const fn sub(name: &'static str, syntax: &'static str, run: Run) -> Spec {
    Spec::new(name, syntax, Group::Server, run).of("MEMORY").arity(2)
}

/// The bytes of the key's row as it is stored: every sibling counts.
fn usage(call: &Call, view: &mut View) -> Answer {
    let mut options = call.cursor(3);
    while !options.rest().is_empty() {
        if !options.take("SAMPLES") || options.rest().is_empty() || options.expect_int()? < 0 {
            return Err(SYNTAX.into());
        }
    }
    let key = call.arg(2);
    if !view.exists(key)? {
        return Ok(Reply::Nil);
    }
    let mut stored = BytesMut::new();
    view.cell(key)?.put(&mut stored);
    let row = RowKey::head(Db(0), key).len();
    Ok(Reply::Int(stored.len().saturating_add(row).try_into().unwrap_or(i64::MAX)))
}

fn purge(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    host.purge_memory();
    Ok(Reply::ok())
}

fn malloc_stats(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    Ok(host.allocator_report().map_or(Reply::bulk_static("Stats not supported for the current allocator"), Reply::text))
}

fn doctor(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    let memory = host.facts().memory;
    let verdict = if memory.rss > memory.limit.saturating_mul(2) {
        "More than twice of it is resident: look at clients in CLIENT LIST, or try MEMORY PURGE."
    } else {
        "Nothing to complain of."
    };
    Ok(Reply::text(format!(
        "Rows are kept on disk; memory holds a cache of them, limited to {} bytes. {verdict}\n",
        memory.limit
    )))
}

fn stats(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    let facts = host.facts();
    let keys: u64 = facts.keyspace.iter().fold(0, |sum, db| sum.saturating_add(db.keys));
    Ok(Reply::map(memory_stats(&facts.memory, keys)))
}

/// What Redis has and this store has not is 0.
fn memory_stats(memory: &MemoryFacts, keys: u64) -> Vec<(&'static str, Reply)> {
    let int = |value: u64| Reply::Int(value.try_into().unwrap_or(i64::MAX));
    let difference = |more: u64, less: u64| Reply::Int(more.cast_signed().saturating_sub(less.cast_signed()));
    let overhead = memory.used.saturating_sub(memory.dataset);
    let beyond_start = memory.used.saturating_sub(memory.startup);
    vec![
        ("peak.allocated", int(memory.peak)),
        ("total.allocated", int(memory.used)),
        ("startup.allocated", int(memory.startup)),
        ("replication.backlog", Reply::Int(0)),
        ("clients.slaves", Reply::Int(0)),
        ("clients.normal", int(memory.clients)),
        ("cluster.links", Reply::Int(0)),
        ("aof.buffer", Reply::Int(0)),
        ("lua.caches", Reply::Int(0)),
        ("functions.caches", Reply::Int(0)),
        ("overhead.total", int(overhead)),
        ("keys.count", int(keys)),
        ("keys.bytes-per-key", int(beyond_start.checked_div(keys).unwrap_or(0))),
        ("dataset.bytes", int(memory.dataset)),
        ("dataset.percentage", Reply::Double(ratio(memory.dataset, beyond_start) * 100.0)),
        ("peak.percentage", Reply::Double(ratio(memory.used, memory.peak) * 100.0)),
        ("allocator.allocated", int(memory.used)),
        ("allocator.active", int(memory.active)),
        ("allocator.resident", int(memory.resident)),
        ("allocator-fragmentation.ratio", Reply::Double(ratio(memory.active, memory.used))),
        ("allocator-fragmentation.bytes", difference(memory.active, memory.used)),
        ("allocator-rss.ratio", Reply::Double(ratio(memory.resident, memory.active))),
        ("allocator-rss.bytes", difference(memory.resident, memory.active)),
        ("rss-overhead.ratio", Reply::Double(ratio(memory.rss, memory.resident))),
        ("rss-overhead.bytes", difference(memory.rss, memory.resident)),
        ("fragmentation", Reply::Double(ratio(memory.rss, memory.used))),
        ("fragmentation.bytes", difference(memory.rss, memory.used)),
    ]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::base::id::{ActorId, ClusterId};
    use crate::causality::context::{ContextKey, Sealer};
    use crate::causality::hlc::Stamp;
    use crate::causality::{Cell, Clock, Dot, Moment, Payload, Value, Version};
    use crate::commands::testing::{Bench, args};
    use crate::commands::{CommandError, resolve};
    use crate::model::look::RowPage;
    use crate::model::{Fault, Heads};

    /// One key, `k`.
    struct OneKey(Arc<Cell>);

    impl Heads for OneKey {
        fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
            let there = RowKey::decode(row.clone()).is_ok_and(|row| row.key == "k");
            Ok(if there { self.0.clone() } else { Arc::default() })
        }

        fn range(&mut self, _: &Bytes, _: &Bytes, _: usize) -> Result<RowPage, Fault> {
            Ok((Vec::new(), None))
        }

        fn clock(&self) -> Clock {
            Clock::new()
        }
    }

    fn usage_of(command: &str, value: &str) -> Answer {
        let payload = Payload::Value(Value::plain(Bytes::copy_from_slice(value.as_bytes())));
        let version = Version { dot: Dot::new(ActorId(1), 1), stamp: Stamp::at(5), payload };
        let mut heads = OneKey(Arc::new(Cell::of([version])));
        let sealer = Sealer { cluster: ClusterId(1), key: ContextKey::derive(b"secret") };
        let args = args(command);
        let spec = resolve(&args)?;
        let Run::Read(run) = spec.run else { panic!("a read") };
        run(
            &Call { spec, args: &args },
            &mut View::new(&mut heads, &sealer, Db(0), Moment { now: 9, stamp: Stamp::at(9) }),
        )
    }

    #[test]
    fn usage_grows_with_what_is_stored_by_the_byte() {
        let Ok(Reply::Int(small)) = usage_of("MEMORY USAGE k", "x") else { panic!("a size") };
        let Ok(Reply::Int(large)) = usage_of("MEMORY USAGE k SAMPLES 5", &"x".repeat(101)) else { panic!("a size") };
        assert_eq!(large - small, 100);
        assert!((10..100).contains(&small));
    }

    #[test]
    fn usage_of_nothing_is_nothing_and_options_are_checked() {
        assert_eq!(usage_of("MEMORY USAGE other", "x"), Ok(Reply::Nil));
        for command in ["MEMORY USAGE k foo", "MEMORY USAGE k SAMPLES", "MEMORY USAGE k SAMPLES -1"] {
            assert_eq!(usage_of(command, "x"), Err(SYNTAX.into()), "{command}");
        }
        let Err(CommandError::Refused(text)) = usage_of("MEMORY USAGE k SAMPLES x", "x") else { panic!("refused") };
        assert_eq!(text, "ERR value is not an integer or out of range");
    }

    #[test]
    fn stats_have_redis_names_in_both_protocols() {
        let mut bench = Bench::new();
        bench.host.facts.memory = MemoryFacts { used: 200, peak: 400, ..MemoryFacts::default() };
        assert!(bench.run("MEMORY STATS").starts_with("*54\r\n$14\r\npeak.allocated\r\n:400\r\n"));
        bench.run("HELLO 3");
        assert!(bench.run("MEMORY STATS").contains("$15\r\npeak.percentage\r\n,50\r\n"));
        bench.check("MEMORY PURGE", "+OK\r\n");
        bench.check("MEMORY MALLOC-STATS", "$45\r\nStats not supported for the current allocator\r\n");
        assert!(bench.run("MEMORY DOCTOR").starts_with('='));
    }
}
