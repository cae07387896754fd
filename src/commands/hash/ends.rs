//! Fields that end by themselves: the HEXPIRE family of Redis 7.4, and HGETEX, HSETEX and HGETDEL of Redis 8.

use bytes::Bytes;

use super::{read, text, write};
use crate::base::kind::Kind;
use crate::causality::expiry::Deadline;
use crate::commands::call::{Call, Cursor, int};
use crate::commands::elements::name_of;
use crate::commands::errors::{Answer, CommandError, SYNTAX, invalid_expire};
use crate::commands::spec::{Flags, Spec};
use crate::commands::string::kept;
use crate::commands::when::When;
use crate::model::look::Held;
use crate::model::{Draft, Fault, Look, Ttl, View, Visible};
use crate::resp::Reply;

/// Commands of later versions of Redis than 7.2.
pub const LATER: &[Spec] = &[
    ends("HEXPIRE", "key seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", |c, d| expire(c, d, When::EX))
        .doc("Ends fields of a hash after so many seconds.", "7.4.0", "O(N), N the number of fields"),
    ends("HPEXPIRE", "key milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", |c, d| {
        expire(c, d, When::PX)
    })
    .doc("Ends fields of a hash after so many milliseconds.", "7.4.0", "O(N), N the number of fields"),
    ends("HEXPIREAT", "key unix-time-seconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", |c, d| {
        expire(c, d, When::EXAT)
    })
    .doc("Ends fields of a hash at a time in seconds.", "7.4.0", "O(N), N the number of fields"),
    ends("HPEXPIREAT", "key unix-time-milliseconds [NX | XX | GT | LT] FIELDS numfields field [field ...]", |c, d| {
        expire(c, d, When::PXAT)
    })
    .doc("Ends fields of a hash at a time in milliseconds.", "7.4.0", "O(N), N the number of fields"),
    write("HPERSIST", "key FIELDS numfields field [field ...]", persist)
        .doc("Takes the end of fields of a hash away.", "7.4.0", "O(N), N the number of fields")
        .arity(-5)
        .flags(Flags::FAST)
        .access(&[&["RW", "update"]]),
    tells("HTTL", |c, v| tell(c, v, |end, now| end.saturating_sub(now).div_ceil(1000)))
        .doc("Returns in how many seconds fields of a hash end.", "7.4.0", "O(N), N the number of fields"),
    tells("HPTTL", |c, v| tell(c, v, |end, now| end.saturating_sub(now)))
        .doc("Returns in how many milliseconds fields of a hash end.", "7.4.0", "O(N), N the number of fields"),
    tells("HEXPIRETIME", |c, v| tell(c, v, |end, _| end.div_ceil(1000)))
        .doc("Returns at which second fields of a hash end.", "7.4.0", "O(N), N the number of fields"),
    tells("HPEXPIRETIME", |c, v| tell(c, v, |end, _| end))
        .doc("Returns at which millisecond fields of a hash end.", "7.4.0", "O(N), N the number of fields"),
    write("HGETDEL", "key FIELDS numfields field [field ...]", getdel)
        .doc("Returns fields of a hash and removes them.", "8.0.0", "O(N), N the number of fields")
        .arity(-5)
        .flags(Flags::FAST)
        .access(&[&["RW", "access", "delete"]]),
    write(
        "HGETEX",
        "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST] \
         FIELDS numfields field [field ...]",
        getex,
    )
    .doc("Returns fields of a hash and changes when they end.", "8.0.0", "O(N), N the number of fields")
    .arity(-5)
    .flags(Flags::FAST)
    .access(&[&["RW", "access", "update"]]),
    write(
        "HSETEX",
        "key [FNX | FXX] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL] \
         FIELDS numfields field value [field value ...]",
        setex,
    )
    .doc("Writes fields of a hash and says when they end.", "8.0.0", "O(N), N the number of fields")
    .arity(-6)
    .flags(Flags::DENYOOM.and(Flags::FAST))
    .access(&[&["RW", "update"]]),
];

const fn ends(name: &'static str, syntax: &'static str, run: fn(&Call, &mut Draft) -> Answer) -> Spec {
    write(name, syntax, run).arity(-6).flags(Flags::DENYOOM.and(Flags::FAST)).access(&[&["RW", "update"]])
}

