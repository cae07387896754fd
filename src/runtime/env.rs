//! The world in production: the system's clock, threads and sockets.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, FutureExt};

use super::links::Links;
use crate::base::id::NodeId;
use crate::env::{CallError, Env};
use crate::peer::{Request, Response};

/// Production's [`Env`].
pub struct TokioEnv {
    links: Arc<Links>,
}

impl TokioEnv {
    /// A world that reaches peers over `links`.
    pub fn new(links: Arc<Links>) -> Self {
        TokioEnv { links }
    }
}

impl Env for TokioEnv {
    fn now_ms(&self) -> u64 {
        wall_ms()
    }

    fn random(&self) -> u64 {
        random()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }

    fn block(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        tokio::task::spawn_blocking(work).map(|_| ()).boxed()
    }

    fn call(&self, to: NodeId, request: &Request) -> BoxFuture<'static, Result<Response, CallError>> {
        self.links.call(to, request)
    }
}

/// Milliseconds since the Unix epoch; 0 for a clock before it.
pub fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// A number that nobody can guess.
pub fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without the system's randomness no id would be an id.
    getrandom::fill(&mut bytes).unwrap_or_else(|error| {
        tracing::error!("the system gives no random numbers: {error}");
        std::process::abort()
    });
    u64::from_be_bytes(bytes)
}
