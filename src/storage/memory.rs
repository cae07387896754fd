//! A store in memory with a disk's faults, for simulation and tests.
//!
//! It keeps two states, what was written and what a power cut would leave, and the batches between them. A crash loses
//! whole batches off the end of those, never part of one. The mark is synced when it is set, as on disk. Everything can
//! be done to it from outside while others hold it: fail its writes, rot a row, wipe it, put back an older disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{Batch, Change, Durability, Fingerprint, Space, Store, StoreError, Usage, Visitor};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: RwLock<Rows>,
    disk: Mutex<Disk>,
    faults: RwLock<Faults>,
}

/// What a disk looked like once: rows and mark.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    rows: Rows,
    mark: Option<Bytes>,
}

type Rows = [BTreeMap<Bytes, Bytes>; Space::ALL.len()];

/// What would be there after a power cut, and what would not.
#[derive(Debug, Default)]
struct Disk {
    synced: Rows,
    tail: Vec<Batch>,
    mark: Option<Bytes>,
    fingerprint: u128,
    /// How often its machine went down.
    boots: u64,
    batches: u64,
    syncs: u64,
}

#[derive(Debug, Default)]
struct Faults {
    writes_fail: Option<Arc<str>>,
    rotten: BTreeSet<(Space, Bytes)>,
    mark_rotten: bool,
}

impl MemoryStore {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Batches that a power cut would lose.
    pub fn unsynced(&self) -> usize {
        self.disk.lock().tail.len()
    }

    /// Batches written and syncs done, ever.
    pub fn counts(&self) -> (u64, u64) {
        let disk = self.disk.lock();
        (disk.batches, disk.syncs)
    }

    /// A power cut: of the batches since the last sync the first `keep` survive. Rows that rotted stay rotten, failing
    /// writes go on failing. The end of a process alone loses nothing: for that, do nothing.
    pub fn crash(&self, keep: usize) {
        let mut disk = self.disk.lock();
        let mut tail = std::mem::take(&mut disk.tail);
        tail.truncate(keep);
        tail.into_iter().for_each(|batch| apply(&mut disk.synced, batch));
        disk.boots = disk.boots.saturating_add(1);
        *self.rows.write() = disk.synced.clone();
    }

    /// From now on every write, sync and mark fails, as on a full or broken disk. Reads go on.
    pub fn fail_writes(&self, reason: &str) {
        self.faults.write().writes_fail = Some(reason.into());
    }

    /// Writes succeed again.
    pub fn heal(&self) {
        self.faults.write().writes_fail = None;
    }

    /// Reading this row fails until it is written again: as a block that does not match its checksum.
    pub fn rot(&self, space: Space, key: &[u8]) {
        self.faults.write().rotten.insert((space, Bytes::copy_from_slice(key)));
    }

    /// Reading the mark fails until it is set again.
    pub fn rot_mark(&self) {
        self.faults.write().mark_rotten = true;
    }

    /// An empty disk in place of this one: rows, mark and faults gone, fingerprint another.
    pub fn wipe(&self) {
        self.put_back(Snapshot::default());
        *self.faults.write() = Faults::default();
        let mut disk = self.disk.lock();
        disk.fingerprint = disk.fingerprint.wrapping_add(1);
    }

    /// What is on the disk now, to be put back later.
    pub fn snapshot(&self) -> Snapshot {
        let mark = self.disk.lock().mark.clone();
        Snapshot { rows: self.rows.read().clone(), mark }
    }

    /// An older disk: rows as they were and, `with_mark`, the mark too. Without it the mark is newer than the rows, which
    /// is how a node notices.
    pub fn restore(&self, snapshot: &Snapshot, with_mark: bool) {
        let mark = if with_mark { snapshot.mark.clone() } else { self.disk.lock().mark.clone() };
        self.put_back(Snapshot { rows: snapshot.rows.clone(), mark });
    }

    /// Another machine's, from now on.
    pub fn set_fingerprint(&self, fingerprint: Fingerprint) {
        self.disk.lock().fingerprint = fingerprint.0;
    }

    /// Its machine has gone down and up again; nothing is lost.
    pub fn reboot(&self) {
        let mut disk = self.disk.lock();
        disk.boots = disk.boots.saturating_add(1);
    }

