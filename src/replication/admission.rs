//! Admission of background work (paper §6.5): a slice of bytes a second that shrinks as the foreground's 99th percentile
//! approaches its limit and grows while there is room. [`Controller`] decides, from what it is given; [`Admission`] is
//! the gate at which background work waits, and counts how long commands of clients took.
//!
//! The limit is twice what the percentile is while no background work runs. That is known from idle times; work that
//! goes on for long is held back now and then for the blink of an eye, to listen. Of the latest measurements the middle one
//! is believed, and it may fall at once but rises only slowly: what work has left behind (compactions, other nodes that are
//! at it as well) is in them, and two nodes that took each other's load for the normal state would drive each other up.
//!
//! However slow the foreground is, there is a floor, so that everything ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use tokio::time::{Instant, sleep, timeout};

use crate::base::latency::{Counts, Latencies, Window};

/// How often the slice is decided anew.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// What a row costs beside its bytes: it is looked up, merged and written, however small it is.
const ROW_COST: u64 = 256;
/// The slice that background work begins with, and the largest, in bytes a second.
const START: u64 = 4 << 20;
const MOST: u64 = 1 << 30;
/// What settling may take at least, whatever the foreground says: that waits for it.
const SETTLING: u64 = 16 << 20;
/// How far settling may take ahead what repairs would have had: they go on, if slowly.
const AHEAD: Duration = Duration::from_secs(1);
/// What may be taken at once is what comes in so long a time.
const BURST: Duration = Duration::from_millis(20);

/// How many times of the foreground are looked at: enough for a percentile that is not mere chance.
const SAMPLE: f32 = 300.0;
/// With fewer than this, nothing is known of the foreground.
const TOO_FEW: f32 = 10.0;
/// What old times weigh at most after another interval, however few new ones there are.
const KEEP: f32 = 0.9;
const PERCENTILE: f32 = 0.99;

/// Times that make one measurement of calm; or what came in so many intervals.
const MEASURE: f32 = 150.0;
const MEASURE_INTERVALS: u32 = 25;
/// How many measurements are remembered: the one in the middle is believed.
const MEASUREMENTS: usize = 11;

/// The limit, in terms of the percentile in calm.
const LIMIT: u32 = 2;
/// A derived limit is not below this: nobody waits for less.
const LEAST_LIMIT: Duration = Duration::from_millis(1);
/// The part of the limit that the foreground is to keep free.
const MARGIN: f64 = 0.3;
/// By how much the slice changes in one decision, at most.
const CHANGE: (f64, f64) = (0.5, 1.25);
/// By how much what is taken for calm rises with a measurement in idleness, and with one in listening.
const RISE: (f64, f64) = (1.05, 1.02);

/// Intervals without work before what is measured is calm.
const SETTLE: u32 = 1;
/// Intervals of work before it is held back to listen, when it has begun and later; and for how long.
const WORK: (u32, u32) = (5, 25);
const LISTEN: u32 = SETTLE + 2;
/// How often it listens before it is no beginner.
const BEGINNER: u32 = 6;
/// Idle intervals after which work begins anew at [`START`].
const STALE: u32 = 25;

/// What background work is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nobody waits for it: repairs, hints, clean-ups.
    Repair,
    /// Commands wait for it, or cost more until it is done: a coordinator pulls what it may have missed.
    Settling,
}

/// What is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether background work is held back at all.
    pub throttle: bool,
    /// The limit of the foreground's percentile; none to derive it.
    pub limit: Option<Duration>,
    /// The least slice, in bytes a second.
    pub floor: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Rules { throttle: true, limit: None, floor: 1 << 20 }
    }
}

/// Why the slice is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Nobody asks for any.
    Idle,
    /// There is room.
    Growing,
    /// The foreground is near its limit, or over it.
    Latency,
    /// The foreground is over its limit and less is not given.
    Floor,
    /// Held back to see how fast the foreground is without.
    Listening,
    /// Nothing is held back: it is set so.
    Unlimited,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 6] =
        [Reason::Idle, Reason::Growing, Reason::Latency, Reason::Floor, Reason::Listening, Reason::Unlimited];

    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Idle => "idle",
            Reason::Growing => "growing",
            Reason::Latency => "latency",
            Reason::Floor => "floor",
            Reason::Listening => "listening",
            Reason::Unlimited => "unlimited",
        }
    }
}

