//! `CLIENT KILL`: its old form with an address, its new one with filters that must all fit.

use bytes::Bytes;

use super::call::Call;
use super::client_list::{Kind, connections};
use super::errors::{Answer, CommandError, SYNTAX};
use super::facts::ClientFacts;
use super::host::Host;
use super::session::{DEFAULT_USER, Session};
use crate::base::num::parse_i64;
use crate::resp::Reply;

/// In the notation of Redis' documentation.
pub(super) const SYNTAX_TEXT: &str = "<ip:port | <[ID client-id] | [TYPE <NORMAL | MASTER | SLAVE | REPLICA | PUBSUB>] | \
     [USER username] | [ADDR ip:port] | [LADDR ip:port] | [SKIPME <YES | NO>] ...>>";

pub(super) fn kill(call: &Call, session: &mut Session, host: &dyn Host) -> Answer {
    let old_form = call.args.len() == 3;
    let filter = if old_form { Filter::address(call.arg(2)) } else { Filter::read(&call.args[2..])? };
    let mut fitting: Vec<u64> = connections(call, session, host)
        .iter()
        .filter(|facts| filter.fits(facts) && !(filter.skip_me && facts.session.id == session.id))
        .map(|facts| facts.session.id)
        .collect();
    let count = fitting.len();
    if fitting.contains(&session.id) {
        session.closing = true;
        fitting.retain(|&id| id != session.id);
    }
    host.kill(&fitting);
    match (old_form, count) {
        (true, 0) => Err("ERR No such client".into()),
        (true, _) => Ok(Reply::ok()),
        (false, _) => Ok(Reply::Int(count.try_into().unwrap_or(i64::MAX))),
    }
}

/// What a connection must be like.
#[derive(Default)]
struct Filter<'a> {
    id: Option<u64>,
    kind: Option<Kind>,
    addr: Option<&'a [u8]>,
    laddr: Option<&'a [u8]>,
    user: Option<&'a [u8]>,
    skip_me: bool,
}

impl<'a> Filter<'a> {
    fn address(addr: &'a [u8]) -> Self {
        Filter { addr: Some(addr), ..Filter::default() }
    }

    fn read(options: &'a [Bytes]) -> Result<Self, CommandError> {
        let mut filter = Filter { skip_me: true, ..Filter::default() };
        for option in options.chunks(2) {
            let [name, value] = option else { return Err(SYNTAX.into()) };
            match &name.to_ascii_lowercase()[..] {
                b"id" => filter.id = Some(id(value)?),
                b"type" => filter.kind = Some(Kind::read(value)?),
                b"addr" => filter.addr = Some(value),
                b"laddr" => filter.laddr = Some(value),
                b"user" => filter.user = Some(user(value)?),
                b"skipme" => filter.skip_me = yes_or_no(value)?,
                _ => return Err(SYNTAX.into()),
            }
        }
        Ok(filter)
    }

    fn fits(&self, facts: &ClientFacts) -> bool {
        let session = &facts.session;
        self.id.is_none_or(|id| id == session.id)
            && self.kind.is_none_or(|kind| kind == Kind::of(facts))
            && self.addr.is_none_or(|addr| addr == session.addr.as_bytes())
            && self.laddr.is_none_or(|laddr| laddr == session.laddr.as_bytes())
            && self.user.is_none_or(|user| user == session.user)
    }
}

fn id(value: &[u8]) -> Result<u64, CommandError> {
    let id = parse_i64(value).and_then(|id| u64::try_from(id).ok()).filter(|&id| id > 0);
    id.ok_or("ERR client-id should be greater than 0".into())
}

fn user(name: &[u8]) -> Result<&[u8], CommandError> {
    if name == DEFAULT_USER.as_bytes() {
        return Ok(name);
    }
    Err(format!("ERR No such user '{}'", String::from_utf8_lossy(name)).into())
}

fn yes_or_no(value: &[u8]) -> Result<bool, CommandError> {
    match &value.to_ascii_lowercase()[..] {
        b"yes" => Ok(true),
        b"no" => Ok(false),
        _ => Err(SYNTAX.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::Bench;

    fn bench() -> Bench {
        let mut bench = Bench::new();
        for (id, addr) in [(3, "10.0.0.1:1"), (8, "10.0.0.1:2"), (9, "10.0.0.2:1")] {
            let session = Session::new(id, addr.into(), "127.0.0.1:6379".into(), true);
            bench.host.others.push(ClientFacts { session, ..ClientFacts::default() });
        }
        bench
    }

    fn killed(bench: &Bench) -> Vec<u64> {
        std::mem::take(&mut *bench.host.killed.lock().unwrap())
    }

    #[test]
    fn the_old_form_answers_a_status_and_may_hit_the_caller() {
        let mut bench = bench();
        bench.check("CLIENT KILL 10.0.0.1:2", "+OK\r\n");
        assert_eq!(killed(&bench), [8]);
        bench.check("CLIENT KILL 10.0.0.9:2", "-ERR No such client\r\n");
        assert!(!bench.session.closing);
        bench.check("CLIENT KILL 127.0.0.1:50000", "+OK\r\n");
        assert!(bench.session.closing && killed(&bench).is_empty());
    }

    #[test]
    fn the_new_form_counts_what_fits_all_filters_and_spares_the_caller() {
        let mut bench = bench();
        bench.check("CLIENT KILL TYPE normal", ":3\r\n");
        assert_eq!((killed(&bench), bench.session.closing), (vec![3, 8, 9], false));
        bench.check("CLIENT KILL ID 9 ADDR 10.0.0.2:1", ":1\r\n");
        bench.check("CLIENT KILL ID 9 ADDR 10.0.0.1:1", ":0\r\n");
        bench.check("CLIENT KILL TYPE pubsub LADDR 127.0.0.1:6379", ":0\r\n");
        assert_eq!(killed(&bench), [9]);
        bench.check("CLIENT KILL USER default SKIPME no", ":4\r\n");
        assert!(bench.session.closing);
    }

    #[test]
    fn wrong_filters_end_nobody() {
        let mut bench = bench();
        bench.check("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n");
        bench.check("CLIENT KILL ID x", "-ERR client-id should be greater than 0\r\n");
        bench.check("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'\r\n");
        bench.check("CLIENT KILL USER foo", "-ERR No such user 'foo'\r\n");
        bench.check("CLIENT KILL SKIPME foo", "-ERR syntax error\r\n");
        bench.check("CLIENT KILL ID 3 ADDR", "-ERR syntax error\r\n");
        bench.check("CLIENT KILL foo bar", "-ERR syntax error\r\n");
        assert!(killed(&bench).is_empty());
    }
}
