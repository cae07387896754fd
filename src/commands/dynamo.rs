//! The dynamo family: what Dynamo has and Redis has not. Siblings and contexts, quorums by connection and by command,
//! where a key lies.
//!
//! Each is called as a subcommand (`DYNAMO GET key`) or by one dotted word (`DYNAMO.GET key`), for client libraries that
//! take a command for one word.

use std::sync::Arc;

use bytes::Bytes;

use super::call::{Call, Cursor, int};
use super::elements::name_of;
use super::errors::{Answer, CommandError, SYNTAX};
use super::help::help;
use super::host::Host;
use super::operate::{HINTS, NODES, SYNC, TERMS};
use super::session::{Quorum, Session};
use super::spec::{ClusterCall, Flags, Group, Keys, Run, Spec};
use super::string::kept;
use super::when::When;
use crate::base::kind::Kind;
use crate::base::limits::MAX_SIBLINGS;
use crate::causality::context::Context;
use crate::causality::counter::run_of;
use crate::causality::expiry::Deadline;
use crate::causality::{Cell, Dot, Value, Version};
use crate::model::{Draft, Fault, Look, RowKey, View, Visible};
use crate::resp::Reply;

/// The container.
pub const TABLE: &[Spec] = &[Spec::new("DYNAMO", "", Group::Dynamo, Run::Container)
    .doc("Siblings, contexts, quorums, and where keys lie.", SINCE, "Depends on the subcommand")
    .arity(-2)
    .children(SUBCOMMANDS)];

pub(super) const SINCE: &str = "0.1.0";

const GET: Spec = sub("GET", "key [FIELD field | MEMBER member]", Run::Read(get))
    .doc(
        "Returns all siblings of a key, or of a field or member, with a context that names them.",
        SINCE,
        "O(N), N the number of siblings",
    )
    .arity(-3)
    .keys(KEY);
const PUT: Spec = sub(
    "PUT",
    "key context value [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds] \
     [FIELD field]",
    Run::Write(put),
)
.doc(
    "Writes a string, or a field, in place of exactly what a context names; the context - names nothing.",
    SINCE,
    "O(N), N the number of siblings",
)
.arity(-5)
.flags(Flags::DENYOOM)
.keys(KEY);
const DEL: Spec = sub("DEL", "key context [FIELD field | MEMBER member]", Run::Write(del))
    .doc(
        "Deletes exactly what a context names and returns how many siblings are left.",
        SINCE,
        "O(N), N the number of siblings",
    )
    .arity(-4)
    .keys(KEY);
const QUORUM: Spec = sub("QUORUM", "[R replicas] [W replicas] [STRICT <yes | no>]", Run::Session(quorum))
    .doc(
        "Sets, or shows, how many replicas must answer this connection's reads and writes, and whether only owners count.",
        SINCE,
        "O(1)",
    )
    .arity(-2)
    .flags(Flags::FAST);
const WITH: Spec = sub("WITH", "[R replicas] [W replicas] [STRICT] [REPORT] command [arg ...]", Run::Prefix(with))
    .doc(
        "Runs one command with a quorum of its own; with REPORT, says which replicas answered.",
        SINCE,
        "As the command that follows",
    )
    .arity(-3)
    .flags(Flags::MOVABLEKEYS)
    .keys(Keys::Found(keys_of_inner));
const WHERE: Spec = sub("WHERE", "key", Run::Cluster(place))
    .doc(
        "Returns which nodes own a key, which of them are alive, and what each holds.",
        SINCE,
        "O(N), N the number of replicas",
    )
    .arity(3)
    .flags(Flags::READONLY)
    .keys(KEY);
const HELP: Spec = sub("HELP", "", Run::Node(help)).doc("Lists the subcommands.", SINCE, "O(1)").arity(2);

const SUBCOMMANDS: &[Spec] = &[GET, PUT, DEL, QUORUM, WITH, WHERE, NODES, HINTS, SYNC, TERMS, HELP];

