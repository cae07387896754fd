//! The server family: what this node is, how it does, and what an administrator asks of it.
//!
//! Commands of Redis' replication are refused: nodes are equal, and join by being started with `--join`.

use bytes::Bytes;

use super::call::Call;
use super::errors::{Answer, SYNTAX};
use super::host::Host;
use super::info::{self, OWN_VERSION, REDIS_VERSION};
use super::session::{ReplyMode, Session};
use super::spec::{Flags, Group, Run, Spec};
use super::{acl, command, config, latency, memory, slowlog};
use crate::resp::Reply;

/// The table.
pub static TABLE: &[Spec] = &[
    container("ACL", "A container for commands about users and what they may do.", "6.0.0", acl::TABLE),
    node("BGREWRITEAOF", "", background_rewrite)
        .doc("Does nothing, successfully: there is no log that grows.", "1.0.0", "O(1)")
        .flags(ADMINS.and(Flags::NO_ASYNC_LOADING)),
    node("BGSAVE", "[SCHEDULE]", background_save)
        .arity(-1)
        .doc("Has everything written to disk, without waiting for it.", "1.0.0", "O(1)")
        .flags(ADMINS.and(Flags::NO_ASYNC_LOADING)),
    node("COMMAND", "", command::all)
        .arity(-1)
        .doc("Describes all commands.", "2.8.13", "O(N) where N is the total number of Redis commands")
        .flags(ANYTIME)
        .tips(&["nondeterministic_output_order"])
        .categories(&["connection"])
        .children(command::TABLE),
    container("CONFIG", "A container for commands about settings.", "2.0.0", config::TABLE),
    node("DEBUG", "subcommand [arg [arg ...]]", debug)
        .arity(-2)
        .doc("For tests of servers; refused here.", "1.0.0", "Depends on subcommand.")
        .flags(ADMINS.and(ANYTIME))
        .internal(),
    node("FAILOVER", "[TO host port [FORCE]] [ABORT] [TIMEOUT milliseconds]", failover)
        .arity(-1)
        .doc("Hands over to a replica; refused, since nodes are equal.", "6.2.0", "O(1)")
        .flags(ADMINS.and(Flags::STALE)),
    node("INFO", "[section [section ...]]", info::info)
        .arity(-1)
        .doc("Describes this node and what it did.", "1.0.0", "O(1)")
        .flags(ANYTIME)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .categories(&["dangerous"]),
    node("LASTSAVE", "", last_save)
        .doc("Returns when all data was last known to be on disk.", "1.0.0", "O(1)")
        .flags(ANYTIME.and(Flags::FAST))
        .tips(&["nondeterministic_output"])
        .categories(&["admin", "dangerous"]),
    container("LATENCY", "A container for commands about how long things take.", "2.8.13", latency::TABLE),
    node("LOLWUT", "[VERSION version]", lolwut)
        .arity(-1)
        .doc("Draws a ring and tells the version.", "5.0.0", "")
        .flags(Flags::READONLY.and(Flags::FAST)),
    container("MEMORY", "A container for commands about memory.", "4.0.0", memory::TABLE),
    container("MODULE", "A container for commands about modules, of which there are none.", "4.0.0", MODULE),
    node("PSYNC", "replicationid offset", replicate)
        .arity(-3)
        .doc("Begins Redis' replication; refused.", "2.8.0", "")
        .flags(ADMINS.and(Flags::NO_ASYNC_LOADING).and(Flags::NO_MULTI)),
    node("REPLCONF", "", replicate)
        .arity(-1)
        .doc("Prepares Redis' replication; refused.", "3.0.0", "O(1)")
        .flags(ADMINS.and(ANYTIME).and(Flags::ALLOW_BUSY))
        .internal(),
    node("REPLICAOF", "<host port | NO ONE>", replica_of)
        .arity(3)
        .doc("Makes a replica of the node; refused, but for NO ONE.", "5.0.0", "O(1)")
        .flags(ADMINS.and(Flags::NO_ASYNC_LOADING).and(Flags::STALE)),
    node("ROLE", "", role)
        .doc("Returns the node's role in Redis' replication: a master without replicas.", "2.8.12", "O(1)")
        .flags(ANYTIME.and(Flags::NOSCRIPT).and(Flags::FAST))
        .categories(&["admin", "dangerous"]),
    node("SAVE", "", save)
        .doc("Has everything written to disk.", "1.0.0", "O(N) where N is the total number of keys in all databases")
        .flags(ADMINS.and(Flags::NO_ASYNC_LOADING).and(Flags::NO_MULTI)),
    Spec::new("SHUTDOWN", "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]", Group::Server, Run::Session(shutdown))
        .arity(-1)
        .doc(
            "Stops the node; all acknowledged writes stay.",
            "1.0.0",
            "O(N) when saving, where N is the total number of keys in all databases when saving data, otherwise O(1)",
        )
        .flags(ADMINS.and(ANYTIME).and(Flags::NO_MULTI).and(Flags::ALLOW_BUSY)),
    node("SLAVEOF", "<host port | NO ONE>", replica_of)
        .arity(3)
        .doc("The former name of REPLICAOF.", "1.0.0", "O(1)")
        .flags(ADMINS.and(Flags::NO_ASYNC_LOADING).and(Flags::STALE))
        .deprecated("5.0.0", "`REPLICAOF`"),
    container("SLOWLOG", "A container for commands about commands that took long.", "2.2.12", slowlog::TABLE),
    node("SYNC", "", replicate)
        .doc("Begins Redis' old replication; refused.", "1.0.0", "")
        .flags(ADMINS.and(Flags::NO_ASYNC_LOADING).and(Flags::NO_MULTI)),
    node("TIME", "", time)
        .doc("Returns the node's wall time: seconds and microseconds.", "2.6.0", "O(1)")
        .flags(ANYTIME.and(Flags::FAST))
        .tips(&["nondeterministic_output"]),
];

