//! Collections on replicas over stores in memory: local facts, clearing by a clock, and three replicas that lose messages,
//! sync, restart, sweep and forget.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::base::kind::{Kind, Role};
use crate::base::rng::Rng;
use crate::causality::{Known, Local};
use crate::model::look::PAGE;
use crate::model::{Look, Span};
use crate::storage::HashTree;
use crate::storage::tree::LEAVES;

const SET: Kind = Kind::Set;

fn add(replica: &Replica, key: &str, member: &str) -> Result<(bool, Told), Fault> {
    run(replica, |draft| {
        draft.begin(key.as_bytes(), SET)?;
        draft.put_element(key.as_bytes(), SET, member.as_bytes(), Bytes::new(), Ttl::Set(Deadline::Never))
    })
}

fn remove(replica: &Replica, key: &str, member: &str) -> Result<(bool, Told), Fault> {
    run(replica, |draft| draft.remove_element(key.as_bytes(), SET, member.as_bytes()))
}

fn members(replica: &Replica, key: &str) -> Vec<String> {
    let mut found = Vec::new();
    replica
        .view(REGION, 0, |view| {
            let Some(held) = view.open(key.as_bytes(), SET)? else { return Ok(()) };
            view.each(key.as_bytes(), held, |element| {
                found.push(String::from_utf8(element.name.to_vec()).unwrap());
                Ok::<(), Fault>(())
            })
        })
        .unwrap();
    found
}

fn count(replica: &Replica, key: &str) -> Option<u64> {
    replica.view(REGION, 0, |view| view.open(key.as_bytes(), SET)).unwrap().map(|held| held.count)
}

fn local(replica: &Replica, head: &Bytes) -> Option<Local> {
    replica.cell(REGION, head).unwrap().local().cloned()
}

fn stored(replica: &Replica) -> usize {
    replica.committer.commit_pending();
    replica.stored_rows(REGION).unwrap().len()
}

/// Sweeps up what was cleared.
fn sweep(replica: &Replica) {
    for head in replica.ended(REGION) {
        let Some(hidden) = replica.hidden_in(REGION, &head).unwrap() else { continue };
        replica.committer.commit_pending();
        let mut from = Some(Bytes::new());
        while let Some(row) = from {
            from = replica.purge_key(REGION, &head, &row, 3).unwrap();
        }
        replica.purged_key(REGION, &head, &hidden).unwrap();
        replica.committer.commit_pending();
    }
}

#[test]
fn elements_are_counted_read_in_order_and_gone_when_the_last_is_removed() {
    let (store, replica) = new(1);
    assert_eq!(count(&replica, "k"), None);
    for (member, new) in [("c", true), ("a", true), ("b", true), ("a", false)] {
        assert_eq!(add(&replica, "k", member).unwrap().0, new);
    }
    assert_eq!((members(&replica, "k"), count(&replica, "k")), (["a", "b", "c"].map(String::from).to_vec(), Some(3)));
    assert_eq!(replica.tally(REGION).keys, 1);
    let again = stop_and_start(&store, &replica, 2);
    assert_eq!((members(&again, "k").len(), count(&again, "k"), again.tally(REGION).keys), (3, Some(3), 1));
    ["a", "b", "c"].iter().for_each(|member| assert!(remove(&again, "k", member).unwrap().0));
    assert_eq!((count(&again, "k"), again.tally(REGION).keys, stored(&again)), (None, 0, 0));
    assert_eq!(again.snapshot(REGION).unwrap().0.branches, HashTree::new().branches());
}

#[test]
fn rows_that_are_not_committed_yet_are_in_a_range() {
    let (_, replica) = new(1);
    (0..700).for_each(|n| {
        let added = replica.update::<_, (), Fault>(
            REGION,
            0,
            |draft| {
                draft.begin(b"k", SET)?;
                draft.put_element(b"k", SET, format!("{n:03}").as_bytes(), Bytes::new(), Ttl::Set(Deadline::Never))
            },
            None::<fn(Delta, bool)>,
        );
        assert!(added.unwrap().0);
        if n % 3 == 0 {
            replica.committer.commit_pending();
        }
    });
    let expected: Vec<String> = (0..700).map(|n| format!("{n:03}")).collect();
    assert_eq!(members(&replica, "k"), expected);
    let page = |from: &[u8], to: Option<&[u8]>| {
        replica.view(REGION, 0, |view| {
            let held = view.open(b"k", SET)?.unwrap();
            view.page(b"k", held, Span { from, to }, PAGE)
        })
    };
    let (elements, next) = page(b"100", Some(b"103")).unwrap();
    assert_eq!((elements.len(), next), (3, None));
    assert!(page(b"", None).unwrap().1.is_some());
    let (mut back, mut to): (Vec<String>, Option<Bytes>) = (Vec::new(), None);
    loop {
        let (elements, next) = replica
            .view(REGION, 0, |view| {
                let held = view.open(b"k", SET)?.unwrap();
                view.page_back(b"k", held, Span { from: b"010", to: to.as_deref() }, 50)
            })
            .unwrap();
        back.extend(elements.into_iter().map(|element| String::from_utf8(element.name.to_vec()).unwrap()));
        to = next;
        if to.is_none() {
            break;
        }
    }
    assert_eq!(back, expected[10..].iter().rev().cloned().collect::<Vec<_>>());
}

