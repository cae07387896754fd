//! A draft: rows being changed. It reads its own writes; nothing of it is seen by others until its delta is committed,
//! and an error drops it whole.
//!
//! A draft gives a dot to each version it makes and remembers what that version replaced. Versions that it makes and
//! replaces itself never leave it, but their dots do, as superseded: so that clocks stay without gaps.

mod collections;
mod savepoint;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use self::collections::Collections;
use super::delta::Delta;
use super::image::Image;
use super::look::Look;
use super::row::RowKey;
use super::view::{Fault, Heads, UNBORN};
use super::visible::Visible;
use crate::base::id::{ActorId, Region};
use crate::base::kind::Kind;
use crate::causality::context::{Context, ContextError, Sealer};
use crate::causality::counter::{Seen, run_of, seen_by_replacing, seen_over};
use crate::causality::expiry::{self, Deadline};
use crate::causality::{Cell, Dot, Expiry, Moment, Payload, RowChange, Run, Stamp, Value, Version};
use savepoint::Savepoint;

/// What a draft needs to know of where it is made.
#[derive(Debug, Clone, Copy)]
pub struct DraftContext {
    /// The region it changes.
    pub region: Region,
    /// Now, and the stamp of what it writes.
    pub moment: Moment,
    /// Who gives its dots.
    pub actor: ActorId,
    /// The last counter given in the region: its first dot is the next one.
    pub counter: u64,
    /// Runs that began at or before this counter are not to be extended: the region was dropped since (rule 3).
    pub forgot: u64,
}

/// What a write does to the time to live of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ttl {
    /// A new one, or none: a new generation.
    Set(Deadline),
    /// The key keeps what it has.
    Keep,
}

/// Why an increment was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncrError {
    /// The string there is no 64-bit integer.
    NotAnInteger,
    /// The sum would not fit 64 bits.
    Overflow,
    /// The rows could not be read.
    Fault(Fault),
}

impl From<Fault> for IncrError {
    fn from(fault: Fault) -> Self {
        IncrError::Fault(fault)
    }
}

/// Rows of one region being changed.
pub struct Draft<'a> {
    heads: &'a mut dyn Heads,
    sealer: &'a Sealer,
    context: DraftContext,
    rows: SmallVec<[Row; 1]>,
    /// Where each row is, once there are many.
    places: HashMap<Bytes, usize>,
    /// Keys whose collections the draft has changed.
    touched: SmallVec<[Collections; 1]>,
    looked: bool,
    names_unborn: bool,
    saved: Option<Savepoint>,
}

/// A row as the draft has it.
#[derive(Clone)]
struct Row {
    key: Bytes,
    before: Arc<Cell>,
    cell: Arc<Cell>,
    made: SmallVec<[Dot; 1]>,
    superseded: SmallVec<[Dot; 2]>,
    /// A head row: there are, or were, collections under its key.
    more: bool,
}

/// A row that a draft changed.
#[derive(Debug, Clone)]
pub struct Changed {
    /// Its encoded key.
    pub row: Bytes,
    /// The cell as it was.
    pub before: Arc<Cell>,
    /// The cell as it is to be.
    pub after: Arc<Cell>,
    /// Dots of the versions that are new in it, and of those that were made and replaced on the way.
    pub made: SmallVec<[Dot; 1]>,
    /// Dots that the draft observed and replaced.
    pub superseded: SmallVec<[Dot; 2]>,
}

impl Changed {
    /// The difference, as other replicas are told it.
    pub fn change(&self) -> RowChange {
        let new = self.after.versions().iter().filter(|version| self.made.contains(&version.dot)).cloned().collect();
        RowChange { new, superseded: self.superseded.clone() }
    }

    /// Whether it ended runs of a counter, rather than going on with them.
    pub fn takes_sums(&self) -> bool {
        let goes_on = |name: Dot| self.after.versions().iter().filter_map(run_of).any(|(other, _)| other == name);
        let taken = self.before.versions().iter().filter(|version| self.superseded.contains(&version.dot));
        taken.filter_map(run_of).any(|(name, _)| !goes_on(name))
    }

    /// Dots that were there before and still are: what the change saw and left.
    pub fn kept(&self) -> impl Iterator<Item = Dot> + '_ {
        self.before.dots().filter(|dot| self.after.holds(*dot))
    }
}

