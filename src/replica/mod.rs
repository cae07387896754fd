//! What this node holds: regions with their clocks, hash trees and counts, and the one door through which rows change.
//!
//! ```text
//! update (a command's draft) ┐
//! apply  (a peer's delta)    ├─▶ the region's lock ─▶ door: rows, clock note, tree, counts ─▶ committer
//! merge  (a sync's row)      ┘
//! ```
//!
//! Everything up to the committer's queue happens at once, under the region's lock, and is visible to the next reader;
//! what must survive waits for the [`Commit`]'s ticket. So the order of commits is the order of changes, and a
//! connection's commands may follow each other without waiting for the disk.
//!
//! A point read that misses the cache of heads goes to the store in the caller's thread: a few microseconds as long as
//! the engine has the block. Writes never do: the committer has its own thread.
//!
//! Deliberately absent: peers, quorums, liveness. A replica does what it is told and knows nothing of others.

mod compare;
mod differ;
mod door;
mod doubt;
mod ends;
mod forget;
mod heads;
mod hints;
mod identity;
mod intake;
mod look;
mod open;
mod pending;
mod reconsider;
mod region;
mod sweep;
mod terms;

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwapOption;
use parking_lot::{Mutex, MutexGuard};

use crate::base::id::{ActorId, Db, Region};
use crate::causality::context::Sealer;
use crate::causality::{Cell, Clock, Dot, Hlc, Known, Moment, RowAnswer, RowChange, Stamp};
use crate::model::look::RowPage;
use crate::model::{Changed, Delta, Draft, DraftContext, Fault, Heads, RowKey, View};
use crate::ring::partition::Partitions;
use crate::storage::{Committer, Store, SyncPolicy, Ticket};

pub use self::compare::{LeafRows, Snapshot};
pub use self::differ::{Difference, Hashed, LeafHashes};
use self::doubt::delta_names_unborn;
use self::heads::HeadCache;
pub use self::hints::{Hint, HintStats};
use self::hints::{Hints, NewHint};
use self::identity::Identity;
pub use self::identity::LAST_KEY;
pub use self::intake::Intake;
pub use self::open::{Options, StartError};
use self::region::RegionState;
pub use self::region::Tally;
pub use self::sweep::ScannedKey;
use self::terms::Terms;

/// What this node holds.
pub struct Replica {
    store: Arc<dyn Store>,
    committer: Committer,
    partitions: Partitions,
    /// One place per database and partition, filled when first used.
    regions: Vec<OnceLock<Box<Mutex<RegionState>>>>,
    heads: HeadCache,
    identity: Identity,
    terms: Terms,
    hints: Hints,
    /// A policy of syncing that waits for the mark.
    wanted_policy: Mutex<Option<SyncPolicy>>,
    sealer: Sealer,
    hash_seed: u64,
    hlc: Hlc,
    max_skew_ms: u64,
    /// The node has stopped: no dot may be given any more.
    retired: AtomicBool,
    /// What is taken in, if not everything, and why.
    intake: ArcSwapOption<(Intake, String)>,
}

/// A change that is in memory and on its way to the disk.
#[derive(Debug, Clone)]
pub struct Commit<S> {
    /// The last dot that it gave.
    pub last: Dot,
    /// Wait for it with [`Committer::wait`].
    pub ticket: Ticket,
    /// What telling the peers gave, if anybody was told.
    pub told: Option<S>,
    /// The command looked at what was there before it decided: versions that it did not see matter.
    pub conditional: bool,
    /// It ended counters' runs: what they had added up to is known to this command only.
    pub took_sums: bool,
}

/// What became of a peer's delta.
#[derive(Debug, Clone, Default)]
pub struct Applied {
    /// Wait for it with [`Committer::wait`]; none if all was known already.
    pub ticket: Option<Ticket>,
    /// Rows whose earlier change has not arrived: to be fetched from the sender at once (rule 11).
    pub gaps: Vec<bytes::Bytes>,
    /// Some row of a conditional delta shows something that its command had not seen (rule 7).
    pub conflict: bool,
}

impl Replica {
    /// How the slots are cut.
    pub fn partitions(&self) -> Partitions {
        self.partitions
    }

    /// What takes changes to the store.
    pub fn committer(&self) -> &Committer {
        &self.committer
    }

    /// Where rows are kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Bytes of rows kept in memory, as weighed.
    pub fn cache_bytes(&self) -> u64 {
        self.heads.weight()
    }

    /// Point reads that the store had to answer since the start.
    pub fn cache_misses(&self) -> u64 {
        self.heads.misses()
    }

    /// Changes how many bytes of rows may be kept in memory.
    pub fn set_cache_bytes(&self, bytes: u64) {
        self.heads.resize(bytes);
    }

