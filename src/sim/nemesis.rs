//! What goes wrong: several sources of faults, side by side, so that faults overlap. Single faults find little.
//!
//! Every fault has a name (its source's number, and which of that source's faults it is), by which a replay can leave it
//! out: so a failing seed is made smaller.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::config::{Faults, Weather};
use super::net::Cut;
use super::world::{Crash, World};
use crate::base::rng::Rng;
use crate::storage::SyncPolicy;

/// A fault: number of its source, and of the fault there.
pub type FaultName = (u16, u16);

/// A source of faults.
pub(super) struct Source {
    pub(super) world: Arc<World>,
    pub(super) rng: Rng,
    number: u16,
    faults: u16,
}

/// Lets things go wrong until the returned set is dropped.
pub fn unleash(world: &Arc<World>) -> JoinSet<()> {
    let Faults { crashes, cuts, pauses, ambushes, rollbacks, blackouts, slow_disks, sick_disks, skew_ms, .. } =
        &world.config.faults;
    let weather = &world.config.faults.weather;
    let mut sources = JoinSet::new();
    let mut number = 0;
    let mut source = || {
        number += 1;
        Source { world: world.clone(), rng: world.fork(), number, faults: 0 }
    };
    (0..*crashes).for_each(|_| drop(sources.spawn(source().crashes())));
    (0..*cuts).for_each(|_| drop(sources.spawn(source().cuts())));
    (0..*pauses).for_each(|_| drop(sources.spawn(source().pauses())));
    (0..*ambushes).for_each(|_| drop(sources.spawn(source().ambushes())));
    if weather.delay_ms > 0 {
        sources.spawn(source().weather());
    }
    if *skew_ms > 0 {
        sources.spawn(source().clocks());
    }
    if *slow_disks {
        sources.spawn(source().slow_disks());
    }
    if *blackouts {
        sources.spawn(source().blackouts());
    }
    if *sick_disks {
        sources.spawn(source().sick_disks());
    }
    if *rollbacks {
        sources.spawn(source().snapshots());
    }
    sources
}

impl Source {
    async fn crashes(mut self) {
        loop {
            self.pause(100, 3_000).await;
            let at = self.node();
            let crash = self.crash();
            let down = self.world.config.faults.down.as_millis() as u64;
            let down = if self.rng.chance(0.5) { down / 4 } else { down };
            if self.acts() {
                self.strike(at, crash);
            }
            self.pause(20, 21 + down).await;
            self.world.start(at);
        }
    }

    /// Ends a node in this way, unless more would be forgotten than may be.
    pub(super) fn strike(&self, at: usize, crash: Crash) {
        let may = self.is_harmless(crash) || self.world.forgets(at);
        self.world.crash(at, if may { crash } else { Crash::Kill });
    }

    pub(super) fn crash(&mut self) -> Crash {
        let Faults { power_cuts, wipes, rollbacks, .. } = self.world.config.faults;
        match self.rng.below(8) {
            0 | 1 if power_cuts => Crash::PowerCut,
            2 if wipes => Crash::Wipe,
            3 if rollbacks => Crash::RollBack { with_mark: true },
            4 if rollbacks => Crash::RollBack { with_mark: false },
            5 => Crash::Stop,
            _ => Crash::Kill,
        }
    }

    /// Whether nothing that was acknowledged is forgotten: not so when the power fails, unless disks sync before they
    /// acknowledge.
    fn is_harmless(&self, crash: Crash) -> bool {
        match crash {
            Crash::Stop | Crash::Kill => true,
            Crash::PowerCut => self.world.config.sync == SyncPolicy::Always,
            Crash::Wipe | Crash::RollBack { .. } => false,
        }
    }

    /// All nodes at once. Only disks that sync before they acknowledge stand a power cut of all.
    async fn blackouts(mut self) {
        loop {
            self.pause(1_000, 6_000).await;
            let power_fails = self.world.config.faults.power_cuts && self.is_harmless(Crash::PowerCut);
            if self.acts() {
                let crash = if power_fails { Crash::PowerCut } else { Crash::Kill };
                (0..self.world.len()).for_each(|at| self.world.crash(at, crash));
                self.world.count("blackout");
            }
            self.pause(10, 500).await;
            self.world.start_all();
        }
    }

    /// Every cut heals by itself, whatever else is cut meanwhile.
    async fn cuts(mut self) {
        loop {
            self.pause(100, 3_000).await;
            let (shape, ways) = self.ways();
            let cut = [Cut::Refuse, Cut::Swallow, Cut::Stall][self.rng.below(3) as usize];
            let breaks = self.rng.chance(0.5);
            if self.acts() {
                let number = self.name();
                self.world.count(shape);
                for (from, to) in &ways {
                    let (from, to) = (self.world.id(*from), self.world.id(*to));
                    self.world.net.add_cut(number, from, to, cut);
                    if breaks {
                        self.world.net.break_link(from, to);
                    }
                }
            }
            let longest = if self.rng.chance(0.3) { 6_000 } else { 2_000 };
            self.pause(30, longest).await;
            let number = self.name();
            for (from, to) in &ways {
                self.world.net.heal_cut(number, self.world.id(*from), self.world.id(*to));
            }
        }
    }