static MODULE: &[Spec] = &[
    super::help::spec("MODULE", Group::Server, "5.0.0"),
    node("LIST", "", module_list)
        .of("MODULE")
        .arity(2)
        .doc("Lists modules: none.", "4.0.0", "O(N) where N is the number of loaded modules.")
        .flags(ADMINS)
        .tips(&["nondeterministic_output_order"]),
    module_refused("LOAD", "path [arg [arg ...]]", -3, "4.0.0"),
    module_refused("LOADEX", "path [CONFIG name value [CONFIG name value ...]] [ARGS arg [arg ...]]", -3, "7.0.0"),
    module_refused("UNLOAD", "name", 3, "4.0.0"),
];

const ADMINS: Flags = Flags::ADMIN.and(Flags::NOSCRIPT);
const ANYTIME: Flags = Flags::LOADING.and(Flags::STALE);

const fn node(name: &'static str, syntax: &'static str, run: fn(&Call, &Session, &dyn Host) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Server, Run::Node(run))
}

const fn container(name: &'static str, summary: &'static str, since: &'static str, children: &'static [Spec]) -> Spec {
    Spec::new(name, "", Group::Server, Run::Container)
        .arity(-2)
        .doc(summary, since, "Depends on subcommand.")
        .children(children)
}

const fn module_refused(name: &'static str, syntax: &'static str, arity: i16, since: &'static str) -> Spec {
    node(name, syntax, module)
        .of("MODULE")
        .arity(arity)
        .doc("Refused: there are no modules.", since, "O(1)")
        .flags(ADMINS.and(Flags::NO_ASYNC_LOADING))
}

const NOT_A_REPLICA: &str = "ERR this node takes no part in Redis' replication: nodes are equal, \
                             and a further one joins by being started with --join";

fn time(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    let now = host.now_us();
    Ok(Reply::array([now / 1_000_000, now % 1_000_000].map(|part| Reply::bulk(part.to_string()))))
}

fn role(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::array([Reply::bulk_static("master"), Reply::Int(0), Reply::Array(Vec::new())]))
}

fn last_save(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    Ok(Reply::Int(host.facts().persistence.last_sync_s.try_into().unwrap_or(i64::MAX)))
}

fn save(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    host.sync();
    Ok(Reply::ok())
}

fn background_save(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let mut options = call.cursor(1);
    options.take("SCHEDULE");
    options.finish()?;
    host.sync();
    Ok(Reply::status("Background saving started"))
}

fn background_rewrite(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::status("Background append only file rewriting started"))
}

/// Redis says nothing when it obeys: a client that gets an answer takes the shutdown for failed.
fn shutdown(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    let options = &call.args[1..];
    let asked = |word: &str| options.iter().any(|option| option.eq_ignore_ascii_case(word.as_bytes()));
    let is_known = |option: &Bytes| SHUTDOWN.iter().any(|word| option.eq_ignore_ascii_case(word.as_bytes()));
    let contradicts = (asked("ABORT") && options.len() > 1) || (asked("SAVE") && asked("NOSAVE"));
    if contradicts || !options.iter().all(is_known) {
        return Err(SYNTAX.into());
    }
    if asked("ABORT") {
        return if host.abort_shutdown() { Ok(Reply::ok()) } else { Err("ERR No shutdown in progress.".into()) };
    }
    host.shutdown(asked("NOW"));
    session.reply_mode = ReplyMode::Off;
    session.closing = true;
    Ok(Reply::ok())
}

