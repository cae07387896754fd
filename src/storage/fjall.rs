//! The store on disk: the only file that names fjall.
//!
//! One database, a keyspace per [`Space`]. What this file adds to fjall is what its 3.1 must be protected from:
//!
//! - a key over 65,535 bytes panics inside it and poisons the database: lengths are checked before anything is touched;
//! - it makes an empty database where files are missing: a directory that was finished must have them all;
//! - it syncs while holding the lock that every write needs: [`Store::sync`] syncs the journal's file from outside;
//! - a keyspace that lies idle keeps journals from being deleted (its issue 288): [`Store::tend`] touches each;
//! - it frees memtables while holding a lock that every write needs: they are kept and freed by [`Store::tend`];
//! - after a failed write or sync it takes no more writes until reopened, and reads go on: that is
//!   [`StoreError::Failed`], with the first reason kept.
//!
//! Back-pressure sleeps in the calling thread: write from a thread of its own.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ::fjall::config::CompressionPolicy;
use ::fjall::{
    AbstractTree, CompressionType, Database, Error, Iter, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch,
    PersistMode, Readable,
};
use bytes::Bytes;
use parking_lot::Mutex;

use super::format::{DataDir, Fingerprint, OpenError};
use super::{Batch, Change, Durability, MAX_ROW_KEY_BYTES, RESERVED_KEY, Space, Store, StoreError, Usage, Visitor};

/// How many memtables may be kept, used ones included: fjall stops writers at four waiting to be written out.
const MEMTABLES_KEPT: usize = 8;

const MIB: u64 = 1024 * 1024;

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// What an operator may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FjallOptions {
    /// Block cache, in bytes.
    pub cache_bytes: u64,
    /// Size at which the memtable of [`Space::Data`] is written out, in bytes. Up to five may exist for a moment. Fixed
    /// when the directory is made. Small ones are compacted more: with 16 MiB a row costs all threads 5.6 to 6.5 µs, with
    /// 64 MiB 5.0 to 5.2 (a million rows of 160 bytes, overwritten at random in batches of 256; one or two runs each).
    pub memtable_bytes: u64,
    /// Threads that write out memtables and compact; at least 2, since with one a memtable waits for a compaction. With
    /// 2 the first spins while the second compacts (0 to 20 % more CPU per row than with 3, over four pairs of runs).
    pub workers: usize,
    /// Bytes of journals at which memtables are written out to get rid of some; at least 64 MiB. May be exceeded.
    pub journal_bytes: u64,
    /// Compress older levels with lz4. Fixed when the directory is made.
    pub compress: bool,
}

impl Default for FjallOptions {
    fn default() -> Self {
        FjallOptions {
            cache_bytes: 256 * MIB,
            memtable_bytes: 64 * MIB,
            workers: 3,
            journal_bytes: 256 * MIB,
            compress: true,
        }
    }
}

/// See the module.
pub struct FjallStore {
    db: Database,
    spaces: [Keyspace; Space::ALL.len()],
    memtables: Mutex<Memtables>,
    failed: OnceLock<StoreError>,
    fingerprint: Fingerprint,
    journals: PathBuf,
    journal_limit: u64,
    // Last: the lock goes after the database is closed.
    dir: DataDir,
}

impl FjallStore {
    /// Opens the data directory at `path`, making it if there is none.
    pub fn open(path: &Path, options: FjallOptions) -> Result<Self, OpenError> {
        let mut dir = DataDir::open(path)?;
        if !dir.is_fresh() {
            check_files(&dir)?;
        }
        let options = FjallOptions {
            workers: options.workers.max(2),
            journal_bytes: options.journal_bytes.max(64 * MIB),
            ..options
        };
        let (db, spaces) = guarded(&dir, || open_database(&dir, options))?;
        dir.finish()?;
        let fingerprint = dir.fingerprint()?;
        let (journals, journal_limit) = (dir.rows(), options.journal_bytes);
        let (memtables, failed) = (Mutex::default(), OnceLock::new());
        Ok(FjallStore { db, spaces, memtables, failed, fingerprint, journals, journal_limit, dir })
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    /// A snapshot, so that a batch is seen whole or not at all.
    fn rows(&self, space: Space, bounds: Bounds<'_>) -> Iter {
        self.db.snapshot().range::<&[u8], _>(self.space(space), bounds)
    }

    fn alive(&self) -> Result<(), StoreError> {
        self.failed.get().map_or(Ok(()), |error| Err(error.clone()))
    }

    fn fail(&self, reason: String) -> StoreError {
        self.failed.get_or_init(|| StoreError::Failed(reason.into())).clone()
    }

    /// Writes the reserved row, which no caller sees, to every space, so that its persisted sequence number passes those that old journals wait for.
    fn touch(&self) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        self.spaces.iter().for_each(|space| batch.insert(space, RESERVED_KEY.as_slice(), []));
        batch.commit().map_err(|e| self.fail(reason(&e)))
    }
}

