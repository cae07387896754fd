//! Watching the others: pings, what their answers and silences say, and what others say of whoever is silent.
//!
//! Every node pings every other one. Membership is a small set that people decide on, and liveness must be whether *this*
//! node reaches a peer, so nothing is gained by asking a few at random and passing rumours on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Node;
use crate::base::id::NodeId;
use crate::cluster::{Detector, Digest, Doubt, Opinion};
use crate::env::{CallError, Env};
use crate::peer::{Request, Response};

/// How many others are asked about one that is silent.
const WITNESSES: usize = 3;

/// Opinions, and the clock that they count in.
pub(super) struct Watch {
    pub detector: Mutex<Detector>,
    started: Instant,
    /// Rung when there is new evidence.
    rung: Notify,
}

impl Watch {
    pub fn new(patience: Duration) -> Arc<Watch> {
        Arc::new(Watch { detector: Mutex::new(Detector::new(patience)), started: Instant::now(), rung: Notify::new() })
    }

    /// Time since the node was made.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// There is evidence against a peer: it is looked at now.
    pub fn doubt(&self, peer: NodeId, doubt: Doubt) {
        if self.detector.lock().doubted(peer, self.now(), doubt) {
            self.rung.notify_one();
        }
    }

    fn is_live(&self, peer: NodeId) -> bool {
        self.detector.lock().is_live(peer, self.now())
    }
}

/// The world as a coordinator reaches it: what becomes of its calls is evidence.
pub(super) struct Watched {
    pub env: Arc<dyn Env>,
    pub watch: Arc<Watch>,
    /// How long a call may take before its silence says something.
    pub patience: Duration,
}

/// A call that is waited for. One that is given up after a while says as much as one that failed.
struct Waiting {
    watch: Arc<Watch>,
    peer: NodeId,
    began: Instant,
    patience: Duration,
    answered: bool,
}

impl Waiting {
    fn ended(mut self, answer: &Result<Response, CallError>) {
        self.answered = true;
        match answer {
            // Pings may wait behind what is being moved: what arrives meanwhile is a sign of life as well.
            Ok(_) if self.began.elapsed() >= self.patience / 8 => {
                self.watch.detector.lock().heard(self.peer, self.watch.now());
            }
            Ok(_) => {}
            Err(_) => self.watch.doubt(self.peer, Doubt::Unanswered),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.answered && self.began.elapsed() >= self.patience {
            self.watch.doubt(self.peer, Doubt::Unanswered);
        }
    }
}

impl Env for Watched {
    fn now_ms(&self) -> u64 {
        self.env.now_ms()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.env.spawn(task);
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        self.env.block(work)
    }

    fn call(&self, to: NodeId, request: &Request) -> BoxFuture<'static, Result<Response, CallError>> {
        let call = self.env.call(to, request);
        let (watch, patience) = (self.watch.clone(), self.patience);
        Box::pin(async move {
            let waiting = Waiting { watch, peer: to, began: Instant::now(), patience, answered: false };
            let answer = call.await;
            waiting.ended(&answer);
            answer
        })
    }
}

impl Node {
    pub(super) async fn ping_loop(self: Arc<Self>) {
        while !self.is_stopping() {
            let others = self.others();
            let (due, wait) = self.watch.detector.lock().due(&others, self.watch.now());
            for peer in due {
                self.env.spawn(Box::pin(self.clone().ping(peer)));
            }
            self.refresh(false);
            let questionable = self.watch.detector.lock().questionable(&others, self.watch.now());
            for peer in questionable {
                self.env.spawn(Box::pin(self.clone().probe_some(peer)));
            }
            // Evidence does not wait for the next ping.
            let _ = timeout(wait, self.watch.rung.notified()).await;
        }
    }

    /// Asks every member how it is, once, and waits for those that answer: with the question goes how this node is.
    pub async fn ping_all(self: &Arc<Self>) {
        self.refresh(false);
        join_all(self.others().into_iter().map(|id| self.clone().ping(id))).await;
    }

    /// Asks a member how it is.
    pub async fn ping(self: Arc<Self>, peer: NodeId) {
        let digest = self.digest();
        let request = Request::Ping { digest, health: self.health(), sees_you: self.watch.is_live(peer) };
        match timeout(self.options.failure_timeout, self.env.call(peer, &request)).await {
            Ok(Ok(Response::Pong { digest: theirs, health })) => {
                self.watch.detector.lock().answered(peer, self.watch.now(), health);
                self.refresh(false);
                self.note_dispute(peer, digest.disputes(&theirs));
                if theirs.members != digest.members {
                    self.exchange_members(peer).await;
                }
            }
            Ok(Err(CallError::NotSent)) => self.watch.doubt(peer, Doubt::Unsent),
            Ok(Err(CallError::NoAnswer)) => self.watch.doubt(peer, Doubt::Unanswered),
            _ => {}
        }
    }