impl<'a> Draft<'a> {
    /// A draft without changes.
    pub fn new(heads: &'a mut dyn Heads, sealer: &'a Sealer, context: DraftContext) -> Self {
        let (rows, touched, places) = (SmallVec::new(), SmallVec::new(), HashMap::new());
        Draft { heads, sealer, context, rows, places, touched, looked: false, names_unborn: false, saved: None }
    }

    /// Whether the command looked at a row before it decided what to do: everything but a plain SET does, and a PUT or
    /// DEL with a client's context, which says what it replaces.
    pub fn is_conditional(&self) -> bool {
        self.looked
    }

    /// Whether a client's context named a dot of this actor that it has not given yet: rule 6 of the causality rules.
    pub fn names_unborn(&self) -> bool {
        self.names_unborn
    }

    /// Takes back what a former attempt at the same command wrote: as if somebody who had seen it had deleted it. Its
    /// increments stay. What it had replaced stays replaced, and is named once more for those whom it has not reached.
    pub fn withdraw(&mut self, attempt: &Delta) -> Result<(), Fault> {
        for (key, change) in &attempt.rows {
            let at = self.locate_row(key.clone())?;
            self.edit_at(at).withdraw(change);
        }
        Ok(())
    }

    /// The context that a client gave back for `key`.
    pub fn open_context(&self, key: &[u8], text: &[u8]) -> Result<Context, ContextError> {
        Context::open(text, self.sealer, self.context.region.db, key)
    }

    /// The context of having read `key` as the draft has it.
    pub fn seal(&mut self, key: &[u8]) -> Result<String, Fault> {
        self.looked = true;
        let (sealer, db) = (self.sealer, self.context.region.db);
        let more = !self.parts_of(key)?.is_empty();
        let clear = more.then(|| self.heads.clock());
        Ok(Context { clear, ..Context::of(self.row(key)?.cell.versions()) }.seal(sealer, db, key))
    }

    /// Wall time of the draft, in milliseconds since the epoch.
    pub fn now(&self) -> u64 {
        self.context.moment.now
    }

    /// The string at `key`, if the key is there.
    ///
    /// # Errors
    /// [`Fault::WrongKind`] for a collection.
    pub fn text(&mut self, key: &[u8]) -> Result<Option<Bytes>, Fault> {
        self.looked = true;
        let now = self.now();
        if self.row(key)?.more && !matches!(self.kind(key)?, None | Some(Kind::Text)) {
            return Err(Fault::WrongKind);
        }
        let row = self.row(key)?;
        Ok(Visible::of(row.cell.versions(), now).map(|visible| visible.text()))
    }

    /// Whether `key` is there.
    pub fn exists(&mut self, key: &[u8]) -> Result<bool, Fault> {
        self.looked = true;
        let now = self.now();
        let row = self.row(key)?;
        let text = Visible::of(row.cell.versions(), now).is_some();
        Ok(text || (row.more && self.kind(key)?.is_some()))
    }

    /// When `key` ends; none when it is absent.
    pub fn deadline(&mut self, key: &[u8]) -> Result<Option<Deadline>, Fault> {
        self.looked = true;
        let now = self.now();
        let row = self.row(key)?;
        let text = Visible::of(row.cell.versions(), now).map(|visible| visible.deadline());
        if !row.more {
            return Ok(text);
        }
        let holds = self.holds(key)?;
        Ok(if holds.parts.is_empty() { text } else { Some(holds.ends) })
    }

    /// The cell of `key` as the draft has it.
    pub fn cell(&mut self, key: &[u8]) -> Result<Arc<Cell>, Fault> {
        self.looked = true;
        Ok(self.row(key)?.cell.clone())
    }

    /// All that is visible of `key`.
    pub fn image(&mut self, key: &[u8]) -> Result<Option<Image>, Fault> {
        self.looked = true;
        let now = self.now();
        let row = self.row(key)?;
        Ok(Image::of(&row.cell, now))
    }

    /// Writes a string in place of all that is there.
    pub fn set(&mut self, key: &[u8], data: Bytes, ttl: Ttl) -> Result<(), Fault> {
        self.looked |= ttl == Ttl::Keep;
        let at = self.locate(key)?;
        let carried = match (ttl, self.rows[at].more) {
            (_, false) => ttl,
            (ttl, true) => self.end_collections(key, ttl)?,
        };
        self.edit_at(at).set(data, carried);
        Ok(())
    }