/// What background work may take now, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Bytes a second.
    pub bytes_per_s: u64,
    /// Why.
    pub reason: Reason,
    /// The foreground's 99th percentile lately; none if there is too little of it.
    pub foreground: Option<Duration>,
    /// The same without background work; none if that is not known yet.
    pub calm: Option<Duration>,
    /// What it is not to exceed; none if that is not known yet.
    pub limit: Option<Duration>,
}

/// Decides on the slice. It is told what happened in each interval and reads no clock.
#[derive(Debug)]
pub struct Controller {
    rules: Rules,
    slice: f64,
    reason: Reason,
    /// The latest times of the foreground.
    lately: Window,
    /// What is taken for its percentile in calm.
    calm: Calm,
    /// Intervals in a row that saw no work.
    quiet: u32,
    /// Intervals of work since the last listening, or intervals that the present one has left.
    worked: u32,
    listen: u32,
    /// How often this work has been held back to listen.
    listened: u32,
}

/// What the foreground's percentile is without background work.
#[derive(Debug, Default)]
struct Calm {
    /// Times of the measurement that is being made, and of how many intervals.
    times: Window,
    intervals: u32,
    /// The latest measurements.
    latest: VecDeque<Duration>,
    believed: Option<Duration>,
}

impl Calm {
    /// An interval without work saw these times; what is believed rises by `rise` at most.
    fn learn(&mut self, seen: &Counts, rise: f64) {
        self.times.add(seen);
        self.intervals += 1;
        let enough = self.times.weight() >= MEASURE || self.intervals >= MEASURE_INTERVALS;
        if !enough || self.times.weight() < TOO_FEW {
            return;
        }
        self.latest.extend(std::mem::take(&mut self.times).quantile(PERCENTILE));
        self.intervals = 0;
        if self.latest.len() > MEASUREMENTS {
            self.latest.pop_front();
        }
        let mut sorted: Vec<Duration> = self.latest.iter().copied().collect();
        sorted.sort_unstable();
        let now = sorted.get((sorted.len() - 1) / 2).copied();
        let most = self.believed.map(|before| before.mul_f64(rise));
        self.believed = now.map(|now| most.map_or(now, |most| now.min(most)));
    }
}

impl Controller {
    /// One that knows nothing yet.
    pub fn new(rules: Rules) -> Controller {
        Controller {
            rules,
            slice: START as f64,
            reason: Reason::Idle,
            lately: Window::default(),
            calm: Calm::default(),
            quiet: 0,
            worked: 0,
            listen: 0,
            listened: 0,
        }
    }

    /// Follows other rules from now on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// An interval is over: these times of the foreground were seen in it, background work took `used` bytes, and it
    /// `wanted` any.
    pub fn step(&mut self, seen: &Counts, used: u64, wanted: bool) {
        let fresh = self.look(seen);
        let calm = used == 0 && (!wanted || self.listen > 0);
        self.quiet = if calm { self.quiet.saturating_add(1) } else { 0 };
        if self.quiet > SETTLE {
            self.calm.learn(seen, if self.listen > 0 { RISE.1 } else { RISE.0 });
        }
        self.reason = self.decide(used, wanted, fresh);
    }

    /// Takes in the foreground's times; answers which part of what is known is new.
    fn look(&mut self, seen: &Counts) -> f64 {
        let (new, old) = (seen.total() as f32, self.lately.weight());
        let keep = if old > 0.0 { ((SAMPLE - new) / old).clamp(0.0, KEEP) } else { KEEP };
        self.lately.fade(keep);
        self.lately.add(seen);
        f64::from((new / self.lately.weight().max(1.0)).clamp(1.0 - KEEP, 1.0))
    }

    fn decide(&mut self, used: u64, wanted: bool, fresh: f64) -> Reason {
        if !self.rules.throttle {
            self.listen = 0;
            return Reason::Unlimited;
        }
        if !wanted && self.listen == 0 {
            if self.quiet >= STALE {
                self.slice = self.slice.min(START as f64);
                (self.worked, self.listened) = (0, 0);
            }
            return Reason::Idle;
        }
        if self.listens() {
            return Reason::Listening;
        }
        self.worked += 1;
        self.adjust(used, fresh)
    }

