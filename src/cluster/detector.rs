//! Who is away: a local opinion, of what this node itself has heard. Time is an argument.
//!
//! Phi-accrual (Hayashibara et al. 2004): from the intervals between a peer's answers follows how unlikely its present
//! silence is; phi is the power of ten. A peer that becomes suspect is asked four times as often, so that a lossy network
//! has many chances to prove it alive before phi says that it is away. Silence for as long as the operator's setting is
//! the end of it in any case.
//!
//! Evidence goes before silence: a link that breaks or a call that is not answered makes a peer suspect at once; one that
//! cannot even be asked, twice in a row, or that refuses a connection, is away. What others have heard
//! ([`Detector::testified`]) is shown to the operator and decides nothing: liveness is whether *this* node reaches it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::BufMut;

use crate::base::codec::{Decoded, Reader};
use crate::base::id::NodeId;

/// From this phi on a peer is away: its silence had a chance of one in a hundred millions.
const AWAY: f64 = 8.0;
/// From this phi on it is suspect.
const SUSPECT: f64 = 1.0;
/// The highest phi that is told.
const MOST: f64 = 99.0;
/// How many intervals are remembered.
const WINDOW: usize = 64;
/// How many pings go to a peer within the longest silence that it is forgiven; to one that is suspect.
const PINGS: (u32, u32) = (8, 32);

/// How a node is, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Health {
    /// It holds what its partitions' owners should, and may coordinate.
    pub ready: bool,
    /// It counts in quorums: it has lost nothing that it acknowledged, and its store has not failed (rule 6 of the
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

/// Evidence against a peer, short of proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// A call was not answered, or the link broke.
    Unanswered,
    /// A call could not even be sent.
    Unsent,
}

/// What is believed of a peer, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It answers.
    Live,
    /// It did until a moment ago.
    Suspect,
    /// It is away from here, and others reach it: the network is cut.
    Cut,
    /// It is away, and nobody that was asked reaches it.
    Dead,
    /// It is away, and nobody else is there to be asked.
    Away,
}

impl Verdict {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Live => "live",
            Verdict::Suspect => "suspect",
            Verdict::Cut => "cut",
            Verdict::Dead => "dead",
            Verdict::Away => "away",
        }
    }
}

/// An opinion on a peer with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Opinion {
    /// In a word.
    pub verdict: Verdict,
    /// How unlikely its silence is: the power of ten, at most 99.
    pub phi: f64,
    /// How long ago it last answered; none if it never did, or refuses connections.
    pub silence: Option<Duration>,
    /// How it says that it is.
    pub health: Health,
    /// Others that reach it, as they said when they were asked.
    pub reached_by: Vec<NodeId>,
    /// Others that do not.
    pub missed_by: Vec<NodeId>,
}

/// What this node has heard of another.
#[derive(Debug, Default)]
struct Peer {
    /// When it last answered; none if it never did, or has been found away since. On the clock of whoever asks.
    at: Option<Duration>,
    /// Milliseconds between its last answers.
    intervals: VecDeque<u64>,
    health: Health,
    /// When it last asked how this node is and said that it takes it for live.
    asked: Option<Duration>,
    /// When it was last pinged.
    pinged: Option<Duration>,
    /// When others were last asked about it.
    probed: Option<Duration>,
    /// A call went unanswered since it last answered.
    doubted: bool,
    /// When a call could not be sent, first since it last answered.
    unsent: Option<Duration>,
    /// Who was asked about it, when, and whether it reaches it.
    testimony: BTreeMap<NodeId, (Duration, bool)>,
}

/// Opinions on all other nodes.
#[derive(Debug)]
pub struct Detector {
    /// Silence that is forgiven at most.
    patience: Duration,
    peers: BTreeMap<NodeId, Peer>,
}

impl Detector {
    /// A detector that takes a peer for away after a silence of `patience` at the latest.
    pub fn new(patience: Duration) -> Detector {
        Detector { patience, peers: BTreeMap::new() }
    }

    /// `node` answered at `now`, and says how it is.
    pub fn answered(&mut self, node: NodeId, now: Duration, health: Health) {
        self.heard(node, now);
        self.peer(node).health = health;
    }