    /// Writes what a command made of the string that it read, as APPEND does: in place of that one, with its time to live.
    /// Siblings stay: nothing of them is in what is written, and somebody may have been told that they are safe.
    pub fn amend(&mut self, key: &[u8], data: Bytes) -> Result<(), Fault> {
        self.looked = true;
        if self.row(key)?.more {
            self.end_collections(key, Ttl::Keep)?;
        }
        self.edit(key)?.amend(data);
        Ok(())
    }

    /// Adds `by` to the integer at `key` (0 if absent) and answers the sum. Concurrent increments elsewhere all count.
    pub fn increment(&mut self, key: &[u8], by: i64) -> Result<i64, IncrError> {
        self.looked = true;
        if self.row(key)?.more {
            self.begin(key, Kind::Text)?;
        }
        self.edit(key)?.increment(by)
    }

    /// Removes `key`; says whether it was there.
    pub fn remove(&mut self, key: &[u8]) -> Result<bool, Fault> {
        self.looked = true;
        let mut row = self.edit(key)?;
        if row.row.more {
            return self.remove_all(key);
        }
        if row.visible().is_none() {
            return Ok(false);
        }
        row.clear_out();
        Ok(true)
    }

    /// Gives `key` a deadline, or takes it away; says whether the key is there.
    pub fn expire(&mut self, key: &[u8], deadline: Deadline) -> Result<bool, Fault> {
        self.looked = true;
        if self.row(key)?.more {
            return self.expire_all(key, deadline);
        }
        let mut row = self.edit(key)?;
        if row.visible().is_none() {
            return Ok(false);
        }
        row.expire(deadline, None);
        Ok(true)
    }

    /// Writes an image in place of all that is there: its values become siblings here too.
    pub fn put_image(&mut self, key: &[u8], image: &Image) -> Result<(), Fault> {
        if self.row(key)?.more {
            self.end_collections(key, Ttl::Set(Deadline::Never))?;
        }
        self.edit(key)?.put_image(image);
        Ok(())
    }

    /// Writes a string in place of exactly what `context` names; the rest stay as siblings.
    pub fn put_with_context(
        &mut self,
        key: &[u8],
        data: Bytes,
        deadline: Deadline,
        context: &Context,
    ) -> Result<(), Fault> {
        self.check_born(context)?;
        self.clear_named(key, context)?;
        self.edit(key)?.put_with_context(data, deadline, context);
        Ok(())
    }

    /// Removes exactly what `context` names; says whether anything of the key is left to see.
    pub fn remove_with_context(&mut self, key: &[u8], context: &Context) -> Result<bool, Fault> {
        self.check_born(context)?;
        self.clear_named(key, context)?;
        let mut row = self.edit(key)?;
        row.remove_with_context(context);
        if row.row.more {
            return Ok(self.kind(key)?.is_some());
        }
        Ok(row.visible().is_some())
    }

    /// Removes what has expired under `key` (its deadline has passed); says whether there was anything.
    pub fn reap(&mut self, key: &[u8]) -> Result<bool, Fault> {
        self.looked = true;
        let mut row = self.edit(key)?;
        if row.row.more {
            return self.reap_collections(key);
        }
        let spent = |version: &Version| matches!(version.payload, Payload::Void(_) | Payload::Cleared(_));
        if row.row.cell.versions().iter().all(spent) || row.visible().is_some() {
            return Ok(false);
        }
        row.clear_out();
        Ok(true)
    }

    /// How many versions `key` would be left with: for the limit on siblings.
    pub fn siblings(&mut self, key: &[u8]) -> Result<usize, Fault> {
        Ok(self.row(key)?.cell.versions().iter().filter(|version| matches!(version.payload, Payload::Value(_))).count())
    }

    /// What changed, and the last counter that was given.
    pub fn finish(self) -> (SmallVec<[Changed; 1]>, u64) {
        let changed = self.rows.into_iter().filter(|row| !row.made.is_empty() || !row.superseded.is_empty());
        (changed.map(Row::finish).collect(), self.context.counter)
    }

    fn row(&mut self, key: &[u8]) -> Result<&mut Row, Fault> {
        let at = self.locate(key)?;
        Ok(&mut self.rows[at])
    }

