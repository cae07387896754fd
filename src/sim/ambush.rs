//! Ambushes: faults at the owners of one partition, in an order that hurts most. What a mistake takes to show is seldom one
//! fault; it is that those who know something are gone just when others, who believe that they know, are asked.

use super::config::Faults;
use super::nemesis::Source;
use super::net::Cut;
use super::world::Crash;
use crate::base::id::{NodeId, Partition};

/// Ways from one node to another.
type Ways = Vec<(NodeId, NodeId)>;

impl Source {
    /// One after the other.
    pub(super) async fn ambushes(mut self) {
        loop {
            self.pause(200, 1_500).await;
            let partition = self.rng.below(u64::from(self.world.config.partitions.count()));
            let owners = self.world.owners(Partition(partition as u16));
            let kind = self.rng.below(10);
            if owners.is_empty() || !self.acts() {
                continue;
            }
            match kind {
                0..=4 => self.relay(owners).await,
                5..=7 => self.bridge(owners).await,
                8 => self.split(owners).await,
                _ => self.vacate(&owners).await,
            }
        }
    }

    /// Some owners hear nothing of what W others, or fewer, acknowledge. Then these are cut off, but for one that ends, and
    /// forgets what it may forget; and it meets those who never knew.
    async fn relay(&mut self, mut owners: Vec<usize>) {
        let write = self.world.config.write_quorum();
        let enough = self.rng.chance(0.7);
        let know = if enough { write } else { 1 + self.rng.below(write as u64) as usize };
        if self.rng.chance(0.4) {
            self.rng.shuffle(&mut owners);
        }
        let ignorant = owners.split_off(know.min(owners.len().saturating_sub(1)).max(1));
        let sick = self.world.config.faults.sick_disks && self.rng.chance(0.5);
        // Who coordinates the others must be able to write.
        let last = if sick { owners.len() as u64 - 1 } else { self.rng.below(owners.len() as u64) };
        let forgetful = owners.remove(last as usize);
        let keepers = owners;
        self.world.count("ambush of those who know");
        let before = self.cut_off(&ignorant);
        self.pause(100, if enough { 2_000 } else { 700 }).await;
        if sick {
            self.world.break_disk(forgetful);
            self.pause(50, 400).await;
        }
        let after = self.cut_off(&keepers);
        let crash = if sick { Crash::Kill } else { self.forgetting() };
        self.strike(forgetful, crash);
        self.heal(before.into_iter().filter(|way| !after.contains(way)));
        self.pause(10, 200).await;
        self.world.start(forgetful);
        self.pause(300, 2_500).await;
        self.heal(after);
    }

    /// A way to end that forgets something, if nodes may.
    fn forgetting(&mut self) -> Crash {
        let Faults { power_cuts, wipes, rollbacks, .. } = self.world.config.faults;
        let with_mark = self.rng.chance(0.5);
        let ways = [
            (power_cuts, Crash::PowerCut),
            (power_cuts, Crash::PowerCut),
            (wipes, Crash::Wipe),
            (rollbacks, Crash::RollBack { with_mark }),
        ];
        let ways: Vec<Crash> = ways.into_iter().filter(|(may, _)| *may).map(|(_, way)| way).collect();
        let at = self.rng.below(ways.len() as u64 + 1) as usize;
        ways.get(at).copied().unwrap_or(Crash::Kill)
    }

    /// The first owner and another do not hear each other, so that both coordinate, each for a part of those who own nothing;
    /// the owners between them hear all, and start again meanwhile.
    async fn bridge(&mut self, mut owners: Vec<usize>) {
        if owners.len() < 2 {
            return;
        }
        self.rng.shuffle(&mut owners[1..]);
        let between = owners.split_off(2);
        let (mut one, mut other) = (vec![owners[0]], vec![owners[1]]);
        for at in (0..self.world.len()).filter(|at| !owners.contains(at) && !between.contains(at)) {
            if self.rng.chance(0.5) { one.push(at) } else { other.push(at) }
        }
        self.world.count("ambush on a bridge");
        let cut = self.cut(self.ways_between(&one, &other));
        for at in between.iter().cycle().take(2 * between.len()) {
            self.pause(200, 1_200).await;
            let crash = if self.rng.chance(0.5) { Crash::Kill } else { Crash::Stop };
            if self.rng.chance(0.7) {
                self.world.crash(*at, crash);
                self.pause(1, 60).await;
                self.world.start(*at);
            }
        }
        self.pause(100, 1_000).await;
        self.heal(cut);
    }

    /// Owners fall into two parts that do not hear each other; whoever is none hears both.
    async fn split(&mut self, mut owners: Vec<usize>) {
        if self.rng.chance(0.5) {
            self.rng.shuffle(&mut owners);
        }
        let at = 1 + self.rng.below((owners.len() as u64 - 1).max(1)) as usize;
        let other = owners.split_off(at.min(owners.len()));
        self.world.count("ambush between owners");
        let cut = self.cut(self.ways_between(&owners, &other));
        self.pause(500, 3_500).await;
        self.heal(cut);
    }

    /// All owners are away, and come back one by one.
    async fn vacate(&mut self, owners: &[usize]) {
        self.world.count("ambush on all owners");
        let ends = self.rng.chance(0.5);
        let cut = if ends { Ways::new() } else { self.cut_off(owners) };
        if ends {
            owners.iter().for_each(|at| self.world.crash(*at, Crash::Kill));
        }
        self.pause(500, 3_000).await;
        for at in owners {
            self.world.start(*at);
            let id = self.world.id(*at);
            self.heal(cut.iter().copied().filter(|(from, to)| *from == id || *to == id));
            self.pause(1, 500).await;
        }
    }

    /// Cuts nodes off from all others, not from each other.
    fn cut_off(&mut self, nodes: &[usize]) -> Ways {
        let others: Vec<usize> = (0..self.world.len()).filter(|at| !nodes.contains(at)).collect();
        self.cut(self.ways_between(nodes, &others))
    }

    fn cut(&mut self, ways: Ways) -> Ways {
        let cut = [Cut::Refuse, Cut::Swallow, Cut::Stall][self.rng.below(3) as usize];
        ways.iter().for_each(|(from, to)| self.world.net.add_cut(self.name(), *from, *to, cut));
        ways
    }

    fn heal(&self, ways: impl IntoIterator<Item = (NodeId, NodeId)>) {
        ways.into_iter().for_each(|(from, to)| self.world.net.heal_cut(self.name(), from, to));
    }

    fn ways_between(&self, some: &[usize], others: &[usize]) -> Ways {
        let pairs = some.iter().flat_map(|one| others.iter().flat_map(move |other| [(*one, *other), (*other, *one)]));
        pairs.map(|(from, to)| (self.world.id(from), self.world.id(to))).collect()
    }
}
