//! `LATENCY`: how long calls took, and the events that Redis would have watched.
//!
//! Deliberately absent: Redis' latency monitor, which samples the one thread that everything waits for. There is no such
//! thread here; LATEST and HISTORY are empty, as in a Redis whose monitor is off, and HISTOGRAM tells the rest.

use super::by_full_name;
use super::call::Call;
use super::errors::Answer;
use super::facts::Histogram;
use super::help;
use super::host::Host;
use super::session::Session;
use super::spec::{Flags, Group, Run, Spec};
use crate::resp::Reply;

/// The subcommands.
pub static TABLE: &[Spec] = &[
    sub("DOCTOR", "", doctor).doc("Says in words where time goes.", "2.8.13", "O(1)").tips(EACH_NODE),
    sub("GRAPH", "event", graph)
        .arity(3)
        .doc("Draws the samples of an event: there are none.", "2.8.13", "O(1)")
        .tips(EACH_NODE),
    help::spec("LATENCY", Group::Server, "2.8.13"),
    sub("HISTOGRAM", "[command [command ...]]", histogram)
        .arity(-2)
        .doc(
            "Returns how many calls of each command took at most how long.",
            "7.0.0",
            "O(N) where N is the number of commands with latency information being retrieved.",
        )
        .tips(EACH_NODE),
    sub("HISTORY", "event", none)
        .arity(3)
        .doc("Returns the samples of an event: there are none.", "2.8.13", "O(1)")
        .tips(EACH_NODE),
    sub("LATEST", "", none).doc("Returns the latest sample of each event: none.", "2.8.13", "O(1)").tips(EACH_NODE),
    sub("RESET", "[event [event ...]]", reset)
        .arity(-2)
        .doc("Forgets samples and answers of how many events.", "2.8.13", "O(1)")
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum"]),
];

const EACH_NODE: &[&str] = &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

const fn sub(name: &'static str, syntax: &'static str, run: fn(&Call, &Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Server, Run::Node(run))
        .of("LATENCY")
        .arity(2)
        .flags(Flags::ADMIN.and(Flags::NOSCRIPT).and(Flags::LOADING).and(Flags::STALE))
}

fn none(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Array(Vec::new()))
}

fn reset(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Int(0))
}

fn graph(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    Err(format!("ERR No samples available for event '{}'", String::from_utf8_lossy(call.arg(2))).into())
}

fn doctor(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::text(
        "This node keeps no latency events: no single thread runs all commands here. LATENCY HISTOGRAM and the metrics on \
         the admin port show how long commands take, SLOWLOG GET which ones took long.\n",
    ))
}

fn histogram(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let asked = call.cursor(2).rest();
    let wanted = |histogram: &&Histogram| {
        asked.is_empty()
            || asked.iter().filter_map(|name| by_full_name(name)).any(|spec| {
                let name = spec.full_name();
                histogram.command == name || histogram.command.starts_with(&format!("{name}|"))
            })
    };
    let pairs = host.histograms().iter().filter(wanted).map(shown).collect();
    Ok(Reply::Map(pairs))
}

fn shown(histogram: &Histogram) -> (Reply, Reply) {
    let int = |value: u64| Reply::Int(value.try_into().unwrap_or(i64::MAX));
    let steps = histogram.cumulative.iter().map(|&(micros, calls)| (int(micros), int(calls))).collect();
    let body = Reply::map([("calls", int(histogram.calls)), ("histogram_usec", Reply::Map(steps))]);
    (Reply::bulk(histogram.command.clone()), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Bench;

    #[test]
    fn without_a_monitor_there_are_no_events() {
        let mut bench = Bench::new();
        bench.check("LATENCY LATEST", "*0\r\n");
        bench.check("LATENCY HISTORY command", "*0\r\n");
        bench.check("LATENCY RESET", ":0\r\n");
        bench.check("LATENCY GRAPH command", "-ERR No samples available for event 'command'\r\n");
    }

    #[test]
    fn a_histogram_is_cumulative_and_can_be_narrowed_to_commands() {
        let mut bench = Bench::new();
        let of = |command: &str| Histogram { command: command.into(), calls: 3, cumulative: vec![(1, 2), (4, 3)] };
        bench.host.histograms = vec![of("client|id"), of("echo")];
        let echo = "$4\r\necho\r\n*4\r\n$5\r\ncalls\r\n:3\r\n$14\r\nhistogram_usec\r\n*4\r\n:1\r\n:2\r\n:4\r\n:3\r\n";
        bench.check("LATENCY HISTOGRAM echo nosuch", &format!("*2\r\n{echo}"));
        assert!(bench.run("LATENCY HISTOGRAM").starts_with("*4\r\n"));
        assert!(bench.run("LATENCY HISTOGRAM client").starts_with("*2\r\n$9\r\nclient|id\r\n"));
    }
}
