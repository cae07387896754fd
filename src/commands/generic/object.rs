//! OBJECT: how Redis would keep a value. Nothing is kept that way here; the answers are what a client of Redis expects
//! of a value that was written whole.

use bytes::Bytes;

use crate::base::kind::Kind;
use crate::base::num::parse_i64;
use crate::commands::call::Call;
use crate::commands::errors::Answer;
use crate::commands::{hash, set};
use crate::model::{Look, View};
use crate::resp::Reply;

/// Longest string that Redis keeps in one piece with its header, in bytes.
const EMBEDDED: usize = 44;

/// Integers below this are one shared object in Redis, which says so with the highest count there is.
const SHARED_INTEGERS: i64 = 10_000;

pub(super) fn encoding(call: &Call, view: &mut View) -> Answer {
    let key = call.arg(2);
    match view.kind(key)? {
        Some(Kind::Set) => {
            let held = view.open(key, Kind::Set)?;
            Ok(held.map(|held| set::encoding(view, key, held)).transpose()?.map_or(Reply::Nil, Reply::bulk_static))
        }
        Some(Kind::Hash) => {
            let held = view.open(key, Kind::Hash)?;
            Ok(held.map(|held| hash::encoding(view, key, held)).transpose()?.map_or(Reply::Nil, Reply::bulk_static))
        }
        // What Redis calls them when they are large.
        Some(Kind::Zset) => Ok(Reply::bulk_static("skiplist")),
        Some(Kind::List) => Ok(Reply::bulk_static("quicklist")),
        Some(Kind::Stream) => Ok(Reply::bulk_static("stream")),
        _ => encoding_of_text(call, view),
    }
}

fn encoding_of_text(call: &Call, view: &mut View) -> Answer {
    of_text(call, view, |text| {
        Reply::bulk_static(match parse_i64(text) {
            Some(_) => "int",
            None if text.len() <= EMBEDDED => "embstr",
            None => "raw",
        })
    })
}

pub(super) fn refcount(call: &Call, view: &mut View) -> Answer {
    if !matches!(view.kind(call.arg(2))?, None | Some(Kind::Text)) {
        return Ok(Reply::Int(1));
    }
    of_text(call, view, |text| match parse_i64(text) {
        Some(0..SHARED_INTEGERS) => Reply::Int(i32::MAX.into()),
        _ => Reply::Int(1),
    })
}

pub(super) fn freq(call: &Call, view: &mut View) -> Answer {
    if !view.exists(call.arg(2))? {
        return Ok(Reply::Nil);
    }
    Err("ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
         between policies at runtime LRU and LFU data will take some time to adjust."
        .into())
}

/// Reads are not tracked: a key is idle since its last write.
pub(super) fn idletime(call: &Call, view: &mut View) -> Answer {
    let (cell, now) = (view.cell(call.arg(2))?, view.now());
    if !view.exists(call.arg(2))? {
        return Ok(Reply::Nil);
    }
    let elements = cell.local().into_iter().flat_map(|local| &local.parts).map(|part| part.latest);
    let written = cell.versions().iter().map(|version| version.stamp.ms()).chain(elements).max().unwrap_or(now);
    Ok(Reply::Int(i64::try_from(now.saturating_sub(written) / 1000).unwrap_or(i64::MAX)))
}

fn of_text(call: &Call, view: &mut View, answer: impl Fn(&Bytes) -> Reply) -> Answer {
    Ok(view.text(call.arg(2))?.map_or(Reply::Nil, |text| answer(&text)))
}
