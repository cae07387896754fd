//! `SLOWLOG`: commands that took long, as the node kept them.

use super::call::Call;
use super::errors::{Answer, misused};
use super::facts::SlowEntry;
use super::help;
use super::host::Host;
use super::session::Session;
use super::spec::{Flags, Group, Run, Spec};
use crate::base::num::parse_i64;
use crate::resp::Reply;

/// The subcommands.
pub static TABLE: &[Spec] = &[
    sub("GET", "[count]", get)
        .arity(-2)
        .doc("Returns the latest slow commands.", "2.2.12", "O(N) where N is the number of entries returned")
        .tips(&["request_policy:all_nodes", "nondeterministic_output"]),
    help::spec("SLOWLOG", Group::Server, "6.2.0"),
    sub("LEN", "", len).doc("Returns how many slow commands are kept.", "2.2.12", "O(1)").tips(&[
        "request_policy:all_nodes",
        "response_policy:agg_sum",
        "nondeterministic_output",
    ]),
    sub("RESET", "", reset)
        .doc("Forgets the slow commands.", "2.2.12", "O(N) where N is the number of entries in the slowlog")
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
];

/// How many entries are answered unless the client says otherwise.
const DEFAULT_COUNT: usize = 10;

const fn sub(name: &'static str, syntax: &'static str, run: fn(&Call, &Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Server, Run::Node(run))
        .of("SLOWLOG")
        .arity(2)
        .flags(Flags::ADMIN.and(Flags::LOADING).and(Flags::STALE))
}

fn get(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let count = match call.args {
        [_, _] => DEFAULT_COUNT,
        [_, _, count] => match parse_i64(count) {
            Some(-1) => usize::MAX,
            Some(count @ 0..) => usize::try_from(count).unwrap_or(usize::MAX),
            _ => return Err("ERR count should be greater than or equal to -1".into()),
        },
        _ => return Err(misused(call)),
    };
    Ok(Reply::array(host.slow_commands(count).into_iter().map(entry)))
}

fn entry(entry: SlowEntry) -> Reply {
    let int = |value: u64| Reply::Int(value.try_into().unwrap_or(i64::MAX));
    Reply::array([
        int(entry.id),
        int(entry.at_s),
        int(entry.took_us),
        Reply::array(entry.args.into_iter().map(Reply::Bulk)),
        Reply::bulk(entry.addr),
        Reply::Bulk(entry.name),
    ])
}

fn len(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    Ok(Reply::Int(host.slow_commands_len().try_into().unwrap_or(i64::MAX)))
}

fn reset(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    host.reset_slow_commands();
    Ok(Reply::ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::{Bench, args};

    #[test]
    fn slow_commands_are_answered_as_redis_lays_them_out() {
        let mut bench = Bench::new();
        let slow =
            SlowEntry { id: 4, at_s: 17, took_us: 99, args: args("GET k"), addr: "c:1".into(), name: "n".into() };
        bench.host.slow = vec![slow; 12];
        let one = "*6\r\n:4\r\n:17\r\n:99\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n$3\r\nc:1\r\n$1\r\nn\r\n";
        bench.check("SLOWLOG GET 1", &format!("*1\r\n{one}"));
        bench.check("SLOWLOG GET", &format!("*10\r\n{}", one.repeat(10)));
        bench.check("SLOWLOG GET -1", &format!("*12\r\n{}", one.repeat(12)));
        bench.check("SLOWLOG LEN", ":12\r\n");
        bench.check("SLOWLOG RESET", "+OK\r\n");
    }

    #[test]
    fn a_wrong_count_is_refused() {
        let mut bench = Bench::new();
        bench.check("SLOWLOG GET -2", "-ERR count should be greater than or equal to -1\r\n");
        bench.check("SLOWLOG GET x", "-ERR count should be greater than or equal to -1\r\n");
        let text = "-ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.\r\n";
        bench.check("SLOWLOG GET 1 2", text);
    }
}
