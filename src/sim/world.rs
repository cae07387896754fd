//! A cluster in one thread: nodes that start, crash and start again on their disks.
//!
//! It lives inside of a paused, single-threaded tokio runtime that the caller makes, so that time passes only when
//! nobody has anything to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::config::{Config, Weather};
use super::disk::{self, Disk};
use super::env::{SimEnv, WallClock};
use super::net::{Cut, Net};
use super::oracle::Oracle;
use super::plant::Plant;
use crate::base::id::{ActorId, ClusterId, NodeId};
use crate::base::rng::Rng;
use crate::causality::context::{ContextKey, Sealer};
use crate::cluster::{Member, Membership};
use crate::node::Node;
use crate::replica::{Options, Replica};

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
    last_power_cut: Mutex<Option<Instant>>,
    delivery: JoinHandle<()>,
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
            last_power_cut: Mutex::default(),
            delivery,
        })
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
        match self.open(machine) {
            Ok(replica) => {
                disk::drive(&env, replica.committer().clone());
                let membership = self.membership(at, running.life);
                let node = Node::new(env.clone(), replica, membership, life.0, self.config.options.clone());
                running.up = Some((node.clone(), env.clone()));
                self.net.up(life, node.clone(), env);
                node.start();
            }
            Err(why) => self.oracle.lock().violate(format!("node {} cannot open its disk: {why}", machine.id)),
        }
    }

    /// Starts all nodes that are down.
    pub fn start_all(&self) {
        (0..self.len()).for_each(|at| self.start(at));
    }

    /// Ends a node without a word: its disk keeps all that was written or, if the power fails, all that was synced.
    pub fn crash(&self, at: usize, power_fails: bool) {
        let machine = &self.machines[at];
        let Some((node, env)) = machine.running.lock().up.take() else { return };
        env.end();
        node.stop();
        self.net.down(machine.id);
        machine.disk.set_broken(false);
        if power_fails {
            machine.disk.cut_power(&mut self.rng.lock());
        }
    }

    /// Whether no node has lost its power for so long; if so, it is as if one did now.
    pub fn forgets_alone(&self, apart: Duration) -> bool {
        let mut last = self.last_power_cut.lock();
        let alone = last.is_none_or(|last| last.elapsed() >= apart);
        if alone {
            *last = Some(Instant::now());
        }
        alone
    }

    /// Cuts the ways from one node to another, or heals them.
    pub fn set_cut(&self, from: usize, to: usize, cut: Option<Cut>) {
        self.net.set_cut(self.id(from), self.id(to), cut);
    }

    /// From now on a disk takes no more writes, until its node has crashed and starts again.
    pub fn break_disk(&self, at: usize) {
        let running = self.machines[at].running.lock();
        if running.up.is_some() {
            self.machines[at].disk.set_broken(true);
        }
    }

    /// Sets a node's clock so far ahead of the truth.
    pub fn set_clock(&self, at: usize, ahead_ms: i64) {
        self.machines[at].clock.set(ahead_ms);
    }

    /// Sets a node's clock wrong by up to so many milliseconds.
    pub fn disturb_clock(&self, at: usize, most_ms: u64) {
        self.machines[at].clock.set(skew(&mut self.rng.lock(), most_ms));
    }

    /// Ends all that goes wrong, and starts who is down.
    pub fn calm(&self) {
        self.net.set_weather(Weather { delay_ms: 3, ..Weather::default() });
        for at in 0..self.len() {
            self.net.set_paused(self.id(at), false);
            self.node(at).inspect(|(_, env)| env.set_slow_disk(false));
            if self.machines[at].disk.is_broken() {
                self.crash(at, false);
            }
            (0..self.len()).for_each(|to| self.set_cut(at, to, None));
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
        self.open(&self.machines[at])
    }

    /// Ends everything.
    pub fn end(&self) {
        (0..self.len()).for_each(|at| self.crash(at, false));
        self.delivery.abort();
    }

    fn open(&self, machine: &Machine) -> Result<Arc<Replica>, String> {
        let sealer = Sealer { cluster: ClusterId(7), key: ContextKey::derive(b"sim") };
        let options = Options {
            databases: self.config.options.databases,
            partitions: self.config.partitions,
            cache_bytes: self.config.cache_bytes,
            sealer,
            hash_seed: 11,
            fresh_actor: ActorId(self.rng.lock().next_u64()),
            returning: false,
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
            peer_port: 2,
            zone: String::new(),
            weight: 1,
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
