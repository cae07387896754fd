//! Who may give dots: proofs, doubts, new actors, and what a mark says of the life before.

use super::*;
use crate::causality::RowAnswer;
use crate::causality::counter::Seen;
use crate::causality::{Expiry, Run, Value};
use crate::storage::{Fingerprint, StoreError};

fn unborn(replica: &Replica) -> Dot {
    let counter = replica.existing(REGION).map_or(0, |state| state.counter);
    Dot::new(replica.actor(), counter + 1)
}

fn version(dot: Dot, payload: Payload) -> Version {
    Version { dot, stamp: Stamp::at(1), payload }
}

fn value(dot: Dot) -> Version {
    version(dot, Payload::Value(Value::plain("v".into())))
}

fn change(new: impl IntoIterator<Item = Version>, superseded: &[Dot]) -> Delta {
    let change = RowChange { new: new.into_iter().collect(), superseded: superseded.iter().copied().collect() };
    Delta::of_row(REGION, row("k"), change)
}

/// Ways in which a peer or a client can name a dot.
const SAYINGS: usize = 17;

fn say(replica: &Replica, which: usize, dot: Dot) -> Result<(), Fault> {
    let other = Dot::new(ActorId(99), 1 + which as u64);
    let mut seen = Seen::default();
    seen.note(Dot::new(dot.actor, 1), dot.counter, 3);
    let named: Clock = [dot].into_iter().collect();
    let (snapshot, _) = replica.snapshot(REGION)?;
    let incarnation = snapshot.incarnation;
    let apply = |delta: Delta| replica.apply(&delta, 0, false).map(drop);
    let new = |payload| apply(change([version(other, payload)], &[]));
    let plain = || Value::plain("v".into());
    let put = |context: Context| {
        let sealed = context.seal(&sealer(), REGION.db, b"k");
        let put = |draft: &mut Draft| {
            let context = draft.open_context(b"k", sealed.as_bytes()).unwrap();
            draft.put_with_context(b"k", "v".into(), Deadline::Never, &context)
        };
        run(replica, put).map(drop)
    };
    match which {
        0 => apply(change([value(dot)], &[])),
        1 => apply(change([], &[dot])),
        2 => apply(Delta { kept: vec![dot], ..change([value(other)], &[]) }),
        3 => apply(Delta { clear: Some(named), ..Delta::new(REGION) }),
        4 => new(Payload::Value(Value { generation: Some(dot), ..plain() })),
        5 => new(Payload::Value(Value { seen, ..plain() })),
        6 => new(Payload::Void(seen)),
        7 => new(Payload::Run(Run { first: Some(dot), sum: 1 })),
        8 => new(Payload::Expiry(Expiry { deadline: None, generations: vec![dot] })),
        9 => replica.keep(OWNER, &change([value(dot)], &[]), 0, false).map(drop),
        10 => replica.answer(REGION, &row("k"), &[dot]).map(drop),
        11 => replica.merge_rows(REGION, &[(row("k"), Cell::of([value(dot)]))], snapshot.known()).map(drop),
        12 => {
            let peer = Snapshot { clock: named, ..snapshot };
            replica.merge_rows(REGION, &[(row("k"), Cell::default())], peer.known()).map(drop)
        }
        13 => replica.join(REGION, &Snapshot { clock: named, ..snapshot }, incarnation, incarnation).map(drop),
        14 => replica.join(REGION, &Snapshot { clear: Some(named), ..snapshot }, incarnation, incarnation).map(drop),
        15 => put(Context { dots: vec![dot], ..Context::default() }),
        _ => put(Context { seen, ..Context::default() }),
    }
}

#[test]
fn whoever_names_a_dot_that_was_not_given_is_refused_and_has_the_actor_doubted() {
    for which in 0..SAYINGS {
        let (_, replica) = new(1);
        set(&replica, "k", "v");
        let before = clock(&replica);
        let said = say(&replica, which, unborn(&replica));
        assert!(matches!(said, Err(Fault::NoDots(_))), "saying {which}: {said:?}");
        assert!(replica.is_doubted() && replica.is_amnesiac(), "saying {which}");
        assert_eq!(clock(&replica), before, "refused as a whole");
        assert!(replica.hint_stats().is_empty());
        assert!(matches!(run(&replica, |draft| write(draft, "k", "w")), Err(Fault::NoDots(_))));
        assert_eq!(text(&replica, "k").as_deref(), Some("v"));
    }
}

