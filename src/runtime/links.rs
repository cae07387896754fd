//! Links to peers: one connection in each direction between any two nodes. The one that this node dialled carries its
//! requests and their answers; the one it accepted carries the peer's.
//!
//! Many requests are in flight on a link; what is ready to go leaves in one write.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use dashmap::DashMap;
use futures_util::future::{BoxFuture, FutureExt, ready};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, timeout};

use super::meeting::{DISMISSED, Introduction, Welcome, dial};
use crate::base::id::NodeId;
use crate::env::CallError;
use crate::metrics;
use crate::node::{CurrentNode, Node};
use crate::peer::frame::{put_frame, take_frame};
use crate::peer::{Request, Response};

/// Most bytes of requests that may wait for one peer: a peer that does not read is as good as away.
const MAX_WAITING_BYTES: usize = 64 << 20;
/// Most requests to one peer that somebody waits for the answers of.
const MAX_WAITING: usize = 65_536;
/// From so many requests in flight on it is looked for those that nobody waits for any more.
const LEAST_TO_SWEEP: usize = 1024;
/// How long a connection may take to be made and trusted.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How often first attempts are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Pauses between attempts: at first, at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

type Answer = Result<Response, CallError>;

/// All links that this node dialled.
#[derive(Default)]
pub struct Links {
    links: DashMap<NodeId, Arc<Link>>,
}

/// A link to one peer.
#[derive(Default)]
struct Link {
    state: Mutex<LinkState>,
    /// Rung when there is something to write.
    bell: Notify,
    /// Rung when the peer has dialled: it is there.
    there: Notify,
}

#[derive(Default)]
struct LinkState {
    up: bool,
    /// It was made once, or an attempt failed.
    tried: bool,
    out: BytesMut,
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// How many may wait before those are thrown out whose callers have left.
    sweep_at: usize,
}

impl Links {
    /// Sends a request; the answer comes when it comes.
    pub fn call(&self, to: NodeId, request: &Request) -> BoxFuture<'static, Answer> {
        let Some(link) = self.links.get(&to).map(|link| link.value().clone()) else {
            return ready(Err(CallError::NotSent)).boxed();
        };
        match link.send(request) {
            Some(answer) => answer.map(|answer| answer.unwrap_or(Err(CallError::NoAnswer))).boxed(),
            None => ready(Err(CallError::NotSent)).boxed(),
        }
    }

    /// Keeps a link to each member that the node knows, for as long as the process runs.
    pub async fn keep(self: Arc<Self>, current: CurrentNode, introduction: Introduction) {
        loop {
            self.begin_missing(&current, &introduction);
            sleep(RETRY.0).await;
        }
    }

    /// A peer has dialled this node: no pause before it is dialled.
    pub fn is_there(&self, id: NodeId) {
        if let Some(link) = self.links.get(&id) {
            link.there.notify_waiters();
        }
    }

    /// Tells a node that takes another's place who is linked now.
    pub fn introduce(&self, node: &Node) {
        let up = self.links.iter().filter(|link| link.state.lock().up).map(|link| *link.key());
        up.collect::<Vec<_>>().into_iter().for_each(|id| node.met(id));
    }

    /// Waits until each member has been met or is known to be away: what this node believes before that is nothing that
    /// a client should be answered by.
    pub async fn first_attempts(&self, current: &CurrentNode, introduction: &Introduction) {
        self.begin_missing(current, introduction);
        let tried = async {
            while !self.links.iter().all(|link| link.state.lock().tried) {
                sleep(LOOK).await;
            }
        };
        // An attempt ends in its own time; this is only said again.
        let _ = timeout(CONNECT_PATIENCE * 2, tried).await;
    }

    fn begin_missing(&self, current: &CurrentNode, introduction: &Introduction) {
        let node = current.get();
        for id in node.coordinator.view.load().nodes.keys().filter(|id| **id != node.me) {
            if !self.links.contains_key(id) {
                let link = Arc::new(Link::default());
                self.links.insert(*id, link.clone());
                tokio::spawn(link.run(*id, current.clone(), introduction.clone()));
            }
        }
    }
}

impl LinkState {
    /// Whether another request may be put on its way: a peer that neither reads nor answers must not cost memory without
    /// end.
    fn has_room(&mut self) -> bool {
        if self.waiting.len() >= self.sweep_at.max(LEAST_TO_SWEEP) {
            self.waiting.retain(|_, sender| !sender.is_closed());
            self.sweep_at = (self.waiting.len() * 2).min(MAX_WAITING);
        }
        let room = self.out.len() <= MAX_WAITING_BYTES && self.waiting.len() < MAX_WAITING;
        if self.up && !room {
            metrics::PEER_REQUESTS_REFUSED.increment();
        }
        self.up && room
    }

