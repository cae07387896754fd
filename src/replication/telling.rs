//! Telling the seats of a region what changed: owners are sent the delta, stand-ins are sent it to keep, and whoever fails
//! or is slow is replaced by the next stand-in of the preference list (paper §4.6).
//!
//! ```text
//! told at once ─▶ answers ─▶ enough nodes that count have it: answered; the rest goes on behind the reply
//!                    ├─▶ failed, refused, or late: the next stand-in keeps it for that owner
//!                    └─▶ deposed, or a conflict: the coordinator must think again
//! ```

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::Coordinator;
use super::quorum::Need;
use crate::base::id::{Db, NodeId, Partition, Region, Term};
use crate::cluster::view::Seat;
use crate::env::CallError;
use crate::metrics;
use crate::model::Delta;
use crate::peer::{Request, Response};
use crate::storage::Ticket;

/// Nodes, few.
pub(super) type Nodes = SmallVec<[NodeId; 4]>;

/// What a seat said.
type Said = (Seat, Result<Response, CallError>);

/// How a delta is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Under {
    /// The coordinator's term, if it holds one.
    pub term: Option<Term>,
    /// Whether stand-ins are to look for what a conditional command had not seen. They hold what they were given to keep,
    /// which often was replaced since: where they do not count nobody asks them, and where they do they are asked once.
    pub stand_ins_look: bool,
}

/// A call on its way.
pub(super) type Call = BoxFuture<'static, Result<Response, CallError>>;

/// A delta that is being told.
pub(super) struct Telling {
    delta: Delta,
    conditional: bool,
    stand_ins_look: bool,
    asked: FuturesUnordered<BoxFuture<'static, Said>>,
    /// Who has not answered yet.
    pending: SmallVec<[Seat; 4]>,
    /// Who was told, or has it: none is told twice.
    used: Nodes,
    /// Who was replaced: once is enough.
    replaced: Nodes,
    /// Who has it.
    stored: SmallVec<[Seat; 4]>,
    began: Instant,
    /// When those that have not answered are late.
    late_at: Instant,
    hurried: bool,
    /// The latest term that somebody named.
    deposed: Option<Term>,
    /// Who has versions that the delta did not see.
    conflicts: Nodes,
}

/// What telling came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gathered {
    /// Enough have it.
    Enough,
    /// Somebody knows better.
    Doubted,
    /// Too few have it, and nobody is left to ask, or no time.
    Short,
}

impl Coordinator {
    /// Tells every seat but this node's own, in the order in which they sit. The calls leave before this returns.
    pub(super) fn tell_seats(&self, seats: &[Seat], delta: Delta, under: Under, conditional: bool) -> Telling {
        let (me, now) = (self.view.load().me, Instant::now());
        let request = Request::Apply { delta, term: under.term, conditional };
        let owners = seats.iter().filter(|seat| seat.node != me && seat.stands_in_for.is_none());
        let calls: SmallVec<[(Seat, _); 4]> = owners.map(|seat| (*seat, self.env.call(seat.node, &request))).collect();
        let mut telling = Telling {
            delta: told_by(request),
            conditional,
            stand_ins_look: conditional && under.stand_ins_look,
            asked: FuturesUnordered::new(),
            pending: SmallVec::new(),
            used: SmallVec::new(),
            replaced: SmallVec::new(),
            stored: SmallVec::new(),
            began: now,
            late_at: now,
            hurried: false,
            deposed: None,
            conflicts: SmallVec::new(),
        };
        telling.used.push(me);
        calls.into_iter().for_each(|(seat, call)| telling.await_answer(seat, call));
        for seat in seats.iter().filter(|seat| seat.node != me) {
            if let Some(owner) = seat.stands_in_for {
                telling.keep(self, seat.node, owner);
            }
        }
        let late = telling.pending.iter().map(|seat| self.paces.give_up_after(seat.node)).max();
        // There must be time left for who is told instead.
        telling.late_at = now + late.unwrap_or(Duration::ZERO).min(self.patience / 2);
        telling
    }

    /// Goes on telling those that have not answered when the reply was given, so that whoever fails still has a stand-in.
    pub(super) fn tell_rest(self: &Arc<Self>, mut telling: Telling) {
        if telling.pending.is_empty() {
            return;
        }
        // What is dropped here, a sync heals.
        let Some(entered) = self.behind.enter(telling.delta.weight()) else { return };
        let this = self.clone();
        self.env.spawn(Box::pin(async move {
            let deadline = telling.began + this.patience;
            // Nobody waits any more: there is time to see who only was slow.
            telling.hurried = true;
            while let Gathered::Doubted = telling.gather(&this, usize::MAX, false, deadline).await {
                telling.acquit();
            }
            telling.hurry(&this);
            drop(entered);
        }));
    }
}

impl Telling {
    /// This node's own commit, which counts as what its seat does.
    pub(super) fn commit_here(&mut self, coordinator: &Coordinator, seat: Seat, ticket: Ticket) {
        let committer = coordinator.replica.committer().clone();
        self.pending.push(seat);
        self.asked.push(Box::pin(async move {
            let stored = committer.wait(ticket).await;
            (seat, stored.map(|()| Response::Done).map_err(|_| CallError::NoAnswer))
        }));
    }

