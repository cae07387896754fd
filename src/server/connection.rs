//! A connection: reads what has come, starts every whole request in it, and writes all replies at once.
//!
//! Requests of a pipeline that this node can evaluate take effect at once, in order; their replies wait together for the
//! one commit that has them all. Those that need other nodes run side by side, unless they touch a key that one before
//! them touches. Nothing is read while replies are written, so a client that does not read is not served further, and
//! cannot make this node remember more than one batch for it.

mod nudge;
mod pushes;
mod transaction;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, ready};
use futures_util::stream::FuturesOrdered;
use smallvec::SmallVec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use self::transaction::Queued;
use super::Server;
use super::clients::Client;
use super::dispatch::{Touched, Wrote, touched};
use super::slow::Held;
use crate::commands::host::Host;
use crate::commands::session::Face;
use crate::commands::spec::{Flags, Group, Run};
use crate::commands::{Session, Spec};
use crate::node::Node;
use crate::replication::{Finished, Started};
use crate::resp::{Arguments, Decoder, Limits, Reply, encode};
use crate::storage::{StoreError, Ticket};

/// Bytes that a read makes room for.
const READ_BYTES: usize = 16 * 1024;
/// Replies of a pipeline are written when they reach this size, not only at its end.
const FLUSH_BYTES: usize = 256 * 1024;

/// Replies up to this size fall under no limit, as in Redis: however small the limit is, it can be set right again.
const UNLIMITED_BYTES: usize = 16 * 1024;

/// How often a paused command looks whether the pause has been lifted.
const PAUSE_STEP: Duration = Duration::from_millis(50);

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client left, or its socket failed.
    Gone,
    /// It is to end once what is in the reply buffer is written.
    AfterReply,
}

/// What is remembered of a command while it runs.
struct Running {
    spec: Option<&'static Spec>,
    began: Instant,
    held: Option<Held>,
}

/// A connection being served.
struct Connection {
    server: Arc<Server>,
    client: Arc<Client>,
    session: Session,
    decoder: Decoder,
    input: BytesMut,
    output: BytesMut,
    /// Replies that wait for other nodes, and those after them.
    waiting: FuturesOrdered<BoxFuture<'static, (Finished, Running)>>,
    /// Keys that the waiting ones touch.
    touched: SmallVec<[u64; 8]>,
    /// The commit that replies in the buffer wait for, and where in the buffer the first of them begins.
    commit: Option<(Ticket, usize)>,
    wrote: Wrote,
    /// Commands that wait for EXEC.
    queue: Vec<Queued>,
    last: Option<&'static Spec>,
}

impl Server {
    /// Serves a client until it leaves or is ended.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, session: Session) {
        let id = session.id;
        let client = self.clients.add(session.clone());
        let connection = Connection {
            decoder: Decoder::new(self.limits(session.authenticated)),
            session,
            input: BytesMut::new(),
            output: BytesMut::new(),
            waiting: FuturesOrdered::new(),
            touched: SmallVec::new(),
            commit: None,
            wrote: None,
            queue: Vec::new(),
            last: None,
            client: client.clone(),
            server: self.clone(),
        };
        tokio::select! {
            biased;
            () = client.kill.notified() => {}
            () = connection.run(stream) => {}
        }
        self.clients.remove(id);
        self.pubsub.forget(id);
    }

    fn limits(&self, authenticated: bool) -> Limits {
        let max_bulk = usize::try_from(self.settings.config().proto_max_bulk_len).unwrap_or(usize::MAX);
        Limits { max_bulk, authenticated, ..Limits::default() }
    }
}

impl Connection {
    async fn run(mut self, mut stream: TcpStream) {
        loop {
            let read = match self.session.subscribed.any() {
                true => self.read_or_hear(&mut stream).await,
                false => self.read(&mut stream).await,
            };
            if read.is_err() {
                return;
            }
            // Tickets are its committer's: it stays the same for the batch, and nobody holds it longer.
            let node = self.server.node();
            let ended = self.serve_batch(&node, &mut stream).await;
            self.publish();
            match ended {
                Ok(()) => {}
                Err(End::Gone) => return,
                Err(End::AfterReply) => {
                    let _ = self.finish_batch(&node, &mut stream).await;
                    let _ = stream.shutdown().await;
                    return;
                }
            }
        }
    }

