//! Who gives this node's dots, and how far it may count: the durable mark.
//!
//! Dots are never given twice. All regions count on their own, below one ceiling that is on disk, synced, before the
//! first dot under it is given. After an unclean stop every region goes on above the ceiling of its former life, so
//! that dots which were given but not stored are not given again; unused ones stay a gap, never marked as seen.
//! A directory whose mark does not fit (none beside rows, another machine's fingerprint) gets a new actor (rule 6).
//!
//! A node that stops in order writes a last row, then the mark that names it. So an end of the database that was lost
//! while nobody looked (a damaged journal reads like one that a crash tore) is noticed at the next start.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{BufMut, Bytes};

use crate::base::codec::{DecodeError, Decoded, Reader};
use crate::base::id::ActorId;
use crate::model::Fault;
use crate::storage::{Change, Durability, Fingerprint, Space, Store, StoreError};

/// How many counters each lease allows every region. A busy region uses some hundred thousand a second.
const LEASE: u64 = 1 << 22;

const FORMAT: u8 = 1;

/// The row that is written last, in [`Space::Node`]: the ceiling of the life that ends, which no other life had.
pub const LAST_KEY: &[u8] = b"last";

/// The content of the durable mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    actor: ActorId,
    /// No region has given a counter above it.
    ceiling: u64,
    /// No region goes on at or below it, whatever its clock says: a former life may have given more than was stored.
    floor: u64,
    /// The node stopped in order: stored clocks say exactly how far each region counted.
    clean: bool,
    fingerprint: Fingerprint,
}

/// Who gives dots.
pub struct Identity {
    actor: ActorId,
    floor: u64,
    ceiling: AtomicU64,
    fingerprint: Fingerprint,
    continued: bool,
}

impl Identity {
    /// Takes up the identity of the store's mark, or a new one named `fresh`. `has_rows` says whether the store holds
    /// anything: rows without a mark are somebody's past.
    pub fn take_up(store: &dyn Store, fresh: ActorId, has_rows: bool) -> Result<Identity, StoreError> {
        let fingerprint = store.fingerprint();
        let mark = store.mark()?.map(|raw| Mark::read(raw).map_err(|error| damaged(&error))).transpose()?;
        mark.filter(|mark| mark.clean).map_or(Ok(()), |mark| check_end(store, &mark))?;
        let known = mark.filter(|mark| mark.fingerprint == fingerprint);
        if mark.is_some() && known.is_none() {
            tracing::warn!("the data directory was copied or moved from elsewhere: this node takes a new actor id");
        }
        if mark.is_none() && has_rows {
            tracing::warn!("the data directory has rows but no mark: this node takes a new actor id");
        }
        let (actor, floor) = match known {
            Some(mark) => (mark.actor, if mark.clean { mark.floor } else { mark.ceiling }),
            None => (fresh, 0),
        };
        let spent = known.map_or(0, |mark| mark.ceiling);
        let identity =
            Identity { actor, floor, ceiling: AtomicU64::new(spent), fingerprint, continued: known.is_some() };
        identity.raise(store, spent + LEASE)?;
        Ok(identity)
    }

    /// This node's actor id.
    pub fn actor(&self) -> ActorId {
        self.actor
    }

    /// Counters go on after this, in every region.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Whether the actor is that of a former life.
    pub fn is_continued(&self) -> bool {
        self.continued
    }

    /// Whether this actor may ever have given `counter`.
    pub fn has_leased(&self, counter: u64) -> bool {
        counter <= self.ceiling.load(Ordering::Acquire)
    }

    /// Refuses counters that no lease covers.
    pub fn cover(&self, counter: u64) -> Result<(), Fault> {
        if self.has_leased(counter) { Ok(()) } else { Err(Fault::NoDots("the lease is being renewed")) }
    }

    /// Extends the lease when `highest`, the farthest that any region has counted, comes near its end. Blocks on the
    /// disk.
    pub fn renew(&self, store: &dyn Store, highest: u64) -> Result<(), StoreError> {
        let ceiling = self.ceiling.load(Ordering::Acquire);
        if highest + LEASE / 2 > ceiling { self.raise(store, highest.max(ceiling) + LEASE) } else { Ok(()) }
    }

    /// Says in the mark that the node stopped in order. No dot may be given afterwards, no row written.
    pub fn retire(&self, store: &dyn Store) -> Result<(), StoreError> {
        let ceiling = self.ceiling.load(Ordering::Acquire);
        let last = Change::put(Space::Node, LAST_KEY, ceiling.to_be_bytes().to_vec());
        store.write(vec![last], Durability::Synced)?;
        store.set_mark(&self.mark(ceiling, true).write())
    }

    fn raise(&self, store: &dyn Store, ceiling: u64) -> Result<(), StoreError> {
        store.set_mark(&self.mark(ceiling, false).write())?;
        self.ceiling.store(ceiling, Ordering::Release);
        Ok(())
    }

    fn mark(&self, ceiling: u64, clean: bool) -> Mark {
        Mark { actor: self.actor, ceiling, floor: self.floor, clean, fingerprint: self.fingerprint }
    }
}

impl Mark {
    fn write(&self) -> Bytes {
        let mut out = Vec::with_capacity(42);
        out.put_u8(FORMAT);
        out.put_u64(self.actor.0);
        out.put_u64(self.ceiling);
        out.put_u64(self.floor);
        out.put_u8(self.clean.into());
        out.put_u128(self.fingerprint.0);
        out.into()
    }

    fn read(raw: Bytes) -> Decoded<Mark> {
        let mut reader = Reader::new(raw);
        if reader.u8()? != FORMAT {
            return Err(DecodeError::Unknown("mark"));
        }
        let mark = Mark {
            actor: ActorId(reader.u64()?),
            ceiling: reader.u64()?,
            floor: reader.u64()?,
            clean: reader.u8()? != 0,
            fingerprint: Fingerprint(reader.u128()?),
        };
        reader.finish()?;
        Ok(mark)
    }
}

/// Whether the database ends as it did when the mark was written.
fn check_end(store: &dyn Store, mark: &Mark) -> Result<(), StoreError> {
    match store.get(Space::Node, LAST_KEY)?.as_deref() {
        Some(last) if last == mark.ceiling.to_be_bytes() => Ok(()),
        _ => Err(StoreError::Damaged("rows are missing that were there when the node stopped".into())),
    }
}

fn damaged(error: &DecodeError) -> StoreError {
    StoreError::Damaged(format!("the durable mark: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStore;

    #[test]
    fn an_end_of_the_database_that_was_lost_while_nobody_looked_is_noticed() {
        let store = MemoryStore::default();
        let life = |fresh| Identity::take_up(&store, ActorId(fresh), false);
        life(1).unwrap().retire(&store).unwrap();
        let second = life(2).unwrap();
        assert_eq!(second.actor(), ActorId(1));
        let before = store.get(Space::Node, LAST_KEY).unwrap().unwrap();
        second.retire(&store).unwrap();
        store.write(vec![Change::put(Space::Node, LAST_KEY, before)], Durability::Synced).unwrap();
        assert!(matches!(life(3), Err(StoreError::Damaged(_))), "what the second life wrote is gone");
        store.write(vec![Change::remove(Space::Node, LAST_KEY)], Durability::Synced).unwrap();
        assert!(matches!(life(3), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn after_an_unclean_stop_no_end_is_expected() {
        let store = MemoryStore::default();
        Identity::take_up(&store, ActorId(1), false).unwrap();
        let next = Identity::take_up(&store, ActorId(2), false).unwrap();
        assert_eq!((next.actor(), next.floor()), (ActorId(1), LEASE));
    }
}
