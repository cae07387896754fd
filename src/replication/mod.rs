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
pub mod gather;
pub mod pace;
mod read;
mod route;
mod spread;
pub mod sweep;
pub mod sync;
pub mod wait;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::future::BoxFuture;

use self::admission::Admission;
use self::pace::Paces;
use crate::base::id::{Db, Partition, Region};
use crate::causality::Dot;
use crate::cluster::ClusterView;
use crate::commands::Spec;
use crate::commands::session::Quorum;
use crate::env::Env;
use crate::replica::Replica;
use crate::resp::Arguments;
use crate::resp::Reply;
use crate::storage::Ticket;

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
    /// A peer says that this node is to coordinate.
    pub forwarded: bool,
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

/// How many replicas answer a read and a write of each database, unless the client says otherwise.
pub struct Quorums(Vec<(AtomicU8, AtomicU8)>);

impl Quorums {
    /// The same for all databases.
    pub fn new(databases: u16, read: u8, write: u8) -> Self {
        Quorums((0..databases).map(|_| (AtomicU8::new(read), AtomicU8::new(write))).collect())
    }

    /// Sets those of all databases, of which `own` (database, R, W) have theirs. None passes through another value.
    pub fn set(&self, read: u8, write: u8, own: &[(u8, u8, u8)]) {
        for (at, (r, w)) in self.0.iter().enumerate() {
            let own = own.iter().find(|(db, ..)| usize::from(*db) == at);
            let (read, write) = own.map_or((read, write), |(_, read, write)| (*read, *write));
            r.store(read, Ordering::Relaxed);
            w.store(write, Ordering::Relaxed);
        }
    }

    /// R of a command: never more than there are owners, never none.
    fn read(&self, task: &Task, owners: usize) -> usize {
        let set = self.0.get(usize::from(task.db.0)).map_or(1, |(read, _)| read.load(Ordering::Relaxed));
        usize::from(task.quorum.read.unwrap_or(set)).clamp(1, owners.max(1))
    }

    /// W of a command, likewise.
    fn write(&self, task: &Task, owners: usize) -> usize {
        let set = self.0.get(usize::from(task.db.0)).map_or(1, |(_, write)| write.load(Ordering::Relaxed));
        usize::from(task.quorum.write.unwrap_or(set)).clamp(1, owners.max(1))
    }

    /// The least W that any database is set to.
    pub fn least_write(&self) -> usize {
        self.0.iter().map(|(_, write)| usize::from(write.load(Ordering::Relaxed))).min().unwrap_or(1).max(1)
    }

    /// W of a database as it is set.
    pub fn write_of(&self, db: Db) -> u8 {
        self.0.get(usize::from(db.0)).map_or(1, |(_, write)| write.load(Ordering::Relaxed))
    }
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
    /// By partition: this node holds what a quorum had when it became coordinator, and need not ask before it evaluates.
    settled: Vec<AtomicBool>,
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
        let settled = replica.partitions().iter().map(|_| AtomicBool::new(false)).collect();
        Coordinator {
            env,
            replica,
            view: ArcSwap::from_pointee(view),
            quorums,
            databases,
            patience,
            admission: Admission::new(admission::Rules::default()),
            paces: Paces::new(patience),
            settled,
        }
    }

    /// Whether this node may coordinate `partition` without asking others first.
    pub fn is_settled(&self, partition: Partition) -> bool {
        self.settled.get(usize::from(partition.0)).is_some_and(|settled| settled.load(Ordering::Acquire))
    }

    /// Says so.
    pub fn set_settled(&self, partition: Partition, yes: bool) {
        if let Some(settled) = self.settled.get(usize::from(partition.0)) {
            settled.store(yes, Ordering::Release);
        }
    }

    /// How many other owners must have been heard, beside this one, for a quorum of writes to be known: N − W.
    pub fn others_to_hear(&self, partition: Partition, write: usize) -> usize {
        self.view.load().ring.owner_count(partition).saturating_sub(write)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn task(db: u8, quorum: Quorum) -> Task {
        let args = arguments(["set", "k", "v"].map(|arg| Bytes::from_static(arg.as_bytes())));
        Task { spec: crate::commands::find(b"set").unwrap(), args, db: Db(db), quorum, forwarded: false }
    }

    #[test]
    fn a_command_goes_by_its_own_quorum_then_by_that_of_its_database_then_by_that_of_all() {
        let quorums = Quorums::new(16, 2, 2);
        quorums.set(2, 2, &[(3, 1, 3)]);
        let unasked = task(3, Quorum::default());
        assert_eq!((quorums.read(&unasked, 3), quorums.write(&unasked, 3)), (1, 3));
        let asked = task(3, Quorum { read: None, write: Some(2) });
        assert_eq!((quorums.read(&asked, 3), quorums.write(&asked, 3)), (1, 2));
        let elsewhere = task(4, Quorum::default());
        assert_eq!((quorums.read(&elsewhere, 3), quorums.write(&elsewhere, 3)), (2, 2));
        assert_eq!(quorums.write(&unasked, 2), 2, "no more than there are owners");
        quorums.set(1, 1, &[]);
        assert_eq!((quorums.read(&unasked, 3), quorums.write(&unasked, 3), quorums.least_write()), (1, 1, 1));
    }
}
