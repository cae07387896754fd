//! Who gives this node's dots, and how far it may count: the durable mark.
//!
//! Dots are never given twice. All regions count on their own, below one ceiling that is on disk, synced, before the
//! first dot under it is given. After an unclean stop every region goes on above the ceiling of its former life, so
//! that dots which were given but not stored are not given again; unused ones stay a gap, never marked as seen.
//!
//! What may have lost something says so (rule 6). A directory whose mark does not fit (none beside rows, none where the
//! cluster knows the node, another machine's fingerprint) gets a new actor, and the node is *amnesiac*: it counts in no
//! quorum until it has caught up. So does one whose machine went down while not all was synced, though it keeps its
//! actor: its rows may end too early. An actor of a former life is *unproven* until others were asked whether they know
//! more of it; and whenever anybody names a dot of it that was not given here, it is *doubted*: its disk is behind, or it
//! has a twin. An actor that is unproven or doubted gives no dots. A new one may be taken at any time.
//!
//! A node that stops in order writes a last row, then the mark that names it. So an end of the database that was lost
//! while nobody looked (a damaged journal reads like one that a crash tore) is noticed at the next start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use bytes::{BufMut, Bytes};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::base::codec::{DecodeError, Decoded, Reader};
use crate::base::id::ActorId;
use crate::model::Fault;
use crate::storage::{Change, Durability, Fingerprint, Space, Store, StoreError};

/// How many counters each lease allows every region. A busy region uses some hundred thousand a second.
const LEASE: u64 = 1 << 22;

/// Without boot id and amnesia.
const OLD_FORMAT: u8 = 1;
const FORMAT: u8 = 2;

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
    amnesiac: bool,
    /// Which boot of its machine the node ran in; 0 if that is not known.
    boot: u128,
    /// All that was acknowledged had been synced.
    synced: bool,
}

/// What an identity is taken up with.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances {
    /// The actor id to take if there is none to go on with; random.
    pub fresh: ActorId,
    /// The store holds anything: rows without a mark are somebody's past.
    pub has_rows: bool,
    /// The cluster knows this node from a former life.
    pub returning: bool,
    /// All that this life acknowledges will have been synced.
    pub synced: bool,
}

/// One actor's time on this node.
#[derive(Debug)]
pub struct Life {
    /// Who gives dots.
    pub actor: ActorId,
    /// Counters go on after this, in every region.
    pub floor: u64,
    /// Tells openings of the store apart: incarnations of regions begin with it.
    pub nonce: u64,
    ceiling: AtomicU64,
    proven: AtomicBool,
    doubted: AtomicBool,
}

/// Who gives dots.
pub struct Identity {
    life: ArcSwap<Life>,
    fingerprint: Fingerprint,
    boot: u128,
    continued: bool,
    amnesiac: AtomicBool,
    synced: AtomicBool,
    /// Held while the mark is replaced, so that the newest is what stays.
    marking: Mutex<()>,
}

impl Identity {
    /// Takes up the identity of the store's mark, or a new one.
    pub fn take_up(store: &dyn Store, given: Circumstances) -> Result<Identity, StoreError> {
        let (fingerprint, boot) = (store.fingerprint(), store.boot_id());
        let mark = store.mark()?.map(|raw| Mark::read(raw).map_err(|error| damaged(&error))).transpose()?;
        mark.filter(|mark| mark.clean).map_or(Ok(()), |mark| check_end(store, &mark))?;
        let known = mark.filter(|mark| mark.fingerprint == fingerprint);
        let amnesiac = match (known, mark) {
            (Some(mark), _) => mark.amnesiac || mark.may_have_lost_its_end(boot),
            (None, Some(_)) => true,
            (None, None) => given.has_rows || given.returning,
        };
        if amnesiac {
            tracing::warn!("{}", why_amnesiac(mark, known, given, boot));
        }
        let (actor, floor) = match known {
            Some(mark) => (mark.actor, if mark.clean { mark.floor } else { mark.ceiling }),
            None => (given.fresh, 0),
        };
        // Above all former ones, also of other actors: so that the last row of no two lives is the same.
        let spent = mark.map_or(0, |mark| mark.ceiling);
        let life = Life {
            actor,
            floor,
            nonce: xxh3_64(&given.fresh.0.to_be_bytes()),
            ceiling: AtomicU64::new(spent),
            proven: AtomicBool::new(known.is_none()),
            doubted: AtomicBool::new(false),
        };
        let identity = Identity {
            life: ArcSwap::from_pointee(life),
            fingerprint,
            boot,
            continued: known.is_some(),
            amnesiac: AtomicBool::new(amnesiac),
            synced: AtomicBool::new(given.synced),
            marking: Mutex::new(()),
        };
        identity.raise(store, spent.saturating_add(LEASE))?;
        Ok(identity)
    }

