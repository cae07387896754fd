//! How fast each peer answers, and what follows from that: how long to wait for one before another is asked the same
//! (a hedge), and how long one may take before its seat is given to a stand-in.
//!
//! What a peer did not answer is noted with the time that it was waited for: it took at least that long. Hedges are
//! bounded by how much is asked at all, so that a cluster which is slow as a whole is not asked twice for everything.
//!
//! No clock in here: whoever asks a peer measures.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::id::NodeId;
use crate::base::latency::Window;

/// What is known of a peer rests on about so many answers.
const MEMORY: f32 = 512.0;
/// With fewer than this, a peer's percentile is anybody's guess.
const TOO_FEW: f32 = 16.0;
/// Answers between two looks at the percentile.
const LOOK: u32 = 16;
/// What a new answer weighs in the mean.
const WEIGHT: f64 = 1.0 / 16.0;

/// Nobody is hedged sooner: to ask a second peer costs as much.
const LEAST_HEDGE: Duration = Duration::from_millis(1);
/// Of the percentile, how much a peer may take before its seat is given away, and what it always may.
const FORBEARANCE: u32 = 8;
const LEAST_FORBEARANCE: Duration = Duration::from_millis(100);
/// Of all the time that there is, the part that is left for whoever sits there instead.
const LEFT: u32 = 3;

/// What each question earns towards a hedge, and how many hedges can be saved up.
const EARNED: f64 = 0.05;
const SAVED: f64 = 10.0;

/// The pace of one peer.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    times: Window,
    since_look: u32,
    p99: Option<Duration>,
    mean_s: f64,
}

impl Pace {
    /// An answer took so long, or did not come in it.
    pub fn note(&mut self, took: Duration) {
        if self.times.weight() >= MEMORY {
            self.times.fade(0.5);
        }
        let seconds = took.as_secs_f64();
        self.mean_s = if self.times.weight() < 1.0 { seconds } else { self.mean_s + (seconds - self.mean_s) * WEIGHT };
        self.times.note(took);
        self.since_look += 1;
        let enough = self.times.weight() >= TOO_FEW;
        if enough && (self.since_look >= LOOK || self.p99.is_none() || self.p99.is_some_and(|p99| took > p99)) {
            self.p99 = self.times.quantile(0.99);
            self.since_look = 0;
        }
    }

    /// How long an answer takes lately, in the mean; none before the first.
    pub fn mean(&self) -> Option<Duration> {
        (self.times.weight() >= 1.0).then(|| Duration::from_secs_f64(self.mean_s))
    }

    /// What 99 of 100 answers do not exceed; none of a peer that has hardly been asked.
    pub fn p99(&self) -> Option<Duration> {
        self.p99
    }
}

/// The pace of all peers.
#[derive(Debug)]
pub struct Paces {
    /// What `peer-timeout` allows.
    most: Duration,
    peers: Mutex<BTreeMap<NodeId, Pace>>,
    hedges: Mutex<f64>,
}

impl Paces {
    /// Nothing is known; nobody may take longer than `most`.
    pub fn new(most: Duration) -> Paces {
        Paces { most, peers: Mutex::default(), hedges: Mutex::new(SAVED) }
    }

    /// An answer of `peer` took so long, or did not come in it.
    pub fn note(&self, peer: NodeId, took: Duration) {
        self.peers.lock().entry(peer).or_default().note(took);
    }

    /// What is known of `peer`.
    pub fn of(&self, peer: NodeId) -> Pace {
        self.peers.lock().get(&peer).cloned().unwrap_or_default()
    }

    /// How long to wait for `peer` before another is asked the same: about its 99th percentile.
    pub fn hedge_after(&self, peer: NodeId) -> Duration {
        let unknown = self.most / 4;
        self.p99(peer).unwrap_or(unknown).max(LEAST_HEDGE).min(self.most / 2)
    }

