//! The store on disk: a journal, rows in memory in front of sorted tables, and a thread that carries them over.
//!
//! ```text
//! write ─▶ journal: one frame of a segment ─▶ overlay of that segment
//!                                                │ segment full: sealed, a new one begins
//!                                                ▼
//!                          carrier thread: rows, sorted ─▶ tables (synced) ─▶ overlay dropped, segment deleted
//! get, range, visit: overlays, newest first, over the tables
//! ```
//!
//! - A write returns when its frame is in the kernel: it survives the process. [`Durability::Synced`] and
//!   [`Store::sync`] sync the segment beside writes that go on.
//! - A batch appears in the overlay under one lock, and a reader takes leaves of all overlays and a snapshot of the
//!   tables under that lock: so it sees a batch whole or not at all. What is carried over meanwhile says the same twice.
//! - Carrying over twice changes nothing, so a crash at any point of it is repaired by doing it again. The tables say how
//!   far they have come; the segments behind must follow on without a gap, or the store does not open.
//! - Segments that wait are bounded: then a write blocks, and [`Store::is_ready`] says beforehand that it would.
//! - After a failed append, sync or ingestion the store takes no more writes until reopened, and reads go on.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use super::format::{DataDir, Fingerprint, OpenError, boot_id};
use super::journal::{self, Journal, Recovered, Sealed, Writer};
use super::overlay::{Overlay, Rows, RowsBack};
use super::segment;
use super::tables::Tables;
use super::{Batch, Change, Durability, MAX_ROW_KEY_BYTES, RESERVED_KEY, Space, Store, StoreError, Usage, Visitor};

const MIB: u64 = 1024 * 1024;

/// How often somebody looks whether tables need merging.
const MERGE_PAUSE: Duration = Duration::from_millis(500);

/// How often the carrier looks whether that has caught up.
const PAUSE: Duration = Duration::from_millis(50);

/// What an operator may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskOptions {
    /// Block cache, in bytes.
    pub cache_bytes: u64,
    /// Size at which a segment of the journal is full and its rows are carried over into tables, in bytes. Larger ones
    /// are compacted less and take more memory: rows take their bytes in the journal and about 80 more.
    pub segment_bytes: u64,
    /// Full segments that may wait for that before writes do, at least one.
    pub segments_waiting: usize,
    /// Compress older levels with lz4. Fixed when the directory is made.
    pub compress: bool,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions { cache_bytes: 256 * MIB, segment_bytes: 64 * MIB, segments_waiting: 3, compress: true }
    }
}

/// See the module.
pub struct DiskStore {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    fingerprint: Fingerprint,
    // Last: the lock goes after everything else is closed.
    dir: DataDir,
}

/// What the carrier and everybody else have in common.
struct Shared {
    tables: Tables,
    journal: Journal,
    rows: RwLock<Layers>,
    options: DiskOptions,
    failed: OnceLock<StoreError>,
    stopping: Mutex<bool>,
    /// Rung, with `stopping`, when there may be something to carry.
    work: Condvar,
    /// Rung, with the right to append, when a segment has been carried over.
    room: Condvar,
}

/// Rows in memory.
struct Layers {
    /// Of the segment that is being written.
    active: Overlay,
    /// Of full segments, oldest first.
    sealed: Vec<Arc<Sealed>>,
}

impl DiskStore {
    /// Opens the data directory at `path`, making it if there is none.
    pub fn open(path: &Path, options: DiskOptions) -> Result<Self, OpenError> {
        let mut dir = DataDir::open(path)?;
        let tables = Tables::open(&dir, &options)?;
        let (journal, recovered) = open_journal(&mut dir, &tables)?;
        let fingerprint = dir.fingerprint()?;
        let sealed = recovered.sealed.into_iter().map(Arc::new).collect();
        let shared = Arc::new(Shared {
            tables,
            journal,
            rows: RwLock::new(Layers { active: Overlay::default(), sealed }),
            options: DiskOptions { segments_waiting: options.segments_waiting.max(1), ..options },
            failed: OnceLock::new(),
            stopping: Mutex::new(false),
            work: Condvar::new(),
            room: Condvar::new(),
        });
        let mut store = DiskStore { shared, threads: Vec::new(), fingerprint, dir };
        store.spawn("redynamo-carry", Shared::carry).map_err(OpenError::io(path))?;
        store.spawn("redynamo-merge", Shared::merge).map_err(OpenError::io(path))?;
        Ok(store)
    }

