//! What the keeper concludes from what it sees: whether commits stand still, and how much may be taken in for the room
//! that is left. No clock, no disk: time and numbers are arguments.

use std::time::Duration;

use crate::replica::Intake;

/// The most that one look may add to a standstill: a process that was stopped for a minute has not hung for a minute.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// Watches a number that should follow another.
#[derive(Debug, Default)]
pub struct Watchdog {
    reached: u64,
    looked: Option<Duration>,
    still: Duration,
}

impl Watchdog {
    /// A look at `now`, on any clock that only goes forward: for how long there was something to do (`goal` ahead of
    /// `reached`) and nothing was done.
    pub fn look(&mut self, now: Duration, goal: u64, reached: u64) -> Duration {
        let since = self.looked.map_or(Duration::ZERO, |last| now.saturating_sub(last)).min(LONGEST_LOOK);
        let moved = reached != self.reached || goal <= reached;
        self.still = if moved { Duration::ZERO } else { self.still + since };
        (self.reached, self.looked) = (reached, Some(now));
        self.still
    }
}

/// What to take in when `free` bytes are left of a disk on which `margin` should be, if it was `before` until now. What was
/// given up is taken up again only with a quarter more than its bound, so that it does not come and go.
pub fn intake(free: u64, margin: u64, before: Intake) -> Intake {
    let bound = |bound: u64, given_up: bool| if given_up { bound + bound / 4 } else { bound };
    if free < bound(margin / 2, before == Intake::Nothing) {
        Intake::Nothing
    } else if free < bound(margin, before != Intake::All) {
        Intake::Removals
    } else {
        Intake::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_standstill_is_counted_while_there_is_something_to_do_and_nothing_is_done() {
        let mut dog = Watchdog::default();
        assert_eq!(dog.look(ms(0), 5, 3), ms(0), "it may have come this far just now");
        assert_eq!(dog.look(ms(200), 5, 3), ms(200));
        assert_eq!(dog.look(ms(400), 9, 3), ms(400), "more to do is no progress");
        assert_eq!(dog.look(ms(600), 9, 4), ms(0), "a little progress is enough");
        assert_eq!(dog.look(ms(800), 9, 4), ms(200));
        assert_eq!(dog.look(ms(1_000), 9, 9), ms(0));
        assert_eq!(dog.look(ms(9_000), 9, 9), ms(0), "nothing to do is no standstill");
        assert_eq!(dog.look(ms(9_100), 10, 9), ms(100));
    }

    #[test]
    fn a_process_that_was_stopped_has_not_hung_for_so_long() {
        let mut dog = Watchdog::default();
        dog.look(ms(0), 5, 3);
        assert_eq!(dog.look(ms(600_000), 5, 3), LONGEST_LOOK);
        assert_eq!(dog.look(ms(600_100), 5, 5), ms(0));
    }

    #[test]
    fn less_room_takes_in_less_and_more_is_taken_in_only_with_some_to_spare() {
        use Intake::{All, Leaving, Nothing, Removals};
        let cases = [
            (1000, All, All),
            (999, All, Removals),
            (500, All, Removals),
            (499, All, Nothing),
            (0, All, Nothing),
            (999, Leaving, Removals),
            (1249, Leaving, Removals),
            (1250, Leaving, All),
            (1000, Removals, Removals),
            (1249, Removals, Removals),
            (1250, Removals, All),
            (499, Removals, Nothing),
            (624, Nothing, Nothing),
            (625, Nothing, Removals),
            (1249, Nothing, Removals),
            (1250, Nothing, All),
        ];
        for (free, before, after) in cases {
            assert_eq!(intake(free, 1000, before), after, "{free} free, {before:?} before");
        }
        for before in [All, Removals, Nothing] {
            assert_eq!(intake(0, 0, before), All, "no margin, no limit");
        }
    }
}
