//! The connection family: who a client is, which protocol and database it speaks to, and that it is there.

use bytes::Bytes;

use super::call::{Call, Cursor};
use super::client;
use super::errors::{Answer, CommandError, SYNTAX};
use super::host::Host;
use super::info::REDIS_VERSION;
use super::pubsub;
use super::session::{DEFAULT_USER, Face, Protocol, Session};
use super::spec::{Flags, Group, Run, Spec};
use crate::base::id::Db;
use crate::base::num::parse_i64;
use crate::resp::Reply;

/// The table.
pub static TABLE: &[Spec] = &[
    Spec::new("AUTH", "[username] password", Group::Connection, Run::Session(auth))
        .doc("Authenticates the connection.", "1.0.0", "O(N) where N is the number of passwords defined for the user")
        .arity(-2)
        .flags(HANDSHAKE),
    Spec::new("CLIENT", "", Group::Connection, Run::Container)
        .doc("A container for commands about client connections.", "2.4.0", "Depends on subcommand.")
        .arity(-2)
        .categories(&[])
        .children(client::TABLE),
    Spec::new("ECHO", "message", Group::Connection, Run::Node(echo))
        .doc("Returns what it is given.", "1.0.0", "O(1)")
        .arity(2)
        .flags(Flags::LOADING.and(Flags::STALE).and(Flags::FAST)),
    Spec::new(
        "HELLO",
        "[protover [AUTH username password] [SETNAME clientname]]",
        Group::Connection,
        Run::Session(hello),
    )
    .doc("Chooses the protocol, authenticates and names the connection in one go.", "6.0.0", "O(1)")
    .arity(-1)
    .flags(HANDSHAKE),
    Spec::new("PING", "[message]", Group::Connection, Run::Node(ping))
        .doc("Returns PONG, or what it is given.", "1.0.0", "O(1)")
        .arity(-1)
        .flags(Flags::FAST)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    Spec::new("QUIT", "", Group::Connection, Run::Session(quit))
        .doc("Ends the connection.", "1.0.0", "O(1)")
        .arity(-1)
        .flags(HANDSHAKE)
        .deprecated("7.2.0", "just closing the connection"),
    Spec::new("RESET", "", Group::Connection, Run::Session(reset))
        .doc("Makes the connection as it was when it began.", "6.2.0", "O(1)")
        .arity(1)
        .flags(HANDSHAKE),
    Spec::new("SELECT", "index", Group::Connection, Run::Session(select))
        .doc("Chooses the connection's database.", "1.0.0", "O(1)")
        .arity(2)
        .flags(Flags::LOADING.and(Flags::STALE).and(Flags::FAST)),
];

/// Flags of what must run before AUTH, whatever the state of the node.
const HANDSHAKE: Flags =
    Flags::NOSCRIPT.and(Flags::LOADING).and(Flags::STALE).and(Flags::FAST).and(Flags::NO_AUTH).and(Flags::ALLOW_BUSY);

const WRONG_PASSWORD: &str = "WRONGPASS invalid username-password pair or user is disabled.";
const NO_PASSWORD_SET: &str = "ERR AUTH <password> called without any password configured for the default user. \
                               Are you sure your configuration is correct?";
const HELLO_BEFORE_AUTH: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the \
                                 HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and \
                                 select the RESP protocol version at the same time";
const NAME_REFUSED: &str = "ERR Client names cannot contain spaces, newlines or special characters.";

fn auth(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    match call.args {
        [_, _] if !host.password_required() => Err(NO_PASSWORD_SET.into()),
        [_, password] => authenticate(session, host, DEFAULT_USER.as_bytes(), password),
        [_, user, password] => authenticate(session, host, user, password),
        _ => Err(SYNTAX.into()),
    }
    .map(|()| Reply::ok())
}

fn authenticate(session: &mut Session, host: &dyn Host, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    if !host.authenticate(user, password) {
        return Err(WRONG_PASSWORD.into());
    }
    session.authenticated = true;
    session.user = Bytes::copy_from_slice(user);
    Ok(())
}

fn echo(call: &Call, _: &Session, _: &dyn Host) -> Answer {
    Ok(Reply::Bulk(call.arg(1).clone()))
}

