//! Where rows are kept: ordered bytes under ordered bytes, in a few spaces, written in atomic batches.
//!
//! The way of a write: a caller hands its changes to the [`Committer`], which gathers what many callers bring into one
//! batch, writes it with one [`Store::write`] and wakes them. The way of a read: straight to the [`Store`]. There are two
//! stores, [`DiskStore`] on disk and [`MemoryStore`] for simulation, and one suite that both must pass.
//! [`HashTree`] is the digest of a region's rows that replicas compare; it lives in memory and is rebuilt by a
//! [`Store::visit`].
//!
//! What survives what, on disk:
//!
//! | | the end of the process | of the machine |
//! |---|---|---|
//! | a write that returned, buffered | yes | if a sync came after it |
//! | a write that returned, synced; what a sync covers | yes | yes |
//! | a write that failed | to be seen at reopening: whole or not at all | the same |
//! | damage to what survived | found when it is read, by checksums; in the journal, when the store is opened | the same |
//!
//! Deliberately absent: what a row means (cells, clocks, Redis types), when rows may go (causality decides), clocks, and
//! threads but the one that carries rows from the journal into tables (callers lend theirs to [`Committer::run`] and
//! [`Committer::run_sync`]). Nothing here is async except waiting for a ticket. A buffered write into a store that
//! [`is ready`](Store::is_ready), and a point read, may be done by a thread that serves sockets; nothing else.

pub mod committer;
pub mod disk;
pub mod format;
mod journal;
pub mod memory;
mod notes;
mod overlay;
mod segment;
#[cfg(test)]
mod suite;
mod tables;
pub mod tree;
mod waiters;

use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

pub use committer::{Committer, SyncPolicy, Ticket};
pub use disk::{DiskOptions, DiskStore};
pub use format::{Fingerprint, OpenError};
pub use memory::MemoryStore;
pub use notes::replay_notes;
pub use tree::HashTree;

use crate::base::limits::MAX_ROW_KEY_BYTES;

/// A key that no row may have, in any space: the store's own, for housekeeping.
pub const RESERVED_KEY: [u8; 16] = [0xff; 16];

/// A family of rows with an order of its own. Names and order are part of the format on disk: append only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Space {
    /// Rows of clients.
    Data = 0,
    /// What this node knows about whole regions, and the log of what their clocks gained.
    Clocks = 1,
    /// Deltas kept for owners that are away.
    Hints = 2,
    /// The node's own affairs: identity, members, layouts.
    Node = 3,
}

impl Space {
    /// Every space, in order of its number.
    pub const ALL: [Space; 4] = [Space::Data, Space::Clocks, Space::Hints, Space::Node];

    /// The space's name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Space::Data => "data",
            Space::Clocks => "clocks",
            Space::Hints => "hints",
            Space::Node => "node",
        }
    }
}

/// One row set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where the row lives.
    pub space: Space,
    /// The row's key, at most [`MAX_ROW_KEY_BYTES`], not empty, not [`RESERVED_KEY`].
    pub key: Bytes,
    /// The row's new content, at most 4 GiB; `None` removes the row.
    pub value: Option<Bytes>,
}

impl Change {
    /// Sets a row.
    pub fn put(space: Space, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Change { space, key: key.into(), value: Some(value.into()) }
    }

    /// Removes a row, whether it is there or not.
    pub fn remove(space: Space, key: impl Into<Bytes>) -> Self {
        Change { space, key: key.into(), value: None }
    }

    /// Key and value, in bytes.
    pub fn weight(&self) -> usize {
        self.key.len().saturating_add(self.value.as_ref().map_or(0, Bytes::len))
    }

    /// Refuses what no store can hold, before anything of its batch is written.
    pub fn check(&self) -> Result<(), StoreError> {
        check_key(&self.key)?;
        match &self.value {
            Some(value) if u32::try_from(value.len()).is_err() => Err(StoreError::ValueTooLong(value.len())),
            _ => Ok(()),
        }
    }
}

/// Changes that are stored together or not at all. Of several changes of one row the last counts.
pub type Batch = Vec<Change>;

/// What a batch has survived when its write returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of the process, not of the machine.
    Buffered,
    /// The end of the machine.
    Synced,
}

