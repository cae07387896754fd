//! A write: evaluate under a term, commit here, tell the other seats, answer at W.
//!
//! ```text
//! settled ──────────────▶ evaluate ─▶ tell ─▶ W have it ─▶ reply
//! not ─▶ claim ─▶ hear ──────┘          │
//!                    ▲                  └─▶ deposed, or a conflict: see reconsider
//!                    └──────────────────────────┘
//! ```

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::load::Entered;
use super::quorum::Need;
use super::read::Asking;
use super::route::Onwards;
use super::telling::{Gathered, Nodes, Telling, Under, counted};
use super::term::Hold;
use super::{Coordinator, Finished, Started, Task};
use crate::base::id::{NodeId, Region, Term};
use crate::causality::Dot;
use crate::cluster::ClusterView;
use crate::cluster::view::Seat;
use crate::commands::{Answer, Call, CommandError};
use crate::metrics;
use crate::model::{Delta, Draft};
use crate::peer::Request;
use crate::replica::Commit;
use crate::resp::Reply;

/// For how many patiences a write is looked after of which the client knows nothing.
const GIVEN_UP_FOR: u32 = 10;
/// How often to look whether dots may be given by now.
const DOTS_PAUSE: Duration = Duration::from_millis(10);

/// A command that may change rows.
pub(super) type WriteCommand = fn(&Call, &mut Draft) -> Answer;

/// The seats of a region.
pub(super) type Seats = SmallVec<[Seat; 4]>;

/// A write on its way.
pub(super) struct Writing {
    pub region: Region,
    pub task: Task,
    pub command: WriteCommand,
    pub need: Need,
    /// Until when it may take.
    pub deadline: Instant,
    /// Its client was told that the outcome is unknown.
    pub abandoned: bool,
    /// It counts as under way.
    _entered: Entered,
}

/// What was evaluated, committed here, and is being told.
pub(super) struct Attempt {
    pub reply: Reply,
    /// The last dot that it gave.
    pub last: Dot,
    /// It ended counters' runs, whose sums only its reply tells.
    pub took_sums: bool,
    pub telling: Telling,
}

impl Coordinator {
    pub(super) fn start_write(
        self: &Arc<Self>,
        view: &ClusterView,
        region: Region,
        task: Task,
        command: WriteCommand,
    ) -> Started {
        if view.is_sole(region.partition) {
            return self.write_alone(region, &task, command);
        }
        let (seats, owners) = (view.seats(region.partition), view.ring.owner_count(region.partition));
        let need = self.quorums.write(&task, owners);
        if let Err(why) = self.has_seats(view, &seats, region, need) {
            metrics::WRITE_QUORUM_FAILURES.increment();
            return Started::Done(Finished::not_done(why));
        }
        let entered = match self.load.admit(&task.args) {
            Ok(entered) => entered,
            Err(overloaded) => return Started::Done(overloaded),
        };
        let deadline = Instant::now() + self.patience_for(&task.args);
        let writing = Writing { region, task, command, need, deadline, abandoned: false, _entered: entered };
        let settled = self.settled(region.partition).filter(|_| self.may_give_dots());
        let Some(term) = settled else {
            let this = self.clone();
            return Started::Later(Box::pin(async move { this.write_after_asking(writing).await }));
        };
        let this = self.clone();
        match self.evaluate(&writing, &seats, term) {
            Ok((_, Some(attempt))) => Started::Later(Box::pin(async move { this.conclude(writing, attempt).await })),
            Ok((reply, None)) if need.strict => {
                Started::Later(Box::pin(async move { this.confirm(writing, reply, term).await }))
            }
            Ok((reply, None)) => Started::Done(self.finished(&writing, reply, None, [])),
            Err(error) => Started::Done(error.into_reply().into()),
        }
    }

