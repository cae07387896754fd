//! A connection between MULTI and EXEC: what it sends is queued, then run.
//!
//! Where all keys lie in one region, what reads and writes them goes to their coordinator as one command; what concerns
//! only the connection or this node (PING, SELECT, PUBLISH) is done here once that is done, so that who is told of the
//! change finds it. Otherwise everything runs in order, one after the other.

use std::sync::Arc;
use std::time::Instant;

use super::{Connection, Running};
use crate::base::id::{Db, Region};
use crate::base::limits::MAX_KEY_BYTES;
use crate::base::num::parse_i64;
use crate::commands::errors::wrong_arity;
use crate::commands::host::Host;
use crate::commands::session::Quorum;
use crate::commands::spec::{Flags, Run};
use crate::commands::transactions::{ABORTED, Multi, NOT_IN_MULTI, WatchedKey, aborted};
use crate::commands::{CommandError, Spec};
use crate::node::Node;
use crate::replication::{Finished, Started, transaction};
use crate::resp::{Arguments, Reply};
use crate::server::dispatch::touched;
use crate::storage::Ticket;

/// Bytes that a queued command takes beside its arguments.
const QUEUED_BYTES: u64 = 64;

/// A command that waits for EXEC.
pub(super) struct Queued {
    spec: &'static Spec,
    args: Arguments,
    /// The database that it will run in.
    db: Db,
}

impl Queued {
    fn is_data(&self) -> bool {
        matches!(self.spec.run, Run::Read(_) | Run::Write(_))
    }

    /// Whether it is done on the connection or on this node, at once.
    fn is_local(&self) -> bool {
        matches!(self.spec.run, Run::Session(_) | Run::Node(_))
    }

    fn keys(&self) -> impl Iterator<Item = (Db, &bytes::Bytes)> {
        let positions = self.spec.keys.positions(&self.args);
        positions.into_iter().filter_map(|at| self.args.get(at)).map(|key| (self.db, key))
    }
}

impl Connection {
    /// Takes a request between MULTI and EXEC.
    pub(super) async fn serve_in_transaction(
        &mut self,
        node: &Arc<Node>,
        called: Result<&'static Spec, CommandError>,
        args: Arguments,
        began: &mut Instant,
    ) {
        let spec = match called {
            Ok(spec) if spec.allows(args.len()) => spec,
            Ok(spec) => {
                self.server.stats.rejected(spec);
                return self.reject(spec, wrong_arity(&spec.full_name()), began);
            }
            Err(error) => {
                self.server.stats.unknown_commands.add(1);
                return self.refuse(error, began);
            }
        };
        if let Err(error) = self.session.admits(spec) {
            return self.reject(spec, error, began);
        }
        self.last = Some(spec);
        match (spec.container, spec.name) {
            ("", "EXEC") => self.exec(node, spec, began).await,
            ("", "DISCARD" | "MULTI" | "WATCH" | "QUIT" | "RESET") => {
                let (started, _) = self.server.start(node, &mut self.session, Ok(spec), args, self.wrote);
                let finished = finished(started).await.0;
                if self.session.multi.is_none() {
                    self.queue.clear();
                }
                self.settle(finished, None, Running { spec: Some(spec), began: *began, held: None }, began);
            }
            _ if spec.flags.has(Flags::NO_MULTI) => self.refuse(NOT_IN_MULTI.into(), began),
            _ => self.enqueue(spec, args, began),
        }
    }

    /// Refuses a command; where that is EXEC itself there is nothing left to wait for.
    fn reject(&mut self, spec: &'static Spec, error: CommandError, began: &mut Instant) {
        if spec.name != "EXEC" {
            return self.refuse(error, began);
        }
        self.refuse(aborted(error), began);
        (self.session.multi, self.session.watched) = (None, None);
        self.queue.clear();
    }

    fn refuse(&mut self, error: CommandError, began: &mut Instant) {
        if let Some(multi) = &mut self.session.multi {
            multi.failed = true;
        }
        self.settle(error.into_reply().into(), None, Running { spec: None, began: *began, held: None }, began);
    }

    fn enqueue(&mut self, spec: &'static Spec, args: Arguments, began: &mut Instant) {
        let most = self.server.settings.config().client_query_buffer_limit;
        if let Some(multi) = &mut self.session.multi {
            multi.queued = multi.queued.saturating_add(1);
            let bytes: u64 = args.iter().map(|arg| arg.len() as u64).sum();
            multi.bytes = multi.bytes.saturating_add(bytes + QUEUED_BYTES);
            // The same bound as for a request that is not whole, and the same end.
            self.session.closing |= multi.bytes > most;
        }
        self.queue.push(Queued { spec, args, db: self.session.db });
        let queued = Finished::reply(Reply::status("QUEUED"));
        self.settle(queued, None, Running { spec: None, began: *began, held: None }, began);
    }

    async fn exec(&mut self, node: &Arc<Node>, spec: &'static Spec, began: &mut Instant) {
        self.drain().await;
        let multi = self.session.multi.take().unwrap_or_default();
        let watched = self.session.watched.take().map(|watched| watched.lock().clone()).unwrap_or_default();
        let queue = std::mem::take(&mut self.queue);
        let running = Running { spec: Some(spec), began: *began, held: None };
        let Multi { failed: false, .. } = multi else {
            return self.settle(Reply::error(ABORTED).into(), None, running, began);
        };
        let writer = queue.iter().map(|queued| queued.spec).find(|spec| spec.flags.has(Flags::WRITE));
        self.server.wait_out_pause(writer.or(queue.first().map(|queued| queued.spec))).await;
        node.replica().keep_up().await;
        let queue = self.placed(queue);
        let (finished, ticket) = match self.region_of_all(node, &queue) {
            Some(region) => match self.exec_at_once(node, region, queue, watched, running, began).await {
                Some((finished, ticket, running)) => return self.settle(finished, ticket, running, began),
                None => return,
            },
            None => self.exec_in_order(node, queue, watched).await,
        };
        self.settle(finished, ticket, running, began);
    }

