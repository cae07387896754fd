//! The string family: values as they are, cut, joined and counted.
//!
//! Numbers: `INCR` and kin add to a counter, whose concurrent increments all count; `INCRBYFLOAT` writes its result as a
//! value, so that concurrent ones become siblings, because sums of floats depend on their order.

mod edit;
mod lcs;
mod set;

use bytes::Bytes;

use super::call::Call;
use super::errors::{Answer, CommandError};
use super::spec::{Combine, Flags, Group, Keys, Run, Spec};
use crate::base::num::add_decimal;
use crate::causality::expiry::Deadline;
use crate::model::{Draft, Fault, Ttl, View};
use crate::resp::Reply;

/// Every command of the family.
pub const TABLE: &[Spec] = &[
    read("GET", "key", get).doc("Returns the string at a key.", "1.0.0", "O(1)").arity(2).flags(Flags::FAST),
    write(
        "SET",
        "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | \
         PXAT unix-time-milliseconds | KEEPTTL]",
        set::set,
    )
    .doc("Writes a string in place of whatever the key held; creates the key if need be.", "1.0.0", "O(1)")
    .arity(-3)
    .flags(Flags::DENYOOM)
    .access(&[&["RW", "access", "update", "variable_flags"]]),
    write("SETNX", "key value", set::setnx)
        .doc("Writes a string unless the key exists.", "1.0.0", "O(1)")
        .arity(3)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["OW", "insert"]]),
    write("SETEX", "key seconds value", set::setex)
        .doc("Writes a string that expires after so many seconds.", "2.0.0", "O(1)")
        .arity(4)
        .flags(Flags::DENYOOM)
        .access(&[&["OW", "update"]]),
    write("PSETEX", "key milliseconds value", set::psetex)
        .doc("Writes a string that expires after so many milliseconds.", "2.6.0", "O(1)")
        .arity(4)
        .flags(Flags::DENYOOM)
        .access(&[&["OW", "update"]]),
    write("GETSET", "key value", set::getset)
        .doc("Writes a string and returns the one before it.", "1.0.0", "O(1)")
        .arity(3)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .deprecated("6.2.0", "`SET` with the `!GET` argument"),
    write("GETDEL", "key", set::getdel)
        .doc("Returns the string at a key and deletes the key.", "6.2.0", "O(1)")
        .arity(2)
        .flags(Flags::FAST)
        .access(&[&["RW", "access", "delete"]]),
    write(
        "GETEX",
        "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
        set::getex,
    )
    .doc("Returns the string at a key and changes when the key expires.", "6.2.0", "O(1)")
    .arity(-2)
    .flags(Flags::FAST),
    read("MGET", "key [key ...]", mget)
        .doc("Returns the strings at several keys.", "1.0.0", "O(N), N the number of keys")
        .arity(-2)
        .flags(Flags::FAST)
        .keys(Keys::ALL)
        .split(Combine::Interleave),
    write("MSET", "key value [key value ...]", mset)
        .doc("Writes strings to several keys.", "1.0.1", "O(N), N the number of keys")
        .arity(-3)
        .flags(Flags::DENYOOM)
        .keys(Keys::PAIRS)
        .split(Combine::AllOk)
        .access(&[&["OW", "update"]]),
    write("MSETNX", "key value [key value ...]", msetnx)
        .doc("Writes strings to several keys unless any of them exists.", "1.0.1", "O(N), N the number of keys")
        .arity(-3)
        .flags(Flags::DENYOOM)
        .keys(Keys::PAIRS)
        .access(&[&["OW", "insert"]]),
    write("APPEND", "key value", edit::append)
        .doc("Adds to the end of a string; creates the key if need be.", "2.0.0", "O(N), N the new length")
        .arity(3)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["RW", "insert"]]),
    read("STRLEN", "key", edit::strlen)
        .doc("Returns the length of a string in bytes.", "2.2.0", "O(1)")
        .arity(2)
        .flags(Flags::FAST)
        .access(&[&["RO"]]),
    write("SETRANGE", "key offset value", edit::setrange)
        .doc(
            "Overwrites a part of a string, padding it with zero bytes up to there.",
            "2.2.0",
            "O(N), N the new length",
        )
        .arity(4)
        .flags(Flags::DENYOOM)
        .access(&[&["RW", "update"]]),
    read("GETRANGE", "key start end", edit::getrange).doc("Returns a part of a string.", "2.4.0", "O(1)").arity(4),
    read("SUBSTR", "key start end", edit::getrange)
        .doc("Returns a part of a string: the former name of GETRANGE.", "1.0.0", "O(1)")
        .arity(4)
        .deprecated("2.0.0", "`GETRANGE`"),
    write("INCR", "key", |call, draft| add(call, draft, 1))
        .doc("Adds one to the integer at a key, 0 if there is none.", "1.0.0", "O(1)")
        .arity(2)
        .flags(Flags::DENYOOM.and(Flags::FAST)),
    write("DECR", "key", |call, draft| add(call, draft, -1))
        .doc("Takes one from the integer at a key, 0 if there is none.", "1.0.0", "O(1)")
        .arity(2)
        .flags(Flags::DENYOOM.and(Flags::FAST)),
    write("INCRBY", "key increment", incrby)
        .doc("Adds to the integer at a key, 0 if there is none.", "1.0.0", "O(1)")
        .arity(3)
        .flags(Flags::DENYOOM.and(Flags::FAST)),
    write("DECRBY", "key decrement", decrby)
        .doc("Takes from the integer at a key, 0 if there is none.", "1.0.0", "O(1)")
        .arity(3)
        .flags(Flags::DENYOOM.and(Flags::FAST)),
    write("INCRBYFLOAT", "key increment", incrbyfloat)
        .doc("Adds to the number at a key, 0 if there is none; concurrent ones become siblings.", "2.6.0", "O(1)")
        .arity(3)
        .flags(Flags::DENYOOM.and(Flags::FAST)),
    read("LCS", "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]", lcs::lcs)
        .doc(
            "Finds the longest common subsequence of two strings.",
            "7.0.0",
            "O(N*M), N and M the lengths of the strings",
        )
        .arity(-3)
        .keys(Keys::Range { first: 1, last: 2, step: 1 }),
];