    fn edit(&mut self, key: &[u8]) -> Result<Edit<'_>, Fault> {
        let at = self.locate(key)?;
        Ok(self.edit_at(at))
    }

    fn edit_at(&mut self, at: usize) -> Edit<'_> {
        self.keep(at);
        Edit { row: &mut self.rows[at], context: &mut self.context, key_ends: Deadline::Never }
    }

    /// Refuses a context that knows of this node what this node does not.
    fn check_born(&mut self, context: &Context) -> Result<(), Fault> {
        let DraftContext { actor, counter, .. } = self.context;
        let runs = context.seen.iter().map(|(run, counter, _)| Dot::new(run.actor, *counter));
        self.names_unborn |= context.clear.as_ref().is_some_and(|clear| clear.highest(actor) > counter);
        self.names_unborn |=
            runs.chain(context.dots.iter().copied()).any(|dot| dot.actor == actor && dot.counter > counter);
        if self.names_unborn { Err(Fault::NoDots(UNBORN)) } else { Ok(()) }
    }

    /// The place of `key` among the rows, loaded if it was not.
    fn locate(&mut self, key: &[u8]) -> Result<usize, Fault> {
        self.locate_row(RowKey::head(self.context.region.db, key))
    }

    fn locate_row(&mut self, key: Bytes) -> Result<usize, Fault> {
        if let Some(at) = self.place_of(&key) {
            return Ok(at);
        }
        // What a clearing of this draft hides was never there to what comes after it.
        let cell = if self.is_cleared(&key) { Arc::default() } else { self.heads.head(&key)? };
        if self.rows.len() >= FEW {
            if self.places.is_empty() {
                self.places = self.rows.iter().enumerate().map(|(at, row)| (row.key.clone(), at)).collect();
            }
            self.places.insert(key.clone(), self.rows.len());
        }
        let more = cell.local().is_some();
        self.rows.push(Row {
            key,
            before: cell.clone(),
            cell,
            made: SmallVec::new(),
            superseded: SmallVec::new(),
            more,
        });
        Ok(self.rows.len() - 1)
    }

    fn place_of(&self, key: &Bytes) -> Option<usize> {
        match self.places.is_empty() {
            true => self.rows.iter().position(|row| row.key == *key),
            false => self.places.get(key).copied(),
        }
    }
}

/// Rows that are found faster by a walk.
const FEW: usize = 16;

impl Row {
    fn finish(self) -> Changed {
        let Row { key, before, cell, made, superseded, .. } = self;
        Changed { row: key, before, after: cell, made, superseded }
    }

    /// Takes out the versions that `replaced` names, and remembers their dots. What ended a collection stays: see
    /// [`Row::supersede_clears`].
    fn supersede(&mut self, replaced: impl Fn(&Version) -> bool) {
        let replaced = |version: &Version| !matches!(version.payload, Payload::Cleared(_)) && replaced(version);
        let before = self.superseded.len();
        self.superseded.extend(self.cell.versions().iter().filter(|version| replaced(version)).map(|v| v.dot));
        match self.superseded.len() - before {
            0 => {}
            // All of them: nothing of a cell that readers share need be copied.
            all if all == self.cell.versions().len() && self.cell.local().is_none() => self.cell = Arc::default(),
            _ => Arc::make_mut(&mut self.cell).retain(|version| !replaced(version)),
        }
    }

    /// Names dots as superseded that need not be here.
    fn say_superseded(&mut self, dots: impl Iterator<Item = Dot>) {
        for dot in dots {
            if !self.superseded.contains(&dot) {
                self.superseded.push(dot);
            }
        }
    }
}

/// A row together with what gives its versions their dots.
struct Edit<'d> {
    row: &'d mut Row,
    context: &'d mut DraftContext,
    /// When the key of an element's row ends.
    key_ends: Deadline,
}

