//! Tests of drafts: what they read back, which dots they give, and what two replicas make of their changes.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::base::id::{ClusterId, Db, Partition};
use crate::base::num::parse_i64;
use crate::causality::context::ContextKey;
use crate::causality::{Clock, Stamp};
use crate::model::look::RowPage;

const NOW: u64 = 1_000;

/// Rows of one region in a map, with its clock.
struct Rows {
    actor: ActorId,
    cells: HashMap<Bytes, Arc<Cell>>,
    clock: Clock,
    counter: u64,
    forgot: u64,
    broken: bool,
}

impl Heads for Rows {
    fn head(&mut self, row: &Bytes) -> Result<Arc<Cell>, Fault> {
        if self.broken {
            return Err(Fault::Store("gone".into()));
        }
        Ok(self.cells.get(row).cloned().unwrap_or_default())
    }

    fn range(&mut self, _: &Bytes, _: &Bytes, _: usize) -> Result<RowPage, Fault> {
        Ok((Vec::new(), None))
    }

    fn clock(&self) -> Clock {
        self.clock.clone()
    }
}

impl Rows {
    fn new(actor: u64) -> Rows {
        Rows { actor: ActorId(actor), cells: HashMap::new(), clock: Clock::new(), counter: 0, forgot: 0, broken: false }
    }

    /// Runs a draft and commits it; the changes are for the other replica.
    fn edit(&mut self, run: impl FnOnce(&mut Draft)) -> Vec<Changed> {
        self.edit_at(NOW, run)
    }

    fn edit_at(&mut self, now: u64, run: impl FnOnce(&mut Draft)) -> Vec<Changed> {
        let sealer = sealer();
        let context = self.context(now);
        let mut draft = Draft::new(self, &sealer, context);
        run(&mut draft);
        let (changed, counter) = draft.finish();
        self.counter = counter;
        for row in &changed {
            self.apply(row);
            assert_eq!(self.cells[&row.row], row.after, "the change says what became of the row");
        }
        changed.into_vec()
    }

    fn context(&self, now: u64) -> DraftContext {
        DraftContext {
            region: Region { db: Db(0), partition: Partition(0) },
            moment: Moment { now, stamp: Stamp::at(now) },
            actor: self.actor,
            counter: self.counter,
            forgot: self.forgot,
        }
    }

    fn apply(&mut self, changed: &Changed) {
        let cell = Arc::make_mut(self.cells.entry(changed.row.clone()).or_default());
        cell.apply(&mut self.clock, None, &changed.change());
    }

    fn read<T>(&mut self, run: impl FnOnce(&mut Draft) -> T) -> T {
        let mut answer = None;
        assert!(self.edit(|draft| answer = Some(run(draft))).is_empty(), "reading changes nothing");
        answer.unwrap()
    }

