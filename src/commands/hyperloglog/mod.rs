//! The HyperLogLog family: about how many different elements there were, in 12 KB at most.
//!
//! A HyperLogLog is a string, as in Redis. Concurrent changes of one are siblings like those of any string, but these
//! commands look at all of them and take the greatest of each register: nothing that was noted on either side is lost. The
//! next change puts them together.

mod registers;

use bytes::Bytes;

use self::registers::{Encoding, Invalid, Registers};
use super::call::Call;
use super::errors::{Answer, CommandError};
use super::spec::{Flags, Group, Keys, Run, Spec};
use crate::causality::Cell;
use crate::model::{Draft, Ttl, View, Visible};
use crate::resp::Reply;

/// Every command of the family.
pub const TABLE: &[Spec] = &[
    write("PFADD", "key [element [element ...]]", pfadd)
        .doc("Notes elements in a HyperLogLog; creates the key if need be.", "2.8.9", "O(N), N the number of elements")
        .arity(-2)
        .flags(Flags::DENYOOM.and(Flags::FAST))
        .access(&[&["RW", "insert"]]),
    Spec::new("PFCOUNT", "key [key ...]", Group::Hyperloglog, Run::Read(pfcount))
        .doc(
            "Tells about how many different elements were noted, in all keys together.",
            "2.8.9",
            "O(N), N the number of keys",
        )
        .arity(-2)
        .keys(Keys::ALL),
    write("PFMERGE", "destkey [sourcekey [sourcekey ...]]", pfmerge)
        .doc("Notes in one HyperLogLog what others have noted.", "2.8.9", "O(N), N the number of keys")
        .arity(-2)
        .flags(Flags::DENYOOM)
        .keys(Keys::ALL)
        .access(&[&["RW", "access", "insert"], &["RO", "access"]]),
    write("PFDEBUG", "subcommand key", pfdebug)
        .doc("Shows how a HyperLogLog is kept.", "2.8.9", "N/A")
        .arity(3)
        .flags(Flags::DENYOOM.and(Flags::ADMIN))
        .keys(Keys::Range { first: 2, last: 2, step: 1 })
        .access(&[&["RW", "access"]])
        .internal(),
];

const fn write(name: &'static str, syntax: &'static str, run: fn(&Call, &mut Draft) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Hyperloglog, Run::Write(run)).keys(Keys::FIRST)
}

/// Most bytes of runs before registers are written one by one: the default of Redis' `hll-sparse-max-bytes`, less what the
/// header takes.
const SPARSE_BYTES: usize = 3000 - 16;

const NOT_ONE: &str = "WRONGTYPE Key is not a valid HyperLogLog string value.";
const DAMAGED: &str = "INVALIDOBJ Corrupted HLL object detected";

impl From<Invalid> for CommandError {
    fn from(invalid: Invalid) -> Self {
        match invalid {
            Invalid::Other => NOT_ONE.into(),
            Invalid::Damaged => DAMAGED.into(),
        }
    }
}

/// What all siblings of a key have noted; none if it is absent. The one that a plain read answers says what kind of thing
/// the key holds; siblings that are something else say nothing.
fn noted(cell: &Cell, now: u64) -> Result<Option<Registers>, CommandError> {
    let Some(visible) = Visible::of(cell.versions(), now) else { return Ok(None) };
    let mut registers = Registers::decode(&visible.text())?;
    for (_, value) in visible.values() {
        if let Ok(other) = Registers::decode(&value.data) {
            registers.merge(&other);
        }
    }
    Ok(Some(registers))
}

fn noted_in(draft: &mut Draft, key: &[u8]) -> Result<Option<Registers>, CommandError> {
    let now = draft.now();
    // Another kind of value is refused.
    draft.text(key)?;
    noted(&*draft.cell(key)?, now)
}

fn put(draft: &mut Draft, key: &[u8], registers: &Registers) -> Result<(), CommandError> {
    Ok(draft.set(key, registers.encode(SPARSE_BYTES).into(), Ttl::Keep)?)
}

fn pfadd(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    let old = noted_in(draft, key)?;
    let mut changed = old.is_none();
    let mut registers = old.unwrap_or_default();
    for element in call.cursor(2).rest() {
        changed |= registers.add(element);
    }
    if changed {
        put(draft, key, &registers)?;
    }
    Ok(Reply::Int(changed.into()))
}