impl Store for FjallStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if key.is_empty() || key.len() > MAX_ROW_KEY_BYTES || key == RESERVED_KEY {
            return Ok(None);
        }
        self.space(space).get(key).map(|value| value.map(Bytes::from)).map_err(unreadable)
    }

    fn visit(&self, space: Space, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        let Some(bounds) = bounds(from, to) else { return Ok(()) };
        for row in self.rows(space, bounds) {
            let (key, value) = row.into_inner().map_err(unreadable)?;
            if *key != RESERVED_KEY && visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut found = Vec::new();
        let Some(bounds) = bounds(from, to) else { return Ok(found) };
        for row in self.rows(space, bounds) {
            if found.len() >= limit {
                break;
            }
            let (key, value) = row.into_inner().map_err(unreadable)?;
            if *key != RESERVED_KEY {
                found.push((key.into(), value.into()));
            }
        }
        Ok(found)
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        batch.iter().try_for_each(Change::check)?;
        self.alive()?;
        let mode = match durability {
            Durability::Buffered => PersistMode::Buffer,
            Durability::Synced => PersistMode::SyncData,
        };
        let mut rows = OwnedWriteBatch::with_capacity(self.db.clone(), batch.len()).durability(Some(mode));
        for Change { space, key, value } in batch {
            match value {
                Some(value) => rows.insert(self.space(space), key, value),
                None => rows.remove(self.space(space), key),
            }
        }
        rows.commit().map_err(|e| self.fail(reason(&e)))?;
        self.memtables.lock().keep(self.space(Space::Data));
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.alive()?;
        sync_newest_journal(&self.journals).map_err(|e| self.fail(format!("the journal cannot be synced: {e}")))
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
        super::format::boot_id()
    }

    fn usage(&self) -> Usage {
        let journal_bytes = self.db.journal_disk_space().unwrap_or(0);
        let tables: u64 = self.spaces.iter().map(Keyspace::disk_space).sum();
        Usage {
            disk_bytes: tables.saturating_add(journal_bytes),
            journal_bytes,
            journals: self.db.journal_count() as u64,
            // Not fjall's own sum, which takes off the compressed size of what it added uncompressed.
            memtable_bytes: self.spaces.iter().map(|space| space.tree.active_memtable().size()).sum(),
            flushes_pending: self.spaces.iter().map(|space| space.sealed_memtable_count() as u64).sum(),
            tables: self.spaces.iter().map(|space| space.table_count() as u64).sum(),
            compactions_running: self.db.active_compactions() as u64,
            compactions_done: self.db.compactions_completed() as u64,
            compaction_micros: u64::try_from(self.db.time_compacting().as_micros()).unwrap_or(u64::MAX),
            cache_bytes: self.db.cache_size(),
            cache_limit_bytes: self.db.cache_capacity(),
        }
    }

    fn tend(&self) -> Result<(), StoreError> {
        let unused = self.memtables.lock().unused();
        drop(unused);
        self.alive()?;
        // Writes nothing; fails if a flush or compaction failed in the background.
        self.db.persist(PersistMode::Buffer).map_err(|e| self.fail(reason(&e)))?;
        // fjall writes out idle memtables itself at this size; what is left then is pinned by a keyspace without one.
        let pinned = self.db.journal_disk_space().is_ok_and(|bytes| bytes > self.journal_limit);
        if pinned { self.touch() } else { Ok(()) }
    }
}

impl std::fmt::Debug for FjallStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FjallStore").field("dir", &self.dir.path()).finish_non_exhaustive()
    }
}

/// Memtables of [`Space::Data`], kept until fjall has let go of them.
///
/// fjall frees a written-out memtable while it holds the lock that every read and write of the keyspace needs, and a few
/// hundred thousand rows take a tenth of a second to free. Whoever lets go last does the freeing: so that is we, in
/// [`Store::tend`].
#[derive(Default)]
struct Memtables {
    newest: Option<u64>,
    kept: Vec<Arc<dyn Kept>>,
}

/// Something whose memory matters and nothing else; fjall does not export its memtable's type.
trait Kept: Send + Sync {}

impl<T: Send + Sync> Kept for T {}

impl Memtables {
    fn keep(&mut self, space: &Keyspace) {
        let active = space.tree.active_memtable();
        if self.newest != Some(active.id()) {
            self.newest = Some(active.id());
            self.kept.push(active);
            // If nobody tends the store, memory matters more than a stall.
            if self.kept.len() > MEMTABLES_KEPT {
                self.kept.remove(0);
            }
        }
    }