    /// The life that gives dots now.
    pub fn life(&self) -> Guard<Arc<Life>> {
        self.life.load()
    }

    /// This node's actor id.
    pub fn actor(&self) -> ActorId {
        self.life().actor
    }

    /// Whether the actor that the node started with is that of a former life.
    pub fn is_continued(&self) -> bool {
        self.continued
    }

    /// Whether something may be missing here that was acknowledged, or somebody else may be giving this node's dots.
    pub fn is_amnesiac(&self) -> bool {
        self.amnesiac.load(Ordering::Acquire) || self.life().doubted.load(Ordering::Acquire)
    }

    /// Whether nobody knows more of the actor than this node does.
    pub fn is_proven(&self) -> bool {
        self.life().proven.load(Ordering::Acquire)
    }

    /// Whether somebody has named a dot of the actor that it has not given.
    pub fn is_doubted(&self) -> bool {
        self.life().doubted.load(Ordering::Acquire)
    }

    /// Enough others were asked, and none knows more of the actor.
    pub fn prove(&self) {
        self.life().proven.store(true, Ordering::Release);
    }

    /// Somebody named a dot of `actor` that it has not given. Says whether that is news.
    pub fn doubt(&self, actor: ActorId) -> bool {
        let life = self.life();
        life.actor == actor && !life.doubted.swap(true, Ordering::AcqRel)
    }

