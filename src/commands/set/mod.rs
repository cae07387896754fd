//! The set family: a row for each member. What concurrent commands add stays, whatever else removes at the same time: a
//! removal takes only what it had seen.
//!
//! Several sets of one partition are read as they are at one moment. Of several partitions each is read at a moment of its
//! own, then written at one coordinator.

mod algebra;

use bytes::Bytes;

use super::call::Call;
use super::elements::{Draw, draw, drawn, member_of, name_of, positive, scan};
use super::errors::{Answer, SYNTAX};
use super::spec::{Flags, Group, Keys, Run, Spec};
use crate::base::kind::Kind;
use crate::causality::expiry::Deadline;
use crate::model::look::{Held, PAGE, Span};
use crate::model::{Draft, Element, Fault, Look, Ttl, View};
use crate::resp::Reply;

pub use algebra::{Operation, combine, replace};

/// Every command of the family.
pub const TABLE: &[Spec] = &[
    write("SADD", "key member [member ...]", sadd)
        .doc("Adds members to a set; creates the key if need be.", "1.0.0", "O(N), N the number of members added")
        .arity(-3)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["RW", "insert"]]),
    write("SREM", "key member [member ...]", srem)
        .doc("Removes members from a set.", "1.0.0", "O(N), N the number of members removed")
        .arity(-3)
        .flags(Flags::FAST)
        .access(&[&["RW", "delete"]]),
    write("SMOVE", "source destination member", smove)
        .doc("Moves a member from one set to another.", "1.0.0", "O(1)")
        .arity(4)
        .flags(Flags::FAST)
        .keys(TWO)
        .access(&[&["RW", "access", "delete"], &["RW", "insert"]]),
    write("SPOP", "key [count]", spop)
        .doc("Removes members at random and returns them.", "1.0.0", "O(N), N the number of members removed")
        .arity(-2)
        .flags(Flags::FAST)
        .access(&[&["RW", "access", "delete"]])
        .tips(&["nondeterministic_output"]),
    read("SISMEMBER", "key member", sismember)
        .doc("Says whether a set has a member.", "1.0.0", "O(1)")
        .arity(3)
        .flags(Flags::FAST)
        .access(&[&["RO"]]),
    read("SMISMEMBER", "key member [member ...]", smismember)
        .doc("Says of each of several members whether a set has it.", "6.2.0", "O(N), N the number of members")
        .arity(-3)
        .flags(Flags::FAST)
        .access(&[&["RO", "access"]]),
    read("SCARD", "key", scard)
        .doc("Returns the number of members of a set.", "1.0.0", "O(1)")
        .arity(2)
        .flags(Flags::FAST)
        .access(&[&["RO"]]),
    read("SMEMBERS", "key", smembers)
        .doc("Returns all members of a set.", "1.0.0", "O(N), N the number of members")
        .arity(2)
        .tips(&["nondeterministic_output_order"]),
    read("SRANDMEMBER", "key [count]", srandmember)
        .doc("Returns members of a set at random.", "1.0.0", "O(N), N the number of members returned")
        .arity(-2)
        .tips(&["nondeterministic_output"]),
    read("SSCAN", "key cursor [MATCH pattern] [COUNT count]", sscan)
        .doc("Returns members of a set a part at a time.", "2.8.0", "O(N), N the number of members returned")
        .arity(-3)
        .tips(&["nondeterministic_output"]),
    read("SINTER", "key [key ...]", algebra::sinter)
        .doc(
            "Returns the members that all of several sets have.",
            "1.0.0",
            "O(N*M), N the smallest, M the number of sets",
        )
        .arity(-2)
        .keys(Keys::ALL)
        .tips(&["nondeterministic_output_order"]),
    read("SINTERCARD", "numkeys key [key ...] [LIMIT limit]", algebra::sintercard)
        .doc(
            "Returns how many members all of several sets have.",
            "7.0.0",
            "O(N*M), N the smallest, M the number of sets",
        )
        .arity(-3)
        .flags(Flags::MOVABLEKEYS)
        .keys(Keys::Found(algebra::counted_keys)),
    write("SINTERSTORE", "destination key [key ...]", algebra::sinterstore)
        .doc(
            "Writes the members that all of several sets have to a key.",
            "1.0.0",
            "O(N*M), N the smallest, M the number of sets",
        )
        .arity(-3)
        .flags(Flags::DENYOOM)
        .keys(Keys::ALL)
        .access(&[&["RW", "update"], &["RO", "access"]]),
    read("SUNION", "key [key ...]", algebra::sunion)
        .doc("Returns the members that any of several sets has.", "1.0.0", "O(N), N the number of members of all")
        .arity(-2)
        .keys(Keys::ALL)
        .tips(&["nondeterministic_output_order"]),
    write("SUNIONSTORE", "destination key [key ...]", algebra::sunionstore)
        .doc(
            "Writes the members that any of several sets has to a key.",
            "1.0.0",
            "O(N), N the number of members of all",
        )
        .arity(-3)
        .flags(Flags::DENYOOM)
        .keys(Keys::ALL)
        .access(STORES),
    read("SDIFF", "key [key ...]", algebra::sdiff)
        .doc("Returns the members of a set that no other of several has.", "1.0.0", "O(N*M), N the first, M the others")
        .arity(-2)
        .keys(Keys::ALL)
        .tips(&["nondeterministic_output_order"]),
    write("SDIFFSTORE", "destination key [key ...]", algebra::sdiffstore)
        .doc(
            "Writes the members of a set that no other of several has to a key.",
            "1.0.0",
            "O(N*M), N the first, M the others",
        )
        .arity(-3)
        .flags(Flags::DENYOOM)
        .keys(Keys::ALL)
        .access(STORES),
];