    /// Who gives this node's dots.
    pub fn actor(&self) -> ActorId {
        self.identity.actor()
    }

    /// What seals contexts.
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Reads rows of a region.
    pub fn view<T>(&self, region: Region, now: u64, read: impl FnOnce(&mut View) -> T) -> T {
        let moment = Moment { now, stamp: Stamp::at(now) };
        match self.existing(region) {
            Some(state) if self.check_stored(&state).is_err() => {
                read(&mut View::new(&mut Unread(self.check_sound()), &self.sealer, region.db, moment))
            }
            Some(state) => {
                let mut heads = self.heads.of_region(&*self.store, &state);
                read(&mut View::new(&mut heads, &self.sealer, region.db, moment))
            }
            None => read(&mut View::new(&mut NoRows, &self.sealer, region.db, moment)),
        }
    }

    /// Runs `change` over a draft of a region and commits what it changed. An error of its own drops the draft. `tell`, if
    /// there is anybody to tell, is called with the delta before the region's lock goes: so peers are told in the order of
    /// changes. It also hears whether the change is conditional, and may hand the delta back for reconsidering it.
    pub fn update<T, S, E: From<Fault>>(
        &self,
        region: Region,
        now: u64,
        change: impl FnOnce(&mut Draft) -> Result<T, E>,
        tell: Option<impl FnOnce(Delta, bool) -> S>,
    ) -> Result<(T, Option<Commit<S>>), E> {
        self.check_takes(Intake::Removals)?;
        let mut state = self.region(region);
        let context = DraftContext {
            region,
            moment: self.hlc.tick(now),
            actor: state.dot(0).actor,
            counter: state.counter,
            forgot: state.forgot,
        };
        let mut heads = self.heads.of_region(&*self.store, &state);
        let mut draft = Draft::new(&mut heads, &self.sealer, context);
        let answer = change(&mut draft);
        let (unborn, conditional) = (draft.names_unborn(), draft.is_conditional());
        let (changed, counter) = draft.finish();
        self.refuse_unborn(&state, || unborn)?;
        let answer = answer?;
        if changed.is_empty() {
            return Ok((answer, None));
        }
        self.check_changed(&changed)?;
        if counter > state.counter {
            self.identity.cover(context.actor, counter)?;
        }
        let telling = tell.is_some().then_some(conditional);
        let took_sums = changed.iter().any(Changed::takes_sums);
        let (delta, ticket) = self.commit_draft(&mut state, region, changed, counter, telling)?;
        let told = tell.map(|tell| tell(delta, conditional));
        let last = Dot::new(context.actor, counter);
        Ok((answer, Some(Commit { last, ticket, told, conditional, took_sums })))
    }

    /// Applies a peer's delta: idempotent, in any order. If its command is `conditional`, looks for what that had not seen.
    pub fn apply(&self, delta: &Delta, now: u64, conditional: bool) -> Result<Applied, Fault> {
        self.apply_and(delta, now, conditional, None)
    }

    fn apply_and(&self, delta: &Delta, now: u64, conditional: bool, hint: Option<NewHint>) -> Result<Applied, Fault> {
        self.check_takes(Intake::Removals)?;
        self.observe_stamps(delta, now);
        let mut state = self.region(delta.region);
        self.refuse_unborn(&state, || delta_names_unborn(&state, delta))?;
        self.apply_locked(&mut state, delta, conditional.then_some(now), hint)
    }

    /// Answers a peer that names the dots of its cell of a row.
    pub fn answer(&self, region: Region, row: &bytes::Bytes, theirs: &[Dot]) -> Result<RowAnswer, Fault> {
        self.check_sound()?;
        let state = self.region(region);
        self.refuse_unborn(&state, || theirs.iter().any(|dot| state.is_unborn(*dot)))?;
        let cell = self.heads.of_region(&*self.store, &state).head(row)?;
        let hides = self.hides(&state, row)?;
        Ok(cell.answer(Known { clock: &state.clock, clear: hides.as_ref() }, theirs))
    }

    /// What to send back to a peer that answered about a row, once its answer has been applied.
    pub fn reply(&self, region: Region, row: &bytes::Bytes, answer: &RowAnswer) -> Result<RowChange, Fault> {
        let state = self.region(region);
        let cell = self.heads.of_region(&*self.store, &state).head(row)?;
        let hides = self.hides(&state, row)?;
        Ok(cell.reply(Known { clock: &state.clock, clear: hides.as_ref() }, answer))
    }

