//! Rows that are in the journal and not yet in sorted tables, in order.
//!
//! One [`Overlay`] belongs to one segment. A row is a slice of the frame that went to the journal: nothing is copied and
//! memory is bounded by the segment's size, also when one row is written again and again.
//!
//! ```text
//! groups ── up to 128 leaves each ── up to 32 rows each; at every level the first eight key bytes as a number
//! ```
//!
//! A B+ tree of fixed height, so that a search touches three short arrays of numbers and no key but those that begin
//! alike: 0.2 to 0.4 µs for one of half a million rows, where an ordered map of keys waits for memory a dozen times.
//! Leaves are shared by reference count: a reader takes those of its range and reads them at leisure, and a writer that
//! comes by meanwhile copies the leaf. So a range is one state of the rows, and nobody waits for its end.

use std::cmp::Ordering;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::Space;

/// Most rows of a leaf.
const LEAF_ROWS: usize = 32;

/// Most leaves of a group.
const GROUP_LEAVES: usize = 128;

/// Rows of which memory is asked for at once.
const AT_ONCE: usize = 16;

/// Bytes that come from memory together.
const LINE_BYTES: usize = 64;

/// A row set or removed: key and value behind each other, as in the journal.
#[derive(Debug, Clone)]
pub(super) struct Row {
    bytes: Bytes,
    key_len: u16,
    removed: bool,
}

/// What the key's first eight bytes say, with zeros for those that it lacks: sorts as the key does, as far as it goes.
type Prefix = u64;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    spaces: [Index; Space::ALL.len()],
}

/// The rows of one space.
#[derive(Debug, Default)]
struct Index {
    lows: Vec<Prefix>,
    groups: Vec<Group>,
    rows: usize,
}

#[derive(Debug, Default)]
struct Group {
    lows: Vec<Prefix>,
    leaves: Vec<Arc<Leaf>>,
}

/// Neighbouring rows, in one piece of memory. They lie as they came, and only their short prefixes and places are kept in
/// order: an insert touches five lines of memory that nobody has in the cache, where making room among the rows themselves
/// touched twenty.
#[derive(Debug, Clone)]
struct Leaf {
    len: usize,
    places: [u8; LEAF_ROWS],
    prefixes: [Prefix; LEAF_ROWS],
    rows: [Option<Row>; LEAF_ROWS],
}

impl Row {
    /// A row whose first `key_len` bytes are its key.
    pub fn new(bytes: Bytes, key_len: u16, removed: bool) -> Row {
        Row { bytes, key_len, removed }
    }

    /// Its key.
    pub fn key(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.key_len)).unwrap_or_default()
    }

    /// Its key, sharing the frame's memory.
    pub fn key_bytes(&self) -> Bytes {
        self.bytes.slice(..usize::from(self.key_len).min(self.bytes.len()))
    }

    /// Its value, sharing the frame's memory; none if the row is removed.
    pub fn value(&self) -> Option<Bytes> {
        (!self.removed).then(|| self.bytes.slice(usize::from(self.key_len).min(self.bytes.len())..))
    }
}

impl Overlay {
    /// Sets or removes a row.
    pub fn put(&mut self, space: Space, row: Row) {
        if let Some(index) = self.spaces.get_mut(space as usize) {
            index.put(row);
        }
    }

