//! What every store must do, run on all; and a model that all must agree with.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A store that can be closed and opened again.
trait Subject {
    fn store(&self) -> &dyn Store;
    fn reopen(&mut self);
}

impl Subject for MemoryStore {
    fn store(&self) -> &dyn Store {
        self
    }

    fn reopen(&mut self) {
        self.crash(usize::MAX);
    }
}

struct OnDisk {
    store: Option<DiskStore>,
    segment_bytes: u64,
    dir: TempDir,
}

impl OnDisk {
    fn new() -> Self {
        Self::with_segments(1 << 20)
    }

    /// Rows are carried into tables every few writes.
    fn of_small_segments() -> Self {
        Self::with_segments(300)
    }

    fn with_segments(segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        OnDisk { store: Some(open(dir.path(), segment_bytes)), segment_bytes, dir }
    }
}

impl Subject for OnDisk {
    fn store(&self) -> &dyn Store {
        self.store.as_ref().unwrap()
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(open(self.dir.path(), self.segment_bytes));
    }
}

fn open(path: &Path, segment_bytes: u64) -> DiskStore {
    DiskStore::open(path, DiskOptions { cache_bytes: 1 << 20, segment_bytes, ..DiskOptions::default() }).unwrap()
}

macro_rules! all {
    ($($law:ident),* $(,)?) => {
        mod memory_store {
            $(#[test] fn $law() { super::$law(&mut super::MemoryStore::new()) })*
        }
        mod disk_store {
            $(#[test] fn $law() { super::$law(&mut super::OnDisk::new()) })*
        }
        mod disk_store_of_small_segments {
            $(#[test] fn $law() { super::$law(&mut super::OnDisk::of_small_segments()) })*
        }
    };
}

all![
    a_row_is_what_was_last_put,
    spaces_do_not_mix,
    a_range_is_in_key_order_and_ends_before_its_end,
    visiting_stops_when_told,
    what_no_store_can_hold_is_refused_whole,
    the_longest_key_is_held,
    bounds_longer_than_any_key_stand_between_keys,
    of_several_changes_of_a_row_in_a_batch_the_last_counts,
    the_mark_is_apart_from_the_rows,
    everything_is_there_after_reopening,
    the_fingerprint_stays,
    tending_shows_in_no_row,
];

fn a_row_is_what_was_last_put(subject: &mut dyn Subject) {
    let store = subject.store();
    assert_eq!(store.get(Space::Data, b"k"), Ok(None));
    put(store, Space::Data, "k", "1");
    put(store, Space::Data, "k", "2");
    assert_eq!(store.get(Space::Data, b"k"), Ok(Some("2".into())));
    store.write(vec![Change::put(Space::Data, "k", "")], Durability::Synced).unwrap();
    assert_eq!(store.get(Space::Data, b"k"), Ok(Some(Bytes::new())));
    store.write(vec![Change::remove(Space::Data, "k")], Durability::Buffered).unwrap();
    assert_eq!(store.get(Space::Data, b"k"), Ok(None));
}

fn spaces_do_not_mix(subject: &mut dyn Subject) {
    let store = subject.store();
    let batch = Space::ALL.iter().map(|s| Change::put(*s, "k", s.name())).collect();
    store.write(batch, Durability::Buffered).unwrap();
    for space in Space::ALL {
        assert_eq!(all(store, space), [("k".to_owned(), space.name().to_owned())]);
    }
}

fn a_range_is_in_key_order_and_ends_before_its_end(subject: &mut dyn Subject) {
    let store = subject.store();
    ["c", "a", "b", "bb", "d"].iter().for_each(|k| put(store, Space::Data, k, k));
    let keys = |from: &str, to: &str, limit| -> String {
        let rows = store.range(Space::Data, from.as_bytes(), to.as_bytes(), limit).unwrap();
        rows.iter().map(|(k, _)| std::str::from_utf8(k).unwrap()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(keys("b", "d", 9), "b bb c");
    assert_eq!(keys("b", "d", 2), "b bb");
    assert_eq!(keys("b", "d", 0), "");
    assert_eq!(keys("", "", 9), "a b bb c d");
    assert_eq!(keys("ba", "", 9), "bb c d");
    assert_eq!(keys("d", "b", 9), "");
    assert_eq!(keys("b", "b", 9), "");
}

fn visiting_stops_when_told(subject: &mut dyn Subject) {
    let store = subject.store();
    ["a", "b", "c"].iter().for_each(|k| put(store, Space::Node, k, k));
    let mut seen = 0;
    let visited = store.visit(Space::Node, b"a", b"", &mut |key, _| {
        seen += 1;
        if key == b"b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((visited, seen), (Ok(()), 2));
}

fn what_no_store_can_hold_is_refused_whole(subject: &mut dyn Subject) {
    let store = subject.store();
    for len in [0, 65_536, 1 << 20] {
        let batch = vec![Change::put(Space::Data, "good", "1"), Change::put(Space::Data, vec![b'x'; len], "2")];
        assert_eq!(store.write(batch, Durability::Buffered), Err(StoreError::KeyLength(len)));
        assert_eq!(store.get(Space::Data, &vec![b'x'; len]), Ok(None));
    }
    let reserved = vec![Change::put(Space::Data, "good", "1"), Change::remove(Space::Data, RESERVED_KEY.to_vec())];
    assert_eq!(store.write(reserved, Durability::Buffered), Err(StoreError::KeyReserved));
    assert_eq!(all(store, Space::Data), []);
    put(store, Space::Data, "good", "3");
}

fn the_longest_key_is_held(subject: &mut dyn Subject) {
    let key = vec![0xff; 65_535];
    subject.store().write(vec![Change::put(Space::Hints, key.clone(), "v")], Durability::Synced).unwrap();
    subject.reopen();
    assert_eq!(subject.store().get(Space::Hints, &key), Ok(Some("v".into())));
}

fn bounds_longer_than_any_key_stand_between_keys(subject: &mut dyn Subject) {
    let store = subject.store();
    let full = vec![b'k'; 65_535];
    let mut over = full.clone();
    over.push(0);
    store.write(vec![Change::put(Space::Data, full, "full")], Durability::Buffered).unwrap();
    put(store, Space::Data, "l", "next");
    let values = |from: &[u8], to: &[u8]| -> Vec<Bytes> {
        store.range(Space::Data, from, to, 9).unwrap().into_iter().map(|(_, v)| v).collect()
    };
    assert_eq!(values(b"", &over), ["full"]);
    assert_eq!(values(&over, b""), ["next"]);
    assert_eq!(values(&over, &[over.clone(), vec![1]].concat()), [""; 0]);
}

fn of_several_changes_of_a_row_in_a_batch_the_last_counts(subject: &mut dyn Subject) {
    let store = subject.store();
    let batch = vec![
        Change::put(Space::Data, "a", "1"),
        Change::remove(Space::Data, "b"),
        Change::put(Space::Data, "b", "2"),
        Change::remove(Space::Data, "a"),
    ];
    store.write(batch, Durability::Buffered).unwrap();
    assert_eq!(all(store, Space::Data), [("b".into(), "2".into())]);
}

fn the_mark_is_apart_from_the_rows(subject: &mut dyn Subject) {
    assert_eq!(subject.store().mark(), Ok(None));
    subject.store().set_mark(b"one").unwrap();
    subject.store().set_mark(b"two").unwrap();
    subject.reopen();
    assert_eq!(subject.store().mark(), Ok(Some("two".into())));
    assert!(Space::ALL.iter().all(|s| all(subject.store(), *s).is_empty()));
}

fn everything_is_there_after_reopening(subject: &mut dyn Subject) {
    for round in 0..3 {
        let value = round.to_string();
        put(subject.store(), Space::Data, &format!("k{round}"), &value);
        put(subject.store(), Space::Clocks, "same", &value);
        subject.store().sync().unwrap();
        subject.reopen();
        assert_eq!(all(subject.store(), Space::Data).len(), round + 1);
        assert_eq!(all(subject.store(), Space::Clocks), [("same".into(), value)]);
    }
}

fn the_fingerprint_stays(subject: &mut dyn Subject) {
    let first = subject.store().fingerprint();
    subject.reopen();
    assert_eq!(subject.store().fingerprint(), first);
}

fn tending_shows_in_no_row(subject: &mut dyn Subject) {
    subject.store().tend().unwrap();
    subject.reopen();
    subject.store().tend().unwrap();
    assert!(Space::ALL.iter().all(|s| all(subject.store(), *s).is_empty()));
}

fn put(store: &dyn Store, space: Space, key: &str, value: &str) {
    let change = Change::put(space, key.to_owned(), value.to_owned());
    store.write(vec![change], Durability::Buffered).unwrap();
}

fn all(store: &dyn Store, space: Space) -> Vec<(String, String)> {
    let text = |raw: &[u8]| String::from_utf8(raw.to_vec()).unwrap();
    let mut rows = Vec::new();
    store
        .visit(space, b"", b"", &mut |key, value| {
            rows.push((text(key), text(value)));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

/// One step of the model test.
#[derive(Debug, Clone)]
enum Step {
    Write(Vec<Change>, bool),
    Get(Space, Vec<u8>),
    Range(Space, Vec<u8>, Vec<u8>, usize),
    Sync,
    Tend,
    Reopen,
}

fn space() -> impl Strategy<Value = Space> {
    prop::sample::select(&Space::ALL[..])
}

/// Few different keys, so that rows meet; bytes at both ends of the order.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(&[0u8, 1, 0x4c, 0xff][..]), 1..4)
}

fn change() -> impl Strategy<Value = Change> {
    (space(), key(), prop::option::weighted(0.7, prop::collection::vec(any::<u8>(), 0..40)))
        .prop_map(|(space, key, value)| Change { space, key: key.into(), value: value.map(Bytes::from) })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop::collection::vec(change(), 0..12), any::<bool>()).prop_map(|(batch, synced)| Step::Write(batch, synced)),
        4 => (space(), key()).prop_map(|(space, key)| Step::Get(space, key)),
        4 => (space(), key(), key(), 0..9usize).prop_map(|(space, from, to, limit)| Step::Range(space, from, to, limit)),
        1 => Just(Step::Sync),
        1 => Just(Step::Tend),
        1 => Just(Step::Reopen),
    ]
}

type Model = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

fn agrees_with_the_model(subject: &mut dyn Subject, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Write(batch, synced) => {
                let durability = if *synced { Durability::Synced } else { Durability::Buffered };
                prop_assert_eq!(subject.store().write(batch.clone(), durability), Ok(()));
                batch.iter().for_each(|change| apply(&mut model, change));
            }
            Step::Get(space, key) => {
                let expected = model.get(&(*space, key.clone())).map(|v| Bytes::from(v.clone()));
                prop_assert_eq!(subject.store().get(*space, key), Ok(expected));
            }
            Step::Range(space, from, to, limit) => {
                let expected = rows(&model, *space, from, to).take(*limit).collect::<Vec<_>>();
                prop_assert_eq!(subject.store().range(*space, from, to, *limit), Ok(expected));
                let mut from_end = rows(&model, *space, from, to).collect::<Vec<_>>();
                from_end.reverse();
                from_end.truncate(*limit);
                prop_assert_eq!(subject.store().range_back(*space, from, to, *limit), Ok(from_end));
            }
            Step::Sync => prop_assert_eq!(subject.store().sync(), Ok(())),
            Step::Tend => prop_assert_eq!(subject.store().tend(), Ok(())),
            Step::Reopen => subject.reopen(),
        }
    }
    Ok(())
}

fn apply(model: &mut Model, change: &Change) {
    let row = (change.space, change.key.to_vec());
    match &change.value {
        Some(value) => drop(model.insert(row, value.to_vec())),
        None => drop(model.remove(&row)),
    }
}

fn rows(model: &Model, space: Space, from: &[u8], to: &[u8]) -> impl Iterator<Item = (Bytes, Bytes)> {
    let within = move |key: &[u8]| key >= from && key < to;
    model
        .iter()
        .filter(move |((s, key), _)| *s == space && within(key))
        .map(|((_, key), value)| (Bytes::from(key.clone()), Bytes::from(value.clone())))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_memory_store_agrees_with_the_model(steps in prop::collection::vec(step(), 0..60)) {
        agrees_with_the_model(&mut MemoryStore::new(), &steps)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn the_disk_store_agrees_with_the_model(steps in prop::collection::vec(step(), 0..60)) {
        agrees_with_the_model(&mut OnDisk::new(), &steps)?;
        agrees_with_the_model(&mut OnDisk::of_small_segments(), &steps)?;
    }
}
