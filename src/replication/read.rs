//! A read: ask other replicas what this one lacks until R have answered, merge, evaluate, and repair whoever was behind.
//!
//! One round trip: the question carries this replica's dots of the row, which for a head row are its digest; the answer
//! says what is missing here, what of it is gone, and what the peer has not seen. Who is slow is not waited for: the next
//! replica is asked as well.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use smallvec::SmallVec;
use tokio::time::{Duration, Instant, timeout_at};

use super::quorum::Need;
use super::telling::{Nodes, counts};
use super::{Coordinator, Finished, Started, Task, telling};
use crate::base::id::{NodeId, Region};
use crate::causality::RowAnswer;
use crate::cluster::ClusterView;
use crate::cluster::view::Seat;
use crate::commands::{Answer, Call};
use crate::metrics;
use crate::model::{Delta, Fault, RowKey, View};
use crate::peer::{Request, Response};

/// Most rows of a collection that are compared for a read where this node holds everything acknowledged anyway: larger
/// ones are left to syncs.
const LEVELLED: u64 = 16_384;

/// A command that changes nothing.
type ReadCommand = fn(&Call, &mut View) -> Answer;

/// What one peer answered about the rows it was asked about; nothing if it did not, or does not count.
type Heard = (NodeId, Option<Vec<RowAnswer>>);

/// A question to some peers of which enough must answer.
struct Question<'a> {
    region: Region,
    rows: &'a [Bytes],
    asked: FuturesUnordered<BoxFuture<'a, Heard>>,
    /// Who has not answered, and when it was asked.
    pending: SmallVec<[(NodeId, Instant); 4]>,
    /// Whom to ask in place of those who fail or are slow.
    left: std::slice::Iter<'a, NodeId>,
    /// Who was asked because others were slow.
    hedges: Nodes,
}

/// Whom to ask about rows.
pub(super) struct Asking {
    /// How many others must answer.
    pub others: usize,
    /// Whom to ask, in order: the first `others` at once, the rest in place of those who fail or are slow.
    pub candidates: Nodes,
    /// How long to wait in all.
    pub patience: Duration,
    /// Whoever was behind counts only when it has what it lacked.
    pub repairs: bool,
}

/// What came of a peer's answers.
struct Merged {
    /// What it lacked, on its way to it.
    repair: Option<telling::Call>,
    /// Head rows of keys of which other rows differ, as their digests say.
    apart: Vec<Bytes>,
}

impl Coordinator {
    pub(super) fn start_read(
        self: &Arc<Self>,
        view: &ClusterView,
        region: Region,
        task: Task,
        command: ReadCommand,
    ) -> Started {
        let need = self.quorums.read(&task, view.ring.owner_count(region.partition));
        let (here, asking) = self.to_read(view, region, need);
        if asking.others == 0 {
            let finished = self.read_here(region, &task, command);
            let report = task.quorum.report.then_some(view.me);
            return Started::Done(match report {
                Some(me) => self.reported(finished, region.partition, need.replicas, [me]),
                None => finished,
            });
        }
        let entered = match self.load.admit(&task.args) {
            Ok(entered) => entered,
            Err(overloaded) => return Started::Done(overloaded),
        };
        let this = self.clone();
        Started::Later(Box::pin(async move {
            let _entered = entered;
            let rows = this.rows_of(region, &task);
            match this.hear_rows(region, &rows, &asking).await {
                Ok(heard) if heard.len() >= asking.others => {
                    let finished = this.read_here(region, &task, command);
                    if !task.quorum.report {
                        return finished;
                    }
                    this.reported(finished, region.partition, need.replicas, here.into_iter().chain(heard))
                }
                Ok(heard) => {
                    metrics::READ_QUORUM_FAILURES.increment();
                    let have = need.replicas - asking.others + heard.len();
                    Finished::not_done(format!("{have} of {} replicas answered", need.replicas))
                }
                Err(fault) => Finished::not_done(fault),
            }
        }))
    }

    /// Whether this node counts for a read, and whom to ask besides: owners first, then stand-ins.
    fn to_read(&self, view: &ClusterView, region: Region, need: Need) -> (Option<NodeId>, Asking) {
        let seats = view.seats(region.partition);
        // Nobody else is there to be asked: what this node has in its store is all there is, also when that has failed.
        let counts_here = |seat: &Seat| counts(seat, need.strict) || view.is_alone();
        let here = seats.iter().find(|seat| seat.node == view.me && counts_here(seat)).map(|_| view.me);
        let others = seats.iter().filter(|seat| seat.node != view.me && counts(seat, need.strict));
        let candidates = others.map(|seat| seat.node).collect();
        let asking = Asking {
            others: need.replicas - usize::from(here.is_some()),
            candidates,
            patience: self.patience,
            repairs: false,
        };
        (here, asking)
    }

    fn read_here(&self, region: Region, task: &Task, command: ReadCommand) -> Finished {
        let call = Call { spec: task.spec, args: &task.args };
        let answer = self.replica.view(region, self.env.now_ms(), |view| command(&call, view));
        answer.unwrap_or_else(|error| error.into_reply()).into()
    }

    /// The rows of a command's keys.
    pub(super) fn rows_of(&self, region: Region, task: &Task) -> Vec<Bytes> {
        self.keys_of(task).map(|key| RowKey::head(region.db, key)).collect()
    }

