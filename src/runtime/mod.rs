//! A node as a process: threads, sockets, signals, and the order in which things begin and end.
//!
//! ```text
//! begin: listeners (a port in use is said first) → pid file → store → identity, members (or join) → rows
//!        → committer threads → links → node → clients → supervisor is told
//! end:   no new clients → node's loops → clocks written → committer drained and synced → mark says "in order"
//! ```

mod closable;
mod disk;
pub mod env;
mod guard;
mod keeper;
pub mod lifeline;
mod links;
mod meeting;
mod peers;
mod pidfile;
mod sockets;
mod supervisor;
mod watch;

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use self::closable::ClosableStore;
use self::env::{TokioEnv, random, wall_ms};
use self::keeper::{Ended, Keeper, Life};
use self::links::Links;
use self::meeting::{Introduction, Welcome};
use self::pidfile::PidFile;
use self::sockets::Listeners;
use self::supervisor::{SOCKET_VARIABLE, Supervisor};
use crate::base::id::{ActorId, ClusterId, NodeId};
use crate::causality::context::{ContextKey, Sealer};
use crate::cluster::{FEATURES, Member, MemberState, Membership};
use crate::config::{Config, Fsync, Settings};
use crate::node::{CurrentNode, MEMBERSHIP_KEY, Node, NodeOptions};
use crate::peer::handshake::LinkSecret;
use crate::replica::{self, Options, Replica};
use crate::ring::Partitions;
use crate::server::rename::Renames;
use crate::server::{Server, system};
use crate::storage::{Committer, DiskOptions, DiskStore, Space, Store, StoreError, SyncPolicy};

/// The key in [`Space::Node`] under which the node's id is stored.
const NODE_ID_KEY: &[u8] = b"id";

/// Threads for work that blocks (scans, pages of a sync, clean-ups); what is more waits for its turn.
const BLOCKING_THREADS: usize = 32;

/// How long a node that starts waits for others to notice it, and how often it looks.
const BE_KNOWN_PATIENCE: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(5);

/// How long the threads of a store that has failed may take to leave it, at the end.
const HANG_PATIENCE: Duration = Duration::from_secs(5);

/// Why a node did not start, or stopped without being told to: one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError(pub String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

impl StartError {
    fn because(error: impl fmt::Display) -> StartError {
        StartError(error.to_string())
    }
}

/// Runs a node until it is told to stop.
pub fn run(settings: Arc<Settings>) -> Result<(), StartError> {
    let config = settings.config();
    tracing::info!("redynamo is starting: version {}, pid {}", env!("CARGO_PKG_VERSION"), std::process::id());
    settings.notes().iter().for_each(|note| tracing::warn!("{note}"));
    config.facts().iter().for_each(|fact| tracing::info!("{fact}"));
    let renames = Renames::of(settings.renamed_commands()).map_err(StartError)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.io_threads.unwrap_or_else(io_threads))
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("redynamo-io")
        .build()
        .map_err(StartError::because)?;
    let ended = runtime.block_on(serve(settings, renames));
    // Whatever still runs on these threads has nothing left to say.
    runtime.shutdown_background();
    ended
}

/// Half of the cores. The other half is for what is not on these threads (rows carried over, tables merged, syncs) and for
/// whoever else is on the machine. Fewer are faster, too: whoever waits commits for all who are ready, so the more share a
/// thread the larger is a batch, and nobody has to be woken on another core.
fn io_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1))
}

