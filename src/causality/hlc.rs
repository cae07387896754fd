//! Hybrid logical clock: wall time that never runs backwards. It orders siblings for plain reads and decides on which
//! side of a deadline a write fell; it decides nothing else (Kulkarni et al. 2014).

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds since the Unix epoch in the upper 48 bits, a logical count in the lower 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The first stamp of a millisecond.
    pub fn at(ms: u64) -> Stamp {
        Stamp(ms << 16)
    }

    /// The last stamp of a millisecond.
    pub fn last_in(ms: u64) -> Stamp {
        Stamp(ms << 16 | 0xffff)
    }

    /// The stamp right behind it.
    pub fn next(self) -> Stamp {
        Stamp(self.0.saturating_add(1))
    }

    /// Its wall time in milliseconds.
    pub fn ms(self) -> u64 {
        self.0 >> 16
    }
}

/// When a command runs: the wall time it reads deadlines by, and the stamp of what it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Wall time in milliseconds since the Unix epoch.
    pub now: u64,
    /// Stamp for the versions it writes; its time is never before `now`.
    pub stamp: Stamp,
}

/// A remote stamp that lies further ahead of the wall clock than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stamp lies {ahead_ms} ms ahead of this node's clock")]
pub struct TooFarAhead {
    /// How far, in milliseconds.
    pub ahead_ms: u64,
}

/// A node's clock of stamps. Shared: ticks from many threads all differ.
#[derive(Debug, Default)]
pub struct Hlc(AtomicU64);

impl Hlc {
    /// A clock that gives nothing at or before `high_water`, the stamp that a former life persisted.
    pub fn starting_after(high_water: Stamp) -> Self {
        Hlc(AtomicU64::new(high_water.0))
    }

    /// The next stamp at wall time `now` (milliseconds): greater than every one given or observed.
    pub fn tick(&self, now: u64) -> Moment {
        let floor = Stamp::at(now).0;
        let mut last = self.0.load(Ordering::Relaxed);
        loop {
            let next = floor.max(last.saturating_add(1));
            match self.0.compare_exchange_weak(last, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Moment { now, stamp: Stamp(next) },
                Err(seen) => last = seen,
            }
        }
    }

    /// Learns a peer's stamp. One too far ahead is refused, so that one bad clock cannot drag the cluster forward; what
    /// carried it is still merged by the caller, since time orders nothing that must not be lost.
    pub fn observe(&self, stamp: Stamp, now: u64, max_ahead_ms: u64) -> Result<(), TooFarAhead> {
        let ahead_ms = stamp.ms().saturating_sub(now);
        if ahead_ms > max_ahead_ms {
            return Err(TooFarAhead { ahead_ms });
        }
        self.0.fetch_max(stamp.0, Ordering::Relaxed);
        Ok(())
    }

    /// The last stamp given or observed.
    pub fn last(&self) -> Stamp {
        Stamp(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_rise_even_when_the_wall_clock_steps_back() {
        let hlc = Hlc::default();
        let first = hlc.tick(1_000).stamp;
        let second = hlc.tick(400).stamp;
        assert!(second > first);
        assert_eq!(second.ms(), 1_000);
    }

    #[test]
    fn an_observed_stamp_is_passed_and_one_too_far_ahead_is_refused() {
        let hlc = Hlc::default();
        hlc.tick(1_000);
        assert_eq!(hlc.observe(Stamp::at(1_400), 1_000, 500), Ok(()));
        assert!(hlc.tick(1_000).stamp > Stamp::at(1_400));
        assert_eq!(hlc.observe(Stamp::at(9_000), 1_000, 500), Err(TooFarAhead { ahead_ms: 8_000 }));
        assert!(hlc.last() < Stamp::at(9_000));
    }

    #[test]
    fn a_restart_goes_on_after_the_persisted_high_water_mark() {
        let hlc = Hlc::starting_after(Stamp::at(5_000));
        assert!(hlc.tick(1_000).stamp > Stamp::at(5_000));
    }
}
