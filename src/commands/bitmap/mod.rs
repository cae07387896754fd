//! The bitmap family: strings as rows of bits, the first bit of a byte its highest.
//!
//! A bitmap is a string, so concurrent changes of one are siblings: bits that two sides set are not put together, as little
//! as Redis' own active-active does it.

mod field;
mod range;

use bytes::{Bytes, BytesMut};

use self::range::{Span, Unit};
use super::call::{Call, Cursor};
use super::errors::{Answer, CommandError, SYNTAX};
use super::spec::{Flags, Group, Keys, Run, Spec};
use crate::base::limits::MAX_STRING_BYTES;
use crate::base::num::parse_i64;
use crate::causality::expiry::Deadline;
use crate::model::{Draft, Fault, Ttl, View};
use crate::resp::Reply;

/// Every command of the family.
pub const TABLE: &[Spec] = &[
    write("SETBIT", "key offset value", setbit)
        .doc("Sets or clears a bit of a string, padding it with zeros up to there.", "2.2.0", "O(N), N the length")
        .arity(4)
        .flags(Flags::DENYOOM),
    read("GETBIT", "key offset", getbit).doc("Returns a bit of a string.", "2.2.0", "O(1)").arity(3).flags(Flags::FAST),
    read("BITCOUNT", "key [start end [BYTE | BIT]]", bitcount)
        .doc("Counts the bits of a string that are set.", "2.6.0", "O(N), N the bytes looked at")
        .arity(-2),
    read("BITPOS", "key bit [start [end [BYTE | BIT]]]", bitpos)
        .doc("Finds the first bit of a string that is set, or clear.", "2.8.7", "O(N), N the bytes looked at")
        .arity(-3),
    write("BITOP", "<AND | OR | XOR | NOT> destkey key [key ...]", bitop)
        .doc("Writes what a bitwise operation makes of several strings.", "2.6.0", "O(N), N the bytes of all strings")
        .arity(-4)
        .flags(Flags::DENYOOM)
        .keys(Keys::Range { first: 2, last: -1, step: 1 })
        .access(&[&["OW", "update"], &["RO", "access"]]),
    write(
        "BITFIELD",
        "key [GET encoding offset | [OVERFLOW <WRAP | SAT | FAIL>] <SET encoding offset value | \
         INCRBY encoding offset increment> ...]",
        field::bitfield,
    )
    .doc("Reads and changes integers of any width within a string.", "3.2.0", "O(1) for each of them")
    .arity(-2)
    .flags(Flags::DENYOOM)
    .access(&[&["RW", "access", "update", "variable_flags"]]),
    read("BITFIELD_RO", "key [GET encoding offset [GET encoding offset ...]]", field::bitfield_ro)
        .doc("Reads integers of any width within a string.", "6.0.0", "O(1) for each of them")
        .arity(-2)
        .flags(Flags::FAST),
];

const fn read(name: &'static str, syntax: &'static str, run: fn(&Call, &mut View) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Bitmap, Run::Read(run)).keys(Keys::FIRST)
}

const fn write(name: &'static str, syntax: &'static str, run: fn(&Call, &mut Draft) -> Answer) -> Spec {
    Spec::new(name, syntax, Group::Bitmap, Run::Write(run)).keys(Keys::FIRST)
}

const BAD_OFFSET: &str = "ERR bit offset is not an integer or out of range";
const BAD_BIT: &str = "ERR bit is not an integer or out of range";

/// The number of a bit that a string may have.
fn offset(arg: &[u8], times: u64) -> Result<u64, CommandError> {
    let number = parse_i64(arg).and_then(|number| u64::try_from(number).ok()).and_then(|at| at.checked_mul(times));
    number.filter(|at| at >> 3 < MAX_STRING_BYTES as u64).ok_or(BAD_OFFSET.into())
}