async fn serve(settings: Arc<Settings>, renames: Option<Renames>) -> Result<(), StartError> {
    let config = settings.config();
    let stop = Arc::new(Notify::new());
    watch_for_the_end(&config, &stop)?;
    let mut listeners = Listeners::bind(&config)?;
    let _pid_file = config.pid_file.as_deref().and_then(PidFile::write);
    let supervisor = Supervisor::of(config.supervised, std::env::var_os(SOCKET_VARIABLE).as_deref());
    let store = open_store(&config)?;
    let introduction = Introduction {
        cluster_name: config.cluster_name.clone(),
        secret: LinkSecret::derive(config.cluster_secret.as_ref().map_or("", |secret| secret.as_str()).as_bytes()),
    };
    let me = Whoami::take_up(&*store, &config)?;
    let joined = tokio::select! {
        biased;
        () = stop.notified() => return Ok(()),
        joined = members(&*store, &config, &introduction, me.member) => joined?,
    };
    let Joined { membership, me, last_life, returning } = joined;
    let replica = Arc::new(open_replica(&config, store.clone(), &membership, returning)?);
    let life = Life { committing: start_committing(replica.committer())?, store };
    let links = Arc::new(Links::default());
    let env = Arc::new(TokioEnv::new(links.clone()));
    let node = Node::new(env.clone(), replica, membership, me, node_options(&config));
    node.remembers(last_life);
    node.keep_membership();
    let current = CurrentNode::new(node.clone());
    let server = Server::new(current.clone(), settings.clone(), stop.clone(), renames);
    node.start();
    listeners.serve_peers(&current, &links, &introduction);
    tokio::select! {
        biased;
        () = stop.notified() => return end(&node, life),
        why = node.dismissed() => return end_dismissed(&node, life, why),
        () = look_around(&current, &links, &introduction, &config.join) => {}
    }
    tokio::spawn(meeting::keep_announced(config.join.clone(), introduction.clone(), current.clone()));
    tokio::spawn(links.clone().keep(current.clone(), introduction.clone()));
    listeners.serve(&server);
    tokio::spawn(server.clone().sample_loop());
    tracing::info!("Ready to accept connections");
    if let Some(port) = config.port {
        tracing::info!("try: redis-cli -p {port} ping");
    }
    supervisor.ready();
    drop(node);
    guard::begin(current.clone(), settings.clone()).map_err(StartError::because)?;
    let mut keeper = Keeper::new(server, env, links, life);
    let ended = tokio::select! {
        biased;
        () = stop.notified() => None,
        ended = keeper.run() => Some(ended),
    };
    supervisor.stopping();
    let node = current.get();
    match ended {
        None => end(&node, keeper.into_life()),
        Some(Ended::Dismissed(why)) => end_dismissed(&node, keeper.into_life(), why),
        Some(Ended::Lost(error)) => Err(error),
    }
}

/// Learns who is there and who is ready before a client is served: a node that knows nobody yet would take the others for
/// dead and itself for every key's coordinator. And lets those who are there learn of this node.
async fn look_around(current: &CurrentNode, links: &Links, introduction: &Introduction, seeds: &[String]) {
    links.first_attempts(current, introduction).await;
    let node = current.get();
    if node.sees_nobody() && meeting::announce(seeds, introduction, &node).await {
        let met = async {
            while node.sees_nobody() {
                sleep(LOOK).await;
            }
        };
        let _ = timeout(BE_KNOWN_PATIENCE, met).await;
    }
    node.ping_all().await;
    let known = async {
        while !node.is_known_to_all() {
            sleep(LOOK).await;
        }
    };
    // Who cannot reach this node will not be waited for.
    let _ = timeout(BE_KNOWN_PATIENCE, known).await;
}

/// Everything is on the disk, and the mark says so, when this returns.
fn end(node: &Node, life: Life) -> Result<(), StartError> {
    let replica = node.replica();
    tracing::info!("User requested shutdown...");
    node.stop();
    if let Err(fault) = replica.checkpoint() {
        tracing::warn!("clocks were not written: {fault}");
    }
    replica.committer().stop();
    let until = Instant::now() + HANG_PATIENCE;
    while replica.committer().has_failed() && !life.committing.iter().all(JoinHandle::is_finished) {
        if Instant::now() > until {
            return Err(StartError("not stopped in order: a write to the disk does not return".to_owned()));
        }
        std::thread::sleep(LOOK);
    }
    life.committing.into_iter().for_each(|thread| {
        let _ = thread.join();
    });
    match replica.retire() {
        Ok(()) => tracing::info!("redynamo is now ready to exit, bye bye..."),
        Err(error) => return Err(StartError(format!("not stopped in order: {error}"))),
    }
    Ok(())
}

/// The same for one that is no member any more: nobody is to start it again as if it were.
fn end_dismissed(node: &Node, life: Life, why: String) -> Result<(), StartError> {
    end(node, life)?;
    Err(StartError(why))
}

/// Rings `stop` on SIGTERM, on SIGINT, and, for a child of `redynamo local`, when its parent is gone.
fn watch_for_the_end(config: &Config, stop: &Arc<Notify>) -> Result<(), StartError> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(StartError::because)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                tracing::info!("Received a signal, scheduling shutdown...");
                stop.notify_one();
            }
        });
    }
    if config.exit_with_stdin {
        let stop = stop.clone();
        lifeline::when_stdin_closes(move || stop.notify_one()).map_err(StartError::because)?;
    }
    Ok(())
}

fn open_store(config: &Config) -> Result<Arc<ClosableStore>, StartError> {
    let options = DiskOptions { cache_bytes: system::cache_bytes(config.maxmemory) / 4, ..DiskOptions::default() };
    let store = DiskStore::open(&config.dir, options).map_err(StartError::because)?;
    tracing::info!("Data directory {}: {} bytes on disk", config.dir.display(), store.usage().disk_bytes);
    Ok(Arc::new(ClosableStore::new(Box::new(store))))
}

