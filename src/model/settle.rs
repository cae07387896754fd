//! What a change of rows makes of the local facts of their key, and of its index rows. The one door calls it; a replica
//! in a test does likewise.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::row::RowKey;
use super::visible::Visible;
use crate::base::kind::{Kind, Role, Tag};
use crate::causality::counter::run_of;
use crate::causality::local::{Local, Part};
use crate::causality::{Cell, Clock, Dot, Payload, Value, Version};

/// A row of a collection that changes: as it was and as it will be, without what its head hid before the change.
#[derive(Debug, Clone)]
pub struct Touched {
    /// What it is.
    pub tag: Tag,
    /// Its encoded key.
    pub row: Bytes,
    /// The cell as it was.
    pub before: Arc<Cell>,
    /// The cell as it will be.
    pub after: Arc<Cell>,
}

/// The local facts of a key whose head row was `before` and will have the versions of `after`, and of whose other rows
/// these are `touched`. `clock` is the region's before the change, `hash` digests a row. None when a clearing came that
/// may have left something: then the rows have to be counted anew, beginning with [`recount`].
pub fn settle(
    before: &Cell,
    after: &Cell,
    touched: &[Touched],
    clock: &Clock,
    hash: impl Fn(&[u8], &Cell) -> u128,
) -> Option<Local> {
    let mut local = before.local().cloned().unwrap_or_default();
    let fresh: Vec<&Clock> = fresh_clears(before, after).collect();
    for clear in &fresh {
        if !local.parts.iter().all(|part| part.lies_within(clear, clock)) {
            return None;
        }
        if !local.parts.is_empty() {
            local.parts.clear();
            local.hidden.get_or_insert_default().join(clear);
        }
    }
    for Touched { tag, row, before, after } in touched {
        let Some(kind) = tag.kind() else { continue };
        let (before, after) = (without(before, &fresh), without(after, &fresh));
        let part = local.part_mut(kind);
        move_row(part, *tag, &before, &after);
        part.digest ^= digest_of(&hash, row, &before) ^ digest_of(&hash, row, &after);
    }
    local.parts.retain(|part| part.rows > 0);
    Some(local)
}

/// The local facts of a key whose head row was `before` and will be `after`, its other rows not counted yet: see
/// [`count_row`].
pub fn recount(before: &Cell, after: &Cell) -> Local {
    let mut local = Local { hidden: before.local().and_then(|local| local.hidden.clone()), ..Local::default() };
    for clear in fresh_clears(before, after) {
        local.hidden.get_or_insert_default().join(clear);
    }
    local
}

/// Counts one of a key's other rows, without what is hidden of it.
pub fn count_row(local: &mut Local, row: &[u8], cell: &Cell, hash: impl Fn(&[u8], &Cell) -> u128) {
    let tag = RowKey::split(row).map(|(tag, _)| tag).filter(|tag| tag.role() != Role::Index && !cell.is_empty());
    let Some((tag, kind)) = tag.and_then(|tag| Some((tag, tag.kind()?))) else { return };
    let part = local.part_mut(kind);
    move_row(part, tag, &Cell::default(), cell);
    part.digest ^= hash(row, cell);
}

/// Clearings that a change of the head row brings.
pub fn fresh_clears<'a>(before: &'a Cell, after: &'a Cell) -> impl Iterator<Item = &'a Clock> {
    after.cleared().filter(|(dot, _)| !before.holds(*dot)).map(|(_, clock)| clock)
}

/// The index row that a row of a collection has: its key and its cell, which has the dot of the version that it stands
/// for, so that whatever hides that hides it as well.
pub fn index_of(head: &[u8], tag: Tag, row: &[u8], cell: &Cell) -> Option<(Bytes, Cell)> {
    let index = match tag.kind()? {
        Kind::Hash => Tag::HASH_ENDS,
        Kind::Zset => Tag::ZSET_INDEX,
        _ => return None,
    };
    let visible = Visible::of(cell.versions(), 0)?;
    let (_, name) = RowKey::split(row).filter(|_| tag.role() == Role::Element)?;
    let place = match index {
        Tag::HASH_ENDS => Bytes::copy_from_slice(&visible.deadline().ms()?.to_be_bytes()),
        // A member's value begins with its score, as bytes that sort as scores do.
        _ => visible.winner().and_then(|(_, value)| value.data.get(..SCORE_BYTES)).map(Bytes::copy_from_slice)?,
    };
    let version = visible.winner().map(|(version, _)| version).or_else(|| cell.versions().last())?;
    let payload = Payload::Value(Value::plain(Bytes::new()));
    let stands_for = Version { dot: version.dot, stamp: version.stamp, payload };
    Some((RowKey::element(head, index, &[&place, name].concat()), Cell::of([stands_for])))
}

/// Bytes of a score at the beginning of a sorted set member's value.
pub const SCORE_BYTES: usize = 8;

/// What one row adds to its part.
struct Adds {
    count: u64,
    side: u64,
    runs: u64,
    end: Option<u64>,
}

impl Adds {
    fn of(tag: Tag, cell: &Cell) -> Adds {
        // At time 0 nothing has expired: what is counted is what is there.
        let visible = Visible::of(cell.versions(), 0);
        let there = |role| u64::from(visible.is_some() && tag.role() == role);
        Adds {
            count: there(Role::Element),
            side: there(Role::Side),
            runs: cell.versions().iter().any(|version| run_of(version).is_some()).into(),
            end: visible.as_ref().and_then(|visible| visible.deadline().ms()),
        }
    }
}

/// What a row's change makes of its part, but for the digest.
pub(super) fn move_row(part: &mut Part, tag: Tag, before: &Cell, after: &Cell) {
    let moved = |count: u64, old: u64, new: u64| (count + new).saturating_sub(old);
    let (old, new) = (Adds::of(tag, before), Adds::of(tag, after));
    part.rows = moved(part.rows, (!before.is_empty()).into(), (!after.is_empty()).into());
    part.count = moved(part.count, old.count, new.count);
    part.side = moved(part.side, old.side, new.side);
    part.runs = moved(part.runs, old.runs, new.runs);
    part.ending = moved(part.ending, old.end.is_some().into(), new.end.is_some().into());
    part.next_end =
        if part.ending == 0 { u64::MAX } else { new.end.map_or(part.next_end, |end| end.min(part.next_end)) };
    after.versions().iter().for_each(|version| part.note(version.dot, version.stamp.ms()));
}

fn without<'a>(cell: &'a Cell, clears: &[&Clock]) -> Cow<'a, Cell> {
    let goes = |dot: Dot| clears.iter().any(|clear| clear.contains(dot));
    if !cell.dots().any(goes) {
        return Cow::Borrowed(cell);
    }
    let mut left = cell.clone();
    left.retain(|version| !goes(version.dot));
    Cow::Owned(left)
}

fn digest_of(hash: impl Fn(&[u8], &Cell) -> u128, row: &[u8], cell: &Cell) -> u128 {
    if cell.is_empty() { 0 } else { hash(row, cell) }
}
