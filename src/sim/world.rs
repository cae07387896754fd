//! A cluster in one thread: nodes that start, crash and start again on their disks.
//!
//! It lives inside of a paused, single-threaded tokio runtime that the caller makes, so that time passes only when
//! nobody has anything to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::config::{Config, Weather};
use super::disk::{self, Disk};
use super::env::{SimEnv, WallClock};
use super::losses::Losses;
use super::nemesis::FaultName;
use super::net::{Cut, Net};
use super::oracle::Oracle;
use super::plant::Plant;
use crate::base::id::{ActorId, ClusterId, NodeId, Partition, Region};
use crate::base::rng::Rng;
use crate::causality::Dot;
use crate::causality::context::{ContextKey, Sealer};
use crate::cluster::{FEATURES, Member, MemberState, Membership};
use crate::node::Node;
use crate::replica::{Options, Replica};
use crate::storage::SyncPolicy;

/// See the module.
pub struct World {
    /// What it was made of.
    pub config: Config,
    /// Its network.
    pub net: Arc<Net>,
    /// Who sees all.
    pub oracle: Arc<Mutex<Oracle>>,
    machines: Vec<Machine>,
    rng: Mutex<Rng>,
    plant: Option<Plant>,
    /// What nodes forgot and have not got back.
    pub(super) losses: Mutex<Losses>,
    /// Faults that happened, by kind.
    faults: Mutex<BTreeMap<&'static str, u64>>,
    /// Faults that happened and those that are not to.
    named: Mutex<(Vec<FaultName>, BTreeSet<FaultName>)>,
    delivery: JoinHandle<()>,
}

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Its process is asked to end, and stops in order.
    Stop,
    /// Its process ends without a word; its disk keeps all that was written.
    Kill,
    /// Its machine ends; its disk keeps all that was synced.
    PowerCut,
    /// It comes back with an empty disk.
    Wipe,
    /// It comes back with an older state of its disk, as a machine that was restored does.
    RollBack {
        /// The mark is as old as the rest; else it is the latest.
        with_mark: bool,
    },
}

/// What of a node outlives it, and the node, when it is up.
struct Machine {
    id: NodeId,
    disk: Arc<Disk>,
    clock: Arc<WallClock>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    life: u64,
    up: Option<(Arc<Node>, Arc<SimEnv>)>,
}

impl World {
    /// A world in which no node has started.
    pub fn new(config: Config, mut rng: Rng, plant: Option<Plant>) -> Arc<World> {
        let oracle = Arc::new(Mutex::new(Oracle::new(config.partitions)));
        let net = Net::new(oracle.clone(), rng.fork(), config.faults.weather, plant);
        let machines = (0..config.nodes).map(|at| Machine {
            id: NodeId(0x1000 + at as u64),
            disk: Disk::new(oracle.clone(), rng.fork(), plant),
            clock: Arc::new(WallClock::new(skew(&mut rng, config.faults.skew_ms), rng.below(2_000) as i64 - 1_000)),
            running: Mutex::default(),
        });
        let machines = machines.collect();
        let delivery = tokio::spawn(net.clone().run());
        Arc::new(World {
            config,
            net,
            oracle,
            machines,
            rng: Mutex::new(rng),
            plant,
            losses: Mutex::default(),
            faults: Mutex::default(),
            named: Mutex::default(),
            delivery,
        })
    }

    /// The owners of a partition in their order, as a node that is up knows them; none if no node is.
    pub fn owners(&self, partition: Partition) -> Vec<usize> {
        let Some((node, _)) = (0..self.len()).find_map(|at| self.node(at)) else { return Vec::new() };
        let view = node.coordinator.view.load_full();
        let at = |id: &NodeId| (0..self.len()).find(|at| self.id(*at) == *id);
        view.ring.owners(partition).iter().filter_map(at).collect()
    }

    /// The bug that is planted.
    pub fn plant(&self) -> Option<Plant> {
        self.plant
    }

    /// How many nodes there are, up or down.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// The id of a node.
    pub fn id(&self, at: usize) -> NodeId {
        self.machines[at].id
    }

    /// A node and its world, if it is up.
    pub fn node(&self, at: usize) -> Option<(Arc<Node>, Arc<SimEnv>)> {
        self.machines[at].running.lock().up.clone()
    }

    /// Chance.
    pub fn below(&self, bound: u64) -> u64 {
        self.rng.lock().below(bound)
    }

    /// A stream of chance of one's own.
    pub fn fork(&self) -> Rng {
        self.rng.lock().fork()
    }

