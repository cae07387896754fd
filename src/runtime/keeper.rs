//! Who keeps the node on its disk: sees that the store has failed or that room runs out, and puts a node made over the
//! store, opened again, in the old one's place.
//!
//! ```text
//! well ── a write or sync fails, or one hangs ──▶ sick: writes fail at once, reads go on, out of the quorums
//!   ▲                                                  │ a probe is written and synced, there is room
//!   └── peers and clients get the new node ◀── close, open, scan
//! ```
//!
//! What the store had acknowledged is there when it is opened again; what was under way may be. So the node comes back as
//! after a kill: above its old ceiling, settling with the others before it coordinates. Little room is no failure: less is
//! taken in, and all of it again when there is room. What cannot be mended here ends the process, for a supervisor to start
//! it again.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::closable::ClosableStore;
use super::disk::{Questions, free_bytes, probe};
use super::env::{TokioEnv, random, wall_ms};
use super::links::Links;
use super::watch::intake;
use super::{StartError, node_options, open_replica, open_store, start_committing};
use crate::base::id::ActorId;
use crate::cluster::Membership;
use crate::config::{Config, Settings};
use crate::metrics;
use crate::node::{CurrentNode, Node};
use crate::replica::{Intake, Replica};
use crate::server::Server;
use crate::storage::{Committer, Store, StoreError};

/// How often to look.
const LOOK: Duration = Duration::from_millis(100);
/// How often room is looked at, in looks.
const LOOKS_TO_ROOM: u32 = 3;
/// Pauses between probes of a sick disk: at first; at most, when it fails again and again.
const PROBE_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A store that was well for so long is not failing again and again.
const WELL: Duration = Duration::from_secs(60);
/// How long the disk may take for an answer about room, and for a probe.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// How long threads may take to leave a store that has failed, and calls to leave one that is closed.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);
/// How often a store that does not open is tried.
const TRIES: u32 = 5;

/// A store that is open, and the threads that write to it.
pub struct Life {
    /// The store.
    pub store: Arc<ClosableStore>,
    /// The committer's threads.
    pub committing: Vec<JoinHandle<()>>,
}

/// Why a node is kept no longer.
pub enum Ended {
    /// It is no member any more.
    Dismissed(String),
    /// This process cannot recover its store.
    Lost(StartError),
}

/// What is left of the disk, and what the store will need of it.
struct Room {
    free: u64,
    /// Bytes that the store has in memory and must still write out.
    unwritten: u64,
}

/// See the module.
pub struct Keeper {
    settings: Arc<Settings>,
    server: Arc<Server>,
    current: CurrentNode,
    env: Arc<TokioEnv>,
    links: Arc<Links>,
    life: Life,
    recovered: Option<Instant>,
    room: Questions<std::io::Result<Room>>,
    probes: Questions<std::io::Result<()>>,
    intake: Intake,
    pause: Duration,
}

impl Keeper {
    /// A keeper of the server's node, which lives this `life`.
    pub fn new(server: Arc<Server>, env: Arc<TokioEnv>, links: Arc<Links>, life: Life) -> Keeper {
        Keeper {
            settings: server.settings.clone(),
            current: server.current.clone(),
            server,
            env,
            links,
            life,
            recovered: None,
            room: Questions::default(),
            probes: Questions::default(),
            intake: Intake::All,
            pause: PROBE_PAUSE.0,
        }
    }

