//! Where a command goes: evaluated here, or forwarded as it came.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout};

use super::{Coordinator, Finished, Started, Task};
use crate::base::id::{NodeId, Region};
use crate::base::limits::MAX_KEY_BYTES;
use crate::cluster::ClusterView;
use crate::commands::spec::{Flags, Run};
use crate::env::CallError;
use crate::metrics;
use crate::peer::{Request, Response};
use crate::resp::Reply;

/// How often a command may be forwarded: by the node that the client talks to, and by one that knows better who
/// coordinates. Two that take each other for the coordinator so end in two steps.
pub const MAX_HOPS: u8 = 2;

impl Coordinator {
    /// Starts a command of which the arity has been checked and which reads or writes keys.
    pub fn start(self: &Arc<Self>, task: Task) -> Started {
        match self.regions_of(&task) {
            Regions::TooLong => {
                Started::Done(Finished::reply(Reply::error(format!("ERR key is longer than {MAX_KEY_BYTES} bytes"))))
            }
            Regions::One(region) => self.start_in(region, task),
            Regions::Many(regions) => self.start_spread(task, &regions),
        }
    }

    /// Runs a command to its end.
    pub async fn run(self: &Arc<Self>, task: Task) -> Finished {
        let began = Instant::now();
        let finished = match self.start(task) {
            Started::Done(finished) => finished,
            Started::Committed(finished, ticket) => self.committed(finished, ticket).await,
            Started::Later(later) => later.await,
        };
        self.note(began.elapsed(), &finished.reply);
        finished
    }

    /// A command of a client took so long: background work goes by it. What failed says nothing of that.
    pub fn note(&self, took: Duration, reply: &Reply) {
        if !reply.is_error() {
            self.admission.note(took);
        }
    }

    /// Waits until the store has what a command wrote.
    pub async fn committed(&self, finished: Finished, ticket: crate::storage::Ticket) -> Finished {
        match self.replica.committer().wait(ticket).await {
            Ok(()) => finished,
            Err(error) => Finished::unknown(error),
        }
    }

    /// Starts a command whose keys all lie in `region` and are not too long.
    pub(super) fn start_in(self: &Arc<Self>, region: Region, task: Task) -> Started {
        let view = self.view.load();
        match self.onwards_in(&view, region, &task) {
            Onwards::Here => {}
            Onwards::Elsewhere => {
                let entered = match self.load.admit(&task.args) {
                    Ok(entered) => entered,
                    Err(overloaded) => return Started::Done(overloaded),
                };
                let this = self.clone();
                return Started::Later(Box::pin(async move {
                    let _entered = entered;
                    this.forward(region, task).await
                }));
            }
            Onwards::Nowhere(why) => return Started::Done(Finished::not_done(why)),
        }
        match task.spec.run {
            Run::Read(read) => self.start_read(&view, region, task, read),
            Run::Write(write) => self.start_write(&view, region, task, write),
            _ => Started::Done(Finished::not_done("this command concerns no key")),
        }
    }

    /// Where a command goes from here.
    pub(super) fn onwards(&self, region: Region, task: &Task) -> Onwards {
        self.onwards_in(&self.view.load(), region, task)
    }

    fn onwards_in(&self, view: &ClusterView, region: Region, task: &Task) -> Onwards {
        let Some(coordinator) = view.coordinator(region.partition) else {
            return Onwards::Nowhere("no replica of this key is reachable");
        };
        if coordinator == view.me {
            return Onwards::Here;
        }
        // Whoever sent it here does not see that node, or sees another one first: this node may know better.
        let ready = view.nodes.get(&coordinator).is_some_and(|standing| standing.health.ready);
        if task.hops == 0 || (task.hops < MAX_HOPS && ready) {
            return Onwards::Elsewhere;
        }
        match view.seats(region.partition).iter().any(|seat| seat.node == view.me) {
            true => Onwards::Here,
            false => Onwards::Nowhere("this node holds no replica of this key"),
        }
    }

