//! The detector against seeded networks, in simulated hours.

use super::*;
use crate::base::rng::Rng;

const NODE: NodeId = NodeId(1);
const PATIENCE: Duration = Duration::from_millis(2000);

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A peer on a network that loses each message with the chance `loss`, watched for a while.
struct Watch {
    detector: Detector,
    rng: Rng,
    loss: f64,
    /// When answers arrive.
    arriving: BTreeMap<u64, u32>,
    now: u64,
}

impl Watch {
    fn new(seed: u64, loss: f64) -> Watch {
        let mut detector = Detector::new(PATIENCE);
        detector.answered(NODE, at(0), Health::WELL);
        Watch { detector, rng: Rng::new(seed), loss, arriving: BTreeMap::new(), now: 0 }
    }

    /// Goes on to the next ping; says whether the peer is live then.
    fn step(&mut self, answers: bool) -> bool {
        let (due, wait) = self.detector.due(&[NODE], at(self.now));
        for _ in due {
            let lost = self.rng.chance(self.loss) || self.rng.chance(self.loss);
            if answers && !lost {
                *self.arriving.entry(self.now + 1 + self.rng.below(40)).or_default() += 1;
            }
        }
        let next = self.now + (wait.as_millis() as u64).max(1);
        let later = self.arriving.split_off(&(next + 1));
        for (when, _) in std::mem::replace(&mut self.arriving, later) {
            self.detector.answered(NODE, at(when), Health::WELL);
        }
        self.now = next;
        self.detector.is_live(NODE, at(self.now))
    }

    /// How often a peer that was live all the time was taken for away.
    fn false_alarms(&mut self, hours: u64) -> usize {
        let (end, mut live, mut alarms) = (self.now + hours * 3_600_000, true, 0);
        while self.now < end {
            let is_live = self.step(true);
            alarms += usize::from(live && !is_live);
            live = is_live;
        }
        alarms
    }

    /// How long after its last message a peer that fell silent is taken for away, in milliseconds.
    fn detection(&mut self) -> u64 {
        let began = self.now;
        while self.step(false) {}
        self.now - began
    }
}

#[test]
fn a_live_peer_is_never_taken_for_away_in_a_day_on_a_network_that_loses_every_fifth_message() {
    let alarms: usize = (0..4).map(|seed| Watch::new(seed, 0.2).false_alarms(6)).sum();
    assert_eq!(alarms, 0);
    assert_eq!(Watch::new(9, 0.3).false_alarms(2), 0);
}

#[test]
fn a_network_that_loses_nearly_everything_makes_alarms_so_they_are_counted_right() {
    assert!(Watch::new(1, 0.8).false_alarms(1) > 10);
}

#[test]
fn silence_is_noticed_within_three_seconds_whatever_the_network_was_like() {
    for (seed, loss) in (0..200).map(|seed| (seed, [0.0, 0.1, 0.2, 0.4][seed as usize % 4])) {
        let mut watch = Watch::new(seed, loss);
        (0..200 + seed).for_each(|_| _ = watch.step(true));
        if watch.detector.is_live(NODE, at(watch.now)) {
            let took = watch.detection();
            assert!(took <= 3_000, "seed {seed}, loss {loss}: {took} ms");
        }
    }
    let mut calm = Watch::new(1, 0.0);
    (0..200).for_each(|_| _ = calm.step(true));
    let took = calm.detection();
    assert!((1_000..2_000).contains(&took), "sooner than the patience on a network that loses nothing: {took} ms");
}

#[test]
fn a_call_without_an_answer_makes_suspect_and_an_answer_clears() {
    let mut detector = Detector::new(PATIENCE);
    detector.answered(NODE, at(1_000), Health::WELL);
    assert!(!detector.is_suspect(NODE, at(1_010)));
    let pace = detector.due(&[NODE], at(1_010)).1;
    assert!(detector.doubted(NODE, at(1_010), Doubt::Unanswered));
    assert!((0..50).all(|_| !detector.doubted(NODE, at(1_010), Doubt::Unanswered)), "the first is news");
    assert!(detector.is_live(NODE, at(1_010)) && detector.is_suspect(NODE, at(1_010)), "suspect, not dead");
    assert_eq!(detector.due(&[NODE], at(1_010)).1, pace / 4, "it is asked more often");
    detector.answered(NODE, at(1_100), Health::WELL);
    assert!(!detector.is_suspect(NODE, at(1_100)));
}