    fn text(&mut self, key: &str) -> Option<String> {
        self.read(|draft| draft.text(key.as_bytes()).unwrap()).map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    fn payloads(&self, key: &str) -> Vec<Payload> {
        let cell = self.cells.get(&RowKey::head(Db(0), key.as_bytes())).cloned().unwrap_or_default();
        cell.versions().iter().map(|version| version.payload.clone()).collect()
    }
}

fn sealer() -> Sealer {
    Sealer { cluster: ClusterId(1), key: ContextKey::derive(b"test") }
}

fn set(draft: &mut Draft, key: &str, value: &str) {
    draft.set(key.as_bytes(), Bytes::copy_from_slice(value.as_bytes()), Ttl::Set(Deadline::Never)).unwrap();
}

#[test]
fn a_draft_reads_its_own_writes() {
    let mut rows = Rows::new(1);
    rows.edit(|draft| {
        assert_eq!(draft.text(b"k"), Ok(None));
        set(draft, "k", "41");
        assert_eq!(draft.increment(b"k", 1), Ok(42));
        assert_eq!(draft.text(b"k"), Ok(Some("42".into())));
        assert_eq!(draft.expire(b"k", Deadline::At(NOW + 5)), Ok(true));
        assert_eq!(draft.deadline(b"k"), Ok(Some(Deadline::At(NOW + 5))));
        assert_eq!(draft.remove(b"k"), Ok(true));
        assert_eq!(draft.exists(b"k"), Ok(false));
        assert_eq!(draft.remove(b"k"), Ok(false));
        set(draft, "k", "again");
    });
    assert_eq!(rows.text("k").as_deref(), Some("again"));
}

#[test]
fn versions_made_and_replaced_in_one_draft_leave_only_their_dots() {
    let mut rows = Rows::new(1);
    let changed = rows.edit(|draft| ["a", "b", "c"].iter().for_each(|value| set(draft, "k", value)));
    let [changed] = changed.as_slice() else { panic!("one row") };
    let change = changed.change();
    assert_eq!(change.new.len(), 1);
    assert_eq!(change.new[0].dot, Dot::new(ActorId(1), 3));
    assert_eq!(change.superseded.as_slice(), [Dot::new(ActorId(1), 1), Dot::new(ActorId(1), 2)]);
}

#[test]
fn a_draft_that_changes_nothing_gives_no_dot_and_no_change() {
    let mut rows = Rows::new(1);
    let changed = rows.edit(|draft| {
        assert_eq!(draft.remove(b"k"), Ok(false));
        assert_eq!(draft.expire(b"k", Deadline::Never), Ok(false));
        assert_eq!(draft.reap(b"k"), Ok(false));
    });
    assert!(changed.is_empty());
    assert_eq!(rows.counter, 0);
}

#[test]
fn a_store_that_fails_is_a_fault_of_every_verb() {
    let mut rows = Rows::new(1);
    rows.broken = true;
    let sealer = sealer();
    let context = rows.context(NOW);
    let mut draft = Draft::new(&mut rows, &sealer, context);
    let gone = Fault::Store("gone".into());
    assert_eq!(draft.text(b"k"), Err(gone.clone()));
    assert_eq!(draft.set(b"k", Bytes::new(), Ttl::Keep), Err(gone.clone()));
    assert_eq!(draft.increment(b"k", 1), Err(IncrError::Fault(gone.clone())));
    assert_eq!(draft.remove(b"k"), Err(gone));
    assert!(draft.finish().0.is_empty());
}

#[test]
fn an_increment_refuses_words_and_what_does_not_fit() {
    let mut rows = Rows::new(1);
    rows.edit(|draft| {
        set(draft, "word", "one");
        set(draft, "most", "9223372036854775807");
        assert_eq!(draft.increment(b"word", 1), Err(IncrError::NotAnInteger));
        assert_eq!(draft.increment(b"most", 1), Err(IncrError::Overflow));
        assert_eq!(draft.increment(b"most", -1), Ok(i64::MAX - 1));
        assert_eq!(draft.increment(b"most", 1), Ok(i64::MAX));
    });
}

#[test]
fn an_actor_extends_its_own_run_and_begins_one_after_it_forgot() {
    let mut rows = Rows::new(1);
    rows.edit(|draft| assert_eq!(draft.increment(b"k", 2), Ok(2)));
    rows.edit(|draft| assert_eq!(draft.increment(b"k", 3), Ok(5)));
    let first = Dot::new(ActorId(1), 1);
    assert_eq!(rows.payloads("k"), [Payload::Run(Run { first: Some(first), sum: 5 })]);
    rows.forgot = rows.counter;
    rows.edit(|draft| assert_eq!(draft.increment(b"k", 1), Ok(6)));
    assert_eq!(rows.payloads("k").len(), 2);
    assert_eq!(rows.text("k").as_deref(), Some("6"));
}

#[test]
fn a_deleted_counter_leaves_a_void_only_for_the_runs_of_others() {
    let (mut mine, mut theirs) = (Rows::new(1), Rows::new(2));
    mine.edit(|draft| {
        draft.increment(b"k", 2).unwrap();
        assert_eq!(draft.remove(b"k"), Ok(true));
    });
    assert_eq!(mine.payloads("k").len(), 0);
    theirs.edit(|draft| assert_eq!(draft.increment(b"k", 5), Ok(5))).iter().for_each(|row| mine.apply(row));
    mine.edit(|draft| assert_eq!(draft.remove(b"k"), Ok(true)));
    assert_eq!(mine.payloads("k").len(), 1);
    assert_eq!(mine.text("k"), None);
    assert!(mine.edit(|draft| assert_eq!(draft.reap(b"k"), Ok(false))).is_empty(), "a void is not reaped");
}

#[test]
fn a_counter_that_is_set_again_and_again_remembers_nothing_of_its_own_runs() {
    let mut rows = Rows::new(1);
    for _ in 0..50 {
        rows.edit(|draft| draft.set(b"k", "0".into(), Ttl::Set(Deadline::Never)).unwrap());
        rows.edit(|draft| assert_eq!(draft.increment(b"k", 1), Ok(1)));
    }
    rows.edit(|draft| draft.set(b"k", "0".into(), Ttl::Set(Deadline::Never)).unwrap());
    assert_eq!(rows.payloads("k"), [Payload::Value(Value::plain("0".into()))]);
}

#[test]
fn what_has_expired_is_reaped_once_and_a_new_value_owes_it_nothing() {
    let mut rows = Rows::new(1);
    let until = |draft: &mut Draft, at| draft.set(b"k", "v".into(), Ttl::Set(Deadline::At(at))).unwrap();
    rows.edit(|draft| until(draft, NOW + 10));
    rows.edit_at(NOW + 10, |draft| assert_eq!(draft.reap(b"k"), Ok(false)));
    rows.edit_at(NOW + 11, |draft| {
        assert_eq!(draft.exists(b"k"), Ok(false));
        assert_eq!(draft.reap(b"k"), Ok(true));
        assert_eq!(draft.reap(b"k"), Ok(false));
    });
    rows.edit(|draft| until(draft, NOW + 10));
    rows.edit_at(NOW + 11, |draft| {
        draft.set(b"k", "w".into(), Ttl::Keep).unwrap();
        assert_eq!(draft.deadline(b"k"), Ok(Some(Deadline::Never)));
    });
}

#[test]
fn keeping_the_time_to_live_of_a_counter_moves_it_into_the_value() {
    let mut rows = Rows::new(1);
    rows.edit(|draft| {
        draft.increment(b"k", 5).unwrap();
        draft.expire(b"k", Deadline::At(NOW + 50)).unwrap();
        draft.set(b"k", "5x".into(), Ttl::Keep).unwrap();
        assert_eq!(draft.deadline(b"k"), Ok(Some(Deadline::At(NOW + 50))));
    });
    assert_eq!(rows.payloads("k").len(), 1);
}

#[test]
fn what_is_amended_leaves_its_siblings_and_stays_in_front_of_them() {
    let (mut one, mut other) = (Rows::new(1), Rows::new(2));
    // The other's clock runs a minute ahead.
    let ahead = other.edit_at(NOW + 60_000, |draft| set(draft, "k", "ahead;"));
    one.edit(|draft| set(draft, "k", "behind;"));
    ahead.iter().for_each(|changed| one.apply(changed));
    assert_eq!(one.text("k").as_deref(), Some("ahead;"));
    for (word, value) in [("a;", "ahead;a;"), ("b;", "ahead;a;b;")] {
        one.edit(|draft| {
            let old = draft.text(b"k").unwrap().unwrap();
            draft.amend(b"k", [&old[..], word.as_bytes()].concat().into()).unwrap();
        });
        assert_eq!(one.text("k").as_deref(), Some(value));
        let siblings = one.payloads("k");
        assert_eq!(siblings.len(), 2);
        assert!(siblings.contains(&Payload::Value(Value::plain("behind;".into()))), "{siblings:?}");
    }
}

#[test]
fn what_is_amended_ends_when_what_it_replaces_would_have() {
    let mut rows = Rows::new(1);
    rows.edit(|draft| {
        draft.put_with_context(b"k", "a".into(), Deadline::Never, &Context::default()).unwrap();
        draft.put_with_context(b"k", "b".into(), Deadline::At(NOW + 7), &Context::default()).unwrap();
        draft.amend(b"k", "bc".into()).unwrap();
        assert_eq!(draft.text(b"k"), Ok(Some("bc".into())));
        assert_eq!(draft.deadline(b"k"), Ok(Some(Deadline::At(NOW + 7))));
    });
    rows.edit_at(NOW + 8, |draft| assert_eq!(draft.text(b"k"), Ok(Some("a".into()))));
}

#[test]
fn an_image_takes_siblings_and_deadlines_to_another_key() {
    let mut rows = Rows::new(1);
    rows.edit(|draft| {
        draft.put_with_context(b"k", "a".into(), Deadline::At(NOW + 7), &Context::default()).unwrap();
        draft.put_with_context(b"k", "b".into(), Deadline::Never, &Context::default()).unwrap();
        let image = draft.image(b"k").unwrap().unwrap();
        assert_eq!(image.winner, ("b".into(), Deadline::Never));
        assert_eq!(image.siblings, [("a".into(), Deadline::At(NOW + 7))]);
        set(draft, "l", "in the way");
        draft.put_image(b"l", &image).unwrap();
        assert_eq!(draft.image(b"l"), Ok(Some(image)));
        assert_eq!(draft.siblings(b"l"), Ok(2));
    });
}

#[test]
fn a_context_replaces_what_it_names_also_what_has_not_arrived() {
    let (mut one, mut other) = (Rows::new(1), Rows::new(2));
    let early = one.edit(|draft| set(draft, "k", "early"));
    let text = one.read(|draft| draft.seal(b"k").unwrap());
    let put = other.edit(|draft| {
        let context = draft.open_context(b"k", text.as_bytes()).unwrap();
        draft.put_with_context(b"k", "late".into(), Deadline::Never, &context).unwrap();
    });
    early.iter().for_each(|changed| other.apply(changed));
    put.iter().for_each(|changed| one.apply(changed));
    assert_eq!(other.payloads("k"), [Payload::Value(Value::plain("late".into()))]);
    assert_eq!(one.payloads("k"), other.payloads("k"));
}

#[test]
fn a_context_that_names_a_dot_this_node_never_gave_is_a_fault() {
    let mut rows = Rows::new(1);
    let context = Context { dots: vec![Dot::new(ActorId(1), 9)], ..Context::default() };
    rows.edit(|draft| {
        assert!(matches!(draft.put_with_context(b"k", Bytes::new(), Deadline::Never, &context), Err(Fault::NoDots(_))));
        assert!(matches!(draft.remove_with_context(b"k", &context), Err(Fault::NoDots(_))));
    });
}

/// One thing that a command may do to a key.
#[derive(Debug, Clone)]
enum Verb {
    Set(i64),
    Keep(i64),
    Increment(i64),
    Remove,
    Expire(Deadline),
    Add(i64),
    Replace,
    Rename,
}

fn verb() -> impl Strategy<Value = Verb> {
    let deadline = prop_oneof![Just(Deadline::Never), (0u64..6).prop_map(|ms| Deadline::At(NOW + ms))];
    prop_oneof![
        (-5i64..5).prop_map(Verb::Set),
        (-5i64..5).prop_map(Verb::Keep),
        (-5i64..5).prop_map(Verb::Increment),
        Just(Verb::Remove),
        deadline.prop_map(Verb::Expire),
        (-5i64..5).prop_map(Verb::Add),
        Just(Verb::Replace),
        Just(Verb::Rename),
    ]
}

fn perform(verb: &Verb, draft: &mut Draft, key: &[u8]) {
    let text = |number: &i64| Bytes::from(number.to_string());
    match verb {
        Verb::Set(number) => draft.set(key, text(number), Ttl::Set(Deadline::Never)).unwrap(),
        Verb::Keep(number) => draft.set(key, text(number), Ttl::Keep).unwrap(),
        Verb::Increment(by) => drop(draft.increment(key, *by).unwrap()),
        Verb::Remove => drop(draft.remove(key).unwrap()),
        Verb::Expire(deadline) => drop(draft.expire(key, *deadline).unwrap()),
        Verb::Add(number) => {
            draft.put_with_context(key, text(number), Deadline::Never, &Context::default()).unwrap();
        }
        Verb::Replace => {
            let sealed = draft.seal(key).unwrap();
            let context = draft.open_context(key, sealed.as_bytes()).unwrap();
            draft.put_with_context(key, text(&0), Deadline::Never, &context).unwrap();
        }
        Verb::Rename => {
            if let Some(image) = draft.image(key).unwrap() {
                draft.remove(key).unwrap();
                draft.put_image(b"elsewhere", &image).unwrap();
            }
        }
    }
}

/// Whose turn, when, and what is done in one draft; `None` is a meeting of both.
type Step = Option<(bool, u64, Vec<(bool, Verb)>)>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let draft = (any::<bool>(), 0u64..8, proptest::collection::vec((any::<bool>(), verb()), 1..4));
    proptest::collection::vec(prop_oneof![4 => draft.prop_map(Some), 1 => Just(None)], 1..20)
}