    /// Merges what others know of some rows; answers who did. Fewer than were asked for when nobody is left to ask.
    pub(super) async fn hear_rows(
        self: &Arc<Self>,
        region: Region,
        rows: &[Bytes],
        asking: &Asking,
    ) -> Result<Nodes, Fault> {
        let mut heard = Nodes::new();
        if asking.others == 0 || rows.is_empty() {
            return Ok(heard);
        }
        let mut question = self.question(region, rows, asking);
        let late = question.pending.iter().map(|(peer, _)| self.paces.hedge_after(*peer)).max().unwrap_or_default();
        let now = Instant::now();
        let (deadline, mut late_at) = (now + asking.patience, now + late);
        while heard.len() < asking.others {
            match timeout_at(late_at.min(deadline), question.asked.next()).await {
                Ok(Some((peer, Some(answers)))) => {
                    self.answered(&mut question, peer);
                    let Merged { repair, apart } = self.merge_answers(peer, region, rows, answers)?;
                    match (timeout_at(deadline, self.level(peer, region, &apart)).await, repair) {
                        (Ok(Ok(())), Some(repair)) if asking.repairs => question.asked.push(Box::pin(async move {
                            let repaired = matches!(repair.await, Ok(Response::Done));
                            (peer, repaired.then(Vec::new))
                        })),
                        // Nobody else waits for a repair: what it does not reach, a sync will.
                        (Ok(Ok(())), _) => heard.push(peer),
                        _ => drop(self.ask_next(&mut question)),
                    }
                }
                // One that does not answer is replaced by the next.
                Ok(Some((peer, None))) => {
                    question.pending.retain(|(pending, _)| *pending != peer);
                    self.ask_next(&mut question);
                }
                Err(_) if late_at < deadline => {
                    late_at = deadline;
                    self.hedge(&mut question);
                }
                Ok(None) | Err(_) => break,
            }
        }
        self.note_the_slow(&question, &heard);
        Ok(heard)
    }

    fn question<'a>(&'a self, region: Region, rows: &'a [Bytes], asking: &'a Asking) -> Question<'a> {
        let (asked, left) = (FuturesUnordered::new(), asking.candidates.iter());
        let (pending, hedges) = (SmallVec::new(), Nodes::new());
        let mut question = Question { region, rows, asked, pending, left, hedges };
        self.paces.asked();
        for _ in 0..asking.others {
            self.ask_next(&mut question);
        }
        question
    }

    /// Asks the next of the candidates; answers who that was.
    fn ask_next<'a>(&'a self, question: &mut Question<'a>) -> Option<NodeId> {
        let peer = *question.left.next()?;
        question.pending.push((peer, Instant::now()));
        question.asked.push(self.ask(peer, question.region, question.rows));
        Some(peer)
    }

    /// Asks somebody else for each that is slow, within bounds.
    fn hedge<'a>(&'a self, question: &mut Question<'a>) {
        for _ in 0..question.pending.len() {
            if question.left.len() == 0 || !self.paces.may_hedge() {
                return;
            }
            metrics::HEDGED_READS.increment();
            let peer = self.ask_next(question);
            question.hedges.extend(peer);
        }
    }

    fn answered(&self, question: &mut Question, peer: NodeId) {
        if let Some(at) = question.pending.iter().position(|(pending, _)| *pending == peer) {
            self.paces.note(peer, question.pending.remove(at).1.elapsed());
        }
    }

    /// Whoever has not answered took at least so long; and whoever was asked in its place was worth it.
    fn note_the_slow(&self, question: &Question, heard: &Nodes) {
        if question.pending.iter().any(|(peer, _)| !question.hedges.contains(peer)) {
            let won = heard.iter().filter(|peer| question.hedges.contains(peer)).count();
            metrics::HEDGES_WON.add(won as u64);
        }
        question.pending.iter().for_each(|(peer, asked)| self.paces.note(*peer, asked.elapsed()));
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

    /// Takes over what a peer knows better, and sends it what it lacks. A stand-in is not repaired: it holds what it was
    /// given to keep.
    fn merge_answers(
        &self,
        peer: NodeId,
        region: Region,
        rows: &[Bytes],
        answers: Vec<RowAnswer>,
    ) -> Result<Merged, Fault> {
        let (mut repair, mut apart) = (Delta::new(region), Vec::new());
        for (row, answer) in rows.iter().zip(&answers) {
            if answer.change.is_empty() && answer.unseen.is_empty() {
                continue;
            }
            metrics::repaired(metrics::Cause::Read, 1);
            let delta = Delta::of_row(region, row.clone(), answer.change.clone());
            self.replica.apply(&delta, self.env.now_ms(), false)?;
            let change = self.replica.reply(region, row, answer)?;
            if !change.is_empty() {
                repair.rows.push((row.clone(), change));
            }
        }
        let is_sent = !repair.is_empty() && self.view.load().ring.owners(region.partition).contains(&peer);
        let request = Request::Apply { delta: repair, term: None, conditional: false };
        let repair = is_sent.then(|| self.env.call(peer, &request));
        for (row, answer) in rows.iter().zip(&answers) {
            let local = self.replica.cell(region, row)?.local().cloned();
            let (digest, size) =
                local.map_or((0, 0), |local| (local.digest(), local.parts.iter().map(|p| p.rows).sum()));
            if digest != answer.digest && (size <= LEVELLED || !self.is_settled(region.partition)) {
                apart.push(row.clone());
            }
        }
        Ok(Merged { repair, apart })
    }
}
