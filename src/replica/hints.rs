//! Hints: deltas that a stand-in keeps for owners that are away (paper §4.6), in the order in which they came.
//!
//! ```text
//! owner (8 bytes) · number (8 bytes)  →  moment in ms (8 bytes) · delta
//! ```
//!
//! A hint is stored in one submission with the rows that it changes here, and numbers are given in the order of
//! submissions: whoever reads up to a number has read all before it. How many there are is known without reading. Over
//! the limit no hint is written; the rows are, and giving back whole regions delivers them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::{Applied, Intake, Replica};
use crate::base::codec::{Decoded, Reader};
use crate::base::id::{NodeId, Partition};
use crate::metrics;
use crate::model::delta::read_region;
use crate::model::{Delta, Fault};
use crate::ring::partition::Partitions;
use crate::storage::{Change, Space, Store, StoreError, Ticket};

/// What is kept for one owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HintStats {
    /// Hints.
    pub count: u64,
    /// Bytes of them, as stored.
    pub bytes: u64,
    /// When the oldest came, in milliseconds since the epoch; 0 if there is none.
    pub oldest_ms: u64,
    /// Deltas for which none was written since the start, because there were too many.
    pub skipped: u64,
}

/// A hint as it was kept: its number, when it came (in milliseconds since the epoch), and what changed.
pub type Hint = (u64, u64, Delta);

/// A delta on its way to become a hint.
pub(super) struct NewHint {
    owner: NodeId,
    partition: Partition,
    ms: u64,
    value: Bytes,
}

/// What is known of all hints.
pub struct Hints {
    inner: Mutex<Inner>,
    limit_bytes: AtomicU64,
}

struct Inner {
    owners: BTreeMap<NodeId, Queue>,
    bytes: u64,
    /// Hints of each partition.
    partitions: Vec<u64>,
}

/// The hints of one owner, ascending by number. What is gone in the middle stays until it comes to the front.
#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    last: u64,
    stats: HintStats,
}

struct Entry {
    number: u64,
    ms: u64,
    bytes: u32,
    partition: Partition,
    gone: bool,
}

impl NewHint {
    pub(super) fn new(owner: NodeId, delta: &Delta, now: u64) -> NewHint {
        let mut value = BytesMut::new();
        value.put_u64(now);
        delta.put(&mut value);
        NewHint { owner, partition: delta.region.partition, ms: now, value: value.freeze() }
    }
}

impl Hints {
    /// Those that the store has.
    pub fn open(store: &dyn Store, partitions: Partitions) -> Result<Hints, StoreError> {
        let mut inner =
            Inner { owners: BTreeMap::new(), bytes: 0, partitions: vec![0; usize::from(partitions.count())] };
        let mut odd = false;
        store.visit(Space::Hints, &[], &[], &mut |key, raw| {
            match (owner_and_number(key), read_head(raw)) {
                (Some((owner, number)), Ok((ms, partition))) => {
                    inner.add(owner, number, ms, key.len() + raw.len(), partition);
                }
                _ => odd = true,
            }
            ControlFlow::Continue(())
        })?;
        if odd {
            return Err(StoreError::Damaged("a hint makes no sense".into()));
        }
        Ok(Hints { inner: Mutex::new(inner), limit_bytes: AtomicU64::new(u64::MAX) })
    }
}

impl Replica {
    /// Applies a delta for an `owner` that is away, and keeps it as a hint for that owner: in one submission. See
    /// [`Replica::apply`].
    pub fn keep(&self, owner: NodeId, delta: &Delta, now: u64, conditional: bool) -> Result<Applied, Fault> {
        self.apply_and(delta, now, conditional, Some(NewHint::new(owner, delta, now)))
    }

    /// Keeps a hint for `owner` of a delta that this node made itself. May be called while the delta is told.
    pub fn keep_own(&self, owner: NodeId, delta: &Delta, now: u64) -> Result<Ticket, Fault> {
        self.check_takes(Intake::Removals)?;
        self.submit_with_hint([], &[], Some(NewHint::new(owner, delta, now)))
    }

