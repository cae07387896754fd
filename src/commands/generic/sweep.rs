//! What concerns many partitions, databases or nodes: these commands only say what they ask for.

use bytes::Bytes;

use crate::base::id::Db;
use crate::base::num::{parse_i64, parse_u64};
use crate::commands::call::{Call, int};
use crate::commands::errors::{CommandError, DB_OUT_OF_RANGE, SAME_OBJECT, SYNTAX};
use crate::commands::session::Session;
use crate::commands::spec::ClusterCall;

/// What such a command asks for.
pub(super) type Asks = fn(&Call, &Session) -> Result<ClusterCall, CommandError>;

type Asked = Result<ClusterCall, CommandError>;

pub(super) fn copy(call: &Call, session: &Session) -> Asked {
    let (source, destination) = (call.arg(1).clone(), call.arg(2).clone());
    let (mut db, mut replace) = (session.db, false);
    let mut rest = call.cursor(3);
    while let Some(word) = rest.next_arg() {
        if word.eq_ignore_ascii_case(b"REPLACE") {
            replace = true;
        } else if word.eq_ignore_ascii_case(b"DB") {
            db = database(rest.expect()?)?;
        } else {
            return Err(SYNTAX.into());
        }
    }
    if db == session.db && source == destination {
        return Err(SAME_OBJECT.into());
    }
    Ok(ClusterCall::CopyTo { source, destination, db, replace })
}

pub(super) fn move_key(call: &Call, session: &Session) -> Asked {
    let db = database(call.arg(2))?;
    if db == session.db {
        return Err(SAME_OBJECT.into());
    }
    Ok(ClusterCall::Move { key: call.arg(1).clone(), db })
}

/// A database by its number. Whether there are so many is for whoever runs the call to know.
fn database(arg: &Bytes) -> Result<Db, CommandError> {
    let number = ranged(arg, i32::MIN.into(), i32::MAX.into())?;
    u8::try_from(number).map(Db).map_err(|_| DB_OUT_OF_RANGE.into())
}

/// An integer within bounds, with Redis' words for one that is not.
fn ranged(arg: &Bytes, least: i64, most: i64) -> Result<i64, CommandError> {
    let number = int(arg)?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    // The second "be" is missing in Redis too.
    Err(format!("ERR value is out of range, value must between {least} and {most}").into())
}

pub(super) fn swapdb(_: &Call, _: &Session) -> Asked {
    Err("ERR SWAPDB is not supported: each database has a clock of its own on every replica, so two cannot change \
         places at once everywhere. Use MOVE or COPY with DB for keys, or SELECT another database"
        .into())
}

pub(super) fn randomkey(_: &Call, _: &Session) -> Asked {
    Ok(ClusterCall::RandomKey)
}

pub(super) fn keys(call: &Call, _: &Session) -> Asked {
    Ok(ClusterCall::Keys(call.arg(1).clone()))
}

pub(super) fn scan(call: &Call, _: &Session) -> Asked {
    // Clients read cursors as signed numbers, so none beyond those is ever given out.
    let cursor = parse_u64(call.arg(1)).filter(|cursor| i64::try_from(*cursor).is_ok()).ok_or("ERR invalid cursor")?;
    let (mut pattern, mut kind, mut count) = (None, None, 10);
    let mut rest = call.cursor(2);
    while let Some(word) = rest.next_arg() {
        if word.eq_ignore_ascii_case(b"COUNT") {
            count = u64::try_from(rest.expect_int()?).ok().filter(|count| *count > 0).ok_or(SYNTAX)?;
        } else if word.eq_ignore_ascii_case(b"MATCH") {
            pattern = Some(rest.expect()?.clone());
        } else if word.eq_ignore_ascii_case(b"TYPE") {
            kind = Some(rest.expect()?.to_ascii_lowercase().into());
        } else {
            return Err(SYNTAX.into());
        }
    }
    Ok(ClusterCall::Scan { cursor, pattern, kind, count })
}

pub(super) fn dbsize(_: &Call, _: &Session) -> Asked {
    Ok(ClusterCall::DbSize)
}

pub(super) fn flushdb(call: &Call, session: &Session) -> Asked {
    check_flush(call)?;
    Ok(ClusterCall::Flush(Some(session.db)))
}

pub(super) fn flushall(call: &Call, _: &Session) -> Asked {
    check_flush(call)?;
    Ok(ClusterCall::Flush(None))
}

/// Keys go at once and their rows in the background, whichever of the two is asked for.
fn check_flush(call: &Call) -> Result<(), CommandError> {
    let mut rest = call.cursor(1);
    if !rest.take("ASYNC") {
        rest.take("SYNC");
    }
    rest.finish()
}

pub(super) fn wait(call: &Call, _: &Session) -> Asked {
    Ok(ClusterCall::Wait { replicas: call.int(1)?, timeout_ms: timeout(call.arg(2))? })
}

pub(super) fn waitaof(call: &Call, _: &Session) -> Asked {
    let local = ranged(call.arg(1), 0, 1)?;
    let replicas = call.int(2)?;
    if replicas < 0 {
        return Err("ERR value is out of range, must be positive".into());
    }
    Ok(ClusterCall::WaitAof { local, replicas, timeout_ms: timeout(call.arg(3))? })
}

fn timeout(arg: &Bytes) -> Result<u64, CommandError> {
    /// Redis adds the clock to a timeout and refuses what overflows; no clock of this century passes this.
    const LATEST_CLOCK_MS: i64 = 1 << 42;
    match parse_i64(arg) {
        None => Err("ERR timeout is not an integer or out of range".into()),
        Some(..0) => Err("ERR timeout is negative".into()),
        Some(ms) if ms > i64::MAX - LATEST_CLOCK_MS => Err("ERR timeout is out of range".into()),
        Some(ms) => Ok(ms.unsigned_abs()),
    }
}