fn open_replica(
    config: &Config,
    store: Arc<dyn Store>,
    membership: &Membership,
    returning: bool,
) -> Result<Replica, StartError> {
    let began = Instant::now();
    let hash_seed = blake3::derive_key("redynamo 2026-11 hash tree seed", &membership.key);
    let options = Options {
        databases: databases(config),
        partitions: membership.partitions,
        cache_bytes: system::row_cache_bytes(config.maxmemory),
        sealer: Sealer { cluster: membership.cluster, key: ContextKey::derive(&membership.key) },
        hash_seed: hash_seed.first_chunk().map_or(0, |raw| u64::from_be_bytes(*raw)),
        fresh_actor: ActorId(random()),
        returning,
        max_skew_ms: config.max_clock_skew.as_millis() as u64,
        sync: match config.fsync {
            Fsync::Always => SyncPolicy::Always,
            Fsync::EverySecond => SyncPolicy::EverySec,
            Fsync::No => SyncPolicy::No,
        },
    };
    let replica = Replica::open(store, options).map_err(|error| match error {
        replica::StartError::Store(error) => unreadable(config, &error),
        replica::StartError::Damaged(what) => damaged(config, what),
        error @ replica::StartError::Database(_) => StartError(format!("{}: {error}", config.dir.display())),
    })?;
    let keys: u64 = replica.regions().map(|region| replica.tally(region).keys).sum();
    tracing::info!("DB loaded: {keys} keys in {:.3} seconds", began.elapsed().as_secs_f64());
    Ok(replica)
}

/// What the store says of itself, and where it is.
fn unreadable(config: &Config, error: &StoreError) -> StartError {
    match error {
        StoreError::Damaged(what) => damaged(config, what),
        error => StartError(format!("{}: {error}", config.dir.display())),
    }
}

/// The way out of damage that was found at the start.
fn damaged(config: &Config, what: impl fmt::Display) -> StartError {
    let dir = config.dir.display();
    StartError(format!(
        "{dir} is damaged: {what}. Restore all of it from a backup, or move it away: a new node fetches what others have"
    ))
}

/// The committer's two threads: one commits, one syncs and tends the store.
fn start_committing(committer: &Committer) -> Result<Vec<JoinHandle<()>>, StartError> {
    committer.let_waiters_lead();
    let (commits, syncs) = (committer.clone(), committer.clone());
    let thread = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(StartError::because)
    };
    Ok(vec![
        thread("redynamo-commit", Box::new(move || commits.run()))?,
        thread("redynamo-sync", Box::new(move || syncs.run_sync()))?,
    ])
}

/// This node, as it introduces itself.
struct Whoami {
    member: Member,
}

impl Whoami {
    fn take_up(store: &dyn Store, config: &Config) -> Result<Whoami, StartError> {
        let stored = store.get(Space::Node, NODE_ID_KEY).map_err(|error| unreadable(config, &error))?;
        let id = match stored.as_deref().map(<[u8; 8]>::try_from) {
            Some(Ok(raw)) => NodeId(u64::from_be_bytes(raw)),
            Some(Err(_)) => return Err(damaged(config, "the node's id cannot be read")),
            None if store.mark().map_err(|error| unreadable(config, &error))?.is_some() => {
                return Err(damaged(config, "all rows are missing, though it was used before"));
            }
            None => new_id(store)?,
        };
        let member = Member {
            id,
            // Later starts are later, as far as this machine's clock goes; nothing but descriptions hangs on it.
            incarnation: wall_ms(),
            name: config.node_name.clone(),
            host: sockets::announced_host(config),
            port: config.port.or(config.cluster_port).unwrap_or_default(),
            cluster_port: config.cluster_port.unwrap_or_default(),
            peer_port: config.peer_port,
            zone: config.zone.clone(),
            weight: config.weight,
            features: FEATURES,
            state: MemberState::Up,
            decision: 0,
        };
        Ok(Whoami { member })
    }
}

fn new_id(store: &dyn Store) -> Result<NodeId, StartError> {
    let id = NodeId(random());
    keep_id(store, id).map(|()| id)
}

fn keep_id(store: &dyn Store, id: NodeId) -> Result<(), StartError> {
    let change = crate::storage::Change::put(Space::Node, NODE_ID_KEY, id.0.to_be_bytes().to_vec());
    store.write(vec![change], crate::storage::Durability::Synced).map_err(StartError::because)
}

