//! The coordinator: what becomes of a command that concerns keys. It finds who coordinates, evaluates there, tells the
//! other owners, answers when enough have it; it reads at a quorum and repairs whoever was behind.
//!
//! ```text
//! start ─▶ one region? ─▶ coordinator here? ─▶ read: ask R−1 owners, merge, evaluate, repair
//!   │          │                │              write: evaluate, tell N−1 owners, answer at W
//!   │          └─ several: split or gather     └─ elsewhere: forward as it came
//! ```
//!
//! Everything up to telling the peers happens before [`Coordinator::start`] returns whenever this node may evaluate at
//! once, so commands of one connection take effect in their order without waiting for each other.
//!
//! Async over [`Env`](crate::env::Env). Deliberately absent: sockets, RESP bytes, clocks of its own, and who is alive
//! (a [`ClusterView`] says so).

pub mod admission;
mod clears;
pub mod events;
pub mod gather;
pub mod load;
pub mod pace;
pub mod parcels;
pub mod publish;
pub mod quorum;
mod read;
mod reconsider;
mod report;
mod route;
mod spread;
pub mod sweep;
pub mod sync;
mod telling;
pub mod term;
pub mod transaction;
pub mod wait;
mod write;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use self::admission::Admission;
use self::events::Notified;
use self::pace::Paces;
use self::publish::Audience;
use crate::base::id::{Db, Region};
use crate::base::limits::{MAX_BYTES_BEHIND, MAX_BYTES_UNDER_WAY, MAX_COMMANDS_UNDER_WAY, MAX_TOLD_BEHIND};
use crate::causality::Dot;
use crate::cluster::ClusterView;
use crate::commands::Spec;
use crate::commands::session::Quorum;
use crate::env::Env;
use crate::replica::Replica;
use crate::resp::Arguments;
use crate::resp::Reply;
use crate::storage::Ticket;

use self::load::Load;
pub use self::quorum::{Need, Quorums};
pub use self::route::MAX_HOPS;
pub use self::term::Hold;
use self::term::Terms;

/// A command on its way.
#[derive(Clone)]
pub struct Task {
    /// Its declaration.
    pub spec: &'static Spec,
    /// Name and arguments.
    pub args: Arguments,
    /// The client's database.
    pub db: Db,
    /// The client's quorums.
    pub quorum: Quorum,
    /// How often it was forwarded to come here: 0 if a client sent it.
    pub hops: u8,
}

/// What a command came to.
#[derive(Debug, Clone)]
pub struct Finished {
    /// For the client.
    pub reply: Reply,
    /// Where it wrote, and the last dot it gave: for WAIT.
    pub wrote: Option<(Region, Dot)>,
}

/// How far a command came at once.
pub enum Started {
    /// It is answered.
    Done(Finished),
    /// It is answered once the store has it.
    Committed(Finished, Ticket),
    /// It needs others.
    Later(BoxFuture<'static, Finished>),
}

/// What the slowest network and disk that one should run on carry: 10 MB a second.
const LEAST_BYTES_PER_MICRO: u64 = 10;

/// What a node coordinates with.
pub struct Coordinator {
    /// The way to the world.
    pub env: Arc<dyn Env>,
    /// What this node holds.
    pub replica: Arc<Replica>,
    /// Who is there and who owns what.
    pub view: ArcSwap<ClusterView>,
    /// R and W.
    pub quorums: Quorums,
    /// How many databases there are.
    pub databases: u16,
    /// How long a peer may take to answer.
    pub patience: Duration,
    /// The gate of background work.
    pub admission: Admission,
    /// How fast peers answer.
    pub paces: Paces,
    /// What is being coordinated or forwarded.
    pub load: Arc<Load>,
    /// What is told on behind its reply.
    behind: Arc<Load>,
    /// Which keyspace events are published.
    pub notified: Notified,
    terms: Terms,
    /// Who listens at this node.
    audience: OnceLock<Arc<dyn Audience>>,
}

impl Coordinator {
    /// A coordinator over what it is given.
    pub fn new(
        env: Arc<dyn Env>,
        replica: Arc<Replica>,
        view: ClusterView,
        quorums: Quorums,
        databases: u16,
        patience: Duration,
    ) -> Self {
        Coordinator {
            env,
            terms: Terms::new(replica.partitions().count().into()),
            replica,
            view: ArcSwap::from_pointee(view),
            quorums,
            databases,
            patience,
            admission: Admission::new(admission::Rules::default()),
            paces: Paces::new(patience),
            load: Load::new(MAX_COMMANDS_UNDER_WAY, MAX_BYTES_UNDER_WAY),
            behind: Load::new(MAX_TOLD_BEHIND, MAX_BYTES_BEHIND),
            audience: OnceLock::new(),
            notified: Notified::default(),
        }
    }

    /// How long to wait for an answer about a command: long ones take time to travel and to be stored.
    pub(crate) fn patience_for(&self, args: &[Bytes]) -> Duration {
        let bytes: usize = args.iter().map(Bytes::len).sum();
        self.patience + Duration::from_micros(bytes as u64 / LEAST_BYTES_PER_MICRO)
    }

    /// Lets a command of several steps go on to its end, even if the client that asked for it leaves in between.
    pub fn detached(&self, steps: impl Future<Output = Finished> + Send + 'static) -> BoxFuture<'static, Finished> {
        let (done, wait) = tokio::sync::oneshot::channel();
        self.env.spawn(Box::pin(async move {
            let _ = done.send(steps.await);
        }));
        Box::pin(async move { wait.await.unwrap_or_else(|_| Finished::unknown("this node is stopping")) })
    }

    /// The region of a key.
    pub fn region_of(&self, db: Db, key: &[u8]) -> Region {
        Region { db, partition: self.replica.partitions().of_key(key) }
    }
}

impl Finished {
    /// A reply to something that wrote nothing.
    pub fn reply(reply: Reply) -> Finished {
        Finished { reply, wrote: None }
    }

    /// An error that says that nothing was done, and why: trying again is safe.
    pub fn not_done(why: impl std::fmt::Display) -> Finished {
        Finished::reply(Reply::error(format!("NOREPLICAS not done: {why}")))
    }

    /// An error that says that the outcome is not known: it may have been done, or may yet be.
    pub fn unknown(why: impl std::fmt::Display) -> Finished {
        Finished::reply(Reply::error(format!("{UNKNOWN} it may or may not have been done: {why}")))
    }
}

/// How an error begins that does not say whether anything was done.
const UNKNOWN: &str = "UNKNOWN";

/// Whether a write that was answered so was done, or may have been.
fn may_have_been_done(reply: &Reply) -> bool {
    match reply {
        Reply::Error(text) => text.starts_with(UNKNOWN.as_bytes()),
        _ => true,
    }
}

impl From<Reply> for Finished {
    fn from(reply: Reply) -> Self {
        Finished::reply(reply)
    }
}

/// Name and arguments as bytes.
fn arguments(args: impl IntoIterator<Item = Bytes>) -> Arguments {
    args.into_iter().collect()
}
