//! Rows in sorted tables on disk: the only file that names fjall.
//!
//! One database, a keyspace per [`Space`]. Rows come in sorted bulk, a segment of the journal at a time, and past fjall's
//! own journal and memtables. What was made sure of in its 3.1 (with lsm-tree 3.1):
//!
//! - when an ingestion is finished its table and the list of tables are synced; the directory of the tables is not, so
//!   [`Tables::ingest`] does that;
//! - an ingested table has one sequence number, higher than all before, and appears to readers at once;
//! - nothing slows an ingestion down when compaction falls behind: [`Tables::behind`] is for the caller to look at;
//! - an ingestion asks a worker for one step of compaction, which need not be the one that matters, and nobody asks for
//!   the next: [`Tables::compact`] goes on until nothing is left to do;
//! - one worker is enough, and two or more spin: the first does nothing but flushes, of which there are none, and hands
//!   what it is asked for round in a circle;
//! - unsorted rows, and keys over 65,535 bytes, panic inside it: rows come from an overlay, which sorts, and were checked;
//! - it makes an empty database where files are missing: a directory that was finished must have them all;
//! - after a failed compaction it takes nothing more until reopened, and reads go on: [`Tables::check`] says so.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::fjall::config::CompressionPolicy;
use ::fjall::{
    AbstractTree, CompressionType, Database, Error, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
};
use bytes::Bytes;

use super::disk::DiskOptions;
use super::format::{DataDir, OpenError};
use super::journal::Marker;
use super::overlay::Overlay;
use super::{MAX_ROW_KEY_BYTES, RESERVED_KEY, Space, StoreError, Usage};
use crate::base::codec::Reader;

/// Runs of unmerged tables at which rows should come no faster than compaction merges them.
const RUNS_BEHIND: usize = 24;

type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// See the module.
pub(super) struct Tables {
    db: Database,
    spaces: [Keyspace; Space::ALL.len()],
}

impl Tables {
    /// Opens the tables of a data directory, or makes them if it is fresh.
    pub fn open(dir: &DataDir, options: &DiskOptions) -> Result<Tables, OpenError> {
        if !dir.is_fresh() {
            check_files(dir)?;
        }
        guarded(dir, || open_database(dir, options))
    }

    /// One row.
    pub fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.space(space).get(key).map(|value| value.map(Bytes::from)).map_err(unreadable)
    }

    /// All rows as they are now.
    pub fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }

    /// Rows of `[from, to)` of a snapshot, in order; an empty `to` means no upper end.
    pub fn rows(
        &self,
        snapshot: &Snapshot,
        space: Space,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<(Bytes, Bytes), StoreError>> + use<> {
        let rows = bounds(from, to).map(|bounds| snapshot.range::<&[u8], _>(self.space(space), bounds));
        let pair = |row: ::fjall::Guard| row.into_inner().map(|(key, value)| (key.into(), value.into()));
        rows.into_iter().flatten().map(move |row| pair(row).map_err(unreadable)).filter(|row| match row {
            Ok((key, _)) => *key != RESERVED_KEY[..],
            Err(_) => true,
        })
    }

    /// Takes in all rows of an overlay, durably: first those, then the marker that says so. Twice is as good as once.
    pub fn ingest(&self, overlay: &Overlay, marker: Marker) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(|| {
            for space in [Space::Data, Space::Hints, Space::Node] {
                if overlay.rows(space) > 0 {
                    self.ingest_space(space, overlay, None).map_err(|e| reason(&e))?;
                }
            }
            self.ingest_space(Space::Clocks, overlay, Some(marker)).map_err(|e| reason(&e))
        }))
        .unwrap_or_else(|_| Err("writing tables panicked".into()))
    }

    /// Moves what an older program left in fjall's journal into tables, and makes sure that it can never come back from
    /// there: every space gets a row that is newer.
    pub fn migrate(&self) -> Result<(), String> {
        let nothing = Overlay::default();
        Space::ALL
            .into_iter()
            .try_for_each(|space| self.ingest_space(space, &nothing, Some(Marker::default())).map_err(|e| reason(&e)))
    }

    /// How far the tables have come.
    pub fn marker(&self) -> Result<Marker, StoreError> {
        match self.get(Space::Clocks, &RESERVED_KEY)? {
            None => Ok(Marker::default()),
            Some(raw) => decode_marker(raw).ok_or_else(|| StoreError::Damaged("the tables' marker".into())),
        }
    }

    /// Whether compaction is so far behind that more rows would make reading slow.
    pub fn behind(&self) -> bool {
        self.spaces.iter().any(|space| space.tree.l0_run_count() >= RUNS_BEHIND)
    }

    /// Merges tables until that is not needed anywhere, or `stop` says so. Beside everything else.
    pub fn compact(&self, stop: impl Fn() -> bool) -> Result<(), String> {
        catch_unwind(AssertUnwindSafe(|| {
            self.spaces.iter().try_for_each(|space| self.compact_space(space, &stop).map_err(|e| e.to_string()))
        }))
        .unwrap_or_else(|_| Err("merging tables panicked".into()))
    }

    fn compact_space(&self, space: &Keyspace, stop: &impl Fn() -> bool) -> ::fjall::Result<()> {
        let mut before = None;
        // What a step did shows in the number of the list of tables.
        while before != Some(space.tree.current_version().id()) && !stop() {
            before = Some(space.tree.current_version().id());
            let unseen = self.db.supervisor.snapshot_tracker.get_seqno_safe_to_gc();
            space.tree.compact(space.config.compaction_strategy.clone(), unseen)?;
        }
        Ok(())
    }

    /// Fails if a compaction has failed.
    pub fn check(&self) -> Result<(), String> {
        // Writes nothing: there is nothing in fjall's journal.
        self.db.persist(PersistMode::Buffer).map_err(|e| reason(&e))
    }

    /// Its part of the usage.
    pub fn usage(&self) -> Usage {
        Usage {
            disk_bytes: self.spaces.iter().map(Keyspace::disk_space).sum(),
            tables: self.spaces.iter().map(|space| space.table_count() as u64).sum(),
            compactions_running: self.db.active_compactions() as u64,
            compactions_done: self.db.compactions_completed() as u64,
            compaction_micros: u64::try_from(self.db.time_compacting().as_micros()).unwrap_or(u64::MAX),
            cache_bytes: self.db.cache_size(),
            cache_limit_bytes: self.db.cache_capacity(),
            ..Usage::default()
        }
    }

    fn space(&self, space: Space) -> &Keyspace {
        &self.spaces[space as usize]
    }

    /// Rows of the given keys and spaces, in fjall's own journal.
    #[cfg(test)]
    pub fn write_as_format_1(&self, rows: impl Iterator<Item = (&'static str, Space)>) {
        rows.for_each(|(key, space)| self.space(space).insert(key, "old").unwrap());
    }

    /// The rows of one space in order, the marker among them under the key that no row has.
    pub fn ingest_space(&self, space: Space, overlay: &Overlay, marker: Option<Marker>) -> Result<(), Error> {
        let keyspace = self.space(space);
        let mut ingestion = keyspace.start_ingestion()?;
        let mut marker = marker.map(encode_marker);
        for row in overlay.range(space, b"", b"") {
            if row.key() > &RESERVED_KEY[..]
                && let Some(marker) = marker.take()
            {
                ingestion.write(RESERVED_KEY.as_slice(), marker)?;
            }
            match row.value() {
                Some(value) => ingestion.write(row.key_bytes(), value)?,
                None => ingestion.write_tombstone(row.key_bytes())?,
            }
        }
        if let Some(marker) = marker {
            ingestion.write(RESERVED_KEY.as_slice(), marker)?;
        }
        ingestion.finish()?;
        Ok(File::open(keyspace.path().join("tables"))?.sync_all()?)
    }
}