    /// Whether the next interval is for listening.
    fn listens(&mut self) -> bool {
        let known = self.lately.weight() >= TOO_FEW;
        if self.listen > 0 {
            self.listen -= 1;
        } else if known && self.rules.limit.is_none() && (self.worked >= self.patience() || self.is_new()) {
            self.listen = LISTEN;
            self.listened += 1;
        }
        if self.listen > 0 {
            self.worked = 0;
        }
        self.listen > 0
    }

    /// Intervals of work between two times of listening.
    fn patience(&self) -> u32 {
        if self.listened < BEGINNER { WORK.0 } else { WORK.1 }
    }

    /// Whether work begins without anything being known of calm.
    fn is_new(&self) -> bool {
        self.calm.believed.is_none() && self.worked == 0 && self.reason != Reason::Listening
    }

    fn adjust(&mut self, used: u64, fresh: f64) -> Reason {
        let change = match (self.foreground(), self.limit()) {
            (Some(now), Some(limit)) => {
                let room = 1.0 - now.as_secs_f64() / limit.as_secs_f64().max(1e-6);
                (1.0 + room - MARGIN).clamp(CHANGE.0, CHANGE.1).powf(fresh)
            }
            _ => CHANGE.1,
        };
        // What is not used is not known to be bearable.
        let used_up = used as f64 >= self.slice * INTERVAL.as_secs_f64() / 2.0;
        if change < 1.0 || used_up {
            self.slice *= change;
        }
        let floor = self.rules.floor as f64;
        self.slice = self.slice.clamp(floor.min(MOST as f64), (MOST as f64).max(floor));
        match change < 1.0 {
            true if self.slice <= floor => Reason::Floor,
            true => Reason::Latency,
            false => Reason::Growing,
        }
    }

    fn foreground(&self) -> Option<Duration> {
        self.lately.quantile(PERCENTILE).filter(|_| self.lately.weight() >= TOO_FEW)
    }

    fn limit(&self) -> Option<Duration> {
        let derived = || self.calm.believed.map(|calm| (calm * LIMIT).max(LEAST_LIMIT));
        self.rules.limit.or_else(derived)
    }

    /// What may be taken now.
    pub fn slice(&self) -> Slice {
        let bytes_per_s = match self.reason {
            Reason::Unlimited => u64::MAX,
            Reason::Listening => 0,
            _ => self.slice as u64,
        };
        let (foreground, calm, limit) = (self.foreground(), self.calm.believed, self.limit());
        Slice { bytes_per_s, reason: self.reason, foreground, calm, limit }
    }
}

/// The gate. Pieces are let through in the order in which they were asked for, those of settling beside the others.
#[derive(Debug)]
pub struct Admission {
    foreground: Latencies,
    state: Mutex<State>,
    turns: [tokio::sync::Mutex<()>; 2],
    /// Held by whoever repairs with a processor.
    hands: tokio::sync::Mutex<()>,
    /// Somebody asked in this interval.
    wanted: AtomicBool,
    throttled_micros: AtomicU64,
}

#[derive(Debug)]
struct State {
    controller: Controller,
    /// Bytes that may be taken; below 0 what was taken ahead.
    balance: f64,
    /// The same of what settling may take at least.
    settling: f64,
    at: Instant,
    used: u64,
}

impl Admission {
    /// An open gate.
    pub fn new(rules: Rules) -> Admission {
        let state =
            State { controller: Controller::new(rules), balance: 0.0, settling: 0.0, at: Instant::now(), used: 0 };
        Admission {
            foreground: Latencies::default(),
            state: Mutex::new(state),
            turns: Default::default(),
            hands: tokio::sync::Mutex::default(),
            wanted: AtomicBool::new(false),
            throttled_micros: AtomicU64::new(0),
        }
    }

    /// Follows other rules from now on.
    pub fn set_rules(&self, rules: Rules) {
        self.state.lock().controller.set_rules(rules);
    }

    /// A command of a client took so long.
    pub fn note(&self, took: Duration) {
        self.foreground.note(took);
    }