/// Why a store did not do as told. Cheap to clone, since one failure answers many waiters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The row key is empty or longer than [`MAX_ROW_KEY_BYTES`]. Nothing was written; the store is well.
    #[error("a row key of {0} bytes: not between 1 and {MAX_ROW_KEY_BYTES}")]
    KeyLength(usize),
    /// The row key is [`RESERVED_KEY`]. Nothing was written; the store is well.
    #[error("a row key of 16 bytes 0xff is reserved")]
    KeyReserved,
    /// The value is longer than 4 GiB. Nothing was written; the store is well.
    #[error("a row of {0} bytes is too long")]
    ValueTooLong(usize),
    /// A write or sync failed. Whether that batch is there will be known after reopening; until then every write fails
    /// at once and reads go on.
    #[error("the store takes no more writes: {0}")]
    Failed(Arc<str>),
    /// Stored bytes could not be read or do not match their checksum. Other rows may well be readable.
    #[error("stored data cannot be read: {0}")]
    Damaged(Arc<str>),
}

/// What a store occupies and does, for metrics. A number the engine does not have is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes on disk, journals included.
    pub disk_bytes: u64,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// Segments of the journal.
    pub journals: u64,
    /// Bytes of rows in memory that are not in sorted tables yet (the journal has them too), without their index.
    pub memtable_bytes: u64,
    /// Full segments whose rows wait to be written into tables.
    pub flushes_pending: u64,
    /// Sorted files on disk.
    pub tables: u64,
    /// Compactions running now.
    pub compactions_running: u64,
    /// Compactions done since opening.
    pub compactions_done: u64,
    /// Time spent compacting since opening, in microseconds.
    pub compaction_micros: u64,
    /// Bytes in the block cache.
    pub cache_bytes: u64,
    /// Most bytes the block cache may take.
    pub cache_limit_bytes: u64,
}

/// Ordered rows of bytes.
///
/// Keys sort as bytes. A batch is atomic over spaces, also against crashes and against one `range` or `visit`; two calls
/// may see two states. All methods may block on a disk.
pub trait Store: Send + Sync + 'static {
    /// One row. What is returned may share the memory of a larger block: copy what lives long.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Calls `visit` with each row of `[from, to)` in key order until it breaks, without an allocation per row where the
    /// engine allows. An empty `to` means no upper end.
    fn visit(&self, space: Space, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError>;

    /// Rows of `[from, to)` in key order, at most `limit`. An empty `to` means no upper end.
    fn range(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// The same from the end: descending, the last `limit` of them.
    fn range_back(&self, space: Space, from: &[u8], to: &[u8], limit: usize)
    -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Writes a batch. A change that [`Change::check`] refuses means that nothing was written.
    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError>;

    /// Whether a buffered write would be taken in at once, without waiting for room: then it may be done by a thread that
    /// serves others.
    fn is_ready(&self) -> bool {
        true
    }

    /// Makes every batch whose write has returned survive the machine.
    fn sync(&self) -> Result<(), StoreError>;

    /// The durable mark: one small value outside of the database, by which a node recognises that its database lost
    /// something that it once had. `None` if none was ever set.
    fn mark(&self) -> Result<Option<Bytes>, StoreError>;

    /// Replaces the mark, atomically and synced.
    fn set_mark(&self, value: &[u8]) -> Result<(), StoreError>;

    /// Which disk of which machine this is: rule 6 of the causality rules.
    fn fingerprint(&self) -> Fingerprint;

    /// Which boot of the machine this is: what was written and not synced outlives a process only within one. 0 if it is
    /// not known.
    fn boot_id(&self) -> u128 {
        0
    }

    /// What the store occupies and does.
    fn usage(&self) -> Usage;

    /// Housekeeping off the way of reads and writes, to be called every second or so, also on an idle node. Reports a
    /// failure that happened in the background.
    fn tend(&self) -> Result<(), StoreError>;
}

/// What [`Store::visit`] calls with a key and a value.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Refuses keys that no store can hold.
fn check_key(key: &[u8]) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > MAX_ROW_KEY_BYTES {
        return Err(StoreError::KeyLength(key.len()));
    }
    if key == RESERVED_KEY { Err(StoreError::KeyReserved) } else { Ok(()) }
}
