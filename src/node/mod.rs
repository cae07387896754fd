//! A node, assembled: what it holds, what it believes of the others, how it answers them, and what it does by itself.
//!
//! The same code runs in production and in the simulator; they differ in the [`Env`] and the store they bring.

mod answer;
mod current;
mod handoff;
mod loops;
mod membership;
mod settle;
mod verify;
mod watch;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use self::current::CurrentNode;
pub use self::membership::{Entry, MEMBERSHIP_KEY};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use self::verify::Verified;
pub use self::verify::{SyncStatus, Unverified};
use self::watch::{Watch, Watched};
use crate::base::id::NodeId;
use crate::cluster::{ClusterView, Digest, Health, Member, Membership};
use crate::config::StrictDatabases;
use crate::env::Env;
use crate::replica::{Intake, Replica};
use crate::replication::{Coordinator, Quorums};
use crate::ring::Ring;

/// Rows that are fetched at once because an earlier change of theirs did not arrive.
const MAX_FETCHES: usize = 256;

/// What a node is started with, besides its world and its rows.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// How many databases there are, 1 to 256.
    pub databases: u16,
    /// R of every database.
    pub read_quorum: u8,
    /// W of every database.
    pub write_quorum: u8,
    /// Databases with quorums of their own: database, R, W.
    pub database_quorums: Vec<(u8, u8, u8)>,
    /// Databases in which only owners count, and no stand-ins.
    pub strict: StrictDatabases,
    /// How long a peer may take to answer.
    pub peer_timeout: Duration,
    /// Silence after which a peer is taken for dead.
    pub failure_timeout: Duration,
    /// How far clocks may differ: so long after its deadline an expired key is still stored.
    pub max_skew: Duration,
    /// Within which time every partition is compared with every other owner's.
    pub sync_interval: Duration,
}

impl Default for NodeOptions {
    fn default() -> Self {
        NodeOptions {
            databases: 16,
            read_quorum: 2,
            write_quorum: 2,
            database_quorums: Vec::new(),
            strict: StrictDatabases::These(Vec::new()),
            peer_timeout: Duration::from_millis(1000),
            failure_timeout: Duration::from_millis(2000),
            max_skew: Duration::from_millis(500),
            sync_interval: Duration::from_secs(10),
        }
    }
}

/// A node.
pub struct Node {
    /// This node's id.
    pub me: NodeId,
    /// What it coordinates with.
    pub coordinator: Arc<Coordinator>,
    env: Arc<dyn Env>,
    options: NodeOptions,
    membership: Mutex<Membership>,
    /// Digest of the membership, for pings.
    digest: Mutex<Digest>,
    watch: Arc<Watch>,
    /// Members with the same members and another layout.
    disputed: Mutex<BTreeSet<NodeId>>,
    /// There are others, some were live, and now none is.
    lonely: AtomicBool,
    /// The incarnation of the last life that its disk knows of.
    last_life: AtomicU64,
    /// Others know of a later life than its disk does.
    outlived: AtomicBool,
    verified: Verified,
    /// Places for rows that are fetched because an earlier change of theirs did not arrive.
    fetches: Arc<Semaphore>,
    /// Why this node is no member any more.
    dismissed: OnceLock<String>,
    /// Rung when it is none.
    dismissal: Notify,
    /// It holds what its partitions' owners should, and may coordinate.
    ready: AtomicBool,
    /// Rung when there may be something to settle.
    unsettled: Notify,
    stopping: AtomicBool,
}

