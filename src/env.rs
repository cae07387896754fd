//! The node's gateway to the world: wall time, chance, tasks and peers. Nothing else reaches out.
//!
//! There are two: one of sockets and threads (runtime) and one of a seed (sim). Waiting is done with the runtime's own
//! timers, which a simulation pauses and moves on by itself.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use crate::base::id::NodeId;
use crate::peer::{Request, Response};

/// Why a request to a peer has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It never left: the peer has not done it.
    #[error("not sent")]
    NotSent,
    /// It may have arrived: the peer may have done it, or may yet.
    #[error("no answer")]
    NoAnswer,
}

/// The world of one node.
pub trait Env: Send + Sync + 'static {
    /// Wall time in milliseconds since the Unix epoch. It may jump.
    fn now_ms(&self) -> u64;

    /// A random number.
    fn random(&self) -> u64;

    /// Lets work go on by itself. It ends with the node.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Runs work that blocks on the disk or takes long, off the threads that serve sockets; resolves when it is done.
    fn block(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;

    /// Asks a peer. The request leaves, in the order of calls, before this returns; dropping the answer drops nothing
    /// else. Never waits for ever: a link that is lost is an error; how long to wait otherwise is the caller's.
    fn call(&self, to: NodeId, request: &Request) -> BoxFuture<'static, Result<Response, CallError>>;
}

/// Runs blocking work through `env` and brings back what it made; none if the node ended meanwhile.
pub async fn blocking<T: Send + 'static>(env: &dyn Env, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let made = Arc::new(Mutex::new(None));
    let slot = made.clone();
    env.block(Box::new(move || *slot.lock() = Some(work()))).await;
    made.lock().take()
}