    async fn read(&mut self, stream: &mut TcpStream) -> Result<(), End> {
        let limit = self.server.settings.config().client_query_buffer_limit;
        if (self.input.len() + self.decoder.held()) as u64 > limit {
            tracing::debug!(client = self.session.id, "query buffer limit exceeded");
            return Err(End::Gone);
        }
        self.input.reserve(READ_BYTES);
        let reading = stream.read_buf(&mut self.input);
        let read = match self.server.settings.config().timeout {
            Some(idle) if !self.session.subscribed.any() => timeout(idle, reading).await.map_err(|_| End::Gone)?,
            _ => reading.await,
        };
        match read {
            Ok(0) | Err(_) => Err(End::Gone),
            Ok(count) => {
                self.server.stats.reads.add(1);
                self.server.stats.input_bytes.add(count as u64);
                Ok(())
            }
        }
    }

    /// Starts every whole request that has come, and writes the replies.
    async fn serve_batch(&mut self, node: &Arc<Node>, stream: &mut TcpStream) -> Result<(), End> {
        let mut began = Instant::now();
        loop {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(args)) => {
                    self.serve_one(node, args, &mut began).await;
                    if self.session.closing {
                        return Err(End::AfterReply);
                    }
                    if self.output.len() >= FLUSH_BYTES {
                        self.finish_batch(node, stream).await?;
                        began = Instant::now();
                    }
                }
                Ok(None) => return self.finish_batch(node, stream).await,
                Err(error) => {
                    self.drain().await;
                    encode(&Reply::Error(error.reply()), self.session.protocol, &mut self.output);
                    return Err(End::AfterReply);
                }
            }
        }
    }

    async fn serve_one(&mut self, node: &Arc<Node>, mut args: Arguments, began: &mut Instant) {
        let called = self.server.lookup(&mut args);
        if self.session.multi.is_some() {
            return self.serve_in_transaction(node, called, args, began).await;
        }
        let spec = called.as_ref().ok().copied();
        if self.session.face == Face::Cluster
            && let Some(moved) = self.nudge(node, spec, &args)
        {
            return self.settle(moved.into(), None, Running { spec: None, began: *began, held: None }, began);
        }
        if !self.waiting.is_empty() && !self.may_overlap(spec, &args) {
            self.drain().await;
        }
        self.server.wait_out_pause(spec).await;
        node.replica().keep_up().await;
        let keys = spec.and_then(|spec| touched(spec, &args));
        let authenticated = self.session.authenticated;
        let held = self.server.slow.hold(spec, &args);
        let (started, spec) = self.server.start(node, &mut self.session, called, args, self.wrote);
        if authenticated != self.session.authenticated {
            self.decoder.set_limits(self.server.limits(self.session.authenticated));
        }
        self.last = spec.or(self.last);
        let running = Running { spec, began: *began, held };
        self.take_started(started, keys, running, began).await;
    }

    /// Takes what was started: an answer that is there, or one that comes. What may touch anything is waited for.
    async fn take_started(&mut self, started: Started, keys: Option<Touched>, running: Running, began: &mut Instant) {
        match started {
            Started::Done(finished) => self.settle(finished, None, running, began),
            Started::Committed(finished, ticket) => self.settle(finished, Some(ticket), running, began),
            Started::Later(later) => {
                self.waiting.push_back(Box::pin(async move { (later.await, running) }));
                match keys {
                    Some(keys) => self.touched.extend(keys),
                    None => self.drain().await,
                }
            }
        }
    }

    /// Takes an answer that is there; behind ones that are not, it waits for its turn.
    fn settle(&mut self, finished: Finished, ticket: Option<Ticket>, running: Running, began: &mut Instant) {
        *began = Instant::now();
        if let Some(ticket) = ticket {
            let at = self.commit.map_or(self.output.len(), |(_, at)| at);
            self.commit = Some((ticket, at));
        }
        if self.waiting.is_empty() {
            self.put(finished, running);
        } else {
            self.waiting.push_back(Box::pin(ready((finished, running))));
        }
    }

    fn put(&mut self, finished: Finished, running: Running) {
        let Finished { reply, wrote } = finished;
        self.wrote = wrote.or(self.wrote);
        let took = running.began.elapsed();
        if let Some(spec) = running.spec {
            self.server.stats.ran(spec, took, reply.is_error());
            if matches!(spec.run, Run::Read(_) | Run::Write(_)) {
                self.server.current.load().coordinator.note(took, &reply);
            }
            self.server.stats.looked_up(spec, &reply);
        }
        if let Some(held) = running.held {
            self.server.slow.note(held, took, &self.session);
        }
        if let Reply::Error(text) = &reply {
            self.server.stats.error(text);
        }
        if self.session.wants_reply() || matches!(reply, Reply::Several(_)) {
            encode(&reply, self.session.protocol, &mut self.output);
        }
    }

    /// Whether a command may start while others wait: it touches keys, and none of theirs.
    fn may_overlap(&self, spec: Option<&'static Spec>, args: &Arguments) -> bool {
        let keys = spec.and_then(|spec| touched(spec, args));
        keys.is_some_and(|keys| keys.iter().all(|key| !self.touched.contains(key)))
    }

    async fn drain(&mut self) {
        while let Some((finished, running)) = self.waiting.next().await {
            self.put(finished, running);
        }
        self.touched.clear();
    }

    /// Waits for what the replies depend on, then writes them.
    async fn finish_batch(&mut self, node: &Node, stream: &mut TcpStream) -> Result<(), End> {
        self.drain().await;
        let mut ended = Ok(());
        if let Some((ticket, at)) = self.commit.take()
            && let Err(error) = self.server.committed(node, ticket).await
        {
            // None of these may be called done. Which they were the client cannot tell from here on: it has to ask.
            self.output.truncate(at);
            encode(&Finished::unknown(error).reply, self.session.protocol, &mut self.output);
            ended = Err(End::Gone);
        }
        if self.exceeds_its_limit() {
            let Session { id, addr, .. } = &self.session;
            tracing::warn!("Client id={id} addr={addr} closed for overcoming of output buffer limits.");
            return Err(End::Gone);
        }
        if !self.output.is_empty() {
            self.write(stream).await?;
        }
        ended
    }

    async fn write(&mut self, stream: &mut TcpStream) -> Result<(), End> {
        self.server.stats.writes.add(1);
        self.server.stats.output_bytes.add(self.output.len() as u64);
        let written = stream.write_all(&self.output).await;
        self.note_output();
        written.map_err(|_| End::Gone)
    }

    /// Whether the replies of this batch are more than `client-output-buffer-limit` lets wait.
    fn exceeds_its_limit(&self) -> bool {
        let waiting = self.output.len().saturating_sub(UNLIMITED_BYTES) as u64;
        waiting > 0 && (1..=waiting).contains(&self.server.settings.config().output_limit.hard)
    }

    fn note_output(&mut self) {
        let size = self.output.len();
        self.output.clear();
        let mut state = self.client.state.lock();
        state.output_peak = state.output_peak.max(size);
        if self.output.capacity() > FLUSH_BYTES * 2 {
            self.output = BytesMut::new();
        }
    }

    /// Lets others see how the connection is now.
    fn publish(&mut self) {
        let mut state = self.client.state.lock();
        state.active = tokio::time::Instant::now();
        state.last = self.last;
        state.query_buffer = self.input.len();
        let seen = &state.session;
        let own = &self.session;
        let changed =
            (seen.db, seen.protocol, seen.authenticated, seen.no_evict, seen.no_touch, seen.subscribed, seen.multi)
                != (own.db, own.protocol, own.authenticated, own.no_evict, own.no_touch, own.subscribed, own.multi)
                || (&seen.name, &seen.lib_name, &seen.lib_ver, &seen.user)
                    != (&own.name, &own.lib_name, &own.lib_ver, &own.user);
        if changed {
            state.session = own.clone();
        }
    }
}

impl Server {
    /// Waits for what the replies of a batch depend on.
    async fn committed(&self, node: &Node, ticket: Ticket) -> Result<(), StoreError> {
        let began = Instant::now();
        let committed = node.replica().committer().wait(ticket).await;
        // One write of the batch stands for all: they waited for the same.
        node.coordinator.admission.note(began.elapsed());
        committed
    }

    /// Waits while CLIENT PAUSE says so.
    async fn wait_out_pause(&self, spec: Option<&'static Spec>) {
        loop {
            let Some(pause) = *self.pause.lock() else { return };
            let now = self.now_ms();
            let writes = spec.is_some_and(|spec| spec.flags.has(Flags::WRITE));
            let exempt = spec.is_some_and(|spec| spec.group == Group::Connection);
            if now >= pause.until_ms || exempt || (pause.writes_only && !writes) {
                return;
            }
            let left = Duration::from_millis(pause.until_ms - now);
            sleep(left.min(PAUSE_STEP)).await;
        }
    }
}