    /// Hints for `owner` in their order, after that of number `after`, until about `limit_bytes` of them are gathered: one
    /// at least, if there is any. Reads the store.
    pub fn hints_after(&self, owner: NodeId, after: Option<u64>, limit_bytes: usize) -> Result<Vec<Hint>, Fault> {
        let from = after.map_or(Some(0), |after| after.checked_add(1));
        let Some(from) = from else { return Ok(Vec::new()) };
        let (mut hints, mut bytes, mut odd) = (Vec::new(), 0usize, None);
        let visited = self.store.visit(Space::Hints, &key_of(owner, from), &end_of(owner), &mut |key, raw| {
            bytes = bytes.saturating_add(raw.len());
            match (owner_and_number(key), read(raw)) {
                (Some((_, number)), Ok((ms, delta))) => hints.push((number, ms, delta)),
                (_, read) => odd = Some(Fault::Store(format!("a hint cannot be read: {:?}", read.err()))),
            }
            if bytes < limit_bytes && odd.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        visited.map_err(|error| Fault::Store(error.to_string()))?;
        odd.map_or(Ok(hints), Err)
    }

    /// Lets go of hints that `owner` has, or that nobody will ever ask for.
    pub fn forget_hints(&self, owner: NodeId, numbers: &[u64]) -> Result<Ticket, Fault> {
        let mut inner = self.hints.inner.lock();
        let removed = numbers.iter().map(|number| Change::remove(Space::Hints, key_of(owner, *number)));
        let ticket = self.submit(removed, &[])?;
        numbers.iter().for_each(|number| inner.remove(owner, *number));
        Ok(ticket)
    }

    /// What is kept for each owner; one whose hints are all gone stays, with zeros.
    pub fn hint_stats(&self) -> BTreeMap<NodeId, HintStats> {
        self.hints.inner.lock().owners.iter().map(|(owner, queue)| (*owner, queue.stats)).collect()
    }

    /// Whether a hint is kept that changes something in this partition.
    pub fn has_hints(&self, partition: Partition) -> bool {
        self.hints.inner.lock().partitions.get(usize::from(partition.0)).is_some_and(|count| *count > 0)
    }

    /// From now on no hint is written while there are so many bytes of them.
    pub fn set_hint_limit(&self, bytes: u64) {
        self.hints.limit_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Submits changes, and the hint with them if there is room for it.
    pub(super) fn submit_with_hint(
        &self,
        changes: impl IntoIterator<Item = Change>,
        note: &[u8],
        hint: Option<NewHint>,
    ) -> Result<Ticket, Fault> {
        let Some(hint) = hint else { return self.submit(changes, note) };
        // Held over the submission: numbers follow the order of submissions.
        let mut inner = self.hints.inner.lock();
        if inner.bytes >= self.hints.limit_bytes.load(Ordering::Relaxed) {
            inner.owners.entry(hint.owner).or_default().stats.skipped += 1;
            metrics::HINTS_SKIPPED.increment();
            return self.submit(changes, note);
        }
        let number = inner.owners.entry(hint.owner).or_default().last.saturating_add(1);
        let row = Change::put(Space::Hints, key_of(hint.owner, number), hint.value);
        let weight = row.weight();
        let ticket = self.submit(changes.into_iter().chain([row]), note)?;
        inner.add(hint.owner, number, hint.ms, weight, hint.partition);
        Ok(ticket)
    }
}

impl Inner {
    fn add(&mut self, owner: NodeId, number: u64, ms: u64, bytes: usize, partition: Partition) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes = self.bytes.saturating_add(bytes.into());
        self.partitions.iter_mut().skip(usize::from(partition.0)).take(1).for_each(|count| *count += 1);
        let queue = self.owners.entry(owner).or_default();
        queue.last = number;
        queue.entries.push_back(Entry { number, ms, bytes, partition, gone: false });
        queue.stats.count += 1;
        queue.stats.bytes = queue.stats.bytes.saturating_add(bytes.into());
        queue.stats.oldest_ms = queue.entries.front().map_or(0, |entry| entry.ms);
    }

    fn remove(&mut self, owner: NodeId, number: u64) {
        let Some(queue) = self.owners.get_mut(&owner) else { return };
        let Ok(at) = queue.entries.binary_search_by_key(&number, |entry| entry.number) else { return };
        let Some(entry) = queue.entries.get_mut(at).filter(|entry| !entry.gone) else { return };
        entry.gone = true;
        let (bytes, partition) = (u64::from(entry.bytes), usize::from(entry.partition.0));
        self.bytes = self.bytes.saturating_sub(bytes);
        self.partitions.iter_mut().skip(partition).take(1).for_each(|count| *count = count.saturating_sub(1));
        queue.stats.count = queue.stats.count.saturating_sub(1);
        queue.stats.bytes = queue.stats.bytes.saturating_sub(bytes);
        while queue.entries.front().is_some_and(|entry| entry.gone) {
            queue.entries.pop_front();
        }
        queue.stats.oldest_ms = queue.entries.front().map_or(0, |entry| entry.ms);
    }
}

fn key_of(owner: NodeId, number: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(16);
    key.put_u64(owner.0);
    key.put_u64(number);
    key.freeze()
}

/// The key after all of an owner's hints; empty, which means no end, for the last owner that can be.
fn end_of(owner: NodeId) -> Bytes {
    owner.0.checked_add(1).map_or_else(Bytes::new, |next| next.to_be_bytes().to_vec().into())
}

fn owner_and_number(key: &[u8]) -> Option<(NodeId, u64)> {
    let (owner, number) = key.split_first_chunk()?;
    Some((NodeId(u64::from_be_bytes(*owner)), u64::from_be_bytes(number.try_into().ok()?)))
}

fn read(raw: &[u8]) -> Decoded<(u64, Delta)> {
    let mut reader = Reader::new(Bytes::copy_from_slice(raw));
    let hint = (reader.u64()?, Delta::read(&mut reader)?);
    reader.finish()?;
    Ok(hint)
}

/// When a hint came and which partition it is of, without reading all of it.
fn read_head(raw: &[u8]) -> Decoded<(u64, Partition)> {
    let mut reader = Reader::new(Bytes::copy_from_slice(raw.get(..11).unwrap_or(raw)));
    Ok((reader.u64()?, read_region(&mut reader)?.partition))
}