/// A string that a client sent, to be kept: its own memory, so that it does not hold on to the whole request's. A long
/// one nearly is the whole request.
pub(super) fn kept(arg: &Bytes) -> Bytes {
    const LONG: usize = 64 * 1024;
    if arg.len() < LONG { Bytes::copy_from_slice(arg) } else { arg.clone() }
}

const fn read(name: &'static str, syntax: &'static str, run: fn(&Call, &mut View) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::String, Run::Read(run)).keys(Keys::FIRST)
}

const fn write(name: &'static str, syntax: &'static str, run: fn(&Call, &mut Draft) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::String, Run::Write(run)).keys(Keys::FIRST)
}

fn get(call: &Call, view: &mut View) -> Answer {
    Ok(Reply::bulk_or_nil(view.text(call.arg(1))?))
}

fn mget(call: &Call, view: &mut View) -> Answer {
    let texts = call.keys().map(|key| match view.text(key) {
        Err(Fault::WrongKind) => Ok(Reply::Nil),
        found => found.map(Reply::bulk_or_nil),
    });
    Ok(Reply::Array(texts.collect::<Result<_, Fault>>()?))
}

fn mset(call: &Call, draft: &mut Draft) -> Answer {
    set_pairs(call, draft)?;
    Ok(Reply::ok())
}

fn msetnx(call: &Call, draft: &mut Draft) -> Answer {
    for key in call.keys() {
        if draft.exists(key)? {
            return Ok(Reply::Int(0));
        }
    }
    set_pairs(call, draft)?;
    Ok(Reply::Int(1))
}

fn set_pairs(call: &Call, draft: &mut Draft) -> Result<(), Fault> {
    let mut args = call.cursor(1);
    while let (Some(key), Some(value)) = (args.next_arg(), args.next_arg()) {
        draft.set(key, kept(value), Ttl::Set(Deadline::Never))?;
    }
    Ok(())
}

fn incrby(call: &Call, draft: &mut Draft) -> Answer {
    add(call, draft, call.int(2)?)
}

fn decrby(call: &Call, draft: &mut Draft) -> Answer {
    let by = call.int(2)?.checked_neg().ok_or("ERR decrement would overflow")?;
    add(call, draft, by)
}

fn add(call: &Call, draft: &mut Draft, by: i64) -> Answer {
    Ok(Reply::Int(draft.increment(call.arg(1), by)?))
}

fn incrbyfloat(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    let current = draft.text(key)?.unwrap_or(Bytes::from_static(b"0"));
    let sum = add_decimal(&current, call.arg(2)).map_err(|error| CommandError::from(error.to_string()))?;
    let sum = Bytes::from(sum);
    draft.amend(key, sum.clone())?;
    Ok(Reply::Bulk(sum))
}
