//! A store that can be closed while others still hold it: what they ask for afterwards fails.
//!
//! A store that has failed must be let go of (its threads, its lock on the directory) before it can be opened again, and
//! whoever holds it (tasks, caches, committers of the life that ends) will not all let go at once.

use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use crate::storage::{Batch, Durability, Fingerprint, Space, Store, StoreError, Usage, Visitor};

/// How often to look whether calls under way have ended.
const LOOK: Duration = Duration::from_millis(5);

/// See the module.
pub struct ClosableStore {
    inner: ArcSwapOption<Box<dyn Store>>,
    fingerprint: Fingerprint,
    boot: u128,
}

impl ClosableStore {
    /// Takes over an open store.
    pub fn new(store: Box<dyn Store>) -> ClosableStore {
        let (fingerprint, boot) = (store.fingerprint(), store.boot_id());
        ClosableStore { inner: ArcSwapOption::from_pointee(store), fingerprint, boot }
    }

    /// Closes it: waits up to `patience` for calls under way, then drops it. Says whether it is closed; if not, a call
    /// hangs in it. Blocks.
    pub fn close(&self, patience: Duration) -> bool {
        let Some(mut store) = self.inner.swap(None) else { return true };
        let until = Instant::now() + patience;
        loop {
            match Arc::try_unwrap(store) {
                Ok(store) => {
                    drop(store);
                    return true;
                }
                Err(shared) if Instant::now() < until => store = shared,
                Err(_) => return false,
            }
            sleep(LOOK);
        }
    }

    fn with<T>(&self, call: impl FnOnce(&dyn Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match self.inner.load().as_ref() {
            Some(store) => call(&***store),
            None => Err(StoreError::Failed("it is being opened again".into())),
        }
    }
}

impl Store for ClosableStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with(|store| store.get(space, key))
    }

    fn visit(&self, space: Space, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), StoreError> {
        self.with(|store| store.visit(space, from, to, visit))
    }

    fn range(&self, space: Space, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.with(|store| store.range(space, from, to, limit))
    }

    fn range_back(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.with(|store| store.range_back(space, from, to, limit))
    }

    fn write(&self, batch: Batch, durability: Durability) -> Result<(), StoreError> {
        self.with(|store| store.write(batch, durability))
    }

    fn is_ready(&self) -> bool {
        self.with(|store| Ok(store.is_ready())).unwrap_or(true)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.with(|store| store.sync())
    }

    fn mark(&self) -> Result<Option<Bytes>, StoreError> {
        self.with(|store| store.mark())
    }

    fn set_mark(&self, value: &[u8]) -> Result<(), StoreError> {
        self.with(|store| store.set_mark(value))
    }

    fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn boot_id(&self) -> u128 {
        self.boot
    }

    fn usage(&self) -> Usage {
        self.with(|store| Ok(store.usage())).unwrap_or_default()
    }

    fn tend(&self) -> Result<(), StoreError> {
        self.with(|store| store.tend())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Change, MemoryStore};
    use std::ops::ControlFlow;

    #[test]
    fn a_closed_store_fails_whoever_still_holds_it() {
        let store = ClosableStore::new(Box::new(MemoryStore::new()));
        store.write(vec![Change::put(Space::Data, "k", "v")], Durability::Synced).unwrap();
        assert_eq!(store.get(Space::Data, b"k"), Ok(Some("v".into())));
        assert!(store.close(Duration::ZERO));
        assert!(matches!(store.get(Space::Data, b"k"), Err(StoreError::Failed(_))));
        assert!(matches!(store.sync(), Err(StoreError::Failed(_))));
        assert!(store.close(Duration::ZERO), "it is closed already");
    }

    #[test]
    fn it_is_the_store_that_it_took_over() {
        let below = MemoryStore::new();
        let (fingerprint, boot) = (below.fingerprint(), below.boot_id());
        let store = ClosableStore::new(Box::new(below));
        assert_eq!((store.fingerprint(), store.boot_id(), store.is_ready()), (fingerprint, boot, true));
        store.set_mark(b"mark").unwrap();
        assert_eq!(store.mark(), Ok(Some("mark".into())));
    }

    #[test]
    fn a_call_under_way_is_waited_for_and_no_longer_than_patience() {
        let store = ClosableStore::new(Box::new(MemoryStore::new()));
        store.write(vec![Change::put(Space::Data, "k", "v")], Durability::Synced).unwrap();
        let closed = std::thread::scope(|scope| {
            let (tell, told) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let store = &store;
            scope.spawn(move || {
                store.visit(Space::Data, b"", b"", &mut |_, _| {
                    tell.send(()).unwrap();
                    let _ = ended.recv();
                    ControlFlow::Break(())
                })
            });
            told.recv().unwrap();
            let closed = store.close(Duration::from_millis(20));
            end.send(()).unwrap();
            closed
        });
        assert!(!closed);
    }
}
