//! Integers of any width within a string: BITFIELD. Their first bit is the highest, they begin at any bit.

use bytes::BytesMut;

use super::{grow, offset};
use crate::base::num::parse_i64;
use crate::commands::call::{Call, Cursor};
use crate::commands::errors::{Answer, CommandError, SYNTAX};
use crate::model::{Draft, View};
use crate::resp::Reply;

const BAD_TYPE: &str =
    "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.";

/// How wide an integer is, and whether its first bit is a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Width {
    signed: bool,
    bits: u32,
}

impl Width {
    /// `i1` to `i64`, `u1` to `u63`.
    fn parse(arg: &[u8]) -> Result<Width, CommandError> {
        let (signed, most) = match arg.first() {
            Some(b'i') => (true, 64),
            Some(b'u') => (false, 63),
            _ => return Err(BAD_TYPE.into()),
        };
        let bits = arg.get(1..).and_then(parse_i64).filter(|bits| (1..=most).contains(bits));
        Ok(Width { signed, bits: bits.and_then(|bits| u32::try_from(bits).ok()).ok_or(BAD_TYPE)? })
    }

    fn least(self) -> i128 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    fn most(self) -> i128 {
        if self.signed { (1 << (self.bits - 1)) - 1 } else { (1 << self.bits) - 1 }
    }

    /// The integer whose lowest bits these are.
    fn wrap(self, number: i128) -> i128 {
        let low = number & ((1 << self.bits) - 1);
        if low > self.most() { low - (1 << self.bits) } else { low }
    }
}

/// What becomes of what does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

impl Overflow {
    fn parse(arg: &[u8]) -> Result<Overflow, CommandError> {
        let all = [("WRAP", Self::Wrap), ("SAT", Self::Saturate), ("FAIL", Self::Fail)];
        let found = all.into_iter().find(|(word, _)| arg.eq_ignore_ascii_case(word.as_bytes()));
        found.map(|(_, overflow)| overflow).ok_or("ERR Invalid OVERFLOW type specified".into())
    }

    /// `number` as it fits; none if it is not to be written.
    fn fit(self, number: i128, width: Width) -> Option<i128> {
        if (width.least()..=width.most()).contains(&number) {
            return Some(number);
        }
        match self {
            Overflow::Wrap => Some(width.wrap(number)),
            Overflow::Saturate => Some(number.clamp(width.least(), width.most())),
            Overflow::Fail => None,
        }
    }
}

/// What is done to an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Get,
    Set(i64, Overflow),
    Add(i64, Overflow),
}

/// One step of a BITFIELD.
#[derive(Debug, Clone, Copy)]
struct Step {
    width: Width,
    /// The bit at which the integer begins.
    at: u64,
    deed: Deed,
}

impl Step {
    /// All steps that `args` spell.
    fn parse_all(mut args: Cursor) -> Result<Vec<Step>, CommandError> {
        let (mut steps, mut overflow) = (Vec::new(), Overflow::Wrap);
        while let Some(word) = args.next_arg() {
            let left = args.rest().len();
            let is = |name: &str, takes: usize| left >= takes && word.eq_ignore_ascii_case(name.as_bytes());
            if is("OVERFLOW", 1) {
                overflow = Overflow::parse(args.expect()?)?;
                continue;
            }
            let (get, set, add) = (is("GET", 2), is("SET", 3), is("INCRBY", 3));
            if !(get || set || add) {
                return Err(SYNTAX.into());
            }
            let width = Width::parse(args.expect()?)?;
            let at = start(args.expect()?, width)?;
            let deed = match (get, set) {
                (true, _) => Deed::Get,
                (_, true) => Deed::Set(args.expect_int()?, overflow),
                _ => Deed::Add(args.expect_int()?, overflow),
            };
            steps.push(Step { width, at, deed });
        }
        Ok(steps)
    }

    /// How long a string must be to hold the integer, in bytes.
    fn needs(&self) -> usize {
        (self.at + u64::from(self.width.bits)).div_ceil(8) as usize
    }

    fn read(&self, text: &[u8]) -> i128 {
        let bits = self.at..self.at + u64::from(self.width.bits);
        let bit = |at: u64| text.get((at / 8) as usize).is_some_and(|byte| byte & (0x80 >> (at % 8)) != 0);
        self.width.wrap(bits.fold(0, |number, at| number << 1 | i128::from(bit(at))))
    }

