//! A write: evaluate, commit here, tell the other owners, answer at W.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::{Coordinator, Finished, Started, Task};
use crate::base::id::{NodeId, Region};
use crate::cluster::ClusterView;
use crate::commands::{Answer, Call, CommandError};
use crate::env::CallError;
use crate::metrics;
use crate::model::{Delta, Draft};
use crate::peer::{Request, Response};
use crate::replica::Commit;
use crate::resp::Reply;

/// A command that may change rows.
type WriteCommand = fn(&Call, &mut Draft) -> Answer;

/// What a peer will say to a delta.
type Telling = BoxFuture<'static, Result<Response, CallError>>;

/// Peers that were told, and what they will say.
type Told = SmallVec<[Telling; 2]>;

impl Coordinator {
    pub(super) fn start_write(
        self: &Arc<Self>,
        view: &ClusterView,
        region: Region,
        task: Task,
        command: WriteCommand,
    ) -> Started {
        let owners = view.ring.owner_count(region.partition);
        if owners == 1 {
            return self.write_alone(region, &task, command);
        }
        let need = self.quorums.write(&task, owners);
        let live = view.live_peers(region.partition).len() + 1;
        if live < need {
            metrics::WRITE_QUORUM_FAILURES.increment();
            return Started::Done(Finished::not_done(format!("{live} of {need} replicas reachable")));
        }
        if self.is_settled(region.partition) {
            return match self.evaluate(region, &task, command) {
                Ok((reply, None)) => Started::Done(reply.into()),
                Ok((reply, Some(commit))) => {
                    let (this, patience) = (self.clone(), self.patience_for(&task.args));
                    let acknowledged = async move { this.acknowledge(region, reply, commit, need, patience).await };
                    Started::Later(Box::pin(acknowledged))
                }
                Err(error) => Started::Done(error.into_reply().into()),
            };
        }
        let this = self.clone();
        Started::Later(Box::pin(async move { this.write_after_asking(region, task, command, need).await }))
    }

    /// The only owner needs nobody.
    fn write_alone(&self, region: Region, task: &Task, command: WriteCommand) -> Started {
        match self.evaluate(region, task, command) {
            Ok((reply, None)) => Started::Done(reply.into()),
            Ok((reply, Some(commit))) => {
                Started::Committed(Finished { reply, wrote: Some((region, commit.last)) }, commit.ticket)
            }
            Err(error) => Started::Done(error.into_reply().into()),
        }
    }

    /// A coordinator that took over may lack what a quorum has: it asks before it evaluates.
    async fn write_after_asking(
        self: Arc<Self>,
        region: Region,
        task: Task,
        command: WriteCommand,
        need: usize,
    ) -> Finished {
        let others = self.others_to_hear(region.partition, need);
        if let Err(short) = self.hear(region, &task, others).await {
            return Finished::not_done(short);
        }
        match self.evaluate(region, &task, command) {
            Ok((reply, None)) => reply.into(),
            Ok((reply, Some(commit))) => {
                self.acknowledge(region, reply, commit, need, self.patience_for(&task.args)).await
            }
            Err(error) => error.into_reply().into(),
        }
    }

    /// Runs the command over a draft, commits it here and tells the other live owners, in the order of changes.
    fn evaluate(
        &self,
        region: Region,
        task: &Task,
        command: WriteCommand,
    ) -> Result<(Reply, Option<Commit<Told>>), CommandError> {
        let call = Call { spec: task.spec, args: &task.args };
        let others = self.view.load().ring.owner_count(region.partition) > 1;
        let tell = others.then_some(|delta, conditional| self.tell(delta, conditional));
        self.replica.update(region, self.env.now_ms(), |draft| command(&call, draft), tell)
    }

    /// Sends a delta to the other live owners of its region.
    pub fn tell(&self, delta: Delta, conditional: bool) -> Told {
        let peers = self.view.load().live_peers(delta.region.partition);
        let request = Request::Apply { delta, term: None, conditional };
        peers.iter().map(|peer: &NodeId| self.env.call(*peer, &request)).collect()
    }

    /// Answers when `need` replicas, this one included, have the change. The others' acknowledgements are not waited for.
    async fn acknowledge(
        &self,
        region: Region,
        reply: Reply,
        commit: Commit<Told>,
        need: usize,
        patience: Duration,
    ) -> Finished {
        let Commit { last, ticket, told, .. } = commit;
        let acks: FuturesUnordered<BoxFuture<'_, bool>> = told
            .into_iter()
            .flatten()
            .map(|telling| -> BoxFuture<'_, bool> {
                Box::pin(async move { matches!(telling.await, Ok(Response::Done)) })
            })
            .collect();
        acks.push(Box::pin(async move { self.replica.committer().wait(ticket).await.is_ok() }));
        match self.enough(acks, need, patience).await {
            Ok(()) => Finished { reply, wrote: Some((region, last)) },
            Err(have) => {
                metrics::UNKNOWN_OUTCOMES.increment();
                Finished::unknown(format!("{have} of {need} replicas acknowledged it in time"))
            }
        }
    }

    /// Waits for `need` successes; with too few, or too late, says how many there were.
    pub(super) async fn enough(
        &self,
        mut acks: FuturesUnordered<BoxFuture<'_, bool>>,
        need: usize,
        patience: Duration,
    ) -> Result<(), usize> {
        let deadline = Instant::now() + patience;
        let mut have = 0;
        while have < need {
            match timeout_at(deadline, acks.next()).await {
                Ok(Some(acknowledged)) => have += usize::from(acknowledged),
                Ok(None) | Err(_) => return Err(have),
            }
        }
        Ok(())
    }
}