const fn tells(name: &'static str, run: fn(&Call, &mut View) -> Answer) -> Spec {
    read(name, "key FIELDS numfields field [field ...]", run).arity(-5).flags(Flags::FAST).access(&[&["RO", "access"]])
}

/// There is no such field.
const NO_FIELD: i64 = -2;
/// It does not end.
const NO_END: i64 = -1;
/// A condition does not hold.
const REFUSED: i64 = 0;
const DONE: i64 = 1;
/// The time has passed: it is gone.
const GONE: i64 = 2;

/// `FIELDS numfields`, then so many groups of `step` arguments.
fn fields<'a>(rest: &mut Cursor<'a>, step: usize) -> Result<&'a [Bytes], CommandError> {
    if !rest.take("FIELDS") {
        return Err("ERR Mandatory argument FIELDS is missing or not at the right position".into());
    }
    let count = int(rest.expect()?).ok().and_then(|count| usize::try_from(count).ok()).filter(|count| *count > 0);
    let count = count.ok_or("ERR Parameter `numFields` should be greater than 0")?;
    let named = rest.rest();
    if count.checked_mul(step) != Some(named.len()) {
        return Err("ERR The `numfields` parameter must match the number of arguments".into());
    }
    Ok(named)
}

fn each_field(fields: &[Bytes], mut each: impl FnMut(&Bytes) -> Result<i64, CommandError>) -> Answer {
    Ok(Reply::Array(fields.iter().map(|field| each(field).map(Reply::Int)).collect::<Result<_, _>>()?))
}

/// When a field ends; none if there is no such field.
fn end_of(look: &mut impl Look, key: &[u8], held: Option<Held>, field: &[u8]) -> Result<Option<Deadline>, Fault> {
    let Some(held) = held else { return Ok(None) };
    let now = look.now();
    let element = look.element(key, held, &name_of(field))?;
    Ok(element.and_then(|element| Visible::of(element.cell.versions(), now).map(|visible| visible.deadline())))
}

fn expire(call: &Call, draft: &mut Draft, when: When) -> Answer {
    let (key, now) = (call.arg(1), draft.now());
    if int(call.arg(2))? < 0 {
        return Err("ERR invalid expire time, must be >= 0".into());
    }
    let time = when.time(call.arg(2), now, call.spec)?;
    let at = u64::try_from(time).map_err(|_| invalid_expire(&call.spec.full_name()))?;
    let mut rest = call.cursor(3);
    let word = ["NX", "XX", "GT", "LT"].into_iter().find(|word| rest.take(word));
    let fields = fields(&mut rest, 1)?;
    let held = draft.open(key, Kind::Hash)?;
    each_field(fields, |field| {
        let Some(end) = end_of(draft, key, held, field)? else { return Ok(NO_FIELD) };
        let allowed = match (word, end.ms()) {
            (Some("NX"), end) => end.is_none(),
            (Some("XX"), end) => end.is_some(),
            (Some("GT"), end) => end.is_some_and(|end| at > end),
            (Some("LT"), end) => end.is_none_or(|end| at < end),
            _ => true,
        };
        match allowed {
            false => Ok(REFUSED),
            true => Ok(if end_at(draft, key, field, at)? { GONE } else { DONE }),
        }
    })
}

/// Ends a field then, at once if that has passed; says whether it is gone.
fn end_at(draft: &mut Draft, key: &[u8], field: &[u8], at: u64) -> Result<bool, Fault> {
    if at <= draft.now() {
        return draft.remove_element(key, Kind::Hash, &name_of(field));
    }
    draft.expire_element(key, Kind::Hash, &name_of(field), Deadline::At(at))?;
    Ok(false)
}

fn persist(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    let fields = fields(&mut call.cursor(2), 1)?;
    let held = draft.open(key, Kind::Hash)?;
    each_field(fields, |field| match end_of(draft, key, held, field)? {
        None => Ok(NO_FIELD),
        Some(Deadline::Never) => Ok(NO_END),
        Some(Deadline::At(_)) => {
            draft.expire_element(key, Kind::Hash, &name_of(field), Deadline::Never)?;
            Ok(DONE)
        }
    })
}

