//! Clients: who is connected, what they ask for, and what they get.
//!
//! [`listener`] accepts, [`connection`] reads and writes, [`dispatch`] finds out what a request is and hands it to whoever
//! runs it, [`rename`] under which names; [`pubsub`] knows who listens to what; [`host`] is the node as commands see it, [`facts`], [`sampler`] and [`system`] what it knows of itself, [`slow`]
//! what took long; [`admin`] serves /metrics (which `measure` fills) and /health over [`http`].
//!
//! Deliberately absent: anything about data. What a command does to keys is the coordinator's business.

pub mod admin;
pub mod clients;
pub mod connection;
pub mod dispatch;
pub mod facts;
pub mod host;
pub mod http;
pub mod listener;
mod measure;
mod operate;
pub mod pubsub;
pub mod rename;
pub mod sampler;
pub mod slow;
pub mod stats;
pub mod system;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::commands::host::Pause;
use crate::config::Settings;
use crate::node::{CurrentNode, Node};

use self::clients::Clients;
use self::pubsub::PubSub;
use self::rename::Renames;
use self::sampler::Samples;
use self::slow::SlowLog;
use self::stats::Stats;

/// What all connections of a node share.
pub struct Server {
    /// The node behind it, whichever it is.
    pub current: CurrentNode,
    /// Its settings.
    pub settings: Arc<Settings>,
    /// Names that its commands have; none when they have their own.
    pub renames: Option<Renames>,
    /// Who is connected.
    pub clients: Clients,
    /// Who listens to what.
    pub pubsub: Arc<PubSub>,
    /// What was done.
    pub stats: Stats,
    /// What took long.
    pub slow: SlowLog,
    /// What is looked at once a second.
    pub samples: Mutex<Samples>,
    /// Bytes that were free on the disk when it was last looked at.
    free_disk: AtomicU64,
    /// When it started.
    pub started: Instant,
    /// 40 hex digits, other ones after each start.
    pub run_id: String,
    /// Rung to stop the node.
    pub shutdown: Arc<Notify>,
    /// What CLIENT PAUSE asked for.
    pub pause: Mutex<Option<Pause>>,
}

impl Server {
    /// A server for the current node, which `shutdown` stops.
    pub fn new(
        current: CurrentNode,
        settings: Arc<Settings>,
        shutdown: Arc<Notify>,
        renames: Option<Renames>,
    ) -> Arc<Server> {
        let pubsub = Arc::new(PubSub::new(settings.clone()));
        host::configure(&current.load(), &settings.config());
        current.load().coordinator.set_audience(pubsub.clone());
        Arc::new(Server {
            pubsub,
            current,
            slow: SlowLog::new(&settings.config()),
            settings,
            renames,
            clients: Clients::default(),
            stats: Stats::new(),
            samples: Mutex::new(Samples::new()),
            free_disk: AtomicU64::new(0),
            started: Instant::now(),
            run_id: run_id(),
            shutdown,
            pause: Mutex::new(None),
        })
    }

    /// Serves what `node` has from now on.
    pub fn go_over_to(&self, node: Arc<Node>) {
        host::configure(&node, &self.settings.config());
        node.coordinator.set_audience(self.pubsub.clone());
        self.current.replace(node);
    }

    /// So many bytes are free on the disk.
    pub fn note_free_disk(&self, bytes: u64) {
        self.free_disk.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that were free on the disk when it was last looked at; 0 before that.
    pub fn free_disk(&self) -> u64 {
        self.free_disk.load(Ordering::Relaxed)
    }

    /// The node as it is now. Whoever does several things that belong together asks once.
    pub fn node(&self) -> Arc<Node> {
        self.current.get()
    }
}

fn run_id() -> String {
    let mut random = [0u8; 20];
    // Without chance an id of zeros: it names this run to people, no more.
    let _ = getrandom::fill(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}