    /// `node` is there at `now`: it answered, whatever it was asked.
    pub fn heard(&mut self, node: NodeId, now: Duration) {
        let patience = self.patience;
        let peer = self.peer(node);
        let interval = peer.at.replace(now).map(|before| now.saturating_sub(before));
        // A return is no interval of a peer that is well.
        if let Some(interval) = interval.filter(|interval| *interval <= patience) {
            peer.intervals.push_back(interval.as_millis() as u64);
            if peer.intervals.len() > WINDOW {
                peer.intervals.pop_front();
            }
        }
        (peer.doubted, peer.unsent, peer.probed) = (false, None, None);
        peer.testimony.clear();
    }

    /// `node` is another one since it started anew: how it is, it has yet to say.
    pub fn began(&mut self, node: NodeId) {
        self.peer(node).health = Health::default();
    }

    /// `node` asked at `now` how this node is, and says whether it takes this node for live. That does not make it live:
    /// it must be reachable as well.
    pub fn asked(&mut self, node: NodeId, now: Duration, health: Health, sees_me: bool) {
        let peer = self.peer(node);
        if sees_me {
            peer.asked = Some(now);
        }
        if peer.at.is_some() {
            peer.health = health;
        }
    }

    /// Whether `node` said within the patience that it takes this node for live.
    pub fn has_asked(&self, node: NodeId, now: Duration) -> bool {
        let asked = self.peers.get(&node).and_then(|peer| peer.asked);
        asked.is_some_and(|at| now.saturating_sub(at) <= self.patience)
    }

    /// There is evidence against `node`.
    ///
    /// Says whether it is the first since `node` last answered.
    pub fn doubted(&mut self, node: NodeId, now: Duration, doubt: Doubt) -> bool {
        let again = self.period();
        let peer = self.peer(node);
        if doubt == Doubt::Unsent {
            // Calls that fail together are one failure, and a link that broke is made anew in less time.
            let first = *peer.unsent.get_or_insert(now);
            if now.saturating_sub(first) >= again {
                peer.at = None;
            }
        }
        !std::mem::replace(&mut peer.doubted, true)
    }

    /// `node` refused a connection, or cannot be reached at all: no need to wait for silence.
    pub fn refused(&mut self, node: NodeId) {
        self.peer(node).at = None;
    }

    /// `witness` was asked at `now` about `node`; it last heard of it so long ago, if ever.
    pub fn testified(&mut self, node: NodeId, witness: NodeId, now: Duration, ago: Option<Duration>) {
        let reached = ago.is_some_and(|ago| ago <= self.patience);
        self.peer(node).testimony.insert(witness, (now, reached));
    }

    /// Who of `nodes` is to be pinged at `now`, and how long it is until the next is.
    pub fn due(&mut self, nodes: &[NodeId], now: Duration) -> (Vec<NodeId>, Duration) {
        let (mut due, mut wait) = (Vec::new(), self.period());
        for node in nodes {
            let pace = if self.is_suspect(*node, now) { self.patience / PINGS.1 } else { self.period() };
            let peer = self.peer(*node);
            let left = peer.pinged.map_or(Duration::ZERO, |at| pace.saturating_sub(now.saturating_sub(at)));
            if left.is_zero() {
                peer.pinged = Some(now);
                due.push(*node);
            }
            wait = wait.min(if left.is_zero() { pace } else { left });
        }
        (due, wait)
    }

    /// Who of `nodes` is away or suspect, so that others are to be asked at `now` when they last heard of it.
    pub fn questionable(&mut self, nodes: &[NodeId], now: Duration) -> Vec<NodeId> {
        let again = self.patience * 2;
        let is_due = |detector: &Detector, node: &NodeId| {
            let probed = detector.peers.get(node).and_then(|peer| peer.probed);
            probed.is_none_or(|at| now.saturating_sub(at) >= again)
                && (!detector.is_live(*node, now) || detector.is_suspect(*node, now))
        };
        let due: Vec<NodeId> = nodes.iter().copied().filter(|node| is_due(self, node)).collect();
        due.iter().for_each(|node| self.peer(*node).probed = Some(now));
        due
    }