#[test]
fn a_question_may_cause_doubt_and_an_answer_without_dots_does_not() {
    let (_, replica) = new(1);
    set(&replica, "k", "v");
    assert!(!replica.has(REGION, unborn(&replica)));
    assert!(replica.is_doubted(), "somebody asks for a dot of ours that is none");
    let (_, replica) = new(1);
    replica.reply(REGION, &row("k"), &RowAnswer::default()).unwrap();
    assert!(!replica.is_doubted());
}

#[test]
fn what_was_given_what_a_former_actor_gave_and_what_others_gave_is_no_cause_for_doubt() {
    let (store, replica) = new(1);
    set(&replica, "k", "v");
    let all = |replica: &Replica, dot| (0..SAYINGS).try_for_each(|which| say(replica, which, dot));
    assert_eq!(all(&replica, Dot::new(ActorId(1), 1)), Ok(()));
    replica.take_actor(ActorId(2), false).unwrap();
    assert_eq!(all(&replica, Dot::new(ActorId(1), 1_000)), Ok(()), "somebody else's now");
    assert_eq!(all(&replica, Dot::new(ActorId(3), 1_000)), Ok(()));
    replica.committer.commit_pending();
    drop(replica);
    let replica = open(&store, 4);
    replica.prove();
    assert_eq!(replica.actor(), ActorId(2));
    let given_perhaps = Dot::new(ActorId(2), 1_000);
    assert_eq!(all(&replica, given_perhaps), Ok(()), "after an unclean end counters go on above all of them");
    assert!(!replica.is_doubted());
}

#[test]
fn a_region_is_asked_for_its_own_counter() {
    let store = Arc::new(MemoryStore::new());
    let replica = Replica::open(store, Options { databases: 2, ..options(1) }).unwrap();
    for _ in 0..5 {
        set(&replica, "k", "v");
    }
    let elsewhere = Region { db: Db(1), ..REGION };
    let delta = Delta::of_row(
        elsewhere,
        RowKey::head(Db(1), b"k"),
        RowChange { new: [value(Dot::new(ActorId(1), 3))].into_iter().collect(), ..RowChange::default() },
    );
    assert!(matches!(replica.apply(&delta, 0, false), Err(Fault::NoDots(_))), "given in another region only");
}

#[test]
fn a_new_actor_counts_from_its_own_beginning_in_every_region_and_over_a_restart() {
    let (store, replica) = new(1);
    incr(&replica, "n", 1);
    assert!(replica.apply(&change([value(unborn(&replica))], &[]), 0, false).is_err());
    replica.take_actor(ActorId(2), false).unwrap();
    assert!(replica.is_proven() && !replica.is_doubted());
    assert!(replica.is_amnesiac(), "what was doubted has lost something");
    let made = incr(&replica, "n", 2).rows[0].1.new[0].clone();
    assert_eq!(made.dot, Dot::new(ActorId(2), 1));
    assert_eq!(made.payload, Payload::Run(Run { first: None, sum: 2 }), "another's run is not extended");
    replica.recovered().unwrap();
    assert!(!replica.is_amnesiac());
    let replica = stop_and_start(&store, &replica, 3);
    assert!(!replica.is_amnesiac());
    let made = incr(&replica, "n", 3).rows[0].1.new[0].clone();
    assert_eq!((made.dot, text(&replica, "n").as_deref()), (Dot::new(ActorId(2), 2), Some("6")));
    assert_eq!(made.payload, Payload::Run(Run { first: Some(Dot::new(ActorId(2), 1)), sum: 5 }));
}

#[test]
fn the_mark_is_on_disk_before_the_first_dot_of_a_new_actor() {
    let (store, replica) = new(1);
    store.fail_writes("full");
    assert!(matches!(replica.take_actor(ActorId(2), false), Err(StoreError::Failed(_))));
    assert_eq!(replica.actor(), ActorId(1));
    store.heal();
    replica.take_actor(ActorId(2), false).unwrap();
    store.crash(0);
    drop(replica);
    assert_eq!(open(&store, 3).actor(), ActorId(2));
}

#[test]
fn an_actor_of_a_former_life_gives_no_dot_before_it_is_proven() {
    let (store, replica) = new(1);
    assert!(replica.is_proven(), "a new one has no former life");
    replica.retire().unwrap();
    let replica = open(&store, 2);
    assert!(replica.is_continued() && !replica.is_proven());
    assert!(matches!(run(&replica, |draft| write(draft, "k", "v")), Err(Fault::NoDots(_))));
    let (_, told) = run(&replica, |draft| draft.remove(b"k")).unwrap();
    assert!(told.is_none(), "what gives no dot is not refused");
    replica.prove();
    set(&replica, "k", "v");
}