impl Edit<'_> {
    fn visible(&self) -> Option<Visible<'_>> {
        Visible::of(self.row.cell.versions(), self.context.moment.now)
    }

    fn set(&mut self, data: Bytes, ttl: Ttl) {
        let (deadline, generation, keeps_expiry) = match ttl {
            Ttl::Set(deadline) => (deadline, None, false),
            Ttl::Keep => self.time_to_carry(),
        };
        let until = if keeps_expiry { self.deadline() } else { deadline };
        let seen = self.replace(|version| !(keeps_expiry && matches!(version.payload, Payload::Expiry(_))));
        self.write_until(until, Payload::Value(Value { data, deadline: deadline.ms(), generation, seen }));
    }

    fn amend(&mut self, data: Bytes) {
        let Some((winner, mut stamp)) = self.winner_among_siblings() else { return self.set(data, Ttl::Keep) };
        let ((deadline, generation, _), until) = (self.time_to_carry(), self.deadline().min(self.key_ends));
        let seen = self.replace(|version| match version.payload {
            Payload::Value(_) => version.dot == winner,
            Payload::Expiry(_) | Payload::Cleared(_) => false,
            Payload::Run(_) | Payload::Void(_) => true,
        });
        // It goes on being what a reader sees, however far ahead the clock was that wrote what it replaces.
        stamp = stamp.next().max(self.context.moment.stamp);
        stamp = until.ms().map_or(stamp, |ms| stamp.min(Stamp::last_in(ms)));
        self.write_at(stamp, Payload::Value(Value { data, deadline: deadline.ms(), generation, seen }));
    }

    fn increment(&mut self, by: i64) -> Result<i64, IncrError> {
        let Some(visible) = self.visible() else {
            self.clear_out();
            self.write(Payload::Run(Run { first: None, sum: by.into() }));
            return Ok(by);
        };
        let current = visible.integer().ok_or(IncrError::NotAnInteger)?;
        let sum = current.checked_add(by).ok_or(IncrError::Overflow)?;
        self.extend_run(by);
        Ok(sum)
    }

    /// Gives what is there a deadline. `collections` are those beside, if there are any: when they were last written.
    fn expire(&mut self, deadline: Deadline, collections: Option<u64>) {
        let values = self.visible().into_iter().flat_map(|visible| visible.values().collect::<SmallVec<[_; 2]>>());
        let mut generations: Vec<Dot> = values.map(|(version, value)| expiry::generation(version, value)).collect();
        if collections.is_some() && !generations.is_empty() {
            generations.push(expiry::WHOLE);
        }
        // What it saw fell before it, whatever the clocks of those who wrote it said.
        let stamps = self.row.cell.versions().iter().map(|version| version.stamp.ms());
        let latest = stamps.chain(collections).max().unwrap_or_default();
        let deadline = deadline.ms().map(|ms| ms.max(latest));
        self.row.supersede(|version| matches!(version.payload, Payload::Expiry(_)));
        self.write(Payload::Expiry(Expiry { deadline, generations }));
    }

    /// Writes an image in place of all that is there.
    fn put_image(&mut self, image: &Image) {
        let seen = self.replace(|_| true);
        // The winner is written last: of equal stamps the higher dot wins.
        for (data, deadline) in image.siblings.iter().chain([&image.winner]) {
            let value = Value { data: data.clone(), deadline: deadline.ms(), generation: None, seen: seen.clone() };
            self.write_until(*deadline, Payload::Value(value));
        }
    }

    /// Writes a value in place of exactly what a client has seen.
    fn put_with_context(&mut self, data: Bytes, deadline: Deadline, context: &Context) {
        self.supersede_named(context);
        let seen = self.still_needed(context.seen.clone());
        let value = Value { data, deadline: deadline.ms(), generation: None, seen };
        self.write_until(deadline, Payload::Value(value));
    }

    fn remove_with_context(&mut self, context: &Context) {
        self.supersede_named(context);
        self.leave_void(self.still_needed(context.seen.clone()));
    }

    fn write(&mut self, payload: Payload) {
        self.write_until(Deadline::Never, payload);
    }

    /// Writes a version that is to end at `deadline`, which has not passed. Stamps may run ahead of the wall clock; one
    /// beyond the deadline would say that the write fell after it, and nothing would ever hide it.
    fn write_until(&mut self, deadline: Deadline, payload: Payload) {
        let latest = deadline.min(self.key_ends).ms().map_or(self.context.moment.stamp, Stamp::at);
        self.write_at(self.context.moment.stamp.min(latest), payload);
    }

    fn write_at(&mut self, stamp: Stamp, payload: Payload) {
        self.context.counter += 1;
        let dot = Dot::new(self.context.actor, self.context.counter);
        self.row.made.push(dot);
        Arc::make_mut(&mut self.row.cell).insert(Version { dot, stamp, payload });
    }

    /// The value that a reader sees and its stamp, where there are others beside it.
    fn winner_among_siblings(&self) -> Option<(Dot, Stamp)> {
        let visible = self.visible()?;
        let winner = visible.winner().map(|(version, _)| (version.dot, version.stamp))?;
        (visible.values().count() > 1).then_some(winner)
    }

    /// Takes out what `replaced` names, which is every value, run and void; answers what its successor must remember.
    fn replace(&mut self, replaced: impl Fn(&Version) -> bool) -> Seen {
        let seen = seen_by_replacing(self.row.cell.versions().iter());
        self.row.supersede(replaced);
        self.still_needed(seen)
    }

    /// Without the runs of this actor that are no longer live: nobody else extends them, and every dot of theirs is in this
    /// clock, so wherever one is left, merging takes it away. Only others' runs may have gone on unseen, and those of a
    /// former life, which may have known more than is left of it here.
    fn still_needed(&self, mut seen: Seen) -> Seen {
        let live = |run: Dot| self.row.cell.versions().iter().filter_map(run_of).any(|(name, _)| name == run);
        let DraftContext { actor, forgot, .. } = *self.context;
        seen.retain(|run| run.actor != actor || run.counter <= forgot || live(run));
        seen
    }

    /// Replaces everything by nothing: but for the void that others' counter runs leave.
    fn clear_out(&mut self) {
        let seen = self.replace(|_| true);
        self.leave_void(seen);
    }

    fn leave_void(&mut self, seen: Seen) {
        if !seen.is_empty() {
            self.write(Payload::Void(seen));
        }
    }

    /// What a write that keeps the time to live carries on: own deadline, generation, and whether the expiry versions
    /// of the row stay.
    fn time_to_carry(&self) -> (Deadline, Option<Dot>, bool) {
        let Some(visible) = self.visible() else { return (Deadline::Never, None, false) };
        match visible.winner() {
            Some((version, value)) => (value.deadline.into(), Some(expiry::generation(version, value)), true),
            // A counter without a base has no generation: its deadline moves into the value.
            None => (visible.deadline(), None, false),
        }
    }

    /// When the key, which is there, ends.
    fn deadline(&self) -> Deadline {
        self.visible().map_or(Deadline::Never, |visible| visible.deadline())
    }

    /// Adds `by` to this actor's live run, or begins one.
    fn extend_run(&mut self, by: i64) {
        let (until, DraftContext { actor, forgot, .. }) = (expiry::of_key(self.row.cell.versions()), *self.context);
        let runs = self.row.cell.versions().iter().filter(|version| version.dot.actor == actor).filter_map(run_of);
        // Ascending by dot: the last is the latest.
        let own = runs.filter(|(run, _)| run.actor == actor && run.counter > forgot).last();
        let Some((name, run)) = own.map(|(name, run)| (name, *run)) else {
            return self.write_until(until, Payload::Run(Run { first: None, sum: by.into() }));
        };
        self.row.supersede(|version| version.dot.actor == actor && run_of(version).is_some_and(|(run, _)| run == name));
        self.write_until(until, Payload::Run(Run { first: Some(name), sum: run.sum.saturating_add(by.into()) }));
    }

    /// Replaces exactly what a client has seen, also what has not arrived here yet.
    fn supersede_named(&mut self, context: &Context) {
        self.row.supersede(|version| context.dots.contains(&version.dot));
        self.row.say_superseded(context.dots.iter().copied());
    }

    fn withdraw(&mut self, change: &RowChange) {
        // What a clearing hid may be gone from the store: it cannot be brought back.
        let stays = |version: &Version| run_of(version).is_some() || matches!(version.payload, Payload::Cleared(_));
        let withdrawn: SmallVec<[Dot; 2]> =
            change.new.iter().filter(|version| !stays(version)).map(|version| version.dot).collect();
        let going = self.row.cell.versions().iter().filter(|version| withdrawn.contains(&version.dot));
        let seen = seen_over(going);
        self.row.supersede(|version| withdrawn.contains(&version.dot));
        self.row.say_superseded(withdrawn.into_iter().chain(change.superseded.iter().copied()));
        self.leave_void(self.still_needed(seen));
    }
}

#[cfg(test)]
#[path = "draft_tests.rs"]
mod tests;
