//! The cache of hot head rows, decoded. Bounded by `maxmemory`; what is not yet committed stays in it, because the store
//! does not have it.
//!
//! The scan at start fills it. As long as it has never had to let go of a row it is *complete*: what it does not have
//! does not exist, and neither a read of an absent key nor the first write of a new one asks the store.
//!
//! Entries are found by a keyed 128-bit hash of the row key, not by the key: comparing stored keys was half of what a
//! write cost on this node's side, nearly all of it waiting for memory. Two rows of one hash are not to be expected in the
//! life of a cluster (below 2⁻⁶⁰ for ten billion rows), and without the cluster's secret nobody can look for them.
//!
//! It lies in shards, each behind a lock. Whoever will need several rows has them looked at beforehand
//! ([`HeadCache::look_at`]): a search waits for memory three or four times over, one line behind the other, and a lock
//! keeps the next search from beginning meanwhile. Under the locks of all of them the searches run side by side.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use quick_cache::unsync::Cache;
use quick_cache::{Lifecycle, Weighter};
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::look::AT_ONCE;
use super::region::{RegionState, row_hash};
use crate::base::codec::Reader;
use crate::base::kind::Kind;
use crate::causality::{Cell, Clock, Local, Payload};
use crate::model::look::RowPage;
use crate::model::{Fault, Heads, RowKey, Touched, settle};
use crate::storage::{Committer, Space, Store, Ticket};

/// A cell and the submission after which the store has it.
#[derive(Debug, Clone)]
struct Entry {
    cell: Arc<Cell>,
    ticket: Ticket,
}

/// The cache of all regions' heads.
pub struct HeadCache {
    /// By the upper half of the hash; a power of two.
    shards: Box<[Shard]>,
    committer: Committer,
    seed: u64,
    /// Every stored row is in it.
    complete: Arc<AtomicBool>,
    misses: AtomicU64,
    /// How often something was drawn at random.
    draws: AtomicU64,
}

/// A part of the cache, on lines of memory of its own.
#[repr(align(128))]
struct Shard(RwLock<Cache<u128, Entry, CellWeight, Folded, Keeper>>);

/// Most shards: many more than threads that serve.
const SHARDS: usize = 64;

/// Rows that a shard should hold at least.
const SHARD_ROWS: usize = 1_000;

/// Bytes that an entry takes: payloads and a flat sum for keys, dots, counts and the table's own.
#[derive(Debug, Clone)]
struct CellWeight;

impl Weighter<u128, Entry> for CellWeight {
    fn weight(&self, _: &u128, entry: &Entry) -> u64 {
        let versions = entry.cell.versions().iter();
        ENTRY_BYTES + versions.map(|version| VERSION_BYTES + version.payload.data_len() as u64).sum::<u64>()
    }
}

const ENTRY_BYTES: u64 = 140;
const VERSION_BYTES: u64 = 120;

/// Hashes of hashes: half of it will do.
#[derive(Debug, Clone, Copy, Default)]
struct Folded;

impl BuildHasher for Folded {
    type Hasher = Half;

    fn build_hasher(&self) -> Half {
        Half(0)
    }
}

/// The lower half of the one number that is hashed.
struct Half(u64);

impl Hasher for Half {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |low| u64::from_ne_bytes(*low));
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// Keeps in the cache what the store does not have yet, and notes when something has to go.
#[derive(Clone)]
struct Keeper {
    committer: Committer,
    complete: Arc<AtomicBool>,
}

impl Lifecycle<u128, Entry> for Keeper {
    type RequestState = ();

    fn is_pinned(&self, _: &u128, entry: &Entry) -> bool {
        entry.ticket > self.committer.committed()
    }

    // Not `on_evict`, which is called for a replaced value as well.
    fn before_evict(&self, (): &mut (), _: &u128, entry: &mut Entry) {
        // Called under the lock that a reader of the row takes: it cannot miss the row and still find the cache complete.
        if !entry.cell.is_blank() {
            self.complete.store(false, Ordering::Release);
        }
    }
}

impl HeadCache {
    /// A cache of about `bytes` bytes in front of what `committer` feeds. It calls itself complete: the caller fills it
    /// with [`HeadCache::warm`] before anyone asks.
    pub fn new(bytes: u64, committer: Committer, seed: u64) -> Self {
        let items = (bytes / (ENTRY_BYTES + VERSION_BYTES + 64)).clamp(1_000, 50_000_000) as usize;
        let complete = Arc::new(AtomicBool::new(true));
        let keeper = Keeper { committer: committer.clone(), complete: complete.clone() };
        let count = (items / SHARD_ROWS).clamp(1, SHARDS).next_power_of_two();
        let (items, bytes) = (items / count, bytes / count as u64);
        let shard = |_| Shard(RwLock::new(Cache::with(items, bytes, CellWeight, Folded, keeper.clone())));
        let shards = (0..count).map(shard).collect();
        let (misses, draws) = (AtomicU64::new(0), AtomicU64::new(0));
        HeadCache { shards, committer, seed, complete, misses, draws }
    }

