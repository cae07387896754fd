//! SET and its kin: writing a string whole, under conditions and with an end.

use bytes::Bytes;

use super::kept;
use crate::causality::expiry::Deadline;
use crate::commands::call::{Call, Cursor};
use crate::commands::errors::{Answer, CommandError, SYNTAX};
use crate::commands::when::When;
use crate::model::{Draft, Fault, Ttl};
use crate::resp::Reply;

pub(super) fn set(call: &Call, draft: &mut Draft) -> Answer {
    let (key, value) = (call.arg(1), call.arg(2));
    let options = SetOptions::parse(call.cursor(3))?;
    let deadline = options.end.deadline(call, draft)?;
    // What was there is looked at only by those who ask.
    let old = if options.get { draft.text(key)? } else { None };
    let there = old.is_some() || (!options.get && options.condition.is_some() && draft.exists(key)?);
    let allowed = options.condition.is_none_or(|condition| (condition == Condition::Present) == there);
    if allowed {
        match options.end {
            End::Keep => draft.set(key, kept(value), Ttl::Keep)?,
            _ => set_until(draft, key, value, deadline)?,
        }
    }
    Ok(match (options.get, allowed) {
        (true, _) => Reply::bulk_or_nil(old),
        (false, true) => Reply::ok(),
        (false, false) => Reply::Nil,
    })
}

pub(super) fn setnx(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    if draft.exists(key)? {
        return Ok(Reply::Int(0));
    }
    set_until(draft, key, call.arg(2), None)?;
    Ok(Reply::Int(1))
}

pub(super) fn setex(call: &Call, draft: &mut Draft) -> Answer {
    set_for(call, draft, When::EX)
}

pub(super) fn psetex(call: &Call, draft: &mut Draft) -> Answer {
    set_for(call, draft, When::PX)
}

fn set_for(call: &Call, draft: &mut Draft, when: When) -> Answer {
    let deadline = when.deadline(call.arg(2), draft.now(), call.spec)?;
    set_until(draft, call.arg(1), call.arg(3), Some(deadline))?;
    Ok(Reply::ok())
}

pub(super) fn getset(call: &Call, draft: &mut Draft) -> Answer {
    let old = draft.text(call.arg(1))?;
    set_until(draft, call.arg(1), call.arg(2), None)?;
    Ok(Reply::bulk_or_nil(old))
}

pub(super) fn getdel(call: &Call, draft: &mut Draft) -> Answer {
    let old = draft.text(call.arg(1))?;
    draft.remove(call.arg(1))?;
    Ok(Reply::bulk_or_nil(old))
}

pub(super) fn getex(call: &Call, draft: &mut Draft) -> Answer {
    let key = call.arg(1);
    let end = End::parse_alone(call.cursor(2))?;
    let Some(text) = draft.text(key)? else { return Ok(Reply::Nil) };
    match (&end, end.deadline(call, draft)?) {
        (_, Some(deadline)) => expire_at(draft, key, deadline)?,
        (End::Persist, None) if draft.deadline(key)? != Some(Deadline::Never) => {
            draft.expire(key, Deadline::Never)?;
        }
        _ => {}
    }
    Ok(Reply::Bulk(text))
}

/// Writes `value` with its own end. One that lies in the past leaves nothing: a deadline hides no write that came after
/// it.
fn set_until(draft: &mut Draft, key: &[u8], value: &Bytes, deadline: Option<u64>) -> Result<(), Fault> {
    match deadline {
        Some(at) if at <= draft.now() => draft.remove(key).map(drop),
        _ => draft.set(key, kept(value), Ttl::Set(deadline.into())),
    }
}

/// Ends a key at `deadline`, at once if that has passed.
fn expire_at(draft: &mut Draft, key: &[u8], deadline: u64) -> Result<(), Fault> {
    if deadline <= draft.now() { draft.remove(key) } else { draft.expire(key, Deadline::At(deadline)) }.map(drop)
}

/// What must be so for SET to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// `NX`
    Absent,
    /// `XX`
    Present,
}

/// What becomes of a key's time to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End<'a> {
    /// Nothing was said of it.
    Unsaid,
    /// `KEEPTTL`
    Keep,
    /// `PERSIST`
    Persist,
    /// `EX` and kin, with their number.
    At(When, &'a Bytes),
}

impl<'a> End<'a> {
    /// GETEX's only options.
    fn parse_alone(mut rest: Cursor<'a>) -> Result<End<'a>, CommandError> {
        let mut end = End::Unsaid;
        while let Some(word) = rest.next_arg() {
            end =
                end.then(if word.eq_ignore_ascii_case(b"PERSIST") { End::Persist } else { End::at(word, &mut rest)? })?;
        }
        Ok(end)
    }

    fn at(word: &[u8], rest: &mut Cursor<'a>) -> Result<End<'a>, CommandError> {
        Ok(End::At(When::option(word).ok_or(SYNTAX)?, rest.expect()?))
    }

    /// One option after another: the same one may be said again, and the last counts.
    fn then(self, next: End<'a>) -> Result<End<'a>, CommandError> {
        match (self, next) {
            (End::Unsaid, _) | (End::Keep, End::Keep) | (End::Persist, End::Persist) => Ok(next),
            (End::At(one, _), End::At(other, _)) if one == other => Ok(next),
            _ => Err(SYNTAX.into()),
        }
    }

    fn deadline(&self, call: &Call, draft: &Draft) -> Result<Option<u64>, CommandError> {
        match self {
            End::At(when, number) => when.deadline(number, draft.now(), call.spec).map(Some),
            _ => Ok(None),
        }
    }
}

struct SetOptions<'a> {
    condition: Option<Condition>,
    get: bool,
    end: End<'a>,
}

impl<'a> SetOptions<'a> {
    fn parse(mut rest: Cursor<'a>) -> Result<SetOptions<'a>, CommandError> {
        let mut options = SetOptions { condition: None, get: false, end: End::Unsaid };
        while let Some(word) = rest.next_arg() {
            if word.eq_ignore_ascii_case(b"NX") {
                options.require(Condition::Absent)?;
            } else if word.eq_ignore_ascii_case(b"XX") {
                options.require(Condition::Present)?;
            } else if word.eq_ignore_ascii_case(b"GET") {
                options.get = true;
            } else {
                let end = if word.eq_ignore_ascii_case(b"KEEPTTL") { End::Keep } else { End::at(word, &mut rest)? };
                options.end = options.end.then(end)?;
            }
        }
        Ok(options)
    }

    fn require(&mut self, condition: Condition) -> Result<(), CommandError> {
        match self.condition {
            Some(other) if other != condition => Err(SYNTAX.into()),
            _ => {
                self.condition = Some(condition);
                Ok(())
            }
        }
    }
}
