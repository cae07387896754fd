//! Hints, terms, forgetting, conflicts, withdrawing and doubts on replicas over stores in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::base::id::{ClusterId, NodeId, Partition, Term};
use crate::causality::context::{Context, ContextKey};
use crate::causality::expiry::Deadline;
use crate::causality::{Clock, Payload, RowChange, Version};
use crate::model::{Fate, RowKey, Ttl, Visible};
use crate::storage::{Change, Durability, MemoryStore, Space};

const REGION: Region = Region { db: Db(0), partition: Partition(0) };
const OWNER: NodeId = NodeId(7);

/// Told deltas, each with whether its command was conditional.
type Told = Option<(Delta, bool)>;

fn sealer() -> Sealer {
    Sealer { cluster: ClusterId(7), key: ContextKey::derive(b"secret") }
}

fn options(fresh: u64) -> Options {
    Options {
        databases: 1,
        partitions: Partitions::new(1).unwrap(),
        cache_bytes: 1 << 16,
        sealer: sealer(),
        hash_seed: 1,
        fresh_actor: ActorId(fresh),
        returning: false,
        max_skew_ms: 500,
        sync: SyncPolicy::EverySec,
    }
}

fn open(store: &Arc<MemoryStore>, fresh: u64) -> Replica {
    Replica::open(store.clone(), options(fresh)).unwrap()
}

fn new(actor: u64) -> (Arc<MemoryStore>, Replica) {
    let store = Arc::new(MemoryStore::new());
    (store.clone(), open(&store, actor))
}

/// The same in another life, after an end in order.
fn stop_and_start(store: &Arc<MemoryStore>, replica: &Replica, fresh: u64) -> Replica {
    replica.checkpoint().unwrap();
    replica.committer.commit_pending();
    replica.retire().unwrap();
    let next = open(store, fresh);
    next.prove();
    next
}

fn run<T>(replica: &Replica, command: impl FnOnce(&mut Draft) -> Result<T, Fault>) -> Result<(T, Told), Fault> {
    let (answer, commit) = replica.update(REGION, 0, command, Some(|delta, conditional| (delta, conditional)))?;
    replica.committer.commit_pending();
    Ok((answer, commit.and_then(|commit| commit.told)))
}

fn set(replica: &Replica, key: &str, value: &str) -> Delta {
    run(replica, |draft| write(draft, key, value)).unwrap().1.unwrap().0
}

fn write(draft: &mut Draft, key: &str, value: &str) -> Result<(), Fault> {
    draft.set(key.as_bytes(), Bytes::copy_from_slice(value.as_bytes()), Ttl::Set(Deadline::Never))
}

fn incr(replica: &Replica, key: &str, by: i64) -> Delta {
    run(replica, |draft| Ok(draft.increment(key.as_bytes(), by).unwrap())).unwrap().1.unwrap().0
}

fn row(key: &str) -> Bytes {
    RowKey::head(REGION.db, key.as_bytes())
}

fn text(replica: &Replica, key: &str) -> Option<String> {
    let text = replica.view(REGION, 0, |view| view.text(key.as_bytes())).unwrap();
    text.map(|text| String::from_utf8(text.to_vec()).unwrap())
}

fn apply(replica: &Replica, delta: &Delta) {
    replica.apply(delta, 0, false).unwrap();
    replica.committer.commit_pending();
}

fn clock(replica: &Replica) -> Clock {
    replica.snapshot(REGION).unwrap().0.clock
}

// --- clears

#[test]
fn a_clear_that_comes_while_another_is_purged_is_not_let_go_with_it() {
    let (_, replica) = new(1);
    set(&replica, "k", "1");
    replica.clear(REGION, |_| ()).unwrap();
    replica.committer.commit_pending();
    let found = replica.hidden_until(REGION).unwrap();
    // On its way to the store, where the purge looks; hidden before it has arrived.
    let later = |draft: &mut Draft| write(draft, "l", "2");
    replica.update(REGION, 0, later, Some(|_: Delta, _: bool| ())).unwrap();
    replica.clear(REGION, |_| ()).unwrap();
    assert_eq!(replica.purge(REGION, found, &Bytes::new(), 10), Ok(None));
    replica.committer.commit_pending();
    replica.drop_clear(REGION).unwrap();
    assert_eq!((text(&replica, "k"), text(&replica, "l")), (None, None));

    let found = replica.hidden_until(REGION).unwrap();
    assert_eq!(replica.purge(REGION, found, &Bytes::new(), 10), Ok(None));
    replica.committer.commit_pending();
    replica.drop_clear(REGION).unwrap();
    assert_eq!((replica.hidden_until(REGION), text(&replica, "l")), (None, None));
}

