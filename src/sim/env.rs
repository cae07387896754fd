//! The world of one node's one life: its wall clock, its chance, its tasks, and its way into the network.
//!
//! A node that is paused takes no step: each task of it waits at a [`Gate`] whatever woke it, timers included, and goes on,
//! in the order in which they came there, when the gate opens. So a pause is what SIGSTOP is to a process.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::net::Net;
use crate::base::id::NodeId;
use crate::base::rng::Rng;
use crate::env::{CallError, Env};
use crate::peer::{Request, Response};

/// Wall time when a run begins: late enough for clocks that are far behind.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// A clock on the wall: set wrong, going wrong, and jumping when told to. It outlives the node that reads it.
#[derive(Debug)]
pub struct WallClock {
    began: Instant,
    offset_ms: AtomicI64,
    /// Millionths that it is too fast.
    drift: i64,
}

impl WallClock {
    /// A clock that is `offset_ms` ahead now.
    pub fn new(offset_ms: i64, drift: i64) -> WallClock {
        WallClock { began: Instant::now(), offset_ms: AtomicI64::new(offset_ms), drift }
    }

    /// Sets it `offset_ms` ahead of the truth.
    pub fn set(&self, offset_ms: i64) {
        self.offset_ms.store(offset_ms, Ordering::Relaxed);
    }

    fn now_ms(&self) -> u64 {
        let elapsed = self.began.elapsed().as_millis() as i64;
        let wrong = self.offset_ms.load(Ordering::Relaxed) + elapsed * self.drift / 1_000_000;
        EPOCH_MS.saturating_add_signed(elapsed + wrong)
    }
}

/// See the module.
pub struct SimEnv {
    me: NodeId,
    life: u64,
    net: Arc<Net>,
    clock: Arc<WallClock>,
    rng: Mutex<Rng>,
    tasks: Mutex<JoinSet<()>>,
    gate: Arc<Gate>,
    slow_disk: AtomicBool,
}

/// What holds back the tasks of a paused node.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    /// Those that wait, in the order in which they came.
    waiting: Mutex<Vec<Waker>>,
}

/// A task of a node.
struct Gated {
    gate: Arc<Gate>,
    task: BoxFuture<'static, ()>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.gate.closed.load(Ordering::Relaxed) {
            self.gate.hold(context.waker());
            return Poll::Pending;
        }
        self.task.as_mut().poll(context)
    }
}

impl Gate {
    fn hold(&self, waker: &Waker) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|known| known.will_wake(waker)) {
            waiting.push(waker.clone());
        }
    }

    fn set_closed(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
        if !closed {
            std::mem::take(&mut *self.waiting.lock()).into_iter().for_each(Waker::wake);
        }
    }
}

impl SimEnv {
    /// The world of life number `life` of `me`.
    pub fn new(me: NodeId, life: u64, net: Arc<Net>, clock: Arc<WallClock>, rng: Rng) -> Arc<SimEnv> {
        Arc::new(SimEnv {
            me,
            life,
            net,
            clock,
            rng: Mutex::new(rng),
            tasks: Mutex::default(),
            gate: Arc::default(),
            slow_disk: AtomicBool::new(false),
        })
    }

    /// Ends the life: no task of it takes another step.
    pub fn end(&self) {
        self.tasks.lock().abort_all();
    }

    /// Lets no task of it take a step, or lets all go on.
    pub fn set_paused(&self, paused: bool) {
        self.gate.set_closed(paused);
    }

    /// Makes the disk slow, or well again.
    pub fn set_slow_disk(&self, slow: bool) {
        self.slow_disk.store(slow, Ordering::Relaxed);
    }

    /// How long the next batch takes to reach the disk.
    pub fn commit_delay(&self) -> Duration {
        let mut rng = self.rng.lock();
        let longest = match self.slow_disk.load(Ordering::Relaxed) {
            true => 400,
            false if rng.chance(0.02) => 100,
            false => 5,
        };
        Duration::from_millis(rng.below(longest))
    }

    fn note_panics(&self) {
        while let Some(ended) = self.tasks.lock().try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                self.net.oracle.lock().violate(format!("a task of node {} panicked: {error}", self.me));
            }
        }
    }
}

impl Env for SimEnv {
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn random(&self) -> u64 {
        self.rng.lock().next_u64()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.note_panics();
        self.tasks.lock().spawn(Gated { gate: self.gate.clone(), task });
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let delay = Duration::from_millis(self.rng.lock().below(4));
        let (done, when_done) = oneshot::channel();
        self.spawn(Box::pin(async move {
            sleep(delay).await;
            work();
            // Nobody need wait for it.
            let _ = done.send(());
        }));
        Box::pin(async move { drop(when_done.await) })
    }

    fn call(&self, to: NodeId, request: &Request) -> BoxFuture<'static, Result<Response, CallError>> {
        self.net.call((self.me, self.life), to, request)
    }
}