    /// Keeps the node until it cannot be kept.
    pub async fn run(&mut self) -> Ended {
        let mut looks = 0u32;
        loop {
            let node = self.current.get();
            tokio::select! {
                biased;
                why = node.dismissed() => return Ended::Dismissed(why),
                () = sleep(LOOK) => drop(node),
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(LOOKS_TO_ROOM) {
                self.look_at_room().await;
            }
            let failure = self.committer().failed();
            if let Some(failure) = failure
                && let Err(error) = self.recover(&failure).await
            {
                tracing::error!("{error}");
                return Ended::Lost(error);
            }
        }
    }

    /// The life that goes on now.
    pub fn into_life(self) -> Life {
        self.life
    }

    fn committer(&self) -> Committer {
        self.current.get().replica().committer().clone()
    }

    /// Takes in less when room runs out, and all again when there is some.
    async fn look_at_room(&mut self) {
        let Some(room) = self.room().await else { return };
        let (free, margin) = (room.free, self.margin(&room));
        let next = match (self.intake, intake(free, margin, self.intake)) {
            // Others learn first: what they coordinate then is not refused here.
            (Intake::All, Intake::Removals) => Intake::Leaving,
            (_, next) => next,
        };
        if next == self.intake {
            return;
        }
        let node = self.current.get();
        let why = format!("only {} of the disk are free ('disk-free-min': {})", mb(free), mb(margin));
        match next {
            Intake::All => tracing::info!("There is room on the disk again: {} are free", mb(free)),
            Intake::Leaving => tracing::warn!("This node leaves the quorums: {why}"),
            Intake::Removals => tracing::warn!("Nothing but deletions is taken in: {why}"),
            Intake::Nothing => tracing::warn!("No changes are taken in: {why}"),
        }
        node.replica().set_intake(next, why);
        self.intake = next;
        if next == Intake::All {
            node.catch_up_again();
        }
        tell_everyone(node);
    }

    /// Opens the store again as soon as the disk takes writes.
    async fn recover(&mut self, failure: &StoreError) -> Result<(), StartError> {
        let (began, old) = (Instant::now(), self.current.get());
        tracing::error!("{failure}. Reads go on; it is opened again when the disk takes writes");
        let again = self.recovered.is_some_and(|recovered| recovered.elapsed() < WELL);
        self.pause = if again { (self.pause * 2).min(PROBE_PAUSE.1) } else { PROBE_PAUSE.0 };
        old.replica().committer().stop();
        tell_everyone(old.clone());
        sleep(self.pause).await;
        self.until_the_disk_writes().await?;
        old.stop();
        self.close().await?;
        let mut tries = 0;
        let node = loop {
            match self.open_again(&old).await {
                Ok(node) => break node,
                Err(error) if tries == TRIES => return Err(error),
                Err(error) => tracing::warn!("The store does not open: {error}"),
            }
            tries += 1;
            sleep(PROBE_PAUSE.0).await;
        };
        drop(old);
        self.introduce(node).await;
        self.recovered = Some(Instant::now());
        self.intake = Intake::All;
        metrics::STORE_RECOVERIES.increment();
        tracing::info!("The store takes writes again, {:.1} s after it failed", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// Waits until nobody writes any more, the disk takes writes and there is room.
    async fn until_the_disk_writes(&mut self) -> Result<(), StartError> {
        let began = Instant::now();
        loop {
            let left = self.life.committing.iter().all(JoinHandle::is_finished);
            if !left && began.elapsed() > LEAVE_PATIENCE {
                return Err(self.lost("a write to it does not return"));
            }
            let dir = self.dir();
            let writes = self.probes.ask(PATIENCE.1, move || probe(&dir)).await;
            let room = self.room().await;
            let has_room =
                room.is_some_and(|room| intake(room.free, self.margin(&room), Intake::Nothing) == Intake::All);
            match writes {
                Some(Ok(())) if left && has_room => return Ok(()),
                Some(Err(error)) => tracing::debug!(%error, "the disk takes no writes"),
                _ => tracing::debug!(left, has_room, "the disk is not well yet"),
            }
            sleep(PROBE_PAUSE.0).await;
        }
    }

    async fn close(&self) -> Result<(), StartError> {
        let store = self.life.store.clone();
        let closing = tokio::task::spawn_blocking(move || store.close(LEAVE_PATIENCE));
        match timeout(LEAVE_PATIENCE * 2, closing).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(self.lost("it cannot be closed")),
        }
    }

    /// Opens the store again and makes a node over it: `old`, as if it had been killed and started.
    async fn open_again(&mut self, old: &Node) -> Result<Arc<Node>, StartError> {
        let (config, mut membership) = (self.settings.config(), old.membership());
        let mut last_life = 0;
        if let Some(me) = membership.members.get_mut(&old.me) {
            last_life = me.incarnation;
            me.incarnation = wall_ms().max(last_life.saturating_add(1));
        }
        let members = membership.clone();
        let (opening, committed) = (config.clone(), old.replica().committer().committed_batch());
        let opened = tokio::task::spawn_blocking(move || open(&opening, &members, committed)).await;
        let (replica, life) = opened.map_err(StartError::because)??;
        self.life = life;
        let node = Node::new(self.env.clone(), replica, membership, old.me, node_options(&config));
        node.remembers(last_life);
        Ok(node)
    }

    /// Lets `node` meet who is there, and puts it in the old one's place.
    async fn introduce(&self, node: Arc<Node>) {
        node.keep_membership();
        node.start();
        self.links.introduce(&node);
        node.ping_all().await;
        self.server.go_over_to(node);
    }

    async fn room(&mut self) -> Option<Room> {
        let (dir, store) = (self.dir(), self.life.store.clone());
        let look = move || Ok(Room { free: free_bytes(&dir)?, unwritten: store.usage().memtable_bytes });
        let room = self.room.ask(PATIENCE.0, look).await?.ok()?;
        self.server.note_free_disk(room.free);
        Some(room)
    }

    /// Room that there should be: what is set, and what the store will need to write out what it has in memory.
    fn margin(&self, room: &Room) -> u64 {
        match self.settings.config().disk_free_min {
            0 => 0,
            least => least.saturating_add(room.unwritten),
        }
    }

    fn dir(&self) -> PathBuf {
        self.settings.config().dir.clone()
    }

    fn lost(&self, why: &str) -> StartError {
        StartError(format!("The store in {} cannot be recovered by this process: {why}", self.dir().display()))
    }
}

/// Opens what a life left that had `committed` batches with notes.
fn open(config: &Config, membership: &Membership, committed: u64) -> Result<(Arc<Replica>, Life), StartError> {
    let store = open_store(config)?;
    let opened = open_replica(config, store.clone(), membership, false).and_then(|replica| {
        if replica.committer().current_batch() < committed {
            // A disk that fails to sync may drop what it was given before.
            tracing::error!("The store has lost what was committed: this node counts again when others have told it");
            replica.take_actor(ActorId(random()), true).map_err(StartError::because)?;
        }
        let committing = start_committing(replica.committer())?;
        Ok((Arc::new(replica), committing))
    });
    match opened {
        Ok((replica, committing)) => Ok((replica, Life { store, committing })),
        Err(error) => {
            store.close(LEAVE_PATIENCE);
            Err(error)
        }
    }
}

/// Nobody is to wait for the next ping to learn how this node is.
fn tell_everyone(node: Arc<Node>) {
    tokio::spawn(async move { node.ping_all().await });
}

fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / (1024.0 * 1024.0))
}