#[test]
fn a_peer_that_cannot_be_asked_twice_in_a_row_is_away_and_so_is_one_that_refuses() {
    let mut detector = Detector::new(PATIENCE);
    detector.answered(NODE, at(1_000), Health::WELL);
    detector.doubted(NODE, at(1_001), Doubt::Unsent);
    detector.doubted(NODE, at(1_002), Doubt::Unsent);
    assert!(detector.is_live(NODE, at(1_002)), "calls that fail together are one failure");
    detector.doubted(NODE, at(1_251), Doubt::Unsent);
    assert!(!detector.is_live(NODE, at(1_251)));
    detector.heard(NODE, at(1_260));
    assert!(detector.is_live(NODE, at(1_260)) && detector.health(NODE) == Health::WELL);
    detector.began(NODE);
    assert_eq!(detector.health(NODE), Health::default(), "who starts anew has yet to say how it is");
    detector.refused(NODE);
    assert!(!detector.is_live(NODE, at(1_261)));
    assert_eq!(detector.opinion(NODE, at(1_261)).silence, None);
}

#[test]
fn a_node_that_asks_can_reach_this_one_but_need_not_be_reachable() {
    let mut detector = Detector::new(PATIENCE);
    assert!(!detector.has_asked(NODE, at(0)));
    detector.asked(NODE, at(900), Health::WELL, false);
    assert!(!detector.has_asked(NODE, at(900)), "it does not know whether this node is there");
    detector.asked(NODE, at(1_000), Health::WELL, true);
    assert!(detector.has_asked(NODE, at(3_000)) && !detector.has_asked(NODE, at(3_001)));
    assert!(!detector.is_live(NODE, at(1_000)) && !detector.health(NODE).ready);
    detector.answered(NODE, at(1_100), Health::default());
    detector.asked(NODE, at(1_200), Health::WELL, true);
    assert!(detector.health(NODE).ready);
}

#[test]
fn what_others_have_heard_tells_a_cut_from_a_death_and_decides_nothing() {
    let (x, y) = (NodeId(7), NodeId(8));
    let mut detector = Detector::new(PATIENCE);
    let verdict = |detector: &Detector, now| detector.opinion(NODE, at(now)).verdict;
    assert_eq!(verdict(&detector, 0), Verdict::Away);
    detector.answered(NODE, at(1_000), Health::WELL);
    assert_eq!(verdict(&detector, 1_100), Verdict::Live);
    assert_eq!(verdict(&detector, 1_800), Verdict::Suspect);
    detector.testified(NODE, x, at(4_000), Some(at(100)));
    detector.testified(NODE, y, at(4_000), None);
    let opinion = detector.opinion(NODE, at(4_000));
    assert_eq!((opinion.verdict, opinion.reached_by, opinion.missed_by), (Verdict::Cut, vec![x], vec![y]));
    assert!(!detector.is_live(NODE, at(4_000)), "others' word makes nobody live");
    detector.testified(NODE, x, at(6_000), Some(at(2_100)));
    assert_eq!(verdict(&detector, 6_000), Verdict::Dead);
    assert_eq!(verdict(&detector, 20_000), Verdict::Away, "what was said long ago is not said now");
}

#[test]
fn others_are_asked_about_whoever_is_in_doubt_now_and_then() {
    let mut detector = Detector::new(PATIENCE);
    detector.answered(NODE, at(0), Health::WELL);
    let asked: Vec<u64> =
        (0..100).map(|n| n * 100).filter(|now| !detector.questionable(&[NODE], at(*now)).is_empty()).collect();
    assert_eq!(asked, [600, 4_600, 8_600]);
    detector.answered(NODE, at(9_000), Health::WELL);
    assert!(detector.questionable(&[NODE], at(9_100)).is_empty());
    detector.doubted(NODE, at(9_200), Doubt::Unanswered);
    assert_eq!(detector.questionable(&[NODE], at(9_200)), [NODE]);
}

#[test]
fn phi_is_the_power_of_ten() {
    for (deviations, phi) in [(0.0, 0.301), (1.2816, 1.0), (2.3263, 2.0), (3.719, 4.0)] {
        let found = improbability(deviations);
        assert!((found - phi).abs() < 0.3, "{deviations}: {found}");
    }
    assert_eq!(improbability(100.0), MOST);
    assert!(improbability(-100.0) < 0.01);
}
