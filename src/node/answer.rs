//! What this node answers its peers.
//!
//! A request takes effect before [`Node::answer`] returns, in the order in which requests arrive; only what must wait for
//! the disk or for others is left to the future it returns.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, ready};
use tokio::time::{Instant, timeout};

use super::Node;
use crate::base::id::{Db, NodeId, Partition, Region, Term};
use crate::base::kind::Kind;
use crate::commands::session::Quorum;
use crate::env::blocking;
use crate::metrics::{self, Cause};
use crate::model::{Delta, Fault};
use crate::peer::{Request, Response};
use crate::replica::{Applied, LeafHashes};
use crate::replication::admission::Work;
use crate::replication::sync::PAGE_BYTES;
use crate::replication::{Finished, Started, Task, parcels};
use crate::storage::Ticket;

/// What will be answered.
type Answer = BoxFuture<'static, Response>;

impl Node {
    /// Does what `from` asks, and answers.
    pub fn answer(self: &Arc<Self>, from: NodeId, request: Request) -> Answer {
        if !concerns_no_rows(&request)
            && let Err(fault) = self.replica().check_sound()
        {
            // What memory knows may not be what the store has: whatever is asked, others know better.
            return now(refused(fault));
        }
        match request {
            Request::Ping { health, sees_you, .. } => {
                self.watch.detector.lock().asked(from, self.watch.now(), health, sees_you);
                self.refresh(false);
                now(Response::Pong { digest: self.digest(), health: self.health() })
            }
            Request::Members(theirs) => {
                self.learn(&theirs);
                now(Response::Members(self.membership()))
            }
            Request::Execute { hops, db, quorum, args } => self.execute(hops, db, quorum, args),
            Request::Apply { delta, term, conditional } => self.apply(from, delta, term, conditional),
            Request::Keep { owner, delta, conditional } => self.keep_hint(from, owner, delta, conditional),
            Request::Claim(claims) => self.grant(&claims),
            Request::Row { region, row, dots } => match self.replica().knows(region) {
                // What it lacks would look as if it had never been.
                true if self.replica().is_amnesiac() => now(Response::Uncounted),
                true => now(self.replica().answer(region, &row, &dots).map_or_else(refused, Response::Row)),
                false => now(stranger(region)),
            },
            Request::Roots(partitions) => {
                let all = partitions.iter().flat_map(|p| self.replica().digests(self.options.databases, *p));
                now(Response::Roots { regions: all.collect(), counted: self.health().counted })
            }
            Request::Snapshot(region) => self.snapshot(region),
            Request::Leaves { region, branches } => {
                let leaves = branches.iter().flat_map(|branch| self.replica().leaves(region, usize::from(*branch)));
                now(Response::Leaves(leaves.collect()))
            }
            Request::LeafRows { region, leaves, from, settling } => {
                let work = if settling { Work::Settling } else { Work::Repair };
                self.leaf_rows(region, leaves, from, work)
            }
            Request::Incarnation(region) => now(Response::Number(self.replica().incarnation(region))),
            Request::Scan { region, from, count, of } => self.scan(region, from, count, of),
            Request::Tally(regions) => {
                let coordinator = self.coordinator.clone();
                async move { coordinator.tally_here(&regions).await.map_or_else(Response::Refused, Response::Tally) }
                    .boxed()
            }
            Request::Clear(regions) => {
                let coordinator = self.coordinator.clone();
                async move { coordinator.clear_here(&regions).await.map_or_else(Response::Refused, |()| Response::Done) }
                    .boxed()
            }
            Request::Has { region, dot, synced } => {
                let coordinator = self.coordinator.clone();
                async move {
                    let limit = tokio::time::Instant::now() + coordinator.patience;
                    let has = coordinator.replica.has(region, dot) && (!synced || coordinator.synced(limit).await);
                    if has { Response::Done } else { Response::Refused("not here".into()) }
                }
                .boxed()
            }
            Request::Publish(news) => now(Response::Number(self.coordinator.hear(&news) as u64)),
            Request::Listening(asked) => {
                now(Response::Reply { reply: self.coordinator.listening_here(&asked), wrote: None })
            }
            Request::Probe { node, life } => now(Response::Heard(self.heard_ago(node, life))),
            Request::Pull(region) => self.clone().pull(from, region).boxed(),
        }
    }