fn tell(call: &Call, view: &mut View, of: impl Fn(u64, u64) -> u64) -> Answer {
    let (key, now) = (call.arg(1), view.now());
    let fields = fields(&mut call.cursor(2), 1)?;
    let held = view.open(key, Kind::Hash)?;
    each_field(fields, |field| {
        Ok(match end_of(view, key, held, field)? {
            None => NO_FIELD,
            Some(Deadline::Never) => NO_END,
            Some(Deadline::At(end)) => i64::try_from(of(end, now)).unwrap_or(i64::MAX),
        })
    })
}

fn getdel(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    let fields = fields(&mut call.cursor(2), 1)?;
    let held = draft.open(key, Kind::Hash)?;
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let value = text(draft, key, held, field)?;
        if value.is_some() {
            draft.remove_element(key, Kind::Hash, &name_of(field))?;
        }
        values.push(Reply::bulk_or_nil(value));
    }
    Ok(Reply::Array(values))
}

/// What is said of the end of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Unsaid,
    Keep,
    Never,
    At(u64),
}

impl End {
    /// Takes one option off the front, if one of `words` or a time stands there.
    fn take(call: &Call, rest: &mut Cursor, now: u64, words: &[(&str, End)]) -> Result<Option<End>, CommandError> {
        if let Some((_, end)) = words.iter().find(|(word, _)| rest.take(word)) {
            return Ok(Some(*end));
        }
        let Some(when) = rest.rest().first().and_then(|word| When::option(word)) else { return Ok(None) };
        rest.next_arg();
        when.deadline(rest.expect()?, now, call.spec).map(|at| Some(End::At(at)))
    }
}

fn getex(call: &Call, draft: &mut Draft) -> Answer {
    let (key, mut rest) = (call.arg(1), call.cursor(2));
    let end = End::take(call, &mut rest, draft.now(), &[("PERSIST", End::Never)])?.unwrap_or(End::Unsaid);
    let fields = fields(&mut rest, 1)?;
    let held = draft.open(key, Kind::Hash)?;
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let value = text(draft, key, held, field)?;
        let ends = end_of(draft, key, held, field)?;
        match (end, ends) {
            (End::At(at), Some(_)) => drop(end_at(draft, key, field, at)?),
            (End::Never, Some(Deadline::At(_))) => {
                draft.expire_element(key, Kind::Hash, &name_of(field), Deadline::Never)?;
            }
            _ => {}
        }
        values.push(Reply::bulk_or_nil(value));
    }
    Ok(Reply::Array(values))
}

fn setex(call: &Call, draft: &mut Draft) -> Answer {
    let (key, now, mut rest) = (call.arg(1), draft.now(), call.cursor(2));
    let (mut condition, mut end) = (None, End::Unsaid);
    loop {
        if let Some(word) = ["FNX", "FXX"].into_iter().find(|word| rest.take(word)) {
            if condition.replace(word).is_some() {
                return Err(SYNTAX.into());
            }
        } else if let Some(said) = End::take(call, &mut rest, now, &[("KEEPTTL", End::Keep)])? {
            if std::mem::replace(&mut end, said) != End::Unsaid {
                return Err(SYNTAX.into());
            }
        } else {
            break;
        }
    }
    let pairs = fields(&mut rest, 2)?;
    let held = draft.begin(key, Kind::Hash)?;
    for pair in pairs.chunks_exact(2) {
        let there = text(draft, key, held, &pair[0])?.is_some();
        if condition.is_some_and(|word| there != (word == "FXX")) {
            return Ok(Reply::Int(0));
        }
    }
    for pair in pairs.chunks_exact(2) {
        let ttl = match end {
            End::Keep => Ttl::Keep,
            End::At(at) if at <= now => {
                draft.remove_element(key, Kind::Hash, &name_of(&pair[0]))?;
                continue;
            }
            End::At(at) => Ttl::Set(Deadline::At(at)),
            End::Unsaid | End::Never => Ttl::Set(Deadline::Never),
        };
        draft.put_element(key, Kind::Hash, &name_of(&pair[0]), kept(&pair[1]), ttl)?;
    }
    Ok(Reply::Int(1))
}