    /// Sets or removes rows, in order. Before the first is put, all that they lie beside is looked at: memory answers many
    /// who ask at once nearly as fast as one, and a row alone would wait for it three times over.
    pub fn put_all(&mut self, rows: impl IntoIterator<Item = (Space, Row)>) {
        let mut rows = rows.into_iter();
        loop {
            let some: SmallVec<[(Space, Row); AT_ONCE]> = rows.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return;
            }
            self.look_at(&some);
            some.into_iter().for_each(|(space, row)| self.put(space, row));
        }
    }

    fn look_at(&self, rows: &[(Space, Row)]) {
        let leaves: SmallVec<[(&Arc<Leaf>, &Row); AT_ONCE]> =
            rows.iter().filter_map(|(space, row)| Some((self.index(*space)?.leaf(row.key())?, row))).collect();
        // Whether a reader shares it stands on a line of its own.
        black_box(leaves.iter().fold(0, |seen, (leaf, _)| seen ^ leaf.touch() ^ Arc::strong_count(leaf) as u64));
        black_box(leaves.iter().fold(0, |seen, (leaf, row)| seen ^ leaf.touch_row(prefix(row.key()))));
    }

    /// What is known of a row; none if another overlay or the tables have to be asked.
    pub fn get(&self, space: Space, key: &[u8]) -> Option<&Row> {
        self.index(space)?.get(key)
    }

    /// The rows of `[from, to)` as they are now; an empty `to` means no upper end.
    pub fn range(&self, space: Space, from: &[u8], to: &[u8]) -> Rows {
        self.index(space).map_or_else(Rows::default, |index| index.range(from, to))
    }

    /// How many rows it has of a space.
    pub fn rows(&self, space: Space) -> usize {
        self.index(space).map_or(0, |index| index.rows)
    }

    fn index(&self, space: Space) -> Option<&Index> {
        self.spaces.get(space as usize)
    }
}

impl Index {
    fn put(&mut self, row: Row) {
        let prefix = prefix(row.key());
        let at = seek(&self.lows, prefix, |at| self.groups.get(at).and_then(Group::first), row.key());
        let Some(group) = self.groups.get_mut(at) else {
            self.lows.push(prefix);
            self.groups.push(Group { lows: vec![prefix], leaves: vec![Arc::new(Leaf::of(prefix, row))] });
            self.rows = 1;
            return;
        };
        self.rows += usize::from(group.put(prefix, row));
        if let (Some(low), Some(first)) = (self.lows.get_mut(at), group.lows.first()) {
            *low = *first;
        }
        if group.leaves.len() > GROUP_LEAVES {
            let upper = group.split();
            self.lows.insert(at + 1, upper.lows.first().copied().unwrap_or_default());
            self.groups.insert(at + 1, upper);
        }
    }

    fn get(&self, key: &[u8]) -> Option<&Row> {
        let leaf = self.leaf(key)?;
        leaf.row(leaf.find(prefix(key), key).ok()?)
    }

    /// The leaf in which `key` is, or would be.
    fn leaf(&self, key: &[u8]) -> Option<&Arc<Leaf>> {
        let prefix = prefix(key);
        let group = self.groups.get(seek(&self.lows, prefix, |at| self.groups.get(at)?.first(), key))?;
        group.leaves.get(group.seek(prefix, key))
    }

    fn range(&self, from: &[u8], to: &[u8]) -> Rows {
        let prefix = prefix(from);
        let first = seek(&self.lows, prefix, |at| self.groups.get(at)?.first(), from);
        let skipped = self.groups.get(first).map_or(0, |group| group.seek(prefix, from));
        let leaves = self.groups.iter().skip(first).flat_map(|group| &group.leaves).skip(skipped);
        let within = |leaf: &&Arc<Leaf>| to.is_empty() || leaf.first().is_some_and(|key| key < to);
        let leaves: Vec<_> = leaves.take_while(within).cloned().collect();
        let row = leaves.first().map_or(0, |leaf| leaf.find(prefix, from).unwrap_or_else(|at| at));
        let mut rows = Rows { leaves, leaf: 0, row, to: Bytes::copy_from_slice(to) };
        rows.settle();
        rows
    }
}

impl Group {
    fn first(&self) -> Option<&[u8]> {
        self.leaves.first()?.first()
    }

    /// The leaf in which `key` is, or would be.
    fn seek(&self, prefix: Prefix, key: &[u8]) -> usize {
        seek(&self.lows, prefix, |at| self.leaves.get(at)?.first(), key)
    }