/// The byte in which a bit is, and what the bit counts there.
fn place(bit: u64) -> (usize, u8) {
    ((bit >> 3) as usize, 0x80 >> (bit & 7))
}

fn setbit(call: &Call, draft: &mut Draft) -> Answer {
    let at = offset(call.arg(2), 1)?;
    let set = match parse_i64(call.arg(3)) {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(BAD_BIT.into()),
    };
    let key = call.arg(1);
    let old = draft.text(key)?;
    let (byte, mask) = place(at);
    let was = old.as_ref().and_then(|text| text.get(byte)).map(|byte| byte & mask != 0);
    // A bit that is as it is to be makes no new version, unless the string has yet to grow to it.
    if was != Some(set) {
        let mut text = BytesMut::from(&old.unwrap_or_default()[..]);
        grow(&mut text, byte + 1);
        if let Some(byte) = text.get_mut(byte) {
            *byte = if set { *byte | mask } else { *byte & !mask };
        }
        draft.amend(key, text.freeze())?;
    }
    Ok(Reply::Int(was.unwrap_or(false).into()))
}

/// Pads a string with zeros until it has so many bytes.
fn grow(text: &mut BytesMut, bytes: usize) {
    text.resize(text.len().max(bytes), 0);
}

fn getbit(call: &Call, view: &mut View) -> Answer {
    let (byte, mask) = place(offset(call.arg(2), 1)?);
    let text = view.text(call.arg(1))?.unwrap_or_default();
    Ok(Reply::Int(text.get(byte).is_some_and(|byte| byte & mask != 0).into()))
}

fn bitcount(call: &Call, view: &mut View) -> Answer {
    let Some(text) = view.text(call.arg(1))? else { return Ok(Reply::Int(0)) };
    let mut args = call.cursor(2);
    let span = match args.rest() {
        [] => Span::whole(&text),
        [_, _] | [_, _, _] => {
            let (start, end) = (args.expect_int()?, args.expect_int()?);
            // Looked at before the word that follows, as Redis does.
            if start < 0 && end < 0 && start > end {
                return Ok(Reply::Int(0));
            }
            Span::of(&text, start, Some(end), unit(&mut args)?)
        }
        _ => return Err(SYNTAX.into()),
    };
    Ok(Reply::Int(span.map_or(0, |span| span.count(&text)) as i64))
}

/// What positions are counted in: bytes, unless told otherwise.
fn unit(args: &mut Cursor) -> Result<Unit, CommandError> {
    let unit = if args.take("BIT") { Unit::Bit } else { Unit::Byte };
    if unit == Unit::Byte && !args.take("BYTE") {
        args.finish()?;
    }
    Ok(unit)
}

fn bitpos(call: &Call, view: &mut View) -> Answer {
    let set = match call.int(2)? {
        0 => false,
        1 => true,
        _ => return Err("ERR The bit argument must be 1 or 0.".into()),
    };
    // What is not there is an endless row of zeros.
    let Some(text) = view.text(call.arg(1))? else { return Ok(Reply::Int(if set { -1 } else { 0 })) };
    let args = call.cursor(3).rest();
    if args.len() > 3 {
        return Err(SYNTAX.into());
    }
    let mut args = call.cursor(3);
    let start = if args.rest().is_empty() { 0 } else { args.expect_int()? };
    let end = args.next_arg();
    let unit = unit(&mut args)?;
    let end = end.map(|end| super::call::int(end)).transpose()?;
    let Some(span) = Span::of(&text, start, end, unit) else { return Ok(Reply::Int(-1)) };
    let found = span.find(&text, set).map(|at| at as i64);
    // Zeros go on behind a string of ones, unless the client named its end.
    let behind = (!set && end.is_none()).then_some(text.len() as i64 * 8);
    Ok(Reply::Int(found.or(behind).unwrap_or(-1)))
}

/// A bitwise operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Bits that all have.
    And,
    /// Bits that any has.
    Or,
    /// Bits that an odd number of them have.
    Xor,
    /// Bits that the one has not.
    Not,
}

