//! A replica of one region as the rules want it, built on the real causality types; and a ghost that knows which
//! versions ought to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use redynamo::base::id::ActorId;
use redynamo::base::rng::Rng;
use redynamo::causality::{Cell, Clock, Dot, Known, Payload, RowChange, Stamp, Value, Version};

use crate::seeds::Outcome;

/// Dots that one write of the lease allows.
const LEASE: u64 = 10;

/// A row: its key, and which element of the key.
pub type Row = (u8, u8);

/// What one command changed, as it travels.
#[derive(Debug, Clone, Default)]
pub struct Delta {
    pub row: Row,
    /// Context of a clear of the row's whole key; it goes before the change.
    pub clear: Option<Clock>,
    pub change: RowChange,
}

impl Delta {
    /// The dots it gives.
    pub fn dots(&self) -> impl Iterator<Item = Dot> + '_ {
        self.change.new.iter().map(|version| version.dot)
    }
}

/// What becomes of the context of a clear at those who receive it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keeping {
    /// Applied and forgotten: wrong.
    Forget,
    /// Kept until the own clock covers it, but syncs do not carry it: wrong.
    Keep,
    /// Kept, and carried by syncs: rule 2.
    #[default]
    KeepAndSync,
}

/// When the rows that a clear hides are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sweeping {
    /// With the clear.
    #[default]
    AtOnce,
    /// Later; the clear is kept as long as it hides something.
    Later,
    /// Later, but the clear goes as soon as the clock covers it, hidden rows or not: wrong.
    LaterAndCareless,
}

/// One replica of a region.
#[derive(Debug, Clone)]
pub struct Replica {
    pub actor: ActorId,
    /// The last dot given.
    pub counter: u64,
    /// The last dot that the disk allows.
    pub leased: u64,
    pub rows: BTreeMap<Row, Cell>,
    pub clock: Clock,
    /// Contexts of clears that still hide something, per key.
    pub clears: BTreeMap<u8, Clock>,
    /// Changes whenever rows were lost or let go.
    pub incarnation: u64,
    pub keeping: Keeping,
    pub sweeping: Sweeping,
}

/// What a peer sees of a replica at one time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub rows: BTreeMap<Row, Cell>,
    pub clock: Clock,
    pub clears: BTreeMap<u8, Clock>,
}

impl Snapshot {
    pub fn known(&self, key: u8) -> Known<'_> {
        Known { clock: &self.clock, clear: self.clears.get(&key) }
    }
}

impl Replica {
    pub fn new(actor: u64) -> Self {
        Replica {
            actor: ActorId(actor),
            counter: 0,
            leased: 0,
            rows: BTreeMap::new(),
            clock: Clock::new(),
            clears: BTreeMap::new(),
            incarnation: 0,
            keeping: Keeping::default(),
            sweeping: Sweeping::default(),
        }
    }

    /// Several replicas, actors from 0 on.
    pub fn some(count: u64) -> Vec<Replica> {
        (0..count).map(Replica::new).collect()
    }