#[test]
fn a_large_set_goes_at_once_by_one_small_delta_and_its_rows_later() {
    let ((_, mine), (_, theirs)) = (new(1), new(2));
    (0..100).for_each(|n| apply(&theirs, &add(&mine, "k", &format!("{n}")).unwrap().1.unwrap().0));
    let late = add(&mine, "k", "late").unwrap().1.unwrap().0;
    let delta = run(&mine, |draft| draft.remove(b"k")).unwrap().1.unwrap().0;
    assert_eq!((delta.rows.len(), count(&mine, "k"), stored(&mine)), (1, None, 102));
    apply(&theirs, &delta);
    assert_eq!((count(&theirs, "k"), theirs.tally(REGION).keys), (None, 0));
    apply(&theirs, &late);
    assert_eq!((count(&theirs, "k"), members(&theirs, "k")), (None, Vec::new()), "it comes after its end");
    assert_eq!(mine.digest(REGION), theirs.digest(REGION));
    add(&mine, "k", "new").unwrap();
    [&mine, &theirs].iter().for_each(|replica| sweep(replica));
    assert_eq!((members(&mine, "k"), stored(&mine), stored(&theirs)), (vec!["new".to_owned()], 2, 1));
    assert_eq!(local(&mine, &row("k")).unwrap().hidden, None);
}

#[test]
fn a_clear_of_the_region_takes_collections_and_what_it_did_not_see_stays() {
    let ((store, mine), (_, theirs)) = (new(1), new(2));
    (0..40).for_each(|n| apply(&theirs, &add(&mine, "k", &format!("{n}")).unwrap().1.unwrap().0));
    let beside = add(&theirs, "k", "beside").unwrap().1.unwrap().0;
    let (_, clear) = mine.clear(REGION, |delta| delta).unwrap().unwrap();
    assert_eq!((count(&mine, "k"), mine.tally(REGION).keys), (None, 0));
    apply(&theirs, &clear);
    apply(&mine, &beside);
    for replica in [&mine, &theirs] {
        assert_eq!((members(replica, "k"), count(replica, "k")), (vec!["beside".to_owned()], Some(1)));
        assert_eq!(replica.tally(REGION).keys, 1);
    }
    let again = stop_and_start(&store, &mine, 3);
    assert_eq!((members(&again, "k"), again.tally(REGION).keys), (vec!["beside".to_owned()], 1));
    let (found, mut from) = (again.hidden_until(REGION).unwrap(), Some(Bytes::new()));
    while let Some(row) = from {
        again.committer.commit_pending();
        from = again.purge(REGION, found, &row, 7).unwrap();
    }
    again.committer.commit_pending();
    again.drop_clear(REGION).unwrap();
    assert_eq!((members(&again, "k"), count(&again, "k"), stored(&again)), (vec!["beside".to_owned()], Some(1), 2));
}

/// Three replicas, what is on its way between them, and what should be there.
struct World {
    rng: Rng,
    stores: Vec<Arc<MemoryStore>>,
    replicas: Vec<Replica>,
    on_the_way: Vec<(usize, Delta)>,
    made: BTreeMap<Dot, Bytes>,
    gone: BTreeSet<Dot>,
    actors: u64,
}

const KEYS: [&str; 2] = ["a", "b"];

impl World {
    fn new(seed: u64) -> World {
        let (stores, replicas) = (1..=3).map(new).unzip();
        let (on_the_way, made, gone) = Default::default();
        World { rng: Rng::new(seed), stores, replicas, on_the_way, made, gone, actors: 3 }
    }