    /// What clears hide of a row: that of its region, and for a row of a collection that of its key.
    fn hides(&self, state: &RegionState, row: &bytes::Bytes) -> Result<Option<Clock>, Fault> {
        let head = if RowKey::is_head(row) { None } else { RowKey::head_of(row) };
        let of_key = match head {
            Some(head) => {
                let head = self.heads.of_region(&*self.store, state).head(&head)?;
                head.hides().map(std::borrow::Cow::into_owned)
            }
            None => None,
        };
        Ok(match (of_key, &state.clear) {
            (Some(mut hides), Some(clear)) => {
                hides.join(clear);
                Some(hides)
            }
            (hides, clear) => hides.or_else(|| clear.clone()),
        })
    }

    /// The cell of a row as this replica has it.
    pub fn cell(&self, region: Region, row: &bytes::Bytes) -> Result<Arc<Cell>, Fault> {
        match self.existing(region) {
            Some(state) => {
                self.check_stored(&state)?;
                self.heads.of_region(&*self.store, &state).head(row)
            }
            None => Ok(Arc::default()),
        }
    }

    /// Whether the effect of `dot` is here.
    pub fn has(&self, region: Region, dot: Dot) -> bool {
        self.existing(region).is_some_and(|state| {
            // Asking about an own dot that was never given says something, too; the answer is no either way.
            let _ = self.refuse_unborn(&state, || state.is_unborn(dot));
            state.clock.contains(dot)
        })
    }

    /// Local facts of one region.
    pub fn tally(&self, region: Region) -> Tally {
        self.existing(region).map(|state| state.tally()).unwrap_or_default()
    }

    /// Regions that have ever held something.
    pub fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        let count = usize::from(self.partitions.count());
        self.regions.iter().enumerate().filter(|(_, slot)| slot.get().is_some()).map(move |(at, _)| Region {
            db: Db((at / count) as u8),
            partition: crate::base::id::Partition((at % count) as u16),
        })
    }

    /// Whether the region lies within this node's databases and partitions: a peer's word is checked by this.
    pub fn knows(&self, region: Region) -> bool {
        region.partition.0 < self.partitions.count() && self.place(region) < self.regions.len()
    }

    /// Waits while more is on its way to the store than may be: for whoever takes in work, before taking more.
    pub async fn keep_up(&self) {
        while self.committer.over_limit() && !self.committer.has_failed() {
            // A failure is for the next change to say.
            let _ = self.committer.wait(self.committer.last()).await;
        }
    }

    fn observe_stamps(&self, delta: &Delta, now: u64) {
        for version in delta.rows.iter().flat_map(|(_, change)| &change.new) {
            if let Err(ahead) = self.hlc.observe(version.stamp, now, self.max_skew_ms) {
                crate::metrics::CLOCK_SKEW_REJECTED.increment();
                tracing::debug!(%ahead, "a stamp was not learned from");
            }
        }
    }

    fn place(&self, region: Region) -> usize {
        usize::from(region.db.0) * usize::from(self.partitions.count()) + usize::from(region.partition.0)
    }

    /// The region's state, locked; made if it is new.
    fn region(&self, region: Region) -> MutexGuard<'_, RegionState> {
        let new = || Box::new(Mutex::new(RegionState::new(&self.identity.life())));
        self.locked(self.regions[self.place(region)].get_or_init(new))
    }

    fn existing(&self, region: Region) -> Option<MutexGuard<'_, RegionState>> {
        self.regions.get(self.place(region))?.get().map(|state| self.locked(state))
    }

    /// A new actor counts in a region from when it is next used.
    fn locked<'a>(&self, state: &'a Mutex<RegionState>) -> MutexGuard<'a, RegionState> {
        let mut state = state.lock();
        state.follow(&self.identity.life());
        state
    }
}

/// The rows of a region of which the store lacks what memory has.
struct Unread(Result<(), Fault>);

impl Heads for Unread {
    fn head(&mut self, _: &bytes::Bytes) -> Result<Arc<Cell>, Fault> {
        self.0.clone().map(|()| Arc::default())
    }

    fn range(&mut self, _: &bytes::Bytes, _: &bytes::Bytes, _: usize) -> Result<RowPage, Fault> {
        self.0.clone().map(|()| (Vec::new(), None))
    }

    fn clock(&self) -> Clock {
        Clock::new()
    }
}

/// The rows of a region that was never written.
struct NoRows;

impl Heads for NoRows {
    fn head(&mut self, _: &bytes::Bytes) -> Result<Arc<Cell>, Fault> {
        Ok(Arc::default())
    }

    fn range(&mut self, _: &bytes::Bytes, _: &bytes::Bytes, _: usize) -> Result<RowPage, Fault> {
        Ok((Vec::new(), None))
    }

    fn clock(&self) -> Clock {
        Clock::new()
    }
}

#[cfg(test)]
mod tests;
