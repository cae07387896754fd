//! The state of a region: what it knows (clock, clear), what of it is handed on to no one (counts, tree).

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes};
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use super::ends::{Ends, end_of};
use super::identity::Life;
use super::pending::Pending;
use crate::base::codec::{DecodeError, Decoded, Reader, put_varint};
use crate::base::id::{ActorId, Partition, Region};
use crate::causality::{Cell, Clock, Dot, Local, Payload};
use crate::model::Visible;
use crate::model::delta::put_region;
use crate::model::look::{kind_of_head, next_end_of_head};
use crate::ring::partition::Partitions;
use crate::ring::slot::Token;
use crate::storage::tree::LEAVES;
use crate::storage::{HashTree, Ticket};

/// Everything about a region but its rows.
#[derive(Debug, Default)]
pub struct RegionState {
    /// Dots whose effects are here.
    pub clock: Clock,
    /// What a clear superseded; kept until the clock covers it and no hidden row is left (rule 2).
    pub clear: Option<Clock>,
    /// Rows that the clear hides may still be stored; the ticket after which all of them can be found.
    pub hidden_until: Option<Ticket>,
    /// Who gives dots here; not always known of what an earlier program stored.
    pub actor: Option<ActorId>,
    /// That actor's last counter here. It outlives the clock, which a stand-in forgets.
    pub counter: u64,
    /// Runs that began at or before it are not extended (rule 3): a former life may have extended them further than is
    /// stored here, or they were forgotten here, and others have those sums.
    pub forgot: u64,
    /// Changes when the region is forgotten, wiped, rolled back or opened again: syncs that span a change are void
    /// (rule 1).
    pub incarnation: u64,
    /// Digest of the visible rows.
    pub tree: HashTree,
    /// Counts of the visible rows; when the first of them ends, only [`RegionState::tally`] says.
    counts: Tally,
    /// When the visible rows end.
    pub ends: Ends,
    /// Whether the stored record lacks something that only notes have.
    pub noted: bool,
    /// The clear as a number, by which local facts of keys say under which one they were made; 0 for none.
    pub under: u64,
    /// Rows of collections that the store may not have yet.
    pub pending: Pending,
    /// Head rows of keys that were ended by a clock: hidden rows may still be stored, or the clock is still kept.
    pub ended: BTreeSet<Bytes>,
}

/// Local facts about a region; never merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Keys that are there, expired ones included until they are reaped.
    pub keys: u64,
    /// Keys with a deadline.
    pub expiring: u64,
    /// Rows of nothing but what deleted counters left behind.
    pub voids: u64,
    /// Keys with two or more live values, expired ones included until they are reaped.
    pub siblings: u64,
    /// No key ends before this; 0 when none has a deadline.
    pub next_deadline: u64,
}

impl Tally {
    /// Adds another region's facts.
    pub fn add(&mut self, other: &Tally) {
        self.keys += other.keys;
        self.expiring += other.expiring;
        self.voids += other.voids;
        self.siblings += other.siblings;
        self.next_deadline = match (self.next_deadline, other.next_deadline) {
            (0, one) | (one, 0) => one,
            (one, another) => one.min(another),
        };
    }
}

/// What one row adds to a [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowFacts {
    present: bool,
    /// It has an end as a plain read answers it.
    expiring: bool,
    void: bool,
    siblings: bool,
}

impl RegionState {
    /// A region never used before.
    pub fn new(life: &Life) -> Self {
        let state = RegionState { incarnation: life.nonce, ..Self::default() };
        RegionState { actor: Some(life.actor), counter: life.floor, forgot: life.floor, ..state }
    }

    /// Goes on in a new life of the node with what is stored. `same` says whether its actor is that of the life before.
    pub fn wake(&mut self, life: &Life, same: bool) {
        self.incarnation = life.nonce;
        if self.actor.map_or(!same, |actor| actor != life.actor) {
            (self.counter, self.forgot) = (0, 0);
        }
        self.count_as(life);
    }

    /// Counts as the actor of `life` from now on, if it does not yet.
    pub fn follow(&mut self, life: &Life) {
        if self.actor != Some(life.actor) {
            (self.counter, self.forgot) = (0, 0);
            self.count_as(life);
        }
    }

    fn count_as(&mut self, life: &Life) {
        self.actor = Some(life.actor);
        self.counter = self.counter.max(self.clock.highest(life.actor)).max(life.floor);
        self.forgot = self.forgot.max(life.floor);
    }

    /// The dot `counter` of whoever gives dots here.
    pub fn dot(&self, counter: u64) -> Dot {
        Dot::new(self.actor.unwrap_or(ActorId(0)), counter)
    }

    /// Whether `dot` is one of this node's that it has not given: somebody knows more of it than it does (rule 6).
    pub fn is_unborn(&self, dot: Dot) -> bool {
        Some(dot.actor) == self.actor && dot.counter > self.counter
    }

