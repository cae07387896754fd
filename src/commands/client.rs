//! `CLIENT`: what a connection says of itself and asks of the others.
//!
//! Deliberately absent: `MAINT_NOTIFICATIONS`. A client that is told OK waits for notices before a node goes away; until
//! nodes send them, the error for an unknown subcommand is the honest answer, and every library takes it as "no".
//! Tracking is absent too: asking for it is an error, since a client that believes in it would keep stale values.

use bytes::Bytes;

use super::call::Call;
use super::connection::{check_name, is_plain};
use super::errors::{Answer, CommandError, SYNTAX, misused};
use super::host::{Host, Pause};
use super::session::{ReplyMode, Session};
use super::spec::{Flags, Group, Run, Spec};
use super::{client_kill, client_list, help};
use crate::base::num::parse_i64;
use crate::resp::Reply;

/// The subcommands.
pub static TABLE: &[Spec] = &[
    sub("CACHING", "<YES | NO>", Run::Node(caching)).arity(3).doc(
        "Says whether the next command's keys are tracked; refused here.",
        "6.0.0",
        "O(1)",
    ),
    sub("GETNAME", "", Run::Node(get_name)).doc("Returns the connection's name.", "2.6.9", "O(1)"),
    sub("GETREDIR", "", Run::Node(get_redir)).doc(
        "Returns which connection invalidations go to: -1, none.",
        "6.0.0",
        "O(1)",
    ),
    help::spec("CLIENT", Group::Connection, "5.0.0"),
    sub("ID", "", Run::Node(id)).doc("Returns the connection's id, unique on this node.", "5.0.0", "O(1)"),
    sub("INFO", "", Run::Node(client_list::info))
        .doc("Describes this connection.", "6.2.0", "O(1)")
        .tips(&["nondeterministic_output"]),
    sub("KILL", client_kill::SYNTAX_TEXT, Run::Session(client_kill::kill)).arity(-3).flags(Flags::ADMIN).doc(
        "Ends connections to this node.",
        "2.4.0",
        "O(N) where N is the number of client connections",
    ),
    sub(
        "LIST",
        "[TYPE <NORMAL | MASTER | REPLICA | PUBSUB>] [ID client-id [client-id ...]]",
        Run::Node(client_list::list),
    )
    .arity(-2)
    .flags(Flags::ADMIN)
    .doc("Describes the connections to this node.", "2.4.0", "O(N) where N is the number of client connections")
    .tips(&["nondeterministic_output"]),
    sub("NO-EVICT", "<ON | OFF>", Run::Session(no_evict)).arity(3).flags(Flags::ADMIN).doc(
        "Notes that the connection is not to be closed when memory is short.",
        "7.0.0",
        "O(1)",
    ),
    sub("NO-TOUCH", "<ON | OFF>", Run::Session(no_touch)).arity(3).doc(
        "Notes that the connection's reads are not to count as use of a key.",
        "7.2.0",
        "O(1)",
    ),
    sub("PAUSE", "timeout [WRITE | ALL]", Run::Node(pause)).arity(-3).flags(Flags::ADMIN).doc(
        "Makes commands on this node wait for some milliseconds.",
        "3.0.0",
        "O(1)",
    ),
    sub("REPLY", "<ON | OFF | SKIP>", Run::Session(reply)).arity(3).doc(
        "Chooses which commands are answered.",
        "3.2.0",
        "O(1)",
    ),
    sub("SETINFO", "<LIB-NAME libname | LIB-VER libver>", Run::Session(set_info))
        .arity(4)
        .doc("Notes name or version of the client library.", "7.2.0", "O(1)")
        .tips(ALL_NODES),
    sub("SETNAME", "connection-name", Run::Session(set_name))
        .arity(3)
        .doc("Names the connection.", "2.6.9", "O(1)")
        .tips(ALL_NODES),
    sub(
        "TRACKING",
        "<ON | OFF> [REDIRECT client-id] [PREFIX prefix [PREFIX prefix ...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
        Run::Node(tracking),
    )
    .arity(-3)
    .doc(
        "Turns server-assisted caching on or off; here it can only be off.",
        "6.0.0",
        "O(1). Some options may introduce additional complexity.",
    ),
    sub("TRACKINGINFO", "", Run::Node(tracking_info)).doc(
        "Describes server-assisted caching of this connection: off.",
        "6.2.0",
        "O(1)",
    ),
    sub("UNBLOCK", "client-id [TIMEOUT | ERROR]", Run::Node(unblock)).arity(-3).flags(Flags::ADMIN).doc(
        "Wakes a connection that waits in a command.",
        "5.0.0",
        "O(log N) where N is the number of client connections",
    ),
    sub("UNPAUSE", "", Run::Node(unpause)).flags(Flags::ADMIN).doc(
        "Ends a pause.",
        "6.2.0",
        "O(N) Where N is the number of paused clients",
    ),
];