fn pfcount(call: &Call, view: &mut View) -> Answer {
    let all = noted_in_all(call.keys(), view)?;
    Ok(Reply::Int(i64::try_from(all.estimate()).unwrap_or(i64::MAX)))
}

fn noted_in_all<'a>(keys: impl Iterator<Item = &'a Bytes>, view: &mut View) -> Result<Registers, CommandError> {
    let mut all = Registers::default();
    for key in keys {
        let now = view.now();
        view.text(key)?;
        if let Some(registers) = noted(&*view.cell(key)?, now)? {
            all.merge(&registers);
        }
    }
    Ok(all)
}

/// What several keys have noted, as one string: the half of a PFMERGE that reads.
///
/// # Errors
/// One of them holds something else.
pub fn merged(keys: &[Bytes], view: &mut View) -> Result<Bytes, CommandError> {
    Ok(noted_in_all(keys.iter(), view)?.encode(SPARSE_BYTES).into())
}

/// `key value`: notes in a key what the string `value` has noted: the half of a PFMERGE that writes.
///
/// # Errors
/// One of them is something else.
pub fn merge_given(call: &Call, draft: &mut Draft) -> Answer {
    let mut all = Registers::decode(call.arg(2))?;
    if let Some(registers) = noted_in(draft, call.arg(1))? {
        all.merge(&registers);
    }
    put(draft, call.arg(1), &all)?;
    Ok(Reply::ok())
}

fn pfmerge(call: &Call, draft: &mut Draft) -> Answer {
    let mut all = Registers::default();
    for key in call.keys() {
        if let Some(registers) = noted_in(draft, key)? {
            all.merge(&registers);
        }
    }
    put(draft, call.arg(1), &all)?;
    Ok(Reply::ok())
}

fn pfdebug(call: &Call, draft: &mut Draft) -> Answer {
    let (what, key) = (call.arg(1), call.arg(2));
    let mut registers = noted_in(draft, key)?.ok_or("ERR The specified key does not exist")?;
    let is = |name: &str| what.eq_ignore_ascii_case(name.as_bytes());
    if is("ENCODING") {
        return Ok(Reply::status(if registers.encoding == Encoding::Dense { "dense" } else { "sparse" }));
    }
    if !is("GETREG") && !is("TODENSE") {
        let what: Bytes = what.clone();
        return Err(format!("ERR Unknown PFDEBUG subcommand '{}'", String::from_utf8_lossy(&what)).into());
    }
    // GETREG writes registers one by one as well, in Redis.
    let changes = registers.encoding == Encoding::Sparse;
    registers.encoding = Encoding::Dense;
    if changes {
        put(draft, key, &registers)?;
    }
    if is("TODENSE") {
        return Ok(Reply::Int(changes.into()));
    }
    Ok(Reply::array(registers.iter().map(|register| Reply::Int(register.into()))))
}

#[cfg(test)]
mod tests {
    use crate::commands::harness::Replica;
    use crate::resp::Reply;

    #[test]
    fn what_two_sides_noted_is_counted_together_and_the_next_change_puts_it_together() {
        let (mut one, mut other) = (Replica::new(1), Replica::new(2));
        one.run("PFADD seen a b c");
        other.run("PFADD seen c d");
        one.tell(&mut other);
        other.tell(&mut one);
        for side in [&mut one, &mut other] {
            assert_eq!(side.cell("seen").versions().len(), 2);
            assert_eq!(side.run("PFCOUNT seen"), Reply::Int(4));
            assert_eq!(side.run("PFADD seen a d"), Reply::Int(0));
        }
        assert_eq!(one.run("PFADD seen e"), Reply::Int(1));
        assert_eq!(one.cell("seen").versions().len(), 1);
        one.tell(&mut other);
        assert_eq!(other.run("PFCOUNT seen"), Reply::Int(5));
    }

    #[test]
    fn a_sibling_that_is_something_else_is_passed_by() {
        let (mut one, mut other) = (Replica::new(1), Replica::new(2));
        other.run("SET seen word");
        one.now += 1000;
        one.run("PFADD seen a b c");
        other.tell(&mut one);
        assert_eq!(one.cell("seen").versions().len(), 2);
        assert_eq!(one.run("PFCOUNT seen"), Reply::Int(3));
    }
}
