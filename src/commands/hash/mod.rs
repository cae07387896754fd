//! The hash family: a row for each field. A field is what a key of strings is: concurrent values are siblings of which one
//! answers, increments all count, and what was written stays, whatever else removes at the same time without having seen
//! it.

mod ends;

use bytes::Bytes;

use super::call::Call;
use super::elements::{Draw, draw, drawn, member_of, name_of, scan};
use super::errors::{Answer, CommandError, NOT_A_FLOAT, SYNTAX, wrong_arity};
use super::spec::{Flags, Group, Keys, Run, Spec};
use super::string::kept;
use crate::base::kind::Kind;
use crate::base::num::{add_decimal, parse_long_double};
use crate::causality::expiry::Deadline;
use crate::model::look::Held;
use crate::model::{Draft, Element, Fault, IncrError, Look, Ttl, View};
use crate::resp::Reply;

/// Every command of the family that Redis 7.2 has.
pub const TABLE: &[Spec] = &[
    write("HSET", "key field value [field value ...]", hset)
        .doc("Writes fields of a hash; creates the key if need be.", "2.0.0", "O(N), N the number of fields")
        .arity(-4)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["RW", "update"]]),
    write("HMSET", "key field value [field value ...]", hmset)
        .doc("Writes fields of a hash; creates the key if need be.", "2.0.0", "O(N), N the number of fields")
        .arity(-4)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["RW", "update"]])
        .deprecated("4.0.0", "`HSET` with multiple field-value pairs"),
    write("HSETNX", "key field value", hsetnx)
        .doc("Writes a field of a hash unless it is there.", "2.0.0", "O(1)")
        .arity(4)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["RW", "insert"]]),
    write("HDEL", "key field [field ...]", hdel)
        .doc("Removes fields of a hash.", "2.0.0", "O(N), N the number of fields")
        .arity(-3)
        .flags(Flags::FAST)
        .access(&[&["RW", "delete"]]),
    write("HINCRBY", "key field increment", hincrby)
        .doc("Adds to the integer in a field, 0 if there is none; concurrent ones all count.", "2.0.0", "O(1)")
        .arity(4)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["RW", "access", "update"]]),
    write("HINCRBYFLOAT", "key field increment", hincrbyfloat)
        .doc("Adds to the number in a field, 0 if there is none; concurrent ones become siblings.", "2.6.0", "O(1)")
        .arity(4)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["RW", "access", "update"]]),
    read("HGET", "key field", hget).doc("Returns a field of a hash.", "2.0.0", "O(1)").arity(3).flags(Flags::FAST),
    read("HMGET", "key field [field ...]", hmget)
        .doc("Returns several fields of a hash.", "2.0.0", "O(N), N the number of fields")
        .arity(-3)
        .flags(Flags::FAST),
    read("HEXISTS", "key field", hexists)
        .doc("Says whether a hash has a field.", "2.0.0", "O(1)")
        .arity(3)
        .flags(Flags::FAST)
        .access(&[&["RO"]]),
    read("HSTRLEN", "key field", hstrlen)
        .doc("Returns the length of a field of a hash.", "3.2.0", "O(1)")
        .arity(3)
        .flags(Flags::FAST)
        .access(&[&["RO"]]),
    read("HLEN", "key", hlen)
        .doc("Returns the number of fields of a hash.", "2.0.0", "O(1)")
        .arity(2)
        .flags(Flags::FAST)
        .access(&[&["RO"]]),
    read("HGETALL", "key", hgetall)
        .doc("Returns all fields of a hash with their values.", "2.0.0", "O(N), N the number of fields")
        .arity(2)
        .tips(&["nondeterministic_output_order"]),
    read("HKEYS", "key", hkeys)
        .doc("Returns all fields of a hash.", "2.0.0", "O(N), N the number of fields")
        .arity(2)
        .tips(&["nondeterministic_output_order"]),
    read("HVALS", "key", hvals)
        .doc("Returns all values of a hash.", "2.0.0", "O(N), N the number of fields")
        .arity(2)
        .tips(&["nondeterministic_output_order"]),
    read("HRANDFIELD", "key [count [WITHVALUES]]", hrandfield)
        .doc("Returns fields of a hash at random.", "6.2.0", "O(N), N the number of fields returned")
        .arity(-2)
        .tips(&["nondeterministic_output"]),
    read("HSCAN", "key cursor [MATCH pattern] [COUNT count]", hscan)
        .doc("Returns fields of a hash a part at a time.", "2.8.0", "O(N), N the number of fields returned")
        .arity(-3)
        .tips(&["nondeterministic_output"]),
];