/// Nothing changes unless all of it can: an unknown option leaves the protocol as it was.
fn hello(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    let protocol = call.args.get(1).map(|version| protocol(version)).transpose()?;
    let asked = Greeting::read(call.cursor(2))?;
    if let Some((user, password)) = asked.auth {
        authenticate(session, host, user, password)?;
    }
    if !session.authenticated {
        return Err(HELLO_BEFORE_AUTH.into());
    }
    if let Some(name) = asked.name {
        session.name = name.clone();
    }
    session.protocol = protocol.unwrap_or(session.protocol);
    Ok(greeting(session))
}

fn protocol(version: &[u8]) -> Result<Protocol, CommandError> {
    match parse_i64(version) {
        Some(2) => Ok(Protocol::Resp2),
        Some(3) => Ok(Protocol::Resp3),
        Some(_) => Err("NOPROTO unsupported protocol version".into()),
        None => Err("ERR Protocol version is not an integer or out of range".into()),
    }
}

/// Options of HELLO.
#[derive(Default)]
struct Greeting<'a> {
    auth: Option<(&'a Bytes, &'a Bytes)>,
    name: Option<&'a Bytes>,
}

impl<'a> Greeting<'a> {
    fn read(mut options: Cursor<'a>) -> Result<Self, CommandError> {
        let mut greeting = Greeting::default();
        while let Some(option) = options.next_arg() {
            match (&option.to_ascii_uppercase()[..], options.rest()) {
                (b"AUTH", [user, password, ..]) => {
                    greeting.auth = Some((user, password));
                    options.next_arg();
                }
                (b"SETNAME", [name, ..]) => {
                    check_name(name)?;
                    greeting.name = Some(name);
                }
                _ => {
                    let option = String::from_utf8_lossy(option);
                    return Err(format!("ERR Syntax error in HELLO option '{option}'").into());
                }
            }
            options.next_arg();
        }
        Ok(greeting)
    }
}

/// What a server says of itself: Redis 7.2, since libraries choose their ways by name and version.
fn greeting(session: &Session) -> Reply {
    Reply::map([
        ("server", Reply::bulk_static("redis")),
        ("version", Reply::bulk_static(REDIS_VERSION)),
        ("proto", Reply::Int(if session.protocol == Protocol::Resp3 { 3 } else { 2 })),
        ("id", Reply::Int(session.id.try_into().unwrap_or(i64::MAX))),
        ("mode", Reply::bulk_static(if session.face == Face::Cluster { "cluster" } else { "standalone" })),
        ("role", Reply::bulk_static("master")),
        ("modules", Reply::Array(Vec::new())),
    ])
}

/// Among messages, in RESP2, the answer is shaped as one.
fn ping(call: &Call, session: &Session, _: &dyn Host) -> Answer {
    match call.args {
        [_] | [_, _] if session.only_listens() => {
            Ok(Reply::Array(vec![Reply::bulk_static("pong"), Reply::Bulk(call.arg(1).clone())]))
        }
        [_] => Ok(Reply::status("PONG")),
        [_, message] => Ok(Reply::Bulk(message.clone())),
        _ => Err(super::errors::wrong_arity("ping")),
    }
}

fn quit(_: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    session.closing = true;
    Ok(Reply::ok())
}

fn reset(_: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    let mut replies = pubsub::leave(session, host);
    session.reset(!host.password_required());
    replies.push(Reply::status("RESET"));
    Ok(Reply::Several(replies))
}

fn select(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    let index = call.int(1)?;
    if i32::try_from(index).is_err() {
        return Err("ERR value is out of range, value must between -2147483648 and 2147483647".into());
    }
    if session.face == Face::Cluster && index != 0 {
        return Err("ERR SELECT is not allowed in cluster mode".into());
    }
    let known = u8::try_from(index).ok().filter(|&index| u32::from(index) < host.databases());
    session.db = Db(known.ok_or("ERR DB index is out of range")?);
    Ok(Reply::ok())
}

/// Checks a name for a connection.
pub(super) fn check_name(name: &[u8]) -> Result<(), CommandError> {
    if is_plain(name) { Ok(()) } else { Err(NAME_REFUSED.into()) }
}