    fn put_back(&self, snapshot: Snapshot) {
        let mut disk = self.disk.lock();
        disk.tail.clear();
        disk.synced = snapshot.rows.clone();
        disk.mark = snapshot.mark;
        *self.rows.write() = snapshot.rows;
    }

    fn writable(&self) -> Result<(), StoreError> {
        match &self.faults.read().writes_fail {
            Some(reason) => Err(StoreError::Failed(reason.clone())),
            None => Ok(()),
        }
    }

    fn unrot(&self, batch: &[Change]) {
        let mut faults = self.faults.write();
        if !faults.rotten.is_empty() {
            faults.rotten.retain(|(space, key)| !batch.iter().any(|c| c.space == *space && c.key == *key));
        }
    }

    fn refuse_rotten(&self, space: Space, key: &[u8]) -> Result<(), StoreError> {
        let faults = self.faults.read();
        if !faults.rotten.is_empty() && faults.rotten.contains(&(space, Bytes::copy_from_slice(key))) {
            return Err(StoreError::Damaged(format!("a rotten row in {}", space.name()).into()));
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.refuse_rotten(space, key)?;
        Ok(of(&self.rows.read(), space).get(key).cloned())
    }

    fn visit(&self, space: Space, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        for (key, value) in self.range(space, from, to, usize::MAX)? {
            if visit(&key, &value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let end = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) };
        if !to.is_empty() && from >= to {
            return Ok(Vec::new());
        }
        let rows = self.rows.read();
        let found = of(&rows, space).range::<[u8], _>((Bound::Included(from), end)).take(limit);
        found.map(|(key, value)| self.refuse_rotten(space, key).map(|()| (key.clone(), value.clone()))).collect()
    }

    fn range_back(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let end = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(to) };
        if !to.is_empty() && from >= to {
            return Ok(Vec::new());
        }
        let rows = self.rows.read();
        let found = of(&rows, space).range::<[u8], _>((Bound::Included(from), end)).rev().take(limit);
        found.map(|(key, value)| self.refuse_rotten(space, key).map(|()| (key.clone(), value.clone()))).collect()
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        batch.iter().try_for_each(Change::check)?;
        self.writable()?;
        self.unrot(&batch);
        let mut disk = self.disk.lock();
        disk.batches = disk.batches.saturating_add(1);
        apply(&mut self.rows.write(), batch.clone());
        disk.tail.push(batch);
        if durability == Durability::Synced {
            disk.sync();
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.writable()?;
        self.disk.lock().sync();
        Ok(())
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        if self.faults.read().mark_rotten {
            return Err(StoreError::Damaged("the mark does not check".into()));
        }
        Ok(self.disk.lock().mark.clone())
    }

    fn set_mark(&self, value: &[u8]) -> Result<(), StoreError> {
        self.writable()?;
        self.faults.write().mark_rotten = false;
        self.disk.lock().mark = Some(Bytes::copy_from_slice(value));
        Ok(())
    }

    fn fingerprint(&self) -> Fingerprint {
        Fingerprint(self.disk.lock().fingerprint)
    }

    fn boot_id(&self) -> u128 {
        u128::from(self.disk.lock().boots) + 1
    }

    fn usage(&self) -> Usage {
        let rows = self.rows.read();
        let bytes = rows.iter().flatten().map(|(key, value)| key.len().saturating_add(value.len()) as u64).sum();
        Usage { disk_bytes: bytes, ..Usage::default() }
    }

    fn tend(&self) -> Result<(), StoreError> {
        self.writable()
    }
}

impl Disk {
    fn sync(&mut self) {
        self.syncs = self.syncs.saturating_add(1);
        std::mem::take(&mut self.tail).into_iter().for_each(|batch| apply(&mut self.synced, batch));
    }
}

fn of(rows: &Rows, space: Space) -> &BTreeMap<Bytes, Bytes> {
    &rows[space as usize]
}

fn apply(rows: &mut Rows, batch: Batch) {
    for Change { space, key, value } in batch {
        let rows = &mut rows[space as usize];
        match value {
            Some(value) => drop(rows.insert(key, value)),
            None => drop(rows.remove(&key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Batch {
        vec![Change::put(Space::Data, key, value), Change::put(Space::Clocks, key, value)]
    }

    fn keys(store: &MemoryStore, space: Space) -> Vec<Bytes> {
        store.range(space, b"", b"", usize::MAX).unwrap().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn a_crash_loses_whole_batches_off_the_unsynced_end() {
        for (keep, left) in [(0, 1), (1, 2), (2, 3), (9, 3)] {
            let store = MemoryStore::new();
            store.write(put("a", "1"), Durability::Synced).unwrap();
            store.write(put("b", "2"), Durability::Buffered).unwrap();
            store.write(put("c", "3"), Durability::Buffered).unwrap();
            assert_eq!(store.unsynced(), 2);
            store.crash(keep);
            assert_eq!(keys(&store, Space::Data).len(), left);
            assert_eq!(keys(&store, Space::Clocks), keys(&store, Space::Data));
            assert_eq!(store.unsynced(), 0);
        }
    }

    #[test]
    fn a_synced_write_syncs_what_came_before_it() {
        let store = MemoryStore::new();
        store.write(put("a", "1"), Durability::Buffered).unwrap();
        store.write(put("b", "2"), Durability::Synced).unwrap();
        store.write(vec![Change::remove(Space::Data, "a")], Durability::Buffered).unwrap();
        store.crash(0);
        assert_eq!(keys(&store, Space::Data), ["a", "b"]);
        assert_eq!(store.counts(), (3, 1));
    }

    #[test]
    fn a_sick_disk_fails_writes_and_goes_on_reading_until_healed() {
        let store = MemoryStore::new();
        store.write(put("a", "1"), Durability::Buffered).unwrap();
        store.fail_writes("no space left");
        let failed = Err(StoreError::Failed("no space left".into()));
        assert_eq!(store.write(put("b", "2"), Durability::Buffered), failed);
        assert_eq!(store.sync(), failed);
        assert_eq!(store.set_mark(b"m"), failed);
        assert_eq!(store.tend(), failed);
        assert_eq!(keys(&store, Space::Data), ["a"]);
        store.heal();
        store.write(put("b", "2"), Durability::Buffered).unwrap();
        assert_eq!(keys(&store, Space::Data), ["a", "b"]);
    }

    #[test]
    fn a_rotten_row_is_an_error_until_it_is_written_again() {
        let store = MemoryStore::new();
        store.write(put("a", "1"), Durability::Synced).unwrap();
        store.rot(Space::Data, b"a");
        assert!(matches!(store.get(Space::Data, b"a"), Err(StoreError::Damaged(_))));
        assert!(matches!(store.range(Space::Data, b"", b"", 9), Err(StoreError::Damaged(_))));
        assert_eq!(store.get(Space::Clocks, b"a"), Ok(Some("1".into())));
        store.write(put("a", "2"), Durability::Buffered).unwrap();
        assert_eq!(store.get(Space::Data, b"a"), Ok(Some("2".into())));
    }

    #[test]
    fn an_older_disk_may_have_the_newer_mark() {
        let store = MemoryStore::new();
        store.write(put("a", "1"), Durability::Synced).unwrap();
        store.set_mark(b"1").unwrap();
        let old = store.snapshot();
        store.write(put("b", "2"), Durability::Synced).unwrap();
        store.set_mark(b"2").unwrap();
        store.restore(&old, false);
        assert_eq!((keys(&store, Space::Data).len(), store.mark()), (1, Ok(Some("2".into()))));
        store.restore(&old, true);
        assert_eq!(store.mark(), Ok(Some("1".into())));
    }

    #[test]
    fn a_wiped_disk_is_another_disk() {
        let store = MemoryStore::new();
        let before = store.fingerprint();
        store.write(put("a", "1"), Durability::Synced).unwrap();
        store.set_mark(b"1").unwrap();
        store.rot_mark();
        store.fail_writes("broken");
        store.wipe();
        assert_eq!((keys(&store, Space::Data).len(), store.mark()), (0, Ok(None)));
        assert_ne!(store.fingerprint(), before);
        store.write(put("b", "1"), Durability::Buffered).unwrap();
    }
}
