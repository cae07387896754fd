//! `CONFIG`: settings as the node has them. Names, texts and what a change means are the node's.

use bytes::Bytes;

use super::call::Call;
use super::errors::{Answer, SYNTAX};
use super::help;
use super::host::Host;
use super::session::Session;
use super::spec::{Flags, Group, Run, Spec};
use crate::resp::Reply;

/// The subcommands.
pub static TABLE: &[Spec] = &[
    sub("GET", "parameter [parameter ...]", get).arity(-3).doc(
        "Returns the settings whose names match.",
        "2.0.0",
        "O(N) when N is the number of configuration parameters provided",
    ),
    help::spec("CONFIG", Group::Server, "5.0.0"),
    sub("RESETSTAT", "", reset_stats).doc("Sets back the sums that INFO shows.", "2.0.0", "O(1)").tips(ALL_NODES),
    sub("REWRITE", "", rewrite)
        .doc("Writes the settings into the configuration file.", "2.8.0", "O(1)")
        .tips(ALL_NODES),
    sub("SET", "parameter value [parameter value ...]", set)
        .arity(-4)
        .doc(
            "Changes settings of this node, all or none.",
            "2.0.0",
            "O(N) when N is the number of configuration parameters provided",
        )
        .tips(ALL_NODES),
];

const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

const fn sub(name: &'static str, syntax: &'static str, run: fn(&Call, &Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Server, Run::Node(run))
        .of("CONFIG")
        .arity(2)
        .flags(Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE))
}

fn get(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let found = host.config_get(call.cursor(2).rest());
    Ok(Reply::Map(found.into_iter().map(|(name, value)| (Reply::bulk(name), Reply::bulk(value))).collect()))
}

fn set(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let mut pairs: Vec<(Bytes, Bytes)> = Vec::new();
    for pair in call.cursor(2).rest().chunks(2) {
        let [name, value] = pair else { return Err(SYNTAX.into()) };
        pairs.push((name.clone(), value.clone()));
    }
    host.config_set(&pairs)?;
    Ok(Reply::ok())
}

fn rewrite(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    host.config_rewrite()?;
    Ok(Reply::ok())
}

fn reset_stats(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    host.reset_stats();
    Ok(Reply::ok())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use crate::commands::testing::Bench;

    #[test]
    fn settings_are_read_by_several_patterns() {
        let mut bench = Bench::new();
        bench.check("CONFIG GET maxmemory", "*2\r\n$9\r\nmaxmemory\r\n$1\r\n0\r\n");
        assert!(bench.run("CONFIG GET max* port").starts_with("*6\r\n"));
        bench.check("CONFIG GET nothing", "*0\r\n");
        bench.check("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command\r\n");
        bench.run("HELLO 3");
        bench.check("CONFIG GET port", "%1\r\n$4\r\nport\r\n$4\r\n6379\r\n");
    }

    #[test]
    fn settings_are_changed_in_pairs() {
        let mut bench = Bench::new();
        bench.check("CONFIG SET maxmemory 1mb", "+OK\r\n");
        bench.check("CONFIG SET maxmemory 1mb foo", "-ERR syntax error\r\n");
        bench.check(
            "CONFIG SET maxmemory 1mb foo bar",
            "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'\r\n",
        );
    }

    #[test]
    fn the_node_is_asked_to_rewrite_and_to_count_anew() {
        let mut bench = Bench::new();
        bench.check("CONFIG REWRITE", "-ERR The server is running without a config file\r\n");
        bench.check("CONFIG RESETSTAT", "+OK\r\n");
        assert_eq!(bench.host.resets.load(Relaxed), 1);
    }
}