    /// Which ways are cut, and what that is called.
    fn ways(&mut self) -> (&'static str, Vec<(usize, usize)>) {
        let mut order: Vec<usize> = (0..self.world.len()).collect();
        self.rng.shuffle(&mut order);
        let nodes = order.len();
        let place = |at: usize| order.iter().position(|other| *other == at).unwrap_or_default();
        let all = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let where_ = |cut: &dyn Fn(usize, usize) -> bool| -> Vec<(usize, usize)> {
            all.filter(|(from, to)| cut(place(*from), place(*to))).collect()
        };
        let minority = 1 + self.rng.below((nodes as u64 / 2).max(1)) as usize;
        match self.rng.below(9) {
            0 => ("cut of one way", where_(&|from, to| (from, to) == (0, 1))),
            1 => ("cut of one link", where_(&|from, to| from + to == 1)),
            2 => ("cut of one node", where_(&|from, to| from == 0 || to == 0)),
            3 => ("cut of what reaches one node", where_(&|_, to| to == 0)),
            4 => ("cut of what leaves one node", where_(&|from, _| from == 0)),
            5 => ("cut in halves", where_(&|from, to| (from < nodes / 2) != (to < nodes / 2))),
            6 => ("cut off minority", where_(&|from, to| (from < minority) != (to < minority))),
            7 => (
                "cut with a bridge",
                where_(&|from, to| from != 0 && to != 0 && (from > nodes / 2) != (to > nodes / 2)),
            ),
            _ => ("cut to a ring", where_(&|from, to| (from + 1) % nodes != to && (to + 1) % nodes != from)),
        }
    }

    async fn pauses(mut self) {
        loop {
            self.pause(200, 3_000).await;
            let at = self.node();
            if self.acts() {
                self.world.set_paused(at, true);
            }
            let longest = if self.rng.chance(0.3) { 5_000 } else { 1_500 };
            self.pause(30, longest).await;
            self.world.set_paused(at, false);
        }
    }

    async fn weather(mut self) {
        let Weather { loss, duplication, reordering, delay_ms } = self.world.config.faults.weather;
        loop {
            let mut part = |worst: f64| worst * self.rng.below(101) as f64 / 100.0;
            let (loss, duplication, reordering) = (part(loss), part(duplication), part(reordering));
            let delay_ms = 1 + self.rng.below(delay_ms);
            if self.acts() {
                self.world.net.set_weather(Weather { loss, duplication, reordering, delay_ms });
                self.world.count("change of weather");
            }
            self.pause(200, 2_000).await;
        }
    }

    async fn clocks(mut self) {
        loop {
            self.pause(300, 3_000).await;
            let at = self.node();
            if self.acts() {
                self.world.disturb_clock(at, self.world.config.faults.skew_ms);
            }
        }
    }

    async fn slow_disks(mut self) {
        loop {
            self.pause(200, 3_000).await;
            let at = self.node();
            if self.acts() {
                self.world.set_slow_disk(at, true);
            }
            self.pause(100, 2_000).await;
            self.world.set_slow_disk(at, false);
        }
    }

    /// A disk that is full, or whose writes fail, until there is room again and its node opens it anew.
    async fn sick_disks(mut self) {
        loop {
            self.pause(300, 4_000).await;
            let at = self.node();
            if self.acts() {
                self.world.break_disk(at);
            }
            self.pause(50, 2_000).await;
            self.world.mend_disk(at);
        }
    }

    /// States of disks to which they may return.
    async fn snapshots(mut self) {
        loop {
            self.pause(100, 1_500).await;
            self.world.remember_disk(self.rng.below(self.world.len() as u64) as usize);
        }
    }

    fn node(&mut self) -> usize {
        self.rng.below(self.world.len() as u64) as usize
    }

    /// What its latest fault is called among cuts.
    pub(super) fn name(&self) -> u64 {
        (u64::from(self.number) << 16) + u64::from(self.faults)
    }

    /// Whether the next fault happens.
    pub(super) fn acts(&mut self) -> bool {
        self.faults += 1;
        self.world.admits((self.number, self.faults))
    }

    pub(super) async fn pause(&mut self, least_ms: u64, most_ms: u64) {
        sleep(Duration::from_millis(least_ms + self.rng.below(most_ms - least_ms))).await;
    }
}