    fn spawn(&mut self, name: &str, body: fn(&Shared)) -> io::Result<()> {
        let shared = self.shared.clone();
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(move || body(&shared))?);
        Ok(())
    }
}

impl Store for DiskStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if key.is_empty() || key.len() > MAX_ROW_KEY_BYTES || key == RESERVED_KEY {
            return Ok(None);
        }
        let known = self.shared.rows.read().get(space, key);
        known.map_or_else(|| self.shared.tables.get(space, key), Ok)
    }

    fn visit(&self, space: Space, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        for row in self.shared.merged(space, from, to) {
            let (key, value) = row?;
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.shared.merged(space, from, to).take(limit).collect()
    }

    fn range_back(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.shared.merged_back(space, from, to).take(limit).collect()
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        batch.iter().try_for_each(Change::check)?;
        self.shared.append(&batch)?;
        match durability {
            Durability::Buffered => Ok(()),
            Durability::Synced => self.sync(),
        }
    }

    fn is_ready(&self) -> bool {
        // Whoever appends now is not slow either, or it waits for room itself.
        self.shared
            .journal
            .try_writer()
            .is_none_or(|writer| !self.shared.is_full(&writer) || self.shared.can_rotate(&writer))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.shared.alive()?;
        self.shared.journal.sync().map_err(|e| self.shared.fail(format!("the journal cannot be synced: {e}")))
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        self.dir.mark()
    }

    fn set_mark(&self, value: &[u8]) -> Result<(), StoreError> {
        self.dir.set_mark(value)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn boot_id(&self) -> u128 {
        boot_id()
    }

    fn usage(&self) -> Usage {
        let written = self.shared.journal.len();
        let rows = self.shared.rows.read();
        let waiting: u64 = rows.sealed.iter().map(|sealed| sealed.bytes).sum();
        let tables = self.shared.tables.usage();
        let journal_bytes = written.saturating_add(waiting);
        Usage {
            disk_bytes: tables.disk_bytes.saturating_add(journal_bytes),
            journal_bytes,
            journals: rows.sealed.len() as u64 + 1,
            // Rows share the memory of their frames.
            memtable_bytes: journal_bytes,
            flushes_pending: rows.sealed.len() as u64,
            ..tables
        }
    }

    fn tend(&self) -> Result<(), StoreError> {
        self.shared.alive()?;
        self.shared.tables.check().map_err(|e| self.shared.fail(e))
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        *self.shared.stopping.lock() = true;
        self.shared.work.notify_all();
        self.threads.drain(..).for_each(|thread| {
            let _ = thread.join();
        });
    }
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskStore").field("dir", &self.dir.path()).finish_non_exhaustive()
    }
}

impl Shared {
    fn append(&self, batch: &[Change]) -> Result<(), StoreError> {
        self.alive()?;
        let mut writer = self.journal.writer();
        if self.is_full(&writer) {
            self.seal(&mut writer)?;
        }
        let rows = self
            .journal
            .append(&mut writer, batch)
            .map_err(|e| self.fail(format!("the journal cannot be written: {e}")))?;
        let mut written = Vec::with_capacity(batch.len());
        segment::read_rows(&rows, |space, row| written.push((space, row)))
            .map_err(|e| self.fail(format!("the journal's rows: {e}")))?;
        self.rows.write().active.put_all(written);
        Ok(())
    }

    fn is_full(&self, writer: &Writer) -> bool {
        writer.len() >= self.options.segment_bytes
    }

    fn can_rotate(&self, writer: &Writer) -> bool {
        writer.has_spare() && self.rows.read().sealed.len() < self.options.segments_waiting
    }

    /// Hands the full segment to the carrier and begins a new one; waits while too many wait already.
    fn seal(&self, writer: &mut MutexGuard<'_, Writer>) -> Result<(), StoreError> {
        while self.rows.read().sealed.len() >= self.options.segments_waiting {
            self.alive()?;
            self.room.wait(writer);
        }
        self.alive()?;
        let (marker, bytes) =
            self.journal.rotate(writer).map_err(|e| self.fail(format!("the journal cannot go on: {e}")))?;
        let mut layers = self.rows.write();
        let overlay = Arc::new(std::mem::take(&mut layers.active));
        layers.sealed.push(Arc::new(Sealed { marker, overlay, bytes }));
        drop(layers);
        drop(self.stopping.lock());
        self.work.notify_all();
        Ok(())
    }

