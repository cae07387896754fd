//! `CLIENT LIST` and `CLIENT INFO`: connections as lines of `name=value`.

use std::fmt::Write;

use super::call::Call;
use super::errors::{Answer, CommandError, SYNTAX};
use super::facts::ClientFacts;
use super::host::Host;
use super::session::Session;
use crate::base::num::parse_i64;
use crate::resp::Reply;

/// Kinds of connections that Redis tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A client that sends commands.
    Normal,
    /// One that has subscribed.
    PubSub,
    /// A link to or from another node: never among the connections listed here.
    Other,
}

impl Kind {
    pub(super) fn read(name: &[u8]) -> Result<Kind, CommandError> {
        match &name.to_ascii_lowercase()[..] {
            b"normal" => Ok(Kind::Normal),
            b"pubsub" => Ok(Kind::PubSub),
            b"master" | b"replica" | b"slave" => Ok(Kind::Other),
            _ => Err(format!("ERR Unknown client type '{}'", String::from_utf8_lossy(name)).into()),
        }
    }

    pub(super) fn of(facts: &ClientFacts) -> Kind {
        if facts.session.subscribed.any() { Kind::PubSub } else { Kind::Normal }
    }
}

pub(super) fn info(call: &Call, session: &Session, host: &dyn Host) -> Answer {
    let facts = connections(call, session, host).into_iter().find(|facts| facts.session.id == session.id);
    Ok(Reply::text(facts.map(|facts| line(&facts)).unwrap_or_default()))
}

pub(super) fn list(call: &Call, session: &Session, host: &dyn Host) -> Answer {
    let wanted = Wanted::read(call)?;
    let connections = connections(call, session, host);
    let lines: String = match wanted {
        Wanted::All => connections.iter().map(line).collect(),
        Wanted::Of(kind) => connections.iter().filter(|facts| Kind::of(facts) == kind).map(line).collect(),
        Wanted::Ids(ids) => {
            let by_id = |id: &i64| connections.iter().find(|facts| u64::try_from(*id) == Ok(facts.session.id));
            ids.iter().filter_map(by_id).map(line).collect()
        }
    };
    Ok(Reply::text(lines))
}

enum Wanted {
    All,
    Of(Kind),
    Ids(Vec<i64>),
}

impl Wanted {
    fn read(call: &Call) -> Result<Wanted, CommandError> {
        match (call.args.get(2).map(|option| option.to_ascii_lowercase()).as_deref(), call.args.get(3..)) {
            (None, _) => Ok(Wanted::All),
            (Some(b"type"), Some([kind])) => Ok(Wanted::Of(Kind::read(kind)?)),
            (Some(b"id"), Some(ids @ [_, ..])) => {
                let ids = ids.iter().map(|id| parse_i64(id).ok_or("ERR Invalid client ID"));
                Ok(Wanted::Ids(ids.collect::<Result<_, _>>()?))
            }
            _ => Err(SYNTAX.into()),
        }
    }
}

/// All connections in the order of their ids; the caller's own as it is at this very command.
pub(super) fn connections(call: &Call, session: &Session, host: &dyn Host) -> Vec<ClientFacts> {
    let mut all = host.clients();
    match all.iter_mut().find(|facts| facts.session.id == session.id) {
        Some(own) => own.session = session.clone(),
        None => all.push(ClientFacts::of(session)),
    }
    for own in all.iter_mut().filter(|facts| facts.session.id == session.id) {
        own.last_command = call.spec.full_name();
        own.idle_s = 0;
    }
    all.sort_by_key(|facts| facts.session.id);
    all
}