    pub fn known(&self, key: u8) -> Known<'_> {
        Known { clock: &self.clock, clear: self.clears.get(&key) }
    }

    /// The row as a client may see it: without what a clear hides.
    pub fn visible(&self, row: Row) -> Cell {
        let known = self.known(row.0);
        self.rows.get(&row).into_iter().flat_map(Cell::versions).filter(|v| !known.clears(v.dot)).cloned().collect()
    }

    /// The visible dots of a row.
    pub fn dots(&self, row: Row) -> Vec<Dot> {
        self.visible(row).dots().collect()
    }

    /// Everything visible.
    pub fn view(&self) -> BTreeMap<Row, Cell> {
        self.rows.keys().map(|row| (*row, self.visible(*row))).filter(|(_, cell)| !cell.is_empty()).collect()
    }

    // --- what happens here; each returns what the others must hear

    /// A plain write: supersedes all that is visible.
    pub fn write(&mut self, row: Row) -> Delta {
        let observed = self.dots(row);
        self.write_over(row, observed)
    }

    /// A write that supersedes exactly these dots, as a PUT with a context.
    pub fn write_over(&mut self, row: Row, observed: Vec<Dot>) -> Delta {
        self.commit(row, Payload::Value(Value::plain("v".into())), observed)
    }

    /// Gives the next dot to a payload.
    pub fn commit(&mut self, row: Row, payload: Payload, superseded: Vec<Dot>) -> Delta {
        let dot = self.next_dot();
        self.commit_at(row, Stamp::at(dot.counter), payload, superseded, dot, None)
    }

    /// The same with everything said. The change is applied here as it is anywhere else.
    pub fn commit_at(
        &mut self,
        row: Row,
        stamp: Stamp,
        payload: Payload,
        superseded: Vec<Dot>,
        dot: Dot,
        clear: Option<Clock>,
    ) -> Delta {
        let new = [Version { dot, stamp, payload }].into_iter().collect();
        self.here(Delta { row, clear, change: RowChange { new, superseded: superseded.into() } })
    }

    /// Removes what is visible of a row; nothing if nothing is.
    pub fn remove(&mut self, row: Row) -> Option<Delta> {
        let superseded = self.dots(row);
        (!superseded.is_empty()).then(|| self.remove_dots(row, superseded))
    }

    pub fn remove_dots(&mut self, row: Row, superseded: Vec<Dot>) -> Delta {
        self.here(Delta {
            row,
            clear: None,
            change: RowChange { new: Default::default(), superseded: superseded.into() },
        })
    }

    /// Deletes a whole key: one message, however many rows.
    pub fn clear(&mut self, key: u8) -> Delta {
        self.here(Delta { row: (key, 0), clear: Some(self.clock.clone()), change: RowChange::default() })
    }

    fn here(&mut self, delta: Delta) -> Delta {
        self.apply(&delta);
        delta
    }

    /// The next dot, never one that the lease on disk does not cover.
    pub fn next_dot(&mut self) -> Dot {
        if self.counter >= self.leased {
            self.leased = self.counter + LEASE;
        }
        self.counter += 1;
        Dot::new(self.actor, self.counter)
    }

    // --- what arrives

    pub fn apply(&mut self, delta: &Delta) {
        let key = delta.row.0;
        if let Some(context) = &delta.clear {
            self.hide(key, context);
        }
        self.with_cell(delta.row, |cell, clock, clear| {
            cell.apply(clock, clear, &delta.change);
        });
        self.forget_spent_clears();
    }

    /// Merges one row; the clocks are joined by whoever compared the whole region.
    pub fn merge_row(&mut self, row: Row, theirs: &Cell, peer: Known<'_>) {
        self.with_cell(row, |cell, clock, clear| cell.merge(clock, clear, theirs, peer));
    }

    /// Reads a row with a peer's help: asks with the visible dots, applies the answer, sends back what the peer lacks.
    pub fn exchange(&mut self, row: Row, peer: &mut Replica) {
        let asked = self.dots(row);
        let answer = peer.rows.get(&row).cloned().unwrap_or_default().answer(peer.known(row.0), &asked);
        let reply = self.rows.get(&row).cloned().unwrap_or_default().reply(self.known(row.0), &answer);
        self.apply(&Delta { row, clear: None, change: answer.change });
        peer.apply(&Delta { row, clear: None, change: reply });
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot { rows: self.rows.clone(), clock: self.clock.clone(), clears: self.clears.clone() }
    }

    /// A whole sync in one go: rows, then clears, then the clock.
    pub fn sync_from(&mut self, peer: &Replica) {
        let peer = peer.snapshot();
        let rows: BTreeSet<Row> = self.rows.keys().chain(peer.rows.keys()).copied().collect();
        for row in rows {
            self.merge_row(row, &peer.rows.get(&row).cloned().unwrap_or_default(), peer.known(row.0));
        }
        self.finish_sync(&peer);
    }

    /// The end of a sync of which all rows have been merged.
    pub fn finish_sync(&mut self, peer: &Snapshot) {
        if self.keeping == Keeping::KeepAndSync {
            peer.clears.iter().for_each(|(key, context)| self.hide(*key, context));
        }
        self.clock.join(&peer.clock);
        self.forget_spent_clears();
    }

    // --- clears

    fn hide(&mut self, key: u8, context: &Clock) {
        self.clears.entry(key).or_default().join(context);
        if self.sweeping == Sweeping::AtOnce || self.keeping == Keeping::Forget {
            self.sweep(key);
        }
        if self.keeping == Keeping::Forget {
            self.clears.remove(&key);
        }
    }

    /// Removes the rows that a clear hides.
    pub fn sweep(&mut self, key: u8) {
        let Some(clear) = self.clears.get(&key) else { return };
        self.rows
            .iter_mut()
            .filter(|(row, _)| row.0 == key)
            .for_each(|(_, cell)| cell.retain(|v| !clear.contains(v.dot)));
        self.rows.retain(|_, cell| !cell.is_empty());
        self.forget_spent_clears();
    }

    fn forget_spent_clears(&mut self) {
        let mut clears = mem::take(&mut self.clears);
        clears.retain(|key, clear| {
            let hides = |cell: &Cell| cell.dots().any(|dot| clear.contains(dot));
            let hides_rows = self.rows.iter().any(|(row, cell)| row.0 == *key && hides(cell));
            !self.clock.covers(clear) || (hides_rows && self.sweeping != Sweeping::LaterAndCareless)
        });
        self.clears = clears;
    }

    fn with_cell(&mut self, row: Row, change: impl FnOnce(&mut Cell, &mut Clock, Option<&Clock>)) {
        let cell = self.rows.entry(row).or_default();
        change(cell, &mut self.clock, self.clears.get(&row.0));
        if cell.is_empty() {
            self.rows.remove(&row);
        }
    }

    // --- losing things

    /// Back to an older state of the disk.
    pub fn roll_back(&mut self, disk: &Snapshot) {
        let Snapshot { rows, clock, clears } = disk.clone();
        (self.rows, self.clock, self.clears) = (rows, clock, clears);
        self.incarnation += 1;
    }
}

