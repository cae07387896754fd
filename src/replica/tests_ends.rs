//! What has expired, as the index of ends has it, against a look at every row.

use super::*;
use crate::replica::heads::decode;

/// What is done to a key, or to all of them.
#[derive(Debug, Clone, Copy)]
enum Step {
    Set(Option<u64>),
    Increment,
    Expire(Option<u64>),
    Delete,
    Reap,
    Clear,
    /// The other replica hears everything that was done here and that it has not heard.
    Tell,
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::option::of(1..40u64).prop_map(Step::Set),
        2 => Just(Step::Increment),
        4 => proptest::option::of(1..40u64).prop_map(Step::Expire),
        1 => Just(Step::Delete),
        1 => Just(Step::Reap),
        1 => Just(Step::Clear),
        3 => Just(Step::Tell),
        1 => Just(Step::Restart),
    ]
}

struct Side {
    store: Arc<MemoryStore>,
    replica: Replica,
    untold: Vec<Delta>,
}

impl Side {
    fn new(actor: u64) -> Side {
        let (store, replica) = super::new(actor);
        Side { store, replica, untold: Vec::new() }
    }

    fn step(&mut self, step: Step, key: &str, now: u64, other: &Side) {
        match step {
            Step::Clear => {
                let cleared = self.replica.clear(REGION, |delta| delta).unwrap();
                self.untold.extend(cleared.map(|(_, delta)| delta));
            }
            Step::Tell => self.untold.drain(..).for_each(|delta| apply(&other.replica, &delta)),
            Step::Restart => self.replica = stop_and_start(&self.store, &self.replica, 9),
            _ => self.change(step, key, now),
        }
        self.replica.committer.commit_pending();
    }

    fn change(&mut self, step: Step, key: &str, now: u64) {
        let key = key.as_bytes();
        let change = |draft: &mut Draft| {
            match step {
                Step::Set(end) => draft.set(key, "v".into(), Ttl::Set(end.into()))?,
                Step::Increment => drop(draft.increment(key, 1)),
                Step::Expire(end) => drop(draft.expire(key, end.into())?),
                Step::Reap => drop(draft.reap(key)?),
                _ => drop(draft.remove(key)?),
            }
            Ok::<(), Fault>(())
        };
        let (_, commit) = self.replica.update(REGION, now, change, Some(|delta, _| delta)).unwrap();
        self.untold.extend(commit.and_then(|commit| commit.told));
    }

    /// The obvious way.
    fn scan(&self, now: u64) -> BTreeSet<Bytes> {
        let clear = self.replica.existing(REGION).and_then(|state| state.clear.clone());
        let rows = self.store.range(Space::Data, &[], &[], usize::MAX).unwrap();
        let expired = rows.into_iter().filter(|(_, raw)| {
            let mut cell = decode(raw).unwrap();
            cell.retain(|version| !clear.as_ref().is_some_and(|clear| clear.contains(version.dot)));
            Visible::of(cell.versions(), 0).is_some() && Visible::of(cell.versions(), now).is_none()
        });
        expired.map(|(row, _)| RowKey::decode(row).unwrap().key).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_due_is_what_a_look_at_every_row_finds(
        steps in proptest::collection::vec((any::<bool>(), any_step(), 0..6u8, 0..30u64), 1..40),
        moments in proptest::collection::vec(0..50u64, 3),
    ) {
        let mut sides = [Side::new(1), Side::new(2)];
        for (second, step, key, now) in steps {
            let [here, there] = &mut sides;
            let (here, there) = if second { (there, here) } else { (here, there) };
            here.step(step, &format!("k{key}"), now, there);
        }
        for side in &sides {
            for now in &moments {
                let found = side.replica.expired(REGION, *now, usize::MAX).unwrap();
                prop_assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), side.scan(*now));
                prop_assert_eq!(found.len(), side.scan(*now).len(), "each once");
            }
            let first = side.replica.tally(REGION).next_deadline;
            prop_assert!(first == 0 || side.scan(first).is_empty());
            prop_assert!(first == 0 || !side.scan(first + 1).is_empty());
        }
    }
}

#[test]
fn what_is_due_is_found_without_a_look_at_what_is_not() {
    let (_, replica) = new(1);
    for key in 0..2_000u64 {
        let end = if key % 200 == 0 { Some(10) } else { Some(1_000_000).filter(|_| key % 2 == 0) };
        let set = |draft: &mut Draft| draft.set(format!("k{key}").as_bytes(), "v".into(), Ttl::Set(end.into()));
        run(&replica, set).unwrap();
    }
    let due = replica.existing(REGION).unwrap().ends.due(20, usize::MAX);
    assert_eq!(due.len(), 10, "so many places are looked at");
    assert_eq!(replica.expired(REGION, 20, usize::MAX).unwrap().len(), 10);
    assert_eq!(replica.expired(REGION, 20, 4).unwrap().len(), 4);
    assert_eq!(replica.tally(REGION).next_deadline, 10);
}

#[test]
fn two_keys_of_one_place_that_end_together_are_both_remembered() {
    let mut ends = super::super::ends::Ends::default();
    let token = crate::ring::slot::Token::MAX;
    ends.moved(token, None, Some(5));
    ends.moved(token, None, Some(5));
    ends.moved(token, Some(5), Some(9));
    assert_eq!((ends.first(), ends.due(6, 9).len()), (Some(5), 1));
    ends.moved(token, Some(5), None);
    assert_eq!((ends.first(), ends.due(6, 9).len(), ends.due(10, 9).len()), (Some(9), 0, 1));
}
