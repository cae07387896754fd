//! Conflicts, fates and withdrawing.

use super::*;

/// What a command of the property below does.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Set,
    SetIfThere,
    Increment,
    Expire,
    Delete,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![Just(Deed::Set), Just(Deed::SetIfThere), Just(Deed::Increment), Just(Deed::Expire), Just(Deed::Delete)]
}

fn perform(replica: &Replica, deed: Deed) -> Told {
    let done = run(replica, |draft| {
        match deed {
            Deed::Set => write(draft, "k", "7")?,
            Deed::SetIfThere if draft.exists(b"k")? => write(draft, "k", "8")?,
            Deed::SetIfThere => {}
            Deed::Increment => drop(draft.increment(b"k", 1)),
            Deed::Expire => drop(draft.expire(b"k", Deadline::At(1 << 40))?),
            Deed::Delete => drop(draft.remove(b"k")?),
        }
        Ok(())
    });
    done.unwrap().1
}

/// By what the command had before it: what is seen at the other side and was not there.
fn surprises(deed: Deed, known: &BTreeSet<Dot>, after: &Cell) -> bool {
    let unknown = |version: &&Version| !known.contains(&version.dot);
    let visible = Visible::of(after.versions(), 0);
    let values = visible.iter().flat_map(|visible| visible.values()).any(|(version, _)| unknown(&version));
    let sum = |cell: &Cell| Visible::of(cell.versions(), 0).and_then(|visible| visible.runs());
    let adds = |version: &Version| {
        let mut without = after.clone();
        without.remove(version.dot);
        matches!(version.payload, Payload::Run(_)) && sum(&without) != sum(after)
    };
    let runs = after.versions().iter().filter(unknown).any(adds);
    let ends = |version: &Version| matches!(version.payload, Payload::Expiry(_));
    let deadlines = after.versions().iter().filter(unknown).any(ends);
    match deed {
        Deed::Increment => values,
        Deed::Expire => values || runs,
        _ => values || runs || deadlines,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_conflict_is_what_a_conditional_command_had_not_seen(
        history in proptest::collection::vec((any::<bool>(), any_deed(), any::<bool>()), 0..6),
        deed in any_deed(),
    ) {
        let sides = [new(1).1, new(2).1];
        for (side, deed, heard) in history {
            let (me, peer) = (&sides[usize::from(side)], &sides[usize::from(!side)]);
            let told = perform(me, deed);
            if let Some((delta, _)) = told.filter(|_| heard) {
                apply(peer, &delta);
            }
        }
        let mut known: BTreeSet<Dot> = sides[0].cell(REGION, &row("k")).unwrap().dots().collect();
        let Some((delta, conditional)) = perform(&sides[0], deed) else { return Ok(()) };
        prop_assert_eq!(conditional, !matches!(deed, Deed::Set));
        known.extend(delta.rows[0].1.new.iter().map(|version| version.dot));
        let applied = sides[1].apply(&delta, 0, conditional).unwrap();
        let after = sides[1].cell(REGION, &row("k")).unwrap();
        prop_assert!(applied.conflict == (conditional && surprises(deed, &known, &after)), "{delta:?} {after:?}");
        let again = sides[1].apply(&delta, 0, conditional).unwrap();
        prop_assert_eq!(again.conflict, applied.conflict, "as often as it is asked");
    }
}

#[test]
fn an_earlier_part_of_a_run_is_nothing_that_a_command_had_not_seen() {
    let (one, other) = (new(1).1, new(2).1);
    apply(&other, &incr(&one, "k", 1));
    incr(&one, "k", 1);
    apply(&other, &incr(&one, "k", 1));
    let (delta, _) = perform(&one, Deed::Expire).unwrap();
    assert!(!other.apply(&delta, 0, true).unwrap().conflict);
    assert_eq!(other.cell(REGION, &row("k")).unwrap().versions().len(), 3, "it never heard of the second");
}

#[test]
fn commands_that_look_say_so() {
    let (_, replica) = new(1);
    let conditional = |command: &dyn Fn(&mut Draft) -> Result<(), Fault>| run(&replica, command).unwrap().1.unwrap().1;
    assert!(!conditional(&|draft| write(draft, "k", "1")));
    assert!(conditional(&|draft| draft.set(b"k", "2".into(), Ttl::Keep)));
    assert!(conditional(&|draft| draft.text(b"k").and_then(|_| write(draft, "k", "3"))));
    assert!(conditional(&|draft| draft.increment(b"k", 1).map(|_| ()).map_err(|_| unreachable!())));
    assert!(conditional(&|draft| draft.remove(b"k").map(|_| ())));
    let context = Context::default();
    assert!(!conditional(&|draft| draft.put_with_context(b"k", "4".into(), Deadline::Never, &context)));
}

#[test]
fn what_lives_alone_stands_and_what_lives_beside_another_is_contested() {
    let (one, other) = (new(1).1, new(2).1);
    let attempt = set(&one, "k", "mine");
    assert_eq!(one.fate(REGION, &attempt, 0), Ok(Fate::Stands));
    apply(&one, &set(&other, "k", "theirs"));
    assert_eq!(one.fate(REGION, &attempt, 0), Ok(Fate::Contested));
    set(&one, "k", "later");
    assert_eq!(one.fate(REGION, &attempt, 0), Ok(Fate::Replaced));
    assert_eq!(new(3).1.fate(REGION, &attempt, 0), Ok(Fate::Replaced), "nothing is known of it");
    let removal = run(&one, |draft| draft.remove(b"k")).unwrap().1.unwrap().0;
    set(&one, "k", "again");
    assert_eq!(one.fate(REGION, &removal, 0), Ok(Fate::Stands), "what is gone is gone");
}

#[test]
fn the_loser_of_two_set_nx_withdraws_and_answers_so() {
    let (one, other) = (new(1).1, new(2).1);
    let nx = |draft: &mut Draft| -> Result<bool, Fault> {
        let absent = !draft.exists(b"k")?;
        if absent {
            write(draft, "k", "mine")?;
        }
        Ok(absent)
    };
    let (won, told) = run(&one, nx).unwrap();
    let (attempt, _) = told.unwrap();
    assert!(won);
    apply(&one, &set(&other, "k", "theirs"));
    let (won, commit) = one.update_again(REGION, 0, &attempt, nx, Some(|delta, _| delta)).unwrap();
    assert!(!won);
    let withdrawal = commit.unwrap().told.unwrap();
    // In either order, and for those whom the attempt never reached.
    for first in [true, false] {
        let third = new(3).1;
        apply(&third, &set(&new(2).1, "k", "theirs"));
        first.then(|| apply(&third, &attempt));
        apply(&third, &withdrawal);
        apply(&third, &attempt);
        assert_eq!(text(&third, "k").as_deref(), Some("theirs"));
        assert_eq!(third.cell(REGION, &row("k")).unwrap().versions().len(), 1);
    }
}

#[test]
fn a_second_attempt_replaces_what_the_first_had_replaced_for_those_who_never_heard_of_it() {
    let (one, other, third) = (new(1).1, new(2).1, new(3).1);
    let old = set(&other, "k", "old");
    [&one, &third].into_iter().for_each(|replica| apply(replica, &old));
    let attempt = set(&one, "k", "first");
    apply(&one, &set(&other, "k", "theirs"));
    let again = |draft: &mut Draft| write(draft, "k", "second");
    let (_, commit) = one.update_again::<_, _, Fault>(REGION, 0, &attempt, again, Some(|delta, _| delta)).unwrap();
    apply(&third, &commit.unwrap().told.unwrap());
    assert_eq!(third.cell(REGION, &row("k")).unwrap().versions().len(), 1);
    assert_eq!(text(&third, "k").as_deref(), Some("second"));
}

#[test]
fn increments_are_not_withdrawn_and_what_a_withdrawn_value_had_seen_of_them_is_not_forgotten() {
    let (one, other) = (new(1).1, new(2).1);
    let mine = incr(&one, "n", 1);
    assert!(mine.only_runs() && !set(&one, "k", "v").only_runs());
    let nothing = |_: &mut Draft| -> Result<(), Fault> { Ok(()) };
    one.update_again::<_, _, Fault>(REGION, 0, &mine, nothing, Some(|delta, _| delta)).unwrap();
    assert_eq!(text(&one, "n").as_deref(), Some("1"));
    // A SET replaces another's run, which goes on; the SET is withdrawn as a DEL would be.
    apply(&one, &incr(&other, "m", 5));
    let attempt = set(&one, "m", "100");
    let (_, commit) = one.update_again::<_, _, Fault>(REGION, 0, &attempt, nothing, Some(|delta, _| delta)).unwrap();
    let withdrawal = commit.unwrap().told.unwrap();
    apply(&one, &incr(&other, "m", 2));
    assert_eq!(text(&one, "m").as_deref(), Some("2"));
    apply(&other, &attempt);
    apply(&other, &withdrawal);
    assert_eq!(text(&other, "m").as_deref(), Some("2"));
}