/// Whether a dot is in a change, as new or as superseded.
fn names(changed: &[Changed], dot: Dot) -> bool {
    changed
        .iter()
        .map(Changed::change)
        .any(|change| change.superseded.contains(&dot) || change.new.iter().any(|version| version.dot == dot))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_dot_is_named_and_two_replicas_that_met_are_equal(steps in steps()) {
        let mut sides = [Rows::new(1), Rows::new(2)];
        let mut untold: [Vec<Changed>; 2] = Default::default();
        for step in steps.iter().chain([&None]) {
            let Some((who, later, verbs)) = step else {
                for at in 0..2 {
                    std::mem::take(&mut untold[at]).iter().for_each(|changed| sides[1 - at].apply(changed));
                }
                prop_assert_eq!(&sides[0].clock, &sides[1].clock);
                for key in ["k", "l", "elsewhere"] {
                    prop_assert_eq!(sides[0].payloads(key), sides[1].payloads(key));
                }
                continue;
            };
            let at = usize::from(*who);
            let before = sides[at].counter;
            let changed = sides[at].edit_at(NOW + later, |draft| {
                verbs.iter().for_each(|(which, verb)| perform(verb, draft, if *which { b"k" } else { b"l" }));
            });
            for counter in before + 1..=sides[at].counter {
                prop_assert!(names(&changed, Dot::new(sides[at].actor, counter)));
            }
            for row in sides[at].cells.values() {
                if let Some(visible) = Visible::of(row.versions(), NOW + later) {
                    prop_assert_eq!(visible.integer(), parse_i64(&visible.text()));
                }
            }
            untold[at].extend(changed);
        }
    }
}
