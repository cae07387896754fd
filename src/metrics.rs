//! Every metric, declared once: name, help, and where it is counted. What is counted on the way of a request is a plain
//! atomic here; [`publish`] hands all of them to the exporter when it is asked, so that a request never pays for a
//! registry.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
pub struct Count {
    name: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Count {
    const fn new(name: &'static str, help: &'static str) -> Count {
        Count { name, help, value: AtomicU64::new(0) }
    }

    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// Starts again at 0 (CONFIG RESETSTAT).
    pub fn reset(&self) {
        self.value.store(0, Ordering::Relaxed);
    }
}

macro_rules! counts {
    ($($name:ident = $text:literal, $help:literal;)*) => {
        $(#[doc = $help] pub static $name: Count = Count::new($text, $help);)*

        /// All counts.
        pub static COUNTS: &[&Count] = &[$(&$name),*];
    };
}

counts! {
    CLOCK_SKEW_REJECTED = "redynamo_clock_skew_rejected_total", "Stamps of peers that lay too far ahead to be learned from.";
}

/// Tells the exporter names, help texts and values of all counts.
pub fn publish() {
    for count in COUNTS {
        metrics::describe_counter!(count.name, count.help);
        metrics::counter!(count.name).absolute(count.get());
    }
}