pub use ends::LATER;

const fn read(name: &'static str, syntax: &'static str, run: fn(&Call, &mut View) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Hash, Run::Read(run)).keys(Keys::FIRST)
}

const fn write(name: &'static str, syntax: &'static str, run: fn(&Call, &mut Draft) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Hash, Run::Write(run)).keys(Keys::FIRST)
}

/// How Redis would keep a hash.
pub fn encoding(look: &mut impl Look, key: &[u8], held: Held) -> Result<&'static str, Fault> {
    const SMALL: (u64, usize) = (512, 64);
    if held.count > SMALL.0 {
        return Ok("hashtable");
    }
    let (mut longest, now) = (0, look.now());
    look.each(key, held, |element| {
        longest = longest.max(member_of(&element).len()).max(element.text(now).len());
        Ok::<(), Fault>(())
    })?;
    Ok(if longest <= SMALL.1 { "listpack" } else { "hashtable" })
}

fn hset(call: &Call, draft: &mut Draft) -> Answer {
    set_all(call, draft).map(Reply::Int)
}

fn hmset(call: &Call, draft: &mut Draft) -> Answer {
    set_all(call, draft).map(|_| Reply::ok())
}

fn set_all(call: &Call, draft: &mut Draft) -> Result<i64, CommandError> {
    let key = call.arg(1);
    let pairs = call.args.get(2..).unwrap_or_default();
    if !pairs.len().is_multiple_of(2) {
        return Err(wrong_arity(&call.spec.full_name()));
    }
    draft.begin(key, Kind::Hash)?;
    let mut new = 0;
    for pair in pairs.chunks_exact(2) {
        new += i64::from(set(draft, key, &pair[0], &pair[1])?);
    }
    Ok(new)
}

/// Writes a field, its time to live included; says whether it is new.
fn set(draft: &mut Draft, key: &[u8], field: &[u8], value: &Bytes) -> Result<bool, Fault> {
    draft.put_element(key, Kind::Hash, &name_of(field), kept(value), Ttl::Set(Deadline::Never))
}

fn hsetnx(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    let held = draft.begin(key, Kind::Hash)?;
    if text(draft, key, held, call.arg(2))?.is_some() {
        return Ok(Reply::Int(0));
    }
    set(draft, key, call.arg(2), call.arg(3))?;
    Ok(Reply::Int(1))
}

fn hdel(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    if draft.open(key, Kind::Hash)?.is_none() {
        return Ok(Reply::Int(0));
    }
    let mut removed = 0;
    for field in call.args.get(2..).unwrap_or_default() {
        removed += i64::from(draft.remove_element(key, Kind::Hash, &name_of(field))?);
    }
    Ok(Reply::Int(removed))
}

fn hincrby(call: &Call, draft: &mut Draft) -> Answer {
    let (key, by) = (call.arg(1), call.int(3)?);
    draft.begin(key, Kind::Hash)?;
    match draft.increment_element(key, Kind::Hash, &name_of(call.arg(2)), by) {
        Err(IncrError::NotAnInteger) => Err("ERR hash value is not an integer".into()),
        sum => Ok(Reply::Int(sum?)),
    }
}

fn hincrbyfloat(call: &Call, draft: &mut Draft) -> Answer {
    let (key, field, by) = (call.arg(1), call.arg(2), call.arg(3));
    check_float(by)?;
    let held = draft.begin(key, Kind::Hash)?;
    let current = text(draft, key, held, field)?.unwrap_or(Bytes::from_static(b"0"));
    if parse_long_double(&current).is_none() {
        return Err("ERR hash value is not a float".into());
    }
    let sum = add_decimal(&current, by).map_err(|error| CommandError::from(error.to_string()))?;
    let sum = Bytes::from(sum);
    draft.amend_element(key, Kind::Hash, &name_of(field), sum.clone())?;
    Ok(Reply::Bulk(sum))
}

/// Redis looks at what is to be added before it looks at the key.
fn check_float(by: &[u8]) -> Result<(), CommandError> {
    let number = parse_long_double(by).ok_or(NOT_A_FLOAT)?;
    if number.is_finite() { Ok(()) } else { Err("ERR value is NaN or Infinity".into()) }
}