const ALL_NODES: &[&str] = &["request_policy:all_nodes", "response_policy:all_succeeded"];

const fn sub(name: &'static str, syntax: &'static str, run: Run) -> Spec {
    Spec::new(name, syntax, Group::Connection, run)
        .of("CLIENT")
        .arity(2)
        .flags(Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE))
}

fn id(_: &Call, session: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Int(session.id.try_into().unwrap_or(i64::MAX)))
}

fn get_name(_: &Call, session: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::bulk_or_nil(Some(session.name.clone()).filter(|name| !name.is_empty())))
}

fn set_name(call: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    check_name(call.arg(2))?;
    session.name = call.arg(2).clone();
    Ok(Reply::ok())
}

fn set_info(call: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    let (attribute, value) = (call.arg(2), call.arg(3));
    let target = match &attribute.to_ascii_lowercase()[..] {
        b"lib-name" => &mut session.lib_name,
        b"lib-ver" => &mut session.lib_ver,
        _ => return Err(format!("ERR Unrecognized option '{}'", String::from_utf8_lossy(attribute)).into()),
    };
    if !is_plain(value) {
        let attribute = String::from_utf8_lossy(attribute);
        return Err(format!("ERR {attribute} cannot contain spaces, newlines or special characters.").into());
    }
    *target = value.clone();
    Ok(Reply::ok())
}

fn reply(call: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    session.reply_mode = match (&call.arg(2).to_ascii_lowercase()[..], session.reply_mode) {
        (b"on", _) => ReplyMode::On,
        (b"off", _) | (b"skip", ReplyMode::Off) => ReplyMode::Off,
        (b"skip", _) => ReplyMode::SkipNext,
        _ => return Err(SYNTAX.into()),
    };
    Ok(Reply::ok())
}

fn no_evict(call: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    session.no_evict = on_or_off(call.arg(2))?;
    Ok(Reply::ok())
}

fn no_touch(call: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    session.no_touch = on_or_off(call.arg(2))?;
    Ok(Reply::ok())
}

fn on_or_off(arg: &[u8]) -> Result<bool, CommandError> {
    match &arg.to_ascii_lowercase()[..] {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(SYNTAX.into()),
    }
}

fn pause(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let writes_only = match call.args.get(3).map(|mode| mode.to_ascii_lowercase()).as_deref() {
        None | Some(b"all") => false,
        Some(b"write") => true,
        Some(_) => return Err("ERR CLIENT PAUSE mode must be WRITE or ALL".into()),
    };
    if call.args.len() > 4 {
        return Err(misused(call));
    }
    let timeout = parse_i64(call.arg(2)).ok_or("ERR timeout is not an integer or out of range")?;
    let timeout = u64::try_from(timeout).map_err(|_| "ERR timeout is negative")?;
    let until_ms = host.now_ms().checked_add(timeout).filter(|&until| i64::try_from(until).is_ok());
    host.pause(Some(Pause { until_ms: until_ms.ok_or("ERR timeout is out of range")?, writes_only }));
    Ok(Reply::ok())
}

fn unpause(_: &Call, _: &Session, host: &dyn Host) -> Answer {
    host.pause(None);
    Ok(Reply::ok())
}

fn unblock(call: &Call, _: &Session, host: &dyn Host) -> Answer {
    let with_error = match call.args.get(3).map(|reason| reason.to_ascii_lowercase()).as_deref() {
        None | Some(b"timeout") => false,
        Some(b"error") => true,
        Some(_) => return Err("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR".into()),
    };
    let woken = u64::try_from(call.int(2)?).is_ok_and(|client| host.unblock(client, with_error));
    Ok(Reply::Int(woken.into()))
}

fn tracking(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    match on_or_off(call.arg(2))? {
        false => Ok(Reply::ok()),
        true => Err("ERR CLIENT TRACKING is not supported: values must not be cached on the strength of it".into()),
    }
}

fn caching(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Err("ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
        .into())
}

fn get_redir(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Int(-1))
}