    /// Waits until `need` replicas that count have it, or somebody knows better.
    pub(super) async fn gather(
        &mut self,
        coordinator: &Coordinator,
        need: usize,
        strict: bool,
        deadline: Instant,
    ) -> Gathered {
        loop {
            if self.deposed.is_some() || !self.conflicts.is_empty() {
                return Gathered::Doubted;
            }
            if self.have(strict) >= need {
                return Gathered::Enough;
            }
            let until = if self.hurried { deadline } else { self.late_at.min(deadline) };
            match timeout_at(until, self.asked.next()).await {
                Ok(Some(said)) => self.take(coordinator, said),
                Ok(None) => return Gathered::Short,
                Err(_) if until < deadline => self.hurry(coordinator),
                Err(_) => return Gathered::Short,
            }
        }
    }

    /// How many have it, and count.
    pub(super) fn have(&self, strict: bool) -> usize {
        self.stored.iter().filter(|seat| counts(seat, strict)).count()
    }

    /// Who has it.
    pub(super) fn stored(&self) -> &[Seat] {
        &self.stored
    }

    /// What is told.
    pub(super) fn delta(&self) -> &Delta {
        &self.delta
    }

    /// Whether its command looked before it wrote.
    pub(super) fn is_conditional(&self) -> bool {
        self.conditional
    }

    /// The latest term that somebody named.
    pub(super) fn deposed(&self) -> Option<Term> {
        self.deposed
    }

    /// A later term was granted here.
    pub(super) fn depose(&mut self, term: Term) {
        self.deposed = self.deposed.max(Some(term));
    }

    /// Who has versions that the delta did not see.
    pub(super) fn conflicts(&self) -> &[NodeId] {
        &self.conflicts
    }

    /// Goes on although somebody knew better.
    fn acquit(&mut self) {
        self.deposed = None;
        self.conflicts.clear();
    }

    /// Has a stand-in keep it for an owner.
    fn keep(&mut self, coordinator: &Coordinator, node: NodeId, owner: NodeId) {
        metrics::HINTS_SENT.increment();
        let request = Request::Keep { owner, delta: self.delta.clone(), conditional: self.stand_ins_look };
        let call = coordinator.env.call(node, &request);
        self.await_answer(Seat { node, stands_in_for: Some(owner), counted: true }, call);
    }

    fn await_answer(&mut self, seat: Seat, call: Call) {
        self.used.push(seat.node);
        self.pending.push(seat);
        self.asked.push(Box::pin(async move { (seat, call.await) }));
    }

    fn take(&mut self, coordinator: &Coordinator, (seat, said): Said) {
        self.pending.retain(|pending| pending.node != seat.node);
        let me = coordinator.view.load().me;
        if said.is_ok() && seat.node != me {
            coordinator.paces.note(seat.node, self.began.elapsed());
        }
        match said {
            Ok(Response::Done) => self.stored.push(seat),
            Ok(Response::Deposed(term)) => self.depose(term),
            Ok(Response::Conflict) => self.conflicts.push(seat.node),
            Ok(Response::Uncounted) => {
                self.stored.push(Seat { counted: false, ..seat });
                // It has it, but somebody must count in its place; unless somebody sits there for that reason.
                if seat.counted {
                    self.replace(coordinator, seat);
                }
            }
            _ => self.replace(coordinator, seat),
        }
    }

    /// Whoever has not answered by now gets a stand-in; if it answers later, so much the better.
    fn hurry(&mut self, coordinator: &Coordinator) {
        self.hurried = true;
        let me = coordinator.view.load().me;
        for seat in self.pending.clone().into_iter().filter(|seat| seat.node != me) {
            self.replace(coordinator, seat);
        }
    }

    /// Has the next stand-in that nobody has told yet keep it for the owner of this seat.
    fn replace(&mut self, coordinator: &Coordinator, seat: Seat) {
        if self.replaced.contains(&seat.node) {
            return;
        }
        self.replaced.push(seat.node);
        let view = coordinator.view.load();
        let owner = seat.stands_in_for.unwrap_or(seat.node);
        let stand_ins = view.ring.stand_ins(self.delta.region.partition);
        if let Some(node) = stand_ins.iter().copied().find(|node| view.counts(*node) && !self.used.contains(node)) {
            self.keep(coordinator, node, owner);
        }
    }
}

/// The delta that a request tells.
fn told_by(request: Request) -> Delta {
    match request {
        Request::Apply { delta, .. } | Request::Keep { delta, .. } => delta,
        // Nothing else tells any.
        _ => Delta::new(Region { db: Db(0), partition: Partition(0) }),
    }
}

/// The seats that count, given that only owners do if it is `strict`.
pub(super) fn counted(seats: &[Seat], need: Need) -> usize {
    seats.iter().filter(|seat| counts(seat, need.strict)).count()
}

/// Whether a seat counts.
pub(super) fn counts(seat: &Seat, strict: bool) -> bool {
    seat.counted && !(strict && seat.stands_in_for.is_some())
}