    /// Takes out those that only we hold, for the caller to free without our lock.
    fn unused(&mut self) -> Vec<Arc<dyn Kept>> {
        self.kept.extract_if(.., |memtable| Arc::strong_count(memtable) == 1).collect()
    }
}

fn open_database(dir: &DataDir, options: FjallOptions) -> Result<(Database, [Keyspace; Space::ALL.len()]), OpenError> {
    let failed = |e| open_error(dir.path(), e);
    let db = Database::builder(dir.rows())
        .cache_size(options.cache_bytes)
        .worker_threads(options.workers)
        .max_journaling_size(options.journal_bytes)
        .open()
        .map_err(failed)?;
    if let Some(lost) = Space::ALL.iter().find(|s| !dir.is_fresh() && !db.keyspace_exists(s.name())) {
        return Err(OpenError::damaged(dir.path(), format!("the rows of '{}' are gone", lost.name())));
    }
    let open = |space: Space| db.keyspace(space.name(), || keyspace_options(space, options)).map_err(failed);
    let spaces = [open(Space::Data)?, open(Space::Clocks)?, open(Space::Hints)?, open(Space::Node)?];
    Ok((db, spaces))
}

/// Filters stay at fjall's default on all levels (point reads of absent rows are common: every write reads first).
fn keyspace_options(space: Space, options: FjallOptions) -> KeyspaceCreateOptions {
    let memtable = if space == Space::Data { options.memtable_bytes } else { options.memtable_bytes.min(8 * MIB) };
    let compression = if options.compress {
        // The upper levels are rewritten often and read most.
        CompressionPolicy::new([CompressionType::None, CompressionType::None, CompressionType::Lz4])
    } else {
        CompressionPolicy::disabled()
    };
    let leveled = fjall::compaction::Leveled::default().with_l0_threshold(8);
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable)
        .data_block_compression_policy(compression)
        .compaction_strategy(Arc::new(leveled))
}

/// fjall makes a new database where its version file is gone, and a new journal where there is none.
fn check_files(dir: &DataDir) -> Result<(), OpenError> {
    let rows = dir.rows();
    if !rows.join("version").is_file() {
        return Err(OpenError::damaged(dir.path(), "the database is gone"));
    }
    match newest_journal(&rows) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(OpenError::damaged(dir.path(), "the journal is gone")),
        Err(source) => Err(OpenError::Io { path: rows, source }),
    }
}

/// Some damage makes fjall panic instead of returning.
fn guarded<T>(dir: &DataDir, open: impl FnOnce() -> Result<T, OpenError>) -> Result<T, OpenError> {
    catch_unwind(AssertUnwindSafe(open))
        .unwrap_or_else(|_| Err(OpenError::damaged(dir.path(), "the database cannot be opened")))
}

fn open_error(path: &Path, error: Error) -> OpenError {
    match error {
        Error::Locked => OpenError::InUse(path.to_owned()),
        Error::Io(source) => OpenError::Io { path: path.to_owned(), source },
        other => OpenError::damaged(path, other.to_string()),
    }
}

/// Makes what was written to the journal survive the machine, without fjall's journal lock.
///
/// Every commit hands its bytes to the kernel before it returns, and fjall syncs a journal before it begins the next. So
/// syncing the newest file covers every commit that returned before this began. With the lock held, as fjall's own
/// `persist` does it, all commits would wait for the disk.
fn sync_newest_journal(dir: &Path) -> io::Result<()> {
    loop {
        let Some(path) = newest_journal(dir)? else { return Err(io::ErrorKind::NotFound.into()) };
        match File::open(path) {
            Ok(file) => return file.sync_data(),
            // Sealed, written out and deleted meanwhile: there is a newer one.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
}

fn newest_journal(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|n| n.strip_suffix(".jnl")?.parse::<u64>().ok());
        newest = newest.max(number);
    }
    Ok(newest.map(|n| dir.join(format!("{n}.jnl"))))
}

