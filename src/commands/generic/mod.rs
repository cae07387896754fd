//! The generic family: what can be done with a key whatever it holds, and what concerns all keys at once.
//!
//! Deliberately absent: SORT, DUMP, RESTORE and MIGRATE.

mod expire;
mod object;
mod sweep;

use super::call::Call;
use super::errors::{Answer, NO_SUCH_KEY};
use super::help::help;
use super::spec::{Combine, Flags, Group, Keys, Run, Spec};
use crate::base::kind::Kind;
use crate::model::{Draft, Fault, View};
use crate::resp::Reply;

const FAST: Flags = Flags::FAST;
const TWO_KEYS: Keys = Keys::Range { first: 1, last: 2, step: 1 };

/// Every command of the family, and those of Redis' server family that concern keys.
pub const TABLE: &[Spec] = &[
    write("DEL", "key [key ...]", del)
        .doc("Deletes keys.", "1.0.0", "O(N), N the number of keys and of the elements they hold")
        .arity(-2)
        .keys(Keys::ALL)
        .split(Combine::Sum)
        .access(&[&["RM", "delete"]]),
    write("UNLINK", "key [key ...]", del)
        .doc("Deletes keys: the same as DEL, which never waits for memory here.", "4.0.0", "O(N), N the number of keys")
        .arity(-2)
        .flags(FAST)
        .keys(Keys::ALL)
        .split(Combine::Sum)
        .access(&[&["RM", "delete"]]),
    read("EXISTS", "key [key ...]", exists)
        .doc("Counts those of the keys that exist, one named twice as two.", "1.0.0", "O(N), N the number of keys")
        .arity(-2)
        .flags(FAST)
        .keys(Keys::ALL)
        .split(Combine::Sum)
        .access(&[&["RO"]]),
    read("TYPE", "key", kind)
        .doc("Returns what kind of value a key holds.", "1.0.0", "O(1)")
        .arity(2)
        .flags(FAST)
        .access(&[&["RO"]]),
    read("TOUCH", "key [key ...]", exists)
        .doc("Counts those of the keys that exist and marks them as used.", "3.2.1", "O(N), N the number of keys")
        .arity(-2)
        .flags(FAST)
        .keys(Keys::ALL)
        .split(Combine::Sum)
        .access(&[&["RO"]]),
    write("EXPIRE", "key seconds [NX | XX | GT | LT]", expire::expire)
        .doc("Lets a key expire after so many seconds.", "1.0.0", "O(1)")
        .arity(-3)
        .flags(FAST)
        .access(&[&["RW", "update"]]),
    write("PEXPIRE", "key milliseconds [NX | XX | GT | LT]", expire::pexpire)
        .doc("Lets a key expire after so many milliseconds.", "2.6.0", "O(1)")
        .arity(-3)
        .flags(FAST)
        .access(&[&["RW", "update"]]),
    write("EXPIREAT", "key unix-time-seconds [NX | XX | GT | LT]", expire::expireat)
        .doc("Lets a key expire at a time in seconds.", "1.2.0", "O(1)")
        .arity(-3)
        .flags(FAST)
        .access(&[&["RW", "update"]]),
    write("PEXPIREAT", "key unix-time-milliseconds [NX | XX | GT | LT]", expire::pexpireat)
        .doc("Lets a key expire at a time in milliseconds.", "2.6.0", "O(1)")
        .arity(-3)
        .flags(FAST)
        .access(&[&["RW", "update"]]),
    read("TTL", "key", expire::ttl)
        .doc("Returns in how many seconds a key expires.", "1.0.0", "O(1)")
        .arity(2)
        .flags(FAST)
        .tips(&["nondeterministic_output"]),
    read("PTTL", "key", expire::pttl)
        .doc("Returns in how many milliseconds a key expires.", "2.6.0", "O(1)")
        .arity(2)
        .flags(FAST)
        .tips(&["nondeterministic_output"]),
    read("EXPIRETIME", "key", expire::expiretime)
        .doc("Returns the time in seconds at which a key expires.", "7.0.0", "O(1)")
        .arity(2)
        .flags(FAST),
    read("PEXPIRETIME", "key", expire::pexpiretime)
        .doc("Returns the time in milliseconds at which a key expires.", "7.0.0", "O(1)")
        .arity(2)
        .flags(FAST),
    write("PERSIST", "key", expire::persist)
        .doc("Lets a key live until it is deleted.", "2.2.0", "O(1)")
        .arity(2)
        .flags(FAST)
        .access(&[&["RW", "update"]]),
    write("RENAME", "key newkey", rename)
        .doc("Gives what a key holds another name, in place of whatever that named.", "1.0.0", "O(1)")
        .arity(3)
        .keys(TWO_KEYS)
        .access(&[&["RW", "access", "delete"], &["OW", "update"]]),
    write("RENAMENX", "key newkey", renamenx)
        .doc("Gives what a key holds another name unless that is taken.", "1.0.0", "O(1)")
        .arity(3)
        .flags(FAST)
        .keys(TWO_KEYS)
        .access(&[&["RW", "access", "delete"], &["OW", "insert"]]),
    cluster("COPY", "source destination [DB destination-db] [REPLACE]", sweep::copy)
        .doc(
            "Copies what a key holds to another name or database.",
            "6.2.0",
            "O(N), N the number of elements; O(1) for strings",
        )
        .arity(-3)
        .flags(Flags::WRITE.and(Flags::DENYOOM))
        .keys(TWO_KEYS)
        .access(&[&["RO", "access"], &["OW", "update"]]),
    cluster("MOVE", "key db", sweep::move_key)
        .doc("Moves a key to another database unless it has one of that name.", "1.0.0", "O(1)")
        .arity(3)
        .flags(Flags::WRITE.and(FAST))
        .keys(Keys::FIRST),
    server("SWAPDB", "index1 index2", sweep::swapdb)
        .doc("Refused: each database has a clock of its own on every replica.", "4.0.0", "O(1)")
        .arity(3)
        .flags(Flags::WRITE.and(FAST))
        .categories(&["keyspace", "dangerous"]),
    cluster("RANDOMKEY", "", sweep::randomkey)
        .doc("Returns any one key of the database.", "1.0.0", "O(1)")
        .flags(Flags::READONLY)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
    cluster("KEYS", "pattern", sweep::keys)
        .doc("Returns all keys whose name matches a pattern.", "1.0.0", "O(N), N the number of keys in the database")
        .arity(2)
        .flags(Flags::READONLY)
        .categories(&["keyspace", "dangerous"])
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"]),
    cluster("SCAN", "cursor [MATCH pattern] [COUNT count] [TYPE type]", sweep::scan)
        .doc(
            "Walks through the keys of the database in steps.",
            "2.8.0",
            "O(1) a step, O(N) the whole walk, N the number of keys",
        )
        .arity(-2)
        .flags(Flags::READONLY)
        .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"]),
    server("DBSIZE", "", sweep::dbsize)
        .doc("Counts the keys of the database.", "1.0.0", "O(P), P the number of partitions")
        .flags(Flags::READONLY.and(FAST))
        .categories(&["keyspace"])
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"]),
    server("FLUSHDB", "[ASYNC | SYNC]", sweep::flushdb)
        .doc(
            "Deletes all keys of the database.",
            "1.0.0",
            "O(P), P the number of partitions; rows go in the background",
        )
        .arity(-1)
        .flags(Flags::WRITE)
        .categories(&["keyspace", "dangerous"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    server("FLUSHALL", "[ASYNC | SYNC]", sweep::flushall)
        .doc(
            "Deletes all keys of all databases.",
            "1.0.0",
            "O(P), P the number of partitions; rows go in the background",
        )
        .arity(-1)
        .flags(Flags::WRITE)
        .categories(&["keyspace", "dangerous"])
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    Spec::new("OBJECT", "", Group::Generic, Run::Container)
        .doc("Tells how a value is kept.", "2.2.3", "Depends on the subcommand")
        .arity(-2)
        .children(OBJECT)
        .categories(&[]),
    cluster("WAIT", "numreplicas timeout", sweep::wait)
        .doc("Waits until so many other replicas have what this connection wrote.", "3.0.0", "O(1)")
        .arity(3)
        .categories(CONNECTION)
        .tips(TO_ALL),
    cluster("WAITAOF", "numlocal numreplicas timeout", sweep::waitaof)
        .doc(
            "Waits until this node and so many other replicas have on disk what this connection wrote.",
            "7.2.0",
            "O(1)",
        )
        .arity(4)
        .flags(Flags::NOSCRIPT)
        .categories(CONNECTION)
        .tips(TO_ALL),
];

const CONNECTION: &[&str] = &["connection"];
const TO_ALL: &[&str] = &["request_policy:all_shards", "response_policy:agg_min"];

const OBJECT: &[Spec] = &[
    object("ENCODING", object::encoding)
        .doc("Returns how Redis would keep the string at a key.", "2.2.3", "O(1)")
        .tips(&["nondeterministic_output"]),
    object("FREQ", object::freq)
        .doc("Refused for keys that exist: how often a key is used is not counted.", "4.0.0", "O(1)")
        .tips(&["nondeterministic_output"]),
    Spec::new("HELP", "", Group::Generic, Run::Node(help))
        .of("OBJECT")
        .doc("Lists the subcommands.", "6.2.0", "O(1)")
        .arity(2)
        .flags(Flags::LOADING.and(Flags::STALE)),
    object("IDLETIME", object::idletime)
        .doc("Returns how many seconds ago a key was last written.", "2.2.3", "O(1)")
        .tips(&["nondeterministic_output"]),
    object("REFCOUNT", object::refcount)
        .doc("Returns how many owners Redis would count for the value.", "2.2.3", "O(1)")
        .tips(&["nondeterministic_output"]),
];

const fn read(name: &'static str, syntax: &'static str, run: fn(&Call, &mut View) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Generic, Run::Read(run)).keys(Keys::FIRST)
}

const fn write(name: &'static str, syntax: &'static str, run: fn(&Call, &mut Draft) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Generic, Run::Write(run)).keys(Keys::FIRST)
}