/// One line with its end, the fields as in Redis 7.2.
fn line(facts: &ClientFacts) -> String {
    let session = &facts.session;
    let mut line = String::with_capacity(400);
    let mut field = |name: &str, value: &dyn std::fmt::Display| {
        let blank = if line.is_empty() { "" } else { " " };
        // Writing to a String cannot fail.
        let _ = write!(line, "{blank}{name}={value}");
    };
    field("id", &session.id);
    field("addr", &session.addr);
    field("laddr", &session.laddr);
    field("fd", &facts.fd);
    field("name", &String::from_utf8_lossy(&session.name));
    field("age", &facts.age_s);
    field("idle", &facts.idle_s);
    field("flags", &flags(facts));
    field("db", &session.db.0);
    field("sub", &session.subscribed.channels);
    field("psub", &session.subscribed.patterns);
    field("ssub", &session.subscribed.shards);
    field("multi", &session.multi.map_or(-1, |multi| i64::from(multi.queued)));
    field("qbuf", &facts.query_buffer);
    field("qbuf-free", &facts.query_buffer_free);
    field("argv-mem", &facts.arguments);
    field("multi-mem", &session.multi.map_or(0, |multi| multi.bytes));
    field("rbs", &facts.output_buffer);
    field("rbp", &facts.output_buffer_peak);
    field("obl", &facts.output_length);
    field("oll", &0);
    field("omem", &0);
    field("tot-mem", &facts.total_memory);
    field("events", &"r");
    field("cmd", &if facts.last_command.is_empty() { "NULL" } else { &facts.last_command });
    field("user", &String::from_utf8_lossy(&session.user));
    field("redir", &-1);
    field("resp", &facts.protocol_version());
    field("lib-name", &String::from_utf8_lossy(&session.lib_name));
    field("lib-ver", &String::from_utf8_lossy(&session.lib_ver));
    line.push('\n');
    line
}

fn flags(facts: &ClientFacts) -> String {
    let session = &facts.session;
    let set = [
        (session.subscribed.any(), 'P'),
        (session.multi.is_some(), 'x'),
        (facts.blocked, 'b'),
        (session.closing, 'c'),
        (session.no_evict, 'e'),
        (session.no_touch, 'T'),
    ];
    let letters: String = set.into_iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect();
    if letters.is_empty() { "N".into() } else { letters }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Bench;

    const OWN: &str = "id=5 addr=127.0.0.1:50000 laddr=127.0.0.1:6379 fd=-1 name=app age=0 idle=0 flags=N db=2 sub=0 psub=0 \
                       ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 \
                       events=r cmd=client|info user=default redir=-1 resp=2 lib-name=x lib-ver=\n";

    fn bench() -> Bench {
        let mut bench = Bench::new();
        for command in ["CLIENT SETNAME app", "SELECT 2", "CLIENT SETINFO LIB-NAME x"] {
            bench.check(command, "+OK\r\n");
        }
        bench
    }

    fn other(id: u64) -> ClientFacts {
        let session = Session { id, no_evict: true, no_touch: true, ..Session::default() };
        ClientFacts { session, blocked: true, fd: 9, ..ClientFacts::default() }
    }

    #[test]
    fn a_connection_is_described_in_redis_fields() {
        let mut bench = bench();
        bench.check("CLIENT INFO", &format!("${}\r\n{OWN}\r\n", OWN.len()));
        bench.run("HELLO 3");
        let own = OWN.replace("resp=2", "resp=3");
        bench.check("CLIENT INFO", &format!("={}\r\ntxt:{own}\r\n", own.len() + 4));
    }

    #[test]
    fn a_list_is_in_the_order_of_ids_and_shows_the_caller_as_it_is_now() {
        let mut bench = bench();
        bench.host.others = vec![other(3), ClientFacts::of(&Session { id: 5, ..Session::default() }), other(8)];
        let text = bench.run("CLIENT LIST");
        let lines: Vec<&str> = text.lines().skip(1).filter(|line| !line.is_empty()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("id=3 ") && lines[0].contains(" flags=beT ") && lines[0].contains(" cmd=NULL "));
        assert!(
            lines[1].starts_with("id=5 ") && lines[1].contains(" name=app ") && lines[1].contains(" cmd=client|list ")
        );
    }

    #[test]
    fn a_list_can_be_narrowed() {
        let mut bench = bench();
        bench.host.others = vec![other(3), other(8)];
        assert_eq!(bench.run("CLIENT LIST ID 8 77 3").matches("id=").count(), 2);
        assert_eq!(bench.run("CLIENT LIST TYPE normal").matches("addr=").count() / 2, 3);
        bench.check("CLIENT LIST TYPE pubsub", "$0\r\n\r\n");
        bench.check("CLIENT LIST TYPE foo", "-ERR Unknown client type 'foo'\r\n");
        bench.check("CLIENT LIST ID x", "-ERR Invalid client ID\r\n");
        bench.check("CLIENT LIST ID", "-ERR syntax error\r\n");
        bench.check("CLIENT LIST foo", "-ERR syntax error\r\n");
    }
}
