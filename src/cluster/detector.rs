//! Who is away: a local opinion, from answers to pings and from links that break. Time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BufMut;

use crate::base::codec::{Decoded, Reader};
use crate::base::id::NodeId;

/// How a node is, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// It holds what its partitions' owners should, and may coordinate.
    pub ready: bool,
    /// It counts in quorums: it has lost nothing that it acknowledged, and its store takes writes (rule 6 of the
    /// causality rules).
    pub counted: bool,
}

impl Health {
    /// Of a node that serves.
    pub const WELL: Health = Health { ready: true, counted: true };

    /// Appends it.
    pub fn put(&self, out: &mut impl BufMut) {
        out.put_u8(u8::from(self.ready) | u8::from(self.counted) << 1);
    }

    /// Reads what [`Health::put`] wrote.
    pub fn read(reader: &mut Reader) -> Decoded<Health> {
        let bits = reader.u8()?;
        Ok(Health { ready: bits & 1 != 0, counted: bits & 2 != 0 })
    }
}

/// What this node has heard of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Heard {
    /// When it last answered; on the clock of whoever asks.
    at: Option<Duration>,
    /// How it is.
    health: Health,
    /// When it last asked how this node is: so it can reach this node, and takes it for live.
    asked: Option<Duration>,
}

/// Opinions on all other nodes.
#[derive(Debug, Default)]
pub struct Detector {
    heard: BTreeMap<NodeId, Heard>,
}

impl Detector {
    /// `node` answered at `now`, and says how it is.
    pub fn answered(&mut self, node: NodeId, now: Duration, health: Health) {
        let heard = self.heard.entry(node).or_default();
        (heard.at, heard.health) = (Some(now), health);
    }

    /// `node` asked at `now` how this node is. That does not make it live: it must be reachable as well.
    pub fn asked(&mut self, node: NodeId, now: Duration, health: Health) {
        let heard = self.heard.entry(node).or_default();
        heard.asked = Some(now);
        if heard.at.is_some() {
            heard.health = health;
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

    /// How `node` said that it is when it was heard last.
    pub fn health(&self, node: NodeId) -> Health {
        self.heard.get(&node).map(|heard| heard.health).unwrap_or_default()
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
        detector.answered(node, at(1_000), Health::WELL);
        assert!(detector.is_live(node, at(2_500), patience));
        assert!(!detector.is_live(node, at(2_501), patience), "silent for too long");
        detector.answered(node, at(3_000), Health::default());
        assert!(!detector.health(node).ready);
        detector.broke(node);
        assert!(!detector.is_live(node, at(3_000), patience));
    }

    #[test]
    fn a_node_that_asks_can_reach_this_one_but_need_not_be_reachable() {
        let (node, patience) = (NodeId(1), Duration::from_millis(1500));
        let at = Duration::from_millis;
        let mut detector = Detector::default();
        assert!(!detector.has_asked(node, at(0), patience));
        detector.asked(node, at(1_000), Health::WELL);
        assert!(detector.has_asked(node, at(2_500), patience) && !detector.has_asked(node, at(2_501), patience));
        assert!(!detector.is_live(node, at(1_000), patience) && !detector.health(node).ready);
        detector.answered(node, at(1_100), Health::default());
        detector.asked(node, at(1_200), Health::WELL);
        assert!(detector.health(node).ready);
    }
}