/// Whether `text` can stand in a line of `CLIENT LIST`: printable ASCII without spaces.
pub(super) fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Bench;

    #[test]
    fn ping_and_echo_answer() {
        let mut bench = Bench::new();
        bench.check("PING", "+PONG\r\n");
        bench.check("ping hello", "$5\r\nhello\r\n");
        bench.check("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n");
        bench.check("ECHO x", "$1\r\nx\r\n");
    }

    #[test]
    fn quit_answers_and_closes() {
        let mut bench = Bench::new();
        bench.check("QUIT", "+OK\r\n");
        assert!(bench.session.closing);
    }

    #[test]
    fn hello_3_switches_and_describes_the_server() {
        let mut bench = Bench::new();
        bench.check(
            "HELLO 3",
            "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:5\r\n\
             $4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
        );
        assert!(bench.run("HELLO").starts_with("%7\r\n"));
        assert!(bench.run("HELLO 2").starts_with("*14\r\n"));
    }

    #[test]
    fn a_refused_hello_changes_nothing() {
        let mut bench = Bench::new();
        bench.check("HELLO 4", "-NOPROTO unsupported protocol version\r\n");
        bench.check("HELLO 1", "-NOPROTO unsupported protocol version\r\n");
        bench.check("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n");
        bench.check("HELLO 3 FOO", "-ERR Syntax error in HELLO option 'FOO'\r\n");
        bench.check("HELLO 3 AUTH a", "-ERR Syntax error in HELLO option 'AUTH'\r\n");
        bench.check_args(&["HELLO", "3", "SETNAME", "a b"], &format!("-{NAME_REFUSED}\r\n"));
        assert_eq!((bench.session.protocol, bench.session.name.len()), (Protocol::Resp2, 0));
    }

    #[test]
    fn hello_takes_all_its_options_in_any_order() {
        let mut bench = Bench::with_password("secret");
        bench.check("HELLO 3", &format!("-{HELLO_BEFORE_AUTH}\r\n"));
        bench.check("HELLO 3 AUTH default wrong", &format!("-{WRONG_PASSWORD}\r\n"));
        assert!(bench.run("HELLO 3 setname app auth default secret").starts_with("%7\r\n"));
        assert_eq!((&bench.session.name[..], bench.session.authenticated), (&b"app"[..], true));
    }

    #[test]
    fn auth_is_worded_as_in_redis() {
        let mut open = Bench::new();
        open.check("AUTH x", &format!("-{NO_PASSWORD_SET}\r\n"));
        open.check("AUTH default x", "+OK\r\n");
        open.check("AUTH someone x", &format!("-{WRONG_PASSWORD}\r\n"));
        open.check("AUTH a b c", "-ERR syntax error\r\n");
        let mut locked = Bench::with_password("secret");
        locked.check("PING", "-NOAUTH Authentication required.\r\n");
        locked.check("AUTH x", &format!("-{WRONG_PASSWORD}\r\n"));
        locked.check("AUTH secret", "+OK\r\n");
        locked.check("AUTH default secret", "+OK\r\n");
        locked.check("PING", "+PONG\r\n");
    }

    #[test]
    fn reset_asks_for_the_password_again() {
        let mut bench = Bench::with_password("secret");
        bench.run("AUTH secret");
        bench.run("SELECT 3");
        bench.check("RESET", "+RESET\r\n");
        bench.check("PING", "-NOAUTH Authentication required.\r\n");
        assert_eq!(bench.session.db, Db(0));
    }

    #[test]
    fn select_keeps_to_the_databases_there_are() {
        let mut bench = Bench::new();
        bench.check("SELECT 15", "+OK\r\n");
        bench.check("SELECT 16", "-ERR DB index is out of range\r\n");
        bench.check("SELECT -1", "-ERR DB index is out of range\r\n");
        bench.check("SELECT 256", "-ERR DB index is out of range\r\n");
        bench.check("SELECT abc", "-ERR value is not an integer or out of range\r\n");
        bench.check(
            "SELECT 99999999999",
            "-ERR value is out of range, value must between -2147483648 and 2147483647\r\n",
        );
        assert_eq!(bench.session.db, Db(15));
    }
}