    /// Says whether the row is new.
    fn put(&mut self, prefix: Prefix, row: Row) -> bool {
        let at = self.seek(prefix, row.key());
        let Some(leaf) = self.leaves.get_mut(at) else { return false };
        let leaf = Arc::make_mut(leaf);
        let place = match leaf.find(prefix, row.key()) {
            Ok(found) => {
                leaf.replace(found, row);
                return false;
            }
            Err(place) => place,
        };
        if let (0, Some(low)) = (place, self.lows.get_mut(at)) {
            *low = prefix;
        }
        if leaf.len < LEAF_ROWS {
            leaf.insert(place, prefix, row);
            return true;
        }
        // Rows that come in order leave full leaves behind them.
        let cut = if place == LEAF_ROWS { LEAF_ROWS } else { LEAF_ROWS / 2 };
        let mut upper = leaf.split_off(cut);
        match place.checked_sub(cut) {
            Some(place) if place > 0 || cut == LEAF_ROWS => upper.insert(place, prefix, row),
            _ => leaf.insert(place, prefix, row),
        }
        self.lows.insert(at + 1, upper.prefixes[0]);
        self.leaves.insert(at + 1, Arc::new(upper));
        true
    }

    fn split(&mut self) -> Group {
        let half = self.leaves.len() / 2;
        Group { lows: self.lows.split_off(half), leaves: self.leaves.split_off(half) }
    }
}

impl Leaf {
    fn empty() -> Leaf {
        Leaf { len: 0, places: [0; LEAF_ROWS], prefixes: [0; LEAF_ROWS], rows: [const { None }; LEAF_ROWS] }
    }

    fn of(prefix: Prefix, row: Row) -> Leaf {
        let mut leaf = Leaf::empty();
        leaf.insert(0, prefix, row);
        leaf
    }

    /// The row that is the `at`th in order.
    fn row(&self, at: usize) -> Option<&Row> {
        let place = self.places.get(..self.len)?.get(at)?;
        self.rows.get(usize::from(*place))?.as_ref()
    }

    fn first(&self) -> Option<&[u8]> {
        self.row(0).map(Row::key)
    }

    /// Reads of every line that a search needs. Branches on nothing that it reads: the next leaf's lines are asked for while
    /// these are on their way.
    fn touch(&self) -> u64 {
        let lines = self.prefixes.iter().step_by(LINE_BYTES / size_of::<Prefix>());
        lines.fold(self.len as u64 ^ u64::from(self.places[0]), |seen, prefix| seen ^ prefix)
    }

    /// Reads of what a row with such a key would replace, if there is one.
    fn touch_row(&self, prefix: Prefix) -> u64 {
        let at = self.prefixes.get(..self.len).unwrap_or_default().partition_point(|p| *p < prefix);
        let key = self.row(at).map(Row::key).unwrap_or_default();
        key.first().zip(key.last()).map_or(0, |(first, last)| u64::from(first ^ last))
    }

    /// Where in order `key` is, or else where it belongs.
    fn find(&self, prefix: Prefix, key: &[u8]) -> Result<usize, usize> {
        let prefixes = self.prefixes.get(..self.len).unwrap_or_default();
        let mut start = prefixes.partition_point(|p| *p < prefix);
        let mut end = start + prefixes.iter().skip(start).take_while(|p| **p == prefix).count();
        while start < end {
            let middle = start.midpoint(end);
            match self.row(middle).map_or(Ordering::Greater, |row| row.key().cmp(key)) {
                Ordering::Equal => return Ok(middle),
                Ordering::Less => start = middle + 1,
                Ordering::Greater => end = middle,
            }
        }
        Err(start)
    }

    fn replace(&mut self, at: usize, row: Row) {
        let place = self.places.get(at).copied().map(usize::from);
        if let Some(old) = place.and_then(|place| self.rows.get_mut(place)) {
            *old = Some(row);
        }
    }

    /// Puts a row into a leaf that is not full, as the `at`th in order.
    fn insert(&mut self, at: usize, prefix: Prefix, row: Row) {
        self.prefixes.copy_within(at..self.len, at + 1);
        self.places.copy_within(at..self.len, at + 1);
        self.prefixes[at] = prefix;
        self.places[at] = self.len as u8;
        self.rows[self.len] = Some(row);
        self.len += 1;
    }

