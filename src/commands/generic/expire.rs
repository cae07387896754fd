//! When a key ends: set, asked for, taken back.

use crate::causality::expiry::Deadline;
use crate::commands::call::{Call, Cursor};
use crate::commands::errors::{Answer, CommandError, quoted};
use crate::commands::when::When;
use crate::model::{Draft, View};
use crate::resp::Reply;

pub(super) fn expire(call: &Call, draft: &mut Draft) -> Answer {
    expire_as(call, draft, When::EX)
}

pub(super) fn pexpire(call: &Call, draft: &mut Draft) -> Answer {
    expire_as(call, draft, When::PX)
}

pub(super) fn expireat(call: &Call, draft: &mut Draft) -> Answer {
    expire_as(call, draft, When::EXAT)
}

pub(super) fn pexpireat(call: &Call, draft: &mut Draft) -> Answer {
    expire_as(call, draft, When::PXAT)
}

fn expire_as(call: &Call, draft: &mut Draft, when: When) -> Answer {
    let key = call.arg(1);
    let conditions = Conditions::parse(call.cursor(3))?;
    let time = when.time(call.arg(2), draft.now(), call.spec)?;
    let Some(current) = draft.deadline(key)? else { return Ok(Reply::Int(0)) };
    if !conditions.allow(time, current) {
        return Ok(Reply::Int(0));
    }
    // A time before the epoch has passed as well.
    let done = match u64::try_from(time) {
        Ok(at) if at > draft.now() => draft.expire(key, Deadline::At(at))?,
        _ => draft.remove(key)?,
    };
    Ok(Reply::Int(done.into()))
}

/// What must be so for a deadline to be set.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(mut rest: Cursor) -> Result<Conditions, CommandError> {
        let mut asked = Conditions::default();
        while let Some(word) = rest.next_arg() {
            match word.to_ascii_lowercase().as_slice() {
                b"nx" => asked.nx = true,
                b"xx" => asked.xx = true,
                b"gt" => asked.gt = true,
                b"lt" => asked.lt = true,
                _ => return Err(format!("ERR Unsupported option {}", quoted(word, usize::MAX)).into()),
            }
        }
        if asked.nx && (asked.xx || asked.gt || asked.lt) {
            return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
        }
        if asked.gt && asked.lt {
            return Err("ERR GT and LT options at the same time are not compatible".into());
        }
        Ok(asked)
    }

    fn allow(&self, time: i64, current: Deadline) -> bool {
        let current = current.ms().map(|ms| i64::try_from(ms).unwrap_or(i64::MAX));
        // No deadline is the latest of all.
        let later = current.is_some_and(|current| time > current);
        let earlier = current.is_none_or(|current| time < current);
        !(self.nx && current.is_some() || self.xx && current.is_none() || self.gt && !later || self.lt && !earlier)
    }
}

pub(super) fn persist(call: &Call, draft: &mut Draft) -> Answer {
    let ends = matches!(draft.deadline(call.arg(1))?, Some(Deadline::At(_)));
    Ok(Reply::Int((ends && draft.expire(call.arg(1), Deadline::Never)?).into()))
}

pub(super) fn ttl(call: &Call, view: &mut View) -> Answer {
    let now = view.now();
    tell(call, view, |deadline| seconds(deadline.saturating_sub(now)))
}

pub(super) fn pttl(call: &Call, view: &mut View) -> Answer {
    let now = view.now();
    tell(call, view, |deadline| deadline.saturating_sub(now))
}

pub(super) fn expiretime(call: &Call, view: &mut View) -> Answer {
    tell(call, view, seconds)
}

pub(super) fn pexpiretime(call: &Call, view: &mut View) -> Answer {
    tell(call, view, |deadline| deadline)
}

/// -2 for no key, -1 for no deadline, else what `of` makes of the deadline in milliseconds.
fn tell(call: &Call, view: &mut View, of: impl Fn(u64) -> u64) -> Answer {
    Ok(Reply::Int(match view.deadline(call.arg(1))? {
        None => -2,
        Some(Deadline::Never) => -1,
        Some(Deadline::At(ms)) => i64::try_from(of(ms)).unwrap_or(i64::MAX),
    }))
}

/// To the nearest second, half a second up.
fn seconds(ms: u64) -> u64 {
    ms.saturating_add(500) / 1000
}
