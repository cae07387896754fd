//! What clients did and were told, how often and when; what all threads of a run know of each other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redynamo::sim::history::{Deed, History, Op, Outcome};

/// How long after a fault commands may fail: until everyone has noticed.
const DETECTION: Duration = Duration::from_secs(3);

/// What clients are to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    Work,
    Rest,
    End,
}

/// How often commands came out how.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Counts {
    pub done: u64,
    pub not_done: u64,
    pub unknown: u64,
}

/// Counts of one kind of command.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    pub all: Counts,
    /// Of those that began later than [`DETECTION`] after the last fault, ended before the next one, and were sent to a
    /// node that reaches as many others, without loss, as a write needs.
    pub calm: Counts,
}

/// Shared by everyone in a run.
pub struct Logbook {
    pub history: Mutex<History>,
    tallies: Mutex<BTreeMap<&'static str, Tally>>,
    /// Errors that commands failed with, without what differs from one to the next.
    errors: Mutex<BTreeMap<String, u64>>,
    violations: Mutex<Vec<String>>,
    /// A line for every command and every fault.
    lines: Mutex<BufWriter<File>>,
    /// Who certainly holds a lock now.
    holders: Mutex<BTreeMap<u64, usize>>,
    began: Instant,
    last_fault: AtomicU64,
    /// A bit for each node that reaches as many as a write needs.
    able: AtomicU64,
    phase: AtomicU8,
    resting: AtomicUsize,
    round: AtomicU64,
}

impl Logbook {
    /// A logbook whose lines go into a file in `dir`.
    pub fn new(dir: &Path) -> Logbook {
        let lines = File::options().create(true).append(true).open(dir.join("clients.log")).unwrap();
        Logbook {
            history: Mutex::default(),
            tallies: Mutex::default(),
            errors: Mutex::default(),
            violations: Mutex::default(),
            lines: Mutex::new(BufWriter::new(lines)),
            holders: Mutex::default(),
            began: Instant::now(),
            last_fault: AtomicU64::new(0),
            able: AtomicU64::new(u64::MAX),
            phase: AtomicU8::new(Phase::Rest as u8),
            resting: AtomicUsize::new(0),
            round: AtomicU64::new(0),
        }
    }

    /// The next moment in the order of all that happens.
    pub fn moment(&self) -> u64 {
        self.history.lock().unwrap().moment()
    }

    /// Remembers what a client did since `began`.
    pub fn note(&self, client: usize, began: u64, key: &Bytes, deed: Deed, outcome: Outcome) {
        let mut history = self.history.lock().unwrap();
        let ended = history.moment();
        history.note(key, Op { client, began, ended, deed, outcome, wrote: None });
    }

    /// Counts a command of a kind that was sent to a node since `began` and has just come out so.
    pub fn count(&self, kind: &'static str, at: usize, began: Instant, outcome: Outcome) {
        let mut tallies = self.tallies.lock().unwrap();
        let tally = tallies.entry(kind).or_default();
        tally.all.add(outcome);
        if self.is_calm(at, began) {
            tally.calm.add(outcome);
        }
    }

    /// Counts why a command that began at `began` has just failed.
    pub fn count_error(&self, at: usize, began: Instant, text: &str) {
        let kind: String = text.chars().map(|c| if c.is_ascii_digit() { '#' } else { c }).take(90).collect();
        let when = if self.is_calm(at, began) { "calm, " } else { "" };
        *self.errors.lock().unwrap().entry(format!("{when}{kind}")).or_default() += 1;
    }

    fn is_calm(&self, at: usize, began: Instant) -> bool {
        let able = self.able.load(Ordering::Relaxed) >> at & 1 == 1;
        able && began > self.began + Duration::from_millis(self.last_fault.load(Ordering::Relaxed)) + DETECTION
    }

    /// Something begins or ceases to be broken.
    pub fn fault(&self) {
        self.last_fault.store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Which nodes reach as many as a write needs.
    pub fn set_able(&self, nodes: impl Iterator<Item = usize>) {
        self.able.store(nodes.fold(0, |bits, node| bits | 1 << node), Ordering::Relaxed);
    }

    pub fn violation(&self, what: String) {
        self.line(format_args!("VIOLATION {what}"));
        self.violations.lock().unwrap().push(what);
    }

    /// Writes a line for whoever wants to know what happened.
    pub fn line(&self, line: std::fmt::Arguments) {
        let at = self.began.elapsed().as_secs_f64();
        let _ = writeln!(self.lines.lock().unwrap(), "{at:>9.3} {line}");
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    pub fn tallies(&self) -> BTreeMap<&'static str, Tally> {
        self.tallies.lock().unwrap().clone()
    }

    pub fn errors(&self) -> BTreeMap<String, u64> {
        self.errors.lock().unwrap().clone()
    }

    pub fn phase(&self) -> Phase {
        [Phase::Work, Phase::Rest, Phase::End][usize::from(self.phase.load(Ordering::SeqCst))]
    }

    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// How many clients do nothing.
    pub fn resting(&self) -> &AtomicUsize {
        &self.resting
    }

    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Relaxed)
    }

    pub fn next_round(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// `client` was told that it has a lock.
    pub fn locked(&self, lock: u64, client: usize) {
        if let Some(other) = self.holders.lock().unwrap().insert(lock, client) {
            self.violation(format!("client {client} was given lock {lock}, which client {other} holds"));
        }
    }

    /// It is about to give it back.
    pub fn unlocks(&self, lock: u64) {
        self.holders.lock().unwrap().remove(&lock);
    }
}

impl Counts {
    pub fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Done => self.done += 1,
            Outcome::NotDone => self.not_done += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }

    pub fn total(self) -> u64 {
        self.done + self.not_done + self.unknown
    }

    /// How many of a hundred were acknowledged.
    pub fn rate(self) -> f64 {
        100.0 * self.done as f64 / self.total().max(1) as f64
    }

    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            done: self.done + other.done,
            not_done: self.not_done + other.not_done,
            unknown: self.unknown + other.unknown,
        }
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts { done, not_done, unknown } = self;
        write!(f, "{:>7} done {not_done:>6} not done {unknown:>5} unknown: {:.2} %", done, self.rate())
    }
}