    /// The same of any dot in `clock`.
    pub fn has_unborn(&self, clock: &Clock) -> bool {
        self.actor.is_some_and(|actor| clock.highest(actor) > self.counter)
    }

    /// Root, and a hash of all that is known: equal ones mean that nothing has changed.
    pub fn digest_of_all(&self) -> (u128, u64) {
        let mut known = Vec::new();
        self.clock.put(&mut known);
        self.clear.iter().for_each(|clear| clear.put(&mut known));
        (self.tree.root(), xxh3_64(&known))
    }

    /// Replaces the clear that is kept.
    pub fn set_clear(&mut self, clear: Option<Clock>) {
        self.under = clear.as_ref().map_or(0, |clear| {
            let mut raw = Vec::new();
            clear.put(&mut raw);
            xxh3_64(&raw).max(1)
        });
        self.clear = clear;
    }

    /// Remembers a head row as long as there is something to be done about what ended its collections.
    pub fn note_ended(&mut self, row: &Bytes, head: &Cell) {
        match head.hides().is_some() {
            true => drop(self.ended.insert(row.clone())),
            false if self.ended.is_empty() => {}
            false => drop(self.ended.remove(row)),
        }
    }

    /// What is left when the region is forgotten: who counts here and how far (rule 4).
    pub fn forgotten(&self) -> RegionState {
        let incarnation = self.incarnation.wrapping_add(1);
        RegionState { actor: self.actor, counter: self.counter, forgot: self.counter, incarnation, ..Self::default() }
    }

    /// Local facts.
    pub fn tally(&self) -> Tally {
        Tally { next_deadline: self.ends.first().unwrap_or(0), ..self.counts }
    }

    /// Counts a change of a row of `token`; answers whether it made siblings of what was one value or none.
    pub fn count(&mut self, token: Token, before: &Cell, after: &Cell) -> bool {
        let (old, new) = (facts(before), facts(after));
        self.counts.keys = moved(self.counts.keys, old.present, new.present);
        self.counts.expiring = moved(self.counts.expiring, old.expiring, new.expiring);
        self.counts.voids = moved(self.counts.voids, old.void, new.void);
        self.counts.siblings = moved(self.counts.siblings, old.siblings, new.siblings);
        self.ends.moved(token, end_of(before), end_of(after));
        new.siblings && !old.siblings
    }

    /// Digests the change of a head row, and with it what its local facts say of the key's other rows.
    pub fn digest(&mut self, leaf: usize, seed: u64, row: &[u8], before: &Cell, after: &Cell) {
        self.tree.toggle(leaf, difference(seed, row, before, after));
    }

    /// Forgets counts and digest: no row is visible.
    pub fn reset_derived(&mut self) {
        self.tree = HashTree::new();
        self.counts = Tally::default();
        self.ends = Ends::default();
    }

    /// What of the state is stored beside the rows.
    pub fn record(&self) -> Bytes {
        let mut out = Vec::with_capacity(80);
        out.put_u8(RECORD_FORMAT);
        out.put_u64(self.actor.map_or(0, |actor| actor.0));
        put_varint(&mut out, self.counter);
        self.clock.put(&mut out);
        out.put_u8(self.clear.is_some().into());
        if let Some(clear) = &self.clear {
            clear.put(&mut out);
        }
        put_varint(&mut out, self.forgot);
        out.into()
    }

    /// The state of a record; counts and tree are for a scan to rebuild.
    pub fn of_record(raw: Bytes) -> Decoded<RegionState> {
        let mut reader = Reader::new(raw);
        let format = reader.u8()?;
        let (actor, counter) = match format {
            OLD_RECORD_FORMAT => (None, 0),
            RECORD_FORMAT => (Some(ActorId(reader.u64()?)), reader.varint()?),
            _ => return Err(DecodeError::Unknown("region record")),
        };
        let clock = Clock::read(&mut reader)?;
        let clear = match reader.u8()? {
            0 => None,
            _ => Some(Clock::read(&mut reader)?),
        };
        let mut state = RegionState {
            clock,
            hidden_until: clear.is_some().then_some(Ticket(0)),
            actor,
            counter,
            forgot: reader.varint()?,
            ..RegionState::default()
        };
        state.set_clear(clear);
        if format == OLD_RECORD_FORMAT {
            // An incarnation, when those were stored.
            reader.varint()?;
        }
        reader.finish()?;
        Ok(state)
    }
}

/// Without actor and counter: clocks were never forgotten, and said how far the node had counted.
const OLD_RECORD_FORMAT: u8 = 1;
const RECORD_FORMAT: u8 = 2;

/// The key under which a region's record is stored.
pub fn record_key(region: Region) -> Bytes {
    let mut out = Vec::with_capacity(4);
    out.put_u8(b'R');
    put_region(region, &mut out);
    out.into()
}

/// Which leaf of its partition's tree a token belongs to: leaves are equal ranges of tokens.
pub fn leaf_of(partitions: Partitions, token: Token) -> usize {
    let (first, width) = span(partitions, partitions.of_token(token));
    // Widths are powers of two.
    ((token.raw() - first) >> width.ilog2().saturating_sub(LEAVES.ilog2())) as usize
}