    /// Runs a forwarded command as its coordinator.
    fn execute(self: &Arc<Self>, hops: u8, db: Db, quorum: Quorum, args: Vec<Bytes>) -> Answer {
        let name = args.first().map(|name| &name[..]).unwrap_or_default();
        let found = parcels::internal(name).or_else(|| crate::commands::resolve(&args).ok());
        let Some(spec) = found.filter(|spec| spec.allows(args.len()) && u16::from(db.0) < self.options.databases)
        else {
            return now(Response::Refused("this node does not know the command".into()));
        };
        let task = Task { spec, args: args.into_iter().collect(), db, quorum, hops: hops.max(1) };
        let reply = |Finished { reply, wrote }| Response::Reply { reply, wrote };
        match self.coordinator.start(task) {
            Started::Done(finished) => now(reply(finished)),
            Started::Committed(finished, ticket) => {
                let coordinator = self.coordinator.clone();
                async move { reply(coordinator.committed(finished, ticket).await) }.boxed()
            }
            Started::Later(later) => {
                let (coordinator, began) = (self.coordinator.clone(), Instant::now());
                async move {
                    let finished = later.await;
                    coordinator.note(began.elapsed(), &finished.reply);
                    reply(finished)
                }
                .boxed()
            }
        }
    }

    /// Applies a delta, always; but one of a coordinator that was deposed, or that had not seen all there is, is not
    /// acknowledged as that coordinator wants it.
    fn apply(self: &Arc<Self>, from: NodeId, delta: Delta, term: Option<Term>, conditional: bool) -> Answer {
        let region = delta.region;
        if !self.replica().knows(region) {
            return now(stranger(region));
        }
        let applied = match self.replica().apply(&delta, self.env.now_ms(), conditional) {
            Ok(applied) => applied,
            Err(fault) => return now(refused(fault)),
        };
        // After it was applied: whoever is granted a later term from now on will read it.
        let known = self.replica().term(region.partition);
        if let Some(term) = term.filter(|term| *term > known) {
            // The node that uses it has it stored; what is lost here is heard of again.
            let _ = self.replica().adopt(region.partition, term);
        }
        let deposed = term.filter(|term| *term < known).map(|_| Response::Deposed(known));
        self.applied(from, region, applied, deposed)
    }

    /// Applies a delta for an owner that is away, and keeps it for that owner.
    fn keep_hint(self: &Arc<Self>, from: NodeId, owner: NodeId, delta: Delta, conditional: bool) -> Answer {
        if !self.replica().knows(delta.region) {
            return now(stranger(delta.region));
        }
        match self.replica().keep(owner, &delta, self.env.now_ms(), conditional) {
            Ok(applied) => self.applied(from, delta.region, applied, None),
            Err(fault) => now(refused(fault)),
        }
    }

    /// Acknowledges a delta once it is stored; what shows a gap is fetched from the sender at once.
    fn applied(self: &Arc<Self>, from: NodeId, region: Region, applied: Applied, deposed: Option<Response>) -> Answer {
        for row in applied.gaps {
            metrics::GAPS.increment();
            // What is not fetched now, a sync brings.
            if let Ok(place) = self.fetches.clone().try_acquire_owned() {
                let fetching = self.clone().fetch(from, region, row);
                self.env.spawn(Box::pin(fetching.map(|()| drop(place))));
            }
        }
        let done = match deposed {
            Some(deposed) => deposed,
            None if applied.conflict => Response::Conflict,
            None if self.replica().is_amnesiac() => Response::Uncounted,
            None => Response::Done,
        };
        self.stored(applied.ticket, done)
    }