/// What ought to be there.
#[derive(Debug, Default)]
pub struct Ghost {
    created: BTreeMap<Dot, Row>,
    gone: BTreeSet<Dot>,
}

impl Ghost {
    /// Takes note of a change that was made. Fails if a dot is given twice.
    pub fn note(&mut self, delta: &Delta) -> Outcome {
        if let Some(context) = &delta.clear {
            let of_key = |(dot, row): &(&Dot, &Row)| row.0 == delta.row.0 && context.contains(**dot);
            self.gone.extend(self.created.iter().filter(of_key).map(|(dot, _)| *dot));
        }
        self.gone.extend(&delta.change.superseded);
        match delta.dots().find(|dot| self.created.insert(*dot, delta.row).is_some()) {
            Some(_) => Err("dot given twice"),
            None => Ok(()),
        }
    }

    /// Whether exactly those versions live that nothing superseded.
    pub fn judge(&self, live: &BTreeSet<Dot>) -> Outcome {
        let wanted: BTreeSet<Dot> = self.created.keys().filter(|dot| !self.gone.contains(dot)).copied().collect();
        match () {
            () if !wanted.is_subset(live) => Err("lost"),
            () if !live.is_subset(&wanted) => Err("resurrected"),
            () => Ok(()),
        }
    }
}

/// Syncs everyone with everyone until all must be equal, and says which dots live.
pub fn settle(replicas: &mut [Replica]) -> Result<BTreeSet<Dot>, &'static str> {
    for _ in 0..3 {
        for me in 0..replicas.len() {
            for peer in (0..replicas.len()).filter(|peer| *peer != me) {
                let peer = replicas[peer].clone();
                replicas[me].sync_from(&peer);
            }
        }
    }
    let views: Vec<_> = replicas.iter().map(Replica::view).collect();
    if views.windows(2).any(|pair| pair[0] != pair[1]) || replicas.windows(2).any(|pair| pair[0].clock != pair[1].clock)
    {
        return Err("diverged");
    }
    Ok(views[0].values().flat_map(Cell::dots).collect())
}

/// Sends a delta to everyone else: into the network, to arrive whenever it does.
pub fn broadcast(network: &mut Vec<(usize, Delta)>, from: usize, count: usize, delta: &Delta) {
    network.extend((0..count).filter(|to| *to != from).map(|to| (to, delta.clone())));
}

/// Takes one of the messages under way.
pub fn take<T>(rng: &mut Rng, network: &mut Vec<T>) -> Option<T> {
    (!network.is_empty()).then(|| network.swap_remove(below(rng, network.len())))
}

/// A number below `bound`, as an index.
pub fn below(rng: &mut Rng, bound: usize) -> usize {
    rng.below(bound as u64) as usize
}

/// One of `count` replicas other than `me`.
pub fn other(rng: &mut Rng, me: usize, count: usize) -> usize {
    (me + 1 + below(rng, count - 1)) % count
}

/// Two different places of a slice at once.
pub fn pair<T>(items: &mut [T], a: usize, b: usize) -> (&mut T, &mut T) {
    let [a, b] = items.get_disjoint_mut([a, b]).expect("two different places");
    (a, b)
}