/// The members, and which of them this node is.
struct Joined {
    membership: Membership,
    me: NodeId,
    /// The incarnation of the life before, as far as this node's disk knows; 0 if there was none.
    last_life: u64,
    /// The cluster knew this node, or one in whose place it comes, and its directory is empty.
    returning: bool,
}

/// The members: as stored, as told by the cluster that this node joins, or this node alone.
async fn members(
    store: &dyn Store,
    config: &Config,
    introduction: &Introduction,
    me: Member,
) -> Result<Joined, StartError> {
    let stored = store.get(Space::Node, MEMBERSHIP_KEY).map_err(|error| unreadable(config, &error))?;
    if let Some(raw) = stored {
        let mut reader = crate::base::codec::Reader::new(raw);
        let mut membership =
            Membership::read(&mut reader).map_err(|error| damaged(config, format!("the members: {error}")))?;
        warn_of_fixed(config, &membership);
        let id = me.id;
        let last_life = membership.members.get(&id).map_or(0, |former| former.incarnation);
        take_place(&mut membership, me)?;
        return Ok(Joined { membership, me: id, last_life, returning: false });
    }
    if !config.join.is_empty() {
        let Welcome { mut membership, former, .. } = meeting::join(&config.join, introduction, &me).await;
        tracing::info!("Joined cluster {} with {} members", membership.cluster, membership.members.len());
        warn_of_fixed(config, &membership);
        let me = adopt(store, &membership, me)?;
        let id = me.id;
        if former.is_some() {
            take_place(&mut membership, me)?;
        }
        return Ok(Joined { membership, me: id, last_life: u64::MAX, returning: former.is_some() });
    }
    let partitions = Partitions::new(config.partitions)
        .ok_or_else(|| StartError(format!("{} partitions: not a power of two", config.partitions)))?;
    let mut key = [0; 32];
    key.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&random().to_be_bytes()));
    let cluster = ClusterId(random());
    tracing::info!("Founded cluster {cluster} '{}'", config.cluster_name);
    let id = me.id;
    let membership = Membership { cluster, key, partitions, replicas: config.replicas, members: [(id, me)].into() };
    Ok(Joined { membership, me: id, last_life: 0, returning: false })
}

/// A node whose directory is empty comes back as the member of its name, if the cluster let it join in that place.
fn adopt(store: &dyn Store, membership: &Membership, me: Member) -> Result<Member, StartError> {
    match membership.named(&me.name) {
        Some(former) if !membership.members.contains_key(&me.id) => {
            tracing::info!("This node takes the place of member {} of its name, without its data", former.id);
            keep_id(store, former.id)?;
            Ok(Member { id: former.id, ..me })
        }
        _ => Ok(me),
    }
}

/// Puts this node's description as of this start in the place of former ones: it is later than all of them, also where
/// the clock was set back meanwhile.
fn take_place(membership: &mut Membership, me: Member) -> Result<(), StartError> {
    let former = membership.members.get(&me.id);
    if former.is_some_and(|former| !former.is_present()) {
        return Err(StartError(format!(
            "node {} was removed from cluster {}: to join again it needs an empty directory",
            me.id, membership.cluster
        )));
    }
    let (state, decision) = former.map_or((MemberState::Up, 0), |former| (former.state, former.decision));
    let later = former.map_or(0, |former| former.incarnation.saturating_add(1));
    let incarnation = me.incarnation.max(later);
    membership.members.insert(me.id, Member { incarnation, state, decision, ..me });
    Ok(())
}

/// What was fixed when the cluster was founded is not changed by a configuration.
fn warn_of_fixed(config: &Config, membership: &Membership) {
    if membership.partitions.count() != config.partitions {
        let count = membership.partitions.count();
        tracing::warn!("partitions: the cluster was founded with {count}; {} is not used", config.partitions);
    }
    if membership.replicas != config.replicas {
        tracing::warn!("replicas: the cluster has {}; {} is not used", membership.replicas, config.replicas);
    }
}

fn node_options(config: &Config) -> NodeOptions {
    NodeOptions {
        databases: databases(config),
        read_quorum: config.read_quorum,
        write_quorum: config.write_quorum,
        database_quorums: config.database_quorums.clone(),
        strict: config.strict_databases.clone(),
        peer_timeout: config.peer_timeout,
        failure_timeout: config.failure_timeout,
        max_skew: config.max_clock_skew,
        sync_interval: config.sync_interval,
    }
}

fn databases(config: &Config) -> u16 {
    config.databases.clamp(1, 256) as u16
}