    /// Keeps the first `at` rows, and gives away those behind.
    fn split_off(&mut self, at: usize) -> Leaf {
        let mut whole = std::mem::replace(self, Leaf::empty());
        let mut upper = Leaf::empty();
        for index in 0..whole.len {
            let half = if index < at { &mut *self } else { &mut upper };
            if let Some(row) = whole.rows[usize::from(whole.places[index])].take() {
                half.insert(half.len, whole.prefixes[index], row);
            }
        }
        upper
    }
}

/// Rows of a range in order, removed ones included: one state, whatever is written meanwhile.
#[derive(Debug, Default)]
pub(super) struct Rows {
    leaves: Vec<Arc<Leaf>>,
    leaf: usize,
    row: usize,
    to: Bytes,
}

impl Rows {
    /// The next row.
    pub fn peek(&self) -> Option<&Row> {
        let row = self.leaves.get(self.leaf)?.row(self.row)?;
        (self.to.is_empty() || row.key() < &self.to[..]).then_some(row)
    }

    /// Goes on behind it.
    pub fn advance(&mut self) {
        self.row += 1;
        self.settle();
    }

    fn settle(&mut self) {
        if self.leaves.get(self.leaf).is_some_and(|leaf| self.row >= leaf.len) {
            self.leaf += 1;
            self.row = 0;
        }
    }
}

impl Rows {
    /// The same rows from the end.
    pub fn back(self) -> RowsBack {
        let Rows { mut leaves, leaf, row, to } = self;
        leaves.drain(..leaf.min(leaves.len()));
        let before_to = |last: &Arc<Leaf>| match to.is_empty() {
            true => last.len,
            false => last.find(prefix(&to), &to).unwrap_or_else(|at| at),
        };
        let left = leaves.last().map_or(0, before_to);
        let mut rows = RowsBack { leaves, first: row, left };
        rows.settle();
        rows
    }
}

/// [`Rows`] from the end.
#[derive(Debug, Default)]
pub(super) struct RowsBack {
    leaves: Vec<Arc<Leaf>>,
    /// Rows of the first leaf that are not of the range.
    first: usize,
    /// Rows of the last leaf that are still to come, and those before the range.
    left: usize,
}

impl RowsBack {
    /// The next row.
    pub fn peek(&self) -> Option<&Row> {
        self.leaves.last()?.row(self.left.checked_sub(1)?)
    }

    /// Goes on before it.
    pub fn advance(&mut self) {
        self.left = self.left.saturating_sub(1);
        self.settle();
    }

    fn settle(&mut self) {
        while !self.leaves.is_empty() && self.left <= if self.leaves.len() == 1 { self.first } else { 0 } {
            self.leaves.pop();
            self.left = self.leaves.last().map_or(0, |leaf| leaf.len);
        }
    }
}

impl Iterator for Rows {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let row = self.peek()?.clone();
        self.advance();
        Some(row)
    }
}

/// The last of the parts, which begin at `lows`, that does not begin after `key`; the first if all do. `first` gives a
/// part's first key, asked for only where prefixes are alike.
fn seek<'a>(lows: &[Prefix], prefix: Prefix, first: impl Fn(usize) -> Option<&'a [u8]>, key: &[u8]) -> usize {
    let mut start = lows.partition_point(|low| *low < prefix);
    let mut end = start + lows.get(start..).unwrap_or_default().partition_point(|low| *low == prefix);
    while start < end {
        let middle = start.midpoint(end);
        if first(middle).map_or(Ordering::Greater, |first| first.cmp(key)) == Ordering::Greater {
            end = middle;
        } else {
            start = middle + 1;
        }
    }
    start.saturating_sub(1)
}