    /// Rows of `[from, to)`, of all layers and the tables at one moment.
    fn merged(&self, space: Space, from: &[u8], to: &[u8]) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> {
        let none = !to.is_empty() && from >= to;
        let (layers, snapshot) = {
            let rows = self.rows.read();
            (if none { Vec::new() } else { rows.range(space, from, to) }, self.tables.snapshot())
        };
        let mut stored = self.tables.rows(&snapshot, space, from, to);
        Merged { layers, next: stored.next(), stored }
    }

    /// The same from the end.
    fn merged_back(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> {
        let none = !to.is_empty() && from >= to;
        let (layers, snapshot) = {
            let rows = self.rows.read();
            (if none { Vec::new() } else { rows.range(space, from, to) }, self.tables.snapshot())
        };
        let layers = layers.into_iter().map(Rows::back).collect();
        let mut stored = self.tables.rows(&snapshot, space, from, to).rev();
        MergedBack { layers, next: stored.next(), stored }
    }

    /// The carrier's life: a spare segment ahead of the writer, then the oldest full one into the tables.
    fn carry(&self) {
        while let Some(oldest) = self.await_work() {
            let done = catch_unwind(AssertUnwindSafe(|| self.carry_one(oldest.as_deref())))
                .unwrap_or_else(|_| Err("carrying rows over panicked".into()));
            if let Err(reason) = done {
                self.fail(format!("rows cannot be written into tables: {reason}"));
                return self.ring_for_room();
            }
        }
    }

    /// What to do next: a segment to carry, or only a spare one to make; none when the store is closed.
    fn await_work(&self) -> Option<Option<Arc<Sealed>>> {
        let mut stopping = self.stopping.lock();
        loop {
            if *stopping {
                return None;
            }
            let oldest = self.rows.read().sealed.first().cloned();
            if oldest.is_some() && !self.tables.behind() {
                return Some(oldest);
            }
            match self.journal.try_writer().map(|writer| writer.has_spare()) {
                Some(false) => return Some(None),
                Some(true) if oldest.is_none() => self.work.wait(&mut stopping),
                _ => drop(self.work.wait_for(&mut stopping, PAUSE)),
            }
        }
    }

    fn carry_one(&self, oldest: Option<&Sealed>) -> Result<(), String> {
        self.journal.prepare().map_err(|e| e.to_string())?;
        let Some(oldest) = oldest else { return Ok(()) };
        self.tables.ingest(&oldest.overlay, oldest.marker)?;
        // Freed here, not under the lock.
        let gone = self.rows.write().sealed.remove(0);
        self.journal.remove(gone.marker.segment).map_err(|e| e.to_string())?;
        self.ring_for_room();
        Ok(())
    }

    /// Merges tables as long as the store is open.
    fn merge(&self) {
        while self.pause() {
            if let Err(reason) = self.tables.compact(|| *self.stopping.lock()) {
                self.fail(format!("tables cannot be merged: {reason}"));
                return self.ring_for_room();
            }
        }
    }

    /// False once the store is closed.
    fn pause(&self) -> bool {
        let mut stopping = self.stopping.lock();
        if !*stopping {
            self.work.wait_for(&mut stopping, MERGE_PAUSE);
        }
        !*stopping
    }

    fn ring_for_room(&self) {
        // Between its look and its sleep a waiter has the right to append.
        drop(self.journal.writer());
        self.room.notify_all();
    }

    fn alive(&self) -> Result<(), StoreError> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn fail(&self, reason: String) -> StoreError {
        self.failed.get_or_init(|| StoreError::Failed(reason.into())).clone()
    }
}

impl Layers {
    /// What is known of a row without the tables: its value, or that it is removed.
    fn get(&self, space: Space, key: &[u8]) -> Option<Option<Bytes>> {
        let sealed = || self.sealed.iter().rev().find_map(|sealed| sealed.overlay.get(space, key));
        self.active.get(space, key).or_else(sealed).map(|row| row.value())
    }