fn reason(error: &Error) -> String {
    match error {
        Error::Poisoned => "writing in the background failed; is the disk full or broken?".into(),
        Error::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn unreadable(error: Error) -> StoreError {
    StoreError::Damaged(reason(&error).into())
}

/// Bounds that fjall can take: no key in it is longer than [`MAX_ROW_KEY_BYTES`], so a longer bound stands between the
/// key that it begins with and the next.
fn bounds<'a>(from: &'a [u8], to: &'a [u8]) -> Option<Bounds<'a>> {
    if !to.is_empty() && from >= to {
        return None;
    }
    let start = from.get(..MAX_ROW_KEY_BYTES).filter(|_| from.len() > MAX_ROW_KEY_BYTES);
    let end = to.get(..MAX_ROW_KEY_BYTES).filter(|_| to.len() > MAX_ROW_KEY_BYTES);
    let start = start.map_or(Bound::Included(from), Bound::Excluded);
    let end = end.map_or(if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) }, Bound::Included);
    match (start, end) {
        (Bound::Excluded(a), Bound::Included(b)) if a == b => None,
        both => Some(both),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::ControlFlow;

    fn open(path: &Path) -> Result<FjallStore, OpenError> {
        FjallStore::open(path, FjallOptions { cache_bytes: MIB, ..FjallOptions::default() })
    }

    fn filled(path: &Path) -> FjallStore {
        let store = open(path).unwrap();
        for i in 0..200u32 {
            store
                .write(vec![Change::put(Space::Data, i.to_be_bytes().to_vec(), "value")], Durability::Buffered)
                .unwrap();
        }
        store
    }

    fn count(store: &FjallStore, space: Space) -> usize {
        let mut rows = 0;
        let each = &mut |_: &[u8], _: &[u8]| {
            rows += 1;
            ControlFlow::Continue(())
        };
        store.visit(space, b"", b"", each).unwrap();
        rows
    }

    #[test]
    fn the_touched_row_cannot_be_seen_or_written() {
        let tmp = tempfile::tempdir().unwrap();
        let store = open(tmp.path()).unwrap();
        store.touch().unwrap();
        for space in Space::ALL {
            assert_eq!(store.get(space, &RESERVED_KEY), Ok(None));
            assert_eq!(store.range(space, b"", b"", 9), Ok(Vec::new()));
            assert_eq!(count(&store, space), 0);
            let change = Change::put(space, RESERVED_KEY.to_vec(), "x");
            assert_eq!(store.write(vec![change], Durability::Buffered), Err(StoreError::KeyReserved));
        }
    }

    #[test]
    fn after_a_failed_sync_writes_fail_and_reads_go_on_until_reopened() {
        let tmp = tempfile::tempdir().unwrap();
        let store = filled(tmp.path());
        let (rows, aside) = (tmp.path().join("rows"), tmp.path().join("aside"));
        fs::rename(&rows, &aside).unwrap();
        let failed = store.sync().unwrap_err();
        fs::rename(&aside, &rows).unwrap();
        assert!(
            failed.to_string().starts_with("the store takes no more writes: the journal cannot be synced"),
            "{failed}"
        );
        assert_eq!(store.sync(), Err(failed.clone()));
        assert_eq!(store.tend(), Err(failed.clone()));
        assert_eq!(store.write(vec![Change::remove(Space::Data, "k")], Durability::Synced), Err(failed));
        assert_eq!(count(&store, Space::Data), 200);
        drop(store);
        let again = open(tmp.path()).unwrap();
        again.write(vec![Change::put(Space::Data, "new", "row")], Durability::Synced).unwrap();
        assert_eq!(count(&again, Space::Data), 201);
    }

    #[test]
    fn a_directory_is_held_by_one_store_at_a_time() {
        let tmp = tempfile::tempdir().unwrap();
        let store = open(tmp.path()).unwrap();
        assert!(matches!(open(tmp.path()), Err(OpenError::InUse(_))));
        drop(store);
        open(tmp.path()).unwrap();
    }

    #[test]
    fn missing_files_are_damage_not_an_empty_database() {
        for missing in ["rows", "rows/version", "rows/0.jnl", "rows/keyspaces"] {
            let tmp = tempfile::tempdir().unwrap();
            drop(filled(tmp.path()));
            fs::rename(tmp.path().join(missing), tmp.path().join("aside")).unwrap();
            let error = open(tmp.path()).unwrap_err();
            assert!(matches!(error, OpenError::Damaged { .. }), "{missing}: {error}");
            assert_eq!(error.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn a_flipped_bit_in_the_journal_never_changes_a_row() {
        let tmp = tempfile::tempdir().unwrap();
        drop(filled(tmp.path()));
        let journal = tmp.path().join("rows/0.jnl");
        let good = fs::read(&journal).unwrap();
        for at in (20..8_000).step_by(1997) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            fs::write(&journal, bad).unwrap();
            let opened = open(tmp.path());
            assert!(!matches!(opened, Err(OpenError::InUse(_))), "a failed opening holds no lock");
            if let Ok(store) = opened {
                store
                    .visit(Space::Data, b"", b"", &mut |_, value| {
                        assert_eq!(value, b"value");
                        ControlFlow::Continue(())
                    })
                    .unwrap();
            }
        }
        fs::write(&journal, good).unwrap();
        assert_eq!(count(&open(tmp.path()).unwrap(), Space::Data), 200);
    }

    #[test]
    fn usage_says_something_of_what_was_written() {
        let tmp = tempfile::tempdir().unwrap();
        let store = filled(tmp.path());
        let usage = store.usage();
        assert!(usage.memtable_bytes > 200 && usage.journals == 1 && usage.disk_bytes >= usage.journal_bytes);
        assert_eq!(usage.cache_limit_bytes, MIB);
    }
}