fn prefix(key: &[u8]) -> Prefix {
    if let Some(first) = key.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn row(key: &[u8], value: Option<&[u8]>) -> Row {
        let bytes = [key, value.unwrap_or_default()].concat();
        Row::new(bytes.into(), key.len() as u16, value.is_none())
    }

    fn listed(rows: Rows) -> Vec<(Bytes, Option<Bytes>)> {
        rows.map(|row| (row.key_bytes(), row.value())).collect()
    }

    /// Short keys of few bytes, so that prefixes and whole keys meet.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let short = prop::collection::vec(prop::sample::select(&[0u8, 1, 0xff][..]), 1..5);
        let alike = prop::collection::vec(any::<u8>(), 0..3).prop_map(|end| [&[7; 8][..], &end].concat());
        prop_oneof![short, alike]
    }

    proptest! {
        #[test]
        fn it_agrees_with_an_ordered_map(
            rows in prop::collection::vec((key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..4))), 0..400),
            from in key(), to in key(),
        ) {
            let (mut overlay, mut model) = (Overlay::default(), BTreeMap::new());
            overlay.put_all(rows.iter().map(|(key, value)| (Space::Data, row(key, value.as_deref()))));
            for (key, value) in &rows {
                model.insert(Bytes::from(key.clone()), value.clone().map(Bytes::from));
            }
            prop_assert_eq!(overlay.rows(Space::Data), model.len());
            prop_assert_eq!(overlay.rows(Space::Node), 0);
            for (key, _) in &rows {
                prop_assert_eq!(overlay.get(Space::Data, key).map(Row::value), model.get(&key[..]).cloned());
            }
            prop_assert_eq!(overlay.get(Space::Data, &from).map(Row::value), model.get(&from[..]).cloned());
            let within = model.iter().filter(|(k, _)| from[..] <= k[..] && k[..] < to[..]);
            let expected: Vec<_> = within.map(|(k, v)| (k.clone(), v.clone())).collect();
            prop_assert_eq!(listed(overlay.range(Space::Data, &from, &to)), expected);
            prop_assert_eq!(listed(overlay.range(Space::Data, b"", b"")), model.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn many_rows_stay_in_order_whatever_order_they_come_in() {
        let ascending: Vec<u64> = (0..40_000).collect();
        let mut shuffled = ascending.clone();
        Rng::new(3).shuffle(&mut shuffled);
        let descending: Vec<u64> = ascending.iter().rev().copied().collect();
        // The number at the end of keys that begin alike, and at the beginning.
        for tail in [true, false] {
            for order in [&ascending, &shuffled, &descending] {
                let key =
                    |n: &u64| if tail { [&[9; 8][..], &n.to_be_bytes()].concat() } else { n.to_be_bytes().to_vec() };
                let mut overlay = Overlay::default();
                order.iter().for_each(|n| overlay.put(Space::Hints, row(&key(n), Some(b"v"))));
                let keys: Vec<_> = overlay.range(Space::Hints, b"", b"").map(|row| row.key().to_vec()).collect();
                assert_eq!(keys, ascending.iter().map(key).collect::<Vec<_>>());
                assert_eq!(overlay.rows(Space::Hints), ascending.len());
                assert!(order.iter().all(|n| overlay.get(Space::Hints, &key(n)).is_some()));
            }
        }
    }

    #[test]
    fn a_range_is_the_state_of_the_moment_it_was_taken() {
        let mut overlay = Overlay::default();
        (0..200u8).for_each(|n| overlay.put(Space::Data, row(&[n], Some(b"old"))));
        let rows = overlay.range(Space::Data, &[10], &[20]);
        (0..200u8).for_each(|n| overlay.put(Space::Data, row(&[n], None)));
        (0..200u8).for_each(|n| overlay.put(Space::Data, row(&[n, 1], Some(b"new"))));
        let expected: Vec<_> = (10..20u8).map(|n| (Bytes::from(vec![n]), Some(Bytes::from("old")))).collect();
        assert_eq!(listed(rows), expected);
        assert_eq!(overlay.rows(Space::Data), 400);
    }
}