impl Node {
    /// A node that knows its members. Nothing runs until [`Node::start`].
    pub fn new(
        env: Arc<dyn Env>,
        replica: Arc<Replica>,
        membership: Membership,
        me: NodeId,
        options: NodeOptions,
    ) -> Arc<Node> {
        let ring = Arc::new(Ring::new(membership.layout()));
        let digest = membership.digest(ring.layout());
        let alone = membership.present().count() == 1;
        if alone {
            trust_alone(&replica);
        }
        let own = Health { ready: alone, counted: !replica.is_amnesiac() };
        let view =
            ClusterView::new(me, ring, membership::standings(&membership, me, own, |_| (false, Health::default())));
        let quorums = Quorums::new(options.databases, options.read_quorum, options.write_quorum);
        quorums.set(options.read_quorum, options.write_quorum, &options.database_quorums);
        quorums.set_strict(|db| options.strict.contains(db.0));
        let watch = Watch::new(options.failure_timeout);
        let watched = Watched { env: env.clone(), watch: watch.clone(), patience: options.peer_timeout };
        let coordinator =
            Coordinator::new(Arc::new(watched), replica, view, quorums, options.databases, options.peer_timeout);
        if alone {
            coordinator.replica.prove();
            let partitions = coordinator.replica.partitions();
            partitions.iter().for_each(|at| coordinator.set_settled(at, coordinator.replica.term(at)));
        }
        Arc::new(Node {
            me,
            coordinator: Arc::new(coordinator),
            env,
            options,
            digest: Mutex::new(digest),
            membership: Mutex::new(membership),
            watch,
            disputed: Mutex::default(),
            lonely: AtomicBool::new(false),
            last_life: AtomicU64::new(u64::MAX),
            outlived: AtomicBool::new(false),
            verified: Verified::new(),
            fetches: Arc::new(Semaphore::new(MAX_FETCHES)),
            dismissed: OnceLock::new(),
            dismissal: Notify::new(),
            ready: AtomicBool::new(alone),
            unsettled: Notify::new(),
            stopping: AtomicBool::new(false),
        })
    }

    /// Begins what the node does by itself: pings, syncs, reaping, housekeeping.
    pub fn start(self: &Arc<Self>) {
        self.env.spawn(Box::pin(self.clone().admission_loop()));
        self.env.spawn(Box::pin(self.clone().ping_loop()));
        self.env.spawn(Box::pin(self.clone().settle_loop()));
        self.env.spawn(Box::pin(self.clone().sync_loop()));
        self.env.spawn(Box::pin(self.clone().hint_loop()));
        self.env.spawn(Box::pin(self.clone().give_back_loop()));
        self.env.spawn(Box::pin(self.clone().reap_loop()));
        self.env.spawn(Box::pin(self.clone().housekeeping_loop()));
    }

    /// Ends the loops at their next turn.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.unsettled.notify_one();
    }

    /// Takes this node for one that has just started: it was out of the quorums, and hears the others before it
    /// coordinates again.
    pub fn catch_up_again(&self) {
        if self.coordinator.view.load().is_alone() {
            return;
        }
        self.ready.store(false, Ordering::Relaxed);
        self.replica().partitions().iter().for_each(|partition| self.coordinator.set_caught_up(partition, false));
        self.unsettled.notify_one();
    }

    /// What it holds.
    pub fn replica(&self) -> &Arc<Replica> {
        &self.coordinator.replica
    }

    /// What it was started with.
    pub fn options(&self) -> &NodeOptions {
        &self.options
    }

    /// This node's own description.
    pub fn member(&self) -> Option<Member> {
        self.membership.lock().members.get(&self.me).cloned()
    }

    /// The members as this node knows them.
    pub fn membership(&self) -> Membership {
        self.membership.lock().clone()
    }

    /// Whether it holds what its partitions' owners should, and its store takes writes: whether it may coordinate.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && self.replica().takes(Intake::All)
    }

    /// How this node is, for its peers.
    pub fn health(&self) -> Health {
        // One with little room still answers for all that it has, and stores what peers tell while it can.
        let counted = self.replica().check_sound().is_ok() && !self.replica().is_amnesiac();
        Health { ready: self.is_ready(), counted }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// A node without others: nobody knows more than it does, and nobody has what it may have forgotten.
fn trust_alone(replica: &Replica) {
    replica.prove();
    if replica.is_amnesiac() {
        tracing::warn!("This node may have lost what it acknowledged last, and there is nobody else who has it");
        if let Err(error) = replica.recovered() {
            tracing::warn!("that it goes on could not be written down: {error}");
        }
    }
}