    /// Takes in a stored row, as long as all of them fit.
    pub fn warm(&self, row: &Bytes, cell: &Arc<Cell>) {
        if self.is_complete() {
            self.put(row, cell.clone(), Ticket(0));
        }
    }

    /// Puts a row that was submitted with `ticket`.
    pub fn put(&self, row: &[u8], cell: Arc<Cell>, ticket: Ticket) {
        self.put_at(self.hash(row), cell, ticket);
    }

    /// The same, for whoever has the row's hash.
    pub fn put_at(&self, hash: u128, cell: Arc<Cell>, ticket: Ticket) {
        let entry = Entry { cell, ticket };
        if let Some(shard) = self.shard(hash) {
            shard.0.write().insert(hash, entry);
        }
    }

    /// Looks at some rows that are about to be asked for, so that what is known of them lies in the processor's cache by
    /// then: of all of them one line of memory after the other, so that none waits for another row's. Waits for no lock.
    pub fn look_at(&self, hashes: impl Iterator<Item = u128>) {
        let locked = |hash: u128| Some((hash, self.shard(hash)?.0.try_read()?));
        let shards: SmallVec<[_; AT_ONCE]> = hashes.filter_map(locked).collect();
        let entries: SmallVec<[&Entry; AT_ONCE]> = shards.iter().filter_map(|(hash, shard)| shard.peek(hash)).collect();
        let seen = entries.iter().filter_map(|entry| entry.cell.versions().first());
        black_box(seen.fold(0, |seen, version| seen ^ version.dot.counter));
        let values = entries.iter().filter_map(|entry| match &entry.cell.versions().first()?.payload {
            Payload::Value(value) => value.data.first().zip(value.data.last()),
            _ => None,
        });
        black_box(values.fold(0, |seen, (first, last)| seen ^ first ^ last));
    }

    fn shard(&self, hash: u128) -> Option<&Shard> {
        self.shards.get((hash >> 64) as usize & (self.shards.len() - 1))
    }

    /// By what a row is found.
    pub fn hash(&self, row: &[u8]) -> u128 {
        xxh3_128_with_seed(row, self.seed)
    }

    /// Whether every stored row is in it.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Bytes in use, as weighed.
    pub fn weight(&self) -> u64 {
        self.shards.iter().map(|shard| shard.0.read().weight()).sum()
    }

    /// Changes how many bytes it may hold.
    pub fn resize(&self, bytes: u64) {
        let bytes = bytes / self.shards.len() as u64;
        self.shards.iter().for_each(|shard| shard.0.write().set_capacity(bytes));
    }

    /// Point reads that the store had to answer since the start.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// The rows of a region: from the cache, else from the store, without what clears hide.
    pub fn of_region<'a>(&'a self, store: &'a dyn Store, state: &'a RegionState) -> RegionHeads<'a> {
        RegionHeads { cache: self, store, state }
    }

    fn load(&self, store: &dyn Store, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        let hash = self.hash(row);
        let Some(shard) = self.shard(hash) else { return read_stored(store, row) };
        let known = shard.0.read().get(&hash).cloned();
        if let Some(entry) = known {
            // After a failure nobody may see what the store never got.
            let stored = !self.committer.has_failed() || entry.ticket <= self.committer.committed();
            return if stored { Ok(entry.cell) } else { read_stored(store, row) };
        }
        if self.is_complete() {
            return Ok(Arc::default());
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let cell = read_stored(store, row)?;
        self.put(row, cell.clone(), Ticket(0));
        Ok(cell)
    }
}

fn read_stored(store: &dyn Store, row: &[u8]) -> Result<Arc<Cell>, Fault> {
    let stored = store.get(Space::Data, row).map_err(|error| Fault::Store(error.to_string()))?;
    Ok(Arc::new(match stored {
        Some(raw) => decode(&raw)?,
        None => Cell::default(),
    }))
}

/// Reads a stored cell. Copies it: a slice of the store's block would keep the block alive.
pub fn decode(raw: &[u8]) -> Result<Cell, Fault> {
    Cell::read_stored(&mut Reader::new(Bytes::copy_from_slice(raw)))
        .map_err(|error| Fault::Store(format!("a stored row cannot be read: {error}")))
}

