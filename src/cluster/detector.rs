//! Who is away: a local opinion, from answers to pings and from links that break. Time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::base::id::NodeId;

/// What this node has heard of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Heard {
    /// When it last answered; on the clock of whoever asks.
    at: Option<Duration>,
    /// Whether it holds what its partitions' owners should, as it says itself.
    ready: bool,
    /// When it last asked how this node is: so it can reach this node, and takes it for live.
    asked: Option<Duration>,
}

/// Opinions on all other nodes.
#[derive(Debug, Default)]
pub struct Detector {
    heard: BTreeMap<NodeId, Heard>,
}

impl Detector {
    /// `node` answered at `now`, and says whether it is ready to coordinate.
    pub fn answered(&mut self, node: NodeId, now: Duration, ready: bool) {
        let heard = self.heard.entry(node).or_default();
        (heard.at, heard.ready) = (Some(now), ready);
    }

    /// `node` asked at `now` how this node is. That does not make it live: it must be reachable as well.
    pub fn asked(&mut self, node: NodeId, now: Duration, ready: bool) {
        let heard = self.heard.entry(node).or_default();
        heard.asked = Some(now);
        if heard.at.is_some() {
            heard.ready = ready;
        }
    }

    /// Whether `node` asked within `patience` how this node is.
    pub fn has_asked(&self, node: NodeId, now: Duration, patience: Duration) -> bool {
        let asked = self.heard.get(&node).and_then(|heard| heard.asked);
        asked.is_some_and(|at| now.saturating_sub(at) <= patience)
    }

    /// The link to `node` broke, or it refused a connection: no need to wait for silence.
    pub fn broke(&mut self, node: NodeId) {
        self.heard.entry(node).or_default().at = None;
    }

    /// Whether `node` answered within `patience`.
    pub fn is_live(&self, node: NodeId, now: Duration, patience: Duration) -> bool {
        self.heard.get(&node).and_then(|heard| heard.at).is_some_and(|at| now.saturating_sub(at) <= patience)
    }

    /// Whether `node` said that it is ready when it last answered.
    pub fn is_ready(&self, node: NodeId) -> bool {
        self.heard.get(&node).is_some_and(|heard| heard.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_live_while_it_answers_and_away_at_once_when_its_link_breaks() {
        let (node, patience) = (NodeId(1), Duration::from_millis(1500));
        let at = Duration::from_millis;
        let mut detector = Detector::default();
        assert!(!detector.is_live(node, at(0), patience), "unheard of");
        detector.answered(node, at(1_000), true);
        assert!(detector.is_live(node, at(2_500), patience));
        assert!(!detector.is_live(node, at(2_501), patience), "silent for too long");
        detector.answered(node, at(3_000), false);
        assert!(!detector.is_ready(node));
        detector.broke(node);
        assert!(!detector.is_live(node, at(3_000), patience));
    }

    #[test]
    fn a_node_that_asks_can_reach_this_one_but_need_not_be_reachable() {
        let (node, patience) = (NodeId(1), Duration::from_millis(1500));
        let at = Duration::from_millis;
        let mut detector = Detector::default();
        assert!(!detector.has_asked(node, at(0), patience));
        detector.asked(node, at(1_000), true);
        assert!(detector.has_asked(node, at(2_500), patience) && !detector.has_asked(node, at(2_501), patience));
        assert!(!detector.is_live(node, at(1_000), patience) && !detector.is_ready(node));
        detector.answered(node, at(1_100), false);
        detector.asked(node, at(1_200), true);
        assert!(detector.is_ready(node));
    }
}