    fn step(&mut self) {
        let me = self.rng.below(3) as usize;
        match self.rng.below(20) {
            0..=11 => self.write(me),
            12..=15 if !self.on_the_way.is_empty() => {
                let at = self.rng.below(self.on_the_way.len() as u64) as usize;
                let (to, delta) = match self.rng.chance(0.2) {
                    true => self.on_the_way[at].clone(),
                    false => self.on_the_way.swap_remove(at),
                };
                if self.rng.chance(0.7) {
                    apply(&self.replicas[to], &delta);
                }
            }
            16 => self.sync(me, (me + 1) % 3),
            17 => sweep(&self.replicas[me]),
            18 => self.forget(me),
            _ if self.rng.chance(0.3) => self.restart(me),
            _ => {}
        }
    }

    fn write(&mut self, me: usize) {
        let key = KEYS[self.rng.below(2) as usize];
        let (member, by) = (self.rng.below(12).to_string(), self.rng.below(9) as i64 - 4);
        let replica = &self.replicas[me];
        let told = match self.rng.below(24) {
            0..=9 => add(replica, key, &member).map(|(_, told)| told),
            10..=13 => remove(replica, key, &member).map(|(_, told)| told),
            14..=15 => run(replica, |draft| draft.remove(key.as_bytes())).map(|(_, told)| told),
            16..=20 => run(replica, |draft| {
                draft.begin(key.as_bytes(), Kind::Hash)?;
                Ok(draft.increment_element(key.as_bytes(), Kind::Hash, member.as_bytes(), by).is_ok())
            })
            .map(|(_, told)| told),
            21 => run(replica, |draft| write(draft, key, "v")).map(|(_, told)| told),
            22 => run(replica, |draft| draft.expire(key.as_bytes(), Deadline::At(1 << 40))).map(|(_, told)| told),
            _ => run(replica, |draft| {
                if key == KEYS[0] && draft.exists(b"a")? {
                    draft.rename(b"a", b"b")?;
                }
                Ok(())
            })
            .map(|(_, told)| told),
        };
        match told {
            Ok(Some((delta, _))) => self.tell(me, delta),
            Ok(None) | Err(Fault::WrongKind) => {}
            Err(fault) => panic!("{fault}"),
        }
    }

    fn tell(&mut self, me: usize, delta: Delta) {
        for (row, change) in &delta.rows {
            self.gone.extend(change.superseded.iter().copied());
            for version in &change.new {
                if let Payload::Cleared(clear) = &version.payload {
                    let of_key = self
                        .made
                        .iter()
                        .filter(|(_, other)| *other != row && RowKey::head_of(other).as_ref() == Some(row));
                    self.gone.extend(of_key.map(|(dot, _)| *dot).filter(|dot| clear.contains(*dot)));
                }
            }
        }
        for (row, change) in &delta.rows {
            self.made.extend(change.new.iter().filter(|version| is_content(version)).map(|v| (v.dot, row.clone())));
        }
        self.on_the_way.extend((0..3).filter(|to| *to != me).map(|to| (to, delta.clone())));
    }

    /// Pulls all that differs, as a sync does.
    fn sync(&mut self, to: usize, from: usize) {
        let (mine, theirs) = (&self.replicas[to], &self.replicas[from]);
        for replica in [mine, theirs] {
            replica.committer.commit_pending();
        }
        let snapshot = theirs.snapshot(REGION).unwrap().0;
        let incarnation = mine.incarnation(REGION);
        for leaf in (0..LEAVES as u16).filter(|leaf| differs(mine, theirs, *leaf)) {
            let hashed = mine.hashed(REGION, &[leaf]).unwrap();
            let found = theirs.difference(REGION, &hashed.leaves, &[], usize::MAX).unwrap();
            let mut rows: BTreeMap<Bytes, Cell> = found.rows.into_iter().collect();
            for row in hashed.rows_of(&found.lacking) {
                rows.entry(row).or_default();
            }
            let rows: Vec<_> = rows.into_iter().collect();
            mine.merge_rows(REGION, &rows, snapshot.known()).unwrap();
        }
        mine.join(REGION, &snapshot, incarnation, theirs.incarnation(REGION)).unwrap();
        mine.committer.commit_pending();
    }

    /// Forgets clearings that all have seen.
    fn forget(&mut self, me: usize) {
        let clocks: Vec<Clock> = self.replicas.iter().map(clock).collect();
        for head in self.replicas[me].ended(REGION) {
            let clears = self.replicas[me].cleared(REGION, &head).unwrap();
            let seen =
                |dot: &Dot, clear: &Clock| clocks.iter().all(|clock| clock.contains(*dot) && clock.covers(clear));
            let dots: Vec<Dot> = clears.iter().filter(|(dot, clear)| seen(dot, clear)).map(|(dot, _)| *dot).collect();
            let told = run(&self.replicas[me], |draft| draft.forget_clears(&head, &dots)).unwrap().1;
            told.into_iter().for_each(|(delta, _)| self.tell(me, delta));
        }
    }

