//! Clients: each sends one command after the other to whichever node it likes, as a connection of that node would, and
//! writes down what it did and what it was told. What they send is in [`workload`](super::workload).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::history::{Deed, History, Key, Op, Outcome};
use super::world::World;
use crate::base::id::{Db, Region};
use crate::base::rng::Rng;
use crate::causality::Dot;
use crate::commands::session::{Quorum, Session};
use crate::commands::spec::Run;
use crate::commands::{self, Call};
use crate::env::Env;
use crate::replication::{Coordinator, Finished, Task};
use crate::resp::Reply;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client.
pub struct Client {
    pub(super) world: Arc<World>,
    pub(super) history: Arc<Mutex<History>>,
    pub(super) rng: Rng,
    pub(super) number: usize,
    pub(super) written: u64,
    /// By key: the context it read last, and what it had seen with it.
    pub(super) contexts: BTreeMap<Key, (Bytes, BTreeSet<Bytes>)>,
    /// By key: the token with which it holds, or may hold, that lock.
    pub(super) locks: BTreeMap<Key, Bytes>,
    /// What its commands ask for.
    pub(super) quorum: Quorum,
    /// Its last write.
    pub(super) wrote: Option<(Region, Dot)>,
}

/// What came of a command.
pub struct Told {
    /// What is certain.
    pub outcome: Outcome,
    /// The reply, if one came.
    pub reply: Reply,
    /// The last dot that it gave.
    pub wrote: Option<(Region, Dot)>,
}

impl Client {
    /// Client `number`.
    pub fn new(world: &Arc<World>, history: &Arc<Mutex<History>>, number: usize) -> Client {
        Client {
            rng: world.fork(),
            world: world.clone(),
            history: history.clone(),
            number,
            written: 0,
            contexts: BTreeMap::new(),
            locks: BTreeMap::new(),
            quorum: Quorum::default(),
            wrote: None,
        }
    }

    /// Sends commands until `end`.
    pub async fn run_until(mut self, end: Instant) {
        while Instant::now() < end {
            self.step().await;
            let think = self.rng.below(self.world.config.think.as_millis() as u64 + 1);
            sleep(Duration::from_millis(think)).await;
        }
    }

    /// Sends a command and writes down what came of it; `deed` says what it did, given the reply.
    pub(super) async fn send(&mut self, db: Db, args: &[&[u8]], key: &Key, deed: impl FnOnce(&Reply) -> Deed) {
        let began = self.history.lock().moment();
        let told = self.ask(db, args).await;
        let deed = deed(&told.reply);
        self.note(key, began, deed, &told);
    }

    pub(super) fn note(&self, key: &Key, began: u64, deed: Deed, told: &Told) {
        let mut history = self.history.lock();
        let ended = history.moment();
        let (outcome, wrote) = (told.outcome, told.wrote);
        history.note(key, Op { client: self.number, began, ended, deed, outcome, wrote });
    }

    pub(super) async fn ask(&mut self, db: Db, args: &[&[u8]]) -> Told {
        let first = self.rng.below(self.world.len() as u64) as usize;
        // A node that is down refuses the connection; clients go on to the next.
        let tried = (0..self.world.len()).map(|step| (first + step) % self.world.len());
        let at = tried.into_iter().find(|at| self.world.node(*at).is_some()).unwrap_or(first);
        let told = ask_as(&self.world, at, Asking { db, quorum: self.quorum, wrote: self.wrote }, args).await;
        self.wrote = told.wrote.or(self.wrote);
        match &told.reply {
            Reply::Error(why) => self.history.lock().note_refusal(why),
            Reply::NilArray => self.history.lock().note_refusal(b"no answer"),
            _ => {}
        }
        let mut event = format!("{} {:?} ", self.number, told.outcome).into_bytes();
        args.iter().for_each(|arg| event.extend_from_slice(arg));
        event.extend_from_slice(format!("{:?}", told.reply).as_bytes());
        self.world.oracle.lock().trace(self.world.net.now_ms(), &event);
        told
    }

    pub(super) fn value(&mut self) -> Bytes {
        self.written += 1;
        format!("v{}.{}", self.number, self.written).into()
    }
}

/// What a connection is, as far as its commands go.
#[derive(Debug, Clone, Copy)]
pub struct Asking {
    /// Its database.
    pub db: Db,
    /// Its quorums.
    pub quorum: Quorum,
    /// Its last write.
    pub wrote: Option<(Region, Dot)>,
}

/// Sends a command to a node as a new connection.
pub async fn ask(world: &World, at: usize, db: Db, args: &[&[u8]]) -> Told {
    ask_as(world, at, Asking { db, quorum: Quorum::default(), wrote: None }, args).await
}

/// Sends a command to a node as one of its connections.
pub async fn ask_as(world: &World, at: usize, asking: Asking, args: &[&[u8]]) -> Told {
    // No command replies so: nobody takes it for an answer.
    let refused = |outcome| Told { outcome, reply: Reply::NilArray, wrote: None };
    let Some((node, env)) = world.node(at) else { return refused(Outcome::NotDone) };
    let args: Vec<Bytes> = args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect();
    let (tell, told) = oneshot::channel();
    env.spawn(Box::pin(async move {
        // The client may have given up.
        let _ = tell.send(execute(&node.coordinator, asking, args).await);
    }));
    match timeout(PATIENCE, told).await {
        Ok(Ok(finished)) => Told { outcome: outcome_of(&finished.reply), reply: finished.reply, wrote: finished.wrote },
        _ => refused(Outcome::Unknown),
    }
}

/// What a node's front does with a command.
async fn execute(coordinator: &Arc<Coordinator>, asking: Asking, args: Vec<Bytes>) -> Finished {
    let Asking { db, quorum, wrote } = asking;
    let spec = match commands::resolve(&args) {
        Ok(spec) => spec,
        Err(error) => return error.into_reply().into(),
    };
    let call = Call { spec, args: &args };
    match spec.run {
        Run::Prefix(run) => match run(&call) {
            Ok((own, at)) => {
                let quorum = own.or(quorum);
                Box::pin(execute(coordinator, Asking { quorum, ..asking }, args[at..].to_vec())).await
            }
            Err(error) => error.into_reply().into(),
        },
        Run::Cluster(run) => match run(&call, &Session { db, ..Session::default() }) {
            Ok(asked) => {
                let task = Task { spec, args: args.iter().cloned().collect(), db, quorum, hops: 0 };
                coordinator.sweep(asked, task, wrote).await
            }
            Err(error) => error.into_reply().into(),
        },
        _ => {
            let task = Task { spec, args: args.into_iter().collect(), db, quorum, hops: 0 };
            coordinator.run(task).await
        }
    }
}

fn outcome_of(reply: &Reply) -> Outcome {
    match reply {
        Reply::Error(text) if text.starts_with(b"UNKNOWN") => Outcome::Unknown,
        Reply::Error(_) => Outcome::NotDone,
        _ => Outcome::Done,
    }
}
