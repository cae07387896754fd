//! Parts of strings: how long, cut out, written over, added to.

use bytes::{BufMut, Bytes, BytesMut};

use crate::base::limits::MAX_STRING_BYTES;
use crate::commands::call::Call;
use crate::commands::errors::{Answer, CommandError, TOO_LONG};
use crate::model::{Draft, View};
use crate::resp::Reply;

pub(super) fn strlen(call: &Call, view: &mut View) -> Answer {
    Ok(length(view.text(call.arg(1))?.map_or(0, |text| text.len())))
}

pub(super) fn getrange(call: &Call, view: &mut View) -> Answer {
    let (start, end) = (call.int(2)?, call.int(3)?);
    let text = view.text(call.arg(1))?.unwrap_or_default();
    Ok(Reply::Bulk(slice(&text, start, end)))
}

/// Bytes `start` to `end`, both included; negative ones count from the end, and what lies outside is left out.
fn slice(text: &Bytes, start: i64, end: i64) -> Bytes {
    // Both before the first byte would otherwise become the first byte.
    if start < 0 && end < 0 && start > end {
        return Bytes::new();
    }
    let len = text.len() as i64;
    let from_front = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (start, after) = (from_front(start), from_front(end).saturating_add(1).min(len));
    match (usize::try_from(start), usize::try_from(after)) {
        (Ok(start), Ok(after)) if start < after => text.slice(start..after),
        _ => Bytes::new(),
    }
}

pub(super) fn append(call: &Call, draft: &mut Draft) -> Answer {
    let (key, added) = (call.arg(1), call.arg(2));
    let old = draft.text(key)?.unwrap_or_default();
    let len = allowed_length(old.len(), added.len())?;
    let mut text = BytesMut::with_capacity(len);
    text.put_slice(&old);
    text.put_slice(added);
    draft.amend(key, text.freeze())?;
    Ok(length(len))
}

pub(super) fn setrange(call: &Call, draft: &mut Draft) -> Answer {
    let (key, value) = (call.arg(1), call.arg(3));
    let offset = usize::try_from(call.int(2)?).map_err(|_| "ERR offset is out of range")?;
    let old = draft.text(key)?.unwrap_or_default();
    // Nothing to write: not even an absent key comes into being.
    if value.is_empty() {
        return Ok(length(old.len()));
    }
    let end = allowed_length(offset, value.len())?;
    let mut text = BytesMut::with_capacity(end.max(old.len()));
    text.put_slice(old.get(..offset).unwrap_or(&old));
    text.resize(offset, 0);
    text.put_slice(value);
    text.put_slice(old.get(end..).unwrap_or_default());
    let len = text.len();
    draft.amend(key, text.freeze())?;
    Ok(length(len))
}

fn allowed_length(have: usize, more: usize) -> Result<usize, CommandError> {
    have.checked_add(more).filter(|len| *len <= MAX_STRING_BYTES).ok_or(TOO_LONG.into())
}

fn length(len: usize) -> Reply {
    Reply::Int(i64::try_from(len).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slice_is_what_a_walk_over_the_positions_finds(text: Vec<u8>, start in -12i64..12, end in -12i64..12) {
            let len = text.len() as i64;
            let place = |at: i64| if at < 0 { (at + len).max(0) } else { at };
            let reversed = start < 0 && end < 0 && start > end;
            let walk: Vec<u8> = (0..len)
                .filter(|at| !reversed && place(start) <= *at && *at <= place(end))
                .map(|at| text[at as usize])
                .collect();
            prop_assert_eq!(slice(&text.into(), start, end), walk);
        }

        #[test]
        fn the_ends_of_the_numbers_do_not_overflow(text: Vec<u8>, start: i64, end: i64) {
            slice(&text.into(), start, end);
        }
    }
}
