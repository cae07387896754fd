//! Opening a replica: identity first, then clocks (records and the notes after them), then a scan of all rows that
//! rebuilds hash trees and counts. The scan costs about half a microsecond a row.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;

use super::heads::{HeadCache, decode};
use super::hints::Hints;
use super::identity::{Circumstances, Identity};
use super::region::RegionState;
use super::terms::Terms;
use super::{Intake, Replica, door};
use crate::base::id::{ActorId, Db, Partition, Region};
use crate::causality::context::Sealer;
use crate::causality::{Clock, Hlc, Stamp};
use crate::model::{Fault, Heads, RowKey};
use crate::ring::partition::Partitions;
use crate::storage::{Committer, Space, Store, StoreError, SyncPolicy, Ticket, replay_notes};

/// Records that a checkpoint has committed at once: clocks may be large.
const RECORDS_AT_ONCE: usize = 16;

/// What a replica is opened with.
#[derive(Clone)]
pub struct Options {
    /// How many databases there are, 1 to 256.
    pub databases: u16,
    /// How the slots are cut.
    pub partitions: Partitions,
    /// Bytes for the cache of heads.
    pub cache_bytes: u64,
    /// What seals contexts.
    pub sealer: Sealer,
    /// Keys the hashes of hash trees: the same on all nodes of a cluster.
    pub hash_seed: u64,
    /// The actor id to take if this directory has none to go on with; random, and another one at each opening.
    pub fresh_actor: ActorId,
    /// The cluster knows this node from a former life: if nothing is here, it has been lost.
    pub returning: bool,
    /// How far ahead of the wall clock a peer's stamp may lie and be learned from, in milliseconds.
    pub max_skew_ms: u64,
    /// When what is committed is synced.
    pub sync: SyncPolicy,
}

/// Why a replica could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A database that holds keys is beyond those that there are to be.
    #[error("database {0} holds keys: 'databases' must be at least {next}", next = u16::from(*.0) + 1)]
    Database(u8),
    /// Stored rows or clocks make no sense.
    #[error("the data directory is damaged: {0}")]
    Damaged(String),
}

impl From<Fault> for StartError {
    fn from(fault: Fault) -> Self {
        StartError::Damaged(fault.to_string())
    }
}

impl Replica {
    /// Opens what `store` holds.
    pub fn open(store: Arc<dyn Store>, options: Options) -> Result<Replica, StartError> {
        let has_rows = !store.range(Space::Data, &[], &[], 1)?.is_empty();
        let given = Circumstances {
            fresh: options.fresh_actor,
            has_rows,
            returning: options.returning,
            synced: options.sync == SyncPolicy::Always,
        };
        let identity = Identity::take_up(&*store, given)?;
        // What a killed process committed may not have reached the disk; nothing later would make it.
        store.sync()?;
        let committer = Committer::new(store.clone(), options.sync)?;
        let places = usize::from(options.databases) * usize::from(options.partitions.count());
        let replica = Replica {
            heads: HeadCache::new(options.cache_bytes, committer.clone(), options.hash_seed),
            committer,
            partitions: options.partitions,
            regions: (0..places).map(|_| OnceLock::new()).collect(),
            identity,
            sealer: options.sealer,
            hash_seed: options.hash_seed,
            hlc: Hlc::default(),
            max_skew_ms: options.max_skew_ms,
            wanted_policy: Mutex::default(),
            retired: AtomicBool::new(false),
            intake: ArcSwapOption::empty(),
            terms: Terms::open(&*store, options.partitions)?,
            hints: Hints::open(&*store, options.partitions)?,
            store,
        };
        replica.load_clocks()?;
        replica.scan_rows()?;
        Ok(replica)
    }

    fn load_clocks(&self) -> Result<(), StartError> {
        let mut states: BTreeMap<Region, RegionState> = BTreeMap::new();
        for (key, record) in self.store.range(Space::Clocks, b"R", b"S", usize::MAX)? {
            let region = region_of_record(&key)
                .ok_or_else(|| StartError::Damaged("a clock that belongs to no region".into()))?;
            self.must_know(region)?;
            let state = RegionState::of_record(record)
                .map_err(|error| StartError::Damaged(format!("the clock of {region}: {error}")))?;
            states.insert(region, state);
        }
        for (region, clock) in self.replay()? {
            let state = states.entry(region).or_default();
            state.noted = true;
            state.clock.join(&clock);
        }
        for (region, state) in states {
            self.install(region, state)?;
        }
        Ok(())
    }