/// The tokens of a leaf: first, and the one after the last.
pub fn tokens_of_leaf(partitions: Partitions, partition: Partition, leaf: usize) -> (u64, u64) {
    let (first, width) = span(partitions, partition);
    let at = |leaf: usize| first + ((u128::from(width) * leaf as u128).div_ceil(LEAVES as u128)) as u64;
    (at(leaf), at(leaf + 1))
}

/// First token and number of tokens of a partition; nothing of one that does not exist.
pub fn span(partitions: Partitions, partition: Partition) -> (u64, u64) {
    match partitions.tokens(partition) {
        Some(tokens) => (tokens.start().raw(), tokens.end().raw() - tokens.start().raw() + 1),
        None => (0, 1),
    }
}

/// The hash of a row: its key and the dots of its versions, keyed by the cluster's `seed` so that nobody outside can
/// choose rows that cancel out. What a dot says never changes, so its payload adds nothing; the engine's own checksums
/// watch over stored bytes. An absent row is 0.
pub fn row_hash(seed: u64, row: &[u8], cell: &Cell) -> u128 {
    if cell.is_empty() {
        return 0;
    }
    let mut bytes: SmallVec<[u8; 128]> = SmallVec::from_slice(row);
    for dot in cell.dots() {
        bytes.extend_from_slice(&dot.actor.0.to_be_bytes());
        bytes.extend_from_slice(&dot.counter.to_be_bytes());
    }
    xxh3_128_with_seed(&bytes, seed)
}

/// What the change of a head row makes of the digest, and with it what its local facts say of the key's other rows.
pub fn difference(seed: u64, row: &[u8], before: &Cell, after: &Cell) -> u128 {
    let others = |head: &Cell| head.local().map_or(0, Local::digest);
    row_hash(seed, row, before) ^ row_hash(seed, row, after) ^ others(before) ^ others(after)
}

/// What a head row adds.
fn facts(cell: &Cell) -> RowFacts {
    // At time 0 nothing has expired: what is counted is what is there.
    let visible = Visible::of(cell.versions(), 0);
    let more = cell.local().is_some();
    let present = visible.is_some() || (more && kind_of_head(cell, 0).is_some());
    let void = !present && cell.versions().iter().any(|version| matches!(version.payload, Payload::Void(_)));
    RowFacts {
        present,
        expiring: match more {
            true => next_end_of_head(cell, 0).is_some(),
            false => visible.as_ref().is_some_and(|visible| visible.deadline().ms().is_some()),
        },
        void,
        siblings: visible.is_some_and(|visible| visible.values().nth(1).is_some()),
    }
}

fn moved(count: u64, old: bool, new: bool) -> u64 {
    (count + u64::from(new)).saturating_sub(u64::from(old))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causality::payload::Value;
    use crate::causality::{Stamp, Version};

    /// A row of so many plain values.
    fn row(values: u64) -> Cell {
        let mut cell = Cell::default();
        (1..=values).for_each(|at| {
            let payload = Payload::Value(Value::plain("v".into()));
            cell.insert(Version { dot: Dot::new(ActorId(1), at), stamp: Stamp::at(at), payload });
        });
        cell
    }

    #[test]
    fn a_row_becomes_siblings_once_however_many_values_come_after_the_second() {
        let mut state = RegionState::default();
        let steps =
            [(0, 1, false, 0), (1, 2, true, 1), (2, 3, false, 1), (3, 1, false, 0), (1, 3, true, 1), (3, 0, false, 0)];
        for (before, after, made, siblings) in steps {
            assert_eq!(state.count(Token::MAX, &row(before), &row(after)), made, "{before} to {after}");
            assert_eq!(state.tally().siblings, siblings, "{before} to {after}");
        }
        state.count(Token::MAX, &row(0), &row(2));
        let mut sum = state.tally();
        sum.add(&state.tally());
        assert_eq!((sum.siblings, sum.keys), (2, 2));
    }

    #[test]
    fn every_token_of_a_partition_lies_in_the_leaf_that_claims_it() {
        for q in [1u16, 16, 256, 16384] {
            let partitions = Partitions::new(q).unwrap();
            for partition in [0, q / 2, q - 1].map(Partition) {
                let tokens = partitions.tokens(partition).unwrap();
                assert_eq!(tokens_of_leaf(partitions, partition, 0).0, tokens.start().raw());
                assert_eq!(tokens_of_leaf(partitions, partition, LEAVES - 1).1, tokens.end().raw() + 1);
                for leaf in [0, 1, 511, LEAVES - 1] {
                    let (first, end) = tokens_of_leaf(partitions, partition, leaf);
                    assert_eq!(leaf_of(partitions, Token::from_raw(first).unwrap()), leaf);
                    assert_eq!(leaf_of(partitions, Token::from_raw(end - 1).unwrap()), leaf);
                }
            }
        }
    }
}
