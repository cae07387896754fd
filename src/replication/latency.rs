//! How long each peer usually takes to answer, and so how long to wait before somebody else is asked as well.
//!
//! A running mean and a running deviation per peer, as TCP keeps them for its retransmissions (RFC 6298): a few
//! additions per answer, no history.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::base::id::NodeId;

/// No shorter patience makes sense: a commit waits for its turn, a scheduler for its.
const LEAST: Duration = Duration::from_millis(20);
/// By how many deviations an answer may be late.
const DEVIATIONS: u64 = 4;

/// How long peers take.
pub struct Latencies {
    peers: Mutex<BTreeMap<NodeId, Estimate>>,
    most: Duration,
}

/// In microseconds.
#[derive(Debug, Clone, Copy)]
struct Estimate {
    mean: u64,
    deviation: u64,
}

impl Latencies {
    /// Of nobody yet; patience with anybody is never longer than `most`.
    pub fn new(most: Duration) -> Latencies {
        Latencies { peers: Mutex::default(), most }
    }

    /// `peer` took so long.
    pub fn took(&self, peer: NodeId, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let mut peers = self.peers.lock();
        let estimate = peers.entry(peer).or_insert(Estimate { mean: time, deviation: time / 2 });
        let error = estimate.mean.abs_diff(time);
        estimate.deviation = estimate.deviation - estimate.deviation / 4 + error / 4;
        estimate.mean = estimate.mean - estimate.mean / 8 + time / 8;
    }

    /// How long to wait for `peer` before another is asked as well.
    pub fn patience(&self, peer: NodeId) -> Duration {
        let estimate = self.peers.lock().get(&peer).copied();
        let expected = |Estimate { mean, deviation }| {
            Duration::from_micros(mean.saturating_add(deviation.saturating_mul(DEVIATIONS)))
        };
        estimate.map_or(self.most, expected).max(LEAST).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_follows_what_was_seen_and_stays_within_its_bounds() {
        let most = Duration::from_millis(500);
        let (latencies, peer) = (Latencies::new(most), NodeId(1));
        assert_eq!(latencies.patience(peer), most, "nothing is known yet");
        (0..100).for_each(|_| latencies.took(peer, Duration::from_millis(1)));
        assert_eq!(latencies.patience(peer), LEAST);
        (0..100).for_each(|_| latencies.took(peer, Duration::from_millis(80)));
        let slow = latencies.patience(peer);
        assert!(Duration::from_millis(80) <= slow && slow < Duration::from_millis(200), "{slow:?}");
        latencies.took(peer, Duration::from_secs(1_000));
        assert_eq!(latencies.patience(peer), most);
        assert_eq!(latencies.patience(NodeId(2)), most, "each for itself");
    }
}