    /// Starts a node that is down on what its disk has.
    pub fn start(&self, at: usize) {
        let machine = &self.machines[at];
        let mut running = machine.running.lock();
        if running.up.is_some() {
            return;
        }
        running.life += 1;
        let life = (machine.id, running.life);
        let env = SimEnv::new(life.0, life.1, self.net.clone(), machine.clock.clone(), self.fork());
        let returning = running.life > 1 && self.plant != Some(Plant::WipeUnnoticed);
        let opened = self.open(machine, returning).or_else(|why| self.replace_disk(machine, why));
        let replica = match opened {
            Ok(replica) => replica,
            Err(why) => return self.oracle.lock().violate(format!("node {} cannot open its disk: {why}", machine.id)),
        };
        machine.disk.take_notice_of_rollback();
        replica.set_hint_limit(self.config.hint_limit);
        disk::drive(&env, replica.committer().clone());
        if self.plant == Some(Plant::DotsReused) {
            replica.prove();
        }
        let membership = self.membership(at, running.life);
        let node = Node::new(env.clone(), replica, membership, life.0, self.config.options.clone());
        running.up = Some((node.clone(), env.clone()));
        self.net.up(life, node.clone(), env);
        node.start();
    }

    /// A disk that was put back without what its mark promises is refused, as it should be; people then take an empty one.
    fn replace_disk(&self, machine: &Machine, why: String) -> Result<Arc<Replica>, String> {
        if !machine.disk.take_notice_of_rollback() {
            return Err(why);
        }
        self.count("disk refused");
        machine.disk.wipe();
        self.open(machine, true)
    }

    /// Starts all nodes that are down.
    pub fn start_all(&self) {
        (0..self.len()).for_each(|at| self.start(at));
    }

    /// Ends a node. Whether it may forget anything is for the caller to ask: [`World::forgets`].
    pub fn crash(&self, at: usize, crash: Crash) {
        let machine = &self.machines[at];
        let Some((node, env)) = machine.running.lock().up.take() else { return };
        env.end();
        node.stop();
        self.net.down(machine.id);
        if crash == Crash::Stop {
            stop_in_order(node.replica());
        }
        machine.disk.set_broken(false);
        let kind = match crash {
            Crash::Stop => "stop",
            Crash::Kill => "kill",
            Crash::PowerCut => "power cut",
            Crash::Wipe => "wipe",
            Crash::RollBack { .. } => "rollback",
        };
        self.count(kind);
        match crash {
            Crash::Stop | Crash::Kill => {}
            Crash::PowerCut => machine.disk.cut_power(),
            Crash::Wipe => machine.disk.wipe(),
            Crash::RollBack { with_mark } => {
                machine.disk.roll_back(with_mark, self.config.sync == SyncPolicy::Always);
            }
        }
    }

    /// Notes that a fault of this kind happened.
    pub fn count(&self, kind: &'static str) {
        *self.faults.lock().entry(kind).or_default() += 1;
    }