    /// The rows of a range, newest layer first.
    fn range(&self, space: Space, from: &[u8], to: &[u8]) -> Vec<Rows> {
        let sealed = self.sealed.iter().rev().map(|sealed| &*sealed.overlay);
        std::iter::once(&self.active).chain(sealed).map(|overlay| overlay.range(space, from, to)).collect()
    }
}

/// Rows of all layers and the tables in order: of one key the newest counts.
struct Merged<I> {
    layers: Vec<Rows>,
    next: Option<Result<(Bytes, Bytes), StoreError>>,
    stored: I,
}

impl<I: Iterator<Item = Result<(Bytes, Bytes), StoreError>>> Iterator for Merged<I> {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // Of equal keys the first, which is the newest.
            let newest = self.layers.iter().filter_map(Rows::peek).min_by(|a, b| a.key().cmp(b.key())).cloned();
            let Some(row) = newest else { return self.take_stored() };
            match &self.next {
                Some(Err(_)) => return self.take_stored(),
                Some(Ok((key, _))) if key[..] < *row.key() => return self.take_stored(),
                Some(Ok((key, _))) if key[..] == *row.key() => drop(self.take_stored()),
                _ => {}
            }
            let alike = |rows: &&mut Rows| rows.peek().is_some_and(|other| other.key() == row.key());
            self.layers.iter_mut().filter(alike).for_each(Rows::advance);
            if let Some(value) = row.value() {
                return Some(Ok((row.key_bytes(), value)));
            }
        }
    }
}

impl<I: Iterator<Item = Result<(Bytes, Bytes), StoreError>>> Merged<I> {
    fn take_stored(&mut self) -> Option<Result<(Bytes, Bytes), StoreError>> {
        std::mem::replace(&mut self.next, self.stored.next())
    }
}

/// [`Merged`] from the end.
struct MergedBack<I> {
    layers: Vec<RowsBack>,
    next: Option<Result<(Bytes, Bytes), StoreError>>,
    stored: I,
}

impl<I: Iterator<Item = Result<(Bytes, Bytes), StoreError>>> Iterator for MergedBack<I> {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // Of equal keys the last is taken for the greatest: so the newest layer is asked last.
            let heads = self.layers.iter().rev().filter_map(RowsBack::peek);
            let newest = heads.max_by(|a, b| a.key().cmp(b.key())).cloned();
            let Some(row) = newest else { return self.take_stored() };
            match &self.next {
                Some(Err(_)) => return self.take_stored(),
                Some(Ok((key, _))) if key[..] > *row.key() => return self.take_stored(),
                Some(Ok((key, _))) if key[..] == *row.key() => drop(self.take_stored()),
                _ => {}
            }
            let alike = |rows: &&mut RowsBack| rows.peek().is_some_and(|other| other.key() == row.key());
            self.layers.iter_mut().filter(alike).for_each(RowsBack::advance);
            if let Some(value) = row.value() {
                return Some(Ok((row.key_bytes(), value)));
            }
        }
    }
}

impl<I: Iterator<Item = Result<(Bytes, Bytes), StoreError>>> MergedBack<I> {
    fn take_stored(&mut self) -> Option<Result<(Bytes, Bytes), StoreError>> {
        std::mem::replace(&mut self.next, self.stored.next())
    }
}

/// Makes the journal of a fresh directory or one of an older format, or reads the one that is there.
fn open_journal(dir: &mut DataDir, tables: &Tables) -> Result<(Journal, Recovered), OpenError> {
    let (place, boot) = (dir.journal(), boot_id());
    let recovered = if dir.has_journal() {
        let marker = tables.marker().map_err(|e| OpenError::damaged(dir.path(), e.to_string()))?;
        journal::recover(&place, marker, boot)?
    } else {
        dir.make_journal()?;
        if !dir.is_fresh() {
            tables.migrate().map_err(|e| OpenError::io(dir.path())(io::Error::other(e)))?;
        }
        Recovered::none()
    };
    if let Some(notice) = &recovered.notice {
        tracing::warn!("{}: {notice}", dir.path().display());
    }
    let begun = Journal::begin(&place, boot, &recovered).map_err(OpenError::io(&place))?;
    dir.finish()?;
    recovered.clean_up().map_err(OpenError::io(&place))?;
    Ok((begun, recovered))
}

#[cfg(test)]
mod tests;
