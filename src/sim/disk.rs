//! A node's disk: a store in memory whose writes take their time, and a committer that tasks drive instead of threads.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::env::SimEnv;
use super::oracle::Oracle;
use super::plant::Plant;
use crate::base::rng::Rng;
use crate::env::Env;
use crate::replica::LAST_KEY;
use crate::storage::{
    Batch, Committer, Durability, Fingerprint, MemoryStore, Space, Store, StoreError, SyncPolicy, Usage, Visitor,
};

/// A disk. It outlives the node that writes to it.
pub struct Disk {
    rows: MemoryStore,
    oracle: Arc<Mutex<Oracle>>,
    rng: Mutex<Rng>,
    plant: Option<Plant>,
    first_mark: Mutex<Option<Bytes>>,
}

impl Disk {
    /// An empty one.
    pub fn new(oracle: Arc<Mutex<Oracle>>, rng: Rng, plant: Option<Plant>) -> Arc<Disk> {
        let rows = MemoryStore::new();
        Arc::new(Disk { rows, oracle, rng: Mutex::new(rng), plant, first_mark: Mutex::default() })
    }

    /// The power fails: of what was not synced only a beginning is left.
    pub fn cut_power(&self, rng: &mut Rng) {
        self.rows.crash(rng.below(self.rows.unsynced() as u64 + 1) as usize);
    }

    /// Whether writes fail.
    pub fn is_broken(&self) -> bool {
        self.rows.tend().is_err()
    }

    /// Lets every write fail from now on, or succeed again.
    pub fn set_broken(&self, broken: bool) {
        if broken { self.rows.fail_writes("the disk is broken") } else { self.rows.heal() }
    }
}

impl Store for Disk {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match (self.plant, self.first_mark.lock().as_ref()) {
            (Some(Plant::DotsReused), Some(mark)) if (space, key) == (Space::Node, LAST_KEY) => Ok(Some(end_of(mark))),
            _ => self.rows.get(space, key),
        }
    }

    fn visit(&self, space: Space, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.rows.visit(space, from, to, visit)
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.rows.range(space, from, to, limit)
    }

    fn write(&self, mut batch: Batch, mut durability: Durability) -> Result<(), StoreError> {
        self.oracle.lock().sees_batch(&batch);
        if let Some(plant) = self.plant {
            plant.on_batch(&mut batch, self.rng.lock().next_u64());
            if plant == Plant::DiskLies {
                durability = Durability::Buffered;
            }
        }
        self.rows.write(batch, durability)
    }

    fn sync(&self) -> Result<(), StoreError> {
        if self.plant == Some(Plant::DiskLies) { Ok(()) } else { self.rows.sync() }
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        match (self.plant, self.first_mark.lock().clone()) {
            (Some(Plant::DotsReused), Some(mark)) => Ok(Some(mark)),
            _ => self.rows.mark(),
        }
    }

    fn set_mark(&self, value: &[u8]) -> Result<(), StoreError> {
        if self.plant == Some(Plant::DotsReused) {
            self.first_mark.lock().get_or_insert_with(|| forget_counting(value));
        }
        self.rows.set_mark(value)
    }

    fn fingerprint(&self) -> Fingerprint {
        self.rows.fingerprint()
    }

    fn boot_id(&self) -> u128 {
        self.rows.boot_id()
    }

    fn usage(&self) -> Usage {
        self.rows.usage()
    }

    fn tend(&self) -> Result<(), StoreError> {
        self.rows.tend()
    }
}

/// A mark that says that its node stopped in order, so that its stored clocks are all it ever counted: after format,
/// actor, ceiling and floor.
fn forget_counting(mark: &[u8]) -> Bytes {
    const CLEAN: usize = 1 + 8 + 8 + 8;
    let mut mark = mark.to_vec();
    mark.iter_mut().skip(CLEAN).take(1).for_each(|clean| *clean = 1);
    mark.into()
}

/// The row that such a node would have written last: the mark's ceiling, after format and actor.
fn end_of(mark: &Bytes) -> Bytes {
    mark.iter().copied().skip(1 + 8).take(8).collect()
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