/// Opens a disk after what befell it, and says: actor, amnesiac.
fn after(befall: impl FnOnce(&MemoryStore), first: SyncPolicy, returning: bool) -> (u64, bool) {
    let store = Arc::new(MemoryStore::new());
    let replica = Replica::open(store.clone(), Options { sync: first, ..options(1) }).unwrap();
    set(&replica, "k", "v");
    drop(replica);
    befall(&store);
    let next = Replica::open(store, Options { returning, ..options(2) }).unwrap();
    (next.actor().0, next.is_amnesiac())
}

#[test]
fn whoever_may_have_lost_something_is_amnesiac() {
    let (every, always) = (SyncPolicy::EverySec, SyncPolicy::Always);
    assert_eq!(after(|_| {}, every, false), (1, false), "killed: the kernel has it all");
    assert_eq!(after(|store| store.crash(0), every, false), (1, true), "the machine went down");
    assert_eq!(after(|store| store.reboot(), every, false), (1, true), "who knows");
    assert_eq!(after(|store| store.crash(0), always, false), (1, false), "all was synced");
    assert_eq!(after(|store| store.set_fingerprint(Fingerprint(9)), always, false), (2, true), "copied");
    assert_eq!(after(|store| store.wipe(), always, false), (2, false), "a new node");
    assert_eq!(after(|store| store.wipe(), always, true), (2, true), "not to the cluster");
}

#[test]
fn amnesia_lasts_until_it_is_over() {
    let (store, replica) = new(1);
    drop(replica);
    store.reboot();
    let replica = open(&store, 2);
    assert!(replica.is_amnesiac());
    replica.retire().unwrap();
    let replica = open(&store, 3);
    assert!(replica.is_amnesiac(), "stopping in order brings nothing back");
    replica.take_actor(ActorId(4), false).unwrap();
    assert!(replica.is_amnesiac(), "nor does another name");
    replica.recovered().unwrap();
    replica.tend().unwrap();
    drop(replica);
    assert!(!open(&store, 5).is_amnesiac());
}

#[test]
fn a_policy_that_promises_less_comes_into_force_when_the_mark_says_so() {
    let store = Arc::new(MemoryStore::new());
    let replica = Replica::open(store.clone(), Options { sync: SyncPolicy::Always, ..options(1) }).unwrap();
    replica.set_sync_policy(SyncPolicy::No);
    assert_eq!(replica.committer.policy(), SyncPolicy::Always);
    store.fail_writes("full");
    assert!(replica.tend().is_err());
    assert_eq!(replica.committer.policy(), SyncPolicy::Always);
    store.heal();
    replica.set_sync_policy(SyncPolicy::Always);
    replica.tend().unwrap();
    assert_eq!(replica.committer.policy(), SyncPolicy::Always, "taken back in time");
    replica.set_sync_policy(SyncPolicy::EverySec);
    replica.tend().unwrap();
    assert_eq!(replica.committer.policy(), SyncPolicy::EverySec);
    drop(replica);
    store.crash(0);
    assert!(open(&store, 2).is_amnesiac());
}

#[test]
fn the_mark_of_an_earlier_program_is_read_and_says_nothing_of_boots() {
    let store = Arc::new(MemoryStore::new());
    let old = |clean: bool| {
        let mut mark = vec![1];
        mark.extend(5u64.to_be_bytes());
        mark.extend(100u64.to_be_bytes());
        mark.extend(0u64.to_be_bytes());
        mark.push(clean.into());
        mark.extend(0u128.to_be_bytes());
        mark
    };
    store.set_mark(&old(false)).unwrap();
    let replica = open(&store, 1);
    assert_eq!((replica.actor(), replica.is_amnesiac()), (ActorId(5), true));
    replica.prove();
    assert_eq!(set(&replica, "k", "v").rows[0].1.new[0].dot.counter, 101);
    store.write(vec![Change::put(Space::Node, LAST_KEY, 100u64.to_be_bytes().to_vec())], Durability::Synced).unwrap();
    store.set_mark(&old(true)).unwrap();
    assert!(!open(&store, 2).is_amnesiac());
}