const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
const STORES: &[&[&str]] = &[&["OW", "update"], &["RO", "access"]];

const fn read(name: &'static str, syntax: &'static str, run: fn(&Call, &mut View) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Set, Run::Read(run)).keys(Keys::FIRST)
}

const fn write(name: &'static str, syntax: &'static str, run: fn(&Call, &mut Draft) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Set, Run::Write(run)).keys(Keys::FIRST)
}

/// How Redis would keep a set.
pub fn encoding(look: &mut impl Look, key: &[u8], held: Held) -> Result<&'static str, Fault> {
    const INTEGERS: u64 = 512;
    const SMALL: (u64, usize) = (128, 64);
    if held.count > INTEGERS {
        return Ok("hashtable");
    }
    let (mut integers, mut longest) = (true, 0);
    look.each(key, held, |element| {
        let member = member_of(&element);
        integers &= crate::base::num::parse_i64(&member).is_some();
        longest = longest.max(member.len());
        Ok::<(), Fault>(())
    })?;
    Ok(match integers {
        true => "intset",
        false if held.count <= SMALL.0 && longest <= SMALL.1 => "listpack",
        false => "hashtable",
    })
}

/// Adds a member; says whether it is new. One that is there is written anew, so that who removes it at the same time
/// elsewhere, without having seen this, does not take it away.
pub fn add(draft: &mut Draft, key: &[u8], member: &[u8]) -> Result<bool, Fault> {
    draft.put_element(key, Kind::Set, &name_of(member), Bytes::new(), Ttl::Set(Deadline::Never))
}

fn sadd(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    draft.begin(key, Kind::Set)?;
    count(call.args.get(2..).unwrap_or_default(), |member| add(draft, key, member))
}

fn srem(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    if draft.open(key, Kind::Set)?.is_none() {
        return Ok(Reply::Int(0));
    }
    count(call.args.get(2..).unwrap_or_default(), |member| draft.remove_element(key, Kind::Set, &name_of(member)))
}

fn count(members: &[Bytes], mut counts: impl FnMut(&[u8]) -> Result<bool, Fault>) -> Answer {
    let mut sum = 0;
    for member in members {
        sum += i64::from(counts(member)?);
    }
    Ok(Reply::Int(sum))
}