/// The same commands, each as one word.
pub const DOTTED: &[Spec] = &[
    dotted(GET, "DYNAMO.GET"),
    dotted(PUT, "DYNAMO.PUT"),
    dotted(DEL, "DYNAMO.DEL"),
    dotted(QUORUM, "DYNAMO.QUORUM"),
    dotted(WITH, "DYNAMO.WITH"),
    dotted(WHERE, "DYNAMO.WHERE"),
    dotted(NODES, "DYNAMO.NODES"),
    dotted(HINTS, "DYNAMO.HINTS"),
    dotted(SYNC, "DYNAMO.SYNC"),
    dotted(TERMS, "DYNAMO.TERMS"),
];

const KEY: Keys = Keys::Range { first: 2, last: 2, step: 1 };

pub(super) const fn sub(name: &'static str, syntax: &'static str, run: Run) -> Spec {
    Spec::new(name, syntax, Group::Dynamo, run).of("DYNAMO")
}

const fn dotted(mut spec: Spec, name: &'static str) -> Spec {
    spec.name = name;
    spec.container = "";
    spec.arity = if spec.arity < 0 { spec.arity + 1 } else { spec.arity - 1 };
    if let Keys::Range { .. } = spec.keys {
        spec.keys = Keys::FIRST;
    }
    spec
}

/// Where a call's own arguments begin: after one word or two.
pub(super) fn first(call: &Call) -> usize {
    if call.spec.container.is_empty() { 1 } else { 2 }
}

fn get(call: &Call, view: &mut View) -> Answer {
    let key = call.arg(first(call));
    if let Some(of) = Of::parse(&mut call.cursor(first(call) + 1))? {
        let cell = of.cell(view, key)?;
        let context = view.seal_row(&of.row(view, key), &cell);
        return Ok(Reply::map(shown(context, &cell, view.now())));
    }
    let (cell, parts) = (view.cell(key)?, view.holds(key)?.parts);
    let kinds = parts.iter().map(|held| {
        let count = ("count", Reply::Int(signed(held.count)));
        Reply::map([("kind", Reply::bulk_static(held.kind.name())), count])
    });
    let kinds = Some(("collections", Reply::array(kinds))).filter(|_| !parts.is_empty());
    Ok(Reply::map(shown(view.seal(key, &cell), &cell, view.now()).into_iter().chain(kinds)))
}