const fn cluster(name: &'static str, syntax: &'static str, run: sweep::Asks) -> Spec {
    Spec::new(name, syntax, Group::Generic, Run::Cluster(run))
}

const fn server(name: &'static str, syntax: &'static str, run: sweep::Asks) -> Spec {
    Spec::new(name, syntax, Group::Server, Run::Cluster(run))
}

const fn object(name: &'static str, run: fn(&Call, &mut View) -> Answer) -> Spec {
    read(name, "key", run).of("OBJECT").arity(3).keys(Keys::Range { first: 2, last: 2, step: 1 }).access(&[&["RO"]])
}

fn del(call: &Call, draft: &mut Draft) -> Answer {
    count(call, |key| draft.remove(key))
}

fn exists(call: &Call, view: &mut View) -> Answer {
    count(call, |key| view.exists(key))
}

fn count(call: &Call, mut counts: impl FnMut(&[u8]) -> Result<bool, Fault>) -> Answer {
    let mut sum = 0;
    for key in call.keys() {
        sum += i64::from(counts(key)?);
    }
    Ok(Reply::Int(sum))
}

fn kind(call: &Call, view: &mut View) -> Answer {
    Ok(Reply::status(view.kind(call.arg(1))?.map_or("none", Kind::name)))
}

fn rename(call: &Call, draft: &mut Draft) -> Answer {
    rename_over(call, draft, |_, _| Ok(true)).map(|_| Reply::ok())
}

fn renamenx(call: &Call, draft: &mut Draft) -> Answer {
    rename_over(call, draft, |draft, key| Ok(!draft.exists(key)?)).map(|done| Reply::Int(done.into()))
}

/// Renames where `may` allows what lies under the new name to go; says whether it did. A key's own name is allowed and
/// changes nothing, if the key is there.
fn rename_over(
    call: &Call,
    draft: &mut Draft,
    may: impl Fn(&mut Draft, &[u8]) -> Result<bool, Fault>,
) -> Result<bool, super::CommandError> {
    let (key, new) = (call.arg(1), call.arg(2));
    if !draft.exists(key)? {
        return Err(NO_SUCH_KEY.into());
    }
    if key == new || !may(draft, new)? {
        return Ok(false);
    }
    draft.rename(key, new)?;
    Ok(true)
}