fn smove(call: &Call, draft: &mut Draft) -> Answer {
    let (source, destination, member) = (call.arg(1), call.arg(2), call.arg(3));
    let Some(held) = draft.open(source, Kind::Set)? else { return Ok(Reply::Int(0)) };
    draft.open(destination, Kind::Set)?;
    if draft.element(source, held, &name_of(member))?.is_none() {
        return Ok(Reply::Int(0));
    }
    if source != destination {
        draft.remove_element(source, Kind::Set, &name_of(member))?;
        draft.begin(destination, Kind::Set)?;
        add(draft, destination, member)?;
    }
    Ok(Reply::Int(1))
}

fn spop(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    if call.args.len() > 3 {
        return Err(SYNTAX.into());
    }
    let count = call.args.get(2).map(|arg| positive(arg)).transpose()?;
    let held = draft.open(key, Kind::Set)?;
    let Some(held) = held else { return Ok(if count.is_some() { Reply::Set(Vec::new()) } else { Reply::Nil }) };
    let popped = draw(draft, key, held, Draw::Different(count.unwrap_or(1)))?;
    for element in &popped {
        draft.remove_element(key, Kind::Set, &element.name)?;
    }
    let mut members = popped.iter().map(|element| Reply::Bulk(member_of(element)));
    Ok(match count {
        Some(_) => Reply::Set(members.collect()),
        None => members.next().unwrap_or(Reply::Nil),
    })
}

fn sismember(call: &Call, view: &mut View) -> Answer {
    let held = view.open(call.arg(1), Kind::Set)?;
    has(view, call.arg(1), held, call.arg(2))
}

fn smismember(call: &Call, view: &mut View) -> Answer {
    let key = call.arg(1);
    let held = view.open(key, Kind::Set)?;
    let members = call.args.get(2..).unwrap_or_default();
    Ok(Reply::Array(members.iter().map(|member| has(view, key, held, member)).collect::<Result<_, _>>()?))
}

fn has(view: &mut View, key: &[u8], held: Option<Held>, member: &[u8]) -> Answer {
    let Some(held) = held else { return Ok(Reply::Int(0)) };
    Ok(Reply::Int(view.element(key, held, &name_of(member))?.is_some().into()))
}

fn scard(call: &Call, view: &mut View) -> Answer {
    let held = view.open(call.arg(1), Kind::Set)?;
    Ok(Reply::Int(held.map_or(0, |held| i64::try_from(held.count).unwrap_or(i64::MAX))))
}

fn smembers(call: &Call, view: &mut View) -> Answer {
    let key = call.arg(1);
    let mut members = Vec::new();
    if let Some(held) = view.open(key, Kind::Set)? {
        view.each(key, held, |element| {
            members.push(Reply::Bulk(member_of(&element)));
            Ok::<(), Fault>(())
        })?;
    }
    Ok(Reply::Set(members))
}

fn srandmember(call: &Call, view: &mut View) -> Answer {
    let key = call.arg(1);
    if call.args.len() > 3 {
        return Err(SYNTAX.into());
    }
    let count = call.args.get(2).map(|arg| drawn(arg)).transpose()?;
    let held = view.open(key, Kind::Set)?;
    let Some(held) = held else { return Ok(if count.is_some() { Reply::Array(Vec::new()) } else { Reply::Nil }) };
    let members = draw(view, key, held, count.unwrap_or(Draw::Different(1)))?;
    let mut members = members.iter().map(|element| Reply::Bulk(member_of(element)));
    Ok(match count {
        Some(_) => Reply::Array(members.collect()),
        None => members.next().unwrap_or(Reply::Nil),
    })
}

fn sscan(call: &Call, view: &mut View) -> Answer {
    scan(call, view, Kind::Set, |element: &Element, _| vec![Reply::Bulk(member_of(element))])
}

/// Members of a set in the order of rows, behind `from`.
fn members_from(
    look: &mut impl Look,
    key: &[u8],
    held: Held,
    from: &[u8],
) -> Result<(Vec<Element>, Option<Bytes>), Fault> {
    look.page(key, held, Span { from, to: None }, PAGE)
}