/// Rows of one region, whose lock the caller holds.
pub struct RegionHeads<'a> {
    cache: &'a HeadCache,
    store: &'a dyn Store,
    state: &'a RegionState,
}

impl Heads for RegionHeads<'_> {
    fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        let cell = without_hidden(self.cache.load(self.store, row)?, self.state.clear.as_ref());
        if cell.is_blank() {
            return Ok(cell);
        }
        if RowKey::is_head(row) {
            return if self.is_doubtful(&cell) { self.with_sound_facts(row, cell) } else { Ok(cell) };
        }
        let Some(head) = RowKey::head_of(row) else { return Ok(cell) };
        let head = self.cache.load(self.store, &head)?;
        Ok(without_hidden(cell, head.hides().as_deref()))
    }

    fn range(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        let head = RowKey::head_of(from).ok_or_else(|| Fault::Store("a range of no key".into()))?;
        let head = self.cache.load(self.store, &head)?;
        self.range_under(&head, from, to, limit)
    }

    fn range_back(&mut self, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        let head = RowKey::head_of(from).ok_or_else(|| Fault::Store("a range of no key".into()))?;
        let head = self.cache.load(self.store, &head)?;
        let stored = self.store.range_back(Space::Data, from, to, limit);
        let stored = stored.map_err(|error| Fault::Store(error.to_string()))?;
        let next = stored.last().filter(|_| stored.len() >= limit).map(|(row, _)| row.clone());
        let start = next.as_ref().unwrap_or(from).clone();
        let mut rows: BTreeMap<Bytes, Arc<Cell>> = BTreeMap::new();
        for (row, raw) in stored {
            rows.insert(Bytes::copy_from_slice(&row), Arc::new(decode(&raw)?));
        }
        // Looked at after the store: what is committed in between is in both.
        for (row, cell) in self.state.pending.range(&start, to, self.latest()) {
            match cell {
                Some(cell) => drop(rows.insert(row.clone(), cell.clone())),
                None => drop(rows.remove(row)),
            }
        }
        let hides = head.hides();
        let shown = rows.into_iter().rev().filter(|(row, _)| !RowKey::is_head(row)).filter_map(|(row, cell)| {
            let cell = without_hidden(without_hidden(cell, self.state.clear.as_ref()), hides.as_deref());
            (!cell.is_empty()).then_some((row, cell))
        });
        Ok((shown.collect(), next.map(|row| Bytes::copy_from_slice(&row))))
    }

    fn clock(&self) -> Clock {
        self.state.clock.clone()
    }

    fn chance(&mut self) -> u64 {
        let drawn = self.cache.draws.fetch_add(1, Ordering::Relaxed);
        xxh3_128_with_seed(&drawn.to_be_bytes(), self.cache.seed) as u64
    }
}