    /// Sends a command to its coordinator. One that cannot be reached has done nothing: the next owner is asked, and if
    /// stand-ins count the next stand-in. One that does not answer may have done it: a write is never run twice by us.
    pub(super) async fn forward(self: Arc<Self>, region: Region, task: Task) -> Finished {
        metrics::FORWARDS.increment();
        let hops = task.hops.saturating_add(1);
        if hops > 1 {
            metrics::SECOND_HOPS.increment();
        }
        let request = Request::Execute { hops, db: task.db, quorum: task.quorum, args: task.args.to_vec() };
        let writes = task.spec.flags.has(Flags::WRITE);
        // As long as it takes to claim, to hear and to be acknowledged there.
        let patience = self.patience + self.patience_for(&task.args);
        let (mut tried, mut refused): (SmallVec<[NodeId; 4]>, _) = (SmallVec::new(), None);
        while let Some(node) = self.next_to_try(region, &task, &tried) {
            if node == self.view.load().me {
                return Box::pin(self.run(Task { hops: MAX_HOPS, ..task })).await;
            }
            tried.push(node);
            match timeout(patience, self.env.call(node, &request)).await {
                Ok(Ok(Response::Reply { reply, wrote })) => return Finished { reply, wrote },
                // It has done nothing, and another may.
                Ok(Ok(Response::Refused(why))) => refused = Some(why),
                Ok(Err(CallError::NotSent)) => {}
                Ok(Ok(_)) if writes => return Finished::unknown("the coordinator answered something else"),
                Err(_) | Ok(Err(CallError::NoAnswer)) if writes => {
                    metrics::UNKNOWN_OUTCOMES.increment();
                    return Finished::unknown("the coordinator did not answer");
                }
                _ => {}
            }
        }
        Finished::not_done(refused.as_deref().unwrap_or("no replica of this key is reachable"))
    }

    /// The coordinator of a region, or the next live one of its preference list after those that were tried.
    fn next_to_try(&self, region: Region, task: &Task, tried: &[NodeId]) -> Option<NodeId> {
        let view = self.view.load();
        let untried = |node: &NodeId| !tried.contains(node);
        let first = view.coordinator(region.partition).filter(untried);
        first.or_else(|| {
            let (owners, strict) = (view.ring.owners(region.partition), self.is_strict(task));
            let list = if strict { owners } else { view.ring.preference(region.partition) };
            list.iter().copied().find(|node| view.is_live(*node) && untried(node))
        })
    }

    fn is_strict(&self, task: &Task) -> bool {
        task.quorum.strict.unwrap_or_else(|| self.quorums.is_strict(task.db))
    }

    fn regions_of(&self, task: &Task) -> Regions {
        let single = task.spec.keys.single(&task.args);
        if let Some(key) = single {
            return match key.len() <= MAX_KEY_BYTES {
                true => Regions::One(self.region_of(task.db, key)),
                false => Regions::TooLong,
            };
        }
        let mut regions = SmallVec::new();
        for key in self.keys_of(task) {
            if key.len() > MAX_KEY_BYTES {
                return Regions::TooLong;
            }
            regions.push(self.region_of(task.db, key));
        }
        match regions.split_first() {
            Some((first, others)) if others.iter().all(|region| region == first) => Regions::One(*first),
            _ => Regions::Many(regions),
        }
    }

    /// Keys of a command, in order.
    pub(super) fn keys_of<'t>(&self, task: &'t Task) -> impl Iterator<Item = &'t Bytes> + use<'t> {
        task.spec.keys.positions(&task.args).into_iter().filter_map(|at| task.args.get(at))
    }
}

/// Where a command goes.
pub(super) enum Onwards {
    /// It is run here.
    Here,
    /// It is sent to whoever coordinates.
    Elsewhere,
    /// It cannot be run, and why.
    Nowhere(&'static str),
}

/// The region of each key of a command.
type KeyRegions = SmallVec<[Region; 16]>;

/// Which regions the keys of a command lie in.
enum Regions {
    One(Region),
    /// Of each key in turn.
    Many(KeyRegions),
    TooLong,
}