fn tracking_info(_: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::map([
        ("flags", Reply::Set(vec![Reply::Bulk(Bytes::from_static(b"off"))])),
        ("redirect", Reply::Int(-1)),
        ("prefixes", Reply::Array(Vec::new())),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::facts::ClientFacts;
    use crate::commands::testing::Bench;

    const NO_SPACES: &str = "-ERR Client names cannot contain spaces, newlines or special characters.\r\n";

    #[test]
    fn a_name_is_kept_until_it_is_emptied() {
        let mut bench = Bench::new();
        bench.check("CLIENT GETNAME", "$-1\r\n");
        bench.check("CLIENT SETNAME x", "+OK\r\n");
        bench.check("client getname", "$1\r\nx\r\n");
        bench.check_args(&["CLIENT", "SETNAME", "a b"], NO_SPACES);
        bench.check_args(&["CLIENT", "SETNAME", "ä"], NO_SPACES);
        bench.check_args(&["CLIENT", "SETNAME", ""], "+OK\r\n");
        bench.check("CLIENT GETNAME", "$-1\r\n");
    }

    #[test]
    fn a_library_may_say_what_it_is() {
        let mut bench = Bench::new();
        bench.check("CLIENT SETINFO LIB-NAME redis-py", "+OK\r\n");
        bench.check("CLIENT SETINFO lib-ver 8.1.0", "+OK\r\n");
        bench.check("CLIENT SETINFO foo bar", "-ERR Unrecognized option 'foo'\r\n");
        bench.check_args(
            &["CLIENT", "SETINFO", "lib-ver", "a b"],
            "-ERR lib-ver cannot contain spaces, newlines or special characters.\r\n",
        );
        assert_eq!((&bench.session.lib_name[..], &bench.session.lib_ver[..]), (&b"redis-py"[..], &b"8.1.0"[..]));
    }

    #[test]
    fn replies_stop_and_come_back() {
        let mut bench = Bench::new();
        bench.check("CLIENT REPLY SKIP", "");
        bench.check("PING", "");
        bench.check("PING", "+PONG\r\n");
        bench.check("CLIENT REPLY OFF", "");
        bench.check("PING", "");
        bench.check("CLIENT REPLY SKIP", "");
        bench.check("PING", "");
        bench.check("PING", "");
        bench.check("CLIENT REPLY ON", "+OK\r\n");
        bench.check("CLIENT REPLY foo", "-ERR syntax error\r\n");
    }

    #[test]
    fn what_is_off_says_so() {
        let mut bench = Bench::new();
        bench.check("CLIENT GETREDIR", ":-1\r\n");
        bench.check("CLIENT TRACKING OFF", "+OK\r\n");
        assert!(bench.run("CLIENT TRACKING ON").starts_with("-ERR CLIENT TRACKING is not supported"));
        assert!(bench.run("CLIENT CACHING YES").starts_with("-ERR CLIENT CACHING can be called only when"));
        bench.check(
            "CLIENT MAINT_NOTIFICATIONS ON",
            "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n",
        );
        let info = "$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n";
        bench.check("CLIENT TRACKINGINFO", &format!("*6\r\n{info}"));
        bench.run("HELLO 3");
        bench.check("CLIENT TRACKINGINFO", &format!("%3\r\n{}", info.replace("*1", "~1")));
    }

    #[test]
    fn flags_of_the_connection_are_switched() {
        let mut bench = Bench::new();
        bench.check("CLIENT NO-EVICT on", "+OK\r\n");
        bench.check("CLIENT NO-TOUCH ON", "+OK\r\n");
        assert!(bench.session.no_evict && bench.session.no_touch);
        bench.check("CLIENT NO-TOUCH foo", "-ERR syntax error\r\n");
        bench.check("CLIENT ID", ":5\r\n");
    }

    #[test]
    fn a_pause_is_handed_to_the_node() {
        let mut bench = Bench::new();
        bench.check("CLIENT PAUSE 1000 WRITE", "+OK\r\n");
        let paused = bench.host.paused.lock().unwrap().take();
        assert_eq!(paused, Some(Pause { until_ms: 1_700_000_001_123, writes_only: true }));
        bench.check("CLIENT PAUSE -1", "-ERR timeout is negative\r\n");
        bench.check("CLIENT PAUSE x", "-ERR timeout is not an integer or out of range\r\n");
        bench.check("CLIENT PAUSE 9223372036854775807", "-ERR timeout is out of range\r\n");
        bench.check("CLIENT PAUSE 1 foo", "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n");
        assert_eq!(*bench.host.paused.lock().unwrap(), None);
        bench.check("CLIENT UNPAUSE", "+OK\r\n");
    }

    #[test]
    fn only_who_waits_is_woken() {
        let mut bench = Bench::new();
        let waiting =
            ClientFacts { session: Session { id: 9, ..Session::default() }, blocked: true, ..ClientFacts::default() };
        bench.host.others.push(waiting);
        bench.check("CLIENT UNBLOCK 9", ":1\r\n");
        bench.check("CLIENT UNBLOCK 8 ERROR", ":0\r\n");
        bench.check("CLIENT UNBLOCK 9 foo", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n");
        bench.check("CLIENT UNBLOCK x", "-ERR value is not an integer or out of range\r\n");
    }
}
