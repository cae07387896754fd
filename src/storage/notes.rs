//! The log of notes: one row per batch that had any, in [`Space::Clocks`].
//!
//! What the clocks of many regions gained in one batch is one insert instead of one per region. The layer above writes
//! whole clocks now and then and drops the log rows they cover; at start it reads the clocks and replays the rest.
//!
//! ```text
//! 'L'                    → u64 be: the first batch whose notes are kept
//! 'L' ++ batch (u64 be)  → notes, one after the other, in order of submission
//! ```
//!
//! Numbers are dense: only batches with notes take one. So what to drop is counted, not searched, and the row of the
//! first batch keeps the numbers going when all others are dropped.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{Change, Space, Store, StoreError};

const PREFIX: u8 = b'L';
/// The key after every log row's.
const END: [u8; 1] = [PREFIX + 1];

/// Calls `each` with the number and notes of every batch that is kept, oldest first.
pub fn replay_notes(store: &dyn Store, mut each: impl FnMut(u64, Bytes)) -> Result<(), StoreError> {
    store.visit(Space::Clocks, &[PREFIX, 0], &END, &mut |key, notes| {
        if let Some(batch) = batch_of(key) {
            each(batch, Bytes::copy_from_slice(notes));
        }
        ControlFlow::Continue(())
    })
}

/// The first batch whose notes are kept, and the number of the next one.
pub(super) fn bounds(store: &dyn Store) -> Result<(u64, u64), StoreError> {
    let first = match store.get(Space::Clocks, &[PREFIX])? {
        Some(raw) => number(&raw).ok_or_else(|| StoreError::Damaged("the log of notes has no beginning".into()))?,
        None => 0,
    };
    let mut next = first;
    store.visit(Space::Clocks, &key_of(first), &END, &mut |key, _| {
        next = batch_of(key).map_or(next, |batch| batch.saturating_add(1));
        ControlFlow::Continue(())
    })?;
    Ok((first, next))
}

/// The row of a batch.
pub(super) fn row(batch: u64, notes: Bytes) -> Change {
    Change::put(Space::Clocks, key_of(batch).to_vec(), notes)
}

/// Drops the rows of batches `[first, until)`.
pub(super) fn drop_rows(first: u64, until: u64) -> impl Iterator<Item = Change> {
    let beginning = Change::put(Space::Clocks, vec![PREFIX], until.to_be_bytes().to_vec());
    let rows = (first..until).map(|batch| Change::remove(Space::Clocks, key_of(batch).to_vec()));
    rows.chain(std::iter::once(beginning))
}

fn key_of(batch: u64) -> [u8; 9] {
    let mut key = [PREFIX; 9];
    key[1..].copy_from_slice(&batch.to_be_bytes());
    key
}

fn batch_of(key: &[u8]) -> Option<u64> {
    number(key.strip_prefix(&[PREFIX])?)
}

fn number(raw: &[u8]) -> Option<u64> {
    raw.try_into().ok().map(u64::from_be_bytes)
}