    /// Whether enough replicas can be told, and this node may coordinate.
    fn has_seats(&self, view: &ClusterView, seats: &[Seat], region: Region, need: Need) -> Result<(), String> {
        if need.strict && !view.owns(region.partition) {
            return Err("no owner of this key is reachable, and only owners count".into());
        }
        match counted(seats, need) {
            live if live < need.replicas => Err(format!("{live} of {} replicas reachable", need.replicas)),
            _ => Ok(()),
        }
    }

    /// The only owner needs nobody.
    fn write_alone(&self, region: Region, task: &Task, command: WriteCommand) -> Started {
        let call = Call { spec: task.spec, args: &task.args };
        let nobody = None::<fn(Delta, bool)>;
        let reported = |finished| match task.quorum.report {
            true => self.reported(finished, region.partition, 1, [self.view.load().me]),
            false => finished,
        };
        let mut noted = Vec::new();
        let change = |draft: &mut Draft| self.change(&call, command, draft, &mut noted);
        match self.replica.update(region, self.env.now_ms(), change, nobody) {
            Ok((reply, None)) => Started::Done(reported(reply.into())),
            Ok((reply, Some(commit))) => {
                self.notify(region.db, noted);
                let finished = reported(Finished { reply, wrote: Some((region, commit.last)) });
                Started::Committed(finished, commit.ticket)
            }
            Err(error) => {
                let error: CommandError = error;
                Started::Done(error.into_reply().into())
            }
        }
    }

    /// A coordinator that is not settled may lack what a quorum has: it claims a term, asks, and only then evaluates.
    pub(super) async fn write_after_asking(self: Arc<Self>, writing: Writing) -> Finished {
        self.await_dots(writing.deadline).await;
        if let Onwards::Elsewhere = self.onwards(writing.region, &writing.task) {
            // Somebody else took over, or came back, and nothing is written yet.
            return self.forward(writing.region, writing.task).await;
        }
        let term = match timeout_at(writing.deadline, self.take_over(&writing, None, &[])).await {
            Ok(Ok(term)) => term,
            Ok(Err(why)) => return self.too_few(why),
            Err(_) => return self.too_few("the other replicas took too long".into()),
        };
        let seats = self.view.load().seats(writing.region.partition);
        match self.evaluate(&writing, &seats, term) {
            Ok((_, Some(attempt))) => self.conclude(writing, attempt).await,
            Ok((reply, None)) => self.finished(&writing, reply, None, []),
            Err(error) => error.into_reply().into(),
        }
    }

    /// Whether this node's actor is its own beyond doubt.
    fn may_give_dots(&self) -> bool {
        self.replica.is_proven() && !self.replica.is_doubted()
    }

    /// A node that has just started, or doubts its actor, soon has one that may give dots, or sees another that coordinates:
    /// a command waits for that rather than fail.
    async fn await_dots(&self, deadline: Instant) {
        let latest = deadline.checked_sub(self.patience / 4).unwrap_or(deadline);
        while !self.may_give_dots() && Instant::now() < latest {
            sleep(DOTS_PAUSE).await;
        }
    }

    fn too_few(&self, why: String) -> Finished {
        metrics::WRITE_QUORUM_FAILURES.increment();
        Finished::not_done(why)
    }

