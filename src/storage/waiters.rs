//! Those who wait for a number to be reached: a runtime-agnostic list of wakers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

/// A number that only grows, and the wakers of those who wait for it.
///
/// An entry outlives a waiter that gave up; it goes, with one idle wake-up, when its number is reached.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    reached: AtomicU64,
    list: Mutex<BinaryHeap<Waiting>>,
}

impl Waiters {
    /// How far it is.
    pub fn reached(&self) -> u64 {
        self.reached.load(Ordering::Acquire)
    }

    /// Registers `waker` unless `number` is reached; says whether it is.
    pub fn register(&self, number: u64, waker: &Waker) -> bool {
        let mut list = self.list.lock();
        // Again under the lock: `advance` publishes before it takes the lock, so no wake-up falls between.
        if self.reached() >= number {
            return true;
        }
        list.push(Waiting { number: Reverse(number), waker: waker.clone() });
        false
    }

    /// Publishes `number` and wakes those whose number that reaches, and nobody else.
    pub fn advance(&self, number: u64) {
        self.reached.fetch_max(number, Ordering::AcqRel);
        self.wake_until(number);
    }

    /// Wakes everybody, since what they wait for will not come.
    pub fn wake_all(&self) {
        self.wake_until(u64::MAX);
    }

    /// Wakes outside of the lock, in portions, so that waiters who run at once do not meet it.
    fn wake_until(&self, number: u64) {
        let mut due: smallvec::SmallVec<[Waker; 32]> = smallvec::SmallVec::new();
        loop {
            {
                let mut list = self.list.lock();
                while due.len() < 32 && list.peek().is_some_and(|w| w.number.0 <= number) {
                    due.extend(list.pop().map(|w| w.waker));
                }
            }
            if due.is_empty() {
                return;
            }
            due.drain(..).for_each(Waker::wake);
        }
    }
}

#[derive(Debug)]
struct Waiting {
    number: Reverse<u64>,
    waker: Waker,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.number.cmp(&other.number)
    }
}