impl Operation {
    fn named(name: &[u8]) -> Option<Operation> {
        let all = [("AND", Self::And), ("OR", Self::Or), ("XOR", Self::Xor), ("NOT", Self::Not)];
        all.into_iter().find(|(word, _)| name.eq_ignore_ascii_case(word.as_bytes())).map(|(_, operation)| operation)
    }

    /// What becomes of strings of any length; short ones are followed by zeros.
    pub fn of(self, texts: &[Bytes]) -> Vec<u8> {
        let longest = texts.iter().map(Bytes::len).max().unwrap_or_default();
        let mut out = texts.first().map(|text| text.to_vec()).unwrap_or_default();
        out.resize(longest, 0);
        if self == Self::Not {
            out.iter_mut().for_each(|byte| *byte = !*byte);
        }
        for text in texts.iter().skip(1) {
            let padded = text.iter().copied().chain(std::iter::repeat(0));
            out.iter_mut().zip(padded).for_each(|(byte, other)| match self {
                Self::And => *byte &= other,
                Self::Or => *byte |= other,
                Self::Xor | Self::Not => *byte ^= other,
            });
        }
        out
    }
}

/// Which operation a BITOP asks for.
///
/// # Errors
/// None of this name, or one that takes another number of sources.
pub fn operation(call: &Call) -> Result<Operation, CommandError> {
    let operation = Operation::named(call.arg(1)).ok_or(SYNTAX)?;
    if operation == Operation::Not && call.cursor(3).rest().len() != 1 {
        return Err("ERR BITOP NOT must be called with a single source key.".into());
    }
    Ok(operation)
}

fn bitop(call: &Call, draft: &mut Draft) -> Answer {
    let operation = operation(call)?;
    let texts = call.cursor(3).rest().iter().map(|key| Ok(draft.text(key)?.unwrap_or_default()));
    let out = operation.of(&texts.collect::<Result<Vec<_>, Fault>>()?);
    let (key, len) = (call.arg(2), out.len());
    if out.is_empty() {
        draft.remove(key)?;
    } else {
        draft.set(key, out.into(), Ttl::Set(Deadline::Never))?;
    }
    Ok(Reply::Int(len as i64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_operation_on_strings_is_that_on_their_bits(texts in prop::collection::vec(any::<Vec<u8>>(), 1..4)) {
            let texts: Vec<Bytes> = texts.into_iter().map(Bytes::from).collect();
            let bit = |text: &[u8], at: u64| text.get(place(at).0).is_some_and(|byte| byte & place(at).1 != 0);
            for operation in [Operation::And, Operation::Or, Operation::Xor] {
                let out = operation.of(&texts);
                for at in 0..out.len() as u64 * 8 {
                    let bits: Vec<bool> = texts.iter().map(|text| bit(text, at)).collect();
                    let expected = match operation {
                        Operation::And => bits.iter().all(|bit| *bit),
                        Operation::Or => bits.iter().any(|bit| *bit),
                        _ => bits.iter().filter(|bit| **bit).count() % 2 == 1,
                    };
                    prop_assert_eq!(bit(&out, at), expected);
                }
            }
            let not = Operation::Not.of(&texts[..1]);
            prop_assert!(not.iter().zip(&texts[0]).all(|(out, byte)| *out == !*byte));
        }
    }

    #[test]
    fn no_bit_lies_behind_the_longest_string() {
        assert_eq!(offset(b"4294967295", 1), Ok(u64::from(u32::MAX)));
        for text in ["4294967296", "-1", "x", "", "9223372036854775807", "9223372036854775808"] {
            assert_eq!(offset(text.as_bytes(), 1), Err(BAD_OFFSET.into()), "{text}");
        }
        assert_eq!(offset(b"9223372036854775807", 64), Err(BAD_OFFSET.into()));
    }
}
