//! Clients: who is connected, what they ask for, and what they get.
//!
//! [`listener`] accepts, [`connection`] reads and writes, [`dispatch`] finds out what a request is and hands it to whoever
//! runs it; [`host`] is the node as commands see it; [`admin`] serves /metrics and /health.
//!
//! Deliberately absent: anything about data. What a command does to keys is the coordinator's business.

pub mod admin;
pub mod clients;
pub mod connection;
pub mod dispatch;
pub mod host;
pub mod listener;
pub mod stats;
pub mod system;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::commands::host::Pause;
use crate::config::Settings;
use crate::node::Node;

use self::clients::Clients;
use self::stats::Stats;

/// What all connections of a node share.
pub struct Server {
    /// The node behind it.
    pub node: Arc<Node>,
    /// Its settings.
    pub settings: Arc<Settings>,
    /// Who is connected.
    pub clients: Clients,
    /// What was done.
    pub stats: Stats,
    /// When it started.
    pub started: Instant,
    /// Rung to stop the node.
    pub shutdown: Arc<Notify>,
    /// What CLIENT PAUSE asked for.
    pub pause: Mutex<Option<Pause>>,
}

impl Server {
    /// A server for `node`, which `shutdown` stops.
    pub fn new(node: Arc<Node>, settings: Arc<Settings>, shutdown: Arc<Notify>) -> Arc<Server> {
        Arc::new(Server {
            node,
            settings,
            clients: Clients::default(),
            stats: Stats::new(),
            started: Instant::now(),
            shutdown,
            pause: Mutex::new(None),
        })
    }
}