fn open_database(dir: &DataDir, options: &DiskOptions) -> Result<Tables, OpenError> {
    let failed = |e| open_error(dir.path(), e);
    let db = Database::builder(dir.rows()).cache_size(options.cache_bytes).worker_threads(1).open().map_err(failed)?;
    if let Some(lost) = Space::ALL.iter().find(|s| !dir.is_fresh() && !db.keyspace_exists(s.name())) {
        return Err(OpenError::damaged(dir.path(), format!("the rows of '{}' are gone", lost.name())));
    }
    let open = |space: Space| db.keyspace(space.name(), || keyspace_options(options)).map_err(failed);
    let spaces = [open(Space::Data)?, open(Space::Clocks)?, open(Space::Hints)?, open(Space::Node)?];
    Ok(Tables { db, spaces })
}

/// Filters stay at fjall's default on all levels (point reads of absent rows are common: every write reads first).
fn keyspace_options(options: &DiskOptions) -> KeyspaceCreateOptions {
    let compression = if options.compress {
        // The upper levels are rewritten often and read most.
        CompressionPolicy::new([CompressionType::None, CompressionType::None, CompressionType::Lz4])
    } else {
        CompressionPolicy::disabled()
    };
    let leveled = fjall::compaction::Leveled::default().with_l0_threshold(8);
    KeyspaceCreateOptions::default().data_block_compression_policy(compression).compaction_strategy(Arc::new(leveled))
}

fn encode_marker(Marker { segment, sequence }: Marker) -> Vec<u8> {
    [segment.to_be_bytes(), sequence.to_be_bytes()].concat()
}

fn decode_marker(raw: Bytes) -> Option<Marker> {
    let mut reader = Reader::new(raw);
    let marker = Marker { segment: reader.u64().ok()?, sequence: reader.u64().ok()? };
    reader.finish().ok().map(|()| marker)
}

/// fjall makes a new database where its version file is gone, and a new journal where there is none.
fn check_files(dir: &DataDir) -> Result<(), OpenError> {
    let rows = dir.rows();
    if !rows.join("version").is_file() {
        return Err(OpenError::damaged(dir.path(), "the database is gone"));
    }
    match newest_journal(&rows) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(OpenError::damaged(dir.path(), "the database's journal is gone")),
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
        Error::Poisoned => "compaction failed; is the disk full or broken?".into(),
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