/// Options of SHUTDOWN. What is acknowledged is on disk as configured, so saving or not, forced or not is one.
const SHUTDOWN: [&str; 5] = ["SAVE", "NOSAVE", "NOW", "FORCE", "ABORT"];

fn debug(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Err(protected("DEBUG", "enable-debug-command"))
}

fn module(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Err(protected("MODULE", "enable-module-command"))
}

/// Test suites look for this sentence and skip what needs the command.
fn protected(command: &str, option: &str) -> super::CommandError {
    format!(
        "ERR {command} command not allowed. If the {option} option is set to \"local\", you can run it from a local \
         connection, otherwise you need to set this option in the configuration file, and then restart the server."
    )
    .into()
}

fn module_list(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Array(Vec::new()))
}

fn replica_of(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    let already = call.arg(1).eq_ignore_ascii_case(b"no") && call.arg(2).eq_ignore_ascii_case(b"one");
    if already { Ok(Reply::ok()) } else { Err(NOT_A_REPLICA.into()) }
}

fn replicate(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Err(NOT_A_REPLICA.into())
}

fn failover(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    match call.args {
        [_, option] if option.eq_ignore_ascii_case(b"abort") => Err("ERR No failover in progress.".into()),
        _ => Err("ERR FAILOVER requires connected replicas.".into()),
    }
}

fn lolwut(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    const RING: &str = "       . o .\n    o         .\n   .    every    o\n   o    node is  .\n   .   the same  o\n    o         .\n       . o .\n";
    Ok(Reply::text(format!("{RING}\nRedis ver. {REDIS_VERSION} (redynamo {OWN_VERSION})\n")))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;
    use crate::commands::testing::Bench;

    #[test]
    fn the_node_says_what_it_is_and_what_time_it_is() {
        let mut bench = Bench::new();
        bench.check("TIME", "*2\r\n$10\r\n1700000000\r\n$6\r\n123456\r\n");
        bench.check("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
        bench.host.facts.persistence.last_sync_s = 1_699_999_999;
        bench.check("LASTSAVE", ":1699999999\r\n");
        assert!(bench.run("LOLWUT VERSION 5").contains("Redis ver. 7.2.4"));
        bench.check("MODULE LIST", "*0\r\n");
    }

    #[test]
    fn saving_is_a_sync_under_redis_names() {
        let mut bench = Bench::new();
        bench.check("SAVE", "+OK\r\n");
        bench.check("BGSAVE", "+Background saving started\r\n");
        bench.check("BGSAVE SCHEDULE", "+Background saving started\r\n");
        bench.check("BGSAVE foo", "-ERR syntax error\r\n");
        bench.check("BGREWRITEAOF", "+Background append only file rewriting started\r\n");
        assert_eq!(bench.host.syncs.load(Relaxed), 3);
    }

    #[test]
    fn a_shutdown_is_not_answered_and_may_be_taken_back() {
        let mut bench = Bench::new();
        bench.check("SHUTDOWN foo", "-ERR syntax error\r\n");
        bench.check("SHUTDOWN ABORT NOW", "-ERR syntax error\r\n");
        bench.check("SHUTDOWN ABORT", "-ERR No shutdown in progress.\r\n");
        assert!(!bench.host.stopping.load(Relaxed));
        bench.check("SHUTDOWN NOSAVE NOW", "");
        assert!(bench.host.stopping.load(Relaxed) && bench.session.closing);
        Bench { session: Session { authenticated: true, ..Session::default() }, ..bench }
            .check("SHUTDOWN ABORT", "+OK\r\n");
    }

    #[test]
    fn redis_replication_is_refused() {
        let mut bench = Bench::new();
        bench.check("REPLICAOF no one", "+OK\r\n");
        for command in ["REPLICAOF 10.0.0.1 6379", "SLAVEOF a 1", "PSYNC ? -1", "SYNC", "REPLCONF capa eof"] {
            assert!(bench.run(command).starts_with("-ERR this node takes no part in Redis' replication"), "{command}");
        }
        bench.check("FAILOVER", "-ERR FAILOVER requires connected replicas.\r\n");
        bench.check("FAILOVER ABORT", "-ERR No failover in progress.\r\n");
    }

    #[test]
    fn debug_and_modules_are_refused_in_the_words_that_test_suites_know() {
        let mut bench = Bench::new();
        assert!(bench.run("DEBUG SLEEP 0").starts_with("-ERR DEBUG command not allowed. If the enable-debug-command"));
        assert!(
            bench.run("MODULE LOAD x").starts_with("-ERR MODULE command not allowed. If the enable-module-command")
        );
    }
}