    fn rise(&mut self) {
        self.up = true;
        self.tried = true;
    }
}

impl Link {
    fn send(&self, request: &Request) -> Option<oneshot::Receiver<Answer>> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.has_room() {
            return None;
        }
        let was_empty = state.out.is_empty();
        state.last_id += 1;
        let id = state.last_id;
        put_frame(&mut state.out, id, |out| request.put(out));
        state.waiting.insert(id, sender);
        drop(state);
        if was_empty {
            self.bell.notify_one();
        }
        Some(receiver)
    }

    /// Dials again and again, and serves each connection that is made.
    async fn run(self: Arc<Self>, id: NodeId, current: CurrentNode, introduction: Introduction) {
        let mut pause = RETRY.0;
        let mut said = String::new();
        loop {
            let node = current.get();
            let addr = node.coordinator.view.load().nodes.get(&id).map(|standing| standing.member.peer_addr());
            let Some(addr) = addr else { return };
            let greeting = introduction.hello(&node);
            // Nobody holds a node for as long as a connection lives: its store may have to be closed.
            drop(node);
            match timeout(CONNECT_PATIENCE, dial(&addr, &greeting)).await {
                Ok(Ok(Welcome { stream, membership, former })) => {
                    pause = RETRY.0;
                    let node = current.get();
                    node.was_known(former);
                    node.learn(&membership);
                    node.met(id);
                    self.state.lock().rise();
                    tokio::spawn(node.ping(id));
                    let began = Instant::now();
                    let ended = self.carry(stream).await;
                    tracing::debug!(peer = %id, ?ended, "link ended");
                    self.drop_all();
                    current.get().broke(id);
                    if began.elapsed() >= RETRY.1 {
                        // It may be there all the same: only another attempt says.
                        continue;
                    }
                }
                Ok(Err(error)) if error.kind() == DISMISSED => return current.get().dismiss(&error.to_string()),
                // Whoever answers there will not change its mind by itself: worth a line, once.
                Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied && said != error.to_string() => {
                    tracing::warn!("No link to node {id} at {addr}: {error}");
                    said = error.to_string();
                    self.give_up(&current.get(), id);
                }
                Ok(Err(error)) => {
                    tracing::debug!(peer = %id, %error, "no link");
                    self.give_up(&current.get(), id);
                }
                Err(_) => {
                    tracing::debug!(peer = %id, "no link in time");
                    self.give_up(&current.get(), id);
                }
            }
            let _ = timeout(pause, self.there.notified()).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    async fn carry(&self, stream: TcpStream) -> std::io::Result<()> {
        let (mut reading, mut writing) = stream.into_split();
        let write = async {
            loop {
                let out = std::mem::take(&mut self.state.lock().out);
                if out.is_empty() {
                    self.bell.notified().await;
                } else {
                    writing.write_all(&out).await?;
                    metrics::PEER_OUTPUT_BYTES.add(out.len() as u64);
                }
            }
        };
        let read = async {
            let mut input = BytesMut::new();
            loop {
                input.reserve(16 * 1024);
                let read = reading.read_buf(&mut input).await?;
                if read == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                metrics::PEER_INPUT_BYTES.add(read as u64);
                while let Some(frame) = take_frame(&mut input).map_err(invalid)? {
                    let response = Response::read(frame.body).map_err(invalid)?;
                    if let Some(sender) = self.state.lock().waiting.remove(&frame.id) {
                        let _ = sender.send(Ok(response));
                    }
                }
            }
        };
        tokio::select! {
            biased;
            ended = read => ended,
            ended = write => ended,
        }
    }

    /// No link could be made: the peer is away.
    fn give_up(&self, node: &Node, id: NodeId) {
        self.drop_all();
        node.lost(id);
    }

    /// Nothing that was asked will be answered any more; what was in the buffer may have left or not.
    fn drop_all(&self) {
        let mut state = self.state.lock();
        state.up = false;
        state.tried = true;
        state.out.clear();
        state.waiting.clear();
    }
}

pub(super) fn invalid(error: crate::base::codec::DecodeError) -> std::io::Error {
    std::io::Error::new(ErrorKind::InvalidData, error)
}
