//! A node's disk: a store in memory whose writes take their time, and a committer that tasks drive instead of threads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::env::SimEnv;
use super::oracle::Oracle;
use super::plant::{Plant, end_of, forget_counting};
use crate::base::rng::Rng;
use crate::env::Env;
use crate::storage::memory::Snapshot;
use crate::storage::{
    Batch, Committer, Durability, Fingerprint, MemoryStore, Space, Store, StoreError, SyncPolicy, Usage, Visitor,
};

/// How many of its former states a disk can return to.
const REMEMBERED: usize = 4;

/// A disk. It outlives the node that writes to it.
pub struct Disk {
    rows: MemoryStore,
    oracle: Arc<Mutex<Oracle>>,
    rng: Mutex<Rng>,
    plant: Option<Plant>,
    /// What the disk says that its mark is, if that is the bug.
    first_mark: Mutex<Option<Bytes>>,
    /// Former states, the oldest first, each with whether its mark says that its machine's end loses nothing.
    past: Mutex<VecDeque<(Snapshot, bool)>>,
    broken: AtomicBool,
    /// Its rows are older than its mark.
    torn: AtomicBool,
}

impl Disk {
    /// An empty one.
    pub fn new(oracle: Arc<Mutex<Oracle>>, rng: Rng, plant: Option<Plant>) -> Arc<Disk> {
        Arc::new(Disk {
            rows: MemoryStore::new(),
            oracle,
            rng: Mutex::new(rng),
            plant,
            first_mark: Mutex::default(),
            past: Mutex::default(),
            broken: AtomicBool::new(false),
            torn: AtomicBool::new(false),
        })
    }

    /// The power fails: of what was not synced only a beginning is left.
    pub fn cut_power(&self) {
        self.rows.crash(self.rng.lock().below(self.rows.unsynced() as u64 + 1) as usize);
    }

    /// Remembers its state, to return to it, and whether its mark says that its machine's end loses nothing.
    pub fn remember(&self, promises_synced: bool) {
        let mut past = self.past.lock();
        past.push_back((self.rows.snapshot(), promises_synced));
        if past.len() > REMEMBERED {
            past.pop_front();
        }
    }

    /// Returns to one of its former states, with the mark of then, or else of now; says whether there was one. Where that
    /// mark trusts its rows whatever happened to its machine (`promises_synced` says so of the mark of now) it comes back as
    /// files do that are copied into another directory: of a block device that is as it was before in every bit, or of
    /// files that were written over in their place, nobody can tell.
    pub fn roll_back(&self, with_mark: bool, promises_synced: bool) -> bool {
        let mut past = self.past.lock();
        if past.is_empty() {
            return false;
        }
        let at = self.rng.lock().below(past.len() as u64) as usize;
        // What came after it has not happened.
        past.truncate(at + 1);
        if let Some((state, promised_synced)) = past.back() {
            self.rows.restore(state, with_mark);
            if if with_mark { *promised_synced } else { promises_synced } {
                self.rows.set_fingerprint(Fingerprint(self.rng.lock().next_u64().into()));
            }
        }
        self.rows.reboot();
        self.torn.store(!with_mark, Ordering::Relaxed);
        true
    }

    /// Whether its rows have become older than its mark since this was asked last.
    pub fn take_notice_of_rollback(&self) -> bool {
        self.torn.swap(false, Ordering::Relaxed)
    }

    /// Another, empty disk.
    pub fn wipe(&self) {
        self.past.lock().clear();
        self.rows.wipe();
        self.rows.reboot();
    }

    /// Whether writes fail.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Lets every write fail from now on, or succeed again.
    pub fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::Relaxed);
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.is_broken() { Err(StoreError::Failed("no space is left".into())) } else { Ok(()) }
    }
}

impl Store for Disk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let planted = self.first_mark.lock().as_ref().and_then(|mark| end_of(space, key, mark));
        planted.map_or_else(|| self.rows.get(space, key), |row| Ok(Some(row)))
    }

    fn visit(&self, space: Space, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.rows.visit(space, from, to, visit)
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.rows.range(space, from, to, limit)
    }

    fn range_back(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.rows.range_back(space, from, to, limit)
    }

    fn write(&self, mut batch: Batch, mut durability: Durability) -> Result<(), StoreError> {
        self.oracle.lock().sees_batch(&batch);
        if let Some(plant) = self.plant {
            plant.on_batch(&mut batch, self.rng.lock().next_u64());
            if plant == Plant::DiskLies {
                durability = Durability::Buffered;
            }
        }
        if self.is_broken() {
            // What was in a batch that failed is not known.
            if self.rng.lock().chance(0.3) {
                self.rows.write(batch, durability)?;
            }
            return self.check_writable();
        }
        self.rows.write(batch, durability)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.check_writable()?;
        if self.plant == Some(Plant::DiskLies) { Ok(()) } else { self.rows.sync() }
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        self.first_mark.lock().clone().map_or_else(|| self.rows.mark(), |mark| Ok(Some(mark)))
    }

    fn set_mark(&self, value: &[u8]) -> Result<(), StoreError> {
        self.check_writable()?;
        if self.plant == Some(Plant::DotsReused) {
            self.first_mark.lock().get_or_insert_with(|| forget_counting(value));
        }
        self.rows.set_mark(value)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.rows.fingerprint()
    }

    fn boot_id(&self) -> u128 {
        if self.plant == Some(Plant::BootUnnoticed) { 1 } else { self.rows.boot_id() }
    }

    fn usage(&self) -> Usage {
        self.rows.usage()
    }

    fn tend(&self) -> Result<(), StoreError> {
        self.check_writable()?;
        self.rows.tend()
    }
}

/// Lets tasks of `env` do what threads do in production: commit what is queued, and sync about once a second.
pub fn drive(env: &Arc<SimEnv>, committer: Committer) {
    let (commits, pace) = (committer.clone(), env.clone());
    env.spawn(Box::pin(async move {
        loop {
            commits.pending().await;
            sleep(pace.commit_delay()).await;
            commits.commit_pending();
        }
    }));
    env.spawn(Box::pin(async move {
        loop {
            sleep(Duration::from_secs(1)).await;
            if committer.policy() == SyncPolicy::EverySec {
                // A failure is kept by the committer and answers whoever waits.
                let _ = committer.sync();
            }
        }
    }));
}