    /// Each command with the database that it will run in: SELECT may be among them.
    fn placed(&self, mut queue: Vec<Queued>) -> Vec<Queued> {
        let (mut db, databases) = (self.session.db, self.server.databases());
        for queued in &mut queue {
            queued.db = db;
            let chosen = queued.args.get(1).and_then(|arg| parse_i64(arg)).and_then(|index| u8::try_from(index).ok());
            if let ("", "SELECT", Some(chosen)) = (queued.spec.container, queued.spec.name, chosen)
                && u32::from(chosen) < databases
            {
                db = Db(chosen);
            }
        }
        queue
    }

    /// The region of all keys, if one draft can have them.
    fn region_of_all(&self, node: &Node, queue: &[Queued]) -> Option<Region> {
        let fits = |queued: &Queued| {
            let own = |(_, key): (Db, &bytes::Bytes)| key.len() <= MAX_KEY_BYTES;
            queued.is_local() || (queued.is_data() && queued.keys().next().is_some() && queued.keys().all(own))
        };
        if !queue.iter().all(fits) {
            return None;
        }
        node.coordinator.one_region(queue.iter().filter(|queued| queued.is_data()).flat_map(Queued::keys))
    }

    /// One command for all that reads and writes; none if that is under way and nothing is left to do here.
    async fn exec_at_once(
        &mut self,
        node: &Arc<Node>,
        region: Region,
        queue: Vec<Queued>,
        watched: Vec<WatchedKey>,
        running: Running,
        began: &mut Instant,
    ) -> Option<(Finished, Option<Ticket>, Running)> {
        let coordinator = &node.coordinator;
        let lies_there = |key: &WatchedKey| coordinator.region_of(key.db, &key.key) == region;
        let (inside, outside): (Vec<_>, Vec<_>) = watched.into_iter().partition(lies_there);
        if let Some(finished) = changed(node, self.session.quorum, &outside).await {
            return Some((finished, None, running));
        }
        let data = queue.iter().filter(|queued| queued.is_data());
        let task = transaction::task(region.db, self.session.quorum, &inside, data.map(|queued| &queued.args));
        let keys = touched(task.spec, &task.args);
        let started = coordinator.start(task);
        if queue.iter().all(Queued::is_data) {
            queue.iter().for_each(|queued| self.server.stats.ran(queued.spec, std::time::Duration::ZERO, false));
            self.take_started(started, keys, running, began).await;
            return None;
        }
        let (finished, ticket) = finished(started).await;
        let Reply::Array(replies) = finished.reply else { return Some((finished, ticket, running)) };
        let mut replies = replies.into_iter();
        let mut all = Vec::with_capacity(queue.len());
        for queued in queue {
            all.push(match queued.is_data() {
                true => replies.next().unwrap_or(Reply::Nil),
                false => self.run_queued(node, queued).await.0.reply,
            });
        }
        Some((Finished { reply: Reply::Array(all), wrote: finished.wrote }, ticket, running))
    }

    /// Everything in order, each for itself.
    async fn exec_in_order(
        &mut self,
        node: &Arc<Node>,
        queue: Vec<Queued>,
        watched: Vec<WatchedKey>,
    ) -> (Finished, Option<Ticket>) {
        if let Some(finished) = changed(node, self.session.quorum, &watched).await {
            return (finished, None);
        }
        let (mut replies, mut last) = (Vec::with_capacity(queue.len()), None);
        for queued in queue {
            let (finished, ticket) = self.run_queued(node, queued).await;
            last = last.max(ticket);
            self.wrote = finished.wrote.or(self.wrote);
            replies.push(finished.reply);
        }
        (Finished { reply: Reply::Array(replies), wrote: self.wrote }, last)
    }

    async fn run_queued(&mut self, node: &Arc<Node>, queued: Queued) -> (Finished, Option<Ticket>) {
        let (spec, began) = (queued.spec, Instant::now());
        let (started, _) = self.server.start(node, &mut self.session, Ok(spec), queued.args, self.wrote);
        let (finished, ticket) = finished(started).await;
        self.server.stats.ran(spec, began.elapsed(), finished.reply.is_error());
        (finished, ticket)
    }
}

/// The answer of an EXEC of which a watched key has changed, or cannot be looked at.
async fn changed(node: &Node, quorum: Quorum, watched: &[WatchedKey]) -> Option<Finished> {
    match node.coordinator.is_unchanged(quorum, watched).await {
        Ok(true) => None,
        Ok(false) => Some(Reply::NilArray.into()),
        Err(finished) => Some(finished),
    }
}

/// What something came to that was started; with it the commit that it waits for.
async fn finished(started: Started) -> (Finished, Option<Ticket>) {
    match started {
        Started::Done(finished) => (finished, None),
        Started::Committed(finished, ticket) => (finished, Some(ticket)),
        Started::Later(later) => (later.await, None),
    }
}
