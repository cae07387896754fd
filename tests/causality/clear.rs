//! Rule 2: a whole key is deleted with a clock as context; the context is kept, carried, and goes before what is new.

use redynamo::base::rng::Rng;

use crate::seeds::{Outcome, holds, is_caught};
use crate::world::{Ghost, Keeping, Replica, Sweeping, below, other, pair, settle, take};

#[test]
fn what_a_clear_deleted_stays_deleted() {
    for sweeping in [Sweeping::AtOnce, Sweeping::Later] {
        for wipes in [false, true] {
            let name = format!("clear, {sweeping:?}, wipes: {wipes}");
            holds(&name, 400, |seed| clears(seed, Keeping::KeepAndSync, sweeping, wipes));
        }
    }
}

#[test]
fn a_receiver_that_forgets_the_context_is_caught() {
    is_caught("clear, context forgotten", 200, |seed| clears(seed, Keeping::Forget, Sweeping::AtOnce, true));
}

#[test]
fn a_sync_that_does_not_carry_the_context_is_caught() {
    is_caught("clear, context not carried", 1000, |seed| clears(seed, Keeping::Keep, Sweeping::AtOnce, true));
}

#[test]
fn a_context_let_go_while_it_hides_rows_is_caught() {
    let rule = Sweeping::LaterAndCareless;
    is_caught("clear, context goes before the rows", 40, |seed| clears(seed, Keeping::KeepAndSync, rule, false));
}

fn clears(seed: u64, keeping: Keeping, sweeping: Sweeping, wipes: bool) -> Outcome {
    let mut rng = Rng::new(seed);
    let fresh = |actor| Replica { keeping, sweeping, ..Replica::new(actor) };
    let mut replicas: Vec<Replica> = (0..3).map(fresh).collect();
    let (mut ghost, mut network, mut actors) = (Ghost::default(), Vec::new(), 100);
    for _ in 0..120 {
        let (dice, me) = (rng.below(100), below(&mut rng, 3));
        let near = other(&mut rng, me, 3);
        let far = 3 - me - near;
        match dice {
            0..45 => {
                let key = rng.below(2) as u8;
                let row = (key, rng.below(2) as u8);
                let delta = if rng.chance(0.75) { replicas[me].write(row) } else { replicas[me].clear(key) };
                ghost.note(&delta)?;
                replicas[near].apply(&delta);
                network.push((far, delta));
            }
            45..75 => {
                if let Some((to, delta)) = take(&mut rng, &mut network)
                    && rng.chance(0.4)
                {
                    replicas[to].apply(&delta);
                }
            }
            75..88 if wipes => {
                actors += 1;
                replicas[me] = fresh(actors);
                for peer in [near, far] {
                    let (me, peer) = pair(&mut replicas, me, peer);
                    me.sync_from(peer);
                }
            }
            75..91 => {
                let (me, peer) = pair(&mut replicas, me, near);
                me.sync_from(peer);
            }
            91..95 => replicas[me].sweep(rng.below(2) as u8),
            95..98 => {
                let (me, peer) = pair(&mut replicas, me, near);
                me.exchange((rng.below(2) as u8, rng.below(2) as u8), peer);
            }
            _ => {}
        }
    }
    ghost.judge(&settle(&mut replicas)?)
}

/// Two replicas with one version of a key each knows; the peer hears of a clear that the other does not.
fn one_cleared_at_the_peer() -> (Replica, Replica) {
    let lazily = |actor| Replica { sweeping: Sweeping::Later, ..Replica::new(actor) };
    let (mut me, mut peer, mut deleter) = (lazily(0), lazily(1), Replica::new(2));
    let delta = me.write((0, 0));
    peer.apply(&delta);
    deleter.apply(&delta);
    peer.apply(&deleter.clear(0));
    assert!(peer.view().is_empty() && !peer.rows.is_empty(), "hidden at once, swept later");
    (me, peer)
}

#[test]
fn a_row_that_a_clear_hides_is_answered_as_gone() {
    let (mut me, mut peer) = one_cleared_at_the_peer();
    me.exchange((0, 0), &mut peer);
    assert!(me.view().is_empty());
    let mut third = Replica::new(3);
    third.exchange((0, 0), &mut peer);
    assert!(third.view().is_empty(), "what the peer knows to be deleted must not be read from it");
}

#[test]
fn a_row_that_a_clear_hides_is_merged_as_gone() {
    let (mut me, peer) = one_cleared_at_the_peer();
    let peer = peer.snapshot();
    me.merge_row((0, 0), &peer.rows[&(0, 0)], peer.known(0));
    assert!(me.view().is_empty());
    let mut third = Replica::new(3);
    third.merge_row((0, 0), &peer.rows[&(0, 0)], peer.known(0));
    assert!(third.view().is_empty(), "what the peer knows to be deleted must not spread by a merge");
}

#[test]
fn in_a_delta_with_a_clear_and_a_new_version_the_clear_goes_first() {
    let (mut a, mut b) = (Replica::new(0), Replica::new(1));
    b.apply(&a.write((0, 0)));
    let mut both = a.clear(0);
    both.change = a.write((0, 0)).change;
    b.apply(&both);
    assert_eq!(b.dots((0, 0)), a.dots((0, 0)));
    assert_eq!(b.dots((0, 0)).len(), 1);
}