    fn write(&self, text: &mut [u8], number: i128) {
        for (at, shift) in (self.at..).zip((0..self.width.bits).rev()) {
            let mask = 0x80 >> (at % 8);
            if let Some(byte) = text.get_mut((at / 8) as usize) {
                *byte = if number >> shift & 1 == 1 { *byte | mask } else { *byte & !mask };
            }
        }
    }

    /// Changes the integer, and says what it was (SET) or is (INCRBY); nothing if it did not fit and was left alone.
    fn run(&self, text: &mut [u8]) -> Reply {
        let old = self.read(text);
        let (new, overflow) = match self.deed {
            Deed::Get => return number(old),
            // Without a sign it is the number with these bits, as Redis has it: -1 is the greatest of all.
            Deed::Set(new, overflow) if !self.width.signed => (i128::from(new as u64), overflow),
            Deed::Set(new, overflow) => (new.into(), overflow),
            Deed::Add(more, overflow) => (old + i128::from(more), overflow),
        };
        let Some(new) = overflow.fit(new, self.width) else { return Reply::Nil };
        self.write(text, new);
        number(if matches!(self.deed, Deed::Set(..)) { old } else { new })
    }
}

/// The bit at which an integer begins: as given, or so many integers behind the first if it is given with a `#`.
fn start(arg: &[u8], width: Width) -> Result<u64, CommandError> {
    match arg.strip_prefix(b"#") {
        Some(arg) => offset(arg, width.bits.into()),
        None => offset(arg, 1),
    }
}

fn number(number: i128) -> Reply {
    Reply::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn bitfield(call: &Call, draft: &mut Draft) -> Answer {
    let (key, steps) = (call.arg(1), Step::parse_all(call.cursor(2))?);
    let old = draft.text(key)?;
    let needs = steps.iter().filter(|step| step.deed != Deed::Get).map(Step::needs).max();
    let Some(needs) = needs else { return Ok(read_all(&steps, &old.unwrap_or_default())) };
    let mut text = BytesMut::from(old.as_deref().unwrap_or_default());
    grow(&mut text, needs);
    let replies: Vec<Reply> = steps.iter().map(|step| step.run(&mut text)).collect();
    // What is as it was makes no new version.
    if old.as_deref() != Some(&text[..]) {
        draft.amend(key, text.freeze())?;
    }
    Ok(Reply::Array(replies))
}

pub(super) fn bitfield_ro(call: &Call, view: &mut View) -> Answer {
    let steps = Step::parse_all(call.cursor(2))?;
    if steps.iter().any(|step| step.deed != Deed::Get) {
        return Err("ERR BITFIELD_RO only supports the GET subcommand".into());
    }
    Ok(read_all(&steps, &view.text(call.arg(1))?.unwrap_or_default()))
}

fn read_all(steps: &[Step], text: &[u8]) -> Reply {
    Reply::array(steps.iter().map(|step| number(step.read(text))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn width() -> impl Strategy<Value = Width> {
        prop_oneof![
            (1u32..=64).prop_map(|bits| Width { signed: true, bits }),
            (1u32..=63).prop_map(|bits| Width { signed: false, bits }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_beside_it_changes(
            width in width(),
            at in 0u64..70,
            new: i64,
            before in prop::collection::vec(any::<u8>(), 17),
        ) {
            let step = Step { width, at, deed: Deed::Get };
            let number = width.wrap(new.into());
            let mut text = before.clone();
            step.write(&mut text, number);
            prop_assert_eq!(step.read(&text), number);
            let old = step.read(&before);
            step.write(&mut text, old);
            prop_assert_eq!(text, before);
        }

        #[test]
        fn what_fits_is_left_alone_and_the_rest_comes_to_lie_between_the_ends(width in width(), a: i64, b: i64) {
            let sum = i128::from(a) + i128::from(b);
            let fits = (width.least()..=width.most()).contains(&sum);
            prop_assert_eq!(Overflow::Fail.fit(sum, width), fits.then_some(sum));
            for overflow in [Overflow::Wrap, Overflow::Saturate] {
                let fitted = overflow.fit(sum, width).unwrap();
                prop_assert!((width.least()..=width.most()).contains(&fitted));
                prop_assert!(!fits || fitted == sum);
            }
            let wrapped = Overflow::Wrap.fit(sum, width).unwrap();
            prop_assert_eq!((sum - wrapped).rem_euclid(1 << width.bits), 0);
        }
    }
}
