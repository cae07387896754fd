//! A read: ask R−1 other owners what this replica lacks, merge, evaluate, and repair whoever was behind.
//!
//! One round trip: the question carries this replica's dots of the row, which for a head row are its digest; the answer
//! says what is missing here, what of it is gone, and what the peer has not seen.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, timeout_at};

use super::{Coordinator, Finished, Started, Task};
use crate::base::id::{NodeId, Region};
use crate::causality::RowAnswer;
use crate::cluster::ClusterView;
use crate::commands::{Answer, Call};
use crate::metrics;
use crate::model::{Delta, Fault, RowKey, View};
use crate::peer::{Request, Response};

/// A command that changes nothing.
type ReadCommand = fn(&Call, &mut View) -> Answer;

/// What one peer answered about the rows it was asked about.
type Heard = (NodeId, Option<Vec<RowAnswer>>);

impl Coordinator {
    pub(super) fn start_read(
        self: &Arc<Self>,
        view: &ClusterView,
        region: Region,
        task: Task,
        command: ReadCommand,
    ) -> Started {
        let owners = view.ring.owner_count(region.partition);
        let need = self.quorums.read(&task, owners);
        if need <= 1 {
            return Started::Done(self.read_here(region, &task, command));
        }
        let this = self.clone();
        Started::Later(Box::pin(async move {
            match this.hear(region, &task, need - 1).await {
                Ok(()) => this.read_here(region, &task, command),
                Err(short) => {
                    metrics::READ_QUORUM_FAILURES.increment();
                    Finished::not_done(short)
                }
            }
        }))
    }

    fn read_here(&self, region: Region, task: &Task, command: ReadCommand) -> Finished {
        let call = Call { spec: task.spec, args: &task.args };
        let answer = self.replica.view(region, self.env.now_ms(), |view| command(&call, view));
        answer.unwrap_or_else(|error| error.into_reply()).into()
    }

    /// Merges what `others` other owners know of the command's keys. With fewer answers than that, says so.
    pub(super) async fn hear(&self, region: Region, task: &Task, others: usize) -> Result<(), String> {
        let rows: Vec<Bytes> = self.keys_of(task).map(|key| RowKey::head(region.db, &key)).collect();
        self.hear_rows(region, &rows, others).await
    }

    /// Merges what `others` other owners know of some rows.
    pub(super) async fn hear_rows(&self, region: Region, rows: &[Bytes], others: usize) -> Result<(), String> {
        if others == 0 {
            return Ok(());
        }
        let mut peers = self.view.load().live_peers(region.partition).into_iter();
        let asked: FuturesUnordered<BoxFuture<'_, Heard>> = FuturesUnordered::new();
        peers.by_ref().take(others).for_each(|peer| asked.push(self.ask(peer, region, rows)));
        let mut asked = asked;
        let deadline = Instant::now() + self.patience;
        let mut heard = 0;
        while heard < others {
            match timeout_at(deadline, asked.next()).await {
                Ok(Some((peer, Some(answers)))) => {
                    self.merge_answers(peer, region, rows, answers).map_err(|fault| fault.to_string())?;
                    heard += 1;
                }
                // One that does not answer is replaced by the next.
                Ok(Some((_, None))) => {
                    peers.next().into_iter().for_each(|peer| asked.push(self.ask(peer, region, rows)))
                }
                Ok(None) | Err(_) => return Err(format!("{} of {} replicas answered", heard + 1, others + 1)),
            }
        }
        Ok(())
    }

    fn ask<'a>(&'a self, peer: NodeId, region: Region, rows: &'a [Bytes]) -> BoxFuture<'a, Heard> {
        let calls: Vec<_> = rows
            .iter()
            .map(|row| {
                let dots = self.replica.cell(region, row).map(|cell| cell.dots().collect()).unwrap_or_default();
                self.env.call(peer, &Request::Row { region, row: row.clone(), dots })
            })
            .collect();
        Box::pin(async move {
            let mut answers = Vec::with_capacity(calls.len());
            for call in calls {
                match call.await {
                    Ok(Response::Row(answer)) => answers.push(answer),
                    _ => return (peer, None),
                }
            }
            (peer, Some(answers))
        })
    }

    /// Takes over what a peer knows better, and sends it what it lacks.
    fn merge_answers(
        &self,
        peer: NodeId,
        region: Region,
        rows: &[Bytes],
        answers: Vec<RowAnswer>,
    ) -> Result<(), Fault> {
        let mut repair = Delta::new(region);
        for (row, answer) in rows.iter().zip(answers) {
            if answer.change.is_empty() && answer.unseen.is_empty() {
                continue;
            }
            metrics::READ_REPAIRS.increment();
            let delta = Delta::of_row(region, row.clone(), answer.change.clone());
            self.replica.apply(&delta, self.env.now_ms(), false)?;
            let change = self.replica.reply(region, row, &answer)?;
            if !change.is_empty() {
                repair.rows.push((row.clone(), change));
            }
        }
        if !repair.is_empty() {
            // Nobody waits for a repair: what it does not reach, a sync will.
            drop(self.env.call(peer, &Request::Apply { delta: repair, term: None, conditional: false }));
        }
        Ok(())
    }
}