    /// Refuses dots that `actor` may not give.
    pub fn cover(&self, actor: ActorId, counter: u64) -> Result<(), Fault> {
        let life = self.life();
        if life.actor != actor {
            return Err(Fault::NoDots("this node is taking a new actor"));
        }
        if life.doubted.load(Ordering::Acquire) {
            return Err(Fault::NoDots("somebody knows a change of this node that its disk does not have"));
        }
        if !life.proven.load(Ordering::Acquire) {
            return Err(Fault::NoDots("the others have not been asked yet what they know of this node"));
        }
        if counter <= life.ceiling.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Fault::NoDots("the lease is being renewed"))
        }
    }

    /// Extends the lease when `highest`, the farthest that any region has counted, comes near its end. Blocks on the
    /// disk.
    pub fn renew(&self, store: &dyn Store, highest: u64) -> Result<(), StoreError> {
        let ceiling = self.life().ceiling.load(Ordering::Acquire);
        let near = highest.saturating_add(LEASE / 2) > ceiling;
        if near { self.raise(store, highest.max(ceiling).saturating_add(LEASE)) } else { Ok(()) }
    }

    /// Gives dots as `fresh` from now on; whoever gave them before never does again. A node that was amnesiac or doubted is
    /// amnesiac whatever is said here. Blocks on the disk.
    pub fn take_actor(&self, store: &dyn Store, fresh: ActorId, amnesiac: bool) -> Result<(), StoreError> {
        let _one_at_a_time = self.marking.lock();
        let before = self.life.load_full();
        let ceiling = before.ceiling.load(Ordering::Acquire).saturating_add(LEASE);
        let life = Life {
            actor: fresh,
            floor: 0,
            nonce: before.nonce,
            ceiling: AtomicU64::new(ceiling),
            proven: AtomicBool::new(true),
            doubted: AtomicBool::new(false),
        };
        // A new name brings nothing back, and what was doubted has lost something.
        let amnesiac = amnesiac || self.is_amnesiac();
        let mark = Mark { amnesiac, ..self.mark(&life, ceiling) };
        store.set_mark(&mark.write())?;
        self.amnesiac.store(amnesiac, Ordering::Release);
        self.life.store(Arc::new(life));
        Ok(())
    }

    /// All that was acknowledged is here again. Blocks on the disk.
    pub fn recovered(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _one_at_a_time = self.marking.lock();
        let now = self.mark_now();
        store.set_mark(&Mark { amnesiac: false, ..now }.write())?;
        self.amnesiac.store(false, Ordering::Release);
        Ok(())
    }

    /// Whether the mark says that nothing was ever acknowledged that had not been synced.
    pub fn promises_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Before anything is acknowledged that is not synced, the mark says that the machine's end may take it. Blocks on
    /// the disk.
    pub fn expect_unsynced(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _one_at_a_time = self.marking.lock();
        let now = self.mark_now();
        if now.synced {
            store.set_mark(&Mark { synced: false, ..now }.write())?;
            self.synced.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Says in the mark that the node stopped in order. No dot may be given afterwards, no row written.
    pub fn retire(&self, store: &dyn Store) -> Result<(), StoreError> {
        let _one_at_a_time = self.marking.lock();
        let now = self.mark_now();
        let last = Change::put(Space::Node, LAST_KEY, now.ceiling.to_be_bytes().to_vec());
        store.write(vec![last], Durability::Synced)?;
        store.set_mark(&Mark { clean: true, ..now }.write())
    }

    fn raise(&self, store: &dyn Store, ceiling: u64) -> Result<(), StoreError> {
        let _one_at_a_time = self.marking.lock();
        // A life that began meanwhile has a higher one.
        let now = self.mark_now();
        let ceiling = ceiling.max(now.ceiling);
        store.set_mark(&Mark { ceiling, ..now }.write())?;
        self.life().ceiling.store(ceiling, Ordering::Release);
        Ok(())
    }

    fn mark_now(&self) -> Mark {
        let life = self.life();
        self.mark(&life, life.ceiling.load(Ordering::Acquire))
    }

    fn mark(&self, life: &Life, ceiling: u64) -> Mark {
        Mark {
            actor: life.actor,
            ceiling,
            floor: life.floor,
            clean: false,
            fingerprint: self.fingerprint,
            amnesiac: self.amnesiac.load(Ordering::Acquire),
            boot: self.boot,
            synced: self.synced.load(Ordering::Acquire),
        }
    }
}

impl Mark {
    fn write(&self) -> Bytes {
        let mut out = Vec::with_capacity(64);
        out.put_u8(FORMAT);
        out.put_u64(self.actor.0);
        out.put_u64(self.ceiling);
        out.put_u64(self.floor);
        out.put_u8(self.clean.into());
        out.put_u128(self.fingerprint.0);
        out.put_u8(self.amnesiac.into());
        out.put_u128(self.boot);
        out.put_u8(self.synced.into());
        out.into()
    }

    fn read(raw: Bytes) -> Decoded<Mark> {
        let mut reader = Reader::new(raw);
        let format = reader.u8()?;
        if ![OLD_FORMAT, FORMAT].contains(&format) {
            return Err(DecodeError::Unknown("mark"));
        }
        let mut mark = Mark {
            actor: ActorId(reader.u64()?),
            ceiling: reader.u64()?,
            floor: reader.u64()?,
            clean: reader.u8()? != 0,
            fingerprint: Fingerprint(reader.u128()?),
            amnesiac: false,
            boot: 0,
            synced: false,
        };
        if format == FORMAT {
            mark.amnesiac = reader.u8()? != 0;
            mark.boot = reader.u128()?;
            mark.synced = reader.u8()? != 0;
        }
        reader.finish()?;
        Ok(mark)
    }

    /// Whether the machine may have gone down with something that had been acknowledged: what a killed process wrote,
    /// the kernel still has.
    fn may_have_lost_its_end(&self, boot: u128) -> bool {
        let same_boot = self.boot != 0 && self.boot == boot;
        !self.clean && !self.synced && !same_boot
    }
}

/// What an amnesiac tells its operator.
fn why_amnesiac(mark: Option<Mark>, known: Option<Mark>, given: Circumstances, boot: u128) -> &'static str {
    match known {
        Some(mark) if mark.may_have_lost_its_end(boot) => {
            "the machine may have gone down before all was synced: this node catches up with the others first"
        }
        Some(_) => {
            "this node had lost something and ended before it had caught up: it catches up with the others first"
        }
        None if mark.is_some() => {
            "the data directory was copied or moved from elsewhere: this node takes a new actor id"
        }
        None if given.has_rows => "the data directory has rows but no mark: this node takes a new actor id",
        None => "the cluster knows this node, and its data directory is empty: it fetches what it had",
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

    fn given(fresh: u64) -> Circumstances {
        Circumstances { fresh: ActorId(fresh), has_rows: false, returning: false, synced: false }
    }

    #[test]
    fn an_end_of_the_database_that_was_lost_while_nobody_looked_is_noticed() {
        let store = MemoryStore::default();
        let life = |fresh| Identity::take_up(&store, given(fresh));
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
    fn a_killed_process_that_had_not_caught_up_says_so_and_blames_no_machine() {
        let store = MemoryStore::default();
        let first = Identity::take_up(&store, given(1)).unwrap();
        first.take_actor(&store, ActorId(2), true).unwrap();
        let mark = Mark { boot: 7, ..Mark::read(store.mark().unwrap().unwrap()).unwrap() };
        let why = |boot| why_amnesiac(Some(mark), Some(mark), given(3), boot);
        assert!(why(7).contains("had lost something"), "killed");
        assert!(why(8).contains("machine"), "started anew");
        assert!(why(0).contains("machine"), "nobody knows");
    }

    #[test]
    fn after_an_unclean_stop_no_end_is_expected() {
        let store = MemoryStore::default();
        Identity::take_up(&store, given(1)).unwrap();
        let next = Identity::take_up(&store, given(2)).unwrap();
        assert_eq!((next.actor(), next.life().floor), (ActorId(1), LEASE));
    }
}