    /// Waits until a piece of background work may be done that moves about so many bytes. A piece larger than the slice
    /// is let through when its turn comes, and whatever comes next waits for longer.
    pub async fn take(&self, work: Work, bytes: u64) {
        self.wanted.store(true, Ordering::Relaxed);
        let began = Instant::now();
        let _turn = self.turns[work as usize].lock().await;
        while let Some(pause) = self.pause(work, bytes) {
            sleep(pause).await;
            self.wanted.store(true, Ordering::Relaxed);
        }
        self.throttled_micros.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    /// The same for so many rows of so many bytes together.
    pub async fn take_rows(&self, work: Work, rows: usize, bytes: usize) {
        self.take(work, cost(rows, bytes)).await;
    }

    /// The same for whoever is waited for: after `most` the piece goes through, and what comes next waits for longer.
    pub async fn take_rows_within(&self, work: Work, rows: usize, bytes: usize, most: Duration) {
        if timeout(most, self.take_rows(work, rows, bytes)).await.is_err() {
            let mut state = self.state.lock();
            state.spend(work, cost(rows, bytes));
            self.throttled_micros.fetch_add(most.as_micros() as u64, Ordering::Relaxed);
        }
    }

    /// To be held while a piece is read, compared or merged. Repairs do that one at a time, however many wait for others:
    /// what a piece takes of a processor no slice can take back.
    pub async fn hands(&self, work: Work) -> Option<MutexGuard<'_, ()>> {
        match work {
            Work::Repair => Some(self.hands.lock().await),
            Work::Settling => None,
        }
    }

    /// Takes the bytes, or says how long to wait before asking again.
    fn pause(&self, work: Work, bytes: u64) -> Option<Duration> {
        let mut state = self.state.lock();
        let slice = state.controller.slice();
        state.refill(slice.bytes_per_s);
        let mut due = due(state.balance, slice.bytes_per_s);
        if work == Work::Settling {
            due = due.min(self::due(state.settling, SETTLING));
        }
        if slice.reason == Reason::Unlimited || due.is_zero() {
            state.spend(work, bytes);
            return None;
        }
        Some(due.clamp(Duration::from_millis(1), INTERVAL / 4))
    }

    /// Decides on the slice for the next interval. To be called every [`INTERVAL`].
    pub fn step(&self) {
        let seen = self.foreground.take();
        let wanted = self.wanted.swap(false, Ordering::Relaxed);
        let mut state = self.state.lock();
        let used = std::mem::take(&mut state.used);
        let rate = state.controller.slice().bytes_per_s;
        state.refill(rate);
        state.controller.step(&seen, used, wanted);
    }

    /// What may be taken now, and why.
    pub fn slice(&self) -> Slice {
        self.state.lock().controller.slice()
    }

    /// How long background work has waited here, all pieces together.
    pub fn throttled(&self) -> Duration {
        Duration::from_micros(self.throttled_micros.load(Ordering::Relaxed))
    }
}

impl State {
    fn spend(&mut self, work: Work, bytes: u64) {
        self.used = self.used.saturating_add(bytes);
        let after = self.balance - bytes as f64;
        match work {
            Work::Repair => self.balance = after,
            Work::Settling => {
                self.settling -= bytes as f64;
                let rate = self.controller.slice;
                self.balance = after.max((-rate * AHEAD.as_secs_f64()).min(self.balance));
            }
        }
    }

    fn refill(&mut self, bytes_per_s: u64) {
        let now = Instant::now();
        let past = now.saturating_duration_since(self.at).as_secs_f64();
        let refilled = |balance: f64, rate: f64| (balance + rate * past).min(rate * BURST.as_secs_f64());
        self.balance = refilled(self.balance, bytes_per_s as f64);
        self.settling = refilled(self.settling, SETTLING as f64);
        self.at = now;
    }
}

/// When a piece may be taken at such a balance and rate.
fn due(balance: f64, bytes_per_s: u64) -> Duration {
    match bytes_per_s {
        0 => INTERVAL,
        _ => Duration::try_from_secs_f64((-balance).max(0.0) / bytes_per_s as f64).unwrap_or(INTERVAL),
    }
}

/// What some rows cost.
fn cost(rows: usize, bytes: usize) -> u64 {
    (bytes as u64).saturating_add((rows as u64).saturating_mul(ROW_COST))
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