/// The value of a field of what was opened.
fn text(look: &mut impl Look, key: &[u8], held: Option<Held>, field: &[u8]) -> Result<Option<Bytes>, Fault> {
    let Some(held) = held else { return Ok(None) };
    let now = look.now();
    Ok(look.element(key, held, &name_of(field))?.map(|element| element.text(now)))
}

fn hget(call: &Call, view: &mut View) -> Answer {
    let held = view.open(call.arg(1), Kind::Hash)?;
    Ok(Reply::bulk_or_nil(text(view, call.arg(1), held, call.arg(2))?))
}

fn hmget(call: &Call, view: &mut View) -> Answer {
    let held = view.open(call.arg(1), Kind::Hash)?;
    let fields = call.args.get(2..).unwrap_or_default();
    let values = fields.iter().map(|field| Ok(Reply::bulk_or_nil(text(view, call.arg(1), held, field)?)));
    Ok(Reply::Array(values.collect::<Result<_, Fault>>()?))
}

fn hexists(call: &Call, view: &mut View) -> Answer {
    let held = view.open(call.arg(1), Kind::Hash)?;
    Ok(Reply::Int(text(view, call.arg(1), held, call.arg(2))?.is_some().into()))
}

fn hstrlen(call: &Call, view: &mut View) -> Answer {
    let held = view.open(call.arg(1), Kind::Hash)?;
    Ok(Reply::Int(text(view, call.arg(1), held, call.arg(2))?.map_or(0, |text| text.len() as i64)))
}

fn hlen(call: &Call, view: &mut View) -> Answer {
    let held = view.open(call.arg(1), Kind::Hash)?;
    Ok(Reply::Int(held.map_or(0, |held| i64::try_from(held.count).unwrap_or(i64::MAX))))
}

fn hgetall(call: &Call, view: &mut View) -> Answer {
    let mut pairs = Vec::new();
    each(call, view, |field, value| pairs.push((Reply::Bulk(field), Reply::Bulk(value))))?;
    Ok(Reply::Map(pairs))
}

fn hkeys(call: &Call, view: &mut View) -> Answer {
    let mut fields = Vec::new();
    each(call, view, |field, _| fields.push(Reply::Bulk(field)))?;
    Ok(Reply::Array(fields))
}

fn hvals(call: &Call, view: &mut View) -> Answer {
    let mut values = Vec::new();
    each(call, view, |_, value| values.push(Reply::Bulk(value)))?;
    Ok(Reply::Array(values))
}

fn each(call: &Call, view: &mut View, mut each: impl FnMut(Bytes, Bytes)) -> Result<(), Fault> {
    let (key, now) = (call.arg(1), view.now());
    let Some(held) = view.open(key, Kind::Hash)? else { return Ok(()) };
    view.each(key, held, |element| {
        each(member_of(&element), element.text(now));
        Ok(())
    })
}

fn hrandfield(call: &Call, view: &mut View) -> Answer {
    let key = call.arg(1);
    let count = call.args.get(2).map(|arg| drawn(arg)).transpose()?;
    let with_values = match call.args.get(3) {
        Some(word) if call.args.len() == 4 && word.eq_ignore_ascii_case(b"WITHVALUES") => true,
        Some(_) => return Err(SYNTAX.into()),
        None => false,
    };
    if with_values && matches!(count, Some(Draw::Any(n) | Draw::Different(n)) if n > i64::MAX as u64 / 2) {
        return Err("ERR value is out of range".into());
    }
    let held = view.open(key, Kind::Hash)?;
    let Some(held) = held else { return Ok(if count.is_some() { Reply::Array(Vec::new()) } else { Reply::Nil }) };
    let now = view.now();
    let found = draw(view, key, held, count.unwrap_or(Draw::Different(1)))?;
    let pairs = found.iter().map(|element| (Reply::Bulk(member_of(element)), Reply::Bulk(element.text(now))));
    Ok(match (count, with_values) {
        (None, _) => pairs.map(|(field, _)| field).next().unwrap_or(Reply::Nil),
        (Some(_), false) => Reply::Array(pairs.map(|(field, _)| field).collect()),
        (Some(_), true) => Reply::Pairs(pairs.collect()),
    })
}

fn hscan(call: &Call, view: &mut View) -> Answer {
    scan(call, view, Kind::Hash, |element: &Element, now| {
        vec![Reply::Bulk(member_of(element)), Reply::Bulk(element.text(now))]
    })
}