    /// What the notes say that clocks gained since their records were written, or since the region was forgotten.
    fn replay(&self) -> Result<BTreeMap<Region, Clock>, StartError> {
        let (mut noted, mut damage) = (BTreeMap::<Region, Clock>::new(), None);
        replay_notes(&*self.store, |batch, notes| {
            let read = door::read_notes(notes, |region, dots| match dots {
                [] => drop(noted.remove(&region)),
                dots => noted.entry(region).or_default().join(&dots.iter().copied().collect()),
            });
            if let Err(error) = read {
                damage = Some(StartError::Damaged(format!("the notes of batch {batch}: {error}")));
            }
        })?;
        damage.map_or(Ok(noted), Err)
    }

    fn must_know(&self, region: Region) -> Result<(), StartError> {
        if self.knows(region) {
            Ok(())
        } else if self.partitions.count() > region.partition.0 {
            Err(StartError::Database(region.db.0))
        } else {
            Err(StartError::Damaged(format!("a clock of {region}, which cannot be")))
        }
    }

    fn install(&self, region: Region, mut state: RegionState) -> Result<(), StartError> {
        self.must_know(region)?;
        state.wake(&self.identity.life(), self.identity.is_continued());
        let slot = &self.regions[self.place(region)];
        slot.set(Box::new(Mutex::new(state))).map_err(|_| StartError::Damaged(format!("{region} was opened twice")))
    }

    fn scan_rows(&self) -> Result<(), StartError> {
        let (mut fault, mut latest) = (None, Stamp::default());
        self.store.visit(Space::Data, &[], &[], &mut |row, raw| match self.scan_row(row, raw) {
            Ok(stamp) => {
                latest = latest.max(stamp);
                ControlFlow::Continue(())
            }
            Err(error) => {
                fault = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(fault) = fault {
            return Err(fault.into());
        }
        // Stamps never repeat, even if the wall clock has been set back since.
        let _ = self.hlc.observe(latest, latest.ms(), 0);
        Ok(())
    }

    /// Takes a stored row into tree and counts; answers its latest stamp.
    fn scan_row(&self, row: &[u8], raw: &[u8]) -> Result<Stamp, Fault> {
        let odd = || Fault::Store("a stored row lies outside of this configuration".into());
        let token = RowKey::token_of(row).ok_or_else(odd)?;
        let region =
            Region { db: Db(row.first().copied().unwrap_or_default()), partition: self.partitions.of_token(token) };
        if !self.knows(region) {
            return Err(odd());
        }
        let row = Bytes::copy_from_slice(row);
        let cell = Arc::new(decode(raw)?);
        self.heads.warm(&row, &cell);
        let mut state = self.region(region);
        if !RowKey::is_head(&row) {
            return Ok(cell.versions().iter().map(|version| version.stamp).max().unwrap_or_default());
        }
        let visible = self.heads.of_region(&*self.store, &state).head(&row)?;
        let latest = visible.versions().iter().map(|version| version.stamp).max().unwrap_or_default();
        self.take_in(&mut state, &row, &visible);
        Ok(latest)
    }

    /// Writes the records of regions that only notes know of, and drops those notes: a few at a time, each committed here,
    /// so that nobody else's changes wait for all of them. To be called every minute or so, and at the end.
    pub fn checkpoint(&self) -> Result<Option<Ticket>, Fault> {
        self.check_takes(Intake::Removals)?;
        let before = self.committer.current_batch();
        let mut written = 0;
        for region in self.regions().collect::<Vec<_>>() {
            if let Some(mut state) = self.existing(region)
                && state.noted
            {
                self.write_record(&mut state, region)?;
                written += 1;
            }
            if written == RECORDS_AT_ONCE {
                self.committer.commit_pending();
                written = 0;
            }
        }
        let dropped = || self.committer.checkpoint([], before).map_err(|error| Fault::Store(error.to_string()));
        let (mut ticket, mut more) = dropped()?;
        while more {
            self.committer.commit_pending();
            (ticket, more) = dropped()?;
        }
        Ok(Some(ticket))
    }

    /// Says in the mark that all is stored. The committer must have stopped in order; no dot may be given afterwards.
    pub fn retire(&self) -> Result<(), StoreError> {
        self.retired.store(true, Ordering::Relaxed);
        match self.committer.failed() {
            None => self.identity.retire(&*self.store),
            Some(error) => Err(error),
        }
    }
}

fn region_of_record(key: &[u8]) -> Option<Region> {
    let [b'R', db, high, low] = *key else { return None };
    Some(Region { db: Db(db), partition: Partition(u16::from_be_bytes([high, low])) })
}