    /// Holds a term later than `deposed`, and hears of the rows from those who granted it, and from `also`; answers the
    /// term. Where stand-ins count, whoever can be reached will do.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        writing: &Writing,
        deposed: Option<Term>,
        also: &[NodeId],
    ) -> Result<Term, String> {
        if let Some(term) = deposed {
            self.adopt(writing.region.partition, term);
        }
        for tried in 0.. {
            match self.try_to_take_over(writing, also).await {
                Err(why) if Instant::now() + self.patience / 8 >= writing.deadline => return Err(why),
                // Whoever is live may answer the next time.
                Err(_) => self.step_back(tried + 2).await,
                term => return term,
            }
        }
        Err("another node coordinates this key as well".into())
    }

    async fn try_to_take_over(self: &Arc<Self>, writing: &Writing, also: &[NodeId]) -> Result<Term, String> {
        let (region, strict) = (writing.region, writing.need.strict);
        let others = self.others_to_hear(region.partition, self.quorums.write_of(region.db).into());
        let hold = self.hold(region.partition, others).await.ok_or("another node coordinates this key as well")?;
        let asking = self.to_hear(&hold, others, writing, also);
        if strict && asking.candidates.len() < asking.others {
            return Err(format!("{} of {} other replicas granted to coordinate", asking.candidates.len(), others));
        }
        let rows = self.rows_of(region, &writing.task);
        let heard = self.hear_rows(region, &rows, &asking).await.map_err(|fault| fault.to_string())?;
        if heard.len() >= asking.others {
            return Ok(hold.term);
        }
        // Others must be asked to grant it, next time.
        self.let_go(region.partition, hold.term);
        match strict {
            true => Err(format!("{} of {} other replicas answered", heard.len(), asking.others)),
            false => Ok(hold.term),
        }
    }

    /// Whom to hear before a write is evaluated: those who granted the term; where stand-ins count, and owners are too few,
    /// those that sit.
    fn to_hear(&self, hold: &Hold, others: usize, writing: &Writing, also: &[NodeId]) -> Asking {
        let mut candidates: Nodes = also.iter().copied().collect();
        let granted: Nodes = self.live_of(hold).filter(|node| !also.contains(node)).collect();
        let mut others = also.len() + others.saturating_sub(also.len());
        candidates.extend(granted);
        if !writing.need.strict {
            let view = self.view.load();
            let sitting = view.seats(writing.region.partition).into_iter().map(|seat| seat.node);
            let more: Nodes = sitting.filter(|node| *node != view.me && !candidates.contains(node)).collect();
            candidates.extend(more);
            others = others.min(candidates.len());
        }
        Asking { others, candidates, patience: self.patience / 2 }
    }

    /// Runs the command over a draft, commits it here and tells the other seats, in the order of changes.
    fn evaluate(&self, writing: &Writing, seats: &Seats, term: Term) -> Result<(Reply, Option<Attempt>), CommandError> {
        let call = Call { spec: writing.task.spec, args: &writing.task.args };
        let under = Under { term: Some(term), stand_ins_look: !writing.need.strict };
        let tell = |delta, conditional| self.tell_as_seated(seats, delta, under, conditional);
        let mut noted = Vec::new();
        let change = |draft: &mut Draft| self.change(&call, writing.command, draft, &mut noted);
        let (reply, commit) = self.replica.update(writing.region, self.env.now_ms(), change, Some(tell))?;
        if commit.is_some() {
            self.notify(writing.region.db, noted);
        }
        Ok(self.attempted(writing.region, seats, term, reply, commit))
    }

    /// What was evaluated, as an attempt.
    pub(super) fn attempted(
        &self,
        region: Region,
        seats: &Seats,
        term: Term,
        reply: Reply,
        commit: Option<Commit<Telling>>,
    ) -> (Reply, Option<Attempt>) {
        let Some(Commit { last, ticket, told: Some(mut telling), took_sums, .. }) = commit else {
            return (reply, None);
        };
        telling.commit_here(self, self.seat_here(seats), ticket);
        self.doubt_if_deposed(region, term, &mut telling);
        (reply.clone(), Some(Attempt { reply, last, took_sums, telling }))
    }

    /// To be asked after the commit: whoever was granted a later term here before that may have read without it.
    pub(super) fn doubt_if_deposed(&self, region: Region, term: Term, telling: &mut Telling) {
        let known = self.replica.term(region.partition);
        if known > term {
            telling.depose(known);
        }
    }

    /// Tells the other live owners of something that nobody waits for, and that needs no term.
    pub fn tell(&self, delta: Delta) {
        let peers = self.view.load().live_peers(delta.region.partition);
        let request = Request::Apply { delta, term: None, conditional: false };
        peers.iter().for_each(|peer| drop(self.env.call(*peer, &request)));
    }

    /// Tells the seats; a stand-in that coordinates keeps the hint itself.
    pub(super) fn tell_as_seated(&self, seats: &Seats, delta: Delta, under: Under, conditional: bool) -> Telling {
        if let Some(owner) = self.seat_here(seats).stands_in_for {
            // Without it, giving back the region delivers what it has.
            let _ = self.replica.keep_own(owner, &delta, self.env.now_ms());
        }
        self.tell_seats(seats, delta, under, conditional)
    }

    /// This node's seat.
    pub(super) fn seat_here(&self, seats: &[Seat]) -> Seat {
        let me = self.view.load().me;
        let none = Seat { node: me, stands_in_for: None, counted: false };
        seats.iter().copied().find(|seat| seat.node == me).unwrap_or(none)
    }

    /// Answers when enough replicas have the change. The others' acknowledgements are not waited for.
    pub(super) async fn conclude(self: Arc<Self>, writing: Writing, mut attempt: Attempt) -> Finished {
        let Need { replicas, strict } = writing.need;
        for tried in 0.. {
            match attempt.telling.gather(&self, replicas, strict, writing.deadline).await {
                Gathered::Enough => break,
                Gathered::Short => {
                    let have = attempt.telling.have(strict);
                    let why = format!("{have} of {replicas} replicas acknowledged it in time");
                    return self.give_up(writing, attempt, why);
                }
                Gathered::Doubted => {
                    let again = self.reconsider(&writing, &mut attempt, tried);
                    match timeout_at(writing.deadline, again).await {
                        Ok(Ok(())) => {}
                        Ok(Err(why)) => return self.give_up(writing, attempt, why),
                        Err(_) => {
                            return self.give_up(writing, attempt, "another node coordinates this key as well".into());
                        }
                    }
                }
            }
        }
        let Attempt { reply, last, telling, .. } = attempt;
        let stored: SmallVec<[Seat; 4]> = telling.stored().iter().copied().collect();
        self.tell_rest(telling);
        self.finished(&writing, reply, Some(last), stored)
    }

    /// Answers that the outcome is unknown. What was written goes on being told, and is withdrawn if it turns out that
    /// another coordinator wrote beside it: it would look as if both had been done.
    fn give_up(self: Arc<Self>, writing: Writing, attempt: Attempt, why: String) -> Finished {
        if writing.abandoned {
            return Finished::unknown(why);
        }
        metrics::UNKNOWN_OUTCOMES.increment();
        if let Some(entered) = self.behind.enter(attempt.telling.delta().weight()) {
            let deadline = Instant::now() + self.patience * GIVEN_UP_FOR;
            let writing = Writing { deadline, abandoned: true, _entered: entered, ..writing };
            self.env.clone().spawn(Box::pin(async move { drop(Box::pin(self.conclude(writing, attempt)).await) }));
        }
        Finished::unknown(why)
    }

    fn finished(
        &self,
        writing: &Writing,
        reply: Reply,
        last: Option<Dot>,
        stored: impl IntoIterator<Item = Seat>,
    ) -> Finished {
        let Writing { region, task, need, .. } = writing;
        let finished = Finished { reply, wrote: last.map(|last| (*region, last)) };
        if !task.quorum.report {
            return finished;
        }
        let mut nodes: Nodes = stored.into_iter().map(|seat| seat.node).collect();
        if nodes.is_empty() {
            // It changed nothing: this node alone decided so.
            nodes.push(self.view.load().me);
        }
        self.reported(finished, region.partition, need.replicas, nodes)
    }

    /// A write that changed nothing was decided by what is here: under strict quorums only if no later coordinator was
    /// granted a term meanwhile, which those who would have granted it say.
    async fn confirm(self: Arc<Self>, writing: Writing, reply: Reply, term: Term) -> Finished {
        let others = self.others_to_hear(writing.region.partition, self.quorums.write_of(writing.region.db).into());
        if self.still_holds(writing.region.partition, term, others).await {
            return self.finished(&writing, reply, None, []);
        }
        self.write_after_asking(writing).await
    }
}