    /// Grants terms unless later ones are known. Who may have forgotten a grant, or what was acknowledged, grants nothing
    /// that counts.
    fn grant(&self, claims: &[(Partition, Term)]) -> Answer {
        match self.replica().grant(claims) {
            Ok((_, ticket)) if self.replica().is_amnesiac() => self.stored(Some(ticket), Response::Uncounted),
            Ok((terms, ticket)) => self.stored(Some(ticket), Response::Terms(terms)),
            Err(fault) => now(refused(fault)),
        }
    }

    /// Fetches a row of which an earlier change did not arrive (rule 11).
    async fn fetch(self: Arc<Self>, from: NodeId, region: Region, row: Bytes) {
        let Ok(cell) = self.replica().cell(region, &row) else { return };
        let request = Request::Row { region, row: row.clone(), dots: cell.dots().collect() };
        let call = self.env.call(from, &request);
        if let Ok(Ok(Response::Row(answer))) = timeout(self.options.peer_timeout, call).await {
            let delta = Delta::of_row(region, row, answer.change);
            match self.replica().apply(&delta, self.env.now_ms(), false) {
                Ok(_) => metrics::repaired(Cause::Gap, 1),
                Err(fault) => tracing::debug!(%fault, "a fetched row was not applied"),
            }
        }
    }

    /// Answers `done` once the store has what came before it.
    fn stored(&self, ticket: Option<Ticket>, done: Response) -> Answer {
        let committer = self.replica().committer().clone();
        let Some(ticket) = ticket.filter(|ticket| *ticket > committer.committed()) else { return now(done) };
        async move {
            match committer.wait(ticket).await {
                Ok(()) => done,
                Err(error) => Response::Refused(error.to_string()),
            }
        }
        .boxed()
    }

    fn snapshot(&self, region: Region) -> Answer {
        if !self.replica().knows(region) {
            return now(stranger(region));
        }
        let committer = self.replica().committer().clone();
        match self.replica().snapshot(region) {
            Ok((snapshot, ticket)) => async move {
                // Rows are read from the store later: it must have all that this clock says.
                match committer.wait(ticket).await {
                    Ok(()) => Response::Snapshot(snapshot),
                    Err(error) => Response::Refused(error.to_string()),
                }
            }
            .boxed(),
            Err(fault) => now(refused(fault)),
        }
    }

    /// Background work of another node, and so of this one.
    fn leaf_rows(self: &Arc<Self>, region: Region, leaves: Vec<LeafHashes>, from: Bytes, work: Work) -> Answer {
        if !self.replica().knows(region) {
            return now(stranger(region));
        }
        let this = self.clone();
        async move {
            let replica = this.replica().clone();
            let read = move || replica.difference(region, &leaves, &from, PAGE_BYTES);
            let hands = this.coordinator.admission.hands(work).await;
            let found = blocking(&*this.env, read).await;
            drop(hands);
            match found {
                Some(Ok(found)) => {
                    let (rows, bytes) = found.weight();
                    // The other side waits for this, and not for ever.
                    this.coordinator.admission.take_rows_within(work, rows, bytes, this.options.peer_timeout).await;
                    Response::LeafRows(found)
                }
                Some(Err(fault)) => refused(fault),
                None => Response::Refused("stopping".into()),
            }
        }
        .boxed()
    }

    fn scan(self: &Arc<Self>, region: Region, from: u64, count: u32, of: Option<Kind>) -> Answer {
        if !self.replica().knows(region) {
            return now(stranger(region));
        }
        let coordinator = self.coordinator.clone();
        async move {
            match coordinator.page_here(region, from, count, of).await {
                Ok((keys, next)) => Response::Keys { keys, next },
                Err(why) => Response::Refused(why),
            }
        }
        .boxed()
    }
}

/// Whether a request can be answered whatever the store is like.
fn concerns_no_rows(request: &Request) -> bool {
    matches!(
        request,
        Request::Ping { .. }
            | Request::Members(_)
            | Request::Probe { .. }
            | Request::Publish(_)
            | Request::Listening(_)
    )
}

fn now(response: Response) -> Answer {
    ready(response).boxed()
}

fn refused(fault: Fault) -> Response {
    Response::Refused(fault.to_string())
}

fn stranger(region: Region) -> Response {
    Response::Refused(format!("{region} does not exist here"))
}