    /// Faults that happened, by kind.
    pub fn faults(&self) -> BTreeMap<&'static str, u64> {
        self.faults.lock().clone()
    }

    /// Leaves out these faults.
    pub fn leave_out(&self, faults: &BTreeSet<FaultName>) {
        self.named.lock().1 = faults.clone();
    }

    /// Whether a fault is to happen. If so it is remembered.
    pub fn admits(&self, fault: FaultName) -> bool {
        let (happened, left_out) = &mut *self.named.lock();
        let admitted = !left_out.contains(&fault);
        if admitted {
            happened.push(fault);
        }
        admitted
    }

    /// All faults that happened, in their order.
    pub fn happened(&self) -> Vec<FaultName> {
        self.named.lock().0.clone()
    }

    /// Lets a node, if it is up, take no step, or lets it go on.
    pub fn set_paused(&self, at: usize, paused: bool) {
        let Some((_, env)) = self.node(at) else { return };
        env.set_paused(paused);
        self.net.set_paused(self.id(at), paused);
        if paused {
            self.count("pause");
        }
    }

    /// How many nodes have a dot, or may have it since they are down.
    pub fn may_have(&self, region: Region, dot: Dot) -> usize {
        let may = |at: &usize| self.node(*at).is_none_or(|(node, _)| node.replica().has(region, dot));
        (0..self.len()).filter(may).count()
    }

    /// Remembers the state of the disk of a node that is up, for a [`Crash::RollBack`].
    pub fn remember_disk(&self, at: usize) {
        if let Some((node, _)) = self.node(at) {
            self.machines[at].disk.remember(node.replica().promises_synced());
        }
    }

    /// Makes the disk of a node that is up slow, or well again.
    pub fn set_slow_disk(&self, at: usize, slow: bool) {
        let Some((_, env)) = self.node(at) else { return };
        env.set_slow_disk(slow);
        if slow {
            self.count("slow disk");
        }
    }

    /// Cuts the way from one node to another, or heals it.
    pub fn set_cut(&self, from: usize, to: usize, cut: Option<Cut>) {
        let (from, to) = (self.id(from), self.id(to));
        match cut {
            Some(cut) => self.net.add_cut(0, from, to, cut),
            None => self.net.heal_cut(0, from, to),
        }
    }

    /// From now on a disk takes no more writes.
    pub fn break_disk(&self, at: usize) {
        let running = self.machines[at].running.lock();
        if running.up.is_some() {
            self.machines[at].disk.set_broken(true);
            self.count("sick disk");
        }
    }

    /// A disk that took no writes takes them again, and its node opens it anew.
    pub fn mend_disk(&self, at: usize) {
        if self.machines[at].disk.is_broken() {
            self.crash(at, Crash::Kill);
            self.start(at);
        }
    }

    /// Sets a node's clock so far ahead of the truth.
    pub fn set_clock(&self, at: usize, ahead_ms: i64) {
        self.machines[at].clock.set(ahead_ms);
    }

    /// Sets a node's clock wrong by up to so many milliseconds.
    pub fn disturb_clock(&self, at: usize, most_ms: u64) {
        self.machines[at].clock.set(skew(&mut self.rng.lock(), most_ms));
        self.count("clock jump");
    }

    /// Ends all that goes wrong, and starts who is down. Clocks go on from when the latest of their deadlines is past.
    pub fn calm(&self) {
        self.net.set_weather(Weather { delay_ms: 3, ..Weather::default() });
        self.net.heal_all();
        for at in 0..self.len() {
            self.set_paused(at, false);
            self.set_slow_disk(at, false);
            self.mend_disk(at);
            if self.config.faults.skew_ms > 0 {
                self.set_clock(at, 2 * self.config.faults.skew_ms as i64);
            }
        }
        self.start_all();
    }

    /// Waits until every node is ready and knows that of all others; says whether that took no longer than `patience`.
    pub async fn settled(&self, patience: Duration) -> bool {
        let step = Duration::from_millis(50);
        for _ in 0..patience.as_millis() / step.as_millis() {
            if (0..self.len()).all(|at| self.node(at).is_some_and(|(node, _)| knows_all_ready(&node))) {
                return true;
            }
            sleep(step).await;
        }
        false
    }

    /// What a node that is down would come up with.
    pub fn open_again(&self, at: usize) -> Result<Arc<Replica>, String> {
        self.open(&self.machines[at], true)
    }

    /// Ends everything.
    pub fn end(&self) {
        (0..self.len()).for_each(|at| self.crash(at, Crash::Kill));
        self.delivery.abort();
    }

    fn open(&self, machine: &Machine, returning: bool) -> Result<Arc<Replica>, String> {
        let sealer = Sealer { cluster: ClusterId(7), key: ContextKey::derive(b"sim") };
        let options = Options {
            databases: self.config.options.databases,
            partitions: self.config.partitions,
            cache_bytes: self.config.cache_bytes,
            sealer,
            hash_seed: 11,
            fresh_actor: ActorId(self.rng.lock().next_u64()),
            returning,
            max_skew_ms: self.config.options.max_skew.as_millis() as u64,
            sync: self.config.sync,
        };
        Replica::open(machine.disk.clone(), options).map(Arc::new).map_err(|error| error.to_string())
    }

    fn membership(&self, own: usize, life: u64) -> Membership {
        let member = |at: usize| Member {
            id: self.id(at),
            incarnation: if at == own { life } else { 1 },
            name: format!("n{at}"),
            host: "sim".into(),
            port: 1,
            cluster_port: 0,
            peer_port: 2,
            zone: if self.config.zones == 0 { String::new() } else { format!("z{}", at % self.config.zones) },
            weight: 1,
            features: FEATURES,
            state: MemberState::Up,
            decision: 0,
        };
        let members: BTreeMap<NodeId, Member> = (0..self.len()).map(|at| (self.id(at), member(at))).collect();
        Membership {
            cluster: ClusterId(7),
            key: [1; 32],
            partitions: self.config.partitions,
            replicas: self.config.replicas,
            members,
        }
    }
}

/// What the runtime does when it is told to end. A disk that fails then is found as it is.
fn stop_in_order(replica: &Replica) {
    let _ = replica.checkpoint();
    replica.committer().commit_pending();
    let _ = replica.retire();
}

fn knows_all_ready(node: &Node) -> bool {
    node.coordinator
        .view
        .load()
        .nodes
        .values()
        .all(|standing| standing.live && standing.health == crate::cluster::Health::WELL)
}

/// An offset of a clock, in milliseconds: up to `most` in either direction.
fn skew(rng: &mut Rng, most: u64) -> i64 {
    rng.below(2 * most + 1) as i64 - most as i64
}