impl RegionHeads<'_> {
    /// Rows of the key of `head` but for that itself, without what clears hide.
    fn range_under(&self, head: &Cell, from: &Bytes, to: &Bytes, limit: usize) -> Result<RowPage, Fault> {
        let stored = self.store.range(Space::Data, from, to, limit).map_err(|error| Fault::Store(error.to_string()))?;
        let next = (stored.len() >= limit).then(|| stored.last().map(|(row, _)| after(row))).flatten();
        let end = next.as_ref().unwrap_or(to);
        // Looked at after the store: what is committed in between is in both.
        let mut pending = self.state.pending.range(from, end, self.latest()).peekable();
        let (mut rows, hides) = (Vec::with_capacity(stored.len()), head.hides());
        let mut show = |row: Bytes, cell: Arc<Cell>| {
            let cell = without_hidden(without_hidden(cell, self.state.clear.as_ref()), hides.as_deref());
            if !cell.is_empty() && !RowKey::is_head(&row) {
                rows.push((row, cell));
            }
        };
        for (row, raw) in stored {
            while let Some((earlier, cell)) = pending.next_if(|(other, _)| **other < row) {
                cell.into_iter().for_each(|cell| show(earlier.clone(), cell.clone()));
            }
            match pending.next_if(|(other, _)| **other == row) {
                Some((_, cell)) => cell.into_iter().for_each(|cell| show(row.clone(), cell.clone())),
                None => show(Bytes::copy_from_slice(&row), Arc::new(decode(&raw)?)),
            }
        }
        for (row, cell) in pending {
            cell.into_iter().for_each(|cell| show(row.clone(), cell.clone()));
        }
        Ok((rows, next))
    }

    /// The last submission of which something may be told: after a failure, nothing that the store never got.
    fn latest(&self) -> Ticket {
        if self.cache.committer.has_failed() { self.cache.committer.committed() } else { Ticket(u64::MAX) }
    }

    /// Whether a clear of the region has come since a key's local facts were made.
    fn is_doubtful(&self, head: &Cell) -> bool {
        self.state.clear.is_some() && head.local().is_some_and(|local| local.under != self.state.under)
    }

    /// The head with facts that go by the region's clear.
    fn with_sound_facts(&self, row: &Bytes, mut head: Arc<Cell>) -> Result<Arc<Cell>, Fault> {
        let (Some(clear), Some(local)) = (&self.state.clear, head.local()) else { return Ok(head) };
        let mut sound = if local.parts.iter().all(|part| part.lies_within(clear, &self.state.clock)) {
            Local { parts: SmallVec::new(), ..local.clone() }
        } else {
            self.recount(row, &head, &head, &[])?
        };
        sound.under = self.state.under;
        Arc::make_mut(&mut head).set_local(Some(Box::new(sound)));
        Ok(head)
    }

    /// Counts a key's rows anew: its head row was `before` and will be `after`, and of its other rows these are `touched`.
    pub fn recount(&self, row: &Bytes, before: &Cell, after: &Cell, touched: &[Touched]) -> Result<Local, Fault> {
        let fresh = settle::fresh_clears(before, after).fold(Clock::new(), |mut all, clear| {
            all.join(clear);
            all
        });
        let mut local = settle::recount(before, after);
        let mut count = |row: &[u8], cell: &Arc<Cell>| {
            let left = without_hidden(cell.clone(), Some(&fresh));
            settle::count_row(&mut local, row, &left, |row, cell| row_hash(self.cache.seed, row, cell));
        };
        let (mut from, end) = (RowKey::element(row, Kind::Hash.tag(), b""), RowKey::after_key(row));
        loop {
            let (page, next) = self.range_under(before, &from, &end, RECOUNTED_AT_ONCE)?;
            let untouched = |row: &Bytes| !touched.iter().any(|touched| touched.row == *row);
            page.iter().filter(|(row, _)| untouched(row)).for_each(|(row, cell)| count(row, cell));
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
        touched.iter().for_each(|touched| count(&touched.row, &touched.after));
        Ok(local)
    }
}

/// Rows that are read in one go when a key is counted anew.
const RECOUNTED_AT_ONCE: usize = 1_000;

/// The first row key after `row`.
pub(super) fn after(row: &[u8]) -> Bytes {
    let mut next = row.to_vec();
    next.push(0);
    next.into()
}

/// The cell without the versions that `clear` superseded.
pub fn without_hidden(mut cell: Arc<Cell>, clear: Option<&Clock>) -> Arc<Cell> {
    if let Some(clear) = clear
        && cell.dots().any(|dot| clear.contains(dot))
    {
        Arc::make_mut(&mut cell).retain(|version| !clear.contains(version.dot));
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::id::ActorId;
    use crate::causality::{Dot, Stamp, Value, Version};
    use crate::storage::{MemoryStore, SyncPolicy};

    fn cache(bytes: u64) -> HeadCache {
        let committer = Committer::new(Arc::new(MemoryStore::new()), SyncPolicy::No).unwrap();
        HeadCache::new(bytes, committer, 7)
    }

    fn cell(counter: u64) -> Arc<Cell> {
        let payload = Payload::Value(Value::plain("v".into()));
        Arc::new(Cell::of([Version { dot: Dot::new(ActorId(1), counter), stamp: Stamp::default(), payload }]))
    }

    #[test]
    fn a_cache_is_complete_while_rows_are_only_replaced_and_no_longer_once_one_had_to_go() {
        let cache = cache(1 << 20);
        (0..1_000u64).for_each(|n| cache.put(&[n as u8], cell(n), Ticket(0)));
        assert!(cache.is_complete());
        (0..20_000u64).for_each(|n| cache.put(&n.to_be_bytes(), cell(n), Ticket(0)));
        assert!(!cache.is_complete());
        assert!(cache.weight() <= 1 << 20);
    }

    #[test]
    fn what_is_not_committed_stays_however_full_the_cache_is() {
        let cache = cache(1 << 20);
        (0..20_000u64).for_each(|n| cache.put(&n.to_be_bytes(), cell(n), Ticket(1)));
        let store = MemoryStore::new();
        cache.look_at((0..20_010u64).map(|n| cache.hash(&n.to_be_bytes())));
        for n in 0..20_000u64 {
            let row = Bytes::copy_from_slice(&n.to_be_bytes());
            assert_eq!(cache.of_region(&store, &RegionState::default()).head(&row), Ok(cell(n)));
        }
    }
}
