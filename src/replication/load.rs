//! How much this node may be coordinating at once. What comes beyond that is refused before anything is done: a queue
//! that only grows helps nobody, and its commands would be answered when nobody waits any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::Finished;
use crate::metrics;

/// What is under way.
pub struct Load {
    commands: AtomicUsize,
    bytes: AtomicUsize,
    most_commands: usize,
    most_bytes: usize,
}

/// A command that was let in. It is out when this is dropped.
pub struct Entered {
    load: Arc<Load>,
    bytes: usize,
}

impl Load {
    /// Nothing yet, with these limits.
    pub fn new(most_commands: usize, most_bytes: usize) -> Arc<Load> {
        let zero = AtomicUsize::default;
        Arc::new(Load { commands: zero(), bytes: zero(), most_commands, most_bytes })
    }

    /// Lets a command in, unless there are too many. One that is larger than all that may wait is let in alone.
    pub fn enter(self: &Arc<Self>, bytes: usize) -> Option<Entered> {
        let (commands, waiting) = (self.commands.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        if commands >= self.most_commands || (waiting > 0 && waiting.saturating_add(bytes) > self.most_bytes) {
            return None;
        }
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Some(Entered { load: self.clone(), bytes })
    }

    /// The same for a client's command, with the answer for one that was not let in.
    pub(super) fn admit(self: &Arc<Self>, args: &[Bytes]) -> Result<Entered, Finished> {
        self.enter(args.iter().map(Bytes::len).sum()).ok_or_else(|| {
            metrics::OVERLOADS.increment();
            Finished::not_done("this node is overloaded")
        })
    }

    /// How many commands are under way, and their bytes.
    pub fn now(&self) -> (usize, usize) {
        (self.commands.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.load.commands.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_refused_until_something_has_left() {
        let load = Load::new(2, 100);
        let (one, other) = (load.enter(10).unwrap(), load.enter(10).unwrap());
        assert!(load.enter(1).is_none(), "too many");
        drop(one);
        assert!(load.enter(91).is_none(), "too much");
        let third = load.enter(90).unwrap();
        assert_eq!(load.now(), (2, 100));
        drop((other, third));
        assert!(load.enter(1_000).is_some(), "alone anything may enter");
        assert_eq!(load.now(), (0, 0));
    }
}