    /// Whether `node` is there, as far as this node can tell.
    pub fn is_live(&self, node: NodeId, now: Duration) -> bool {
        self.silence(node, now).is_some_and(|silence| silence <= self.patience) && self.phi(node, now) < AWAY
    }

    /// Whether `node` is live and there is reason to doubt it.
    pub fn is_suspect(&self, node: NodeId, now: Duration) -> bool {
        let doubted = self.peers.get(&node).is_some_and(|peer| peer.doubted);
        self.is_live(node, now) && (doubted || self.phi(node, now) >= SUSPECT)
    }

    /// How long ago `node` answered; none if it never did, or is known to be away.
    pub fn silence(&self, node: NodeId, now: Duration) -> Option<Duration> {
        self.peers.get(&node).and_then(|peer| peer.at).map(|at| now.saturating_sub(at))
    }

    /// How unlikely it is, as a negative power of ten, that a live `node` is silent for so long.
    pub fn phi(&self, node: NodeId, now: Duration) -> f64 {
        let (Some(peer), Some(silence)) = (self.peers.get(&node), self.silence(node, now)) else { return MOST };
        let (mean, deviation) = peer.rhythm(self.period());
        improbability((millis(silence) - mean) / deviation)
    }

    /// How `node` said that it is when it was heard last.
    pub fn health(&self, node: NodeId) -> Health {
        self.peers.get(&node).map(|peer| peer.health).unwrap_or_default()
    }

    /// What is believed of `node`, and why.
    pub fn opinion(&self, node: NodeId, now: Duration) -> Opinion {
        let fresh = |at: Duration| now.saturating_sub(at) <= self.patience * 4;
        let testimony = self.peers.get(&node).map(|peer| &peer.testimony).into_iter().flatten();
        let heard: Vec<(NodeId, bool)> =
            testimony.filter(|(_, (at, _))| fresh(*at)).map(|(witness, (_, reached))| (*witness, *reached)).collect();
        let who =
            |wanted: bool| heard.iter().filter(move |(_, reached)| *reached == wanted).map(|(witness, _)| *witness);
        let (reached_by, missed_by): (Vec<_>, Vec<_>) = (who(true).collect(), who(false).collect());
        let verdict = match self.is_live(node, now) {
            true if self.is_suspect(node, now) => Verdict::Suspect,
            true => Verdict::Live,
            false if !reached_by.is_empty() => Verdict::Cut,
            false if !missed_by.is_empty() => Verdict::Dead,
            false => Verdict::Away,
        };
        Opinion {
            verdict,
            phi: self.phi(node, now),
            silence: self.silence(node, now),
            health: self.health(node),
            reached_by,
            missed_by,
        }
    }

    /// Nothing is known of `node` any more: it is no member.
    pub fn forget(&mut self, node: NodeId) {
        self.peers.remove(&node);
    }

    /// Time between two pings to a peer that is well.
    fn period(&self) -> Duration {
        self.patience / PINGS.0
    }

    fn peer(&mut self, node: NodeId) -> &mut Peer {
        self.peers.entry(node).or_default()
    }
}

impl Peer {
    /// Mean and deviation of the intervals between answers, in milliseconds; neither less than a `period`. An answer to
    /// one of many pings to a suspect says nothing about how often a peer that is well answers.
    fn rhythm(&self, period: Duration) -> (f64, f64) {
        let period = millis(period).max(1.0);
        let intervals = || self.intervals.iter().map(|interval| (*interval as f64).max(period));
        let count = (self.intervals.len() as f64).max(1.0);
        let mean = (intervals().sum::<f64>() / count).max(period);
        let variance = intervals().map(|interval| (interval - mean) * (interval - mean)).sum::<f64>() / count;
        (mean, variance.sqrt().max(period))
    }
}

/// The negative power of ten of the chance that a normal variable exceeds its mean by so many deviations (the logistic
/// approximation of its tail, which is off by less than 0.00014).
fn improbability(deviations: f64) -> f64 {
    // Below this there is nothing improbable, and the formula leaves the range of numbers.
    let deviations = deviations.max(-4.0);
    let e = (-deviations * (1.5976 + 0.070566 * deviations * deviations)).exp();
    (-(e / (1.0 + e)).log10()).min(MOST)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
#[path = "detector_tests.rs"]
mod tests;