/// What is shown of the versions of a row.
fn shown(context: String, cell: &Cell, now: u64) -> [(&'static str, Reply); 4] {
    let visible = Visible::of(cell.versions(), now);
    [
        ("context", Reply::bulk(context)),
        ("value", Reply::bulk_or_nil(visible.as_ref().map(Visible::text))),
        ("siblings", visible.as_ref().map_or(Reply::Array(Vec::new()), siblings)),
        ("runs", visible.map_or(Reply::Array(Vec::new()), |_| runs(cell))),
    ]
}

/// An element of a key that a command is about.
struct Of {
    kind: Kind,
    name: Bytes,
}

impl Of {
    /// `FIELD field` or `MEMBER member`, if there is anything.
    fn parse(rest: &mut Cursor) -> Result<Option<Of>, CommandError> {
        let kind = match () {
            () if rest.take("FIELD") => Kind::Hash,
            () if rest.take("MEMBER") => Kind::Set,
            () => return rest.finish().map(|()| None),
        };
        let name = name_of(rest.expect()?);
        rest.finish()?;
        Ok(Some(Of { kind, name }))
    }

    /// Its row, by which its contexts are named.
    fn row(&self, look: &impl Look, key: &[u8]) -> Bytes {
        RowKey::element(&look.head_row(key), self.kind.tag(), &self.name)
    }

    fn cell(&self, look: &mut impl Look, key: &[u8]) -> Result<Arc<Cell>, Fault> {
        let Some(held) = look.holds(key)?.part(self.kind) else { return Ok(Arc::default()) };
        Ok(look.element(key, held, &self.name)?.map(|element| element.cell).unwrap_or_default())
    }
}

/// The live values, the one that a plain GET answers first.
fn siblings(visible: &Visible) -> Reply {
    let mut values: Vec<_> = visible.values().collect();
    values.sort_by_key(|(version, _)| std::cmp::Reverse((version.stamp, version.dot)));
    Reply::array(values.into_iter().map(|(version, value)| sibling(visible, version, value)))
}

fn sibling(visible: &Visible, version: &Version, value: &Value) -> Reply {
    let expires = visible.deadline_of(version, value).ms().map_or(-1, signed);
    let said = [("value", Reply::Bulk(value.data.clone()))];
    let ends = [("expires", Reply::Int(expires))];
    Reply::map(said.into_iter().chain(named(version)).chain(ends))
}

/// What each run of a counter adds up to. A run is named by the dot that began it.
fn runs(cell: &Cell) -> Reply {
    let live = cell.versions().iter().filter_map(|version| Some((version, run_of(version)?)));
    Reply::array(live.map(|(version, (name, run))| {
        let sum = [("sum", Reply::bulk(run.sum.to_string())), ("run", Reply::bulk(name.to_string()))];
        Reply::map(sum.into_iter().chain(named(version)))
    }))
}

/// A version's dot and stamp.
fn named(version: &Version) -> [(&'static str, Reply); 3] {
    let Dot { actor, counter } = version.dot;
    let stamp = version.stamp.ms();
    [
        ("actor", Reply::bulk(actor.to_string())),
        ("counter", Reply::Int(signed(counter))),
        ("stamp", Reply::Int(signed(stamp))),
    ]
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn put(call: &Call, draft: &mut Draft) -> Answer {
    let at = first(call);
    let (key, value) = (call.arg(at), call.arg(at + 2));
    let mut rest = call.cursor(at + 3);
    let deadline = parse_end(call, &mut rest, draft.now())?;
    if let Some(of) = Of::parse(&mut rest)? {
        return put_element(draft, key, &of, call.arg(at + 1), (kept(value), deadline));
    }
    let context = open(draft, key, call.arg(at + 1))?;
    if matches!(deadline, Deadline::At(at) if at <= draft.now()) {
        // It would end before it began; a deadline hides no write that came after it.
        draft.remove_with_context(key, &context)?;
        return Ok(Reply::ok());
    }
    draft.put_with_context(key, kept(value), deadline, &context)?;
    if draft.siblings(key)? > MAX_SIBLINGS {
        return Err(too_many());
    }
    Ok(Reply::ok())
}

fn put_element(draft: &mut Draft, key: &[u8], of: &Of, text: &Bytes, value: (Bytes, Deadline)) -> Answer {
    if of.kind != Kind::Hash {
        return Err(SYNTAX.into());
    }
    let context = open(draft, &of.row(draft, key), text)?;
    draft.begin(key, of.kind)?;
    let ended = matches!(value.1, Deadline::At(at) if at <= draft.now());
    draft.resolve_element(key, of.kind, &of.name, &context, Some(value).filter(|_| !ended))?;
    let left = Visible::of(of.cell(draft, key)?.versions(), draft.now()).map_or(0, |visible| visible.values().count());
    if left > MAX_SIBLINGS {
        return Err(too_many());
    }
    Ok(Reply::ok())
}

fn too_many() -> CommandError {
    format!(
        "ERR too many siblings: this write would leave more than {MAX_SIBLINGS}. Read them with DYNAMO GET and \
         write with the context it gives"
    )
    .into()
}

fn parse_end(call: &Call, rest: &mut Cursor, now: u64) -> Result<Deadline, CommandError> {
    let Some(when) = rest.rest().first().and_then(|word| When::option(word)) else { return Ok(Deadline::Never) };
    rest.next_arg();
    let number = rest.expect()?;
    when.deadline(number, now, call.spec).map(Deadline::At)
}

fn del(call: &Call, draft: &mut Draft) -> Answer {
    let at = first(call);
    let key = call.arg(at);
    if let Some(of) = Of::parse(&mut call.cursor(at + 2))? {
        let context = open(draft, &of.row(draft, key), call.arg(at + 1))?;
        draft.resolve_element(key, of.kind, &of.name, &context, None)?;
        let (cell, now) = (of.cell(draft, key)?, draft.now());
        let left = Visible::of(cell.versions(), now).map_or(0, |visible| visible.values().count().max(1));
        return Ok(Reply::Int(signed(left as u64)));
    }
    let context = open(draft, key, call.arg(at + 1))?;
    draft.remove_with_context(key, &context)?;
    if !draft.holds(key)?.parts.is_empty() {
        // What came since the context was given: a collection counts as one.
        return Ok(Reply::Int(1));
    }
    let (cell, now) = (draft.cell(key)?, draft.now());
    // A counter that was never set has no value but is there: one.
    let left = Visible::of(cell.versions(), now).map_or(0, |visible| visible.values().count().max(1));
    Ok(Reply::Int(signed(left as u64)))
}

/// The context that a client gave back; `-` and nothing stand for having seen nothing.
fn open(draft: &Draft, key: &[u8], text: &Bytes) -> Result<Context, CommandError> {
    if matches!(text.as_ref(), b"" | b"-") {
        return Ok(Context::default());
    }
    draft.open_context(key, text).map_err(|error| format!("ERR invalid context: {error}").into())
}

fn quorum(call: &Call, session: &mut Session, _: &dyn Host) -> Answer {
    show_or_set(call, &mut session.quorum)
}

fn show_or_set(call: &Call, quorum: &mut Quorum) -> Answer {
    let mut rest = call.cursor(first(call));
    if rest.rest().is_empty() {
        let shown = |replicas: Option<u8>| replicas.map_or(Reply::bulk_static("-"), |n| Reply::Int(n.into()));
        let strict = quorum.strict.map_or("-", |strict| if strict { "yes" } else { "no" });
        return Ok(Reply::map([
            ("r", shown(quorum.read)),
            ("w", shown(quorum.write)),
            ("strict", Reply::bulk_static(strict)),
        ]));
    }
    let asked = take_settings(&mut rest, *quorum)?;
    rest.finish()?;
    *quorum = asked;
    Ok(Reply::ok())
}

/// Takes `R n`, `W n` and `STRICT yes`, in any order, off the front; what is not named stays as it is in `quorum`.
fn take_settings(rest: &mut Cursor, mut quorum: Quorum) -> Result<Quorum, CommandError> {
    loop {
        if rest.take("STRICT") {
            quorum.strict = match rest.expect()?.to_ascii_lowercase().as_slice() {
                b"yes" => Some(true),
                b"no" => Some(false),
                b"-" => None,
                _ => return Err("ERR STRICT is yes, no, or - for the database's own".into()),
            };
        } else if !take_replicas(rest, &mut quorum)? {
            return Ok(quorum);
        }
    }
}

/// Takes `R n`, `W n`, `STRICT` and `REPORT`, in any order, off the front.
fn take_quorum(rest: &mut Cursor) -> Result<Quorum, CommandError> {
    let mut quorum = Quorum::default();
    loop {
        if rest.take("STRICT") {
            quorum.strict = Some(true);
        } else if rest.take("REPORT") {
            quorum.report = true;
        } else if !take_replicas(rest, &mut quorum)? {
            return Ok(quorum);
        }
    }
}

/// Takes one `R n` or `W n`; says whether there was one.
fn take_replicas(rest: &mut Cursor, quorum: &mut Quorum) -> Result<bool, CommandError> {
    if rest.take("R") {
        quorum.read = replicas(rest.expect()?)?;
    } else if rest.take("W") {
        quorum.write = replicas(rest.expect()?)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// A number of replicas; `-` for what the database is set to.
fn replicas(arg: &Bytes) -> Result<Option<u8>, CommandError> {
    if arg.as_ref() == b"-" {
        return Ok(None);
    }
    let number = int(arg).ok().and_then(|number| u8::try_from(number).ok()).filter(|number| *number > 0);
    number.map(Some).ok_or("ERR a quorum is a number of replicas from 1 to 255, or - for the database's own".into())
}

/// The quorum of one command, and at which argument that command begins.
fn with(call: &Call) -> Result<(Quorum, usize), CommandError> {
    let (quorum, at) = split(call)?;
    let inner = super::resolve(call.args.get(at..).unwrap_or_default())?;
    if matches!(inner.run, Run::Prefix(_)) {
        return Err("ERR DYNAMO WITH cannot be nested".into());
    }
    Ok((quorum, at))
}

/// The same, whatever the command is.
fn split(call: &Call) -> Result<(Quorum, usize), CommandError> {
    let mut rest = call.cursor(first(call));
    let quorum = take_quorum(&mut rest)?;
    if rest.rest().is_empty() {
        return Err("ERR DYNAMO WITH needs a command after its quorum".into());
    }
    Ok((quorum, call.args.len() - rest.rest().len()))
}

/// At which argument of a prefix the command behind it begins; none if it is no prefix, or a wrong one.
pub fn inner_at(call: &Call) -> Option<usize> {
    matches!(call.spec.run, Run::Prefix(_)).then(|| split(call).ok())?.map(|(_, at)| at)
}

/// The keys of the command that `DYNAMO WITH` runs.
fn keys_of_inner(args: &[Bytes]) -> Vec<usize> {
    let Ok(spec) = super::resolve(args) else { return Vec::new() };
    let Ok((_, at)) = with(&Call { spec, args }) else { return Vec::new() };
    let inner = args.get(at..).unwrap_or_default();
    let positions = super::resolve(inner).map(|spec| spec.keys.positions(inner)).unwrap_or_default();
    positions.into_iter().map(|position| position + at).collect()
}

fn place(call: &Call, _: &Session) -> Result<ClusterCall, CommandError> {
    Ok(ClusterCall::Where(call.arg(first(call)).clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::inline;

    fn ask(quorum: &mut Quorum, line: &str) -> Answer {
        let args = inline::split(line.as_bytes()).unwrap();
        show_or_set(&Call { spec: super::super::resolve(&args).unwrap(), args: &args }, quorum)
    }

    #[test]
    fn a_connections_quorum_is_shown_set_and_given_back_to_the_database() {
        let mut quorum = Quorum::default();
        let shown =
            |r: Reply, w: Reply, strict| Ok(Reply::map([("r", r), ("w", w), ("strict", Reply::bulk_static(strict))]));
        let unset = || Reply::bulk_static("-");
        assert_eq!(ask(&mut quorum, "DYNAMO QUORUM"), shown(unset(), unset(), "-"));
        assert_eq!(ask(&mut quorum, "DYNAMO.QUORUM w 2"), Ok(Reply::ok()));
        assert_eq!(ask(&mut quorum, "DYNAMO QUORUM"), shown(unset(), Reply::Int(2), "-"));
        assert_eq!(ask(&mut quorum, "DYNAMO QUORUM STRICT yes"), Ok(Reply::ok()));
        assert_eq!(ask(&mut quorum, "DYNAMO QUORUM"), shown(unset(), Reply::Int(2), "yes"));
        assert_eq!(ask(&mut quorum, "DYNAMO QUORUM STRICT -"), Ok(Reply::ok()));
        assert_eq!(ask(&mut quorum, "DYNAMO QUORUM W 255 R 1"), Ok(Reply::ok()));
        assert_eq!(ask(&mut quorum, "DYNAMO QUORUM W -"), Ok(Reply::ok()));
        assert_eq!(quorum, Quorum { read: Some(1), ..Quorum::default() });
    }

    #[test]
    fn a_prefix_says_how_the_command_behind_it_is_to_be_run() {
        let split_of = |line: &str| {
            let args = inline::split(line.as_bytes()).unwrap();
            with(&Call { spec: super::super::resolve(&args).unwrap(), args: &args })
        };
        let plain = Quorum::default();
        assert_eq!(split_of("DYNAMO WITH GET k"), Ok((plain, 2)));
        let asked = Quorum { write: Some(3), strict: Some(true), report: true, ..plain };
        assert_eq!(split_of("DYNAMO.WITH strict W 3 REPORT SET k v"), Ok((asked, 5)));
        assert_eq!(split_of("DYNAMO WITH R 1 GET k"), Ok((Quorum { read: Some(1), ..plain }, 4)));
        assert!(split_of("DYNAMO WITH STRICT REPORT").is_err() && split_of("DYNAMO WITH R GET k").is_err());
    }

    #[test]
    fn a_quorum_that_makes_no_sense_is_refused_and_nothing_set() {
        let mut quorum = Quorum { read: Some(1), write: Some(2), ..Quorum::default() };
        let before = quorum;
        for words in
            ["R 0", "R 256", "W -1", "W two", "R", "X 1", "R 3 W", "R 3 X", "3", "STRICT", "STRICT maybe", "REPORT"]
        {
            assert!(ask(&mut quorum, &format!("DYNAMO QUORUM {words}")).is_err(), "{words}");
            assert_eq!(quorum, before);
        }
    }
}
