//! Who is connected: a register that CLIENT LIST reads and CLIENT KILL acts on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::commands::{Session, Spec};

/// All connections of a node.
#[derive(Default)]
pub struct Clients {
    entries: DashMap<u64, Arc<Client>>,
    last: AtomicU64,
}

/// A connection as others see it.
pub struct Client {
    /// Ends it when rung.
    pub kill: Notify,
    /// When it was accepted.
    pub since: Instant,
    /// What changes with each batch of requests.
    pub state: Mutex<ClientState>,
}

/// A connection after its last batch of requests.
pub struct ClientState {
    /// Its session.
    pub session: Session,
    /// When the batch was done.
    pub active: Instant,
    /// The last command of it.
    pub last: Option<&'static Spec>,
    /// Bytes of requests that are not whole yet.
    pub query_buffer: usize,
    /// Largest reply buffer so far.
    pub output_peak: usize,
}

impl Clients {
    /// An id that was not given before.
    pub fn next_id(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Registers a connection by its session's id.
    pub fn add(&self, session: Session) -> Arc<Client> {
        let (id, now) = (session.id, Instant::now());
        let state = ClientState { session, active: now, last: None, query_buffer: 0, output_peak: 0 };
        let client = Arc::new(Client { kill: Notify::new(), since: now, state: Mutex::new(state) });
        self.entries.insert(id, client.clone());
        client
    }

    /// Takes a connection out.
    pub fn remove(&self, id: u64) {
        self.entries.remove(&id);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The connection with this id.
    pub fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.entries.get(&id).map(|entry| entry.value().clone())
    }

    /// All of them, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.entries.iter().map(|entry| (*entry.key(), entry.value().clone())).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all.into_iter().map(|(_, client)| client).collect()
    }
}