    fn restart(&mut self, me: usize) {
        self.actors += 1;
        self.replicas[me] = stop_and_start(&self.stores[me], &self.replicas[me], self.actors);
    }

    fn live(&self, of: usize) -> BTreeSet<Dot> {
        let rows = self.replicas[of].stored_rows(REGION).unwrap().into_iter();
        let rows = rows.filter(|row| RowKey::split(row).is_some_and(|(tag, _)| tag.role() != Role::Index));
        let cells = rows.map(|row| self.replicas[of].cell(REGION, &row).unwrap());
        cells
            .flat_map(|cell| cell.versions().iter().filter(|v| is_content(v)).map(|v| v.dot).collect::<Vec<_>>())
            .collect()
    }

    /// Local facts are what a count of the rows says, and the tree is made of them.
    fn check_facts(&self, of: usize) {
        let replica = &self.replicas[of];
        let state = replica.region(REGION);
        let mut tree = HashTree::new();
        for key in KEYS {
            let head = replica.heads.of_region(&*replica.store, &state).head(&row(key)).unwrap();
            let counted =
                replica.heads.of_region(&*replica.store, &state).recount(&row(key), &head, &head, &[]).unwrap();
            let facts = |local: &Local| {
                let of = |part: &crate::causality::Part| {
                    (part.kind, part.rows, part.count, part.side, part.runs, part.digest)
                };
                local.parts.iter().map(of).collect::<Vec<_>>()
            };
            assert_eq!(head.local().map(facts).unwrap_or_default(), facts(&counted), "{key} at {of}");
            let leaf = super::region::leaf_of(replica.partitions, RowKey::token_of(&row(key)).unwrap());
            tree.toggle(leaf, super::region::difference(1, &row(key), &Cell::default(), &head));
        }
        assert_eq!(tree.root(), state.tree.root(), "the tree of {of}");
    }
}

fn is_content(version: &Version) -> bool {
    matches!(version.payload, Payload::Value(_) | Payload::Run(_) | Payload::Expiry(_))
}

fn differs(mine: &Replica, theirs: &Replica, leaf: u16) -> bool {
    let at = |replica: &Replica| replica.leaves(REGION, usize::from(leaf) / 32).get(usize::from(leaf) % 32).copied();
    at(mine) != at(theirs)
}

#[test]
fn whatever_is_lost_replicas_end_with_what_was_added_and_not_removed_by_who_had_seen_it() {
    for seed in 0..150 {
        let mut world = World::new(seed);
        for step in 0..120 {
            world.step();
            if step % 20 == 0 {
                (0..3).for_each(|of| world.check_facts(of));
            }
        }
        for _ in 0..3 {
            for (to, from) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                world.sync(to, from);
            }
        }
        let wanted: BTreeSet<Dot> = world.made.keys().copied().filter(|dot| !world.gone.contains(dot)).collect();
        for of in 0..3 {
            world.check_facts(of);
            assert_eq!(world.live(of), wanted, "seed {seed}, replica {of}");
            assert_eq!(world.replicas[of].digest(REGION).0, world.replicas[0].digest(REGION).0, "seed {seed}");
        }
        // All have seen everything: nothing is left of what was cleared.
        (0..3).for_each(|of| sweep(&world.replicas[of]));
        world.forget(0);
        std::mem::take(&mut world.on_the_way).iter().for_each(|(to, delta)| apply(&world.replicas[*to], delta));
        for (to, from) in [(1, 0), (2, 0)] {
            world.sync(to, from);
        }
        for of in 0..3 {
            world.check_facts(of);
            assert!(world.replicas[of].ended(REGION).is_empty(), "seed {seed}, replica {of}");
            assert_eq!(world.live(of), wanted, "seed {seed}, replica {of}");
        }
    }
}

#[test]
fn known_is_what_a_peer_may_say_of_a_row() {
    // A row of a collection that a clearing hides is answered as gone.
    let (_, replica) = new(1);
    (0..40).for_each(|n| drop(add(&replica, "k", &format!("{n}")).unwrap()));
    let element = RowKey::element(&row("k"), SET.tag(), b"7");
    let dots: Vec<Dot> = replica.cell(REGION, &element).unwrap().dots().collect();
    run(&replica, |draft| draft.remove(b"k")).unwrap();
    let answer = replica.answer(REGION, &element, &dots).unwrap();
    assert_eq!((answer.change.superseded.to_vec(), answer.unseen.len()), (dots.clone(), 0));
    let known = clock(&replica);
    assert!(Known { clock: &known, clear: None }.contains(dots[0]));
}