// --- looking ahead

#[test]
fn looking_ahead_waits_for_no_lock_and_changes_nothing() {
    let (_, replica) = new(1);
    (0..40).for_each(|n| drop(set(&replica, &format!("k{n}"), "v")));
    let keys: Vec<Bytes> = (0..60).map(|n| format!("k{n}").into()).collect();
    let state = replica.region(REGION);
    let before = state.digest_of_all();
    replica.look_at(REGION.db, &keys);
    assert_eq!(state.digest_of_all(), before);
    drop(state);
    replica.look_at(REGION.db, &keys);
    assert_eq!(replica.region(REGION).digest_of_all(), before);
    assert_eq!((text(&replica, "k0"), text(&replica, "k59")), (Some("v".into()), None));
}

// --- hints

#[test]
fn a_hint_and_the_rows_that_it_changes_are_there_together_or_not_at_all() {
    let (_, writer) = new(1);
    let (store, stand_in) = new(2);
    let delta = set(&writer, "k", "v");
    stand_in.keep(OWNER, &delta, 5, false).unwrap();
    drop(stand_in);
    let stand_in = open(&store, 3);
    assert_eq!((text(&stand_in, "k"), stand_in.hint_stats().len()), (None, 0), "nothing was committed");
    stand_in.keep(OWNER, &delta, 5, false).unwrap();
    assert!(stand_in.keep(OWNER, &delta, 6, false).unwrap().ticket.is_some(), "a hint is kept of what is known, too");
    stand_in.committer.commit_pending();
    drop(stand_in);
    let stand_in = open(&store, 4);
    assert_eq!(text(&stand_in, "k").as_deref(), Some("v"));
    let hints = stand_in.hints_after(OWNER, None, usize::MAX).unwrap();
    assert_eq!(hints, [(1, 5, delta.clone()), (2, 6, delta)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn hints_stay_in_their_order_and_are_counted_over_restarts(steps in proptest::collection::vec((0u8..8, 0usize..6), 1..30)) {
        let (store, mut replica) = new(1);
        let mut kept: BTreeMap<NodeId, Vec<(u64, Delta)>> = BTreeMap::new();
        let mut ms = 0;
        for (at, (step, which)) in steps.into_iter().enumerate() {
            let owner = NodeId(10 + which as u64 % 2);
            let hints = kept.entry(owner).or_default();
            match step {
                0..5 => {
                    ms += 1;
                    let delta = Delta::of_row(REGION, row(&at.to_string()), RowChange::default());
                    replica.keep_own(owner, &delta, ms).unwrap();
                    hints.push((ms, delta));
                }
                5 | 6 if !hints.is_empty() => {
                    let which = which % hints.len();
                    replica.committer.commit_pending();
                    let all = replica.hints_after(owner, None, usize::MAX).unwrap();
                    // Acknowledged twice, and with what nobody ever kept.
                    replica.forget_hints(owner, &[all[which].0, all[which].0, 1_000]).unwrap();
                    hints.remove(which);
                }
                _ => {
                    replica.committer.commit_pending();
                    drop(replica);
                    replica = open(&store, 100 + at as u64);
                }
            }
            replica.committer.commit_pending();
            for (owner, hints) in &kept {
                let found = replica.hints_after(*owner, None, usize::MAX).unwrap();
                prop_assert!(found.is_sorted_by_key(|(number, ..)| *number));
                prop_assert_eq!(&found.iter().map(|(_, ms, delta)| (*ms, delta.clone())).collect::<Vec<_>>(), hints);
                let stats = replica.hint_stats().get(owner).copied().unwrap_or_default();
                prop_assert_eq!(stats.count, hints.len() as u64);
                prop_assert_eq!(stats.oldest_ms, hints.first().map_or(0, |(ms, _)| *ms));
                let stored = store.range(Space::Hints, &owner.0.to_be_bytes(), &(owner.0 + 1).to_be_bytes(), 99).unwrap();
                prop_assert_eq!(stats.bytes, stored.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>());
            }
            prop_assert_eq!(replica.has_hints(REGION.partition), kept.values().any(|hints| !hints.is_empty()));
        }
    }

    #[test]
    fn hints_are_read_page_by_page_without_a_gap(count in 0u64..20, page in 1usize..400) {
        let (_, replica) = new(1);
        let hint = |n: u64| Delta::of_row(REGION, row(&n.to_string()), RowChange::default());
        for n in 0..count {
            replica.keep_own(OWNER, &hint(n), n).unwrap();
        }
        replica.committer.commit_pending();
        let (mut after, mut found) = (None, Vec::new());
        loop {
            let page = replica.hints_after(OWNER, after, page).unwrap();
            let Some((last, ..)) = page.last() else { break };
            after = Some(*last);
            found.extend(page.into_iter().map(|(_, _, delta)| delta));
        }
        prop_assert_eq!(found, (0..count).map(hint).collect::<Vec<_>>());
        prop_assert_eq!(replica.hints_after(OWNER, Some(u64::MAX), 1).unwrap(), []);
    }
}

#[test]
fn over_the_limit_rows_are_kept_and_hints_are_not() {
    let (_, writer) = new(1);
    let (_, stand_in) = new(2);
    stand_in.keep(OWNER, &set(&writer, "a", "1"), 1, false).unwrap();
    stand_in.set_hint_limit(1);
    stand_in.keep(OWNER, &set(&writer, "b", "2"), 2, false).unwrap();
    stand_in.committer.commit_pending();
    let stats = stand_in.hint_stats()[&OWNER];
    assert_eq!((stats.count, stats.skipped, text(&stand_in, "b").as_deref()), (1, 1, Some("2")));
    stand_in.forget_hints(OWNER, &[1, 1, 99]).unwrap();
    assert_eq!(stand_in.hint_stats()[&OWNER], HintStats { skipped: 1, ..HintStats::default() });
    stand_in.keep(OWNER, &set(&writer, "c", "3"), 3, false).unwrap();
    assert_eq!(stand_in.hint_stats()[&OWNER].count, 1, "there is room again");
}

#[test]
fn a_coordinator_that_stands_in_keeps_a_hint_while_it_tells() {
    let (_, replica) = new(1);
    let tell = |delta: Delta, _| replica.keep_own(OWNER, &delta, 3).map(|ticket| (delta, ticket));
    let (_, commit) = replica.update(REGION, 0, |draft| write(draft, "k", "v"), Some(tell)).unwrap();
    let (delta, ticket) = commit.unwrap().told.unwrap().unwrap();
    replica.committer.commit_pending();
    assert!(ticket <= replica.committer.committed());
    assert_eq!(replica.hints_after(OWNER, None, 1).unwrap(), [(1, 3, delta)]);
}

// --- terms

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn terms_never_go_back(steps in proptest::collection::vec((0u8..6, 0u16..3, 0u64..9, 1u64..3), 1..40)) {
        let store = Arc::new(MemoryStore::new());
        let open = |fresh| {
            let partitions = Partitions::new(2).unwrap();
            Replica::open(store.clone(), Options { partitions, ..options(fresh) }).unwrap()
        };
        let (mut replica, mut known) = (open(1), [Term::NONE; 2]);
        for (at, (step, partition, number, node)) in steps.into_iter().enumerate() {
            let (at_most, term) = (usize::from(partition), Term { number, node: NodeId(node) });
            let claim = (Partition(partition), term);
            let before = known.get(at_most).copied();
            if let Some(known) = known.get_mut(at_most).filter(|_| step < 5) {
                *known = (*known).max(term);
            }
            match step {
                0..3 => {
                    // Twice the same partition in one message: the later counts, whatever the order.
                    let (answer, _) = replica.grant(&[claim, (claim.0, Term { number: 0, ..term })]).unwrap();
                    let latest = known.get(at_most).map(|term| (claim.0, *term));
                    prop_assert_eq!(answer, latest.into_iter().chain(latest).collect::<Vec<_>>());
                }
                3 | 4 => {
                    let news = before.is_some_and(|before| before < term);
                    prop_assert_eq!(replica.adopt(claim.0, term).unwrap().is_some(), news);
                }
                _ => {
                    replica.committer.commit_pending();
                    drop(replica);
                    replica = open(2 + at as u64);
                }
            }
            for (at, term) in known.iter().enumerate() {
                prop_assert_eq!(replica.term(Partition(at as u16)), *term);
            }
        }
        prop_assert_eq!(replica.term(Partition(2)), Term::NONE);
    }
}

// --- forgetting

#[test]
fn what_was_forgotten_is_not_brought_back_by_older_notes() {
    let (store, replica) = new(1);
    set(&replica, "a", "1");
    set(&replica, "b", "2");
    let notes = |store: &MemoryStore| store.range(Space::Clocks, b"L", b"M", 99).unwrap().len();
    let before = notes(&store);
    let incarnation = replica.incarnation(REGION);
    replica.forget_region(REGION, replica.digest(REGION)).unwrap().unwrap();
    assert_eq!((text(&replica, "a"), replica.tally(REGION)), (None, Tally::default()), "at once");
    replica.committer.commit_pending();
    assert_ne!(replica.incarnation(REGION), incarnation);
    assert!(notes(&store) > before, "the older notes are still there");
    let later = set(&replica, "c", "3");
    drop(replica);
    let replica = open(&store, 2);
    assert_eq!((text(&replica, "a"), text(&replica, "c").as_deref()), (None, Some("3")));
    let dots: Clock = later.rows[0].1.new.iter().map(|version| version.dot).collect();
    assert_eq!(clock(&replica), dots);
    assert_eq!(replica.tally(REGION).keys, 1);
}

#[test]
fn a_dot_is_not_given_again_after_its_region_was_forgotten() {
    let (store, replica) = new(1);
    let last = |delta: &Delta| delta.rows[0].1.new[0].dot;
    let mut highest = last(&set(&replica, "k", "v"));
    let mut replica = replica;
    for life in 2..5 {
        replica.forget_region(REGION, replica.digest(REGION)).unwrap().unwrap();
        replica = stop_and_start(&store, &replica, life);
        assert!(clock(&replica).is_empty());
        let next = last(&set(&replica, "k", "v"));
        assert_eq!(next, Dot::new(highest.actor, highest.counter + 1), "the next one, in life {life}");
        highest = next;
    }
}

#[test]
fn a_run_that_was_forgotten_is_not_extended_when_it_comes_back() {
    let (store, stand_in) = new(1);
    let (_, owner) = new(2);
    apply(&owner, &incr(&stand_in, "n", 5));
    stand_in.forget_region(REGION, stand_in.digest(REGION)).unwrap().unwrap();
    let stand_in = stop_and_start(&store, &stand_in, 3);
    let told = owner.answer(REGION, &row("n"), &[]).unwrap().change;
    apply(&stand_in, &Delta::of_row(REGION, row("n"), told));
    apply(&owner, &incr(&stand_in, "n", 1));
    assert_eq!(owner.cell(REGION, &row("n")).unwrap().versions().len(), 2);
    assert_eq!((text(&owner, "n"), text(&stand_in, "n")), (Some("6".into()), Some("6".into())));
}

#[test]
fn what_came_since_is_not_forgotten() {
    let (_, replica) = new(1);
    let (_, other) = new(2);
    assert_eq!(replica.forget_region(REGION, replica.digest(REGION)).unwrap(), None, "there is nothing");
    set(&replica, "k", "v");
    for change in 0..3 {
        let before = replica.digest(REGION);
        match change {
            0 => drop(set(&replica, "k", "w")),
            1 => apply(&replica, &set(&other, "l", "v")),
            // Changes neither rows nor clock: it names what is yet to come.
            _ => {
                let clear = [Dot::new(ActorId(9), 1)].into_iter().collect();
                apply(&replica, &Delta { clear: Some(clear), ..Delta::new(REGION) });
            }
        }
        assert_eq!(replica.forget_region(REGION, before).unwrap(), None, "change {change}");
    }
    assert!(text(&replica, "k").is_some());
}

#[test]
fn what_a_stand_in_holds_is_what_it_knows_of_and_does_not_own() {
    let (_, replica) = new(1);
    assert_eq!(replica.regions_outside(|_| false), []);
    set(&replica, "k", "v");
    replica.keep_own(OWNER, &Delta::new(REGION), 1).unwrap();
    assert_eq!(replica.regions_outside(|_| false), [REGION]);
    assert_eq!(replica.regions_outside(|_| true), []);
    replica.forget_region(REGION, replica.digest(REGION)).unwrap();
    assert_eq!(replica.regions_outside(|_| false), []);
    assert!(replica.has_hints(REGION.partition), "hints stay");
}

#[test]
fn nothing_is_joined_across_a_change_of_either_incarnation() {
    let (_, peer) = new(1);
    let (store, mine) = new(2);
    set(&peer, "k", "v");
    let (snapshot, _) = peer.snapshot(REGION).unwrap();
    let began = mine.incarnation(REGION);
    assert_eq!(mine.join(REGION, &snapshot, began, snapshot.incarnation + 1).unwrap(), None);
    assert_eq!(mine.join(REGION, &snapshot, began + 1, snapshot.incarnation).unwrap(), None);
    assert!(clock(&mine).is_empty());
    let mine = open(&store, 3);
    assert_eq!(mine.join(REGION, &snapshot, began, snapshot.incarnation).unwrap(), None, "opened again");
    // Of a region that is not there yet as of any other.
    let (_, mine) = new(4);
    let began = mine.incarnation(REGION);
    mine.merge_rows(REGION, &[(row("k"), Cell::default())], snapshot.known()).unwrap();
    assert!(mine.join(REGION, &snapshot, began, snapshot.incarnation).unwrap().is_some());
    assert_eq!(clock(&mine), snapshot.clock);
}

#[test]
fn a_record_of_an_earlier_program_is_read() {
    let (store, replica) = new(1);
    set(&replica, "k", "v");
    replica.checkpoint().unwrap();
    replica.committer.commit_pending();
    let (mut old, before) = (vec![1], clock(&replica));
    before.put(&mut old);
    old.extend([0, 0, 0]);
    replica.retire().unwrap();
    store.write(vec![Change::put(Space::Clocks, region::record_key(REGION), old)], Durability::Synced).unwrap();
    let next = open(&store, 2);
    next.prove();
    assert_eq!(clock(&next), before);
    let dot = set(&next, "k", "w").rows[0].1.new[0].dot;
    assert_eq!(dot, Dot::new(ActorId(1), 2));
}

#[path = "tests_collections.rs"]
mod collections;
#[path = "tests_doubt.rs"]
mod doubt;
#[path = "tests_ends.rs"]
mod ends;
#[path = "tests_intake.rs"]
mod intake;
#[path = "tests_reconsider.rs"]
mod reconsider;

#[test]
fn a_key_whose_winner_ends_before_its_sibling_is_reaped_when_that_ends_as_well() {
    let ((_, here), (_, there)) = (new(1), new(2));
    let until = |ms| move |draft: &mut Draft| draft.set(b"k", "v".into(), Ttl::Set(Deadline::At(ms)));
    let (((), told), ((), _)) = (run(&there, until(20_000)).unwrap(), run(&here, until(10_000)).unwrap());
    let earlier = here.cell(REGION, &RowKey::head(Db(0), b"k")).unwrap().versions()[0].clone();
    let (mut sibling, _) = told.unwrap();
    // Whichever comes first in the order of stamps: the one that ends first is to be the winner.
    sibling.rows[0].1.new[0].stamp = crate::causality::Stamp::at(earlier.stamp.ms().saturating_sub(1));
    here.apply(&sibling, 5, false).unwrap();
    assert_eq!(here.expired(REGION, 15_000, 9).unwrap(), Vec::<Bytes>::new(), "its sibling is there");
    assert_eq!(here.tally(REGION).next_deadline, 20_000);
    assert_eq!(here.expired(REGION, 25_000, 9).unwrap(), [Bytes::from_static(b"k")]);
}