    /// How long `peer` may take before a stand-in is told in its place: far longer than it takes, as far as that is known.
    pub fn give_up_after(&self, peer: NodeId) -> Duration {
        let far = self.p99(peer).map_or(self.most, |p99| p99 * FORBEARANCE);
        far.max(LEAST_FORBEARANCE).min(self.most / LEFT)
    }

    /// Something was asked that may have to be hedged.
    pub fn asked(&self) {
        let mut hedges = self.hedges.lock();
        *hedges = (*hedges + EARNED).min(SAVED);
    }

    /// Whether one more hedge is within bounds; if so, it is counted.
    pub fn may_hedge(&self) -> bool {
        let mut hedges = self.hedges.lock();
        let may = *hedges >= 1.0;
        if may {
            *hedges -= 1.0;
        }
        may
    }

    fn p99(&self, peer: NodeId) -> Option<Duration> {
        self.peers.lock().get(&peer).and_then(Pace::p99)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: NodeId = NodeId(1);
    const MOST: Duration = Duration::from_millis(1000);
    const MS: Duration = Duration::from_millis(1);

    fn after(times: impl IntoIterator<Item = Duration>) -> Paces {
        let paces = Paces::new(MOST);
        times.into_iter().for_each(|took| paces.note(PEER, took));
        paces
    }

    #[test]
    fn a_peer_of_which_nothing_is_known_gets_a_quarter_of_its_time_before_a_hedge_and_a_third_for_its_seat() {
        let paces = after([MS; 3]);
        assert_eq!((paces.hedge_after(PEER), paces.give_up_after(PEER)), (MOST / 4, MOST / LEFT));
        assert_eq!((Pace::default().mean(), Pace::default().p99()), (None, None));
    }

    #[test]
    fn a_fast_peer_is_hedged_after_about_its_percentile_and_keeps_its_seat_for_much_longer() {
        let mixed = (0..1000).map(|at| if at % 50 == 0 { 20 * MS } else { 2 * MS });
        let paces = after(mixed);
        let hedge = paces.hedge_after(PEER);
        assert!(hedge >= 20 * MS && hedge <= 23 * MS, "{hedge:?}");
        assert!(paces.give_up_after(PEER) >= 150 * MS);
        let mean = paces.of(PEER).mean().unwrap();
        assert!(mean > MS && mean < 6 * MS, "{mean:?}");
        assert_eq!(after([MS / 10; 100]).hedge_after(PEER), LEAST_HEDGE);
        assert_eq!(after([MS / 10; 100]).give_up_after(PEER), LEAST_FORBEARANCE);
    }

    #[test]
    fn a_peer_that_slows_down_is_waited_for_longer_and_forgiven_once_it_is_fast_again() {
        let paces = after([2 * MS; 2000]);
        assert!(paces.hedge_after(PEER) < 3 * MS);
        (0..50).for_each(|_| paces.note(PEER, 200 * MS));
        assert!(paces.hedge_after(PEER) >= 200 * MS);
        assert_eq!(paces.give_up_after(PEER), MOST / LEFT, "there is time left for another");
        (0..4000).for_each(|_| paces.note(PEER, 2 * MS));
        assert!(paces.hedge_after(PEER) < 3 * MS);
    }

    #[test]
    fn hedges_are_a_small_part_of_what_is_asked() {
        let paces = Paces::new(MOST);
        let hedged = (0..1000).filter(|_| {
            paces.asked();
            paces.may_hedge()
        });
        let hedged = hedged.count();
        assert!((50..=61).contains(&hedged), "{hedged}");
    }

    proptest! {
        #[test]
        fn whatever_a_peer_does_its_times_keep_their_bounds(times in proptest::collection::vec(0u64..100_000_000, 0..300)) {
            let paces = after(times.into_iter().map(Duration::from_micros));
            let (hedge, seat) = (paces.hedge_after(PEER), paces.give_up_after(PEER));
            prop_assert!((LEAST_HEDGE..=MOST / 2).contains(&hedge));
            prop_assert!((LEAST_FORBEARANCE..=MOST / LEFT).contains(&seat));
        }
    }
}