    async fn exchange_members(&self, peer: NodeId) {
        let call = self.env.call(peer, &Request::Members(self.membership()));
        if let Ok(Ok(Response::Members(theirs))) = timeout(self.options.peer_timeout, call).await {
            self.learn(&theirs);
        }
    }

    /// Two nodes that know the same members and have other layouts would write to other owners: worth a line, once.
    fn note_dispute(&self, peer: NodeId, disputes: bool) {
        let mut disputed = self.disputed.lock();
        if disputes && disputed.insert(peer) {
            let name = self.name_of(peer);
            tracing::warn!("Node {name} ({peer}) knows the same members and has made another layout of them");
        }
        if !disputes {
            disputed.remove(&peer);
        }
    }

    /// Asks a few others when they last heard of a member that is silent. What they say is for people.
    async fn probe_some(self: Arc<Self>, about: NodeId) {
        let mut others = self.others_live(about);
        while others.len() > WITNESSES {
            others.swap_remove(self.env.random() as usize % others.len());
        }
        self.probe(about, u64::MAX, others).await;
    }

    /// Whether any of those who are live here reaches a member, or it reaches this node: in a life no later than `life`.
    pub(super) async fn is_reached_by_anyone(&self, about: NodeId, life: u64) -> bool {
        let hears_me = self.watch.detector.lock().has_asked(about, self.watch.now());
        hears_me || self.watch.is_live(about) || self.probe(about, life, self.others_live(about)).await
    }

    /// Asks `witnesses` when they last heard of a member; says whether one of them reaches it.
    async fn probe(&self, about: NodeId, life: u64, witnesses: Vec<NodeId>) -> bool {
        let asked = witnesses.into_iter().map(|witness| async move {
            let call = self.env.call(witness, &Request::Probe { node: about, life });
            let Ok(Ok(Response::Heard(ago))) = timeout(self.options.peer_timeout, call).await else { return false };
            let ago = ago.map(Duration::from_millis);
            self.watch.detector.lock().testified(about, witness, self.watch.now(), ago);
            ago.is_some_and(|ago| ago <= self.options.failure_timeout)
        });
        join_all(asked).await.into_iter().any(|reached| reached)
    }

    /// How many milliseconds ago a member answered this node; none if it did not, is known to be away, or lives on in a
    /// later life than the one that is meant.
    pub(super) fn heard_ago(&self, about: NodeId, life: u64) -> Option<u64> {
        if self.membership.lock().members.get(&about).is_some_and(|member| member.incarnation > life) {
            return None;
        }
        if about == self.me {
            return Some(0);
        }
        self.watch.detector.lock().silence(about, self.watch.now()).map(|silence| silence.as_millis() as u64)
    }

    /// What is believed of each other member, and why.
    pub fn opinions(&self) -> Vec<(NodeId, Opinion)> {
        let (detector, now) = (self.watch.detector.lock(), self.watch.now());
        self.others().into_iter().map(|id| (id, detector.opinion(id, now))).collect()
    }

    /// Members that know the same members as this node and have another layout.
    pub fn disputed(&self) -> Vec<NodeId> {
        self.disputed.lock().iter().copied().collect()
    }

    /// Whether there are other members, some were live, and now none is.
    pub fn is_lonely(&self) -> bool {
        self.lonely.load(Ordering::Relaxed)
    }

    /// Whether all members that are live, as far as this node knows, take this node for live as well.
    pub fn is_known_to_all(&self) -> bool {
        let view = self.coordinator.view.load();
        let (detector, now) = (self.watch.detector.lock(), self.watch.now());
        self.others().into_iter().all(|id| !view.is_live(id) || detector.has_asked(id, now))
    }

    /// A link to `peer` was made: it is there. How it is, it says when it answers.
    pub fn met(&self, peer: NodeId) {
        self.watch.detector.lock().heard(peer, self.watch.now());
        self.refresh(false);
    }

    /// A link to `peer` broke. It may be there all the same: it is asked at once.
    pub fn broke(&self, peer: NodeId) {
        self.watch.doubt(peer, Doubt::Unanswered);
    }

    /// No link to `peer` could be made.
    pub fn lost(&self, peer: NodeId) {
        self.watch.detector.lock().refused(peer);
        self.refresh(false);
    }

    /// Digest of what this node knows of the members.
    pub fn digest(&self) -> Digest {
        *self.digest.lock()
    }

    /// All other members.
    fn others(&self) -> Vec<NodeId> {
        self.coordinator.view.load().nodes.keys().copied().filter(|id| *id != self.me).collect()
    }

    pub(super) fn others_live(&self, but: NodeId) -> Vec<NodeId> {
        let view = self.coordinator.view.load();
        self.others().into_iter().filter(|id| *id != but && view.is_live(*id)).collect()
    }

    fn name_of(&self, id: NodeId) -> String {
        self.coordinator.view.load().nodes.get(&id).map(|standing| standing.member.name.clone()).unwrap_or_default()
    }
}
