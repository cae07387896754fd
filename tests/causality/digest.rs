//! Rule 9: a key's digest and count describe visible versions, also when a clear hides them before they are swept.

use std::hash::{DefaultHasher, Hash, Hasher};

use redynamo::base::rng::Rng;
use redynamo::causality::Cell;
use redynamo::causality::clock::clear_hides_all;

use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{Delta, Replica, Row, Sweeping, below, broadcast, take};

#[test]
fn digest_and_count_stay_true_when_a_clear_sets_them_to_zero_by_the_rule() {
    holds("digest", 400, |seed| digests(seed, true));
}

#[test]
fn setting_digest_and_count_to_zero_on_every_clear_is_caught() {
    is_caught("digest, always zero", 20, |seed| digests(seed, false));
}

/// A replica with what it keeps in the head of its one key.
struct Tracked {
    replica: Replica,
    /// Digest and count; none when the key must be scanned before they are used.
    summary: Option<(u64, u64)>,
    by_the_rule: bool,
}

impl Tracked {
    fn apply(&mut self, delta: &Delta) {
        if let Some(context) = &delta.clear {
            let all = clear_hides_all(&self.replica.clock, context);
            self.summary = (all || !self.by_the_rule).then_some((0, 0));
            self.replica.apply(&Delta { clear: delta.clear.clone(), row: delta.row, ..Delta::default() });
        }
        self.around(delta.row, |replica| replica.apply(&Delta { clear: None, ..delta.clone() }));
    }

    /// A change of one row changes the summary by the row's own part.
    fn around<T>(&mut self, row: Row, change: impl FnOnce(&mut Replica) -> T) -> T {
        let (old, old_count) = part(row, &self.replica.visible(row));
        let done = change(&mut self.replica);
        let (new, new_count) = part(row, &self.replica.visible(row));
        self.summary = self.summary.map(|(digest, count)| (digest ^ old ^ new, count + new_count - old_count));
        done
    }

    fn scan(&self) -> (u64, u64) {
        self.replica.view().iter().map(|(row, cell)| part(*row, cell)).fold((0, 0), |(a, n), (b, m)| (a ^ b, n + m))
    }
}

/// What a row contributes to digest and count.
fn part(row: Row, cell: &Cell) -> (u64, u64) {
    if cell.is_empty() {
        return (0, 0);
    }
    let mut hasher = DefaultHasher::new();
    (row, cell.dots().collect::<Vec<_>>()).hash(&mut hasher);
    (hasher.finish(), 1)
}

fn digests(seed: u64, by_the_rule: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let new = |actor| Replica { sweeping: Sweeping::Later, ..Replica::new(actor) };
    let fresh = |actor| Tracked { replica: new(actor), summary: Some((0, 0)), by_the_rule };
    let mut all: Vec<Tracked> = (0..3).map(fresh).collect();
    let mut network = Vec::new();
    for _ in 0..100 {
        let me = below(&mut rng, 3);
        let row = (0, rng.below(4) as u8);
        let delta = match rng.below(100) {
            0..35 => Some(all[me].around(row, |replica| replica.write(row))),
            35..40 => all[me].around(row, |replica| replica.remove(row)),
            40..48 => {
                all[me].summary = Some((0, 0)); // its own clock is the context: nothing outlives it
                Some(all[me].replica.clear(0))
            }
            48..85 => {
                if let Some((to, delta)) = take(&mut rng, &mut network) {
                    let to: usize = to;
                    all[to].apply(&delta);
                }
                None
            }
            85..93 => {
                all[me].replica.sweep(0); // touches neither
                None
            }
            _ => {
                all[me].summary = Some(all[me].scan());
                None
            }
        };
        if let Some(delta) = delta {
            broadcast(&mut network, me, 3, &delta);
        }
        if all.iter().any(|tracked| tracked.summary.is_some_and(|summary| summary != tracked.scan())) {
            return Err("wrong");
        }
    }
    Ok(())
}
